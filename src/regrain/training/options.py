"""The settings of a training, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from regrain.checks import (
    BelowOne,
    Count,
    CountFromZero,
    NonNegative,
    Positive,
    PositiveShare,
    Several,
    Share,
    checks_settings,
)
from regrain.errors import UserError
from regrain.training.device import Precision
from regrain.training.optim import OptimizerName, ScheduleName

Sampling = Literal["uniform", "balanced", "two-level"]


@checks_settings
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train; defaults are the MaskCon paper's (appendix A.1)."""

    name: ClassVar[str] = "training"

    epochs: Count = 200
    """At least 1."""
    batch_size: Several = 128
    """Samples of a global batch, at least 2."""
    sampling: Sampling = "uniform"
    """``balanced``: the classes of the level the method reads first come equally often, so that samples of small ones
    are seen several times an epoch, in views of their own each time, and not all of large ones; samples without a label
    keep their share. ``two-level``: so do, within each of them, the classes of the level it reads last, in blocks of
    ``samples_per_class`` of one class, so that a batch holds positives at both levels (a block may be cut in two where
    a batch ends). A notice before training says what an epoch visits.
    """
    samples_per_class: Several = 4
    """Of a block of ``two-level``."""
    optimizer: OptimizerName = "sgd"
    learning_rate: Positive = 0.02
    """> 0."""
    encoder_learning_rate: Positive | None = None
    """Another rate for the encoder than for the heads (fine-tuning)."""
    layer_decay: PositiveShare | None = None
    """In (0, 1]: each layer of the encoder has the rate of the layer above times this (Howard & Ruder 2018; Clark et
    al. 2020), for encoders whose layers are known: transformers of texts, timm's models.
    """
    momentum: BelowOne = 0.9
    """Of SGD and LARS; the first beta of AdamW."""
    weight_decay: NonNegative = 5e-4
    schedule: ScheduleName = "cosine"
    warmup_epochs: NonNegative = 0.0
    """Epochs of linear warm-up; fractions count."""
    warmup_start: Share = 0.0
    """Share of the learning rate at which warm-up begins, in [0, 1]."""
    restart_epochs: Positive | None = None
    """Length of a cycle, for the schedule ``restarts``."""
    final_factor: Share = 0.0
    """Share of the learning rate left at the end of a cosine, in [0, 1]."""
    precision: Precision = "auto"
    """Of the encoder's arithmetic; losses are float32. ``auto`` is bf16 where the processor has it."""
    accumulate: Count = 1
    """Batches per optimiser step."""
    chunk_size: Count | None = None
    """For losses within the batch: embed this many samples at a time and cache gradients, so that a large batch fits.
    """
    clip_gradient: Positive | None = None
    """Largest norm of the gradient."""
    early_stop: Literal["loss"] | None = None
    """Stop when the training loss has not fallen for ``patience`` epochs; no label is looked at."""
    patience: Count = 10
    workers: CountFromZero = 2
    """Processes that decode images; data in memory need none."""

    def __post_init__(self) -> None:
        if self.schedule == "restarts" and self.restart_epochs is None:
            raise UserError(
                "training.schedule 'restarts' needs training.restart_epochs, the length of a cycle",
                code="missing_option",
            )
        if self.chunk_size is not None and self.accumulate > 1:
            raise UserError(
                "training.chunk_size and training.accumulate exclude each other: a chunked batch is one step",
                code="conflicting_options",
            )
