"""Pages of pictures: samples as tiles in rows, under titles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.storage.files import replace_file

COLUMNS = 10
"""Number of tiles in a row."""

_TILE, _GAP, _TITLE, _CAPTION = 64, 4, 22, 16
_INK, _PAPER = (30, 30, 30), (255, 255, 255)

Colour = tuple[int, int, int]

_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


class TileRow(NamedTuple):
    """A title, at most :data:`COLUMNS` tiles, and optional captions under them and frames around them."""

    title: str
    images: Sequence[Image.Image]
    captions: Sequence[str] = ()
    frames: Sequence[Colour] = ()


def require_images(modality: str, where: str, what: str, instead: str) -> None:
    """Raise a UserError if samples are not images: ``what`` shows images, ``instead`` is the alternative."""
    if modality != "image":
        raise UserError(f"{what} show images, and {where} holds {modality} samples: {instead}", code="not_supported")


def tiles(dataset: Dataset, rows: Tensor, side: int = _TILE) -> list[Image.Image]:
    """Draw the samples at rows (n,) as tiles whose longer side has ``side`` pixels, in this order."""
    raw: Tensor = dataset.samples.take(rows)
    return [_tile(image, side) for image in raw]


def write_page(rows: Sequence[TileRow], out: Path) -> None:
    """Write rows below each other as a PNG, under a temporary name that is then renamed."""
    page = _page(rows)
    replace_file(out, lambda temporary: page.save(temporary, format="png"))


def _tile(image: Tensor, side: int) -> Image.Image:
    """Turn (C, H, W) of 0 to 255 into a picture with longer side ``side``; grey unless C is 3."""
    grey = image.float().mean(dim=0, keepdim=True).expand(3, -1, -1)
    colours = image.float() if len(image) == 3 else grey
    height, width = colours.shape[1:]
    scale = side / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    mode = "nearest" if scale > 1 else "area"
    resized = functional.interpolate(colours[None], size=size, mode=mode)[0].round().byte()
    return Image.fromarray(resized.permute(1, 2, 0).contiguous().numpy())


def _page(rows: Sequence[TileRow]) -> Image.Image:
    font, small = ImageFont.load_default(size=14), ImageFont.load_default(size=11)
    caption = _CAPTION if any(row.captions for row in rows) else 0
    width = _GAP + COLUMNS * (_TILE + _GAP)
    step = _TITLE + _TILE + caption + _GAP
    page = Image.new("RGB", (width, max(1, len(rows)) * step + _GAP), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, row in enumerate(rows):
        top = _GAP + number * step
        draw.text((_GAP, top), _fitting(row.title, font, width - 2 * _GAP), fill=_INK, font=font)
        for column, image in enumerate(row.images):
            page.paste(image, (_GAP + column * (_TILE + _GAP), top + _TITLE))
        for column, colour in enumerate(row.frames):
            left, upper = _GAP + column * (_TILE + _GAP) - 2, top + _TITLE - 2
            draw.rectangle((left, upper, left + _TILE + 3, upper + _TILE + 3), outline=colour, width=3)
        for column, text in enumerate(row.captions):
            place = (_GAP + column * (_TILE + _GAP), top + _TITLE + _TILE)
            draw.text(place, _fitting(text, small, _TILE), fill=_INK, font=small)
    return page


def _fitting(text: str, font: _Font, width: int) -> str:
    """Cut a text to a width."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
