"""From a table to rows: which columns hold the samples, the labels, the split, the group and the id.

The user names columns or leaves them to be guessed; ``notes["messages"]`` reports every guess.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from regrain.coded import Coded
from regrain.data.cells import (
    Column,
    Contents,
    as_floats,
    as_matrix,
    contents_of,
    different,
    label_names,
    numbered,
    numbers_of,
    spelled,
    split_name,
)
from regrain.data.guesses import Guesses, Roles, is_named_like_features
from regrain.data.notation import PLAIN, Notation
from regrain.data.options import RoleOptions
from regrain.data.packed import stripped
from regrain.data.records import (
    Clock,
    Windows,
    clock_of,
    clock_warnings,
    constant_values,
    cut,
    in_order_of_time,
    restarts,
    separating_column,
    static_features,
    step_times,
    steps_of,
    window_labels,
)
from regrain.data.rows import RowError, Rows, missing_message
from regrain.data.samples import Modality
from regrain.errors import Notable, UserError, examples, nearest
from regrain.labels import Labels, missing, path_columns, require_relation


@dataclass
class Table:
    """Columns as they were read."""

    # where and name: the source, for messages, and the data set's name
    where: str
    name: str
    columns: Mapping[str, Column]  # name -> Column: may read a column when it is asked for
    describe_row: Callable[[int], str]  # how the user finds the row at a position, such as "line 7"
    folder: Path  # where relative image paths start
    splits: Coded | None = None  # the split of every row, where files name it
    broken: tuple[RowError, ...] = ()  # lines that are not rows
    classes: tuple[str, ...] = ()  # columns that the source declares to be class labels
    messages: tuple[str, ...] = ()  # notes on how the file was read
    # str -> (time, channels): columns whose rows are matrices, laid out flat
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    count: int = -1  # number of rows; default the length of the columns
    _contents: dict[str, Contents] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.count < 0:
            self.count = max(map(len, self.columns.values()), default=0)

    def __len__(self) -> int:
        return self.count

    def contents(self, name: str) -> Contents:
        """The contents of a column."""
        if name not in self._contents:
            self._contents[name] = contents_of(self.columns[name])
        return self._contents[name]

    def numeric(self, names: Iterable[str]) -> Iterator[tuple[str, Column]]:
        """Columns of numbers by name, whatever notation they are written in, one after the other."""
        return ((name, numbers_of(self.columns[name], self.contents(name))) for name in names)

    def find(self, name: str) -> str | None:
        """The column of exactly this name, in one Unicode form; None where there is none."""
        name = unicodedata.normalize("NFC", str(name)).strip()
        return name if name in self.columns else None

    def covers(self, pattern: str) -> bool:
        """Whether there is a column of that name, or one that the pattern fits."""
        return pattern in self.columns or any(fnmatchcase(name, pattern) for name in self.columns)

    def require(self, name: str, role: str) -> str:
        """The name of a column that exists, else a UserError that names the nearest one."""
        found = self.find(name)
        if found is None:
            raise UserError(
                f"{self.where} has no column '{name}' ({role}): {nearest(name, self.columns)}", code="unknown_column"
            )
        return found

    def rows(self, **options: Unpack[RoleOptions]) -> Rows:
        """The rows of the table, by options and guesses.

        Raises a UserError for a column that does not exist or is named for two roles, more than one kind of sample, and
        where a guess is not possible.
        """
        _require_fitting(options)
        for column, written in (options.get("notations") or {}).items():
            if column in self.columns:
                self._contents[column] = contents_of(self.columns[column], Notation.from_text(written))
        reading = _Reading(self, options)
        return reading.rows() if reading.record is None else reading.windows()


class _Reading:
    """Roles of a table's columns, by options and guesses; and the resulting rows."""

    def __init__(self, table: Table, options: RoleOptions) -> None:
        self.table, self.options = table, options
        self.errors: list[RowError] = list(table.broken)
        roles = self.roles = Roles(table.where, table.require)
        columns, levels = options.get("columns"), options.get("levels")
        split, group = (
            roles.take(options.get("split_column"), "split"),
            roles.take(options.get("group_column"), "group"),
        )
        self.record, self.time = roles.take(options.get("record"), "record"), roles.take(options.get("time"), "time")
        self.image, self.text = roles.take(options.get("image"), "image"), roles.take(options.get("text"), "text")
        self.id = roles.take(options.get("id_column"), "id")
        named = [str(roles.take(level, "level")) for level in levels or ()]
        for option, patterns in (("static", options.get("static")), ("columns", columns)):
            for pattern in patterns or ():
                roles.take(table.find(pattern), option)

        self.relation, self.unknown = options.get("relation") or "tree", options.get("unknown") or ()
        guesses = Guesses(table.where, table.columns, table.contents, table.classes, table.splits is not None, roles)
        self.messages = guesses.messages
        self.split = guesses.split() if split is None else split
        if self.image is None and self.text is None and columns is None and self.record is None:
            self.image, self.text, columns = guesses.samples()
            shaped = options.get("series_shape") is not None or (columns and columns[0] in table.shapes)
            if columns and not shaped and not is_named_like_features(columns[0]):
                self.messages.append(
                    "--series-shape TIMExCHANNELS (series_shape=(time, channels)) would read the vectors as series"
                )
        numeric = self.image is None and self.text is None
        self.levels = guesses.levels(self.relation, self.unknown, numeric=numeric) if levels is None else named
        if self.record is None:
            group = guesses.group() if group is None else group
            self.id = guesses.identity(self.image) if self.id is None else self.id
        self.group = None if group == self.record else group
        self.static = self._features(options.get("static") or (), "static", guesses)
        self.columns: Sequence[str] = ()
        if columns is not None:
            self.columns = self._features(columns, "columns", guesses)
        elif numeric:
            self.columns = guesses.numbers()
        self.notes = self._feature_notes()

    # Rows that are samples

    def rows(self) -> Rows:
        """One sample a row."""
        table = self.table
        modality, values = self._samples()
        static = None
        if self.static:
            static, wrong = as_matrix(table.numeric(self.static), count=len(self.static), missing_allowed=True)
            self._put_errors(wrong)
        if modality == "series":
            self.messages += missing_message(np.asarray(values), static)
        names = table.splits if self.split is None else self._filled(self.split, "split")
        splits = None if names is None else Coded.of(names).mapped(split_name)
        ids = None if self.id is None else self._filled(self.id, "id")
        groups = None if self.group is None else self._filled(self.group, "group")
        return self._made(
            modality=modality,
            values=values,
            labels=self._labels(),
            ids=numbered(len(table), None if table.splits is None else splits) if ids is None else ids,
            describe_row=table.describe_row,
            id_column=self.id,
            splits=splits,
            groups=groups,
            static=static,
        )

    def _samples(self) -> tuple[Modality, Sequence[Any] | np.ndarray]:
        table, shape = self.table, self.options.get("series_shape")
        if shape is not None and not self.columns:
            raise UserError("series_shape belongs to columns of numbers, but the samples are images or texts")
        if self.image is not None:
            return "image", [_image_source(cell, table.folder) for cell in table.columns[self.image]]
        if self.text is not None:
            return "text", [_text(cell) for cell in table.columns[self.text]]
        if shape is None and len(self.columns) == 1:
            shape = table.shapes.get(self.columns[0])
        values, wrong = as_matrix(
            table.numeric(self.columns), count=len(self.columns), missing_allowed=shape is not None
        )
        self._put_errors(wrong)
        if shape is None:
            return "vector", values
        if len(shape) != 2 or int(np.prod(shape)) != values.shape[1]:
            raise UserError(
                f"series_shape is (time, channels) and its product the count of numbers in a row, {values.shape[1]}; "
                f"got {tuple(shape)}"
            )
        return "series", values.reshape(len(values), *shape)

    def _filled(self, name: str, role: str) -> Sequence[str] | np.ndarray:
        """The cells of a column that may not have gaps; gaps become errors."""
        column = self.table.columns[name]
        if isinstance(column, np.ndarray) and column.dtype.kind == "T":
            cells: Sequence[str] | np.ndarray = stripped(column)
        elif isinstance(column, Coded):
            cells = column.mapped(_spelled)
        else:
            cells = [_spelled(cell) for cell in column]
        if any(not cell for cell in different(cells)):
            for row in (row for row, cell in enumerate(cells) if not cell):
                where = self.table.describe_row(row)
                self.errors.append(RowError(f"no {role}", row, where, f"has no {role} in column '{name}'"))
        return cells

    def _labels(self) -> Mapping[str, Sequence[Any]]:
        names = {
            level: label_names(self.table.columns[level], self.unknown, level, self.messages) for level in self.levels
        }
        if not self.options.get("label_paths"):
            return names
        paths = names[self.levels[0]]
        return path_columns(paths) if any(paths.cells) else {}

    def _put_errors(self, wrong: Mapping[int, str]) -> None:
        for row, why in sorted(wrong.items()):
            self.errors.append(RowError("not a number", row, self.table.describe_row(row), why))

    def _made(self, **found: Any) -> Rows:
        """The rows, with everything that does not depend on whether a row is a sample or a time step."""
        table, options = self.table, self.options
        warnings = found.pop("warnings", None)
        notes: dict[str, Any] = {"source": table.where, "messages": [*table.messages, *self.messages]}
        notes |= {} if warnings is None else {"warnings": warnings}
        return Rows(
            where=table.where,
            name=options.get("name") or table.name,
            relation="tree" if options.get("label_paths") else self.relation,
            known_errors=tuple(self.errors),
            notes=notes | self.notes,
            **found,
        )

    # Features

    def _features(self, patterns: Sequence[str], option: str, guesses: Guesses) -> list[str]:
        """The columns of names and patterns, in the table's order within a pattern; a message names those left out."""
        table, roles = self.table, self.roles
        names: list[str] = []
        left: dict[str, str] = {}
        for pattern in map(str, patterns):
            outright = table.find(pattern)
            if outright is not None:
                contents = table.contents(outright)
                numbers = contents.kind in ("numbers", "booleans", "vectors", "empty")
                if not numbers and not _mostly_numbers(table.columns[outright]):
                    raise UserError(
                        f"{table.where}: column '{outright}' cannot be a feature: it {contents.reason} ({option})"
                    )
                matches = [outright]
            else:
                fitting = [name for name in table.columns if fnmatchcase(name, pattern)]
                if not fitting:
                    table.require(pattern, option)
                fitting = [name for name in fitting if roles.of.get(name) != option]
                matches, others = guesses.usable(fitting)
                left |= others
            for name in matches:
                if name not in names:
                    roles.of.setdefault(name, option)
                    names.append(name)
        reasons = examples([f"'{name}' {reason}" for name, reason in left.items()], 6)
        if left:
            self.messages.append(Notable(f"not features: {reasons}"))
        if patterns and not names:
            raise UserError(f"{table.where}: {option} fits no column of numbers that is nothing else: {reasons}")
        return names

    def _feature_notes(self) -> dict[str, Any]:
        """The form of new data: the features' names, and how their numbers are written where not plainly."""
        written = {name: self.table.contents(name).notation for name in (*self.columns, *self.static)}
        notations = {name: str(notation) for name, notation in written.items() if notation not in (None, PLAIN)}
        for notation in dict.fromkeys(notations.values()):
            names = [name for name, other in notations.items() if other == notation]
            truth = "/" in notation
            how = f"{notation} is read as 1/0" if truth else f"numbers are read as written like {notation}"
            self.messages.append(Notable(f"column {examples(map(repr, names))}: {how}"))
        notes = {"columns": list(self.columns), "static_columns": list(self.static), "notations": notations}
        return {key: value for key, value in notes.items() if value}

    # Rows that are time steps

    def windows(self) -> Rows:
        """One sample a window of a record."""
        table, options = self.table, self.options
        window = options.get("window")
        steps, times = self._steps()
        owners = dict.fromkeys(steps, None) if self.group is None else self._of_records(self.group, "group", steps)
        owners = {record: record if owner is None else spelled(owner) for record, owner in owners.items()}
        if times is not None:
            steps = in_order_of_time(steps, owners, times)
        clock = Clock() if times is None else clock_of(steps, times, options.get("gap"))
        windows = cut(
            steps,
            width=window,
            stride=options.get("stride"),
            times=times,
            limit=clock.limit,
            where=table.where,
            describe_row=table.describe_row,
            messages=self.messages,
        )
        warnings = [] if times is None else clock_warnings(steps, times, clock, window is not None, table.describe_row)
        values, static = self._window_values(windows, steps)
        splits = self._window_splits(windows, steps)
        of_rows = self._labels()
        nested = bool(options.get("label_paths")) or self.relation != "aspects"
        filled = _filled_in(of_rows) if nested and self.relation != "paths" else of_rows
        labels = window_labels(filled, windows, nested=nested, messages=self.messages)
        self.messages += missing_message(values, static)
        first = windows.rows[:, 0].tolist()
        return self._made(
            modality="series",
            values=values,
            labels=labels,
            ids=windows.ids,
            describe_row=lambda place: f"sample {windows.ids[place]} from {table.describe_row(first[place])}",
            splits=splits,
            groups=[owners[r] for r in windows.records],
            static=static,
            warnings=warnings,
        )

    def _of_records(self, column: str, role: str, steps: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """The one value that a column has within each record."""
        table = self.table
        return constant_values(table.columns[column], steps, column, role, table.where, table.describe_row)

    def _window_values(self, windows: Windows, steps: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
        """Series (N, T, C) and static features (N, S); windows with a cell that is not a number become errors."""
        table = self.table
        values, wrong = as_matrix(table.numeric(self.columns), count=len(self.columns), missing_allowed=True)
        static = None
        if self.static:
            features = list(table.numeric(self.static))
            of_record, invalid = static_features(features, steps, table.where, table.describe_row)
            static = np.stack([of_record[r] for r in windows.records])
            wrong = invalid | wrong
        is_wrong = np.zeros(len(table), dtype=bool)
        is_wrong[list(wrong)] = True
        hits = is_wrong[windows.rows]  # (N, T)
        for place in np.flatnonzero(hits.any(axis=1)).tolist():
            row = int(windows.rows[place, hits[place].argmax()])
            where = f"{table.describe_row(row)} (in sample {windows.ids[place]})"
            self.errors.append(RowError("not a number", place, where, wrong[row]))
        return values[windows.rows], static

    def _window_splits(self, windows: Windows, steps: Mapping[str, np.ndarray]) -> list[str] | None:
        """The split of every window; windows of a record without one become errors."""
        table = self.table
        if self.split is None:
            files = table.splits
            return None if files is None else [split_name(files[rows[0]]) for rows in windows.rows.tolist()]
        names = self._of_records(self.split, "split", steps)
        splits = [split_name("" if names[r] is None else names[r]) for r in windows.records]
        for place in [i for i, name in enumerate(splits) if not name]:
            owner = f"record '{windows.records[place]}'"
            self.errors.append(RowError("no split", place, owner, f"has no split in column '{self.split}'"))
        return splits

    def _steps(self) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The rows of every record in time order, and the times; rows without a record or a time become errors."""
        table, record, time = self.table, str(self.record), self.time
        names: list[str | None] = [None if missing(cell) else spelled(cell) for cell in table.columns[record]]
        if table.splits is not None:  # ids may start again in every file
            names = [n if n is None else f"{split}/{n}" for split, n in zip(table.splits, names, strict=True)]
        times = None
        if time is not None:
            times = step_times(table.columns[time], table.contents(time).kind, time, table.where, table.describe_row)
        for row in range(len(table)):
            if names[row] is None or (times is not None and np.isnan(times[row])):
                role, column = ("record", record) if names[row] is None else ("time", time)
                where = table.describe_row(row)
                self.errors.append(RowError(f"no {role}", -1, where, f"has no {role} in column '{column}'"))
                names[row] = None
        if times is not None:
            self._require_one_clock(record, names, times)
        return steps_of(names, times), times

    def _require_one_clock(self, record: str, names: list[str | None], times: np.ndarray) -> None:
        """Records whose times overlap become errors: in the order of time their recordings would mix."""
        table = self.table
        found = steps_of(names, None)
        torn = [record for record, rows in found.items() if restarts(rows, times)]
        if not torn:
            return
        passed = (record, str(self.time), *self.columns, *self.static)
        column = separating_column(table.columns, names, times, passed)
        if column is None:
            advice = "give every recording a record of its own, or sort the table by time"
        elif column[1]:
            advice = (
                f"within '{column[0]}' no time repeats: name that column (--record {column[0]} --group-column "
                f"{record}; record='{column[0]}', group_column='{record}')"
            )
        else:
            advice = (
                f"within '{record}' and '{column[0]}' together no time repeats: write a column that joins the two, "
                "and name it as the record"
            )
        for name in torn:
            rows = found[name]
            back = int(rows[np.flatnonzero(np.diff(times[rows]) < 0)[0] + 1])
            why = f"goes back in time at {table.describe_row(back)}, into times that it has passed already; {advice}"
            self.errors.append(RowError("overlapping times", -1, f"record '{name}'", why))
            for row in rows.tolist():
                names[row] = None
        if len(torn) == len(found):
            raise UserError(
                f"{table.where}: in the order of time {len(torn)} of {len(found)} records would mix several "
                f"recordings: {examples(map(str, self.errors[-len(torn) :]), 1)}"
            )


def _filled_in(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Columns of class names, unknown ancestors of known classes filled in; as they are where levels do not nest."""
    try:
        labels = Labels.from_columns(columns) if columns else Labels.empty(0)
    except UserError:  # the labels of the samples will say so, or no sample has these rows
        return columns
    return {level: labels.column(level) for level in labels.levels}


def _require_fitting(options: RoleOptions) -> None:
    """A UserError for options of a wrong type, or that do not go together: some need one row a time step."""
    levels, record = options.get("levels"), options.get("record")
    if sum(options.get(name) is not None for name in ("image", "text", "columns")) > 1:
        raise UserError("samples are images, texts or numbers: name only one of image, text and columns")
    require_relation(options.get("relation") or "tree")
    if any(isinstance(names, str) for names in (levels, options.get("columns"), options.get("static"))):
        raise UserError("levels, columns and static are lists of column names, such as ['label']")
    if isinstance(options.get("unknown"), str):
        raise UserError(f"unknown is a list of cells that mean that nobody knows, such as ['{options['unknown']}']")
    for option in ("time", "window", "stride", "gap"):
        if options.get(option) is not None and record is None:
            raise UserError(
                f"{option} is about tables with one row a time step: name the column that says which record a row "
                "belongs to (--record; record=...)"
            )
    if options.get("gap") is not None and options.get("time") is None:
        raise UserError("gap is about steps of time: name the column of times (--time; time=...)")
    if options.get("static") and record is None and options.get("series_shape") is None:
        raise UserError(
            "static features stand beside series: say with record= which rows make one series, or with series_shape= "
            "that every row holds one (--record, --series-shape)"
        )
    for option in ("image", "text", "series_shape", "id_column"):
        if options.get(option) is not None and record is not None:
            ids = option == "id_column"
            why = "ids are record:start" if ids else "with record=, a row is one time step of a series"
            raise UserError(f"{option} and record exclude each other: {why}")
    if options.get("label_paths") and (levels is None or len(levels) != 1):
        raise UserError("label_paths=True needs one column of paths in levels, for example levels=['path']")


def _mostly_numbers(column: Column) -> bool:
    """Whether most of the cells are plain numbers, so that the others are mistakes in a column that the user named."""
    if isinstance(column, np.ndarray):
        return False
    cells = [cell for cell in column if not missing(cell)]
    return 2 * int(np.isfinite(as_floats(cells)).all(axis=1).sum()) > len(cells)


def _spelled(cell: Any) -> str:
    return "" if missing(cell) else spelled(cell)


def _text(cell: Any) -> str | None:
    if missing(cell):
        return None
    return cell if isinstance(cell, str) else spelled(cell)


def _image_source(cell: Any, folder: Path) -> str | bytes | None:
    if isinstance(cell, Mapping):  # how Hugging Face stores images in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if missing(cell):
        return None
    if isinstance(cell, bytes):
        return cell
    path = str(cell).strip()
    return str(folder / (path.replace("\\", "/") if os.sep == "/" else path))  # tables are written on Windows, too
