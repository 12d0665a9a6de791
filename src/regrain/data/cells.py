"""What the cells of a column hold: numbers, class names, names of splits, or nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from regrain.errors import UserError
from regrain.labels import Labels

__all__ = [
    "IMAGE_SUFFIXES",
    "LOOKED_AT",
    "SPLITS",
    "Column",
    "Kind",
    "as_floats",
    "as_matrix",
    "guard_cell",
    "is_missing_number",
    "is_split",
    "kind_of",
    "label_names",
    "missing",
    "numbered",
    "path_columns",
    "plain",
    "split_name",
    "unguard_cell",
]

Column = Sequence[Any] | np.ndarray
"""A list of cells, None where there is none, or an array of numbers (N,) or (N, D)."""

Kind = Literal["bytes", "numbers", "vectors", "text", "other"]
"""What a column holds; bytes are encoded images."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
"""Endings of image files, in lower case."""

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Names of splits in lower case, and what they are called here."""

LOOKED_AT = 1000
"""How many cells, at most, a column is judged by."""

_UNKNOWN = ("", "nan", "NaN")

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def guard_cell(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula; numbers stay as they are.

    Spreadsheets run what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return (OWASP, "CSV injection"),
    and show what follows an apostrophe as it is. Where apostrophes stand before such a character already, one more is
    put before them, so that :func:`unguard_cell` gives every text back.

    Examples
    --------
    >>> [guard_cell(text) for text in ("=1+1", "-2.5", "-a", "'=", "a=b")]
    ["'=1+1", '-2.5', "'-a", "''=", 'a=b']
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguard_cell(text: str) -> str:
    """What :func:`guard_cell` was given.

    Examples
    --------
    >>> [unguard_cell(guard_cell(text)) for text in ("=1+1", "-2.5", "'=", "'quoted'")]
    ['=1+1', '-2.5', "'=", "'quoted'"]
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def split_name(name: Any) -> str:
    """A split's name as it is used here: validation, valid and dev are ``val``.

    Examples
    --------
    >>> split_name("Validation"), split_name("train"), split_name("fold 3")
    ('val', 'train', 'fold 3')
    """
    return SPLITS.get(str(name).strip().lower(), str(name).strip())


def is_split(name: str) -> bool:
    """Whether a folder or file of this name holds a split."""
    return name.strip().lower() in SPLITS


def numbered(count: int, splits: Sequence[str] | None = None) -> list[str]:
    """Ids for rows that have none: the row's number, within its split where splits are separate files.

    Examples
    --------
    >>> numbered(3, ["train", "train", "test"])
    ['train/0', 'train/1', 'test/0']
    """
    if splits is None:
        return [str(row) for row in range(count)]
    next_row: Counter[str] = Counter()
    ids = []
    for split in splits:
        ids.append(f"{split}/{next_row[split]}")
        next_row[split] += 1
    return ids


def missing(cell: Any) -> bool:
    """Whether a cell is empty: None, NaN, NA, or nothing but spaces."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    return (isinstance(cell, float | np.floating) and bool(np.isnan(cell))) or type(cell).__name__ in (
        "NAType",
        "NaTType",
    )


def label_names(cells: Column, unknown: Sequence[str], level: str, messages: list[str]) -> list[Any]:
    """Class names of one level, None where the class is not known.

    -1 among class numbers means unknown, as everywhere here; it is told in ``messages``.

    Raises
    ------
    UserError
        If the only class numbers are -1 and 1, which could be two classes.
    """
    lists = next((cell for cell in cells if isinstance(cell, list | tuple | np.ndarray | Mapping)), None)
    if lists is not None:
        raise UserError(f"level '{level}' holds lists such as {str(lists)[:40]}: a sample has one class at each level")
    without = {*_UNKNOWN, *map(str, unknown)}
    names = [None if missing(cell) or str(cell).strip() in without else plain(cell) for cell in cells]
    minus = ("-1", "-1.0")
    marks = sum(str(name) in minus for name in names)
    others = {str(name) for name in names if name is not None and str(name) not in minus} if marks else set()
    if marks and all(re.fullmatch(r"\d+(\.0)?", other) for other in others):
        if others in ({"1"}, {"1.0"}):
            raise UserError(
                f"level '{level}' holds only -1 and 1: -1 means unknown here; for two classes write 0 and 1, or names"
            )
        messages.append(f"level '{level}': -1 is read as unknown ({marks} samples)")
        names = [None if str(name) in minus else name for name in names]
    return names


def path_columns(paths: Sequence[str | None], levels: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """``a/b/c`` paths as one column per level, where a class is its path: ``a``, ``a/b``, ``a/b/c``.

    Examples
    --------
    >>> path_columns(["a/x", "b", None])
    {'level1': ['a', 'b', None], 'level2': ['a/x', None, None]}
    """
    if not any(paths):
        return {}
    labels = Labels.from_paths(list(paths), levels)
    return {
        level: [None if code < 0 else names[code] for code in labels.level(level).tolist()]
        for level, names in zip(labels.levels, labels.classes, strict=True)
    }


def as_matrix(
    columns: Sequence[tuple[str, Column]], *, missing_allowed: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Columns of numbers side by side as float32 (N, D), and what is wrong with the first bad cell of a row.

    With ``missing_allowed`` an empty cell, NaN and NA are no fault; they are NaN in the result.

    Examples
    --------
    >>> as_matrix([("a", ["1", "x"]), ("b", [0.5, 2.0])])
    (array([[1. , 0.5],
           [nan, 2. ]], dtype=float32), {1: "holds 'x' in column 'a', which is not a number"})
    """
    wrong: dict[int, str] = {}
    blocks = []
    for name, column in columns:
        block = as_floats(column)
        with np.errstate(over="ignore"):
            single = block.astype(np.float32)
        for row in np.flatnonzero(~np.isfinite(single).all(axis=1)).tolist():
            if not (missing_allowed and _only_lacks_numbers(column[row], single[row])):
                wrong.setdefault(row, _what_is_wrong(name, column, row, single[row]))
        blocks.append(single)
    return np.concatenate(blocks, axis=1), wrong


