"""Comparisons: what differs, means over seeds, differences paired over seeds or samples, cost, the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Visit
from pages import dataset_of
from scipy import stats
from support import Command

import regrain
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.report import compare, write_comparison
from regrain.runs.run import Run

RunWith = Callable[..., Run]


@pytest.fixture(scope="module")
def run_with(tmp_path_factory: pytest.TempPathFactory) -> RunWith:
    """A run on vectors with a seed and a learning rate, trained and evaluated once."""
    folder, made = tmp_path_factory.mktemp("compared"), {}

    def run(seed: int, rate: float = 0.05, data: Dataset | None = None) -> Run:
        name = f"rate{rate}-s{seed}"
        if name not in made:
            settings = ["epochs=2", "batch_size=32", f"learning_rate={rate}", "optimizer=sgd"]
            given = dataset_of("vector") if data is None else data
            told = {"encoder": "mlp", "settings": settings, "seed": seed, "device": "cpu"}
            made[name] = regrain.fit("maskcon", given, out=folder / name, **told)
            regrain.evaluate(made[name], protocols=["recall", "knn"])
        return made[name]

    return run


def value(run: Run, key: str) -> float:
    rows = json.loads((run.path / "evaluation.json").read_text())["evaluations"][0]["rows"]
    split, level, metric = key.split("/")
    found = [r for r in rows if (r["representation"], r["level"], r["metric"]) == ("model", level, metric)]
    assert len(found) == 1
    assert found[0]["split"] == split
    return float(found[0]["score"]["value"])


def test_two_runs_differ_in_what_they_differ_in(run_with: RunWith) -> None:
    one, other = run_with(0), run_with(0, 0.0001)
    found = compare([one, other])
    assert found.settings == ["training.learning_rate"]
    assert [row.settings for row in found.rows] == [
        {"training.learning_rate": 0.05},
        {"training.learning_rate": 0.0001},
    ]
    assert found.notes == []
    assert found.rows[0].differences == {}
    key = "test/breed/recall@1"
    assert found.rows[1].figures[key].value == value(other, key)
    difference = found.rows[1].differences[key]
    assert difference.value == pytest.approx(value(other, key) - value(one, key), abs=1e-12)
    assert difference.over == "32 samples"
    assert difference.low is not None
    assert difference.high is not None
    assert difference.low <= difference.value <= difference.high
    assert set(found.rows[1].differences) == {
        f"test/{level}/{m}" for level in ("pet", "breed") for m in ("recall@1", "map@r")
    }
    assert set(found.rows[0].cost) == {"seconds", "samples_per_second", "peak_memory_mb"}


def test_seeds_are_one_row_and_pairs_go_by_seed(run_with: RunWith) -> None:
    first, second = [run_with(s) for s in range(3)], [run_with(s, 0.0001) for s in (2, 0, 1)]
    found = compare([*first, *second])
    assert [(row.seeds, len(row.runs)) for row in found.rows] == [([0, 1, 2], 3), ([2, 0, 1], 3)]
    for key in ("test/breed/map@r", "test/pet/map@r"):
        pairs = [value(run_with(s, 0.0001), key) - value(run_with(s), key) for s in range(3)]
        low, high = stats.t.interval(0.95, 2, np.mean(pairs), stats.sem(pairs))
        ours = found.rows[1].differences[key]
        np.testing.assert_allclose([ours.value, ours.low, ours.high], [np.mean(pairs), low, high], atol=1e-7)
        assert ours.over == "3 seeds"
        assert found.rows[0].figures[key].value == pytest.approx(np.mean([value(run, key) for run in first]))


def test_without_two_common_seeds_pairs_go_by_sample(run_with: RunWith) -> None:
    found = compare([run_with(0), run_with(1, 0.0001)])
    assert "fewer than two seeds" not in " ".join(found.notes)
    three = compare([run_with(0), run_with(1), run_with(1, 0.0001)])
    assert three.rows[1].differences["test/breed/recall@1"].over == "32 samples"
    assert "fewer than two seeds in common" in three.notes[0]
    assert "(seed 1)" in three.notes[0]


def test_what_cannot_be_paired_says_why(run_with: RunWith, tmp_path: Path) -> None:
    one = run_with(0)
    given = dataset_of("vector")
    others = replace(given, ids=np.array([f"x{row}" for row in range(len(given))]))
    other = run_with(0, 0.002, others)
    found = compare([one, other])
    assert found.rows[1].differences == {}
    assert "their test samples are not the same" in found.notes[-1]
    assert found.rows[1].figures
    unread = Run.open(one.path)  # trained on data in memory, which are not at hand here
    found = compare([unread, Run.open(run_with(0, 0.0001).path)])
    assert "trained on data in memory" in found.notes[-1]
    found = compare([one, run_with(0, 0.0001)], paired=False)
    assert found.rows[1].differences == {}
    assert found.notes == []


def test_relabelled_samples_are_not_paired(run_with: RunWith) -> None:
    given = dataset_of("vector")
    codes = given.labels.codes.clone()
    test = torch.from_numpy(given.splits == "test")
    codes[test] = codes[test].roll(1, 0)
    other = run_with(0, 0.003, replace(given, labels=replace(given.labels, codes=codes)))
    found = compare([run_with(0), other])
    assert "other labels at level 'pet'" in found.notes[-1]


def evaluated_again(run: Run, place: Path, data: Dataset | None = None, **changed: object) -> Run:
    """A copy of a run whose evaluation is of other data, or has other entries."""
    shutil.copytree(run.path, place)
    copied = Run.open(place)
    if data is not None:
        copied.folder.write_json("evaluation.json", {"evaluations": []})
        regrain.evaluate(place, data, protocols=["recall", "knn"])
    content = json.loads((place / "evaluation.json").read_text())["evaluations"][0]
    Run.open(place).folder.write_json("evaluation.json", {"evaluations": [content | changed]})
    return Run.open(place)


def test_seeds_judged_on_other_samples_or_labels_are_not_paired(run_with: RunWith, tmp_path: Path) -> None:
    first, given = [run_with(s) for s in range(2)], dataset_of("vector")
    codes = given.labels.codes.clone()
    codes[torch.from_numpy(given.splits == "test"), 1] += 1
    codes[:, 1] %= len(given.labels.names("breed"))
    relabelled = replace(given, labels=replace(given.labels, codes=codes, taxonomy=None))
    renamed = replace(given, ids=np.array([f"x{row}" for row in range(len(given))]))
    for number, (changed, words) in enumerate(
        (
            ({"data": renamed}, "their test samples are not the same, and pairs need the same samples (seed 1)"),
            ({"data": relabelled}, "the same samples have other labels at level 'breed' (seed 1)"),
        )
    ):
        other = evaluated_again(run_with(1, 0.0001), tmp_path / str(number), **changed)
        found = compare([*first, run_with(0, 0.0001), other])
        assert bool(found.rows[1].differences) == (not words)
        assert (f"has no paired differences: {words}" in " ".join(found.notes)) == bool(words)


def test_a_mean_of_counts_has_decimals_and_a_smaller_distance_is_better(run_with: RunWith, tmp_path: Path) -> None:
    runs = []
    for name, distance, error in (("far", 1.25, 0.1), ("near", 0.5, 0.3)):
        run = run_with(0, 0.05 if name == "far" else 0.0001)
        rows = json.loads((run.path / "evaluation.json").read_text())["evaluations"][0]["rows"]
        score = rows[0]["score"] | {"low": None, "high": None, "detail": False}
        of_all = rows[0] | {"representation": "model", "level": "all"}
        rows.append(of_all | {"metric": "tree-distance", "score": score | {"value": distance, "count": True}})
        rows.append(of_all | {"metric": "calibration-error", "score": score | {"value": error, "count": False}})
        runs.append(evaluated_again(run, tmp_path / name, rows=rows))
    found = compare(runs, paired=False)
    assert [row.name for row in found.sorted_by("tree-distance")] == ["near", "far"]
    assert [row.name for row in found.sorted_by("calibration-error")] == ["far", "near"]
    figure = found.rows[0].figures["test/all/tree-distance"]
    assert (figure.text(), figure.text(sign=True)) == ("1.25", "+1.25")
    assert replace(figure, value=7.0).text() == "7"


def test_sorting(run_with: RunWith) -> None:
    runs = [run_with(0), run_with(0, 0.0001)]
    found = compare(runs, paired=False)
    for key, sign in (("breed/recall@1", -1), ("test/pet/knn@20", -1)):
        values = [
            sign * row.figures[key if key.startswith("test") else f"test/{key}"].value for row in found.sorted_by(key)
        ]
        assert values == sorted(values)
    for key, sign in (("seconds", 1), ("samples_per_second", -1)):
        costs = [sign * row.cost[key] for row in found.sorted_by(key)]
        assert costs == sorted(costs)
    with pytest.raises(UserError, match=r"sort= recall@1: .* means test/pet/recall@1, test/breed/recall@1"):
        compare(runs, paired=False, sort="recall@1")
    with pytest.raises(UserError, match="did you mean 'seconds'"):
        compare(runs, paired=False, sort="second")


def test_what_is_no_comparison(run_with: RunWith, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two or more different runs"):
        compare([run_with(0)])
    with pytest.raises(UserError, match="two or more different runs"):
        compare([run_with(0), run_with(0).path])
    with pytest.raises(UserError, match="does not exist"):
        compare([run_with(0), tmp_path / "nothing"])


def test_a_run_that_was_not_evaluated(run_with: RunWith, tmp_path: Path) -> None:
    run = regrain.fit(
        "simclr", dataset_of("vector"), encoder="mlp", settings=["epochs=1"], out=tmp_path / "r", device="cpu"
    )
    found = compare([run_with(0), run], paired=False, sort="breed/recall@1")
    assert found.rows[1].figures == {}
    assert "`regrain evaluate" in found.notes[0]
    assert "method.name" in found.settings


def test_repetitions_and_other_data_are_told(run_with: RunWith, tmp_path: Path) -> None:
    one = run_with(0)
    again = tmp_path / "again"
    shutil.copytree(one.path, again)
    found = compare([one, Run.open(again), run_with(1)], paired=False)
    assert [row.seeds for row in found.rows] == [[0, 1]]
    assert found.notes == [f"again is left out: recipe and seed are those of {one.path.name}"]
    elsewhere = dataset_of("vector", 48)
    Run.open(again).folder.write_json("evaluation.json", {"evaluations": []})
    regrain.evaluate(again, replace(elsewhere, name="elsewhere"), protocols=["recall"])
    found = compare([run_with(0, 0.0001), Run.open(again)], paired=False)
    assert "evaluated on other data than its own: elsewhere" in found.notes[0]
    assert "different samples (16, 32 of them)" in found.notes[1]


def test_page(run_with: RunWith, visit: Visit, tmp_path: Path) -> None:
    found = compare([run_with(0), run_with(1), run_with(0, 0.0001)])
    found.rows[0].name = found.reference = "<b>run</b>"
    write_comparison(found, tmp_path / "page.html", figures=tmp_path / "drawn")
    page = visit(tmp_path / "page.html", width=800)
    assert page.locator(".lead").inner_text().startswith("<b>run</b>, ")
    page.locator("#settings summary").click()
    assert "training.learning_rate" in page.locator("#settings").inner_text()
    assert "samples / s" in page.locator("#cost").inner_text()
    loss = page.locator("#curves .chart").first
    assert loss.locator(".legend span").count() == 3
    assert {"epoch", "mean of the epoch"} <= set(loss.locator("svg text").all_text_contents())
    assert page.locator("#metrics [title^='paired over']").count() == 4
    assert (tmp_path / "drawn" / "00-loss.svg").exists()
    with pytest.raises(UserError, match="exists: choose another --out"):
        write_comparison(found, tmp_path / "page.html")


def test_command(regrain: Command, run_with: RunWith, tmp_path: Path) -> None:
    runs = [run_with(0).path, run_with(0, 0.0001).path]
    code, out, err = regrain("compare", *runs, "--out", "c.html", "--sort", "breed/recall@1")
    assert code == 0, err
    for words in ("training.learning_rate", "test/breed/recall@1", "samples / s", "page in c.html"):
        assert words in out
    code, out, err = regrain("compare", *runs, "--json", "--no-paired")
    assert code == 0, err
    content = json.loads(out)
    assert [run["seeds"] for run in content["runs"]] == [[0], [0]]
    assert 0 <= content["runs"][1]["figures"]["test/pet/recall@1"]["low"] <= 1
    assert regrain("compare", *runs, "--out", "c.html")[0] == 2
    assert regrain("compare", runs[0])[0] == 2
