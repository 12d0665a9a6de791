"""File formats and table-like objects, each read into a :class:`~regrain.data.table.Table`, not interpreted yet."""

from __future__ import annotations

import codecs
import gc
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.cells import Column
from regrain.data.columns import column_names, require_rows
from regrain.data.delimited import csv_table
from regrain.data.foreign import described_text, foreign_format, is_json, not_text
from regrain.data.options import TABLE_SUFFIXES
from regrain.data.parquet import parquet_files, parquet_table
from regrain.data.rows import RowError
from regrain.data.table import Table
from regrain.errors import UserError
from regrain.labels import missing

_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def as_table(source: Any) -> Table:
    """A table file, a folder of Parquet files by split, a DataFrame, or columns in a mapping."""
    if isinstance(source, Table):
        return source
    if is_frame(source):
        return frame_table(source)
    if isinstance(source, Mapping):
        return columns_table(source)
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        files = parquet_files(path)
        return parquet_table(list(files), list(files.values()))
    if not path.is_file():
        raise UserError(f"no file {path}", code="missing_file")
    return file_table(path)


def file_table(path: Path) -> Table:
    """A table file, by its ending.

    Raises a UserError for an ending that is not known, a file that is not what its ending says, or one without rows.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return parquet_table([path])
    if suffix not in TABLE_SUFFIXES:
        why = foreign_format(path) or described_text(path)
        why = why or f"expected a folder or a table ({', '.join(TABLE_SUFFIXES)})"
        raise UserError(f"{path} cannot be read: {why}", code="damaged_file")
    text = utf8_text(path)
    if suffix in (".csv", ".tsv") and is_json(text):
        raise UserError(
            f"{path} cannot be read: it is JSON: let its name end in .jsonl for an object a line, else in .json",
            code="damaged_file",
        )
    with _no_collection():
        return csv_table(path, text) if suffix in (".csv", ".tsv") else _json_table(path, text)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which would look through millions of new cells again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def utf8_text(path: Path) -> str:
    """The text of a file, without a byte order mark; UTF-16 with its mark is read too.

    Raises a UserError for a file in another encoding, naming the line, and for one that cannot be opened.
    """
    try:
        content = path.read_bytes()
        foreign = foreign_format(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", code="damaged_file") from None
    if foreign is not None:
        raise UserError(f"{path} cannot be read: {foreign}", code="damaged_file")
    marked = content.startswith(_MARKS)
    why = None if marked else not_text(content)
    try:
        if marked:
            return content.decode("utf-32" if content.startswith(_MARKS[:2]) else "utf-16").lstrip("\ufeff")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        why = why or f"line {line} has other bytes; save it as 'CSV UTF-8'"
        raise UserError(f"{path} is not UTF-8 text: {why}", code="damaged_file") from None
    if why is not None:
        raise UserError(f"{path} is not UTF-8 text: {why}", code="damaged_file")
    return text.lstrip("\ufeff")


def _json_table(path: Path, text: str) -> Table:
    """JSON lines, one JSON list of objects, or what pandas writes; keys that a record lacks are empty cells."""
    whole = _whole_json(path, text)
    if whole is not None:
        return whole
    records: list[dict[str, Any]] = []
    places: list[str] = []
    broken: list[RowError] = []
    for place, record, reason in _json_records(path, text):
        if isinstance(record, dict):
            records.append(record)
            places.append(place)
        else:
            broken.append(RowError("broken line", -1, place, reason or 'is not a JSON object such as {"text": "..."}'))
    require_rows(path, records, broken)
    keys = list(dict.fromkeys(name for record in records for name in record))
    names = column_names(keys, str(path))
    columns: dict[str, Column] = {n: [r.get(key) for r in records] for n, key in zip(names, keys, strict=True)}
    return Table(
        str(path), path.stem, columns, places.__getitem__, path.parent, broken=tuple(broken), count=len(places)
    )


def _whole_json(path: Path, text: str) -> Table | None:
    """A file that is one JSON object of columns, as ``DataFrame.to_json`` writes it; None where it holds records."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None  # JSON lines
    values = list(found.values())
    names, columns = None, None
    if isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):  # orient="split"
        names, rows = found["columns"], found["data"]
        if all(isinstance(row, list) and len(row) == len(names) for row in rows):
            columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in names]
    elif isinstance(found.get("schema"), dict) and isinstance(found.get("data"), list):  # orient="table"
        rows = found["data"]
        if all(isinstance(row, dict) for row in rows):
            names = list(dict.fromkeys(name for row in rows for name in row))
            columns = [[row.get(name) for row in rows] for name in names]
    elif values and all(isinstance(value, list) for value in values):
        names, columns = list(found), values
    elif values and all(isinstance(value, dict) for value in values):
        names, columns = _by_keys(found)
    else:
        return None
    if columns is None or len(set(map(len, columns))) > 1:
        raise UserError(
            f"{path} is one JSON object that is not a table: write one object a line, a list of objects, or what "
            "DataFrame.to_json writes"
        )
    assert names is not None
    named = column_names(names, str(path))
    require_rows(path, columns[0] if columns else [], [])
    by_name = dict(zip(named, columns, strict=True))
    return Table(str(path), path.stem, by_name, lambda row: f"row {row} (from 0)", path.parent)


