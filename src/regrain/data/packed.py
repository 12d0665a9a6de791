"""Columns of texts, such as ids and paths, without a Python object a row.

NumPy keeps the texts of such an array side by side: 16 bytes each, and their length where that is over 15 bytes. Where
many processes of a machine read the same data, this is a fifth of what Python's strings would take in each of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from regrain.coded import Coded

_BLOCK = 65536


def packed(texts: Collection[Any]) -> np.ndarray:
    """Texts as an array (N,) of NumPy's strings; of Python's, where one holds what UTF-8 cannot (a lone surrogate).

    Examples
    --------
    >>> ids = packed(["a/1.png", "b/2.png"])
    >>> ids[1], (ids == "a/1.png").tolist(), ids.tolist()
    ('b/2.png', [True, False], ['a/1.png', 'b/2.png'])
    """
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "T":
        return texts
    if isinstance(texts, Coded):
        return packed(texts.cells)[texts.codes]
    result: np.ndarray = np.empty(len(texts), dtype=np.dtypes.StringDType())
    start = 0
    try:
        for block in _blocks(texts):
            result[start : start + len(block)] = [str(text) for text in block]
            start += len(block)
    except UnicodeEncodeError:
        if isinstance(texts, np.ndarray) and texts.dtype == object:
            return texts
        result = np.empty(len(texts), dtype=object)
        result[:] = list(texts)
    return result


def stripped(texts: np.ndarray) -> np.ndarray:
    """An array of NumPy's strings without spaces around them; an empty text for what is missing."""
    result = np.empty(len(texts), dtype=np.dtypes.StringDType())
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = ["" if text is None else text.strip() for text in texts[block]]
    return result


def _blocks(values: Iterable[Any]) -> Iterator[list[Any]]:
    """The values in lists of some thousands, so that no list of all of them is made."""
    left = iter(values)
    while block := list(islice(left, _BLOCK)):
        yield block


def keys_of(ids: Iterable[Any], count: int) -> np.ndarray:
    """A hash of each id, int64 (N,): stable over runs and machines.

    Examples
    --------
    >>> keys_of(["a", "b", "a"], 3).tolist()
    [3405396810240292928, 8453121595177857668, 3405396810240292928]
    """

    def key(identity: Any) -> int:
        digest = hashlib.blake2b(str(identity).encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True)

    return np.fromiter(map(key, ids), np.int64, count)


def repeated(codes: np.ndarray) -> np.ndarray:
    """The rows, rising, whose code occurs more than once: of hashes, the only rows whose texts may be equal.

    Examples
    --------
    >>> repeated(np.array([5, 7, 5, 2, 7])).tolist()
    [0, 1, 2, 4]
    """
    order = np.argsort(codes, kind="stable")
    same = codes[order[1:]] == codes[order[:-1]]
    if not same.any():
        return np.empty(0, dtype=np.int64)
    either = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    return np.sort(order[either])


def are_different(cells: Collection[Any], text_of: Callable[[Any], str] = str) -> bool:
    """Whether no text comes back.

    Examples
    --------
    >>> are_different(["a", "b"]), are_different(["a", " b", "b "], str.strip)
    (True, False)
    """
    candidates = repeated(_hashes(cells, text_of)).tolist()
    found = {text_of(cells[row]) for row in candidates}  # type: ignore[index]  # lists and arrays
    return len(found) == len(candidates)


def count_different(cells: Collection[Any], text_of: Callable[[Any], str] = str) -> int:
    """How many different texts there are, by their hashes.

    Examples
    --------
    >>> count_different(["a", "b", "a"])
    2
    """
    return len(np.unique(_hashes(cells, text_of)))


def _hashes(cells: Collection[Any], text_of: Callable[[Any], str]) -> np.ndarray:
    return np.fromiter((hash(text_of(cell)) for cell in cells), np.int64, len(cells))
