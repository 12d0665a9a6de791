"""Supervised contrast on coarse labels (Khosla et al., NeurIPS 2020): within the batch, and against a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from regrain.methods.base import Needs
from regrain.methods.contrast import InBatchContrast
from regrain.methods.memory import MomentumContrast
from regrain.objectives.contrastive import supcon_loss
from regrain.objectives.relations import supcon_queue_loss


class SupCon(InBatchContrast):
    """Every other view of the same coarse class is a positive; L_out of the paper (eq. 2).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    unknown : {"drop", "self"}
        What samples without a coarse label do: leave the loss, or keep their own other views as positives.
    **contrast
        See :class:`~regrain.methods.contrast.InBatchContrast`.
    """

    name: ClassVar[str] = "supcon"
    summary: ClassVar[str] = "samples of one coarse class pulled together, in the batch"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "strong"), minimum_classes=2)

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        unknown: Literal["drop", "self"] = "drop",
        **contrast: Any,
    ) -> None:
        super().__init__(encoder, classes, **contrast)
        self.unknown = unknown

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = projected["views"]
        copies = views.shape[1]
        loss = supcon_loss(
            views.flatten(0, 1),
            projected["labels"][:, 0].repeat_interleave(copies),
            temperature=self.temperature,
            sample=projected["ids"].repeat_interleave(copies),
            unknown=self.unknown,
        )
        return {"loss": loss}


class SupConQueue(MomentumContrast):
    """SupCon over own key and queue, as the MaskCon paper compares it (eq. 4).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "supcon-queue"
    summary: ClassVar[str] = "samples of one coarse class pulled together, against a queue"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "weak"), minimum_classes=2)

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        coarse = projected["labels"][:, 0]
        loss = supcon_queue_loss(
            projected["query"],
            projected["key"],
            self.queue.keys,
            coarse,
            self.queue.labels[:, 0],
            temperature=self.temperature,
            candidate_mask=candidate_mask,
        )
        return {"loss": loss, "without_positives": self.share_without_positives(coarse, candidate_mask)}
