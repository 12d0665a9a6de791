"""A frozen backbone with a trained adapter; training can run on cached features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base import Encoder

_SHARED_ATTRIBUTES = ("modality", "mean", "std")
_TEXT_ATTRIBUTES = ("tokenize", "count_truncated", "mask_token_id", "special_token_ids")


class FrozenEncoder(Encoder):
    """f = adapter(backbone(x)): the backbone never changes, and without it the adapter runs on cached features.

    The backbone stays in evaluation mode (``train()`` does not reach it), passes no gradient, and its parameters
    do not require any. A text backbone's ``tokenize`` and token ids are at hand here too.

    Parameters
    ----------
    backbone : Encoder
        Left as it is; its output is what the adapter takes.
    adapter : Encoder
        From features (B, backbone.width) to embeddings (B, adapter.width).

    Examples
    --------
    >>> from regrain.encoders.vector import MLPEncoder, ResidualEncoder
    >>> encoder = FrozenEncoder(MLPEncoder((20,), width=16), ResidualEncoder((16,)))
    >>> x = torch.randn(4, 20)
    >>> features = encoder.backbone_features(x)    # once
    >>> torch.equal(encoder(x), encoder.forward_features(features))
    True
    """

    def __init__(self, backbone: Encoder, adapter: Encoder) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        self.adapter = adapter
        self.width = adapter.width
        self.origin = f"{backbone.origin} (frozen, with a trained adapter)"
        for name in (*_SHARED_ATTRIBUTES, *_TEXT_ATTRIBUTES):
            if hasattr(backbone, name):
                setattr(self, name, getattr(backbone, name))

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Set the adapter's mode; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def backbone_features(self, x: Any) -> Tensor:
        """Samples -> features (B, backbone.width), without gradient: what a cache holds."""
        return self.backbone(x)

    def forward_features(self, features: Tensor) -> Tensor:
        """Features (B, backbone.width) -> embeddings (B, width), with gradient."""
        return self.adapter(features)

    def forward(self, x: Any) -> Tensor:
        """Samples -> embeddings (B, width)."""
        return self.forward_features(self.backbone_features(x))

    def save_extra(self, folder: str | Path) -> None:
        """Write what rebuilding the backbone needs."""
        self.backbone.save_extra(folder)
