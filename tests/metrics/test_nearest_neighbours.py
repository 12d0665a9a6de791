"""Exact neighbours against a full stable sort; duplicates, ties, blocks and both ways through one set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from regrain.errors import UserError
from regrain.metrics import nearest_neighbours, neighbours


def brute_force(query: Tensor, gallery: Tensor, k: int, exclude_self: bool) -> tuple[Tensor, Tensor]:
    similarity = F.normalize(query.double()) @ F.normalize(gallery.double()).T
    if exclude_self:
        similarity.fill_diagonal_(-torch.inf)
    value, index = similarity.sort(dim=1, descending=True, stable=True)
    return value[:, :k], index[:, :k]


@pytest.mark.parametrize("block", [2**22, 16**2, 32**2])
@pytest.mark.parametrize("k", [1, 7, 40])
@pytest.mark.parametrize("exclude_self", [False, True])
def test_within_one_set(monkeypatch: pytest.MonkeyPatch, block: int, k: int, exclude_self: bool) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", block)
    vectors = torch.randn(150, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value, index = nearest_neighbours(vectors, vectors, k, exclude_self=exclude_self)
    expected_value, expected_index = brute_force(vectors, vectors, k, exclude_self)
    assert index.equal(expected_index)
    torch.testing.assert_close(value, expected_value)


@pytest.mark.parametrize("k", [1, 10])
@pytest.mark.parametrize("spread", [0.1, 10.0])
def test_many_blocks_of_data_in_the_order_of_its_classes(
    monkeypatch: pytest.MonkeyPatch, k: int, spread: float
) -> None:
    """Most blocks change little in what was found before, those of a class's own much."""
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 128**2)
    random = torch.Generator().manual_seed(5)
    centres = torch.randn(7, 6, generator=random, dtype=torch.float64).repeat_interleave(100, dim=0)
    vectors = centres + spread * torch.randn(700, 6, generator=random, dtype=torch.float64)
    expected = brute_force(vectors, vectors, k, True)
    for gallery in (vectors, vectors.clone()):
        value, index = nearest_neighbours(vectors, gallery, k, exclude_self=True)
        assert index.equal(expected[1])
        torch.testing.assert_close(value, expected[0])


@pytest.mark.parametrize("block", [2**22, 16**2, 48**2])
@pytest.mark.parametrize("k", [1, 5, 130, 300])
def test_between_two_sets(monkeypatch: pytest.MonkeyPatch, block: int, k: int) -> None:
    """The last two k are beyond what is kept up to date from block to block."""
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", block)
    random = torch.Generator().manual_seed(1)
    query, gallery = (torch.randn(n, 8, generator=random, dtype=torch.float64) for n in (20, 300))
    value, index = nearest_neighbours(query, gallery, k, exclude_self=False)
    expected_value, expected_index = brute_force(query, gallery, k, False)
    assert index.equal(expected_index)
    torch.testing.assert_close(value, expected_value)


@pytest.mark.parametrize("block", [2**22, 16**2, 64**2])
@pytest.mark.parametrize("k", [1, 6, 45, 130])
def test_of_equal_similarities_the_first_come_first(monkeypatch: pytest.MonkeyPatch, block: int, k: int) -> None:
    """Signs in few dimensions: similarities are exact multiples of 1/4 and tie everywhere."""
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", block)
    signs = torch.randn(400, 4, generator=torch.Generator().manual_seed(2)).sign()
    for gallery in (signs, signs.clone()):  # one triangle, and all products
        _, index = nearest_neighbours(signs, gallery, k, exclude_self=True)
        assert index.equal(brute_force(signs, signs, k, True)[1])


def test_collapsed_embeddings_retrieve_the_first_others() -> None:
    _, index = nearest_neighbours(np.ones((5, 3), dtype=np.float32), np.ones((5, 3)), 2, exclude_self=True)
    assert index.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]


def test_a_duplicate_is_retrieved_the_sample_itself_is_not() -> None:
    vectors = torch.tensor([[1.0, 2.0], [1.0, 2.0], [-1.0, 0.0]])
    assert nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1][:2].flatten().tolist() == [1, 0]


