"""Protocols against what they must give on embeddings whose answer is known, and what the reader is told."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from regrain.checks import Count, CountFromZero
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.evaluation import PROTOCOLS, Representation, Task, evaluate_model
from regrain.evaluation.clustering import clustering, ward_clusters
from regrain.evaluation.hierarchy import hierarchy
from regrain.evaluation.neighbours import knn
from regrain.evaluation.protocols import Protocol
from regrain.evaluation.representations import raw_representation
from regrain.evaluation.retrieval import recall
from regrain.evaluation.superclass import superclass
from regrain.labels import Labels
from regrain.metrics import clustering_metrics
from regrain.model import Model


def blobs(count: int, classes: int, spread: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return torch.eye(8)[labels] + spread * torch.randn(count, 8, generator=generator), labels


def task(labels: torch.Tensor, train: torch.Tensor | None = None) -> Task:
    return Task("fine", tuple(map(str, range(8))), labels, train)


def test_separate_blobs_score_one_everywhere_and_noise_scores_chance() -> None:
    embeddings, labels = blobs(80, 4, 0.01)
    judged = Representation("model", embeddings, embeddings)
    at = replace(task(labels, labels), groups=np.repeat(["a", "b"], 40))
    options = {"ks": [1, 5], "neighbours": 5, "episodes": 20}
    # those two also give shares that add up to one, and errors; novel needs classes without a label
    others = (hierarchy, superclass, PROTOCOLS["novel"])
    for protocol in (p for p in PROTOCOLS.values() if p not in others):
        own = {name: value for name, value in options.items() if name in protocol.options}
        for figures in protocol.figures(judged, [at], own).values():
            for name, score in figures.items():
                assert score.value == pytest.approx(1.0), (protocol.name, name)
    noise = Representation("model", torch.randn(400, 8, generator=torch.Generator().manual_seed(1)))
    scores = recall(noise, task(torch.arange(400) % 4), ks=[1])
    assert 0.15 < scores["recall@1"].value < 0.35


def test_recall_against_a_loop_with_unknown_labels() -> None:
    embeddings, labels = blobs(60, 4, 0.8)
    labels = labels.clone()
    labels[::7] = -1
    found = recall(Representation("model", embeddings), task(labels), ks=[1, 3])
    known = [i for i in range(60) if labels[i] >= 0]
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    for k in (1, 3):
        hits = []
        for i in known:
            ranked = sorted((j for j in known if j != i), key=lambda j: -float(unit[i] @ unit[j]))[:k]
            hits.append(any(labels[j] == labels[i] for j in ranked))
        assert found[f"recall@{k}"].value == pytest.approx(np.mean(hits))
        assert found[f"recall@{k}"].low <= np.mean(hits) <= found[f"recall@{k}"].high


def test_clustering_keeps_the_tightest_of_several_starts() -> None:
    embeddings, labels = blobs(200, 8, 1.0)
    unit = torch.nn.functional.normalize(embeddings, dim=1).numpy()
    for starts in (1, 20):
        options = {"cluster_starts": starts, "cluster_seeds": 2}
        found = clustering(Representation("model", embeddings), task(labels), **options)["kmeans-nmi"].value
        runs = [KMeans(8, n_init=starts, random_state=seed).fit_predict(unit) for seed in range(2)]
        assert found == pytest.approx(np.mean([normalized_mutual_info_score(labels, run) for run in runs]))


def test_k_means_fitted_on_the_training_samples_and_ward_linkage_against_scikit_learn() -> None:
    train, train_labels = blobs(160, 8, 0.6)
    test, labels = blobs(120, 8, 0.6, seed=1)
    labels[::11] = -1
    at, options = task(labels, train_labels), {"cluster_seeds": 2, "cluster_starts": 3, "cluster_train": True}
    found = clustering(Representation("model", test, train), at, **options)
    unit_train, unit = (torch.nn.functional.normalize(x, dim=1).numpy() for x in (train, test[labels >= 0]))
    known = labels[labels >= 0]
    runs = [KMeans(8, n_init=3, random_state=seed).fit(unit_train).predict(unit) for seed in range(2)]
    for metric in ("acc", "nmi", "ari"):
        expected = [clustering_metrics(known, run)[metric] for run in runs]
        assert found[f"kmeans-train-{metric}"].value == pytest.approx(np.mean(expected))
        linked = AgglomerativeClustering(8, linkage="ward").fit_predict(unit)
        assert found[f"ward-{metric}"].value == pytest.approx(clustering_metrics(known, linked)[metric])
    assert found["kmeans-train-acc"].over == "seeds"
    assert (found["ward-acc"].detail, found["ward-purity"].detail) == (False, True)
    assert "kmeans-train-acc" not in clustering(Representation("model", test, train), at)
    assert "kmeans-train-acc" not in clustering(Representation("model", test), at, **options)
    assert "kmeans-train-acc" not in clustering(
        Representation("model", test, train[:8]), at, **options
    )  # as many as classes


def test_ward_linkage_of_equal_samples_gives_the_clusters_asked_for() -> None:
    assert len(set(ward_clusters(torch.ones(9, 4), 3).tolist())) == 3


def test_what_is_left_out_for_its_size_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.evaluation.clustering.MOST_LINKED", 79)
    monkeypatch.setattr("regrain.evaluation.clustering.MOST_FITTED", 40)
    embeddings, labels = blobs(80, 4, 0.01)
    found = clustering(Representation("model", embeddings, embeddings), task(labels, labels), cluster_train=True)
    assert not any(name.startswith("ward") for name in found)
    assert found["kmeans-acc"].note == "Ward linkage was left out, 80 samples being more than 79"
    assert found["kmeans-train-acc"].note == "k-means is fitted on 40 of the 80 training samples"
    assert found["kmeans-train-acc"].value == 1


def test_knn_against_scikit_learn() -> None:
    train, train_labels = blobs(90, 3, 0.7)
    test, labels = blobs(45, 3, 0.7, seed=1)
    found = knn(Representation("model", test, train), task(labels, train_labels), neighbours=1)
    nearest = KNeighborsClassifier(1, metric="cosine").fit(train.numpy(), train_labels.numpy())
    reference = nearest.score(test.numpy(), labels.numpy())
    assert found["knn@1"].value == pytest.approx(reference)


def test_mistakes_are_said() -> None:
    embeddings, labels = blobs(10, 2, 0.1)
    judged = Representation("model", embeddings, embeddings)
    with pytest.raises(UserError, match=r"recall@10: K lies between 1 and 9"):
        recall(judged, task(labels), ks=[1, 10])
    with pytest.raises(UserError, match="fewer than two labelled samples"):
        recall(judged, task(torch.full((10,), -1)))
    with pytest.raises(UserError, match="knn needs training samples labelled at level 'fine'"):
        knn(judged, task(labels, torch.full((10,), -1)))
    with pytest.raises(UserError, match="more samples than classes"):
        clustering(judged, task(torch.arange(10)))
    assert set(recall(judged, task(labels))) >= {"recall@1", "recall@5"}  # defaults fit themselves to few samples


def model_and_data() -> tuple[Model, Dataset]:
    embeddings, labels = blobs(40, 4, 0.3)
    codes = torch.stack([labels // 2, labels], dim=1)
    levels = Labels.from_codes(codes, ["coarse", "fine"])
    data = Dataset(TensorSamples(embeddings, "vector"), levels, np.array([str(i) for i in range(40)]))
    encoder = build_encoder("mlp", modality="vector", sample_shape=(8,), seed=0)
    inputs = {"modality": "vector", "shape": [8]}
    return Model.build("sup-ce", {"label_smoothing": 0.0}, [2], encoder, inputs), data


def test_evaluation_puts_baselines_beside_every_figure_and_flattens() -> None:
    model, data = model_and_data()
    result = evaluate_model(model, data, data, options={"ks": [1], "cluster_seeds": 2, "neighbours": 3})
    flat = result.flat()
    for level in ("coarse", "fine"):
        for metric in ("recall@1", "knn@3", "kmeans-acc", "kmeans-nmi"):
            for suffix in ("", ".raw", ".random"):
                assert f"test/{level}/{metric}{suffix}" in flat
    assert result.to_json()["samples"] == 40
    assert (
        evaluate_model(model, data, data, protocols=["recall"]).flat()
        == evaluate_model(model, data, data, protocols=["recall"]).flat()
    )
    without = evaluate_model(model, data, None, baselines=False)
    assert any("knn was left out at level 'fine'" in note for note in without.notes)
    with pytest.raises(UserError, match="knn needs training samples"):
        evaluate_model(model, data, None, protocols=["knn"], baselines=False)
    assert not any(".raw" in key for key in without.flat())


def test_evaluation_leaves_the_model_in_its_mode() -> None:
    model, data = model_and_data()
    model.method.train()
    evaluate_model(model, data, None, protocols=["recall"], baselines=False)
    assert model.method.training


def test_options_that_no_protocol_has_are_refused() -> None:
    model, data = model_and_data()
    for options, code, words in (
        ({"neighbors": 3}, "unknown_option", "no protocol has an option 'neighbors': did you mean 'neighbours'"),
        ({"cluster_seeds": 0}, "out_of_range", "cluster_seeds"),
        ({"ks": 5}, "out_of_range", "ks"),
        ({"ks": [0]}, "out_of_range", "ks"),
        ({"episodes": 5}, "conflicting_options", "episodes is an option of the protocol few-shot: add -p few-shot"),
        ({"linear_epochs": 5}, "conflicting_options", "is an option of the protocol linear or transfer: add -p linear"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            evaluate_model(model, data, None, options=options)
        assert caught.value.code == code
    with pytest.raises(UserError, match="did you mean 'recall'") as caught:
        evaluate_model(model, data, None, protocols=["recal"])
    assert caught.value.code == "unknown_name"


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_options_can_be_read_without_importing_the_protocol(protocol: Protocol) -> None:
    """By the syntax tree alone: types of builtins, typing, Count and CountFromZero; literal defaults; a text each."""
    (tree,) = ast.parse(inspect.getsource(protocol.function)).body
    assert isinstance(tree, ast.FunctionDef)
    types = {"Any": Any, "Literal": Literal, "Count": Count, "CountFromZero": CountFromZero}
    for argument, default in zip(tree.args.kwonlyargs, tree.args.kw_defaults, strict=True):
        assert argument.annotation is not None
        assert default is not None
        own = protocol.options[argument.arg]
        assert eval(ast.unparse(argument.annotation), types) == own.annotation
        assert ast.literal_eval(default) == own.default
        assert re.search(rf"^    {argument.arg} : .+\n        \w", protocol.function.__doc__ or "", re.MULTILINE)


def test_a_protocol_that_was_asked_for_works_at_every_level_asked_for_or_raises() -> None:
    model, data = model_and_data()
    for wanted in (["coarse", "fine"], ["fine", "coarse"]):
        with pytest.raises(UserError, match="no level lies above 'coarse'"):
            evaluate_model(model, data, None, levels=wanted, protocols=["hierarchy"], baselines=False)
    found = evaluate_model(model, data, None, protocols=["recall", "hierarchy"], baselines=False)
    assert {row.level for row in found.rows if row.metric.startswith("acc@")} == {"fine"}
    with pytest.raises(UserError, match="knn needs training samples"):  # asked for by its option
        evaluate_model(model, data, None, options={"neighbours": 3}, levels=["fine"], baselines=False)


def test_texts_without_a_word_are_alike() -> None:
    texts = TextSamples(("!!", "...", ":-)", "?") * 3)
    labels = Labels.from_codes(torch.arange(12)[:, None] % 2, ["kind"])
    data = Dataset(texts, labels, np.array([str(i) for i in range(12)]))
    encoder = build_encoder("hash-text", modality="text", sample_shape=())
    model = Model.build("simclr", {}, [], encoder, {"modality": "text", "shape": []})
    raw, _ = raw_representation(data, None, model, fits=False)
    assert torch.equal(raw.test, torch.zeros(12, 1))
