"""Contrast by several levels, against loops written from the equations, other libraries' and the limits."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import raises
from torch import Tensor

from regrain.errors import UserError
from regrain.labels import tree_similarity
from regrain.objectives import (
    hmce_loss,
    jaccard_similarity,
    jaccard_supcon_loss,
    metric_guided_loss,
    multilevel_supcon_loss,
    prototype_logits,
    supcon_loss,
    weighted_supcon_loss,
)

N, D, LEVELS = 9, 4, 3
LABELS = torch.tensor(
    [[0, 0, 0], [0, 0, 1], [0, 1, -1], [1, 2, 2], [1, 2, 2], [-1, -1, -1], [0, 0, 1], [1, -1, -1], [0, 1, 3]]
)
"""A tree with gaps."""


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def vectors(random: torch.Generator, rows: int = N, width: int = D) -> Tensor:
    return torch.randn(rows, width, generator=random, dtype=torch.float64)


def gradient(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def pair_losses(embeddings: Tensor, rows: list[int], temperature: float) -> dict[tuple[int, int], float]:
    """-log softmax of every pair among some rows."""
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in embeddings.tolist()]
    result = {}
    for i in rows:
        scores = {j: sum(map(math.prod, zip(unit[i], unit[j], strict=True))) / temperature for j in rows if j != i}
        partition = math.log(sum(math.exp(s) for s in scores.values())) if scores else 0
        result |= {(i, j): partition - score for j, score in scores.items()}
    return result


def weighted_mean(losses: dict[tuple[int, int], float], weights: dict[tuple[int, int], float]) -> float:
    """The mean over anchors with any weight of the weighted sum of their pairs."""
    anchors = sorted({i for (i, _), weight in weights.items() if weight})
    rows = [sum(losses[pair] * w for pair, w in weights.items() if pair[0] == i) for i in anchors]
    return sum(rows) / len(rows) if rows else 0.0


def naive_supcon(embeddings: Tensor, labels: list[int], temperature: float) -> float:
    known = [i for i, label in enumerate(labels) if label >= 0]
    positives = [(i, j) for i, j in product(known, known) if i != j and labels[i] == labels[j]]
    shares = {(i, j): 1 / sum(i == other for other, _ in positives) for i, j in positives}
    return weighted_mean(pair_losses(embeddings, known, temperature), shares)


# MLCL: a head for every level

TEMPERATURES, WEIGHTS = (0.5, 0.3, 0.1), (0.2, 0.3, 1.5)


def heads_of(random: torch.Generator) -> list[Tensor]:
    return [vectors(random, width=width).requires_grad_() for width in (4, 2, 5)]


def test_levels_are_the_weighted_sum_of_supcon(random: torch.Generator) -> None:
    heads = heads_of(random)
    loss = multilevel_supcon_loss(heads, LABELS, temperatures=TEMPERATURES, weights=WEIGHTS)
    columns = LABELS.T.tolist()
    naive = [naive_supcon(h, c, t) for h, c, t in zip(heads, columns, TEMPERATURES, strict=True)]
    assert all(naive)
    assert loss.item() == pytest.approx(sum(w * x for w, x in zip(WEIGHTS, naive, strict=True)), rel=1e-12)


def test_levels_are_pytorch_metric_learnings(random: torch.Generator) -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses", reason="it comes with the extra bench")
    heads = [head.float().detach().requires_grad_() for head in heads_of(random)]
    loss = multilevel_supcon_loss(heads, LABELS, temperatures=TEMPERATURES, weights=WEIGHTS)
    expected = torch.zeros(())
    for head, column, temperature, weight in zip(heads, LABELS.T, TEMPERATURES, WEIGHTS, strict=True):
        rows = column >= 0
        expected = expected + weight * losses.SupConLoss(temperature)(head[rows], column[rows])
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient(loss, *heads), gradient(expected, *heads), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equal_heads_golden(shared: Path, temperature: float) -> None:
    golden = np.load(shared / "golden" / "objectives.npz")
    embeddings = torch.tensor(golden["supcon_embeddings"], requires_grad=True)
    labels = torch.tensor(golden["supcon_labels"])[:, None].expand(-1, 2)
    temperatures, weights = [temperature] * 2, [0.25, 0.5]
    loss = multilevel_supcon_loss([embeddings] * 2, labels, temperatures=temperatures, weights=weights)
    assert loss.item() == pytest.approx(0.75 * golden[f"supcon_{temperature}_loss"], rel=1e-6)
    np.testing.assert_allclose(gradient(loss, embeddings)[0], 0.75 * golden[f"supcon_{temperature}_grad"], rtol=1e-5)


def test_a_gap_leaves_a_row_out_of_its_level_alone(random: torch.Generator) -> None:
    heads = heads_of(random)
    loss = multilevel_supcon_loss(heads, LABELS, temperatures=TEMPERATURES, weights=WEIGHTS)
    subsets = torch.zeros((), dtype=torch.float64)
    for level, (head, temperature, weight) in enumerate(zip(heads, TEMPERATURES, WEIGHTS, strict=True)):
        rows = LABELS[:, level] >= 0
        alone = multilevel_supcon_loss(
            [head[rows]], LABELS[rows, level : level + 1], temperatures=[temperature], weights=[weight]
        )
        subsets = subsets + alone
    torch.testing.assert_close(loss, subsets)
    torch.testing.assert_close(gradient(loss, *heads), gradient(subsets, *heads))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_gradient_is_that_of_the_papers_section_7(random: torch.Generator, temperature: float) -> None:
    """Each embedding is pulled to its positives' mean and pushed from all others by their softmax, to and from it."""
    embeddings = vectors(random)
    z = (embeddings / embeddings.norm(dim=1, keepdim=True)).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1])
    same = (labels[:, None] == labels).double().fill_diagonal_(0)
    found, *_ = gradient(N * multilevel_supcon_loss([z], labels[:, None], temperatures=[temperature], weights=[1.0]), z)
    with torch.no_grad():
        share = (z @ z.T / temperature).fill_diagonal_(-torch.inf).softmax(dim=1)
        pull = same @ z / same.sum(dim=1, keepdim=True)
        push = (share + share.T) / 2 @ z
        expected = -2 / temperature * (pull - push)
        expected -= (expected * z).sum(dim=1, keepdim=True) * z  # along the sphere
    torch.testing.assert_close(found, expected)


