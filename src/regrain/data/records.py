"""Tables with one row a time step: rows grouped into records, and records cut into windows of one width.

A record is what one id holds, such as a patient or a recording. Its rows are its time steps, in the order of the time
column, else of the table. A window is a sample: ``width`` steps that follow each other, the next one ``stride`` later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regrain.data.cells import Column, Kind, as_floats, as_matrix, is_missing_number, missing, plain
from regrain.errors import UserError

__all__ = [
    "StepColumns",
    "Windows",
    "constant_values",
    "cut",
    "in_order_of_time",
    "static_features",
    "step_times",
    "steps_of",
    "window_labels",
]


@dataclass(frozen=True)
class StepColumns:
    """What the columns of a table of time steps are, and how its records are cut into windows.

    Attributes
    ----------
    record, time : str
        Columns of the record's id and of the time; without a time the order of the table counts.
    series, static : sequences of str
        Columns of numbers that change in time, and that do not.
    window, stride : int or None
        As :func:`cut` takes them.
    """

    record: str
    time: str | None
    series: Sequence[str]
    static: Sequence[str]
    window: int | None
    stride: int | None


@dataclass(frozen=True)
class Windows:
    """Which rows of a table make up each sample.

    Attributes
    ----------
    rows : LongArray (N, T)
        Positions of the steps of each window, in time order.
    records : list of str
        The record of each window; windows of a record are in time order.
    ids : list of str
        ``record:start``, the start counted in steps from 0; ``record`` alone where records are not cut.
    """

    rows: np.ndarray
    records: list[str]
    ids: list[str]


def steps_of(records: Sequence[str | None], times: np.ndarray | None) -> dict[str, np.ndarray]:
    """The rows of every record in time order; records in the order in which they first occur.

    Parameters
    ----------
    records : sequence of str (N,)
        None: the row belongs to no record and is left out.
    times : float or int array (N,), optional
        Steps of one time keep the order of the table.

    Examples
    --------
    >>> {name: rows.tolist() for name, rows in steps_of(["a", "b", "a"], np.array([2, 0, 1])).items()}
    {'a': [2, 0], 'b': [1]}
    """
    found: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        if record is not None:
            found.setdefault(record, []).append(row)
    steps = {record: np.array(rows, dtype=np.int64) for record, rows in found.items()}
    if times is None:
        return steps
    return {record: rows[np.argsort(times[rows], kind="stable")] for record, rows in steps.items()}


def in_order_of_time(
    steps: Mapping[str, np.ndarray], owners: Mapping[str, str], times: np.ndarray
) -> dict[str, np.ndarray]:
    """The same records, those of one owner ordered by the time they begin at; owners keep their order.

    Examples
    --------
    >>> steps = {"a2": np.array([0]), "b1": np.array([1]), "a1": np.array([2])}
    >>> list(in_order_of_time(steps, {"a2": "a", "b1": "b", "a1": "a"}, np.array([5.0, 0.0, 3.0])))
    ['a1', 'a2', 'b1']
    """
    rank = {owner: place for place, owner in enumerate(dict.fromkeys(owners[record] for record in steps))}
    return dict(sorted(steps.items(), key=lambda item: (rank[owners[item[0]]], times[item[1][0]])))


def step_times(column: Column, kind: Kind, name: str, where: str, finds: Callable[[int], str]) -> np.ndarray:
    """The times of all rows as numbers that sort; NaN where the cell is empty.

    Raises
    ------
    UserError
        For a cell that is neither a number nor a date.
    """
    if kind == "numbers":
        times = as_floats(column)[:, 0]
        unread = np.isnan(times)
    else:
        import pandas as pd

        stamps = pd.to_datetime(pd.Series(list(column), dtype=object), errors="coerce", utc=True, format="ISO8601")
        unread = stamps.isna().to_numpy()
        times = np.where(unread, np.nan, stamps.astype("int64").to_numpy())
    for row in np.flatnonzero(unread).tolist():
        if not is_missing_number(column[row]):
            raise UserError(
                f"{where}: {finds(row)} holds '{column[row]}' in the time column '{name}', which is neither a number "
                "nor a date such as 2024-01-31 or 2024-01-31T08:30"
            )
    return times


def cut(
    steps: Mapping[str, np.ndarray],
    *,
    width: int | None,
    stride: int | None,
    where: str,
    finds: Callable[[int], str],
    messages: list[str],
) -> Windows:
    """Windows of one width; without a width every record is one sample, and all must be of one length.

    Parameters
    ----------
    steps : mapping of record to its rows
    width, stride : int, optional
        In steps; the default stride is the width, so that no step belongs to two samples.
    messages : list of str
        Is told what was left out.

    Raises
    ------
    UserError
        For records of different lengths without a width, and where no record is as long as a window.
    """
    for option, value in (("window", width), ("stride", stride)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise UserError(f"{option} is a number of time steps, at least 1; got {value!r}")
    lengths = {record: len(rows) for record, rows in steps.items()}
    if not lengths:
        raise UserError(f"{where} holds no records")
    if width is None:
        if stride is not None:
            raise UserError("stride says how far windows lie apart: give their width too (--window; window=...)")
        first = next(iter(lengths))
        for record, length in lengths.items():
            if length != lengths[first]:
                raise UserError(
                    f"{where}: records differ in length: '{record}' (from {finds(int(steps[record][0]))}) has {length} "
                    f"time steps, '{first}' has {lengths[first]}. Cut them into windows of one width (--window "
                    f"{min(lengths.values())}; window={min(lengths.values())}), or fill the shorter ones up with empty "
                    "cells"
                )
        return Windows(np.stack(list(steps.values())), list(steps), list(steps))
    stride = stride or width
    rows, records, ids, unused = [], [], [], 0
    for record, own in steps.items():
        starts = range(0, len(own) - width + 1, stride)
        rows += [own[start : start + width] for start in starts]
        records += [record] * len(starts)
        ids += [f"{record}:{start}" for start in starts]
        if len(starts):
            unused += max(0, len(own) - (starts[-1] + width))
    short = [record for record, length in lengths.items() if length < width]
    if not rows:
        longest = max(lengths, key=lengths.__getitem__)
        raise UserError(
            f"{where}: no record is as long as a window of {width} time steps; the longest, '{longest}', has "
            f"{lengths[longest]}: choose a smaller --window"
        )
    messages.append(f"{len(rows)} windows of {width} time steps, {stride} apart, from {len(lengths)} records")
    if short:
        shortest = f"'{short[0]}' with {lengths[short[0]]}"
        messages.append(
            f"{len(short)} of {len(lengths)} records are shorter than a window and were left out, such as {shortest}"
        )
    if unused:
        messages.append(f"{unused} time steps at the ends of records fill no window")
    return Windows(np.stack(rows), records, ids)


def window_labels(names: Sequence[Any], windows: Windows, level: str, messages: list[str]) -> list[Any]:
    """The label of every window: that of its rows, unknown ones aside, where they agree, else that of its last row.

    A window that ends in another class than it began in stands for what it ends in; how many do is told in
    ``messages``.

    Examples
    --------
    >>> windows = Windows(np.array([[0, 1], [1, 2], [3, 4]]), ["a", "a", "b"], ["a:0", "a:1", "b:0"])
    >>> told = []
    >>> window_labels(["x", "x", "y", None, "y"], windows, "kind", told), len(told)
    (['x', 'y', 'y'], 1)
    """
    labels, mixed = [], 0
    for rows in windows.rows.tolist():
        known = {names[row] for row in rows if names[row] is not None}
        mixed += len(known) > 1
        labels.append(next(iter(known)) if len(known) == 1 else names[rows[-1]])
    if mixed:
        messages.append(
            f"level '{level}': {mixed} of {len(labels)} windows hold several classes and take that of their last step"
        )
    return labels


def constant_values(
    cells: Column, steps: Mapping[str, np.ndarray], name: str, role: str, where: str, finds: Callable[[int], str]
) -> dict[str, Any]:
    """The one value that a column has within each record, empty cells aside; None where all are empty.

    Raises
    ------
    UserError
        For a record with several values; the message names record, column and rows.
    """
    result: dict[str, Any] = {}
    for record, rows in steps.items():
        seen: dict[str, int] = {}
        for row in rows.tolist():
            if not missing(cells[row]):
                seen.setdefault(str(cells[row]), row)
        if len(seen) > 1:
            raise _not_constant(record, name, role, list(seen.items()), where, finds)
        result[record] = plain(cells[next(iter(seen.values()))]) if seen else None
    return result


def static_features(
    columns: Sequence[tuple[str, Column]], steps: Mapping[str, np.ndarray], where: str, finds: Callable[[int], str]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Static features (S,) of every record, NaN where no row has a value; and by row, what is no number.

    Raises
    ------
    UserError
        For a feature that changes within a record.
    """
    values, wrong = as_matrix(columns, missing_allowed=True)
    result = {}
    for record, rows in steps.items():
        own = values[rows]  # (T, S)
        low, high = np.fmin.reduce(own), np.fmax.reduce(own)  # they pass over NaN
        changing = np.flatnonzero(low < high)
        if len(changing):
            place = int(changing[0])
            ends = [
                (f"{end[place]:g}", int(rows[np.flatnonzero(own[:, place] == end[place])[0]])) for end in (low, high)
            ]
            raise _not_constant(record, columns[place][0], "static", ends, where, finds)
        result[record] = low
    return result, wrong


def _not_constant(
    record: str, name: str, role: str, seen: Sequence[tuple[str, int]], where: str, finds: Callable[[int], str]
) -> UserError:
    (one, first), (other, second) = sorted(seen[:2], key=lambda pair: pair[1])
    advice = "; a column that changes in time belongs to the series (--columns)" if role == "static" else ""
    return UserError(
        f"{where}: column '{name}' ({role}) must not change within a record, but record '{record}' has '{one}' at "
        f"{finds(first)} and '{other}' at {finds(second)}{advice}"
    )
