"""From a table to rows: which columns hold the samples, the labels, the split, the group and the id.

The user names columns or leaves them to be guessed; every guess is told in ``notes["messages"]``.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.cells import (
    Column,
    Contents,
    Kind,
    as_floats,
    as_matrix,
    contents_of,
    label_names,
    missing,
    numbered,
    numbers_of,
    path_columns,
    spelled,
    split_name,
)
from regrain.data.guesses import Guesses
from regrain.data.notation import PLAIN, Notation
from regrain.data.records import (
    Clock,
    StepColumns,
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
from regrain.data.rows import RowError, Rows, examples, missing_message
from regrain.data.samples import Modality
from regrain.errors import Notable, UserError, nearest
from regrain.labels import Labels, Relation, require_relation


@dataclass
class Table:
    """Columns as they were read.

    Parameters
    ----------
    where, name : str
        The source, for messages, and the data set's name.
    columns : mapping of name to Column
        May read a column when it is asked for.
    describe_row : callable
        How the user finds the row at a position, such as "line 7".
    folder : Path
        What relative image paths start from.
    splits : sequence of str, optional
        The split of every row, where files tell it.
    broken : tuple of RowError
        Lines that are no rows.
    classes : tuple of str
        Columns that the source declares to be class labels.
    messages : tuple of str
        Notes on how the file was read.
    shapes : mapping of str to (time, channels)
        Columns whose rows are matrices, laid out flat.
    count : int, optional
        Number of rows; default the length of the columns.
    """

    where: str
    name: str
    columns: Mapping[str, Column]
    describe_row: Callable[[int], str]
    folder: Path
    splits: Sequence[str] | None = None
    broken: tuple[RowError, ...] = ()
    classes: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    count: int = -1
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

    def covers(self, pattern: str) -> bool:
        """Whether there is a column of that name, or one that the pattern fits."""
        return pattern in self.columns or any(fnmatchcase(name, pattern) for name in self.columns)

    def require(self, name: str, role: str) -> str:
        """The name of a column that exists, else a UserError that names the nearest one."""
        name = unicodedata.normalize("NFC", str(name)).strip()
        if name not in self.columns:
            raise UserError(
                f"{self.where} has no column '{name}' ({role}): {nearest(name, self.columns)}", code="unknown_column"
            )
        return name

    def rows(
        self,
        *,
        image: str | None = None,
        text: str | None = None,
        columns: Sequence[str] | None = None,
        series_shape: tuple[int, int] | None = None,
        record: str | None = None,
        time: str | None = None,
        window: int | None = None,
        stride: int | None = None,
        gap: float | None = None,
        static: Sequence[str] | None = None,
        levels: Sequence[str] | None = None,
        label_paths: bool = False,
        relation: Relation = "tree",
        split_column: str | None = None,
        group_column: str | None = None,
        id_column: str | None = None,
        unknown: Sequence[str] = (),
        notations: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> Rows:
        """The rows of the table; the options are explained in :class:`~regrain.data.options.RoleOptions`.

        Raises
        ------
        UserError
            For a column that does not exist or is named for two roles, more than one kind of sample, and where a guess
            is not possible.
        """
        if sum(option is not None for option in (image, text, columns)) > 1:
            raise UserError("samples are images, texts or numbers: name only one of image, text and columns")
        require_relation(relation)
        if isinstance(levels, str) or isinstance(columns, str) or isinstance(static, str):
            raise UserError("levels, columns and static are lists of column names, such as ['label']")
        if isinstance(unknown, str):
            raise UserError(f"unknown is a list of cells that mean that nobody knows, such as ['{unknown}']")
        per_step = {"time": time, "window": window, "stride": stride, "gap": gap}
        per_row = {"image": image, "text": text, "series_shape": series_shape, "id_column": id_column}
        _require_series_options(record, static, series_shape, per_step, per_row)
        if label_paths and (levels is None or len(levels) != 1):
            raise UserError("label_paths=True needs one column of paths in levels, for example levels=['path']")
        for column, written in (notations or {}).items():
            if column in self.columns:
                self._contents[column] = contents_of(self.columns[column], Notation.from_text(written))
        roles = Roles(self)
        split = roles.take(split_column, "split")
        record, time = roles.take(record, "record"), roles.take(time, "time")
        group, image = roles.take(group_column, "group"), roles.take(image, "image")
        text, ids = roles.take(text, "text"), roles.take(id_column, "id")
        named = [str(roles.take(level, "level")) for level in levels or ()]
        for option, patterns in (("static", static), ("columns", columns)):
            roles.take_names(patterns or (), option)

        guesses = Guesses(self.where, self.columns, _Kinds(self), self.classes, self.splits is not None, roles)
        split = guesses.split() if split is None else split
        if image is None and text is None and columns is None and record is None:
            image, text, columns = guesses.samples()
            if columns and series_shape is None and columns[0] not in self.shapes:
                guesses.messages.append(
                    "--series-shape 128x6 (series_shape=(time, channels)) would read the vectors as series"
                )
        numeric = image is None and text is None
        if levels is None:
            named = guesses.levels(relation, unknown, numeric=numeric)
        if record is None:
            group = guesses.group() if group is None else group
            ids = guesses.identity(image) if ids is None else ids
        features = self._features(static or (), "static", roles, guesses)
        if columns is not None:
            columns = self._features(columns, "columns", roles, guesses)
        elif numeric:
            columns = guesses.numbers(self.contents)
        notes = self._feature_notes(columns or (), features, guesses.messages)
        if record is not None:
            assert columns is not None
            return self._windowed(
                StepColumns(record, time, columns, features, window, stride, gap),
                named,
                guesses.messages,
                notes,
                label_paths=label_paths,
                relation=relation,
                unknown=unknown,
                split=split,
                group=None if group == record else group,
                name=name,
            )

        if series_shape is None and columns and len(columns) == 1:
            series_shape = self.shapes.get(columns[0])
        faults = list(self.broken)
        modality, values, found = self._samples(image, text, columns, series_shape)
        faults += found
        unchanging = None
        if features:
            unchanging, wrong = as_matrix(self._numeric(features), missing_allowed=True)
            faults += [RowError("not a number", row, self.describe_row(row), why) for row, why in sorted(wrong.items())]
        if modality == "series":
            guesses.messages += missing_message(np.asarray(values), unchanging)
        parts = self.splits if split is None else self._filled(split, "split", faults)
        splits = None if parts is None else list(map(split_name, parts))
        identities = None if ids is None else self._filled(ids, "id", faults)
        groups = None if group is None else self._filled(group, "group", faults)
        if identities is None:
            identities = numbered(len(self), None if self.splits is None else splits)
        return Rows(
            where=self.where,
            name=name or self.name,
            modality=modality,
            values=values,
            labels=self._labels(named, label_paths, unknown, guesses.messages),
            ids=identities,
            describe_row=self.describe_row,
            relation="tree" if label_paths else relation,
            id_column=ids,
            splits=splits,
            groups=groups,
            known_errors=tuple(faults),
            notes={"source": self.where, "messages": [*self.messages, *guesses.messages], **notes},
            static=unchanging,
        )

    def _windowed(
        self,
        of: StepColumns,
        levels: Sequence[str],
        messages: list[str],
        notes: Mapping[str, Any],
        *,
        label_paths: bool,
        relation: Relation,
        unknown: Sequence[str],
        split: str | None,
        group: str | None,
        name: str | None,
    ) -> Rows:
        """The rows of a table whose rows are time steps: one per window of a record."""
        faults = list(self.broken)
        steps, times = self._steps(of, faults)

        def of_records(column: str, role: str) -> dict[str, Any]:
            return constant_values(self.columns[column], steps, column, role, self.where, self.describe_row)

        owners = dict.fromkeys(steps, None) if group is None else of_records(group, "group")
        owners = {record: record if owner is None else spelled(owner) for record, owner in owners.items()}
        if times is not None:
            steps = in_order_of_time(steps, owners, times)
        clock = Clock() if times is None else clock_of(steps, times, of.gap)
        windows = cut(
            steps,
            width=of.window,
            stride=of.stride,
            times=times,
            limit=clock.limit,
            where=self.where,
            describe_row=self.describe_row,
            messages=messages,
        )
        doubts = [] if times is None else clock_warnings(steps, times, clock, of.window is not None, self.describe_row)

        values, wrong = as_matrix(self._numeric(of.series), missing_allowed=True)
        unchanging = None
        if of.static:
            features, odd = static_features(self._numeric(of.static), steps, self.where, self.describe_row)
            unchanging = np.stack([features[r] for r in windows.records])
            wrong = odd | wrong
        bad = np.zeros(len(self), dtype=bool)
        bad[list(wrong)] = True
        hits = bad[windows.rows]  # (N, T)
        for place in np.flatnonzero(hits.any(axis=1)).tolist():
            row = int(windows.rows[place, hits[place].argmax()])
            where = f"{self.describe_row(row)} (in sample {windows.ids[place]})"
            faults.append(RowError("not a number", place, where, wrong[row]))
        splits: list[str] | None = None
        if split is None and self.splits is not None:
            splits = [split_name(self.splits[rows[0]]) for rows in windows.rows.tolist()]
        elif split is not None:
            parts = of_records(split, "split")
            splits = [split_name("" if parts[r] is None else parts[r]) for r in windows.records]
            for place in [i for i, part in enumerate(splits) if not part]:
                owner = f"record '{windows.records[place]}'"
                faults.append(RowError("no split", place, owner, f"has no split in column '{split}'"))
        of_rows = {n: label_names(self.columns[n], unknown, n, messages) for n in levels}
        if label_paths:
            of_rows = path_columns([None if v is None else str(v) for v in of_rows[levels[0]]])
        nested = label_paths or relation != "aspects"
        filled = _filled_in(of_rows) if nested and relation != "paths" else of_rows
        labels = window_labels(filled, windows, nested=nested, messages=messages)
        series = values[windows.rows]
        messages += missing_message(series, unchanging)
        first = windows.rows[:, 0].tolist()
        return Rows(
            where=self.where,
            name=name or self.name,
            modality="series",
            values=series,
            labels=labels,
            ids=windows.ids,
            describe_row=lambda place: f"sample {windows.ids[place]} from {self.describe_row(first[place])}",
            relation="tree" if label_paths else relation,
            splits=splits,
            groups=[owners[r] for r in windows.records],
            known_errors=tuple(faults),
            notes={"source": self.where, "messages": [*self.messages, *messages], "warnings": doubts, **notes},
            static=unchanging,
        )

    def _steps(self, of: StepColumns, faults: list[RowError]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The rows of every record in time order, and the times; rows without a record or a time become faults."""
        names: list[str | None] = [None if missing(cell) else spelled(cell) for cell in self.columns[of.record]]
        if self.splits is not None:  # ids may start anew in every file
            names = [n if n is None else f"{part}/{n}" for part, n in zip(self.splits, names, strict=True)]
        times = None
        if of.time is not None:
            times = step_times(
                self.columns[of.time], self.contents(of.time).kind, of.time, self.where, self.describe_row
            )
        for row in range(len(self)):
            if names[row] is None or (times is not None and np.isnan(times[row])):
                role, column = ("record", of.record) if names[row] is None else ("time", of.time)
                faults.append(RowError(f"no {role}", -1, self.describe_row(row), f"has no {role} in column '{column}'"))
                names[row] = None
        if times is not None:
            self._require_one_clock(of, names, times, faults)
        return steps_of(names, times), times

    def _require_one_clock(
        self, of: StepColumns, names: list[str | None], times: np.ndarray, faults: list[RowError]
    ) -> None:
        """Records whose times overlap themselves become faults: in the order of time their recordings would mix."""
        found = steps_of(names, None)
        torn = [record for record, rows in found.items() if restarts(rows, times)]
        if not torn:
            return
        column = separating_column(self.columns, names, times, (of.record, str(of.time), *of.series, *of.static))
        if column is None:
            advice = "give every recording a record of its own, or sort the table by time"
        elif column[1]:
            advice = (
                f"within '{column[0]}' no time repeats: name that column (--record {column[0]} --group-column "
                f"{of.record}; record='{column[0]}', group_column='{of.record}')"
            )
        else:
            advice = (
                f"within '{of.record}' and '{column[0]}' together no time repeats: write a column that joins the two, "
                "and name it as the record"
            )
        for record in torn:
            rows = found[record]
            back = int(rows[np.flatnonzero(np.diff(times[rows]) < 0)[0] + 1])
            where = f"record '{record}'"
            why = f"goes back in time at {self.describe_row(back)}, into times that it has passed already; {advice}"
            faults.append(RowError("overlapping times", -1, where, why))
            for row in rows.tolist():
                names[row] = None
        if len(torn) == len(found):
            raise UserError(
                f"{self.where}: in the order of time {len(torn)} of {len(found)} records would mix several "
                f"recordings: {examples(map(str, faults[-len(torn) :]), 1)}"
            )

    def _samples(
        self,
        image: str | None,
        text: str | None,
        columns: Sequence[str] | None,
        series_shape: tuple[int, int] | None,
    ) -> tuple[Modality, Sequence[Any] | np.ndarray, list[RowError]]:
        if series_shape is not None and columns is None:
            raise UserError("series_shape belongs to columns of numbers, but the samples are images or texts")
        if image is not None:
            return "image", [_image_source(cell, self.folder) for cell in self.columns[image]], []
        if text is not None:
            return "text", [_text(cell) for cell in self.columns[text]], []
        assert columns is not None
        values, cells = as_matrix(self._numeric(columns), missing_allowed=series_shape is not None)
        faults = [RowError("not a number", row, self.describe_row(row), why) for row, why in sorted(cells.items())]
        if series_shape is None:
            return "vector", values, faults
        if len(series_shape) != 2 or int(np.prod(series_shape)) != values.shape[1]:
            raise UserError(
                f"series_shape is (time, channels) and its product the count of numbers in a row, {values.shape[1]}; "
                f"got {tuple(series_shape)}"
            )
        return "series", values.reshape(len(values), *series_shape), faults

    def _features(self, patterns: Sequence[str], option: str, roles: Roles, guesses: Guesses) -> list[str]:
        """The columns of names and patterns, in the order of the table for each pattern; others are left out, told."""
        names: list[str] = []
        left: dict[str, str] = {}
        for pattern in map(str, patterns):
            outright = self._named(pattern)
            if outright is not None:
                contents = self.contents(outright)
                if contents.kind not in ("numbers", "booleans", "vectors", "empty") and not _mostly_numbers(
                    self.columns[outright]
                ):
                    raise UserError(
                        f"{self.where}: column '{outright}' cannot be a feature: it {contents.reason} ({option})"
                    )
                matches = [outright]
            else:
                fitting = [name for name in self.columns if fnmatchcase(name, pattern)]
                if not fitting:
                    self.require(pattern, option)
                fitting = [name for name in fitting if name not in roles or roles[name] != option]
                matches, others = guesses.usable(fitting, self.contents)
                left |= others
            for name in matches:
                if name not in names:
                    roles.put(name, option)
                    names.append(name)
        if left:
            guesses.messages.append(Notable(f"not features: {_listed_reasons(left)}"))
        if patterns and not names:
            raise UserError(
                f"{self.where}: {option} fits no column of numbers that is nothing else: {_listed_reasons(left)}"
            )
        return names

    def _named(self, name: str) -> str | None:
        """The column of this very name, which is no pattern then."""
        name = unicodedata.normalize("NFC", name).strip()
        return name if name in self.columns else None

    def _numeric(self, names: Iterable[str]) -> list[tuple[str, Column]]:
        """Columns of numbers by name, whatever notation they are written in."""
        return [(name, numbers_of(self.columns[name], self.contents(name))) for name in names]

    def _feature_notes(self, columns: Sequence[str], static: Sequence[str], messages: list[str]) -> dict[str, Any]:
        """The form of new data: the features' names, and how their numbers are written where not plainly."""
        written = {name: self.contents(name).notation for name in (*columns, *static)}
        notations = {name: str(notation) for name, notation in written.items() if notation not in (None, PLAIN)}
        for notation in dict.fromkeys(notations.values()):
            names = [name for name, other in notations.items() if other == notation]
            truth = "/" in notation
            how = f"{notation} is read as 1/0" if truth else f"numbers are read as written like {notation}"
            messages.append(Notable(f"column {examples(map(repr, names))}: {how}"))
        notes = {"columns": list(columns), "static_columns": list(static), "notations": notations}
        return {key: value for key, value in notes.items() if value}

    def _filled(self, name: str, role: str, faults: list[RowError]) -> list[str]:
        """The cells of a column that may not have gaps; gaps become faults."""
        cells = ["" if missing(cell) else spelled(cell) for cell in self.columns[name]]
        for row, cell in enumerate(cells):
            if not cell:
                faults.append(RowError(f"no {role}", row, self.describe_row(row), f"has no {role} in column '{name}'"))
        return cells

    def _labels(
        self, levels: Sequence[str], label_paths: bool, unknown: Sequence[str], messages: list[str]
    ) -> dict[str, list[Any]]:
        names = {level: label_names(self.columns[level], unknown, level, messages) for level in levels}
        if not label_paths:
            return names
        return path_columns([None if v is None else str(v) for v in names[levels[0]]])


