"""Self-Classifier's loss against the golden values, a plain loop in probabilities, and its limit cases."""

from __future__ import annotations

import gc
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support import raises
from torch import Tensor, nn

from regrain.objectives import gather, self_classifier_loss


@pytest.mark.parametrize("case", [0, 1])
def test_golden_values_and_gradients(shared: Path, case: int) -> None:
    golden = np.load(shared / "golden" / "objectives.npz")
    logits = torch.tensor(golden[f"sc_logits_{case}"], dtype=torch.float64).requires_grad_()
    loss = self_classifier_loss(logits, epsilon=1e-8)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(golden[f"sc_loss_{case}"]), rel=1e-6)
    np.testing.assert_allclose(logits.grad, golden[f"sc_grad_{case}"], rtol=1e-5, atol=1e-10)


def in_probabilities(logits: Tensor, global_views: int, prior: Tensor) -> Tensor:
    """The equations as they stand, pair by pair."""
    samples = logits.shape[1]
    losses = []
    for i, j in itertools.permutations(range(len(logits)), 2):
        if i >= global_views and j >= global_views:
            continue
        target = prior * (logits[i] / 0.05).softmax(dim=0)
        target = target / target.sum(dim=1, keepdim=True)
        prediction = (logits[j] / 0.1).softmax(dim=1)
        prediction = prediction / prediction.sum(dim=0, keepdim=True)
        losses.append(-(target * (samples * prior * prediction).log()).sum() / samples)
    return torch.stack(losses).mean()


def drawn(views: int = 4, samples: int = 9, classes: int = 5, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(views, samples, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("views", [2, 4])
@pytest.mark.parametrize("even", [True, False])
def test_it_is_the_equation(views: int, even: bool) -> None:
    logits = drawn(views).requires_grad_()
    prior = torch.full((5,), 0.2, dtype=torch.float64) if even else torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1]).double()
    loss = self_classifier_loss(logits, class_prior=None if even else prior)
    expected = in_probabilities(logits, 2, prior)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_no_decision_costs_log_c_and_so_does_a_collapse() -> None:
    assert float(self_classifier_loss(torch.zeros(2, 8, 4))) == pytest.approx(math.log(4))
    collapsed = torch.zeros(2, 8, 4)
    collapsed[:, :, 0] = 20.0
    assert float(self_classifier_loss(collapsed)) == pytest.approx(math.log(4), rel=1e-4)
    even = 20 * torch.eye(4).repeat(2, 1).expand(2, 8, 4)
    assert float(self_classifier_loss(even)) == pytest.approx(0, abs=1e-5)


def test_low_temperatures_and_half_precision_stay_finite() -> None:
    logits = drawn(scale=30).float().requires_grad_()
    loss = self_classifier_loss(logits, row_temperature=1e-3, column_temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    half = self_classifier_loss(drawn().bfloat16())
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(self_classifier_loss(drawn())), rel=0.02)


def test_what_cannot_be_asked_is_said() -> None:
    with raises("wrong_shape"):
        self_classifier_loss(torch.zeros(3, 4))
    with raises("too_few"):
        self_classifier_loss(torch.zeros(1, 4, 3))
    with raises("out_of_range"):
        self_classifier_loss(torch.zeros(2, 4, 3), class_prior=torch.tensor([0.5, 0.5, 0.5]))
    with raises("out_of_range"):
        self_classifier_loss(torch.zeros(2, 4, 3), column_temperature=0)


def _gradient(model: nn.Module, rows: slice) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    batch = torch.randn(2, 10, 6, generator=generator, dtype=torch.float64)[:, rows]
    logits = torch.stack([gather(model(view), with_gradient=True) for view in batch])
    loss = self_classifier_loss(logits)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(6, 3).double()


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(_model())
    torch.save(_gradient(model, slice(0, 7) if rank == 0 else slice(7, 10)), f"{folder}/{rank}.pt")
    del model
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    expected = _gradient(_model(), slice(None))
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=1e-10, atol=1e-12)
