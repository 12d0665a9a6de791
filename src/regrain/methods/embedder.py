"""Base of the methods that train on v, an embedder's output on the unit sphere, and are judged on f(x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import require_range
from regrain.encoders.heads import projector
from regrain.methods.base import Method


class EmbedderMethod(Method):
    """v = embedder(f(x)) scaled to unit length; losses, classifiers and subclasses live on v.

    Evaluation, ``embed``, ``discover`` and few-shot classifiers use f(x), as with every other method, so that tables
    compare like with like; the papers report the better of f(x) and v by their test labels. ``evaluate`` judges v too,
    as the representation ``projection``.

    Parameters
    ----------
    encoder, classes
        See :class:`~regrain.methods.base.Method`.
    embedder_width : int
        Width d of v.
    embedder_layers : int
        Hidden layers of the embedder, as wide as f(x); 0 = one linear layer.
    """

    judges_projection: ClassVar[bool] = True

    def __init__(
        self, encoder: nn.Module, classes: Sequence[int], *, embedder_width: int = 128, embedder_layers: int = 0
    ) -> None:
        super().__init__(encoder, classes)
        require_range(1, embedder_width=embedder_width)
        require_range(0, embedder_layers=embedder_layers)
        self.embedder_width = embedder_width
        self.embedder = projector(self.encoder_width, self.encoder_width, embedder_width, layers=embedder_layers)

    def embed_projected(self, x: Any) -> Tensor:
        """v, (B, embedder_width)."""
        return self.unit_embedding(self.encoder(x))

    def unit_embedding(self, features: Tensor) -> Tensor:
        """The unit vectors v of f(x), (B, embedder_width)."""
        return functional.normalize(self.embedder(features).float(), dim=1)
