"""Contents of a column's cells: numbers, class names, names of splits, or missing.

One parser for all formats: a column of CSV, Parquet, JSON, a DataFrame or an array that says the same gives the same
numbers, class names and ids.
"""

from __future__ import annotations

import datetime
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import numpy as np

from regrain.coded import Coded
from regrain.data.notation import PLAIN, Notation, is_date, plain_number, whole_number
from regrain.data.packed import packed
from regrain.errors import UserError, examples
from regrain.labels import Labels, missing
from regrain.spelling import readable

Column = Sequence[Any] | np.ndarray
"""Cells, None where there is none; an array of numbers (N,) or (N, D), or of NumPy's strings (N,)."""

Kind = Literal["bytes", "numbers", "booleans", "vectors", "dates", "text", "empty", "other"]
"""Kinds of content of a column; bytes are encoded images."""


class Contents(NamedTuple):
    """Contents of a column: their kind, the notation of numbers (None: no text is a number), why none are numbers."""

    kind: Kind
    notation: Notation | None = None
    reason: str = ""


_SPELLED = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
SPLITS = {spelling: split for split, spellings in _SPELLED.items() for spelling in spellings}
"""Names of splits in lower case, and what they are called here."""

LOOKED_AT = 1000
"""Largest number of cells by which a column is judged."""

_UNKNOWN = ("", "nan", "NaN")
"""Spellings of unknown labels, besides empty cells: any other text in a cell may be the name of a class."""

LIKE_UNKNOWN = ("na", "n/a", "none", "null", "unknown", "?", "-")
"""Classes, in lower case, that a warning asks about."""

_LONGEST_NAME = 10_000
_SHOWN = 3
_DATES = "holds dates: write a number, such as the days since a start"
_NUMBER_LIKE = re.compile(r"\W{0,2}[\d.,_' ]+\W{0,2}")

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_formula(text: str) -> str:
    """Escape a CSV cell so that no spreadsheet runs it as a formula; numbers stay as they are.

    Spreadsheets run what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return (OWASP, "CSV injection"),
    and show what follows an apostrophe as it is. Where apostrophes stand before such a character already, one more is
    put before them, so that :func:`unescape_formula` gives every text back.

    Examples
    --------
    >>> [escape_formula(text) for text in ("=1+1", "-2.5", "-a", "'=", "a=b")]
    ["'=1+1", '-2.5', "'-a", "''=", 'a=b']
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """Undo :func:`escape_formula`.

    Examples
    --------
    >>> [unescape_formula(escape_formula(text)) for text in ("=1+1", "-2.5", "'=", "'quoted'")]
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


def different(column: Column) -> Iterable[Any]:
    """Every cell that a column has, once where it is known which are alike."""
    return column.cells if isinstance(column, Coded) else column


def numbered(count: int, splits: Iterable[str] | None = None) -> np.ndarray:
    """Ids for rows that have none: the row's number, within its split where splits are separate files.

    Examples
    --------
    >>> numbered(3, ["train", "train", "test"]).tolist()
    ['train/0', 'train/1', 'test/0']
    """
    if splits is None:
        return packed(range(count))
    of_rows = Coded.of(splits)
    ids = np.empty(count, dtype=np.dtypes.StringDType())
    for split in dict.fromkeys(of_rows.cells):
        rows = of_rows.rows_of(split)
        for start in range(0, len(rows), LOOKED_AT):
            block = rows[start : start + LOOKED_AT]
            ids[block] = [f"{readable(split)}/{start + place}" for place in range(len(block))]
    return ids


def spelled(cell: Any) -> str:
    """Spell a cell as an id, a group or a class; texts keep their spelling without surrounding spaces.

    Examples
    --------
    >>> [spelled(cell) for cell in (" 007 ", 7, np.float32(0.1), True, datetime.datetime(2024, 1, 31))]
    ['007', '7', '0.1', 'True', '2024-01-31']
    """
    if isinstance(cell, bytes):
        cell = cell.decode("utf-8", "replace")
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time() and cell.tzinfo is None:
        cell = cell.date()
    return str(cell).strip()


