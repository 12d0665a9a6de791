"""``regrain regroup`` as a user meets it: a mapping, a table, and what checks and trains on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Command


@pytest.fixture
def parity(tmp_path: Path) -> Path:
    """Digits even and odd, as a file of edges; nine is forgotten."""
    edges = [f"{digit},{'odd' if digit % 2 else 'even'}" for digit in range(9)]
    (tmp_path / "parity.csv").write_text("\n".join(["child,parent", *edges]) + "\n")
    return tmp_path / "parity.csv"


def test_digits_regrouped_are_checked_and_trained_on(regrain: Command, parity: Path, tmp_path: Path) -> None:
    wanted = ("regroup", "digits", "parity.csv", "--out", "parity.parquet")
    code, _, err = regrain(*wanted)
    assert code == 2
    assert "to 1 of the 10 classes of level 'digit': '9'. Add them to it, or" in err
    code, out, err = regrain(*wanted, "--drop-unknown", "--most-imbalance", "1.2")
    assert code == 0, err
    assert "180 samples of classes that the mapping does not know were left out: '9' (180)" in err
    assert "warning: in split train superclass 'even' (" in err
    assert "1617 samples under 2 superclasses written to parity.parquet" in out
    assert "55.1%" in out

    code, out, _ = regrain("check", "parity.parquet")
    assert code == 0
    assert "level superclass: 2 classes" in out
    assert "nothing is wrong" in out
    fit = ("fit", "maskcon", "parity.parquet", "--encoder", "conv4", "--epochs", "1", "--quiet", "--device", "cpu")
    code, _, err = regrain(*fit, "--limit-per-class", "20", "--out", "run")
    assert code == 0, err
    assert "superclass as coarse" in err
    code, out, err = regrain("evaluate", "run", "--protocol", "recall", "--k", "1", "--json")
    assert code == 0, err
    assert 0 < json.loads(out)["test/label/recall@1"] <= 1

    code, _, err = regrain(*wanted, "--drop-unknown")
    assert (code, "--overwrite" in err) == (2, True)


def test_json_tells_the_balance(regrain: Command, tmp_path: Path) -> None:
    code, out, err = regrain("regroup", "digits", "digits", "--out", "shapes.parquet", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["out"], found["samples"], found["level"]) == ("shapes.parquet", 1797, "digit")
    assert found["superclasses"]["loop"]["classes"] == 4
    assert found["superclasses"]["loop"]["samples"] == {"train": 536, "test": 177}
    assert found["superclasses"]["loop"]["shares"]["train"] == pytest.approx(536 / 1352)
    assert found["imbalance"]["train"] == pytest.approx(536 / 408)
    assert found["warnings"] == []
    assert found["dropped"] == {}
