"""File formats and table-like objects, each read into a :class:`~regrain.data.table.Table`, not interpreted yet."""

from __future__ import annotations

import codecs
import csv
import gc
import io
import itertools
import json
import operator
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from regrain.data.cells import Column, is_split, split_name, unescape_formula
from regrain.data.images import local_processes
from regrain.data.notation import plain_number
from regrain.data.options import TABLE_SUFFIXES, RoleOptions
from regrain.data.rows import RowError, Rows
from regrain.data.table import Table
from regrain.errors import UserError, examples, python_only
from regrain.labels import Coded, missing
from regrain.spelling import counted

_DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = 1 << 30
_LOOKED_AT = 50
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CELL_BYTES = 16
_FEW = 16
_BLOCK = 1000
_ROW_BYTES = 200
_MANY = 65536
"""From this many rows on, texts most of which are different are packed."""
_FEWER = 16384
"""Rows of texts that are read at a time, of so many and more."""
_KEPT_BYTES = 16 << 20
"""Columns are kept once read up to so many bytes in all; beyond, each is read whenever it is asked for."""


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
        advice = "save the sheet as CSV" if suffix in (".xlsx", ".xls", ".ods") else "expected a folder or a table"
        raise UserError(f"{path} cannot be read: {advice} ({', '.join(TABLE_SUFFIXES)})", code="damaged_file")
    text = utf8_text(path)
    with _no_collection():
        return _csv_table(path, text) if suffix in (".csv", ".tsv") else _json_table(path, text)


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
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", code="damaged_file") from None
    try:
        if content.startswith(_MARKS):
            return content.decode("utf-32" if content.startswith(_MARKS[:2]) else "utf-16").lstrip("\ufeff")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path} is not UTF-8 text: line {line} has other bytes; save it as 'CSV UTF-8'", code="damaged_file"
        ) from None
    if text.count("\0") > len(text) // 4:
        raise UserError(
            f"{path} is not UTF-8 text: it looks like UTF-16 without a mark; save it as 'CSV UTF-8'",
            code="damaged_file",
        )
    return text.lstrip("\ufeff")


def delimiter_of(path: Path, text: str) -> str:
    """The separator of a file's cells: that of an Excel line ``sep=;``, a tab in TSV, else one its rows agree on.

    Marks within quotes do not count. Of several marks the one counts that most of the first rows have as often as the
    header has it.
    """
    lines = [line for line in itertools.islice(io.StringIO(text, newline=""), 4 * _LOOKED_AT) if line.strip()]
    if not lines:
        return ","
    said = _SEPARATOR.fullmatch(lines[0].strip("\r\n"))
    if said:
        return said[1]
    header = re.sub(r'"[^"]*"', "", lines[0])
    if path.suffix.lower() == ".tsv" and "\t" in header:
        return "\t"
    present = [mark for mark in _DELIMITERS if mark in header]
    if len(present) < 2:
        return present[0] if present else ","

    def agreement(mark: str) -> tuple[int, int]:
        width = header.count(mark)
        rows = itertools.islice(csv.reader(lines, delimiter=mark), 1, _LOOKED_AT)
        return sum(len(row) == width + 1 for row in rows), width

    with _long_cells():
        return max(present, key=agreement)


@contextmanager
def _long_cells() -> Iterator[None]:
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


class _Record(NamedTuple):
    """A row of a CSV file: its first and last line, counted from 1, and its cells."""

    first: int
    last: int
    cells: list[str]


