"""Samples for browsers: pictures by row, texts, and a few numbers of vectors and series."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regrain.explorer.collection import Collection
from regrain.pictures.numbers import thinned
from regrain.pictures.tiles import tiles

MOST_TEXT = 2_000
"""Most characters of a displayed text."""


def picture(collection: Collection, row: int, *, small: bool) -> bytes:
    """Encode an image sample as PNG, as a tile or at its stored size."""
    part, place = collection.place(row)
    index = torch.tensor([place])
    if small:
        image = tiles(part, index)[0]
    else:
        raw: Tensor = part.samples.take(index)[0]
        shown = raw.mean(dim=0, keepdim=True, dtype=torch.float32).byte() if raw.shape[0] not in (1, 3) else raw
        image = Image.fromarray(shown[0].numpy() if len(shown) == 1 else shown.permute(1, 2, 0).contiguous().numpy())
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def cell(collection: Collection, row: int) -> dict[str, Any]:
    """Describe a sample: ``id``, ``split``, ``superclass``; ``text``, or ``lines`` (channels of numbers).

    Numbers are thinned, and scaled to [0, 1] within a channel; missing ones are None.
    """
    start = collection.start
    shown: dict[str, Any] = {
        "row": row,
        "id": str(start.ids[row]),
        "split": str(start.splits[row]),
        "superclass": start.superclass[row],
    }
    if collection.modality == "image":
        return shown
    part, place = collection.place(row)
    taken = part.samples.take(torch.tensor([place]))
    if collection.modality == "text":
        return shown | {"text": taken[0][:MOST_TEXT]}
    values = thinned(taken)[0]
    channels = values[None] if values.ndim == 1 else values.T
    return shown | {"lines": [_line(channel.double().numpy()) for channel in channels]}


def _line(values: np.ndarray) -> list[float | None]:
    known = np.isfinite(values)
    if not known.any():
        return [None] * len(values)
    low, spread = values[known].min(), np.ptp(values[known]) or 1.0
    return [round(float((v - low) / spread), 3) if k else None for v, k in zip(values, known, strict=True)]
