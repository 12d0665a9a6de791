"""File formats and table-like objects, each read into a :class:`~regrain.data.table.Table`, not interpreted yet."""

from __future__ import annotations

import csv
import io
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.cells import Column, missing, unguard_cell
from regrain.data.rows import Fault, examples
from regrain.data.table import Table
from regrain.errors import UserError

__all__ = [
    "TABLE_SUFFIXES",
    "delimiter_of",
    "file_table",
    "frame_table",
    "huggingface_table",
    "parquet_table",
    "utf8_text",
]

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
"""Endings of table files, in lower case."""

_DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = 1 << 30


def file_table(path: Path) -> Table:
    """A table file, by its ending.

    Raises
    ------
    UserError
        For an ending that is not known, a file that is not what its ending says, or one without rows.
    """
    suffix = path.suffix.lower()
    if suffix in (".parquet", ".pq"):
        return parquet_table([path])
    if suffix not in TABLE_SUFFIXES:
        advice = "save the sheet as CSV" if suffix in (".xlsx", ".xls", ".ods") else "expected a folder or a table"
        raise UserError(f"{path} cannot be read: {advice} ({', '.join(TABLE_SUFFIXES)})")
    text = utf8_text(path)
    return _csv_table(path, text) if suffix in (".csv", ".tsv") else _json_table(path, text)


def utf8_text(path: Path) -> str:
    """The text of a file, without a byte order mark; a UserError names the line that is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path} is not UTF-8 text: line {line} has other bytes; save it as 'CSV UTF-8'") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def delimiter_of(path: Path, text: str) -> str:
    """What separates the cells of a file: a tab in TSV, else what the first line has most of."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    return "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)


def _csv_table(path: Path, text: str) -> Table:
    """Cells stay texts, so that a class ``01`` or ``NA`` stays what it is; broken lines are kept as faults.

    The apostrophe that guards a cell against being taken for a formula is no part of it (``cells.guard_cell``).
    """
    header: list[str] = []
    records: list[list[str]] = []
    lines: list[int] = []
    broken: list[Fault] = []
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(path, text))
        end = 0
        for raw in reader:
            line, end = end + 1, reader.line_num
            cells = [unguard_cell(cell) for cell in raw]
            if not any(cells):
                continue
            if not header:
                header = _header(path, cells, line)
            elif len(cells) == len(header):
                records.append(cells)
                lines.append(line)
            else:
                broken.append(
                    Fault(
                        "broken line",
                        -1,
                        f"line {line}",
                        f"has {_count(len(cells), 'cell')} where the header has {len(header)}",
                    )
                )
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(limit)
    _require_rows(path, records, broken)
    columns: dict[str, Column] = dict(zip(header, zip(*records, strict=True), strict=True))
    return Table(str(path), path.stem, columns, lambda row: f"line {lines[row]}", path.parent, broken=tuple(broken))


def _header(path: Path, cells: Sequence[str], line: int) -> list[str]:
    """Column names; the nameless first column that pandas writes is called ``index``."""
    names = [cell.strip() for cell in cells]
    if names[0] == "" and "index" not in names:
        names[0] = "index"
    if all(_is_number(name) for name in names):
        raise UserError(f"{path}, line {line}: the first line has to name the columns, but it holds only numbers")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{path}, line {line}: columns have to have different names; '{repeated[0]}' occurs twice")
    return names


def _json_table(path: Path, text: str) -> Table:
    """JSON lines, or one JSON list of objects; keys that a record lacks are empty cells."""
    records: list[dict[str, Any]] = []
    places: list[str] = []
    broken: list[Fault] = []
    for place, record, reason in _json_records(path, text):
        if isinstance(record, dict):
            records.append(record)
            places.append(place)
        else:
            broken.append(Fault("broken line", -1, place, reason or 'is no JSON object such as {"text": "..."}'))
    _require_rows(path, records, broken)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns: dict[str, Column] = {name: [record.get(name) for record in records] for name in names}
    return Table(str(path), path.stem, columns, places.__getitem__, path.parent, broken=tuple(broken))


def _json_records(path: Path, text: str) -> Iterator[tuple[str, Any, str | None]]:
    """Place, record and what is wrong with it."""
    if path.suffix.lower() == ".json" and text.lstrip().startswith("["):
        try:
            for index, record in enumerate(json.loads(text)):
                yield f"record {index + 1}", record, None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not JSON: {error}") from None
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line), None
            except (ValueError, RecursionError) as error:
                yield f"line {number}", None, f"is not JSON ({error})"


