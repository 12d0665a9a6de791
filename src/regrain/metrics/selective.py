"""Answering at the level one is sure of: thresholds that keep a promise, and how much the answers say.

A sample's prediction is a path of nodes, coarse to fine, with a probability each. At a threshold t its answer is the
finest node whose probability reaches t; where none does, there is no answer.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

_GRID = np.linspace(0.999, 0.05, 96)
_STARTS = ((0.5, 0.6), (0.25, 0.2), (0.125, 0.2))
"""Share of the samples that get an answer where a walk begins, and the walk's part of the chance to be wrong."""

_POINTS = 1000  # of a risk-coverage curve


class ThresholdAnswers(NamedTuple):
    """The answers at a threshold."""

    level: np.ndarray
    """Int64 array (n,): the answer's column, -1 for none."""
    precision: float
    """Share of right ones among the answers that can be judged; NaN without any."""
    judged: int
    """Answers that can be judged."""


def answers_at(mass: ArrayLike | Tensor, right: ArrayLike | Tensor, threshold: float) -> ThresholdAnswers:
    """The answers at a threshold.

    Parameters
    ----------
    mass, right
        As in :func:`guaranteed_threshold`.

    Examples
    --------
    >>> answers_at([[0.9, 0.7], [0.9, 0.2], [0.4, 0.3]], [[1, 0], [1, 0], [0, 0]], 0.6)
    ThresholdAnswers(level=array([ 1,  0, -1]), precision=0.5, judged=2)
    """
    probabilities, truth = _checked(mass, right)
    level, outcome = _outcomes(probabilities, truth, threshold)
    judged = outcome >= 0
    precision = float(outcome[judged].mean()) if judged.any() else float("nan")
    return ThresholdAnswers(level, precision, int(judged.sum()))


def guaranteed_threshold(
    mass: ArrayLike | Tensor,
    right: ArrayLike | Tensor,
    *,
    precision: float,
    confidence: float = 0.9,
    grid: ArrayLike | None = None,
) -> float | None:
    r"""The lowest threshold whose answers are right with at least ``precision``, with probability ``confidence``.

    Fixed-sequence testing (Angelopoulos et al. 2021, Learn then Test): thresholds fall along a fixed grid; at each,
    of the :math:`n_t` answers that can be judged, :math:`k_t` are right, and

    .. math:: p_t = P(\mathrm{Binomial}(n_t, \mathrm{precision}) \ge k_t)

    The walk goes on while :math:`p_t \le 1 - \mathrm{confidence}` and returns the last such threshold. The share of
    right answers among future ones is then below ``precision`` with probability at most ``1 - confidence`` over the
    draw of the calibration samples, whatever the masses mean. The samples must be such as will be predicted, and no
    temperature may be fitted on them. Returns the threshold, or None where the calibration samples do not bear the
    promise where the walks begin: too many wrong, or too few (n right answers of n show a precision of 0.9 with
    confidence 0.9 from n = 22 upwards).

    Parameters
    ----------
    mass
        (n, L) probabilities of the nodes on the predicted path, coarse to fine; NaN where a path is shorter.
    right
        (n, L) whether the node is right: 1, 0, or -1 where nobody knows (labels known only above it).
    precision : float in (0, 1)
        Wanted share of right ones among the answers; samples without an answer do not count.
    confidence : float in (0, 1)
    grid
        Thresholds, falling; they must not depend on ``right``. Default: 96 from 0.999 to 0.05 in three walks, begun
        where a half, a quarter and an eighth of the samples get an answer (those that could pass with so few; with few
        samples one, where enough of them do); six tenths of 1 - confidence go to the first, two to each other, and the
        lowest threshold counts (Bonferroni).

    Examples
    --------
    >>> sure, unsure = [[0.95, 0.9]] * 40, [[0.95, 0.3]] * 40
    >>> guaranteed_threshold(sure + unsure, [[1, 1]] * 40 + [[1, 0]] * 40, precision=0.9) > 0.3
    True
    >>> guaranteed_threshold(sure[:20], [[1, 1]] * 20, precision=0.9) is None
    True
    """
    from scipy.stats import binom

    probabilities, truth = _checked(mass, right)
    _require_shares(precision=precision, confidence=confidence)
    if grid is None:
        thresholds = _GRID
        answered = np.nanmax(np.where(np.isnan(probabilities), -1, probabilities), axis=1)
        shares = (answered >= _GRID[:, None]).mean(axis=1)
        fewest = fewest_samples(precision, confidence) / len(probabilities)
        walks = []
        for share, part in _STARTS:
            start = int(np.argmax(shares >= share))  # 0 where none reaches it, and then too few answer there
            if len(probabilities) * shares[start] >= np.log((1 - confidence) * part) / np.log(precision):
                walks.append((start, part))
        if not walks:  # a half is too few: begin where there are enough, should all be right
            walks = [(int(np.argmax(shares >= min(max(0.5, fewest), shares[-1]))), 1.0)]
    else:
        thresholds = np.asarray(grid, dtype=np.float64)
        if thresholds.ndim != 1 or not len(thresholds) or (np.diff(thresholds) >= 0).any():
            raise UserError("grid holds thresholds in falling order, at least one", code="wrong_shape")
        walks = [(0, 1.0)]

    @cache
    def chance(index: int) -> float:
        outcome = _outcomes(probabilities, truth, float(thresholds[index]))[1]
        return float(binom.sf(int((outcome == 1).sum()) - 1, int((outcome >= 0).sum()), precision))

    total = sum(part for _, part in walks)
    found = []
    for start, part in walks:
        for index in range(start, len(thresholds)):
            if chance(index) > (1 - confidence) * part / total:
                break
            found.append(float(thresholds[index]))
    return min(found, default=None)


