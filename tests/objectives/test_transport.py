"""Optimal transport against the golden plan, a plain loop, and what must hold for any plan."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from support import raises
from torch import Tensor

from regrain.errors import RegrainWarning, UserError
from regrain.objectives import _numerics, sinkhorn, sinkhorn_potentials


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(shared / "golden" / "objectives.npz").items()}


def drawn(samples: int = 60, clusters: int = 7, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, clusters, generator=generator, dtype=torch.float64).log_softmax(dim=1)


def plain_loop(log_scores: Tensor, sharpness: float, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sinkhorn and Knopp's two scalings in float64, until nothing moves."""
    kernel = np.exp(sharpness * (log_scores.numpy() - log_scores.numpy().max(axis=1, keepdims=True)))
    right = np.ones(kernel.shape[1])
    for _step in range(20_000):
        left = rows / (kernel @ right)
        right = columns / (kernel.T @ left)
    plan: np.ndarray = left[:, None] * kernel * right
    return plan


def test_golden_plan_and_codes(golden: dict[str, Tensor]) -> None:
    scores = golden["sinkhorn_probabilities"].log()
    plan = sinkhorn(scores, sharpness=float(golden["sinkhorn_sharpness"]), tolerance=1e-10)
    np.testing.assert_allclose(plan, golden["sinkhorn_plan"], rtol=1e-4, atol=1e-12)
    sharp = sinkhorn(golden["sinkhorn25_probabilities"].log(), sharpness=25.0)
    agreement = (sharp.argmax(dim=1) == golden["sinkhorn25_official_codes"]).double().mean()
    assert agreement > 0.98  # 127 of 128: the published routine stops at a loose tolerance


