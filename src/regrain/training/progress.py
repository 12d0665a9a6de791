"""Progress of a training and the time left: a bar on a terminal, lines in a log."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from regrain.training.adapter import Adapter

LOG_SECONDS = 30.0
"""Between two lines of a log."""

BAR_SECONDS = 0.5
"""Between two states of a bar: reading the loss waits for the device."""


def spoken_duration(seconds: float) -> str:
    """A time in two units at most.

    Examples
    --------
    >>> spoken_duration(4.2), spoken_duration(130), spoken_duration(7260)
    ('4 s', '2 min 10 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class ProgressDisplay(Callback):
    """Writes to standard error, from the first process: the epoch, the share done, the loss and the time left.

    The time left is that of the whole run, by the mean speed since it began or was resumed.
    """

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.started = self.shown_at = 0.0
        self.first: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.started = self.shown_at = time.monotonic()
        if trainer.is_global_zero and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
            self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self.bar.add_task("", total=1.0)
            self.bar.start()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, epochs, batches = time.monotonic(), trainer.max_epochs or 1, int(trainer.num_training_batches)
        done = trainer.current_epoch * batches + batch_idx + 1
        self.first = done - 1 if self.first is None else self.first
        if not trainer.is_global_zero or now - self.shown_at < (LOG_SECONDS if self.bar is None else BAR_SECONDS):
            return
        self.shown_at = now
        share = done / (epochs * batches)
        left = (epochs * batches - done) * (now - self.started) / (done - self.first)
        assert isinstance(module, Adapter)
        loss = module.epoch_means().get("loss", math.nan)
        text = f"epoch {trainer.current_epoch + 1} of {epochs}, loss {loss:.4g}, {spoken_duration(left)} left"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=share, description=text)
        else:
            print(f"{text} ({100 * share:.0f}% done)", file=sys.stderr, flush=True)

    def teardown(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.stop()

    def on_exception(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, exception: BaseException
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
