"""Runs a training in a run folder: Lightning's trainer, checkpoints, metrics, and a clean stop on Ctrl-C."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from regrain.data.dataset import Dataset
from regrain.errors import Stopped, UserError, first_line, warn
from regrain.methods.base import Method
from regrain.processes import ProcessLayout, join_processes, layout_of, was_launched, was_restarted
from regrain.storage.run_folder import RunFolder
from regrain.training.adapter import Adapter
from regrain.training.batch_norm import GlobalBatchNorm
from regrain.training.device import resolve_precision, scan_dtype
from regrain.training.loader import loader_of
from regrain.training.options import TrainingOptions
from regrain.training.progress import ProgressDisplay
from regrain.training.scan import scan_views

_BATCH_STATISTICS = (nn.modules.batchnorm._BatchNorm,)

_CHECKPOINT_SECONDS = 300.0
"""A checkpoint is written within an epoch when the last one is this old."""

_STEPS_BETWEEN_AGREEMENTS = 8
"""Several processes agree once in so many steps on whether to save: all have to wait for each other then."""


class _Keeper(Callback):
    """Writes checkpoints and metrics, and stops at the end of a step when asked to."""

    def __init__(self, run: RunFolder, interrupt: threading.Event) -> None:
        self.run = run
        self.interrupt = interrupt
        self.saved_at = time.monotonic()
        self.epoch_started = time.monotonic()
        self.samples = 0
        self.rows: list[Mapping[str, float]] = []

    def save(self, trainer: lightning.Trainer) -> None:
        assert isinstance(trainer.lightning_module, Adapter)
        trainer.lightning_module.require_finite()
        if trainer.is_global_zero:
            self.run.write_checkpoint(self.rows, partial(_save_checkpoint, trainer))
        else:
            trainer.save_checkpoint(self.run.checkpoint_file)  # writes nothing, and waits for the first process
        self.rows = []
        self.saved_at = time.monotonic()

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.epoch_started, self.samples = time.monotonic(), 0

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.samples += len(batch.ids) * trainer.world_size
        if batch_idx + 1 >= trainer.num_training_batches or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # the end of the epoch saves; the middle of an accumulated step has gradients no checkpoint holds
        steps = (batch_idx + 1) // trainer.accumulate_grad_batches
        if trainer.world_size > 1 and steps % _STEPS_BETWEEN_AGREEMENTS:
            return
        asked = self.interrupt.is_set()
        if not _agreed(trainer, asked or time.monotonic() - self.saved_at > _CHECKPOINT_SECONDS):
            return
        stops = _agreed(trainer, asked)
        self.save(trainer)
        if stops:
            raise Stopped(self.run.path)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Adapter)
        elapsed = time.monotonic() - self.epoch_started
        if trainer.is_global_zero:
            costs = {
                "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
                "seconds": round(elapsed, 3),
                "samples_per_second": round(self.samples / elapsed, 1),
                **_peak_memory(module.device),
            }
            self.rows.append({"epoch": trainer.current_epoch + 1, **module.epoch_means(), **costs})

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.is_global_zero:
            self.run.write_json("state.json", {"finished": False, "epoch": trainer.current_epoch})


def _save_checkpoint(trainer: lightning.Trainer, file: Path) -> None:
    """Let Lightning write; an OSError about the file where the disk is full, which its writers call by other names."""
    try:
        trainer.save_checkpoint(file)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    except RuntimeError as error:
        if "write" not in str(error).lower():
            raise
        raise OSError(first_line(error)) from error


def _peak_memory(device: torch.device) -> dict[str, float]:
    """The most memory in use so far, in MB: PyTorch's on a GPU, else the process's where the system tells it."""
    if device.type == "cuda":
        return {"peak_memory_mb": round(torch.cuda.max_memory_allocated(device) / 2**20, 1)}
    if importlib.util.find_spec("resource") is None:
        return {}
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}


class _EpochCheckpoint(lightning.pytorch.callbacks.Checkpoint):
    """Saves at the very end of an epoch; Lightning calls Checkpoint callbacks after all the others."""

    def __init__(self, keeper: _Keeper) -> None:
        self.keeper = keeper

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        last = trainer.current_epoch + 1 >= (trainer.max_epochs or 0) or trainer.should_stop
        stopping = _agreed(trainer, self.keeper.interrupt.is_set()) and not last
        if last or stopping or _agreed(trainer, time.monotonic() - self.keeper.saved_at > 1):
            self.keeper.save(trainer)
        if stopping:
            raise Stopped(self.keeper.run.path)


def _agreed(trainer: lightning.Trainer, wish: bool) -> bool:
    """Whether any process asks for it: all must save together, because saving waits for all."""
    return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))


@contextmanager
def interruptible(event: threading.Event) -> Iterator[None]:
    """The first Ctrl-C asks for a stop after the step; a second one stops at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if event.is_set():
            signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt
        event.set()

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_training(
    method: Method,
    dataset: Dataset,
    options: TrainingOptions,
    *,
    device: Literal["cpu", "cuda"],
    devices: int,
    tensorboard: bool,
    here: bool = True,
) -> None:
    """Raise a UserError for what cannot be trained, before a run folder is touched.

    ``here``: whether the devices are those of this machine.
    """
    resolve_precision(options.precision, device)
    layout = layout_of(devices)
    if here and device == "cuda" and layout.devices > torch.cuda.device_count():
        raise UserError(f"{layout.devices} devices were asked for, and torch sees {torch.cuda.device_count()}")
    if method.fit_once:
        return
    loader_of(dataset, options, seed=0, world_size=layout.processes)
    if options.chunk_size is not None:
        if layout.processes > 1:
            raise UserError("training.chunk_size works on one device; leave it out where several processes train")
        if not method.uses_in_batch_negatives:
            raise UserError(
                f"training.chunk_size is for losses within the batch; {method.name} contrasts with a queue or "
                "classifies, where training.accumulate does the same"
            )
    if tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs a package: pip install 'regrain[tensorboard]'", code="missing_package")


