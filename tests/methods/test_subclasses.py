"""Methods with hidden subclasses: recovery of known ones, the E-step, queues per superclass, clusters within."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.methods import Method, method_class
from regrain.methods.clustering import cluster_within
from regrain.methods.embedder import AngularMemory
from regrain.methods.memory import Queue
from regrain.methods.scgm import SCGM, SCGMA
from regrain.metrics import clustering_metrics

WIDTH, SUBCLASSES, SUPERCLASSES = 16, 12, 3


def mixture(count: int = 600, noise: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors around twelve directions, their superclass and their subclass."""
    generator = torch.Generator().manual_seed(1)
    means = functional.normalize(torch.randn(SUBCLASSES, WIDTH, generator=generator), dim=1)
    subclass = torch.arange(count) % SUBCLASSES
    x = means[subclass] + noise * torch.randn(count, WIDTH, generator=generator)
    return functional.normalize(x, dim=1), subclass % SUPERCLASSES, subclass


def build(name: str, **settings: Any) -> Method:
    torch.manual_seed(0)
    cls = method_class(name)
    encoder = build_encoder("identity", modality="vector", sample_shape=(WIDTH,), seed=0)
    return cls(encoder, [SUPERCLASSES] * len(cls.needs.levels), **settings)


def train(
    method: Method, x: Tensor, coarse: Tensor, *, epochs: int, rate: float = 0.1, batch: int = 100
) -> list[list[float]]:
    """The losses of every step, epoch by epoch."""
    ids = 1000 + torch.arange(len(x))
    labels = coarse[:, None] if method.needs.levels else coarse.new_empty(len(x), 0)
    optimizer = torch.optim.SGD(method.parameters(), lr=rate, momentum=0.9 if batch < len(x) else 0.0)
    generator = torch.Generator().manual_seed(0)
    history = []
    for _ in range(epochs):
        method.before_epoch(lambda: [(x[i : i + 250], labels[i : i + 250], ids[i : i + 250]) for i in (0, 250, 500)])
        losses = []
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            loss = method.losses(Batch(tuple(x[rows] for _ in method.needs.views), labels[rows], ids[rows]))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()
            losses.append(float(loss.detach()))
        history.append(losses)
    return history


def agreement(truth: Tensor, clusters: Tensor) -> float:
    return clustering_metrics(truth, clusters)["ari"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("scgm", {"subclasses": SUBCLASSES, "initial_means": "k-means"}),
        ("scgm-a", {"subclasses": SUBCLASSES, "initial_means": "k-means", "queue_size": 50}),
        ("george", {"coarse_epochs": 3}),
    ],
)
def test_known_subclasses_are_recovered(name: str, settings: dict[str, Any]) -> None:
    x, coarse, subclass = mixture()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # above all: every transport plan converges
        method = build(name, **settings)
        train(method, x, coarse, epochs=20)
        codes = method.assignments.lookup(1000 + torch.arange(len(x)))
    assert agreement(subclass, codes) > 0.95
    with torch.no_grad():
        assert agreement(subclass, method.subclass_proba(x).argmax(dim=1)) > 0.95
        probabilities = method.subclass_proba(x, coarse)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(len(x)), atol=1e-5)
    assert (method.predict_proba(x, "coarse").argmax(dim=1) == coarse).float().mean() > 0.95


def test_sela_without_labels_and_scgm_from_a_random_start_come_close() -> None:
    x, coarse, subclass = mixture()
    for name, rate, more in (("sela", 1.0, {}), ("scgm", 0.1, {"initial_means": "random", "assignment_period": 5})):
        method = build(name, subclasses=SUBCLASSES, **more)
        train(method, x, coarse, epochs=60, rate=rate)
        assert agreement(subclass, method.assignments.lookup(1000 + torch.arange(len(x)))) > 0.8


