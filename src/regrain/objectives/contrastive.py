r"""One contrastive loss, many relations: the core, its candidates, and the in-batch and self forms.

.. math:: L = -\frac{1}{B} \sum_i \sum_j R_{ij} \log \operatorname{softmax}_j (z_i \cdot c_j / \tau)

Letters: B queries, M candidates, Q queue entries, n embeddings in a batch (all views stacked), d embedding width.
Every loss is the mean over the rows that have a positive; without any such row it is zero, with zero gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from regrain.errors import UserError

from ._checks import check_labels, check_mask, check_matrix, check_queue, check_temperature
from ._numerics import counted_mean, full_precision, mean_over_rows, unit
from .host import may_look


@full_precision
def soft_contrastive(logits: Tensor, relation: Tensor, *, candidate_mask: Tensor | None = None) -> Tensor:
    """Cross entropy between a relation and the softmax over the candidates: the formula behind every contrastive loss.

    The scalar is the mean over the rows whose remaining relation is not all zero; zero, with zero gradient, without
    any.

    Parameters
    ----------
    logits
        (B, M) similarities of queries and candidates, divided by the temperature; ``-inf`` takes a candidate out.
    relation
        (B, M) weights R >= 0, one row for each query, used as they are (not normalised).
    candidate_mask
        (B, M) booleans, True = counts. A masked candidate leaves the softmax (logit ``-inf``), and its weight in
        ``relation`` is dropped without rescaling the rest of the row.

    Examples
    --------
    Two equally similar candidates, one of them positive: log 2. With the other one masked, no doubt is left.

    >>> import torch
    >>> logits, relation = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    >>> round(soft_contrastive(logits, relation).item(), 4)
    0.6931
    >>> soft_contrastive(logits, relation, candidate_mask=torch.tensor([[True, False]])).item()
    0.0
    """
    check_matrix(logits, "logits")
    check_matrix(relation, "relation", rows=logits.shape[0], columns=logits.shape[1])
    check_mask(candidate_mask, *logits.shape)
    absent = logits == -torch.inf
    if candidate_mask is not None:
        absent |= ~candidate_mask
    return counted_mean(*relation_losses(mask_out(logits, absent), relation.masked_fill(absent, 0)))


def mask_out(logits: Tensor, absent: Tensor) -> Tensor:
    """Take candidates out of the softmax.

    The lowest finite number does what -inf would: the softmax there is exactly zero. But a relation of zero times its
    logarithm is zero rather than NaN, and a row without any candidate still has a gradient.
    """
    return logits.masked_fill(absent, torch.finfo(logits.dtype).min)


def relation_losses(logits: Tensor, relation: Tensor) -> tuple[Tensor, Tensor]:
    """The summands of the formula: losses (B,), and which rows have any relation (B,); both (B, M) already masked."""
    return -(relation * logits.log_softmax(dim=1)).sum(dim=1), relation.sum(dim=1) > 0


@full_precision
def key_and_queue_logits(query: Tensor, key: Tensor, queue: Tensor, *, temperature: float) -> Tensor:
    """Similarities of each query to its own key and to the queue (MoCo, He et al. 2020; MaskCon eq. 8).

    Returns (B, 1 + Q) cosine similarities over the temperature, own key first.

    Parameters
    ----------
    query
        (B, d), normalised here.
    key, queue
        (B, d) and (Q, d) unit vectors; Q may be 0.
    temperature
        Positive.

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> key_and_queue_logits(query, key, queue, temperature=0.5)
    tensor([[2., 0.]])
    """
    check_queue(query, key, queue)
    check_temperature(temperature)
    query = unit(query) / temperature
    own = (query * key).sum(dim=1, keepdim=True)
    return torch.cat([own, query @ queue.T], dim=1)


@full_precision
def in_batch_logits(embeddings: Tensor, *, temperature: float) -> Tensor:
    """Similarities of every embedding of a batch to all others, the anchors themselves masked out.

    Returns (n, n) cosine similarities over the temperature, ``-inf`` on the diagonal.

    Parameters
    ----------
    embeddings
        (n, d), all views stacked; normalised here.
    temperature
        Positive.

    Examples
    --------
    >>> import torch
    >>> in_batch_logits(torch.tensor([[2.0, 0.0], [1.0, 1.0]]), temperature=0.5)
    tensor([[  -inf, 1.4142],
            [1.4142,   -inf]])
    """
    check_matrix(embeddings, "embeddings")
    check_temperature(temperature)
    logits = unit(embeddings)
    logits = (logits / temperature) @ logits.T
    logits.fill_diagonal_(-torch.inf)
    return logits


@full_precision
def info_nce_loss(
    query: Tensor, key: Tensor, queue: Tensor, *, temperature: float, candidate_mask: Tensor | None = None
) -> Tensor:
    """Self-supervised contrast against a queue: the relation is 1 at the own key (van den Oord et al. 2018; MoCo).

    The scalar is the mean over the queries (over those whose own key counts).

    Parameters
    ----------
    query, key, queue, temperature
        As in :func:`key_and_queue_logits`.
    candidate_mask
        (B, 1 + Q) booleans, own key first, True = counts: False for a sample's own older keys in the queue.

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.ones(1, 2), torch.eye(2)[:1], torch.eye(2)[1:]
    >>> round(info_nce_loss(query, key, queue, temperature=0.1).item(), 4)  # key and queue entry are equally similar
    0.6931
    """
    check_queue(query, key, queue)
    check_mask(candidate_mask, query.shape[0], 1 + queue.shape[0])

    def rows_loss(rows: slice, query: Tensor, key: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
        logits = key_and_queue_logits(query[rows], key[rows], queue, temperature=temperature)
        own = torch.zeros(logits.shape[0], dtype=torch.long, device=logits.device)
        if candidate_mask is None:
            return F.cross_entropy(logits, own, reduction="none"), own == 0
        return F.cross_entropy(mask_out(logits, ~candidate_mask[rows]), own, reduction="none"), candidate_mask[rows, 0]

    return mean_over_rows(rows_loss, query, key, queue, rows=query.shape[0], columns=1 + queue.shape[0])


@full_precision
def supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    sample: Tensor | None = None,
    unknown: Literal["drop", "self"] = "drop",
) -> Tensor:
    r"""Supervised contrast within a batch: SupCon's L_out (Khosla et al. 2020, eq. 2).

    .. math:: L = \operatorname{mean}_i \Big[ \log \sum_{a \ne i} \exp(z_i \cdot z_a / \tau)
              - \frac{1}{|P(i)|} \sum_{p \in P(i)} z_i \cdot z_p / \tau \Big]

    P(i) are the other rows with the label of row i. The mean over P(i) is linear in z_p, so sums over each class give
    it, and the (n, n) relation is never built. With sample ids as labels this is SimCLR's loss (NT-Xent). The
    scalar is the mean over the anchors that have a positive; zero, with zero gradient, if there is none.

    Parameters
    ----------
    embeddings
        (n, d), all views of all samples stacked in any order; normalised here.
    labels
        (n,) integers; -1 = unknown.
    temperature
        Positive.
    sample
        (n,) integers that name the sample of each row: rows with the same one are views of the same sample. Read only
        with ``unknown="self"``.
    unknown
        "drop": rows without a label are neither anchors nor candidates.
        "self": they are anchors whose positives are the other views of their sample, and candidates of such anchors
        only; anchors with a label never meet them.

    Raises
    ------
    UserError
        If a shape or type differs from the above, the temperature is not positive, or ``unknown="self"`` comes
        without ``sample``.

    Examples
    --------
    Four equal embeddings: each of the three candidates has probability 1/3, so the loss is log 3.

    >>> import torch
    >>> round(supcon_loss(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]), temperature=0.1).item(), 4)
    1.0986
    """
    check_matrix(embeddings, "embeddings")
    check_labels(labels, embeddings.shape[0], "labels")
    check_temperature(temperature)
    known = labels >= 0
    if unknown == "drop":
        if may_look(labels) and not bool(known.all()):  # fewer rows, where that costs nothing
            embeddings, labels, known = embeddings[known], labels[known], known[known]
        groups = labels
    elif unknown == "self":
        if sample is None:
            raise UserError(
                'unknown="self" needs sample, the (n,) ids that say which rows are views of one sample',
                code="conflicting_options",
            )
        check_labels(sample, embeddings.shape[0], "sample")
        groups = torch.where(known, 2 * labels.long(), 2 * _numbered(sample) + 1)
    else:
        raise UserError(f'unknown must be "drop" or "self", got {unknown!r}', code="unknown_name")

    z = unit(embeddings)
    group = _numbered(groups)
    positives = torch.zeros_like(group).index_add(0, group, torch.ones_like(group))[group] - 1
    attraction = (z * (torch.zeros_like(z).index_add(0, group, z)[group] - z)).sum(dim=1)
    attraction = attraction / positives.clamp(min=1) / temperature
    counted = (positives > 0) & (known | (unknown == "self"))
    lowest = torch.finfo(z.dtype).min
    absent = z.new_zeros(len(z)).masked_fill(~known, lowest)  # added to the logits: see mask_out

    def rows_loss(rows: slice, z: Tensor, attraction: Tensor) -> tuple[Tensor, Tensor]:
        if unknown == "drop":
            logits = torch.addmm(absent, z[rows] / temperature, z.T)
        else:
            logits = mask_out((z[rows] / temperature) @ z.T, ~known & known[rows, None])
        logits.diagonal(rows.start).fill_(lowest)
        return logits.logsumexp(dim=1) - attraction[rows], counted[rows]

    return mean_over_rows(rows_loss, z, attraction, rows=z.shape[0], columns=z.shape[0])


def _numbered(values: Tensor) -> Tensor:
    """(n,) numbers from 0, the same for equal values, in their order: ``unique``'s inverse, without its shape."""
    order = values.argsort()
    ordered = values[order]
    numbers = F.pad(ordered[1:] != ordered[:-1], (1, 0)).cumsum(dim=0)
    return torch.empty_like(order).scatter_(0, order, numbers)