def _by_keys(found: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[Any]] | None]:
    """Columns of ``{"column": {"0": ...}}`` (pandas' default), or of ``{"0": {"column": ...}}`` (orient="index")."""
    inner = list(dict.fromkeys(key for value in found.values() for key in value))
    if all(map(str.isdecimal, found)) and not all(map(str.isdecimal, inner)):
        return inner, [[row.get(name) for row in found.values()] for name in inner]
    if any(list(value) != inner for value in found.values()):
        return list(found), None
    return list(found), [list(value.values()) for value in found.values()]


def _json_records(path: Path, text: str) -> Iterator[tuple[str, Any, str | None]]:
    """Place, record and what is wrong with it."""
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        try:
            for index, record in enumerate(json.loads(text, object_pairs_hook=_once)):
                yield f"record {index + 1}", record, None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}", code="damaged_file") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=_once), None
            except (ValueError, RecursionError) as error:
                yield f"line {number}", None, f"is not JSON ({error})"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, none of whose keys may come back."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key '{Counter(key for key, _ in pairs).most_common(1)[0][0]}' occurs twice")
    return found


def is_frame(source: Any) -> bool:
    """Whether something is a DataFrame of pandas."""
    return hasattr(source, "iloc") and hasattr(source, "columns")


def frame_table(frame: Any, where: str = "the table") -> Table:
    """A pandas DataFrame; rows are called by their index, and relative image paths start from the working folder.

    An index that is more than the number of the row is a column, as in the CSV that pandas writes.
    """
    columns: dict[str, Column] = {}
    for position, name in enumerate(column_names(frame.columns, where)):
        series = frame.iloc[:, position]
        values = series.to_numpy()
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            columns[name] = values
        else:
            columns[name] = [None if missing(cell) else cell for cell in series.astype(object)]
    if frame.index.name is not None or type(frame.index).__name__ != "RangeIndex":
        for place, name in enumerate(frame.index.names):
            cells = frame.index.get_level_values(place)
            columns.setdefault(
                "index" if name is None else str(name).strip(), [None if missing(cell) else cell for cell in cells]
            )
    require_rows(where, frame, [])
    index = list(frame.index)
    return Table(where, "data", columns, lambda row: f"row {index[row]}", Path(), count=len(index))


def columns_table(columns: Mapping[Any, Any]) -> Table:
    """A mapping of column names to arrays or lists of one length."""
    where = "the table"
    named: dict[str, Column] = {}
    for name, values in zip(column_names(columns, where), columns.values(), strict=True):
        array = np.asarray(values.detach().cpu()) if hasattr(values, "detach") else values
        if isinstance(array, np.ndarray) and array.ndim in (1, 2) and array.dtype.kind in "iuf":
            named[name] = array
        elif hasattr(array, "__len__") and not isinstance(array, str | bytes | Mapping):
            named[name] = [None if missing(cell) else cell for cell in array]
        else:
            raise UserError(f"{where}: column '{name}' is not a list or an array but {type(values).__name__}")
    lengths = {name: len(column) for name, column in named.items()}
    if len(set(lengths.values())) > 1:
        (one, first), (other, second) = next((a, b) for a, b in itertools.pairwise(lengths.items()) if a[1] != b[1])
        raise UserError(f"{where}: column '{one}' has {first} cells, and column '{other}' has {second}")
    require_rows(where, range(next(iter(lengths.values()), 0)), [])
    return Table(where, "data", named, lambda row: f"row {row} (from 0)", Path())
