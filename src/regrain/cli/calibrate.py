"""``calibrate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.runs.selective import SelectiveClassifier, SelectiveReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(calibrate)


@o.reads_data
def calibrate(
    run: Annotated[Path, typer.Argument(help="A run folder, of a method that classifies.")],
    data: Annotated[
        str | None, typer.Option(help="Labelled samples that training has not seen; default: the run's own.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="The split to calibrate on; default: val.", show_default=False)
    ] = None,
    precision: Annotated[
        float, typer.Option(help="The share of right answers to aim at, level by level.", min=0, max=1)
    ] = 0.95,
    judge: Annotated[
        str | None, typer.Option("--judge", help="Another split, to judge the answers on.", show_default=False)
    ] = None,
    level: o.LevelNames = None,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Let a RUN answer at the most specific level that it is sure of, or not at all.

    A level is answered where its confidence reaches a threshold, so that the answers at that level are right as often
    as --precision says on labelled samples that training has not seen. An answer's ancestors come with it. Afterwards
    `regrain predict` adds the answers. Aspects, which do not nest, are answered one by one.

    Examples:

    `regrain calibrate runs/mixed-photos-s0 --judge test`

    `regrain calibrate runs/x --data labelled.csv --precision 0.9`
    """
    from regrain.runs.run import Run
    from regrain.verbs.calibrate import calibrate as run_calibrate

    o.refuse_without_data(data, reading)
    made = run_calibrate(
        Run.open(run, device=device.value),
        data,
        split=split,
        precision=precision,
        judge=judge,
        levels=level,
        **reading,
    )
    if json_:
        print(json.dumps(made.to_json(), indent=1))
        return
    for note in made.notes:
        say(f"note      {note}", err=True)
    _show(made.figures, f"calibrated on {made.answers.calibrated_on}", _settled(made.answers))
    if made.judged is not None:
        _show(made.judged, f"judged on {made.judged.split}", {})
    say(f"`regrain predict {run} DATA --out FILE` adds the answers")


def _settled(answers: SelectiveClassifier) -> dict[str, tuple[list[str], str]]:
    """Lines of what the calibration settled."""
    return {
        "temperature": ([f"{temperature:.3g}" for temperature in answers.temperatures], ""),
        "shift": ([f"{shift:+.3g}" for shift in answers.shifts], ""),
        "threshold": (["never" if t is None else f"{t:.3f}" for t in answers.thresholds], ""),
        "answers that it rests on": ([str(support) for support in answers.support], ""),
    }


def _show(judged: SelectiveReport, title: str, settled: dict[str, tuple[list[str], str]]) -> None:
    """A table: one line a figure, one column a level, and one for all answers."""
    from regrain.cli.tables import Table

    levels = judged.levels
    table = Table(f"{title}: {judged.samples} samples")
    table.column("")
    for name in (*(figures.level for figures in levels), "all answers"):
        table.column(name, justify="right")
    rows: dict[str, tuple[list[str], str]] = {
        "labelled samples": ([str(figures.samples) for figures in levels], ""),
        "accuracy": ([_percent(figures.accuracy) for figures in levels], ""),
        "calibration error": (
            [_percent(figures.calibration_error) for figures in levels],
            _percent(judged.calibration_error),
        ),
        **settled,
        "answered here": ([_percent(figures.answered) for figures in levels], _percent(judged.answered)),
        "right of those": (
            [_precision(figures.precision, figures.judged) for figures in levels],
            _precision(judged.precision, judged.judged),
        ),
        "answered here or finer": ([_percent(figures.named) for figures in levels], ""),
        "right of those at this level": ([_percent(figures.named_precision) for figures in levels], ""),
        "abstained": (["" for _ in levels], _percent(judged.abstained)),
    }
    for name, (cells, overall) in rows.items():
        table.row(name, *cells, overall)
    table.show()


def _precision(share: float | None, judged: int) -> str:
    return "-" if share is None else f"{_percent(share)} of {judged}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"
