"""Splits that data do not have, and samples that give no figure: errors name what there is, and what would help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Command, quick, raises

import regrain
from regrain.data.dataset import Dataset
from regrain.labels import Labels
from regrain.report import report


def vectors(**splits: int) -> Dataset:
    """Vectors of two classes, so many in each split."""
    count = sum(splits.values())
    codes = np.arange(count) % 2
    x = np.random.default_rng(0).normal(size=(count, 4)) + codes[:, None]
    named = np.repeat(list(splits), list(splits.values()))
    return regrain.load(x.astype("float32"), labels={"kind": [f"k{code}" for code in codes]}, splits=named)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    return quick("sup-ce", vectors(train=40, val=20), tmp_path_factory.mktemp("runs") / "run")


VERBS: list[Callable[[regrain.Run, Path], Any]] = [
    lambda run, out: run.evaluate(),
    lambda run, out: run.evaluate(vectors(train=40, val=20)),
    lambda run, out: run.embed(),
    lambda run, out: run.embed(vectors(train=40, val=20), split="test"),
    lambda run, out: run.export_embeddings(out / "e.parquet", split="test"),
    lambda run, out: run.predict(vectors(train=40, val=20), split="test"),
    lambda run, out: run.calibrate(split="test"),
    lambda run, out: report(run, out=out / "r.html"),
]


@pytest.mark.parametrize("number", range(len(VERBS)))
def test_python_names_its_keyword(number: int, run: regrain.Run, tmp_path: Path) -> None:
    with raises("unknown_split", r"has no split 'test': there are train, val; name one with split="):
        VERBS[number](run, tmp_path)


def test_the_only_split_and_none_at_all(run: regrain.Run, tmp_path: Path) -> None:
    with raises("unknown_split", "has no split 'test': there is only 'val'; name one with split="):
        run.evaluate(vectors(val=20))
    without = regrain.load(np.ones((3, 4), "float32"))
    for call in (run.embed, run.predict):
        with raises("unknown_split", "has no split 'train': the data have no splits; leave out split="):
            call(without, split="train")
    with raises(
        "unknown_split", "has no split 'train', the one to train on: there are a, b; give one of them this name"
    ):
        quick("sup-ce", vectors(a=20, b=20), tmp_path / "run")
    with raises("unknown_split", "has no split 'test': there are train, val; name one with judge="):
        run.calibrate(split="val", judge="test")


def test_the_command_line_names_its_option(regrain: Command, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{code + 0.1},{code},k{code},{split}" for split in ("train", "val") for code in [0, 1] * 10]
    table.write_text("\n".join(["a,b,kind,split", *rows]))
    runs = [tmp_path / name for name in ("one", "two")]
    for seed, run in enumerate(runs):
        asked = ("--level", "kind", "--epochs", "1", "--out", run, "--seed", seed, "--quiet")
        assert regrain("fit", "sup-ce", table, *asked)[0] == 0
    code, _, err = regrain("evaluate", runs[0])
    assert (code, "no split 'test': there are train, val; name one with --split" in err) == (2, True)
    code, out, _ = regrain("compare", *runs, "--split", "val")
    assert code == 0
    assert f"has no figures of the split 'val': `regrain evaluate {runs[0]} --split val` makes them" in out


def test_samples_that_give_no_figure_are_refused_with_what_would_give_one(run: regrain.Run, tmp_path: Path) -> None:
    lone = regrain.load(np.eye(6, 4, dtype="float32"), labels={"kind": list("abcdef")})
    with raises(
        "too_few", r"split 'test' of data gives no figure: recall .*; knn .*; clustering .*\. Figures need a class"
    ):
        run.evaluate(lone)
    unlabelled = replace(vectors(test=6), labels=Labels.from_columns({"kind": [None] * 6}))
    with raises("no_labels", "no labels in this split: nothing to evaluate by; name another split with split="):
        run.evaluate(unlabelled)
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    with raises("no_labels", "no label can be judged: the training data of .* have no labels"):
        quick("simclr", regrain.load(x), tmp_path / "run").clean()
