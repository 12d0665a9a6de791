"""Columns of any source: their names, parts put together, declared classes, and that there are rows."""

from __future__ import annotations

import operator
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regrain.coded import Coded
from regrain.data.cells import Column
from regrain.data.rows import RowError
from regrain.errors import UserError, examples


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


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that is not taken yet.

    Examples
    --------
    >>> free_name("group", ["id", "group"])
    'group_'
    """
    while name in taken:
        name += "_"
    return name
