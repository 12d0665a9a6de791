"""What every encoder f has in common: a modality, a width, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["RANDOM", "Encoder"]

RANDOM = "random initialisation"


class Encoder(nn.Module):
    """f: a batch of samples -> embeddings of shape (B, width), float.

    Attributes
    ----------
    modality : str
        "image", "text", "vector" or "series": what ``forward`` takes.
    width : int
        Dimension of the embedding.
    mean, std : tuple of float or None
        Per channel, the normalisation that the weights expect; None when the caller may compute it from the data.
    origin : str
        Where the weights come from, for the model card.
    """

    modality: str
    width: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    origin: str = RANDOM
    build_config: dict[str, Any] | None = None

    def save_extra(self, folder: str | Path) -> None:
        """Write what rebuilding needs beyond the configuration and the weights; for most encoders nothing."""