def test_small_temperature_leaves_the_hardest_and_the_positives(random: torch.Generator) -> None:
    embeddings = vectors(random).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1])
    same = (labels[:, None] == labels).double().fill_diagonal_(0)
    z = embeddings / embeddings.norm(dim=1, keepdim=True)
    similarity = z @ z.T
    hardest = similarity.masked_fill(torch.eye(N, dtype=torch.bool), -2).amax(dim=1)
    limit = (hardest - (similarity * same).sum(dim=1) / same.sum(dim=1)).mean()
    temperature = 1e-5
    loss = temperature * multilevel_supcon_loss(
        [embeddings], labels[:, None], temperatures=[temperature], weights=[1.0]
    )
    assert loss.item() == pytest.approx(limit.item(), rel=1e-9)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(limit, embeddings))


def test_large_temperature_weighs_all_candidates_alike(random: torch.Generator) -> None:
    embeddings = vectors(random).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1])
    same = (labels[:, None] == labels).double().fill_diagonal_(0)
    z = embeddings / embeddings.norm(dim=1, keepdim=True)
    similarity = z @ z.T * (1 - torch.eye(N))
    limit = (similarity.sum(dim=1) / (N - 1) - (similarity * same).sum(dim=1) / same.sum(dim=1)).mean()
    temperature = 1e7
    loss = multilevel_supcon_loss([embeddings], labels[:, None], temperatures=[temperature], weights=[1.0])
    assert loss.item() == pytest.approx(math.log(N - 1), abs=1e-6)
    (found,) = gradient(temperature * loss, embeddings)
    torch.testing.assert_close(found, gradient(limit, embeddings)[0], rtol=1e-5, atol=1e-7)


