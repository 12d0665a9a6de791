"""The verdict: sentences about the model beside untrained representations, by a metric fixed beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders import build_encoder
from regrain.errors import RegrainWarning
from regrain.evaluation import Row, Score, Task, evaluate_model
from regrain.evaluation.verdicts import verdict
from regrain.labels import Labels
from regrain.metrics import bootstrap_interval
from regrain.model import Model

TASK = Task("fine", ("a", "b"), torch.zeros(200, dtype=torch.long), None)


def row(name: str, metric: str, hits: torch.Tensor, level: str = "fine") -> Row:
    return Row(name, "test", level, metric, Score.of_samples(hits, TASK))


def share(count: int) -> torch.Tensor:
    return torch.arange(200) < count


@pytest.mark.parametrize(
    ("model", "outcome", "words"),
    [
        (150, "better", "Training helped by 25.0 points: recall@1 at level 'fine' is 75.0, against 50.0 of raw pixels"),
        (101, "within noise", "Training made no difference beyond noise: recall@1"),
        (50, "worse", "of raw pixels (95% interval of the difference -31.0 to -19.0, over 200 samples). Keep them."),
    ],
)
def test_outcomes(model: int, outcome: str, words: str) -> None:
    rows = [row("model", "recall@1", share(model)), row("raw", "recall@1", share(100))]
    (finding,) = verdict(rows, ["fine"], "pixels", {"raw": "Keep them."}, seed=0)
    assert finding.outcome == outcome
    expected = bootstrap_interval(share(model).double() - share(100).double(), seed=0)
    assert (finding.difference, finding.low, finding.high, finding.count) == (*expected, 200)
    if outcome == "worse":
        words = words.replace("-31.0", f"{100 * finding.low:.1f}").replace("-19.0", f"{100 * finding.high:.1f}")
    assert words in str(finding)


def test_pairing_sees_what_intervals_of_each_do_not() -> None:
    """Ten samples more of two hundred: within the intervals of both, and outside that of the difference."""
    rows = [row("model", "recall@1", share(110)), row("raw", "recall@1", share(100))]
    assert rows[0].score.low is not None
    assert rows[0].score.low < rows[1].score.value
    assert verdict(rows, ["fine"], "pixels", {}, seed=0)[0].outcome == "better"


def test_the_metric_is_fixed_before_figures_are_seen() -> None:
    rows = [
        Row("model", "test", "fine", "kmeans-acc", Score(0.9)),  # of no sample
        *(row(name, metric, share(count), level)
          for metric, level, counts in (("recall@1", "fine", (90, 100)), ("recall@1", "coarse", (180, 100)),
                                        ("knn@20", "fine", (200, 0)))
          for name, count in zip(("model", "random"), counts, strict=True)),
    ]  # fmt: skip
    for order in (rows, [rows[0], *rows[3:5], *rows[1:3], *rows[5:]]):
        (finding,) = verdict(order, ["coarse", "fine"], "pixels", {}, seed=0)
        assert (finding.metric, finding.level, finding.baseline) == ("recall@1", "fine", "random")
    assert verdict([r for r in rows if r.representation == "model"], ["fine"], "", {}, seed=0) == []
    assert verdict(rows[:1], ["fine"], "", {}, seed=0) == []


def vectors(count: int = 80) -> tuple[Dataset, Model]:
    codes = torch.arange(count)[:, None] % 4
    rows = torch.eye(4)[codes[:, 0]] + 0.5 * torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    data = Dataset(
        TensorSamples(rows, "vector"), Labels.from_codes(codes, ["fine"]), np.array([str(i) for i in range(count)])
    )
    encoder = build_encoder("identity", modality="vector", sample_shape=(4,))
    return data, Model.build("sup-ce", {}, [4], encoder, {"modality": "vector", "shape": [4]})


def test_an_evaluation_carries_it_and_shows_few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = vectors()
    found = evaluate_model(model, data, data)
    assert {finding.baseline for finding in found.verdict} <= {"raw", "random"}
    assert found.to_json()["verdict"][0]["sentence"] == str(found.verdict[0])
    assert str(found.verdict[0]) in repr(found)
    assert {row.metric for row in found.rows if row.brief} == {"recall@1", "knn@20", "kmeans-acc"}
    asked = evaluate_model(model, data, data, protocols=["recall"])
    assert all(row.brief for row in asked.rows)
    for none in (
        evaluate_model(model, data, data, baselines=False),
        evaluate_model(model, data, data, split="train"),
        evaluate_model(model, data, data, protocols=["clustering"]),
    ):
        assert none.verdict == []
    frame = found.to_frame()
    assert list(frame) == ["representation", "level", "metric", "value", "low", "high", "count"]
    assert len(frame) == len(found.rows)
    assert frame["low"].isna().any()
    html = found._repr_html_()
    assert "<th>recall@1</th>" in html
    assert "<th>map@r</th>" not in html
    assert f"<p>{found.verdict[0]}".replace("'", "&#x27;") in html


def test_random_weights_that_are_the_raw_input_are_left_out() -> None:
    data, model = vectors()
    assert {row.representation for row in evaluate_model(model, data, data).rows} == {"model", "raw", "random"}
    rows = data.samples.take(torch.arange(80))
    standardised = (rows - rows.mean(dim=0)) / rows.std(dim=0)  # as the raw representation is
    same = Dataset(TensorSamples(standardised, "vector"), data.labels, data.ids)
    found = evaluate_model(model, same, same, protocols=["recall"])
    assert {row.representation for row in found.rows} == {"model", "raw"}
    assert "random: the same network with random weights, equal to raw" in found.notes[0]


def test_a_folder_that_cannot_be_written_still_gives_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = regrain.fit("sup-ce", "digits", encoder="identity", out=tmp_path / "run", settings=["epochs=1"])
    regrain.evaluate(run, protocols=["recall"])
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"][0]
    assert "recall@1" in kept["verdict"][0]["sentence"]
    regrain.evaluate(run, protocols=["clustering"])  # which gives no verdict, and takes none away
    kept = json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"][0]
    assert "recall@1" in kept["verdict"][0]["sentence"]

    def refuse(*given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("regrain.storage.run_folder.RunFolder.write_json", refuse)
    with pytest.warns(RegrainWarning, match="the figures are not kept"):
        found = regrain.evaluate(run, protocols=["recall"])
    assert found.rows


def test_a_classifier_is_judged_by_default_next_to_logistic_regression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"encoder": "mlp", "device": "cpu", "epochs": 1, "limit_per_class": 30}
    one = regrain.fit("sup-ce", "digits", out=tmp_path / "one", **given)
    found = one.evaluate(write=False)
    accuracy = {(row.representation, row.level) for row in found.rows if row.metric == "accuracy"}
    assert accuracy == {("model", "group"), ("raw", "group")}  # the level that it reads
    assert [f.metric for f in found.verdict if f.baseline == "raw"] == ["recall@1", "accuracy"]
    assert "of logistic regression on raw pixels at 8 px" in found.verdict[-1].sentence
    assert not any(row.metric == "accuracy" for row in one.evaluate(protocols=["recall"], write=False).rows)
    several = regrain.fit("multi-ce", "digits", out=tmp_path / "several", levels=["group", "digit"], **given)
    monkeypatch.setattr("regrain.evaluation.evaluate._QUICKLY", 0)
    found = several.evaluate(write=False)
    accuracy = {(row.representation, row.level) for row in found.rows if row.metric == "accuracy"}
    assert accuracy == {("model", level) for level in ("group", "digit", "all")}
    assert "accuracy: of raw only with -p multi-aspect, since fitting a classifier takes long" in found.notes
