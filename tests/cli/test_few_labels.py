"""``evaluate -p few-shot``, ``adapt``, ``discover`` and ``predict`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import Command


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of numeric columns with ids and two levels of two and six classes."""
    generator = np.random.default_rng(0)
    fine = np.arange(120) % 6
    frame = pd.DataFrame(generator.normal(size=(120, 6)) + 4 * np.eye(6)[fine], columns=[f"f{i}" for i in range(6)])
    frame.insert(0, "id", [f"r{i}" for i in range(120)])
    frame.insert(1, "kind", [f"k{f // 3}" for f in fine])
    frame.insert(2, "sub", [f"s{f}" for f in fine])
    frame["part"] = np.where(np.arange(120) < 60, "test", "train")
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def reading(table: Path) -> list[object]:
    return [table, "--columns", "f*", "--id-column", "id", "--split-column", "part"]


@pytest.fixture
def trained(regrain: Command, table: Path) -> None:
    levels = ["--level", "kind", "--level", "sub"]
    fit = ["fit", "sup-ce", *reading(table), *levels, "--out", "run", "--epochs", "1", "--quiet", "--device", "cpu"]
    code, _, err = regrain(*fit)
    assert code == 0, err


def test_few_shot_figures_and_mistakes(regrain: Command, trained: None) -> None:
    few_shot = ("evaluate", "run", "-p", "few-shot", "--level", "sub", "--episodes", "20")
    wanted = (*few_shot, "--ways", "3,all", "--shots", "1,2", "--intra-class", "--json")
    code, out, err = regrain(*wanted)
    assert code == 0, err
    figures = json.loads(out)
    for key in ("3-way-1-shot", "all-way-2-shot", "2-shot-intra", "3-way-1-shot.low", "3-way-1-shot.raw"):
        assert 0 <= figures[f"test/sub/{key}"] <= 1
    assert json.loads(regrain(*wanted)[1]) == figures
    code, out, _ = regrain(*few_shot, "--queries", "rest", "--classifier", "nearest-mean")
    assert code == 0
    assert "5-way-1-shot-nearest-mean" in out
    assert ", episodes" in out
    for wrong, expected in (
        (("--shots", "10"), "class 's0' has 10"),
        (("--shots", "one"), "or several separated by commas"),
        (("--ways", "7"), "an episode of 7 classes"),
        (("--queries", "0"), "--queries is at least 1; got 0"),
        (("--queries", "5,10"), "--queries takes a whole number; got '5,10'"),
        (("--classifier", "nearest"), "did you mean 'nearest-mean'"),
        (("--unseen-superclasses",), "all 2 classes of level 'kind'"),
    ):
        code, _, err = regrain(*few_shot, *wrong)
        assert (code, expected in err) == (2, True), (wrong, err)


def test_a_few_labels_become_predictions(regrain: Command, trained: None, table: Path, tmp_path: Path) -> None:
    rows = range(60, 96)
    support = pd.DataFrame({"id": [f"r{i}" for i in rows], "mine": [f"m{i % 6}" for i in rows]})
    support.to_csv(tmp_path / "support.csv", index=False)
    code, out, err = regrain("adapt", "run", "--support", "support.csv", "--out", "adapted")
    assert code == 0, err
    assert "6 classes of 'mine' learned" in out
    assert "held-out support" in err
    code, out, err = regrain("predict", "adapted", *reading(table), "--split", "test", "--out", "p.csv")
    assert code == 0, err
    assert "60 predictions of kind and mine written to p.csv" in out
    predicted = pd.read_csv(tmp_path / "p.csv")
    assert (predicted["mine"] == [f"m{i % 6}" for i in range(60)]).mean() > 0.8
    assert predicted["abstained"].dtype == bool
    code, out, err = regrain("predict", "run", *reading(table), "--out", "q.parquet", "--json")
    assert code == 0, err
    assert json.loads(out) == {"out": "q.parquet", "samples": 120, "levels": ["kind"]}
    labelled = ["--support", "table.csv", "--split-column", "part", "--level", "sub", "--out", "by-table"]
    code, out, err = regrain("adapt", "run", *labelled)
    assert code == 0, err
    assert "6 classes of 'sub' learned" in out
    (tmp_path / "strange.csv").write_text("id,mine\nr1,a\nx7,b\n")
    for arguments, expected in (
        (("adapt", "run", "--support", "strange.csv", "--out", "new"), "'x7' (line 3)"),
        (("adapt", "run", "--support", "nowhere.csv", "--out", "new"), "nowhere.csv"),
        (("adapt", "run", "--support", "support.csv", "--out", "adapted"), "--overwrite"),
        (("adapt", "run", "--support", "digits", "--out", "new"), "vector"),
        (("predict", "run", *reading(table), "--out", "p.csv"), "--overwrite"),
        (("predict", "run", *reading(table), "--out", "p.txt"), ".csv, .parquet"),
    ):
        code, _, err = regrain(*arguments)
        assert (code, expected in err) == (2, True), (arguments, err)
    assert not (tmp_path / "new").exists()


