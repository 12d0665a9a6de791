"""``resume``: continue an interrupted training."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Unpack

from regrain.checks import Count
from regrain.data.options import ReaderOptions
from regrain.errors import UserError
from regrain.processes import leave_unguarded
from regrain.runs.run import Run
from regrain.runs.source import require_no_reading
from regrain.runs.training import go_on
from regrain.runs.verb import verb
from regrain.storage.run_folder import RunFolder
from regrain.training.device import Device


@verb
def resume(
    path: str | Path,
    data: Any = None,
    *,
    device: Device = "auto",
    devices: Count = 1,
    progress: bool = False,
    interrupt: threading.Event | None = None,
    **reader_options: Unpack[ReaderOptions],
) -> Run:
    """Continue an interrupted run; it ends with the weights of one that was never interrupted.

    Parameters
    ----------
    path : path
        The folder of an interrupted run.
    data : optional
        Where the run's own data are now: a path, a data set's name, or the data where they were in memory.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    devices : int
        How many devices.
    progress : bool
        Show a progress bar.
    interrupt
        As in :func:`fit`.
    **reader_options
        See :func:`load`; options that are left out stay as they were.

    Raises
    ------
    UserError
        If there is no run, it is finished, or the data are no longer those it was started on.
    """
    leave_unguarded()
    run = Run(RunFolder.open(path), None, device)
    if run.folder.is_complete:
        raise UserError(f"{path} is finished: nothing to resume")
    if data is None:
        require_no_reading(reader_options)
    else:
        run.take_data(data, **reader_options)
    go_on(run, devices, progress, interrupt)
    return run
