"""Options of the wrong type, out of range, or that contradict each other: one sentence, from Python and the shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import Command, quick, raises

import regrain
from regrain.data.checking import check
from regrain.errors import Code
from regrain.report import compare


def frame(count: int = 120) -> pd.DataFrame:
    codes = np.arange(count) % 4
    x = np.random.default_rng(0).normal(size=(count, 4)) + 3 * np.eye(4)[codes]
    named = {"kind": [f"k{code // 2}" for code in codes], "sub": [f"s{code}" for code in codes]}
    return pd.DataFrame(x, columns=list("abcd")).assign(**named)


LEVELS = {"levels": ["kind", "sub"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "t.csv"
    frame().to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def runs(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[regrain.Run, regrain.Run]:
    place = tmp_path_factory.mktemp("runs")
    return quick("sup-ce", table, place / "one", **LEVELS), quick("supcon", table, place / "two", **LEVELS)


Call = Callable[[regrain.Run, regrain.Run, Path, Path], Any]
TUNED = {**LEVELS, "trials": 1, "epochs": 1}
REFUSED: dict[str, tuple[Call, Code, str]] = {
    "compare one": (lambda a, b, t, o: compare([a]), "too_few", "two or more different runs; got .*one$"),
    "compare a text": (lambda a, b, t, o: compare(str(a.path)), "out_of_range", "runs must be a list"),
    "compare levels": (
        lambda a, b, t, o: compare([a, b], levels=["sub"]),
        "invalid_input",
        "name those of other data: leave",
    ),
    "compare split": (
        lambda a, b, t, o: compare([a, b], split="x"),
        "unknown_split",
        "no split 'x': there are train",
    ),
    "clean none": (lambda a, b, t, o: a.clean(levels=[]), "missing_option", "levels is an empty list"),
    "clean unlabelled": (
        lambda a, b, t, o: a.clean(frame()[list("abcd")].assign(other=["x", "y"] * 60)),
        "unknown_level",
        "the data have none of the levels kind, sub: call the columns of their labels so",
    ),
    "evaluate no protocol": (
        lambda a, b, t, o: a.evaluate(protocols=[]),
        "missing_option",
        "protocols is an empty list",
    ),
    "evaluate no level": (lambda a, b, t, o: a.evaluate(levels=[]), "missing_option", "levels is an empty list"),
    "discover too many": (
        lambda a, b, t, o: b.discover(subclasses=10**6, write=False),
        "out_of_range",
        "there are 96 samples to cluster, and subclasses= asks for 1000000 clusters",
    ),
    "tune beyond": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=["weight=0.5:3"], out=o, **TUNED),
        "out_of_range",
        "ranges= maskcon.weight must be between 0 and 1; got 3.0",
    ),
    "tune a word": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=["sampling=balanced,nope"], out=o, **TUNED),
        "out_of_range",
        "ranges= training.sampling must be one of uniform, balanced, two-level; got 'nope'",
    ),
    "tune to infinity": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=["weight=0.1:inf"], out=o, **TUNED),
        "invalid_input",
        "ranges= takes NAME=A,B,C",
    ),
    "tune a number": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=[3], out=o, **TUNED),  # type: ignore[list-item]
        "invalid_input",
        "ranges= takes NAME=A,B,C .*; got '3'",
    ),
    "tune seeds": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=["seed=0:9"], out=o, **TUNED),
        "invalid_input",
        "a seed fixes the draws, and is not a setting to choose",
    ),
    "tune twice": (
        lambda a, b, t, o: regrain.tune("maskcon", t, ranges=["epochs=1,2"], out=o, **TUNED),
        "conflicting_options",
        "epochs has a value of its own, and ranges= epochs: leave one out",
    ),
    "tune validation": (
        lambda a, b, t, o: regrain.tune("maskcon", t, validation=1, out=o, **TUNED),
        "out_of_range",
        "validation= is a share between 0 and 1, such as 0.2; got 1.0",
    ),
    "fit holdout": (
        lambda a, b, t, o: regrain.fit("sup-ce", t, holdout=1, out=o, **LEVELS),
        "out_of_range",
        "holdout= is a share between 0 and 1, such as 0.2; got 1",
    ),
    "fit holdout nan": (
        lambda a, b, t, o: regrain.fit("sup-ce", t, holdout=float("nan"), out=o, **LEVELS),
        "out_of_range",
        "holdout must be a number; got nan",
    ),
    "fit holdout and splits": (
        lambda a, b, t, o: regrain.fit(
            "sup-ce", frame().assign(split=["train", "test"] * 60), holdout=0.5, out=o, **LEVELS
        ),
        "conflicting_options",
        "has the splits train, test, and nothing is held out: leave out holdout=",
    ),
    "fit fine": (lambda a, b, t, o: regrain.fit("sup-ce", t, fine=["sub"]), "out_of_range", "fine must be a text"),
    "fit of another reader": (
        lambda a, b, t, o: regrain.fit("sup-ce", "digits", text="x"),
        "unknown_option",
        "reading the catalogue's digits has no option 'text'",
    ),
    "load images": (
        lambda a, b, t, o: regrain.load(t, channels=3, **LEVELS),
        "conflicting_options",
        "channels= is about images, and these samples are rows of numbers: leave it out",
    ),
    "load a word": (
        lambda a, b, t, o: regrain.load(t, skip_unreadable="maybe", **LEVELS),
        "out_of_range",
        "skip_unreadable must be true or false; got 'maybe'",
    ),
    "load a run": (lambda a, b, t, o: regrain.load(a.path), "invalid_input", "is a run, and not data"),
    "convert format": (
        lambda a, b, t, o: regrain.convert(t, o, format="zip", **LEVELS),  # type: ignore[arg-type]
        "unknown_name",
        "no format 'zip': choose from lance, parquet",
    ),
    "convert out": (lambda a, b, t, o: regrain.convert(t, 5), "out_of_range", "out must be a text or a path; got 5"),  # type: ignore[arg-type]
    "convert into a file": (
        lambda a, b, t, o: regrain.convert(t, t, **LEVELS),
        "would_overwrite",
        "is a file, and shards need a folder",
    ),
    "low-data words": (
        lambda a, b, t, o: regrain.low_data("sup-ce", t, sizes=["x"], out=o),  # type: ignore[list-item]
        "out_of_range",
        "each of sizes must be a whole number; got 'x'",
    ),
    "label-noise nan": (
        lambda a, b, t, o: regrain.label_noise("sup-ce", t, rates=[float("nan")], out=o),
        "out_of_range",
        "each of rates must be a number; got nan",
    ),
    "regroup nan": (
        lambda a, b, t, o: regrain.regroup(t, "digits", out=o, most_imbalance=float("nan")),
        "out_of_range",
        "most_imbalance must be a number; got nan",
    ),
    "auto coarse": (
        lambda a, b, t, o: regrain.auto("digits", coarse="digit", levels=["group"], out=o),
        "conflicting_options",
        "coarse= digit is not among the levels in use, which are group",
    ),
    "auto no level": (
        lambda a, b, t, o: regrain.auto(t, coarse="nope", out=o, **LEVELS),
        "unknown_level",
        "no level 'nope'",
    ),
    "auto list": (lambda a, b, t, o: regrain.auto(t, coarse=["kind"], out=o), "out_of_range", "coarse must be a text"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_what_would_be_right(
    name: str, runs: tuple[regrain.Run, regrain.Run], table: Path, tmp_path: Path
) -> None:
    call, code, words = REFUSED[name]
    with raises(code, words):
        call(*runs, table, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_setting_with_a_value_is_not_searched_by_default(table: Path, tmp_path: Path) -> None:
    found = regrain.tune("maskcon", table, settings={"weight": 0.3}, out=tmp_path / "tune", **TUNED)
    assert "weight" not in found.trials[0].settings
    assert "learning_rate" in found.trials[0].settings


def test_a_full_disk_is_not_taken_for_a_bad_setting(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("lightning.Trainer.save_checkpoint", full)
        with raises("not_writable", "No space left on device"):
            regrain.tune("maskcon", table, out=tmp_path / "tune", **TUNED)
    assert not regrain.tune("maskcon", table, out=tmp_path / "tune", **TUNED).trials[0].problem


def test_copies_of_one_split_and_label_are_a_warning() -> None:
    copies = pd.concat([frame(8)] * 5, ignore_index=True)
    (issue,) = check(copies, levels=["kind", "sub"]).issues
    assert (issue.kind, issue.severity) == ("copies", "warning")
    assert issue.message == "identical samples: 32 of 40 are copies of another, which makes figures too high"
    assert issue.rows[0] == "row 0 = row 8 = row 16 = row 24 = row 32"
    few = pd.concat([frame(118), frame(2)], ignore_index=True)
    assert not check(few, levels=["kind", "sub"]).issues


def test_one_class_to_judge_by_says_nothing(runs: tuple[regrain.Run, regrain.Run]) -> None:
    one = frame()[lambda rows: rows["sub"] == "s0"]
    found = runs[0].evaluate(one, protocols=["recall"], split="all")
    said = "every label of this split is 's0', so all neighbours and clusters are right, whatever the embedding"
    assert f"level 'sub': {said}" in found.notes


def test_a_store_that_fails_is_one_sentence(regrain: Command, table: Path) -> None:
    code, _, err = regrain("convert", table, "--out", "http://localhost/x", "--level", "kind")
    assert (code, "http://localhost/x cannot be reached: NotImplementedError" in err) == (2, True), err
    code, _, err = regrain("check", "nosuch://x")
    assert (code, "nosuch://x cannot be reached" in err) == (2, True), err


def test_rates_and_hours_of_recipes_are_positive(regrain: Command) -> None:
    for asked in (
        ("recipes", "--rate", "0"),
        ("recipes", "--rate", "nan"),
        ("reproduce", "maskcon/table12", "--hours", "-1"),
    ):
        code, _, err = regrain(*asked)
        assert (code, f"{asked[-2]} is a number greater than 0; got" in err) == (2, True), err
