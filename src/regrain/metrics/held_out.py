"""Probes on held-out folds: how hard a label is to tell, and whether the labelled samples differ from the others."""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import RegrainWarning, UserError

from ._arrays import as_labels
from .logistic import fit_logistic_regressions

_INVERSE_PENALTY = 10.0
_ITERATIONS = 200


class Separability(NamedTuple):
    """Result of :func:`separability`."""

    area: float
    """Area under the ROC curve, in [0, 1]: 0.5 where the two kinds of samples are alike to the probe."""
    low: float
    high: float
    """``low``, ``high``: ends of its 95% interval (Hanley and McNeil 1982)."""


def held_out_margins(features: ArrayLike | Tensor, labels: ArrayLike | Tensor, folds: ArrayLike | Tensor) -> Tensor:
    """How far each sample's own class leads in a logistic regression that did not see the sample.

    The margin is the logit of the own class less the largest of the others: above 0 where the probe is right. Features
    are standardised and divided by the root of their width; C is 10. Returns (n,) float32; NaN for unknown labels, and
    where the other folds have no two classes.

    Parameters
    ----------
    features
        (n, d) floats.
    labels
        (n,) integers; -1 is unknown.
    folds
        (n,) integers: the fold that holds a sample. Each is judged by the classifier of all others.

    Examples
    --------
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [0.8], [0.9], [1.0], [0.0]])
    >>> margins = held_out_margins(x, [0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 0, 1, 0])  # the last is like the other class
    >>> (margins > 0).tolist()
    [True, True, True, True, True, True, False]
    """
    x = _standardised(features)
    codes = as_labels(labels, len(x), "labels").cpu()
    parts = as_labels(folds, len(x), "folds").cpu()
    known = codes >= 0
    if not known.any():
        raise UserError("no label is known: there is nothing to tell apart", code="no_labels")
    margins = torch.full((len(x),), torch.nan)
    classes, numbers = codes[known].unique(return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"margins are between two classes at least; got {len(classes)}", code="too_few")
    own = torch.full_like(codes, -1)
    own[known] = numbers
    for part in parts.unique():
        fitted, judged = known & (parts != part), known & (parts == part)
        if len(own[fitted].unique()) < 2 or not judged.any():
            continue
        logits = _logits(x[fitted], own[fitted], x[judged], len(classes))
        mine = logits.gather(1, own[judged][:, None])[:, 0]
        others = logits.scatter(1, own[judged][:, None], -torch.inf).amax(dim=1)
        margins[judged] = mine - others
    return margins


def separability(features: ArrayLike | Tensor, first: ArrayLike | Tensor, folds: ArrayLike | Tensor) -> Separability:
    """Whether a probe tells two kinds of samples apart, such as those with a label from those without.

    The area under the ROC curve of the margins of :func:`held_out_margins`: where labels are missing by chance it is
    0.5, and what was learnt on labelled samples holds for the others. Far above it they are of another kind, and
    nothing measured on labelled samples says how good a classifier is on them.

    Parameters
    ----------
    features
        (n, d) floats.
    first
        (n,) booleans: whether a sample is of the first kind.
    folds
        (n,) integers.

    Returns
    -------
    Separability

    Examples
    --------
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [0.3], [1.0], [1.1], [1.2], [1.3]])
    >>> separability(x, x[:, 0] < 0.5, [0, 1, 0, 1, 0, 1, 0, 1]).area
    1.0
    """
    from scipy.stats import rankdata  # imported here: using a run seldom needs it

    kinds = torch.as_tensor(first).long()
    margins = held_out_margins(features, kinds, folds)
    judged = ~margins.isnan()
    kinds, margins = kinds[judged], margins[judged]
    mine, theirs = int(kinds.sum()), int((1 - kinds).sum())
    if not mine or not theirs:
        raise UserError("samples of two kinds are compared, and there is one kind in every fold", code="too_few")
    scores = torch.where(kinds == 1, margins, -margins)
    ranks = torch.from_numpy(rankdata(scores.numpy()))
    area = float((ranks[kinds == 1].sum() - mine * (mine + 1) / 2) / (mine * theirs))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (mine - 1) * (q1 - area**2) + (theirs - 1) * (q2 - area**2)
    half = 1.96 * math.sqrt(max(variance, 0.0) / (mine * theirs))
    return Separability(area, max(0.0, area - half), min(1.0, area + half))


def _logits(fitted: Tensor, labels: Tensor, judged: Tensor, classes: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)  # margins are settled long before the last digits
        found = fit_logistic_regressions(
            fitted[None],
            labels[None],
            classes=classes,
            inverse_penalty=_INVERSE_PENALTY,
            tolerance=1e-3 * _INVERSE_PENALTY * math.sqrt(len(fitted)),
            max_iterations=_ITERATIONS,
            dtype=torch.float32,
        )
    return found.logits(judged[None])[0]


def _standardised(features: ArrayLike | Tensor) -> Tensor:
    x = torch.as_tensor(features).detach().float().cpu()
    if x.ndim != 2 or not x.shape[1]:
        raise UserError(f"features are of shape (n, d); got {tuple(x.shape)}", code="wrong_shape")
    spread, mean = torch.std_mean(x, dim=0, correction=0)
    return (x - mean) / spread.clamp(min=1e-6) / math.sqrt(x.shape[1])
