"""``report`` and ``compare``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.report import Comparison

_HEADLINES = re.compile(r"recall@1|map@r|knn@\d+|kmeans-acc|head1-acc|linear")
"""The metrics in the table on the screen; the page and --json have all."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(report)
    app.command()(compare)


@o.reads_data
def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own: a catalog name or a path.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The page, .html; default RUN/report.html.", show_default=False)
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="A folder for the figures as PNG and SVG.")] = None,
    split: o.Split = "test",
    level: o.LevelNames = None,
    map_samples: Annotated[int, typer.Option(help="Samples on the map, at most; t-SNE takes minutes.", min=8)] = 10_000,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0, max=2**31)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out, and figures.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    *,
    reading: dict[str, Any],
) -> None:
    """Write a page about a RUN, one file that opens anywhere: metrics, map, nearest samples, subclasses, errors.

    What is missing is worked out: an evaluation, subclasses, a map.

    Examples:

    `regrain report runs/maskcon-digits-s0`

    `regrain report runs/photos --data new-photos/ --out new.html --figures figures/`
    """
    from regrain.report import report as write_report
    from regrain.runs.run import Run

    o.refuse_without_data(data, reading)
    place = write_report(
        Run.open(run, device=device.value),
        data,
        out=out,
        figures=figures,
        split=split,
        levels=level,
        map_samples=map_samples,
        seed=seed,
        overwrite=overwrite,
        say=_say,
        **reading,
    )
    say(f"page in {place}" + (f", figures in {figures}" if figures is not None else ""))


@o.reads_data
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; differences are to the first.")],
    data: Annotated[str | None, typer.Option(help="Other data than the runs' own, for paired differences.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page, .html, with everything.")] = None,
    figures: Annotated[Path | None, typer.Option(help="A folder for the curves as PNG and SVG.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="Best first by a figure, such as digit/recall@1, or by seconds, samples_per_second, ..."),
    ] = None,
    paired: Annotated[bool, typer.Option(help="Differences over the same samples, for which data are read.")] = True,
    split: o.Split = "test",
    level: o.LevelNames = None,
    seed: Annotated[int, typer.Option(help="Of intervals.", min=0, max=2**31)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page, and figures.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Set RUNS beside each other: what their recipes differ in, their figures with paired differences, their cost.

    Runs that differ in the seed alone are one row.

    Examples:

    `regrain compare runs/maskcon-digits-s0 runs/grafit-digits-s0 --out compared.html`

    `regrain compare runs/* --sort digit/recall@1 --json`
    """
    from regrain.report import compare as compare_runs
    from regrain.report import write_comparison
    from regrain.runs.run import Run
    from regrain.runs.tables import require_writable

    o.refuse_without_data(data, reading)
    if out is not None:
        require_writable(out, overwrite, suffixes=(".html",), content="comparisons")
    found = compare_runs(
        [Run.open(run, device=device.value) for run in runs],
        data,
        split=split,
        levels=level,
        paired=paired,
        sort=sort,
        seed=seed,
        say=_say,
        **reading,
    )
    write_comparison(found, out, figures=figures, overwrite=overwrite)
    if json_:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)
    if out is not None:
        say(f"page in {out}")


def _say(step: str) -> None:
    say(f"... {step}", err=True)


def _show(found: Comparison) -> None:
    from regrain.cli.tables import Table
    from regrain.report.run_comparison import COSTS

    shown = [key for key in found.keys if _HEADLINES.fullmatch(key.rsplit("/", 1)[1])]
    table = Table(f"differences are to {found.reference}")
    table.column("")
    for row in found.rows:
        table.column(row.name, justify="right")
    for key in found.settings:
        table.row(key, *("" if row.settings[key] is None else str(row.settings[key]) for row in found.rows))
    table.add_section()
    for key in shown or found.keys:
        table.row(key, *(row.figures[key].text() if key in row.figures else "" for row in found.rows))
        if any(key in row.differences for row in found.rows):
            signed = [row.differences[key].text(sign=True) if key in row.differences else "" for row in found.rows]
            table.row("  difference", *signed)
    table.add_section()
    for key, words in COSTS.items():
        table.row(words, *(f"{row.cost[key]:,.1f}" if key in row.cost else "" for row in found.rows))
    table.show()
    for note in found.notes:
        say(f"- {note}")
