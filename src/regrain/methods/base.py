"""What a method is: an ``nn.Module`` that turns a batch of views into losses, with no trainer in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.objectives.gathering import gather

EVERY = "every"
"""The role of a method that reads all levels in use, coarse to fine: they play ``level1``, ``level2`` and so on."""

Scan = Callable[[], Iterable[tuple[Any, Tensor, Tensor]]]
"""Gives (un-augmented view, labels, ids) batch by batch over the whole training set."""


@dataclass(frozen=True)
class Needs:
    """What a method asks of the data.

    Attributes
    ----------
    levels : tuple of str
        Roles of the label levels it reads, ``coarse`` or ``fine``, or :data:`EVERY` alone; no other label reaches it.
    views : tuple of str
        Default view presets, one per view of a sample.
    minimum_classes : int
        Fewest classes a level it reads may have.
    """

    levels: tuple[str, ...]
    views: tuple[str, ...]
    minimum_classes: int = 1


class Method(nn.Module):
    """Base of all methods.

    A method implements :meth:`project`, which works row by row, and :meth:`losses_from`, which sees the whole batch.
    What ``project`` returns is gathered from all processes in between, so that every objective is a function of the
    global batch, computed wholly on every process; see :func:`regrain.objectives.gather` for why the gradients
    are exact.

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
    in_batch: ClassVar[bool] = False
    """Whether the loss contrasts samples of one batch with each other; then large batches pay."""
    trains_encoder: ClassVar[bool] = True
    """Whether the encoder learns; otherwise its features are taken as they are."""
    by_gradient: ClassVar[bool] = True
    """Whether there are steps at all; otherwise one call of :meth:`before_epoch` is the whole training."""
    judges_projection: ClassVar[bool] = False
    """Whether ``evaluate`` judges :meth:`embed_projected` too unless told otherwise: papers keep or drop that head."""
    queue_of_each_superclass: ClassVar[bool] = False
    """Whether ``queue_size`` is that of a queue which every superclass has, not of one for all samples."""
    fewest_steps: ClassVar[int] = 0
    """Steps below which training is too short to find subclasses: the default batch is halved to get there."""
    staged: ClassVar[bool] = False
    """Whether the loss becomes another one on the way, so that its values before and after do not compare."""

    def __init__(self, encoder: nn.Module, classes: Sequence[int]) -> None:
        super().__init__()
        if self.needs.levels != (EVERY,) and len(classes) != len(self.needs.levels):
            raise UserError(
                f"{self.name} reads {len(self.needs.levels)} label levels ({', '.join(self.needs.levels) or 'none'}); "
                f"got class counts for {len(classes)}"
            )
        for role, count in zip(self.roles_of(len(classes)), classes, strict=True):
            if count < self.needs.minimum_classes:
                raise UserError(
                    f"{self.name} needs at least {self.needs.minimum_classes} {role} classes to tell apart; "
                    f"the data have {count}"
                )
        self.encoder = encoder
        self.classes = tuple(classes)

    @classmethod
    def roles_of(cls, levels: int) -> tuple[str, ...]:
        """The roles that are played where so many levels are read."""
        every = cls.needs.levels == (EVERY,)
        return tuple(f"level{number + 1}" for number in range(levels)) if every else cls.needs.levels

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the levels it reads, in order."""
        return self.roles_of(len(self.classes))

    @property
    def encoder_width(self) -> int:
        """Width of f(x)."""
        return int(self.encoder.width)  # type: ignore[arg-type]  # every encoder has one; nn.Module does not know

    @classmethod
    def view_names(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Default view presets, one per view of a sample, with these settings."""
        return cls.needs.views

    def project(self, batch: Batch) -> dict[str, Tensor]:
        """Everything the loss needs, row by row: tensors (B, ...)."""
        raise NotImplementedError

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``loss`` and its named terms (detached numbers for the log) from the projections of the global batch."""
        raise NotImplementedError

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """``loss`` (a scalar with gradient) and named terms of one batch."""
        projected = self.project(batch)
        return self.losses_from(
            {name: gather(rows, with_gradient=rows.requires_grad) for name, rows in projected.items()}
        )

    def embed(self, x: Any) -> Tensor:
        """What evaluation uses: f(x), (B, width)."""
        result: Tensor = self.encoder(x)
        return result

    def embed_projected(self, x: Any) -> Tensor:
        """h(f(x)), where the loss compares; a UserError where the method has no projection head."""
        raise UserError(f"{self.name} has no projection head whose output could be judged", code="not_supported")

    def predict_proba(self, x: Any, level: str) -> Tensor:
        """Class probabilities (B, classes) at the level of a role; a UserError where the method does not classify."""
        raise UserError(
            f"{self.name} learns embeddings and has no classifier for the {level} level; "
            "judge it by recall, knn or clustering",
            code="not_supported",
        )

    def predict_levels(self, x: Any) -> tuple[Tensor, ...]:
        """What :meth:`predict_proba` gives for each of the roles; x is encoded once where one encoder serves them."""
        return tuple(self.predict_proba(x, role) for role in self.roles)

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        """Probabilities (B, r) of the subclasses that training found, given coarse labels (B,), -1 unknown, or none.

        A UserError where the method has no subclasses of its own.
        """
        raise UserError(
            f"{self.name} has no subclasses of its own; `regrain discover` clusters its embeddings",
            code="not_supported",
        )

    def partitions(self, x: Any) -> tuple[Tensor, ...]:
        """Probabilities (B, C) by each partition of the samples that training made of its own.

        The first is what ``regrain discover`` shows. A UserError where the method has no subclasses of its own.
        """
        return (self.subclass_proba(x),)

    @property
    def has_classifier(self) -> bool:
        """Whether :meth:`predict_proba` works."""
        return type(self).predict_proba is not Method.predict_proba

    @property
    def has_subclasses(self) -> bool:
        """Whether :meth:`subclass_proba` works."""
        return type(self).subclass_proba is not Method.subclass_proba

    def shared_state(self) -> dict[str, Tensor]:
        """The part of the state dict that a shared model holds."""
        state = self.state_dict()
        return {n: v for n, v in state.items() if n.split(".")[0] not in self.training_only}

    def take_labels(self, labels: Labels) -> None:
        """Called once before training: the training samples' labels at the levels that are read, in their order."""

    def after_step(self) -> None:
        """Called after every optimiser step."""

    def before_epoch(self, scan: Scan) -> None:
        """Called before every epoch."""

    def after_training(self, scan: Scan) -> None:
        """Called once after the last step, before the last checkpoint and the model are saved."""
