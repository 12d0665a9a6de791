"""Doubtful labels: confident learning from probabilities of a classifier not fitted on the label it judges."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels, as_unit_vectors
from .neighbours import neighbour_blocks


@dataclass(frozen=True)
class LabelQuality:
    """Result of :func:`label_quality` for every label: tensors (n,), in the order of the rows."""

    score: Tensor
    """In [0, 1], low where the label is doubtful; NaN where there is no label."""
    proposed: Tensor
    """The class with the largest probability."""
    doubtful: Tensor
    """Whether confident learning counts the label as wrong."""


def neighbour_probabilities(
    embeddings: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Class probabilities of every sample by its k nearest labelled others; its own label has no vote.

    Leaving the sample itself out is cross-validation with as many folds as samples: the probabilities are out of
    sample, as confident learning asks. A neighbour's vote weighs exp(cosine / temperature) (Wu et al. 2018, there k =
    200 and 0.07); every class starts with the weight of a hundredth of a vote as near as the nearest neighbour, shared
    among the classes, so that no probability is 0. Returns (n, classes) float64, rows sum to one.

    Parameters
    ----------
    embeddings
        (n, d) array or tensor of floats, compared by cosine.
    labels
        (n,) integers below ``classes``; -1 is unknown, has no vote, and gets probabilities all the same.
    classes
        Number of classes.
    k
        Neighbours that vote, at least 1; fewer where fewer are labelled.
    temperature
        Positive.

    Raises
    ------
    UserError
        If a shape does not fit, a number is outside its range, fewer than two labels are known, or an embedding is
        not finite.

    Examples
    --------
    >>> import torch
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.3], [0.0, 1.0], [0.1, 1.0]])
    >>> neighbour_probabilities(vectors, torch.tensor([0, 0, 1, 1, 1]), classes=2, k=1).argmax(dim=1)
    tensor([0, 0, 0, 1, 1])
    """
    vectors = as_unit_vectors(embeddings, "embeddings")
    codes = as_labels(labels, len(vectors), "labels").to(vectors.device)
    if k < 1 or not temperature > 0:
        raise UserError(f"k is at least 1 and the temperature positive; got {k} and {temperature}", code="out_of_range")
    if int(codes.max()) >= classes:
        raise UserError(
            f"labels reach {int(codes.max())}, but classes = {classes} allows 0 to {classes - 1}", code="out_of_range"
        )
    known = codes >= 0
    if int(known.sum()) < 2:
        raise UserError("neighbours vote with their labels, and fewer than two samples have one", code="no_labels")
    result = torch.empty(len(vectors), classes, dtype=torch.float64, device=vectors.device)
    gallery, votes = vectors[known], codes[known]
    for rows, query, own in ((known, gallery, True), (~known, vectors[~known], False)):
        if len(query):
            blocks = neighbour_blocks(query, gallery, min(k, len(gallery) - own), exclude_self=own)
            found = [_vote(similarity, votes[index], classes, temperature) for similarity, index in blocks]
            result[rows] = torch.cat(found)
    return result


def _vote(similarity: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    weight = ((similarity - similarity[:, :1]) / temperature).double().exp()
    votes = weight.new_full((len(weight), classes), 0.01 / classes).scatter_add_(1, labels, weight)
    return votes / votes.sum(dim=1, keepdim=True)


def label_quality(probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> LabelQuality:
    """How far each label can be trusted, by probabilities of a classifier that was not fitted on that label.

    The score is self-confidence, the probability of the given label: ``p(given | x)``. A label counts as wrong where
    another class is reached confidently: with ``t_j`` the mean probability of class j over the samples labelled j, the
    likeliest class among those with ``p(j | x) >= t_j`` is not the given one (Northcutt, Jiang and Chuang, "Confident
    Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021, equations 1 and 2).

    Parameters
    ----------
    probabilities
        (n, C), rows sum to one, out of sample: from cross-validation, or :func:`neighbour_probabilities`.
    labels
        (n,) integers below C; -1 is unknown.

    Examples
    --------
    >>> found = label_quality([[0.875, 0.125], [0.75, 0.25], [0.125, 0.875], [0.875, 0.125]], [0, 0, 1, 1])
    >>> found.score.tolist(), found.proposed.tolist(), found.doubtful.tolist()
    ([0.875, 0.75, 0.875, 0.125], [0, 0, 1, 0], [False, False, False, True])
    """
    values = torch.as_tensor(probabilities).double()
    if values.ndim != 2:
        raise UserError(f"probabilities are of shape (n, C); got {tuple(values.shape)}", code="wrong_shape")
    codes = as_labels(labels, len(values), "labels").to(values.device)
    if len(codes) and int(codes.max()) >= values.shape[1]:
        raise UserError(
            f"labels reach {int(codes.max())}, and there are probabilities of {values.shape[1]} classes",
            code="out_of_range",
        )
    known = codes >= 0
    own = values.gather(1, codes.clamp(min=0)[:, None])[:, 0]
    counts = torch.bincount(codes[known], minlength=values.shape[1])
    sums = values.new_zeros(values.shape[1]).index_add_(0, codes[known], own[known])
    threshold = (sums / counts.clamp(min=1)).masked_fill(counts == 0, torch.inf)
    reached = values.masked_fill(values < threshold, -torch.inf)
    best, confident = reached.max(dim=1)
    return LabelQuality(
        own.masked_fill(~known, torch.nan), values.argmax(dim=1), known & best.isfinite() & (confident != codes)
    )
