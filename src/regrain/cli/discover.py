"""``discover``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.runs.discovery import Discovery

_SHOWN = 40
_TEXT = 40  # characters of a text in the table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(discover)


@o.reads_data
def discover(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own: a catalog name or a path.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The table of samples, .csv or .parquet; default RUN/discovery/samples.parquet.")
    ] = None,
    superclass: Annotated[
        str | None, typer.Option(help="The level of the superclasses; default what the method read as coarse.")
    ] = None,
    subclasses: Annotated[
        int | None, typer.Option(help="Clusters in all, for methods without subclasses; default by silhouette.", min=1)
    ] = None,
    each: Annotated[int | None, typer.Option(help="Clusters of every superclass instead.", min=1)] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="Clusters of equal size, by Sinkhorn.")] = False,
    names: Annotated[
        Path | None, typer.Option(help='A JSON of names such as {"3": "wine glass"}: makes the run a classifier.')
    ] = None,
    unaided: Annotated[
        bool, typer.Option("--unaided", help="Do not look at superclass labels but of training samples.")
    ] = False,
    exemplars: Annotated[int, typer.Option(help="Samples named for each subclass.", min=0)] = 10,
    grids: Annotated[
        Path | None, typer.Option(help="A folder for pictures of the purest, most mixed and some random subclasses.")
    ] = None,
    estimate_classes: Annotated[
        bool, typer.Option("--estimate-classes", help="Estimate the number of classes, without labels.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace the file at --out, pictures in --grids, and subclasses that have names."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of k-means, where subclasses are settled.", min=0, max=2**31)] = 0,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Find the hidden subclasses in a RUN: which sample has which, their sizes, exemplars, outliers.

    Labels finer than the superclass are used for nothing but the purity that is shown.

    Examples:

    `regrain discover runs/scgm-photos-s0`

    `regrain discover runs/maskcon-photos-s0 --each 5 --balanced --out subclasses.csv`

    `regrain discover runs/scgm-photos-s0 --names names.json`

    `regrain discover runs/self-classifier-photos-s0 --grids pictures/ --estimate-classes`
    """
    from regrain.runs.run import Run
    from regrain.verbs.discover import discover as run_discover

    o.refuse_without_data(data, reading)
    found = run_discover(
        Run.open(run, device=device.value),
        data,
        out=out,
        superclass=superclass,
        subclasses=subclasses,
        each=each,
        balanced=balanced,
        names=names,
        unaided=unaided,
        exemplars=exemplars,
        grids=grids,
        estimate_classes=estimate_classes,
        overwrite=overwrite,
        seed=seed,
        **reading,
    )
    if json_:
        content = {
            "figures": found.figures,
            "notes": found.notes,
            **({} if found.class_count is None else {"class_count": asdict(found.class_count)}),
            "subclasses": [s.to_json() for s in found.subclasses],
        }
        print(json.dumps(content, indent=1))
        return
    _show(found)
    if out is not None or data is None:
        say(f"samples in {out or run / 'discovery' / 'samples.parquet'}")
    if grids is not None:
        say(f"pictures in {grids}: best.png, worst.png, random.png")


def _show(found: Discovery) -> None:
    from regrain.cli.tables import Table

    levels = list(dict.fromkeys(level for s in found.subclasses for level in s.purity))
    table = Table(f"{len(found.subclasses)} subclasses of {len(found.ids)} samples")
    for column in ("number", "name", "samples", *(f"mostly, by {level}" for level in levels), "nearest to its mean"):
        table.column(column, justify="right" if column in ("number", "samples") else "left")
    for s in found.subclasses[:_SHOWN]:
        purity = [
            f"{s.purity[level]['class']} {100 * s.purity[level]['share']:.0f}%" if level in s.purity else ""
            for level in levels
        ]
        said = shorten(s.texts[0], _TEXT, placeholder="…") if s.texts else ""
        nearest = f"“{said}”" if said else ", ".join(s.exemplars[:3])
        table.row(str(s.number), s.name, str(s.size), *purity, nearest)
    table.show()
    if len(found.subclasses) > _SHOWN:
        say(f"... and {len(found.subclasses) - _SHOWN} more, all in --json and in the run's discovery.json")
    for key, value in found.figures.items():
        say(f"{key}: {100 * value:.2f}")
    for note in found.notes:
        say(f"- {note}")
