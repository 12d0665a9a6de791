"""Self-supervised contrast, which reads no label: against a queue (MoCo) and within the batch (SimCLR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.methods.base import Method, Needs
from regrain.methods.memory import MomentumContrast
from regrain.objectives.contrastive import info_nce_loss, supcon_loss
from regrain.settings import require_range

__all__ = ["SelfCon", "SimCLR"]


class SelfCon(MomentumContrast):
    """InfoNCE of a query against its own key and a queue of others (He et al., CVPR 2020; MaskCon paper, eq. 3).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` is empty.
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name: ClassVar[str] = "selfcon"
    summary: ClassVar[str] = "no labels: each sample against a queue of others (MoCo)"
    needs: ClassVar[Needs] = Needs(levels=(), views=("strong", "weak"))

    def contrast(self, projected: Mapping[str, Tensor], candidate_mask: Tensor) -> dict[str, Tensor]:
        loss = info_nce_loss(
            projected["query"],
            projected["key"],
            self.queue.keys,
            temperature=self.temperature,
            candidate_mask=candidate_mask,
        )
        return {"loss": loss}


class SimCLR(Method):
    """InfoNCE between the two views of every sample of a batch (Chen et al., ICML 2020).

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`; ``classes`` is empty.
    temperature : float
        tau, > 0.
    projector_hidden, projector_width : int
        Hidden and output width of the projection head, an MLP.
    """

    name: ClassVar[str] = "simclr"
    summary: ClassVar[str] = "no labels: each sample against its batch (SelfCon in the batch)"
    needs: ClassVar[Needs] = Needs(levels=(), views=("simclr", "simclr"))
    in_batch: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: float = 0.1,
        projector_hidden: int = 512,
        projector_width: int = 128,
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, above=True, temperature=temperature)
        require_range(1, projector_hidden=projector_hidden, projector_width=projector_width)
        self.temperature = temperature
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)

    def project(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.projector(self.encoder(view)) for view in batch.views]
        return {"views": torch.stack(views, dim=1), "ids": batch.ids}  # (B, V, d)

    def losses_from(self, projected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        views = projected["views"]
        sample = projected["ids"].repeat_interleave(views.shape[1])
        return {"loss": supcon_loss(views.flatten(0, 1), sample, temperature=self.temperature)}
