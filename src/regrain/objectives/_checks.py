"""Checks of objectives' arguments: shapes, types and numbers, without waiting for a device to read values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regrain.errors import UserError

from .host import may_look


def check_temperature(value: float, name: str = "temperature", *, infinite: bool = False) -> None:
    """A temperature is a positive number; ``infinite`` allows ``math.inf``."""
    if not value > 0 or (math.isinf(value) and not infinite):
        raise UserError(
            f"{name} must be a positive{'' if infinite else ', finite'} number, got {value}", code="out_of_range"
        )


def check_weight(value: float, name: str = "weight") -> None:
    """A mixing weight lies in [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"{name} must lie in [0, 1], got {value}", code="out_of_range")


def check_at_least_0(value: float, name: str) -> None:
    """A finite number of at least 0."""
    if not 0 <= value < math.inf:
        raise UserError(f"{name} must be at least 0 and finite, got {value}", code="out_of_range")


def check_floats(tensor: Tensor, name: str, *shape: int | str) -> None:
    """A tensor of floats; a dimension is a number, or a letter where any number is right."""
    fits = tensor.ndim == len(shape) and all(
        isinstance(want, str) or want == size for want, size in zip(shape, tensor.shape, strict=False)
    )
    if not fits or not tensor.is_floating_point():
        wanted = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
        raise UserError(
            f"{name} must be floats of shape {wanted}, got {tensor.dtype} of shape {tuple(tensor.shape)}",
            code="wrong_shape",
        )


def check_matrix(tensor: Tensor, name: str, *, rows: int | None = None, columns: int | None = None) -> None:
    """A two-dimensional tensor of floats, of ``rows`` rows and ``columns`` columns where these are given."""
    check_floats(tensor, name, "n" if rows is None else rows, "d" if columns is None else columns)


def check_distribution(prior: Tensor, name: str, classes: int, *, positive: bool = False) -> None:
    """Probabilities (classes,); their values are looked at where that costs nothing."""
    check_floats(prior, name, classes)
    if may_look(prior):
        low = bool((prior <= 0 if positive else prior < 0).any())
        if low or not abs(float(prior.sum()) - 1) < 1e-4:
            kind = "positive probabilities" if positive else "probabilities"
            raise UserError(f"{name} must be {kind} that sum to 1", code="out_of_range")


def check_labels(labels: Tensor, rows: int, name: str) -> None:
    """One integer for each of ``rows`` rows."""
    if labels.shape != (rows,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(
            f"{name} must be integers of shape ({rows},), one for each row, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}",
            code="wrong_shape",
        )


def check_classes(labels: Tensor, classes: int, name: str) -> None:
    """Labels below the number of classes; they are looked at where that costs nothing."""
    if may_look(labels) and labels.numel() and labels.max() >= classes:
        raise UserError(
            f"{name} reaches {int(labels.max())}, but there are {classes} classes: 0 to {classes - 1}",
            code="out_of_range",
        )


def check_mask(mask: Tensor | None, rows: int, columns: int, name: str = "candidate_mask") -> None:
    """Booleans of shape (rows, columns), or nothing."""
    if mask is not None and (mask.shape != (rows, columns) or mask.dtype != torch.bool):
        raise UserError(
            f"{name} must be booleans (True = counts) of shape ({rows}, {columns}), "
            f"got {mask.dtype} of shape {tuple(mask.shape)}",
            code="wrong_shape",
        )


def check_queue(query: Tensor, key: Tensor, queue: Tensor) -> None:
    """Query and key are (B, d), the queue (Q, d)."""
    check_matrix(query, "query")
    check_matrix(key, "key", rows=query.shape[0], columns=query.shape[1])
    check_matrix(queue, "queue", columns=query.shape[1])
