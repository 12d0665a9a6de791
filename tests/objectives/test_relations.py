"""Relations between batch and queue, against loops written from the equations, the golden values and the limits."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import raises
from torch import Tensor

from regrain.objectives import (
    coins_loss,
    grafit_loss,
    info_nce_loss,
    key_and_queue_logits,
    maskcon_loss,
    maskcon_relation,
    nnclr_loss,
    soft_contrastive,
    supcon_queue_loss,
)

SOFT = {"temperature": 0.1, "soft_temperature": 0.2, "weight": 0.7}


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_queue_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    coarse: list[int],
    queue_coarse: list[int],
    *,
    temperature: float,
    soft_temperature: float | None,
    weight: float,
    mask: list[list[bool]] | None = None,
) -> tuple[float, list[list[float]]]:
    """MaskCon eq. 8-15 (Grafit: no soft temperature) with the rule for unknown labels: loss and relation."""
    keys, entries, losses, relations = key.tolist(), queue.tolist(), [], []
    for i, anchor in enumerate(F.normalize(query).tolist()):
        counts = mask[i] if mask else [True] * (1 + len(entries))
        same = [
            j for j, c in enumerate(queue_coarse) if counts[1 + j] and coarse[i] != -1 and c != -1 and c == coarse[i]
        ]
        soft = [0.0] * len(entries)
        if same and soft_temperature is None:
            for j in same:
                soft[j] = 1.0
        elif same and soft_temperature is not None:
            exps = {j: math.exp(dot(keys[i], entries[j]) / soft_temperature) for j in same}
            z = {j: exps[j] / sum(exps.values()) for j in same}
            for j in same:
                soft[j] = z[j] / max(z.values())
        masked = [1.0, *soft]
        relation = [weight * m / sum(masked) + (1 - weight) * (j == 0) for j, m in enumerate(masked)]
        relations.append(relation)
        is_self = relation[0] == 1
        candidates = [
            j for j in range(1 + len(entries)) if counts[j] and (j == 0 or is_self or queue_coarse[j - 1] != -1)
        ]
        logits = {j: dot(anchor, keys[i] if j == 0 else entries[j - 1]) / temperature for j in candidates}
        partition = math.log(sum(math.exp(x) for x in logits.values()))
        losses.append(-sum(relation[j] * (logits[j] - partition) for j in candidates))
    return sum(losses) / len(losses), relations


@pytest.fixture
def batch() -> dict[str, Any]:
    """Queries 0-2 have entries of their label, 3 has none (label 5), 4 is unlabelled; so are queue entries 2 and 6."""
    random = torch.Generator().manual_seed(1)
    query, key, queue = (torch.randn(n, 4, generator=random, dtype=torch.float64) for n in (5, 5, 8))
    return {
        "query": query.requires_grad_(),
        "key": F.normalize(key),
        "queue": F.normalize(queue),
        "coarse": torch.tensor([0, 1, 0, 5, -1]),
        "queue_coarse": torch.tensor([0, 1, -1, 0, 1, 1, -1, 2]),
    }


def own_keys_out(batch: dict[str, Any]) -> Tensor:
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[0, 1], mask[1, 2], mask[2, 4], mask[4, 3] = False, False, False, False
    return mask


@pytest.fixture
def golden(shared: Path) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in np.load(shared / "golden" / "objectives.npz").items()}


def golden_inputs(golden: dict[str, Tensor]) -> tuple[Tensor, ...]:
    names = "query", "key", "queue", "coarse", "queue_coarse"
    return golden["query"].requires_grad_(), *(golden[name] for name in names[1:])


@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_maskcon_golden(golden: dict[str, Tensor], case: str) -> None:
    temperature, soft_temperature, weight = golden[f"maskcon_{case}_args"].tolist()
    query, *rest = golden_inputs(golden)
    loss = maskcon_loss(query, *rest, temperature=temperature, soft_temperature=soft_temperature, weight=weight)
    torch.testing.assert_close(loss, golden[f"maskcon_{case}_loss"], rtol=1e-6, atol=0)
    found = torch.autograd.grad(loss, query)[0]
    torch.testing.assert_close(found, golden[f"maskcon_{case}_grad"], rtol=1e-5, atol=1e-12)


def test_grafit_golden(golden: dict[str, Tensor]) -> None:
    query, *rest = golden_inputs(golden)
    loss = grafit_loss(query, *rest, temperature=0.1, weight=0.8)
    torch.testing.assert_close(loss, golden["grafit_loss"], rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss, query)[0], golden["grafit_grad"], rtol=1e-5, atol=1e-12)


def test_coins_golden(golden: dict[str, Tensor]) -> None:
    query, key, queue, coarse, _ = golden_inputs(golden)
    logits = golden["class_logits"].requires_grad_()
    loss = coins_loss(query, key, queue, logits, coarse, temperature=0.1, weight=0.5)
    torch.testing.assert_close(loss, golden["coins_loss"], rtol=1e-6, atol=0)
    for found, name in zip(torch.autograd.grad(loss, (query, logits)), ("grad", "grad_logits"), strict=True):
        torch.testing.assert_close(found, golden[f"coins_{name}"], rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("soft_temperature", [None, 0.2])
def test_losses_equal_loop(batch: dict[str, Any], masked: bool, weight: float, soft_temperature: float | None) -> None:
    mask = own_keys_out(batch) if masked else None
    settings = {"temperature": 0.3, "weight": weight}
    if soft_temperature is None:
        loss = grafit_loss(**batch, **settings, candidate_mask=mask)
    else:
        loss = maskcon_loss(**batch, **settings, soft_temperature=soft_temperature, candidate_mask=mask)
    plain = {name: value.tolist() if "coarse" in name else value.detach() for name, value in batch.items()}
    expected, _ = naive_queue_loss(
        **plain, **settings, soft_temperature=soft_temperature, mask=mask.tolist() if mask is not None else None
    )
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_relations_equal_loop_and_sum_to_one(batch: dict[str, Any]) -> None:
    plain = {name: value.tolist() if "coarse" in name else value.detach() for name, value in batch.items()}
    labels = {name: batch[name] for name in ("coarse", "queue_coarse")}
    soft = maskcon_relation(batch["key"], batch["queue"], **labels, soft_temperature=0.2, weight=0.7)
    flat = maskcon_relation(batch["key"], batch["queue"], **labels, soft_temperature=math.inf, weight=0.7)
    for relation, soft_temperature in ((soft, 0.2), (flat, None)):
        _, expected = naive_queue_loss(**plain, temperature=1, soft_temperature=soft_temperature, weight=0.7)
        torch.testing.assert_close(relation, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(relation.sum(dim=1), torch.ones(5, dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_large_soft_temperature_comes_near_grafit(batch: dict[str, Any]) -> None:
    torch.testing.assert_close(
        maskcon_loss(**batch, **SOFT | {"soft_temperature": 1e9}), grafit_loss(**batch, temperature=0.1, weight=0.7)
    )


def test_vanishing_soft_temperature_leaves_self_and_the_nearest(batch: dict[str, Any]) -> None:
    labels = {name: batch[name] for name in ("coarse", "queue_coarse")}
    relation = maskcon_relation(batch["key"], batch["queue"], **labels, soft_temperature=1e-12, weight=1.0)
    for i, same in enumerate([[0, 3], [1, 4, 5], [0, 3]]):
        nearest = max(same, key=lambda j: float(batch["key"][i] @ batch["queue"][j]))
        expected = torch.zeros(9, dtype=torch.float64)
        expected[[0, 1 + nearest]] = 0.5
        torch.testing.assert_close(relation[i], expected)


def test_weight_zero_is_info_nce(batch: dict[str, Any]) -> None:
    expected = info_nce_loss(batch["query"], batch["key"], batch["queue"], temperature=0.1)
    for loss in (maskcon_loss(**batch, **SOFT | {"weight": 0.0}), grafit_loss(**batch, temperature=0.1, weight=0.0)):
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(
            torch.autograd.grad(loss, batch["query"], retain_graph=True)[0],
            torch.autograd.grad(expected, batch["query"], retain_graph=True)[0],
        )


def test_grafit_is_the_weighted_sum_of_supcon_and_self_contrast(batch: dict[str, Any]) -> None:
    batch["queue_coarse"] = batch["queue_coarse"].clamp(min=0)  # with unlabelled entries the two mask differently
    supcon = supcon_queue_loss(*batch.values(), temperature=0.1)
    selfcon = info_nce_loss(batch["query"], batch["key"], batch["queue"], temperature=0.1)
    torch.testing.assert_close(grafit_loss(**batch, temperature=0.1, weight=0.3), 0.3 * supcon + 0.7 * selfcon)


def test_one_coarse_class_is_the_unsupervised_soft_form(batch: dict[str, Any]) -> None:
    batch["coarse"], batch["queue_coarse"] = torch.full((5,), 3), torch.full((8,), 3)
    soft = (batch["key"] @ batch["queue"].T / 0.2).softmax(dim=1)
    relation = torch.cat([torch.ones(5, 1), soft / soft.max(dim=1, keepdim=True).values], dim=1)
    relation = 0.7 * relation / relation.sum(dim=1, keepdim=True)
    relation[:, 0] += 0.3
    logits = key_and_queue_logits(batch["query"], batch["key"], batch["queue"], temperature=0.1)
    torch.testing.assert_close(maskcon_loss(**batch, **SOFT), soft_contrastive(logits, relation))


def test_all_similarities_equal_is_log_of_the_candidates() -> None:
    same = torch.ones(4, 3) / math.sqrt(3)
    coarse = torch.tensor([0, 1, 0, 1])
    args = 2 * same, same, same, coarse, coarse
    for loss in (maskcon_loss(*args, **SOFT), grafit_loss(*args, temperature=0.1, weight=0.8)):
        assert loss.item() == pytest.approx(math.log(5), rel=1e-6)


def test_unlabelled_queue_entries_leave_the_softmax_of_labelled_queries(batch: dict[str, Any]) -> None:
    labelled = batch["queue_coarse"] >= 0
    rows = slice(0, 3)  # these have entries of their label
    query, key, coarse = batch["query"][rows], batch["key"][rows], batch["coarse"][rows]
    loss = maskcon_loss(query, key, batch["queue"], coarse, batch["queue_coarse"], **SOFT)
    without = maskcon_loss(query, key, batch["queue"][labelled], coarse, batch["queue_coarse"][labelled], **SOFT)
    torch.testing.assert_close(loss, without)


def test_queries_without_label_or_partner_fall_back_to_self(batch: dict[str, Any]) -> None:
    rows = slice(3, 5)
    query, key = batch["query"][rows], batch["key"][rows]
    loss = maskcon_loss(query, key, batch["queue"], batch["coarse"][rows], batch["queue_coarse"], **SOFT)
    torch.testing.assert_close(loss, info_nce_loss(query, key, batch["queue"], temperature=0.1))


def test_masked_own_keys_equal_a_queue_without_them(batch: dict[str, Any]) -> None:
    """Removing the queue's nearest same-class entry changes maximum, softmax and denominator alike."""
    one = {name: value[:1] if name in ("query", "key", "coarse") else value for name, value in batch.items()}
    for entry in (0, 3):
        mask = torch.ones(1, 9, dtype=torch.bool)
        mask[0, 1 + entry] = False
        kept = torch.arange(8) != entry
        shorter = one | {"queue": one["queue"][kept], "queue_coarse": one["queue_coarse"][kept]}
        torch.testing.assert_close(maskcon_loss(**one, **SOFT, candidate_mask=mask), maskcon_loss(**shorter, **SOFT))


