"""SCLRE and TSC: what a prediction hangs on, the bank, losses switched off, targets that follow their classes."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.errors import RegrainWarning, UserError
from regrain.methods import Method, method_class
from regrain.methods import tsc as tsc_module
from regrain.objectives import attention_weights, cross_instance_attention, sclre_contrastive_loss, target_loss

WIDTH, CLASSES, CLUSTERS = 12, 3, 6


def mixture(count: int = 60, *, noise: float = 0.3, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Samples of six clusters, opposite ones in one superclass; superclass and id of each."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(count) % CLUSTERS
    x = 3 * torch.eye(WIDTH)[cluster % CLASSES] * (1 - 2 * (cluster // CLASSES))[:, None]
    return x + noise * torch.randn(count, WIDTH, generator=generator), cluster % CLASSES, 1000 + torch.arange(count)


def build(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    encoder = build_encoder("mlp", modality="vector", sample_shape=(WIDTH,), hidden=(16,), width=8, seed=0)
    small = {"hidden": 16, "width": 16, "heads": 2, "bank_size": 24} if name == "sclre" else {}
    small = {"queue_size": 40, "projector_width": 8} if name == "tsc" else small
    return method_class(name)(encoder, [CLASSES], **(small | settings))


def batch_of(method: Method, x: Tensor, coarse: Tensor, ids: Tensor, noise: float = 0.0) -> Batch:
    return Batch(tuple(x + noise * torch.randn(x.shape) for _ in method.needs.views), coarse[:, None], ids)


def scan_of(x: Tensor, coarse: Tensor, ids: Tensor) -> Any:
    return lambda: [(x[i : i + 25], coarse[i : i + 25, None], ids[i : i + 25]) for i in range(0, len(x), 25)]


def train(
    method: Method, x: Tensor, coarse: Tensor, ids: Tensor, *, steps: int = 30, noise: float = 0.0, rate: float = 0.01
) -> list[float]:
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = method.losses(batch_of(method, x, coarse, ids, noise))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(float(loss.detach()))
    method.after_training(scan_of(x, coarse, ids))
    method.eval()
    return losses


def probabilities(method: Method, x: Tensor) -> Tensor:
    with torch.no_grad():
        return method.predict_proba(x, "coarse")


@pytest.mark.parametrize(
    ("name", "attention"), [("sclre", "bank"), ("sclre", "batch"), ("sclre", "none"), ("tsc", None)]
)
def test_superclasses_whose_members_look_nothing_alike_are_learnt(name: str, attention: str | None) -> None:
    x, coarse, ids = mixture()
    method = build(name, **({} if attention is None else {"attention": attention}))
    hidden = coarse.where(torch.arange(60) % 4 != 3, -1)
    train(method, x, hidden, ids, steps=150, noise=0.5, rate=0.01 if name == "tsc" else 0.003)
    other, truth, _ = mixture(seed=1)
    found = probabilities(method, other)
    assert (found.argmax(dim=1) == truth).float().mean() > 0.95
    torch.testing.assert_close(found.sum(dim=1), torch.ones(60))


# SCLRE: what a prediction hangs on


def test_a_prediction_hangs_on_its_sample_alone_unless_asked_otherwise() -> None:
    x, coarse, ids = mixture()
    trained = build("sclre")
    train(trained, x, coarse, ids, steps=20)
    for attention, alike in (("bank", True), ("none", True), ("batch", False)):
        method = build("sclre", attention=attention)
        method.load_state_dict(trained.state_dict())
        method.eval()
        others, order = mixture(noise=2.0, seed=1)[0], torch.randperm(60)
        together = probabilities(method, others)
        alone = torch.cat([probabilities(method, row[None]) for row in others])
        halves = torch.cat([probabilities(method, others[order[:30]]), probabilities(method, others[order[30:]])])
        for found in (alone, halves[order.argsort()]):
            difference = float((found - together).abs().max())
            assert difference < 1e-6 if alike else difference > 1e-2
        torch.testing.assert_close(probabilities(method, others[order])[order.argsort()], together)


def test_the_bank_is_part_of_the_shared_model() -> None:
    x, coarse, ids = mixture()
    method, other = build("sclre"), build("sclre")
    train(method, x, coarse, ids, steps=5)
    before = probabilities(other.eval(), x)
    tensors = {name: value for name, value in method.shared_state().items() if isinstance(value, Tensor)}
    other.load_state_dict(tensors, strict=False)
    assert torch.equal(probabilities(other, x), probabilities(method, x))
    assert not torch.allclose(before, probabilities(method, x), atol=1e-2)
    method.load_state_dict({"bank_count": torch.tensor(0)}, strict=False)
    assert not torch.allclose(probabilities(method, x), probabilities(other, x), atol=1e-3)


def test_without_attention_an_embedding_is_the_projection() -> None:
    x, coarse, ids = mixture()
    method = build("sclre", attention="none")
    train(method, x, coarse, ids, steps=2)
    projected = functional.normalize(method.projections(x), dim=1)
    torch.testing.assert_close(method.embed(x), projected)
    assert int(method.bank_count) == 0
    with pytest.raises(UserError, match="trained without attention"):
        method.attends_to(x)


def test_a_sample_is_normalised_and_added_to_what_it_attends_to_unless_as_published() -> None:
    x, coarse, ids = mixture()
    method = build("sclre")
    train(method, x, coarse, ids, steps=5)
    z = functional.layer_norm(method.projector(method.encoder(x)), (16,))
    weights = (method.to_query.weight, method.to_key.weight, method.to_value.weight)
    attended = cross_instance_attention(z, method.bank, *weights, heads=2, include_self=True)
    torch.testing.assert_close(method.embed(x), functional.normalize(functional.normalize(z, dim=1) + attended, dim=1))
    published = build("sclre", form="published")
    train(published, x, coarse, ids, steps=5)
    weights = (published.to_query.weight, published.to_key.weight, published.to_value.weight)
    z = published.projector(published.encoder(x))
    expected = cross_instance_attention(z, published.bank, *weights, heads=2, include_self=True)
    torch.testing.assert_close(published.embed(x), expected)
    alone = torch.cat([probabilities(method, row[None]) for row in x])
    torch.testing.assert_close(alone, probabilities(method, x), atol=1e-6, rtol=0)


def test_a_model_whose_bank_is_empty_looks_at_the_sample_itself() -> None:
    for form in ("normalised", "published"):
        method = build("sclre", form=form).eval()
        x = mixture()[0]
        z = method.projections(x)
        alone = functional.normalize(method.to_value(z), dim=1)
        own = functional.normalize(z, dim=1)
        expected = functional.normalize(own + alone, dim=1) if form == "normalised" else alone
        torch.testing.assert_close(method.embed(x), expected)


def test_whom_a_sample_attends_to() -> None:
    x, coarse, ids = mixture()
    method = build("sclre")
    train(method, x, coarse, ids)
    weights, of = method.attends_to(x)
    assert weights.shape == (60, 24)
    assert torch.equal(of, method.bank_ids)
    z = method.projections(x)
    every_head = attention_weights(
        z, torch.cat([method.bank, z[7:8]]), method.to_query.weight, method.to_key.weight, heads=2
    )
    torch.testing.assert_close(weights[7], every_head[:, 7, :24].mean(dim=0))
    torch.testing.assert_close(1 - weights[7].sum(), every_head[:, 7, 24].mean())  # the rest is for itself
    with pytest.raises(UserError, match="no classifier for the fine level"):
        method.predict_proba(x, "fine")


# SCLRE: the loss


@pytest.mark.parametrize("form", ["normalised", "published"])
@pytest.mark.parametrize("attention", ["bank", "batch", "none"])
def test_the_loss_is_the_weighted_sum_over_labelled_samples_of_a_batch(attention: str, form: str) -> None:
    x, coarse, ids = mixture(20)
    coarse = coarse.where(torch.arange(20) % 3 != 0, -1)
    known = coarse >= 0
    settings = {"contrastive_weight": 0.3, "ce_weight": 0.7, "target_weight": 0.9, "temperature": 0.4}
    method = build("sclre", attention=attention, form=form, **settings).eval()
    z = method.projector(method.encoder(x))
    if form == "normalised" and attention != "none":
        z = functional.layer_norm(z, (16,))
    weights = (method.to_query.weight, method.to_key.weight, method.to_value.weight)
    v = functional.normalize(z, dim=1)
    if attention != "none":
        attended = cross_instance_attention(z, None, *weights, heads=2)
        v = attended if form == "published" else functional.normalize(v + attended, dim=1)
    v, y = v[known], coarse[known]
    parts = {
        "contrastive": sclre_contrastive_loss(v, y, temperature=0.4),
        "cross_entropy": functional.cross_entropy(method.classifier(v), y),
        "target": target_loss(v, y, method.targets, temperature=0.4),
    }
    found = method.losses(batch_of(method, x, coarse, ids))
    for name, value in parts.items():
        torch.testing.assert_close(found[name], value)
    expected = 0.3 * parts["contrastive"] + 0.7 * parts["cross_entropy"] + 0.9 * parts["target"]
    torch.testing.assert_close(found["loss"], expected)
    moved = torch.where(known[:, None], x, -x)
    same = torch.allclose(method.losses(batch_of(method, moved, coarse, ids))["loss"], found["loss"])
    assert same == (attention == "none")  # unlabelled samples are there to be attended to


# SCLRE: attention that tells samples apart


STARTS = {
    "vectors": ("mlp", "vector", (WIDTH,), 64),
    "frozen features": ("residual", "vector", (200,), 64),
    "small images": ("conv4", "image", (3, 16, 16), 16),
    "series": ("dccn", "series", (10, 4), 256),
}


@pytest.mark.parametrize("case", STARTS)
@pytest.mark.parametrize("form", ["normalised", "published"])
def test_attention_starts_neither_uniform_nor_as_a_sink_unless_as_published(case: str, form: str) -> None:
    """With the sizes by default, on random samples with much in common."""
    name, modality, shape, batch = STARTS[case]
    torch.manual_seed(0)
    encoder = build_encoder(name, modality=modality, sample_shape=shape, seed=0)
    method = method_class("sclre")(encoder, [CLASSES], form=form)
    x = 0.5 + 0.2 * torch.randn(batch, *shape)
    first = method.losses(Batch((x,), torch.arange(batch)[:, None] % CLASSES, torch.arange(batch)))
    entropy, own, reach = (float(first[f"attention_{what}"]) for what in ("entropy", "own", "reach"))
    if form == "published":
        assert entropy > 0.98
        assert own == pytest.approx(1 / batch, rel=0.5)
        return
    assert entropy == pytest.approx(0.4, abs=0.02)
    assert own > 5 / batch
    assert reach > 0.5
    scale = method.to_query.weight.clone()
    method.losses(Batch((2 * x,), torch.arange(batch)[:, None] % CLASSES, torch.arange(batch)))
    assert torch.equal(method.to_query.weight, scale)  # by the first batch alone


def test_samples_that_coincide_leave_the_start_as_it_is() -> None:
    x, coarse, ids = mixture()
    method = build("sclre")
    before = method.to_query.weight.clone()
    losses = method.losses(batch_of(method, x[:1].repeat(60, 1), coarse, ids))
    assert float(losses["attention_entropy"]) == pytest.approx(1, abs=1e-3)
    assert torch.equal(method.to_query.weight, before)
    assert losses["loss"].isfinite()


class Given(nn.Module):
    """z as it is."""

    width = 16

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("kind", ["uniform", "sink", "neither"])
def test_uniform_attention_and_a_sink_are_warned_of_once(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(40, 16, generator=generator)
    if kind == "sink":  # all are drawn to one long vector
        z = z.abs()
        z[3] *= 50
    method = method_class("sclre")(Given(), [CLASSES], form="published", width=16, heads=2, bank_size=9)
    method.projector = nn.Identity()
    for layer in (method.to_query, method.to_key):
        layer.weight.data = (0.01 if kind == "uniform" else 1.5) * torch.eye(16)
    coarse, ids = torch.arange(40) % CLASSES, torch.arange(40)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            method.before_epoch(scan_of(z, coarse, ids))
            for _ in range(2):
                method.losses(Batch((z,), coarse[:, None], ids))
        method.after_training(scan_of(z, coarse, ids))
    found = [str(one.message) for one in said if one.category is RegrainWarning]
    words = {"uniform": ["nearly uniform"], "sink": ["a sink"], "neither": []}[kind]
    assert len(found) == len(words)
    assert all(word in message and "form=normalised" in message for word, message in zip(words, found, strict=True))


OFF = [
    {"contrastive_weight": 0.0},
    {"ce_weight": 0.0},
    {"target_weight": 0.0},
    {"attention": "none"},
    {"attention": "none", "contrastive_weight": 0.0, "target_weight": 0.0},
    {"ce_weight": 0.0, "contrastive_weight": 0.0},
]


@pytest.mark.parametrize("off", OFF, ids=lambda off: "-".join(off))
def test_every_part_can_be_switched_off_and_every_weight_has_a_gradient(off: dict[str, Any]) -> None:
    x, coarse, ids = mixture()
    method = build("sclre", **off)
    method.losses(batch_of(method, x, coarse, ids))["loss"].backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        idle = ("classifier" in name and off.get("ce_weight") == 0) or (
            name.startswith("to_") and off.get("attention") == "none"
        )
        assert bool(parameter.grad.any()) != idle, name
    losses = train(method, x, coarse, ids)
    assert losses[-1] < losses[0]


def test_targets_lie_as_far_apart_as_can_be_and_stay() -> None:
    x, coarse, ids = mixture()
    method = build("sclre", target_weight=1.0)
    before = method.targets.clone()
    train(method, x, coarse, ids)
    assert torch.equal(method.targets, before)
    expected = torch.full((CLASSES, CLASSES), -1 / (CLASSES - 1)).fill_diagonal_(1)
    torch.testing.assert_close(before @ before.T, expected, rtol=0, atol=1e-4)
    torch.manual_seed(1)
    other = method_class("sclre")(method.encoder, [CLASSES], width=16)
    assert not torch.allclose(other.targets, before, atol=0.1)  # turned by the seed


# SCLRE: the bank


def uneven() -> tuple[Tensor, Tensor, Tensor]:
    """Superclasses of 40, 12 and 4 samples, and 4 unlabelled ones, in no order."""
    x, _, ids = mixture()
    coarse = torch.tensor([0] * 40 + [1] * 12 + [2] * 4 + [-1] * 4)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    return x, coarse[order], ids


def bank_of(method: Any, x: Tensor, coarse: Tensor, ids: Tensor) -> tuple[Tensor, list[int]]:
    """Rows of the samples in the bank, and how many there are of every superclass."""
    method.after_training(scan_of(x, coarse, ids))
    count = int(method.bank_count)
    rows = torch.tensor([ids.tolist().index(i) for i in method.bank_ids[:count].tolist()])
    assert len(rows.unique()) == count
    with torch.no_grad():
        z = method.eval().projections(x[rows])
    torch.testing.assert_close(method.bank[:count], z)
    return rows, torch.bincount(coarse[rows] + 1, minlength=CLASSES + 1).tolist()


@pytest.mark.parametrize(
    ("size", "counts"),
    [(3, [0, 1, 1, 1]), (12, [0, 4, 4, 4]), (20, [0, 8, 8, 4]), (30, [0, 14, 12, 4]), (100, [0, 40, 12, 4])],
)
def test_the_bank_is_shared_out_over_superclasses(size: int, counts: list[int]) -> None:
    assert bank_of(build("sclre", bank_size=size), *uneven())[1] == counts


def test_the_bank_hangs_on_the_seed_and_not_on_the_order_of_samples() -> None:
    x, coarse, ids = uneven()
    rows = bank_of(build("sclre", bank_size=9), x, coarse, ids)[0]
    order = torch.randperm(60)
    again = order[bank_of(build("sclre", bank_size=9), x[order], coarse[order], ids[order])[0]]
    assert torch.equal(again, rows)
    other = build("sclre", bank_size=9)
    other._seed += 1
    assert sorted(bank_of(other, x, coarse, ids)[0].tolist()) != sorted(rows.tolist())


def test_filling_the_bank_leaves_the_training_as_it_was() -> None:
    x, coarse, ids = mixture()
    method = build("sclre").train()
    method.encoder.eval()
    modes = [module.training for module in method.modules()]
    before = {n: v.clone() for n, v in method.named_buffers() if "running" in n or "tracked" in n}
    random = torch.random.get_rng_state()
    method.fill_bank(scan_of(x, coarse, ids))
    assert [module.training for module in method.modules()] == modes
    assert before
    assert all(torch.equal(dict(method.named_buffers())[n], v) for n, v in before.items())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert not method.bank.requires_grad


def test_a_bank_without_any_label_is_refused() -> None:
    x, coarse, ids = mixture()
    with pytest.raises(UserError, match="no training sample has a coarse label"):
        build("sclre").fill_bank(scan_of(x, torch.full_like(coarse, -1), ids))


def test_sclre_says_what_cannot_be() -> None:
    for settings, message in (
        ({"width": 15}, "shared out over 2 heads"),
        ({"bank_size": 2}, "bank_size"),
        ({"temperature": 0.0}, "temperature"),
        ({"contrastive_weight": -0.1}, "contrastive_weight"),
        ({"heads": 0}, "heads"),
    ):
        with pytest.raises(UserError, match=message):
            build("sclre", **settings)


# TSC


def test_centroids_follow_their_classes() -> None:
    x, _, ids = mixture()
    method = build("tsc")
    expected = torch.zeros(CLASSES, 8)
    for labels in ([0, 0, 1, -1, 1, 0], [-1] * 6, [1, -1, 1, 1, -1, 1], [0, 1, 1, 2, 2, 2], [2, 2, 2, 0, 0, 0]):
        rows, y = torch.randperm(60)[:6], torch.tensor(labels)
        keys = functional.normalize(method.twin(x[rows]), dim=1)
        for c in set(labels) - {-1}:
            mean = keys[y == c].mean(dim=0)
            expected[c] = 0.9 * expected[c] + 0.1 * mean if expected[c].any() else mean
        method.losses(batch_of(method, x[rows], y, ids[rows]))
        method.after_step()
        torch.testing.assert_close(method.centroids, expected)
    assert not method.centroids.requires_grad


def spied(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What every call of the loss is given."""
    calls, original = [], tsc_module.tsc_loss

    def spy(query: Tensor, key: Tensor, queue: Tensor, labels: Tensor, queue_labels: Tensor, class_targets: Tensor,
            **more: Any) -> Tensor:  # fmt: skip
        calls.append(more | {"labels": labels, "queue_labels": queue_labels, "class_targets": class_targets})
        return original(query, key, queue, labels, queue_labels, class_targets, **more)

    monkeypatch.setattr(tsc_module, "tsc_loss", spy)
    return calls


