"""CSV and TSV text: its delimiter, its records across lines, stray quotes; read into a table."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from regrain.data.cells import Column, unescape_formula
from regrain.data.columns import column_names, require_rows
from regrain.data.notation import plain_number
from regrain.data.rows import RowError
from regrain.data.table import Table
from regrain.errors import Notable, UserError, examples
from regrain.spelling import counted

_DELIMITERS = (",", ";", "\t", "|")
_FIELD_LIMIT = 1 << 30
_LOOKED_AT = 50
_SEPARATOR = re.compile(r'"?sep=(.)"?', re.IGNORECASE)


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


def csv_table(path: Path, text: str) -> Table:
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
    numbers = {name: number for name in named if (number := plain_number(name)) is not None}
    counts = all(number == int(number) for number in numbers.values() if abs(number) < 1e15) or len(numbers) > 2
    if numbers and not (counts and list(numbers.values()) == sorted(numbers.values())):  # pixel 0, 1, ..., wavelengths
        messages.append(
            Notable(
                f"line {line} is read as the names of the columns, and holds numbers such as "
                f"'{next(iter(numbers))}': if it is a sample, write names above it"
            )
        )
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