def label_names(cells: Column, unknown: Sequence[str], level: str, messages: list[str]) -> Coded:
    """Class names of one level, None where the class is not known.

    A class is one however it is spelled: where all cells are whole numbers, ``1``, ``1.0`` and ``1e0`` are the class
    ``1``; where all are true or false, in whatever case, the classes are ``True`` and ``False``; two Unicode forms of
    a name are one. Anything else stays as it is written, so that ``007`` is not ``7``. A message reports spellings
    that were put together, and -1 among class numbers, which means unknown as everywhere here.

    Raises a UserError if the only class numbers are -1 and 1, which could be two classes; for cells that are not class
    names.

    Examples
    --------
    >>> told = []
    >>> for cells in (["1", "1.0", "", "02e0"], [1.0, np.nan, 2.0], ["1", "1.0", None]):
    ...     print(list(label_names(cells, (), "kind", told)))
    ['1', '1.0', None, '02e0']
    ['1', None, '2']
    ['1', '1', None]
    >>> told
    ["level 'kind': '1' and '1.0' are one class, '1'"]
    """
    lists = next((cell for cell in different(cells) if isinstance(cell, list | tuple | np.ndarray | Mapping)), None)
    if lists is not None:
        raise UserError(f"level '{level}' holds lists such as {str(lists)[:40]}: a sample has one class at each level")
    longest = max((cell for cell in different(cells) if isinstance(cell, str)), key=len, default="")
    if len(longest) > _LONGEST_NAME:
        raise UserError(
            f"level '{level}' holds a cell of {len(longest):,} characters ('{longest[:20]}...'), which is not the name "
            "of a class: name another column"
        )
    without = {*_UNKNOWN, *map(str, unknown)}

    def class_name(cell: Any) -> str | None:
        return None if missing(cell) or (text := spelled(cell)) in without else text

    texts = Coded.computed(cells, class_name)
    written = {text for text in texts.cells if text is not None}
    whole = {text: whole_number(text) for text in written}
    if all(whole.values()):
        one = {text: str(name) for text, name in whole.items()}
    elif {text.lower() for text in written} <= {"true", "false"}:
        one = {text: text.capitalize() for text in written}
    else:
        one = {text: unicodedata.normalize("NFC", text) for text in written}
    messages += _joined(one, level)
    names = texts.mapped(one.get)
    marks = names.count("-1")
    others = {*one.values()} - {"-1"} if marks else set()
    if marks and all(map(str.isdecimal, others)):
        if others == {"1"}:
            raise UserError(
                f"level '{level}' holds only -1 and 1: -1 means unknown here; for two classes write 0 and 1, or names"
            )
        messages.append(f"level '{level}': -1 is read as unknown ({marks} samples)")
        names = names.mapped(lambda name: None if name == "-1" else name)
    return names


def _joined(one: Mapping[str, str], level: str) -> Iterator[str]:
    """A message for spellings that became one class."""
    spellings: dict[str, list[str]] = {}
    for text in sorted(one):
        spellings.setdefault(one[text], []).append(text)
    joined = [(name, texts) for name, texts in spellings.items() if len(texts) > 1]
    for name, texts in joined[:_SHOWN]:
        yield f"level '{level}': {' and '.join(map(repr, texts[:_SHOWN]))} are one class, '{name}'"
    if len(joined) > _SHOWN:
        yield f"level '{level}': {len(joined) - _SHOWN} more classes have several spellings"