def test_full_batches_and_small_steps_never_raise_the_loss_between_e_steps() -> None:
    x, coarse, _ = mixture()
    method = build("scgm", subclasses=SUBCLASSES, assignment_period=6)
    history = [losses[0] for losses in train(method, x, coarse, epochs=24, rate=0.02, batch=len(x))]
    for start in range(0, 24, 6):
        within = history[start : start + 6]
        assert all(later <= earlier + 1e-7 for earlier, later in pairwise(within))


def test_every_sample_gets_a_subclass_of_equal_size_and_the_log_tells() -> None:
    x, coarse, _ = mixture()
    coarse = coarse.where(torch.arange(len(x)) % 4 != 0, -1)
    method = build("scgm", subclasses=SUBCLASSES, initial_means="random")
    train(method, x, coarse, epochs=1)
    assert method.assignments.sizes().sum() == len(x)
    assert method.assignments.sizes().min() >= 45  # 50 each, up to samples that stand between two
    summary = method.assignments.summary()
    assert summary["codes_changed"] == 1
    assert summary["dead_subclasses"] == 0
    assert method.assignments.lookup(torch.tensor([3])).tolist() == [-1]


def test_sizes_asked_for_are_the_sizes_found() -> None:
    x, coarse, _ = mixture()
    sizes = tuple(float(1 + z % 3) for z in range(SUBCLASSES))
    method = build("scgm", subclasses=SUBCLASSES, subclass_prior=sizes, initial_means="random")
    train(method, x, coarse, epochs=1)
    wanted = torch.tensor(sizes) / sum(sizes) * len(x)
    assert (method.assignments.sizes() - wanted).abs().max() <= 5
    owned = build("scgm", subclasses=SUBCLASSES, subclass_prior=sizes)  # of one superclass, which has 200 samples
    train(owned, x, coarse, epochs=1)
    for superclass in range(SUPERCLASSES):
        own = owned.superclass_of == superclass
        wanted = torch.tensor(sizes)[own] / torch.tensor(sizes)[own].sum() * 200
        assert (owned.assignments.sizes()[own] - wanted).abs().max() <= 5


@pytest.mark.parametrize("name", ["scgm", "scgm-a"])
def test_a_small_superclass_keeps_subclasses_and_every_sample_one_of_its_own_superclass(name: str) -> None:
    x, coarse, _ = mixture()
    kept = (coarse > 0) | (torch.arange(len(x)) < 60)  # 20, 200 and 200 samples
    x, coarse = x[kept].repeat(2, 1)[:600], coarse[kept].repeat(2)[:600]
    method = build(name, subclasses=5, **({"queue_size": 10} if name == "scgm-a" else {}))
    train(method, x, coarse, epochs=3)
    assert torch.bincount(method.superclass_of, minlength=SUPERCLASSES).min() >= 1
    assert torch.equal(method.superclass_of[method.assignments.lookup(1000 + torch.arange(len(x)))], coarse)
    with torch.no_grad():
        given, free = method.subclass_proba(x, coarse), method.subclass_proba(x)
        upper = method.predict_proba(x, "coarse")
    assert torch.equal(method.superclass_of[given.argmax(dim=1)], coarse)
    added = torch.zeros_like(upper).index_add_(1, method.superclass_of, free)
    torch.testing.assert_close(added, upper)


def test_published_form_gives_every_superclass_a_subclass_at_the_end() -> None:
    x, _, _ = mixture()
    coarse = torch.where(torch.arange(len(x)) % 60 == 0, 2, torch.arange(len(x)) % 2)
    method = build("scgm", subclasses=4, initial_means="random", assignment_period=5)
    train(method, x, coarse, epochs=6)
    method.after_training(lambda: [(x, coarse[:, None], torch.arange(len(x)))])
    assert sorted(set(method.superclass_of.tolist())) == [0, 1, 2]
    with torch.no_grad():
        assert torch.equal(method.superclass_of[method.subclass_proba(x, coarse).argmax(dim=1)], coarse)


