"""Helpers for methods that classify the leaves of a taxonomy and learn from labels at any level of it."""

from __future__ import annotations

import torch
from torch import Tensor


def under_finest_known(labels: Tensor, above: Tensor) -> Tensor:
    """Return whether each leaf is under the finest known class, (B, leaves); all leaves are where no class is known.

    ``labels``: (B, L), coarse to fine, -1 unknown. ``above`` (L, leaves): the class at every level over each leaf, or
    the leaf's own; -1 where there is none.

    Examples
    --------
    >>> above = torch.tensor([[0, 0, 1], [0, 1, 2]])
    >>> under_finest_known(torch.tensor([[0, -1], [0, 1], [-1, -1]]), above).int().tolist()
    [[1, 1, 0], [0, 1, 0], [1, 1, 1]]
    """
    allowed = torch.ones(len(labels), above.shape[1], dtype=torch.bool, device=labels.device)
    for codes, over in zip(labels.T, above, strict=True):
        allowed = torch.where((codes >= 0)[:, None], over == codes[:, None], allowed)
    return allowed


def log_within(log_p: Tensor, allowed: Tensor) -> Tensor:
    """Return the log of the sum of p over the allowed leaves, (B,), from log p (B, leaves)."""
    return log_p.masked_fill(~allowed, torch.finfo(log_p.dtype).min).logsumexp(dim=1)


def summed_above(p: Tensor, over: Tensor, classes: int) -> Tensor:
    """Return a level's probabilities (B, classes) from p (B, leaves): the sum over the leaves under each class.

    ``over`` (leaves,) is the class of that level over each leaf, -1 where there is none.
    """
    place = torch.where(over >= 0, over, classes)  # one column more, for leaves without a class
    return p.new_zeros(p.shape[0], classes + 1).index_add_(1, place, p)[:, :classes]
