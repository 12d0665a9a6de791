"""Cross entropy on labels: SupCE on the coarse ones, SupFINE on the fine ones, the upper bound.

SCGM's tables call them Coarse and Fine, and Coarse+ and Fine+ with an embedder between encoder and classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import BelowOne
from regrain.data.dataset import Batch
from regrain.labels import Labels
from regrain.methods.base import Method, Needs
from regrain.methods.classifier import balanced_weights, labelled_cross_entropy
from regrain.methods.embedder import EmbedderMethod


class _CrossEntropy(Method):
    """A linear classifier on f(x)."""

    training_only = ("class_weight",)
    class_weight: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        label_smoothing: BelowOne = 0.0,
        balance_classes: bool = False,
        normalise_classifier: bool = False,
    ) -> None:
        super().__init__(encoder, classes)
        self.label_smoothing = label_smoothing
        self.balance_classes = balance_classes
        self.normalise_classifier = normalise_classifier
        self.register_buffer("class_weight", torch.ones(self.classes[0]))
        self.classifier = nn.Linear(self.encoder_width, self.classes[0])

    def setup(self, labels: Labels) -> None:
        self.class_weight.copy_(balanced_weights(labels.codes[:, 0], self.classes[0]))

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        features = self.encoder(x)
        if self.normalise_classifier:
            features = functional.normalize(features.float(), dim=1)
        return {self.roles[0]: self.classifier(features)}

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.class_logits(batch.views[0])[self.roles[0]], "labels": batch.labels}

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        weight = self.class_weight if self.balance_classes else None
        smoothing = self.label_smoothing
        return {"loss": labelled_cross_entropy(logits, labels[:, 0], label_smoothing=smoothing, weight=weight)}


class SupCE(_CrossEntropy):
    """Cross entropy on the coarse labels; samples of unknown label are skipped.

    Parameters
    ----------
    label_smoothing : float
        Smoothing of the target labels, in [0, 1).
    balance_classes : bool
        Weigh samples against the size of their class.
    normalise_classifier : bool
        Scale f(x) to unit length before the classifier: it fits the training labels less closely, which helps much
        where many labels are wrong. Evaluation uses the unscaled f(x).
    """

    name = "sup-ce"
    summary = "plain classifier of the coarse labels: the baseline"
    needs = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)


class SupFINE(_CrossEntropy):
    """Cross entropy on the fine labels: an upper bound for coarse-trained methods, not a fair rival.

    Parameters
    ----------
    label_smoothing, balance_classes, normalise_classifier
        See :class:`SupCE`.
    """

    name = "sup-fine"
    summary = "plain classifier of the fine labels: the upper bound"
    needs = Needs(levels=("fine",), views=("strong",), minimum_classes=2)


class _EmbedderCrossEntropy(EmbedderMethod):
    """A linear classifier on the output of the embedder."""

    def __init__(self, encoder: nn.Module, classes: Sequence[int], **embedder: Any) -> None:
        super().__init__(encoder, classes, **embedder)
        self.classifier = nn.Linear(self.embedder_width, self.classes[0])

    def class_logits(self, x: Any) -> dict[str, Tensor]:
        return {self.roles[0]: self.classifier(self.embedder(self.encoder(x)))}

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.class_logits(batch.views[0])[self.roles[0]], "labels": batch.labels}

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": labelled_cross_entropy(logits, labels[:, 0])}


class CoarsePlus(_EmbedderCrossEntropy):
    """Coarse+ of SCGM's tables: cross entropy on the coarse labels through an embedder.

    A baseline: it loses what tells fine classes apart (recall@1 of CLINC150's intents 85, raw features 92).

    Parameters
    ----------
    embedder_width, embedder_layers
        See :class:`~regrain.methods.embedder.EmbedderMethod`.
    """

    name = "coarse+"
    summary = "classifier of the coarse labels on an embedder (SCGM's Coarse+)"
    needs = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)


class FinePlus(_EmbedderCrossEntropy):
    """Fine+ of SCGM's tables: cross entropy on the fine labels through an embedder; not a fair rival.

    Parameters
    ----------
    embedder_width, embedder_layers
        See :class:`~regrain.methods.embedder.EmbedderMethod`.
    """

    name = "fine+"
    summary = "classifier of the fine labels on an embedder (SCGM's Fine+)"
    needs = Needs(levels=("fine",), views=("strong",), minimum_classes=2)
