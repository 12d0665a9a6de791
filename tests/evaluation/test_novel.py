"""Protocol ``novel`` and k-means with known classes: what stays, against a naive loop, and what cannot be asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from support import raises
from torch.nn.functional import normalize

from regrain.evaluation import Representation, Task
from regrain.evaluation.evaluate import chosen_protocols
from regrain.evaluation.novel import novel
from regrain.methods import clustering
from regrain.methods.clustering import cluster_within, kmeans_with_known
from regrain.metrics import novel_accuracy


def blobs(each: int = 30, classes: int = 5, noise: float = 0.35) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(classes * each) % classes
    return torch.eye(classes, 8)[truth] + noise * torch.randn(len(truth), 8, generator=generator), truth


def task(train: torch.Tensor, test: torch.Tensor) -> Task:
    return Task("fine", ("a", "b", "c", "d", "e"), test, train)


def naive_kmeans(x: np.ndarray, known: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Lloyd's algorithm from given centres; samples with a known cluster stay."""
    codes = known.copy()
    for _ in range(100):
        for i in range(len(x)):
            if known[i] < 0:
                codes[i] = np.argmin([np.sum((x[i] - c) ** 2) for c in centres])
        centres = np.array([x[codes == k].mean(axis=0) for k in range(len(centres))])
    return codes


def test_known_samples_stay_and_no_start_is_better() -> None:
    x, truth = blobs(12, noise=0.3)
    known = torch.where((truth < 2) & (torch.arange(60) < 30), truth, -1)
    x[0] = -x[0]  # it is nearer to any other centre than to that of its class
    codes, centres = kmeans_with_known(x, known, 5, starts=20)
    assert torch.equal(codes[known >= 0], known[known >= 0])
    torch.testing.assert_close(centres, torch.stack([x[codes == k].mean(dim=0) for k in range(5)]))
    values = x.numpy().astype(float)

    def inertia(found: np.ndarray) -> float:
        return sum(float(((values[found == k] - values[found == k].mean(axis=0)) ** 2).sum()) for k in range(5))

    random, starts = np.random.default_rng(1), []
    for _ in range(20):
        first = [values[known.numpy() == k].mean(axis=0) for k in (0, 1)]
        drawn = values[random.choice(np.flatnonzero(truth.numpy() >= 2), 3, replace=False)]
        starts.append(naive_kmeans(values, known.numpy(), np.array([*first, *drawn])))
    assert inertia(codes.numpy()) <= min(map(inertia, starts)) + 1e-6
    free = naive_kmeans(values, known.numpy(), centres.numpy().astype(float))
    assert np.array_equal(free, codes.numpy())


def test_k_means_without_free_samples_or_with_too_few() -> None:
    x, truth = blobs(4)
    assert torch.equal(kmeans_with_known(x, truth, 5)[0], truth)
    codes, centres = kmeans_with_known(x, truth, 7)
    assert torch.equal(codes, truth)
    assert centres.shape == (7, 8)
    with raises("too_few"):
        kmeans_with_known(x, truth, 4)


def test_of_many_samples_some_of_each_cluster_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    x, truth = blobs(400, noise=0.3)
    known = torch.where((truth < 2) & (torch.arange(len(truth)) % 2 == 0), truth, -1)
    known[known == 1] = torch.where(torch.arange(int((known == 1).sum())) < 1, 1, -1)  # a class of one known sample
    whole, centres = kmeans_with_known(x, known, 5)
    monkeypatch.setattr(clustering, "MOST_FITTED", 300)
    codes, found = kmeans_with_known(x, known, 5)
    assert torch.equal(codes[known >= 0], known[known >= 0])
    torch.testing.assert_close(found[:2], centres[:2], atol=0.1, rtol=0)
    assert adjusted_rand_score(whole, codes) > 0.95
    rows, weights = clustering._representatives(known, 300, 0)
    assert rows is not None
    assert weights is not None
    torch.testing.assert_close(
        (known[rows] + 1).bincount(weights), (known + 1).bincount().float(), atol=1e-2, rtol=1e-5
    )  # each stands for its share


def test_clusters_within_superclasses_keep_known_classes() -> None:
    x, truth = blobs(40)
    coarse = (truth >= 3).long()
    known = torch.where(torch.isin(truth, torch.tensor([1, 4])) & (torch.arange(len(x)) % 3 == 0), truth, -1)
    for options in ({}, {"total": 5}, {"total": 5, "balanced": True}):
        found = cluster_within(x, coarse, known=known, **options)
        assert sorted(found.known.tolist()) == [-1, -1, -1, 1, 4]
        named = found.known[found.codes]
        assert torch.equal(named[known >= 0], known[known >= 0])
        assert torch.equal(found.superclass[found.codes], coarse)
        assert float((named[truth == 1] == 1).double().mean()) > 0.9
        assert novel_accuracy(truth, found.codes, old=[1, 4])["new"] > 0.9
    assert (cluster_within(x, coarse, known=truth, each=1).known >= 0).all()
    with raises("labels_conflict"):
        cluster_within(x, torch.arange(len(x)) % 2, known=known)


def test_old_and_new_figures_against_k_means_by_hand() -> None:
    x, truth = blobs(60)
    train, test = x[:150], x[150:]
    labels = torch.where(torch.isin(truth[:150], torch.tensor([0, 2, 3])), truth[:150], -1)
    labels[::2] = -1
    scores = novel(Representation("model", test, train), task(labels, truth[150:]), cluster_seeds=1)
    place = {0: 0, 2: 1, 3: 2}
    fixed = torch.tensor([place[c] for c in labels.tolist() if c >= 0] + [-1] * len(test))
    codes, _ = kmeans_with_known(normalize(torch.cat([train[labels >= 0], test]), dim=1), fixed, 5)
    expected = novel_accuracy(truth[150:], codes[-len(test) :], old=[0, 2, 3])
    assert {name: score.value for name, score in scores.items()} == {
        f"novel-{name}": value for name, value in expected.items()
    }
    assert min(expected.values()) > 0.85


def test_declared_classes_count_as_never_labelled() -> None:
    x, truth = blobs(60)
    hidden = torch.where(truth[:150] < 3, truth[:150], -1)
    seen = Representation("model", x[150:], x[:150])
    derived = novel(seen, task(hidden, truth[150:]))
    declared = novel(seen, task(truth[:150], truth[150:]), new_classes=("d", "e"))
    assert declared == derived
    own = replace(seen, partitions=truth[150:, None] * 2)
    assert novel(own, task(hidden, truth[150:]))["head1-novel-new"].value == 1.0
    chosen = chosen_protocols(["novel"], {"new_classes": ["d", "e"]})
    assert next(iter(chosen.values()))[0]["new_classes"] == ("d", "e")


def test_what_cannot_be_told_is_said() -> None:
    x, truth = blobs(10)
    seen = Representation("model", x, x)
    given: list[tuple[Representation, Task, dict[str, Any], str]] = [
        (seen, task(truth, truth), {}, "no_labels"),
        (seen, task(torch.full_like(truth, -1), truth), {}, "no_labels"),
        (seen, task(truth, truth), {"new_classes": ("z",)}, "unknown_name"),
        (Representation("model", x), Task("fine", ("a", "b", "c", "d", "e"), truth, None), {}, "unknown_split"),
    ]
    for representation, at, options, code in given:
        with raises(code):
            novel(representation, at, **options)
