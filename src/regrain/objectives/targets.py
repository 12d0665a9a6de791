r"""Targets: fixed points on the sphere, one a class, as far apart as can be; and the losses that lead there.

Targets minimise :math:`\frac1K \sum_i \log \sum_j \exp(t_i \cdot t_j / \tau)` (TSC, Li et al., CVPR 2022, eq. 4; SCLRE,
CVPR 2023). For K up to d + 1 that is the simplex, whose cosines are all -1/(K - 1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError

from ._checks import (
    check_at_least_0,
    check_classes,
    check_labels,
    check_mask,
    check_matrix,
    check_queue,
    check_temperature,
)
from ._numerics import full_precision, unit
from .contrastive import key_and_queue_logits, mask_out, soft_contrastive


def uniform_targets(
    count: int, dimension: int, *, temperature: float = 0.5, steps: int = 2000, seed: int = 0
) -> Tensor:
    """K unit vectors spread over the sphere.

    Up to d + 1 of them form a simplex, in closed form, turned at random; more are found by gradient descent from random
    vectors (on a line, d = 1, they take its two ends by turns). Returns (K, d) float32.

    Parameters
    ----------
    count
        K, at least 1.
    dimension
        d, at least 1.
    temperature
        tau of the minimised objective, positive; the simplex does not depend on it.
    steps
        Number of steps of gradient descent.
    seed
        The same seed gives the same targets, on every machine up to rounding.

    Examples
    --------
    >>> targets = uniform_targets(3, 8)
    >>> ((targets @ targets.T) * 2).round().int().tolist()  # cosines of -1/2
    [[2, -1, -1], [-1, 2, -1], [-1, -1, 2]]
    """
    check_temperature(temperature)
    if count < 1 or dimension < 1 or steps < 0:
        raise UserError(
            f"count and dimension are at least 1, steps 0; got {count}, {dimension} and {steps}", code="out_of_range"
        )
    generator = torch.Generator().manual_seed(seed)
    if count <= dimension + 1:
        return _simplex(count, dimension, generator).float()
    if dimension == 1:
        return (1 - 2 * (torch.arange(count) % 2))[:, None].float()
    targets = unit(torch.randn(count, dimension, generator=generator, dtype=torch.float64))
    for step in range(steps):
        # the gradient of the objective: each target is pushed by all others, the nearest most
        push = (targets @ targets.T / temperature).softmax(dim=1)
        gradient = (push + push.T) @ targets / (count * temperature)
        rate = 0.5 * count * temperature * (1 - step / steps)
        targets = unit(targets - rate * gradient)
    return targets.float()


def _simplex(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """The corners of a regular simplex around 0: the unit vectors of R^K less their mean, in a basis of K - 1."""
    if count == 1:
        return unit(torch.randn(1, dimension, generator=generator, dtype=torch.float64))
    centred = torch.eye(count, dtype=torch.float64) - 1 / count
    basis = torch.linalg.qr(centred[:, 1:])[0]  # (K, K - 1): what centring leaves
    turn = torch.linalg.qr(torch.randn(dimension, count - 1, generator=generator, dtype=torch.float64))[0]
    return unit(basis @ turn.T)


@full_precision
def sclre_contrastive_loss(embeddings: Tensor, labels: Tensor, *, temperature: float = 0.5) -> Tensor:
    r"""SCLRE's contrastive adjustment: a positive against all samples of other classes, pair by pair.

    .. math:: L = \frac{1}{2n} \sum_i \sum_{j \ne i,\, y_j = y_i}
              -\log \frac{e^{s_{ij}/T}}{e^{s_{ij}/T} + \sum_{k:\, y_k \ne y_i} e^{s_{ik}/T}}

    with s the cosine. Pairs are not averaged, so the loss grows with the positives in a batch, as published. The
    scalar is zero, with zero gradient, without any labelled row.

    Parameters
    ----------
    embeddings
        (n, d), normalised here.
    labels
        (n,) integers; rows of -1 are neither anchors nor candidates, and do not count in n.
    temperature
        T, positive.

    Examples
    --------
    Three equal embeddings, two of one class: each of the two pairs costs log 2, over 2n = 6.

    >>> round(float(sclre_contrastive_loss(torch.ones(3, 2), torch.tensor([0, 0, 1]), temperature=0.5)), 4)
    0.231
    """
    check_matrix(embeddings, "embeddings")
    check_labels(labels, len(embeddings), "labels")
    check_temperature(temperature)
    z, known = unit(embeddings), labels >= 0
    similarity = z @ z.T / temperature
    same = (labels[:, None] == labels) & known
    positive = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    others = mask_out(similarity, same | ~known).logsumexp(dim=1, keepdim=True)
    # -log(e^a / (e^a + e^b)) = softplus(b - a); without any other class b is the lowest number, and the loss 0
    losses = functional.softplus(others - similarity)
    return losses.where(positive, 0).sum() / (2 * known.sum().clamp(min=1))


@full_precision
def target_loss(embeddings: Tensor, labels: Tensor, targets: Tensor, *, temperature: float = 0.5) -> Tensor:
    """SCLRE's targeted adjustment: cross entropy of the cosines to the targets.

    The scalar is zero, with zero gradient, without any labelled row.

    Parameters
    ----------
    embeddings
        (n, d), normalised here.
    labels
        (n,) integers below K; rows of -1 are left out.
    targets
        (K, d) unit vectors.
    temperature
        T, positive.

    Examples
    --------
    >>> round(float(target_loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0]), torch.eye(2), temperature=1.0)), 4)
    0.3133
    """
    check_matrix(embeddings, "embeddings")
    check_labels(labels, len(embeddings), "labels")
    check_matrix(targets, "targets", columns=embeddings.shape[1])
    check_classes(labels, len(targets), "labels")
    check_temperature(temperature)
    logits = unit(embeddings) @ targets.T / temperature
    total = functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


@full_precision
def match_targets(centroids: Tensor, targets: Tensor) -> Tensor:
    """Match a target to every class so that the centroids are nearest to their targets in sum (Hungarian algorithm).

    Returns (K,) int64: the row of ``targets`` for each class.

    Parameters
    ----------
    centroids
        (K, d)
    targets
        (K, d) unit vectors.

    Examples
    --------
    >>> match_targets(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.eye(2))
    tensor([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    check_matrix(centroids, "centroids")
    check_matrix(targets, "targets", rows=len(centroids), columns=centroids.shape[1])
    similarity = unit(centroids.detach()) @ targets.T
    _, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    return torch.from_numpy(columns).to(centroids.device)


@full_precision
def tsc_loss(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    labels: Tensor,
    queue_labels: Tensor,
    class_targets: Tensor,
    *,
    positives: Tensor,
    temperature: float = 0.07,
    target_weight: float = 0.2,
    candidate_mask: Tensor | None = None,
) -> Tensor:
    r"""Targeted supervised contrast: key, positives and target in one softmax (Li et al., CVPR 2022, eq. 5).

    .. math:: L_i = -\frac{1}{1 + |P_i|} \sum_{j \in \{key\} \cup P_i} \log p_{ij} - \lambda \log p_{i, t(y_i)}

    p is the softmax over own key, queue and the targets of all classes. A row of unknown label has its key alone.

    Parameters
    ----------
    query, key, queue
        (B, d) normalised here; (B, d) and (Q, d) unit vectors.
    labels, queue_labels
        (B,) and (Q,) integers, -1 unknown.
    class_targets
        (K, d) unit vectors, the target of class 0 first.
    positives
        (B, Q) booleans: the queue entries drawn as positives, of the row's own class.
    temperature
        Positive.
    target_weight
        lambda, at least 0.
    candidate_mask
        (B, 1 + Q), True = counts.

    Examples
    --------
    >>> one = torch.tensor([[1.0, 0.0]])
    >>> none = torch.zeros(1, 0, dtype=torch.bool)
    >>> empty = torch.zeros(0, 2)
    >>> loss = tsc_loss(one, one, empty, torch.tensor([0]), torch.zeros(0).long(), torch.eye(2), positives=none)
    >>> round(float(loss), 4)  # key and target alike: 1.2 log 2
    0.8318
    """
    check_queue(query, key, queue)
    check_labels(labels, len(query), "labels")
    check_labels(queue_labels, len(queue), "queue_labels")
    check_matrix(class_targets, "class_targets", columns=query.shape[1])
    check_classes(labels, len(class_targets), "labels")
    check_mask(positives, len(query), len(queue), "positives")
    check_mask(candidate_mask, len(query), 1 + len(queue))
    check_at_least_0(target_weight, "target_weight")
    logits = key_and_queue_logits(query, key, queue, temperature=temperature)
    to_targets = unit(query) @ class_targets.T / temperature
    known = labels >= 0
    counted = positives & known[:, None] & (queue_labels == labels[:, None])
    share = 1 / (1 + counted.sum(dim=1, keepdim=True)).to(logits.dtype)
    assigned = functional.one_hot(labels.clamp(min=0), len(class_targets)).to(logits.dtype) * known[:, None]
    relation = torch.cat([share, share * counted, target_weight * assigned], dim=1)
    if candidate_mask is not None:
        candidate_mask = functional.pad(candidate_mask, (0, len(class_targets)), value=True)
    return soft_contrastive(torch.cat([logits, to_targets], dim=1), relation, candidate_mask=candidate_mask)