@pytest.mark.parametrize("sharpness", [1.0, 5.0, 25.0])
def test_any_marginals_against_a_plain_loop(sharpness: float) -> None:
    scores = drawn()
    generator = np.random.default_rng(1)
    columns = generator.random(7) + 0.1
    plan = sinkhorn(scores, sharpness=sharpness, cluster_marginal=torch.from_numpy(columns), tolerance=1e-12)
    rows, columns = np.full(60, 1 / 60), columns / columns.sum()
    np.testing.assert_allclose(plan.sum(dim=1), rows, rtol=1e-10)
    np.testing.assert_allclose(plan.sum(dim=0), columns, atol=1e-12)
    if sharpness < 25:  # the loop has not settled there
        np.testing.assert_allclose(plan, plain_loop(scores, sharpness, rows, columns), rtol=1e-6, atol=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = drawn()
    whole = sinkhorn(scores, sharpness=10.0, tolerance=1e-12)
    import importlib

    module = importlib.import_module("regrain.objectives.transport")
    assert module.CHUNK_ELEMENTS == _numerics.CHUNK_ELEMENTS
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", 35)
    torch.testing.assert_close(sinkhorn(scores, sharpness=10.0, tolerance=1e-12), whole, rtol=1e-8, atol=1e-12)


def test_warm_start_needs_no_more_iteration() -> None:
    scores = drawn(400, 20)
    potentials = sinkhorn_potentials(scores, sharpness=25.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sinkhorn(scores, sharpness=25.0, warm_start=potentials, max_iterations=1)
        moved = scores + 1e-4 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(2))
        sinkhorn(moved, sharpness=25.0, warm_start=potentials, max_iterations=6)


def test_too_few_iterations_are_said() -> None:
    with pytest.warns(RegrainWarning, match="misses its cluster marginal by .* after 1 iterations"):
        sinkhorn(drawn(), sharpness=25.0, max_iterations=1)


def test_float32_at_high_sharpness_holds_its_marginals() -> None:
    scores = (10 * drawn(2000, 50).float()).log_softmax(dim=1)
    plan = sinkhorn(scores, sharpness=25.0, tolerance=1e-5)
    assert plan.dtype == torch.float32
    assert float((plan.double().sum(dim=0) - 1 / 50).abs().sum()) < 2e-5


def test_a_cluster_that_no_sample_is_near_gets_its_share() -> None:
    far = drawn()
    far[:, 3] -= 1000
    assert float(sinkhorn(far, sharpness=25.0)[:, 3].sum()) == pytest.approx(1 / 7, abs=1e-6)


def test_a_cluster_without_mass_stays_empty() -> None:
    plan = sinkhorn(drawn(), sharpness=5.0, cluster_marginal=torch.tensor([1.0, 1, 1, 0, 1, 1, 1]))
    assert not plan[:, 3].any()
    assert float(plan[:, 0].sum()) == pytest.approx(1 / 6, abs=1e-6)


def test_one_cluster_takes_all() -> None:
    torch.testing.assert_close(sinkhorn(torch.zeros(4, 1), sharpness=5.0), torch.full((4, 1), 0.25))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sharpness": 0.0}, "sharpness"),
        ({"sharpness": 5.0, "tolerance": 0.0}, "tolerance"),
        ({"sharpness": 5.0, "cluster_marginal": torch.ones(3)}, "7 non-negative"),
        ({"sharpness": 5.0, "cluster_marginal": torch.zeros(7)}, "7 non-negative"),
        ({"sharpness": 5.0, "warm_start": torch.zeros(3)}, "7 potentials"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        sinkhorn(drawn(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_a_score_that_cannot_be_is_named(odd: float) -> None:
    scores = drawn()
    scores[5, 2] = odd
    with raises("not_finite", match="row 5"):
        sinkhorn(scores, sharpness=5.0)


def test_a_row_without_any_allowed_cluster_is_named() -> None:
    scores = drawn()
    scores[5] = -torch.inf
    with raises("not_finite", match="row 5"):
        sinkhorn(scores, sharpness=5.0)


def test_forbidden_pairs_stay_empty() -> None:
    """Samples of two superclasses, each with clusters of its own."""
    scores, first = drawn(60, 6), torch.arange(60) < 30
    scores[:30, 3:] = -torch.inf
    scores[30:, :3] = -torch.inf
    plan = sinkhorn(scores, sharpness=25.0, tolerance=1e-10)
    assert not plan[first][:, 3:].any()
    assert not plan[~first][:, :3].any()
    torch.testing.assert_close(plan.sum(dim=0), torch.full((6,), 1 / 6, dtype=torch.float64))


def test_dead_clusters_are_survived_and_named() -> None:
    scores = drawn()
    scores[:, 3] = -torch.inf
    with pytest.warns(RegrainWarning, match="1 of 7 clusters may be joined by no sample"):
        plan = sinkhorn(scores, sharpness=5.0)
    assert plan.isfinite().all()
    assert not plan[:, 3].any()


def _scores() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(60, 7, generator=generator).mul(2).log_softmax(dim=1)


def _transport(scores: Tensor) -> tuple[Tensor, Tensor]:
    options = {"sharpness": 25.0, "cluster_marginal": torch.arange(1.0, 8.0)}
    return sinkhorn_potentials(scores, **options), sinkhorn(scores, **options)


def _work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    rows = slice(0, 45) if rank == 0 else slice(45, 60)
    potentials, plan = _transport(_scores()[rows])
    torch.save((potentials, plan), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_find_the_plan_of_one(tmp_path: Path) -> None:
    mp.spawn(_work, args=(str(tmp_path),), nprocs=2)
    potentials, plan = _transport(_scores())
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for found, _ in parts:
        torch.testing.assert_close(found, potentials, rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.cat([p for _, p in parts]), plan, rtol=0, atol=1e-6)
    assert torch.allclose(plan.sum(dim=0), torch.arange(1.0, 8.0) / 28, atol=1e-5)


def test_hard_plans_of_well_separated_clusters_converge() -> None:
    """Twelve clusters of 98 to 102 samples: the few that must move stand far from where they have to go."""
    generator = torch.Generator().manual_seed(1)
    means = torch.nn.functional.normalize(torch.randn(12, 16, generator=generator), dim=1)
    sizes = torch.tensor([98, 102] * 6)
    x = means.repeat_interleave(sizes, dim=0) + 0.05 * torch.randn(1200, 16, generator=generator)
    scores = (torch.nn.functional.normalize(x, dim=1) @ means.T / 0.1).log_softmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = sinkhorn(scores, sharpness=25.0, tolerance=1e-4)
    assert float((plan.sum(dim=0) - 1 / 12).abs().sum()) < 2e-4


def test_a_cluster_without_mass_may_have_some_at_the_next_call() -> None:
    scores = drawn()
    potentials = sinkhorn_potentials(scores, sharpness=5.0, cluster_marginal=torch.tensor([1.0, 1, 0, 2, 1, 1, 1]))
    plan = sinkhorn(scores, sharpness=5.0, warm_start=potentials)
    torch.testing.assert_close(plan.sum(dim=0), torch.full((7,), 1 / 7, dtype=torch.float64), atol=1e-6, rtol=0)
