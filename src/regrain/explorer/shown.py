"""Samples for browsers: pictures by row, texts, and a few numbers of vectors and series."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.data.images import as_picture
from regrain.explorer.collection import Collection
from regrain.pictures.numbers import heights, thinned
from regrain.pictures.tiles import tiles

MOST_TEXT = 2_000
"""Most characters of a displayed text."""

TILE, ACROSS = 144, 10
"""Pixels of a thumbnail's side, and thumbnails in a row of a sheet."""


def picture(collection: Collection, row: int) -> bytes:
    """Encode an image sample as PNG at its stored size."""
    part, place = collection.place(row)
    raw: Tensor = part.samples.take(torch.tensor([place]))[0]
    shown = raw.mean(dim=0, keepdim=True, dtype=torch.float32).byte() if raw.shape[0] not in (1, 3) else raw
    return _png(as_picture(shown.numpy()))


def sheet(collection: Collection, rows: Sequence[int]) -> bytes:
    """Encode image samples as one PNG: cells of :data:`TILE` pixels, :data:`ACROSS` in a row, in the order of rows.

    Pictures that are not square stand in the middle of their cell, on a transparent ground.
    """
    page = Image.new("RGBA", (TILE * min(ACROSS, len(rows)), TILE * -(-len(rows) // ACROSS)))
    of_part: dict[int, tuple[Dataset, list[int], list[int]]] = {}
    for cell_number, row in enumerate(rows):
        part, place = collection.place(row)
        _, cells, places = of_part.setdefault(id(part), (part, [], []))
        cells.append(cell_number)
        places.append(place)
    for part, cells, places in of_part.values():
        for number, image in zip(cells, tiles(part, torch.tensor(places), TILE), strict=True):
            left, top = TILE * (number % ACROSS), TILE * (number // ACROSS)
            page.paste(image, (left + (TILE - image.width) // 2, top + (TILE - image.height) // 2))
    return _png(page)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)  # for this machine alone: time counts, bytes do not
    return stream.getvalue()


def cell(collection: Collection, row: int) -> dict[str, Any]:
    """Describe a sample: ``id``, ``split``, ``superclass``; ``text``, ``bars`` (a vector), or ``lines`` (channels).

    Numbers are thinned and stand in [0, 1] over three standard deviations of their column; missing ones are None.
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
    values = heights(thinned(taken), collection.scale)[0]
    if collection.modality == "vector":
        return shown | {"bars": _numbers(values)}
    return shown | {"lines": [_numbers(channel) for channel in values.T]}


def _numbers(values: Tensor) -> list[float | None]:
    return [round(value, 3) if math.isfinite(value) else None for value in values.tolist()]
