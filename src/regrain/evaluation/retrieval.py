"""Protocol ``recall``: does a sample find others of its class (MaskCon's protocol)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrain.checks import Count
from regrain.errors import UserError
from regrain.evaluation.embedding import share_out
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.metrics import retrieval_metrics

_KS = (1, 2, 5, 10)
_MOST_QUERIES = 100_000
"""With so many queries, the interval of a recall is at most 0.6 points wide."""

_LARGEST_CLASS = 1000
"""MAP@R ranks as many items as the largest class has; beyond this it says little and costs much."""


@protocol(default=True)
def recall(representation: Representation, task: Task, *, ks: list[Count] | None = None) -> dict[str, Score]:
    """Recall@K, precision@K and MAP@R within the test samples: each retrieves its nearest others by cosine.

    The sample itself is excluded by its index. Intervals are bootstrapped over queries. Of more than 100,000 labelled
    samples so many are drawn to query all of the others, the same for every model.

    Parameters
    ----------
    ks : list of int, optional
        K of recall@K. Default 1, 2, 5 and 10, as far as there are enough samples.

    Raises
    ------
    UserError
        If a K asked for is larger than the number of other samples.
    """
    known = task.known()
    labels = task.test_labels[known]
    others = len(labels) - 1
    ks = sorted(set(ks or [k for k in _KS if k <= others]))
    if ks[-1] > others:
        raise UserError(
            f"recall@{ks[-1]}: K lies between 1 and {others}, the other samples "
            f"labelled at level '{task.level}' in this split"
        )
    if int(labels.bincount().max()) < 2:
        raise UserError(f"recall needs classes of two samples or more; level '{task.level}' has none in this split")
    counts, precision = _searched(representation.test if known.all() else representation.test[known], labels, ks)
    scores = {f"recall@{k}": Score.of_samples(count > 0, task) for k, count in counts.items()}
    scores |= {f"precision@{k}": Score(count.double().mean().item() / k) for k, count in counts.items() if k > 1}
    if precision is not None and len(precision):
        scores["map@r"] = Score.of_samples(precision, task)
    return scores


def _searched(embeddings: Tensor, labels: Tensor, ks: Sequence[int]) -> tuple[dict[int, Tensor], Tensor | None]:
    """K -> (q,) how many of the K nearest are of the query's class, and average precision at R where it is computed.

    Processes share out the queries.
    """
    deep = int(labels.bincount().max()) <= _LARGEST_CLASS

    def search(queries: Tensor) -> list[Tensor]:
        drawn = queries if len(queries) < len(labels) else None
        found = retrieval_metrics(embeddings, labels, ks=ks, queries=drawn, map_at_r=deep)
        return [*found.counts.values(), *([] if found.average_precision is None else [found.average_precision])]

    found = share_out(search, _queries(len(labels)))
    return dict(zip(ks, found, strict=False)), found[-1] if deep else None


def _queries(count: int) -> Tensor:
    """The samples that query."""
    if count <= _MOST_QUERIES:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_MOST_QUERIES].sort().values


def per_query(embeddings: Tensor, labels: Tensor, *, ks: Sequence[int]) -> dict[str, Tensor]:
    """Return the figures of :func:`recall` query by query, to pair two models on the same samples.

    Returns ``recall@K`` -> (n,) zeros and ones, and ``map@r`` -> (m,) of the queries with anything to retrieve, where
    the protocol gives it.

    Parameters
    ----------
    embeddings : Tensor (n, d)
    labels : LongTensor (n,)
        All known. Of more than 100,000 samples the same are drawn as by the protocol.
    """
    counts, precision = _searched(embeddings, labels, ks)
    values = {f"recall@{k}": (count > 0).double() for k, count in counts.items()}
    return values | ({} if precision is None else {"map@r": precision})
