"""Confidence intervals of a mean."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

RESAMPLED_ELEMENTS = 2**22
"""Draws that are held at once: 64 MB."""


def student_interval(values: ArrayLike | Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its confidence interval by Student's t, for values of few or many independent runs.

    Returns mean and half width: the interval is mean - half width to mean + half width.

    Parameters
    ----------
    values
        (n,) finite numbers, n >= 2, one for each run, episode or seed.
    confidence
        Between 0 and 1.

    Raises
    ------
    UserError
        If there are fewer than two values, one is not finite, or the confidence is outside (0, 1).

    Examples
    --------
    >>> mean, half_width = student_interval([0.6, 0.7, 0.8])
    >>> round(mean, 3), round(half_width, 3)
    (0.7, 0.248)
    """
    from scipy import stats

    numbers = _finite(values, confidence)
    half_width = stats.t.ppf((1 + confidence) / 2, len(numbers) - 1) * stats.sem(numbers)
    return float(numbers.mean()), float(half_width)


def mean_interval(
    values: ArrayLike | Tensor, confidence: float = 0.95, *, share: bool = True
) -> tuple[float, float, float]:
    r"""Mean of values of a few independent runs, and the ends of its confidence interval.

    For shares the interval is Student's on the scale of the logit, and so is within [0, 1]: with the standard error s
    of the mean m, by the delta method,

    .. math:: \operatorname{logit}(m) \pm t \, \frac{s}{m (1 - m)}

    (Korn and Graubard 1998, *Survey Methodology* 24, 193-201). Near m = 0.5 and for small s it is m ± t s. Returns
    mean, lower and upper end.

    Parameters
    ----------
    values
        (n,) finite numbers, n >= 2, one for each run, episode or seed.
    confidence
        Between 0 and 1.
    share
        Whether the values are shares. Values outside [0, 1], such as an adjusted Rand index below 0, are not: then, and
        without ``share``, the interval is Student's t.

    Examples
    --------
    >>> [round(end, 3) for end in mean_interval([0.90, 0.94])]
    [0.92, 0.267, 0.997]
    >>> [round(end, 3) for end in mean_interval([0.90, 0.94], share=False)]
    [0.92, 0.666, 1.174]
    """
    from scipy import special

    mean, half_width = student_interval(values, confidence)
    numbers = _finite(values, confidence)
    if not share or numbers.min() < 0 or numbers.max() > 1 or not 0 < mean < 1:
        return mean, mean - half_width, mean + half_width
    logit, reach = special.logit(mean), half_width / (mean * (1 - mean))
    return mean, float(special.expit(logit - reach)), float(special.expit(logit + reach))


def bootstrap_interval(
    values: ArrayLike | Tensor, *, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of per-query values and its percentile bootstrap interval over the queries.

    Returns mean, lower and upper end.

    Parameters
    ----------
    values
        (n,) finite numbers or booleans, n >= 2, one for each query (such as ``Retrieval.hits[1]``).
    seed
        Seed of the resampling: the same seed gives the same interval.
    resamples
        Number of resamples, each of n queries with replacement.
    confidence
        Between 0 and 1.

    Raises
    ------
    UserError
        If there are fewer than two values, one is not finite, or a number is outside its range.

    Examples
    --------
    >>> mean, low, high = bootstrap_interval([True] * 70 + [False] * 30, seed=0)
    >>> mean, 0.58 < low < 0.65, 0.75 < high < 0.82
    (0.7, True, True)
    """
    numbers = _finite(values, confidence)
    if resamples < 1:
        raise UserError(f"resamples must be at least 1, got {resamples}", code="out_of_range")
    random = np.random.default_rng(seed)
    size = max(1, RESAMPLED_ELEMENTS // len(numbers))
    draws = [min(size, resamples - start) for start in range(0, resamples, size)]
    means = [numbers[random.integers(len(numbers), size=(count, len(numbers)))].mean(axis=1) for count in draws]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(numbers.mean()), float(low), float(high)


def _finite(values: ArrayLike | Tensor, confidence: float) -> np.ndarray:
    numbers = torch.as_tensor(values).detach().double().cpu().numpy()
    if numbers.ndim != 1 or len(numbers) < 2:
        raise UserError(
            f"an interval needs at least two values in one dimension, got shape {numbers.shape}", code="too_few"
        )
    if not np.isfinite(numbers).all():
        raise UserError(
            f"{int((~np.isfinite(numbers)).sum())} of {len(numbers)} values are not finite", code="not_finite"
        )
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, got {confidence}", code="out_of_range")
    return numbers
