"""Grafit's contrastive objective (Touvron et al., ICCV 2021) in the form of the MaskCon paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from regrain.methods.base import Needs
from regrain.methods.memory import MomentumContrast
from regrain.objectives.relations import grafit_loss
from regrain.settings import require_range

__all__ = ["Grafit"]


class Grafit(MomentumContrast):
    """w SupCon + (1 - w) SelfCon over own key and queue (MaskCon paper, eq. 6).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    weight : float
        w of the supervised term, in [0, 1]; the paper's table 7 has 0.8 for SOP and 1 for Cars196.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "grafit"
    summary: ClassVar[str] = "supervised and self-supervised contrast mixed"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)

    def __init__(self, encoder: nn.Module, classes: Sequence[int], *, weight: float = 0.8, **memory: Any) -> None:
        super().__init__(encoder, classes, **memory)
        require_range(0, 1, weight=weight)
        self.weight = weight

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        coarse = projected["labels"][:, 0]
        loss = grafit_loss(
            projected["query"],
            projected["key"],
            self.queue.keys,
            coarse,
            self.queue.labels[:, 0],
            temperature=self.temperature,
            weight=self.weight,
            candidate_mask=candidate_mask,
        )
        return {"loss": loss, "without_positives": self.share_without_positives(coarse, candidate_mask)}
