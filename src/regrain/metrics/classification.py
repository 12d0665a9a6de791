"""Classification: the k-nearest-neighbour classifier, accuracy and balanced accuracy."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels, as_unit_vectors, known_pairs
from .neighbours import neighbour_blocks


def knn_predict(
    train_embeddings: ArrayLike | Tensor,
    train_labels: ArrayLike | Tensor,
    test_embeddings: ArrayLike | Tensor,
    *,
    k: int,
    classes: int,
    temperature: float | None = None,
) -> Tensor:
    """Classify by the k nearest training embeddings (cosine): each votes for its label.

    Returns (m,) int64 predicted classes, on the device of the embeddings; of equal votes the smallest class wins.

    Parameters
    ----------
    train_embeddings, test_embeddings
        (n, d) and (m, d) arrays or tensors of floats; normalised here.
    train_labels
        (n,) integers below ``classes``; rows of -1 are left out.
    k
        Neighbours that vote, from 1 to the number of labelled training samples.
    classes
        Number of classes.
    temperature
        None: every vote counts alike. Else votes weigh exp(similarity / temperature) (Wu et al. 2018, there 0.07).

    Examples
    --------
    >>> import torch
    >>> train, labels = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), torch.tensor([1, 1, 0])
    >>> knn_predict(train, labels, torch.tensor([[1.0, 0.2], [0.1, 1.0]]), k=1, classes=2)
    tensor([1, 0])
    """
    train = as_unit_vectors(train_embeddings, "train_embeddings")
    test = as_unit_vectors(test_embeddings, "test_embeddings")
    labels = as_labels(train_labels, len(train), "train_labels").to(train.device)
    if len(labels) and labels.max() >= classes:
        raise UserError(
            f"train_labels reach {int(labels.max())}, but classes = {classes} allows 0 to {classes - 1}",
            code="out_of_range",
        )
    if temperature is not None and not temperature > 0:
        raise UserError(f"temperature must be positive, got {temperature}", code="out_of_range")
    train, labels = train[labels >= 0], labels[labels >= 0]
    predicted = []
    for similarity, index in neighbour_blocks(test, train, k, exclude_self=False):
        nearest = similarity[:, :1]
        weight = torch.ones_like(similarity) if temperature is None else ((similarity - nearest) / temperature).exp()
        votes = weight.new_zeros(len(weight), classes).scatter_add_(1, labels[index], weight)
        predicted.append(votes.sort(dim=1, descending=True, stable=True).indices[:, 0])
    return torch.cat(predicted)


def calibration_error(probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence is from accuracy, in the mean over samples.

    Samples are binned by the probability of their predicted class, in bins of equal width. In [0, 1].

    Parameters
    ----------
    probabilities
        (n, C), rows sum to one.
    labels
        (n,) integers below C; -1 is left out.
    bins
        At least 1.

    Examples
    --------
    >>> calibration_error([[0.75, 0.25]] * 4, [0, 0, 0, 1])  # right as often as it says
    0.0
    """
    values = torch.as_tensor(probabilities).double()
    truth, predicted = known_pairs(labels, values.argmax(dim=1), "probabilities")
    return confidence_error(values.max(dim=1).values[torch.as_tensor(labels) >= 0], truth == predicted, bins=bins)


def confidence_error(confidence: ArrayLike | Tensor, right: ArrayLike | Tensor, *, bins: int = 15) -> float:
    """The calibration error of confidences that are given as they are, whatever they were made from. In [0, 1].

    Parameters
    ----------
    confidence
        (n,) in [0, 1].
    right
        (n,) booleans: whether the prediction was right.
    bins
        At least 1.

    Examples
    --------
    >>> confidence_error([0.75, 0.75, 0.5, 0.5], [True, True, True, False])  # right as often as the lower ones say
    0.125
    """
    if bins < 1:
        raise UserError(f"bins is at least 1; got {bins}", code="out_of_range")
    sure = torch.as_tensor(confidence).double().cpu().numpy()
    hits = torch.as_tensor(right).double().cpu().numpy()
    if sure.shape != hits.shape or not len(sure):
        raise UserError(
            f"confidence and right need one entry a sample; got {len(sure)} and {len(hits)}", code="wrong_shape"
        )
    place = np.minimum((sure * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=hits - sure, minlength=bins)
    return float(np.abs(gap).sum() / len(sure))


def accuracy(labels: ArrayLike | Tensor, predictions: ArrayLike | Tensor) -> float:
    """Share of the labelled samples that are predicted correctly; samples labelled -1 are left out. In [0, 1].

    Parameters
    ----------
    labels, predictions
        (n,) integers.

    Examples
    --------
    >>> accuracy([0, 1, 1, -1], [0, 1, 0, 0])
    0.6666666666666666
    """
    truth, predicted = known_pairs(labels, predictions, "predictions")
    return float((truth == predicted).mean())


def balanced_accuracy(labels: ArrayLike | Tensor, predictions: ArrayLike | Tensor) -> float:
    """Mean over the classes that occur of the share of the class that is predicted correctly; -1 is left out.

    In [0, 1].

    Parameters
    ----------
    labels, predictions
        (n,) integers.

    Examples
    --------
    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    truth, predicted = known_pairs(labels, predictions, "predictions")
    _, class_index, size = np.unique(truth, return_inverse=True, return_counts=True)
    return float((np.bincount(class_index, weights=truth == predicted) / size).mean())
