r"""Contrast by labels at several levels or aspects: MLCL, its global head, HiMulConE, and metric-guided prototypes.

MLCL (AISTATS 2025, eq. 1-3) gives every level h a projection of its own, on which SupCon pulls the samples of one class
of that level together, and a further one, for aspects, on which samples are positives as far as they overlap:

.. math::
    L = \sum_h \alpha_h L^{SupCon}_h, \qquad
    s_{ij} = \frac{\sum_l \min(y_{il}, y_{jl})}{\sum_l \max(y_{il}, y_{jl})}, \qquad
    L_{global} = -\frac1B \sum_i \frac{1}{|P(i)|} \sum_{p \in P(i)} s_{ip} \log \mathrm{softmax}_p(z_i \cdot z / \tau)

HiMulConE (Zhang et al., CVPR 2022) contrasts one embedding by the labels of every level, see :func:`hmce_loss`.

Metric-guided prototypes (Landrieu and Garnot, BMVC 2021, eq. 1-5) classify by the distance to a prototype of each class
and keep the prototypes' distances near those of the class tree, whatever the scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError

from ._checks import check_at_least_0, check_classes, check_labels, check_matrix, check_temperature
from ._numerics import counted_mean, full_precision
from .contrastive import in_batch_logits, mask_out, soft_contrastive, supcon_loss
from .host import may_look


def multilevel_supcon_loss(
    heads: Sequence[Tensor], labels: Tensor, *, temperatures: Sequence[float], weights: Sequence[float]
) -> Tensor:
    """SupCon on a head of its own for every level (MLCL, eq. 1); a missing label leaves out just that term of a sample.

    Parameters
    ----------
    heads
        L tensors (n, d_h), all views stacked; normalised here. Widths may differ.
    labels
        (n, L) integers, -1 unknown.
    temperatures, weights
        L positive temperatures, L weights of at least 0.

    Examples
    --------
    >>> z = torch.ones(4, 2)
    >>> labels = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 1]])
    >>> round(multilevel_supcon_loss([z, z], labels, temperatures=[0.5, 0.1], weights=[0.5, 0.5]).item(), 4)
    1.0986
    """
    count = len(heads)
    if labels.ndim != 2 or labels.shape[1] != count or len(temperatures) != count or len(weights) != count or not count:
        raise UserError(
            f"{count} heads, {len(temperatures)} temperatures, {len(weights)} weights and labels of shape "
            f"{tuple(labels.shape)} do not fit each other: one of each for every level",
            code="wrong_shape",
        )
    for weight in weights:
        check_at_least_0(weight, "a weight")
    terms = [
        weight * supcon_loss(head, labels[:, level], temperature=temperature)
        for level, (head, temperature, weight) in enumerate(zip(heads, temperatures, weights, strict=True))
    ]
    return torch.stack(terms).sum()


def jaccard_similarity(ordinals: Tensor) -> Tensor:
    """Overlap of label rows over all aspects: s = sum of minima over sum of maxima (MLCL, eq. 3).

    Returns (n, n) float32 in [0, 1].

    Parameters
    ----------
    ordinals
        (n, L) ranks in a declared order, numbered from 1 (negative 1, neutral 2, positive 3); 0 and below unknown. An
        aspect that one of two rows lacks leaves both sums; without a common aspect s is 0.

    Examples
    --------
    >>> jaccard_similarity(torch.tensor([[3, 1], [3, 3], [0, 1]]))
    tensor([[1.0000, 0.6667, 1.0000],
            [0.6667, 1.0000, 0.3333],
            [1.0000, 0.3333, 1.0000]])
    """
    if ordinals.ndim != 2 or ordinals.is_floating_point():
        raise UserError(
            f"ordinals are integers (n, L); got {ordinals.dtype} of shape {tuple(ordinals.shape)}", code="wrong_shape"
        )
    known = (ordinals > 0).to(torch.float32)
    least, most = (known.new_zeros(len(known), len(known)) for _ in range(2))
    for column, present in zip(ordinals.T.float(), known.T, strict=True):  # L is small, (n, n, L) is not
        common = present[:, None] * present
        least += common * torch.minimum(column[:, None], column)
        most += common * torch.maximum(column[:, None], column)
    return least / most.clamp(min=1)


def jaccard_supcon_loss(
    embeddings: Tensor, ordinals: Tensor, *, threshold: float = 0.5, temperature: float = 0.1
) -> Tensor:
    """MLCL's global head: the positives of a row are those that overlap more than ``threshold``, weighed by overlap.

    The scalar is the mean over rows that have a positive; zero, with zero gradient, without any.

    Parameters
    ----------
    embeddings
        (n, d), all views stacked; normalised here.
    ordinals
        (n, L), see :func:`jaccard_similarity`. Rows without any known aspect are neither anchors nor candidates.
    threshold
        t in [0, 1).
    temperature
        Positive.

    Examples
    --------
    >>> round(jaccard_supcon_loss(torch.ones(3, 2), torch.tensor([[3], [3], [1]])).item(), 4)  # log 2
    0.6931
    """
    check_matrix(embeddings, "embeddings")
    if not 0 <= threshold < 1:
        raise UserError(f"threshold lies in [0, 1), 1 left out; got {threshold}", code="out_of_range")
    if ordinals.ndim != 2 or len(ordinals) != len(embeddings):
        raise UserError(
            f"ordinals are (n, L) for {len(embeddings)} rows; got shape {tuple(ordinals.shape)}", code="wrong_shape"
        )
    known = (ordinals > 0).any(dim=1)
    similarity = jaccard_similarity(ordinals)
    positive = (similarity > threshold) & ~torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    share = similarity * positive / positive.sum(dim=1, keepdim=True).clamp(min=1)
    logits = in_batch_logits(embeddings, temperature=temperature)
    return soft_contrastive(logits, share, candidate_mask=known.expand_as(logits))


Similarity = Callable[[Tensor], Tensor]
"""(n, L) label rows -> (n, n) similarities of at least 0."""


@full_precision
def weighted_supcon_loss(
    embeddings: Tensor, similarity: Tensor | Similarity, labels: Tensor | None = None, *, temperature: float
) -> Tensor:
    """Contrast weighted by any similarity of the labels: R is the similarity to the others, rows summing to one.

    The scalar is the mean over rows that are similar to any other; zero, with zero gradient, without any.

    Parameters
    ----------
    embeddings
        (n, d), normalised here.
    similarity
        (n, n) numbers of at least 0, whose diagonal does not count; or what gives them for label rows, such as
        :func:`jaccard_similarity` or :func:`regrain.labels.tree_similarity`.
    labels
        (n, L), where ``similarity`` is a function of them. A row that it finds similar to none, itself included, is
        not known, and neither anchor nor candidate.
    temperature
        Positive.

    Examples
    --------
    >>> from regrain.labels import tree_similarity
    >>> labels = torch.tensor([[0, 0], [0, 1], [0, -1], [-1, -1]])
    >>> round(weighted_supcon_loss(torch.ones(4, 2), tree_similarity, labels, temperature=0.1).item(), 4)  # log 2
    0.6931
    """
    check_matrix(embeddings, "embeddings")
    if isinstance(similarity, Tensor) == (labels is not None):
        raise UserError(
            "give a matrix of similarities alone, or a function of label rows (tree_similarity) and the labels with it",
            code="conflicting_options",
        )
    given = similarity if isinstance(similarity, Tensor) else similarity(cast(Tensor, labels)).to(embeddings)
    check_matrix(given, "similarity", rows=len(embeddings), columns=len(embeddings))
    if may_look(given) and bool((given < 0).any()):
        raise UserError("similarities are at least 0", code="out_of_range")
    others = given.masked_fill(torch.eye(len(given), dtype=torch.bool, device=given.device), 0)
    relation = others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)
    logits, known = in_batch_logits(embeddings, temperature=temperature), None
    if labels is not None:
        known = ((given > 0).any(dim=0) | (given > 0).any(dim=1)).expand_as(logits)
    return soft_contrastive(logits, relation, candidate_mask=known)


@full_precision
def hmce_loss(
    embeddings: Tensor, labels: Tensor, *, temperature: float = 0.1, level_weights: Sequence[float] | None = None
) -> Tensor:
    r"""HiMulConE as in its paper: every pair, at every level that it shares, bounded by the next finer level's largest.

    .. math::
        L = \frac{1}{|L|} \sum_l \frac1B \sum_i \frac{\lambda_l}{|P_l(i)|} \sum_{p \in P_l(i)}
            \max\big(L_l(i, p),\; L^{max}_l\big), \qquad
        L_l(i, p) = -\log \mathrm{softmax}_p(z_i \cdot z / \tau)

    (Zhang et al., CVPR 2022, eq. 4-6), with B the rows that have a positive at level l, the softmax over the rows known
    there, and L^max the largest :math:`L_l` of a pair that shares a finer class. Without gaps the softmax is over all
    rows, and the same at every level, as in the paper. The scalar is zero, with zero gradient, without any pair.

    Parameters
    ----------
    embeddings
        (n, d), all views stacked; normalised here.
    labels
        (n, L) integers, coarse to fine, -1 unknown: such a row is neither anchor nor candidate at that level.
    temperature
        Positive.
    level_weights
        lambda of every level, coarse to fine, at least 0; default 2^-(L-1), ..., 1/2, 1: the paper finds a weight that
        grows with depth best, and leaves it open.

    Examples
    --------
    >>> labels = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 2]])
    >>> round(hmce_loss(torch.ones(4, 2), labels).item(), 4)  # all pairs cost log 3: (1/2 + 1) log 3 / 2
    0.824
    """
    check_matrix(embeddings, "embeddings")
    check_temperature(temperature)
    if labels.ndim != 2 or len(labels) != len(embeddings) or not labels.shape[1]:
        raise UserError(
            f"labels are (n, L) for {len(embeddings)} rows; got shape {tuple(labels.shape)}", code="wrong_shape"
        )
    levels = labels.shape[1]
    weights = [2.0 ** (level - levels + 1) for level in range(levels)] if level_weights is None else level_weights
    if len(weights) != levels or any(not weight >= 0 for weight in weights):
        raise UserError(f"level_weights are {levels} numbers of at least 0; got {list(weights)}", code="out_of_range")
    logits = in_batch_logits(embeddings, temperature=temperature)
    total = logits.new_zeros(())
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    finer = torch.zeros_like(own)  # pairs that share a class of a finer level
    for column, weight in zip(reversed(labels.unbind(dim=1)), reversed(weights), strict=True):
        known = column >= 0
        absent = own | ~known
        losses = -mask_out(logits, absent).log_softmax(dim=1).masked_fill(absent, 0)
        within = finer & known & known[:, None]
        largest = losses.where(within, 0).amax() if len(losses) else total
        pairs = torch.where(within.any(), torch.maximum(losses, largest), losses)
        positive = (column[:, None] == column) & known & ~own
        counts = positive.sum(dim=1)
        rows = pairs.where(positive, 0).sum(dim=1) / counts.clamp(min=1)
        total = total + weight * counted_mean(rows, counts > 0)
        finer = finer | positive
    return total / levels


@full_precision
def prototype_logits(embeddings: Tensor, prototypes: Tensor) -> Tensor:
    """(n, K): minus the Euclidean distance of embeddings (n, d) to prototypes (K, d)."""
    check_matrix(embeddings, "embeddings")
    check_matrix(prototypes, "prototypes", columns=embeddings.shape[1])
    return -_distances(embeddings, prototypes)


@full_precision
def metric_guided_loss(
    embeddings: Tensor, labels: Tensor, prototypes: Tensor, class_distances: Tensor, *, distortion_weight: float = 1.0
) -> dict[str, Tensor]:
    r"""Classification by prototypes whose distances follow a metric on classes (Landrieu and Garnot, eq. 1, 3, 5).

    .. math:: L = -\frac1n \sum_i \log \frac{e^{-d(z_i, \pi_{y_i})}}{\sum_k e^{-d(z_i, \pi_k)}}
              + \lambda \min_s \frac{1}{K(K-1)} \sum_{k \ne l} \Big(\frac{s\, d(\pi_k, \pi_l) - D_{kl}}{D_{kl}}\Big)^2

    Returns ``loss``, and its terms ``data`` and ``distortion``, detached.

    Parameters
    ----------
    embeddings
        (n, d), not normalised.
    labels
        (n,) integers below K, -1 left out.
    prototypes
        (K, d), trained.
    class_distances
        (K, K) D, positive off the diagonal: the number of edges between two classes in their tree, say.
    distortion_weight
        lambda, at least 0.

    Examples
    --------
    >>> prototypes = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    >>> D = torch.tensor([[0.0, 2.0], [2.0, 0.0]])
    >>> found = metric_guided_loss(torch.zeros(1, 2), torch.tensor([0]), prototypes, D)
    >>> round(float(found["data"]), 4), float(found["distortion"])  # two prototypes always fit
    (0.0486, 0.0)
    """
    check_matrix(embeddings, "embeddings")
    check_labels(labels, len(embeddings), "labels")
    check_matrix(prototypes, "prototypes", columns=embeddings.shape[1])
    check_matrix(class_distances, "class_distances", rows=len(prototypes), columns=len(prototypes))
    check_at_least_0(distortion_weight, "distortion_weight")
    check_classes(labels, len(prototypes), "labels")
    off = ~torch.eye(len(prototypes), dtype=torch.bool, device=prototypes.device)
    if may_look(class_distances) and bool((class_distances[off] <= 0).any()):
        raise UserError("class_distances are positive between different classes", code="out_of_range")
    logits = prototype_logits(embeddings, prototypes)
    data = functional.cross_entropy(logits, labels.long(), ignore_index=-1, reduction="sum")
    data = data / (labels >= 0).sum().clamp(min=1)
    ratio = _distances(prototypes, prototypes) / class_distances.masked_fill(~off, 1) * off
    scale = ratio.sum() / ratio.square().sum().clamp(min=1e-12)  # the best s: a least-squares fit of s * ratio to 1
    pairs = len(prototypes) * (len(prototypes) - 1)
    distortion = (scale * ratio - 1).where(off, 0).square().sum() / max(1, pairs)
    return {
        "loss": data + distortion_weight * distortion,
        "data": data.detach(),
        "distortion": distortion.detach(),
    }


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, with a finite gradient where two points meet."""
    squared = a.square().sum(dim=1, keepdim=True) - 2 * a @ b.T + b.square().sum(dim=1)
    return (squared.clamp(min=0) + 1e-12).sqrt()