def test_levels_ask_for_what_they_need() -> None:
    heads, labels = [torch.ones(3, 2)] * 2, torch.zeros(3, 2, dtype=torch.long)
    good: dict[str, Any] = {"temperatures": [0.1, 0.1], "weights": [1.0, 1.0]}
    for change in ({"temperatures": [0.1]}, {"weights": [1.0]}):
        with raises("wrong_shape"):
            multilevel_supcon_loss(heads, labels, **good | change)
    with raises("wrong_shape"):
        multilevel_supcon_loss([], labels[:, :0], temperatures=[], weights=[])
    with raises("wrong_shape"):
        multilevel_supcon_loss(heads, labels[:, 0], **good)
    for weight in (-1.0, math.nan):
        with raises("out_of_range"):
            multilevel_supcon_loss(heads, labels, **good | {"weights": [1.0, weight]})
    with raises("out_of_range"):
        multilevel_supcon_loss(heads, labels, **good | {"temperatures": [0.1, 0.0]})


# MLCL's global head

ORDINALS = torch.tensor([[3, 1], [3, 3], [0, 1], [1, 2], [2, 0], [0, 0], [3, 2]])


def naive_overlap(one: list[int], other: list[int]) -> float:
    common = [(a, b) for a, b in zip(one, other, strict=True) if a > 0 and b > 0]
    return sum(min(pair) for pair in common) / sum(max(pair) for pair in common) if common else 0.0


def test_overlap_equals_loop() -> None:
    rows = ORDINALS.tolist()
    expected = torch.tensor([[naive_overlap(one, other) for other in rows] for one in rows])
    torch.testing.assert_close(jaccard_similarity(ORDINALS), expected)
    torch.testing.assert_close(jaccard_similarity(ORDINALS - 5 * (ORDINALS == 0)), expected)  # any number below 1


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8])
def test_overlap_loss_equals_loop(random: torch.Generator, threshold: float) -> None:
    embeddings = vectors(random, len(ORDINALS))
    rows = ORDINALS.tolist()
    known = [i for i, row in enumerate(rows) if any(value > 0 for value in row)]
    overlaps = {(i, j): naive_overlap(rows[i], rows[j]) for i, j in product(known, known) if i != j}
    positives = {pair: s for pair, s in overlaps.items() if s > threshold}
    weights = {(i, j): s / sum(i == other for other, _ in positives) for (i, j), s in positives.items()}
    expected = weighted_mean(pair_losses(embeddings, known, 0.2), weights)
    loss = jaccard_supcon_loss(embeddings, ORDINALS, threshold=threshold, temperature=0.2)
    assert expected > 0
    assert loss.item() == pytest.approx(expected, rel=1e-6)  # the overlap is float32


def test_full_overlap_is_supcon(random: torch.Generator) -> None:
    embeddings = vectors(random)
    labels = torch.tensor([0, 0, 1, -1, 1, 2, 2, -1, 1])
    loss = jaccard_supcon_loss(embeddings, 1 + labels[:, None], threshold=0.99, temperature=0.3)
    torch.testing.assert_close(loss, supcon_loss(embeddings, labels, temperature=0.3))


def test_overlap_loss_asks_for_what_it_needs() -> None:
    embeddings = torch.ones(3, 2)
    for threshold in (-0.1, 1.0, math.nan):
        with raises("out_of_range"):
            jaccard_supcon_loss(embeddings, torch.ones(3, 2, dtype=torch.long), threshold=threshold)
    for wrong in (torch.ones(3, dtype=torch.long), torch.ones(4, 2, dtype=torch.long)):
        with raises("wrong_shape"):
            jaccard_supcon_loss(embeddings, wrong)
    with raises("wrong_shape"):
        jaccard_supcon_loss(embeddings, torch.ones(3, 2))


# Any similarity


def test_a_similarity_of_zero_and_one_is_supcon(random: torch.Generator) -> None:
    embeddings = vectors(random).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 7, 1])
    loss = weighted_supcon_loss(embeddings, (labels[:, None] == labels).double(), temperature=0.2)
    expected = supcon_loss(embeddings, labels, temperature=0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(expected, embeddings))


