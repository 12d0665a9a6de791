"""Shared numerics of objectives: precision, unit vectors, and the mean over rows in chunks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

P = ParamSpec("P")
R = TypeVar("R")

CHUNK_ELEMENTS = 2**22
"""Elements of the largest (rows, columns) matrix that is held at once: 16 MB in float32."""

RowsLoss = Callable[..., tuple[Tensor, Tensor]]
"""(slice of rows, *tensors) -> losses of these rows (b,), and which of them count (b,)."""


def full_precision(objective: Callable[P, R]) -> Callable[P, R]:
    """Run ``objective`` in float32 or better: its float tensors are brought to one such type, and autocast is off."""

    @functools.wraps(objective)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        floats = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and x.is_floating_point()]
        dtype = functools.reduce(torch.promote_types, (x.dtype for x in floats), torch.float32)

        def raised(x: Any) -> Any:
            return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

        with torch.autocast(floats[0].device.type if floats else "cpu", enabled=False):
            return objective(*map(raised, args), **{name: raised(x) for name, x in kwargs.items()})  # type: ignore[arg-type]

    return run


def unit(vectors: Tensor) -> Tensor:
    """Rows scaled to unit L2 norm; a zero row stays zero, with a finite gradient."""
    norm = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / norm.masked_fill(norm == 0, 1)


def entropy_of_mean(log_probabilities: Tensor) -> Tensor:
    """Entropy of the mean row, from the logarithms (B, C): its gradient is finite where a class has no share at all."""
    log_mean = log_probabilities.logsumexp(dim=0) - math.log(len(log_probabilities))
    return -(log_mean.exp() * log_mean).sum()


def counted_mean(losses: Tensor, counted: Tensor) -> Tensor:
    """Mean of the losses (B,) of the rows that count (B,); without any, zero with zero gradient."""
    return losses.where(counted, 0).sum() / counted.sum().clamp(min=1)


def mean_over_rows(rows_loss: RowsLoss, *tensors: Tensor, rows: int, columns: int) -> Tensor:
    """Mean of the losses of those rows that count; no such row gives zero, with zero gradient.

    ``rows_loss(slice, *tensors)`` is called with as many rows at a time as keep a (rows, ``columns``) matrix within
    ``CHUNK_ELEMENTS``. Every tensor that needs a gradient must be among ``tensors``: where several chunks are needed, a
    chunk's gradient is taken together with its value, and only their sums are kept. So neither the whole matrix nor a
    second pass over it is needed; such a loss can be differentiated once. ``torch.compile`` gets it in one piece.
    """
    size = max(1, CHUNK_ELEMENTS // max(1, columns))
    if rows <= size or torch.compiler.is_compiling():
        return counted_mean(*rows_loss(slice(0, rows), *tensors))
    chunks = [slice(start, start + size) for start in range(0, rows, size)]
    wanted = [torch.is_grad_enabled() and t.requires_grad for t in tensors]
    return _MeanOverChunks.apply(rows_loss, chunks, wanted, *tensors)  # type: ignore[no-untyped-call]


class _MeanOverChunks(torch.autograd.Function):
    """The mean over rows, with the gradient found on the way."""

    @staticmethod
    def forward(ctx: Any, rows_loss: RowsLoss, chunks: list[slice], wanted: list[bool], *tensors: Tensor) -> Tensor:
        """Sum values and gradients over the chunks, then divide both by the number of rows that count."""
        leaves = tuple(t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True))
        trained = [leaf for leaf in leaves if leaf.requires_grad]
        gradients = [torch.zeros_like(leaf) for leaf in trained]
        total, count = tensors[0].new_zeros(()), torch.zeros((), dtype=torch.long, device=tensors[0].device)
        for rows in chunks:
            with torch.set_grad_enabled(bool(trained)):
                losses, counted = rows_loss(rows, *leaves)
                chunk_total = losses.where(counted, 0).sum()
            total, count = total + chunk_total.detach(), count + counted.sum()
            if trained:
                for gradient, part in zip(gradients, torch.autograd.grad(chunk_total, trained), strict=True):
                    gradient += part
        count = count.clamp(min=1)
        ctx.wanted = wanted
        ctx.save_for_backward(*(gradient / count for gradient in gradients))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        """The mean is a scalar, so its gradients only have to be scaled."""
        gradients = iter(ctx.saved_tensors)
        return None, None, None, *(next(gradients) * grad_output if want else None for want in ctx.wanted)
