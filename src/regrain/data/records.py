"""Tables with one row a time step: rows grouped into records, and records cut into windows of one width.

A record is what one id holds, such as a patient or a recording. Its rows are its time steps, in the order of the time
column, else of the table. A window is a sample: ``width`` steps that follow each other, the next one ``stride`` later.
No window crosses a step of time longer than the clock's limit (:func:`clock_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from regrain.data.cells import Column, Kind, as_floats, as_matrix, is_missing_number, plain
from regrain.errors import Notable, UserError
from regrain.labels import missing

_REGULAR, _ALIKE = 0.75, 0.1
"""A clock is regular where this share of its steps differs from the usual one by no more than a tenth."""

_HOLE, _PAUSE = 1.5, 10.0
"""Longer steps, in usual ones, are holes of a regular clock, and worth a warning of any other."""

_OVERLAPPING = 10
"""Times that go back are clocks that restart, not rows in any order, if that happens at most once in this many rows."""


@dataclass(frozen=True)
class Windows:
    """Which rows of a table make up each sample."""

    rows: np.ndarray  # LongArray (N, T): positions of the steps of each window, in time order
    records: list[str]  # the record of each window; windows of a record are in time order
    ids: list[str]  # ``record:start``, the start counted in steps from 0; ``record`` alone where records are not cut


@dataclass(frozen=True)
class Clock:
    """The steps of time within records."""

    usual: float = 0.0  # the median step, in the unit of the times; 0 where there is none
    regular: bool = False  # whether most steps are as long as that
    limit: float = float("inf")  # the longest step that a window may hold; infinity where any may


def clock_of(steps: Mapping[str, np.ndarray], times: np.ndarray, gap: float | None = None) -> Clock:
    """The clock of records, and the step of time from which on it has a hole.

    Raises a UserError for a gap that is not above 0.

    Parameters
    ----------
    steps : mapping of record to its rows, in time order
    times : float array (rows,)
    gap : float, optional
        The longest step of time within a window. Default: 1.5 usual steps of a regular clock, where rows are missing
        beyond; anything else has no limit, for pauses are in its nature.

    Examples
    --------
    >>> clock_of({"a": np.arange(6)}, np.array([0.0, 1, 2, 3, 7, 8]))
    Clock(usual=1.0, regular=True, limit=1.5)
    """
    if gap is not None and not gap > 0:
        raise UserError(f"gap is the longest step of time within a window, above 0; got {gap}")
    parts = [np.diff(times[rows]) for rows in steps.values() if len(rows) > 1]
    lengths = np.concatenate(parts) if parts else np.zeros(0)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return Clock(limit=float("inf") if gap is None else gap)
    usual = float(np.median(lengths))
    regular = bool((np.abs(lengths - usual) <= _ALIKE * usual).mean() >= _REGULAR)
    limit = gap if gap is not None else _HOLE * usual if regular else float("inf")
    return Clock(usual, regular, limit)


def clock_warnings(
    steps: Mapping[str, np.ndarray], times: np.ndarray, clock: Clock, cuts: bool, describe_row: Callable[[int], str]
) -> list[Notable]:
    """Return notes on the time steps: holes, pauses, and rows with the same time."""
    messages: list[Notable] = []
    beyond = min(clock.limit, _HOLE * clock.usual if clock.regular else _PAUSE * clock.usual)
    far, longest, place, equal, first = 0, 0.0, -1, 0, -1
    for rows in steps.values():
        lengths = np.diff(times[rows])
        same = np.flatnonzero(lengths == 0)
        equal += len(same)
        first = int(rows[same[0]]) if len(same) and first < 0 else first
        far += int((lengths > beyond).sum())
        if len(lengths) and lengths.max() > longest:
            longest, place = float(lengths.max()), int(rows[lengths.argmax() + 1])
    if far and clock.usual:
        where = f"the longest, {longest:g} before {describe_row(place)}"
        if not cuts:
            then = "records are taken whole across them"
        elif longest > clock.limit:
            then = "no window is cut across them (--gap sets another limit; gap=)"
        else:
            then = "windows may cross them: --gap sets the longest step within one (gap=)"
        noun = "step of time is" if far == 1 else "steps of time are"
        messages.append(Notable(f"{far} {noun} far longer than the usual {clock.usual:g} ({where}): {then}"))
    if equal:
        messages.append(
            Notable(
                f"{equal} {'row has' if equal == 1 else 'rows have'} the time of the row before "
                f"{'it in its record' if equal == 1 else 'them in their record'}, such as that after "
                f"{describe_row(first)}: they keep the table's order"
            )
        )
    return messages


def restarts(rows: np.ndarray, times: np.ndarray) -> bool:
    """Whether the rows of a record, in the order of the table, are several recordings whose clocks overlap.

    Then the order of time would interleave them. Rows that are merely not in order are not: their times differ.

    Examples
    --------
    >>> restarts(np.arange(6), np.array([0.0, 1, 2, 0, 1, 2])), restarts(np.arange(4), np.array([2.0, 3, 0, 1]))
    (True, False)
    """
    own = times[rows]
    back = np.flatnonzero(np.diff(own) < 0) + 1
    if not len(back):
        return False
    if len(np.unique(own)) < len(own):
        return True
    if len(back) > max(1, len(own) // _OVERLAPPING):
        return False
    runs = sorted((float(run[0]), float(run[-1])) for run in np.split(own, back))
    return any(start < end for (_, end), (start, _) in pairwise(runs))


def separating_column(
    columns: Mapping[str, Column], names: Sequence[str | None], times: np.ndarray, passed: Sequence[str]
) -> tuple[str, bool] | None:
    """The column within whose cells no time of a record repeats, and whether it names records by itself.

    Of several the one with the fewest cells; None where there is none with a tenth as many cells as rows.
    """
    rows = [row for row, name in enumerate(names) if name is not None]
    found: list[tuple[int, str, bool]] = []
    for column, cells in columns.items():
        if column in passed or (isinstance(cells, np.ndarray) and cells.ndim > 1):
            continue
        own = [str(cells[row]) for row in rows]
        parts = {(names[row], cell) for row, cell in zip(rows, own, strict=True)}
        if 10 * len(parts) > len(rows):
            continue
        if len({(names[row], cell, times[row]) for row, cell in zip(rows, own, strict=True)}) == len(rows):
            found.append((len(parts), column, len(parts) == len(set(own))))
    return min(found)[1:] if found else None


def steps_of(records: Sequence[str | None], times: np.ndarray | None) -> dict[str, np.ndarray]:
    """The rows of every record in time order; records in the order in which they first occur.

    Parameters
    ----------
    records : sequence of str (N,)
        None: the row does not belong to a record and is left out.
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


