"""SeLa: self-labelling by optimal transport, without any label (Asano et al., ICLR 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.methods.assignment import Assignments, over_training_set, transported
from regrain.methods.base import Needs, Scan
from regrain.methods.classifier import labelled_cross_entropy
from regrain.methods.embedder import EmbedderMethod
from regrain.methods.lloyd import CLUSTER_VARIANCE
from regrain.methods.subclusters import cluster_within
from regrain.objectives.gathering import from_first, gather


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
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    subclasses : int, optional
        Number of clusters, at least 2; default 100, or one for 20 training samples where that is fewer.
    sharpness : float
        lambda of the transport, > 0.
    assignment_period : int
        Epochs between E-steps.
    initial_means : {"k-means", "random"}
        Of the classifier's weights.
    embedder_width, embedder_layers : int
        See :class:`~regrain.methods.embedder.EmbedderMethod`.
    """

    name: ClassVar[str] = "sela"
    summary: ClassVar[str] = "clusters of equal size by balanced transport, without any label"
    needs: ClassVar[Needs] = Needs(levels=(), views=("strong",))
    training_only: ClassVar[tuple[str, ...]] = ("assignments",)
    fewest_steps: ClassVar[int] = 500

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        sharpness: float = 25.0,
        assignment_period: int = 1,
        initial_means: Literal["k-means", "random"] = "k-means",
        **embedder: Any,
    ) -> None:
        super().__init__(encoder, classes, **embedder)
        count = 100 if subclasses is None else subclasses
        require_range(2, subclasses=count)
        require_range(0, above=True, sharpness=sharpness)
        self.sharpness = sharpness
        self.initial_means = initial_means
        self.classifier = nn.Linear(self.embedder_width, count)
        self.assignments = Assignments(count, assignment_period)
        self._cluster_seed = int(torch.randint(2**31, ()))

    def logits(self, features: Tensor) -> Tensor:
        """(B, r) of f(x)."""
        result: Tensor = self.classifier(self.unit_embedding(features))
        return result

    def project(self, batch: Batch) -> dict[str, Tensor]:
        return {"logits": self.logits(self.encoder(batch.views[0])), "ids": batch.ids}

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        codes = self.assignments.lookup(projected["ids"])
        return {"loss": labelled_cross_entropy(projected["logits"], codes), **self.assignments.summary()}

    def before_epoch(self, scan: Scan) -> None:
        if not self.assignments.due():
            return
        features, _, ids = over_training_set(self, scan, lambda x: self.encoder(x).float())
        if self.assignments.potentials is None and self.initial_means == "k-means":
            self._start_from(features)
        with torch.no_grad():
            scores = self.logits(features).log_softmax(dim=1)
        codes, potentials = transported(scores, sharpness=self.sharpness, warm_start=self.assignments.potentials)
        self.assignments.potentials = potentials
        ids = gather(ids, with_gradient=False)
        self.assignments.renew(ids, gather(codes, with_gradient=False))
        if self.assignments.epochs == 1:
            self.assignments.warn_if_meaningless(gather(features, with_gradient=False), ids)

    def after_training(self, scan: Scan) -> None:
        self.assignments.warn_at_end()

    @torch.no_grad()
    def _start_from(self, features: Tensor) -> None:
        """Weights of a classifier by the nearest mean of v, with the variance that clusters have elsewhere."""
        features = gather(features, with_gradient=False)
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