def meaning(name: str) -> str:
    """The meaning of a class name whatever its spelling: the value of a number, else its letters in one form.

    Examples
    --------
    >>> meaning("1.0") == meaning("01"), meaning("Blue  Tit") == meaning("blue tit"), meaning("1.5")
    (True, True, '1.5')
    """
    number = plain_number(name) if len(name) < 32 else None
    if number is not None and np.isfinite(number):
        return f"{number:.15g}"
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Find classes whose names differ only in case, width, Unicode form, spaces or the spelling of a number.

    Examples
    --------
    >>> _look_alikes(["Dog", "cat", "dog", "7", "007"])
    [['Dog', 'dog'], ['7', '007']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(meaning(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


class Twins(NamedTuple):
    """Classes of a level whose names look alike, in groups."""

    level: str
    groups: Sequence[Sequence[str]]

    def __str__(self) -> str:
        shown = examples([" and ".join(map(repr, names[:3])) for names in self.groups])
        return (
            f"level '{self.level}': classes look alike: {shown}. Their names differ in case, width, spaces or the "
            "spelling of a number alone: write them alike where they are one"
        )


def twins(labels: Labels) -> list[Twins]:
    """Classes that may be one, by level."""
    found = zip(labels.levels, map(_look_alikes, labels.classes), strict=True)
    return [Twins(level, groups) for level, groups in found if groups]


def spelled_as(labels: Labels, own: Labels) -> Labels:
    """Rename classes to a run's own names where both mean the same: the run's ``1.0`` for a ``1``.

    Examples
    --------
    >>> own, new = Labels.from_columns({"kind": ["1.0", "1.5"]}), Labels.from_columns({"kind": ["1", "2"]})
    >>> spelled_as(new, own).classes
    (('1.0', '2'),)
    """
    if labels.levels == own.levels and labels.classes == own.classes:
        return labels
    renamed = {level: _renamed(labels.names(level), own.names(level)) for level in labels.levels if level in own.levels}
    if not any(renamed.values()):
        return labels
    classes = tuple(
        tuple(renamed.get(level, {}).get(name, name) for name in names)
        for level, names in zip(labels.levels, labels.classes, strict=True)
    )
    taxonomy = None if labels.taxonomy is None else replace(labels.taxonomy, classes=classes)
    return replace(labels, classes=classes, taxonomy=taxonomy)


def _renamed(names: Sequence[str], own: Sequence[str]) -> dict[str, str]:
    """Map names unknown to a run to its classes that mean the same number, truth value or letters."""
    unknown = [name for name in names if name not in set(own)]
    if not unknown:
        return {}
    known: dict[str, list[str]] = {}
    for name in own:
        known.setdefault(_exact_meaning(name), []).append(name)
    found = {name: known.get(_exact_meaning(name), []) for name in unknown}
    targets = Counter([*names, *(same[0] for same in found.values() if len(same) == 1)])
    return {name: same[0] for name, same in found.items() if len(same) == 1 and targets[same[0]] == 1}


def _exact_meaning(name: str) -> str:
    """As :func:`meaning`, but names that differ in case or spaces are two."""
    whole = whole_number(name)
    if whole is not None:
        return whole
    number = plain_number(name) if len(name) < 32 and not re.match(r"[+-]?0\d", name) else None
    if number is not None and np.isfinite(number):
        return f"{number:.15g}"
    return name.lower() if name.lower() in ("true", "false") else unicodedata.normalize("NFC", name)


def as_matrix(
    columns: Iterable[tuple[str, Column]], *, count: int, missing_allowed: bool = False
) -> tuple[np.ndarray, dict[int, str]]:
    """Columns of numbers side by side as float32 (N, D), and what is wrong with the first bad cell of a row.

    Each of the ``count`` columns is looked at once, so that they may be read one after the other. With
    ``missing_allowed`` an empty cell, NaN and NA are not faults; they are NaN in the result.

    Examples
    --------
    >>> as_matrix([("a", ["1", "x"]), ("b", [0.5, 2.0])], count=2)
    (array([[1. , 0.5],
           [nan, 2. ]], dtype=float32), {1: "holds 'x' in column 'a', which is not a number"})
    """
    wrong: dict[int, str] = {}
    blocks: list[np.ndarray] = []
    plain: np.ndarray | None = None  # of columns of single numbers, as most are
    for place, (name, column) in enumerate(columns):
        single = as_singles(column)
        for row in np.flatnonzero(~np.isfinite(single).all(axis=1)).tolist():
            if not (missing_allowed and _only_lacks_numbers(column[row], single[row])):
                wrong.setdefault(row, _what_is_wrong(name, column, row, single[row]))
        if count > 1 and single.shape[1] == 1 and len(blocks) == (plain is not None):
            if plain is None:
                plain = np.empty((len(single), count), dtype=np.float32)
                blocks = [plain[:, :0]]
            plain[:, place] = single[:, 0]
            blocks = [plain[:, : place + 1]]
        else:
            blocks.append(single)
    if plain is not None and len(blocks) == 1 and blocks[0].shape == plain.shape:
        return plain, wrong
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1), wrong


def as_singles(column: Column) -> np.ndarray:
    """Convert a column to float32 (N, D), as :func:`as_floats` does; numbers that are too large become infinite."""
    if isinstance(column, np.ndarray) and column.dtype.kind == "f" and column.dtype.itemsize <= 4:
        return column.astype(np.float32, copy=False).reshape(len(column), -1)
    with np.errstate(over="ignore"):
        return as_floats(column).astype(np.float32)


def as_floats(column: Column) -> np.ndarray:
    """Convert a column to float64 (N, D); NaN for cells that are not numbers in plain notation."""
    if isinstance(column, np.ndarray) and column.dtype.kind != "T":
        return column.astype(np.float64).reshape(len(column), -1)
    if isinstance(column, Coded):
        return as_floats(column.cells)[column.codes]
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
    numbers = _all_numbers(column)
    if numbers is None:
        numbers = np.array([_as_float(cell) for cell in column], dtype=np.float64)
    return numbers[:, None]


def _all_numbers(column: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """Convert a column of only plain numbers to float64 (N,) at once; return None for any other."""
    if isinstance(column, Coded):
        numbers = _all_numbers(column.cells)
        return None if numbers is None else numbers[column.codes]
    try:
        float(next((cell for cell in column if isinstance(cell, str)), "0"))
    except ValueError:
        return None  # and the others need not be looked at
    texts = [cell for cell in column if isinstance(cell, str)]
    if "_" in "".join(texts) or max(map(len, texts), default=0) > 64:  # Python reads 1_0 as 10
        return None
    try:
        if len(texts) == len(column):
            return np.fromiter(map(float, texts), np.float64, len(texts))
        return np.array(column, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def numbers_of(column: Column, contents: Contents) -> Column:
    """Convert texts of a column that hold numbers in its notation; other cells stay unchanged.

    Examples
    --------
    >>> prices = ["$1,024.50", "", "$7"]
    >>> numbers_of(prices, contents_of(prices))
    [1024.5, '', 7.0]
    """
    if isinstance(column, np.ndarray) and column.dtype.kind != "T":
        return column
    if contents.kind == "vectors":
        return [_listed(cell) if isinstance(cell, str) else cell for cell in column]
    notation = contents.notation
    if notation is None or notation == PLAIN:
        return column

    def read(cell: Any) -> Any:
        number = notation.read(cell) if isinstance(cell, str) else None
        return cell if number is None else number

    if isinstance(column, Coded):
        return column.mapped(read)
    known = {cell: read(cell) for cell in {cell for cell in column if isinstance(cell, str)}}
    return [known[cell] if isinstance(cell, str) else cell for cell in column]


def _as_float(cell: Any) -> float:
    if isinstance(cell, str):
        number = plain_number(cell) if len(cell) <= 400 else None
        return float("nan") if number is None else number
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _only_lacks_numbers(cell: Any, numbers: np.ndarray) -> bool:
    """Whether the only fault of a cell, or of a list of numbers, is missing numbers."""
    if np.isinf(numbers).any():
        return False
    if not isinstance(cell, list | tuple | np.ndarray):
        return is_missing_number(cell)
    absent = np.flatnonzero(np.isnan(numbers)).tolist()
    return len(cell) == len(numbers) and all(is_missing_number(cell[place]) for place in absent)


def is_missing_number(cell: Any) -> bool:
    """Whether a cell in a column of numbers is missing: empty, NaN or NA.

    Examples
    --------
    >>> [is_missing_number(cell) for cell in ("", "NA", "nan", "0", "none")]
    [True, True, True, False, False]
    """
    return missing(cell) or (isinstance(cell, str) and len(cell) < 64 and cell.strip().lower() in ("nan", "na"))


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


def contents_of(column: Column, notation: Notation | None = None) -> Contents:
    """Determine the contents of a column; a notation of numbers other than the plain one is judged by every cell.

    Parameters
    ----------
    notation : Notation, optional
        How an earlier table wrote this column: it counts where it fits.

    Examples
    --------
    >>> [contents_of(column).kind for column in (["1", "2", ""], ["Yes", "no"], [b""], ["2024-01-31"], ["a", "1"])]
    ['numbers', 'booleans', 'bytes', 'dates', 'text']
    >>> contents_of(["1,024", "7"]).reason
    "writes numbers such as '1,024', where the comma could mark thousands or decimals: write them without it"
    """
    if isinstance(column, np.ndarray) and column.dtype.kind != "T":
        if column.ndim == 2:
            return Contents("vectors")
        if column.dtype.kind not in "iufb":
            return Contents("other", reason=f"holds {column.dtype} values")
        if column.dtype.kind == "f" and bool(np.isnan(column).all()):
            return Contents("empty", reason="is empty")
        return Contents("booleans" if column.dtype.kind == "b" else "numbers")
    if notation in (None, PLAIN) and len(column) and isinstance(column[0], str):
        numbers = _all_numbers(column)  # most columns are plain
        if numbers is not None and np.isfinite(numbers).mean() >= 0.9:
            return Contents("numbers", PLAIN)
    step = max(1, len(column) // LOOKED_AT)
    cells = [cell for cell in column[::step] if not missing(cell)] or [c for c in column if not missing(c)]
    cells = [cell for cell in cells if not is_missing_number(cell)] or cells
    if not cells:
        return Contents("empty", reason="is empty")
    first = cells[0]
    if isinstance(first, bytes) or (isinstance(first, Mapping) and {"bytes", "path"} & set(first)):
        return Contents("bytes", reason="holds bytes")
    if isinstance(first, list | tuple | np.ndarray):
        if all(isinstance(v, int | float | np.number) for v in first):
            return Contents("vectors")
        nested = isinstance(first[0], list | tuple | np.ndarray)
        reason = "holds lists of lists, which are not samples" if nested else "holds lists that are not of numbers"
        return Contents("other", reason=reason)
    if isinstance(first, bool | np.bool_) and all(isinstance(cell, bool | np.bool_) for cell in cells):
        return Contents("booleans")
    if isinstance(first, datetime.date | np.datetime64):
        return Contents("dates", reason=_DATES)
    if not isinstance(first, str | int | float | np.number | Decimal):
        return Contents("other", reason=f"holds values of the type {type(first).__name__}")
    some = {cell for cell in cells if isinstance(cell, str)}
    mostly_numbers = sum(np.isfinite(_as_float(c)) for c in cells) >= 0.9 * len(cells)
    if isinstance(first, str) and notation in (None, PLAIN) and not mostly_numbers and _are_words(some):
        return _of_texts(some)  # other cells could not make numbers of them
    whole = {cell for cell in different(column) if isinstance(cell, str) and not is_missing_number(cell)}
    if notation not in (None, PLAIN) and whole and all(map(notation.fits, whole)):  # type: ignore[union-attr]
        return Contents("booleans" if notation.truth else "numbers", notation)  # type: ignore[union-attr]
    if mostly_numbers:
        written = None if len(whole) == 0 else _fewer_faults(whole)
        return Contents("numbers", written or PLAIN)  # a stray word in a column of numbers is a mistake to report
    if not isinstance(first, str):
        return Contents("other", reason="holds numbers and texts")
    return _of_texts(whole)


def _fewer_faults(texts: set[str]) -> Notation | None:
    """The notation of all texts, where plain numbers such as 999 and others such as 1,024.5 stand in one column."""
    if all(plain_number(text) is not None for text in texts):
        return None
    try:
        return Notation.of(texts)
    except ValueError:
        return None


def _are_words(texts: set[str]) -> bool:
    """Whether no notation makes numbers of all of these texts, whatever others there are."""
    try:
        return Notation.of(texts) is None
    except ValueError:
        return False


def _of_texts(texts: set[str]) -> Contents:
    try:
        notation = Notation.of(texts)
    except ValueError as ambiguous:
        why = f"writes numbers such as '{ambiguous}', where the comma could mark thousands or decimals"
        return Contents("text", reason=f"{why}: write them without it")
    if notation is not None:
        return Contents("booleans" if notation.truth else "numbers", notation)
    few = list(texts)[:LOOKED_AT]
    if all(map(is_date, few)):
        return Contents("dates", reason=_DATES)
    if all(text.lstrip().startswith("[") for text in few) and all(_listed(text) is not text for text in few):
        return Contents("vectors")
    digits = sum(any(map(str.isdigit, text[:40])) and len(text) < 40 for text in few)
    if digits == len(few) and all(_NUMBER_LIKE.match(text.strip()) for text in few):
        ends = sorted(few, key=lambda text: (len(text), text))[:: max(1, len(few) - 1)][:2]
        return Contents("text", reason=f"holds numbers in several notations, such as {' and '.join(map(repr, ends))}")
    return Contents("text", reason=f"holds texts such as {min(few)[:40]!r}")


def _listed(text: str) -> Any:
    """Parse a list of numbers that a cell spells in brackets; return any other cell unchanged."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    numbers = isinstance(found, list) and all(n is None or isinstance(n, int | float) for n in found)
    return found if numbers else text


def plain(cell: Any) -> Any:
    """A cell as a plain Python value."""
    return cell.item() if isinstance(cell, np.generic) else cell
