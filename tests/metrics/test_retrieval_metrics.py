"""Recall@K, precision@K and MAP@R against loops written from their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support import raises
from torch import Tensor

from regrain.metrics import neighbours, recall_at_k, retrieval_metrics


@pytest.fixture
def embeddings() -> Tensor:
    return torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def labels() -> Tensor:
    codes = torch.randint(0, 6, (60,), generator=torch.Generator().manual_seed(1))
    codes[[3, 17, 40]] = -1
    codes[5] = 99  # the only one of its class
    return codes


def ranked(embeddings: Tensor, labels: Tensor, i: int) -> list[bool]:
    """For labelled query i: whether each other labelled sample shares its class, the most similar first."""
    others = [j for j in range(len(labels)) if j != i and labels[j] >= 0]
    similarity = torch.cosine_similarity(embeddings[i], embeddings[others])
    return [bool(labels[others[j]] == labels[i]) for j in similarity.argsort(descending=True)]


def average_precision(hits: list[bool]) -> float | None:
    r = sum(hits)
    return sum(sum(hits[: rank + 1]) / (rank + 1) for rank in range(r) if hits[rank]) / r if r else None


@pytest.mark.parametrize("block", [2**24, 300])
def test_measures_equal_loops(monkeypatch: pytest.MonkeyPatch, embeddings: Tensor, labels: Tensor, block: int) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", block)
    found = retrieval_metrics(embeddings, labels, ks=[1, 5, 56])
    lists = [ranked(embeddings, labels, i) for i in range(60) if labels[i] >= 0]
    for k in (1, 5, 56):
        assert found.hits[k].tolist() == [any(hits[:k]) for hits in lists]
        assert found.recall[k] == pytest.approx(np.mean([any(hits[:k]) for hits in lists]))
        assert found.precision[k] == pytest.approx(np.mean([sum(hits[:k]) / k for hits in lists]))
    precisions = [p for p in map(average_precision, lists) if p is not None]
    assert found.map_at_r == pytest.approx(np.mean(precisions))
    assert found.average_precision is not None
    np.testing.assert_allclose(found.average_precision, precisions)
    assert (found.unlabelled, found.unmatched) == (3, 1)


def test_recall_alone_equals_recall_among_all(embeddings: Tensor, labels: Tensor) -> None:
    recall = recall_at_k(embeddings.numpy(), labels.numpy(), [1, 2, 10])
    assert recall == retrieval_metrics(embeddings, labels, ks=[1, 2, 10]).recall


def test_unlabelled_rows_count_on_neither_side(embeddings: Tensor, labels: Tensor) -> None:
    known = labels >= 0
    assert recall_at_k(embeddings, labels, [1, 3]) == recall_at_k(embeddings[known], labels[known], [1, 3])


def test_duplicates_of_other_classes_are_misses() -> None:
    """Each image appears twice under two labels: its nearest other sample is of the wrong class."""
    vectors = torch.randn(8, 4, generator=torch.Generator().manual_seed(2)).repeat(2, 1)
    labels = torch.arange(16)
    assert recall_at_k(vectors, labels, [1]) == {1: 0.0}
    assert recall_at_k(vectors, labels % 8, [1]) == {1: 1.0}


def test_separate_gallery_equals_loop(embeddings: Tensor, labels: Tensor) -> None:
    query, items, truth, classes = embeddings[:20], embeddings[20:], labels[:20], labels[20:]
    found = retrieval_metrics(query, truth, ks=[2], gallery=items, gallery_labels=classes)
    hits, precisions, unmatched = [], [], 0
    for vector, label in zip(query, truth, strict=True):
        if label < 0:
            continue
        order = torch.cosine_similarity(vector, items[classes >= 0]).argsort(descending=True)
        same = (classes[classes >= 0][order] == label).tolist()
        hits.append(any(same[:2]))
        unmatched += not any(same)
        precisions += [average_precision(same)] if any(same) else []
    assert found.hits[2].tolist() == hits
    assert found.map_at_r == pytest.approx(np.mean(precisions))
    assert found.unmatched == unmatched == 1


def test_nothing_to_retrieve_is_a_miss_without_a_map() -> None:
    found = retrieval_metrics(torch.eye(3), torch.arange(3), ks=[1])
    assert (found.recall, found.map_at_r, found.unmatched) == ({1: 0.0}, None, 3)


@pytest.mark.parametrize("ks", [[60], [0], [1, 57], []])
def test_ks_beyond_the_items_are_refused(embeddings: Tensor, labels: Tensor, ks: list[int]) -> None:
    with raises("out_of_range"):
        recall_at_k(embeddings, labels, ks)


def test_errors_name_what_is_wrong(embeddings: Tensor, labels: Tensor) -> None:
    with raises("wrong_shape"):
        recall_at_k(embeddings, labels[:-1], [1])
    with raises("no_labels"):
        recall_at_k(embeddings, torch.full((60,), -1), [1])
    with raises("conflicting_options"):
        retrieval_metrics(embeddings, labels, ks=[1], gallery=embeddings)
