"""Pictures of what was discovered: subclasses in rows, from the purest or the most mixed, or drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.tasks.discover import Discovery, Subclass

__all__ = ["write_grids"]

_ROWS, _COLUMNS = 10, 10
_TILE, _GAP, _TITLE = 64, 4, 22
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


def write_grids(
    discovery: Discovery, parts: Mapping[str, Dataset], folder: str | Path, *, split: str | None = None, seed: int = 0
) -> list[Path]:
    """Write ``best.png``, ``worst.png`` and ``random.png``: ten subclasses each, ten of their samples in a row.

    Subclasses are sorted by purity at the finest level that has labels there, weighed against chance by the number of
    labelled samples (the lower end of a 95% interval, Wilson 1927), so that tiny ones do not lead; without labels by
    their samples' mean probability. The samples shown are drawn at random from the subclass.

    Parameters
    ----------
    discovery : Discovery
    parts : mapping of split to Dataset
        The samples that were told apart, in the same order.
    folder : path
        Made where it does not exist.
    split : str, optional
        Show and sort by samples of this split only.
    seed : int

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    UserError
        If the samples are no images, or there is no such split.
    """
    first = next(iter(parts.values()))
    if first.modality != "image":
        raise UserError(
            f"grids show images, and {first.name} holds {first.modality} samples: the table names exemplars"
        )
    if split is not None and split not in parts:
        raise UserError(f"no split '{split}' to show: there are {', '.join(parts)}")
    random = np.random.default_rng(seed)
    shown = np.ones(len(discovery.ids), bool) if split is None else discovery.splits == split
    by_number = {s.number: s for s in discovery.subclasses}
    present = [n for n in by_number if bool((shown & (discovery.subclass == n)).any())]
    ranks, words = _ranks(discovery, parts, shown, present)
    ordered = sorted(present, key=lambda n: (-ranks[n], n))
    drawn = [present[i] for i in sorted(random.permutation(len(present))[:_ROWS])]
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, numbers in (("best", ordered[:_ROWS]), ("worst", ordered[::-1][:_ROWS]), ("random", drawn)):
        rows = []
        for number in numbers:
            members = np.flatnonzero(shown & (discovery.subclass == number))
            chosen = np.sort(random.permutation(members)[:_COLUMNS])
            rows.append((_title(by_number[number], len(members), words.get(number, "")), _images(parts, chosen)))
        file = target / f"{name}.png"
        temporary = target / f".{name}.png.tmp"
        _picture(rows).save(temporary, format="png")
        temporary.replace(file)
        written.append(file)
    return written


def _ranks(
    discovery: Discovery, parts: Mapping[str, Dataset], shown: np.ndarray, numbers: Sequence[int]
) -> tuple[dict[int, float], dict[int, str]]:
    """What the subclasses are sorted by, and in words what they mostly hold."""
    labels = next(iter(parts.values())).labels
    for level in reversed(labels.levels):
        codes = torch.cat([part.labels.level(level) for part in parts.values()]).numpy()
        if not (shown & (codes >= 0)).any():
            continue
        ranks, words = {}, {}
        for number in numbers:
            own = codes[shown & (discovery.subclass == number) & (codes >= 0)]
            if not len(own):
                ranks[number] = 0.0
                continue
            counts = np.bincount(own)
            ranks[number] = _wilson(int(counts.max()), len(own))
            share = 100 * counts.max() / len(own)
            words[number] = f"{labels.names(level)[int(counts.argmax())]} {share:.0f}% of {len(own)}"
        return ranks, words
    means = {n: float(discovery.probability[shown & (discovery.subclass == n)].mean()) for n in numbers}
    return means, {n: f"mean probability {value:.2f}" for n, value in means.items()}


def _wilson(hits: int, count: int) -> float:
    """Lower end of the 95% score interval of a share."""
    z = 1.96
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float((middle - spread) / (1 + z * z / count))


def _title(subclass: Subclass, size: int, words: str) -> str:
    return f"{subclass.name}: {size} samples" + (f", {words}" if words else "")


def _images(parts: Mapping[str, Dataset], rows: np.ndarray) -> list[Image.Image]:
    """The samples at these places of all parts one after the other, as tiles."""
    result, start = [], 0
    for part in parts.values():
        own = rows[(rows >= start) & (rows < start + len(part))] - start
        start += len(part)
        if len(own):
            raw: Tensor = part.samples.take(torch.from_numpy(own))
            result += [_tile(image) for image in raw]
    return result


def _tile(image: Tensor) -> Image.Image:
    """(C, H, W) of 0 to 255 -> a picture whose longer side is that of a tile; more or fewer than 3 channels as grey."""
    grey = image.float().mean(dim=0, keepdim=True).expand(3, -1, -1)
    colours = image.float() if len(image) == 3 else grey
    height, width = colours.shape[1:]
    scale = _TILE / max(height, width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    mode = "nearest" if scale > 1 else "area"
    resized = functional.interpolate(colours[None], size=size, mode=mode)[0].round().byte()
    return Image.fromarray(resized.permute(1, 2, 0).contiguous().numpy())


def _picture(rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    font = ImageFont.load_default(size=14)
    width = _GAP + _COLUMNS * (_TILE + _GAP)
    height = max(1, len(rows)) * (_TITLE + _TILE + _GAP) + _GAP
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, images) in enumerate(rows):
        top = _GAP + number * (_TITLE + _TILE + _GAP)
        draw.text((_GAP, top), _fitting(title, font, width - 2 * _GAP), fill=_INK, font=font)
        for column, image in enumerate(images):
            page.paste(image, (_GAP + column * (_TILE + _GAP), top + _TITLE))
    return page


def _fitting(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut where it would leave the page."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
