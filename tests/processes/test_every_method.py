"""Every method: two and four processes with different, unequal parts of the batch find what one finds with it all."""

from __future__ import annotations

import copy
import gc
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support import labels_of
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from regrain.checks import hyperparameters
from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.labels import Labels
from regrain.methods import METHODS, Method
from regrain.methods.base import EVERY
from regrain.objectives import gather
from regrain.training.batch_norm import GlobalBatchNorm

pytestmark = pytest.mark.processes

WIDTH, SAMPLES, BATCH, EPOCHS = 12, 60, 24, 3
FINE = torch.arange(SAMPLES) % 6
ENDS = {2: ((15, 33), (BATCH, SAMPLES)), 4: ((7, 10), (15, 33), (18, 40), (BATCH, SAMPLES))}
"""Where the rows of a batch, and of the training set, of each rank end, by the number of processes."""

SETTINGS: dict[str, dict[str, Any]] = {
    "falcon": {"relations_period": 2, "size_weight": 0.1, "neighbours": 4},
    "george": {"coarse_epochs": 1},
    "scan": {"pretext_epochs": 1, "clustering_epochs": 1, "threshold": 0.3},
    "scgm": {"assignment_period": 1, "start_epochs": 2},
    "scgm-a": {"assignment_period": 2, "initial_means": "random"},
    "sclre": {"bank_size": 15, "width": 8, "hidden": 16},
    "sela": {"sharpness": 5.0},  # a harder plan's potentials are loose: no sample stands between two clusters
    "self-classifier": {"class_counts": (4, 6), "local_views": 2, "hidden": 16, "queue_size": 20},
    "tsc": {"positives": 3},
    "self-classifier, neighbours": {
        "class_counts": (4,),
        "hidden": 16,
        "queue_size": 0,
        "neighbours": 4,
        "restarts": 3,
    },
}
"""What lets three epochs of one step each reach every stage."""

NAMES = (*METHODS, "self-classifier, neighbours")
"""All methods, and a second form of one."""

DOUBLE = {"sclre"}
"""In float32 sums over four parts round a gradient of its attention by more than the tolerance, in float64 by 1e-15."""


def build(name: str) -> Method:
    torch.manual_seed(0)
    cls = METHODS[name.partition(",")[0]]
    known = hyperparameters(cls)
    settings = {"subclasses": 6} if "subclasses" in known else {}
    settings |= {"queue_size": 30} if "queue_size" in known else {}
    encoder = build_encoder("mlp", modality="vector", sample_shape=(WIDTH,), hidden=(16,), width=8, seed=0)
    levels = 2 if cls.needs.levels == (EVERY,) else len(cls.needs.levels)
    classes = [6] if cls.needs.levels == ("fine",) else [3, 6][:levels]
    method = cls(encoder, classes, **(settings | SETTINGS.get(name, {})))
    if levels:
        method.setup(Labels.from_codes(labels_of(method, SAMPLES)))
    return method


def shares(rank: int | None, world: int) -> tuple[slice, slice]:
    """Rows of a batch, and of the training set: a rank's, or all."""
    if rank is None:
        return slice(None), slice(None)
    starts = ((0, 0), *ENDS[world])[rank]
    rows, share = (slice(start, end) for start, end in zip(starts, ENDS[world][rank], strict=True))
    return rows, share