def test_discover_name_and_predict(regrain: Command, trained: None, table: Path, tmp_path: Path) -> None:
    code, out, err = regrain("discover", "run", "--each", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert sum(s["size"] for s in found["subclasses"]) == 120
    assert found["figures"]["test/sub/purity"] > 0.9
    assert len(pd.read_parquet(tmp_path / "run" / "discovery" / "samples.parquet")) == 120

    (tmp_path / "names.json").write_text(json.dumps({"0": "the first"}))
    code, out, err = regrain("discover", "run", "--names", "names.json", "--out", "found.csv")
    assert code == 0, err
    assert "the first" in out
    assert "the first" in set(pd.read_csv(tmp_path / "found.csv")["name"])
    code, _, err = regrain("discover", "run", "--out", "found.csv")
    assert (code, "found.csv exists" in err) == (2, True)

    code, out, err = regrain("predict", "run", *reading(table), "--out", "predicted.csv")
    assert code == 0, err
    assert "predictions of kind and subclass" in out
    assert "the first" in set(pd.read_csv(tmp_path / "predicted.csv")["subclass"])
    code, _, err = regrain("discover", "run", "--columns", "f*")
    assert (code, "without other data (--data)" in err) == (2, True)


def test_tables_without_labels_are_read_as_the_runs_own(
    regrain: Command, trained: None, table: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(table)
    features = [f"f{i}" for i in range(6)]
    frame[features].to_csv("bare.csv", index=False)
    code, _, err = regrain("predict", "run", "bare.csv", "--out", "bare-predicted.csv")
    assert code == 0, err
    assert (pd.read_csv("bare-predicted.csv")["kind"] == frame["kind"]).mean() > 0.6
    assert regrain("discover", "run", "--each", "3")[0] == 0
    code, _, err = regrain("discover", "run", "--data", "bare.csv", "--out", "bare-found.csv")
    assert code == 0, err
    assert set(pd.read_csv("bare-found.csv")["superclass_is"]) == {"predicted"}
    code, _, err = regrain("fit", "selfcon", "bare.csv", "--out", "bare", "--epochs", "1", "-q", "--device", "cpu")
    assert code == 0, err
    code, _, err = regrain("fit", "maskcon", "bare.csv", "--out", "none", "--epochs", "1", "-q", "--device", "cpu")
    assert (code, "no column looks like labels" in err) == (2, True)

    # ids that happen to be those of the run's data say nothing where the table has samples of its own
    support = frame.groupby("sub").head(8).sample(frac=1, random_state=0)
    support = support.assign(id=[f"r{i}" for i in range(len(support))])[["id", *features, "sub"]]
    support.to_csv("support.csv", index=False)
    code, _, err = regrain("adapt", "run", "--support", "support.csv", "--level", "sub", "--out", "adapted")
    assert code == 0, err
    code, _, err = regrain("predict", "adapted", "support.csv", "--out", "support-predicted.csv")
    assert code == 0, err
    assert (pd.read_csv("support-predicted.csv")["sub"].to_numpy() == support["sub"].to_numpy()).mean() > 0.9
    code, _, err = regrain("adapt", "run", "--support", "support.csv", "--inverse-penalty", "inf", "--out", "x")
    assert (code, "positive and finite" in err) == (2, True)
