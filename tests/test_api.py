"""The public verbs on a user's arrays: firewall, resume, frozen encoders, unknown labels, every modality, recipes."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import Soon, quick, raises, weights

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels
from regrain.methods import METHODS
from regrain.methods.base import EVERY
from regrain.runs.source import data_section
from regrain.training.loop import Stopped

pytestmark = pytest.mark.usefixtures("own_cache")

SEVERAL_LEVELS = [name for name, cls in METHODS.items() if cls.needs.levels == (EVERY,)]
COARSE_READERS = [
    name for name, cls in METHODS.items() if "fine" not in cls.needs.levels and name not in SEVERAL_LEVELS
]


def vectors(count: int = 80, *, shuffle_fine: bool = False, unknown: float = 0.0) -> Dataset:
    """Four subclasses of two classes, well apart; ``shuffle_fine`` exchanges fine labels within each class."""
    generator = np.random.default_rng(0)
    fine = np.arange(count) % 4
    x = generator.normal(size=(count, 8)).astype(np.float32) + 4 * np.eye(8, dtype=np.float32)[fine]
    coarse = fine // 2
    if shuffle_fine:
        fine = coarse * 2 + generator.integers(0, 2, count)
    kind: list[str | None] = [f"k{c}" for c in coarse]
    sub: list[str | None] = [f"s{f}" for f in fine]
    for row in np.flatnonzero(generator.random(count) < unknown):
        kind[row] = sub[row] = None
    labels = Labels.from_columns({"kind": kind, "sub": sub})
    splits = np.where(np.arange(count) % 5 == 0, "test", "train")
    return Dataset(
        TensorSamples(torch.from_numpy(x), "vector"),
        labels,
        np.array([f"r{i}" for i in range(count)]),
        "vectors",
        splits,
    )


def same_weights(one: regrain.Run, other: regrain.Run) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("method", COARSE_READERS)
def test_firewall(method: str, tmp_path: Path) -> None:
    """Other fine labels, not a bit of difference; for the fine-trained one there is."""
    one = quick(method, vectors(), tmp_path / "one")
    other = quick(method, vectors(shuffle_fine=True), tmp_path / "other")
    assert same_weights(one, other)


@pytest.mark.parametrize("method", SEVERAL_LEVELS)
def test_firewall_around_the_levels_in_use(method: str, tmp_path: Path) -> None:
    one, other = (
        quick(method, vectors(shuffle_fine=shuffle), tmp_path / str(shuffle), levels=["kind"])
        for shuffle in (False, True)
    )
    assert same_weights(one, other)
    assert one.recipe["data"]["roles"] == {"level1": "kind"}
    assert "s3" not in (one.folder.model_folder / "config.json").read_text()


@pytest.mark.parametrize("method", ["sup-fine", *SEVERAL_LEVELS])
def test_the_firewall_test_can_fail(method: str, tmp_path: Path) -> None:
    one = quick(method, vectors(), tmp_path / "one")
    other = quick(method, vectors(shuffle_fine=True), tmp_path / "other")
    assert not same_weights(one, other)


def test_no_hidden_class_name_reaches_the_shared_model(tmp_path: Path) -> None:
    run = quick("maskcon", vectors(), tmp_path / "run")
    assert "s3" not in (run.folder.model_folder / "config.json").read_text()


def test_a_model_with_settings_that_its_method_lacks_is_named(tmp_path: Path) -> None:
    run = quick("maskcon", vectors(), tmp_path / "run")
    file = run.folder.model_folder / "config.json"
    content = json.loads(file.read_text())
    content["hyperparameters"]["sharpness"] = 2
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"saved by another regrain.*'maskcon' has no setting 'sharpness'"):
        regrain.evaluate(
            regrain.Run.open(tmp_path / "run", device="cpu", verify=False), vectors(), protocols=["recall"]
        )


@pytest.mark.parametrize("method", ["maskcon", "sup-ce", "scgm", "mixed", "turtle"])
def test_methods_of_each_kind_train_with_unknown_labels_and_are_evaluated(method: str, tmp_path: Path) -> None:
    data = vectors(unknown=0.3)
    run = quick(method, data, tmp_path / "run")
    result = regrain.evaluate(run, data, options={"ks": [1], "cluster_seeds": 2, "neighbours": 3})
    flat = result.flat()
    for key in ("test/sub/recall@1", "test/sub/knn@3", "test/kind/kmeans-acc", "test/sub/recall@1.raw"):
        assert 0 <= flat[key] <= 1
    assert json.loads((run.path / "evaluation.json").read_text())["evaluations"][0]["samples"] == 16


def test_training_helps_where_classes_are_there_to_be_found(tmp_path: Path) -> None:
    run = regrain.fit(
        "maskcon", vectors(200), out=tmp_path / "run", settings=["epochs=15", "batch_size=32"], device="cpu"
    )
    flat = regrain.evaluate(run, vectors(200), protocols=["recall"], options={"ks": [1]}).flat()
    assert flat["test/sub/recall@1"] > 0.9


def test_a_loaded_run_embeds_as_the_trained_one_and_alone_as_in_a_batch(tmp_path: Path) -> None:
    data = vectors()
    run = quick("maskcon", data, tmp_path / "run")
    opened = regrain.Run.open(tmp_path / "run", device="cpu")
    embedded = opened.embed(data)
    assert torch.equal(embedded, run.embed(data))
    alone = torch.cat([opened.embed(data.select([i])) for i in range(5)])
    assert torch.allclose(alone, embedded[:5], atol=1e-6)


def test_resume_through_the_api(tmp_path: Path) -> None:
    data = vectors()
    whole = quick("grafit", data, tmp_path / "whole")
    with pytest.raises(Stopped):
        quick("grafit", data, tmp_path / "cut", interrupt=Soon(6))
    with pytest.raises(UserError, match=r"is not finished: go on with `regrain.resume\('.*cut'\)`"):
        regrain.Run.open(tmp_path / "cut").embed(data)
    with pytest.raises(UserError, match="data in memory"):
        regrain.resume(tmp_path / "cut")
    with pytest.raises(UserError, match="are not those it was started on"):
        regrain.resume(tmp_path / "cut", vectors(60))
    assert same_weights(whole, regrain.resume(tmp_path / "cut", data, device="cpu"))
    with pytest.raises(UserError, match="nothing to resume"):
        regrain.resume(tmp_path / "cut", data)


def test_hidden_labels_are_never_seen(tmp_path: Path) -> None:
    """Hidden in the data or by the run: the same weights, the same figures, the same classes for knn to vote on."""
    data = vectors(200)
    run = quick("sup-ce", data, tmp_path / "run", hide_labels=0.9)
    assert run.recipe["data"]["hide_labels"] == 0.9
    train = run.splits()["train"]
    assert train.labels.known == {"kind": 16, "sub": 16}
    codes = data.labels.codes.clone()
    codes[torch.from_numpy(np.isin(data.ids, train.ids[(train.labels.codes[:, 0] < 0).numpy()]))] = -1
    bare = replace(data, labels=replace(data.labels, codes=codes))
    other = quick("sup-ce", bare, tmp_path / "other")
    assert same_weights(run, other)
    options = {"protocols": ["knn", "recall"], "options": {"ks": [1], "neighbours": 3}}
    figures = regrain.evaluate(run, data, **options).flat()
    assert figures == regrain.evaluate(other, bare, **options).flat()
    assert figures != regrain.evaluate(other, data, **options).flat()  # whose knn has all labels
    assert run.splits()["test"].labels.known == {"kind": 40, "sub": 40}
    assert not same_weights(run, quick("sup-ce", data, tmp_path / "whole"))


def test_a_resumed_run_and_its_recipe_hide_the_same_labels(tmp_path: Path) -> None:
    data = vectors()
    whole = quick("sup-ce", data, tmp_path / "whole", hide_labels=0.5)
    with pytest.raises(Stopped):
        quick("sup-ce", data, tmp_path / "cut", hide_labels=0.5, interrupt=Soon(6))
    assert same_weights(whole, regrain.resume(tmp_path / "cut", data, device="cpu"))
    again = regrain.fit("sup-ce", data, out=tmp_path / "again", recipe=whole.path / "recipe.yaml", device="cpu")
    assert same_weights(whole, again)
    other = regrain.fit(
        "sup-ce", data, out=tmp_path / "x", recipe=whole.path / "recipe.yaml", hide_labels=0.0, device="cpu"
    )
    assert other.recipe["data"]["hide_labels"] == 0
    assert not same_weights(whole, other)


def test_a_run_with_hidden_labels_judges_other_data_whole(tmp_path: Path) -> None:
    run = quick("sup-fine", vectors(), tmp_path / "run", hide_labels=0.9)
    other = regrain.load(np.eye(20, 8, dtype=np.float32), labels={"other": ["a", "b"] * 10})
    assert regrain.evaluate(run, other, protocols=["recall"], baselines=False, write=False).samples == 20
    for share in (1.0, -0.5, float("nan")):
        with pytest.raises(UserError, match=r"lies in \[0, 1\)"):
            quick("sup-fine", vectors(), tmp_path / "x", hide_labels=share)


def test_what_corrupts_the_training_split_is_checked_like_any_setting(tmp_path: Path) -> None:
    for section, message in (
        ({"samples": "many"}, "samples"),
        ({"label_noise": [0.3]}, "label_noise"),
        ({"hide_labels": [0.3]}, "hide_labels"),
        ({"draw": -1}, "draw must be between 0"),
    ):
        with pytest.raises(UserError, match=message):
            regrain.fit("sup-ce", vectors(), out=tmp_path / "x", recipe={"data": section}, device="cpu")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", ["sup-ce", "sclre"])
def test_classes_weigh_against_their_visible_samples(method: str, tmp_path: Path) -> None:
    data = vectors().select([i for i in range(80) if i % 4 < 2 or i < 30])
    run = quick(method, data, tmp_path / "run", "balance_classes=true", hide_labels=0.4)
    counts = torch.bincount(run.splits()["train"].labels.level("kind") + 1)[1:]
    assert counts[0] > 2 * counts[1]
    state = torch.load(run.folder.checkpoint_file, weights_only=True)["state_dict"]
    torch.testing.assert_close(state["method.class_weight"], counts.sum() / 2 / counts)
    assert not [name for name in weights(run) if "class_weight" in name]
    assert run.predict_proba(data, "kind").shape == (len(data), 2)


def test_a_saved_sclre_predicts_every_sample_alone_as_among_others(tmp_path: Path) -> None:
    data = vectors(unknown=0.3)
    run = quick("sclre", data, tmp_path / "run", "bank_size=20")
    state = torch.load(run.folder.checkpoint_file, weights_only=True)["state_dict"]
    for name in ("bank", "bank_ids", "bank_count"):  # of the weights that were saved last
        assert torch.equal(weights(run)[f"method.{name}"], state[f"method.{name}"])
    train = run.splits()["train"]
    labelled = train.keys[train.labels.level("kind") >= 0].tolist()
    assert set(state["method.bank_ids"].tolist()) <= set(labelled)
    opened = regrain.Run.open(run.path, device="cpu")
    together = opened.predict_proba(data, "kind")
    order = np.random.default_rng(0).permutation(80)
    assert torch.allclose(opened.predict_proba(data.select(order), "kind"), together[order], atol=1e-6)
    alone = torch.cat([opened.predict_proba(data.select([i]), "kind") for i in range(20)])
    assert torch.allclose(alone, together[:20], atol=1e-6)


def test_a_recipe_reproduces_the_run(tmp_path: Path) -> None:
    data = vectors()
    one = quick("maskcon", data, tmp_path / "one", "weight=0.7", encoder="mlp", seed=5)
    other = regrain.fit("maskcon", data, out=tmp_path / "other", recipe=one.path / "recipe.yaml", device="cpu")
    assert same_weights(one, other)
    with pytest.raises(UserError, match="the recipe is for maskcon"):
        regrain.fit("grafit", data, out=tmp_path / "x", recipe=one.path / "recipe.yaml")
    card = (one.path / "card.md").read_text()
    assert "maskcon on vectors" in card
    assert "Leak notice" not in card


def test_images_train_from_arrays(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (40, 3, 16, 16), dtype=np.uint8)
    data = regrain.load(x, labels={"kind": ["a", "b"] * 20, "sub": ["a1", "b1", "a2", "b2"] * 10})
    run = quick("maskcon", data, tmp_path / "run", encoder="resnet18-w16")
    assert run.embed(data).shape == (40, 128)
    flat = regrain.evaluate(run, data, protocols=["recall"], options={"ks": [1]}, split="test").flat()
    assert "test/sub/recall@1.random" in flat


def texts(count: int = 60) -> Dataset:
    words = ["open my account please", "what is my balance", "play a song", "turn the volume up"]
    fine = np.arange(count) % 4
    labels = Labels.from_columns({"domain": [f"d{f // 2}" for f in fine], "intent": [f"i{f}" for f in fine]})
    return Dataset(
        TextSamples(tuple(f"{words[f]} {i}" for i, f in enumerate(fine))),
        labels,
        np.array([str(i) for i in range(count)]),
        "texts",
    )


def test_texts_train_without_any_extra(tmp_path: Path) -> None:
    run = quick("maskcon", texts(), tmp_path / "run", encoder="hash-text")
    opened = regrain.Run.open(run.path, device="cpu")
    assert torch.equal(opened.embed(texts()), run.embed(texts()))
    flat = regrain.evaluate(run, texts(), protocols=["recall", "knn"], options={"ks": [1]}).flat()
    assert flat["test/intent/recall@1.raw"] > 0.5  # words give it away


def test_frozen_encoder_trains_an_adapter_on_cached_features(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)  # a random frozen encoder is all that a test has
        run = quick("maskcon", texts(), tmp_path / "run", encoder="hash-text", frozen=True)
        cached = set(Path(os.environ["REGRAIN_CACHE"]).glob("*.npy"))
        quick("maskcon", texts(), tmp_path / "mlp", "encoder.adapter=mlp", encoder="hash-text", frozen=True)
    assert cached
    assert set(Path(os.environ["REGRAIN_CACHE"]).glob("*.npy")) == cached  # another adapter sees the same features
    stored = weights(run)
    assert {name.split(".")[0] for name in stored} == {"method", "backbone"}
    opened = regrain.Run.open(run.path, device="cpu")
    assert torch.allclose(opened.embed(texts()), run.embed(texts()), atol=1e-6)
    flat = regrain.evaluate(opened, texts(), protocols=["recall"], options={"ks": [1]}).flat()
    assert "test/intent/recall@1.raw" in flat
    assert "test/intent/recall@1.random" not in flat  # adapters start at x: random weights are the raw features


@pytest.mark.parametrize("method", ["maskcon", "george"])
def test_copies_of_a_frozen_encoders_adapter_know_its_statistics(method: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)
        run = quick(method, texts(), tmp_path / "run", encoder="hash-text", frozen=True)
    state = weights(run)
    assert float(state["method.encoder.input_std"].mean()) < 0.9
    if method == "maskcon":
        checkpoint = torch.load(run.folder.checkpoint_file, weights_only=True)["state_dict"]
        twin, network = (checkpoint[f"method.{n}input_std"] for n in ("twin.network.0.", "encoder."))
        assert torch.allclose(twin, network)


def test_series_train(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(40, 20, 3)).astype(np.float32)
    data = regrain.load(x, labels={"kind": ["a", "b"] * 20})
    run = quick("maskcon", data, tmp_path / "run")
    assert run.embed(data).shape == (40, 128)


def test_predict_proba(tmp_path: Path) -> None:
    run = quick("sup-ce", vectors(), tmp_path / "run")
    probabilities = run.predict_proba(vectors(), "kind")
    assert probabilities.shape == (80, 2)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(80), atol=1e-5)


def test_judging_other_data_must_fit(tmp_path: Path) -> None:
    run = quick("maskcon", vectors(), tmp_path / "run")
    narrow = replace(vectors(), samples=TensorSamples(torch.zeros(80, 3), "vector"))
    with pytest.raises(UserError, match=r"samples of shape \(8,\)"):
        regrain.evaluate(run, narrow)
    with pytest.raises(UserError, match="trained on vector data; texts holds text data"):
        regrain.evaluate(run, texts())
    on_train = regrain.evaluate(
        run, vectors(), split="train", protocols=["recall"], options={"ks": [1]}, baselines=False
    )
    assert on_train.samples == 64


def test_every_process_of_one_seed_is_alike_and_seeds_differ(tmp_path: Path) -> None:
    one, two, three = (quick("maskcon", vectors(), tmp_path / str(i), seed=s) for i, s in enumerate((0, 0, 1)))
    assert same_weights(one, two)
    assert not same_weights(one, three)


def test_the_default_queue_gives_way_to_small_data_and_a_wish_does_not(tmp_path: Path) -> None:
    run = quick("maskcon", vectors(), tmp_path / "run")
    assert run.recipe["method"]["queue_size"] == 32
    assert any("queue of 32 entries" in notice for notice in run.notices)
    with pytest.raises(UserError, match="queue_size 65 is longer than the training data"):
        quick("maskcon", vectors(), tmp_path / "x", "queue_size=65")


def table(path: Path, rows: int = 60, *, order: tuple[int, ...] = (0, 1, 2), swap: bool = False) -> Path:
    """A CSV without splits: two kinds of two subkinds, three columns of different scale."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 3)) * [1, 100, 0.01]
    with path.open("w") as stream:
        stream.write(",".join(["kind", "sub", *(f"f{i}" for i in order)]) + "\n")
        for row in range(rows):
            fine = row % 4
            kind = (fine + swap) % 4 // 2
            stream.write(",".join([f"k{kind}", f"s{kind}{fine}", *(str(x[row, i]) for i in order)]) + "\n")
    return path


