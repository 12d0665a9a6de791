"""SCLRE's attention and losses, targets, TSC: against plain loops, golden values, an optimiser and the limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from support import raises
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError
from regrain.objectives import (
    attention_weights,
    cross_instance_attention,
    info_nce_loss,
    match_targets,
    sclre_contrastive_loss,
    target_loss,
    tsc_loss,
    uniform_targets,
)

N, M, D, K, HEADS = 7, 5, 6, 3, 2
LABELS = torch.tensor([0, 1, -1, 2, 0, 1, 0])


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(shared / "golden" / "objectives.npz").items()}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attended(z: Tensor, bank: Tensor | None = None, *, include_self: bool = False, heads: int = HEADS) -> Tensor:
    weights = drawn(8, D, seed=1), drawn(8, D, seed=2), drawn(4, D, seed=3)
    return cross_instance_attention(z, bank, *weights, heads=heads, include_self=include_self)


# Cross-instance attention


def test_attention_is_the_golden_one(golden: dict[str, Tensor]) -> None:
    names = ("sclre_w_query", "sclre_w_key", "sclre_w_value")
    found = cross_instance_attention(golden["sclre_embeddings"], None, *(golden[n] for n in names), heads=8)
    torch.testing.assert_close(found, golden["sclre_enhanced"], rtol=1e-10, atol=1e-12)


def naive_attention(sample: Tensor, candidates: Tensor, heads: int) -> Tensor:
    """One sample, head by head and candidate by candidate."""
    w_query, w_key, w_value = drawn(8, D, seed=1), drawn(8, D, seed=2), drawn(4, D, seed=3)
    parts = []
    for head in range(heads):
        query_rows, value_rows = (slice(head * n // heads, (head + 1) * n // heads) for n in (8, 4))
        query = w_query[query_rows] @ sample
        exps = [math.exp(float(query @ (w_key[query_rows] @ c)) / math.sqrt(8 / heads)) for c in candidates]
        parts.append(sum(e / sum(exps) * (w_value[value_rows] @ c) for e, c in zip(exps, candidates, strict=True)))
    whole = torch.cat(parts)
    return whole / whole.norm()


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_equation(heads: int) -> None:
    z, bank = drawn(N, D, seed=4), drawn(M, D, seed=5)
    for candidates, include_self in ((None, False), (bank, False), (bank, True)):
        expected = [
            naive_attention(row, z if candidates is None else torch.cat([bank, row[None]][: 1 + include_self]), heads)
            for row in z
        ]
        found = attended(z, candidates, include_self=include_self, heads=heads)
        torch.testing.assert_close(found, torch.stack(expected))
    torch.testing.assert_close(attended(z, None, include_self=True), attended(z))


@pytest.mark.parametrize("include_self", [False, True])
def test_rows_of_attention_sum_to_one(include_self: bool) -> None:
    z, weights = drawn(N, D), (drawn(8, D, seed=1), drawn(8, D, seed=2))
    for bank, candidates in ((None, N), (drawn(M, D, seed=5), M + include_self)):
        found = attention_weights(z, bank, *weights, heads=HEADS, include_self=include_self)
        assert found.shape == (HEADS, N, candidates)
        torch.testing.assert_close(found.sum(dim=2), torch.ones(HEADS, N, dtype=torch.float64))
        assert (found > 0).all()
        assert found.std(dim=2).min() > 0.01


def test_the_order_of_the_batch_and_of_the_bank_is_irrelevant() -> None:
    z, bank, rows = drawn(N, D), drawn(M, D, seed=5), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    torch.testing.assert_close(attended(z[rows]), attended(z)[rows])
    enhanced = attended(z, bank, include_self=True)
    torch.testing.assert_close(attended(z[rows], bank.flip(0), include_self=True), enhanced[rows])
    torch.testing.assert_close(attended(z[2:3], bank, include_self=True), enhanced[2:3])
    assert (attended(z[:3]) - attended(z)[:3]).abs().max() > 0.01  # without a bank it is the batch that counts


def test_a_sample_alone_is_its_own_value() -> None:
    z = drawn(N, D)
    alone = functional.normalize(z @ drawn(4, D, seed=3).T, dim=1)
    torch.testing.assert_close(attended(z, z[:0], include_self=True), alone)
    torch.testing.assert_close(attended(z[:1]), alone[:1])


def test_attention_says_what_does_not_fit() -> None:
    z, w = torch.randn(N, D), torch.randn(8, D)
    for arguments, heads, message in (
        ((z, None, w, w, w), 3, "8 output widths cannot be shared out over 3 heads"),
        ((z, None, w, w, w), 0, "cannot be shared out over 0 heads"),
        ((z, None, w, w, w[:7]), 2, "7 output widths"),
        ((z, None, w, w[:4], w), 2, r"w_query and w_key have one shape; got \(8, 6\) and \(4, 6\)"),
        ((z, None, w, w, w[:, :5]), 2, r"a weight of the attention must be floats of shape \(n, 6\)"),
        ((z, z[:, :5], w, w, w), 2, r"bank must be floats of shape \(n, 6\)"),
        ((z[0], None, w, w, w), 2, "embeddings must be floats"),
        ((z, z[:0], w, w, w), 2, "the bank is empty"),
    ):
        with pytest.raises(UserError, match=message):
            cross_instance_attention(*arguments, heads=heads)


# Targets


@pytest.mark.parametrize(("count", "dimension"), [(1, 1), (1, 4), (2, 1), (2, 5), (3, 2), (4, 9), (9, 8), (60, 64)])
def test_few_targets_are_a_simplex(count: int, dimension: int) -> None:
    targets = uniform_targets(count, dimension, seed=3)
    assert targets.shape == (count, dimension)
    assert targets.dtype == torch.float32
    expected = torch.full((count, count), -1 / max(1, count - 1)).fill_diagonal_(1)
    torch.testing.assert_close(targets @ targets.T, expected, rtol=0, atol=1e-4)


def crowding(targets: Tensor, temperature: float) -> Tensor:
    targets = functional.normalize(targets.double(), dim=1)
    return (targets @ targets.T / temperature).logsumexp(dim=1).mean()


def least_crowding(count: int, dimension: int, temperature: float) -> float:
    """The best of several starts of L-BFGS."""

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.tensor(flat, requires_grad=True)
        value = crowding(x.view(count, dimension), temperature)
        value.backward()
        return float(value.detach()), x.grad.numpy()

    starts = (np.random.default_rng(seed).normal(size=count * dimension) for seed in range(8))
    return min(minimize(value_and_gradient, x, jac=True, method="L-BFGS-B").fun for x in starts)


@pytest.mark.parametrize(
    ("count", "dimension", "temperature"), [(5, 2, 0.5), (6, 3, 0.5), (9, 3, 0.5), (9, 3, 0.1), (20, 5, 0.5)]
)
def test_more_targets_are_as_far_apart_as_an_optimiser_gets_them(
    count: int, dimension: int, temperature: float
) -> None:
    least = least_crowding(count, dimension, temperature)
    for seed in range(3):
        targets = uniform_targets(count, dimension, temperature=temperature, seed=seed)
        torch.testing.assert_close(targets.norm(dim=1), torch.ones(count))
        assert float(crowding(targets, temperature)) == pytest.approx(least, abs=1e-3)


def test_targets_on_a_line_take_its_ends() -> None:
    assert sorted(uniform_targets(5, 1).flatten().tolist()) == [-1, -1, 1, 1, 1]
    assert float(uniform_targets(4, 1, seed=1).sum()) == 0


@pytest.mark.parametrize(("count", "dimension"), [(3, 6), (6, 3)])
def test_targets_hang_on_the_seed_alone(count: int, dimension: int) -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first = uniform_targets(count, dimension, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(uniform_targets(count, dimension, seed=5), first)
    assert not torch.allclose(uniform_targets(count, dimension, seed=6), first, atol=0.1)


def test_targets_that_cannot_be() -> None:
    for count, dimension in ((0, 2), (2, 0)):
        with raises("out_of_range"):
            uniform_targets(count, dimension)
    with raises("out_of_range"):
        uniform_targets(2, 2, temperature=0.0)


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_best_permutation(seed: int) -> None:
    centroids, targets = drawn(5, D, seed=seed), functional.normalize(drawn(5, D, seed=100 + seed), dim=1)
    centroids *= torch.tensor([1.0, 9.0, 0.1, 3.0, 1.0])[:, None]  # directions count, lengths do not
    cosines = functional.normalize(centroids, dim=1) @ targets.T
    best = max(itertools.permutations(range(5)), key=lambda p: sum(float(cosines[i, j]) for i, j in enumerate(p)))
    found = match_targets(centroids.requires_grad_(), targets)
    assert found.tolist() == list(best)
    assert found.dtype == torch.int64


def test_matching_needs_as_many_targets_as_classes() -> None:
    with raises("wrong_shape"):
        match_targets(drawn(5, D), drawn(4, D))
    assert sorted(match_targets(torch.zeros(4, D), drawn(4, D).float()).tolist()) == [0, 1, 2, 3]  # none seen yet


# SCLRE's losses


def test_contrastive_adjustment_is_the_golden_one(golden: dict[str, Tensor]) -> None:
    x = golden["sclre_con_embeddings"].requires_grad_()
    loss = sclre_contrastive_loss(x, golden["sclre_labels"], temperature=0.5)
    assert loss.item() == pytest.approx(float(golden["sclre_con_loss"]), rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], golden["sclre_con_grad"], rtol=1e-6, atol=1e-10)


def test_targeted_adjustment_is_the_golden_one(golden: dict[str, Tensor]) -> None:
    """The golden gradient takes unit embeddings as they are; normalised inside, its part along them is lost."""
    x = golden["sclre_target_embeddings"].requires_grad_()
    loss = target_loss(x, golden["sclre_labels"], golden["sclre_targets"], temperature=0.5)
    assert loss.item() == pytest.approx(float(golden["sclre_target_loss"]), rel=1e-9)
    whole, rows = golden["sclre_target_grad"], x.detach()
    tangential = whole - (whole * rows).sum(dim=1, keepdim=True) * rows
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], tangential, rtol=1e-6, atol=1e-10)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / a.norm() / b.norm())


@pytest.mark.parametrize("temperature", [0.5, 0.05])
def test_contrastive_adjustment_is_the_equation(temperature: float) -> None:
    x, known = drawn(N, D), [i for i in range(N) if LABELS[i] >= 0]
    total = 0.0
    for i, j in itertools.permutations(known, 2):
        if LABELS[i] == LABELS[j]:
            pull = math.exp(cosine(x[i], x[j]) / temperature)
            push = sum(math.exp(cosine(x[i], x[k]) / temperature) for k in known if LABELS[k] != LABELS[i])
            total -= math.log(pull / (pull + push))
    found = sclre_contrastive_loss(x, LABELS, temperature=temperature)
    assert float(found) == pytest.approx(total / (2 * len(known)))
    labelled = sclre_contrastive_loss(x[known], LABELS[known], temperature=temperature)
    assert float(found) == pytest.approx(float(labelled))


def test_targeted_adjustment_is_the_equation() -> None:
    x, targets = drawn(N, D), uniform_targets(K, D).double()
    losses = []
    for row, label in zip(x, LABELS.tolist(), strict=True):
        exps = [math.exp(cosine(row, target) / 0.3) for target in targets]
        losses += [-math.log(exps[label] / sum(exps))] if label >= 0 else []
    assert float(target_loss(x, LABELS, targets, temperature=0.3)) == pytest.approx(sum(losses) / len(losses))


def test_one_class_alone_costs_nothing_and_no_class_neither() -> None:
    for labels in (torch.ones(N, dtype=torch.long), torch.full((N,), -1), torch.arange(N)):
        x = drawn(N, D).requires_grad_()
        loss = sclre_contrastive_loss(x, labels)
        assert float(loss.detach()) == 0
        assert not torch.autograd.grad(loss, x)[0].any()
    x = drawn(N, D).requires_grad_()
    loss = target_loss(x, torch.full((N,), -1), uniform_targets(K, D))
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, x)[0].any()


# TSC


def tsc_inputs() -> dict[str, Any]:
    return {
        "query": drawn(N, D),
        "key": functional.normalize(drawn(N, D, seed=1), dim=1),
        "queue": functional.normalize(drawn(9, D, seed=2), dim=1),
        "labels": LABELS,
        "queue_labels": torch.tensor([0, 1, -1, 0, 2, 1, 0, 1, 0]),
        "class_targets": uniform_targets(K, D).double(),
        "positives": torch.rand(N, 9, generator=torch.Generator().manual_seed(0)) < 0.5,
        "candidate_mask": torch.rand(N, 10, generator=torch.Generator().manual_seed(1)) < 0.8,
    }


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("target_weight", [0.0, 0.2])
def test_tsc_is_the_equation(target_weight: float, masked: bool) -> None:
    x = tsc_inputs()
    x["candidate_mask"][:, 0] = True  # the own new key always counts
    x["positives"] &= x["candidate_mask"][:, 1:]
    losses, positives_in_all = [], 0
    for i, label in enumerate(LABELS.tolist()):
        columns = [j for j in range(9) if not masked or x["candidate_mask"][i, 1 + j]]
        candidates = [x["key"][i], *(x["queue"][j] for j in columns), *x["class_targets"]]
        logits = [cosine(x["query"][i], c) / 0.3 for c in candidates]
        logs = [logit - math.log(sum(math.exp(other) for other in logits)) for logit in logits]
        drawn_ones = [1 + n for n, j in enumerate(columns) if x["positives"][i, j] and x["queue_labels"][j] == label]
        drawn_ones = drawn_ones if label >= 0 else []
        loss = -sum(logs[j] for j in [0, *drawn_ones]) / (1 + len(drawn_ones))
        losses.append(loss - (target_weight * logs[len(candidates) - K + label] if label >= 0 else 0))
        positives_in_all += len(drawn_ones)
    assert positives_in_all > 4
    mask = x.pop("candidate_mask")
    found = tsc_loss(**x, candidate_mask=mask if masked else None, temperature=0.3, target_weight=target_weight)
    assert float(found) == pytest.approx(sum(losses) / N)


def test_tsc_without_positives_and_target_term_is_info_nce() -> None:
    """Over key, queue and targets: the targets stay candidates."""
    x = tsc_inputs()
    x["positives"] = torch.zeros(N, 9, dtype=torch.bool)
    x["candidate_mask"][:, 0] = True
    mask = torch.cat([x["candidate_mask"], torch.ones(N, K, dtype=torch.bool)], dim=1)
    expected = info_nce_loss(
        x["query"], x["key"], torch.cat([x["queue"], x["class_targets"]]), temperature=0.3, candidate_mask=mask
    )
    assert float(tsc_loss(**x, temperature=0.3, target_weight=0.0)) == pytest.approx(float(expected))


def test_tsc_says_what_does_not_fit() -> None:
    x = tsc_inputs()
    for change, message in (
        ({"positives": x["positives"][:, :8]}, r"positives must be booleans .* \(7, 9\)"),
        ({"candidate_mask": x["candidate_mask"][:, :9]}, r"candidate_mask must be booleans .* \(7, 10\)"),
        ({"class_targets": x["class_targets"][:, :5]}, r"class_targets must be floats of shape \(n, 6\)"),
        ({"class_targets": x["class_targets"][:2]}, "labels reaches 2, but there are 2 classes"),
        ({"queue_labels": LABELS}, r"queue_labels must be integers of shape \(9,\)"),
        ({"target_weight": -0.1}, "target_weight must be at least 0"),
        ({"target_weight": float("nan")}, "target_weight must be at least 0"),
        ({"temperature": 0.0}, "temperature must be a positive"),
    ):
        with pytest.raises(UserError, match=message):
            tsc_loss(**(x | change))


# All of them

Function = Callable[[Tensor], Tensor]


def tsc_of_query(x: Tensor) -> Tensor:
    return tsc_loss(**(tsc_inputs() | {"query": x}), temperature=0.3)


FUNCTIONS: dict[str, Function] = {
    "attention": lambda x: attended(x),
    "attention-to-a-bank": lambda x: attended(x, drawn(M, D, seed=5).to(x.dtype), include_self=True),
    "contrastive": lambda x: sclre_contrastive_loss(x, LABELS, temperature=0.3),
    "target": lambda x: target_loss(x, LABELS, uniform_targets(K, D).double(), temperature=0.3),
    "tsc": tsc_of_query,
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


@each_function
def test_gradients(name: str) -> None:
    assert torch.autograd.gradcheck(FUNCTIONS[name], drawn(N, D).requires_grad_())


def test_gradients_of_the_weights_of_the_attention() -> None:
    weights = [drawn(8, D, seed=1), drawn(8, D, seed=2), drawn(4, D, seed=3)]
    z, bank = drawn(N, D), drawn(M, D, seed=5)
    for candidates in (None, bank):
        assert torch.autograd.gradcheck(
            lambda *w, candidates=candidates: cross_instance_attention(
                z, candidates, *w, heads=HEADS, include_self=True
            ),
            [w.requires_grad_() for w in weights],
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, weights = drawn(N, D).to(dtype), [drawn(8, D, seed=s).to(dtype) for s in (1, 2, 3)]
    labels, targets = LABELS, uniform_targets(K, D).to(dtype)
    for function in (
        lambda z, w, t: cross_instance_attention(z, z[:4], *w, heads=HEADS, include_self=True),
        lambda z, w, t: sclre_contrastive_loss(z, labels),
        lambda z, w, t: target_loss(z, labels, t),
    ):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = function(z, weights, targets)
        assert found.dtype == torch.float32
        exact = function(z.double(), [w.double() for w in weights], targets.double())
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


@each_function
@pytest.mark.parametrize("scale", [1e-12, 1e4])
def test_tiny_huge_and_zero_embeddings_are_finite(name: str, scale: float) -> None:
    x = scale * drawn(N, D)
    x[1] = 0
    value = FUNCTIONS[name](x.requires_grad_())
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize(
    "loss", [sclre_contrastive_loss, lambda x, y, **t: target_loss(x, y, uniform_targets(8, D), **t)]
)
def test_labels_and_temperatures_are_checked(loss: Callable[..., Tensor]) -> None:
    x = drawn(N, D)
    with raises("wrong_shape"):
        loss(x, LABELS[:5])
    with raises("out_of_range"):
        loss(x, LABELS, temperature=-1.0)
    with raises("wrong_shape"):
        loss(x[0], LABELS)
