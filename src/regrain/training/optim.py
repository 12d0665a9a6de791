"""Optimisers and learning-rate schedules."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from regrain.methods.base import Method

OptimizerName = Literal["sgd", "adamw", "lars"]
ScheduleName = Literal["cosine", "restarts", "constant"]


def build_optimizer(
    method: Method,
    *,
    name: OptimizerName,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
    encoder_learning_rate: float | None = None,
    layer_decay: float | None = None,
    fused: bool = True,
) -> Optimizer:
    """SGD, AdamW or LARS over the parameters that are trained.

    ``encoder_learning_rate`` sets the rate of ``method.encoder`` apart from that of the heads, and with ``layer_decay``
    each of its layers has the rate of the layer above times that. AdamW and LARS do not decay biases and
    normalisation; SGD decays everything, as the papers do. ``fused`` is torch's quick form; Lightning cannot clip
    gradients of fp16 in it.
    """
    rates = _encoder_rates(method, encoder_learning_rate or learning_rate, layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in method.parameters():
        if parameter.requires_grad:
            decayed = name == "sgd" or parameter.ndim > 1
            groups.setdefault((rates.get(id(parameter), learning_rate), decayed), []).append(parameter)
    settings = [
        {"params": parameters, "lr": rate, "weight_decay": weight_decay if decayed else 0.0}
        for (rate, decayed), parameters in groups.items()
    ]
    if name == "sgd":
        return torch.optim.SGD(settings, lr=learning_rate, momentum=momentum, fused=fused)
    if name == "adamw":
        return torch.optim.AdamW(settings, lr=learning_rate, betas=(momentum, 0.999), fused=fused)
    from timm.optim import Lars

    return Lars(settings, lr=learning_rate, momentum=momentum, trust_coeff=0.001)


def _encoder_rates(method: Method, rate: float, layer_decay: float | None) -> dict[int, float]:
    """The learning rate of each of the encoder's parameters, by its id."""
    parameters = dict(method.encoder.named_parameters())
    if layer_decay is None:
        return {id(parameter): rate for parameter in parameters.values()}
    layers = method.encoder.layer_numbers()  # type: ignore[operator]  # an Encoder
    top = max(layers.values())
    return {id(parameter): rate * layer_decay ** (top - layers[name]) for name, parameter in parameters.items()}


def build_schedule(
    optimizer: Optimizer,
    *,
    name: ScheduleName,
    steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.0,
    restart_steps: int | None = None,
    final_factor: float = 0.0,
) -> LambdaLR:
    """Linear warm-up, then cosine (once or with warm restarts) down to ``final_factor`` of the rate, or constant.

    ``steps``: optimiser steps in all. ``warmup_steps``: steps of the linear rise to the full rate. ``warmup_start``:
    share of the rate that the rise begins above, in [0, 1]. ``restart_steps``: length of a cosine cycle with
    ``restarts``. ``final_factor``: share of the rate at the end of a cosine, in [0, 1].

    Examples
    --------
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = build_schedule(optimizer, name="cosine", steps=6, warmup_steps=2)
    >>> [round(schedule.lr_lambdas[0](step), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup_start + (1 - warmup_start) * (step + 1) / warmup_steps
        if name == "constant":
            return 1.0
        length = max(1, steps - warmup_steps)
        done = step - warmup_steps
        if name == "restarts" and restart_steps:
            length, done = restart_steps, done % restart_steps
        return final_factor + (1 - final_factor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done / length)))

    return LambdaLR(optimizer, factor)