def test_a_run_judges_only_what_it_did_not_train_on(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv")
    run = quick("maskcon", file, tmp_path / "run", levels=["kind", "sub"])
    assert regrain.evaluate(run, protocols=["recall"]).samples == 12
    assert regrain.evaluate(run, file, levels=["kind", "sub"], protocols=["recall"]).samples == 12
    opened = regrain.Run.open(run.path)
    table(file, rows=80)
    with pytest.raises(UserError, match="are not those it was started on"):
        regrain.evaluate(opened)
    other = regrain.evaluate(opened, file, levels=["kind", "sub"], protocols=["recall"])
    assert other.samples == 80
    assert any("all 80 samples" in note for note in other.notes)


def test_columns_are_known_by_name(tmp_path: Path) -> None:
    run = quick("maskcon", table(tmp_path / "t.csv"), tmp_path / "run", levels=["kind", "sub"])
    options = {"levels": ["kind", "sub"], "protocols": ["recall"], "baselines": False}
    judged = [
        regrain.evaluate(run, table(tmp_path / f"{order}.csv", order=order), **options).flat()
        for order in ((0, 1, 2), (2, 1, 0))
    ]
    assert judged[0] == judged[1]
    named = regrain.evaluate(run, table(tmp_path / "u.csv", order=(2, 1, 0)), columns=["f2", "f1", "f0"], **options)
    assert named.flat() == judged[0]
    with pytest.raises(UserError, match="column 'f2' is missing"):
        regrain.evaluate(run, table(tmp_path / "u.csv", order=(2, 1, 0)), columns=["f1", "f0"], **options)


def test_the_random_baseline_scales_columns_as_the_model_does(tmp_path: Path) -> None:
    run = quick("sup-ce", table(tmp_path / "t.csv"), tmp_path / "run", levels=["kind", "sub"])
    encoder = run.model.untrained(None, 1).method.encoder
    assert torch.equal(encoder.input_std, run.model.method.encoder.input_std)


def test_no_root_is_the_usual_place() -> None:
    section = data_section(
        "digits", levels=None, holdout=None, corruption={}, reader={"root": None}, roles={}, recorded={}
    )
    assert section["reader"] == {"root": None}


def test_a_recipe_repeats_a_run_with_its_data_section(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv")
    one = quick("maskcon", file, tmp_path / "one", levels=["kind", "sub"], holdout=0.4, limit_per_class=6)
    other = regrain.fit("maskcon", file, out=tmp_path / "other", recipe=one.path / "recipe.yaml", device="cpu")
    assert same_weights(one, other)
    assert other.recipe["data"] == one.recipe["data"]
    assert Path(one.recipe["data"]["source"]).is_absolute()


def test_resume_refuses_labels_that_have_changed(tmp_path: Path) -> None:
    data = vectors()
    with pytest.raises(Stopped):
        quick("sup-ce", data, tmp_path / "run", interrupt=Soon(2))
    codes = data.labels.codes.clone()
    codes[:, 0] = 1 - codes[:, 0]
    with pytest.raises(UserError, match=r"labels that .* was started on have changed"):
        regrain.resume(tmp_path / "run", replace(data, labels=replace(data.labels, codes=codes, taxonomy=None)))


def test_a_mistake_found_late_does_not_cost_the_old_run(tmp_path: Path) -> None:
    data = vectors()
    run = quick("sup-ce", data, tmp_path / "run")
    before = weights(run)
    for setting in ("training.precision=fp16", "training.chunk_size=4", "encoder.width=-3"):
        with pytest.raises(UserError):
            quick("sup-ce", data, tmp_path / "run", setting, overwrite=True)
    assert all(torch.equal(before[k], v) for k, v in weights(run).items())


def test_fine_labels_in_the_test_split_alone_are_judged(tmp_path: Path) -> None:
    data = vectors()
    codes = data.labels.codes.clone()
    codes[data.splits == "train", 1] = -1
    hidden = replace(data, labels=replace(data.labels, codes=codes))
    result = regrain.evaluate(quick("maskcon", hidden, tmp_path / "run"), hidden, options={"cluster_seeds": 2})
    assert "test/sub/recall@1" in result.flat()
    assert "test/kind/knn@20" in result.flat()
    assert any("knn was left out at level 'sub'" in note for note in result.notes)


def test_features_of_another_configuration_are_not_reused(tmp_path: Path) -> None:
    embedded = []
    for length in (512, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RegrainWarning)
            run = quick(
                "maskcon",
                texts(),
                tmp_path / str(length),
                f"encoder.max_length={length}",
                encoder="hash-text",
                frozen=True,
            )
        embedded.append(run.model.featurised(texts()).samples.take(torch.arange(60)))
    assert not torch.equal(*embedded)


@pytest.mark.parametrize(
    "recipe",
    [
        {"training": 3},
        {"method": "maskcon"},
        {"encoder": "mlp"},
        {"seed": "x"},
        {"seed": 1.5},
        {"trainning": {}},
        {"encoder": {"modality": "text"}},
        {"encoder": {"hidden": 5}},
        {"encoder": {"pretrained": 3}},
        {"views": {"size": 8}},
        {"views": {"presets": 5}},
        {"method": {"projector_width": 0}},
        {"data": {"holdut": 0.3}},
    ],
)
def test_recipes_of_the_wrong_form_are_refused(recipe: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        regrain.fit("maskcon", vectors(), out=tmp_path / "run", recipe=recipe)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite any more|the loss became"):
        regrain.fit(
            "sup-ce",
            vectors(),
            out=tmp_path / "run",
            device="cpu",
            settings=["epochs=1", "batch_size=256", "learning_rate=1e39", "optimizer=sgd"],
        )
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "model").exists()


def test_a_text_encoder_from_scratch_does_not_get_a_fine_tuning_rate(tmp_path: Path) -> None:
    run = quick("maskcon", texts(), tmp_path / "run", encoder="hash-text")
    assert run.recipe["training"]["encoder_learning_rate"] is None


def test_a_run_is_judged_on_data_that_hold_nothing_but_a_test_split(tmp_path: Path) -> None:
    data = vectors()
    run = quick("maskcon", data, tmp_path / "run")
    whole = regrain.evaluate(run, data, protocols=["recall"], baselines=False, write=False)
    alone = regrain.evaluate(run, data.split("test"), protocols=["recall"], baselines=False, write=False)
    assert alone.flat() == whole.flat()


def test_projection_is_judged_beside_the_embedding(tmp_path: Path) -> None:
    data = vectors()
    run = quick("maskcon", data, tmp_path / "run")
    flat = regrain.evaluate(run, data, protocols=["recall"], baselines=False, projection=True).flat()
    assert 0 <= flat["test/sub/recall@1.projection"] <= 1
    projected = run.model.method.embed_projected(run.model.prepare(data.split("test").samples.take(torch.arange(16))))
    assert projected.shape == (16, 128)
    plain = quick("sup-ce", data, tmp_path / "plain")
    with pytest.raises(UserError, match="sup-ce has no projection head"):
        regrain.evaluate(plain, data, projection=True)


def test_methods_with_an_embedder_are_judged_on_both_and_used_by_the_encoders_output(tmp_path: Path) -> None:
    data = vectors()
    for name in ("scgm", "coarse+", "ancor", "sela"):
        run = quick(name, data, tmp_path / name)
        width = run.model.method.encoder_width
        assert run.embed(data.split("test")).shape[1] == width
        judged = regrain.evaluate(run, data, protocols=["recall"])
        keys = judged.flat()
        for end in ("", ".projection", ".raw", ".random"):
            assert f"test/sub/recall@1{end}" in keys
        assert any("embed, discover and few-shot" in note for note in judged.notes)
        alone = regrain.evaluate(run, data, protocols=["recall"], projection=False, baselines=False)
        assert {row.representation for row in alone.rows} == {"model"}


def test_a_slip_in_the_split_column_is_not_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{n},{n % 2},{'test' if n % 5 == 0 else 'train'}" for n in range(40)]
    file.write_text("\n".join(["x,kind,split", *rows, "41,1,"]) + "\n")
    with pytest.raises(UserError, match=r"line 42.*split"):
        regrain.load(file, columns=["x"], levels=["kind"])
    file.write_text("\n".join(["x,kind,split", *rows, "41,1,holdout"]) + "\n")
    assert set(regrain.load(file, columns=["x"], levels=["kind"]).split_names) == {"train", "test", "holdout"}


def test_paths_in_one_column_are_levels_to_train_on(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    rows = [f"{n},{n % 7},{'ab'[n % 2]}/{'ab'[n % 2]}{n // 2 % 2}" for n in range(60)]
    file.write_text("\n".join(["x,y,path", *rows]) + "\n")
    run = quick("maskcon", file, tmp_path / "run", levels=["path"], label_paths=True, columns=["x", "y"])
    assert run.recipe["data"]["levels"] == ["level1", "level2"]
    opened = regrain.Run.open(run.path)
    assert opened.splits()["test"].labels.levels == ("level1", "level2")
    found = regrain.evaluate(opened, file, levels=["path"], label_paths=True, protocols=["recall"], baselines=False)
    assert found.samples == 12
    out = tmp_path / "e.parquet"
    regrain.export_embeddings(opened, out, file, levels=["path"], label_paths=True)
    assert {"level1", "level2"} < set(pd.read_parquet(out).columns)


def test_numpy_and_pandas_values_are_options_as_any(tmp_path: Path) -> None:
    frame = pd.read_csv(table(tmp_path / "t.csv"))
    options = {
        "levels": [np.str_("kind"), "sub"],
        "columns": frame.columns[2:],
        "hide_labels": {"sub": np.float64(0.5)},
    }
    run = quick("maskcon", tmp_path / "t.csv", tmp_path / "run", holdout=np.float64(0.4), **options)
    assert run.recipe["data"]["reader"]["columns"] == ["f0", "f1", "f2"]
    assert run.recipe["data"]["hide_labels"] == {"sub": 0.5}
    for section, words in (
        ({"holdout": "20%"}, "holdout is a share such as 0.2; got '20%'"),
        ({"levels": "kind"}, "levels is a list of levels"),
    ):
        with pytest.raises(UserError, match=words):
            quick("maskcon", tmp_path / "t.csv", tmp_path / "none", recipe={"data": section})
    assert not (tmp_path / "none").exists()


def test_gaps_in_arrays_are_told() -> None:
    with pytest.raises(UserError, match="splits has no value for row 1"):
        regrain.load(np.zeros((3, 2)), labels=[0, 1, 0], splits=["train", None, "test"])
    with pytest.raises(UserError, match=r"row 1 .* has no text"):
        regrain.load(["hello there", None, "you"], labels=[0, 1, 0])
    with pytest.raises(UserError, match="a list of texts holds no vector samples"):
        regrain.load(["a", "b"], labels=[0, 1], modality="vector")
    with pytest.raises(UserError, match="relation 'aspect': did you mean 'aspects'"):
        regrain.load(np.zeros((2, 2)), labels={"kind": ["a", "b"]}, relation="aspect")


def test_what_is_damaged_in_a_run_is_said(tmp_path: Path) -> None:
    run = quick("maskcon", table(tmp_path / "t.csv"), tmp_path / "run", levels=["kind", "sub"])
    weights_file = run.folder.model_folder / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        regrain.evaluate(run.path)
    (run.path / "recipe.yaml").write_text("a: [1")
    with pytest.raises(UserError, match="cannot be read as YAML"):
        assert regrain.Run.open(run.path, verify=False).recipe
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(run.path / "versions.json", begun)  # stopped before the recipe was written
    assert quick("maskcon", tmp_path / "t.csv", begun, levels=["kind", "sub"]).folder.finished


def test_encoder_options_are_converted(tmp_path: Path) -> None:
    levels = {"levels": ["kind", "sub"], "encoder": "mlp"}
    given = ["encoder.dropout=1e-1", "encoder.width=64.0"]
    run = quick("maskcon", table(tmp_path / "t.csv"), tmp_path / "run", *given, **levels)
    assert run.embed().shape[1] == 64


def test_chunks_are_never_of_one_sample(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", rows=46)  # 37 to train on: a batch of 9 in chunks of 4 would leave one over
    given = ["batch_size=9", "chunk_size=4", "encoder.norm=batch"]
    quick("supcon", file, tmp_path / "run", *given, levels=["kind", "sub"], encoder="mlp")


def test_arguments_of_a_wrong_type_are_named_and_numpys_numbers_are_numbers(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv")
    made = quick("sup-ce", file, tmp_path / "run", levels=["kind", "sub"], seed=np.int64(3), devices=np.int32(1))
    assert made.recipe["seed"] == 3
    run = regrain.Run(tmp_path / "run")  # type: ignore[arg-type]  # as Run.open
    assert repr(run) == repr(regrain.Run.open(tmp_path / "run"))
    for wrong in (5, run, None):
        with pytest.raises(regrain.UserError, match="opened by the path of its folder"):
            regrain.Run(wrong)  # type: ignore[arg-type]
    out = tmp_path / "p.csv"
    run.predict(file, out=out)
    before = out.read_bytes()
    for call, words in (
        (lambda: run.predict(file, out=out, overwrite="x"), "overwrite must be true or false; got 'x'"),
        (lambda: run.predict(file, out=5), "out must be a text or a path; got 5"),
        (lambda: run.evaluate(protocols="recall"), r"protocols must be a list of texts, such as \['recall'\]"),
        (lambda: run.evaluate(seed="a"), "seed must be a whole number between 0 and 4294967295; got 'a'"),
        (lambda: run.clean(seed=1.5), "seed must be a whole number"),
        (lambda: run.discover(subclasses="x"), "subclasses must be a whole number of at least 1; got 'x'"),
        (lambda: run.adapt(file, level="sub", out=out, inverse_penalty="x"), "inverse_penalty must be a number"),
        (lambda: regrain.fit("sup-ce", file, levels="kind"), r"levels must be a list of texts, such as \['kind'\]"),
        (lambda: regrain.fit("sup-ce", file, frozen="x"), "frozen must be true or false"),
        (lambda: regrain.fit(None, file), "no method 'None'"),
        (lambda: regrain.auto(file, budget="x"), "budget must be a number; got 'x'"),
        (lambda: regrain.low_data("sup-ce", file, sizes="10", out=out), "sizes must be a list of whole numbers"),
        (lambda: regrain.fit("sup-ce", file, settings=3), "settings must be a list of texts or a dictionary; got 3"),
        (lambda: regrain.fit("sup-ce", file, coarse=3), "coarse must be a list of texts or a text; got 3"),
        (lambda: regrain.fit("sup-ce", file, on_start=3), "on_start must be a function; got 3"),
        (lambda: regrain.fit("sup-ce", file, seed=True), "seed must be a whole number; got True"),
        (lambda: run.evaluate(levels=3), "levels must be a list of texts; got 3"),
        (lambda: run.evaluate(options=["k=1"]), r"options must be a dictionary; got \['k=1'\]"),
        (lambda: regrain.auto(file, on_step="print"), "on_step must be a function; got 'print'"),
        (lambda: regrain.tune("sup-ce", file, ranges=5), "ranges must be a list of texts; got 5"),
        (lambda: regrain.regroup(file, {"a": "b"}, out=out), "mapping must be .* a path; got {'a': 'b'}"),
    ):
        with pytest.raises(UserError, match=words):
            call()
    assert out.read_bytes() == before


def test_a_mark_for_missing_values_that_is_too_large_to_scale_is_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    x[3:9, 1] = np.finfo("float32").max  # what rasters write where they know nothing
    labels = {"kind": [f"k{code}" for code in np.arange(60) % 3]}
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(**labels)
    for data, levels, column in ((regrain.load(x, labels=labels), None, "1"), (frame, ["kind"], "'b'")):
        with raises("out_of_range", f"the numbers of column {column} are too large .* leave those cells empty"):
            quick("sup-ce", data, tmp_path / "run", levels=levels)
    assert not (tmp_path / "run").exists()
