"""The few-shot protocol: the same episodes for everyone, augmented support, levels above, unseen superclasses."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.encoders import build_encoder
from regrain.errors import RegrainWarning, UserError
from regrain.evaluation import PROTOCOLS, Representation, Task, evaluate_model
from regrain.evaluation.embedding import apply_to_views, embed
from regrain.evaluation.few_shot import few_shot, unseen_superclasses
from regrain.labels import Labels
from regrain.metrics import few_shot_accuracy
from regrain.model import Model

QUICK = {"episodes": 20, "queries": 3}


def model_and_data(count: int = 80) -> tuple[Model, Dataset]:
    """Eight subclasses of four classes."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.arange(count) % 8
    vectors = torch.eye(8)[fine] + 0.4 * torch.randn(count, 8, generator=generator)
    labels = Labels.from_codes(torch.stack([fine // 2, fine], dim=1), ["coarse", "fine"])
    data = Dataset(TensorSamples(vectors, "vector"), labels, np.array([f"r{i}" for i in range(count)]))
    encoder = build_encoder("mlp", modality="vector", sample_shape=(8,), seed=0)
    inputs = {"modality": "vector", "shape": [8], "mean": [0.0] * 8, "std": [0.5] * 8}
    return Model.build("sup-ce", {"label_smoothing": 0.0}, [4], encoder, inputs), data


def test_figures_by_ways_and_shots_are_those_of_the_metric() -> None:
    _, data = model_and_data()
    fine = data.labels.level("fine")
    vectors = data.samples.take(torch.arange(80))
    task = Task(
        "fine",
        data.labels.names("fine"),
        fine,
        None,
        superclasses=data.labels.level("coarse"),
    )
    scores = few_shot(Representation("raw", vectors), task, **QUICK, ways=[3, None], shots=[1, 2], intra_class=True)
    assert set(scores) == {
        *(f"{way}-way-{shot}-shot" for way in (3, "all") for shot in (1, 2)),
        *(f"{shot}-shot-intra" for shot in (1, 2)),
    }
    expected = few_shot_accuracy(vectors, fine, ways=3, shots=2, **QUICK)
    score = scores["3-way-2-shot"]
    assert (score.value, score.low, score.high) == (expected.accuracy, expected.low, expected.high)
    assert score.over == "episodes"
    other = few_shot(Representation("raw", vectors), task, **QUICK, classifier="cosine")
    assert set(other) == {"5-way-1-shot-cosine"}


def test_it_runs_when_asked_for_and_stands_beside_baselines() -> None:
    model, data = model_and_data()
    assert "few-shot" in PROTOCOLS
    default = evaluate_model(model, data, None, options={"ks": [1]}, baselines=False).flat()
    assert not any("shot" in key for key in default)
    options = {**QUICK, "shots": [2], "intra_class": True}
    found = evaluate_model(model, data, None, protocols=["few-shot"], options=options)
    flat = found.flat()
    for suffix in ("", ".low", ".high", ".raw", ".random"):
        assert f"test/fine/5-way-2-shot{suffix}" in flat
    assert "test/coarse/4-way-2-shot" in flat  # four classes give four ways where five are the default
    assert "test/fine/2-shot-intra" in flat
    assert "test/coarse/2-shot-intra" not in flat
    assert any("5 augmented views of every support sample; raw has none" in note for note in found.notes)
    assert any("no level lies above" in note for note in found.notes)
    again = evaluate_model(model, data, None, protocols=["few-shot"], options=options)
    assert again.flat() == flat
    plain = evaluate_model(model, data, None, protocols=["few-shot"], options=options | {"copies": 0}).flat()
    assert plain["test/fine/5-way-2-shot"] != flat["test/fine/5-way-2-shot"]
    assert plain["test/fine/5-way-2-shot.raw"] == flat["test/fine/5-way-2-shot.raw"]


def test_views_hang_on_seed_and_sample_alone() -> None:
    model, data = model_and_data()
    views = apply_to_views(model, data, model.method.embed, "strong", copies=3, seed=0)
    assert views.shape == (3, *embed(model, data).shape)
    assert not torch.equal(views[0], views[1])
    some = apply_to_views(model, data.select([5, 2]), model.method.embed, "strong", copies=2, seed=0)
    torch.testing.assert_close(some, views[:2, [5, 2]])
    other = apply_to_views(model, data, model.method.embed, "strong", copies=1, seed=1)
    assert not torch.equal(other[0], views[0])


def test_a_class_of_too_few_samples_is_named() -> None:
    model, data = model_and_data(42)  # classes 2 to 7 have five samples
    with pytest.raises(UserError, match="5 shots and a query need 6 samples of a class; class '2' has 5"):
        evaluate_model(
            model, data, None, levels=["fine"], protocols=["few-shot"], options={"shots": [5]}, baselines=False
        )
    found = evaluate_model(
        model, data, None, levels=["fine"], protocols=["few-shot"], options={"episodes": 5}, baselines=False
    )
    assert any("give the rest as queries" in note for note in found.notes)
    with pytest.raises(UserError, match="copies"):
        evaluate_model(model, data, None, protocols=["few-shot"], options={"copies": -1})


def test_unseen_superclasses() -> None:
    _, data = model_and_data()
    train = data.select(data.labels.level("coarse") < 3)
    kept = unseen_superclasses(data, train)
    assert kept.labels.level("coarse").unique().tolist() == [3]
    assert len(kept) == 20
    with pytest.raises(UserError, match="all 4 classes of level 'coarse'"):
        unseen_superclasses(data, data)


def test_a_loaded_frozen_run_draws_the_views_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    texts = [f"{['alpha', 'beta', 'gamma', 'delta'][i % 4]} word{i % 7} number{i % 5}" for i in range(80)]
    labels = Labels.from_columns(
        {"kind": [f"k{i % 4 // 2}" for i in range(80)], "sub": [f"s{i % 4}" for i in range(80)]}
    )
    splits = np.where(np.arange(80) < 40, "test", "train")
    data = Dataset(TextSamples(tuple(texts)), labels, np.array([f"t{i}" for i in range(80)]), "texts", splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RegrainWarning)  # a random frozen encoder is all that a test has
        trained = regrain.fit(
            "sup-ce",
            data,
            levels=["kind"],
            encoder="hash-text",
            frozen=True,
            out=tmp_path / "run",
            settings=["epochs=1"],
        )
        loaded = regrain.Run.open(tmp_path / "run")
        options = {"episodes": 10, "shots": [2], "ways": [2]}
        figures = [
            regrain.evaluate(run, data, protocols=["few-shot"], levels=["sub"], options=options).flat()
            for run in (trained, loaded)
        ]
    spread = trained.model.views.std
    torch.testing.assert_close(loaded.model.views.std[spread > 0], spread[spread > 0])
    assert figures[0] == figures[1]


def test_unseen_superclasses_through_the_api(tmp_path: Path) -> None:
    _, data = model_and_data(160)
    coarse = data.labels.level("coarse").numpy()
    splits = np.where(coarse == 3, "test", np.where(np.arange(160) % 4 == 0, "test", "train"))
    split = replace(data, splits=splits)
    run = regrain.fit("sup-ce", split, levels=["coarse"], out=tmp_path / "run", settings=["epochs=1", "batch_size=16"])
    found = regrain.evaluate(run, split, protocols=["recall"], options={"ks": [1]}, unseen_superclasses=True)
    assert found.samples == int((coarse == 3).sum())
    assert any("unseen superclasses: 40 of" in note for note in found.notes)
