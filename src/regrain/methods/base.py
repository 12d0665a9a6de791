"""Base class of methods: an ``nn.Module`` that turns a batch of views into losses, independent of the trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.checks import checks_settings
from regrain.data.dataset import Batch
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.objectives.gathering import gather

EVERY = "every"
"""The role of a method that reads all levels in use, coarse to fine: they play ``level1``, ``level2`` and so on."""

READ_EVERY = 16
"""Steps between looks at a GPU's values: the host waits for all that it has not done yet."""


def coarse_roles(levels: int) -> tuple[str, ...]:
    """Roles of so many coarse levels.

    Examples
    --------
    >>> coarse_roles(3)
    ('coarse', 'coarse2', 'coarse3')
    """
    return ("coarse", *(f"coarse{number}" for number in range(2, levels + 1)))[:levels]


TrainingPass = Callable[[], Iterable[tuple[Any, Tensor, Tensor]]]
"""Gives (un-augmented view, labels, ids) batch by batch over the whole training set."""


@dataclass(frozen=True)
class Needs:
    """Requirements of a method on the data."""

    levels: tuple[str, ...]
    """Roles of the label levels that it reads: ``coarse`` or ``fine``, or :data:`EVERY` alone. It gets no other label.
    """
    views: tuple[str, ...]
    """Default view presets, one per view of a sample."""
    minimum_classes: int = 1
    """Smallest number of classes that a level it reads may have."""
    several: bool = False
    """Whether it reads as many coarse levels as the user names, whose classes may cut across each other. They play
    ``coarse``, ``coarse2``, ``coarse3`` and so on."""


@dataclass(frozen=True)
class Training:
    """Facts about the training that a method's settings may depend on, see :meth:`Method.fit_settings`."""

    samples: int
    epochs: int
    """``samples``, ``epochs``: numbers of training samples and epochs."""
    classes: tuple[int, ...]
    """Number of classes of every level that the method reads."""
    encoder: nn.Module
    """The encoder at the start of training."""
    given: frozenset[str] = frozenset()
    """Names of the settings that the user gave."""