def step_times(column: Column, kind: Kind, name: str, where: str, describe_row: Callable[[int], str]) -> np.ndarray:
    """The times of all rows as numbers that sort, dates in seconds; NaN where the cell is empty.

    Raises a UserError for a cell that is neither a number nor a date.
    """
    if kind == "numbers":
        times = as_floats(column)[:, 0]
        unread = np.isnan(times)
    else:
        import pandas as pd

        stamps = pd.to_datetime(pd.Series(list(column), dtype=object), errors="coerce", utc=True, format="ISO8601")
        unread = stamps.isna().to_numpy()
        times = (stamps - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=float)
    for row in np.flatnonzero(unread).tolist():
        if not is_missing_number(column[row]):
            raise UserError(
                f"{where}: {describe_row(row)} holds '{column[row]}' in the time column '{name}', which is neither a "
                "number nor a date such as 2024-01-31 or 2024-01-31T08:30"
            )
    return times


def cut(
    steps: Mapping[str, np.ndarray],
    *,
    width: int | None,
    stride: int | None,
    times: np.ndarray | None = None,
    limit: float = float("inf"),
    where: str,
    describe_row: Callable[[int], str],
    messages: list[str],
) -> Windows:
    """Windows of one width; without a width every record is one sample, and all must be of one length.

    Raises a UserError for records of different lengths without a width, and where no record is as long as a window.

    Parameters
    ----------
    steps : mapping of record to its rows
    width, stride : int, optional
        In steps; the default stride is the width, so that no step belongs to two samples.
    times : float array (rows,), optional
    limit : float
        The longest step of time within a window: a longer one starts a new window.
    messages : list of str
        Collects notes on what was left out.
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
                    f"{where}: records differ in length: '{record}' (from {describe_row(int(steps[record][0]))}) has "
                    f"{length} time steps, '{first}' has {lengths[first]}. Cut them into windows of one width "
                    f"(--window {min(lengths.values())}; window={min(lengths.values())}), or fill the shorter ones "
                    "up with empty cells"
                )
        return Windows(np.stack(list(steps.values())), list(steps), list(steps))
    stride = stride or width
    rows, records, ids, short, unused, torn = [], [], [], [], 0, 0
    longest = ("", 0)
    for record, own in steps.items():
        holes = [] if times is None else (np.flatnonzero(np.diff(times[own]) > limit) + 1).tolist()
        torn += len(holes)
        ends = [0, *holes, len(own)]
        starts = [s for a, b in pairwise(ends) for s in range(a, b - width + 1, stride)]
        longest = max([longest, *((record, b - a) for a, b in pairwise(ends))], key=lambda of: of[1])
        rows += [own[start : start + width] for start in starts]
        records += [record] * len(starts)
        ids += [f"{record}:{start}" for start in starts]
        if starts and stride <= width:
            unused += len(own) - len({step for start in starts for step in range(start, start + width)})
        elif not starts:
            short.append(record)
    if not rows:
        without = " without a longer step of time" if any(lengths[record] >= width for record in lengths) else ""
        raise UserError(
            f"{where}: no record is as long as a window of {width} time steps{without}; the longest, '{longest[0]}', "
            f"has {longest[1]}: choose a smaller --window"
        )
    messages.append(f"{len(rows)} windows of {width} time steps, {stride} apart, from {len(lengths)} records")
    if short:
        shortest = f"'{short[0]}' with {lengths[short[0]]}"
        messages.append(
            f"{len(short)} of {len(lengths)} records are shorter than a window and were left out, such as {shortest}"
        )
    if unused:
        or_holes = ", or beside holes," if torn else ""
        messages.append(f"{unused} time steps at the ends of records{or_holes} fill no window")
    return Windows(np.stack(rows), records, ids)


def window_labels(
    names: Mapping[str, Sequence[Any]], windows: Windows, *, nested: bool, messages: list[str]
) -> dict[str, list[Any]]:
    """The labels of every window at all levels, by one rule.

    Where the labelled rows of a window agree, it has their class; else that of its last labelled row: a window that
    ends in another class than it began in stands for what it ends in. Where levels nest, that is decided from coarse
    to fine, each level among the rows of the class that was chosen above, so that the classes of a window are always
    those of a row. ``messages`` reports how many windows hold several classes.

    Parameters
    ----------
    names : mapping of level to class names (rows,), None unknown
        Coarse to fine, with ancestors filled in where levels nest.
    nested : bool
        Whether the levels nest; aspects are decided one by one.

    Examples
    --------
    >>> windows = Windows(np.array([[0, 1], [1, 2], [3, 4]]), ["a", "a", "b"], ["a:0", "a:1", "b:0"])
    >>> told = []
    >>> window_labels({"kind": ["x", "x", "y", None, "y"]}, windows, nested=True, messages=told), len(told)
    ({'kind': ['x', 'y', 'y']}, 1)
    >>> names = {"kind": ["x", "y", None], "sort": ["x1", None, None]}
    >>> window_labels(names, Windows(np.array([[0, 1, 2]]), ["a"], ["a:0"]), nested=True, messages=[])
    {'kind': ['y'], 'sort': [None]}
    """
    labels: dict[str, list[Any]] = {level: [] for level in names}
    mixed = dict.fromkeys(names, 0)
    for window in windows.rows.tolist():
        among = window
        for level, cells in names.items():
            known = [row for row in among if cells[row] is not None]
            chosen = cells[known[-1]] if known else None
            labels[level].append(chosen)
            mixed[level] += len({cells[row] for row in known}) > 1
            if nested and known:
                among = [row for row in known if cells[row] == chosen]
    for level, count in mixed.items():
        if count:
            messages.append(
                f"level '{level}': {count} of {len(windows.ids)} windows hold several classes and take that of their "
                "last labelled step"
            )
    return labels


def constant_values(
    cells: Column, steps: Mapping[str, np.ndarray], name: str, role: str, where: str, describe_row: Callable[[int], str]
) -> dict[str, Any]:
    """The one value that a column has within each record, empty cells aside; None where all are empty.

    Raises a UserError for a record with several values; the message names record, column and rows.
    """
    result: dict[str, Any] = {}
    for record, rows in steps.items():
        seen: dict[str, int] = {}
        for row in rows.tolist():
            if not missing(cells[row]):
                seen.setdefault(str(cells[row]), row)
        if len(seen) > 1:
            raise _not_constant(record, name, role, list(seen.items()), where, describe_row)
        result[record] = plain(cells[next(iter(seen.values()))]) if seen else None
    return result


def static_features(
    columns: Sequence[tuple[str, Column]],
    steps: Mapping[str, np.ndarray],
    where: str,
    describe_row: Callable[[int], str],
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Static features (S,) of every record, NaN if no row has a value; and by row, the faulty cells.

    Raises a UserError for a feature that changes within a record.
    """
    values, wrong = as_matrix(columns, count=len(columns), missing_allowed=True)
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
            raise _not_constant(record, columns[place][0], "static", ends, where, describe_row)
        result[record] = low
    return result, wrong


def _not_constant(
    record: str, name: str, role: str, seen: Sequence[tuple[str, int]], where: str, describe_row: Callable[[int], str]
) -> UserError:
    (one, first), (other, second) = sorted(seen[:2], key=lambda pair: pair[1])
    advice = "; a column that changes in time belongs to the series (--columns)" if role == "static" else ""
    return UserError(
        f"{where}: column '{name}' ({role}) must not change within a record, but record '{record}' has '{one}' at "
        f"{describe_row(first)} and '{other}' at {describe_row(second)}{advice}"
    )
