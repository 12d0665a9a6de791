"""The rows of a data set as they were found: nothing decoded yet, nothing refused yet.

Every reader turns its source into :class:`Rows`. ``Rows.dataset`` makes the data set or refuses, naming rows as the
user finds them; the checker lists what is wrong with the very same rows.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from regrain.coded import Coded
from regrain.data.cache import cached_tensor
from regrain.data.cells import twins
from regrain.data.dataset import Dataset
from regrain.data.images import ImageForm, Storage, choose_storage, decode_images, eight_bit, fitted_images
from regrain.data.packed import keys_of, packed, repeated
from regrain.data.samples import ImageSamples, Modality, Samples, SeriesSamples, TensorSamples, TextSamples
from regrain.errors import Notable, UserError, examples
from regrain.labels import Labels, Relation, Taxonomy
from regrain.spelling import counted, readable

LONGEST_TEXT = 1_000_000
"""Longer texts, in characters, are taken for a mistake: tokenizers would work on them for minutes."""

MOST_TEXT = 1 << 34
"""Characters of all texts; a small file may spell more, one text many times."""

_DECODE_BYTES = 64 << 20


class RowError(NamedTuple):
    """A row that cannot be used: kind of fault, position (-1: not even a row), name as the user finds it, details."""

    kind: str
    row: int
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} {self.detail}"


_KINDS = {"vector": "rows of numbers", "text": "texts", "series": "series"}


@dataclass(frozen=True)
class Rows:
    """Rows that a reader found."""

    where: str  # the source, for messages
    name: str  # of the data set
    modality: Modality
    # images: paths and encoded bytes (None: missing), or a uint8 or uint16 array (N, C, H, W). Texts: str or None.
    # Vectors (N, D) and series (N, T, C): a float array; NaN in a series is a missing value.
    values: Sequence[Any] | np.ndarray
    labels: Labels | Mapping[str, Sequence[Any]]  # names as found, None unknown
    ids: Any  # texts, kept, as splits and groups are, by :func:`~regrain.data.packed.packed`
    describe_row: Callable[[int], str]  # how the user finds the row at a position: "line 7", "cats/3.jpg"
    relation: Relation = "tree"  # relation between the levels of a mapping
    id_column: str | None = None  # the column that the ids come from
    splits: Any = None
    groups: Any = None
    known_errors: tuple[RowError, ...] = ()  # rows that the reader already knows to be unusable
    # as in :class:`Dataset`; ``notes["messages"]`` are sentences for the user, ``notes["warnings"]`` those about what
    # looks wrong
    notes: dict[str, Any] = field(default_factory=dict)
    static: np.ndarray | None = None  # float array (N, S): static features of series; NaN is missing

    def __post_init__(self) -> None:
        for name in ("where", "name", "ids", "splits", "groups", "labels", "notes"):
            object.__setattr__(self, name, _all_readable(getattr(self, name)))
        for name in ("ids", "splits", "groups"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, packed(getattr(self, name)))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def encoded(self) -> bool:
        """Whether the samples are images that have yet to be decoded."""
        return self.modality == "image" and not isinstance(self.values, np.ndarray)

    def select(self, rows: np.ndarray) -> Rows:
        """Some of the rows, under the names that the user knows them by."""
        kept = rows.tolist()
        describe_row = self.describe_row

        def pick(values: Any) -> Any:
            if values is None:
                return None
            if isinstance(values, Coded):
                return values.select(rows)
            return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in kept]

        labels = self.labels
        return replace(
            self,
            values=pick(self.values),
            labels=labels.select(rows) if isinstance(labels, Labels) else {k: pick(v) for k, v in labels.items()},
            ids=pick(self.ids),
            describe_row=lambda row: describe_row(kept[row]),
            splits=pick(self.splits),
            groups=pick(self.groups),
            static=pick(self.static),
            known_errors=(),
        )

    # Faults

    @cached_property
    def row_errors(self) -> list[RowError]:
        """Every row that cannot be used, as far as this shows without decoding an image."""
        found = list(self.known_errors)
        if self.encoded:
            for row, source in enumerate(self.values):
                if source is None or source == "" or source == b"":
                    found.append(self.row_error("no image", row, "has no image"))
                elif isinstance(source, str) and (reason := _why_unreadable(source)) is not None:
                    found.append(self.row_error(reason[0], row, f"{reason[1]}: {readable(source)}"))
        elif self.modality == "text":
            for row, text in enumerate(self.values):
                if text is None or not text or text.isspace():
                    found.append(self.row_error("empty text", row, "has no text"))
                elif len(text) > LONGEST_TEXT:
                    huge = f"has a text of {len(text):,} characters, of which encoders read a few thousand: cut it"
                    found.append(self.row_error("huge text", row, huge))
        return sorted(found, key=lambda fault: fault.row)

    def row_error(self, kind: str, row: int, detail: str) -> RowError:
        """A fault of one row, under the name that the user knows the row by."""
        return RowError(kind, row, self.describe_row(row), detail)

    def usable(self, skip_unreadable: bool = False) -> Rows:
        """The rows that can be used, as far as this shows without decoding an image.

        Raises a UserError if there are none, for rows that cannot be used, unless they are to be left out, and for
        repeated ids.
        """
        if not len(self) and not self.row_errors:
            raise UserError(f"{self.where} holds no samples")
        rows = self._usable(self.row_errors, skip_unreadable)
        if self.modality == "text" and (total := sum(map(len, rows.values))) > MOST_TEXT:
            raise UserError(f"{self.where}: the texts are {total / 1e9:.0f} billion characters, which no memory holds")
        rows._require_unique_ids()
        return rows

    def decoded(self, storage: Storage) -> Iterator[tuple[np.ndarray, list[RowError]]]:
        """Decode all images, block by block: the images of a block, and those that cannot be decoded."""
        step = max(1, _DECODE_BYTES // int(np.prod(storage.form.shape)))
        for start in range(0, len(self), step):
            block: Sequence[Any] = list(self.values[start : start + step])
            images, failures = decode_images(block, storage.form, threads=storage.threads)
            yield images, [self.row_error("undecodable image", start + row, why) for row, why in failures.items()]

    @cached_property
    def keys(self) -> np.ndarray:
        """The ids' keys (N,): see :attr:`Dataset.keys <regrain.data.dataset.Dataset.keys>`."""
        return keys_of(self.ids, len(self.ids))

    def duplicate_ids(self) -> dict[str, list[int]]:
        """Ids that occur more than once, with their rows."""
        found: dict[str, list[int]] = {}
        for row in repeated(self.keys).tolist():
            found.setdefault(self.ids[row], []).append(row)
        return {identity: rows for identity, rows in found.items() if len(rows) > 1}

    # Labels

    @property
    def label_columns(self) -> Mapping[str, Sequence[Any]]:
        """Class names by level, as found; None unknown."""
        if not isinstance(self.labels, Labels):
            return self.labels
        return {level: self.labels.column(level) for level in self.labels.levels}

    def strict_labels(self) -> Labels:
        """Return the labels; raise a UserError if their levels contradict each other."""
        if isinstance(self.labels, Labels):
            return self.labels
        if not self.labels:
            return Labels.empty(len(self))
        return Labels.from_columns(self.labels, relation=self.relation)

    def lenient_labels(self) -> Labels:
        """Return the labels despite contradictions: classes may have several parents, nothing is filled in."""
        if isinstance(self.labels, Labels) or not self.labels or self.relation != "tree":
            return self.strict_labels()
        labels = Labels.from_columns(self.labels, relation="aspects")
        return replace(labels, taxonomy=Taxonomy.from_codes(labels.codes, labels.levels, labels.classes))

    # The data set

    def dataset(
        self,
        *,
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        white: int | None = None,
        skip_unreadable: bool = False,
        cache: bool = False,
    ) -> Dataset:
        """The data set; the options are explained in :class:`~regrain.data.options.StorageOptions`.

        Raises a UserError for rows that cannot be used, unless they are to be left out; for labels that contradict each
        other and for ids that are not unique. The message names rows as the user finds them.
        """
        self.require_images_for(image_size=image_size, channels=channels, white=white)
        rows = usable = self.usable(skip_unreadable)
        try:
            labels = rows.strict_labels()
        except UserError as error:
            raise UserError(f"{self.where}: {error} (`regrain check` lists the rows)", code=error.code) from None
        messages = [*rows.notes.get("messages", []), *(Notable(pair) for pair in twins(labels))]
        rows = replace(rows, notes={**rows.notes, "messages": messages})
        storage_messages: tuple[str, ...] = ()
        notes: dict[str, Any] = {}
        if self.modality == "image":  # cheap checks come first
            storage = choose_storage(rows.values, image_size, channels, white)
            found = rows
            rows, samples = found._image_samples(storage, skip_unreadable, cache)
            labels = labels if rows is found else rows.strict_labels()
            storage_messages = storage.messages
            notes |= {"white": storage.form.white} if storage.deep else {}
        else:
            samples = rows._plain_samples()
        said = rows.notes
        notes["messages"] = [*said.get("messages", []), *storage_messages, *said.get("warnings", [])]
        return Dataset(
            samples,
            labels,
            rows.ids,
            rows.name,
            rows.splits,
            rows.groups,
            {**{key: note for key, note in said.items() if key != "warnings"}, **notes},
            (usable.ids, torch.from_numpy(usable.keys)),
        )

    def require_images_for(self, **options: Any) -> None:
        """Raise a UserError for an option that says how images are stored where samples are something else."""
        given = next((name for name, value in options.items() if value is not None), None)
        if given is not None and self.modality != "image":
            raise UserError(
                f"{self.where}: --{given.replace('_', '-')} is about images, and these samples are "
                f"{_KINDS[self.modality]}: leave it out",
                code="conflicting_options",
            )

    def _usable(self, faults: Sequence[RowError], skip: bool) -> Rows:
        """The rows without faults; a UserError that names examples unless they are to be left out."""
        if not faults:
            return self
        first = {fault.row: fault for fault in reversed(faults)}
        faults = [fault for fault in faults if fault.row < 0 or fault is first[fault.row]]
        bad = {fault.row for fault in faults if fault.row >= 0}
        count = len(faults)
        total = len(self) + sum(fault.row < 0 for fault in self.known_errors)
        if not skip:
            raise UserError(
                f"{self.where}: {count} of {total} rows cannot be used: {examples(map(str, faults))}. `regrain check` "
                "lists every such row, --skip-unreadable (skip_unreadable=True) leaves them out"
            )
        if len(bad) == len(self):
            raise UserError(f"{self.where}: none of the {total} rows can be used: {examples(map(str, faults))}")
        kept = self.select(np.array([row for row in range(len(self)) if row not in bad], dtype=np.int64))
        kinds = Counter(fault.kind for fault in faults)
        shown = ", ".join(f"{kind} ({counted(n, 'row')})" for kind, n in kinds.items())
        message = f"{count} of {total} rows were left out: {shown}"
        notes = dict(self.notes)
        notes["messages"] = [*notes.get("messages", []), message]
        notes["left_out"] = [*notes.get("left_out", []), *map(str, faults)]
        return replace(kept, notes=notes)

    def _image_samples(self, storage: Storage, skip: bool, cache: bool) -> tuple[Rows, Samples]:
        """Rows that can be decoded, and their samples: one tensor of small images, a cached one, or encoded images."""
        form = storage.form
        if isinstance(self.values, np.ndarray):
            images = self.values if self.values.dtype == np.uint8 else eight_bit(self.values, form.white)
            images = fitted_images(images, form.shape[0], form.shape[1:])
            return self, TensorSamples(torch.from_numpy(np.require(images, requirements=["C", "W"])), "image")
        if storage.in_memory and not cache:
            images = np.empty((len(self), *form.shape), dtype=np.uint8)
            faults: list[RowError] = []
            start = 0
            for block, found in self.decoded(storage):
                images[start : start + len(block)] = block
                start += len(block)
                faults += found
            rows = self._usable(faults, skip)
            if faults:
                images = np.delete(images, [fault.row for fault in faults], axis=0)
            return rows, TensorSamples(torch.from_numpy(images), "image", rows._encoded_samples(storage))
        rows = self._usable(self._undecodable_once(storage, cache), skip) if skip else self
        if cache:
            shape = (len(rows), *form.shape)
            tensor = cached_tensor(rows._content(form), shape, lambda: rows._readable_blocks(storage), dtype="uint8")
            return rows, TensorSamples(tensor, "image", rows._encoded_samples(storage))
        return rows, rows._image_files(form)

    def _encoded_samples(self, storage: Storage) -> ImageSamples | None:
        """The sources of decoded images, where they could give another form that the pixels cannot."""
        held = isinstance(self.values[0], bytes)
        return None if held and storage.lossless else self._image_files(storage.form)

    def _image_files(self, form: ImageForm) -> ImageSamples:
        names = (
            tuple(map(self.describe_row, range(len(self)))) if any(isinstance(v, bytes) for v in self.values) else ()
        )
        return ImageSamples(self.values, form.shape[1:], form.shape[0], names, form.white)

    def _undecodable_once(self, storage: Storage, cache: bool) -> list[RowError]:
        """Images that cannot be decoded; which they are is remembered along with the cached images."""

        def find() -> list[RowError]:
            return [fault for _, found in self.decoded(storage) for fault in found]

        if not cache:
            return find()

        def mask() -> Iterator[np.ndarray]:
            good = np.ones(len(self), dtype=np.uint8)
            good[[fault.row for fault in find()]] = 0
            yield good

        readable = cached_tensor(f"readable|{self._content(storage.form)}", (len(self),), mask, dtype="uint8")
        bad = np.flatnonzero(readable.numpy() == 0).tolist()
        return [self.row_error("undecodable image", row, "cannot be decoded") for row in bad]

    def _readable_blocks(self, storage: Storage) -> Iterator[np.ndarray]:
        for images, faults in self.decoded(storage):
            self._usable(faults, skip=False)
            yield images

    def _content(self, form: ImageForm) -> str:
        return f"images|{self._image_files(form).digest()}"

    def _plain_samples(self) -> Samples:
        if self.modality == "text":
            return TextSamples(tuple(readable(str(text)) for text in self.values))
        tensor = torch.from_numpy(np.require(self.values, requirements=["C", "W"])).float()
        if self.static is not None:
            return SeriesSamples(tensor, torch.from_numpy(np.require(self.static, requirements=["C", "W"])).float())
        return TensorSamples(tensor, self.modality)

    def _require_unique_ids(self) -> None:
        duplicates = self.duplicate_ids()
        if duplicates:
            shown = examples(
                f"'{identity}' in {' and '.join(map(self.describe_row, rows[:3]))}"
                for identity, rows in duplicates.items()
            )
            column = f"the id column '{self.id_column}'" if self.id_column else "the list of ids"
            raise UserError(f"{self.where}: ids must be unique, but {column} repeats {shown}")


