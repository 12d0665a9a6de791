"""Vectors and series as few numbers, for bars and curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset

STEPS = 64
"""Most bars of a vector or steps of a series; longer ones are averaged."""

CHANNELS = 4
"""Most curves of a series: the first channels."""

_LOOKED_AT = 2000


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


def scale_of(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every thinned column, or channel of series, over at most 2,000 of the samples."""
    places = torch.linspace(0, len(dataset) - 1, min(len(dataset), _LOOKED_AT)).long()
    flat = thinned(dataset.samples.take(places)).flatten(0, -2).double().numpy()
    known = ~np.isnan(flat)
    count = known.sum(axis=0).clip(min=1)
    mean = np.where(known, flat, 0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (flat - mean) ** 2, 0).sum(axis=0) / count)
    return torch.from_numpy(mean).float(), torch.from_numpy(np.where(spread > 0, spread, 1.0)).float()


def heights(values: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
    """Thinned values within [0, 1]: half at the column's mean, the ends three standard deviations from it."""
    mean, spread = scale
    return ((values - mean) / spread).clamp(-3, 3).add(3).div(6)


def _pooled(values: Tensor) -> Tensor:
    """Average (n, C, T) to (n, C, at most 64), leaving out missing values."""
    if values.shape[2] <= STEPS:
        return values
    known = functional.adaptive_avg_pool1d((~values.isnan()).float(), STEPS)
    return functional.adaptive_avg_pool1d(values.nan_to_num(), STEPS) / known.where(known > 0, torch.nan)