@pytest.mark.parametrize("superclasses", [3, 10, 20])
def test_probabilities_of_superclasses_can_be_high(superclasses: int) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.arange(600) % superclasses
    x = 3 * torch.randn(superclasses, WIDTH, generator=generator)[coarse] + 0.1 * torch.randn(600, WIDTH)
    torch.manual_seed(0)
    encoder = build_encoder("identity", modality="vector", sample_shape=(WIDTH,), seed=0)
    method = SCGM(encoder, [superclasses], subclasses=2 * superclasses)
    train(method, x, coarse, epochs=10)
    method.after_training(lambda: [(x, coarse[:, None], torch.arange(600))])
    with torch.no_grad():
        probabilities = method.predict_proba(x, "coarse")
    assert torch.equal(probabilities.argmax(dim=1), coarse)
    assert 0.9 < probabilities.max(dim=1).values.mean() < 0.999


def test_probabilities_follow_labels_that_embeddings_do_not_tell() -> None:
    x, coarse, _ = mixture()
    generator = torch.Generator().manual_seed(2)
    wrong = torch.rand(len(x), generator=generator) < 0.3
    coarse = torch.where(wrong, torch.randint(3, (len(x),), generator=generator), coarse)
    method = build("scgm", subclasses=SUBCLASSES)
    train(method, x, coarse, epochs=10)
    method.after_training(lambda: [(x, coarse[:, None], torch.arange(len(x)))])
    with torch.no_grad():
        confidence, predicted = method.predict_proba(x, "coarse").max(dim=1)
    assert float(confidence.mean()) == pytest.approx(float((predicted == coarse).float().mean()), abs=0.05)


def test_start_epochs_begin_again_from_clusters_of_the_features_as_they_are() -> None:
    x, coarse, subclass = mixture()
    noise = functional.normalize(torch.randn(len(x), WIDTH, generator=torch.Generator().manual_seed(3)), dim=1)
    for start_epochs, recovered in ((1, False), (2, True)):
        method = build("scgm", subclasses=SUBCLASSES, start_epochs=start_epochs)
        train(method, noise, coarse, epochs=1, rate=1e-6)  # the first features say nothing
        train(method, x, coarse, epochs=1, rate=1e-6)
        found = agreement(subclass, method.assignments.lookup(1000 + torch.arange(len(x))))
        assert (found > 0.95) is recovered


