"""Retrieval: Recall@K, precision@K and MAP@R."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels, as_unit_vectors
from .neighbours import neighbour_blocks


@dataclass(frozen=True)
class Retrieval:
    """Result of :func:`retrieval_metrics`. Tensors are on the CPU, in the order of the labelled queries."""

    counts: dict[int, Tensor]
    """K -> (queries,) int64: how many of the K nearest items are of the query's class."""
    average_precision: Tensor | None
    """(queries - unmatched,) average precision at R, whose mean is MAP@R; None if not asked for."""
    unlabelled: int
    """Queries that were left out because their label is -1."""
    unmatched: int
    """Labelled queries whose class has no other item in the gallery: misses in recall, left out of MAP@R."""

    @property
    def hits(self) -> dict[int, Tensor]:
        """K -> (queries,) booleans, whose mean is Recall@K."""
        return {k: count > 0 for k, count in self.counts.items()}

    @property
    def recall(self) -> dict[int, float]:
        """Recall@K: the share of queries with an item of their class among the K nearest."""
        return {k: hit.double().mean().item() for k, hit in self.hits.items()}

    @property
    def precision(self) -> dict[int, float]:
        """Precision@K: the mean share of the query's class among the K nearest."""
        return {k: count.double().mean().item() / k for k, count in self.counts.items()}

    @property
    def map_at_r(self) -> float | None:
        """MAP@R over the queries that have anything to retrieve; None if not asked for, or if no query has."""
        found = self.average_precision
        return found.mean().item() if found is not None and len(found) else None


def recall_at_k(embeddings: ArrayLike | Tensor, labels: ArrayLike | Tensor, ks: Sequence[int]) -> dict[int, float]:
    """Recall@K: each sample retrieves its K nearest other samples; 1 if any of them shares its class.

    The result is K -> recall in [0, 1].

    Parameters
    ----------
    embeddings
        (n, d) array or tensor of floats, compared by cosine.
    labels
        (n,) integers; rows of -1 are left out on both sides.
    ks
        The K, each from 1 to the number of labelled samples minus one.

    Examples
    --------
    >>> import torch
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.5, 1.0]])
    >>> recall_at_k(embeddings, torch.tensor([0, 1, 1, 1]), ks=[1, 2])
    {1: 0.5, 2: 0.75}
    """
    return retrieval_metrics(embeddings, labels, ks=ks, map_at_r=False).recall


def retrieval_metrics(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    ks: Sequence[int],
    gallery: ArrayLike | Tensor | None = None,
    gallery_labels: ArrayLike | Tensor | None = None,
    queries: ArrayLike | Tensor | None = None,
    map_at_r: bool = True,
) -> Retrieval:
    """Recall@K, precision@K and MAP@R (Musgrave et al. 2020) from one search for neighbours.

    MAP@R: with R the number of gallery items of the query's class, the mean over ranks 1 to R of the precision up to
    that rank where the item there is of the class, else 0. It ranks R items, so it costs more where classes are large.

    Parameters
    ----------
    embeddings
        (n, d) queries, compared by cosine; without ``gallery`` each also is an item for the others, never for itself.
    labels
        (n,) integers; rows of -1 are left out.
    ks
        The K, each from 1 to the number of items a query can retrieve.
    gallery, gallery_labels
        (m, d) and (m,), items to retrieve that are other samples than the queries; rows of -1 are left out.
    queries
        (q,) rows that query all of the others, where not all do; not with ``gallery``.
    map_at_r
        Whether to compute MAP@R.

    Examples
    --------
    >>> import torch
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.5, 1.0], [0.3, 0.3]])
    >>> found = retrieval_metrics(embeddings, torch.tensor([0, 1, 1, 1, -1]), ks=[1])
    >>> found.recall, found.hits[1].tolist(), found.unlabelled, found.unmatched
    ({1: 0.5}, [False, False, True, True], 1, 1)
    """
    if (gallery is None) != (gallery_labels is None):
        raise UserError("gallery and gallery_labels belong together: give both or none", code="conflicting_options")
    if gallery is not None and queries is not None:
        raise UserError(
            "queries are rows that are items for the others: leave them out with a gallery", code="conflicting_options"
        )
    drawn = None if queries is None else torch.as_tensor(queries).long()
    if drawn is not None:
        known = as_labels(labels, len(torch.as_tensor(labels)), "labels").cpu() >= 0
        drawn = (known.cumsum(0) - 1)[drawn.cpu()[known[drawn.cpu()]]]  # their places among the labelled rows
    query, truth, unlabelled = _labelled(embeddings, labels, "embeddings", "labels")
    own = int(gallery is None)  # a query without a gallery of its own meets itself there, and may not retrieve it
    items, item_labels = query, truth
    if drawn is not None:
        if not len(drawn):
            raise UserError("labels: none of the queries' labels is known (all are -1)", code="no_labels")
        drawn = drawn.to(query.device)
        query, truth = query[drawn], truth[drawn]
    if gallery is not None and gallery_labels is not None:
        items, item_labels, _ = _labelled(gallery, gallery_labels, "gallery", "gallery_labels")
    ks = _checked_ks(ks, len(items) - own)
    relevant = _class_sizes(item_labels, truth) - own
    deepest = max(max(ks), int(relevant.max()) if map_at_r else 0)

    found: dict[int, list[Tensor]] = {k: [] for k in ks}
    average_precision: list[Tensor] = []
    start = 0
    for index in _found(query, items, deepest, bool(own), drawn):
        rows = slice(start, start := start + len(index))
        same = item_labels[index] == truth[rows, None]
        for k in ks:
            found[k].append(same[:, :k].sum(dim=1))
        if map_at_r:
            matched = relevant[rows] > 0
            average_precision.append(_average_precision_at_r(same[matched], relevant[rows][matched]))

    return Retrieval(
        {k: torch.cat(parts).cpu() for k, parts in found.items()},
        torch.cat(average_precision).cpu() if map_at_r else None,
        unlabelled,
        int((relevant == 0).sum()),
    )


