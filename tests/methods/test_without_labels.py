"""Methods that find classes without labels: k-means, SCAN and its stages, TURTLE."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Lloyd
from torch import Tensor
from torch.nn import functional

import regrain
from regrain.data.dataset import Batch, Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.encoders import build_encoder
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels
from regrain.methods import Method, method_class
from regrain.methods.kmeans import KMeans
from regrain.methods.scan import SCAN
from regrain.methods.turtle import Turtle
from regrain.metrics import clustering_metrics
from regrain.objectives import scan_loss, self_labelling_loss, turtle_inner, turtle_loss
from regrain.runs.assemble import assemble

pytestmark = pytest.mark.usefixtures("own_cache")

WIDTH, CLASSES = 10, 5


def mixture(count: int = 300, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(count) % CLASSES
    return 3 * torch.eye(WIDTH)[truth] + noise * torch.randn(count, WIDTH, generator=generator), truth


def build(name: str, *, encoder: str = "identity", **settings: Any) -> Any:
    torch.manual_seed(0)
    sizes = {} if encoder == "identity" else {"hidden": (16,), "width": 8}
    built = build_encoder(encoder, modality="vector", sample_shape=(WIDTH,), seed=0, **sizes)
    return method_class(name)(built, [], **({"subclasses": CLASSES} | settings))


def begin_epoch(method: Method, x: Tensor, ids: Tensor) -> None:
    parts = [(x[i : i + 70], torch.empty(0), ids[i : i + 70]) for i in range(0, len(x), 70)]
    method.before_epoch(lambda: parts)


def batch_of(method: Method, x: Tensor, ids: Tensor, noise: float = 0.0) -> Batch:
    views = tuple(x + noise * torch.randn(x.shape) for _ in method.needs.views)
    return Batch(views, torch.empty(len(x), 0).long(), ids)


def train(method: Method, x: Tensor, *, epochs: int, rate: float = 1e-2, noise: float = 0.3) -> None:
    ids = 1000 + torch.arange(len(x))
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
    for _ in range(epochs):
        begin_epoch(method, x, ids)
        for rows in torch.randperm(len(x)).split(100):
            loss = method.losses(batch_of(method, x[rows], ids[rows], noise))["loss"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method.after_step()


def accuracy_of(method: Method, x: Tensor, truth: Tensor) -> float:
    method.eval()
    with torch.no_grad():
        return clustering_metrics(truth, method.subclass_proba(x).argmax(dim=1))["acc"]


@pytest.mark.parametrize(
    ("name", "epochs", "settings"),
    [("scan", 30, {"pretext_epochs": 0, "clustering_epochs": 15, "threshold": 0.9}), ("turtle", 60, {})],
)
def test_classes_are_found_without_labels(name: str, epochs: int, settings: dict[str, Any]) -> None:
    x, truth = mixture()
    method = build(name, **settings)
    assert accuracy_of(method, x, truth) < 0.8
    train(method, x, epochs=epochs, noise=0.3 if name == "scan" else 0)
    assert accuracy_of(method, x, truth) > 0.95


# k-means


def test_k_means_is_scikit_learns() -> None:
    x, truth = mixture()
    method = build("kmeans")
    begin_epoch(method, x, torch.arange(300))
    features = x / x.norm(dim=1, keepdim=True)
    reference = Lloyd(CLASSES, n_init=10, random_state=7).fit(features.numpy())
    order = [int(((method.centres - torch.from_numpy(c)) ** 2).sum(dim=1).argmin()) for c in reference.cluster_centers_]
    assert sorted(order) == list(range(CLASSES))
    torch.testing.assert_close(method.centres[order], torch.from_numpy(reference.cluster_centers_))
    probabilities = method.subclass_proba(x)
    assert probabilities[:, order].argmax(dim=1).tolist() == reference.labels_.tolist()
    assert clustering_metrics(truth, probabilities.argmax(dim=1))["acc"] == 1
    by_hand = [np.exp(-((features[3] - c) ** 2).sum() / 0.2) for c in method.centres]
    torch.testing.assert_close(probabilities[3], torch.tensor(by_hand) / sum(by_hand), rtol=1e-3, atol=1e-6)
    assert torch.equal(method.embed(x), features)


def test_k_means_hangs_on_the_seed_alone() -> None:
    x = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(0))  # no clusters: every start ends elsewhere
    centres = []
    for seed in (0, 0, 1):
        method = build("kmeans", starts=1)
        torch.manual_seed(seed)
        method = KMeans(method.encoder, [], subclasses=20, starts=1)
        begin_epoch(method, x, torch.arange(200))
        centres.append(method.centres)
    assert torch.equal(centres[0], centres[1])
    assert not torch.equal(centres[0], centres[2])


def test_k_means_refuses_more_clusters_than_samples() -> None:
    with pytest.raises(UserError, match="5 subclasses are more than the 4 training samples"):
        begin_epoch(build("kmeans"), mixture(4)[0], torch.arange(4))
    with pytest.raises(UserError, match="subclasses"):
        build("kmeans", subclasses=1)
    with pytest.raises(UserError, match="starts"):
        build("kmeans", starts=0)


# SCAN


def test_stages_follow_each_other() -> None:
    x, _ = mixture(40)
    method = build("scan", pretext_epochs=2, clustering_epochs=1)
    stages = []
    for _ in range(5):
        begin_epoch(method, x, torch.arange(40))
        stages.append(method.stage)
    assert stages == [1, 1, 2, 3, 3]


def test_neighbours_are_the_nearest_by_centred_cosine_and_never_the_sample_itself() -> None:
    x = 3 + torch.randn(90, WIDTH, generator=torch.Generator().manual_seed(0))
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(1))[:90]
    method = build("scan", pretext_epochs=0, neighbours=4)
    begin_epoch(method, x, ids)
    unit = functional.normalize(x - x.mean(dim=0))
    rows = torch.tensor([0, 17, 71, 89])
    seen: list[set[int]] = [set() for _ in rows]
    for epoch in range(60):
        method.mined.epochs = epoch
        for own, drawn in zip(seen, method.mined.draw(ids[rows]), strict=True):
            own.add(int((x - drawn).abs().sum(dim=1).argmin()))
            assert (x == drawn).all(dim=1).any()
    for row, own in zip(rows.tolist(), seen, strict=True):
        ranked = sorted((i for i in range(90) if i != row), key=lambda i: -float(unit[row] @ unit[i]))
        assert own == set(ranked[:4])


def test_features_of_neighbours_are_renewed_and_the_neighbours_stay() -> None:
    x = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0))
    method = build("scan", pretext_epochs=0, clustering_epochs=2, neighbours=1)
    begin_epoch(method, x, torch.arange(30))
    before = method.mined.draw(torch.arange(30))
    neighbour = [int((x == row).all(dim=1).int().argmax()) for row in before]
    moved = x.flip(1) ** 3
    begin_epoch(method, moved, torch.arange(30))
    assert torch.equal(method.mined.draw(torch.arange(30)), moved[neighbour])


def test_more_neighbours_than_samples() -> None:
    x, _ = mixture(6)
    method = build("scan", pretext_epochs=0, neighbours=20)
    begin_epoch(method, x, torch.arange(6))
    assert method.losses(batch_of(method, x, torch.arange(6)))["loss"].isfinite()


def test_every_stage_has_its_loss_and_reaches_every_weight() -> None:
    x, _ = mixture(60)
    ids = torch.arange(60)
    method = build("scan", encoder="mlp", pretext_epochs=1, clustering_epochs=1, neighbours=1, threshold=0.25)
    generator = torch.Generator().manual_seed(0)
    strong, weak = (x[:8] + 0.1 * torch.randn(8, WIDTH, generator=generator) for _ in range(2))
    batch = Batch((strong, weak), torch.empty(8, 0).long(), ids[:8])
    for stage in (1, 2, 3):
        begin_epoch(method, x, ids)
        method.zero_grad()
        loss = method.losses(batch)["loss"]
        loss.backward()
        with torch.no_grad():
            logits, strong_logits = (method.classifier(method.encoder(view)) for view in (weak, strong))
            features = method.encoder(x)
            if stage == 1:
                seen = functional.normalize(torch.cat([method.projector(method.encoder(v)) for v in (strong, weak)]))
                similarity = (seen @ seen.T / 0.1).fill_diagonal_(-torch.inf).log_softmax(dim=1)
                expected = -similarity[torch.arange(16), (torch.arange(16) + 8) % 16].mean()
            elif stage == 2:
                unit = functional.normalize(features - features.mean(dim=0))
                nearest = (unit @ unit.T).fill_diagonal_(-1).argmax(dim=1)[:8]
                expected = scan_loss(logits, method.classifier(features[nearest]))["loss"]
            else:
                expected = self_labelling_loss(logits, strong_logits, threshold=0.25)["loss"]
        assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5), stage
        assert all(p.grad is not None for p in method.parameters()), stage
        assert method.classifier.weight.grad.any() == (stage > 1)
        assert method.projector[0].weight.grad.any() == (stage == 1)
        assert any(p.grad.any() for p in method.encoder.parameters())


def test_training_memory_of_scan_stays_out_of_the_model() -> None:
    x, _ = mixture(40)
    method = build("scan", pretext_epochs=0)
    begin_epoch(method, x, torch.arange(40))
    assert {name.split(".")[0] for name in method.shared_state()} == {"projector", "classifier"}
    torch.testing.assert_close(method.embed_projected(x).norm(dim=1), torch.ones(40))


def test_settings_of_scan() -> None:
    for settings, message in (
        ({"subclasses": 1}, "subclasses"),
        ({"neighbours": 0}, "neighbours"),
        ({"clustering_epochs": 0}, "clustering_epochs"),
        ({"entropy_weight": -1.0}, "entropy_weight"),
        ({"threshold": 1.0}, "threshold must be greater than 0 and below 1; got 1.0"),
        ({"threshold": 0.0}, "threshold must be greater than 0 and below 1"),
        ({"temperature": 0.0}, "temperature"),
    ):
        with pytest.raises(UserError, match=message):
            build("scan", **settings)


# TURTLE


def test_features_are_standardised_once_by_the_training_set() -> None:
    x, _ = mixture()
    x = torch.cat([100 * x[:, :8] + 7, torch.full((300, 2), 100.3)], dim=1)
    method = build("turtle")
    begin_epoch(method, x, torch.arange(300))
    vectors = method.forward_views(batch_of(method, x, torch.arange(300)))["vectors"]
    expected = (x[:, :8] - x[:, :8].mean(dim=0)) / x[:, :8].std(dim=0)
    torch.testing.assert_close(vectors[:, :8], expected, rtol=1e-4, atol=1e-4)
    other = x + 1
    assert not method.forward_views(batch_of(method, other, torch.arange(300)))["vectors"][:, 8:].any()
    begin_epoch(method, 5 * x, torch.arange(300))
    assert torch.equal(method.forward_views(batch_of(method, x, torch.arange(300)))["vectors"], vectors)


def test_a_step_of_turtle() -> None:
    x, _ = mixture(50)
    method = build("turtle", inner_steps=3, entropy_weight=2.0)
    assert isinstance(method, Turtle)
    begin_epoch(method, x, torch.arange(50))
    classifier = torch.zeros(CLASSES, WIDTH)
    for _ in range(2):  # the second goes on from the first one's classifier
        batch = batch_of(method, x, torch.arange(50))
        projected = method.forward_views(batch)
        found = method.losses(batch)["loss"]
        labels = projected["logits"].detach().softmax(dim=1)
        classifier = turtle_inner(classifier, projected["vectors"], labels, steps=3)
        expected = turtle_loss(projected["logits"], projected["vectors"] @ classifier.T, entropy_weight=2.0)
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        torch.testing.assert_close(method.classifier, classifier)


def test_turtle_trains_no_encoder() -> None:
    method = build("turtle", encoder="mlp").train()
    assert not any(parameter.requires_grad for parameter in method.encoder.parameters())
    assert [module.training for module in (method, method.labelling, method.encoder)] == [True, True, False]
    found = assemble({"method": {"name": "turtle"}, "encoder": {"name": "mlp"}}, regrain.load(np.eye(40, WIDTH)))
    assert any("turtle does not train the encoder, and 'mlp' has random weights" in notice for notice in found.notices)
    with pytest.raises(UserError, match="inner_steps"):
        build("turtle", inner_steps=0)


# Through the public verbs


def dataset(count: int = 200) -> Dataset:
    x, truth = mixture(count)
    labels = Labels.from_codes(truth.numpy(), ["kind"])
    splits = np.where(np.arange(count) // CLASSES % 4 == 0, "test", "train")
    return Dataset(TensorSamples(x, "vector"), labels, np.array([f"r{i}" for i in range(count)]), "mixture", splits)


SETTINGS = {
    "kmeans": [],
    "scan": ["epochs=30", "batch_size=50", "pretext_epochs=0", "learning_rate=0.1"],
    "turtle": ["epochs=60", "batch_size=50"],
    "self-classifier": ["epochs=20", "batch_size=50"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_runs_are_fitted_judged_discovered_and_opened_again(name: str, tmp_path: Path) -> None:
    data = dataset()
    own = f"class_counts=[{CLASSES}]" if name == "self-classifier" else f"subclasses={CLASSES}"
    settings = [own, *SETTINGS[name]]
    run = regrain.fit(name, data, out=tmp_path / "run", encoder="identity", settings=settings, device="cpu")
    assert run.recipe["data"]["roles"] == {}
    flat = regrain.evaluate(run, protocols=["clustering"], options={"cluster_seeds": 1}).flat()
    for key in ("test/kind/head1-acc", "test/kind/head1-acc-by-train"):
        assert flat[key] > max(0.8, flat[f"{key}.random"])
    found = regrain.discover(run)
    assert found.level is None
    assert found.figures["test/kind/acc"] == pytest.approx(flat["test/kind/head1-acc"])
    opened = regrain.Run.open(run.path, device="cpu")
    x = data.samples.take(torch.arange(200))
    for one, other in zip(run.model.method.partitions(x), opened.model.method.partitions(x), strict=True):
        assert torch.equal(one, other)
    new = regrain.predict(opened, data.split("test").with_levels([]), tmp_path / "predicted.csv")
    kept = found.splits == "test"
    assert [f"subclass {z}" for z in found.subclass[kept]] == list(new["subclass"])


def test_k_means_is_one_look_at_the_training_set(tmp_path: Path) -> None:
    settings = [f"subclasses={CLASSES}"]
    run = regrain.fit("kmeans", dataset(), out=tmp_path / "run", encoder="mlp", settings=settings, device="cpu")
    assert [row["epoch"] for row in run.folder.read_metrics()] == [1]
    assert json.loads((run.path / "state.json").read_text())["finished"]
    assert not run.folder.checkpoint_file.exists()
    start = run.model.untrained(run.folder.model_folder, run.recipe["seed"])
    trained = run.model.method.encoder.state_dict()
    for key, value in start.method.encoder.state_dict().items():
        assert torch.equal(value, trained[key]), key
    assert run.model.method.centres.any()


def test_turtle_on_a_frozen_encoder(tmp_path: Path) -> None:
    topics = ("apple pear plum", "iron steel zinc", "rain snow hail")
    texts = [f"{topics[i % 3].split()[i % 2]} {topics[i % 3]} {i}" for i in range(90)]
    labels = Labels.from_codes(np.arange(90) % 3, ["topic"])
    data = Dataset(TextSamples(texts), labels, np.array([str(i) for i in range(90)]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)  # a random frozen encoder is all that a test has
        run = regrain.fit(
            "turtle",
            data,
            out=tmp_path / "run",
            encoder="hash-text",
            frozen=True,
            settings=["encoder.adapter=identity", "subclasses=3", "epochs=20"],
            device="cpu",
        )
        found = regrain.discover(run)
    assert found.figures["test/topic/acc"] > 0.9


def test_stages_of_scan_by_default() -> None:
    train = dataset().split("train")
    for given, stages, told in (
        ({}, (6, 2), "6 epochs of contrast, 2 of clustering, 2 of self-labelling"),
        ({"pretext_epochs": 0}, (0, 5), "0 epochs of contrast, 5 of clustering, 5 of self-labelling"),
        ({"clustering_epochs": 4}, (6, 4), "6 epochs of contrast, 4 of clustering, 0 of self-labelling"),
        ({"pretext_epochs": 9, "clustering_epochs": 1}, (9, 1), None),
    ):
        found = assemble({"method": {"name": "scan", **given}, "training": {"epochs": 10}}, train)
        settings = found.recipe["method"]
        assert (settings["pretext_epochs"], settings["clustering_epochs"]) == stages
        assert isinstance(found.model.method, SCAN)
        assert (found.model.method.pretext_epochs, found.model.method.clustering_epochs) == stages
        assert [notice for notice in found.notices if "contrast" in notice] == ([] if told is None else [told])
    with pytest.raises(UserError, match="pretext_epochs is 10 of 10 epochs: none is left to cluster in"):
        assemble({"method": {"name": "scan", "pretext_epochs": 10}, "training": {"epochs": 10}}, train)
    frozen = {"name": "mlp", "frozen": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)
        found = assemble({"method": {"name": "scan"}, "encoder": frozen, "training": {"epochs": 10}}, train)
    assert (found.recipe["method"]["pretext_epochs"], found.recipe["method"]["clustering_epochs"]) == (0, 5)


def test_self_classifier_on_features_as_they_are() -> None:
    """The recipe for a frozen encoder's features, and for the input itself; settings of one's own win over it."""
    texts = [f"word{i % 7} word{i % 3}" for i in range(100)]
    ids = np.array([str(i) for i in range(100)])
    data = Dataset(TextSamples(texts), Labels.empty(100), ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)
        found = assemble(
            {"method": {"name": "self-classifier"}, "encoder": {"name": "hash-text", "frozen": True}}, data
        )
    assert found.recipe["encoder"]["adapter"] == "identity"
    of_identity = assemble({"method": {"name": "self-classifier"}, "encoder": {"name": "identity"}}, dataset())
    for recipe in (found.recipe, of_identity.recipe):
        told = {name: recipe["method"][name] for name in ("neighbours", "restarts", "layers", "queue_size")}
        assert told == {"neighbours": 10, "restarts": 5, "layers": 0, "queue_size": 0}
        assert (recipe["training"]["optimizer"], recipe["training"]["learning_rate"]) == ("adamw", 0.003)
    assert found.recipe["views"]["presets"] == ["weak"]
    assert found.recipe["method"]["class_counts"] == (5,)
    assert any("5 classes, a rule of thumb" in notice for notice in found.notices)
    published = {"neighbours": 0, "restarts": 1, "queue_size": 40, "layers": 2, "class_prior": [0.5, 0.25, 0.25]}
    recipe = {
        "method": {"name": "self-classifier", **published},
        "encoder": {"name": "hash-text", "frozen": True, "adapter": "residual"},
        "training": {"optimizer": "lars"},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)
        found = assemble(recipe, data)
    assert found.recipe["encoder"]["adapter"] == "residual"
    assert found.recipe["views"]["presets"] == ["weak", "weak"]
    assert found.recipe["method"]["class_counts"] == (3,)
    assert found.options.optimizer == "lars"
    assert not any("rule of thumb" in notice for notice in found.notices)


@pytest.mark.parametrize(("side", "counts", "optimizer"), [(16, (2,), "sgd"), (224, (1000, 2000, 4000, 8000), "lars")])
def test_self_classifier_is_set_by_the_size_of_images(side: int, counts: tuple[int, ...], optimizer: str) -> None:
    pixels = torch.randint(0, 256, (4, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    data = replace(regrain.load(pixels.permute(0, 2, 3, 1).numpy()), splits=None)
    recipe = {"method": {"name": "self-classifier"}, "encoder": {"name": "conv4"}}
    found = assemble(recipe, data).recipe
    assert tuple(found["method"]["class_counts"]) == counts
    assert found["training"]["optimizer"] == optimizer
    assert found["method"]["queue_size"] == 2  # half of the samples: the recipe's is no wish of the user's
    with pytest.raises(UserError, match="queue_size 5 is longer than the training data"):
        assemble(recipe | {"method": {"name": "self-classifier", "queue_size": 5}}, data)


@pytest.mark.parametrize(("count", "batch"), [(2048, 1024), (2047, 256), (60, 256)])
def test_scan_on_features_takes_large_batches_where_the_data_allow(count: int, batch: int) -> None:
    recipe = {"method": {"name": "scan"}, "encoder": {"name": "identity"}}
    data = replace(regrain.load(np.eye(count, 4)), splits=None)
    assert assemble(recipe, data).options.batch_size == batch
    assert assemble(recipe | {"training": {"batch_size": 700}}, data).options.batch_size == 700


def test_scan_on_pixels_as_they_are() -> None:
    images = replace(regrain.load(np.zeros((30, 8, 8, 3), dtype=np.uint8)), splits=None)
    found = assemble({"method": {"name": "scan"}, "encoder": {"name": "identity"}}, images)
    assert found.options.batch_size == 128