@pytest.mark.parametrize("count", [0, 3, 12, 1000])
def test_positives_are_drawn_from_the_own_class(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    x, coarse, ids = mixture()
    coarse = coarse.where(torch.arange(60) % 5 != 0, -1)
    method = build("tsc", positives=count)
    train(method, x, coarse, ids, steps=1)
    seen = torch.zeros(60, 40, dtype=torch.bool)
    for _ in range(40):
        method.losses(batch_of(method, x, coarse, ids))
        call = calls[-1]
        eligible = (call["labels"][:, None] == call["queue_labels"]) & (call["labels"] >= 0)[:, None]
        eligible &= method.queue.ids != ids[:, None]
        drawn = call["positives"]
        assert not (drawn & ~eligible).any()
        assert torch.equal(drawn.sum(dim=1), eligible.sum(dim=1).clamp(max=count))
        seen |= drawn
    assert torch.equal(seen, eligible if count else torch.zeros_like(eligible))  # every one has its turn


def test_classes_are_matched_to_the_nearest_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spied(monkeypatch)
    method = build("tsc")
    train(method, *mixture(), steps=5)
    cosines = functional.normalize(method.centroids, dim=1) @ method.targets.T
    best = max(itertools.permutations(range(CLASSES)), key=lambda p: sum(float(cosines[i, t]) for i, t in enumerate(p)))
    assert torch.equal(calls[-1]["class_targets"], method.targets[list(best)])


def test_the_classifier_of_tsc_teaches_the_encoder_nothing() -> None:
    x, coarse, ids = mixture()
    method = build("tsc")
    gradients = []
    for scale in (1.0, 100.0):
        method.zero_grad()
        with torch.no_grad():
            method.classifier.weight.mul_(scale)
        method.centroids.zero_()
        losses = method.losses(batch_of(method, x, coarse, ids))
        losses["loss"].backward()
        torch.testing.assert_close(losses["loss"].detach(), losses["contrast"] + losses["cross_entropy"])
        gradients.append([p.grad.clone() for p in [*method.encoder.parameters(), *method.projector.parameters()]])
        assert method.classifier.weight.grad.any()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)
    assert any(g.any() for g in gradients[0])


def test_tsc_says_what_cannot_be() -> None:
    for settings in ({"positives": -1}, {"target_weight": -0.1}, {"temperature": 0.0}):
        with pytest.raises(UserError, match=next(iter(settings))):
            build("tsc", **settings)
    with pytest.raises(UserError, match="no classifier for the fine level"):
        build("tsc").predict_proba(torch.zeros(2, WIDTH), "fine")
