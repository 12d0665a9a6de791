"""Self-supervised contrast, which reads no label: against a queue (MoCo) and within the batch (SimCLR)."""

from __future__ import annotations

from torch import Tensor

from regrain.methods.base import Needs
from regrain.methods.contrast import InBatchContrast
from regrain.methods.memory import MomentumContrast
from regrain.objectives.contrastive import info_nce_loss, supcon_loss


class SelfCon(MomentumContrast):
    """InfoNCE of a query against its own key and a queue of others (He et al., CVPR 2020; MaskCon paper, eq. 3).

    Parameters
    ----------
    **memory
        See :class:`~regrain.methods.memory.MomentumContrast`.
    """

    name = "selfcon"
    summary = "no labels: each sample against a queue of others (MoCo)"
    needs = Needs(levels=(), views=("strong", "weak"))

    def contrast(self, query: Tensor, key: Tensor, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"loss": info_nce_loss(query, key, self.queue.keys, temperature=self.temperature, candidate_mask=mask)}


class SimCLR(InBatchContrast):
    """InfoNCE between the two views of every sample of a batch (Chen et al., ICML 2020).

    Parameters
    ----------
    **contrast
        See :class:`~regrain.methods.contrast.InBatchContrast`.
    """

    name = "simclr"
    summary = "no labels: each sample against its batch (SelfCon in the batch)"
    needs = Needs(levels=(), views=("simclr", "simclr"))

    def loss(self, views: Tensor, labels: Tensor, ids: Tensor) -> dict[str, Tensor]:
        samples = ids.repeat_interleave(views.shape[1])
        return {"loss": supcon_loss(views.flatten(0, 1), samples, temperature=self.temperature)}
