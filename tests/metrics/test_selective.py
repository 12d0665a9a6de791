"""Thresholds that keep a promise: by hand, against published values, and in draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from support import raises

from regrain.metrics import answers_at, guaranteed_threshold, risk_coverage_area, root_threshold

Draw = tuple[np.ndarray, np.ndarray]


def draw(generator: np.random.Generator, count: int, bent: float) -> Draw:
    """Paths of two levels; bent 1: masses are calibrated, above 1 too sure, below 1 not sure enough."""
    coarse = 1 - 0.7 * generator.random(count) ** 3
    share = generator.uniform(0.2, 1, count)
    mass = np.stack([coarse, coarse * share], axis=1)
    upper = generator.random(count) < coarse**bent
    lower = upper & (generator.random(count) < share**bent)
    return mass, np.stack([upper, lower], axis=1).astype(int)


def misses(count: int, bent: float, draws: int, *, precision: float = 0.9, confidence: float = 0.9) -> tuple[int, int]:
    """How often the promise is broken among so many draws, and how often there is a threshold."""
    generator = np.random.default_rng(int(1000 * bent) + count)
    future = draw(generator, 200_000, bent)
    broken = found = 0
    for _ in range(draws):
        threshold = guaranteed_threshold(*draw(generator, count, bent), precision=precision, confidence=confidence)
        if threshold is not None:
            found += 1
            broken += answers_at(*future, threshold).precision < precision
    return broken, found


@pytest.mark.parametrize("count", [50, 500])
@pytest.mark.parametrize("bent", [1.0, 3.0, 0.4])
def test_the_promise_is_kept(count: int, bent: float) -> None:
    broken, found = misses(count, bent, 150)
    assert broken <= binom.ppf(0.999, 150, 0.1)
    assert found > 75 or (count, bent) == (50, 3.0)  # fifty samples of masses that are far too sure may be too few


@pytest.mark.slow
@pytest.mark.parametrize("count", [50, 200, 1000, 5000])
@pytest.mark.parametrize("bent", [1.0, 3.0, 0.4])
def test_the_promise_is_kept_in_a_thousand_draws(count: int, bent: float) -> None:
    broken, _ = misses(count, bent, 1000)
    print(f"n {count}, bent {bent}: {broken} of 1000")
    assert broken <= binom.ppf(0.999, 1000, 0.1)


def test_by_hand() -> None:
    mass = np.array([[0.9, 0.8]] * 30 + [[0.9, 0.4]] * 30)
    right = np.array([[1, 1]] * 30 + [[1, 0]] * 30)
    for threshold in (0.75, 0.5, 0.35):
        answered = answers_at(mass, right, threshold)
        expected = 30 / 60 if threshold < 0.4 else 1.0
        assert answered.precision == expected
    grid = [0.85, 0.6, 0.3]
    assert guaranteed_threshold(mass, right, precision=0.9, grid=grid) == 0.6
    assert guaranteed_threshold(mass, right, precision=0.4, confidence=0.8, grid=grid) == 0.3
    assert guaranteed_threshold(mass, 1 - right, precision=0.9, grid=grid) is None
    assert guaranteed_threshold(mass.tolist(), right.tolist(), precision=0.9, grid=[0.9, 0.8]) == 0.8


def test_few_samples_bear_no_promise() -> None:
    for count, enough in ((21, False), (22, True)):
        found = guaranteed_threshold(np.full((count, 1), 0.9), np.ones((count, 1)), precision=0.9, grid=[0.5])
        assert (found is not None) == enough


def test_what_cannot_be_judged_counts_neither_way() -> None:
    generator = np.random.default_rng(0)
    mass, right = draw(generator, 300, 1.0)
    lost = right.copy()
    lost[:100, 1] = -1
    kept = guaranteed_threshold(mass[100:], lost[100:], precision=0.8, grid=[0.9, 0.7, 0.5])
    found = guaranteed_threshold(mass, lost, precision=0.8, grid=[0.9, 0.7, 0.5])
    assert kept is not None
    assert found is not None
    answered = answers_at(mass, lost, 0.0)
    assert answered.judged == 200
    assert np.isnan(answers_at([[0.4]], [[1]], 0.9).precision)
    everything_unknown = np.full_like(right, -1)
    assert guaranteed_threshold(mass, everything_unknown, precision=0.8) is None


def test_ragged_paths_answer_where_they_end() -> None:
    mass = np.array([[0.98, np.nan], [0.98, 0.02]])
    assert answers_at(mass, [[1, -1], [1, 0]], 0.9).level.tolist() == [0, 0]
    assert answers_at(mass, [[1, -1], [1, 0]], 0.01).level.tolist() == [0, 1]


def paths_of(shared: Path) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Golden values, and the paths below the root of the most probable leaves: mass, right, coverage (n, depth)."""
    with np.load(shared / "golden" / "rivals.npz") as file:
        golden = {name.removeprefix("hsc/"): file[name] for name in file.files if name.startswith("hsc/")}
    parents, count = golden["parents"], int(golden["leaves"])

    def above(node: int) -> list[int]:
        found = []
        while parents[node] >= 0:
            found.append(node)
            node = int(parents[node])
        return found[::-1]

    best = golden["p"].argmax(axis=1)
    paths = [above(int(leaf)) for leaf in best]
    depth = max(map(len, paths))
    mass, says = np.full((2, len(paths), depth), np.nan)
    right = np.full((len(paths), depth), -1)
    for i, path in enumerate(paths):
        truth = above(int(golden["y"][i]))
        mass[i, : len(path)] = golden["node_probabilities"][i, path]
        says[i, : len(path)] = golden["coverage_of_node"][path]
        right[i, : len(path)] = [node in truth for node in path]
    assert count == 6
    return golden, mass, right, says


