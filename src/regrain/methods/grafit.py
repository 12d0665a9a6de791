"""Grafit's contrastive objective (Touvron et al., ICCV 2021) in the form of the MaskCon paper."""

from __future__ import annotations

from torch import Tensor

from regrain.methods.base import Needs
from regrain.methods.memory import WeightedContrast
from regrain.objectives.relations import grafit_loss


class Grafit(WeightedContrast):
    """w SupCon + (1 - w) SelfCon over own key and queue (MaskCon paper, eq. 6).

    Parameters
    ----------
    weight : float, optional
        w of the supervised term, in [0, 1]. Default 0.8 where the encoder starts from pretrained weights or is frozen,
        as the paper has it for CIFAR-100 and SOP (1 for Cars196), and for texts, vectors and series; 0.5 for images
        from random weights.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "grafit"
    summary = "supervised and self-supervised contrast mixed"
    needs = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    weights = (0.5, 0.8)

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
        coarse, others = labels[:, 0], self.queue.labels[:, 0]
        loss = grafit_loss(
            query, key, self.queue.keys, coarse, others, temperature=self.temperature, weight=self.weight,
            candidate_mask=mask,
        )  # fmt: skip
        return {"loss": loss, "without_positives": self.share_without_positives(coarse, mask)}