def test_any_similarity_equals_loop_and_its_scale_is_irrelevant(random: torch.Generator) -> None:
    embeddings = vectors(random)
    similarity = torch.rand(N, N, generator=random, dtype=torch.float64).round(decimals=1)
    similarity[3] = 0
    similarity[3, 3] = 1  # its own does not count
    pairs = {(i, j): float(similarity[i, j]) for i, j in product(range(N), range(N)) if i != j}
    totals = [sum(s for (i, _), s in pairs.items() if i == row) for row in range(N)]
    weights = {(i, j): s / totals[i] if totals[i] else 0.0 for (i, j), s in pairs.items()}
    expected = weighted_mean(pair_losses(embeddings, list(range(N)), 0.2), weights)
    assert weighted_supcon_loss(embeddings, similarity, temperature=0.2).item() == pytest.approx(expected, rel=1e-12)
    scaled = similarity * torch.arange(1, N + 1)[:, None]
    assert weighted_supcon_loss(embeddings, scaled, temperature=0.2).item() == pytest.approx(expected, rel=1e-12)


def test_a_row_that_is_similar_to_none_is_left_out(random: torch.Generator) -> None:
    embeddings = vectors(random).requires_grad_()
    loss = weighted_supcon_loss(embeddings, tree_similarity, LABELS, temperature=0.2)
    rows = LABELS[:, 0] >= 0
    alone = weighted_supcon_loss(embeddings[rows], tree_similarity(LABELS[rows]).double(), temperature=0.2)
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(gradient(loss, embeddings)[0], gradient(alone, embeddings)[0])
    overlap = weighted_supcon_loss(embeddings[:7], jaccard_similarity, ORDINALS, temperature=0.2)
    known = [0, 1, 2, 3, 4, 6]
    expected = weighted_supcon_loss(embeddings[known], jaccard_similarity, ORDINALS[known], temperature=0.2)
    torch.testing.assert_close(overlap, expected)


def test_similarities_are_checked() -> None:
    embeddings = torch.ones(3, 2)
    for given in ((torch.ones(3, 3), torch.zeros(3, 1)), (tree_similarity, None)):
        with raises("conflicting_options"):
            weighted_supcon_loss(embeddings, *given, temperature=0.1)  # type: ignore[arg-type]
    with raises("wrong_shape"):
        weighted_supcon_loss(embeddings, torch.ones(3, 2), temperature=0.1)
    with raises("wrong_shape"):
        weighted_supcon_loss(embeddings, torch.ones(3, 3, dtype=torch.long), temperature=0.1)
    with raises("out_of_range"):
        weighted_supcon_loss(embeddings, -torch.ones(3, 3), temperature=0.1)
    with raises("out_of_range"):
        weighted_supcon_loss(embeddings, torch.ones(3, 3), temperature=0.0)


# HiMulConE


def naive_hmce(embeddings: Tensor, labels: list[list[int]], temperature: float, weights: list[float]) -> float:
    """The formula: level by level from the finest, anchor by anchor, positive by positive."""
    total = 0.0
    finer: set[tuple[int, int]] = set()
    for level in reversed(range(len(weights))):
        known = [i for i, row in enumerate(labels) if row[level] >= 0]
        losses = pair_losses(embeddings, known, temperature)
        bound = max((loss for pair, loss in losses.items() if pair in finer), default=0.0)
        anchors = []
        for i in known:
            positives = [p for p in known if p != i and labels[i][level] == labels[p][level]]
            if positives:
                anchors.append(sum(max(losses[i, p], bound) for p in positives) / len(positives))
                finer |= {(i, p) for p in positives}
        total += weights[level] * sum(anchors) / max(1, len(anchors))
    return total / len(weights)


