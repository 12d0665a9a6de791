"""SeLa: self-labelling by optimal transport, without any label (Asano et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import Count, Positive, Several
from regrain.data.dataset import Batch
from regrain.methods.assignment import (
    Assignments,
    count_subclasses,
    drawn_together,
    over_own_share,
    scores_by_block,
)
from regrain.methods.base import Needs, Training, TrainingPass
from regrain.methods.classifier import labelled_cross_entropy
from regrain.methods.clustering import CLUSTER_VARIANCE, cluster_within
from regrain.methods.embedder import EmbedderMethod
from regrain.objectives.gathering import from_first


class SeLa(EmbedderMethod):
    r"""Cross entropy to clusters that balanced transport gives to all samples (Asano et al., eq. 3-6).

    Every ``assignment_period`` epochs :math:`q_i = \arg\max_z Q_{zi}`, Q the plan over
    :math:`p(z|x)^\lambda` with equal cluster sizes, in evaluation mode over the un-augmented samples. The classifier
    works on v, as in SCGM's tables. Its weights start as the centres of k-means on f(x), seen through v; with
    ``initial_means="random"``, as published, they are random, and so are the first codes.
    It agrees with hidden classes about as k-means on frozen features does (NMI 88 on CLINC150), not better.
    One head; the paper's ten heads and shrinking schedule are not part of it.

    Parameters
    ----------
    subclasses : int, optional
        Number of clusters, at least 2; default 100, or one for 20 training samples where that is fewer.
    sharpness : float
        lambda of the transport, > 0.
    assignment_period : int
        Epochs between E-steps.
    initial_means : {"k-means", "random"}
        Start of the classifier's weights.
    embedder_width, embedder_layers : int
        See :class:`~regrain.methods.embedder.EmbedderMethod`.
    """

    name = "sela"
    summary = "clusters of equal size by balanced transport, without any label"
    needs = Needs(levels=(), views=("strong",))
    training_only = ("assignments",)
    fewest_steps = 500

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: Several | None = None,
        sharpness: Positive = 25.0,
        assignment_period: Count = 1,
        initial_means: Literal["k-means", "random"] = "k-means",
        **embedder: Any,
    ) -> None:
        super().__init__(encoder, classes, **embedder)
        count = subclasses or 100
        self.sharpness = sharpness
        self.initial_means = initial_means
        self.classifier = nn.Linear(self.embedder_width, count)
        self.assignments = Assignments(count, assignment_period)
        self._cluster_seed = int(torch.randint(2**31, ()))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        return count_subclasses(settings, training)

    def logits(self, features: Tensor) -> Tensor:
        """Return logits (B, r) of f(x)."""
        return self.classifier(self.unit_embedding(features))

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.logits(self.encoder(batch.views[0])), "ids": batch.ids}

    def loss(self, logits: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return {"loss": labelled_cross_entropy(logits, self.assignments.lookup(ids)), **self.assignments.summary()}

    def before_epoch(self, training_set: TrainingPass) -> None:
        if not self.assignments.due():
            return
        features, _, ids = over_own_share(self, training_set, lambda x: self.encoder(x).float())
        if self.assignments.potentials is None and self.initial_means == "k-means":
            self._start_from(features)
        scores = scores_by_block(
            lambda rows: self.logits(features[rows]).log_softmax(dim=1),
            (len(features), len(self.classifier.weight)),
            features.device,
        )
        self.assignments.transport(scores, ids, sharpness=self.sharpness)
        if self.assignments.epochs == 1:
            self.assignments.warn_if_meaningless(*drawn_together(features, ids))

    def after_training(self, training_set: TrainingPass) -> None:
        self.assignments.warn_at_end()

    @torch.no_grad()
    def _start_from(self, features: Tensor) -> None:
        """Set the weights of a nearest-mean classifier of v, with the variance used elsewhere for clusters."""
        (features,) = drawn_together(features)
        count = len(self.classifier.weight)
        found = cluster_within(
            features, torch.zeros(len(features), dtype=torch.long), total=count, seed=self._cluster_seed
        )
        codes = from_first(found.codes).to(features.device)
        sums = torch.zeros_like(self.classifier.weight).index_add_(0, codes, self.unit_embedding(features))
        self.classifier.weight.copy_(from_first(functional.normalize(sums, dim=1) / CLUSTER_VARIANCE))
        self.classifier.bias.zero_()

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        return self.logits(self.encoder(x)).float().softmax(dim=1)
