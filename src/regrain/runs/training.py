"""One training in a run's folder: what fitting and resuming share."""

from __future__ import annotations

import sys
import threading
import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from regrain.cluster import Cluster
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.processes import is_first_process
from regrain.runs.assemble import Assembly, assemble
from regrain.runs.card import card
from regrain.runs.run import Run
from regrain.storage.run_folder import RunFolder
from regrain.training.device import resolve_device, resolve_precision

_PATIENCE = 1.0
"""Seconds for which a training waits for another one in its folder."""


def writing(folder: RunFolder) -> AbstractContextManager[None]:
    """The run is this training's alone; of several processes the first one sees to it."""
    return folder.writing(patience=_PATIENCE) if is_first_process() else nullcontext()


def start_notices(dataset: Dataset | None, assembly: Assembly) -> list[str]:
    """List the choices made for the user: in reading the data, and in fitting the settings to them."""
    messages = () if dataset is None else dataset.messages
    return [*messages, *assembly.notices]


def train_run(
    run: Run,
    assembly: Assembly,
    *,
    resume: bool,
    devices: int = 1,
    progress: bool = False,
    tensorboard: bool = False,
    interrupt: threading.Event | None = None,
) -> None:
    """Train a run that is begun, on its device, from the start or its last checkpoint; write its model and its card."""
    from regrain.training.loop import train  # Lightning takes seconds to import, and using a run needs none of it

    kind = resolve_device(run.device)
    model = assembly.model
    if model.backbone is not None:
        model.to(kind)
        assembly.dataset = model.featurised(assembly.dataset, workers=assembly.options.workers)
        model.take_features(assembly.dataset)
    train(
        model.method,
        model.views,
        assembly.dataset,
        assembly.options,
        run.folder,
        seed=assembly.recipe["seed"],
        device=kind,
        devices=devices,
        resume=resume,
        progress=progress,
        tensorboard=tensorboard,
        interrupt=interrupt,
    )
    if is_first_process():
        model.save(run.folder, assembly.dataset.labels)
        precision = resolve_precision(assembly.options.precision, kind)
        text = card(assembly, len(run.folder.read_metrics()), precision, kind, run.notices)
        run.folder.write_text("card.md", text)


def go_on(run: Run, devices: int, progress: bool, interrupt: threading.Event | None) -> None:
    """Train a run from its last checkpoint to its end, or from the start where it has none.

    Raises
    ------
    UserError
        If its labels have changed.
    """
    settings = run.recipe["data"]
    training = run.splits()["train"]
    assembly = assemble(run.recipe, training.with_levels(settings["levels"]))
    if assembly.recipe["data"]["labels_fingerprint"] != settings["labels_fingerprint"]:
        raise UserError(
            f"the labels that {run.path} was started on have changed: bring the old ones back, or start again with "
            "`regrain fit ... --overwrite`"
        )
    run.notices = start_notices(run.data, assembly)
    tensorboard = (run.path / "tensorboard").exists()
    with writing(run.folder):
        train_run(
            run,
            assembly,
            resume=True,
            devices=devices,
            progress=progress,
            tensorboard=tensorboard,
            interrupt=interrupt,
        )


def train_on(cluster: Cluster, run: Run, progress: bool, tensorboard: bool, interrupt: threading.Event | None) -> None:
    """Train a run that was begun, from its last checkpoint if it has one, by the workers of a cluster."""
    from regrain.training.loop import interruptible

    if tensorboard:
        (run.path / "tensorboard").mkdir(exist_ok=True)
    event = interrupt or threading.Event()
    with interruptible(event):
        cluster.train(partial(_work, run.path.absolute(), run.data, cluster.device, progress), run.path, event)


def _work(
    path: Path, data: Dataset | None, device: Literal["cpu", "cuda"], progress: bool, interrupt: threading.Event
) -> None:
    """Share of one worker of a cluster."""
    run = Run(RunFolder.open(path), data, device)
    if run.folder.is_complete:
        return
    with warnings.catch_warnings():
        if is_first_process():
            warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
        else:
            warnings.simplefilter("ignore")
        go_on(run, 1, progress, interrupt)