def as_floats(column: Column) -> np.ndarray:
    """A column as float64 (N, D); NaN where there is no number."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64).reshape(len(column), -1)
    if isinstance(next((cell for cell in column if not missing(cell)), None), list | tuple | np.ndarray):
        lists = {row: cell for row, cell in enumerate(column) if isinstance(cell, list | tuple | np.ndarray)}
        width = Counter(map(len, lists.values())).most_common(1)[0][0]
        block = np.full((len(column), width), np.nan)
        for row, cell in lists.items():
            if len(cell) == width:
                try:
                    block[row] = cell
                except (TypeError, ValueError, OverflowError):
                    block[row] = [_as_float(number) for number in cell]
        return block
    try:
        return np.array(column, dtype=np.float64)[:, None]
    except (TypeError, ValueError, OverflowError):
        return np.array([_as_float(cell) for cell in column], dtype=np.float64)[:, None]


def _as_float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _only_lacks_numbers(cell: Any, numbers: np.ndarray) -> bool:
    """Whether all that is wrong with a cell, or with the numbers of a list, is that some are not there."""
    if np.isinf(numbers).any():
        return False
    if not isinstance(cell, list | tuple | np.ndarray):
        return is_missing_number(cell)
    absent = np.flatnonzero(np.isnan(numbers)).tolist()
    return len(cell) == len(numbers) and all(is_missing_number(cell[place]) for place in absent)


def is_missing_number(cell: Any) -> bool:
    """Whether a cell among numbers says that there is none: it is empty, or holds NaN or NA.

    Examples
    --------
    >>> [is_missing_number(cell) for cell in ("", "NA", "nan", "0", "none")]
    [True, True, True, False, False]
    """
    return missing(cell) or (isinstance(cell, str) and cell.strip().lower() in ("nan", "na"))


def _what_is_wrong(name: str, column: Column, row: int, numbers: np.ndarray) -> str:
    cell = column[row]
    if isinstance(cell, np.ndarray | list | tuple):
        if len(cell) != len(numbers):
            return f"has {len(cell)} numbers in column '{name}', other rows {len(numbers)}"
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        return f"holds {cell[place]} at place {place} of column '{name}', which is not a finite number"
    if missing(cell) and not isinstance(cell, float | np.floating):
        return f"is empty in column '{name}'"
    shown = f"'{cell}'" if isinstance(cell, str) else str(cell)
    if np.isfinite(_as_float(cell)):
        return f"holds {shown} in column '{name}', which is too large for a 32-bit number"
    finite = "a finite number" if shown.strip("'").lower().lstrip("+-") in ("nan", "inf", "infinity") else "a number"
    return f"holds {shown} in column '{name}', which is not {finite}"


def kind_of(column: Column) -> Kind:
    """What a column holds, judged by a sample of its cells."""
    if isinstance(column, np.ndarray):
        return "vectors" if column.ndim == 2 else "numbers" if column.dtype.kind in "iufb" else "other"
    step = max(1, len(column) // LOOKED_AT)
    cells = [cell for cell in column[::step] if not missing(cell)] or [c for c in column if not missing(c)]
    cells = [cell for cell in cells if not is_missing_number(cell)] or cells
    if not cells:
        return "other"
    first = cells[0]
    if isinstance(first, bytes) or (isinstance(first, Mapping) and {"bytes", "path"} & set(first)):
        return "bytes"
    if isinstance(first, list | tuple | np.ndarray):
        return "vectors" if all(isinstance(v, int | float | np.number) for v in first) else "other"
    numbers = sum(np.isfinite(_as_float(c)) for c in cells)
    if numbers >= 0.9 * len(cells):  # a stray word in a column of numbers is a mistake to be told, not another kind
        return "numbers"
    return "text" if isinstance(first, str) else "other"


def plain(cell: Any) -> Any:
    """A cell as a plain Python value."""
    return cell.item() if isinstance(cell, np.generic) else cell
