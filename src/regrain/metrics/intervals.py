"""Confidence intervals of a mean."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from regrain.errors import UserError

RESAMPLED_ELEMENTS = 2**22
"""Draws that are held at once: 64 MB."""


def student_interval(values: ArrayLike | Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its confidence interval by Student's t, for values of few or many independent runs.

    Parameters
    ----------
    values
        (n,) finite numbers, n >= 2, one for each run, episode or seed.
    confidence
        Between 0 and 1.

    Returns
    -------
    Mean and half width: the interval is mean - half width to mean + half width.

    Raises
    ------
    UserError
        If there are fewer than two values, one is not finite, or the confidence lies outside (0, 1).

    Examples
    --------
    >>> mean, half_width = student_interval([0.6, 0.7, 0.8])
    >>> round(mean, 3), round(half_width, 3)
    (0.7, 0.248)
    """
    numbers = _finite(values, confidence)
    half_width = stats.t.ppf((1 + confidence) / 2, len(numbers) - 1) * stats.sem(numbers)
    return float(numbers.mean()), float(half_width)


def bootstrap_interval(
    values: ArrayLike | Tensor, *, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-query values and its percentile bootstrap interval over the queries.

    Parameters
    ----------
    values
        (n,) finite numbers or booleans, n >= 2, one for each query (such as ``Retrieval.hits[1]``).
    seed
        Of the resampling: the same seed gives the same interval.
    resamples
        Number of resamples, each of n queries with replacement.
    confidence
        Between 0 and 1.

    Returns
    -------
    Mean, lower and upper end.

    Raises
    ------
    UserError
        If there are fewer than two values, one is not finite, or a number lies outside its range.

    Examples
    --------
    >>> mean, low, high = bootstrap_interval([True] * 70 + [False] * 30, seed=0)
    >>> mean, 0.58 < low < 0.65, 0.75 < high < 0.82
    (0.7, True, True)
    """
    numbers = _finite(values, confidence)
    if resamples < 1:
        raise UserError(f"resamples must be at least 1, got {resamples}")
    random = np.random.default_rng(seed)
    size = max(1, RESAMPLED_ELEMENTS // len(numbers))
    draws = [min(size, resamples - start) for start in range(0, resamples, size)]
    means = [numbers[random.integers(len(numbers), size=(count, len(numbers)))].mean(axis=1) for count in draws]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(numbers.mean()), float(low), float(high)


def _finite(values: ArrayLike | Tensor, confidence: float) -> np.ndarray:
    numbers = torch.as_tensor(values).detach().double().cpu().numpy()
    if numbers.ndim != 1 or len(numbers) < 2:
        raise UserError(f"an interval needs at least two values in one dimension, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise UserError(f"{int((~np.isfinite(numbers)).sum())} of {len(numbers)} values are not finite")
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, got {confidence}")
    return numbers
