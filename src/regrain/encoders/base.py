"""What every encoder f has in common: a modality, a width, and where its weights come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["NO_PARAMETERS", "RANDOM", "Encoder", "is_pretrained"]

RANDOM = "random initialisation"
NO_PARAMETERS = "no parameters"


def is_pretrained(origin: str) -> bool:
    """Whether weights of this origin come from other data.

    Examples
    --------
    >>> is_pretrained(RANDOM), is_pretrained("timm resnet18.a1_in1k")
    (False, True)
    """
    return origin not in (RANDOM, NO_PARAMETERS)


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