def _filled_in(columns: Mapping[str, Sequence[Any]]) -> Mapping[str, Sequence[Any]]:
    """Columns of class names, unknown ancestors of known classes filled in; as they are where levels do not nest."""
    try:
        labels = Labels.from_columns(columns) if columns else Labels.empty(0)
    except UserError:  # the labels of the samples will say so, or no sample has these rows
        return columns
    named = zip(labels.levels, labels.classes, labels.codes.T.tolist(), strict=True)
    return {level: [None if code < 0 else names[code] for code in codes] for level, names, codes in named}


def _require_series_options(
    record: str | None,
    static: Sequence[str] | None,
    series_shape: tuple[int, int] | None,
    per_step: Mapping[str, Any],
    per_row: Mapping[str, Any],
) -> None:
    """A UserError for options that do not go together: some need one row a time step, some one row a sample."""
    for option, value in per_step.items():
        if value is not None and record is None:
            raise UserError(
                f"{option} is about tables with one row a time step: name the column that says which record a row "
                "belongs to (--record; record=...)"
            )
    if per_step["gap"] is not None and per_step["time"] is None:
        raise UserError("gap is about steps of time: name the column of times (--time; time=...)")
    if static and record is None and series_shape is None:
        raise UserError(
            "static features stand beside series: say with record= which rows make one series, or with series_shape= "
            "that every row holds one (--record, --series-shape)"
        )
    for option, value in per_row.items():
        if value is not None and record is not None:
            why = (
                "ids are record:start" if option == "id_column" else "with record=, a row is one time step of a series"
            )
            raise UserError(f"{option} and record exclude each other: {why}")


