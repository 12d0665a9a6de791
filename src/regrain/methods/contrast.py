"""Bases of the contrastive methods: a projection head, and the views of one batch compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrain.checks import Count, Positive
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.methods.base import Method


class ContrastiveMethod(Method):
    """Contrasts z = h(f(x)), h an MLP.

    Parameters
    ----------
    temperature : float
        tau, > 0.
    projector_hidden, projector_width : int
        Hidden and output width of the projection head h.
    """

    def __init__(
        self,
        encoder: nn.Module,
        classes: Sequence[int],
        *,
        temperature: Positive = 0.1,
        projector_hidden: Count = 512,
        projector_width: Count = 128,
    ) -> None:
        super().__init__(encoder, classes)
        self.temperature = temperature
        self.projector_width = projector_width
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)

    def embed_projected(self, x: Any) -> Tensor:
        return self.projector(self.encoder(x))


class InBatchContrast(ContrastiveMethod):
    """Projects every view of every sample; the loss compares all of them.

    Parameters
    ----------
    temperature, projector_hidden, projector_width
        See :class:`ContrastiveMethod`.
    """

    uses_in_batch_negatives = True

    def forward_views(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.projector(self.encoder(view)) for view in batch.views]
        return {"views": torch.stack(views, dim=1), "labels": batch.labels, "ids": batch.ids}  # views (B, V, d)
