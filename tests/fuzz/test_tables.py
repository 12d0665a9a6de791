"""Small tables by the thousand: one table is one data set in every format, and what is broken is refused by name.

The quick versions run a few inputs; ``pytest -m slow tests/fuzz/test_tables.py`` runs a thousand of each kind.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from regrain.data import check, read
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.errors import UserError

Table = dict[str, list[Any]]

QUICK = settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SLOW = settings(QUICK, max_examples=1000, derandomize=False, print_blob=True)

_LETTERS = "ab \"',;|\t\n\r{}[]/éÄß中🙂0019.-=_%$\u00a0"
_TEXTS = st.text(_LETTERS, max_size=12).filter(lambda text: text[:1] != "'")  # CSV's guard against formulas
_NAMES = st.text(_LETTERS, min_size=1, max_size=4).filter(lambda text: text[:1] != "'")

_FEATURES = st.sampled_from(
    [
        st.floats(-1e6, 1e6).map(lambda value: round(value, 4)),
        st.integers(-(10**6), 10**6),
        st.booleans(),
        st.sampled_from(["yes", "no"]),
        st.sampled_from(["$7", "$1,024.50", "-$3"]),
        st.sampled_from(["0,5", "1,25", "7"]),
        st.sampled_from(["1,024", "7"]),
        st.sampled_from(["2024-01-31", "2024-02-01"]),
        st.sampled_from(["1", "2.5", "1e3", "1_0"]),
        _TEXTS,
    ]
)
_LABELS = st.sampled_from(
    [
        st.sampled_from(["cat", "dog", "NA", "Cat", "nan"]),
        st.integers(-1, 3),
        st.sampled_from([0.0, 1.0, 2.0]),
        st.sampled_from([0.5, 1.0]),
        st.booleans(),
        st.sampled_from(["true", "False"]),
        st.sampled_from(["0", "0.0", "1e0", "1"]),
        st.sampled_from(["007", "7"]),
        st.sampled_from(["café", "cafe\u0301", "tea"]),
        _NAMES,
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Columns of one kind each, with gaps in some."""
    count = draw(st.integers(1, 8))
    gaps = draw(st.booleans())

    def column(cells: st.SearchStrategy[Any], *, whole: bool = False) -> list[Any]:
        kind = st.one_of(st.none(), cells) if gaps and not whole else cells
        return draw(st.lists(kind, min_size=count, max_size=count))

    names = draw(st.lists(st.sampled_from(["x", "f1", "f 2", "größe", "date"]), min_size=1, max_size=4, unique=True))
    table = {name: column(draw(_FEATURES)) for name in names}
    table["kind"] = column(draw(_LABELS))
    if draw(st.booleans()):
        table["text"] = column(_TEXTS)
    if draw(st.booleans()):
        table["id"] = draw(
            st.permutations(list(range(count)) if draw(st.booleans()) else [f"0{i}" for i in range(count)])
        )
    if draw(st.booleans()):
        table["split"] = column(st.sampled_from(["train", "test", "Validation"]), whole=True)
    assume(any(cells[-1] is not None for cells in table.values()))  # CSV passes over empty rows at the end
    return table


def _delimited(table: Table, delimiter: str, quoting: Any = csv.QUOTE_MINIMAL) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=quoting)
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(["" if cell is None else cell for cell in row])
    return stream.getvalue()


def _sources(table: Table, folder: Path) -> Iterator[tuple[str, Any]]:
    """The table in every format."""
    records = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    for name, text in (
        ("t.csv", _delimited(table, ",")),
        ("semicolon.csv", "sep=;\n" + _delimited(table, ";")),
        ("quoted.csv", _delimited(table, ",", csv.QUOTE_ALL)),
        ("t.tsv", _delimited(table, "\t", csv.QUOTE_ALL)),
        ("t.jsonl", "".join(f"{json.dumps(record)}\n" for record in records)),
        ("t.json", json.dumps(table)),
    ):
        (folder / name).write_text(text, encoding="utf-8", newline="")
        yield name, folder / name
    pq.write_table(pa.table(table), folder / "t.parquet")
    yield "t.parquet", folder / "t.parquet"
    coded = {name: pa.array(c).dictionary_encode() if _texts(c) else pa.array(c) for name, c in table.items()}
    pq.write_table(pa.table(coded), folder / "dictionary.parquet")
    yield "dictionary.parquet", folder / "dictionary.parquet"
    frame = pd.DataFrame(table)
    yield "DataFrame", frame
    yield "nullable", frame.convert_dtypes()
    yield "Arrow", pa.table(table).to_pandas(types_mapper=pd.ArrowDtype)
    yield "category", frame.astype({name: "category" for name, cells in table.items() if _texts(cells)})
    yield "mapping", table
    yield "arrays", {name: np.array(c) if None not in c and not _texts(c) else c for name, c in table.items()}


def _texts(cells: list[Any]) -> bool:
    return any(isinstance(cell, str) for cell in cells)


