"""The settings of a training, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from regrain.errors import UserError
from regrain.training.optim import OptimizerName, ScheduleName

Sampling = Literal["uniform", "balanced", "two-level"]
Precision = Literal["auto", "float32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train; defaults are the MaskCon paper's (appendix A.1).

    Parameters
    ----------
    epochs : int
        At least 1.
    batch_size : int
        Samples of a global batch, at least 2.
    sampling : {"uniform", "balanced", "two-level"}
        ``balanced``: the classes of the level the method reads first come equally often, so that samples of small ones
        are seen several times an epoch, in views of their own each time, and not all of large ones; samples without a
        label keep their share.
        ``two-level``: so do, within each of them, the classes of the level it reads last, in blocks of
        ``samples_per_class`` of one class, so that a batch holds positives at both levels (a block may be cut in two
        where a batch ends). What an epoch visits is said before training.
    samples_per_class : int
        Of a block of ``two-level``.
    optimizer : {"sgd", "adamw", "lars"}
    learning_rate : float
        > 0.
    encoder_learning_rate : float, optional
        Another rate for the encoder than for the heads (fine-tuning).
    layer_decay : float, optional
        In (0, 1]: each layer of the encoder has the rate of the layer above times this (Howard & Ruder 2018; Clark et
        al. 2020), for encoders whose layers are known: transformers of texts, timm's models.
    momentum : float
        Of SGD and LARS; the first beta of AdamW.
    weight_decay : float
    schedule : {"cosine", "restarts", "constant"}
    warmup_epochs : float
        Epochs of linear warm-up; fractions count.
    warmup_start : float
        Share of the learning rate at which warm-up begins, in [0, 1].
    restart_epochs : float, optional
        Length of a cycle, for the schedule ``restarts``.
    final_factor : float
        Share of the learning rate left at the end of a cosine, in [0, 1].
    precision : {"auto", "float32", "bf16", "fp16"}
        Of the encoder's arithmetic; losses are float32. ``auto`` is bf16 where the processor has it.
    accumulate : int
        Batches per optimiser step.
    chunk_size : int, optional
        For losses within the batch: embed this many samples at a time and cache gradients, so that a large batch fits.
    clip_gradient : float, optional
        Largest norm of the gradient.
    early_stop : {"loss"}, optional
        Stop when the training loss has not fallen for ``patience`` epochs; no label is looked at.
    patience : int
    workers : int
        Processes that decode images; data in memory need none.
    """

    epochs: int = 200
    batch_size: int = 128
    sampling: Sampling = "uniform"
    samples_per_class: int = 4
    optimizer: OptimizerName = "sgd"
    learning_rate: float = 0.02
    encoder_learning_rate: float | None = None
    layer_decay: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "cosine"
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0
    restart_epochs: float | None = None
    final_factor: float = 0.0
    precision: Precision = "auto"
    accumulate: int = 1
    chunk_size: int | None = None
    clip_gradient: float | None = None
    early_stop: Literal["loss"] | None = None
    patience: int = 10
    workers: int = 2

    def __post_init__(self) -> None:
        for name, smallest in {
            "epochs": 1,
            "batch_size": 2,
            "samples_per_class": 2,
            "accumulate": 1,
            "patience": 1,
            "workers": 0,
            "warmup_epochs": 0,
            "weight_decay": 0,
        }.items():
            if not smallest <= getattr(self, name) < math.inf:
                raise UserError(f"training.{name} is at least {smallest}; got {getattr(self, name)}")
        for name in ("learning_rate", "encoder_learning_rate", "clip_gradient", "restart_epochs", "chunk_size"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"training.{name} is greater than 0; got {value}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise UserError(f"training.layer_decay lies in (0, 1]; got {self.layer_decay}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"training.momentum lies in [0, 1), 1 left out; got {self.momentum}")
        for name in ("final_factor", "warmup_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"training.{name} lies in [0, 1]; got {getattr(self, name)}")
        if self.schedule == "restarts" and self.restart_epochs is None:
            raise UserError("training.schedule 'restarts' needs training.restart_epochs, the length of a cycle")
        if self.chunk_size is not None and self.accumulate > 1:
            raise UserError(
                "training.chunk_size and training.accumulate exclude each other: a chunked batch is one step"
            )
