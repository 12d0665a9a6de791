"""Two gloo processes with different and unequal halves find what one process finds with the whole batch."""

from __future__ import annotations

import gc
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from regrain.objectives import gather, maskcon_loss, supcon_loss

HALVES = slice(0, 5), slice(5, 8)


def _batch() -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)
    inputs = {name: torch.randn(8, 6, generator=random, dtype=torch.float64) for name in ("first", "second")}
    queue = nn.functional.normalize(torch.randn(10, 3, generator=random, dtype=torch.float64))
    labels = torch.tensor([0, 1, 0, -1, 1, 1, 0, 2])
    return inputs | {"labels": labels, "queue": queue, "queue_labels": torch.arange(10) % 3 - 1}


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


def _losses(model: nn.Module, batch: dict[str, Tensor], rows: slice) -> list[Tensor]:
    first, second = model(batch["first"][rows]), model(batch["second"][rows])
    labels = gather(batch["labels"][rows], with_gradient=False)
    whole_first, whole_second = gather(first, with_gradient=True), gather(second, with_gradient=True)
    key = nn.functional.normalize(gather(second, with_gradient=False))
    supcon = supcon_loss(torch.cat([whole_first, whole_second]), labels.repeat(2), temperature=0.2)
    maskcon = maskcon_loss(
        whole_first,
        key,
        batch["queue"],
        labels,
        batch["queue_labels"],
        temperature=0.1,
        soft_temperature=0.1,
        weight=0.8,
    )
    return [supcon, maskcon]


def _values_and_gradients(model: nn.Module, rows: slice) -> list[Tensor]:
    found = []
    for index in range(2):
        model.zero_grad()
        loss = _losses(model, _batch(), rows)[index]
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
    return found


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    flags = gather(torch.tensor([True, False])[rank:], with_gradient=False)
    halves = gather(torch.full((1 - rank, 2), 7.0, dtype=torch.bfloat16), with_gradient=False)
    model = nn.parallel.DistributedDataParallel(_model())
    torch.save([*_values_and_gradients(model, HALVES[rank]), flags, halves], f"{folder}/{rank}.pt")
    del model
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    expected = _values_and_gradients(_model(), slice(None))
    for rank in range(2):
        *found, flags, halves = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert flags.tolist() == [True, False, False]
        assert halves.tolist() == [[7.0, 7.0]]


def test_one_process_gathers_its_own_rows() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert gather(rows, with_gradient=True) is rows
    assert not gather(rows, with_gradient=False).requires_grad
