"""The core loss and the in-batch and self forms, against loops written from the equations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support import raises
from torch import Tensor

from regrain.errors import UserError
from regrain.objectives import in_batch_logits, info_nce_loss, key_and_queue_logits, soft_contrastive, supcon_loss


def naive_contrast(logits: list[list[float]], relation: list[list[float]], counts: list[list[bool]]) -> float:
    """methods.md section 1, one candidate at a time."""
    losses = []
    for row, weights, allowed in zip(logits, relation, counts, strict=True):
        candidates = [j for j in range(len(row)) if allowed[j]]
        if not any(weights[j] for j in candidates):
            continue
        partition = sum(math.exp(row[j]) for j in candidates)
        losses.append(-sum(weights[j] * (row[j] - math.log(partition)) for j in candidates))
    return sum(losses) / len(losses) if losses else 0.0


def naive_supcon(embeddings: Tensor, labels: list[int], temperature: float, sample: list[int] | None = None) -> float:
    """Khosla et al., eq. 2; with ``sample``, unlabelled rows contrast their own views with everything."""
    vectors = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in embeddings.tolist()]
    losses = []
    for i, label in enumerate(labels):
        others = [a for a in range(len(labels)) if a != i]
        if label >= 0:
            candidates = [a for a in others if labels[a] >= 0]
            positives = [p for p in candidates if labels[p] == label]
        else:
            candidates = others if sample else []
            positives = [p for p in candidates if sample and sample[p] == sample[i]]
        if not positives:
            continue
        score = {a: sum(x * y for x, y in zip(vectors[i], vectors[a], strict=True)) / temperature for a in candidates}
        partition = math.log(sum(math.exp(s) for s in score.values()))
        losses.append(-sum(score[p] - partition for p in positives) / len(positives))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def gradient(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def test_core_equals_loop(random: torch.Generator) -> None:
    logits = torch.randn(6, 9, generator=random, dtype=torch.float64)
    relation = torch.rand(6, 9, generator=random, dtype=torch.float64)
    relation[torch.rand(6, 9, generator=random) < 0.5] = 0
    relation[2] = 0
    mask = torch.rand(6, 9, generator=random) < 0.7
    mask[4] = False
    expected = naive_contrast(logits.tolist(), relation.tolist(), mask.tolist())
    assert soft_contrastive(logits, relation, candidate_mask=mask).item() == pytest.approx(expected, rel=1e-12)
    hidden = logits.masked_fill(~mask, -torch.inf)
    assert soft_contrastive(hidden, relation).item() == pytest.approx(expected, rel=1e-12)


def test_masked_candidate_leaves_the_softmax_a_zero_relation_does_not() -> None:
    logits, relation = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert soft_contrastive(logits, relation).item() == pytest.approx(math.log(3))
    assert soft_contrastive(logits, relation, candidate_mask=mask).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("masked", [False, True])
def test_core_without_any_relation_is_zero_with_zero_gradient(masked: bool) -> None:
    logits = torch.randn(3, 4, requires_grad=True)
    relation = torch.ones(3, 4) if masked else torch.zeros(3, 4)
    loss = soft_contrastive(logits, relation, candidate_mask=torch.zeros(3, 4, dtype=torch.bool) if masked else None)
    assert loss.item() == 0
    assert gradient(loss, logits)[0].eq(0).all()


def test_core_gradient(random: torch.Generator) -> None:
    logits = torch.randn(4, 5, generator=random, dtype=torch.float64, requires_grad=True)
    relation = torch.rand(4, 5, generator=random, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False, True, True]] * 3 + [[False] * 5])
    assert torch.autograd.gradcheck(lambda x, r: soft_contrastive(x, r, candidate_mask=mask), (logits, relation))


def test_nan_is_not_hidden() -> None:
    assert soft_contrastive(torch.tensor([[math.nan, 0.0]]), torch.tensor([[0.0, 1.0]])).isnan()


def test_logits_are_cosines_over_temperature(random: torch.Generator) -> None:
    query, key, queue = (torch.randn(n, 5, generator=random) for n in (3, 3, 7))
    key, queue = F.normalize(key), F.normalize(queue)
    logits = key_and_queue_logits(query, key, queue, temperature=0.2)
    assert logits.shape == (3, 8)
    torch.testing.assert_close(logits[:, 0], F.cosine_similarity(query, key) / 0.2)
    torch.testing.assert_close(logits[:, 1:], F.cosine_similarity(query[:, None], queue[None], dim=2) / 0.2)
    within = in_batch_logits(query, temperature=0.2)
    assert within.diagonal().eq(-torch.inf).all()
    expected = F.cosine_similarity(query[:, None], query[None], dim=2) / 0.2
    off = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(within[off], expected[off])


def test_info_nce_equals_loop_and_core(random: torch.Generator) -> None:
    query, key, queue = (F.normalize(torch.randn(n, 4, generator=random, dtype=torch.float64)) for n in (5, 5, 6))
    mask = torch.rand(5, 7, generator=random) < 0.6
    mask[:, 0] = torch.tensor([True, True, True, False, True])
    logits = [[float(q @ c) / 0.2 for c in [k, *queue]] for q, k in zip(query, key, strict=True)]
    relation = [[1.0] + [0.0] * 6] * 5
    loss = info_nce_loss(3 * query, key, queue, temperature=0.2, candidate_mask=mask)
    assert loss.item() == pytest.approx(naive_contrast(logits, relation, mask.tolist()), rel=1e-12)
    own = torch.tensor(relation, dtype=torch.float64)
    assert info_nce_loss(query, key, queue, temperature=0.2).item() == pytest.approx(
        soft_contrastive(key_and_queue_logits(query, key, queue, temperature=0.2), own).item(), rel=1e-12
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_supcon_golden(shared: Path, temperature: float) -> None:
    golden = np.load(shared / "golden" / "objectives.npz")
    embeddings = torch.tensor(golden["supcon_embeddings"], requires_grad=True)
    loss = supcon_loss(embeddings, torch.tensor(golden["supcon_labels"]), temperature=temperature)
    assert loss.item() == pytest.approx(golden[f"supcon_{temperature}_loss"], rel=1e-6)
    np.testing.assert_allclose(gradient(loss, embeddings)[0], golden[f"supcon_{temperature}_grad"], rtol=1e-5)


def test_supcon_equals_loop_and_skips_rows_without_positives(random: torch.Generator) -> None:
    embeddings = torch.randn(9, 4, generator=random, dtype=torch.float64)
    labels = [0, 0, 1, 2, 1, 1, 7, 0, 3]
    loss = supcon_loss(embeddings, torch.tensor(labels), temperature=0.3)
    assert loss.item() == pytest.approx(naive_supcon(embeddings, labels, 0.3), rel=1e-12)


def test_supcon_equals_core_with_same_label_relation(random: torch.Generator) -> None:
    embeddings = torch.randn(8, 4, generator=random, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 9])
    relation = (labels[:, None] == labels).double().fill_diagonal_(0)
    relation = relation / relation.sum(dim=1, keepdim=True).clamp(min=1)
    core = soft_contrastive(in_batch_logits(embeddings, temperature=0.2), relation)
    loss = supcon_loss(embeddings, labels, temperature=0.2)
    torch.testing.assert_close(loss, core)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(core, embeddings))


def test_simclr_is_supcon_over_sample_ids(random: torch.Generator) -> None:
    first, second = torch.randn(2, 5, 4, generator=random, dtype=torch.float64)
    together = F.normalize(torch.cat([first, second]))
    logits = (together @ together.T / 0.5).fill_diagonal_(-torch.inf)
    nt_xent = F.cross_entropy(logits, torch.arange(10).roll(5))
    sample = torch.tensor([4, 100, 2, 7, 0]).repeat(2)
    torch.testing.assert_close(supcon_loss(torch.cat([first, second]), sample, temperature=0.5), nt_xent)


def test_supcon_drop_equals_the_labelled_subset(random: torch.Generator) -> None:
    embeddings = torch.randn(8, 4, generator=random, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, -1, 0, 1, -1, 1, 1, -1])
    loss = supcon_loss(embeddings, labels, temperature=0.2)
    subset = supcon_loss(embeddings[labels >= 0], labels[labels >= 0], temperature=0.2)
    torch.testing.assert_close(loss, subset)
    torch.testing.assert_close(gradient(loss, embeddings), gradient(subset, embeddings))


def test_supcon_self_keeps_unlabelled_views_of_one_sample(random: torch.Generator) -> None:
    embeddings = torch.randn(10, 4, generator=random, dtype=torch.float64)
    labels = [0, -1, 0, 1, -1] * 2
    sample = [10, 11, 12, 13, 14] * 2
    loss = supcon_loss(
        embeddings, torch.tensor(labels, dtype=torch.int8), temperature=0.2, sample=torch.tensor(sample), unknown="self"
    )
    assert loss.item() == pytest.approx(naive_supcon(embeddings, labels, 0.2, sample), rel=1e-12)


def test_supcon_self_without_labels_is_simclr(random: torch.Generator) -> None:
    embeddings, sample = torch.randn(6, 4, generator=random), torch.tensor([3, 5, 8, 3, 5, 8])
    loss = supcon_loss(embeddings, -torch.ones(6, dtype=torch.long), temperature=0.1, sample=sample, unknown="self")
    torch.testing.assert_close(loss, supcon_loss(embeddings, sample, temperature=0.1))


@pytest.mark.parametrize("labels", [[-1, -1, -1], [0, 1, 2], [0, -1, -1], []])
@pytest.mark.parametrize("unknown", ["drop", "self"])
def test_supcon_without_a_usable_row_is_zero_with_zero_gradient(labels: list[int], unknown: str) -> None:
    embeddings = torch.randn(len(labels), 4, requires_grad=True)
    codes = torch.tensor(labels, dtype=torch.long)
    loss = supcon_loss(embeddings, codes, temperature=0.1, sample=torch.arange(len(labels)), unknown=unknown)
    assert loss.item() == 0
    assert gradient(loss, embeddings)[0].eq(0).all()


def test_supcon_of_equal_embeddings_is_log_of_the_candidates() -> None:
    loss = supcon_loss(torch.ones(10, 3), torch.tensor([0, 1] * 5), temperature=0.07)
    assert loss.item() == pytest.approx(math.log(9), rel=1e-6)


def test_supcon_of_one_class_pulls_all_pairs(random: torch.Generator) -> None:
    embeddings = torch.randn(5, 3, generator=random, dtype=torch.float64)
    loss = supcon_loss(embeddings, torch.zeros(5, dtype=torch.long), temperature=0.4)
    assert loss.item() == pytest.approx(naive_supcon(embeddings, [0] * 5, 0.4), rel=1e-12)


def test_supcon_asks_for_what_it_needs() -> None:
    embeddings, labels = torch.ones(2, 3), torch.zeros(2, dtype=torch.long)
    with raises("conflicting_options"):
        supcon_loss(embeddings, labels, temperature=0.1, unknown="self")
    with pytest.raises(UserError, match=r'"drop" or "self"'):
        supcon_loss(embeddings, labels, temperature=0.1, unknown="skip")  # type: ignore[arg-type]
    with raises("wrong_shape"):
        supcon_loss(embeddings, labels.float(), temperature=0.1)
