r"""Relations between a batch and a queue: MaskCon, Grafit, SupCon; and the two related losses, CoIns and NNCLR.

Candidates are each query's own key, then the queue. A relation gives the own key 1 and the queue entries of the same
coarse label a weight each; rows are normalised and mixed with the self relation (1 at the own key, else 0):

.. math:: R = w \operatorname{normalise}([1, \omega]) + (1 - w)\, [1, 0]

with :math:`\omega_j = [y_j = y]` for Grafit (w = 1: SupCon), and :math:`\omega_j = [y_j = y] \exp((k \cdot c_j -
\max) / \tau_s)` for MaskCon.

Letters: B queries, Q queue entries, d embedding width, C classes.

Unknown labels (-1) equal nothing. A query without a label, or without an entry of its label in the queue, has the self
relation. An unlabelled queue entry is a negative of queries with the self relation, and masked out for all others.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ._checks import check_classes, check_labels, check_mask, check_matrix, check_queue, check_temperature, check_weight
from ._numerics import full_precision, mean_over_rows, unit
from .contrastive import info_nce_loss, key_and_queue_logits, mask_out, relation_losses


def _same_label(labels: Tensor, queue_labels: Tensor) -> Tensor:
    """(B, Q) booleans: equal and known."""
    return labels.long().where(labels >= 0, -2)[:, None] == queue_labels.long().clamp(min=-1)


def _relation(key: Tensor, queue: Tensor, same: Tensor, soft_temperature: float, weight: float) -> Tensor:
    """(B, 1 + Q): own key 1 and the soft weights of the same label (MaskCon eq. 11-13), mixed with self (eq. 14-15)."""
    soft = same.to(key.dtype)
    if queue.shape[0] and soft_temperature < math.inf:
        nearness = mask_out(key / soft_temperature @ queue.T, ~same).softmax(dim=1)
        soft *= nearness.div_(nearness.amax(dim=1, keepdim=True))
    relation = F.pad(soft, (1, 0), value=1.0)
    relation *= weight / relation.sum(dim=1, keepdim=True)
    relation[:, 0] += 1 - weight
    return relation


@torch.no_grad()
@full_precision
def maskcon_relation(
    key: Tensor, queue: Tensor, coarse: Tensor, queue_coarse: Tensor, *, soft_temperature: float, weight: float
) -> Tensor:
    """MaskCon's relation: queue entries of the same coarse label count by their similarity to the own key.

    The nearest of them counts as much as the own key (Feng & Patras 2023, eq. 11-15). No gradient flows through it.
    Returns (B, 1 + Q), own key first, rows sum to 1.

    Parameters
    ----------
    key, queue
        (B, d) and (Q, d) unit vectors.
    coarse, queue_coarse
        (B,) and (Q,) integers, -1 = unknown.
    soft_temperature
        tau_s, positive; with ``math.inf`` all entries of the class count alike, which is Grafit's relation (Touvron et
        al. 2021; MaskCon eq. 9); near 0 only the nearest entry keeps a weight.
    weight
        w in [0, 1]: 0 is the self relation; with the infinite soft temperature 1 is SupCon's.

    Examples
    --------
    >>> import torch
    >>> key, queue = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> maskcon_relation(key, queue, torch.tensor([3]), torch.tensor([3, 3, 5]), soft_temperature=0.05, weight=1.0)
    tensor([[5.0000e-01, 5.0000e-01, 1.0306e-09, 0.0000e+00]])
    """
    check_matrix(key, "key")
    check_matrix(queue, "queue", columns=key.shape[1])
    check_labels(coarse, key.shape[0], "coarse")
    check_labels(queue_coarse, queue.shape[0], "queue_coarse")
    check_temperature(soft_temperature, "soft_temperature", infinite=True)
    check_weight(weight)
    return _relation(key, queue, _same_label(coarse, queue_coarse), soft_temperature, weight)


@full_precision
def maskcon_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    coarse: Tensor,
    queue_coarse: Tensor,
    *,
    temperature: float,
    soft_temperature: float,
    weight: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """MaskCon: contrast with soft relations inside the coarse class (Feng & Patras, CVPR 2023, eq. 8-15).

    The scalar is the mean over the queries.

    Parameters
    ----------
    query
        (B, d) embeddings of one view, normalised here.
    key, queue
        (B, d) and (Q, d) unit vectors from the momentum encoder: the other view, and earlier keys; Q may be 0.
    coarse, queue_coarse
        (B,) and (Q,) integers, -1 = unknown (see the module's rule).
    temperature, soft_temperature, weight
        tau_0, tau_s and w, as in :func:`key_and_queue_logits` and :func:`maskcon_relation`.
    candidate_mask
        (B, 1 + Q) booleans, own key first, True = counts: False for a sample's own older keys in the queue, which then
        leave both softmaxes and the maximum.

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.ones(1, 2), torch.eye(2)[:1], torch.eye(2)[1:]
    >>> coarse = torch.tensor([0])
    >>> settings = dict(temperature=0.1, soft_temperature=0.05, weight=1.0)
    >>> round(maskcon_loss(query, key, queue, coarse, coarse, **settings).item(), 4)  # all similarities equal: log 2
    0.6931
    """
    check_temperature(soft_temperature, "soft_temperature", infinite=True)
    check_queue(query, key, queue)
    check_labels(coarse, query.shape[0], "coarse")
    check_labels(queue_coarse, queue.shape[0], "queue_coarse")
    check_mask(candidate_mask, query.shape[0], 1 + queue.shape[0])
    check_weight(weight)

    unlabelled = F.pad(queue_coarse < 0, (1, 0)).to(query.dtype)  # (1 + Q,), 1 where a queue entry has no label
    lowest = torch.finfo(query.dtype).min  # out of the softmax, see mask_out

    def rows_loss(rows: slice, query: Tensor, key: Tensor, queue: Tensor) -> tuple[Tensor, Tensor]:
        same = _same_label(coarse[rows], queue_coarse)
        if candidate_mask is not None:
            same &= candidate_mask[rows, 1:]
        with torch.no_grad():
            relation = _relation(key[rows], queue, same, soft_temperature, weight)
        beyond_self = (relation[:, 1:].sum(dim=1) > 0).to(relation.dtype)
        logits = key_and_queue_logits(query[rows], key[rows], queue, temperature=temperature)
        logits.addr_(beyond_self, unlabelled, alpha=lowest)
        if candidate_mask is not None:
            logits, relation = mask_out(logits, ~candidate_mask[rows]), relation * candidate_mask[rows]
        return relation_losses(logits, relation)

    return mean_over_rows(rows_loss, query, key, queue, rows=query.shape[0], columns=1 + queue.shape[0])


def grafit_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    coarse: Tensor,
    queue_coarse: Tensor,
    *,
    temperature: float,
    weight: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """Grafit: w SupCon + (1 - w) self contrast, against a queue (Touvron et al. 2021; MaskCon eq. 9).

    Parameters, return value and errors are those of :func:`maskcon_loss`, without the soft temperature.

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.ones(1, 2), torch.eye(2)[:1], torch.eye(2)[1:]
    >>> coarse = torch.tensor([0])
    >>> round(grafit_loss(query, key, queue, coarse, coarse, temperature=0.1, weight=0.8).item(), 4)
    0.6931
    """
    settings = {"temperature": temperature, "soft_temperature": math.inf, "weight": weight}
    return maskcon_loss(query, key, queue, coarse, queue_coarse, candidate_mask=candidate_mask, **settings)


def supcon_queue_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    labels: Tensor,
    queue_labels: Tensor,
    *,
    temperature: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """SupCon against a queue: own key and all entries of the same label are positives alike; Grafit with w = 1.

    Parameters, return value and errors are those of :func:`grafit_loss`; the labels may be of any one level.

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.ones(1, 2), torch.eye(2)[:1], torch.eye(2)[1:]
    >>> round(supcon_queue_loss(query, key, queue, torch.tensor([0]), torch.tensor([1]), temperature=0.1).item(), 4)
    0.6931
    """
    return grafit_loss(
        query, key, queue, labels, queue_labels, temperature=temperature, weight=1.0, candidate_mask=candidate_mask
    )


@full_precision
def coins_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    class_logits: Tensor,
    coarse: Tensor,
    *,
    temperature: float,
    weight: float,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    """CoIns: w cross entropy on the coarse label + (1 - w) self contrast (Xu et al. 2021; MaskCon eq. 10).

    Parameters
    ----------
    query, key, queue, temperature, candidate_mask
        As in :func:`info_nce_loss`.
    class_logits
        (B, C) of a classifier.
    coarse
        (B,) integers below C; the cross entropy is the mean over the rows that are not -1 (zero if there is none).
    weight
        w in [0, 1].

    Examples
    --------
    >>> import torch
    >>> query, key, queue = torch.ones(1, 2), torch.eye(2)[:1], torch.eye(2)[1:]
    >>> args = query, key, queue, torch.zeros(1, 2), torch.tensor([0])
    >>> round(coins_loss(*args, temperature=0.1, weight=0.5).item(), 4)
    0.6931
    """
    check_weight(weight)
    check_matrix(class_logits, "class_logits", rows=query.shape[0])
    check_labels(coarse, query.shape[0], "coarse")
    check_classes(coarse, class_logits.shape[1], "coarse")
    known = coarse >= 0
    cross_entropy = F.cross_entropy(class_logits, coarse.long().where(known, -1), ignore_index=-1, reduction="sum")
    contrast = info_nce_loss(query, key, queue, temperature=temperature, candidate_mask=candidate_mask)
    return weight * cross_entropy / known.sum().clamp(min=1) + (1 - weight) * contrast


@full_precision
def nnclr_loss(
    query: Tensor, prediction: Tensor, queue: Tensor, *, temperature: float, neighbour_mask: Tensor | None = None
) -> Tensor:
    r"""NNCLR: each query's nearest neighbour in the queue against the other views of the batch (Dwibedi et al. 2021).

    .. math:: L = -\frac{1}{B} \sum_i \log \operatorname{softmax}_k (\mathrm{NN}(z_i) \cdot p_k / \tau)_{k = i}

    The neighbour carries no gradient, so only ``prediction`` is trained; the paper adds the loss with the views
    exchanged. A query without any allowed entry stands for its own neighbour. The scalar is the mean over the batch.

    Parameters
    ----------
    query
        (B, d) embeddings of one view, by which the neighbours are found.
    prediction
        (B, d) the predictor's output for the other view, normalised here.
    queue
        (Q, d) unit vectors; Q may be 0.
    temperature
        Positive (0.1 in the paper).
    neighbour_mask
        (B, Q) booleans, True = may be the neighbour: False for a sample's own older entries.

    Examples
    --------
    >>> import torch
    >>> query, queue = torch.eye(2), torch.eye(2)
    >>> round(nnclr_loss(query, torch.ones(2, 2), queue, temperature=0.1).item(), 4)  # equal predictions: log 2
    0.6931
    """
    check_matrix(query, "query")
    check_matrix(prediction, "prediction", rows=query.shape[0], columns=query.shape[1])
    check_matrix(queue, "queue", columns=query.shape[1])
    check_temperature(temperature)
    check_mask(neighbour_mask, query.shape[0], queue.shape[0], "neighbour_mask")

    def rows_loss(rows: slice, prediction: Tensor) -> tuple[Tensor, Tensor]:
        allowed = None if neighbour_mask is None else neighbour_mask[rows]
        logits = nearest_entries(query[rows], queue, allowed) @ prediction.T / temperature
        own = logits[:, rows].diagonal()
        return logits.logsumexp(dim=1) - own, torch.ones_like(own, dtype=torch.bool)

    return mean_over_rows(rows_loss, unit(prediction), rows=query.shape[0], columns=max(query.shape[0], queue.shape[0]))


@torch.no_grad()
def nearest_entries(query: Tensor, queue: Tensor, allowed: Tensor | None = None) -> Tensor:
    """(B, d): the most similar allowed entry of a queue (Q, d) for each query (B, d), else the query itself.

    Queue entries are unit vectors; ``allowed`` (B, Q) leaves entries out, such as a sample's own.

    Examples
    --------
    >>> import torch
    >>> queue = torch.eye(2)
    >>> nearest_entries(torch.tensor([[0.9, 0.1]]), queue, torch.tensor([[False, True]]))
    tensor([[0., 1.]])
    """
    if not queue.shape[0]:
        return unit(query)
    similarity = query @ queue.T
    if allowed is None:
        return queue[similarity.argmax(dim=1)]
    nearest = similarity.masked_fill(~allowed, -torch.inf).argmax(dim=1)
    return queue[nearest].where(allowed.any(dim=1, keepdim=True), unit(query))
