"""Supervised contrast on coarse labels (Khosla et al., NeurIPS 2020): within the batch, and against a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.methods.base import Method, Needs
from regrain.methods.memory import MomentumContrast
from regrain.objectives.contrastive import supcon_loss
from regrain.objectives.relations import supcon_queue_loss
from regrain.settings import require_range

__all__ = ["SupCon", "SupConQueue"]


class SupCon(Method):
    """Every other view of the same coarse class is a positive; L_out of the paper (eq. 2).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` holds the number of coarse classes.
    temperature : float
        tau, > 0.
    unknown : {"self", "drop"}
        What samples without a coarse label do: keep their own other views as positives, or leave the loss.
    projector_hidden, projector_width : int
        Hidden and output width of the projection head, an MLP.
    """

    name: ClassVar[str] = "supcon"
    summary: ClassVar[str] = "samples of one coarse class pulled together, in the batch"
    needs: ClassVar[Needs] = Needs(levels=("coarse",), views=("strong", "strong"), minimum_classes=2)
    in_batch: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: float = 0.1,
        unknown: Literal["self", "drop"] = "drop",
        projector_hidden: int = 512,
        projector_width: int = 128,
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, above=True, temperature=temperature)
        require_range(1, projector_hidden=projector_hidden, projector_width=projector_width)
        self.temperature = temperature
        self.unknown = unknown
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)

    def project(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.projector(self.encoder(view)) for view in batch.views]
        return {"views": torch.stack(views, dim=1), "labels": batch.labels, "ids": batch.ids}  # views (B, V, d)

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
        return {"loss": loss, "lonely_share": self.lonely_share(coarse)}
