"""Prepare samples for the page: pictures in one sprite, short texts, vectors as bars, series as small curves."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.pictures.numbers import CHANNELS, STEPS, heights, scale_of, thinned
from regrain.pictures.tiles import tiles

TILE = 64
"""Side of a picture in the sprite, in pixels."""

_ACROSS = 64
_LETTERS = 240
_CHUNK = 256


@dataclass(frozen=True)
class Sprite:
    """All pictures in one WebP, row by row."""

    content: bytes
    across: int
    rows: int


@dataclass
class Cells:
    """The samples of a data set that the page draws, each once."""

    judged: Dataset
    places: dict[int, int] = field(default_factory=dict)

    def add(self, rows: Iterable[int]) -> None:
        """Add samples by row."""
        for row in rows:
            self.places.setdefault(int(row), len(self.places))

    @property
    def rows(self) -> Tensor:
        """LongTensor (n,): the samples in the order of their cells."""
        return torch.tensor(list(self.places), dtype=torch.long)

    def sprite(self) -> Sprite | None:
        """Pictures of image samples; None for other modalities or without samples."""
        if self.judged.modality != "image" or not self.places:
            return None
        down = -(-len(self.places) // _ACROSS)
        sheet = Image.new("RGB", (_ACROSS * TILE, down * TILE), (127, 127, 127))
        for start in range(0, len(self.places), _CHUNK):
            for place, image in enumerate(tiles(self.judged, self.rows[start : start + _CHUNK]), start):
                left = (place % _ACROSS) * TILE + (TILE - image.width) // 2
                sheet.paste(image, (left, (place // _ACROSS) * TILE + (TILE - image.height) // 2))
        stream = io.BytesIO()
        tiny = max(self.judged.samples.shape[1:]) <= 16
        sheet.save(stream, "webp", **({"lossless": True, "quality": 50} if tiny else {"quality": 70}))
        return Sprite(stream.getvalue(), _ACROSS, down)

    def payload(self) -> dict[str, Any]:
        """Data for the page's script: ``kind``, with ``texts`` for texts and ``values`` in bytes for numbers.

        Bytes are 0 to 254 over the range of a column (mean +- 3 standard deviations), 255 where a value is missing.
        """
        modality = self.judged.modality
        if modality == "image" or not self.places:
            return {"kind": modality}
        if modality == "text":
            texts = [text for start in range(0, len(self.places), _CHUNK) for text in self._take(start)]
            return {"kind": "text", "texts": [t if len(t) <= _LETTERS else f"{t[: _LETTERS - 1]}…" for t in texts]}
        values = torch.cat([thinned(self._take(start)) for start in range(0, len(self.places), _CHUNK)])
        scaled = heights(values, scale_of(self.judged)).mul(254).round().nan_to_num(nan=255.0)
        names = self.judged.notes.get("columns") or []
        return {
            "kind": modality,
            "shape": list(values.shape[1:]),
            "values": scaled.byte().numpy(),
            "names": [str(name) for name in names] if len(names) == values.shape[-1] else [],
        }

    def words(self) -> str:
        """Say in one line how samples are shown; empty for images and complete texts."""
        shape = self.judged.samples.shape
        if self.judged.modality == "vector":
            pooled = f", {shape[0]} columns averaged to {STEPS}" if shape[0] > STEPS else ""
            return f"A vector is shown as bars, from its columns' mean, up to three standard deviations{pooled}."
        if self.judged.modality == "series":
            pooled = f", {shape[0]} steps averaged to {STEPS}" if shape[0] > STEPS else ""
            cut = f", the first {CHANNELS} of {shape[1]} channels" if shape[1] > CHANNELS else ""
            return f"A series is shown as curves over time{cut}{pooled}; heights are within three standard deviations."
        return f"Texts are cut at {_LETTERS} letters." if self.judged.modality == "text" else ""

    def _take(self, start: int) -> Any:
        return self.judged.samples.take(self.rows[start : start + _CHUNK])
