"""MaskCon: masked contrastive learning (Feng and Patras, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from regrain.checks import Positive
from regrain.methods.base import Needs
from regrain.methods.memory import WeightedContrast
from regrain.objectives.relations import maskcon_loss


class MaskCon(WeightedContrast):
    """Soft labels from the similarity of keys, masked by the coarse label, mixed with the sample's own key (eq. 8-15).

    Samples of unknown coarse label keep the relation to themselves.

    Parameters
    ----------
    soft_temperature : float
        tau_s of the soft relation, > 0; the paper's 0.05 for CIFAR, 0.1 for Cars196 and the first SOP split.
    weight : float, optional
        w of the masked soft relation against the relation to oneself, in [0, 1]. Default 1 where the encoder starts
        from pretrained weights, as in the published code, or is frozen, and for texts, vectors and series; 0.5 for
        images from random weights, where neighbours are often of another fine class. The paper has 1 for CIFAR-100,
        CIFARtoy and Cars196, 0.8 and 0.5 for SOP.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "maskcon"
    summary = "soft relations between keys, masked by the coarse label"
    needs = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    weights = (0.5, 1.0)

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, soft_temperature: Positive = 0.05, **memory: Any
    ) -> None:
        super().__init__(encoder, classes, **memory)
        self.soft_temperature = soft_temperature

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
        coarse, others = labels[:, 0], self.queue.labels[:, 0]
        loss = maskcon_loss(
            query, key, self.queue.keys, coarse, others, temperature=self.temperature, weight=self.weight,
            soft_temperature=self.soft_temperature, candidate_mask=mask,
        )  # fmt: skip
        return {"loss": loss, "without_positives": self.share_without_positives(coarse, mask)}