def test_settings_of_training_do_not_reach_the_products() -> None:
    vectors = torch.randn(40, 64, generator=torch.Generator().manual_seed(3))
    expected = nearest_neighbours(vectors, vectors, 5, exclude_self=True)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = nearest_neighbours(vectors, vectors, 5, exclude_self=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found[0].equal(expected[0])
    assert found[1].equal(expected[1])


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("cuts", [[10], [1, 2, 3], [7, 7, 30], [25]])  # 7, 7: an empty shard
def test_a_gallery_in_shards_is_the_whole_gallery(
    cuts: list[int], exclude_self: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_ELEMENTS", 36)  # blocks of 6 rows, across which and within which shards end
    signs = torch.randint(0, 2, (40, 4), generator=torch.Generator().manual_seed(5)).float() * 2 - 1  # many ties
    for k in (1, 5, 39):
        expected = nearest_neighbours(signs, signs.clone(), k, exclude_self=exclude_self)
        found = nearest_neighbours(signs, list(signs.tensor_split(cuts)), k, exclude_self=exclude_self)
        assert found[1].equal(expected[1])
        assert found[0].equal(expected[0])


def test_shards_may_be_memory_maps_of_another_precision(tmp_path: Path) -> None:
    gallery = torch.randn(50, 8, generator=torch.Generator().manual_seed(6)).numpy()
    query, shards = gallery[:5].astype(np.float64), []
    for number, rows in enumerate(np.array_split(gallery, 3)):
        np.save(tmp_path / f"{number}.npy", rows)
        shards.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    value, index = nearest_neighbours(query, shards, 3, exclude_self=False)
    assert value.dtype == torch.float64
    assert index.equal(nearest_neighbours(query, gallery, 3, exclude_self=False)[1])


def test_what_is_wrong_in_a_shard_names_the_shard() -> None:
    with pytest.raises(UserError, match=r"gallery\[1\] must be finite: 1 of 2 rows are not, the first is row 1"):
        nearest_neighbours(np.eye(2), [np.eye(2), np.array([[0.0, 1.0], [np.nan, 0.0]])], 1, exclude_self=False)
    with pytest.raises(UserError, match="query has 2 dimensions, gallery 3"):
        nearest_neighbours(np.eye(2), [np.eye(2), np.eye(3)], 1, exclude_self=False)
    with pytest.raises(UserError, match="each query has 0 to retrieve"):
        nearest_neighbours(np.eye(2), [], 1, exclude_self=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    vectors = torch.randn(30, 8, generator=torch.Generator().manual_seed(4)).to(dtype)
    value, index = nearest_neighbours(vectors, vectors, 3, exclude_self=True)
    assert value.dtype == torch.float32
    assert index.equal(brute_force(vectors, vectors, 3, True)[1])


@pytest.mark.parametrize(
    ("query", "gallery", "k", "exclude_self", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 2), 3, True, "each query has 2 to retrieve besides itself"),
        (torch.ones(3, 2), torch.ones(3, 2), 4, False, "each query has 3 to retrieve: "),
        (torch.ones(3, 2), torch.ones(3, 2), 0, False, "k = 0"),
        (torch.ones(3, 2), torch.ones(3, 3), 1, False, "2 dimensions, gallery 3"),
        (torch.ones(3, 2), torch.ones(4, 2), 1, True, "got 3 and 4"),
        (torch.ones(3), torch.ones(3, 2), 1, False, r"query must be floats of shape \(n, d\)"),
        (torch.ones(0, 2), torch.ones(3, 2), 1, False, "n at least 1"),
        (torch.ones(3, 2), torch.ones(3, 2).long(), 1, False, "gallery must be floats"),
        (torch.tensor([[1.0], [float("nan")]]), torch.ones(2, 1), 1, False, "1 of 2 rows are not, the first is row 1"),
    ],
)
def test_errors_name_what_is_wrong(query: Tensor, gallery: Tensor, k: int, exclude_self: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        nearest_neighbours(query, gallery, k, exclude_self=exclude_self)
