"""``isotropy``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.papers.swapping import Isotropy
    from regrain.runs.run import Run


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

    def report(run: Run) -> None:
        say(f"trained   {run.path}", err=True)
        tell(run)

    found = o.stoppable(
        lambda: move_subclass(
            method,
            data,
            subclass=subclass,
            to=to,
            out=out,
            seeds=seeds,
            on_run=report,
            **training,
        ),
        "the same command",
    )
    if json_:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)
    say(f"all of it in {out / 'isotropy.json'}")


def _show(found: Isotropy) -> None:
    from regrain.cli.tables import Table

    move, figures = found.move, found.figures()
    table = Table(
        f"{found.samples} test samples of '{move.subclass}', by {found.method}'s {found.judged_by}",
    )
    table.column("share predicted as")
    table.column("labels as they are", justify="right")
    table.column(f"moved to '{move.target}'", justify="right")
    for name, words in (
        ("own", f"its own superclass '{move.origin}'"),
        ("new", f"'{move.target}'"),
        ("others", "others"),
        ("accuracy", f"accuracy of the {found.others} other samples"),
    ):
        table.row(words, *(o.mean_cell(figures[labelling][name]) for labelling in ("given", "moved")))
    table.show()
    if len(found.seeds) > 1:
        say(f"mean and 95% interval over {len(found.seeds)} seeds")
