"""Two small convolutional networks of the few-shot literature."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from regrain.checks import BelowOne, Count

from .base import Encoder


def _halve(x: Tensor) -> Tensor:
    """Max-pool by 2 while there is something to pool: an 8 px digit is one pixel after three blocks."""
    return F.max_pool2d(x, 2) if min(x.shape[-2:]) >= 2 else x


class Conv4(Encoder):
    """Four blocks of 3x3 convolution, batch normalisation, ReLU and max-pool, then the global average.

    Parameters
    ----------
    sample_shape : (C, H, W)
    channels : int, default 64
        Channels of every block, and the embedding width.

    References
    ----------
    Vinyals et al., Matching networks for one shot learning, NeurIPS 2016 (there the last map is flattened).

    Examples
    --------
    >>> import torch
    >>> Conv4((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """

    modality = "image"
    halves = True

    def __init__(self, sample_shape: Sequence[int], *, channels: Count = 64) -> None:
        super().__init__()
        inputs = (sample_shape[0], channels, channels, channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(count, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
            for count in inputs
        )
        self.width = channels

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> embeddings (B, channels)."""
        for block in self.blocks:
            x = _halve(block(x))
        return x.mean((2, 3))


class ResNet12(Encoder):
    """Four residual blocks of three 3x3 convolutions (64, 160, 320, 640 channels), then the global average.

    Parameters
    ----------
    sample_shape : (C, H, W)
    drop_rate : float in [0, 1), default 0
        Dropout after each block. (The published network drops blocks of pixels in the last two.)

    References
    ----------
    Lee et al., Meta-learning with differentiable convex optimization, CVPR 2019; used by ANCOR and SCGM.

    Examples
    --------
    >>> import torch
    >>> ResNet12((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 640])
    """

    modality = "image"
    halves = True
    width = 640

    def __init__(self, sample_shape: Sequence[int], *, drop_rate: BelowOne = 0.0) -> None:
        super().__init__()
        channels = (sample_shape[0], 64, 160, 320, 640)
        self.blocks = nn.ModuleList(_ResNet12Block(*pair) for pair in pairwise(channels))
        self.dropout = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) -> embeddings (B, 640)."""
        for block in self.blocks:
            x = self.dropout(_halve(block(x)))
        return x.mean((2, 3))


class _ResNet12Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for count in (inputs, outputs, outputs):
            layers += [nn.Conv2d(count, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]
        self.residual = nn.Sequential(*layers[:-1])  # the last activation comes after the sum
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.residual(x) + self.shortcut(x), 0.1)
