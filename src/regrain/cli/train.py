"""``fit`` and ``resume``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.data.dataset import Dataset
    from regrain.runs.run import Run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(fit)
    app.command()(resume)


@o.trains
def fit(
    method: o.Method,
    data: o.Data,
    out: Annotated[Path | None, typer.Option(help="The run folder; default runs/METHOD-DATA-sSEED.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that lies there.")] = False,
    devices: Annotated[int, typer.Option(help="How many devices.", min=1)] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log for TensorBoard too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    *,
    training: dict[str, Any],
) -> None:
    """Train a METHOD on DATA; everything about the run lands in one folder.

    Examples:

    `regrain fit maskcon digits --epochs 20`

    `regrain fit maskcon photos/ --encoder resnet18 --pretrained`  (folders super/sub/.../image)

    `regrain fit supcon table.csv --text question --level domain --level intent`

    `regrain fit maskcon cifar100-20 --root data --set weight=1.0 --set soft_temperature=0.05`
    """
    from regrain.verbs.fit import fit as run_fit

    run = o.stoppable(
        lambda: run_fit(
            method,
            data,
            out=out,
            devices=devices,
            overwrite=overwrite,
            progress=not quiet and sys.stderr.isatty(),
            tensorboard=tensorboard,
            on_start=_announce,
            **training,
        )
    )
    _report(run)


@o.reads_data
def resume(
    run: Annotated[Path, typer.Argument(help="The folder of an interrupted run.")],
    data: o.OwnData = None,
    device: o.DeviceOption = o.DeviceName.auto,
    devices: Annotated[int, typer.Option(help="How many devices.", min=1)] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Go on with an interrupted RUN; it ends with the same weights as one that was never interrupted.

    Examples:

    `regrain resume runs/maskcon-digits-s0`

    `regrain resume runs/maskcon-photos-s0 --data /mnt/photos`
    """
    from regrain.verbs.resume import resume as run_resume

    o.refuse_without_data(data, reading)
    progress = not quiet and sys.stderr.isatty()
    done = o.stoppable(
        lambda: run_resume(run, data, device=device.value, devices=devices, progress=progress, **reading)
    )
    _report(done)


def _announce(run: Run, training: Dataset) -> None:

    recipe = run.recipe
    known = training.labels.known
    levels = ", ".join(
        f"{level} ({count} classes, {known[level]} of {len(training)} labelled)"
        for level, count in training.labels.counts.items()
    )
    roles = ", ".join(f"{level} as {role}" for role, level in recipe["data"]["roles"].items()) or "none"
    say(f"data      {training.name}: {len(training)} training samples; levels: {levels or 'none'}", err=True)
    filled = {level: count for level, count in training.labels.filled.items() if count}
    if filled:
        text = ", ".join(f"{count} at {level}" for level, count in filled.items())
        say(f"          labels filled in from finer ones: {text}", err=True)
    say(f"method    {recipe['method']['name']}; labels it sees: {roles}", err=True)
    size = f", views of {recipe['views']['size']} px" if "size" in recipe["views"] else ""
    frozen = ", frozen" if recipe["encoder"].get("frozen") else ""
    say(f"encoder   {recipe['encoder']['name']}{frozen}{size}", err=True)
    o.tells_notices()(run)
    say(f"run       {run.path}", err=True)


def _report(run: Run) -> None:
    from regrain.training.processes import is_first_process

    if not is_first_process():
        return
    metrics = run.folder.read_metrics()
    last = metrics[-1] if metrics else {}
    loss = f", last loss {last['loss']:.4f}" if "loss" in last else ""
    speed = f", {last['samples_per_second']:.0f} samples/s" if "samples_per_second" in last else ""
    say(f"finished {len(metrics)} epochs{loss}{speed}; judge it with `regrain evaluate {run.path}`", err=True)
