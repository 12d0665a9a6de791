"""Agreement along a hierarchy against a loop over samples, with classes and predictions that have no ancestor."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

from regrain.errors import UserError
from regrain.metrics import accuracy, hierarchy_metrics

LEAVES = 12


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, LEAVES, 90)
    predictions = np.where(random.random(90) < 0.4, labels, random.integers(-1, LEAVES, 90))
    above = {"top": random.integers(-1, 2, LEAVES), "mid": random.integers(-1, 5, LEAVES), "leaf": np.arange(LEAVES)}
    return labels, predictions, above


@pytest.mark.parametrize("seed", range(4))
def test_every_level_against_a_loop(seed: int) -> None:
    labels, predictions, above = drawn(seed)
    found = hierarchy_metrics(torch.tensor(labels), torch.tensor(predictions), above)
    for level, codes in above.items():
        truth, guessed = [], []
        for label, prediction in zip(labels, predictions, strict=True):
            if label >= 0 and codes[label] >= 0:
                truth.append(codes[label])
                guessed.append(codes[prediction] if prediction >= 0 else -1)
        assert found.counted[level] == len(truth)
        hits = [a == b for a, b in zip(truth, guessed, strict=True)]
        assert found.levels[level] == pytest.approx(
            {
                "acc": np.mean(hits),
                "nmi": normalized_mutual_info_score(truth, guessed),
                "ami": adjusted_mutual_info_score(truth, guessed),
                "ari": adjusted_rand_score(truth, guessed),
            }
        )


@pytest.mark.parametrize("seed", range(4))
def test_where_prediction_and_class_meet_against_a_loop(seed: int) -> None:
    labels, predictions, above = drawn(seed)
    met = Counter()
    for label, prediction in zip(labels, predictions, strict=True):
        if label < 0:
            continue
        agreeing = [
            level
            for level in ("leaf", "mid", "top")
            if prediction >= 0 and above[level][label] == above[level][prediction] >= 0
        ]
        met[(agreeing or ["none"])[0]] += 1
    found = hierarchy_metrics(labels, predictions, above).meets
    assert found == pytest.approx({level: met[level] / sum(met.values()) for level in ("leaf", "mid", "top", "none")})
    assert sum(found.values()) == pytest.approx(1)


def test_a_flat_hierarchy_is_the_accuracy() -> None:
    labels, predictions, above = drawn(0)
    found = hierarchy_metrics(labels, predictions, {"leaf": above["leaf"]})
    assert found.levels["leaf"]["acc"] == pytest.approx(accuracy(labels, predictions))
    assert found.meets["leaf"] == found.levels["leaf"]["acc"]


def test_a_level_that_no_sample_reaches_has_no_figure() -> None:
    found = hierarchy_metrics([0, 1, -1], [0, 0, 2], {"top": [-1, -1, 0], "leaf": [0, 1, 2]})
    assert (found.counted, found.levels.keys()) == ({"top": 0, "leaf": 2}, {"leaf"})
    assert found.meets == {"leaf": 0.5, "top": 0.0, "none": 0.5}


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(UserError, match="level 'top' has ancestors of 2 leaf classes, and class 2 occurs"):
        hierarchy_metrics([0, 1], [0, 2], {"top": [0, 0]})
    with pytest.raises(UserError, match=r"predictions must be integers of shape \(2,\)"):
        hierarchy_metrics([0, 1], [0, 1, 2], {"top": [0, 0, 0]})
    with pytest.raises(UserError, match="none of the 2 labels is known"):
        hierarchy_metrics([-1, -1], [0, 1], {"top": [0, 0]})