def test_masked_own_key_drops_its_term(batch: dict[str, Any]) -> None:
    mask = torch.ones(5, 9, dtype=torch.bool)
    mask[[1, 4], 0] = False  # query 4 has no other positive, so it does not count; query 1 has
    relation = maskcon_relation(
        batch["key"], batch["queue"], batch["coarse"], batch["queue_coarse"], soft_temperature=0.2, weight=0.7
    )
    logits = key_and_queue_logits(batch["query"], batch["key"], batch["queue"], temperature=0.1)
    known = F.pad(batch["queue_coarse"] >= 0, (1, 0), value=True).expand(5, -1).clone()
    known[3:] = True
    expected = soft_contrastive(logits, relation, candidate_mask=mask & known)
    torch.testing.assert_close(maskcon_loss(**batch, **SOFT, candidate_mask=mask), expected)


def test_empty_queue_gives_zero_loss_for_a_lone_candidate(batch: dict[str, Any]) -> None:
    batch |= {"queue": batch["queue"][:0], "queue_coarse": batch["queue_coarse"][:0]}
    for loss in (
        maskcon_loss(**batch, **SOFT),
        grafit_loss(**batch, temperature=0.1, weight=0.5),
        info_nce_loss(batch["query"], batch["key"], batch["queue"], temperature=0.1),
    ):
        assert loss.item() == 0
        assert torch.autograd.grad(loss, batch["query"])[0].abs().max() < 1e-12
    assert maskcon_relation(
        batch["key"], batch["queue"], batch["coarse"], batch["queue_coarse"], soft_temperature=0.1, weight=1.0
    ).equal(torch.ones(5, 1, dtype=torch.float64))


