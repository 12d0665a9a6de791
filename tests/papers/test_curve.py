"""Protocols ``low-data`` and ``label-noise``: what is trained on what, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import regrain
from regrain.cli.main import app
from regrain.data.corruption import subsample
from regrain.errors import UserError
from regrain.metrics import mean_interval

QUICK: dict[str, Any] = {"encoder": "identity", "settings": ["epochs=1"], "device": "cpu"}


def test_every_point_is_a_run_of_its_own_draw(tmp_path: Path) -> None:
    seen: list[str] = []
    found = regrain.low_data(
        "multi-ce", "digits", sizes=[40, 200], out=tmp_path / "low", seeds=2, seed=3, draw=10,
        on_run=lambda run: seen.append(run.path.name), **QUICK,
    )  # fmt: skip
    assert seen == ["40-s3", "40-s4", "200-s3", "200-s4"]
    frame = found.to_frame()
    assert frame[found.corruption].tolist()[:2] == [40, 200]
    digits = regrain.load("digits")
    for k, (size, seed) in enumerate(((40, 3), (40, 4), (200, 3), (200, 4))):
        run = regrain.Run.open(tmp_path / "low" / f"{size}-s{seed}")
        train = subsample(digits.split("train"), size, seed=13 + k % 2)
        assert run.recipe["data"]["fingerprint"] == train.fingerprint()
        assert run.recipe["seed"] == seed
        if k in (1, 2):
            continue
        alone = regrain.fit("multi-ce", "digits", out=tmp_path / "alone", seed=seed, samples=size, draw=13 + k % 2,
                            overwrite=True, **QUICK)  # fmt: skip
        figures = regrain.evaluate(alone, protocols=["linear"]).flat()
        for key, value in found.figures[k // 2][k % 2].items():
            assert value == pytest.approx(figures[key], abs=1e-9), key
    values = np.array([flat["test/digit/linear"] for flat in found.figures[1]])
    score, (mean, low, high) = found.scores()["test/digit/linear"][1], mean_interval(values)
    assert (score.value, score.low, score.high) == pytest.approx((mean, low, high))
    assert {"test/digit/linear.raw", "test/digit/linear.majority"} < set(found.scores())


def test_an_experiment_goes_on_and_grows(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"out": tmp_path / "noise", "baselines": False, "noise_within": "group", **QUICK}
    regrain.label_noise("sup-fine", "digits", rates=[0.5], seeds=1, **asked)
    seen: list[str] = []
    found = regrain.label_noise(
        "sup-fine", "digits", rates=[0.0, 0.5], seeds=1, on_run=lambda r: seen.append(r.path.name), **asked
    )
    assert seen == ["0-s0"]
    assert found.values == (0.0, 0.5)
    written = json.loads((tmp_path / "noise" / "curve.json").read_text())
    assert written["corruption"] == "label_noise"
    assert written["means"]["test/digit/linear"][0]["mean"] == found.figures[0][0]["test/digit/linear"]
    noisy = regrain.Run.open(tmp_path / "noise" / "0.5-s0")
    assert noisy.recipe["data"]["label_noise"] == 0.0  # the labels it was given are noisy themselves
    with pytest.raises(UserError, match="holds another experiment"):
        regrain.low_data("sup-fine", "digits", sizes=[50], out=tmp_path / "noise", **QUICK)


def test_a_draw_belongs_to_its_seed(tmp_path: Path) -> None:
    """The same folder, begun at another seed: a finished run is judged with the samples it was trained on."""
    asked: dict[str, Any] = {"sizes": [60], "out": tmp_path / "low", "baselines": False, "protocols": ["knn"], **QUICK}
    first = regrain.low_data("sup-ce", "digits", seeds=2, **asked)
    later = regrain.low_data("sup-ce", "digits", seeds=2, seed=1, **asked)
    assert first.figures[0][1] == later.figures[0][0]


def test_what_cannot_be_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="samples to draw are 2 to 1352"):
        regrain.low_data("sup-ce", "digits", sizes=[50, 5000], out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="needs a value and a seed"):
        regrain.low_data("sup-ce", "digits", sizes=[], out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="samples is what the experiment varies"):
        regrain.low_data("sup-ce", "digits", sizes=[50], samples=60, out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="no protocol 'recal': did you mean 'recall'"):
        regrain.low_data("sup-ce", "digits", sizes=[50], protocols=["recal"], out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="transfer is for other data"):
        regrain.low_data("sup-ce", "digits", sizes=[50], protocols=["transfer"], out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="the same in twelve digits"):
        regrain.label_noise("sup-ce", "digits", rates=[0.3, 0.3 + 1e-15], out=tmp_path / "x", **QUICK)
    with pytest.raises(UserError, match="share of noisy labels"):
        regrain.label_noise("sup-ce", "digits", rates=[0.1, 2], out=tmp_path / "x", **QUICK)
    assert not (tmp_path / "x").exists()


def test_the_commands_show_a_table(tmp_path: Path) -> None:
    out = tmp_path / "low"
    line = ["low-data", "sup-fine", "digits", "--sizes", "40,80", "--seeds", "2", "--out", str(out)]
    line += ["-p", "multi-aspect", "--encoder", "identity", "--epochs", "1", "--no-baselines"]
    shown = CliRunner().invoke(app, line, catch_exceptions=False)
    assert shown.exit_code == 0
    assert "sup-fine, by training samples" in shown.output
    assert "test/all/tree-distance" in shown.output
    means = json.loads((out / "curve.json").read_text())["means"]["test/digit/accuracy"]
    mean, low, high = (f"{100 * means[1][key]:.1f}" for key in ("mean", "low", "high"))
    assert f"{mean} ({low} to {high})" in shown.output
    assert 0 <= float(low) < float(high) <= 100
    told = CliRunner().invoke(app, [*line, "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["values"] == [40, 80]
    with pytest.raises(UserError, match="--rates takes a number, or several separated by commas"):
        CliRunner().invoke(app, ["label-noise", "sup-fine", "digits", "--rates", "a", "--out", str(out)],
                           catch_exceptions=False)  # fmt: skip