@pytest.mark.parametrize("threshold", ["0.3", "0.5", "0.7", "0.9"])
def test_answers_are_climbing(shared: Path, threshold: str) -> None:
    golden, mass, right, says = paths_of(shared)
    answered = answers_at(mass, right, float(threshold))
    rows = np.arange(len(mass))
    none = answered.level < 0  # the root
    assert np.array_equal(golden[f"right_{threshold}"], none | (right[rows, answered.level] == 1))
    told = np.where(none, 0, says[rows, answered.level])
    assert told.mean() == pytest.approx(float(golden[f"coverage_{threshold}"]), abs=1e-6)


def test_published_thresholds_without_a_rank(shared: Path) -> None:
    golden, mass, right, _ = paths_of(shared)
    tight = golden["tight_thresholds"]
    for target in (0.95, 0.9, 0.8):
        found = root_threshold(mass, right, precision=target, confidence=None)
        rank = int(np.ceil((len(tight) + 1) * target))
        assert found == pytest.approx(np.sort(tight)[rank - 1], abs=2e-6)
    surer = root_threshold(mass, right, precision=0.8, confidence=0.9)
    plain = root_threshold(mass, right, precision=0.8, confidence=None)
    assert surer is not None
    assert plain is not None
    assert surer > plain
    assert root_threshold(mass[:5], right[:5], precision=0.95, confidence=0.9) is None


def test_the_area_is_the_mean_risk_over_coverage() -> None:
    generator = np.random.default_rng(2)
    mass, right = draw(generator, 400, 1.0)
    says = np.tile([0.5, 1.0], (400, 1))
    sorted_ = risk_coverage_area(says, mass, right)
    shuffled = risk_coverage_area(says, mass[generator.permutation(400)], right)
    assert 0 < sorted_ < shuffled
    assert risk_coverage_area(says, mass, np.ones_like(right)) == 0


def test_what_does_not_fit_is_named() -> None:
    with raises("wrong_shape"):
        guaranteed_threshold([0.5], [1], precision=0.9)
    with raises("out_of_range"):
        guaranteed_threshold([[0.5]], [[1]], precision=1.0)
    with raises("out_of_range"):
        root_threshold([[0.5]], [[1]], precision=0.9, confidence=0.0)
    with raises("wrong_shape"):
        guaranteed_threshold([[0.5]], [[1]], precision=0.9, grid=[0.1, 0.9])
    with raises("out_of_range"):
        guaranteed_threshold([[1.5]], [[1]], precision=0.9)
    with raises("out_of_range"):
        guaranteed_threshold([[0.5]], [[2]], precision=0.9)
