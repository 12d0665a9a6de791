"""HOPS against published values and its limits; least expected cost against a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import raises

from regrain.metrics import hops, least_cost_classes


@pytest.mark.parametrize(("k", "key"), [(None, "hops"), (1, "hops_at1"), (2, "hops_at2"), (5, "hops_at5")])
def test_published_values(shared: Path, k: int | None, key: str) -> None:
    with np.load(shared / "golden" / "rivals.npz") as file:
        scores, labels, tree = file["hops/scores"], file["hops/y"], file["hops/similarity"]
        expected = file[f"hops/{key}"]
    assert hops(scores, labels, tree, k=k).numpy() == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_limits() -> None:
    tree = np.array([[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 1], [0, 0, 1, 2]])
    labels = torch.arange(4)
    assert hops(tree, labels, tree).eq(1).all()
    assert hops(-tree, labels, tree).eq(0).all()
    flat = np.eye(3)
    assert hops(flat[[0, 1]], [0, 0], flat).tolist()[0] == 1
    assert len(hops(tree, [-1, 1, -1, 3], tree)) == 2
    assert hops([[1.0, 1.0]], [0], np.ones((2, 2)), k=2).isnan().all()  # no order is wrong


def test_least_cost() -> None:
    generator = np.random.default_rng(0)
    p, cost = generator.dirichlet(np.ones(5), 20), generator.random((5, 5))
    expected = [min(range(5), key=lambda c: sum(cost[c, k] * row[k] for k in range(5))) for row in p]
    assert least_cost_classes(p, cost).tolist() == expected
    assert torch.equal(least_cost_classes(p, 1 - np.eye(5)), torch.from_numpy(p.argmax(axis=1)))


def test_what_does_not_fit_is_named() -> None:
    with raises("wrong_shape"):
        hops([[0.1, 0.9]], [0], np.eye(3))
    with raises("out_of_range"):
        hops([[0.1, 0.9]], [2], np.eye(2))
    with raises("out_of_range"):
        hops([[0.1, 0.9]], [0], np.eye(2), k=3)
    with raises("wrong_shape"):
        least_cost_classes([[0.1, 0.9]], np.eye(3))
