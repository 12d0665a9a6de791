"""Tables that are written: no cell of a CSV is a formula to a spreadsheet, and all are read back as they were."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

import regrain
from regrain.data.cells import escape_formula, unescape_formula
from regrain.runs.tables import write_columns

CELLS = ["=1+1", "+SUM(A1)", "-cmd", "@x", "\tz", "\ry", "'=", "''+a", "-1", "+2.5e3", "plain", "it's", "'quoted'"]


def test_texts_are_guarded_and_numbers_stay_numbers(tmp_path: Path) -> None:
    columns = {"id": CELLS, "=head": ["-x", None] * 6 + ["y"], "value": np.arange(13) - 6.5}
    write_columns(columns, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "'=head", "value"]
    assert [row["id"] for row in rows[:8]] == [f"'{cell}" for cell in CELLS[:8]]
    assert [row["id"] for row in rows[8:]] == CELLS[8:]
    assert [row["'=head"] for row in rows[:2]] == ["'-x", ""]
    assert [float(row["value"]) for row in rows] == columns["value"].tolist()


def test_parquet_holds_texts_as_they_are(tmp_path: Path) -> None:
    write_columns({"id": CELLS}, tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["id"].tolist() == CELLS


def test_our_reader_gives_ids_and_labels_back(tmp_path: Path) -> None:
    ids = [f"{cell.strip()}{row}" for row, cell in enumerate(CELLS)]
    kinds = ["=a" if row % 2 else "-b" for row in range(len(ids))]
    write_columns({"id": ids, "f0": np.arange(13.0), "f1": np.ones(13), "kind": kinds}, tmp_path / "t.csv")
    data = regrain.load(tmp_path / "t.csv", id_column="id", columns=["f0", "f1"], levels=["kind"])
    assert data.ids.tolist() == ids
    assert data.labels.names("kind") == ("-b", "=a")


@given(st.text(alphabet="'=+-@\t\r a1.", max_size=6))
def test_guarding_is_undone_whatever_the_text(text: str) -> None:
    guarded = escape_formula(text)
    assert unescape_formula(guarded) == text
    assert guarded == text or guarded == f"'{text}"