def test_coins_skips_unlabelled_rows_in_the_cross_entropy(batch: dict[str, Any]) -> None:
    vectors = batch["query"], batch["key"], batch["queue"]
    logits = torch.randn(5, 6, dtype=torch.float64)
    loss = coins_loss(*vectors, logits, batch["coarse"], temperature=0.1, weight=0.4)
    cross_entropy = F.cross_entropy(logits[:4], batch["coarse"][:4])
    torch.testing.assert_close(loss, 0.4 * cross_entropy + 0.6 * info_nce_loss(*vectors, temperature=0.1))


def test_coins_without_labels_keeps_only_the_contrast(batch: dict[str, Any]) -> None:
    vectors = batch["query"], batch["key"], batch["queue"]
    logits = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    loss = coins_loss(*vectors, logits, torch.full((5,), -1), temperature=0.1, weight=0.4)
    torch.testing.assert_close(loss, 0.6 * info_nce_loss(*vectors, temperature=0.1))
    assert torch.autograd.grad(loss, logits)[0].eq(0).all()


def test_coins_names_a_label_beyond_the_classes(batch: dict[str, Any]) -> None:
    with raises("out_of_range"):
        coins_loss(*list(batch.values())[:3], torch.zeros(5, 5), batch["coarse"], temperature=0.1, weight=0.5)


