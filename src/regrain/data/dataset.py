"""Samples of one modality, their labels, and stable identities."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError, nearest
from regrain.labels import UNKNOWN, Labels

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

DEEP_WHITE = 65535
"""White among pixels of 16 bits, unless the data say otherwise."""

SMALL_SIDE = 128
"""Images up to this side, in pixels, are decoded once and kept in memory."""

_MEMORY_LIMIT = 8 << 30
_CHUNK = 256
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

Modality = Literal["image", "text", "vector", "series"]


class ImageForm(NamedTuple):
    """How images are stored: each alike, whatever it is read with.

    shape : (channels, height, width)
        1 channel is grey, 3 are RGB, 4 RGBA. The shorter side is resized (bilinear), the centre cut out.
    white : int
        The value of pixels of more than 8 bits that is stored as 255.
    """

    shape: tuple[int, int, int]
    white: int = DEEP_WHITE

    def fits_memory(self, count: int) -> bool:
        """Whether so many images are decoded once, and kept in memory."""
        channels, height, width = self.shape
        return max(height, width) <= SMALL_SIDE and count * channels * height * width <= _MEMORY_LIMIT


class Batch(NamedTuple):
    """What a method trains on.

    views : tuple of Tensor or dict, one per view, each of B samples
    labels : LongTensor (B, levels needed), -1 unknown
    ids : LongTensor (B,), the samples' identities (:attr:`Dataset.keys`)
    """

    views: tuple[Any, ...]
    labels: Tensor
    ids: Tensor


@runtime_checkable
class Samples(Protocol):
    """Where raw samples come from. ``shape`` is one raw sample's: (C, H, W), (D,), (T, C), or () for text."""

    @property
    def modality(self) -> Modality: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def in_memory(self) -> bool: ...

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Any:
        """Raw samples of some rows: a Tensor (B, *shape), a list of str, or a dict of tensors (series, static)."""
        ...

    def select(self, index: Tensor) -> Samples:
        """The samples of some rows, as samples again."""
        ...

    def digest(self) -> str:
        """A hash of the content."""
        ...


