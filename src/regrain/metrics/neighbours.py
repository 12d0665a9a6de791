"""Exact nearest neighbours by cosine similarity, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_unit_vectors, exact_products

BLOCK_ELEMENTS = 2**24
"""Elements of the largest block of similarities that is held at once: 64 MB in float32."""

GROUP = 16
"""Columns that are first represented by their largest value, where rows are wide."""

FEW_NEIGHBOURS = 32
"""Up to so many neighbours, halving the products is worth ranking each block in both directions."""


def nearest_neighbours(
    query: ArrayLike | Tensor, gallery: ArrayLike | Tensor, k: int, *, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query: exact, and of equally similar rows the first ones.

    Beside inputs and results at most some 300 MB are held (float32). Where ``gallery`` is the very object ``query``,
    only one triangle of the similarities is computed.

    Parameters
    ----------
    query, gallery
        (n, d) and (m, d) arrays or tensors of floats; normalised here.
    k
        Neighbours for each query: 1 to m, or to m - 1 with ``exclude_self``.
    exclude_self
        Whether query i may not retrieve gallery row i (needs n = m). The index decides, so a duplicate is retrieved.

    Returns
    -------
    (n, k) cosine similarities, falling, and (n, k) int64 gallery indices, on the device of the input.

    Raises
    ------
    UserError
        If a shape does not fit, k lies outside its range, or an embedding is not finite.

    Examples
    --------
    >>> import torch
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1].flatten()
    tensor([1, 0, 1])
    """
    queries = as_unit_vectors(query, "query")
    candidates = queries if gallery is query else as_unit_vectors(gallery, "gallery")
    blocks = list(neighbour_blocks(queries, candidates, k, exclude_self=exclude_self))
    return torch.cat([similarity for similarity, _ in blocks]), torch.cat([index for _, index in blocks])


def neighbour_blocks(query: Tensor, gallery: Tensor, k: int, *, exclude_self: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The same for unit vectors, a block of consecutive queries at a time."""
    dtype = torch.promote_types(query.dtype, gallery.dtype)
    query, gallery = query.to(dtype), gallery.to(dtype)  # one tensor stays one
    if query.shape[1] != gallery.shape[1]:
        raise UserError(f"query has {query.shape[1]} dimensions, gallery {gallery.shape[1]}: they must be the same")
    if exclude_self and len(query) != len(gallery):
        raise UserError(f"exclude_self needs as many queries as gallery rows, got {len(query)} and {len(gallery)}")
    available = len(gallery) - exclude_self
    if not 1 <= k <= available:
        raise UserError(
            f"k = {k} neighbours were asked for, but each query has {available} to retrieve"
            f"{' besides itself' if exclude_self else ''}: k must lie between 1 and that"
        )
    if gallery is query and k <= FEW_NEIGHBOURS:
        yield _mutual_neighbours(query, k, exclude_self)
        return
    size = min(len(query), max(1, BLOCK_ELEMENTS // len(gallery)))
    buffer = query.new_empty(size * len(gallery))
    for start in range(0, len(query), size):
        rows = slice(start, min(start + size, len(query)))
        similarity = _similarity(query[rows], gallery, buffer)
        if exclude_self:
            similarity[:, rows].fill_diagonal_(-torch.inf)
        yield largest(similarity, k)


def _mutual_neighbours(vectors: Tensor, k: int, exclude_self: bool) -> tuple[Tensor, Tensor]:
    """Neighbours within one set: each block of similarities serves its rows and, transposed, its columns.

    A row meets the blocks in the order of their columns, so a stable sort keeps the first of equally similar ones.
    """
    best = vectors.new_full((len(vectors), k), -torch.inf)
    best_index = torch.zeros(len(vectors), k, dtype=torch.long, device=vectors.device)

    def meet(rows: slice, columns: slice, similarity: Tensor) -> None:
        value, index = largest(similarity, min(k, similarity.shape[1]))
        value = torch.cat([best[rows], value], dim=1)
        index = torch.cat([best_index[rows], index + columns.start], dim=1)
        value, order = value.sort(dim=1, descending=True, stable=True)
        best[rows], best_index[rows] = value[:, :k], index.gather(1, order[:, :k])

    size = min(len(vectors), math.isqrt(BLOCK_ELEMENTS))
    buffer = vectors.new_empty(size * size)
    blocks = [slice(start, min(start + size, len(vectors))) for start in range(0, len(vectors), size)]
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            similarity = _similarity(vectors[rows], vectors[columns], buffer)
            if rows == columns and exclude_self:
                similarity.fill_diagonal_(-torch.inf)
            meet(rows, columns, similarity)
            if rows != columns:
                meet(columns, rows, similarity.T.contiguous())
    return best, best_index


def _similarity(query: Tensor, gallery: Tensor, buffer: Tensor) -> Tensor:
    """(b, m) products, written into ``buffer``: fresh memory for each block would cost a sixth of the time."""
    out = buffer[: len(query) * len(gallery)].view(len(query), len(gallery))
    with exact_products(query):
        return torch.mm(query, gallery.T, out=out)


def largest(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row, falling, and their columns; of equal values the first columns."""
    value, column = _largest_in_any_order(matrix, min(k + 1, matrix.shape[1]))
    if value.shape[1] > k:
        tied = value[:, k - 1] == value[:, k]
        if tied.any():
            column[tied, :k] = _first_of_equal(matrix[tied], value[tied, k - 1 : k], k)
        column = column[:, :k]
    column = column.sort(dim=1).values
    value, order = matrix.gather(1, column).sort(dim=1, descending=True, stable=True)
    return value, column.gather(1, order)


def _largest_in_any_order(matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values, falling, and columns that hold them, whichever of equal ones.

    The k groups of columns with the largest maxima contain k largest values: the others are not looked at.
    """
    groups = matrix.shape[1] // GROUP
    if groups < 2 * k:
        value, column = matrix.topk(k, dim=1)
        return value, column
    grouped = groups * GROUP
    group = matrix[:, :grouped].unflatten(1, (GROUP, groups)).amax(dim=1).topk(k, dim=1, sorted=False).indices
    members = group[:, None, :] + groups * torch.arange(GROUP, device=matrix.device)[:, None]
    rest = torch.arange(grouped, matrix.shape[1], device=matrix.device).expand(len(matrix), -1)
    candidates = torch.cat([members.flatten(1), rest], dim=1)
    value, at = matrix.gather(1, candidates).topk(k, dim=1)
    return value, candidates.gather(1, at)


def _first_of_equal(matrix: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Columns of all values above the row's threshold, filled up to k with the first that equal it."""
    above, equal = matrix > threshold, matrix == threshold
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)
