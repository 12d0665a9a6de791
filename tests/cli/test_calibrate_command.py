"""``calibrate`` and the answers of ``predict`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import Command

FEATURES = [f"f{i}" for i in range(6)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of numeric columns; of the training rows few are labelled below their kind, some not at all."""
    generator = np.random.default_rng(0)
    rows = np.arange(360)
    fine = rows % 6
    frame = pd.DataFrame(generator.normal(size=(360, 6)) + 3 * np.eye(6)[fine], columns=FEATURES)
    frame.insert(0, "id", [f"r{i}" for i in rows])
    frame.insert(1, "kind", [f"k{f // 3}" for f in fine])
    frame.insert(2, "sub", [f"s{f}" for f in fine])
    frame["part"] = np.array(["train", "train", "val", "test"])[rows // 6 % 4]
    training = frame["part"] == "train"
    frame.loc[training & (rows // 6 % 3 > 0), "sub"] = None
    frame.loc[training & (rows // 6 % 3 > 1), "kind"] = None
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def test_a_run_is_calibrated_judged_and_answers(regrain: Command, table: Path, tmp_path: Path) -> None:
    reading = [table, "--columns", "f*", "--id-column", "id", "--split-column", "part"]
    fit = ["fit", "mixed", *reading, "--level", "kind", "--level", "sub", "--out", "run", "--epochs", "2", "-q"]
    code, _, err = regrain(*fit, "--device", "cpu")
    assert code == 0, err
    code, out, err = regrain("calibrate", "run", "--precision", "0.9", "--judge", "test")
    assert code == 0, err
    for expected in ("calibrated on val of run: 90 samples", "judged on test: 90 samples", "right of those", "kind"):
        assert expected in out, out
    code, out, err = regrain("calibrate", "run", "--precision", "0.9", "--judge", "test", "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["answers"]["levels"] == ["kind", "sub"]
    assert made["judged"]["split"] == "test"
    assert made["judged"]["precision"] > 0.75
    assert json.loads((tmp_path / "run" / "answers.json").read_text())["judged"] == made["judged"]

    code, out, err = regrain("predict", "run", *reading, "--split", "test", "--out", "p.csv", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["levels"] == ["kind", "sub"]
    assert sum(said["answered"].values()) + said["abstained"] == said["samples"] == 90
    assert said["answered"]["sub"] == round(90 * made["judged"]["levels"][1]["answered"])
    predicted = pd.read_csv("p.csv")
    truth = pd.read_csv(table).query("part == 'test'").reset_index(drop=True)
    for level in ("kind", "sub"):
        at = predicted["answer_level"] == level
        assert (predicted["answer"][at] == predicted[level][at]).all()
        assert (predicted["answer"][at] == truth[level][at]).mean() > 0.7 or not at.any()
    assert predicted["answer"].isna().sum() == said["abstained"]
    code, out, _ = regrain("predict", "run", *reading, "--out", "q.parquet")
    assert code == 0
    assert "answered at sub" in out
    assert "abstained from" in out

    pd.read_csv(table).query("part == 'val'")[[*FEATURES, "sub"]].to_csv("labelled.csv", index=False)
    code, out, err = regrain("calibrate", "run", "--data", "labelled.csv", "--json")
    assert code == 0, err
    other = json.loads(out)["answers"]
    assert other["samples"] == [90, 90]  # the kind follows from the sub
    assert other["calibrated_on"] == "all of labelled"

    pd.read_csv(table)[FEATURES].head(60).to_csv("bare.csv", index=False)
    for arguments, expected in (
        (("--split", "train"), "training has seen the split 'train'"),
        (("--split", "dev"), "run has no split 'dev': there are"),
        (("--judge", "val"), "not judged on what they were calibrated on"),
        (("--judge", "nowhere"), "no split 'nowhere'"),
        (("--columns", "f*"), "without other data (--data)"),
        (("--data", "bare.csv"), "none of the 60 samples has a label of kind or sub"),
        (("--data", "digits", "--split", "test"), "image"),
        (("--precision", "0"), "above 0 and at most 1"),
    ):
        code, _, err = regrain("calibrate", "run", *arguments)
        assert (code, expected in err) == (2, True), (arguments, err)
