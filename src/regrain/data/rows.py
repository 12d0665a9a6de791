"""The rows of a data set as they were found: nothing decoded yet, nothing refused yet.

Every reader turns its source into :class:`Rows`. ``Rows.dataset`` makes the data set or refuses, naming rows as the
user finds them; the checker lists what is wrong with the very same rows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from regrain.data.cache import cached_tensor
from regrain.data.dataset import (
    Dataset,
    ImageSamples,
    Modality,
    Samples,
    SeriesSamples,
    TensorSamples,
    TextSamples,
    decode_images,
)
from regrain.errors import UserError
from regrain.labels import Labels, Relation, Taxonomy

__all__ = ["Fault", "Rows", "Storage", "StorageOptions", "examples", "missing_message", "separate"]

SMALL_SIDE = 128
"""Images up to this side, in pixels, are decoded once and kept in memory."""

LARGE_SIDE = 256
"""Larger images are stored at this side unless the user says otherwise."""

_MEMORY_LIMIT = 8 << 30
_HEADERS = 256
_DECODE_BYTES = 64 << 20
_THREADED_PIXELS = 128 * 128


class StorageOptions(TypedDict, total=False):
    """How samples are kept; every reader takes these options.

    image_size : int, optional
        Side in pixels at which images are stored (square: shorter side resized, centre cut out). By default small
        images of one size stay as they are, others get ``min(256, median shorter side)``.
    channels : 1, 3 or 4, optional
        Grey, RGB or RGBA; by default 1 when a sample of the images is grey, else 3.
    skip_unreadable : bool, default False
        Leave out the rows that cannot be used (missing or damaged images, NaN features of vectors, empty texts,
        broken lines) and count them, instead of refusing the data.
    cache : bool, default False
        Decode images once into a memory-mapped file in the cache folder. For large images that are read often.
    """

    image_size: int | None
    channels: int | None
    skip_unreadable: bool
    cache: bool


class Fault(NamedTuple):
    """Why a row cannot be used: kind of fault, position (-1: not even a row), name as the user finds it, details."""

    kind: str
    row: int
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} {self.detail}"


class Storage(NamedTuple):
    """How images will be kept: shape, in memory or not, decoding threads, and what to tell the user."""

    shape: tuple[int, int, int]
    in_memory: bool
    threads: int
    message: str | None


@dataclass(frozen=True)
class Rows:
    """What a reader found.

    Parameters
    ----------
    where : str
        The source, for messages.
    name : str
        Of the data set.
    modality : Modality
    values : sequence or array
        Images: paths and encoded bytes (None: missing), or a uint8 array (N, C, H, W). Texts: str or None.
        Vectors (N, D) and series (N, T, C): a float array; NaN in a series is a missing value.
    labels : Labels, or mapping of level to class names
        Names as found, None unknown.
    ids : sequence of str
    finds : callable
        How the user finds the row at a position: "line 7", "cats/3.jpg".
    relation : Relation
        How the levels of a mapping hang together.
    id_column : str, optional
        The column that the ids come from.
    splits, groups : sequences of str, optional
    static : float array (N, S), optional
        Static features beside series; NaN is missing.
    faults_found : tuple of Fault
        What the reader already knows to be unusable.
    notes : dict
        As in :class:`Dataset`; ``notes["messages"]`` are sentences for the user.
    """

    where: str
    name: str
    modality: Modality
    values: Sequence[Any] | np.ndarray
    labels: Labels | Mapping[str, Sequence[Any]]
    ids: Sequence[str]
    finds: Callable[[int], str]
    relation: Relation = "tree"
    id_column: str | None = None
    splits: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    faults_found: tuple[Fault, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    static: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def encoded(self) -> bool:
        """Whether the samples are images that have yet to be decoded."""
        return self.modality == "image" and not isinstance(self.values, np.ndarray)

    def select(self, rows: np.ndarray) -> Rows:
        """Some of the rows, under the names that the user knows them by."""
        kept = rows.tolist()
        finds = self.finds

        def pick(values: Any) -> Any:
            if values is None:
                return None
            return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in kept]

        labels = self.labels
        return replace(
            self,
            values=pick(self.values),
            labels=labels.select(rows) if isinstance(labels, Labels) else {k: pick(v) for k, v in labels.items()},
            ids=pick(self.ids),
            finds=lambda row: finds(kept[row]),
            splits=pick(self.splits),
            groups=pick(self.groups),
            static=pick(self.static),
            faults_found=(),
        )

    # What is wrong

    @cached_property
    def faults(self) -> list[Fault]:
        """Every row that cannot be used, as far as this shows without decoding an image."""
        found = list(self.faults_found)
        if self.encoded:
            for row, source in enumerate(self.values):
                if source is None or source == "" or source == b"":
                    found.append(self.fault("no image", row, "has no image"))
                elif isinstance(source, str) and not os.path.isfile(source):
                    found.append(self.fault("missing file", row, f"names a file that does not exist: {source}"))
        elif self.modality == "text":
            for row, text in enumerate(self.values):
                if text is None or not str(text).strip():
                    found.append(self.fault("empty text", row, "has no text"))
        return sorted(found, key=lambda fault: fault.row)

    def fault(self, kind: str, row: int, detail: str) -> Fault:
        """A fault of one row, under the name that the user knows the row by."""
        return Fault(kind, row, self.finds(row), detail)

    def usable(self, skip_unreadable: bool = False) -> Rows:
        """The rows that can be used, as far as this shows without decoding an image.

        Raises
        ------
        UserError
            If there are none, for rows that cannot be used, unless they are to be left out, and for repeated ids.
        """
        if not len(self) and not self.faults:
            raise UserError(f"{self.where} holds no samples")
        rows = self._usable(self.faults, skip_unreadable)
        rows._require_unique_ids()
        return rows

    def decoded(self, storage: Storage) -> Iterator[tuple[np.ndarray, list[Fault]]]:
        """Decode all images, block by block: the images of a block, and those that cannot be decoded."""
        step = max(1, _DECODE_BYTES // int(np.prod(storage.shape)))
        for start in range(0, len(self), step):
            block: Sequence[Any] = list(self.values[start : start + step])
            images, failures = decode_images(block, storage.shape, threads=storage.threads)
            yield images, [self.fault("undecodable image", start + row, why) for row, why in failures.items()]

    def duplicate_ids(self) -> dict[str, list[int]]:
        """Ids that occur more than once, with their rows."""
        counts = Counter(self.ids)
        if len(counts) == len(self.ids):
            return {}
        found: dict[str, list[int]] = {}
        for row, identity in enumerate(self.ids):
            if counts[identity] > 1:
                found.setdefault(identity, []).append(row)
        return found

    # Labels

    @property
    def label_columns(self) -> Mapping[str, Sequence[Any]]:
        """Class names by level, as found; None unknown."""
        if not isinstance(self.labels, Labels):
            return self.labels
        named = zip(self.labels.levels, self.labels.classes, self.labels.codes.T.tolist(), strict=True)
        return {level: [None if code < 0 else names[code] for code in codes] for level, names, codes in named}

    def strict_labels(self) -> Labels:
        """The labels; a UserError if they do not hang together as they should."""
        if isinstance(self.labels, Labels):
            return self.labels
        if not self.labels:
            return Labels.empty(len(self))
        return Labels.from_columns(self.labels, relation=self.relation)

    def lenient_labels(self) -> Labels:
        """The labels whatever is wrong with them: classes may have several parents, nothing is filled in."""
        if isinstance(self.labels, Labels) or not self.labels or self.relation != "tree":
            return self.strict_labels()
        labels = Labels.from_columns(self.labels, relation="aspects")
        return replace(labels, taxonomy=Taxonomy.from_codes(labels.codes, labels.levels, labels.classes))

    # The data set

    def dataset(
        self,
        *,
        image_size: int | None = None,
        channels: int | None = None,
        skip_unreadable: bool = False,
        cache: bool = False,
    ) -> Dataset:
        """The data set; the options are explained in :class:`StorageOptions`.

        Raises
        ------
        UserError
            For rows that cannot be used, unless they are to be left out; for labels that do not hang together and for
            ids that are not unique. The message names rows as the user finds them.
        """
        _require_options(image_size, channels)
        rows = self.usable(skip_unreadable)
        try:
            labels = rows.strict_labels()
        except UserError as error:
            raise UserError(f"{self.where}: {error} (`regrain check` lists the rows)") from None
        message = None
        if rows.encoded:  # what is cheap to find out comes first
            usable = rows
            rows, samples, message = usable._image_samples(image_size, channels, skip_unreadable, cache)
            labels = labels if rows is usable else rows.strict_labels()
        else:
            samples = rows._plain_samples(image_size, channels)
        notes = dict(rows.notes)
        notes["messages"] = [*notes.get("messages", []), *([message] if message else [])]
        return Dataset(
            samples,
            labels,
            np.array(rows.ids, dtype=object),
            rows.name,
            None if rows.splits is None else np.array(rows.splits, dtype=str),
            None if rows.groups is None else np.array(rows.groups, dtype=str),
            notes,
        )

    def storage(self, image_size: int | None = None, channels: int | None = None) -> Storage:
        """How to keep these images, judged by the headers of a sample of them."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(len(self), _HEADERS)).astype(int))
        headers = [header for row in rows.tolist() if (header := _header(self.values[row])) is not None]
        sizes = [size for _, size in headers] or [(LARGE_SIDE, LARGE_SIDE)]
        if channels is None:
            grey = bool(headers) and all(mode in ("1", "L") or mode.startswith("I") for mode, _ in headers)
            channels = 1 if grey else 3
        shorter = int(np.median([min(size) for size in sizes]))
        side = image_size or min(LARGE_SIDE, shorter)
        height, width = side, side
        message = None
        if image_size is None:
            if len(set(sizes)) == 1 and max(sizes[0]) <= SMALL_SIDE:
                height, width = sizes[0]
            elif set(sizes) != {(side, side)}:
                low, high = min(sizes), max(sizes)
                seen = _pixels(low) if low == high else f"{_pixels(low)} to {_pixels(high)}"
                message = (
                    f"images of {seen} pixels (in {len(sizes)} looked at) are stored at {side} x {side}: shorter side "
                    "resized, centre cut out; image_size sets another size"
                )
        memory = len(self) * channels * height * width
        small = max(height, width) <= SMALL_SIDE
        if small and memory > _MEMORY_LIMIT:
            message = (
                f"the decoded images would take {memory / 2**30:.0f} GiB: they are decoded when they are needed; "
                "cache=True keeps them in a memory-mapped file"
            )
        pixels = np.median([h * w for h, w in sizes])
        threads = min(8, os.cpu_count() or 1) if pixels > _THREADED_PIXELS else 1
        return Storage((channels, height, width), small and memory <= _MEMORY_LIMIT, threads, message)

    def _usable(self, faults: Sequence[Fault], skip: bool) -> Rows:
        """The rows without faults; a UserError that names examples unless they are to be left out."""
        if not faults:
            return self
        first = {fault.row: fault for fault in reversed(faults)}
        faults = [fault for fault in faults if fault.row < 0 or fault is first[fault.row]]
        bad = {fault.row for fault in faults if fault.row >= 0}
        count = len(faults)
        total = len(self) + sum(fault.row < 0 for fault in self.faults_found)
        if not skip:
            raise UserError(
                f"{self.where}: {count} of {total} rows cannot be used: {examples(map(str, faults))}. `regrain check` "
                "lists every such row, --skip-unreadable (skip_unreadable=True) leaves them out"
            )
        if len(bad) == len(self):
            raise UserError(f"{self.where}: none of the {total} rows can be used: {examples(map(str, faults))}")
        kept = self.select(np.array([row for row in range(len(self)) if row not in bad], dtype=np.int64))
        kinds = Counter(fault.kind for fault in faults)
        message = f"{count} of {total} rows were left out: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        notes = dict(self.notes)
        notes["messages"] = [*notes.get("messages", []), message]
        notes["left_out"] = [*notes.get("left_out", []), *map(str, faults)]
        return replace(kept, notes=notes)

    def _image_samples(
        self, image_size: int | None, channels: int | None, skip: bool, cache: bool
    ) -> tuple[Rows, Samples, str | None]:
        """Rows that can be decoded, and their samples: one tensor of small images, a cached one, or encoded images."""
        storage = self.storage(image_size, channels)
        if storage.in_memory and not cache:
            images = np.empty((len(self), *storage.shape), dtype=np.uint8)
            faults: list[Fault] = []
            start = 0
            for block, found in self.decoded(storage):
                images[start : start + len(block)] = block
                start += len(block)
                faults += found
            rows = self._usable(faults, skip)
            if faults:
                images = np.delete(images, [fault.row for fault in faults], axis=0)
            return rows, TensorSamples(torch.from_numpy(images), "image"), storage.message
        rows = self._usable(self._undecodable_once(storage, cache), skip) if skip else self
        if cache:
            shape = (len(rows), *storage.shape)
            tensor = cached_tensor(rows._content(storage), shape, lambda: rows._readable_blocks(storage), dtype="uint8")
            return rows, TensorSamples(tensor, "image"), storage.message
        names = tuple(map(rows.finds, range(len(rows)))) if isinstance(rows.values[0], bytes) else ()
        return (
            rows,
            ImageSamples(tuple(rows.values), storage.shape[1], storage.shape[0], names),
            storage.message,
        )

    def _undecodable_once(self, storage: Storage, cache: bool) -> list[Fault]:
        """Images that cannot be decoded; which they are is remembered along with the cached images."""

        def find() -> list[Fault]:
            return [fault for _, found in self.decoded(storage) for fault in found]

        if not cache:
            return find()

        def mask() -> Iterator[np.ndarray]:
            good = np.ones(len(self), dtype=np.uint8)
            good[[fault.row for fault in find()]] = 0
            yield good

        readable = cached_tensor(f"readable|{self._content(storage)}", (len(self),), mask, dtype="uint8")
        bad = np.flatnonzero(readable.numpy() == 0).tolist()
        return [self.fault("undecodable image", row, "cannot be decoded") for row in bad]

    def _readable_blocks(self, storage: Storage) -> Iterator[np.ndarray]:
        for images, faults in self.decoded(storage):
            self._usable(faults, skip=False)
            yield images

    def _content(self, storage: Storage) -> str:
        return f"images|{ImageSamples(tuple(self.values), 1).digest()}|{storage.shape}"

    def _plain_samples(self, image_size: int | None, channels: int | None) -> Samples:
        if self.modality == "text":
            return TextSamples(tuple(map(str, self.values)))
        tensor = torch.from_numpy(np.ascontiguousarray(self.values))
        if self.modality == "image":
            return TensorSamples(_fitted(tensor, image_size, channels), "image")
        if self.static is not None:
            return SeriesSamples(tensor.float(), torch.from_numpy(np.ascontiguousarray(self.static)).float())
        return TensorSamples(tensor.float(), self.modality)

    def _require_unique_ids(self) -> None:
        duplicates = self.duplicate_ids()
        if duplicates:
            shown = examples(
                f"'{identity}' in {' and '.join(map(self.finds, rows[:3]))}" for identity, rows in duplicates.items()
            )
            column = f"the id column '{self.id_column}'" if self.id_column else "the list of ids"
            raise UserError(f"{self.where}: ids must be unique, but {column} repeats {shown}")


