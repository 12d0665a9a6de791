"""Bases of the contrastive methods: a projection head, and the views of one batch compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from regrain.checks import require_range
from regrain.data.dataset import Batch
from regrain.encoders.heads import projector
from regrain.methods.base import Method


class ContrastiveMethod(Method):
    """Contrasts z = h(f(x)), h an MLP.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`.
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
        temperature: float = 0.1,
        projector_hidden: int = 512,
        projector_width: int = 128,
    ) -> None:
        super().__init__(encoder, classes)
        require_range(0, above=True, temperature=temperature)
        require_range(1, projector_hidden=projector_hidden, projector_width=projector_width)
        self.temperature = temperature
        self.projector_width = projector_width
        self.projector = projector(self.encoder_width, projector_hidden, projector_width)

    def embed_projected(self, x: Any) -> Tensor:
        result: Tensor = self.projector(self.encoder(x))
        return result


class InBatchContrast(ContrastiveMethod):
    """Projects every view of every sample; the loss compares all of them.

    Parameters
    ----------
    encoder, classes, temperature, projector_hidden, projector_width
        See :class:`ContrastiveMethod`.
    """

    in_batch: ClassVar[bool] = True

    def project(self, batch: Batch) -> dict[str, Tensor]:
        views = [self.projector(self.encoder(view)) for view in batch.views]
        return {"views": torch.stack(views, dim=1), "labels": batch.labels, "ids": batch.ids}  # views (B, V, d)