@dataclass(frozen=True)
class TensorSamples:
    """Samples in one tensor in memory, or a memory map: uint8 images (N, C, H, W), vectors (N, D), series (N, T, C).

    Parameters
    ----------
    tensor : Tensor
    modality : Modality
    encoded : ImageSamples, optional
        The images that the tensor was decoded from, where they are at hand: from them another form is made.
    """

    tensor: Tensor = field(repr=False)
    modality: Modality
    encoded: ImageSamples | None = None

    in_memory = True

    def __post_init__(self) -> None:
        dimensions = {"image": 4, "vector": 2, "series": 3}[self.modality]
        if self.tensor.ndim != dimensions or (self.modality == "image") != (self.tensor.dtype == torch.uint8):
            wanted = {"image": "uint8 (N, C, H, W)", "vector": "float (N, D)", "series": "float (N, T, C)"}
            got = f"{self.tensor.dtype} of shape {tuple(self.tensor.shape)}"
            raise UserError(f"{self.modality} samples are {wanted[self.modality]}; got {got}")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape[1:])

    def __len__(self) -> int:
        return len(self.tensor)

    def take(self, index: Tensor) -> Tensor:
        return self.tensor[index]

    def select(self, index: Tensor) -> TensorSamples:
        return TensorSamples(
            self.tensor[index], self.modality, None if self.encoded is None else self.encoded.select(index)
        )

    def digest(self) -> str:
        form = f"{self.modality}{tuple(self.tensor.shape)}{self.tensor.dtype}"
        content = hashlib.blake2b(form.encode(), digest_size=16)
        for chunk in self.tensor.split(4096):
            content.update(chunk.contiguous().numpy().tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class SeriesSamples:
    """Records of subjects: time series, and static features of the same sample. NaN means that a value is missing.

    Parameters
    ----------
    series : float Tensor (N, T, C)
    static : float Tensor (N, S), optional
        S may be 0, which is the same as none.

    Examples
    --------
    >>> samples = SeriesSamples(torch.zeros(5, 8, 3), torch.ones(5, 2))
    >>> samples.shape, samples.static_width, {k: tuple(v.shape) for k, v in samples.take(torch.tensor([0, 4])).items()}
    ((8, 3), 2, {'series': (2, 8, 3), 'static': (2, 2)})
    """

    series: Tensor = field(repr=False)
    static: Tensor | None = field(default=None, repr=False)

    modality: Modality = field(default="series", init=False)
    in_memory = True

    def __post_init__(self) -> None:
        if self.series.ndim != 3 or not self.series.is_floating_point():
            got = f"{self.series.dtype} of shape {tuple(self.series.shape)}"
            raise UserError(f"series samples are float (N, T, C); got {got}")
        static = self.static
        if static is None:
            return
        if static.ndim != 2 or not static.is_floating_point() or len(static) != len(self.series):
            raise UserError(
                f"static features are float (N, S), one row for each of the {len(self.series)} series; got "
                f"{static.dtype} of shape {tuple(static.shape)}"
            )
        if static.shape[1] == 0:
            object.__setattr__(self, "static", None)

    @property
    def shape(self) -> tuple[int, int]:
        return (self.series.shape[1], self.series.shape[2])

    @property
    def static_width(self) -> int:
        """S, the number of static features."""
        return 0 if self.static is None else self.static.shape[1]

    def __len__(self) -> int:
        return len(self.series)

    def take(self, index: Tensor) -> Tensor | dict[str, Tensor]:
        if self.static is None:
            return self.series[index]
        return {"series": self.series[index], "static": self.static[index]}

    def select(self, index: Tensor) -> SeriesSamples:
        return SeriesSamples(self.series[index], None if self.static is None else self.static[index])

    def digest(self) -> str:
        series = TensorSamples(self.series, "series").digest()
        if self.static is None:
            return series
        return hashlib.blake2b(
            f"{series}{TensorSamples(self.static, 'vector').digest()}".encode(), digest_size=16
        ).hexdigest()


@dataclass(frozen=True)
class TextSamples:
    """Texts, as they are."""

    texts: tuple[str, ...] = field(repr=False)

    modality: Modality = field(default="text", init=False)
    shape: tuple[int, ...] = field(default=(), init=False)
    in_memory = True

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: Tensor) -> list[str]:
        return [self.texts[i] for i in index.tolist()]

    def select(self, index: Tensor) -> TextSamples:
        return TextSamples(tuple(self.take(index)))

    def digest(self) -> str:
        content = hashlib.blake2b(b"text", digest_size=16)
        for text in self.texts:
            content.update(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())
        return content.hexdigest()


def decode_image(
    source: str | Path | bytes, channels: int, size: int | tuple[int, int] | None = None, white: int = DEEP_WHITE
) -> np.ndarray:
    """One image as uint8 (channels, H, W); with ``size`` its shorter side is resized to it and the centre cut out.

    Parameters
    ----------
    source : path or encoded bytes
    channels : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    size : int or (height, width), optional
        Pixels of the result; one number means a square.
    white : int
        The value of pixels of more than 8 bits that becomes 255; what is above is cut off.

    Raises
    ------
    OSError
        If the file is missing or is not an image; the caller knows the row and says so.
    """
    from PIL import Image, ImageOps

    mode = _MODES[channels]
    height, width = (size, size) if isinstance(size, int) else size or (None, None)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            if height is not None and width is not None:
                # JPEG decodes at a reduced scale, no less than twice the size, so that hardly a pixel tells
                opened.draft(mode, (2 * max(height, width), 2 * max(height, width)))
            image: Image.Image = _eight_bit(ImageOps.exif_transpose(opened), white).convert(mode)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # on damaged data decoders raise nearly anything: SyntaxError, EOFError, struct.error, ...
        raise OSError(str(error) or type(error).__name__) from error
    return _as_array(image, height, width)


