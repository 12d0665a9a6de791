"""Samples of one modality, their labels, and stable identities."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from regrain.data.images import ImageForm, fitted_images
from regrain.data.packed import keys_of, packed
from regrain.data.samples import Modality, Samples, SeriesSamples, TensorSamples
from regrain.errors import UserError, nearest
from regrain.labels import Labels
from regrain.spelling import counted


class Batch(NamedTuple):
    """A batch of samples for training.

    views : tuple of Tensor or dict, one per view, each of B samples
    labels : LongTensor (B, levels needed), -1 unknown
    ids : LongTensor (B,), the samples' identities (:attr:`Dataset.keys`)
    """

    views: tuple[Any, ...]
    labels: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Dataset:
    """Samples of one modality with labels and stable ids."""

    samples: Samples
    labels: Labels
    """Of the same length."""
    ids: np.ndarray
    """Array of str (N,): unique identities, from the data's id column or path, else the row number. Random draws belong
    to them, so that the order of rows changes nothing. They are kept, as splits and groups are, by
    :func:`~regrain.data.packed.packed`.
    """
    name: str = "data"
    splits: np.ndarray | None = None
    """Array of str (N,): the split of every sample, such as ``train`` and ``test``."""
    groups: np.ndarray | None = None
    """Array of str (N,): what must not be torn apart by a split: the subject, the product. The rows of a group are in
    time order, where there is one: the protocol ``personalised`` learns from a subject's first rows and is judged on
    the rest.
    """
    notes: dict[str, Any] = field(default_factory=dict)
    """Notes of the reader: source, licence, rows left out and why, the default views."""
    _keys: tuple[np.ndarray, Tensor] | None = field(default=None, repr=False, compare=False)
    """The ids that were hashed, and their keys: these outlive changes of everything else."""

    def __post_init__(self) -> None:
        for name in ("ids", "splits", "groups"):
            texts = getattr(self, name)
            if texts is not None:
                object.__setattr__(self, name, packed(texts))
        lengths = {"samples": len(self.samples), "labels": len(self.labels), "ids": len(self.ids)}
        if self.splits is not None:
            lengths["splits"] = len(self.splits)
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        if len(set(lengths.values())) != 1:
            raise UserError(f"the parts of a data set differ in length: {lengths}")

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.samples.shape))
        parts = [f"{name} {int(np.sum(self.splits == name))}" for name in self.split_names]
        return (
            f"<Dataset {self.name}: {len(self)} {self.modality} samples{f' of {shape}' if shape else ''}; "
            f"levels: {self.labels.in_words() or 'none'}{'; splits: ' + ', '.join(parts) if parts else ''}>"
        )

    @property
    def messages(self) -> tuple[str, ...]:
        """Sentences of the reader: columns that it guessed, rows that it left out."""
        return tuple(self.notes.get("messages", ()))

    @property
    def modality(self) -> Modality:
        """One of image, text, vector, series."""
        return self.samples.modality

    @property
    def keys(self) -> Tensor:
        """LongTensor (N,): a hash of each id, stable over runs, machines and subsets."""
        if self._keys is None or self._keys[0] is not self.ids:
            object.__setattr__(self, "_keys", (self.ids, torch.from_numpy(keys_of(self.ids, len(self.ids)))))
        assert self._keys is not None
        return self._keys[1]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, str | None], str]:
        """One sample: its raw value, its class name per level (None if unknown), its id."""
        index = range(len(self))[index]
        taken = self.samples.take(torch.tensor([index]))
        raw = {name: value[0] for name, value in taken.items()} if isinstance(taken, dict) else taken[0]
        codes = self.labels.codes[index].tolist()
        names = {
            level: None if code < 0 else classes[code]
            for level, classes, code in zip(self.labels.levels, self.labels.classes, codes, strict=True)
        }
        return raw, names, str(self.ids[index])

    def select(self, index: Tensor | np.ndarray | Sequence[int]) -> Dataset:
        """Some of the samples, in the order given; an index or a boolean mask."""
        rows = torch.as_tensor(np.asarray(index))
        rows = rows.nonzero()[:, 0] if rows.dtype == torch.bool else rows.long()
        array = rows.numpy()
        ids = self.ids[array]
        return replace(
            self,
            samples=self.samples.select(rows),
            labels=self.labels.select(rows),
            ids=ids,
            _keys=(ids, self.keys[rows]),
            splits=None if self.splits is None else self.splits[array],
            groups=None if self.groups is None else self.groups[array],
        )

    def stored_as(self, form: ImageForm) -> Dataset:
        """The same images stored in another form, made from the files they came from where these are at hand.

        Raises
        ------
        UserError
            For images in memory that were of more than 8 bits, and scaled otherwise.
        """
        samples = self.samples
        scaled = self.notes.get("white", form.white) != form.white
        if tuple(samples.shape) == form.shape and not scaled:
            return self
        encoded = samples if hasattr(samples, "stored_as") else getattr(samples, "encoded", None)
        if encoded is not None:
            encoded = encoded.stored_as(form)
            samples = encoded.load() if form.fits_memory(len(encoded)) else encoded
        elif scaled:
            raise UserError(
                f"{self.name} was read with white={self.notes['white']}; read it with white={form.white}, as the "
                "training data were"
            )
        else:
            pixels = samples.take(torch.arange(len(samples))).numpy()
            samples = TensorSamples(torch.from_numpy(fitted_images(pixels, form.shape[0], form.shape[1:])), "image")
        return replace(self, samples=samples, notes={**self.notes, "white": form.white})

    def with_levels(self, levels: Sequence[str]) -> Dataset:
        """The same samples with these label levels alone."""
        return replace(self, labels=self.labels.keep(levels))

    @property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits that the data come with."""
        return () if self.splits is None else tuple(dict.fromkeys(map(str, self.splits)))

    def by_split(self) -> dict[str, Dataset]:
        """Its splits by name; without any, all samples under an empty name."""
        return {"": self} if self.splits is None else {name: self.split(name) for name in self.split_names}

    def split(self, name: str) -> Dataset:
        """The samples of one split.

        Raises
        ------
        UserError
            If the data have no such split; the message names those there are.
        """
        chosen = None if self.splits is None else self.splits == name
        if chosen is None or not chosen.any():
            hint = nearest(name, self.split_names) if self.split_names else "the data have no splits"
            raise UserError(f"{self.name} has no split '{name}': {hint}", code="unknown_split")
        part = self.select(chosen)
        return replace(part, splits=np.broadcast_to(packed([name]), len(part)))  # of one text

    def with_columns(
        self, columns: Sequence[str] | None, static: Sequence[str] | None = None, who: str = "the model"
    ) -> Dataset:
        """The features of these names, in this order, where both sides know names; others are left out.

        Raises
        ------
        UserError
            For a name that the data lack; ``who`` needs it.
        """
        samples, notes = self.samples, dict(self.notes)
        for key, wanted in (("columns", columns), ("static_columns", static)):
            names = self.notes.get(key)
            if not names or not wanted or list(names) == list(wanted):
                continue
            places = {name: place for place, name in enumerate(names)}
            lacking = [repr(name) for name in wanted if name not in places]
            if lacking:
                are = ("column", "is") if len(lacking) == 1 else ("columns", "are")
                raise UserError(
                    f"{self.name}: {are[0]} {', '.join(lacking[:3])}{' and more' if len(lacking) > 3 else ''} "
                    f"{are[1]} missing: {who} was trained on {'it' if len(lacking) == 1 else 'them'}"
                )
            order = torch.tensor([places[name] for name in wanted])
            notes[key] = list(wanted)
            if isinstance(samples, TensorSamples) and samples.shape[-1] == len(names):
                samples = replace(samples, stored=samples.stored[..., order])
            elif isinstance(samples, SeriesSamples) and key == "static_columns" and samples.static is not None:
                samples = replace(samples, static=samples.static[..., order])
            elif isinstance(samples, SeriesSamples) and samples.series.shape[-1] == len(names):
                samples = replace(samples, series=samples.series[..., order])
            else:
                raise UserError(f"{self.name}: its columns are others than those that {who} was trained on")
        return self if samples is self.samples else replace(self, samples=samples, notes=notes)

    def hold_out(
        self,
        fraction: float,
        *,
        by: Literal["sample", "group"] | None = None,
        stratify: str | None = None,
        seed: int = 0,
    ) -> tuple[Dataset, Dataset]:
        """Two parts: the rest, and about ``fraction`` of the samples held out.

        Parameters
        ----------
        fraction : float in (0, 1)
        by : "sample" or "group", optional
            With "group" a group lies wholly on one side, so that near-copies do not leak; default when there are
            groups.
        stratify : str, optional
            A level whose class shares are kept; groups are held out without regard to it.

        Raises
        ------
        UserError
            If a side would be empty, or "group" is asked for and the data have no groups.
        """
        if not 0 < fraction < 1:
            raise UserError(f"the fraction to hold out lies between 0 and 1; got {fraction}")
        by = by or ("sample" if self.groups is None else "group")
        generator = np.random.default_rng(seed)
        if by == "group":
            if self.groups is None:
                raise UserError("splitting by group needs a group column; name one with --group-column")
            names, sizes = np.unique(self.groups, return_counts=True)
            room, chosen = round(fraction * len(self)), []
            for group in generator.permutation(len(names)).tolist():
                if sizes[group] <= room:
                    chosen.append(group)
                    room -= int(sizes[group])
            held = np.isin(self.groups, names[chosen or [int(sizes.argmin())]])
        else:
            held = np.zeros(len(self), dtype=bool)
            for rows in self.rows_by_class(stratify, generator):
                held[rows[: round(fraction * len(rows))]] = True
        if held.all() or not held.any():
            codes = None if by == "group" or stratify is None else self.labels.level(stratify)
            largest = 0 if codes is None else int(torch.bincount(codes + 1).max())
            if len(self) < 3:
                raise UserError(
                    f"{self.name} has {counted(len(self), 'sample')}, too few to hold out {100 * fraction:g}% of them: "
                    "give more, or a split of your own (--split-column; split_column=)",
                    code="too_few",
                )
            if codes is not None and largest * fraction <= 0.5:
                classes = counted(len(codes[codes >= 0].unique()), "class", "classes")
                advice = "Set --holdout 0.5, name" if largest > 1 else "Are these labels ids? Name"
                raise UserError(
                    f"no sample can be held out: level '{stratify}' has {classes} of at most "
                    f"{counted(largest, 'sample')}, and {100 * fraction:g}% of each is less than half a sample. "
                    f"{advice} another level, or give a split of your own (--split-column; split_column=)"
                )
            raise UserError(
                f"holding out {100 * fraction:g}% of {counted(len(self), 'sample')} by {by} leaves one side empty: "
                "--holdout sets another share"
            )
        return self.select(~held), self.select(held)

    def rows_by_class(self, level: str | None, generator: np.random.Generator) -> list[np.ndarray]:
        """Return the rows of every class in a random order that depends on the samples' ids, not on the row order."""
        codes = np.zeros(len(self), dtype=np.int64) if level is None else self.labels.level(level).numpy()
        by_id = np.argsort(self.keys.numpy(), kind="stable")
        return [generator.permutation(by_id[codes[by_id] == code]) for code in np.unique(codes)]

    def fingerprint(self) -> str:
        """A hash of ids and content: the key of caches, and the run folder's record of what it was trained on."""
        content = hashlib.blake2b(self.samples.digest().encode(), digest_size=16)
        content.update(self.keys.numpy().tobytes())
        return content.hexdigest()


def rows_among(parts: Iterable[Dataset], rows: np.ndarray) -> Iterator[tuple[Dataset, Tensor]]:
    """Of several data sets one after the other, each that has some of the rows, and which of its own these are.

    ``rows``: counted over all data sets; they are given in the order of the data sets.
    """
    start = 0
    for part in parts:
        own = rows[(rows >= start) & (rows < start + len(part))] - start
        start += len(part)
        if len(own):
            yield part, torch.from_numpy(own)