def _outcome(source: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    """All that a data set is, or that it is refused."""
    try:
        data = read(source, skip_unreadable=True, **options)
    except UserError:
        return ("refused",)
    samples = data.samples
    values = samples.tensor.tolist() if isinstance(samples, TensorSamples) else samples.texts  # type: ignore[attr-defined]
    splits = None if data.splits is None else data.splits.tolist()
    labels = data.labels
    left = len(data.notes.get("left_out", ()))
    return values, labels.levels, labels.classes, labels.codes.tolist(), data.ids.tolist(), splits, left


def one_table_is_one_data_set(table: Table, options: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {name: _outcome(source, options) for name, source in _sources(table, Path(folder))}
    first = outcomes["mapping"]
    assert {name: outcome for name, outcome in outcomes.items() if outcome != first} == {}, first
    if first != ("refused",):
        values, left = first[0], first[-1]
        assert len(values) + left == len(table["kind"])
        assert all(isinstance(value, str) or np.isfinite(value).all() for value in values)


_OPTIONS = st.sampled_from(
    [
        {},
        {"levels": ["kind"]},
        {"levels": ["kind"], "columns": ["*"]},
        {"levels": ["kind"], "columns": ["f*"]},
        {"levels": [], "columns": ["*"]},
        {"levels": ["kind"], "relation": "aspects", "split_column": "split"},
        {"levels": ["kind"], "text": "text", "id_column": "id"},
        {"levels": ["kind"], "unknown": ["NA", "7"]},
    ]
)


@QUICK
@given(tables(), _OPTIONS)
def test_one_table_is_one_data_set_in_every_format(table: Table, options: dict[str, Any]) -> None:
    one_table_is_one_data_set(table, options)


@pytest.mark.slow
@SLOW
@given(tables(), _OPTIONS)
def test_one_table_is_one_data_set_in_every_format_a_thousand_times(table: Table, options: dict[str, Any]) -> None:
    one_table_is_one_data_set(table, options)


# Broken files


@st.composite
def broken_tables(draw: st.DrawFn) -> tuple[list[str], str]:
    """Lines of a table whose cells hold no quotes and no line breaks, before something happens to a few of them."""
    count = draw(st.integers(3, 12))
    lines = [f"{i},text number {i},{'ab'[i % 2]},{i / 7:.3f}" for i in range(count)]
    for _ in range(draw(st.integers(0, 4))):
        row = draw(st.integers(0, count - 1))
        place = draw(st.integers(0, len(lines[row])))
        mark = draw(st.sampled_from(['"', '"', '""', ",", ",,", "'", "\0", "\ufeff", "é", ";", "\t"]))
        kind = draw(st.sampled_from(["insert", "begin a cell", "cut", "double"]))
        cells = lines[row].split(",")
        if kind == "insert":
            lines[row] = lines[row][:place] + mark + lines[row][place:]
        elif kind == "begin a cell":
            which = draw(st.integers(0, len(cells) - 1))
            cells[which] = '"' + cells[which]
            lines[row] = ",".join(cells)
        elif kind == "cut" and place:
            lines[row] = lines[row][:place]
        else:
            lines[row] += f",{lines[row]}"
    return ["id,text,label,f", *lines], draw(st.sampled_from(["\n", "\r\n", "\r"]))


def rows_add_up(lines: list[str], ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "t.csv"
        file.write_text(ending.join(lines) + ending, encoding="utf-8", newline="")
        for options in ({"text": "text"}, {"columns": ["f"]}):
            report = _report(lambda options=options: check(file, levels=["label"], **options))
            try:
                data = read(file, levels=["label"], skip_unreadable=True, **options)
            except UserError:
                continue
            assert report is not None
            _no_nan(data)
            left = data.notes.get("left_out", [])
            assert all(row.startswith("line ") for row in left)
            assert report.ok == (not left)
            joined = any("within quotes" in message for message in data.notes["messages"])
            assert joined or len(data) + len(left) == len(lines) - 1, (lines, left)


def _report(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except UserError:
        return None


def _no_nan(data: Dataset) -> None:
    if isinstance(data.samples, TensorSamples):
        assert data.samples.tensor.isfinite().all()
    else:
        assert isinstance(data.samples, TextSamples)


@QUICK
@given(broken_tables())
def test_rows_read_and_refused_add_up(broken: tuple[list[str], str]) -> None:
    rows_add_up(*broken)


@pytest.mark.slow
@SLOW
@given(broken_tables())
def test_rows_read_and_refused_add_up_a_thousand_times(broken: tuple[list[str], str]) -> None:
    rows_add_up(*broken)


# Anything at all

_PIECES = st.lists(
    st.sampled_from(
        [
            *(b'"', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b"'", b" ", b"sep=;", b"\xef\xbb\xbf"),
            *(b"\xff\xfe", b"\xe9", b"text", b"label", b"f1", b"id", b"1", b"0.5", b"1e999", b"nan", b"inf", b"-1"),
            *(b"{", b"}", b"[", b"]", b":", b'"a":', b"null", b"true", b"PAR1", b"\xf0\x9f\x99\x82", b"_", b"1,024"),
        ]
    )
    | st.binary(max_size=4),
    max_size=60,
).map(b"".join)
_SUFFIXES = st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet", ".CSV"])


@contextmanager
def _arguments(*arguments: object) -> Iterator[None]:
    with mock.patch.object(sys, "argv", ["regrain", *map(str, arguments)]):
        yield


def anything_is_read_or_refused(content: bytes, suffix: str) -> None:
    from regrain.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"t{suffix}"
        file.write_bytes(content)
        with _arguments("check", file), redirect_stdout(out), redirect_stderr(err):
            try:
                main()
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
    assert code in (0, 1, 2)
    assert "Traceback" not in out.getvalue() + err.getvalue()
    assert code == 0 or "error" in out.getvalue() + err.getvalue()


@QUICK
@given(_PIECES, _SUFFIXES)
def test_anything_is_read_or_refused(content: bytes, suffix: str) -> None:
    anything_is_read_or_refused(content, suffix)


@pytest.mark.slow
@SLOW
@given(_PIECES, _SUFFIXES)
def test_anything_is_read_or_refused_a_thousand_times(content: bytes, suffix: str) -> None:
    anything_is_read_or_refused(content, suffix)
