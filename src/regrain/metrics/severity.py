"""How bad mistakes are in a class hierarchy: the order of all classes (HOPS), and decisions of least expected cost."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels


def hops(
    scores: ArrayLike | Tensor, labels: ArrayLike | Tensor, similarity: ArrayLike | Tensor, *, k: int | None = None
) -> Tensor:
    r"""HOPS: whether the classes are ordered by how near they are to the true one (Hier-COS, CVPR 2026).

    The rank of a class is the number of different similarities to the true class that are above its own. With z the
    ranks in the right order and z' in the predicted one,

    .. math:: 1 - \frac{\sum_j w_j |z_j - z'_j|}{\sum_j w_j |z_j - z^{worst}_j|}

    clipped to [0, 1]; the worst order is z reversed, w is :math:`2^{-z}`, falling linearly among equal ranks towards
    the next lower value (0 after the last). Returns (known samples,) float64 in [0, 1]; NaN where no order of the first
    k is worse than another.

    Parameters
    ----------
    scores
        (n, C) of the classes; higher comes first, of equal ones the smaller class.
    labels
        (n,) true classes; samples of -1 are left out.
    similarity
        (C, C), such as the depth of the lowest common ancestor; a class is nearest to itself.
    k
        Judge the first k places alone (the worst order reverses these); at 1 the first class is right or wrong.

    Examples
    --------
    >>> tree = [[2, 1, 0], [1, 2, 0], [0, 0, 2]]  # two siblings and a stranger
    >>> hops([[0.6, 0.3, 0.1], [0.6, 0.1, 0.3], [0.1, 0.3, 0.6]], [0, 0, 0], tree).tolist()
    [1.0, 0.7, 0.0]
    """
    score = torch.as_tensor(scores).detach().double().cpu().numpy()
    near = np.asarray(torch.as_tensor(similarity).cpu(), dtype=np.float64)
    if score.ndim != 2 or near.shape != (score.shape[1],) * 2:
        raise UserError(
            f"scores must be (n, C) and similarity (C, C); got {score.shape} and {near.shape}", code="wrong_shape"
        )
    truth = as_labels(labels, len(score), "labels").cpu().numpy()
    count = score.shape[1]
    if (truth >= count).any():
        raise UserError(f"labels reach {truth.max()}, and there are scores of {count} classes", code="out_of_range")
    if k is not None and not 1 <= k <= count:
        raise UserError(f"k is a number of places, 1 to {count}; got {k}", code="out_of_range")
    score, truth = score[truth >= 0], truth[truth >= 0]
    order = np.argsort(-score, axis=1, kind="stable")
    if k == 1:
        return torch.from_numpy((order[:, 0] == truth).astype(np.float64))
    ranks = np.stack([np.searchsorted(-np.unique(row)[::-1], -row) for row in near])
    found = np.take_along_axis(ranks[truth], order, axis=1)
    right = np.sort(ranks, axis=1)
    weight = np.stack([_weights(row) for row in right])
    worst = right[:, ::-1] if k is None else np.hstack([right[:, :k][:, ::-1], right[:, k:]])
    if k is not None:
        weight[:, k:] = 0
    most = (weight * np.abs(right - worst)).sum(axis=1)
    lost = (weight[truth] * np.abs(right[truth] - found)).sum(axis=1)
    possible = most[truth]
    share = np.divide(lost, possible, out=np.full_like(lost, np.nan), where=possible > 0)
    return torch.from_numpy(np.clip(1 - share, 0, 1))


def least_cost_classes(probabilities: ArrayLike | Tensor, cost: ArrayLike | Tensor) -> Tensor:
    r"""The classes of least expected cost, :math:`\arg\min_c \sum_k D_{ck}\, p_k` (CRM; Karthik et al., ICLR 2021).

    Returns (n,) int64, of equal costs the smaller class.

    Parameters
    ----------
    probabilities
        (n, C).
    cost
        (C, C) D: of predicting c where k is true, such as the height of their lowest common ancestor.

    Examples
    --------
    >>> least_cost_classes([[0.3, 0.3, 0.4]], [[0, 1, 2], [1, 0, 2], [2, 2, 0]])  # a sibling is the smaller mistake
    tensor([0])
    """
    p, d = torch.as_tensor(probabilities).double(), torch.as_tensor(cost).double()
    if p.ndim != 2 or d.shape != (p.shape[1],) * 2:
        raise UserError(
            f"probabilities must be (n, C) and cost (C, C); got {tuple(p.shape)} and {tuple(d.shape)}",
            code="wrong_shape",
        )
    return (p @ d.to(p.device).T).argmin(dim=1)


def _weights(ranks: np.ndarray) -> np.ndarray:
    """2^-z of sorted ranks, falling linearly among equal ones towards the next value."""
    result = np.empty(len(ranks))
    present = np.unique(ranks)
    for rank, following in zip(present, [*(2.0 ** -present[1:]), 0.0], strict=True):
        places = np.flatnonzero(ranks == rank)
        high = 2.0**-rank
        result[places] = high - (high - following) * np.arange(len(places)) / len(places)
    return result
