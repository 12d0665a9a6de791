"""Self-Classifier as a method: classes found without labels, crops of two sizes, the queue, the collapse."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import regrain
from regrain.data.dataset import Batch
from regrain.encoders import build_encoder
from regrain.encoders.heads import ClassHeads
from regrain.errors import RegrainWarning, UserError
from regrain.methods.self_classifier import SelfClassifier
from regrain.metrics import clustering_metrics
from regrain.objectives import nearest_entries, self_classifier_loss
from regrain.views import ImageViews


def build(**settings: Any) -> SelfClassifier:
    torch.manual_seed(0)
    encoder = build_encoder("mlp", modality="vector", sample_shape=(10,), hidden=(32,), width=16, seed=0)
    return SelfClassifier(encoder, [], **({"hidden": 32, "queue_size": 0} | settings))


def test_it_finds_classes_without_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(300) % 5
    x = 3 * torch.eye(10)[truth] + 0.3 * torch.randn(300, 10, generator=generator)
    method = build(class_counts=(5, 8))
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(40):
        for rows in torch.randperm(300, generator=generator).split(100):
            views = tuple(x[rows] + 0.3 * torch.randn(len(rows), 10, generator=generator) for _ in range(4))
            losses = method.losses(Batch(views, torch.empty(len(rows), 0).long(), rows))
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
            method.after_step()
    assert losses["loss"] < 0.3 * losses["undecided"]
    assert losses["classes_in_use"] == 5
    method.eval()
    with torch.no_grad():
        found = method.subclass_proba(x).argmax(dim=1)
    assert clustering_metrics(truth, found)["acc"] > 0.95


def test_weights_of_the_classifiers_stay_of_unit_length() -> None:
    heads = ClassHeads(8, (3, 5), hidden=16, width=4)
    optimizer = torch.optim.SGD(heads.parameters(), lr=1.0)
    sum(logits.square().sum() for logits in heads.logits(heads(torch.randn(6, 8)))).backward()
    optimizer.step()
    for classifier in heads.classifiers:
        assert torch.allclose(classifier.weight.norm(dim=1), torch.ones(len(classifier.weight)), atol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_the_mlp_has_the_layers_asked_for(layers: int, batch_norm: bool) -> None:
    heads = ClassHeads(8, (3,), hidden=16, width=4, layers=layers, batch_norm=batch_norm)
    kinds = [type(module) for module in heads.mlp]
    assert kinds.count(nn.Linear) == layers + 1
    assert kinds.count(nn.BatchNorm1d) == layers * batch_norm
    assert kinds.count(nn.LeakyReLU) == layers


def test_views_of_one_size_pass_the_encoder_together() -> None:
    class Counting(nn.Module):
        width = 3

        def __init__(self) -> None:
            super().__init__()
            self.shapes: list[tuple[int, ...]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.shapes.append(tuple(x.shape))
            return x.mean(dim=(2, 3))

    encoder = Counting()
    method = SelfClassifier(encoder, [], hidden=8, queue_size=0)
    views = ImageViews(["global"] * 2 + ["local"] * 3, size=28, mean=[0.5], std=[0.25])
    images = torch.randint(0, 256, (4, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch(views(images, torch.arange(4), epoch=0), torch.empty(4, 0).long(), torch.arange(4))
    vectors = method.eval().forward_views(batch)["vectors"]
    assert encoder.shapes == [(8, 3, 28, 28), (12, 3, 12, 12)]
    assert vectors.shape == (4, 5, 1, 128)
    alone = method.heads(encoder(batch.views[3]))
    assert torch.allclose(vectors[:, 3, 0], alone, atol=1e-6)


def test_a_full_queue_gives_the_nearest_other_sample() -> None:
    method = build(queue_size=6)
    keys = functional.normalize(torch.randn(6, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    method.queue.stage(keys, torch.arange(6))
    method.after_step()
    query = functional.normalize(keys[:2] + 0.01, dim=1)
    allowed = method.queue.candidate_mask(torch.tensor([0, 77]))[:, 1:]
    found = nearest_entries(query, method.queue.keys, allowed)
    similarity = query @ keys.T
    assert torch.equal(found[1], keys[1])
    similarity[0, 0] = -2  # sample 0's own key
    assert torch.equal(found[0], keys[similarity[0].argmax()])


def begin_epoch(method: SelfClassifier, x: Tensor, ids: Tensor) -> None:
    parts = [(x[i : i + 30], torch.empty(0), ids[i : i + 30]) for i in range(0, len(x), 30)]
    method.before_epoch(lambda: parts)


def of_ids(x: Tensor, ids: Tensor) -> Batch:
    return Batch((x,), torch.empty(len(x), 0).long(), ids)


def test_the_second_view_is_a_neighbour_by_seed_epoch_and_id() -> None:
    x = 2 + torch.randn(70, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.randperm(900, generator=torch.Generator().manual_seed(1))[:70]
    method = build(neighbours=3, local_views=0).eval()
    assert method.view_names({"neighbours": 3, "local_views": 2}) == ("global", "local", "local")
    assert method.view_names({"neighbours": 0, "local_views": 0}) == ("global", "global")
    with torch.no_grad():
        features = method.encoder(x)
        heads = method.heads(features)
        centred = functional.normalize(features - features.mean(dim=0), dim=1)
        nearest = (centred @ centred.T).fill_diagonal_(-2).topk(3, dim=1).indices
        seen: list[set[int]] = [set() for _ in x]
        for _ in range(40):
            begin_epoch(method, x, ids)
            order = torch.randperm(70)
            vectors = method.forward_views(of_ids(x[order], ids[order]))["vectors"][order.argsort(), :, 0]
            assert torch.allclose(vectors[:, 0], heads, atol=1e-6)
            drawn = (vectors[:, 1, None] - heads).abs().sum(dim=2).argmin(dim=1)
            assert torch.allclose(vectors[:, 1], heads[drawn], atol=1e-6)
            for own, neighbour in zip(seen, drawn.tolist(), strict=True):
                own.add(neighbour)
        assert seen == [set(row) for row in nearest.tolist()]
        alone = method.forward_views(of_ids(x[:1], ids[:1]))["vectors"][0, :, 0]
    assert torch.allclose(alone, vectors[0], atol=1e-6)


def test_neighbours_are_looked_for_once_and_their_features_renewed_where_the_encoder_learns() -> None:
    x = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))
    method = build(neighbours=2, local_views=0)
    begin_epoch(method, x, torch.arange(40))
    neighbours, features = method.mined.neighbours, method.mined.draw(torch.arange(40))
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter += 0.1
    begin_epoch(method, x, torch.arange(40))
    assert torch.equal(method.mined.neighbours, neighbours)
    known = method.eval().encoder(x)
    renewed = method.mined.draw(torch.arange(40))
    assert not torch.equal(renewed, features)
    assert all(bool((known == row).all(dim=1).any()) for row in renewed)
    fixed = build_encoder("identity", modality="vector", sample_shape=(10,), seed=0)
    still = SelfClassifier(fixed, [], neighbours=2, queue_size=0, hidden=8)
    begin_epoch(still, x, torch.arange(40))
    still.before_epoch(lambda: pytest.fail("features that do not change are not computed again"))


def test_the_restart_stays_whose_classes_neighbours_share() -> None:
    truth = torch.arange(120) % 4
    x = 3 * torch.eye(10)[truth] + 0.1 * torch.randn(120, 10, generator=torch.Generator().manual_seed(0))
    ids = torch.randperm(120, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(0)
    encoder = build_encoder("identity", modality="vector", sample_shape=(10,), seed=0)
    settings = {"class_counts": (4,), "neighbours": 5, "local_views": 0, "layers": 0, "queue_size": 0}
    method = SelfClassifier(encoder, [], **settings, restarts=3)
    begin_epoch(method, x, ids)
    with torch.no_grad():  # the last one knows the classes
        method.others[1].mlp[0].weight.copy_(torch.eye(128, 10))
        method.others[1].mlp[0].bias.zero_()
        classifier = method.others[1].classifiers[0]
        classifier.parametrizations.weight.original1.copy_(torch.eye(4, 128))
    before = [copy.deepcopy(heads.state_dict()) for heads in (method.heads, *method.others)]
    for _ in range(2):  # once more, as after a run that was cut off: the best is the first now
        method.after_training(lambda: [(x[i : i + 50], torch.empty(0), ids[i : i + 50]) for i in range(0, 120, 50)])
        after = [heads.state_dict() for heads in (method.heads, *method.others)]
        for old, new in zip((before[2], before[1], before[0]), after, strict=True):
            assert all(torch.equal(old[key], new[key]) for key in old)
    assert clustering_metrics(truth, method.subclass_proba(x).argmax(dim=1))["acc"] == 1
    assert {name.split(".")[0] for name in method.shared_state()} == {"heads"}


def test_the_loss_of_restarts_is_their_mean_and_each_learns_by_its_own() -> None:
    x = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    method = build(class_counts=(4, 6), neighbours=2, local_views=0, restarts=2)
    begin_epoch(method, x, torch.arange(30))
    projected = method.forward_views(of_ids(x, torch.arange(30)))
    found = method.loss(**projected)["loss"]
    views = projected["vectors"].transpose(0, 1).detach()
    each = [
        self_classifier_loss(logits)
        for number, heads in enumerate((method.heads, method.others[0]))
        for logits in heads.logits(views[:, :, number])
    ]
    assert float(found.detach()) == pytest.approx(float(torch.stack(each).mean().detach()))


def test_a_class_prior_reaches_every_classifier() -> None:
    x = torch.randn(30, 10, generator=torch.Generator().manual_seed(0))
    prior = (0.5, 0.3, 0.2)
    method = build(class_counts=(3, 3), class_prior=prior, local_views=0)
    projected = method.forward_views(Batch((x, x + 0.1), torch.empty(30, 0).long(), torch.arange(30)))
    logits = method.heads.logits(projected["vectors"][:, :, 0].transpose(0, 1))
    expected = [self_classifier_loss(rows, class_prior=torch.tensor(prior)) for rows in logits]
    found = method.loss(**projected)["loss"]
    assert float(found.detach()) == pytest.approx(float(torch.stack(expected).mean().detach()))
    assert "prior" not in method.state_dict()
    for given, message in (
        ((0.5, 0.5), r"class_prior gives 2 shares, .* the classifiers have \[3, 3\] classes"),
        ((0.5, 0.5, 0.5), "sum to 1; these sum to 1.5"),
        ((0.5, 0.7, -0.2), "the smallest is -0.2"),
        ((1.0, 0.0, 0.0), "greater than 0"),
        ((float("nan"), 0.5, 0.5), "sum to 1"),
    ):
        with pytest.raises(UserError, match=message):
            build(class_counts=(3, 3), class_prior=given)


def test_an_unequal_prior_finds_classes_of_unequal_size() -> None:
    angle = 6.2832 * torch.arange(300) / 300
    x = torch.stack([angle.cos(), angle.sin()], dim=1)  # nothing in the samples says where a class ends
    shares = []
    for prior in ((0.8, 0.2), None):
        torch.manual_seed(0)
        encoder = build_encoder("identity", modality="vector", sample_shape=(2,), seed=0)
        settings = {"class_counts": (2,), "class_prior": prior, "neighbours": 10, "local_views": 0, "queue_size": 0}
        method = SelfClassifier(encoder, [], **settings, layers=1, hidden=32)
        optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
        for _ in range(40):
            begin_epoch(method, x, torch.arange(300))
            for rows in torch.randperm(300).split(100):
                optimizer.zero_grad()
                method.losses(of_ids(x[rows], rows))["loss"].backward()
                optimizer.step()
        shares.append(float(torch.bincount(method.eval().subclass_proba(x).argmax(dim=1), minlength=2).max()) / 300)
    assert shares[0] > 0.65
    assert shares[1] < 0.6


def test_a_collapse_is_said() -> None:
    method = build(class_counts=(10,))
    method._used[3] = 500.0
    with pytest.warns(RegrainWarning, match="used 1 of 10 classes"):
        method.before_epoch(lambda: [])
    method.before_epoch(lambda: [])  # a new epoch, no news


def test_settings_and_views_from_a_run(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="class_counts must be a list of whole numbers of at least 2"):
        build(class_counts=(1,))
    with pytest.raises(UserError, match="layers"):
        build(layers=4)
    with pytest.raises(UserError, match="set queue_size=0 or neighbours=0"):
        build(neighbours=5, queue_size=10)
    with pytest.raises(UserError, match="set neighbours=10, or restarts=1"):
        build(restarts=2)
    generator = np.random.default_rng(0)
    data = regrain.load(generator.normal(size=(40, 6)).astype(np.float32))
    settings = ["epochs=1", "batch_size=20", "local_views=1", "class_counts=[4, 6]", "hidden=16"]
    run = regrain.fit("self-classifier", data, out=tmp_path / "run", settings=settings, device="cpu")
    assert run.recipe["views"]["presets"] == ["weak", "weak", "strong"]
    found = regrain.discover(run)
    assert len(found.ids) == 40
