"""``adapt`` and ``predict``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(adapt)
    app.command()(predict)


@o.reads_data
def adapt(
    run: Annotated[Path, typer.Argument(help="A run folder; it stays as it is.")],
    support: Annotated[
        str, typer.Option(help="A table of ids of the run's data and labels; or labelled samples, in any form.")
    ],
    out: Annotated[Path, typer.Option(help="The new run folder.")],
    data: o.OwnData = None,
    level: Annotated[
        str | None, typer.Option("--level", "-l", help="The column of the labels.", show_default=False)
    ] = None,
    abstain: Annotated[
        float, typer.Option(help="Share of held-out support samples that would be abstained from.", min=0, max=0.99)
    ] = 0.05,
    penalty: Annotated[
        float | None, typer.Option("--inverse-penalty", help="C of the logistic regression; default: chosen.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds.", min=0, max=2**31)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that lies there.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Make a classifier of a few labelled samples on a RUN's embeddings; `regrain predict` uses it.

    A table with a column `id` and one column of labels speaks of the run's own data (`regrain embed` writes their ids);
    any other support holds samples and labels itself. Probabilities are calibrated on held-out support, and samples
    unlike all of it are abstained from.

    Examples:

    `regrain adapt runs/maskcon-digits-s0 --support labelled.csv --out runs/digits-adapted`

    `regrain adapt runs/x --support questions.csv --text question --level intent --out runs/y --abstain 0.1`
    """
    from regrain.runs.run import Run
    from regrain.verbs.adapt import adapt as run_adapt

    made = run_adapt(
        Run.open(run, device=device.value),
        support,
        out,
        data=data,
        level=level,
        abstain=abstain,
        inverse_penalty=penalty,
        seed=seed,
        overwrite=overwrite,
        **reading,
    )
    classifier = made.classifier
    assert classifier is not None
    if json_:
        kept = {
            "run": str(made.path),
            "level": classifier.level,
            "classes": list(classifier.classes),
            "inverse_penalty": classifier.inverse_penalty,
            "temperature": classifier.temperature,
            "threshold": classifier.threshold,
            "notices": made.notices,
        }
        print(json.dumps(kept, indent=1))
        return
    for notice in made.notices:
        say(f"note      {notice}", err=True)
    say(
        f"{len(classifier.classes)} classes of '{classifier.level}' learned; use it with "
        f"`regrain predict {made.path} DATA --out FILE`"
    )


@o.reads_data
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder, of a method that classifies or of `regrain adapt`.")],
    data: o.Data,
    out: Annotated[Path, typer.Option(help="The .csv or .parquet file to write.")],
    split: Annotated[str | None, typer.Option("--split", help="Only this split; default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Predict classes of DATA: a table with id, split, and for each level its class and probability.

    After `regrain discover RUN` it has the subclass too, by its name. A run that `regrain adapt` made adds
    `abstained`: the sample is unlike all that was labelled, so that its class is a guess. After `regrain calibrate RUN`
    it has `answer`, the class of the most specific level that the run is sure of, `answer_level` and
    `answer_probability`; the first two are empty where it is sure of none. Of aspects each has its own answer.

    Examples:

    `regrain predict runs/digits-adapted digits --split test --out predicted.csv`

    `regrain predict runs/y new.csv --text question --out predicted.parquet`
    """
    from regrain.runs.run import Run
    from regrain.verbs.predict import predict as run_predict

    table = run_predict(Run.open(run, device=device.value), data, out, split=split, overwrite=overwrite, **reading)
    ends = [name.removesuffix("_probability") for name in map(str, table) if name.endswith("_probability")]
    levels = [name for name in ends if name != "answer" and not name.endswith("_answer")]
    aspects = [level for level in levels if f"{level}_answer" in ends]
    counted: dict[str, Any] = {}
    if "abstained" in table:
        counted["abstained"] = int(table["abstained"].sum())
    elif aspects:
        counted = {"answered": {level: int(table[f"{level}_answer"].notna().sum()) for level in aspects}}
    elif "answer" in table:
        at = Counter(table["answer_level"].dropna())
        abstained = len(table) - at.total()
        counted = {"answered": {level: at[level] for level in levels if level in at}, "abstained": abstained}
    if json_:
        print(json.dumps({"out": str(out), "samples": len(table), "levels": levels, **counted}, indent=1))
        return
    answered = "".join(f", {count} answered at {level}" for level, count in counted.get("answered", {}).items())
    without = f", {counted['abstained']} abstained from" if "abstained" in counted else ""
    say(f"{len(table)} predictions of {' and '.join(levels)} written to {out}{answered}{without}")
