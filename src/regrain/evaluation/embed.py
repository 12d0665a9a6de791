"""Embeddings of a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.training.loader import on_device, scan_batches
from regrain.training.model import Model

__all__ = ["apply_model", "embed"]


@torch.inference_mode()
def apply_model(
    model: Model, dataset: Dataset, function: Callable[[Any], Tensor], *, batch_size: int = 512, workers: int = 2
) -> Tensor:
    """``function`` of the un-augmented inputs of all samples, float32 on the CPU, in the order of the data.

    The model works in evaluation mode, so a sample's result does not depend on its batch.
    """
    method = model.method
    was_training = method.training
    method.eval()
    dataset = model.featurised(dataset, workers=workers)
    prepare = model.views.plain if model.backbone is not None else model.prepare
    try:
        parts = [
            function(prepare(on_device(raw, model.device))).float().cpu()
            for raw, _, _ in scan_batches(dataset, batch_size=batch_size, workers=workers)
        ]
    finally:
        method.train(was_training)
    return torch.cat(parts)


def embed(model: Model, dataset: Dataset, *, batch_size: int = 512, workers: int = 2) -> Tensor:
    """The method's embeddings of all samples: (N, width) float32 on the CPU."""
    return apply_model(model, dataset, model.method.embed, batch_size=batch_size, workers=workers)