def _all_readable(value: Any) -> Any:
    """Texts that UTF-8 can hold, in place of those that it cannot: see :func:`regrain.spelling.readable`."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {_all_readable(key): _all_readable(inner) for key, inner in value.items()}
    if isinstance(value, Coded):
        return value.mapped(_all_readable)
    if isinstance(value, list | tuple) and not isinstance(value, Labels):
        return [_all_readable(inner) if isinstance(inner, str) and not inner.isascii() else inner for inner in value]
    return value


def _why_unreadable(path: str) -> tuple[str, str] | None:
    """The kind of fault, and what is wrong with the file of an image, as far as this shows without opening it."""
    try:
        status = os.stat(path)
    except PermissionError:
        return "no permission", "is in a folder that you have no permission to read"
    except (OSError, ValueError):  # not a valid file name
        return "missing file", "names a file that does not exist"
    if not stat.S_ISREG(status.st_mode):
        return "not a file", "names what is not a file but a folder, a pipe or a device"
    everyone = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
    if status.st_mode & everyone == everyone:
        return None  # without asking once more, which takes long on a network
    return (
        None
        if os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids)
        else ("no permission", "is a file that you have no permission to read")
    )


def missing_message(series: np.ndarray, static: np.ndarray | None = None) -> list[str]:
    """Describe the missing values of series; empty if there are none.

    Examples
    --------
    >>> missing_message(np.array([[[1.0], [np.nan]]]))
    ['1 of 2 values are missing; encoders mask them and put the means of the training samples there']
    """
    parts = [series] if static is None else [series, static]
    total, count = sum(part.size for part in parts), sum(int(np.isnan(part).sum()) for part in parts)
    if not count:
        return []
    are = "value is" if count == 1 and total == 1 else "values are"
    return [f"{count} of {total} {are} missing; encoders mask them and put the means of the training samples there"]