def _csv_table(path: Path, text: str) -> Table:
    """Cells stay texts, so that a class ``01`` or ``NA`` stays what it is; broken lines are kept as faults.

    The apostrophe that keeps a cell from being run as a formula is not part of it (``cells.escape_formula``).
    """
    lines = list(io.StringIO(text, newline=""))
    start = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if start < len(lines) and _SEPARATOR.fullmatch(lines[start].strip("\r\n")):
        start += 1
    with _long_cells():
        try:
            records, broken, messages = _csv_records(lines, start, delimiter_of(path, text))
        except csv.Error as error:
            raise UserError(f"{path} cannot be read as CSV: {error}", code="damaged_file") from None
    if not records:
        require_rows(path, records, broken)
    line, header = records[0].first, [unescape_formula(cell) for cell in records[0].cells]
    rows = records[1:]
    while rows and not any(rows[-1].cells):
        rows.pop()
    if len(rows) < len(records) - 1:
        empty = records[len(rows) + 1 :]
        messages.append(
            f"{counted(len(empty), 'row')} of empty cells at the end, from line {empty[0].first}, passed over"
        )
    kept = []
    for record in rows:
        why = None
        if len(record.cells) != len(header):
            why = f"has {counted(len(record.cells), 'cell')} where the header has {len(header)}"
        elif "\0" in text and any("\0" in cell for cell in record.cells):
            why = "holds a NUL character"
        if why is None:
            kept.append(record)
        else:
            broken.append(RowError("broken line", -1, f"line {record.first}", why))
    broken.sort(key=lambda fault: int(fault.name.split()[1]))
    cells: list[Sequence[str]] = list(zip(*(record.cells for record in kept), strict=True)) or [()] * len(header)
    if "'" in text:
        cells = [[unescape_formula(cell) for cell in column] for column in cells]
    named = _csv_names(path, header, line, cells)
    require_rows(path, kept, broken)
    return Table(
        str(path),
        path.stem,
        named,
        lambda row: f"line {kept[row].first}",
        path.parent,
        broken=tuple(broken),
        messages=tuple(messages),
    )


def _csv_names(path: Path, header: Sequence[str], line: int, cells: Sequence[Sequence[str]]) -> dict[str, Column]:
    """The columns by name; the nameless first column that pandas writes is called ``index``, empty ones are dropped."""
    columns = [(name.strip(), column) for name, column in zip(header, cells, strict=True)]
    if columns[0][0] == "" and "index" not in [name for name, _ in columns]:
        columns[0] = ("index", columns[0][1])
    for place, (name, column) in enumerate(columns, start=1):
        if not name and any(column):
            raise UserError(f"{path}, line {line}: column {place} has no name; write one into the header")
    named = [(name, column) for name, column in columns if name]
    if named and all(plain_number(name) is not None for name, _ in named):
        raise UserError(f"{path}, line {line}: the first line has to name the columns, but it holds only numbers")
    names = column_names([name for name, _ in named], f"{path}, line {line}")
    return {name: column for name, (_, column) in zip(names, named, strict=True)}


