"""GEORGE: subclasses by clustering a coarse model's embeddings, then training on them (Sohoni et al., NeurIPS 2020)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import Count, CountFromZero
from regrain.data.dataset import Batch
from regrain.errors import UserError
from regrain.methods.assignment import Assignments, over_training_set
from regrain.methods.base import Method, Needs, Training, TrainingPass
from regrain.methods.classifier import labelled_cross_entropy
from regrain.methods.clustering import CLUSTER_VARIANCE, cluster_within
from regrain.objectives.gathering import from_first

_GROUP_STEP = 0.01


class GEORGE(Method):
    r"""Two stages in one training: a coarse classifier; then, on its clusters within each superclass, a second model.

    Stage 1, ``coarse_epochs`` long: cross entropy on the coarse labels. Then k-means on the unit-length f(x) within
    each superclass gives every sample a subclass. Stage 2 starts again from the first weights and minimises cross
    entropy on the subclasses, or, with ``group_dro``, the worst subclass's error at predicting the superclass (Sagawa
    et al., ICLR 2020, algorithm 1):

    .. math:: q_z \leftarrow q_z \exp(\eta\, \ell_z) / \sum_{z'} q_{z'} \exp(\eta\, \ell_{z'}), \qquad
              L = \sum_z q_z\, \ell_z

    with :math:`\ell_z` the mean cross entropy of the superclass over the batch's samples of subclass z. The published
    GEORGE reduces f(x) by UMAP before clustering and over-clusters; here k-means works on f(x). Both stages are one
    training: the schedule and the optimiser's state go on. Samples of unknown coarse label are left out of stage 1 and
    join the nearest cluster in stage 2.

    On frozen features it finds less than clusters of those features: an NMI of 70 with the intents of CLINC150, where
    k-means within the domains has 92. ``scgm`` is the method to take first.

    Parameters
    ----------
    coarse_epochs : int, optional
        Length of stage 1; default half of the training (10 outside ``regrain fit``). 0 clusters f(x) as it starts.
    largest : int
        Largest number of subclasses in a superclass; the number with the largest mean silhouette is used.
    group_dro : bool
        Train against the worst subclass, with eta = 0.01.
    start_at_means : bool
        Classify unit-length f(x) in stage 2, from the means of the clusters instead of random weights: a short training
        then keeps what the clusters have. Not in the paper.
    """

    name = "george"
    summary = "coarse model, its clusters within each superclass, and a model trained on those"
    needs = Needs(levels=("coarse",), views=("strong",), minimum_classes=2)
    training_only = ("assignments", "first")
    fewest_steps = 500
    multi_stage = True
    superclass_of: Tensor
    group_weights: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        coarse_epochs: CountFromZero | None = None,
        largest: Count = 10,
        group_dro: bool = False,
        start_at_means: bool = False,
    ) -> None:
        super().__init__(encoder, classes)
        self.coarse_epochs = 10 if coarse_epochs is None else coarse_epochs
        self.largest = largest
        self.group_dro = group_dro
        self.start_at_means = start_at_means
        count = self.classes[0] * largest
        self.coarse_classifier = nn.Linear(self.encoder_width, self.classes[0])
        self.subclass_classifier = nn.Linear(self.encoder_width, count)
        self.first = copy.deepcopy(nn.ModuleList([encoder, self.coarse_classifier])).requires_grad_(False)
        self.assignments = Assignments(count, 1)
        self.register_buffer("superclass_of", torch.full((count,), -1))  # -1: no such subclass
        self.register_buffer("group_weights", torch.full((count,), 1 / count))
        self._cluster_seed = int(torch.randint(2**31, ()))

    @classmethod
    def fit_settings(cls, settings: dict[str, Any], training: Training) -> list[str]:
        notices, epochs = [], training.epochs
        if settings["coarse_epochs"] is None:
            settings["coarse_epochs"] = max(1, epochs // 2)
            notices.append(f"the first {settings['coarse_epochs']} of {epochs} epochs train the coarse model")
        if settings["coarse_epochs"] >= epochs:
            raise UserError(
                f"coarse_epochs is {settings['coarse_epochs']} of {epochs} epochs: none is left to train on the "
                "subclasses",
                code="out_of_range",
            )
        return notices

    @property
    def has_clusters(self) -> bool:
        """Whether stage 2 has begun."""
        return bool((self.superclass_of >= 0).any())

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        features = self.encoder(batch.views[0])
        return {
            "coarse_logits": self.coarse_classifier(features),
            "subclass_logits": self._subclass_logits(features),
            "labels": batch.labels,
            "ids": batch.ids,
        }

    def loss(self, coarse_logits: Tensor, subclass_logits: Tensor, labels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        coarse, unused = labels[:, 0], 0 * (coarse_logits.sum() + subclass_logits.sum())  # all weights have a gradient
        if not self.assignments.known:
            return {"loss": labelled_cross_entropy(coarse_logits, coarse) + unused}
        codes = self.assignments.lookup(ids)
        if self.group_dro:
            terms = self._worst_group(coarse_logits, coarse, codes)
        else:
            terms = {"loss": labelled_cross_entropy(self._masked(subclass_logits), codes)}
        return {**terms, "loss": terms["loss"] + unused, **self.assignments.summary()}

    def _worst_group(self, coarse_logits: Tensor, coarse: Tensor, codes: Tensor) -> dict[str, Tensor]:
        losses = functional.cross_entropy(coarse_logits.float(), coarse, ignore_index=-1, reduction="none")
        counted = (coarse >= 0) & (codes >= 0)
        group = codes.clamp(min=0)
        counts = losses.new_zeros(len(self.group_weights)).index_add_(0, group, counted.to(losses.dtype))
        means = losses.new_zeros(len(self.group_weights)).index_add_(0, group, losses.where(counted, 0))
        means = means / counts.clamp(min=1)
        with torch.no_grad():
            self.group_weights.mul_((_GROUP_STEP * means).exp())
            self.group_weights.div_(self.group_weights.sum())
        worst = means.detach().max()
        return {"loss": self.group_weights.clone() @ means, "worst_subclass": worst}

    def before_epoch(self, training_set: TrainingPass) -> None:
        self.assignments.due()
        if self.has_clusters or self.assignments.epochs != self.coarse_epochs + 1:
            return
        features, labels, ids = over_training_set(self, training_set, self.encoder)
        found = cluster_within(features, labels[:, 0], each=(1, self.largest), seed=self._cluster_seed)
        for module, first in zip((self.encoder, self.coarse_classifier), self.first, strict=True):
            module.load_state_dict(first.state_dict())
        if self.start_at_means:
            features, _, ids_again = over_training_set(self, training_set, self.encoder)
            assert torch.equal(ids, ids_again)
        self.take_clusters(ids, from_first(found.codes), from_first(found.superclass), from_first(features))

    @torch.no_grad()
    def take_clusters(self, ids: Tensor, codes: Tensor, superclass_of: Tensor, features: Tensor) -> None:
        """Begin stage 2 with clusters of the training samples; before training, there is no stage 1.

        Parameters
        ----------
        ids, codes : LongTensor (N,)
            A sample of code -1 is not trained on.
        superclass_of : LongTensor (r,)
            The superclass of every cluster, -1 for a number that none has; r is at most C times ``largest``.
        features : Tensor (N, d)
            f(x) as stage 2 starts.
        """
        known = codes >= 0
        self.assignments.renew(ids[known], codes[known])
        self.superclass_of[: len(superclass_of)] = superclass_of
        used = (self.superclass_of >= 0).float()
        self.group_weights.copy_(used / used.sum())
        if self.start_at_means:
            weight = self.subclass_classifier.weight
            units = functional.normalize(features[known].to(weight), dim=1)
            sums = torch.zeros_like(weight).index_add_(0, codes[known].to(weight.device), units)
            weight.copy_(functional.normalize(sums, dim=1) / CLUSTER_VARIANCE)
            self.subclass_classifier.bias.zero_()

    def _subclass_logits(self, features: Tensor) -> Tensor:
        return self.subclass_classifier(functional.normalize(features, dim=1) if self.start_at_means else features)

    def _masked(self, logits: Tensor) -> Tensor:
        """Mask the logits of unused places, once there are clusters."""
        unused = self.superclass_of < 0
        return logits.masked_fill(unused & ~unused.all(), torch.finfo(logits.dtype).min)

    def class_proba(self, x: Any) -> dict[str, Tensor]:
        features = self.encoder(x)
        first = self.coarse_classifier(features).float().softmax(dim=1)
        if self.group_dro:
            return {"coarse": first}
        subclasses = self._masked(self._subclass_logits(features)).float().softmax(dim=1)
        owner = self.superclass_of.clamp(min=0)
        summed = torch.zeros_like(first).index_add_(1, owner, subclasses)
        return {"coarse": torch.where((self.superclass_of >= 0).any(), summed, first)}

    @property
    def has_subclasses(self) -> bool:
        return self.has_clusters and not self.group_dro

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        if not self.has_subclasses:
            raise UserError(
                "george with group_dro, or before its second stage, has no classifier of subclasses",
                code="not_supported",
            )
        logits = self._masked(self._subclass_logits(self.encoder(x))).float()
        if coarse is not None:
            elsewhere = (coarse[:, None] >= 0) & (self.superclass_of != coarse[:, None])
            logits = logits.masked_fill(elsewhere, torch.finfo(logits.dtype).min)
        return logits.softmax(dim=1)
