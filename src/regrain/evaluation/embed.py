"""Embeddings of a whole data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.training.loader import scan_batches
from regrain.training.model import Model

__all__ = ["apply_model", "embed"]


@torch.inference_mode()
def apply_model(
    model: Model,
    dataset: Dataset,
    function: Callable[..., Tensor],
    *,
    beside: Tensor | None = None,
    batch_size: int = 512,
    workers: int = 2,
) -> Tensor:
    """``function`` of the un-augmented inputs of all samples, float32 on the CPU, in the order of the data.

    The model works in evaluation mode, so a sample's result does not depend on its batch. Rows of ``beside`` (N, ...)
    are handed on with their samples, as a second argument.
    """
    method = model.method
    was_training = method.training
    method.eval()
    dataset = model.featurised(dataset, workers=workers)
    prepare = model.views.plain if model.backbone is not None else model.prepare
    parts: list[Tensor] = []
    done = 0
    try:
        for raw, _, ids in scan_batches(dataset, batch_size=batch_size, workers=workers):
            x = prepare(raw.to(model.device) if isinstance(raw, Tensor) else raw)
            rows = () if beside is None else (beside[done : done + len(ids)].to(model.device),)
            parts.append(function(x, *rows).float().cpu())
            done += len(ids)
    finally:
        method.train(was_training)
    return torch.cat(parts)


def embed(model: Model, dataset: Dataset, *, batch_size: int = 512, workers: int = 2) -> Tensor:
    """The method's embeddings of all samples: (N, width) float32 on the CPU."""
    return apply_model(model, dataset, model.method.embed, batch_size=batch_size, workers=workers)
