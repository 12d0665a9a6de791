"""``attend``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.verbs.attend import Attention

_SHOWN = 3


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(attend)


@o.reads_data
def attend(
    run: Annotated[Path, typer.Argument(help="A run folder of sclre.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own: a catalog name or a path.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A table, .csv or .parquet; of images also a picture, .png.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Which split's samples to show.")] = "test",
    samples: Annotated[int, typer.Option(help="How many, equally many of every superclass.", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Draws them.", min=0, max=2**31)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Show what attends to what in a RUN of sclre: samples beside the training samples they attend to most.

    Examples:

    `regrain attend runs/sclre-photos-s0 --out attention.png`

    `regrain attend runs/sclre-questions-s0 --data new.csv --samples 50 --out attention.csv`
    """
    from regrain.runs.run import Run
    from regrain.verbs.attend import attend as run_attend

    o.refuse_without_data(data, reading)
    found = run_attend(
        Run.open(run, device=device.value),
        data,
        out=out,
        split=split,
        samples=samples,
        seed=seed,
        overwrite=overwrite,
        **reading,
    )
    if json_:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)
    if out is not None:
        say(f"written to {out}")


def _show(found: Attention) -> None:
    from regrain.cli.tables import Table

    table = Table(f"attention to {found.bank_size} training samples")
    for column in ("sample", found.level, "predicted", f"attends to, by {found.level}", "most of all to"):
        table.column(column)
    for s in found.samples:
        shares = [f"{name} {100 * share:.0f}%" for name, share in list(s.shares.items())[:_SHOWN]]
        most = [f"{r.id} {100 * r.weight:.2f}%" for r in s.references[:_SHOWN]]
        cells = (s.id, s.superclass or "", s.predicted, ", ".join(shares), ", ".join(most))
        table.row(*cells)
    table.show()
    for note in found.notes:
        say(f"- {note}")