def _found(query: Tensor, items: Tensor, k: int, own: bool, drawn: Tensor | None) -> Iterator[Tensor]:
    """The k nearest items (b, k) of a block of queries at a time; of queries that are items, never themselves."""
    if drawn is None:
        for _, index in neighbour_blocks(query, items, k, exclude_self=own):
            yield index
        return
    start = 0
    for _, index in neighbour_blocks(query, items, k + 1, exclude_self=False):
        others = index != drawn[start : start + len(index), None]
        others[others.all(dim=1), -1] = False  # itself lies behind its duplicates: the last is one too many
        yield index[others].view(len(index), k)
        start += len(index)


def _labelled(
    embeddings: ArrayLike | Tensor, labels: ArrayLike | Tensor, name: str, labels_name: str
) -> tuple[Tensor, Tensor, int]:
    """Unit vectors and labels of the rows whose label is known, and how many are not."""
    vectors = as_unit_vectors(embeddings, name)
    classes = as_labels(labels, len(vectors), labels_name).to(vectors.device)
    known = classes >= 0
    if not known.any():
        raise UserError(f"{labels_name}: none of the {len(classes)} labels is known (all are -1)", code="no_labels")
    if known.all():  # no copy
        return vectors, classes, 0
    return vectors[known], classes[known], int((~known).sum())


def _checked_ks(ks: Sequence[int], available: int) -> list[int]:
    wrong = [k for k in ks if not 1 <= k <= available]
    if wrong or not ks:
        raise UserError(
            f"ks must be numbers from 1 to {available}, the items a query can retrieve, got {list(ks)}",
            code="out_of_range",
        )
    return list(ks)


def _class_sizes(labels: Tensor, wanted: Tensor) -> Tensor:
    """(n,) how often each wanted label occurs among the labels."""
    classes, inverse = torch.cat([labels, wanted]).unique(return_inverse=True)
    sizes = torch.bincount(inverse[: len(labels)], minlength=len(classes))
    return sizes[inverse[len(labels) :]]


def _average_precision_at_r(same: Tensor, relevant: Tensor) -> Tensor:
    """(b,) mean over ranks 1..R of [the item is of the class] x precision at that rank, for R > 0."""
    rank = torch.arange(1, same.shape[1] + 1, device=same.device)
    counted = same & (rank <= relevant[:, None])
    precision = counted.cumsum(dim=1).double() / rank
    return (precision * counted).sum(dim=1) / relevant