def column_names(names: Iterable[Any], where: str) -> list[str]:
    """Names of columns in one Unicode form, without spaces around them; a UserError where two are the same.

    pandas' name of the index in Parquet, ``__index_level_0__``, becomes ``index``, as in CSV.
    """
    result = [unicodedata.normalize("NFC", str(name)).strip() for name in names]
    if "index" not in result:
        result = ["index" if name == "__index_level_0__" else name for name in result]
    repeated = [name for name, count in Counter(result).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: columns have to have different names; '{repeated[0]}' occurs twice")
    return result


def _csv_records(lines: Sequence[str], start: int, delimiter: str) -> tuple[list[_Record], list[RowError], list[str]]:
    """Records from a line on, the header first; lines whose quote swallows the rows after them become faults.

    Such a line is passed over, and reading goes on with the line after it, so that one stray quote costs one row.
    """
    records: list[_Record] = []
    faults: list[RowError] = []
    spanning: list[int] = []
    looked_up = _Looks(lines, delimiter)
    reader, origin, end = csv.reader(itertools.islice(lines, start, None), delimiter=delimiter), start, start
    while (cells := next(reader, None)) is not None:
        first, end = end + 1, origin + reader.line_num
        if not any(cells) and (not records or not cells):
            continue
        record = _Record(first, end, cells)
        if end > first or end == len(lines):
            why = looked_up.stray_quote(record, len(records[0].cells) if records else 0)
            if why and not records:
                raise csv.Error(f"line {first} {why}")
            if why:
                faults.append(RowError("broken line", -1, f"line {first}", why))
                origin = end = first
                reader = csv.reader(itertools.islice(lines, origin, None), delimiter=delimiter)
                continue
        if end > first and records:
            spanning.append(first)
        records.append(record)
    messages = []
    if spanning:
        shown = examples([f"line {line}" for line in spanning])
        are = "row spans" if len(spanning) == 1 else "rows span"
        messages.append(f"{len(spanning)} {are} several lines within quotes ({shown})")
    return records, faults, messages


class _Looks:
    """Whether lines that quotes join look like rows of their own."""

    def __init__(self, lines: Sequence[str], delimiter: str) -> None:
        self.lines, self.delimiter = lines, delimiter
        self._known: Counter[tuple[int, str]] | None = None

    def stray_quote(self, record: _Record, width: int) -> str | None:
        """Why a record is not one: its quote is not closed, or the lines within its quotes are rows of their own."""
        block = self.lines[record.first - 1 : record.last]
        spans = record.last > record.first
        try:
            list(csv.reader(block, delimiter=self.delimiter, strict=True))
        except csv.Error as error:
            if not spans and "end of data" not in str(error):
                return None  # "5" disk in one line: read as every program reads it
            swallowed = f" and swallows the lines up to {record.last}" if spans else ""
            return f"begins a cell with a quote that is not closed{swallowed}: close the quote, or double it"
        if width < 2 or not spans:
            return None
        block = [line for line in block if line.strip()]
        rows = [self._bare(line) for line in block]
        if any(len(row) != width for row in rows):
            return None
        if len(record.cells) == width and not self._known_elsewhere(block, rows):
            return None
        return (
            f"begins a cell with a quote that swallows lines {record.first + 1} to {record.last}, which look like rows "
            "of their own: take the quote out, or double it"
        )

    def _bare(self, line: str) -> list[str]:
        """The cells of a line in which quotes mean nothing."""
        return next(csv.reader([line], delimiter=self.delimiter, quoting=csv.QUOTE_NONE), [])

    def _known_elsewhere(self, block: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
        """Whether every one of these rows has a cell that its column also has in other rows of one line."""
        width = len(rows[0])
        known = self._cells(width)
        inside = _counted(self._row(line, width) for line in block)
        return all(any(known[cell] > inside[cell] for cell in enumerate(row) if cell[1].strip()) for row in rows)

    def _cells(self, width: int) -> Counter[tuple[int, str]]:
        if self._known is None:
            self._known = _counted(self._row(line, width) for line in self.lines)
        return self._known

    def _row(self, line: str, width: int) -> list[str]:
        """The cells of a line that is a row whether quotes mean something or not; none of a piece of a longer row."""
        bare = self._bare(line)
        try:
            quoted = next(csv.reader([line], delimiter=self.delimiter, strict=True), [])
        except csv.Error:
            return []
        return bare if len(bare) == len(quoted) == width else []


def _counted(rows: Iterable[Sequence[str]]) -> Counter[tuple[int, str]]:
    """How often each column has each of its shorter cells."""
    return Counter(cell for row in rows for cell in enumerate(row) if len(cell[1]) < 200)


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


def parquet_table(paths: Sequence[Path], splits: Sequence[str] | None = None, name: str | None = None) -> Table:
    """One or several Parquet files under each other; ``splits`` names the split of each file.

    A column is read when it is asked for: of a file with many, only those that matter.
    """
    columns = ParquetColumns(paths)
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    sizes = columns.sizes
    require_rows(where, range(sum(sizes)), [])
    starts = np.cumsum([0, *sizes])

    def describe_row(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        place = f"row {row - int(starts[part])} (from 0)"
        return place if len(paths) == 1 else f"{paths[part].name} {place}"

    of_rows = None if splits is None else Coded(np.repeat(np.arange(len(sizes)), sizes), splits)
    folder = paths[0].parent
    title = name or (paths[0].stem if len(paths) == 1 else folder.name)
    declared = tuple(c for c in columns if c in columns.declared)
    return Table(where, title, columns, describe_row, folder, splits=of_rows, classes=declared, count=sum(sizes))


def read_parquet_folder(path: str | Path, *, splits: Sequence[str] | None = None, **roles: Unpack[RoleOptions]) -> Rows:
    """A folder of Parquet files, one per split: ``train.parquet``, ``val.parquet``, ``test.parquet``.

    Shards ``train-00000-of-00002.parquet`` are put together; files of other names are read only when ``splits`` names
    them (without ``.parquet``).

    Raises a UserError if the folder has no such file, and as :meth:`regrain.data.table.Table.rows`.
    """
    folder = Path(os.path.expanduser(path))
    files = parquet_files(folder, splits)
    present = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    for split in splits or ():
        if split not in files.values():
            raise UserError(f"{folder} has no {split}.parquet; it holds {examples(present, 8) or 'nothing'}")
    if not files:
        raise UserError(
            f"{folder} holds no Parquet splits: looked for train.parquet, val.parquet and test.parquet; "
            f"found {examples(present, 8) or 'nothing'}"
        )
    rows = parquet_table(list(files), list(files.values()), folder.resolve().name).rows(**roles)
    unread = [name for name in present if name.endswith(".parquet") and folder / name not in files]
    if unread:
        advice = python_only("; splits=[...] names what to read")
        rows.notes["messages"].append(f"not read, being no split: {', '.join(unread)}{advice}")
    return rows


def parquet_files(folder: Path, splits: Sequence[str] | None = None) -> dict[Path, str]:
    """The Parquet files of splits, shards included, and the split of each; in the folder or in its ``data`` folder."""
    for place in (folder, folder / "data"):
        files = {}
        for path in sorted(place.glob("*.parquet")):
            stem = path.stem.partition("-")[0] if "-of-" in path.stem else path.stem
            if (splits is None and is_split(stem)) or (splits is not None and {stem, split_name(stem)} & set(splits)):
                files[path] = stem if splits is not None and stem in splits else split_name(stem)
        if files:
            order = ("train", "val", "test")
            return dict(sorted(files.items(), key=lambda f: (order.index(f[1]) if f[1] in order else len(order), f[0])))
    return {}


class ParquetColumns(Mapping[str, Column]):
    """The columns of Parquet files under each other, each read when it is first asked for.

    Raises a UserError for what is not Parquet, columns of one name, and, when a column is read, for more than memory
    holds.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.declared: dict[str, list[str]] = {}
        self.sizes: list[int] = []
        self._files: list[Any] = []
        self._own: list[dict[str, str]] = []
        self._texts: list[set[str]] = []
        self._read: dict[str, Column] = {}
        for path in paths:
            file, schema, texts = self._opened(path)
            own = dict(zip(column_names(schema.names, str(path)), schema.names, strict=True))
            self.declared |= _declared_classes(schema.metadata or {})
            self.sizes.append(file.metadata.num_rows)
            self._files.append(file)
            self._own.append(own)
            self._texts.append(texts)
        self._names = dict.fromkeys(name for own in self._own for name in own)

    def __getitem__(self, name: str) -> Column:
        if name not in self._names:
            raise KeyError(name)
        if name in self._read:
            return self._read[name]
        small = sum(self.sizes) * 8 * len(self._names) <= _KEPT_BYTES
        if small and len(self._read) >= _FEW:
            self.load([n for n in self._names if n not in self._read])
            return self._read[name]
        self.load([name])
        return self._read[name] if small else self._read.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def load(self, names: Sequence[str]) -> None:
        """Read columns, a block of them at a time."""
        import pyarrow

        rows, free = sum(self.sizes), free_memory()
        needed = rows * (_ROW_BYTES + _CELL_BYTES * (len(names) + len(self._read)))
        if needed > free:
            raise UserError(
                f"{self.paths[0]} has {rows:,} rows and {len(self._names):,} columns, {needed / 2**30:.0f} GiB in "
                f"memory, where {free / 2**30:.0f} GiB are free: name the columns that matter, or give fewer rows"
            )
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            parts = [self._part(index, block) for index in range(len(self._files))]
            for name in block:
                self._read[name] = stacked([part[name] for part in parts])
        pyarrow.default_memory_pool().release_unused()  # which keeps what a column took

    def _part(self, index: int, names: Sequence[str]) -> dict[str, Column]:
        import pyarrow as pa

        path, own, file = self.paths[index], self._own[index], self._files[index]
        texts = {n: own[n] for n in names if own.get(n) in self._texts[index] and n not in self.declared}
        others = [own[name] for name in names if name in own and name not in texts]
        found: dict[str, Column] = {}
        try:
            found |= _read_texts(path, file, texts)
            table = file.read(columns=others, use_threads=len(others) > 1)
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise UserError(
                f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}", code="damaged_file"
            ) from None
        for name in names:
            if name not in own:
                found[name] = Coded(np.zeros(self.sizes[index], np.uint8), [None])
            elif name not in texts:
                found[name] = _arrow_column(table[own[name]], self.declared.get(name), path, name)
        return found

    @staticmethod
    def _opened(path: Path) -> tuple[Any, Any, set[str]]:
        """A file whose texts are read as dictionaries, its schema, and the names of its columns of texts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_metadata(path)
            schema = metadata.schema.to_arrow_schema()
            texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
            return pq.ParquetFile(path, read_dictionary=texts, metadata=metadata), schema, set(texts)
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise UserError(
                f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}", code="damaged_file"
            ) from None


def free_memory() -> int:
    """Bytes that are free for use by a process of this machine, as far as the system says."""
    return _free_memory() // local_processes()


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40


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
    if classes is not None:
        return class_names_of(column.to_pylist(), classes, f"{path}, column '{name}'")
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)
    if column.null_count == 0:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.array(column.to_numpy())  # and not a view, so that Arrow's memory can go
        if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
            flat = np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks])
            return flat.reshape(len(column), kind.list_size)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):  # as Python's they would show digits they do not have
        values = column.to_numpy()
        return [None if gap else value for gap, value in zip(column.is_null().to_pylist(), values, strict=True)]
    cells = column.to_pylist()
    return cells