@pytest.mark.parametrize("weights", [None, [0.3, 2.0, 0.7]])
def test_himulcone_equals_loop(random: torch.Generator, weights: list[float] | None) -> None:
    embeddings = vectors(random)
    loss = hmce_loss(embeddings, LABELS, temperature=0.4, level_weights=weights)
    used = [0.25, 0.5, 1.0] if weights is None else weights
    assert loss.item() == pytest.approx(naive_hmce(embeddings, LABELS.tolist(), 0.4, used), rel=1e-12)
    whole = torch.tensor([[0, 0, 0], [0, 0, 1], [0, 0, 1], [1, 1, 2], [1, 1, 2], [0, 2, 3]])
    unbounded = sum(w * naive_supcon(embeddings[:6], whole[:, level].tolist(), 0.4) / 3 for level, w in enumerate(used))
    bounded = hmce_loss(embeddings[:6], whole, temperature=0.4, level_weights=weights)
    assert bounded.item() > unbounded


@pytest.mark.parametrize("level", range(LEVELS))
def test_a_gap_leaves_a_row_out_of_himulcones_level_alone(random: torch.Generator, level: int) -> None:
    embeddings = vectors(random).requires_grad_()
    weights = [float(at == level) for at in range(LEVELS)]
    loss = hmce_loss(embeddings, LABELS, temperature=0.4, level_weights=weights)
    rows = LABELS[:, level] >= 0
    alone = hmce_loss(embeddings[rows], LABELS[rows], temperature=0.4, level_weights=weights)
    torch.testing.assert_close(loss, alone)
    torch.testing.assert_close(gradient(loss, embeddings)[0], gradient(alone, embeddings)[0])


def test_the_bound_of_himulcone_passes_over_a_level_nobody_knows(random: torch.Generator) -> None:
    embeddings = vectors(random)
    labels = torch.tensor([[0, -1, 0], [0, -1, 0], [0, -1, 1], [1, -1, 2], [1, -1, 2], [0, -1, 1]])
    loss = hmce_loss(embeddings[:6], labels, temperature=0.4)
    assert loss.item() == pytest.approx(naive_hmce(embeddings[:6], labels.tolist(), 0.4, [0.25, 0.5, 1.0]), rel=1e-12)
    without = hmce_loss(embeddings[:6], labels[:, [0, 2]], temperature=0.4, level_weights=[0.25, 1.0])
    assert loss.item() == pytest.approx(without.item() * 2 / 3, rel=1e-12)


def test_himulcone_of_a_row_alone_has_zero_gradient(random: torch.Generator) -> None:
    embeddings = vectors(random, 3).requires_grad_()
    loss = hmce_loss(embeddings, torch.tensor([[0, 0], [0, -1], [-1, -1]]), level_weights=[0.0, 1.0])
    assert loss.item() == 0
    assert not gradient(loss, embeddings)[0].any()


def test_fine_labels_change_himulcone(random: torch.Generator) -> None:
    embeddings, other = vectors(random), LABELS.clone()
    other[[1, 8], 2] = other[[8, 1], 2]
    assert hmce_loss(embeddings, LABELS).item() != pytest.approx(hmce_loss(embeddings, other).item())


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_himulcone_of_one_level_is_supcon(random: torch.Generator, weight: float) -> None:
    embeddings = vectors(random).requires_grad_()
    loss = hmce_loss(embeddings, LABELS[:, 1:2], temperature=0.2, level_weights=[weight])
    expected = weight * supcon_loss(embeddings, LABELS[:, 1], temperature=0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(expected, embeddings))


def test_himulcone_asks_for_what_it_needs() -> None:
    embeddings = torch.ones(3, 2)
    for labels in (torch.zeros(3), torch.zeros(4, 2), torch.zeros(3, 0)):
        with raises("wrong_shape"):
            hmce_loss(embeddings, labels.long())
    for weights in ([1.0], [1.0, -1.0], [1.0, math.nan]):
        with raises("out_of_range"):
            hmce_loss(embeddings, torch.zeros(3, 2).long(), level_weights=weights)
    with raises("out_of_range"):
        hmce_loss(embeddings, torch.zeros(3, 2).long(), temperature=0.0)


# Metric-guided prototypes

TREE = torch.tensor([[0, 2, 4, 4], [2, 0, 4, 4], [4, 4, 0, 2], [4, 4, 2, 0]], dtype=torch.float64)


