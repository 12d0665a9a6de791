"""Self-Classifier as a method: classes found without labels, crops of two sizes, the queue, the collapse."""

from __future__ import annotations

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
from regrain.objectives import nearest_neighbours
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
    heads = ClassHeads(8, (3,), hidden=16, width=4, layers=layers, batch_norm=batch_norm, leaky=False)
    kinds = [type(module) for module in heads.mlp]
    assert kinds.count(nn.Linear) == layers + 1
    assert kinds.count(nn.BatchNorm1d) == layers * batch_norm
    assert kinds.count(nn.ReLU) == layers


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
    vectors = method.eval().project(batch)["vectors"]
    assert encoder.shapes == [(8, 3, 28, 28), (12, 3, 12, 12)]
    assert vectors.shape == (4, 5, 128)
    alone = method.heads(encoder(batch.views[3]))
    assert torch.allclose(vectors[:, 3], alone, atol=1e-6)


def test_a_full_queue_gives_the_nearest_other_sample() -> None:
    method = build(queue_size=6)
    keys = functional.normalize(torch.randn(6, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    method.queue.stage(keys, torch.empty(6, 0).long(), torch.arange(6))
    method.after_step()
    query = functional.normalize(keys[:2] + 0.01, dim=1)
    allowed = method.queue.candidate_mask(torch.tensor([0, 77]))[:, 1:]
    found = nearest_neighbours(query, method.queue.keys, allowed)
    similarity = query @ keys.T
    assert torch.equal(found[1], keys[1])
    similarity[0, 0] = -2  # sample 0's own key
    assert torch.equal(found[0], keys[similarity[0].argmax()])


def test_a_collapse_is_said() -> None:
    method = build(class_counts=(10,))
    method._used[3] = 500.0
    with pytest.warns(RegrainWarning, match="used 1 of 10 classes"):
        method.before_epoch(lambda: [])
    method.before_epoch(lambda: [])  # a new epoch, no news


def test_settings_and_views_from_a_run(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="class_counts holds the classes"):
        build(class_counts=(1,))
    with pytest.raises(UserError, match="layers"):
        build(layers=4)
    generator = np.random.default_rng(0)
    data = regrain.load(generator.normal(size=(40, 6)).astype(np.float32))
    settings = ["epochs=1", "batch_size=20", "local_views=1", "class_counts=[4, 6]", "hidden=16"]
    run = regrain.fit("self-classifier", data, out=tmp_path / "run", settings=settings, device="cpu")
    assert run.recipe["views"]["presets"] == ["weak", "weak", "strong"]
    found = regrain.discover(run)
    assert len(found.ids) == 40
