"""One place where tensors cross processes, and where the factor that DDP brings in is settled."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather(tensor: Tensor, *, with_gradient: bool) -> Tensor:
    """Concatenate the rows of all processes in rank order; the tensor itself where there is one process.

    An objective over the whole batch is then computed wholly, and alike, on every rank. With W ranks, the backward pass
    sums the gradient of the gathered rows over the ranks, which makes it W times the gradient of the objective;
    DistributedDataParallel afterwards averages the parameters' gradients over the ranks, which divides by W: together,
    exactly the gradient that one process with the whole batch would find. So an objective must neither be multiplied by
    W nor divided by it. (Where each rank computes another share of the objective, the same two steps give the gradient
    of the shares' mean.)

    Returns (sum of b, ...) rows of all processes.

    Parameters
    ----------
    tensor
        (b, ...) rows of this process; b may differ between processes (and be 0), the rest of the shape may not.
    with_gradient
        Whether the gradient flows back, over the ranks; else the result is detached, on one process too.

    Examples
    --------
    >>> import torch
    >>> gather(torch.arange(3), with_gradient=False)  # one process
    tensor([0, 1, 2])
    """
    if not with_gradient:
        tensor = tensor.detach()
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    return _Gather.apply(tensor)  # type: ignore[no-untyped-call]


def from_first(tensor: Tensor) -> Tensor:
    """Send the first process's tensor to every process; return the tensor itself where there is one process.

    For results that differ between processes only by rounding but must agree to the last bit, such as clusters by a
    library whose sums have no fixed order.

    Parameters
    ----------
    tensor
        The same shape and type on all processes.

    Examples
    --------
    >>> import torch
    >>> from_first(torch.arange(3))  # one process
    tensor([0, 1, 2])
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return tensor
    result = tensor.detach().clone()
    dist.broadcast(result, src=0)
    return result


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Exchange the numbers of rows, then the rows, padded to the largest number."""
        rows = torch.tensor([tensor.shape[0]], device=tensor.device)
        counts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(counts, rows)
        ctx.counts = [int(count) for count in counts]
        padded = tensor.new_zeros(max(ctx.counts), *tensor.shape[1:])
        padded[: tensor.shape[0]] = tensor
        gathered = [torch.empty_like(padded) for _ in ctx.counts]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, ctx.counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Sum over the ranks, then this rank's rows."""
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient.split(ctx.counts)[dist.get_rank()]