def distance(one: Tensor, other: Tensor) -> float:
    return math.dist(one.tolist(), other.tolist())


def test_prototype_logits_are_minus_distances(random: torch.Generator) -> None:
    embeddings, prototypes = vectors(random, 5), vectors(random, 3)
    expected = torch.tensor([[-distance(z, p) for p in prototypes] for z in embeddings], dtype=torch.float64)
    torch.testing.assert_close(prototype_logits(embeddings, prototypes), expected)


def test_prototypes_equal_loop_with_the_best_scale(random: torch.Generator) -> None:
    embeddings, prototypes = vectors(random, 5), vectors(random, 4)
    labels = [3, -1, 0, 1, 3]
    found = metric_guided_loss(embeddings, torch.tensor(labels), prototypes, TREE, distortion_weight=0.7)
    data = [
        distance(z, prototypes[y]) + math.log(sum(math.exp(-distance(z, p)) for p in prototypes))
        for z, y in zip(embeddings, labels, strict=True)
        if y >= 0
    ]
    assert found["data"].item() == pytest.approx(sum(data) / len(data), rel=1e-9)

    ratios = np.array(
        [distance(prototypes[k], prototypes[m]) / float(TREE[k, m]) for k in range(4) for m in range(4) if k != m]
    )
    scales = np.linspace(0, 5, 100_001)
    least = min(np.mean((s * ratios - 1) ** 2) for s in scales)
    assert found["distortion"].item() <= least
    assert found["distortion"].item() == pytest.approx(least, rel=1e-6)
    assert found["distortion"].item() > 0.01
    assert found["loss"].item() == pytest.approx(sum(data) / len(data) + 0.7 * least, rel=1e-6)


def test_distortion_is_blind_to_scale(random: torch.Generator) -> None:
    embeddings, prototypes = vectors(random, 5), vectors(random, 4)
    labels = torch.zeros(5, dtype=torch.long)
    small, large = (metric_guided_loss(embeddings, labels, s * prototypes, TREE)["distortion"] for s in (0.1, 10))
    torch.testing.assert_close(small, large)
    placed = torch.eye(4, dtype=torch.float64)  # all alike far from each other
    assert metric_guided_loss(embeddings, labels, placed, (1 - placed) * 3)["distortion"] < 1e-20
    assert metric_guided_loss(embeddings, labels, placed, TREE)["distortion"] > 0.01


def test_one_prototype_and_no_label(random: torch.Generator) -> None:
    embeddings, labels = vectors(random, 3).requires_grad_(), torch.full((3,), -1)
    single = metric_guided_loss(embeddings, torch.zeros(3).long(), vectors(random, 1), torch.zeros(1, 1))
    assert single["loss"].item() == 0
    found = metric_guided_loss(embeddings, labels, vectors(random, 4), TREE, distortion_weight=0)
    assert found["loss"].item() == 0
    assert not gradient(found["loss"], embeddings)[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prototypes_in_one_place_have_finite_gradients(dtype: torch.dtype) -> None:
    prototypes = torch.tensor([[1, 2], [1, 2], [0, 0], [0, 0]], dtype=dtype, requires_grad=True)
    embeddings = torch.tensor([[1, 2], [0, 0.5]], dtype=dtype, requires_grad=True)
    loss = metric_guided_loss(embeddings, torch.tensor([0, 2]), prototypes, TREE.to(dtype))["loss"]
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradient(loss, embeddings, prototypes))
    together = torch.ones(4, 2, dtype=dtype, requires_grad=True)
    (found,) = gradient(
        metric_guided_loss(embeddings, torch.tensor([0, 2]), together, TREE.to(dtype))["loss"], together
    )
    assert found.isfinite().all()