def _as_array(image: PILImage, height: int | None, width: int | None) -> np.ndarray:
    """An image as (C, H, W), at the size asked for."""
    from PIL import Image, ImageOps

    if height is not None and width is not None and image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _eight_bit(image: PILImage, white: int) -> PILImage:
    """Grey images of more than 8 bits scaled to 8; Pillow's own conversion cuts them off at 255."""
    from PIL import Image

    if image.mode == "F":
        raise OSError("floating-point pixels have no known range; save the image with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image.convert(f"{image.mode[:-1]}A") if image.mode in ("La", "RGBa") else image
    return Image.fromarray(eight_bit(np.asarray(image), white))


def eight_bit(pixels: np.ndarray, white: int) -> np.ndarray:
    """Whole numbers scaled so that ``white`` becomes 255, as uint8.

    Examples
    --------
    >>> eight_bit(np.array([0, 1000, 4095, 9999]), white=4095).tolist()
    [0, 62, 255, 255]
    """
    return (pixels.clip(0, white) * (255 / white)).round().astype(np.uint8)


def fitted_images(images: np.ndarray, channels: int, size: tuple[int, int]) -> np.ndarray:
    """uint8 images (N, C, H, W) with other channels and at another size, exactly as :func:`decode_image` makes them."""
    from PIL import Image

    if images.shape[1:] == (channels, *size):
        return images
    result = np.empty((len(images), channels, *size), dtype=np.uint8)
    for row, pixels in enumerate(images):
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        result[row] = _as_array(image.convert(_MODES[channels]), *size)
    return result


def decode_images(
    sources: Sequence[str | bytes], form: ImageForm, *, threads: int = 1
) -> tuple[np.ndarray, dict[int, str]]:
    """Many images in one form, and which of them could not be decoded.

    Parameters
    ----------
    sources : sequence of path or bytes, N of them
    form : ImageForm
    threads : int
        More than one pays for photographs only: on tiny images threads wait for each other.

    Returns
    -------
    images : uint8 array (N, channels, height, width)
        Zeros where decoding failed.
    failures : dict of position to reason
    """
    (channels, *size), white = form
    images = np.zeros((len(sources), *form.shape), dtype=np.uint8)
    failures: dict[int, str] = {}

    def decode(start: int) -> None:
        for row in range(start, min(start + _CHUNK, len(sources))):
            try:
                images[row] = decode_image(sources[row], channels, (size[0], size[1]), white)
            except OSError as error:
                failures[row] = _reason(error)

    starts = range(0, len(sources), _CHUNK)
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(decode, starts))
    else:
        for start in starts:
            decode(start)
    return images, dict(sorted(failures.items()))


def _reason(error: OSError) -> str:
    """The decoder's words, without the address of the buffer, or the system's without the path."""
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if error.errno is not None:
        return f"cannot be opened ({error.strerror or error})"
    unknown = "cannot identify image file"
    return "is not an image in a known format" if str(error).startswith(unknown) else f"cannot be decoded ({error})"


@dataclass(frozen=True)
class ImageSamples:
    """Images that stay encoded (files or bytes) and are decoded when they are taken, at a storage size.

    Parameters
    ----------
    sources : tuple of path or bytes
    size : int or (height, width)
        Pixels at which images are handed on (shorter side resized, centre cut out); one number means a square.
    channels : int
        1, 3 or 4.
    names : tuple of str
        How the user finds each image, for error messages; without it the path, or the position.
    white : int
        See :class:`ImageForm`.
    """

    sources: tuple[str | bytes, ...] = field(repr=False)
    size: int | tuple[int, int]
    channels: int = 3
    names: tuple[str, ...] = field(default=(), repr=False)
    white: int = DEEP_WHITE

    modality: Modality = field(default="image", init=False)
    in_memory = False

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return (self.channels, height, width)

    @property
    def form(self) -> ImageForm:
        """How the images are handed on."""
        return ImageForm(self.shape, self.white)

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: Tensor) -> Tensor:
        rows = index.tolist()
        return self._decode([self.sources[row] for row in rows], rows)

    def select(self, index: Tensor) -> ImageSamples:
        rows = index.tolist()
        names = tuple(self.names[row] for row in rows) if self.names else ()
        return replace(self, sources=tuple(self.sources[row] for row in rows), names=names)

    def stored_as(self, form: ImageForm) -> ImageSamples:
        """The same images in another form."""
        return replace(self, channels=form.shape[0], size=form.shape[1:], white=form.white)

    def digest(self) -> str:
        scaled = "" if self.white == DEEP_WHITE else f"{self.white}"
        content = hashlib.blake2b(f"{self.shape}{scaled}".encode(), digest_size=16)
        for source in self.sources:
            if isinstance(source, bytes):
                content.update(hashlib.blake2b(source, digest_size=16).digest())
            else:
                status = Path(source).stat()
                described = f"{source}|{status.st_size}|{status.st_mtime_ns}"
                content.update(described.encode("utf-8", "surrogatepass"))
        return content.hexdigest()

    def load(self, threads: int = 4) -> TensorSamples:
        """All images decoded into one tensor in memory."""
        return TensorSamples(self._decode(self.sources, range(len(self)), threads), "image", self)

    def _decode(self, sources: Sequence[str | bytes], rows: Sequence[int], threads: int = 1) -> Tensor:
        images, failures = decode_images(sources, self.form, threads=threads)
        for position, reason in failures.items():
            row, source = rows[position], sources[position]
            name = self.names[row] if self.names else f"row {row}" if isinstance(source, bytes) else source
            raise UserError(
                f"image {name} {reason}; `regrain check` lists every such image, --skip-unreadable leaves them out"
            )
        return torch.from_numpy(images)


