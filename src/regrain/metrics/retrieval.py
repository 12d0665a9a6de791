"""Retrieval: exact nearest neighbours by cosine, and Recall@K, precision@K and MAP@R over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels, as_unit_vectors, exact_products

BLOCK_ELEMENTS = 2**24
"""Elements of the largest block of similarities that is held at once: 64 MB in float32."""

_GROUP = 16
_FEW_NEIGHBOURS = 64


def nearest_neighbours(
    query: ArrayLike | Tensor, gallery: ArrayLike | Tensor, k: int, *, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    """The k most similar gallery rows of each query by cosine: exact, and of equally similar rows the first come first.

    Memory beside the result stays below some 300 MB in float32. Where ``gallery`` is the very object ``query``, only
    one triangle of the similarities is computed.

    Parameters
    ----------
    query, gallery
        (n, d) and (m, d) arrays or tensors of floats; normalised here.
    k
        Neighbours for each query, from 1 to m (m - 1 with ``exclude_self``).
    exclude_self
        Whether query i may not retrieve gallery row i (needs n = m). It is excluded by its index, so a duplicate of it
        is retrieved.

    Returns
    -------
    (n, k) cosine similarities in falling order, and (n, k) int64 gallery indices, on the device of the input.

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
    _check_neighbours(queries, candidates, k, exclude_self)
    parts = [part for _, *part in _neighbour_blocks(queries, candidates, k, exclude_self)]
    similarity, index = zip(*parts, strict=True)
    return torch.cat(similarity), torch.cat(index)
