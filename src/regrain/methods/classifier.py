"""What the methods with a classifier share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["balanced_weights", "labelled_cross_entropy"]


def balanced_weights(codes: Tensor, classes: int) -> Tensor:
    """Weights of classes (C,) inverse to their sizes among codes (N,), -1 unknown; 1 in the mean over samples.

    Examples
    --------
    >>> import torch
    >>> balanced_weights(torch.tensor([0, 1, 1, -1, 1]), 2)
    tensor([2.0000, 0.6667])
    """
    counts = torch.bincount(codes[codes >= 0], minlength=classes)
    present = counts > 0
    return (counts.sum() / (present.sum() * counts.clamp(min=1))).float().where(present, 0)


def labelled_cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Mean cross entropy in float32 over the rows of known label; without any, zero with zero gradient.

    Parameters
    ----------
    logits : (B, classes)
    labels : (B,), -1 unknown
    label_smoothing : float in [0, 1)
    weight : (classes,), optional
        Of the classes; the mean is weighted.

    Examples
    --------
    >>> import torch
    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))
    tensor(1.3863)
    """
    known = (labels >= 0).sum() if weight is None else weight[labels[labels >= 0]].sum()
    total = functional.cross_entropy(
        logits.float(), labels, weight=weight, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )
    return total / known.clamp(min=1e-6 if weight is not None else 1)
