"""Embeddings of a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.labels import Labels
from regrain.model import Model
from regrain.objectives.gathering import gather
from regrain.processes import own_share
from regrain.training.scan import on_device, on_host, scan_batches, scanning


def apply_model(
    model: Model, dataset: Dataset, function: Callable[..., Tensor], *, beside: Tensor | None = None, workers: int = 2
) -> Tensor:
    """``function`` of the un-augmented inputs of all samples, float32 on the CPU, in the order of the data.

    The model works in evaluation mode, so a sample's result does not depend on its batch, up to the rounding of
    ``model.dtype``. Rows of ``beside`` (N, ...) are handed on with their samples, as a second argument. Within
    :func:`~regrain.processes.shared_out` every process computes a share of the rows, and gets all of them:
    each once, in the order of the data.
    """
    dataset = model.featurised(dataset, workers=workers)
    prepare = model.views.plain if model.backbone is not None else model.prepare
    rank, processes = own_share()
    beside = None if beside is None else beside.tensor_split(processes)[rank]

    def results() -> Iterator[Tensor]:
        done = 0
        for raw, _, ids in scan_batches(dataset, workers=workers, rank=rank, world_size=processes, device=model.device):
            rows = () if beside is None else (beside[done : done + len(ids)].to(model.device),)
            yield function(prepare(on_device(raw, model.device)), *rows)
            done += len(ids)

    with scanning(model.dtype, model.method):
        own = torch.cat(list(on_host(results())))
    return gather(own, with_gradient=False) if processes > 1 else own


def share_out(function: Callable[[Tensor], Sequence[Tensor]], rows: Tensor) -> list[Tensor]:
    """Results of ``function``, in the order of the rows.

    Within :func:`~regrain.processes.shared_out` every process computes a share, and gets all.

    Parameters
    ----------
    function : callable
        (b, ...) rows -> tensors whose rows are in the order of those.
    rows : Tensor (n, ...)
        The same on all processes.
    """
    rank, processes = own_share()
    if processes == 1 or len(rows) < processes:
        return list(function(rows))
    return [gather(found, with_gradient=False) for found in function(rows.tensor_split(processes)[rank])]


def embed(model: Model, dataset: Dataset, *, workers: int = 2) -> Tensor:
    """The method's embeddings of all samples: (N, width) float32 on the CPU."""
    return apply_model(model, dataset, model.method.embed, workers=workers)


def level_probabilities(model: Model, labels: Labels, dataset: Dataset, *, workers: int = 2) -> dict[str, Tensor]:
    """Class probabilities (N, classes) at every level that the method predicts; none where it does not classify.

    Parameters
    ----------
    labels : Labels
        The levels and classes the method was trained on.
    dataset : Dataset
        Its labels are not looked at.
    """
    if not model.method.has_classifier:
        return {}
    method = model.method
    together = apply_model(
        model, dataset, lambda x: torch.cat([*method.class_proba(x).values()], dim=1), workers=workers
    )
    return dict(zip(labels.levels, together.split(method.classes, dim=1), strict=True))


def apply_to_views(
    model: Model,
    dataset: Dataset,
    function: Callable[[Any], Tensor],
    preset: str | Mapping[str, Any],
    *,
    copies: int,
    seed: int,
    first: int = 0,
    workers: int = 2,
) -> Tensor:
    """``function`` of augmented views of all samples: (copies, N, width) float32 on the CPU, in the order of the data.

    Copy c is the view of epoch ``first`` + c under ``seed``: it depends only on these and the sample's id. The model
    works in evaluation mode; where it has a frozen backbone the views are of the backbone's features.
    """
    views = model.views.with_presets([preset])
    views.seed = seed
    dataset = model.featurised(dataset, workers=workers)

    def results() -> Iterator[Tensor]:
        for raw, _, ids in scan_batches(dataset, workers=workers, device=model.device):
            raw = on_device(raw, model.device)
            yield torch.stack([function(views(raw, ids, copy)[0]) for copy in range(first, first + copies)])

    with scanning(model.dtype, model.method):
        return torch.cat(list(on_host(results())), dim=1)
