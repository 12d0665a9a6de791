"""Intervals against SciPy, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from support import raises

from regrain.errors import UserError
from regrain.metrics import bootstrap_interval, intervals, mean_interval, student_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("n", [2, 1000])
def test_student_equals_scipy(n: int, confidence: float) -> None:
    values = np.random.default_rng(n).normal(size=n)
    mean, half_width = student_interval(torch.tensor(values), confidence)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(confidence)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).random(400)
    mean, low, high = bootstrap_interval(values, seed=1, resamples=4000, confidence=0.9)
    reference = stats.bootstrap((values,), np.mean, n_resamples=4000, confidence_level=0.9, method="percentile")
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(tuple(reference.confidence_interval), abs=0.004)


def test_bootstrap_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    intervals_found = [bootstrap_interval(random.random(200) < 0.7, seed=s, resamples=300) for s in range(200)]
    covered = np.mean([low <= 0.7 <= high for _, low, high in intervals_found])
    assert 0.89 < covered < 0.99


def test_bootstrap_is_fixed_by_its_seed_and_by_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).random(50)
    first = bootstrap_interval(values, seed=7)
    np.random.seed(0)
    assert bootstrap_interval(values, seed=7) == first
    assert bootstrap_interval(values, seed=8) != first
    monkeypatch.setattr(intervals, "RESAMPLED_ELEMENTS", 120)
    assert bootstrap_interval(values, seed=7) == first


@pytest.mark.parametrize("values", [[0.90, 0.94], [0.6, 0.99, 0.999], [0.001, 0.05], [0.0, 1.0], [0.3, 0.9, 1.0]])
def test_intervals_of_shares_stay_within_zero_and_one(values: list[float]) -> None:
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert 0 <= low < mean < high <= 1
    turned = mean_interval([1 - value for value in values])
    assert (turned[1], turned[2]) == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_intervals_of_shares_are_students_where_they_are_narrow() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.002, size=5)
    mean, half_width = student_interval(values)
    assert mean_interval(values) == pytest.approx((mean, mean - half_width, mean + half_width), abs=1e-4)
    assert mean_interval(values, share=False) == pytest.approx((mean, mean - half_width, mean + half_width))
    below = [-0.02, 0.03]  # no shares
    assert mean_interval(below)[1] == pytest.approx(student_interval(below)[0] - student_interval(below)[1])


@pytest.mark.parametrize("truth", [0.6, 0.95])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_intervals_of_shares_cover_the_truth(seeds: int, truth: float) -> None:
    random = np.random.default_rng(4)
    shares = random.beta(truth * 200, (1 - truth) * 200, size=(2000, seeds))  # as of 200 test samples
    found = np.array([mean_interval(row) for row in shares])
    covered = np.mean((found[:, 1] <= truth) & (truth <= found[:, 2]))
    assert 0.93 < covered < 0.975


def test_equal_values_have_no_width() -> None:
    assert student_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)
    assert mean_interval([1.0, 1.0]) == (1.0, 1.0, 1.0)
    assert bootstrap_interval([1.0, 1.0], seed=0) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "confidence", "message"),
    [
        ([1.0], 0.95, "at least two values"),
        ([[1.0, 2.0]], 0.95, "at least two values"),
        ([1.0, float("nan")], 0.95, "1 of 2 values are not finite"),
        ([1.0, 2.0], 1.0, "confidence must lie between 0 and 1"),
    ],
)
def test_errors_name_what_is_wrong(values: list[float], confidence: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        student_interval(values, confidence)
    with pytest.raises(UserError, match=message):
        bootstrap_interval(values, seed=0, confidence=confidence)


def test_resamples_are_checked() -> None:
    with raises("out_of_range"):
        bootstrap_interval([0.0, 1.0], seed=0, resamples=0)
