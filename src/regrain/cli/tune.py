"""``tune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.runs.tuning import Trial, Tuning


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


@o.trains
def tune(
    method: o.Method,
    data: o.Data,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            help="NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log; repeat. Default: the learning rate, and w and the "
            "soft temperature where the method has them.",
            show_default=False,
        ),
    ] = None,
    criterion: Annotated[str, typer.Option(help="agreement, coarse-knn or stability.")] = "agreement",
    trials: Annotated[int, typer.Option(help="Trainings.", min=1)] = 12,
    validation: Annotated[float, typer.Option(help="Share of the training split that judges.")] = 0.2,
    out: Annotated[Path | None, typer.Option(help="The folder; default runs/tune-METHOD-DATA.")] = None,
    json_: o.Json = False,
    *,
    training: dict[str, Any],
) -> None:
    """Choose settings of METHOD for DATA by a criterion that sees neither hidden labels nor test samples.

    agreement: a view of a sample finds the sample's other view. coarse-knn: neighbours name the coarse class of
    samples kept from training. stability: two halves of the samples give the same clusters within coarse classes.

    Examples:

    `regrain tune maskcon digits --encoder conv4 --epochs 10 --trials 8`

    `regrain tune maskcon photos/ --range weight=0.5,0.8,1 --range learning_rate=0.005:0.1:log --criterion coarse-knn`

    `regrain fit maskcon photos/ --recipe runs/tune-maskcon-photos/best.yaml`  (with what was found)
    """
    from regrain.verbs.tune import tune as run_tune

    def tell(trial: Trial) -> None:
        values = ", ".join(f"{name} {value:.4f}" for name, value in trial.criteria.items())
        settings = " ".join(f"{name}={value}" for name, value in trial.settings.items())
        say(f"trial {trial.number + 1}: {settings}: {values or trial.problem}", err=True)

    found = o.stoppable(
        lambda: run_tune(
            method,
            data,
            ranges=ranges or (),
            criterion=criterion,
            trials=trials,
            validation=validation,
            out=out,
            on_run=o.tells_notices(),
            on_trial=tell,
            **training,
        ),
        "the same command",
    )
    if json_:
        rows = [{"trial": t.number, **t.settings, **t.criteria, "problem": t.problem} for t in found.ranked()]
        print(json.dumps({"criterion": criterion, "best": str(found.path / "best.yaml"), "trials": rows}, indent=1))
        return
    _show(found)
    say(f"use it with `regrain fit {method} {data} --recipe {found.path / 'best.yaml'}`")


def _show(found: Tuning) -> None:
    from regrain.cli.tables import Table
    from regrain.evaluation import CRITERIA

    table = Table(f"best first by {found.plan.criterion}")
    table.column("trial", justify="right")
    names = [r.name for r in found.plan.ranges]
    for name in (*names, *CRITERIA):
        table.column(name, justify="right")
    for trial in found.ranked():
        values = [f"{trial.criteria[c]:.4f}" if c in trial.criteria else "-" for c in CRITERIA]
        table.row(str(trial.number + 1), *(str(trial.settings[n]) for n in names), *values)
    table.show()