def train(
    method: Method,
    views: nn.Module,
    dataset: Dataset,
    options: TrainingOptions,
    run: RunFolder,
    *,
    seed: int,
    device: Literal["cpu", "cuda"] = "cpu",
    devices: int = 1,
    resume: bool = False,
    progress: bool = True,
    tensorboard: bool = False,
    interrupt: threading.Event | None = None,
) -> None:
    """Train a method in a run folder, from the start or from its last checkpoint.

    Raises a Stopped after an interrupt; the checkpoint is written. Raises a UserError when the loss stops being finite,
    or the checkpoint is damaged.

    Parameters
    ----------
    method : Method
        Trained in place.
    views : nn.Module
        Makes the views of a raw batch.
    dataset : Dataset
        With only the label levels that the method needs.
    device, devices
        Kind and number of devices; more than one trains by Lightning's DDP, and so do the processes that torchrun
        started, on one machine or several.
    resume : bool
        Go on from ``checkpoints/last.ckpt``; a run that was stopped before the first checkpoint starts at the start.
    progress, tensorboard : bool
        Show progress and the time left on standard error; log to ``tensorboard/`` too.
    interrupt : threading.Event, optional
        Ask for a stop after the step by setting it, as Ctrl-C does.
    """
    check_training(method, dataset, options, device=device, devices=devices, tensorboard=tensorboard)
    if options.chunk_size is not None and any(
        isinstance(m, _BATCH_STATISTICS) and m.training for m in method.modules()
    ):
        warn(
            "batch normalisation sees chunks of training.chunk_size samples: gradients equal those of the "
            "whole batch only for encoders without it"
        )
    layout = layout_of(devices)
    checkpoint = run.checked_checkpoint() if resume else None
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if method.fit_once:
        _train_at_once(method, views, dataset, options, run, _together(layout, device))
        return
    loader = loader_of(dataset, options, seed=seed, world_size=layout.processes)
    event = interrupt or threading.Event()
    keeper = _Keeper(run, event)
    callbacks: list[Callback] = [keeper, _EpochCheckpoint(keeper)]
    if progress:
        callbacks.append(ProgressDisplay())
    if options.early_stop:
        callbacks.append(EarlyStopping("loss", patience=options.patience, mode="min", check_on_train_epoch_end=True))
    precision = {"float32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[
        resolve_precision(options.precision, device)
    ]
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the views of images are; convolutions are faster in it
    adapter = Adapter(method, views, options, seed=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        together = _together(layout, device)
        together["plugins"] = [*together["plugins"], *([GlobalBatchNorm()] if layout.processes > 1 else [])]
        trainer = lightning.Trainer(
            **together,
            max_epochs=options.epochs,
            precision=precision,  # type: ignore[arg-type]  # one of Lightning's literals
            accumulate_grad_batches=options.accumulate,
            gradient_clip_val=options.clip_gradient,
            callbacks=callbacks,
            logger=TensorBoardLogger(run.path, name="tensorboard", version="") if tensorboard else False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=True,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            log_every_n_steps=1_000_000_000,
        )
        with interruptible(event), closing(loader):
            trainer.fit(adapter, train_dataloaders=loader, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        run.write_json("state.json", {"finished": True, "epoch": trainer.current_epoch})


def _together(layout: ProcessLayout, device: Literal["cpu", "cuda"]) -> dict[str, Any]:
    """Return the settings that tell Lightning which processes train together."""
    if was_launched():
        os.environ.setdefault("LOCAL_RANK", "0")
    if was_restarted() and layout.processes > 1:
        join_processes("nccl" if device == "cuda" else "gloo")  # which Lightning then finds
    return {
        "accelerator": "gpu" if device == "cuda" else "cpu",
        "devices": layout.devices,
        "num_nodes": max(1, layout.processes // layout.devices),  # machines, if all are like this one
        "strategy": "ddp" if layout.processes > 1 else "auto",
        "plugins": [TorchElasticEnvironment()] if was_launched() else [],
    }


def _train_at_once(
    method: Method,
    views: nn.Module,
    dataset: Dataset,
    options: TrainingOptions,
    run: RunFolder,
    together: dict[str, Any],
) -> None:
    """A method without steps: it looks over the training set once, which the processes share out."""
    fabric = lightning.Fabric(**together)
    fabric.launch()
    method.to(fabric.device)
    views.to(fabric.device)
    started = time.monotonic()
    share = {"rank": fabric.global_rank, "world_size": fabric.world_size}
    dtype = scan_dtype(options.precision, fabric.device)
    method.before_epoch(
        lambda: scan_views(dataset, views, method, fabric.device, dtype, workers=options.workers, **share)
    )
    if fabric.is_global_zero:
        run.append_metrics({"epoch": 1, "seconds": round(time.monotonic() - started, 3)})
        run.write_json("state.json", {"finished": True, "epoch": 1})
