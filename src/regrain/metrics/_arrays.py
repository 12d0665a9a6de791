"""Checks of metrics' arguments, and the precision of the computations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError


def _as_tensor(values: ArrayLike | Tensor) -> Tensor:
    """Without a gradient, and without torch's warning of arrays that cannot be written, such as memory maps."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(values).detach()


def as_unit_vectors(embeddings: ArrayLike | Tensor, name: str) -> Tensor:
    """(n, d) rows scaled to unit L2 norm in float32 or better; a zero row stays zero."""
    vectors = _as_tensor(embeddings)
    if vectors.ndim != 2 or not len(vectors) or not vectors.is_floating_point():
        raise UserError(
            f"{name} must be floats of shape (n, d), n at least 1, got {vectors.dtype} of shape {tuple(vectors.shape)}",
            code="wrong_shape",
        )
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    broken = ~norm.isfinite().flatten()
    if broken.any():
        raise UserError(
            f"{name} must be finite: {int(broken.sum())} of {len(vectors)} rows are not, the first is row "
            f"{int(broken.int().argmax())}",
            code="not_finite",
        )
    return vectors / norm.masked_fill(norm == 0, 1)


def as_labels(labels: ArrayLike | Tensor, rows: int, name: str) -> Tensor:
    """(rows,) int64, one for each row."""
    integers = _as_tensor(labels)
    if integers.shape != (rows,) or integers.is_floating_point() or integers.dtype == torch.bool:
        raise UserError(
            f"{name} must be integers of shape ({rows},), one for each row, "
            f"got {integers.dtype} of shape {tuple(integers.shape)}",
            code="wrong_shape",
        )
    return integers.long()


def known_pairs(labels: ArrayLike | Tensor, others: ArrayLike | Tensor, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels and what is compared with them, as NumPy arrays, without the samples whose label is unknown (-1)."""
    count = len(_as_tensor(labels))
    truth = as_labels(labels, count, "labels").cpu().numpy()
    compared = as_labels(others, count, name).cpu().numpy()
    known = truth >= 0
    if not known.any():
        raise UserError(
            f"none of the {count} labels is known (all are -1): there is nothing to compare with", code="no_labels"
        )
    return truth[known], compared[known]


@contextmanager
def exact_products(tensor: Tensor) -> Iterator[None]:
    """Matrix products in full float32: no autocast, and no TF32 or bf16 that training may have switched on."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # set for each backend by the user, through the interface that this one cannot read
        before = None
    with torch.autocast(tensor.device.type, enabled=False):
        if before is not None:
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if before is not None:
                torch.set_float32_matmul_precision(before)