def fewest_samples(precision: float, confidence: float) -> int:
    """Samples that show a precision with a confidence where all of them are right: precision^n <= 1 - confidence.

    Examples
    --------
    >>> fewest_samples(0.9, 0.9), fewest_samples(0.95, 0.9), fewest_samples(0.99, 0.95)
    (22, 45, 299)
    """
    _require_shares(precision=precision, confidence=confidence)
    return int(np.ceil(np.log(1 - confidence) / np.log(precision)))


def root_threshold(
    mass: ArrayLike | Tensor, right: ArrayLike | Tensor, *, precision: float, confidence: float | None = 0.9
) -> float | None:
    """Hierarchical selective classification's threshold (Goren et al., NeurIPS 2024): no answer counts as right.

    Each sample has the smallest threshold from which its answer is right: just above the largest probability of a wrong
    node of its path, 0 where the finest is right. The result is an order statistic of these: of rank ceil((n + 1)
    precision), right with that share in the mean over draws (``confidence`` None); or of the smallest rank k for which
    P(Beta(k, n + 1 - k) <= precision) is at most 1 - confidence. Returns the threshold, or None where there are too few
    samples.

    Parameters
    ----------
    mass, right
        As in :func:`guaranteed_threshold`; samples whose finest node cannot be judged are left out.
    precision : float in (0, 1)
        Wanted share of samples whose answer is right, or who get none.
    confidence : float in (0, 1), optional

    Examples
    --------
    >>> root_threshold([[0.9, 0.6], [0.8, 0.7], [0.7, 0.4]], [[1, 0], [1, 1], [1, 1]], precision=0.5, confidence=None)
    0.0
    """
    from scipy.stats import beta

    probabilities, truth = _checked(mass, right)
    _require_shares(precision=precision, **({} if confidence is None else {"confidence": confidence}))
    present, known = ~np.isnan(probabilities), _judged_to_the_end(probabilities, truth)
    wrong = np.where(present & (truth == 0), probabilities, -np.inf)[known].max(axis=1, initial=-np.inf)
    tight = np.sort(np.where(wrong >= 0, np.nextafter(wrong, np.inf), 0.0))
    count = len(tight)
    if confidence is None:
        rank = int(np.ceil((count + 1) * precision))
    else:
        ranks = np.arange(1, count + 1)
        enough = np.flatnonzero(beta.cdf(precision, ranks, count + 1 - ranks) <= 1 - confidence)
        rank = int(enough[0]) + 1 if len(enough) else count + 1
    return float(tight[rank - 1]) if 1 <= rank <= count else None