def examples(items: Any, limit: int = 3) -> str:
    """The first few of some texts, and how many more there are.

    Examples
    --------
    >>> examples(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    texts = list(items)
    more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return "; ".join([*texts[:limit], *more])


def missing_message(series: np.ndarray, static: np.ndarray | None = None) -> list[str]:
    """What to tell about missing values of series; nothing where there are none.

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


def separate(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A reader's own options, and those that say how to store samples."""
    stored = StorageOptions.__annotations__.keys() & options.keys()
    return {k: v for k, v in options.items() if k not in stored}, {k: options[k] for k in stored}


def _require_options(image_size: int | None, channels: int | None) -> None:
    if image_size is not None and (not isinstance(image_size, int) or not 1 <= image_size <= 4096):
        raise UserError(f"image_size is a number of pixels from 1 to 4096; got {image_size!r}")
    if channels not in (None, 1, 3, 4):
        raise UserError(f"channels is 1 (grey), 3 (RGB) or 4 (RGBA); got {channels!r}")


def _header(source: str | bytes) -> tuple[str, tuple[int, int]] | None:
    """Mode and (height, width), as the picture stands upright; None when there is no readable header."""
    import io

    from PIL import ExifTags, Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            sideways = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.mode, (width, height) if sideways else (height, width)
    except Exception:  # whatever is wrong with it comes out, by name, when it is decoded
        return None


def _pixels(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width} x {height}"


def _fitted(images: torch.Tensor, size: int | None, channels: int | None) -> torch.Tensor:
    """uint8 images (N, C, H, W) with the channels and the side asked for."""
    count, height, width = images.shape[1:]
    if channels == 3 and count == 1:
        images = images.expand(-1, 3, -1, -1).contiguous()
    elif channels == 1 and count == 3:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R 601, as Pillow
        images = torch.cat([(c.float() * weights).sum(1, keepdim=True).round().byte() for c in images.split(4096)])
    elif channels not in (None, count):
        raise UserError(f"the images have {count} channels, which cannot be turned into {channels}")
    if size is None or (height, width) == (size, size):
        return images
    scale = size / min(height, width)
    resized = (max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (resized[0] - size) // 2, (resized[1] - size) // 2
    return torch.cat(
        [
            torch.nn.functional.interpolate(chunk.float(), resized, mode="bilinear", antialias=True)
            .round()
            .clamp(0, 255)
            .byte()[:, :, top : top + size, left : left + size]
            for chunk in images.split(1024)
        ]
    )