def test_prototypes_ask_for_what_they_need() -> None:
    embeddings, prototypes, labels = torch.ones(2, 3), torch.eye(4)[:, :3], torch.tensor([0, 1])
    tree = TREE.float()
    for change, message in (
        ({"prototypes": torch.ones(4, 2)}, r"prototypes must be floats of shape \(n, 3\)"),
        ({"class_distances": tree[:3]}, r"class_distances must be floats of shape \(4, 4\)"),
        ({"class_distances": torch.zeros(4, 4)}, "class_distances are positive between different classes"),
        ({"labels": torch.tensor([0, 4])}, "labels reaches 4, but there are 4 classes"),
        ({"labels": torch.zeros(2)}, "labels must be integers"),
        ({"distortion_weight": -1.0}, "distortion_weight must be at least 0"),
    ):
        good = {"embeddings": embeddings, "labels": labels, "prototypes": prototypes, "class_distances": tree}
        with pytest.raises(UserError, match=message):
            metric_guided_loss(**good | change)
    small = metric_guided_loss(embeddings, labels.to(torch.int8), prototypes, tree)["loss"]
    torch.testing.assert_close(small, metric_guided_loss(embeddings, labels, prototypes, tree)["loss"])


# What all promise


def _levels(z: Tensor, labels: Tensor) -> Tensor:
    return multilevel_supcon_loss([z, 2 * z, z.flip(1)], labels, temperatures=TEMPERATURES, weights=WEIGHTS)


def _overlap(z: Tensor, labels: Tensor) -> Tensor:
    return jaccard_supcon_loss(z, labels + 1, threshold=0.3, temperature=0.3)


def _similarity(z: Tensor, labels: Tensor) -> Tensor:
    return weighted_supcon_loss(z, jaccard_similarity(labels + 1), temperature=0.3)


def _himulcone(z: Tensor, labels: Tensor) -> Tensor:
    return hmce_loss(z, labels, temperature=0.3)


def _guided(z: Tensor, labels: Tensor) -> Tensor:
    distances = TREE.to(z.dtype)
    prototypes = torch.eye(4, D, dtype=z.dtype) * torch.arange(1, 5)
    return metric_guided_loss(z, labels[:, 2], prototypes, distances, distortion_weight=0)["loss"]


each_loss = pytest.mark.parametrize("loss", [_levels, _overlap, _similarity, _himulcone, _guided])


@each_loss
def test_gradients(loss: Any, random: torch.Generator) -> None:
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), vectors(random).requires_grad_())


def test_gradients_of_heads_and_prototypes(random: torch.Generator) -> None:
    def levels(*heads: Tensor) -> Tensor:
        return multilevel_supcon_loss(heads, LABELS, temperatures=TEMPERATURES, weights=WEIGHTS)

    def guided(z: Tensor, prototypes: Tensor) -> Tensor:
        return metric_guided_loss(z, torch.tensor([3, -1, 0]), prototypes, TREE, distortion_weight=0.7)["loss"]

    assert torch.autograd.gradcheck(levels, tuple(heads_of(random)))
    inputs = vectors(random, 3).requires_grad_(), vectors(random, 4).requires_grad_()
    assert torch.autograd.gradcheck(guided, inputs)


@each_loss
@pytest.mark.parametrize("labels", [[[-1] * 3] * N, [[0, -1, -1], *[[-1] * 3] * (N - 1)]])
def test_without_a_usable_row_loss_and_gradient_are_zero(
    loss: Any, labels: list[list[int]], random: torch.Generator
) -> None:
    z = vectors(random).requires_grad_()
    value = loss(z, torch.tensor(labels))
    assert value.item() == 0
    assert not gradient(value, z)[0].any()


@pytest.mark.parametrize("loss", [_levels, _himulcone])
def test_without_a_pair_loss_and_gradient_are_zero(loss: Any, random: torch.Generator) -> None:
    z = vectors(random).requires_grad_()
    value = loss(z, torch.arange(N)[:, None].expand(N, 3))
    assert value.item() == 0
    assert not gradient(value, z)[0].any()


@each_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss: Any, dtype: torch.dtype, random: torch.Generator) -> None:
    z = vectors(random).to(dtype).requires_grad_()
    value = loss(z, LABELS)
    (found,) = gradient(value, z)
    exact = z.detach().double().requires_grad_()
    expected = loss(exact, LABELS)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert found.dtype == dtype
    assert found.isfinite().all()
