"""MaskCon: masked contrastive learning (Feng and Patras, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.checks import require_range
from regrain.methods.base import Needs
from regrain.methods.memory import WeightedContrast
from regrain.objectives.relations import maskcon_loss


class MaskCon(WeightedContrast):
    """Soft labels from the similarity of keys, masked by the coarse label, mixed with the sample's own key (eq. 8-15).

    Samples of unknown coarse label keep the relation to themselves.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    soft_temperature : float
        tau_s of the soft relation, > 0; the paper's 0.05 for CIFAR, 0.1 for Cars196 and the first SOP split.
    weight : float, optional
        w of the masked soft relation against the relation to oneself, in [0, 1]. Default 1 where the encoder starts
        from pretrained weights, as in the published code, or is frozen, and for texts and vectors; 0.5 for images and
        series from random weights, where neighbours are often of another fine class. The paper has 1 for CIFAR-100,
        CIFARtoy and Cars196, 0.8 and 0.5 for SOP.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "maskcon"
    summary: ClassVar[str] = "soft relations between keys, masked by the coarse label"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)
    weights: ClassVar[tuple[float, float]] = (0.5, 1.0)

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        soft_temperature: float = 0.05,
        **memory: Any,
    ) -> None:
        super().__init__(encoder, classes, **memory)
        require_range(0, above=True, soft_temperature=soft_temperature)
        self.soft_temperature = soft_temperature

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        coarse = projected["labels"][:, 0]
        loss = maskcon_loss(
            projected["query"],
            projected["key"],
            self.queue.keys,
            coarse,
            self.queue.labels[:, 0],
            temperature=self.temperature,
            soft_temperature=self.soft_temperature,
            weight=self.weight,
            candidate_mask=candidate_mask,
        )
        return {"loss": loss, "without_positives": self.share_without_positives(coarse, candidate_mask)}
