"""Base of the methods that work on v, a projection of f(x) to the unit sphere which is kept at evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from regrain.encoders.heads import projector
from regrain.methods.base import Method
from regrain.settings import require_range

__all__ = ["EmbedderMethod"]


class EmbedderMethod(Method):
    """v = embedder(f(x)) scaled to unit length; evaluation uses v, as fixed beforehand.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`.
    embedder_width : int
        Width d of v.
    embedder_layers : int
        Hidden layers of the embedder, as wide as f(x); 0 = one linear layer.
    """

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, embedder_width: int = 128, embedder_layers: int = 0
    ) -> None:
        super().__init__(encoder, classes)
        require_range(1, embedder_width=embedder_width)
        require_range(0, embedder_layers=embedder_layers)
        self.embedder_width = embedder_width
        self.embedder = projector(self.encoder_width, self.encoder_width, embedder_width, layers=embedder_layers)

    def embed(self, x: Any) -> Tensor:
        return functional.normalize(self.embedder(self.encoder(x)).float(), dim=1)
