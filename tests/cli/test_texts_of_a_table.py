"""A newcomer's table of texts: trained on, then texts without labels embedded, levels of few classes, what is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from support import Command

AREAS = {"food": ("soup", "bread", "cake"), "travel": ("train", "flight", "hotel")}


@pytest.fixture
def run(regrain: Command, tmp_path: Path) -> Path:
    rows = ["question,area,intent"]
    for number in range(180):
        area = list(AREAS)[number % 2]
        intent = AREAS[area][number // 2 % 3]
        rows.append(f"tell me number {number} about the {intent} please,{area},{intent}")
    table = tmp_path / "questions.csv"
    table.write_text("\n".join(rows) + "\n")
    out = tmp_path / "run"
    options = ["--text", "question", "--level", "area", "--level", "intent", "--epochs", "1", "--out", str(out), "-q"]
    status, _, problem = regrain("fit", "maskcon", str(table), *options)
    assert status == 0, problem
    return out


def test_texts_without_labels_are_embedded(regrain: Command, run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.csv"
    new.write_text("question,mood\nwhen does the train leave,glad\nis there soup,sad\n")
    status, told, problem = regrain("embed", str(run), "--data", str(new), "--out", str(tmp_path / "new.parquet"))
    assert (status, problem) == (0, "")
    assert told.startswith("2 embeddings of width")
    assert "mood" not in pyarrow.parquet.read_table(tmp_path / "new.parquet").column_names
    status, _, problem = regrain("embed", str(run), "--data", str(new), "--out", str(tmp_path / "new.csv"))
    assert (status, "embeddings are written to .parquet" in problem) == (2, True)
    status, _, problem = regrain("embed", str(run), "--data", str(new), "--out", str(tmp_path / "new.parquet"))
    assert (status, "exists: choose another --out" in problem) == (2, True)
    status, _, problem = regrain("embed", str(run), "--level", "area", "--out", str(tmp_path / "own.parquet"))
    assert (status, "name those of other data" in problem) == (2, True)
    classifier = str(tmp_path / "classifier")
    table = str(tmp_path / "questions.csv")
    options = ["--text", "question", "--level", "area", "--epochs", "1", "--out", classifier, "-q"]
    assert regrain("fit", "sup-ce", table, *options)[0] == 0
    status, _, problem = regrain("calibrate", classifier, "--level", "area")
    assert (status, "name those of other data" in problem) == (2, True)
    # to judge needs labels: the reader looks for some, and says where there are none
    new.write_text("question\nwhen does the train leave\nis there soup\n")
    status, _, problem = regrain("evaluate", str(run), "--data", str(new))
    assert status == 2
    assert "no column looks like labels" in problem


def test_a_table_is_judged_as_the_run_was_read(regrain: Command, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    lines = [f"{n},the {AREAS['food'][n % 3]} of day {n},{AREAS['food'][n % 3]},food" for n in range(60)]
    other.write_text("\n".join(["number,question,intent,area", *lines]) + "\n")
    status, told, problem = regrain("evaluate", str(run), "--data", str(other), "-p", "recall", "--json")
    assert status == 0, problem
    assert {key.split("/")[1] for key in json.loads(told) if key != "verdict"} == {"area", "intent"}


def test_a_level_of_too_few_classes_is_left_out(regrain: Command, run: Path) -> None:
    few = ["-p", "few-shot", "--ways", "3", "--shots", "1", "--episodes", "3", "--copies", "0"]
    status, told, problem = regrain("evaluate", str(run), *few)
    assert status == 0, problem
    assert "few-shot was left out at level 'area': an episode of 3 classes cannot be drawn" in " ".join(told.split())
    assert "3-way-1-shot" in told
    for asked in (["--level", "area"], ["--ways", "7"]):  # at the level asked for, and at any
        status, _, problem = regrain("evaluate", str(run), *few, *asked)
        assert status == 2
        assert "cannot be drawn" in problem


def test_discover_shows_what_texts_say(regrain: Command, run: Path) -> None:
    status, told, problem = regrain("discover", str(run), "--each", "3")
    assert status == 0, problem
    assert told.count("“tell me number") == 6
    status, told, _ = regrain("discover", str(run), "--each", "3", "--json")
    for subclass in json.loads(told)["subclasses"]:
        assert len(subclass["texts"]) == len(subclass["exemplars"]) > 0
        for number, text in zip(subclass["exemplars"], subclass["texts"], strict=True):
            assert text.startswith(f"tell me number {number} ")
