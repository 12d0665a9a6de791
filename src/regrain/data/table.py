"""From a table to rows: which columns hold the samples, the labels, the split, the group and the id.

The user names columns or leaves them to be guessed; every guess is told in ``notes["messages"]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from regrain.data.cells import (
    Column,
    Kind,
    as_matrix,
    kind_of,
    label_names,
    missing,
    numbered,
    path_columns,
    plain,
    split_name,
)
from regrain.data.dataset import Modality
from regrain.data.guesses import Guesses
from regrain.data.records import (
    StepColumns,
    constant_values,
    cut,
    in_order_of_time,
    static_features,
    step_times,
    steps_of,
    window_labels,
)
from regrain.data.rows import Fault, Rows, missing_message
from regrain.errors import UserError, nearest
from regrain.labels import Relation, require_relation

__all__ = ["RoleOptions", "Table"]


class RoleOptions(TypedDict, total=False):
    """What the columns of a table are; readers of tables take these options, and guess what is not named.

    image : str, optional
        Column of image paths (absolute, or relative to the table's folder) or of encoded images.
    text : str, optional
        Column of texts.
    columns : sequence of str, optional
        Columns of numbers, or patterns such as ``"f*"``; a column may hold a list of numbers in every row.
    series_shape : (time, channels), optional
        Takes the numbers of a row, in this order, for a series instead of a vector.
    record : str, optional
        A row is one time step: this column says which record it belongs to, such as a session or a patient. The series'
        channels are ``columns``, by default all columns of numbers that are nothing else. Ids are ``record:start``,
        the group is the record unless ``group`` names another column. A window's label is that of its rows where they
        agree, else that of its last row; to foresee what follows, write into a row the label of the row after it.
    time : str, optional
        With ``record``: the column, numbers or ISO dates, that orders the rows of a record; default the table's order.
    window, stride : int, optional
        With ``record``: width of a sample in time steps, and how far samples lie apart (default: the width). Records
        shorter than a window are left out. Without a window a record is one sample, and all must be of one length.
    static : sequence of str, optional
        Columns of numbers, or patterns, that hold the same value all through a record: static features of a series.
    levels : sequence of str, optional
        Columns of labels, coarse to fine. An empty list means that there are no labels.
    label_paths : bool, default False
        The one column of ``levels`` holds paths such as ``animal/dog/beagle``.
    relation : "tree", "paths" or "aspects", default "tree"
        How levels hang together (:data:`regrain.labels.Relation`).
    split, group, id : str, optional
        Columns of the split's name, of what a split must not tear apart, and of unique identities.
    unknown : sequence of str, default ()
        Labels that mean "not known", besides empty cells and NaN: ``["NA", "?"]``.
    name : str, optional
        Of the data set.
    """

    image: str | None
    text: str | None
    columns: Sequence[str] | None
    series_shape: tuple[int, int] | None
    record: str | None
    time: str | None
    window: int | None
    stride: int | None
    static: Sequence[str] | None
    levels: Sequence[str] | None
    label_paths: bool
    relation: Relation
    split: str | None
    group: str | None
    id: str | None
    unknown: Sequence[str]
    name: str | None


@dataclass
class Table:
    """Columns as they were read.

    Parameters
    ----------
    where, name : str
        The source, for messages, and the data set's name.
    columns : dict of name to Column
    finds : callable
        How the user finds the row at a position, such as "line 7".
    folder : Path
        What relative image paths start from.
    splits : sequence of str, optional
        The split of every row, where files tell it.
    broken : tuple of Fault
        Lines that are no rows.
    classes : tuple of str
        Columns that the source declares to be class labels.
    """

    where: str
    name: str
    columns: dict[str, Column]
    finds: Callable[[int], str]
    folder: Path
    splits: Sequence[str] | None = None
    broken: tuple[Fault, ...] = ()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What every column holds, judged by a sample of its cells."""
        return {name: kind_of(column) for name, column in self.columns.items()}

    def covers(self, pattern: str) -> bool:
        """Whether there is a column of that name, or one that the pattern fits."""
        return pattern in self.columns or any(fnmatchcase(name, pattern) for name in self.columns)

    def require(self, name: str, role: str) -> str:
        """The name of a column that exists, else a UserError that names the nearest one."""
        name = str(name)
        if name not in self.columns:
            raise UserError(f"{self.where} has no column '{name}' ({role}): {nearest(name, self.columns)}")
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
        static: Sequence[str] | None = None,
        levels: Sequence[str] | None = None,
        label_paths: bool = False,
        relation: Relation = "tree",
        split: str | None = None,
        group: str | None = None,
        id: str | None = None,
        unknown: Sequence[str] = (),
        name: str | None = None,
    ) -> Rows:
        """The rows of the table; the options are explained in :class:`RoleOptions`.

        Raises
        ------
        UserError
            For a column that does not exist, more than one kind of sample, and where a guess is not possible.
        """
        if sum(option is not None for option in (image, text, columns)) > 1:
            raise UserError("samples are images, texts or numbers: name only one of image, text and columns")
        require_relation(relation)
        if isinstance(levels, str) or isinstance(columns, str) or isinstance(static, str):
            raise UserError("levels, columns and static are lists of column names, such as ['label']")
        if isinstance(unknown, str):
            raise UserError(f"unknown is a list of cells that mean that nobody knows, such as ['{unknown}']")
        per_step = {"time": time, "window": window, "stride": stride}
        per_row = {"image": image, "text": text, "series_shape": series_shape, "id": id}
        _require_series_options(record, static, series_shape, per_step, per_row)
        if label_paths and (levels is None or len(levels) != 1):
            raise UserError("label_paths=True needs one column of paths in levels, for example levels=['path']")
        guesses = Guesses(self.where, self.columns, self.kinds, self.classes, self.splits is not None)
        split = guesses.split() if split is None else self.require(split, "split")
        named = [self.require(level, "level") for level in levels or ()]
        record = None if record is None else self.require(record, "record")
        time = None if time is None else self.require(time, "time")
        features = _expand(static, self, "static") if static else []
        taken = {c for c in (split, group, id, record, time, *features, *named) if c is not None}
        if columns is not None:
            columns = [name for name in _expand(columns, self) if name not in (record, time, *features)]
            if not columns:
                raise UserError("columns names none but the record, time and static columns: a series needs its own")
        elif record is not None:
            pass  # guessed below, from what is neither labels nor anything else
        elif text is not None:
            text = self.require(text, "text")
        elif image is not None:
            image = self.require(image, "image")
        else:
            image, text, columns = guesses.samples(taken)
            if columns and series_shape is None:
                guesses.messages.append("series_shape=(time, channels) would read the vectors as series")
        taken |= {c for c in (image, text, *(columns or ())) if c is not None}
        if levels is None:
            named = guesses.levels(taken, relation, unknown)
            taken |= set(named)
        if image is None and text is None and columns is None:
            columns = guesses.numbers(taken)
            taken |= set(columns)
        if record is not None:
            assert columns is not None
            return self._windowed(
                StepColumns(record, time, columns, features, window, stride),
                named,
                guesses.messages,
                label_paths=label_paths,
                relation=relation,
                unknown=unknown,
                split=split,
                group=group,
                name=name,
            )
        group = guesses.group(taken) if group is None else self.require(group, "group")
        id = guesses.identity(taken - {image}) if id is None else self.require(id, "id")

        faults = list(self.broken)
        modality, values, found = self._samples(image, text, columns, series_shape)
        faults += found
        unchanging = None
        if features:
            unchanging, wrong = as_matrix([(n, self.columns[n]) for n in features], missing_allowed=True)
            faults += [Fault("not a number", row, self.finds(row), why) for row, why in sorted(wrong.items())]
        vector_columns = _column_notes(columns, features)
        if modality == "series":
            guesses.messages += missing_message(np.asarray(values), unchanging)
        parts = self.splits if split is None else self._filled(split, "split", faults)
        splits = None if parts is None else list(map(split_name, parts))
        identities = None if id is None else [str(v) for v in self._filled(id, "id", faults)]
        groups = None if group is None else [str(v) for v in self._filled(group, "group", faults)]
        if identities is None:
            identities = numbered(len(self), None if self.splits is None else splits)
        return Rows(
            where=self.where,
            name=name or self.name,
            modality=modality,
            values=values,
            labels=self._labels(named, label_paths, unknown, guesses.messages),
            ids=identities,
            finds=self.finds,
            relation="tree" if label_paths else relation,
            id_column=id,
            splits=splits,
            groups=groups,
            faults_found=tuple(faults),
            notes={"source": self.where, "messages": guesses.messages, **vector_columns},
            static=unchanging,
        )

    def _windowed(
        self,
        of: StepColumns,
        levels: Sequence[str],
        messages: list[str],
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
            return constant_values(self.columns[column], steps, column, role, self.where, self.finds)

        owners = dict.fromkeys(steps, None) if group is None else of_records(self.require(group, "group"), "group")
        owners = {record: record if owner is None else str(owner) for record, owner in owners.items()}
        if times is not None:
            steps = in_order_of_time(steps, owners, times)
        windows = cut(steps, width=of.window, stride=of.stride, where=self.where, finds=self.finds, messages=messages)

        values, wrong = as_matrix([(n, self.columns[n]) for n in of.series], missing_allowed=True)
        unchanging = None
        if of.static:
            features, odd = static_features([(n, self.columns[n]) for n in of.static], steps, self.where, self.finds)
            unchanging = np.stack([features[r] for r in windows.records])
            wrong = odd | wrong
        bad = np.zeros(len(self), dtype=bool)
        bad[list(wrong)] = True
        hits = bad[windows.rows]  # (N, T)
        for place in np.flatnonzero(hits.any(axis=1)).tolist():
            row = int(windows.rows[place, hits[place].argmax()])
            where = f"{self.finds(row)} (in sample {windows.ids[place]})"
            faults.append(Fault("not a number", place, where, wrong[row]))
        splits: list[str] | None = None
        if split is None and self.splits is not None:
            splits = [split_name(self.splits[rows[0]]) for rows in windows.rows.tolist()]
        elif split is not None:
            parts = of_records(split, "split")
            splits = [split_name("" if parts[r] is None else parts[r]) for r in windows.records]
            for place in [i for i, part in enumerate(splits) if not part]:
                owner = f"record '{windows.records[place]}'"
                faults.append(Fault("no split", place, owner, f"has no split in column '{split}'"))
        of_rows = {n: label_names(self.columns[n], unknown, n, messages) for n in levels}
        labels = {n: window_labels(cells, windows, n, messages) for n, cells in of_rows.items()}
        if label_paths:
            labels = path_columns([None if v is None else str(v) for v in labels[levels[0]]])
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
            finds=lambda place: f"sample {windows.ids[place]} from {self.finds(first[place])}",
            relation="tree" if label_paths else relation,
            splits=splits,
            groups=[owners[r] for r in windows.records],
            faults_found=tuple(faults),
            notes={"source": self.where, "messages": messages, **_column_notes(of.series, of.static)},
            static=unchanging,
        )

    def _steps(self, of: StepColumns, faults: list[Fault]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """The rows of every record in time order, and the times; rows without a record or a time become faults."""
        names: list[str | None] = [None if missing(cell) else str(plain(cell)) for cell in self.columns[of.record]]
        if self.splits is not None:  # ids may start anew in every file
            names = [n if n is None else f"{part}/{n}" for part, n in zip(self.splits, names, strict=True)]
        times = None
        if of.time is not None:
            times = step_times(self.columns[of.time], self.kinds[of.time], of.time, self.where, self.finds)
        for row in range(len(self)):
            if names[row] is None or (times is not None and np.isnan(times[row])):
                role, column = ("record", of.record) if names[row] is None else ("time", of.time)
                faults.append(Fault(f"no {role}", -1, self.finds(row), f"has no {role} in column '{column}'"))
                names[row] = None
        return steps_of(names, times), times

    def _samples(
        self,
        image: str | None,
        text: str | None,
        columns: Sequence[str] | None,
        series_shape: tuple[int, int] | None,
    ) -> tuple[Modality, Sequence[Any] | np.ndarray, list[Fault]]:
        if series_shape is not None and columns is None:
            raise UserError("series_shape belongs to columns of numbers, but the samples are images or texts")
        if image is not None:
            return "image", [_image_source(cell, self.folder) for cell in self.columns[image]], []
        if text is not None:
            return "text", [None if missing(cell) else str(cell) for cell in self.columns[text]], []
        assert columns is not None
        named = [(name, self.columns[name]) for name in columns]
        values, cells = as_matrix(named, missing_allowed=series_shape is not None)
        faults = [Fault("not a number", row, self.finds(row), why) for row, why in sorted(cells.items())]
        if series_shape is None:
            return "vector", values, faults
        if len(series_shape) != 2 or int(np.prod(series_shape)) != values.shape[1]:
            raise UserError(
                f"series_shape is (time, channels) and its product the count of numbers in a row, {values.shape[1]}; "
                f"got {tuple(series_shape)}"
            )
        return "series", values.reshape(len(values), *series_shape), faults

    def _filled(self, name: str, role: str, faults: list[Fault]) -> list[Any]:
        """The cells of a column that may not have gaps; gaps become faults."""
        cells = [None if missing(cell) else plain(cell) for cell in self.columns[name]]
        for row, cell in enumerate(cells):
            if cell is None:
                faults.append(Fault(f"no {role}", row, self.finds(row), f"has no {role} in column '{name}'"))
        return ["" if cell is None else cell for cell in cells]

    def _labels(
        self, levels: Sequence[str], label_paths: bool, unknown: Sequence[str], messages: list[str]
    ) -> dict[str, list[Any]]:
        names = {level: label_names(self.columns[level], unknown, level, messages) for level in levels}
        if not label_paths:
            return names
        return path_columns([None if v is None else str(v) for v in names[levels[0]]])


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
    if static and record is None and series_shape is None:
        raise UserError(
            "static features stand beside series: say with record= which rows make one series, or with series_shape= "
            "that every row holds one (--record, --series-shape)"
        )
    for option, value in per_row.items():
        if value is not None and record is not None:
            why = "ids are record:start" if option == "id" else "with record=, a row is one time step of a series"
            raise UserError(f"{option} and record exclude each other: {why}")


def _column_notes(columns: Sequence[str] | None, static: Sequence[str]) -> dict[str, list[str]]:
    notes = {"columns": list(columns or ()), "static_columns": list(static)}
    return {key: names for key, names in notes.items() if names}


def _expand(patterns: Sequence[str], table: Table, role: str = "columns") -> list[str]:
    """Column names from names and patterns, in the order of the table for each pattern."""
    names: list[str] = []
    for pattern in map(str, patterns):
        matches = [pattern] if pattern in table.columns else [n for n in table.columns if fnmatchcase(n, pattern)]
        if not matches:
            table.require(pattern, role)
        names += [name for name in matches if name not in names]
    if not names:
        raise UserError("columns names no column of numbers: give names or patterns such as 'f*'")
    for name in names:
        if table.kinds[name] in ("text", "bytes"):
            cell = next((cell for cell in table.columns[name] if not missing(cell)), "")
            raise UserError(
                f"{table.where}: column '{name}' does not hold numbers but values such as {str(cell)[:40]!r}"
            )
    return names


def _image_source(cell: Any, folder: Path) -> str | bytes | None:
    if isinstance(cell, Mapping):  # how Hugging Face stores images in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if missing(cell):
        return None
    if isinstance(cell, bytes):
        return cell
    path = str(cell).strip()
    return str(folder / (path.replace("\\", "/") if os.sep == "/" else path))  # tables are written on Windows, too
