"""What the methods with a classifier share."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["labelled_cross_entropy"]


def labelled_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy in float32 over the rows of known label; without any, zero with zero gradient.

    Parameters
    ----------
    logits : (B, classes)
    labels : (B,), -1 unknown
    label_smoothing : float in [0, 1)

    Examples
    --------
    >>> import torch
    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))
    tensor(1.3863)
    """
    known = (labels >= 0).sum().clamp(min=1)
    total = functional.cross_entropy(
        logits.float(), labels, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )
    return total / known