def risk_coverage_area(coverage: ArrayLike | Tensor, mass: ArrayLike | Tensor, right: ArrayLike | Tensor) -> float:
    """Area under the curve of risk over coverage (hAURC; Goren et al. 2024): lower is better.

    The threshold runs through the probabilities, or a thousand of their quantiles where there are more. The coverage of
    a set of answers is the mean of how much they say (in a tree 1 - log(leaves below) / log(leaves); no answer says 0),
    its risk the share of wrong answers, no answer counting as right. Returns the area from coverage 0 to the largest
    reached, divided by it; NaN where no sample can be judged.

    Parameters
    ----------
    coverage
        (n, L) how much the node says, in [0, 1]: 1 for a leaf.
    mass, right
        As in :func:`guaranteed_threshold`; samples whose finest node cannot be judged are left out.

    Examples
    --------
    >>> risk_coverage_area([[0.5, 1.0]] * 2, [[0.9, 0.8], [0.7, 0.6]], [[1, 1], [1, 0]])
    0.0625
    """
    probabilities, truth = _checked(mass, right)
    says = _as_array(coverage).astype(np.float64)
    if says.shape != probabilities.shape:
        raise UserError(f"coverage must be {probabilities.shape}, as mass is; got {says.shape}", code="wrong_shape")
    known = _judged_to_the_end(probabilities, truth)
    if not known.any():
        return float("nan")
    probabilities, truth, says = probabilities[known], truth[known], says[known]
    values = np.unique(probabilities[~np.isnan(probabilities)])
    if len(values) > _POINTS:
        values = np.unique(np.quantile(values, np.linspace(0, 1, _POINTS), method="nearest"))
    values = values[::-1]
    points = [(0.0, 0.0)]
    for threshold in values.tolist():
        level, outcome = _outcomes(probabilities, truth, threshold)
        information = np.where(level >= 0, says[np.arange(len(says)), level], 0.0)
        points.append((float(information.mean()), float((outcome == 0).mean())))
    reached, risk = np.asarray(points).T
    span = float(reached.max())
    return float(np.trapezoid(risk, reached) / span) if span > 0 else float("nan")


def _as_array(values: ArrayLike | Tensor) -> np.ndarray:
    """Lists keep Python's precision: 0.9 as a float32 is below a threshold of 0.9."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _checked(mass: ArrayLike | Tensor, right: ArrayLike | Tensor) -> tuple[np.ndarray, np.ndarray]:
    probabilities = _as_array(mass).astype(np.float64)
    truth = _as_array(right)
    if probabilities.ndim != 2 or not probabilities.size or truth.shape != probabilities.shape:
        raise UserError(
            f"mass and right must be (n, levels), n at least 1; got {probabilities.shape} and {truth.shape}",
            code="wrong_shape",
        )
    there = probabilities[~np.isnan(probabilities)]
    if ((there < 0) | (there > 1 + 1e-6)).any():
        raise UserError("mass holds probabilities, from 0 to 1; NaN where a path has no node", code="out_of_range")
    if not np.isin(truth, (-1, 0, 1)).all():
        raise UserError("right holds 1 (right), 0 (wrong) and -1 (unknown)", code="out_of_range")
    return probabilities, truth.astype(np.int64)


def _require_shares(**shares: float) -> None:
    for name, value in shares.items():
        if not 0 < value < 1:
            raise UserError(f"{name} lies between 0 and 1, such as 0.9; got {value}", code="out_of_range")


def _judged_to_the_end(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether it is known of a path's finest node (n,) if it is right."""
    present = ~np.isnan(probabilities)
    finest = present.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
    return present.any(axis=1) & (truth[np.arange(len(truth)), finest] >= 0)


def _outcomes(probabilities: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The answer's column (n,), -1 for none, and whether it is right: 1, 0, -1 for none or unknown."""
    reached = probabilities >= threshold  # NaN is not
    level = np.where(reached.any(axis=1), reached.shape[1] - 1 - reached[:, ::-1].argmax(axis=1), -1)
    outcome = np.where(level >= 0, truth[np.arange(len(truth)), level], -1)
    return level, outcome
