"""``demo``: what coarse labels teach, on drawings that come with the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Where the run folders and the picture go.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Fixes everything.", min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier demo left.")] = False,
    as_json: o.Json = False,
) -> None:
    """Train on the names of alphabets, and see who finds the characters in them. Two minutes.

    Trains a plain classifier (SupCE), MaskCon, and the upper bound that sees the characters (SupFINE), and draws the
    nearest neighbours of some drawings.
    """
    from rich.console import Console

    from regrain.cli.tables import Table
    from regrain.verbs.demo import demo as demonstrate

    console = Console(stderr=True)
    with console.status("reading ...") as status:
        found = demonstrate(
            out,
            seed=seed,
            overwrite=overwrite,
            on_method=lambda name: status.update(f"training {name} ..."),
        )
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    say(f"{found.data}.")
    table = Table("recall@1 of the hidden characters, by people who drew none of the training samples")
    for column in ("representation", "labels seen", "recall@1", "95% interval", "run folder"):
        table.column(column, justify="right" if "1" in column or "%" in column else "left")
    for row in found.figures:
        table.row(
            row.name, row.labels, f"{100 * row.recall:.1f}", f"{100 * row.low:.1f} to {100 * row.high:.1f}", row.run
        )
    table.show()
    say(found.verdict)
    say(f"Picture: {found.picture}. {found.credit}.")
    say(f"Next: `regrain evaluate {out / 'maskcon'}`; with your own data `regrain fit maskcon photos/`")
