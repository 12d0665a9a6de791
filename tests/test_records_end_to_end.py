"""Records from table or generator to figures: fit, resume, evaluate, frozen encoders, one view, foreign data."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import weights
from typer.testing import CliRunner

import regrain
from regrain.cli.main import app
from regrain.data import Dataset, SeriesSamples
from regrain.encoders.series import DCCNEncoder
from regrain.errors import UserError
from regrain.papers.datasets import dialysis_records
from regrain.training.loop import Stopped

pytestmark = pytest.mark.usefixtures("own_cache")


def records() -> Dataset:
    return dialysis_records(subjects=12, sessions=20)


def quick(method: str, data: Any, out: Path, *settings: str, **more: Any) -> regrain.Run:
    return regrain.fit(method, data, out=out, settings=["epochs=2", "batch_size=32", *settings], device="cpu", **more)


def test_fit_and_evaluate_beside_baselines(tmp_path: Path) -> None:
    data = records()
    run = quick("maskcon", data, tmp_path / "run", "encoder.cell=gru", "encoder.attention=true")
    assert run.recipe["encoder"]["name"] == "dccn"
    opened = regrain.Run.open(run.path, device="cpu")
    embeddings = opened.embed(data.split("test"))
    assert embeddings.isfinite().all()
    torch.testing.assert_close(embeddings, run.embed(data.split("test")))
    found = regrain.evaluate(opened, data, protocols=["recall", "personalised"], options={"ks": [1]})
    flat = found.flat()
    for name in ("", ".raw", ".random"):
        assert 0 <= flat[f"test/event/personalised{name}"] <= 1
        assert 0 <= flat[f"test/subtype/recall@1{name}"] <= 1
    assert any("subjects" in note for note in found.notes)
    assert "test/event/personalised" in json.dumps(flat)


def test_scales_come_from_the_training_samples_alone(tmp_path: Path) -> None:
    data = records()
    samples = data.samples
    assert isinstance(samples, SeriesSamples)
    assert samples.static is not None
    held_out = torch.from_numpy(data.splits == "test")
    strange = SeriesSamples(
        torch.where(held_out[:, None, None], 1e6, samples.series), torch.where(held_out[:, None], -1e6, samples.static)
    )
    one = quick("sup-ce", data, tmp_path / "one")
    other = quick("sup-ce", replace(data, samples=strange), tmp_path / "other")
    assert all(torch.equal(a, b) for a, b in zip(weights(one).values(), weights(other).values(), strict=True))
    encoder = one.model.method.encoder
    assert isinstance(encoder, DCCNEncoder)
    own = samples.series[~held_out].reshape(-1, 40).double().numpy()
    np.testing.assert_allclose(encoder.input_mean.numpy(), np.nanmean(own, axis=0), rtol=1e-4)
    np.testing.assert_allclose(encoder.input_std.numpy(), np.nanstd(own, axis=0, ddof=1), rtol=1e-4)
    np.testing.assert_allclose(
        encoder.input_static_mean.numpy(), np.nanmean(samples.static[~held_out].double().numpy(), axis=0), rtol=1e-4
    )
    random = one.model.untrained(None, 1).method.encoder  # scaled alike: the baseline differs by training alone
    assert isinstance(random, DCCNEncoder)
    assert torch.equal(random.input_static_std, encoder.input_static_std)


def test_resuming_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = records()
    whole = quick("maskcon", data, tmp_path / "whole")
    event = threading.Event()
    event.set()
    with pytest.raises(Stopped):
        quick("maskcon", data, tmp_path / "cut", interrupt=event)
    resumed = regrain.resume(tmp_path / "cut", data, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole).values(), weights(resumed).values(), strict=True))


@pytest.mark.parametrize("encoder", ["dccn", "mlp", "residual"])
def test_one_view_without_augmentation(encoder: str, tmp_path: Path) -> None:
    data = records()
    run = quick("sup-ce", data, tmp_path / "run", "views.presets=[plain]", encoder=encoder)
    probabilities = run.predict_proba(data.split("test"), data.labels.levels[0])
    assert probabilities.isfinite().all()
    assert run.folder.read_metrics()[-1]["loss"] > 0


def test_identity_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'identity' cannot take missing values"):
        quick("sup-ce", records(), tmp_path / "run", encoder="identity")


@pytest.mark.filterwarnings("ignore:the frozen encoder")
def test_frozen_encoder_on_cached_features(tmp_path: Path) -> None:
    data = records()
    run = quick("sup-ce", data, tmp_path / "run", frozen=True)
    found = regrain.evaluate(run, data, protocols=["recall"], options={"ks": [1]}).flat()
    assert 0 < found["test/event/recall@1"] <= 1
    assert isinstance(run.model.backbone, DCCNEncoder)
    assert (run.model.backbone.input_std != 1).any()


def test_records_without_static_features_and_chunks(tmp_path: Path) -> None:
    samples = records().samples
    assert isinstance(samples, SeriesSamples)
    data = replace(records(), samples=SeriesSamples(samples.series))
    run = quick("supcon", data, tmp_path / "run", "training.chunk_size=16")
    assert run.model.config["inputs"].get("static") is None
    with pytest.raises(UserError, match="was trained on series with 0 static features; dialysis has 28 of them"):
        regrain.evaluate(run, records())
    beside = quick("supcon", records(), tmp_path / "beside", "training.chunk_size=16")
    assert beside.embed(records().split("test")).isfinite().all()


def test_tune_chooses_on_records(tmp_path: Path) -> None:
    found = regrain.tune(
        "maskcon", records(), ranges=["weight=0.5,1"], trials=2, out=tmp_path / "t", settings=["epochs=1"], device="cpu"
    )
    assert all(np.isfinite(value) for trial in found.ranked() for value in trial.criteria.values())


def test_a_table_of_steps_on_the_command_line(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [
        {
            "patient": f"p{patient}",
            "session": session,
            "flow": random.normal() + 3 * (session // 4 % 2),
            "age": 50 + patient,
            "event": ("no", "yes")[session // 4 % 2],
        }
        for patient in range(10)
        for session in range(16 + patient % 2)
    ]
    file = tmp_path / "sessions.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    options = ["--record", "patient", "--time", "session", "--static", "age", "--level", "event"]
    runner = CliRunner()
    assert runner.invoke(app, ["check", str(file), *options, "--window", "4"]).exit_code == 0
    ragged = runner.invoke(app, ["check", str(file), *options])
    assert isinstance(ragged.exception, UserError)
    assert "'p1' (from line 18) has 17 time steps, 'p0' has 16" in str(ragged.exception)
    out = tmp_path / "run"
    fitted = runner.invoke(
        app,
        ["fit", "sup-ce", str(file), *options, "--window", "4", "--epochs", "2", "--out", str(out), "--device", "cpu"],
    )
    assert fitted.exit_code == 0, fitted.output
    judged = runner.invoke(app, ["evaluate", str(out), "-p", "personalised", "--json", "--device", "cpu"])
    assert judged.exit_code == 0, judged.output
    assert "test/event/personalised" in json.loads(judged.stdout)


def test_real_motion_of_subjects(shared: Path, tmp_path: Path) -> None:
    data = regrain.load("hapt", root=shared / "data")
    run = quick("sup-ce", data, tmp_path / "run", limit_per_class=10)
    test = data.split("test")
    assert test.groups is not None
    judged = regrain.evaluate(run, data, levels=["fine"], protocols=["personalised"], baselines=False).flat()
    assert 0.2 < judged["test/fine/personalised"] <= 1


def test_new_series_without_the_static_features_of_a_run_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = tmp_path / "r.csv"
    frame = pd.DataFrame({"who": np.repeat(np.arange(12), 5), "a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame.assign(age=frame["who"] * 7 % 9, kind=np.where(frame["who"] % 2, "u", "v")).to_csv(file, index=False)
    run = quick("sup-ce", file, tmp_path / "run", record="who", window=5, static=["age"], levels=["kind"])
    series = rng.normal(size=(3, 5, 2))
    with pytest.raises(UserError, match="was trained on series with 1 static feature"):
        run.predict(series)
    assert len(run.predict(series, static=np.ones((3, 1)))) == 3
    with pytest.raises(UserError, match="is a file, and a run is a folder"):
        regrain.predict(file, tmp_path / "run")
