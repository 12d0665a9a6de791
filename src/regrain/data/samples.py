"""Raw samples of one modality: tensors, series with static features, texts, and images that stay encoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from regrain.data.images import DEEP_WHITE, ImageForm, decode_images
from regrain.data.packed import packed
from regrain.errors import UserError

Modality = Literal["image", "text", "vector", "series"]


@runtime_checkable
class Samples(Protocol):
    """A source of raw samples. ``shape`` is that of one raw sample: (C, H, W), (D,), (T, C), or () for text."""

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
    """Samples in one tensor in memory, or a memory map: uint8 images (N, C, H, W), vectors (N, D), series (N, T, C)."""

    stored: Tensor = field(repr=False)
    """Samples kept in half precision are handed on in float32."""
    modality: Modality
    encoded: ImageSamples | None = None
    """The images that the tensor was decoded from, where they are at hand: from them another form is made."""
    rows: Tensor | None = field(default=None, repr=False)
    """LongTensor (N,): the samples among those stored: a selection copies none of them."""

    in_memory = True

    def __post_init__(self) -> None:
        dimensions = {"image": 4, "vector": 2, "series": 3}[self.modality]
        if self.stored.ndim != dimensions or (self.modality == "image") != (self.stored.dtype == torch.uint8):
            wanted = {"image": "uint8 (N, C, H, W)", "vector": "float (N, D)", "series": "float (N, T, C)"}
            raise UserError(
                f"{self.modality} samples are {wanted[self.modality]}; got {_form(self.stored)}", code="wrong_shape"
            )

    @property
    def tensor(self) -> Tensor:
        """All samples (N, ...): a copy where they are a selection."""
        return self.stored if self.rows is None else self.stored[self.rows]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.stored.shape[1:])

    def __len__(self) -> int:
        return len(self.stored if self.rows is None else self.rows)

    def take(self, index: Tensor) -> Tensor:
        taken = self.stored[index if self.rows is None else self.rows[index]]
        return taken.float() if taken.dtype in (torch.float16, torch.bfloat16) else taken

    def select(self, index: Tensor) -> TensorSamples:
        encoded = None if self.encoded is None else self.encoded.select(index)
        rows = index if self.rows is None else self.rows[index]
        return TensorSamples(self.stored, self.modality, encoded, rows)

    def digest(self) -> str:
        form = f"{self.modality}{(len(self), *self.shape)}{self.stored.dtype}"
        content = hashlib.blake2b(form.encode(), digest_size=16)
        for rows in torch.arange(len(self)).split(4096):
            chunk = self.stored[rows if self.rows is None else self.rows[rows]]
            content.update(chunk.contiguous().view(torch.uint8).numpy().tobytes())
        return content.hexdigest()


@dataclass(frozen=True)
class SeriesSamples:
    """Records of subjects: time series, and static features of the same sample. NaN means that a value is missing.

    Examples
    --------
    >>> samples = SeriesSamples(torch.zeros(5, 8, 3), torch.ones(5, 2))
    >>> samples.shape, samples.static_width, {k: tuple(v.shape) for k, v in samples.take(torch.tensor([0, 4])).items()}
    ((8, 3), 2, {'series': (2, 8, 3), 'static': (2, 2)})
    """

    series: Tensor = field(repr=False)
    """Float Tensor (N, T, C)."""
    static: Tensor | None = field(default=None, repr=False)
    """Float Tensor (N, S): S may be 0, which is the same as none."""

    modality: Modality = field(default="series", init=False)
    in_memory = True

    def __post_init__(self) -> None:
        if self.series.ndim != 3 or not self.series.is_floating_point():
            raise UserError(f"series samples are float (N, T, C); got {_form(self.series)}", code="wrong_shape")
        static = self.static
        if static is None:
            return
        if static.ndim != 2 or not static.is_floating_point() or len(static) != len(self.series):
            raise UserError(
                f"static features are float (N, S), one row for each of the {len(self.series)} series; got "
                f"{_form(static)}",
                code="wrong_shape",
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
        both = f"{series}{TensorSamples(self.static, 'vector').digest()}"
        return hashlib.blake2b(both.encode(), digest_size=16).hexdigest()


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


@dataclass(frozen=True)
class ImageSamples:
    """Images that stay encoded (files or bytes) and are decoded when they are taken, at a storage size."""

    sources: Sequence[str | bytes] | np.ndarray = field(repr=False)
    size: int | tuple[int, int]
    """Int or (height, width): pixels at which images are handed on (shorter side resized, centre cut out); one number
    means a square.
    """
    channels: int = 3
    """1, 3 or 4."""
    names: Sequence[str] = field(default=(), repr=False)
    """How the user finds each image, for error messages; without it the path, or the position."""
    white: int = DEEP_WHITE
    """See :class:`~regrain.data.images.ImageForm`."""

    modality: Modality = field(default="image", init=False)
    in_memory = False

    def __post_init__(self) -> None:
        if not isinstance(self.sources, np.ndarray):
            paths = all(isinstance(source, str) for source in self.sources)
            object.__setattr__(self, "sources", packed(self.sources) if paths else tuple(self.sources))

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return (self.channels, height, width)

    @property
    def form(self) -> ImageForm:
        """Form of the images that are handed on."""
        return ImageForm(self.shape, self.white)

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, index: Tensor) -> Tensor:
        rows = index.tolist()
        return self._decode([self.sources[row] for row in rows], rows)

    def select(self, index: Tensor) -> ImageSamples:
        if isinstance(self.sources, np.ndarray):
            sources: Sequence[str | bytes] | np.ndarray = self.sources[index.numpy()]
        else:
            sources = tuple(self.sources[row] for row in index.tolist())
        names = tuple(self.names[row] for row in index.tolist()) if len(self.names) else ()
        return replace(self, sources=sources, names=names)

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
                status = os.stat(source)
                described = f"{source}|{status.st_size}|{status.st_mtime_ns}"
                content.update(described.encode("utf-8", "surrogatepass"))
        return content.hexdigest()

    def load(self, threads: int = 4) -> TensorSamples:
        """All images decoded into one tensor in memory."""
        return TensorSamples(self._decode(self.sources, range(len(self)), threads), "image", self)

    def _decode(self, sources: Sequence[str | bytes] | np.ndarray, rows: Sequence[int], threads: int = 1) -> Tensor:
        images, failures = decode_images(sources, self.form, threads=threads)
        for position, reason in failures.items():
            row, source = rows[position], sources[position]
            name = self.names[row] if len(self.names) else f"row {row}" if isinstance(source, bytes) else source
            raise UserError(
                f"image {name} {reason}; `regrain check` lists every such image, --skip-unreadable leaves them out",
                code="damaged_file",
            )
        return torch.from_numpy(images)


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"
