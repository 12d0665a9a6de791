"""Tuning: ranges, the search, what it writes, and that it looks at no hidden label and no test sample."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import regrain
from regrain.data.corruption import hide_labels, limit_per_class
from regrain.data.dataset import Dataset
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels
from regrain.runs.tuning import Plan, Range, default_ranges

QUICK: dict[str, Any] = {"encoder": "conv4", "settings": ["epochs=1", "batch_size=32"], "limit_per_class": 20}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return regrain.load("digits")


def tune(data: Dataset, out: Path, **options: Any) -> regrain.runs.tuning.Tuning:  # type: ignore[name-defined]
    wanted = {"ranges": ["weight=0.2,1"], "trials": 2} | QUICK | options
    return regrain.tune("maskcon", data, out=out, **wanted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weight=0.5,1", Range("weight", (0.5, 1))),
        ("lr=1e-3,relu", Range("lr", (0.001, "relu"))),
        ("lr=0.1:1:log", Range("lr", (), 0.1, 1.0, True)),
        ("epochs = 2:8", Range("epochs", (), 2.0, 8.0)),
        ("views.presets=[weak, weak],[strong, weak]", Range("views.presets", (["weak", "weak"], ["strong", "weak"]))),
    ],
)
def test_range_is_read(text: str, expected: Range) -> None:
    found = Range.parse(text)
    assert (found.name, found.values, found.log) == (expected.name, expected.values, expected.log)
    if not expected.values:
        assert (found.low, found.high) == (expected.low, expected.high)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("weight", "NAME=LOW:HIGH"),
        ("weight=1:0.5", "not below"),
        ("weight=a:b", "NAME=LOW:HIGH"),
        ("weight=0:1:log", "above 0"),
        ("weight=0:1:cubic", "NAME=LOW:HIGH"),
        ("weight=", "NAME=LOW:HIGH"),
    ],
)
def test_unclear_range_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Range.parse(text)


@pytest.mark.parametrize(
    ("ranges", "criterion", "trials", "words"),
    [
        (["wieght=0:1"], "agreement", 2, "--range: maskcon has no setting 'wieght'.*weight"),
        (["weight=0:1"], "agrement", 2, "no criterion 'agrement'.*agreement"),
        (["weight=0:1"], "agreement", 0, "at least one trial"),
        (["weight=0:1", "weight=0,1"], "agreement", 2, "given twice"),
        ([], "agreement", 2, "--range"),
    ],
)
def test_impossible_plan_is_refused(ranges: list[str], criterion: str, trials: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Plan("maskcon", tuple(Range.parse(r) for r in ranges), criterion, trials)


def test_plan_draws_within_ranges_and_repeats_itself() -> None:
    ranges = tuple(Range.parse(r) for r in ("learning_rate=0.001:0.1:log", "epochs=2:4", "weight=0.5,1"))
    plan = Plan("maskcon", ranges, "agreement", 200, seed=3)
    settings = plan.settings()
    assert settings == plan.settings()
    assert settings != replace(plan, seed=4).settings()
    assert {type(s["epochs"]) for s in settings} == {int}
    assert {s["epochs"] for s in settings} == {2, 3, 4}  # both ends
    rates = torch.tensor([s["learning_rate"] for s in settings])
    assert 0.001 <= rates.min() < 0.002
    assert 0.05 < rates.max() <= 0.1
    assert 0.3 < (rates < 0.01).float().mean() < 0.7  # even in the logarithm: half below the geometric mean


def test_whole_numbers_are_drawn_on_a_logarithmic_range_too() -> None:
    plan = Plan("maskcon", (Range.parse("epochs=2:200:log"),), "agreement", 200)
    epochs = torch.tensor([s["epochs"] for s in plan.settings()])
    assert epochs.dtype == torch.int64
    assert 0.3 < (epochs <= 20).float().mean() < 0.7


def test_small_grid_is_searched_whole() -> None:
    plan = Plan("maskcon", (Range.parse("weight=0,0.5,1"), Range.parse("epochs=1,2")), "agreement", 50)
    assert len(plan.settings()) == 6
    for trials in range(1, 7):  # a longer plan begins with a shorter one's trials
        assert replace(plan, trials=trials).settings() == plan.settings()[:trials]


def test_whole_numbers_are_drawn_whole() -> None:
    for method, text in (
        ("scgm", "subclasses=10:40"),
        ("scan", "pretext_epochs=1:9"),
        ("maskcon", "encoder.width=8:16"),
    ):
        plan = Plan(method, (Range.parse(text),), "agreement", 20)
        assert all(isinstance(value, int) for settings in plan.settings() for value in settings.values())
    plan = Plan("maskcon", (Range.parse("encoder.dropout=0:1"),), "agreement", 5)
    assert all(isinstance(settings["encoder.dropout"], float) for settings in plan.settings())


def test_default_ranges_are_those_the_method_has() -> None:
    assert [r.name for r in default_ranges("maskcon", 0.02)] == ["weight", "soft_temperature", "learning_rate"]
    (only,) = default_ranges("sup-ce", 0.02)
    assert (only.low, only.high) == (0.005, 0.08)


def test_search_leaves_a_recipe_that_trains(digits: Dataset, tmp_path: Path) -> None:
    found = tune(digits, tmp_path / "search")
    assert {t.settings["weight"] for t in found.trials} == {0.2, 1}
    assert set(found.trials[0].criteria) == {"agreement", "coarse-knn", "stability"}
    best = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())
    assert best["method"]["weight"] == found.ranked()[0].settings["weight"]
    assert not list((tmp_path / "search").rglob("last.ckpt"))
    run = regrain.fit("maskcon", digits, recipe=tmp_path / "search" / "best.yaml", out=tmp_path / "run")
    assert run.recipe["training"]["epochs"] == 1
    assert run.recipe["encoder"]["name"] == "conv4"
    assert run.recipe["data"]["limit_per_class"] == 20


def test_trials_train_on_a_part_of_the_training_split_alone(digits: Dataset, tmp_path: Path) -> None:
    found = tune(digits, tmp_path / "search", trials=1, ranges=["weight=1"], validation=0.25)
    train = limit_per_class(digits.split("train"), 20)
    trained = json.loads((found.trial_path(0) / "state.json").read_text())
    assert trained  # the run is finished
    recipe = yaml.safe_load((found.trial_path(0) / "recipe.yaml").read_text())
    kept, _ = train.with_levels(["group"]).hold_out(0.25, stratify="group")
    assert recipe["data"]["fingerprint"] == kept.fingerprint()
    assert set(kept.ids) <= set(train.ids)
    labels = json.loads((found.trial_path(0) / "labels.json").read_text())
    assert labels["levels"] == ["group"]  # the digits were taken away


def test_trials_see_no_hidden_label(digits: Dataset, tmp_path: Path) -> None:
    found = tune(digits, tmp_path / "search", trials=1, ranges=["weight=1"], hide_labels=0.5)
    best = yaml.safe_load((tmp_path / "search" / "best.yaml").read_text())
    assert best["data"]["hide_labels"] == 0.5
    visible = hide_labels(limit_per_class(digits.split("train"), 20), 0.5).with_levels(["group"])
    kept, _ = visible.hold_out(0.2, stratify="group")
    recipe = yaml.safe_load((found.trial_path(0) / "recipe.yaml").read_text())
    assert recipe["data"]["labels_fingerprint"] == kept.labels.fingerprint()
    with pytest.raises(UserError, match="another search"):
        tune(digits, tmp_path / "search", trials=1, ranges=["weight=1"], hide_labels=0.25)


def test_fine_labels_change_nothing(digits: Dataset, tmp_path: Path) -> None:
    """Permuted within each superclass: the same trials, criteria and choice, to the last bit."""
    coarse, fine = digits.labels.level("group"), digits.labels.level("digit").clone()
    for code in coarse.unique():
        rows = (coarse == code).nonzero()[:, 0]
        fine[rows] = fine[rows.flip(0)]
    codes = torch.stack([coarse, fine], dim=1)
    permuted = replace(digits, labels=Labels.from_codes(codes, digits.labels.levels, digits.labels.classes))
    options = {"limit_per_class": None, "trials": 1, "ranges": ["weight=1"]}
    first, second = (tune(d, tmp_path / n, **options) for d, n in ((digits, "a"), (permuted, "b")))
    assert first.trials[0].criteria == second.trials[0].criteria


def test_interrupted_search_goes_on(digits: Dataset, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        tune(digits, tmp_path / "search", on_trial=stop)
    seen: list[int] = []
    found = tune(digits, tmp_path / "search", on_trial=lambda trial: seen.append(trial.number))
    assert seen == [1]
    whole = tune(digits, tmp_path / "whole")
    assert [t.criteria for t in found.trials] == [t.criteria for t in whole.trials]
    again = tune(digits, tmp_path / "search", on_trial=lambda trial: seen.append(trial.number))
    assert seen == [1]
    assert again.trials == found.trials


def test_more_trials_continue_a_search_of_random_draws(digits: Dataset, tmp_path: Path) -> None:
    options = {"ranges": ["weight=0.2:0.8"]}
    first = tune(digits, tmp_path / "search", trials=1, **options)
    more = tune(digits, tmp_path / "search", trials=2, **options)
    assert more.trials[0] == first.trials[0]
    assert len(more.trials) == 2
    with pytest.raises(UserError, match="at least as many trials="):
        tune(digits, tmp_path / "search", trials=1, **options)


def test_another_search_in_the_folder_is_refused(digits: Dataset, tmp_path: Path) -> None:
    tune(digits, tmp_path / "search", trials=1, ranges=["weight=1"])
    with pytest.raises(UserError, match=r"another search \(other .*ranges"):
        tune(digits, tmp_path / "search", trials=1, ranges=["weight=0.5"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(UserError, match="holds no search"):
        tune(digits, tmp_path / "full")


def test_trial_that_breaks_down_is_kept_and_never_wins(digits: Dataset, tmp_path: Path) -> None:
    found = tune(digits, tmp_path / "search", ranges=["learning_rate=1e12,0.02"])
    problems = {t.settings["learning_rate"]: t.problem for t in found.trials}
    assert "not finite" in problems[1e12] or "loss became" in problems[1e12]
    assert found.ranked()[0].settings["learning_rate"] == 0.02
    with (tmp_path / "search" / "trials.csv").open() as file:
        assert [row["agreement"] == "" for row in csv.DictReader(file)] == [bool(t.problem) for t in found.trials]
    with pytest.raises(UserError, match="every trial failed"):
        tune(digits, tmp_path / "none", ranges=["learning_rate=1e12"], trials=1)


def test_winner_at_an_end_is_said(digits: Dataset, tmp_path: Path) -> None:
    with pytest.warns(RegrainWarning, match="lies at an end of its range"):
        tune(digits, tmp_path / "search", ranges=["learning_rate=0.0001:0.00010001"], trials=1)


def test_without_labels_the_criteria_that_need_none_choose(digits: Dataset, tmp_path: Path) -> None:
    bare = digits.with_levels([])
    found = regrain.tune(
        "selfcon", bare, out=tmp_path / "search", ranges=["temperature=0.1,0.2"], **{**QUICK, "limit_per_class": None}
    )
    assert set(found.trials[0].criteria) == {"agreement", "stability"}
    options = {**QUICK, "limit_per_class": None}
    with pytest.raises(UserError, match=r"coarse-knn compares coarse labels.*agreement or stability"):
        regrain.tune("selfcon", bare, out=tmp_path / "none", criterion="coarse-knn", **options)
    assert not (tmp_path / "none").exists()


def test_classes_of_few_samples_leave_stability_out(digits: Dataset, tmp_path: Path) -> None:
    options = {**QUICK, "limit_per_class": 4}
    found = regrain.tune(
        "maskcon", digits, levels=["digit"], out=tmp_path / "search", ranges=["weight=0.2"], trials=1, **options
    )
    assert set(found.trials[0].criteria) == {"agreement", "coarse-knn"}
    with pytest.raises(UserError, match=r"stability needs 8 training samples .*: choose agreement or coarse-knn"):
        regrain.tune("maskcon", digits, levels=["digit"], out=tmp_path / "none", criterion="stability", **options)
    assert not (tmp_path / "none").exists()


def test_a_method_without_labels_is_judged_by_the_coarse_ones(digits: Dataset, tmp_path: Path) -> None:
    found = regrain.tune(
        "selfcon",
        digits,
        out=tmp_path / "search",
        ranges=["temperature=0.1"],
        criterion="coarse-knn",
        trials=1,
        **QUICK,
    )
    assert "coarse-knn" in found.trials[0].criteria
    levels = json.loads((found.trial_path(0) / "labels.json").read_text())["levels"]
    assert levels == ["group"]


def test_what_cannot_work_in_any_trial_is_said_before_the_first(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes 2 views"):
        tune(digits, tmp_path / "search", settings=["views.presets=[weak]"])
    assert not (tmp_path / "search").exists()
