"""The map of embeddings: near stays near, a seed fixes it, and a cache is used only for what it was made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.metrics import recall_at_k
from regrain.pictures import map as module
from regrain.pictures.map import embedding_map

CODES = torch.arange(90) % 3


def vectors() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.eye(3, 8)[CODES] * 5 + torch.randn(90, 8, generator=generator)


def test_clusters_stay_together_and_means_lie_in_them() -> None:
    found = embedding_map(vectors())
    assert found.points.shape == (90, 2)
    centred = torch.from_numpy(found.points - found.points.mean(axis=0))
    assert recall_at_k(centred, CODES, ks=[1])[1] > 0.95
    means = found.means(torch.where(torch.arange(90) < 60, CODES, -1), 4)
    assert np.isnan(means[3]).all()
    for code in range(3):
        own = found.points[(code == CODES).numpy()]
        assert (own.min(axis=0) <= means[code]).all()
        assert (means[code] <= own.max(axis=0)).all()


def test_a_seed_fixes_the_map() -> None:
    assert np.array_equal(embedding_map(vectors(), seed=1).points, embedding_map(vectors(), seed=1).points)


def test_the_cache_is_of_these_embeddings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report" / "map.npz"
    found = embedding_map(vectors(), cache=file)
    calls = []
    monkeypatch.setattr(module, "_tsne", lambda given, *_: calls.append(len(given)) or np.zeros((len(given), 2)))
    assert np.array_equal(embedding_map(vectors(), cache=file).points, found.points)
    assert not calls
    embedding_map(vectors() + 0.1, cache=file)
    embedding_map(vectors() + 0.1, cache=file, seed=3)
    file.write_bytes(b"damaged")
    embedding_map(vectors(), cache=file)
    assert calls == [90, 90, 90]


def test_few_samples_and_duplicates() -> None:
    with pytest.raises(UserError, match="at least 8 samples; there are 7"):
        embedding_map(vectors()[:7])
    assert np.isfinite(embedding_map(torch.eye(4)[torch.arange(12) % 4]).points).all()


def test_scikit_learn_places_where_opentsne_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_open", lambda: False)
    found = torch.from_numpy(embedding_map(vectors(), seed=1).points)
    assert recall_at_k(found - found.mean(dim=0), CODES, ks=[1])[1] > 0.95
