"""Retrieval in which some of the samples query all of the others."""

from __future__ import annotations

import pytest
import torch
from support import raises

from regrain.metrics import retrieval_metrics


def test_drawn_queries_find_what_they_find_among_all_queries() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(300, 5).round() + 0.5  # with many duplicates
    labels = torch.randint(-1, 6, (300,))
    whole = retrieval_metrics(vectors, labels, ks=[1, 5])
    drawn = torch.tensor([0, 3, 7, 50, 51, 120, 299])
    some = retrieval_metrics(vectors, labels, ks=[1, 5], queries=drawn)
    places = (labels >= 0).cumsum(0) - 1
    kept = places[drawn[labels[drawn] >= 0]]
    assert 0 < len(kept) < len(drawn)
    for k in (1, 5):
        assert torch.equal(some.hits[k], whole.hits[k][kept])
    assert some.unlabelled == whole.unlabelled


def test_queries_have_no_gallery_of_their_own() -> None:
    vectors, labels = torch.eye(4), torch.zeros(4, dtype=torch.long)
    with raises("conflicting_options"):
        retrieval_metrics(vectors, labels, ks=[1], gallery=vectors, gallery_labels=labels, queries=[0])


@pytest.mark.parametrize("count", [40, 41])
def test_the_protocol_draws_above_a_count(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from regrain.evaluation import retrieval

    monkeypatch.setattr(retrieval, "_MOST_QUERIES", 40)
    torch.manual_seed(0)
    found = retrieval.per_query(torch.randn(count, 4), torch.arange(count) % 3, ks=[1])
    assert len(found["recall@1"]) == 40
