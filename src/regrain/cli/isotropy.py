"""``isotropy``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o

if TYPE_CHECKING:
    from regrain.api import Run
    from regrain.papers.swapping import Isotropy

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(isotropy)


@o.trains
def isotropy(
    method: o.Method,
    data: o.Data,
    subclass: Annotated[str, typer.Option(help="A class of the finest level (the last --level).")],
    to: Annotated[str, typer.Option(help="The superclass (of the first --level) that its training labels move to.")],
    out: Annotated[Path, typer.Option(help="The folder; the same command again goes on in it.")],
    seeds: Annotated[int, typer.Option(help="Trainings with each labelling.", min=1)] = 1,
    json_: o.Json = False,
    *,
    training: dict[str, Any],
) -> None:
    """Move the training labels of a subclass to another superclass, and see where its test samples go.

    A method that learns superclasses has to bend for the wrong label; self-supervised features serve it as well as the
    right one. METHOD is trained with the labels as they are and with the moved ones, everything else equal; one that
    reads no labels is trained once.

    Examples:

    `regrain isotropy sup-ce digits --subclass 8 --to straight --encoder conv4 --epochs 10 --out runs/eight`

    `regrain isotropy simclr photos/ --subclass flowers/tulip --to bottles --seeds 3 --out runs/tulip`
    """
    from regrain.papers.swapping import isotropy as move_subclass

    tell = o.tells_notices()

    def say(run: Run) -> None:
        print(f"trained   {run.path}", file=sys.stderr)
        tell(run)

    found = o.stoppable(
        lambda: move_subclass(
            method,
            data,
            subclass=subclass,
            to=to,
            out=out,
            seeds=seeds,
            on_run=say,
            **training,
        ),
        "the same command",
    )
    if json_:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)
    print(f"all of it in {out / 'isotropy.json'}")


def _show(found: Isotropy) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    move, figures = found.move, found.figures()
    table = Table(
        title=escape(f"{found.samples} test samples of '{move.subclass}', by {found.method}'s {found.judged_by}"),
        title_justify="left",
    )
    table.add_column("share predicted as")
    table.add_column("labels as they are", justify="right")
    table.add_column(escape(f"moved to '{move.target}'"), justify="right")
    for name, words in (
        ("own", f"its own superclass '{move.origin}'"),
        ("new", f"'{move.target}'"),
        ("others", "others"),
        ("accuracy", f"accuracy of the {found.others} other samples"),
    ):
        table.add_row(escape(words), *(o.mean_cell(figures[labelling][name]) for labelling in ("given", "moved")))
    console = Console()
    console.print(table)
    if len(found.seeds) > 1:
        console.print(f"mean and 95% interval over {len(found.seeds)} seeds", highlight=False)