def parquet_table(paths: Sequence[Path], splits: Sequence[str] | None = None, name: str | None = None) -> Table:
    """One or several Parquet files under each other; ``splits`` names the split of each file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts: list[dict[str, Column]] = []
    sizes: list[int] = []
    declared: dict[str, list[str]] = {}
    for path in paths:
        try:
            table = pq.read_table(path)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
        declared |= _declared_classes(table.schema.metadata or {})
        parts.append({name: _arrow_column(table[name], declared.get(name), path, name) for name in table.column_names})
        sizes.append(table.num_rows)
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    _require_rows(where, range(sum(sizes)), [])
    names = list(dict.fromkeys(column for part in parts for column in part))
    columns = {
        column: _stacked([part.get(column, [None] * size) for part, size in zip(parts, sizes, strict=True)])
        for column in names
    }
    starts = np.cumsum([0, *sizes])

    def finds(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        place = f"row {row - int(starts[part])} (from 0)"
        return place if len(paths) == 1 else f"{paths[part].name} {place}"

    of_rows = None if splits is None else [s for s, size in zip(splits, sizes, strict=True) for _ in range(size)]
    folder = paths[0].parent
    title = name or (paths[0].stem if len(paths) == 1 else folder.name)
    return Table(where, title, columns, finds, folder, splits=of_rows, classes=tuple(c for c in names if c in declared))


def _declared_classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Class names by column, from what Hugging Face writes into the schema of its Parquet files."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return {
        name: list(map(str, feature["names"]))
        for name, feature in (features.items() if isinstance(features, dict) else ())
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _arrow_column(column: Any, classes: Sequence[str] | None, path: Path, name: str) -> Column:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if classes is not None:
        return _named(column.to_pylist(), classes, f"{path}, column '{name}'")
    if column.null_count == 0:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.asarray(column.to_numpy())
        if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
            flat = np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks])
            return flat.reshape(len(column), kind.list_size)
    cells: list[Any] = column.to_pylist()
    return cells


def _stacked(parts: Sequence[Column]) -> Column:
    if all(isinstance(part, np.ndarray) for part in parts) and len({np.shape(part)[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return [cell for part in parts for cell in part]


def frame_table(frame: Any, where: str = "the table") -> Table:
    """A pandas DataFrame; rows are called by their index, and relative image paths start from the working folder."""
    columns: dict[str, Column] = {}
    for position, name in enumerate(frame.columns):
        series = frame.iloc[:, position]
        if str(name) in columns:
            raise UserError(f"{where}: columns have to have different names; '{name}' occurs twice")
        values = series.to_numpy()
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            columns[str(name)] = values
        else:
            columns[str(name)] = [None if missing(cell) else cell for cell in series.astype(object)]
    _require_rows(where, frame, [])
    index = list(frame.index)
    return Table(where, "data", columns, lambda row: f"row {index[row]}", Path())


def huggingface_table(dataset: Any) -> Table:
    """A Hugging Face ``Dataset`` or ``DatasetDict``, used by its methods alone, so that the package is not needed.

    Images are taken as they are stored, without decoding, where the data set allows it; decoded ones are encoded again
    (PNG, no loss).
    """
    whole = not isinstance(dataset, Mapping)
    parts: dict[str, Any] = {"": dataset} if whole else dict(dataset)
    if not parts:
        raise UserError("the Hugging Face DatasetDict has no splits")
    names = list(dict.fromkeys(name for part in parts.values() for name in part.column_names))
    declared: dict[str, None] = {}
    stacked: dict[str, list[Column]] = {name: [] for name in names}
    for part in parts.values():
        for name in names:
            classes = getattr(part.features.get(name), "names", None)
            if classes is not None:
                declared[name] = None
            stacked[name].append(_huggingface_column(part, name, classes))
    columns = {name: _stacked(blocks) for name, blocks in stacked.items()}
    splits = [split for split, part in parts.items() for _ in range(len(part))]
    where = "the Hugging Face data set"
    _require_rows(where, splits, [])
    starts = np.cumsum([0, *map(len, parts.values())])

    def finds(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{list(parts)[part]} row {row - int(starts[part])} (from 0)".lstrip()

    return Table(where, "data", columns, finds, Path(), splits=None if whole else splits, classes=tuple(declared))


def _huggingface_column(part: Any, name: str, classes: Sequence[str] | None) -> Column:
    if name not in part.column_names:
        return [None] * len(part)
    feature = part.features.get(name)
    if type(feature).__name__ == "Image":
        if hasattr(part, "cast_column") and getattr(feature, "decode", False):
            part = part.cast_column(name, type(feature)(decode=False))
        return [_encoded(part[row][name]) for row in range(len(part))]
    cells = list(part[name])
    return cells if classes is None else _named(cells, classes, f"the Hugging Face data set, column '{name}'")


def _encoded(image: Any) -> Any:
    """An image as bytes or path; a PIL image becomes a PNG."""
    if isinstance(image, Mapping):
        return image.get("bytes") or image.get("path")
    if not hasattr(image, "save"):
        return image
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()


def _named(codes: Sequence[Any], names: Sequence[str], where: str) -> list[str | None]:
    """Class names of codes; -1 is Hugging Face's mark for a label that is withheld."""
    try:
        numbers = [-1 if code is None else operator.index(code) for code in codes]
    except TypeError:
        raise UserError(
            f"{where} is declared to hold the numbers of {len(names)} classes, and holds other values: write whole "
            f"numbers from 0 to {len(names) - 1}, or the names without the declaration (ClassLabel)"
        ) from None
    odd = dict.fromkeys(str(number) for number in numbers if number >= len(names))
    if odd:
        raise UserError(
            f"{where}: {len(names)} class names are declared, and it holds the codes {examples(odd)}: declare a name "
            "for each (ClassLabel), or correct these rows"
        )
    return [None if number < 0 else str(names[number]) for number in numbers]


def _require_rows(where: str | Path, rows: Any, broken: Sequence[Fault]) -> None:
    if not len(rows):
        raise UserError(
            f"{where} holds no rows" + (f" that can be used: {examples(map(str, broken))}" if broken else "")
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")
