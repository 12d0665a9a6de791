"""Vectors and series as few numbers, for bars and curves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 64
"""Most bars of a vector or steps of a series; longer ones are averaged."""

CHANNELS = 4
"""Most curves of a series: the first channels."""


def thinned(raw: Any) -> Tensor:
    """Shorten raw vectors (n, D) or series (n, T, C) to at most :data:`STEPS` columns or steps and :data:`CHANNELS`.

    Missing values are left out of the averages.

    Examples
    --------
    >>> thinned(torch.arange(128.0)[None])[0, :3].tolist()
    [0.5, 2.5, 4.5]
    """
    values: Tensor = (raw["series"] if isinstance(raw, dict) else raw).float()
    if values.ndim == 3:
        values = values[..., :CHANNELS]
        return _pooled(values.transpose(1, 2)).transpose(1, 2)
    return _pooled(values[:, None])[:, 0]


def _pooled(values: Tensor) -> Tensor:
    """Average (n, C, T) to (n, C, at most 64), leaving out missing values."""
    if values.shape[2] <= STEPS:
        return values
    known = functional.adaptive_avg_pool1d((~values.isnan()).float(), STEPS)
    return functional.adaptive_avg_pool1d(values.nan_to_num(), STEPS) / known.where(known > 0, torch.nan)
