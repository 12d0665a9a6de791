"""``low-data`` and ``label-noise``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.papers.curve import Curve
    from regrain.runs.run import Run

_Out = Annotated[Path, typer.Option(help="The folder; the same command again goes on in it.")]
_Seeds = Annotated[int, typer.Option(help="Trainings, each on another draw, for every value.", min=1)]
_Protocols = Annotated[
    list[str] | None, typer.Option("--protocol", "-p", help="Protocols of `regrain evaluate`; default linear.")
]
_Baselines = Annotated[bool, typer.Option(help="Judge raw inputs, random weights and the majority class too.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("low-data")(low_data)
    app.command("label-noise")(label_noise)


@o.trains
def low_data(
    method: o.Method,
    data: o.Data,
    sizes: Annotated[str, typer.Option(help="Numbers of training samples, such as 1000,5000.")],
    out: _Out,
    seeds: _Seeds = 3,
    protocol: _Protocols = None,
    baselines: _Baselines = True,
    json_: o.Json = False,
    *,
    training: dict[str, Any],
) -> None:
    """Train METHOD on ever fewer samples of DATA, and judge each model on the whole test split.

    Examples:

    `regrain low-data mlcl cifar100 --sizes 1000,5000 --encoder resnet18 --out runs/low`

    `regrain low-data multi-ce reviews.csv --relation aspects --sizes 30,60 -p multi-aspect --seeds 5 --out runs/few`
    """
    from regrain.papers import curve

    _run(
        curve.low_data,
        method,
        data,
        out,
        seeds,
        protocol,
        baselines,
        json_,
        training,
        sizes=_numbers("--sizes", sizes, int),
    )


@o.trains
def label_noise(
    method: o.Method,
    data: o.Data,
    rates: Annotated[str, typer.Option(help="Shares of the labels that are drawn anew, such as 0,0.3,0.5.")],
    out: _Out,
    seeds: _Seeds = 3,
    protocol: _Protocols = None,
    baselines: _Baselines = True,
    json_: o.Json = False,
    *,
    training: dict[str, Any],
) -> None:
    """Train METHOD on DATA with ever more wrong labels, and judge each model on the test split, which has none.

    `--noise-within LEVEL` makes wrong labels confusions between classes of one superclass.

    Examples:

    `regrain label-noise mlcl cifar100 --rates 0,0.3,0.5 --encoder resnet18 --out runs/noise`

    `regrain label-noise sup-fine photos/ --rates 0.3 --noise-within level1 --out runs/siblings`
    """
    from regrain.papers import curve

    rates_ = _numbers("--rates", rates, float)
    _run(curve.label_noise, method, data, out, seeds, protocol, baselines, json_, training, rates=rates_)


def _numbers(flag: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    from regrain.errors import UserError

    try:
        return list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise UserError(f"{flag} takes numbers with commas between them; got '{text}'") from None


def _run(
    verb: Callable[..., Curve],
    method: str,
    data: str,
    out: Path,
    seeds: int,
    protocol: list[str] | None,
    baselines: bool,
    json_: bool,
    training: dict[str, Any],
    **values: Any,
) -> None:
    tell = o.tells_notices()

    def report(run: Run) -> None:
        say(f"trained   {run.path}", err=True)
        tell(run)

    chosen = {"seeds": seeds, "protocols": protocol or ["linear"], "baselines": baselines, "on_run": report}
    found = o.stoppable(lambda: verb(method, data, out=out, **values, **chosen, **training), "the same command")
    if json_:
        print(json.dumps(found.to_json(), indent=1))
        return
    _show(found)
    say(f"all of it in {out / 'curve.json'}")


def _show(found: Curve) -> None:
    from regrain.cli.tables import Table

    what = "training samples" if found.corruption == "samples" else "share of labels drawn anew"
    table = Table(f"{found.method}, by {what}")
    table.column("figure")
    for value in found.values:
        table.column(f"{value:g}", justify="right")
    for key, scores in found.scores().items():
        table.row(key, *map(o.mean_cell, scores))
    table.show()
    if len(found.seeds) > 1:
        say(f"mean and 95% interval over {len(found.seeds)} seeds")
    for note in found.notes:
        say(f"- {note}")
