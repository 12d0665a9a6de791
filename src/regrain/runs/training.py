"""One training in a run's folder: what fitting and resuming share."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

from regrain.data.dataset import Dataset
from regrain.runs.assemble import Assembly
from regrain.runs.card import card
from regrain.runs.run import Run
from regrain.storage.run_folder import RunFolder, labels_to_json
from regrain.training.device import Device, resolve_device, resolve_precision
from regrain.training.processes import is_first_process

_PATIENCE = 1.0
"""Seconds for which a training waits for another one in its folder."""


def writing(folder: RunFolder) -> AbstractContextManager[None]:
    """The run is this training's alone; of several processes the first one sees to it."""
    return folder.writing(patience=_PATIENCE) if is_first_process() else nullcontext()


def start_notices(dataset: Dataset | None, assembly: Assembly) -> list[str]:
    """List the choices made for the user: in reading the data, and in fitting the settings to them."""
    messages = [] if dataset is None else dataset.notes.get("messages", [])
    return [*messages, *assembly.notices]


def train_run(
    run: Run,
    assembly: Assembly,
    device: Device,
    devices: int,
    progress: bool,
    tensorboard: bool,
    interrupt: threading.Event | None,
    *,
    resume: bool,
) -> None:
    from regrain.training.loop import train  # Lightning takes seconds to import, and using a run needs none of it

    kind = resolve_device(device)
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
        model.save(run.folder, labels_to_json(assembly.dataset.labels))
        precision = resolve_precision(assembly.options.precision, kind)
        text = card(assembly, len(run.folder.read_metrics()), precision, kind, run.notices)
        run.folder.write_text("card.md", text)
