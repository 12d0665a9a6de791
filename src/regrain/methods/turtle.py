"""TURTLE: classes in frozen features, without labels (Gadetsky, Jiang and Brbic, ICML 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.encoders.base import column_statistics, inverse_spread
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, Needs, Scan
from regrain.objectives.gathering import gather
from regrain.objectives.turtle import turtle_inner, turtle_loss


class Turtle(Method):
    r"""Searches the labelling :math:`\tau(z) = \operatorname{softmax}(\theta z)` that a linear classifier learns best.

    Every step: W goes on by ``inner_steps`` of gradient descent towards the labels of the batch, then theta follows
    the gradient of :func:`~regrain.objectives.turtle.turtle_loss`. z are the encoder's features, which are not
    trained, standardised by the training set. One space of features; the published method averages over several, and
    its inner optimiser is Adam.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    subclasses : int, optional
        Number of classes, at least 2; default 100, or one for 20 training samples where that is fewer.
    entropy_weight : float
        gamma, at least 0: how much classes of unequal size cost.
    inner_steps : int
    """

    name: ClassVar[str] = "turtle"
    summary: ClassVar[str] = "no labels, frozen features: the labelling a linear classifier learns most easily"
    needs: ClassVar[Needs] = Needs(levels=(), views=("plain",))
    training_only: ClassVar[tuple[str, ...]] = ("classifier",)
    trains_encoder: ClassVar[bool] = False
    mean: Tensor
    scale: Tensor
    classifier: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        entropy_weight: float = 10.0,
        inner_steps: int = 10,
    ) -> None:
        super().__init__(encoder, classes)
        count = 100 if subclasses is None else subclasses
        require_range(2, subclasses=count)
        require_range(0, entropy_weight=entropy_weight)
        require_range(1, inner_steps=inner_steps)
        encoder.requires_grad_(False)
        self.entropy_weight = entropy_weight
        self.inner_steps = inner_steps
        self.labelling = weight_norm(nn.Linear(self.encoder_width, count))
        self.register_buffer("mean", torch.zeros(self.encoder_width))
        self.register_buffer("scale", torch.ones(self.encoder_width))
        self.register_buffer("classifier", torch.zeros(count, self.encoder_width))

    def train(self, mode: bool = True) -> Turtle:
        super().train(mode)
        self.encoder.eval()
        return self

    def before_epoch(self, scan: Scan) -> None:
        if not bool((self.mean == 0).all()):
            return
        features = over_training_set(self, scan, lambda x: self.encoder(x).float())[0]
        mean, std = column_statistics(gather(features, with_gradient=False))
        self.mean.copy_(mean)
        self.scale.copy_(inverse_spread(std))

    def project(self, batch: Batch) -> dict[str, Tensor]:
        vectors = self._vectors(batch.views[0])
        return {"vectors": vectors, "logits": self.labelling(vectors)}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        vectors, logits = projected["vectors"], projected["logits"].float()
        labels = logits.detach().softmax(dim=1)
        self.classifier.copy_(turtle_inner(self.classifier, vectors, labels, steps=self.inner_steps))
        loss = turtle_loss(logits, vectors @ self.classifier.T, entropy_weight=self.entropy_weight)
        return {"loss": loss, "classes_in_use": (torch.bincount(labels.argmax(dim=1)) > 0).sum()}

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        result: Tensor = self.labelling(self._vectors(x)).float().softmax(dim=1)
        return result

    def _vectors(self, x: Any) -> Tensor:
        result: Tensor = (self.encoder(x).float() - self.mean) * self.scale
        return result