class Method(nn.Module):
    """Base of all methods.

    A method implements :meth:`forward_views`, which works row by row, and :meth:`loss`, which sees the whole batch.
    The trainer gathers the output of the first from all processes, so that every objective is a function of the global
    batch, and every process computes it completely; :func:`regrain.objectives.gather` explains why the gradients are
    exact.

    Settings are keyword-only arguments of the constructor, with ranges as annotations (:mod:`regrain.checks`); a value
    out of range raises a UserError.

    Parameters
    ----------
    encoder : nn.Module
        f, with an attribute ``width``.
    classes : sequence of int
        Number of classes for each level in ``needs.levels``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    needs: ClassVar[Needs]
    training_only: ClassVar[tuple[str, ...]] = ()
    """Submodules that only training needs; a shared model does not hold them."""
    uses_in_batch_negatives: ClassVar[bool] = False
    """Whether the loss contrasts samples of one batch with each other; such a loss gains from large batches."""
    trains_encoder: ClassVar[bool] = True
    """Whether the encoder is trained; otherwise its features are used unchanged."""
    fit_once: ClassVar[bool] = False
    """Whether one call of :meth:`before_epoch` is the whole training, without optimiser steps."""
    roles: tuple[str, ...]
    """Roles of the levels that the method reads, in order."""
    judges_projection: ClassVar[bool] = False
    """Whether ``evaluate`` also judges :meth:`embed_projected` by default: some papers keep that head, some drop it."""
    fewest_steps: ClassVar[int] = 0
    """Steps below which training is too short to find subclasses: the default batch is halved to get there."""
    multi_stage: ClassVar[bool] = False
    """Whether the loss changes its form during training, so that values before and after are not comparable."""

    def __init_subclass__(cls, **given: Any) -> None:
        super().__init_subclass__(**given)
        checks_settings(cls)

    def __init__(self, encoder: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        self.roles = self.roles_of(len(classes))
        if len(self.roles) != len(classes):
            raise UserError(
                f"{self.name} reads {len(self.needs.levels)} label levels ({', '.join(self.needs.levels) or 'none'}); "
                f"got class counts for {len(classes)}",
                code="wrong_shape",
            )
        for role, count in zip(self.roles, classes, strict=True):
            if count < self.needs.minimum_classes:
                raise UserError(
                    f"{self.name} needs at least {self.needs.minimum_classes} {role} classes to tell apart; "
                    f"the data have {count}",
                    code="too_few",
                )
        self.encoder = encoder
        self.classes = tuple(classes)

    @classmethod
    def roles_of(cls, levels: int) -> tuple[str, ...]:
        """Role names for a given number of levels."""
        if cls.needs.levels == (EVERY,):
            return tuple(f"level{number + 1}" for number in range(levels))
        return coarse_roles(max(1, levels)) if cls.needs.several else cls.needs.levels

    @property
    def encoder_width(self) -> int:
        """Width of f(x)."""
        return int(self.encoder.width)  # type: ignore[arg-type]  # every encoder has one; nn.Module does not know

    # -- before training -------------------------------------------------------------------------------------------

    @classmethod
    def view_names(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Default view presets, one per view of a sample, with these settings."""
        return cls.needs.views

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        """Choose, in place, settings that are None or do not fit the data; return a notice for each choice.

        Raises
        ------
        UserError
            If the user's settings contradict the data.
        """
        return []

    def setup(self, labels: Labels) -> None:
        """Prepare for training, once; ``labels`` are the training samples' labels at the levels read, in order."""

    # -- training --------------------------------------------------------------------------------------------------

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        """Compute all inputs of the loss row by row: tensors (B, ...) by the names of :meth:`loss`'s arguments."""
        raise NotImplementedError

    def loss(self, *args: Any, **projected: Any) -> dict[str, Tensor]:
        """Return ``loss`` and its named terms (detached, for the log) from :meth:`forward_views` of the global batch.

        Methods name the arguments.
        """
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return ``loss`` (a scalar with gradient) and the named terms of one batch."""
        projected = self.forward_views(batch)
        return self.loss(**{name: gather(rows, with_gradient=rows.requires_grad) for name, rows in projected.items()})

    def after_step(self) -> None:
        """Update the method's state after every optimiser step."""

    def before_epoch(self, training_set: TrainingPass) -> None:
        """Prepare for an epoch; called before each."""

    def after_training(self, training_set: TrainingPass) -> None:
        """Finish training; called once after the last step, before the last checkpoint and the model are saved."""

    # -- use -------------------------------------------------------------------------------------------------------

    def embed(self, x: Any) -> Tensor:
        """Return the embedding that evaluation uses: f(x), (B, width)."""
        return self.encoder(x)

    def embed_projected(self, x: Any) -> Tensor:
        """Return h(f(x)), as the loss compares it; raise a UserError if the method has no projection head."""
        raise UserError(f"{self.name} has no projection head whose output could be judged", code="not_supported")

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        """Return logits (B, classes) by role of the levels that are classified; raise a UserError if there are none."""
        raise UserError(
            f"{self.name} learns embeddings and has no classifier; judge it by recall, knn or clustering",
            code="not_supported",
        )

    def class_proba(self, x: Any) -> dict[str, Tensor]:
        """Return class probabilities (B, classes) by role; x is encoded once for all roles."""
        return {role: logits.float().softmax(dim=1) for role, logits in self.class_logits(x).items()}

    def predict_proba(self, x: Any, role: str) -> Tensor:
        """Return class probabilities (B, classes) at the level of a role; raise a UserError if there are none."""
        found = self.class_proba(x)
        if role not in found:
            raise UserError(
                f"{self.name} has no classifier for the {role} level, only for {', '.join(found)}", code="not_supported"
            )
        return found[role]

    @property
    def has_classifier(self) -> bool:
        """Whether :meth:`class_proba` works."""
        cls = type(self)
        return cls.class_logits is not Method.class_logits or cls.class_proba is not Method.class_proba

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        """Return probabilities (B, r) of the subclasses found in training; coarse labels (B,) are optional, -1 unknown.

        Raises a UserError if the method has no subclasses of its own.
        """
        raise UserError(
            f"{self.name} has no subclasses of its own; `regrain discover` clusters its embeddings",
            code="not_supported",
        )

    def partitions(self, x: Any) -> tuple[Tensor, ...]:
        """Return probabilities (B, C) for each partition of the samples that training found.

        ``regrain discover`` shows the first. Raises a UserError if the method has no subclasses of its own.
        """
        return (self.subclass_proba(x),)

    @property
    def has_subclasses(self) -> bool:
        """Whether :meth:`subclass_proba` works."""
        return type(self).subclass_proba is not Method.subclass_proba

    def shared_state(self) -> dict[str, Tensor]:
        """Return the part of the state dict that a shared model contains."""
        state = self.state_dict()
        return {n: v for n, v in state.items() if n.split(".")[0] not in self.training_only}
