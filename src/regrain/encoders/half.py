"""Encoders in half precision, for passes without gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .base import Encoder

_IN_ORDER = (
    "torch.nn.modules.container",
    "timm.models.resnet",
    "timm.models.efficientnet",
    "timm.models._efficientnet_blocks",
)
"""Modules whose classes call a convolution and the normalisation that is defined next one after the other."""


@contextmanager
def computing_in(dtype: torch.dtype, *modules: nn.Module | None) -> Iterator[None]:
    """Within it, the encoders among modules that gain from half precision compute in ``dtype``; they give float32.

    Their weights are converted once, those of normalisation layers excepted, and are themselves again afterwards:
    optimisers and graphs never see the others. In evaluation mode the batch normalisation after a convolution goes into
    its weights, which rounds once where two layers round twice; the first such convolution stays in float32, because
    later layers enlarge its errors. On EfficientNet-Lite this halves the squared error. Heads are left alone.

    Examples
    --------
    >>> from regrain.encoders import build_encoder
    >>> encoder = build_encoder("conv4", modality="image", sample_shape=(3, 8, 8), seed=0).eval()
    >>> x = torch.rand(2, 3, 8, 8)
    >>> whole = encoder(x)
    >>> with computing_in(torch.bfloat16, encoder):
    ...     half = encoder(x)
    >>> half.dtype, torch.equal(half, whole), torch.allclose(half, whole, rtol=0.03, atol=0.03)
    (torch.float32, False, True)
    >>> torch.equal(encoder(x), whole)
    True
    """
    inner = [m for module in modules if module is not None for m in module.modules() if isinstance(m, Encoder)]
    gaining = [encoder for encoder in inner if encoder.halves] if dtype != torch.float32 else []
    encoders: list[Encoder] = []
    kept: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for encoder in gaining:
            if "forward" not in vars(encoder):
                encoders.append(encoder)
                _fold(encoder, dtype, kept)
                _convert(encoder, dtype, kept)
                encoder.forward = _in_half(encoder.forward, dtype)  # type: ignore[method-assign]
        yield
    finally:
        for encoder in encoders:
            del encoder.forward
        for place, name, own in reversed(kept):
            place[name] = own


class _Single(nn.Module):
    """A layer that computes in float32 and hands on ``dtype``; in float32 the sums of residual blocks would stay so."""

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = [layer]  # a list: its weights are not converted
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer[0](x.float()).to(self.dtype)


def _fold(encoder: Encoder, dtype: torch.dtype, kept: list[tuple[dict[str, Any], str, Any]]) -> None:
    """Put convolutions that hold the normalisation after them in the place of both; ``kept`` gets the originals."""
    first = True
    for parent in list(encoder.modules()):
        if type(parent).__module__ not in _IN_ORDER:
            continue
        for (name, layer), (after, norm) in itertools.pairwise(list(parent._modules.items())):
            if not isinstance(layer, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if layer.training or norm.training or norm.running_mean is None or norm.num_features != layer.out_channels:
                continue
            with torch.no_grad():
                folded: nn.Module = fuse_conv_bn_eval(layer, norm).requires_grad_(False)
            kept += [(parent._modules, name, layer), (parent._modules, after, norm)]
            parent._modules[name] = _Single(folded, dtype) if first else folded
            parent._modules[after] = nn.Sequential(*norm.children())  # timm's layer holds the activation too
            first = False


def _convert(encoder: Encoder, dtype: torch.dtype, kept: list[tuple[dict[str, Any], str, Any]]) -> None:
    """Put converted weights in the place of an encoder's float32 ones; ``kept`` gets the originals."""
    made: dict[int, nn.Parameter] = {}  # weights that two layers share stay one
    for part in encoder.modules():
        if "norm" in type(part).__name__.lower():
            continue
        for name, parameter in part._parameters.items():
            if parameter is None or parameter.dtype != torch.float32:
                continue
            if id(parameter) not in made:
                layout = torch.channels_last if parameter.ndim == 4 else torch.preserve_format
                made[id(parameter)] = nn.Parameter(
                    parameter.detach().to(dtype, memory_format=layout), requires_grad=False
                )
            kept.append((part._parameters, name, parameter))
            part._parameters[name] = made[id(parameter)]


def _in_half(forward: Callable[..., Tensor], dtype: torch.dtype) -> Callable[..., Tensor]:
    def call(x: Any) -> Tensor:
        given = next(iter(x.values())) if isinstance(x, dict) else x
        with torch.autocast(given.device.type, dtype):  # for what a model makes in float32 by itself
            return forward(x).float()

    return call
