"""Every method: a step, unknown labels, the firewall's inside, classifiers, the queue."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.checks import hyperparameters
from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods import METHODS, Method, method_class
from regrain.methods.base import EVERY
from regrain.methods.classifier import balanced_weights, labelled_cross_entropy
from regrain.methods.memory import MomentumTwin, Queue

WIDTH, CLASSES = 12, 3
TRAINED = [name for name, cls in METHODS.items() if not cls.fit_once]


def levels_of(method: type[Method]) -> int:
    """Label levels that a method is given here: two alike where it reads all."""
    return 2 if method.needs.levels == (EVERY,) else len(method.needs.levels)


def make(name: str, **settings: object) -> Method:
    torch.manual_seed(0)
    cls = method_class(name)
    if "queue_size" in hyperparameters(cls):
        settings.setdefault("queue_size", 20 // CLASSES if name in ("ancor", "scgm-a") else 20)
    if name == "self-classifier":
        settings.setdefault("hidden", 16)
    if name == "turtle":  # takes features as they are
        encoder = build_encoder("identity", modality="vector", sample_shape=(WIDTH,), seed=0)
    else:
        encoder = build_encoder("mlp", modality="vector", sample_shape=(WIDTH,), hidden=(16,), width=8, seed=0)
    method = cls(encoder, [CLASSES] * levels_of(cls), **settings)
    if levels_of(cls):
        method.setup(Labels.from_codes(torch.arange(CLASSES)[:, None].repeat(1, levels_of(cls))))
    return method


def batch_for(method: Method, *, size: int = 6, labels: list[int] | None = None, start: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(start)
    views = tuple(torch.randn(size, WIDTH, generator=generator) for _ in method.needs.views)
    column = torch.tensor(labels if labels is not None else [i % CLASSES for i in range(size)])
    return Batch(views, column[:, None].expand(size, levels_of(type(method))), torch.arange(start, start + size))


def begin_epoch(method: Method, *batches: Batch) -> None:
    """What the adapter does, over a training set of these batches."""
    method.before_epoch(lambda: [(batch.views[0], batch.labels, batch.ids) for batch in batches])


def step(method: Method, batch: Batch) -> dict[str, Tensor]:
    method.zero_grad()
    losses = method.losses(batch)
    losses["loss"].backward()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    method.after_step()
    return losses


@pytest.mark.parametrize("name", TRAINED)
def test_training_lowers_the_loss_on_a_fixed_batch(name: str) -> None:
    method = make(name)
    batch = batch_for(method)
    begin_epoch(method, batch)
    step(method, batch)
    first = float(step(method, batch)["loss"].detach())
    for _ in range(30):
        last = float(step(method, batch)["loss"].detach())
    assert last < first


@pytest.mark.parametrize("name", TRAINED)
def test_unknown_labels_give_finite_losses(name: str) -> None:
    method = make(name)
    for labels in ([0, -1, 1, -1, 0, 2], [-1] * 6, [1] * 6):
        batches = [batch_for(method, labels=labels, start=start) for start in (0, 6)]
        begin_epoch(method, *batches)
        for batch in batches:
            losses = step(method, batch)
            assert torch.isfinite(losses["loss"])
    assert all(torch.isfinite(p).all() for p in method.parameters())


UNAIDED = {"maskcon", "grafit", "coins", "supcon-queue", "tsc", "mixed", "scgm", "scgm-a", "guided", "falcon",
           "taxon-ssl"}  # fmt: skip
"""Methods that read labels, and learn something from a batch that has none: as docs/missing-labels.md says."""


@pytest.mark.parametrize("name", [name for name in TRAINED if METHODS[name].needs.levels])
def test_a_batch_without_any_label_has_zero_gradient_where_the_page_says_so(name: str) -> None:
    method = make(name)
    known, unknown = batch_for(method), batch_for(method, labels=[-1] * 6, start=6)
    begin_epoch(method, known, unknown)
    step(method, known)  # a queue is no longer empty
    method.zero_grad()
    loss = method.losses(unknown)["loss"]
    loss.backward()
    moved = any(p.grad is not None and bool(p.grad.any()) for p in method.parameters())
    assert (float(loss.detach()) != 0, moved) == (name in UNAIDED, name in UNAIDED)
    page = (Path(__file__).parents[2] / "docs" / "missing-labels.md").read_text(encoding="utf-8")
    only = next(part for part in page.split("\n\n") if part.startswith("A batch without any known label"))
    listed = only[: only.index("For the\nother methods")]
    assert (f"`{name}`" in listed) == (name in UNAIDED - {"scgm-a"})  # that one goes with scgm


@pytest.mark.parametrize("name", TRAINED)
def test_one_sample_works(name: str) -> None:
    has_batch_norm = any(isinstance(module, nn.BatchNorm1d) for module in make(name).modules())
    method = make(name).eval() if has_batch_norm else make(name)
    losses = method.losses(batch_for(method, size=1))
    assert torch.isfinite(losses["loss"])


@pytest.mark.parametrize("name", TRAINED)
def test_state_goes_through_a_checkpoint(name: str) -> None:
    method, other = make(name), make(name)
    batches = [batch_for(method, start=start) for start in (0, 6, 12, 18, 24)]
    begin_epoch(method, *batches)
    for batch in batches[:4]:
        step(method, batch)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    for seed in (0, 1):  # of what a step draws
        losses = []
        for each in (method, other):
            torch.manual_seed(seed)
            losses.append(step(each, batches[4])["loss"])
        assert torch.equal(*losses)


def test_shared_state_leaves_queue_and_twin_out() -> None:
    names = set(make("maskcon").shared_state())
    assert {n.split(".")[0] for n in names} == {"encoder", "projector"}


CLASSIFIERS = ["sup-ce", "sup-fine", "sclre"]


def test_weights_of_classes_balance_them() -> None:
    counts = torch.tensor([7, 1, 0, 4])
    weights = balanced_weights(torch.arange(4).repeat_interleave(counts), 4)
    torch.testing.assert_close(weights, torch.tensor([12 / 3 / 7, 12 / 3 / 1, 0, 12 / 3 / 4]))
    assert float((weights * counts).sum() / counts.sum()) == pytest.approx(1)
    assert not balanced_weights(torch.full((3,), -1), 3).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weighted_cross_entropy_is_torchs_over_labelled_rows(smoothing: float) -> None:
    logits, labels = torch.randn(6, CLASSES), torch.tensor([0, -1, 1, 1, -1, 2])
    weight, known = torch.tensor([0.5, 3.0, 1.0]), labels >= 0
    for classes in (weight, None):
        expected = functional.cross_entropy(logits[known], labels[known], weight=classes, label_smoothing=smoothing)
        found = labelled_cross_entropy(logits, labels, weight=classes, label_smoothing=smoothing)
        torch.testing.assert_close(found, expected)
        assert float(labelled_cross_entropy(logits, torch.full((6,), -1), weight=classes)) == 0
    assert float(labelled_cross_entropy(logits, labels, weight=torch.zeros(3))) == 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes_are_balanced_where_that_is_asked_for(name: str) -> None:
    counts = torch.tensor([7, 1, 4])
    codes = torch.arange(CLASSES).repeat_interleave(counts)
    batch, found = batch_for(make(name), labels=[0, 0, 1, -1, 2, 0]), {}
    for balance in (False, True):
        method = make(name, balance_classes=balance).eval()
        term = "cross_entropy" if name == "sclre" else "loss"
        before = method.losses(batch)[term].detach()
        method.setup(Labels.from_codes(codes[:, None]))
        found[balance] = before, method.losses(batch)[term].detach()
        torch.testing.assert_close(method.class_weight, balanced_weights(codes, CLASSES))
    assert torch.equal(*found[False])
    torch.testing.assert_close(found[True][0], found[False][0])  # equal counts: all classes weigh alike
    x = batch.views[0]
    logits = method.classifier(method._enhanced(method.projections(x), None) if name == "sclre"
                               else method.encoder(x))  # fmt: skip
    known = batch.labels[:, 0] >= 0
    weight = counts.sum() / 3 / counts
    expected = functional.cross_entropy(logits[known], batch.labels[known, 0], weight=weight)
    torch.testing.assert_close(found[True][1], expected.detach())


@pytest.mark.parametrize("name", ["sup-ce", "sup-fine"])
def test_a_classifier_at_unit_length_sees_directions_alone(name: str) -> None:
    method = make(name, normalise_classifier=True).eval()
    batch = batch_for(method, labels=[0, 0, 1, -1, 2, 0])
    x, known = batch.views[0], batch.labels[:, 0] >= 0
    features = method.encoder(x)
    logits = method.classifier(functional.normalize(features, dim=1))
    torch.testing.assert_close(method.predict_proba(x, method.roles[0]), logits.softmax(dim=1))
    expected = functional.cross_entropy(logits[known], batch.labels[known, 0])
    torch.testing.assert_close(method.losses(batch)["loss"], expected)
    torch.testing.assert_close(method.embed(x), features)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_weights_of_classes_stay_out_of_the_shared_model(name: str) -> None:
    method = make(name, balance_classes=True)
    assert "class_weight" in method.state_dict()  # for a resumed run
    assert "class_weight" not in method.shared_state()


def test_classifiers_give_probabilities_and_others_say_that_they_have_none() -> None:
    x = torch.randn(4, WIDTH)
    several = [
        (n, role)
        for n in ("mixed", "mlcl", "himulcone", "guided", "multi-ce", "taxon-ssl")
        for role in ("level1", "level2")
    ]
    for name, role in (("sup-ce", "coarse"), ("sup-fine", "fine"), ("coins", "coarse"), *several):
        probabilities = make(name).predict_proba(x, role)
        assert probabilities.shape == (4, CLASSES)
        assert torch.allclose(probabilities.sum(dim=1), torch.ones(4))
    with pytest.raises(UserError, match="has no classifier"):
        make("maskcon").predict_proba(x, "coarse")
    with pytest.raises(UserError, match="no classifier for the level3 level"):
        make("mlcl").predict_proba(x, "level3")


def test_limits_join_the_methods() -> None:
    """With full queues, MaskCon of weight 0 is SelfCon, and Grafit of weight 1 is SupCon against a queue."""
    values = {}
    for name, settings in (
        ("selfcon", {}),
        ("maskcon", {"weight": 0.0}),
        ("grafit", {"weight": 1.0}),
        ("supcon-queue", {}),
        ("maskcon-flat", {"soft_temperature": 1e9, "weight": 1.0}),
    ):
        method = make(name.removesuffix("-flat"), **settings)
        for start in (0, 6, 12):
            loss = method.losses(batch_for(method, start=start))["loss"]
            method.after_step()
        values[name] = loss
    assert torch.allclose(values["selfcon"], values["maskcon"], atol=1e-6)
    assert torch.allclose(values["grafit"], values["supcon-queue"], atol=1e-6)
    assert torch.allclose(values["grafit"], values["maskcon-flat"], atol=1e-5)


def test_own_old_keys_are_no_candidates() -> None:
    """The second look at a sample must not meet its first key: a queue of only own keys equals an empty queue."""
    method = make("selfcon", queue_size=6)
    batch = batch_for(method)
    method.losses(batch)
    method.after_step()
    with_own = method.losses(batch)["loss"]
    assert len(method.queue.keys) == 6
    others = Batch(batch.views, batch.labels, batch.ids + 100)
    meets_others = method.losses(others)["loss"]
    mask = method.queue.candidate_mask(batch.ids)
    expected = ~torch.eye(6, dtype=torch.bool)
    assert torch.equal(mask[:, 1:], expected)
    assert mask[:, 0].all()
    assert with_own < meets_others  # one negative fewer


def test_rows_without_positives_are_counted() -> None:
    method = make("maskcon")
    method.losses(batch_for(method, labels=[0, 0, 0, 1, 1, -1]))
    method.after_step()
    losses = method.losses(batch_for(method, labels=[0, 1, 2, 2, -1, 0], start=6))
    assert float(losses["without_positives"]) == pytest.approx(3 / 6)
    again = make("maskcon")
    again.losses(batch_for(again, labels=[0, 0, 1, 2, -1, -1]))
    again.after_step()
    losses = again.losses(batch_for(again, labels=[0, 0, 1, 2, -1, -1]))  # 1 and 2 have only their own old keys
    assert float(losses["without_positives"]) == pytest.approx(4 / 6)


def test_accumulated_halves_equal_the_whole_batch() -> None:
    """Keys enter the queue after the step, so two half batches meet the same queue as one whole batch."""
    whole, halves = make("maskcon"), make("maskcon")
    warm = batch_for(whole)
    for method in (whole, halves):
        method.losses(warm)
        method.after_step()
    batch = batch_for(whole, start=6)
    whole.losses(batch)["loss"].backward()
    for rows in (slice(0, 3), slice(3, 6)):
        part = Batch(tuple(v[rows] for v in batch.views), batch.labels[rows], batch.ids[rows])
        (halves.losses(part)["loss"] / 2).backward()
    whole.after_step()
    halves.after_step()
    for one, other in zip(whole.encoder.parameters(), halves.encoder.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)
    assert torch.equal(whole.queue.ids, halves.queue.ids)


@pytest.mark.parametrize(("size", "batch"), [(5, 3), (3, 7), (4, 4), (0, 3), (7, 1)])
def test_queue_against_a_plain_list(size: int, batch: int) -> None:
    queue, reference = Queue(size, 2, 1), []
    for step_number in range(9):
        ids = torch.arange(step_number * batch, (step_number + 1) * batch)
        keys = functional.normalize(torch.randn(batch, 2), dim=1)
        queue.stage(keys, ids, ids[:, None] % 4)
        assert sorted(queue.ids.tolist()) == sorted(reference)
        queue.commit()
        reference = (reference + ids.tolist())[-size:] if size else []
        assert sorted(queue.ids.tolist()) == sorted(reference)
        assert queue.labels[:, 0].tolist() == (queue.ids % 4).tolist()


def test_twin_follows_parameters_and_statistics() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    twin = MomentumTwin(*network, momentum=0.75)
    before = copy.deepcopy(twin.network.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    network(torch.randn(8, 3))
    twin.update(*network)
    for name, value in twin.network.state_dict().items():
        target = network.state_dict()[name]
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * before[name] + 0.25 * target, atol=1e-6)
        else:
            assert torch.equal(value, target)
    assert not any(p.requires_grad for p in twin.parameters())


def test_wrong_construction_is_said() -> None:
    encoder = build_encoder("mlp", modality="vector", sample_shape=(WIDTH,), seed=0)
    with pytest.raises(UserError, match=r"maskcon\.momentum must be at least 0 and below 1; got 1\.0"):
        method_class("maskcon")(encoder, [2], momentum=1.0)
    with pytest.raises(UserError, match="at least 2 coarse classes"):
        method_class("sup-ce")(encoder, [1])
    with pytest.raises(UserError, match="reads 1 label levels"):
        method_class("maskcon")(encoder, [])
    with pytest.raises(UserError, match="did you mean 'maskcon'"):
        method_class("maskkon")


def test_the_page_on_missing_labels_knows_every_method() -> None:
    page = (Path(__file__).parents[2] / "docs" / "missing-labels.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in page] == []