def _read_texts(path: Path, file: Any, names: Mapping[str, str]) -> dict[str, Column]:
    """Columns of texts by their names in the file; of many rows some thousand at a time."""
    if file.metadata.num_rows < _MANY:
        table = file.read(columns=list(names.values()))
        return {name: _coded(table[own].chunks, len(table)) for name, own in names.items()}
    found: dict[str, Column] = {}
    for name, own in names.items():
        batches = (batch.column(0) for batch in file.iter_batches(batch_size=_FEWER, columns=[own]))
        try:
            found[name] = _coded(batches, file.metadata.num_rows, most=0.5)
        except _ManyTexts:  # ids, say, which would take far more as dictionaries
            found[name] = _packed_texts(path, file.metadata, own)
    return found


class _ManyTexts(Exception):
    """Most texts of a column are different."""


def _coded(batches: Iterable[Any], count: int, most: float = 1) -> Coded:
    """Texts in Arrow's dictionaries, each kept once; raises a _ManyTexts where more than a share of them differ."""
    places: dict[str | None, int] = {}
    codes, start = np.empty(count, dtype=np.int32), 0
    for texts in batches:
        used, of_rows = np.unique(texts.indices.fill_null(-1).to_numpy(), return_inverse=True)
        names = [None] * int((used < 0).sum()) + texts.dictionary.take(used[used >= 0]).to_pylist()
        numbers = np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int32)
        codes[start : start + len(texts)] = numbers[of_rows]
        start += len(texts)
        if len(places) > most * start:
            raise _ManyTexts
    return Coded(codes, list(places))