class Step(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.method.losses(batch)


def trained(name: str, rank: int | None = None, world: int = 2) -> dict[str, Any]:
    """Losses and gradients of every step, and all that the method holds at the end; of a rank's rows, or of all."""
    torch.set_default_dtype(torch.float64 if name in DOUBLE else torch.float32)
    try:
        return _trained(name, rank, world)
    finally:
        torch.set_default_dtype(torch.float32)


def _trained(name: str, rank: int | None, world: int) -> dict[str, Any]:
    rows, share = shares(rank, world)
    method = build(name)
    generator = torch.Generator().manual_seed(1)
    x = torch.eye(WIDTH)[FINE] * 2 + torch.randn(SAMPLES, WIDTH, generator=generator)
    labels, ids = labels_of(method, SAMPLES), 7 * torch.arange(SAMPLES) % 101
    step: nn.Module = Step(method)
    if dist.is_initialized():
        step = GlobalBatchNorm().apply(step)
        if any(p.requires_grad for p in step.parameters()) and not method.fit_once:
            step = nn.parallel.DistributedDataParallel(step)
    found: dict[str, Any] = {"losses": [], "gradients": []}
    for epoch in range(EPOCHS):
        method.before_epoch(lambda: [(x[share], labels[share], ids[share])])
        if method.fit_once:
            break
        picked = torch.randperm(SAMPLES, generator=generator)[:BATCH]
        views = [x[picked] + 0.3 * torch.randn(BATCH, WIDTH, generator=generator) for _ in views_of(method)]
        batch = Batch(tuple(view[rows] for view in views), labels[picked][rows], ids[picked][rows])
        torch.manual_seed(10 * epoch + (rank or 0))  # as in training, every process draws its own numbers
        method.zero_grad()
        losses = step(batch)
        losses["loss"].backward()
        found["losses"].append({term: value.detach().double() for term, value in losses.items()})
        gradients = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        found["gradients"].append(gradients)
        with torch.no_grad():
            for parameter in method.parameters():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad
        method.after_step()
    method.after_training(lambda: [(x[share], labels[share], ids[share])])
    found["state"] = plain(copy.deepcopy(method.state_dict()))
    return found


def views_of(method: Method) -> tuple[str, ...]:
    given = {"local_views": 2} if method.name == "self-classifier" else {}
    return method.view_names({**{n: p.default for n, p in hyperparameters(type(method)).items()}, **given})


def plain(value: Any) -> Any:
    """Numbers as tensors, mappings as dictionaries: what assert_close compares."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if part is not None}
    return value.detach() if isinstance(value, Tensor) else torch.tensor(value)


def normalised(rank: int | None = None, world: int = 2) -> dict[str, Any]:
    """Outputs, gradients and running statistics of batch normalisation, alone and with timm's activation."""
    rows, _ = shares(rank, world)
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, 4, 4, dtype=torch.float64)
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3), BatchNormAct2d(5)).double()
    if dist.is_initialized():
        net = GlobalBatchNorm().apply(net)
    gather(net(x[rows]) ** 3, with_gradient=True).sum().backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    if dist.is_initialized():
        for gradient in gradients.values():
            dist.all_reduce(gradient)
            gradient /= world
    return {"gradients": gradients, "state": dict(net.state_dict()), "judged": net.eval()(x)}


def work(rank: int, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    found: dict[str, Any] = {}
    for name in NAMES:
        try:
            found[name] = trained(name, rank, world)
        except Exception as error:  # told by the test of this method; the others go on
            found[name] = repr(error)
        gc.collect()
        dist.barrier()
    found["batch norm"] = normalised(rank, world)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def of_several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of several processes found, by method."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(work, args=(str(folder), request.param), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_find_what_one_finds(name: str, of_several: list[dict[str, Any]]) -> None:
    expected = trained(name)
    for found in of_several:
        assert isinstance(found[name], dict), found[name]
        for part, value in expected.items():
            torch.testing.assert_close(
                found[name][part], value, rtol=1e-4, atol=2e-6, msg=lambda m, p=part: f"{p}: {m}"
            )
    first, *others = (found[name]["state"] for found in of_several)
    for other in others:
        torch.testing.assert_close(first, other, rtol=0, atol=0)


def test_batch_normalisation_sees_the_global_batch(of_several: list[dict[str, Any]]) -> None:
    for found in of_several:
        torch.testing.assert_close(found["batch norm"], normalised(), rtol=1e-9, atol=1e-9)


def test_rows_of_one_process_alone_give_something_else() -> None:
    whole, part = trained("maskcon"), trained("maskcon", 0)
    assert abs(whole["losses"][-1]["loss"] - part["losses"][-1]["loss"]) > 1e-2
