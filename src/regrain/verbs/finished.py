"""Runs that are trained once, and reused when an experiment goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from regrain.data.dataset import Dataset
from regrain.runs.run import Run
from regrain.storage.run_folder import RunFolder
from regrain.training.device import Device
from regrain.verbs.resume import resume


def finished_run(
    place: Path,
    train: Callable[[], Run],
    data: Dataset | None,
    device: Device,
    on_run: Callable[[Run], None] | None = None,
) -> Run:
    """Return the finished run of a folder; train it if there is none, or resume an interrupted one."""
    folder = RunFolder(place)
    if folder.is_run and folder.is_complete:
        return Run(folder, data, device)
    run = resume(place, data, device=device) if folder.is_run and folder.checkpoint_file.exists() else train()
    run.folder.checkpoint_file.unlink(missing_ok=True)
    if on_run is not None:
        on_run(run)
    return run