def _packed_texts(path: Path, metadata: Any, name: str) -> np.ndarray:
    """A column as an array of NumPy's strings, None where there is none."""
    import pyarrow.parquet

    result, start = np.empty(metadata.num_rows, dtype=np.dtypes.StringDType(na_object=None)), 0
    for batch in pyarrow.parquet.ParquetFile(path, metadata=metadata).iter_batches(batch_size=_FEWER, columns=[name]):
        result[start : start + len(batch)] = batch.column(0).to_pylist()
        start += len(batch)
    return result


def stacked(parts: Sequence[Column]) -> Column:
    """Columns under each other."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Coded) for part in parts):
        return Coded.of(cell for part in parts for cell in part)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and len({(part.shape[1:], part.dtype.kind == "T") for part in arrays}) == 1:
        return np.concatenate(arrays)
    return [cell for part in parts for cell in part]


def is_frame(source: Any) -> bool:
    """Whether something is a DataFrame of pandas."""
    return hasattr(source, "iloc") and hasattr(source, "columns")


def frame_table(frame: Any, where: str = "the table") -> Table:
    """A pandas DataFrame; rows are called by their index, and relative image paths start from the working folder."""
    columns: dict[str, Column] = {}
    for position, name in enumerate(column_names(frame.columns, where)):
        series = frame.iloc[:, position]
        values = series.to_numpy()
        if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
            columns[name] = values
        else:
            columns[name] = [None if missing(cell) else cell for cell in series.astype(object)]
    require_rows(where, frame, [])
    index = list(frame.index)
    return Table(where, "data", columns, lambda row: f"row {index[row]}", Path(), count=len(index))


def columns_table(columns: Mapping[Any, Any], where: str = "the table") -> Table:
    """A mapping of column names to arrays or lists of one length."""
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


def class_names_of(codes: Sequence[Any], names: Sequence[str], where: str) -> list[str | None]:
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


def require_rows(where: str | Path, rows: Any, broken: Sequence[RowError]) -> None:
    if not len(rows):
        raise UserError(
            f"{where} holds no rows" + (f" that can be used: {examples(map(str, broken))}" if broken else "")
        )
