"""TURTLE: classes in frozen features, without labels (Gadetsky, Jiang and Brbic, ICML 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from regrain.checks import Count, NonNegative, Several
from regrain.data.dataset import Batch
from regrain.encoders.base import column_statistics, inverse_spread
from regrain.methods.assignment import count_subclasses, over_training_set
from regrain.methods.base import Method, Needs, Training, TrainingPass
from regrain.methods.classifier import class_counts
from regrain.objectives.turtle import turtle_inner, turtle_loss


class Turtle(Method):
    r"""Searches the labelling :math:`\tau(z) = \operatorname{softmax}(\theta z)` that a linear classifier learns best.

    Every step: W goes on by ``inner_steps`` of gradient descent towards the labels of the batch, then theta follows
    the gradient of :func:`~regrain.objectives.turtle.turtle_loss`. z are the encoder's features, which are not
    trained, standardised by the training set. One space of features; the published method averages over several, and
    its inner optimiser is Adam.

    On frozen features ``kmeans`` was as good on CLINC150's texts (75.4, TURTLE 76.7), and as good or better on the
    photographs of CIFAR-10, CIFAR-100 and Grocery and on HAPT's motion; TURTLE varies most with the seed.

    Parameters
    ----------
    subclasses : int, optional
        Number of classes, at least 2; default 100, or one for 20 training samples where that is fewer.
    entropy_weight : float
        gamma, at least 0: how much classes of unequal size cost.
    inner_steps : int
        Gradient-descent steps of W in each training step.
    """

    name = "turtle"
    summary = "no labels, frozen features: the labelling a linear classifier learns most easily"
    needs = Needs(levels=(), views=("plain",))
    training_only = ("classifier",)
    trains_encoder = False
    mean: Tensor
    scale: Tensor
    classifier: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: Several | None = None,
        entropy_weight: NonNegative = 10.0,
        inner_steps: Count = 10,
    ) -> None:
        super().__init__(encoder, classes)
        count = subclasses or 100
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

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        return count_subclasses(settings, training, better="regrain discover RUN --estimate-classes")

    def before_epoch(self, training_set: TrainingPass) -> None:
        if not bool((self.mean == 0).all()):
            return
        features = over_training_set(self, training_set, lambda x: self.encoder(x).float())[0]
        mean, std = column_statistics(features)
        self.mean.copy_(mean)
        self.scale.copy_(inverse_spread(std))

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        vectors = self._vectors(batch.views[0])
        return {"vectors": vectors, "logits": self.labelling(vectors)}

    def loss(self, vectors: Tensor, logits: Tensor) -> dict[str, Tensor]:
        logits = logits.float()
        labels = logits.detach().softmax(dim=1)
        self.classifier.copy_(turtle_inner(self.classifier, vectors, labels, steps=self.inner_steps))
        loss = turtle_loss(logits, vectors @ self.classifier.T, entropy_weight=self.entropy_weight)
        return {"loss": loss, "classes_in_use": (class_counts(labels.argmax(dim=1), labels.shape[1]) > 0).sum()}

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        return self.labelling(self._vectors(x)).float().softmax(dim=1)

    def _vectors(self, x: Any) -> Tensor:
        return (self.encoder(x).float() - self.mean) * self.scale
