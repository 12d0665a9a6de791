"""Exact nearest neighbours by cosine similarity, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_unit_vectors, exact_products

BLOCK_ELEMENTS = 2**22
"""Elements of the similarities that are held at once: 16 MB in float32."""

FEW_NEIGHBOURS = 128
"""More neighbours than this are sought in whole rows: updating that many from block to block costs more."""


def nearest_neighbours(
    query: ArrayLike | Tensor,
    gallery: ArrayLike | Tensor | Sequence[np.ndarray | Tensor],
    k: int,
    *,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query: exact, and of equally similar rows the first ones.

    Besides inputs and results at most some 200 MB are held (float32), and a normalised copy of the queries and of the
    gallery; of a gallery in shards only of one shard at a time. Where ``gallery`` is the very object ``query``, only
    one triangle of the similarities is computed. Returns (n, k) cosine similarities, falling, and (n, k) int64 gallery
    indices, on the device of the input.

    Parameters
    ----------
    query
        (n, d) array or tensor of floats; normalised here.
    gallery
        (m, d) array or tensor of floats; or shards of it, a sequence of arrays or tensors (m_i, d) whose rows are
        counted on from one to the next. Shards may be memory maps of more than memory holds: each is read once.
    k
        Neighbours for each query: 1 to m, or to m - 1 with ``exclude_self``.
    exclude_self
        Whether query i may not retrieve gallery row i (needs n = m). The index decides, so a duplicate is retrieved.

    Examples
    --------
    >>> import torch
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1].flatten()
    tensor([1, 0, 1])
    >>> nearest_neighbours(vectors, [vectors[:1], vectors[1:]], 1, exclude_self=True)[1].flatten()
    tensor([1, 0, 1])
    """
    queries = as_unit_vectors(query, "query")
    if _in_shards(gallery):
        units = (
            as_unit_vectors(shard, f"gallery[{number}]").to(queries)
            for number, shard in enumerate(gallery)
            if len(shard)
        )
        _check(queries, [shard.shape[1] for shard in gallery], sum(map(len, gallery)), k, exclude_self)
        return _block_by_block(queries, units, k, exclude_self)
    candidates = queries if gallery is query else as_unit_vectors(gallery, "gallery")
    blocks = list(neighbour_blocks(queries, candidates, k, exclude_self=exclude_self))
    return torch.cat([similarity for similarity, _ in blocks]), torch.cat([index for _, index in blocks])


def _in_shards(gallery: Any) -> TypeGuard[Sequence[np.ndarray | Tensor]]:
    """Whether it is a sequence of matrices, and not one matrix (which may be a list of lists)."""
    return isinstance(gallery, list | tuple) and all(getattr(shard, "ndim", 0) == 2 for shard in gallery)


def neighbour_blocks(query: Tensor, gallery: Tensor, k: int, *, exclude_self: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The same for unit vectors, a block of consecutive queries at a time."""
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    query, gallery = query.to(dtype), gallery.to(dtype)  # one tensor stays one
    _check(query, [gallery.shape[1]], len(gallery), k, exclude_self)
    if k <= FEW_NEIGHBOURS:
        yield _block_by_block(query, [gallery], k, exclude_self)
        return
    size = min(len(query), max(1, BLOCK_ELEMENTS // len(gallery)))
    buffer = query.new_empty(size * len(gallery))
    for start in range(0, len(query), size):
        rows = slice(start, min(start + size, len(query)))
        similarity = _similarity(query[rows], gallery, buffer)
        if exclude_self:
            similarity[:, rows].fill_diagonal_(-torch.inf)
        yield _largest(similarity, k)


def _check(query: Tensor, widths: Sequence[int], items: int, k: int, exclude_self: bool) -> None:
    """Raise a UserError where queries and gallery do not fit, or have too few rows for k neighbours."""
    wrong = [width for width in widths if width != query.shape[1]]
    if wrong:
        raise UserError(
            f"query has {query.shape[1]} dimensions, gallery {wrong[0]}: they must be the same", code="wrong_shape"
        )
    if exclude_self and len(query) != items:
        raise UserError(
            f"exclude_self needs as many queries as gallery rows, got {len(query)} and {items}", code="wrong_shape"
        )
    available = items - exclude_self
    if not 1 <= k <= available:
        raise UserError(
            f"k = {k} neighbours were asked for, but each query has {available} to retrieve"
            f"{' besides itself' if exclude_self else ''}: k must lie between 1 and that",
            code="out_of_range",
        )


def _block_by_block(query: Tensor, shards: Iterable[Tensor], k: int, exclude_self: bool) -> tuple[Tensor, Tensor]:
    """Neighbours kept up to date over blocks of similarities; within one set a block also serves its columns.

    Either way a row meets its columns in rising order, so that of equal similarities the first are kept.
    """
    best = query.new_full((len(query), k), -torch.inf)
    best_index = torch.zeros(len(query), k, dtype=torch.long, device=query.device)
    size = math.isqrt(BLOCK_ELEMENTS)
    buffer = query.new_empty(size * size)
    first = 0  # the shard's first row, counted from the first of the gallery
    for gallery in shards:
        within = gallery is query
        column_blocks = _blocks(len(gallery), size)
        for i, rows in enumerate(_blocks(len(query), size)):
            for columns in column_blocks[i if within else 0 :]:
                similarity = _similarity(query[rows], gallery[columns], buffer)
                start = first + columns.start
                if exclude_self:
                    similarity.diagonal(rows.start - start).fill_(-torch.inf)  # often outside the block, and empty
                _improve(best[rows], best_index[rows], similarity, start)
                if within and rows != columns:
                    _improve(best[columns], best_index[columns], similarity.T, rows.start)
        first += len(gallery)
    return best, best_index


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _improve(best: Tensor, best_index: Tensor, similarity: Tensor, offset: int) -> None:
    """Take the rows (b, m) that hold something above their k-th best so far into the best; column 0 is ``offset``."""
    k = best.shape[1]
    rows = (similarity.amax(dim=1) > best[:, -1]).nonzero()[:, 0]
    if not len(rows):
        return
    value, column = _largest(similarity[rows], min(k, similarity.shape[1]))
    value, order = torch.cat([best[rows], value], dim=1).sort(dim=1, descending=True, stable=True)
    index = torch.cat([best_index[rows], column + offset], dim=1).gather(1, order)
    best[rows], best_index[rows] = value[:, :k], index[:, :k]


def _similarity(query: Tensor, gallery: Tensor, buffer: Tensor) -> Tensor:
    """(b, m) products, written into ``buffer``: fresh memory for each block costs page faults."""
    out = buffer[: len(query) * len(gallery)].view(len(query), len(gallery))
    with exact_products(query):
        return torch.mm(query, gallery.T, out=out)


def _largest(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, falling, and their columns; of equal values the first columns."""
    value, column = matrix.topk(min(k + 1, matrix.shape[1]), dim=1)
    if value.shape[1] > k:
        tied = value[:, k - 1] == value[:, k]
        if tied.any():
            column[tied, :k] = _first_of_equal(matrix[tied], value[tied, k - 1 : k], k)
        column = column[:, :k]
    column = column.sort(dim=1).values
    value, order = matrix.gather(1, column).sort(dim=1, descending=True, stable=True)
    return value, column.gather(1, order)


def _first_of_equal(matrix: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Columns of all values above the row's threshold, filled up to k with the first that equal it."""
    above, equal = matrix > threshold, matrix == threshold
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)
