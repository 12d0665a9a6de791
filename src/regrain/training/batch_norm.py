"""Batch normalisation over the global batch, so that several processes train as one would."""

from __future__ import annotations

import torch
from lightning.pytorch.plugins.layer_sync import LayerSync
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn

from regrain.objectives.gathering import gather


class GlobalBatchNorm(LayerSync):
    """Lets every batch normalisation have the statistics of the batch of all processes.

    On GPUs torch's SyncBatchNorm computes them. That refuses tensors on the CPU, where the processes exchange sums by
    :func:`~regrain.objectives.gather`.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        if next(model.parameters()).is_cuda:
            return convert_sync_batchnorm(model)
        for module in model.modules():
            if isinstance(module, BatchNormAct2d):
                module.__class__ = _BatchNormAct  # type: ignore[assignment]  # the same modules and buffers
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.__class__ = _BatchNorm
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Nothing: outside of training they are like any other batch normalisation, with the same names of weights."""
        return model


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """On the CPU, for inputs (B, C, ...)."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any is right that was right for the module that this one takes the place of."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes, shape = [0, *range(2, input.ndim)], [1, -1] + [1] * (input.ndim - 2)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = _summed(x.new_tensor([x.numel() / x.shape[1]]))
        mean = _summed(x.sum(dim=axes)) / count
        centred = x - mean.view(shape)
        variance = _summed(centred.square().sum(dim=axes)) / count
        self._remember(mean.detach(), (variance * count / (count - 1)).detach())
        result = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _BatchNormAct(_BatchNorm):
    """timm's, with the dropout and the activation that follow it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _summed(own: Tensor) -> Tensor:
    return gather(own[None], with_gradient=own.requires_grad).sum(dim=0)
