"""``regroup``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.verbs.regroup import Regrouping


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(regroup)


@o.reads_data
def regroup(
    data: o.Data,
    mapping: Annotated[
        str,
        typer.Argument(metavar="MAPPING", help="A name of `regrain taxonomies`, or a file: child,parent; JSON; paths."),
    ],
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")],
    level: o.LevelNames = None,
    superclass: Annotated[
        str | None, typer.Option(help="The level of the mapping that gives superclasses; default: its coarsest.")
    ] = None,
    drop_unknown: Annotated[
        bool, typer.Option("--drop-unknown", help="Leave out, and count, classes that the mapping does not know.")
    ] = False,
    most_imbalance: Annotated[
        float, typer.Option(help="Warn where the largest superclass is more than so many times the smallest.", min=1)
    ] = 3.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Make a superclass data set of DATA by a MAPPING of its finest classes, and show whether it is balanced.

    A table is written that `check` and `fit` read as it is: id, split and group where there are some, superclass,
    label, and the samples (paths of image files, which stay where they are; texts; features; images that are no files
    as bytes, in Parquet).

    Examples:

    `regrain regroup cifar100 cifar100_4 --out cifar100-4.parquet`

    `regrain regroup photos/ waste.csv --out waste-photos.csv --drop-unknown`

    `regrain regroup questions.csv domains.json --text question --level intent --out domains.csv`
    """
    from regrain.verbs.regroup import regroup as run_regroup

    made = run_regroup(
        data,
        mapping,
        out,
        levels=level,
        superclass=superclass,
        drop_unknown=drop_unknown,
        most_imbalance=most_imbalance,
        overwrite=overwrite,
        **reading,
    )
    if json_:
        print(json.dumps(_as_json(made, out), indent=1))
        return
    for notice in made.notices:
        say(f"note      {notice}", err=True)
    _show_balance(made)
    for warning in made.warnings:
        say(f"warning: {warning}", err=True)
    say(f"{len(made.columns['id'])} samples under {len(made.counts)} superclasses written to {out}")


def _as_json(made: Regrouping, out: Path) -> dict[str, Any]:
    superclasses = {
        name: {"classes": made.classes[name], "samples": made.counts[name], "shares": made.shares[name]}
        for name in made.counts
    }
    return {
        "out": str(out),
        "samples": len(made.columns["id"]),
        "level": made.level,
        "superclasses": superclasses,
        "imbalance": {split: None if math.isinf(times) else times for split, times in made.imbalance.items()},
        "dropped": made.dropped,
        "warnings": made.warnings,
        "notices": made.notices,
    }


def _show_balance(made: Regrouping) -> None:
    """A table: one line a superclass, one column a split."""
    from regrain.cli.tables import Table

    table = Table(f"samples of every superclass, of {made.level}")
    table.column("superclass")
    table.column("classes", justify="right")
    for split in made.imbalance:
        table.column(split, justify="right")
    for name, count in made.counts.items():
        cells = [f"{n} ({made.shares[name][split]:.1%})" for split, n in count.items()]
        table.row(name, str(made.classes[name]), *cells)
    table.show()
