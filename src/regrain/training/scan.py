"""Every sample once, without gradients: what embeddings, predictions, features and E-steps are computed with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regrain.data.dataset import Dataset
from regrain.encoders.half import computing_in

RawBatch = tuple[Any, Tensor, Tensor]
"""Raw samples, labels (B, L), ids (B,)."""

_CPU = torch.device("cpu")

_TEXTS = 4096
"""Texts at a time: enough to sort them by length, and few enough to keep their tokens."""

_VECTORS = 512

_PIXELS, _FEWEST, _MOST = {"cpu": 2**16, "cuda": 2**23}, 8, {"cpu": 512, "cuda": 1024}
"""Of a batch of images: on a CPU activations of more pixels leave its caches, and 224 px run half as fast."""


def on_device(raw: Any, device: torch.device) -> Any:
    """Raw samples on a device: a tensor, the tensors of a dictionary; texts stay where they are.

    Examples
    --------
    >>> on_device({"series": torch.zeros(1, 2, 3)}, torch.device("cpu"))["series"].device
    device(type='cpu')
    >>> on_device(["a text"], torch.device("cpu"))
    ['a text']
    """
    if isinstance(raw, dict):
        return {name: value.to(device, non_blocking=True) for name, value in raw.items()}
    return raw.to(device, non_blocking=True) if isinstance(raw, Tensor) else raw


def in_pinned_memory(raw: Any) -> Any:
    """Raw samples where a GPU can copy them from while it computes; texts stay as they are."""
    if isinstance(raw, dict):
        return {name: values.pin_memory() for name, values in raw.items()}
    return raw.pin_memory() if isinstance(raw, Tensor) else raw


@contextmanager
def scanning(dtype: torch.dtype, *modules: nn.Module | None) -> Iterator[None]:
    """Within it modules are in evaluation mode, their encoders compute in ``dtype``, and nothing has a gradient."""
    modes = {part: part.training for module in modules if module is not None for part in module.modules()}
    for module in modules:
        if module is not None:
            module.eval()
    try:
        with torch.inference_mode(), computing_in(dtype, *modules):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def scan_batches(
    dataset: Dataset,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: torch.device = _CPU,
) -> Iterator[RawBatch]:
    """Every sample once, in the order of the data; of several processes, each has a share.

    ``batch_size``: default: what the device computes fastest. ``workers``: threads that decode images ahead of their
    use; data in memory need none. ``rank``, ``world_size``: this process among how many. ``device``: for a GPU, batches
    lie in pinned memory, from which they are copied while it computes.
    """
    share = torch.arange(len(dataset)).tensor_split(world_size)[rank]
    plan = share.split(batch_size or _batch_size(dataset, device))
    pinned = device.type == "cuda"
    if (dataset.samples.in_memory or workers == 0) and not pinned:
        yield from (_batch(dataset, rows, pinned) for rows in plan)
        return
    workers = max(1, workers)
    taken: deque[Future[RawBatch]] = deque()
    with ThreadPoolExecutor(workers, "regrain-batches") as pool:
        try:
            for rows in plan:
                taken.append(pool.submit(_batch, dataset, rows, pinned))
                if len(taken) > workers:
                    yield taken.popleft().result()
            while taken:
                yield taken.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _batch_size(dataset: Dataset, device: torch.device) -> int:
    if dataset.modality == "text":
        return _TEXTS
    if dataset.modality != "image":
        return _VECTORS
    kind = device.type if device.type in _PIXELS else "cuda"
    _, height, width = dataset.samples.shape
    return max(_FEWEST, min(_MOST[kind], _PIXELS[kind] // (height * width)))


def _batch(dataset: Dataset, rows: Tensor, pinned: bool) -> RawBatch:
    raw = dataset.samples.take(rows)
    return in_pinned_memory(raw) if pinned else raw, dataset.labels.codes[rows], dataset.keys[rows]


def scan_views(
    dataset: Dataset,
    views: Any,
    method: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    *,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[RawBatch]:
    """(un-augmented views, labels, ids) of every sample on a device: what a method looks over before an epoch.

    While it does, its encoders compute in ``dtype``.
    """
    batches = scan_batches(dataset, workers=workers, rank=rank, world_size=world_size, device=device)
    with computing_in(dtype, method):
        for raw, labels, ids in batches:
            yield views.plain(on_device(raw, device)), labels.to(device), ids.to(device)


def on_host(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same rows as float32 on the CPU, each one batch late: a GPU is at the next while they come.

    Examples
    --------
    >>> torch.cat(list(on_host([torch.tensor([1]), torch.tensor([2])])))
    tensor([1., 2.])
    """
    last: Tensor | None = None
    for rows in batches:
        if last is not None:
            yield last.float().cpu()
        last = rows
    if last is not None:
        yield last.float().cpu()