def test_warnings_of_subclasses_that_say_little_stand_still_or_are_empty() -> None:
    x, coarse, _ = mixture()
    noise = torch.randn(len(x), 200, generator=torch.Generator().manual_seed(0))
    labels, ids = coarse[:, None], torch.arange(len(x))

    def told(features: Tensor, epochs: int = 1, **settings: Any) -> list[str]:
        torch.manual_seed(0)
        encoder = build_encoder("identity", modality="vector", sample_shape=(features.shape[1],), seed=0)
        method = SCGM(encoder, [SUPERCLASSES], **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(epochs):
                method.before_epoch(lambda: [(features, labels, ids)])
            method.after_training(lambda: [(features, labels, ids)])
        return [str(w.message) for w in caught]

    assert told(x, subclasses=SUBCLASSES) == []
    assert any("say little beyond the superclass" in w for w in told(noise, subclasses=90))
    assert any("not changed since epoch 1 of 8" in w for w in told(x, 8, subclasses=SUBCLASSES))
    empty = told(x[:30].repeat(20, 1), subclasses=60)  # ten different samples a superclass
    assert any("of 60 subclasses have no training sample" in w for w in empty)


def test_prior_of_frequencies_counts_known_labels() -> None:
    x, coarse, _ = mixture()
    coarse = coarse.where(torch.arange(len(x)) < 300, 0).where(torch.arange(len(x)) < 500, -1)
    method = build("scgm", subclasses=SUBCLASSES, superclass_prior="frequency")
    train(method, x, coarse, epochs=1)
    assert torch.allclose(method.prior, torch.tensor([300.0, 100.0, 100.0]) / 500)


def test_the_angular_term_reaches_the_network_and_the_mixture_trains_its_means() -> None:
    x, coarse, _ = mixture()
    method = build("scgm-a", subclasses=SUBCLASSES, queue_size=50)
    assert isinstance(method, SCGMA)
    before = method.subclass_means.detach().clone()
    train(method, x, coarse, epochs=1)
    assert not torch.allclose(before, method.subclass_means)
    losses = method.losses(Batch((x[:50], x[50:100]), coarse[:50, None], torch.arange(50)))
    assert losses["angular"] > 0
    gradient = torch.autograd.grad(losses["angular"], [method.embedder[0].weight, method.superclass_weights],
                                   allow_unused=True)  # fmt: skip
    assert gradient[0].abs().sum() > 0
    assert gradient[1] is None


def test_rectified_logits_and_settings_that_cannot_be() -> None:
    method = build("scgm", rectified=True)
    assert isinstance(method, SCGM)
    embedding = functional.normalize(torch.randn(4, 128), dim=1)
    expected = embedding.clamp(min=0) @ method.superclass_weights.T
    assert torch.equal(method.superclass_logits(embedding), expected)
    with pytest.raises(UserError, match="subclasses is 2, fewer than the 3 superclasses"):
        build("scgm", subclasses=2)
    for prior in ((1.0, 2.0), (1.0, 2.0, float("nan"), 1.0)):
        with pytest.raises(UserError, match=r"subclass_prior (holds 4 positive sizes|must be a list of numbers)"):
            build("scgm", subclasses=4, subclass_prior=prior)
    with pytest.raises(UserError, match=r"ancor\.queue_size must be at least 0; got -2"):
        build("ancor", queue_size=-2)
    with pytest.raises(UserError, match="has no subclasses of its own"):
        build("maskcon").subclass_proba(embedding)
    assert build("scgm").has_subclasses
    assert not build("ancor").has_subclasses


def test_class_queues_equal_one_list_a_class() -> None:
    queues, lists = Queue(5, 2, owners=3), [[] for _ in range(3)]
    generator = torch.Generator().manual_seed(0)
    for step in range(9):
        size = int(torch.randint(1, 20, (), generator=generator))
        coarse = torch.randint(-1, 3, (size,), generator=generator)
        ids = 100 * step + torch.arange(size)
        queues.stage(torch.stack([ids, ids], dim=1).float(), ids, owner=coarse)
        queues.commit()
        for superclass, sample in zip(coarse.tolist(), ids.tolist(), strict=True):
            if superclass >= 0:
                lists[superclass] = [*lists[superclass], sample][-5:]
        mask = queues.candidate_mask(torch.full((3,), -7), torch.arange(3))[:, 1:]
        for superclass in range(3):
            held = queues.by_owner[superclass][mask[superclass]][:, 0].int().tolist()
            assert sorted(held) == lists[superclass]


def test_angular_memory_leaves_out_empty_places_and_own_keys() -> None:
    network, embedder = torch.nn.Linear(4, 4), torch.nn.Identity()
    memory = AngularMemory(network, embedder, 4, 2, temperature=0.2, queue_size=4, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    query, key = (functional.normalize(torch.randn(6, 4, generator=generator), dim=1) for _ in range(2))
    means, coarse, ids = torch.randn(2, 4, generator=generator), torch.tensor([0, 1, 0, 1, 0, -1]), torch.arange(6)
    assert float(memory.loss(query, key, coarse, ids, means)) == pytest.approx(0, abs=1e-6)  # no candidate but itself
    memory.after_step(network, embedder)
    loss = float(memory.loss(query, key, coarse, ids, means))
    center = functional.normalize(means, dim=1)
    expected = []
    for i in range(5):
        own_class = center[coarse[i]]
        seen = functional.normalize(torch.cat([query[i : i + 1], key]) - own_class, dim=1)
        others = [j for j in range(6) if coarse[j] == coarse[i] and j != i]
        logits = seen[0] @ seen[[1 + i, *(1 + j for j in others)]].T / 0.2
        expected.append(float(-logits.log_softmax(dim=0)[0]))
    assert loss == pytest.approx(sum(expected) / 5, rel=1e-5)


def test_clusters_within_superclasses() -> None:
    x, coarse, subclass = mixture()
    found = cluster_within(x, coarse, total=SUBCLASSES)
    assert agreement(subclass, found.codes) > 0.99
    assert torch.equal(found.superclass[found.codes], coarse)
    chosen = cluster_within(x, coarse)  # by silhouette
    assert torch.bincount(chosen.superclass).tolist() == [4, 4, 4]
    hidden = coarse.where(torch.arange(len(x)) // SUBCLASSES % 2 == 0, -1)
    assert agreement(subclass, cluster_within(x, hidden, each=4).codes) > 0.99
    with pytest.raises(UserError, match="no superclass is known"):
        cluster_within(x, torch.full_like(coarse, -1))
    with pytest.raises(UserError, match="2 clusters cannot be shared out over 3"):
        cluster_within(x, coarse, total=2)
    with pytest.raises(UserError, match="not both"):
        cluster_within(x, coarse, total=6, each=2)


def test_balanced_clusters_are_of_equal_size() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 4, generator=generator) + torch.tensor([3.0, 0, 0, 0])
    free = cluster_within(x, torch.zeros(300, dtype=torch.long), each=5)
    balanced = cluster_within(x, torch.zeros(300, dtype=torch.long), each=5, balanced=True)
    assert torch.bincount(free.codes).float().std() > 5
    assert torch.bincount(balanced.codes, minlength=5).sub(60).abs().max() <= 3


def test_more_clusters_than_samples() -> None:
    found = cluster_within(torch.eye(3), torch.tensor([0, 0, 1]), each=4)
    assert len(found.centres) == 8
    assert found.superclass[found.codes].tolist() == [0, 0, 1]


def test_george_with_group_dro_follows_its_algorithm() -> None:
    x, coarse, _ = mixture()
    method = build("george", coarse_epochs=1, largest=4, group_dro=True)
    train(method, x, coarse, epochs=2)
    rows = torch.arange(0, 600, 7)
    ids = 1000 + rows
    weights = method.group_weights.clone()
    losses = method.losses(Batch((x[rows],), coarse[rows, None], ids))
    logits, codes = method.coarse_classifier(x[rows]), method.assignments.lookup(ids)
    means = torch.zeros(SUBCLASSES)
    for z in range(SUBCLASSES):
        inside = codes == z
        if inside.any():
            means[z] = functional.cross_entropy(logits[inside], coarse[rows][inside]).detach()
    expected = weights * (0.01 * means).exp()
    expected = expected / expected.sum()
    assert torch.allclose(method.group_weights, expected)
    assert float(losses["loss"].detach()) == pytest.approx(float(expected @ means), rel=1e-5)
    assert float(losses["worst_subclass"]) == pytest.approx(float(means.max()), rel=1e-5)
    with pytest.raises(UserError, match="no classifier of subclasses"):
        method.subclass_proba(x)


@pytest.mark.parametrize("group_dro", [True, False])
def test_george_with_places_that_no_cluster_took(group_dro: bool) -> None:
    x, coarse, _ = mixture()
    method = build("george", coarse_epochs=1, group_dro=group_dro)  # 4 of 10 places a superclass, by silhouette
    history = train(method, x, coarse, epochs=3)
    assert all(torch.isfinite(torch.tensor(losses)).all() for losses in history)
    assert method.has_subclasses is not group_dro
    assert (method.superclass_of >= 0).sum() == SUBCLASSES
