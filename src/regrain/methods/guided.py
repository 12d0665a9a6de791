"""Metric-guided prototypes: classes placed as their tree has them (Landrieu and Garnot, BMVC 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrain.checks import Count, NonNegative
from regrain.data.dataset import Batch
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.base import EVERY, Method, Needs
from regrain.methods.leaves import log_within, summed_above, under_finest_known
from regrain.objectives.hierarchy import metric_guided_loss, prototype_logits


class Guided(Method):
    """Classification by the distance to a prototype of every finest class; prototypes keep the tree's distances.

    See :func:`~regrain.objectives.hierarchy.metric_guided_loss`; the distance of two classes is the number of edges
    between them in the taxonomy. A sample known only at a coarser level contributes the probability of its class there,
    the sum over the finest classes below. Evaluation uses the vectors that are compared with prototypes.

    On the data measured here (CLINC150, Grocery) it is less accurate than ``multi-ce`` at the finest level.

    Parameters
    ----------
    distortion_weight : float
        lambda, at least 0.
    width : int
        Width of vectors and prototypes.
    """

    name = "guided"
    summary = "labels at several levels: prototypes whose distances follow the taxonomy"
    needs = Needs(levels=(EVERY,), views=("strong",), minimum_classes=2)
    above: Tensor
    class_distances: Tensor

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, distortion_weight: NonNegative = 1.0, width: Count = 128
    ) -> None:
        super().__init__(encoder, classes)
        self.distortion_weight = distortion_weight
        self.embedder = nn.Linear(self.encoder_width, width)
        finest = self.classes[-1]
        self.prototypes = nn.Parameter(torch.randn(finest, width))
        self.register_buffer("above", torch.zeros(len(self.classes), finest, dtype=torch.long))
        self.register_buffer("class_distances", 1 - torch.eye(finest))

    def setup(self, labels: Labels) -> None:
        taxonomy = labels.taxonomy
        if taxonomy is None:
            raise UserError(
                "guided places classes by their taxonomy, and the levels of these data do not nest: multi-ce and mlcl "
                "are for aspects"
            )
        finest = taxonomy.levels[-1]
        for level, names in zip(taxonomy.levels[:-1], taxonomy.classes, strict=False):
            childless = [
                name for name, has in zip(names, taxonomy.has_children(level).tolist(), strict=True) if not has
            ]
            if childless:
                raise UserError(
                    f"guided has a prototype for every class of '{finest}', and {level} '{childless[0]}' has none "
                    "below it: mixed takes classes without finer ones as they are"
                )
        columns = [taxonomy.ancestors(finest, level) for level in taxonomy.levels]
        self.above.copy_(torch.stack(columns))
        shared = torch.stack([(c[:, None] == c) & (c >= 0)[:, None] for c in columns]).sum(dim=0)
        self.class_distances.copy_((2 * (len(columns) - shared)).float())

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        return {"vectors": self.embedder(self.encoder(batch.views[0])), "labels": batch.labels}

    def loss(self, vectors: Tensor, labels: Tensor) -> dict[str, Tensor]:
        vectors = vectors.float()
        terms = metric_guided_loss(
            vectors, labels[:, -1], self.prototypes, self.class_distances, distortion_weight=self.distortion_weight
        )
        partial = self._partly_known(vectors, labels)
        return {**terms, "loss": terms["loss"] + partial, "partly_known": partial.detach()}

    def _partly_known(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return -log p of the finest known class, over the samples whose finest level is unknown."""
        log_p = prototype_logits(vectors, self.prototypes).log_softmax(dim=1)
        partly = (labels[:, -1] < 0) & (labels >= 0).any(dim=1)
        losses = -log_within(log_p, under_finest_known(labels, self.above))
        return losses.where(partly, 0).sum() / partly.sum().clamp(min=1)

    def embed(self, x: Any) -> Tensor:
        return self.embedder(self.encoder(x)).float()

    def class_proba(self, x: Any) -> dict[str, Tensor]:
        finest = prototype_logits(self.embed(x), self.prototypes).softmax(dim=1)
        levels = zip(self.roles, self.above, self.classes, strict=True)
        return {role: summed_above(finest, above, count) for role, above, count in levels}
