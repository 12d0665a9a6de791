"""Helpers for the methods with a classifier."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_FACTORS = (1e-3, 1e4)
"""Bounds of a fitted factor."""


def balanced_weights(codes: Tensor, classes: int) -> Tensor:
    """Return class weights (C,) inverse to the class sizes among codes (N,), -1 unknown; their mean over samples is 1.

    Examples
    --------
    >>> import torch
    >>> balanced_weights(torch.tensor([0, 1, 1, -1, 1]), 2)
    tensor([2.0000, 0.6667])
    """
    counts = torch.bincount(codes[codes >= 0], minlength=classes)
    present = counts > 0
    return (counts.sum() / (present.sum() * counts.clamp(min=1))).float().where(present, 0)


def class_counts(codes: Tensor, classes: int) -> Tensor:
    """Return how often each class occurs among codes (...), -1 unknown: (classes,) int64.

    Unlike ``bincount`` it does not wait for a device.

    Examples
    --------
    >>> import torch
    >>> class_counts(torch.tensor([0, 1, 1, -1]), 3)
    tensor([1, 2, 0])
    """
    places = codes.flatten() % (classes + 1)  # -1 in a place of its own, the last
    return places.new_zeros(classes + 1).index_add_(0, places, torch.ones_like(places))[:classes]


@torch.no_grad()
def fitted_factor(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the factor s > 0 of logits (B, classes) whose softmax fits labels (B,) best in cross entropy, a scalar.

    Targets are smoothed as by Platt (1999), a class against the rest, so that s is finite where all labels are met: the
    label of a class of n samples counts (n + 1) / (n + 2), the other classes share the rest.

    Examples
    --------
    >>> import torch
    >>> labels = torch.arange(300) % 3
    >>> fitted = fitted_factor(torch.eye(3)[labels], labels)
    >>> round(float((fitted * torch.eye(3)).softmax(dim=1)[0, 0]), 3)  # 101 of 102
    0.99
    """
    from scipy.optimize import minimize_scalar

    rows, classes = logits.double(), logits.shape[1]
    counts = torch.bincount(labels, minlength=classes).to(rows)
    own = ((counts + 1) / (counts + 2))[labels]
    other = (1 - own) / (classes - 1)
    taken = rows.gather(1, labels[:, None])[:, 0]
    linear = float(((own - other) * taken + other * rows.sum(dim=1)).mean())

    def loss(exponent: float) -> float:
        factor = math.exp(exponent)
        return float((factor * rows).logsumexp(dim=1).mean()) - factor * linear

    bounds = (math.log(_FACTORS[0]), math.log(_FACTORS[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return logits.new_tensor(math.exp(found.x))


def labelled_cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Return the mean cross entropy in float32 over rows of known label; without any, zero with zero gradient.

    ``logits``: (B, classes). ``labels``: (B,), -1 unknown. ``label_smoothing``: float in [0, 1). ``weight`` (classes,):
    class weights; the mean is weighted.

    Examples
    --------
    >>> import torch
    >>> labelled_cross_entropy(torch.zeros(2, 4), torch.tensor([1, -1]))
    tensor(1.3863)
    """
    known = labels >= 0
    count = known.sum() if weight is None else weight[labels.clamp(min=0)].where(known, 0).sum()
    total = functional.cross_entropy(
        logits.float(), labels, weight=weight, ignore_index=-1, reduction="sum", label_smoothing=label_smoothing
    )
    return total / count.clamp(min=1e-6 if weight is not None else 1)