class Roles:
    """Which column is what: a feature or a label or a group or an id or a split or a record's key, never two.

    An image's path may also be its id, and a record may be its own group.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self._of: dict[str, str] = {}
        self._levels: list[str] = []

    def __contains__(self, name: object) -> bool:
        return name in self._of

    def __getitem__(self, name: str) -> str:
        return self._of[name]

    def put(self, name: str, role: str) -> None:
        """Note the role of a column that has none yet."""
        self._of.setdefault(name, role)

    def take(self, name: str | None, role: str) -> str | None:
        """The column that the user named for a role; a UserError where it does not exist or has another one."""
        if name is None:
            return None
        name = self.table.require(name, role)
        other = self._of.setdefault(name, role)
        if other == role == "level" and name in self._levels:
            raise UserError(f"{self.table.where}: column '{name}' is named twice as a level")
        if other != role and {other, role} not in ({"image", "id"}, {"record", "group"}):
            raise UserError(
                f"{self.table.where}: column '{name}' is named for two roles, {other} and {role}: a column has one; "
                "copy it under another name where it must be both"
            )
        if role == "level":
            self._levels.append(name)
        return name

    def take_names(self, patterns: Iterable[str], option: str) -> None:
        """Take the columns that are named outright among names and patterns."""
        for pattern in map(str, patterns):
            name = self.table._named(pattern)
            if name is not None:
                self.take(name, option)


class _Kinds(Mapping[str, Kind]):
    """The contents of every column, looked at when asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __getitem__(self, name: str) -> Kind:
        return self.table.contents(name).kind

    def __iter__(self) -> Iterator[str]:
        return iter(self.table.columns)

    def __len__(self) -> int:
        return len(self.table.columns)


def _mostly_numbers(column: Column) -> bool:
    """Whether most of the cells are plain numbers, so that the others are mistakes in a column that the user named."""
    if isinstance(column, np.ndarray):
        return False
    cells = [cell for cell in column if not missing(cell)]
    return 2 * int(np.isfinite(as_floats(cells)).all(axis=1).sum()) > len(cells)


def _listed_reasons(left: Mapping[str, str]) -> str:
    return examples([f"'{name}' {reason}" for name, reason in left.items()], 6)


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
