"""Heads h on top of an encoder: projectors and predictors. A linear classifier is plain ``nn.Linear``."""

from __future__ import annotations

from torch import nn

__all__ = ["predictor", "projector"]


def projector(
    in_width: int, hidden: int = 512, out: int = 128, *, layers: int = 1, batch_norm: bool = False
) -> nn.Sequential:
    """The MLP from embedding to contrastive space: ``layers`` hidden layers with ReLU, then a linear layer.

    The defaults are MaskCon's (CVPR 2023): hidden 512, output 128. The output is not normalised.

    Parameters
    ----------
    in_width, hidden, out : int
        Widths.
    layers : int, default 1
        Number of hidden layers; 0 gives a single linear layer (SCGM's embedder).
    batch_norm : bool, default False
        Batch normalisation before each ReLU (SimCLR, MoCo v3).

    Examples
    --------
    >>> projector(512)
    Sequential(
      (0): Linear(in_features=512, out_features=512, bias=True)
      (1): ReLU()
      (2): Linear(in_features=512, out_features=128, bias=True)
    )
    """
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts.append(nn.Linear(in_width, hidden, bias=not batch_norm))
        if batch_norm:
            parts.append(nn.BatchNorm1d(hidden))
        parts.append(nn.ReLU())
        in_width = hidden
    return nn.Sequential(*parts, nn.Linear(in_width, out))


def predictor(width: int, hidden: int = 4096) -> nn.Sequential:
    """The MLP from projection to projection that only the query passes (BYOL, NeurIPS 2020; NNCLR, ICCV 2021).

    Examples
    --------
    >>> [type(part).__name__ for part in predictor(128)]
    ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    return projector(width, hidden, width, batch_norm=True)
