"""Columns of which many cells are alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

_BLOCK = 65536


class Coded(Sequence[Any]):
    """Cells of a column, of which many are alike: each is kept once, and its number for every row.

    Cells may be spelled alike; there is none that no row has.

    Examples
    --------
    >>> column = Coded.of(["cat", None, "cat", "dog"])
    >>> column.cells, column.codes.tolist(), column[2], list(column.mapped(str))
    (('cat', None, 'dog'), [0, 1, 0, 2], 'cat', ['cat', 'None', 'cat', 'dog'])
    """

    def __init__(self, codes: np.ndarray, cells: Sequence[Any]) -> None:
        self.codes = codes.astype(np.min_scalar_type(max(1, len(cells))), copy=False)
        self.cells = tuple(cells)

    @classmethod
    def of(cls, cells: Iterable[Hashable]) -> Coded:
        """Cells that are equal only where they are the same, such as texts."""
        if isinstance(cells, Coded):
            return cells
        places: dict[Hashable, int] = {}
        codes = np.fromiter((places.setdefault(cell, len(places)) for cell in cells), np.int32)
        return cls(codes, list(places))

    @classmethod
    def computed(cls, cells: Sequence[Any] | np.ndarray, function: Callable[[Any], Hashable]) -> Coded:
        """The column of what the function makes of each cell; of texts that are alike it sees one.

        Examples
        --------
        >>> list(Coded.computed(["a", None, "a", 2.5], str))
        ['a', 'None', 'a', '2.5']
        """
        if isinstance(cells, Coded):
            return cells.mapped(function)
        texts = {cell: function(cell) for cell in {cell for cell in cells if isinstance(cell, str)}}
        return cls.of(texts[cell] if isinstance(cell, str) else function(cell) for cell in cells)

    def mapped(self, function: Callable[[Any], Any]) -> Coded:
        """The column of what the function makes of each cell."""
        return Coded(self.codes, [function(cell) for cell in self.cells])

    def select(self, rows: np.ndarray | slice) -> Coded:
        """The cells of some rows."""
        codes, used = self.codes[rows], np.zeros(len(self.cells), dtype=bool)
        used[codes] = True
        numbers = (np.cumsum(used) - 1).astype(codes.dtype)
        return Coded(numbers[codes], [self.cells[place] for place in np.flatnonzero(used).tolist()])

    def rows_of(self, value: Any) -> np.ndarray:
        """The rows that have this cell, rising."""
        return np.flatnonzero(np.isin(self.codes, [code for code, cell in enumerate(self.cells) if cell == value]))

    def count(self, value: Any) -> int:
        """How many rows have this cell."""
        return len(self.rows_of(value))

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, rows: int) -> Any: ...
    @overload
    def __getitem__(self, rows: slice) -> Coded: ...
    def __getitem__(self, rows: int | slice) -> Any:
        return self.select(rows) if isinstance(rows, slice) else self.cells[self.codes[rows]]

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _BLOCK):
            yield from map(self.cells.__getitem__, self.codes[start : start + _BLOCK].tolist())
