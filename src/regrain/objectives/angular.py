r"""Angular contrast within a superclass: directions as seen from the superclass mean (ANCOR, SCGM-A).

.. math:: A_y(v) = \frac{\bar v - \bar\mu_y}{\lVert \bar v - \bar\mu_y \rVert}, \qquad \bar x = x / \lVert x \rVert
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._checks import check_classes, check_floats, check_labels, check_mask, check_matrix, check_temperature
from ._numerics import counted_mean, full_precision, unit
from .contrastive import mask_out
from .host import may_look


@full_precision
def angular_info_nce_loss(
    query: Tensor,
    key: Tensor,
    queues: Tensor,
    coarse: Tensor,
    superclass_means: Tensor,
    *,
    temperature: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """InfoNCE between the directions of query, key and the keys of the query's superclass, seen from its mean.

    Bukchin et al., CVPR 2021 (ANCOR), section 3.2; Ni et al., ICLR 2022 (SCGM), section 3.3. Query i is contrasted with
    its own key and with the queue of its superclass alone. No gradient flows to the means, keys and queues. The
    scalar is the mean over the labelled queries; zero with zero gradient where there is none.

    Parameters
    ----------
    query
        (B, d) embeddings of one view, normalised here.
    key
        (B, d) unit vectors: the other view's, from the momentum encoder.
    queues
        (C, Q, d) unit vectors: Q earlier keys of every superclass; Q may be 0.
    coarse
        (B,) integers below C; rows of -1 are left out.
    superclass_means
        (C, d), normalised here.
    temperature
        Positive; the papers' 0.2.
    candidate_mask
        (B, 1 + Q) booleans, own key first, True = counts: False for places of the superclass's queue that are not
        filled yet, and for a sample's own older keys.

    Examples
    --------
    >>> import torch
    >>> query, means = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> queue = torch.tensor([[[-1.0, 0.0]]])  # seen from the mean at right angles to the query and its key
    >>> loss = angular_info_nce_loss(query, query, queue, torch.tensor([0]), means, temperature=0.2)
    >>> round(loss.item(), 4)
    0.0067
    """
    check_matrix(query, "query")
    check_matrix(key, "key", rows=query.shape[0], columns=query.shape[1])
    check_matrix(superclass_means, "superclass_means", columns=query.shape[1])
    check_labels(coarse, query.shape[0], "coarse")
    check_classes(coarse, superclass_means.shape[0], "coarse")
    check_temperature(temperature)
    classes, width = superclass_means.shape
    check_floats(queues, "queues", classes, "Q", width)
    check_mask(candidate_mask, query.shape[0], 1 + queues.shape[1])

    means = unit(superclass_means.detach())
    labelled = coarse >= 0
    seen_from = means[coarse.clamp(min=0)]
    queries = unit(unit(query) - seen_from)
    own = (queries * unit(key.detach() - seen_from)).sum(dim=1, keepdim=True)
    others = _to_own_queue(queries, queues.detach(), coarse, means)
    logits = torch.cat([own, others], dim=1) / temperature
    if candidate_mask is not None:
        logits = mask_out(logits, ~candidate_mask)
    return counted_mean(-logits.log_softmax(dim=1)[:, 0], labelled)


def _to_own_queue(queries: Tensor, queues: Tensor, coarse: Tensor, means: Tensor) -> Tensor:
    """(B, Q): similarity of each query to the keys of its superclass, seen from the mean; unlabelled rows mean nothing.

    Where the host cannot tell which superclasses are present, every query meets the queues of all of them.
    """
    if not may_look(coarse):
        entries = unit((queues - means[:, None]).flatten(0, 1))
        to_all = (queries @ entries.T).unflatten(1, queues.shape[:2])
        return to_all[torch.arange(len(coarse), device=coarse.device), coarse.clamp(min=0)]
    result = queries.new_zeros(len(queries), queues.shape[1])
    for superclass in coarse[coarse >= 0].unique():
        rows = (coarse == superclass).nonzero()[:, 0]
        entries = unit(queues[superclass] - means[superclass])
        result = result.index_copy(0, rows, queries[rows] @ entries.T)
    return result