def test_nnclr_equals_loop(batch: dict[str, Any]) -> None:
    random = torch.Generator().manual_seed(2)
    prediction = torch.randn(5, 4, generator=random, dtype=torch.float64)
    allowed = torch.rand(5, 8, generator=random) < 0.5
    allowed[3] = False  # no neighbour: the query itself
    query, queue = F.normalize(batch["query"].detach()).tolist(), batch["queue"].tolist()
    others = F.normalize(prediction).tolist()
    losses = []
    for i, vector in enumerate(query):
        entries = [c for j, c in enumerate(queue) if allowed[i, j]]
        neighbour = max(entries, key=lambda c: dot(vector, c)) if entries else vector
        logits = [dot(neighbour, p) / 0.2 for p in others]
        losses.append(math.log(sum(math.exp(x) for x in logits)) - logits[i])
    loss = nnclr_loss(batch["query"], prediction, batch["queue"], temperature=0.2, neighbour_mask=allowed)
    assert loss.item() == pytest.approx(sum(losses) / 5, rel=1e-12)


def test_nnclr_with_an_empty_queue_is_contrast_with_the_query(batch: dict[str, Any]) -> None:
    prediction = torch.randn(5, 4, dtype=torch.float64)
    logits = F.normalize(batch["query"]) @ F.normalize(prediction).T / 0.2
    loss = nnclr_loss(batch["query"], prediction, batch["queue"][:0], temperature=0.2)
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.arange(5)))
