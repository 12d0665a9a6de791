"""SCAN: semantic clustering by adopting nearest neighbours (Van Gansbeke et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.errors import UserError
from regrain.methods.assignment import over_training_set
from regrain.methods.base import Method, Needs, Scan
from regrain.methods.neighbourhood import Neighbourhood
from regrain.objectives.contrastive import supcon_loss
from regrain.objectives.gathering import gather
from regrain.objectives.scan import scan_loss, self_labelling_loss


class SCAN(Method):
    r"""Three stages in one training: features, clusters that neighbours share, and self-labelling.

    1. ``pretext_epochs`` of SimCLR on two views; 0 with features that are good as they are.
    2. The ``neighbours`` nearest neighbours of every training sample by cosine of the un-augmented f(x), found once;
       then :func:`~regrain.objectives.scan.scan_loss` between the weak view and one of them, drawn anew every epoch.
    3. After ``clustering_epochs`` of that, :func:`~regrain.objectives.scan.self_labelling_loss` to the end: what the
       weak view is sure of is the strong view's label.

    The neighbour's features are those of the epoch's beginning, so that the gradient reaches the encoder by the sample
    alone: every sample is a neighbour of others in its turn, and mostly of those that are its own. One head; the paper
    trains ten and keeps the one of lowest loss. The stages share one optimiser and schedule.

    On the photographs measured here (CIFAR-100, CIFAR-10, Grocery) it finds classes no better than k-means does on the
    same features.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; no label is read.
    subclasses : int, optional
        Number of clusters C, at least 2; default 100, or one for 20 training samples where that is fewer.
    neighbours : int
    entropy_weight : float
        lambda of the clustering loss, at least 0.
    threshold : float
        Probability from which self-labelling takes a sample as sure, in (0, 1).
    pretext_epochs, clustering_epochs : int, optional
        Default 6 and 2 tenths of the training, with frozen features none and half (10 each outside ``regrain fit``).
    temperature : float
        Of the pretext, > 0.
    """

    name: ClassVar[str] = "scan"
    summary: ClassVar[str] = "no labels: contrast, then classes that mined neighbours share, then self-labelling"
    needs: ClassVar[Needs] = Needs(levels=(), views=("strong", "weak"))
    training_only: ClassVar[tuple[str, ...]] = ("mined",)
    staged: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        subclasses: int | None = None,
        neighbours: int = 20,
        entropy_weight: float = 5.0,
        threshold: float = 0.99,
        pretext_epochs: int | None = None,
        clustering_epochs: int | None = None,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(encoder, classes)
        count = 100 if subclasses is None else subclasses
        self.pretext_epochs = 10 if pretext_epochs is None else pretext_epochs
        self.clustering_epochs = 10 if clustering_epochs is None else clustering_epochs
        require_range(2, subclasses=count)
        require_range(1, neighbours=neighbours, clustering_epochs=self.clustering_epochs)
        require_range(0, entropy_weight=entropy_weight, pretext_epochs=self.pretext_epochs)
        if not 0 < threshold < 1:
            raise UserError(f"threshold lies between 0 and 1; got {threshold}")
        require_range(0, above=True, temperature=temperature)
        self.entropy_weight = entropy_weight
        self.threshold = threshold
        self.temperature = temperature
        self.projector = projector(self.encoder_width)
        self.classifier = nn.Linear(self.encoder_width, count)
        self.mined = Neighbourhood(neighbours, int(torch.randint(2**31, ())))

    @property
    def stage(self) -> int:
        """1 to 3: what the current epoch trains."""
        if self.mined.epochs <= self.pretext_epochs:
            return 1
        return 2 if self.mined.epochs <= self.pretext_epochs + self.clustering_epochs else 3

    def project(self, batch: Batch) -> dict[str, Tensor]:
        strong, weak = (self.encoder(view) for view in batch.views)
        result = {"logits": self.classifier(weak), "strong_logits": self.classifier(strong), "ids": batch.ids}
        if self.stage == 1:
            result["views"] = torch.stack([self.projector(strong), self.projector(weak)], dim=1)
        else:
            result["unused"] = self.projector(weak[:1].detach()).expand(len(weak), -1)  # every weight has a gradient
        if self.stage == 2:
            result["neighbour_logits"] = self.classifier(self.mined.draw(batch.ids).to(weak.dtype))
        return result

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = projected["logits"]
        unused = 0 * (projected["strong_logits"].float().sum() + logits.float().sum())
        if self.stage == 1:
            views = projected["views"]
            sample = projected["ids"].repeat_interleave(views.shape[1])
            return {"loss": supcon_loss(views.flatten(0, 1), sample, temperature=self.temperature) + unused}
        unused = unused + 0 * projected["unused"].float().sum()
        if self.stage == 2:
            terms = scan_loss(logits, projected["neighbour_logits"], entropy_weight=self.entropy_weight)
        else:
            terms = self_labelling_loss(logits, projected["strong_logits"], threshold=self.threshold)
        in_use = (torch.bincount(logits.argmax(dim=1)) > 0).sum()
        return terms | {"loss": terms["loss"] + unused, "classes_in_use": in_use}

    def before_epoch(self, scan: Scan) -> None:
        self.mined.epochs += 1
        if self.stage != 2:
            return
        features, _, ids = over_training_set(self, scan, lambda x: self.encoder(x).float())
        self.mined.take(gather(ids, with_gradient=False), gather(features, with_gradient=False))

    def embed_projected(self, x: Any) -> Tensor:
        result: Tensor = functional.normalize(self.projector(self.encoder(x)).float(), dim=1)
        return result

    def subclass_proba(self, x: Any, coarse: Tensor | None = None) -> Tensor:
        result: Tensor = self.classifier(self.encoder(x)).float().softmax(dim=1)
        return result
