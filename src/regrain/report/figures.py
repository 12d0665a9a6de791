"""Draw the figures of a page as PNG and SVG with matplotlib."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from regrain.errors import UserError
from regrain.pictures.tiles import Colour, TileRow, tiles, write_page
from regrain.report.content import Chart, Confusion, Content, Map
from regrain.storage.files import replace_file

_NAMED = 30
_ENDINGS = ("png", "svg")
_LEGEND = 20
_STARS = 12
_KEY = ", and its nearest: green right, amber right at a coarser level, red wrong"
_FRAMES: dict[str, Colour] = {
    "query": (30, 30, 30),
    "right": (26, 127, 67),
    "above": (214, 137, 16),
    "wrong": (192, 43, 43),
    "unknown": (200, 200, 200),
}


def write_figures(content: Content, folder: Path, *, overwrite: bool) -> list[Path]:
    """Write every chart, map and confusion matrix, and for images the galleries and grids.

    Raises a UserError if a file would be overwritten.

    ``folder``: created if absent. ``overwrite``: replace existing files.

    Returns
    -------
    list of Path
        The files written.
    """
    drawn: dict[str, Callable[[Any], None]] = _charts([*content.curves, *content.few_shot])
    if content.map is not None:
        for number, (level, *_) in enumerate(content.map.levels):
            drawn[f"map-{_slug(level)}"] = partial(_draw_map, content.map, number)
    for found in content.confusions:
        drawn[f"confusion-{_slug(found.level)}"] = partial(_draw_confusion, found)
    written = _write(drawn, folder, overwrite)
    if content.judged.modality == "image":
        written += _write_pictures(content, folder, overwrite)
    return written


def write_charts(charts: Sequence[Chart], folder: Path, *, overwrite: bool) -> list[Path]:
    """Write only the charts; see :func:`write_figures`."""
    return _write(_charts(charts), folder, overwrite)


def _charts(charts: Sequence[Chart]) -> dict[str, Callable[[Any], None]]:
    return {f"{number:02d}-{_slug(chart.title)}": partial(_draw_chart, chart) for number, chart in enumerate(charts)}


def _write(drawn: dict[str, Callable[[Any], None]], folder: Path, overwrite: bool) -> list[Path]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = [folder / f"{name}.{ending}" for name in drawn for ending in _ENDINGS]
    _require_free(files, overwrite)
    for name, draw in drawn.items():
        figure = Figure(figsize=(7, 5), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot())
        for ending in _ENDINGS:
            save = partial(figure.savefig, format=ending, dpi=150, metadata={"Date": None} if ending == "svg" else None)
            replace_file(folder / f"{name}.{ending}", save)
    return files


def _require_free(files: Sequence[Path], overwrite: bool) -> None:
    there = next((file for file in files if file.exists()), None)
    if there is not None and not overwrite:
        raise UserError(
            f"{there} exists: choose another folder for --figures, or replace it with --overwrite",
            code="would_overwrite",
        )


def _draw_chart(chart: Chart, axes: Any) -> None:
    for line in chart.lines:
        axes.plot(line.x, line.y, marker="o" if len(line.x) <= 12 else None, label=_plain(line.name))
        if line.low is not None:
            axes.fill_between(line.x, line.low, line.high, alpha=0.15)
    if chart.log_x:
        axes.set_xscale("log")
        places = sorted({x for line in chart.lines for x in line.x})
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.minorticks_off()
    elif all(float(x).is_integer() for line in chart.lines for x in line.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(title=_wrapped(chart.title), xlabel=_plain(chart.x), ylabel=_plain(chart.y))
    if len(chart.lines) > 1:
        axes.legend()


def _draw_map(found: Map, number: int, axes: Any) -> None:
    from matplotlib import colormaps

    level, classes, codes = found.levels[number]
    wide = colormaps["turbo"].resampled(max(2, len(classes)))  # as many colours as classes
    palette = colormaps["tab10"] if len(classes) <= 10 else colormaps["tab20"] if len(classes) <= 20 else wide
    axes.scatter(*found.points[codes < 0].T, s=3, color="0.8")
    for code in np.unique(codes[codes >= 0]).tolist():
        label = _plain(classes[code]) if len(classes) <= _LEGEND else None
        axes.scatter(*found.points[codes == code].T, s=5, color=palette(code % palette.N), label=label)
    if number:
        axes.scatter(*found.means[number].T, marker="P", s=70, color="black", edgecolors="white")
    axes.scatter(*found.means[0].T, marker="*", s=160, color="black", edgecolors="white")
    if len(found.means[0]) <= _STARS:
        _name_stars(found, axes)
    axes.set(
        title=_wrapped(f"t-SNE of {len(found.rows)} of {found.total} samples by {level}; stars and pluses are means"),
        xlabel="t-SNE 1 (no unit)",
        ylabel="t-SNE 2 (no unit)",
    )
    if len(classes) <= _LEGEND:
        axes.legend(fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))


def _name_stars(found: Map, axes: Any) -> None:
    from matplotlib.patheffects import withStroke

    for name, place in zip(found.levels[0][1], found.means[0], strict=True):
        if np.isfinite(place).all():
            halo = [withStroke(linewidth=3, foreground="white")]
            offset = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center", "path_effects": halo}
            axes.annotate(_plain(name), place, weight="bold", fontsize=8, **offset)


def _draw_confusion(found: Confusion, axes: Any) -> None:
    shares = 100 * found.counts / found.counts.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.figure.colorbar(image, label="% of the label's samples")
    if len(found.classes) <= _NAMED:
        names = [_plain(name) for name in found.classes]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    count = f" ({len(found.classes)} classes)"
    axes.set(title=_wrapped(f"Confusion at level '{found.level}', by {found.by}"))
    axes.set(xlabel=f"predicted{count}", ylabel=f"label{count}")


def _write_pictures(content: Content, folder: Path, overwrite: bool) -> list[Path]:
    """Write galleries and grids of images."""
    import torch

    def row(title: str, rows: Sequence[int], captions: Sequence[str], verdicts: Sequence[str] = ()) -> TileRow:
        return TileRow(title, tiles(content.judged, torch.tensor(rows)), captions, [_FRAMES[v] for v in verdicts])

    pages = {}
    if content.queries:
        pages["retrieval"] = [
            row(
                query.caption + (_KEY if query is content.queries[0] else ""),
                [query.row, *(found.row for found in query.found[:9])],
                ["query", *(found.caption for found in query.found[:9])],
                ["query", *(found.verdict for found in query.found[:9])],
            )
            for query in content.queries
        ]
    if content.groups:
        pages["subclasses"] = [
            row(
                f"{group.name}: {group.size} samples" + (f", {group.words}" if group.words else ""),
                [shown.row for shown in group.samples[:10]],
                [shown.caption for shown in group.samples[:10]],
            )
            for group in content.groups
        ]
    files = [folder / f"{name}.png" for name in pages]
    _require_free(files, overwrite)
    for file, rows in zip(files, pages.values(), strict=True):
        write_page(rows, file)
    return files


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")[:60]


def _plain(text: str) -> str:
    """Escape a text, so that matplotlib reads no mathematics in it and does not hide it as a label."""
    return " " * text.startswith("_") + text.replace("$", r"\$")


def _wrapped(text: str) -> str:
    return textwrap.fill(_plain(text))
