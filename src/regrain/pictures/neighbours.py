"""A picture of queries and their nearest neighbours, as several representations see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.pictures.tiles import tiles
from regrain.storage.files import replace_file

_TILE, _GAP, _BETWEEN, _MARGIN, _HEAD, _LINE = 56, 6, 26, 18, 58, 18
_INK, _GREY, _PAPER = (30, 30, 30), (110, 110, 110), (255, 255, 255)
_RIGHT, _WRONG = (0, 145, 90), (222, 222, 222)


class Panel(NamedTuple):
    """A title, a line under it, and each query's neighbours (Q, K) with a flag if they share its class."""

    title: str
    line: str
    neighbours: Tensor
    right: Tensor


def write_neighbours(
    dataset: Dataset, queries: Tensor, panels: Sequence[Panel], out: Path, *, title: str, foot: str
) -> None:
    """Write a PNG: a row for each query, a block of columns for each panel; neighbours of its class are framed green.

    ``dataset``: image samples. ``queries``: LongTensor (Q,); positions in ``dataset``. ``panels``: all with the same
    number of neighbours. ``title``, ``foot``: texts above and below the picture.
    """
    step = _TILE + _GAP
    count = panels[0].neighbours.shape[1]
    block = count * step - _GAP
    width = 2 * _MARGIN + _TILE + len(panels) * (_BETWEEN + block)
    top = _MARGIN + _LINE + _GAP + _HEAD
    page = Image.new("RGB", (width, top + len(queries) * step + _LINE + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    large, plain, small = (ImageFont.load_default(size=size) for size in (17, 14, 12))
    draw.text((_MARGIN, _MARGIN - 4), title, fill=_INK, font=large)
    draw.text((_MARGIN, top - _HEAD + 12), "query", fill=_INK, font=plain)
    for number, panel in enumerate(panels):
        left = _MARGIN + _TILE + _BETWEEN + number * (_BETWEEN + block)
        draw.text((left, top - _HEAD + 12), panel.title, fill=_INK, font=plain)
        draw.text((left, top - _HEAD + 32), panel.line, fill=_GREY, font=small)
        for row in range(len(queries)):
            for column, image in enumerate(tiles(dataset, panel.neighbours[row], _TILE)):
                place = left + column * step, top + row * step
                right = bool(panel.right[row, column])
                _framed(page, draw, image, place, _RIGHT if right else _WRONG, 3 if right else 1)
    for row, image in enumerate(tiles(dataset, queries, _TILE)):
        _framed(page, draw, image, (_MARGIN, top + row * step), _INK, 2)
    draw.text((_MARGIN, page.height - _MARGIN - 10), foot, fill=_GREY, font=small)
    replace_file(out, lambda temporary: page.save(temporary, format="png"))


def _framed(
    page: Image.Image,
    draw: ImageDraw.ImageDraw,
    image: Image.Image,
    place: tuple[int, int],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    left, top = place
    page.paste(image, place)
    draw.rectangle((left - 2, top - 2, left + _TILE + 1, top + _TILE + 1), outline=colour, width=width)
