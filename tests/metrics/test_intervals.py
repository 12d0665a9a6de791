"""Intervals against SciPy, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from regrain.errors import UserError
from regrain.metrics import bootstrap_interval, intervals, student_interval


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


def test_equal_values_have_no_width() -> None:
    assert student_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)
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
    with pytest.raises(UserError, match="resamples must be at least 1"):
        bootstrap_interval([0.0, 1.0], seed=0, resamples=0)