@dataclass(frozen=True)
class Dataset:
    """Samples of one modality with labels and stable ids.

    Parameters
    ----------
    samples : Samples
    labels : Labels
        Of the same length.
    ids : array of str (N,)
        Unique identities, from the data's id column or path, else the row number. Random draws belong to them, so that
        the order of rows changes nothing.
    name : str
    splits : array of str (N,), optional
        The split of every sample, such as ``train`` and ``test``.
    groups : array of str (N,), optional
        What must not be torn apart by a split: the subject, the product. The rows of a group are in time order, where
        there is one: the protocol ``personalised`` learns from a subject's first rows and is judged on the rest.
    notes : dict
        What a reader has to tell: source, licence, rows left out and why, the default views.
    """

    samples: Samples
    labels: Labels
    ids: np.ndarray
    name: str = "data"
    splits: np.ndarray | None = None
    groups: np.ndarray | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {"samples": len(self.samples), "labels": len(self.labels), "ids": len(self.ids)}
        if self.splits is not None:
            lengths["splits"] = len(self.splits)
        if self.groups is not None:
            lengths["groups"] = len(self.groups)
        if len(set(lengths.values())) != 1:
            raise UserError(f"the parts of a data set differ in length: {lengths}")

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.samples.shape))
        levels = [f"{level} ({count} classes)" for level, count in self.labels.counts.items()]
        counts = Counter(map(str, () if self.splits is None else self.splits))
        parts = [f"{name} {count}" for name, count in counts.items()]
        return (
            f"<Dataset {self.name}: {len(self)} {self.modality} samples{f' of {shape}' if shape else ''}; "
            f"levels: {', '.join(levels) or 'none'}{'; splits: ' + ', '.join(parts) if parts else ''}>"
        )

    @property
    def modality(self) -> Modality:
        """One of image, text, vector, series."""
        return self.samples.modality

    @cached_property
    def keys(self) -> Tensor:
        """LongTensor (N,): a hash of each id, stable over runs, machines and subsets."""
        digests = (hashlib.blake2b(str(i).encode("utf-8", "surrogatepass"), digest_size=8).digest() for i in self.ids)
        return torch.from_numpy(np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64))

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
        return replace(
            self,
            samples=self.samples.select(rows),
            labels=self.labels.select(rows),
            ids=self.ids[array],
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
        encoded = samples if isinstance(samples, ImageSamples) else getattr(samples, "encoded", None)
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

    def split(self, name: str) -> Dataset:
        """The samples of one split.

        Raises
        ------
        UserError
            If the data have no such split; the message names those there are.
        """
        if self.splits is None or name not in self.split_names:
            hint = nearest(name, self.split_names) if self.split_names else "the data have no splits"
            raise UserError(f"{self.name} has no split '{name}': {hint}", code="unknown_split")
        return self.select(self.splits == name)

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
            lacking = [repr(name) for name in wanted if name not in names]
            if lacking:
                are = ("column", "is") if len(lacking) == 1 else ("columns", "are")
                raise UserError(
                    f"{self.name}: {are[0]} {', '.join(lacking[:3])}{' and more' if len(lacking) > 3 else ''} "
                    f"{are[1]} missing: {who} was trained on {'it' if len(lacking) == 1 else 'them'}"
                )
            order = torch.tensor([names.index(name) for name in wanted])
            notes[key] = list(wanted)
            if isinstance(samples, TensorSamples) and samples.tensor.shape[-1] == len(names):
                samples = replace(samples, tensor=samples.tensor[..., order])
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
            A level whose class shares are kept (by sample only).
        seed : int

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
            for rows in self._drawn_by_class(stratify, generator):
                held[rows[: round(fraction * len(rows))]] = True
        if held.all() or not held.any():
            codes = None if by == "group" or stratify is None else self.labels.level(stratify)
            if codes is not None and int(torch.bincount(codes + 1).max()) * fraction <= 0.5:
                largest = int(torch.bincount(codes + 1).max())
                raise UserError(
                    f"no sample can be held out: level '{stratify}' has {len(codes.unique())} classes of at most "
                    f"{_samples(largest)}, and {fraction:.0%} of each is less than half a sample. Are these labels "
                    "ids? Name another level, or give a split of your own (--split-column; split_column=)"
                )
            raise UserError(
                f"holding out {fraction:.0%} of {_samples(len(self))} by {by} leaves one side empty: --holdout sets "
                "another share"
            )
        return self.select(~held), self.select(held)

    def limit_per_class(self, count: int, *, level: str | None = None, seed: int = 0) -> Dataset:
        """At most ``count`` samples of every class of ``level`` (default: the finest), drawn by seed; order is kept.

        This makes a smaller data set for an experiment, before anything is hidden from a method. Samples of unknown
        class at that level are limited together.
        """
        if count < 1:
            raise UserError(f"the limit per class is at least 1; got {count}")
        finest = self.labels.levels[-1] if self.labels.levels else None
        drawn = self._drawn_by_class(level or finest, np.random.default_rng(seed))
        return self.select(np.sort(np.concatenate([rows[:count] for rows in drawn])))

    def subsample(self, count: int, *, seed: int = 0) -> Dataset:
        """``count`` of the samples, drawn by seed whatever their classes; order is kept, a larger draw holds a smaller.

        Raises
        ------
        UserError
            If there are fewer, or less than two are asked for.
        """
        if not 2 <= count <= len(self):
            raise UserError(f"samples to draw are 2 to {len(self)}, all that {self.name} has; got {count}")
        (order,) = self._drawn_by_class(None, np.random.default_rng(seed))
        return self.select(np.sort(order[:count]))

    def with_label_noise(
        self,
        share: float | Mapping[str, float],
        *,
        levels: Sequence[str] | None = None,
        within: str | None = None,
        seed: int = 0,
    ) -> Dataset:
        """The same samples, some with a wrong label: a label is drawn anew with probability ``share``.

        It is drawn from all classes, its own among them, so that 1 makes labels random (MLCL, supplement 8.1). Where
        levels nest, the labels above follow the new one, and a finer one that does not lie below it is lost. A larger
        share keeps the wrong labels of a smaller one.

        Parameters
        ----------
        share : float, or mapping of level to float
            In [0, 1]. One number is for every level where levels do not nest; where they do, for each sample at the
            finest level that is known of it. A mapping is for its levels alone, the coarsest first.
        levels : sequence of str, optional
            Those in use, which one number is for; default all.
        within : str, optional
            A level of which classes are not left: wrong labels are confusions between siblings below it. Samples known
            at no level below it keep their labels.
        seed : int

        Raises
        ------
        UserError
            If a share lies outside [0, 1], a level is unknown, or ``within`` is none above a noisy level.
        """
        labels, taxonomy = self.labels, self.labels.taxonomy
        named = isinstance(share, Mapping)
        shares = dict(share) if isinstance(share, Mapping) else dict.fromkeys(levels or labels.levels, share)
        used = sorted(shares, key=labels.level_index)
        finest = labels.codes[:, [labels.level_index(level) for level in used]]
        finest = ((finest >= 0) * torch.arange(1, len(used) + 1)).amax(dim=1) - 1  # of the levels in use; -1 for none
        codes = labels.codes.clone()
        (order,) = self._drawn_by_class(None, np.random.default_rng(seed))  # hangs on ids, not on the order of rows
        rows = torch.from_numpy(order)
        for number, level in enumerate(used):
            column, part = labels.level_index(level), shares[level]
            if not 0 <= part <= 1:
                raise UserError(f"the share of noisy labels lies in [0, 1]; got {part}")
            if within is not None and not named and number < len(used) - 1 and column <= labels.level_index(within):
                continue
            generator = np.random.default_rng((seed, column))
            changed = torch.from_numpy(generator.random(len(self)) < part)
            draws = torch.from_numpy(generator.random(len(self)))
            old = codes[rows, column]
            classes = len(labels.names(level))
            new = (draws * classes).long() if within is None else _siblings_drawn(labels, level, within, old, draws)
            noisy = changed & (old >= 0) & (new != old)
            if taxonomy is None:
                codes[rows[noisy], column] = new[noisy]
                continue
            if not named:
                noisy &= finest[rows] == number
            codes[rows[noisy], column] = new[noisy]
            for upper in labels.levels[:column]:
                codes[rows[noisy], labels.level_index(upper)] = taxonomy.ancestors(level, upper)[new[noisy]]
            codes[rows[noisy][:, None], torch.arange(column + 1, len(labels.levels))] = UNKNOWN
        return replace(self, labels=replace(labels, codes=codes))

    def hide_labels(self, share: float | Mapping[str, float], *, within: str | None = None, seed: int = 0) -> Dataset:
        """The same samples, of which a share has lost its labels: what few labels are worth.

        Drawn by seed within the classes of one level, each of which keeps one label at least; a larger share hides all
        that a smaller one hides.

        Parameters
        ----------
        share : float, or mapping of level to float
            In [0, 1). One number hides labels at every level; a mapping those of its levels, each from its own share of
            the samples, so that ``{"domain": 0.3, "intent": 0.95}`` leaves 5% labelled to the intent, 65% to the domain
            alone and the rest not at all.
        within : str, optional
            The level within whose classes is drawn; default the coarsest.
        seed : int

        Raises
        ------
        UserError
            If a share lies outside [0, 1), a level is unknown, or there are no labels.
        """
        labels = self.labels
        if not labels.levels:
            raise UserError(f"{self.name} has no labels to hide")
        shares = share if isinstance(share, Mapping) else dict.fromkeys(labels.levels, share)
        codes = labels.codes.clone()
        drawn = self._drawn_by_class(within or labels.levels[0], np.random.default_rng(seed))
        for level, part in shares.items():
            if not 0 <= part < 1:
                raise UserError(f"the share of labels to hide lies in [0, 1), 1 left out; got {part}")
            for rows in drawn:
                hidden = rows[: min(round(part * len(rows)), len(rows) - 1)]
                codes[torch.from_numpy(hidden), labels.level_index(level)] = UNKNOWN
        return replace(self, labels=replace(labels, codes=codes))

    def _drawn_by_class(self, level: str | None, generator: np.random.Generator) -> list[np.ndarray]:
        """The rows of every class in a random order that hangs on the samples' ids, not on the order of rows."""
        codes = np.zeros(len(self), dtype=np.int64) if level is None else self.labels.level(level).numpy()
        by_id = np.argsort(self.keys.numpy(), kind="stable")
        return [generator.permutation(by_id[codes[by_id] == code]) for code in np.unique(codes)]

    def fingerprint(self) -> str:
        """A hash of ids and content: the key of caches, and the run folder's record of what it was trained on."""
        content = hashlib.blake2b(self.samples.digest().encode(), digest_size=16)
        content.update(self.keys.numpy().tobytes())
        return content.hexdigest()


def _siblings_drawn(labels: Labels, level: str, within: str, old: Tensor, draws: Tensor) -> Tensor:
    """For each code, one of the classes with the same ancestor at level ``within``, itself among them."""
    if labels.taxonomy is None or labels.level_index(within) >= labels.level_index(level):
        raise UserError(f"labels of level '{level}' stay within classes of a level above it: '{within}' is none")
    above = labels.taxonomy.ancestors(level, within)
    new = old.clone()
    for code in above[old[old >= 0]].unique().tolist():
        own = (above == code).nonzero()[:, 0]
        at = (old >= 0) & (above[old.clamp(min=0)] == code)
        new[at] = own[(draws[at] * len(own)).long()]
    return new


def _samples(count: int) -> str:
    return f"{count} sample" + ("s" if count != 1 else "")
