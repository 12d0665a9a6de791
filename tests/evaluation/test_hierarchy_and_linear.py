"""Protocols of classes found and of linear probes: hierarchies, the partitions of a method's own, two solvers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.data.taxonomies import taxonomy
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.evaluation import Representation, Task, evaluate_model
from regrain.evaluation.clustering import clustering
from regrain.evaluation.hierarchy import hierarchy
from regrain.evaluation.linear import _descend, linear
from regrain.evaluation.probe import Probed
from regrain.labels import Labels, Taxonomy
from regrain.metrics import clustering_metrics
from regrain.model import Model

COARSE = [0, 0, 1, 1]


def judged(count: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Fine labels of four classes, and six clusters that mostly follow them."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    clusters = np.where(random.random(count) < 0.5, (labels + 1) % 4, random.integers(6, size=count))
    return torch.from_numpy(labels), torch.from_numpy(clusters)


def own_levels(labels: Tensor, train: Tensor | None = None) -> Task:
    codes = torch.stack([torch.tensor(COARSE), torch.arange(4)], dim=1)
    nested = Labels.from_codes(codes, ["coarse", "fine"])
    return Task("fine", nested.names("fine"), labels, train, taxonomy=nested.taxonomy)


def represented(clusters: Tensor, train: Tensor | None = None) -> Representation:
    vectors = torch.eye(8)[clusters]
    return Representation(
        "model", vectors, partitions=clusters[:, None], train_partitions=None if train is None else train[:, None]
    )


def matched_by_trying_all(labels: Tensor, clusters: Tensor) -> dict[int, int]:
    """Of all ways to give each class a cluster of its own, the best; other clusters go to their majority class.

    Of equally good ones that which leaves most to the majorities.
    """
    counts = np.zeros((6, 4), int)
    for cluster, label in zip(clusters.tolist(), labels.tolist(), strict=True):
        counts[cluster, label] += 1
    best = max(
        itertools.permutations(range(6), 4),
        key=lambda of: (sum(counts[k, c] for c, k in enumerate(of)), -sum(counts[k].max() for k in of)),
    )
    return {k: best.index(k) if k in best else int(counts[k].argmax()) for k in range(6)}


# hierarchy


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("source", ["test", "train"])
def test_clusters_matched_at_the_leaves_are_judged_above(source: str, seed: int) -> None:
    labels, clusters = judged(seed=seed)
    train, train_clusters = judged(317, seed=seed + 10)  # so many that no two matchings are equally good
    labels[::9], train[::7] = -1, -1
    found = hierarchy(represented(clusters, train_clusters), own_levels(labels, train), hierarchy_mapping=source)
    on = (labels, clusters) if source == "test" else (train, train_clusters)
    mapping = matched_by_trying_all(*(column[on[0] >= 0] for column in on))
    pairs = [(c, mapping[k]) for c, k in zip(labels.tolist(), clusters.tolist(), strict=True) if c >= 0]
    fine = np.mean([a == b for a, b in pairs])
    coarse = np.mean([COARSE[a] == COARSE[b] for a, b in pairs])
    assert found["acc@fine"].value == pytest.approx(fine)
    assert found["acc@coarse"].value == pytest.approx(coarse)
    assert found["meets@fine"].value == pytest.approx(fine)
    assert found["meets@coarse"].value == pytest.approx(coarse - fine)
    assert found["meets@none"].value == pytest.approx(1 - coarse)
    assert "first partition" in found["acc@coarse"].note
    assert ("training split" in found["acc@coarse"].note) == (source == "train")


def test_a_cluster_that_training_never_had_is_wrong() -> None:
    labels = torch.arange(40) % 4
    clusters = labels.clone()
    clusters[:4] = 5
    found = hierarchy(represented(clusters, labels), own_levels(labels, labels), hierarchy_mapping="train")
    assert found["acc@fine"].value == pytest.approx(0.9)


def test_without_a_partition_k_means_finds_the_classes() -> None:
    labels = torch.arange(40) % 4
    noise = 0.01 * torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    found = hierarchy(Representation("raw", torch.eye(8)[labels] + noise), own_levels(labels))
    assert found["acc@coarse"].value == found["acc@fine"].value == found["meets@fine"].value == 1
    assert "k-means" in found["acc@coarse"].note


def test_a_taxonomy_by_name_file_or_object(tmp_path: Path) -> None:
    digits = taxonomy("digits")
    (tmp_path / "mine.json").write_text(json.dumps(digits.to_json()))
    labels = torch.arange(100) % 10
    clusters = (labels + (torch.arange(100) % 3 == 0)) % 10
    names = tuple(map(str, range(10)))
    results = [
        hierarchy(represented_in_ten(clusters), Task("digit", names, labels, None), taxonomy=source)
        for source in ("digits", digits, tmp_path / "mine.json", str(tmp_path / "mine.json"))
    ]
    assert all(result == results[0] for result in results)
    group = dict(zip(names, digits.lineage(names)["group"].tolist(), strict=True))
    same = [group[str(a)] == group[str(b)] for a, b in zip(labels.tolist(), clusters.tolist(), strict=True)]
    assert results[0]["acc@group"].value == pytest.approx(np.mean(same))
    assert {name.split("@")[1] for name in results[0]} == {"group", "digit", "none"}  # no level ``label`` beside


def represented_in_ten(clusters: Tensor) -> Representation:
    return Representation("model", torch.eye(10)[clusters], partitions=clusters[:, None])


def test_classes_that_the_taxonomy_does_not_know_are_counted() -> None:
    labels = torch.arange(40) % 4
    given = Taxonomy.from_edges([("0", "even"), ("2", "even"), ("1", "odd")])
    found = hierarchy(represented(labels), own_levels(labels), taxonomy=given)
    assert (found["samples@level1"].value, found["samples@level1"].count) == (30, True)
    assert "10 of 40 samples have no class there" in found["samples@level1"].note
    assert "does not know 1 classes, such as '3'" in found["acc@level1"].note
    assert found["acc@level1"].value == found["acc@fine"].value == 1
    assert "samples@fine" not in found


def test_what_a_hierarchy_needs_is_said() -> None:
    labels, clusters = judged()
    model = represented(clusters)
    flat = Task("fine", tuple("0123"), labels, None)
    top = Task("coarse", tuple("01"), labels // 2, None, taxonomy=own_levels(labels).taxonomy)
    strange = Taxonomy.from_edges([("beagle", "dog"), ("pug", "dog")])
    alone = Taxonomy.from_edges([("0", "a"), ("1", "b"), ("2", "c"), ("3", "d")])
    own = own_levels(labels)
    for task, options, message in (
        (flat, {}, "no level lies above 'fine': hierarchy needs levels that nest"),
        (top, {}, "no level lies above 'coarse': choose a finer one"),
        (own, {"taxonomy": strange}, "knows none of the 4 classes of level 'fine', such as '0'"),
        (own, {"taxonomy": alone}, "no level of the taxonomy groups the classes of level 'fine'"),
        (own, {"taxonomy": "breeds_livin17"}, "did you mean 'breeds_living17'"),
        (own, {"hierarchy_mapping": "train"}, "needs one that is labelled at this level"),
    ):
        with pytest.raises(UserError, match=message):
            hierarchy(model, task, **options)


# clustering: the partitions of a method's own


def test_partitions_are_judged_one_by_one() -> None:
    labels, clusters = judged()
    train, train_clusters = judged(80, seed=3)
    labels[::9] = -1
    model = Representation(
        "model",
        torch.randn(60, 8, generator=torch.Generator().manual_seed(0)),
        partitions=torch.stack([clusters, clusters // 2], dim=1),
        train_partitions=torch.stack([train_clusters, train_clusters // 2], dim=1),
    )
    scores = clustering(model, own_levels(labels, train), cluster_seeds=1)
    known = labels >= 0
    for head, found in (("head1", clusters), ("head2", clusters // 2)):
        for metric, value in clustering_metrics(labels[known], found[known]).items():
            assert scores[f"{head}-{metric}"].value == pytest.approx(value)
        assert scores[f"{head}-clusters"].value == len(set(found[known].tolist()))
    assert "matched to classes on the labels that they are then judged by" in scores["head1-acc"].note
    mapping = matched_by_trying_all(train, train_clusters)
    hits = [mapping[k] == c for k, c in zip(clusters.tolist(), labels.tolist(), strict=True) if c >= 0]
    by_train = scores["head1-acc-by-train"]
    assert by_train.value == pytest.approx(np.mean(hits))
    assert by_train.low < by_train.value < by_train.high
    for unlabelled in (None, torch.full_like(train, -1)):
        scores = clustering(model, own_levels(labels, unlabelled), cluster_seeds=1)
        assert "head1-acc" in scores
        assert "head1-acc-by-train" not in scores


# linear


def noisy(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 5
    width = torch.tensor([3.0, 1, 1, 1, 0.2, 10, 0])  # columns of several scales, one of them constant
    x = width[:5] * torch.eye(5)[labels]
    x = torch.cat([x, torch.zeros(count, 2)], dim=1) + 0.6 * width * torch.randn(count, 7, generator=generator)
    return x, labels


def test_the_convex_solution_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    (train, train_labels), (test, labels) = noisy(120, 0), noisy(400, 1)
    model = Representation("model", test, train)
    at = Task("fine", tuple("01234"), labels, train_labels)
    scaled, judged_ = (
        ((x - train.mean(dim=0)) / train.std(dim=0).clamp(min=1e-6) / 7**0.5).numpy() for x in (train, test)
    )
    given = train_labels.numpy()
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0)).numpy()
    held, kept = order[:24], order[24:]
    accuracies, held_out = {}, {}
    chosen = linear(model, at)["linear"].value
    for c in (0.1, 1.0, 10.0, 100.0):
        solver = LogisticRegression(C=c, tol=1e-8, max_iter=5000)
        held_out[c] = solver.fit(scaled[kept], given[kept]).score(scaled[held], given[held])
        accuracies[c] = solver.fit(scaled, given).score(judged_, labels.numpy())
        monkeypatch.setattr("regrain.evaluation.probe._INVERSE_PENALTIES", (c,))
        assert linear(model, at)["linear"].value == pytest.approx(accuracies[c], abs=1 / 400)
    assert len(set(accuracies.values())) == 4
    assert chosen == pytest.approx(accuracies[max(held_out, key=lambda c: held_out[c])], abs=1 / 400)


def test_both_solvers_agree_on_digits() -> None:
    data = regrain.load("digits")
    pixels = data.samples.take(torch.arange(len(data))).float().flatten(1)
    labels = data.labels.level("digit")
    rows = torch.arange(len(data)) % 3 == 0

    def augment(epoch: int) -> Tensor:
        noise = torch.randn(pixels[~rows].shape, generator=torch.Generator().manual_seed(epoch))
        return pixels[~rows] * (1 + 0.2 * noise)

    model = Representation("model", pixels[rows], pixels[~rows], augment_train=augment)
    at = Task("digit", data.labels.names("digit"), labels[rows], labels[~rows])
    scores = linear(model, at, linear_epochs=15)
    convex, descended = scores["linear"], scores["linear-sgd"]
    assert convex.low <= descended.value <= convex.high
    assert descended.low <= convex.value <= descended.high
    assert convex.value > 0.9
    assert scores == linear(model, at, linear_epochs=15)  # the same seed


def test_the_probe_descends_as_torchs_nesterov_momentum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.evaluation.linear._RATES", (0.5,))
    monkeypatch.setattr("regrain.evaluation.linear._BATCH", 64)
    x, labels = noisy(200, 0)
    kept, held = torch.arange(150), torch.arange(150, 200)
    probed = Probed(lambda vectors: vectors, torch.ones(200).bool(), x, labels, torch.arange(5), kept, held)
    found = _descend(lambda epoch: x + epoch, probed, epochs=3, seed=0)
    layer = nn.Linear(7, 5)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)  # three epochs of three batches
    generator = torch.Generator().manual_seed(1)
    for epoch in range(3):
        for rows in kept[torch.randperm(150, generator=generator)].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(x[rows] + epoch), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        torch.testing.assert_close(found(x), layer(x), rtol=1e-3, atol=1e-4)


def test_the_probe_trains_on_augmented_views_and_is_judged_on_plain_ones() -> None:
    train, labels = noisy(200, 0)
    at = Task("fine", tuple("01234"), labels, labels)
    epochs: list[int] = []

    def shuffled(epoch: int) -> Tensor:
        epochs.append(epoch)
        return train.roll(1, dims=0)  # the views of other samples, whose class is the label before

    found = linear(Representation("model", train, train, augment_train=shuffled), at, linear_epochs=20)
    assert epochs == list(range(20))
    assert found["linear"].value > 0.5
    assert found["linear-sgd"].value < 0.2
    assert "linear-sgd" not in linear(Representation("model", train, train), at, linear_epochs=20)


def test_a_column_that_only_augmented_views_have_plays_no_part() -> None:
    (train, train_labels), (test, labels) = noisy(300, 0), noisy(400, 1)
    at = Task("fine", tuple("01234"), labels, train_labels)
    marked = train + torch.tensor([0.0, 0, 0, 0, 0, 0, 5])
    plain, other = (
        linear(Representation("model", test, train, augment_train=lambda _, x=x: x), at, linear_epochs=20)
        for x in (train, marked)
    )
    assert plain == other
    assert plain["linear-sgd"].value > 0.5


def test_unlabelled_samples_play_no_part() -> None:
    (train, train_labels), (test, labels) = noisy(200, 0), noisy(100, 1)
    hidden, hidden_labels = train.clone(), train_labels.clone()
    hidden[::4], hidden_labels[::4] = torch.nan, -1
    kept = torch.arange(200) % 4 != 0
    scores = [
        linear(Representation("model", test, x), Task("fine", tuple("01234"), labels, y))
        for x, y in ((hidden, hidden_labels), (train[kept], train_labels[kept]))
    ]
    assert scores[0] == scores[1]


def test_classes_that_training_lacks_count_as_wrong() -> None:
    (train, train_labels), (test, labels) = noisy(200, 0), noisy(100, 1)
    kept = train_labels > 0
    found = linear(Representation("model", test, train[kept]), Task("fine", tuple("01234"), labels, train_labels[kept]))
    others = linear(
        Representation("model", test[labels > 0], train[kept]),
        Task("fine", tuple("01234"), labels[labels > 0], train_labels[kept]),
    )
    assert found["linear"].value == pytest.approx(0.8 * others["linear"].value)


def test_what_linear_needs_is_said() -> None:
    x, labels = noisy(20, 0)
    nobody, one = torch.full((20,), -1), torch.zeros(20).long()
    for train, train_labels, message in (
        (None, labels, "training samples labelled at level 'fine'"),
        (x, None, "training samples labelled at level 'fine'"),
        (x, nobody, "training samples of two classes of level 'fine'; got 0"),
        (x, one, "training samples of two classes of level 'fine'; got 1"),
    ):
        with pytest.raises(UserError, match=f"linear needs {message}"):
            linear(Representation("model", x, train), Task("fine", tuple("01234"), labels, train_labels))


# evaluate


def data_and_model(method: str, **settings: Any) -> tuple[Dataset, Model]:
    fine = torch.arange(60) % 4
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.eye(6)[fine] + 0.3 * torch.randn(60, 6, generator=generator)
    labels = Labels.from_codes(torch.stack([fine // 2, fine], dim=1), ["coarse", "fine"])
    data = Dataset(TensorSamples(x, "vector"), labels, np.array([str(i) for i in range(60)]))
    encoder = build_encoder("mlp", modality="vector", sample_shape=(6,), seed=0)
    classes = [2] if method == "sup-ce" else []
    return data, Model.build(method, settings, classes, encoder, {"modality": "vector", "shape": [6]})


def test_a_methods_own_partitions_are_judged_and_nobody_elses() -> None:
    data, model = data_and_model("self-classifier", class_counts=(4, 6), queue_size=0, hidden=8)
    options = {"cluster_seeds": 1}
    flat = evaluate_model(model, data, data, protocols=["clustering"], options=options, projection=True).flat()
    for level in ("coarse", "fine"):
        for key in ("head1-acc", "head2-acc", "head1-acc-by-train"):
            assert f"test/{level}/{key}" in flat
            assert f"test/{level}/{key}.random" in flat
            assert f"test/{level}/{key}.raw" not in flat
            assert f"test/{level}/{key}.projection" not in flat
    assert model.method.eval() is model.method
    with torch.no_grad():
        own = [p.argmax(dim=1) for p in model.method.partitions(model.prepare(data.samples.take(torch.arange(60))))]
    for head, clusters in enumerate(own, 1):
        expected = clustering_metrics(data.labels.level("fine"), clusters)["acc"]
        assert flat[f"test/fine/head{head}-acc"] == pytest.approx(expected)
    data, without = data_and_model("sup-ce")
    flat = evaluate_model(without, data, data, protocols=["clustering", "hierarchy"], options=options).flat()
    assert not any("head1" in key for key in flat)
    assert "test/fine/acc@coarse" in flat


def test_hierarchy_is_judged_at_the_finest_level_unless_others_are_asked_for() -> None:
    data, model = data_and_model("sup-ce")
    flat = evaluate_model(model, data, None, protocols=["hierarchy"], baselines=False).flat()
    assert {key.split("/")[1] for key in flat} == {"fine"}
    with pytest.raises(UserError, match="no level lies above 'coarse'"):
        evaluate_model(model, data, None, protocols=["hierarchy"], levels=["coarse", "fine"], baselines=False)


def test_a_linear_probe_of_a_model_beside_its_baselines() -> None:
    data, model = data_and_model("sup-ce")
    options = {"linear_epochs": 2}
    flat = evaluate_model(model, data, data, protocols=["linear"], options=options).flat()
    assert flat["test/fine/linear"] == flat["test/fine/linear.raw"] == 1
    assert {"test/fine/linear-sgd", "test/fine/linear-sgd.random"} <= flat.keys()
    assert "test/fine/linear-sgd.raw" not in flat
    with pytest.raises(UserError, match="linear needs training samples labelled at level 'coarse'"):
        evaluate_model(model, data, None, protocols=["linear"], options=options)
