"""Clustering: agreement of clusters with classes. Samples labelled -1 are left out; any cluster number is a cluster."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError

from ._arrays import as_labels, known_pairs


def clustering_accuracy(labels: ArrayLike | Tensor, clusters: ArrayLike | Tensor) -> float:
    """Accuracy (ACC) under the best assignment of clusters to classes.

    Clusters and classes are matched one to one by the Hungarian algorithm. With more clusters than classes the
    unmatched clusters go to their majority class, so pure clusters score 1 however many they are. Of several best
    matchings that one counts which leaves most to the majorities: the value, in [0, 1], does not depend on cluster
    numbers.

    Parameters
    ----------
    labels, clusters
        (n,) integers.

    Examples
    --------
    >>> clustering_accuracy([0, 0, 1, 1], [5, 5, 2, 5])
    0.75
    >>> clustering_accuracy([0, 0, 1, 1], [0, 1, 2, 3])
    1.0
    """
    return _accuracy(_counts(*known_pairs(labels, clusters, "clusters")))


def match_clusters(labels: ArrayLike | Tensor, clusters: ArrayLike | Tensor) -> dict[int, int]:
    """Cluster -> class by the best one-to-one assignment; further clusters go to their majority class.

    :func:`clustering_accuracy` scores it on the labels it was fitted on; fitted on other samples, it is a classifier.
    It depends on the partition and on the order of the samples, and not on the numbers of clusters and classes. Returns
    a class for every cluster that occurs.

    Parameters
    ----------
    labels, clusters
        (n,) integers.

    Examples
    --------
    >>> match_clusters([3, 3, 7, 7], [5, 5, 2, 8])
    {2: 7, 5: 3, 8: 7}
    """
    truth, found = known_pairs(labels, clusters, "clusters")
    (classes, truth), (numbers, found) = _by_appearance(truth), _by_appearance(found)
    chosen = classes[_matched(_counts(truth, found))]
    return dict(sorted(zip(numbers.tolist(), chosen.tolist(), strict=True)))


def novel_accuracy(
    labels: ArrayLike | Tensor, clusters: ArrayLike | Tensor, old: ArrayLike | Tensor
) -> dict[str, float]:
    """Accuracy on all samples, on those of old classes and on those of new ones, by one assignment of clusters.

    As in generalised category discovery (Vaze et al., CVPR 2022): clusters and classes are matched one to one by the
    Hungarian algorithm over all samples at once, and a cluster or class that is left over counts as wrong. Of several
    best matchings that one counts which is best on the old classes: the values do not depend on cluster numbers.
    Returns ``all``, ``old``, ``new``, in [0, 1]; NaN for old or new where no sample is of such a class.

    Parameters
    ----------
    labels, clusters
        (n,) integers.
    old
        The old classes, as codes of ``labels``: those that had labels in training. All others are new.

    Examples
    --------
    >>> novel_accuracy([0, 0, 1, 1, 2, 2], [4, 4, 5, 5, 5, 6], old=[0])
    {'all': 0.8333333333333334, 'old': 1.0, 'new': 0.75}
    """
    from scipy.optimize import linear_sum_assignment

    truth, found = known_pairs(labels, clusters, "clusters")
    classes = np.unique(truth)
    is_old = np.isin(classes, np.asarray(torch.as_tensor(old)))
    counts = _counts(truth, found)
    weights = (counts.sum() + 1) * counts + counts * is_old[:, None]
    rows, columns = linear_sum_assignment(weights, maximize=True)
    right = np.zeros(len(classes))
    right[rows] = counts[rows, columns]
    sizes = counts.sum(axis=1)
    chosen = {"all": np.ones_like(is_old), "old": is_old, "new": ~is_old}
    return {name: float(right[own].sum() / sizes[own].sum()) if own.any() else math.nan for name, own in chosen.items()}


def purity(labels: ArrayLike | Tensor, clusters: ArrayLike | Tensor) -> float:
    """Share of the samples that belong to the majority class of their cluster.

    In [0, 1]. It can only grow with the number of clusters.

    Parameters
    ----------
    labels, clusters
        (n,) integers.

    Examples
    --------
    >>> purity([0, 0, 1, 1], [0, 0, 0, 1])
    0.75
    """
    return _purity(_counts(*known_pairs(labels, clusters, "clusters")))


def clustering_metrics(labels: ArrayLike | Tensor, clusters: ArrayLike | Tensor) -> dict[str, float]:
    """All measures of agreement: NMI (arithmetic mean), AMI, ARI, ACC, purity, homogeneity.

    Parameters
    ----------
    labels, clusters
        (n,) integers.

    Returns
    -------
    With the keys nmi, ami, ari, acc, purity, homogeneity; at most 1, and chance level is about 0 for ami and ari.

    Examples
    --------
    >>> clustering_metrics([0, 0, 1, 1], [1, 1, 0, 0])
    {'nmi': 1.0, 'ami': 1.0, 'ari': 1.0, 'acc': 1.0, 'purity': 1.0, 'homogeneity': 1.0}
    """
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        homogeneity_score,
        normalized_mutual_info_score,
    )

    truth, found = known_pairs(labels, clusters, "clusters")
    counts = _counts(truth, found)
    return {
        "nmi": float(normalized_mutual_info_score(truth, found, average_method="arithmetic")),
        "ami": float(adjusted_mutual_info_score(truth, found, average_method="arithmetic")),
        "ari": float(adjusted_rand_score(truth, found)),
        "acc": _accuracy(counts),
        "purity": _purity(counts),
        "homogeneity": float(homogeneity_score(truth, found)),
    }


def neighbour_information(clusters: ArrayLike | Tensor, neighbours: ArrayLike | Tensor, count: int) -> float:
    """Mutual information between a sample's cluster and its neighbours' clusters, over log C: no label is looked at.

    Clusters that neighbours share, and that are many and of equal size, score high. It ranks partitions of the same
    samples with the same neighbours; it favours partitions from losses that train on these neighbours. In [0, 1]; 1
    where all C clusters are of equal size, and every neighbour is in the cluster of its sample.

    Parameters
    ----------
    clusters
        (n,) integers.
    neighbours
        (n, k) the places of every sample's neighbours, such as those of :func:`nearest_neighbours`.
    count
        C, clusters that there may be, at least 2.

    Examples
    --------
    >>> neighbour_information([0, 0, 1, 1], [[1], [0], [3], [2]], 2)
    1.0
    >>> neighbour_information([0, 0, 1, 1], [[1, 2], [0, 3], [3, 0], [2, 1]], 2)
    0.0
    """
    from sklearn.metrics import mutual_info_score

    places = torch.as_tensor(neighbours)
    own = as_labels(clusters, len(places), "clusters").cpu()
    if places.ndim != 2 or count < 2:
        raise UserError(
            f"neighbours are (n, k) and count is at least 2; got {tuple(places.shape)} and {count}", code="out_of_range"
        )
    theirs = own[places.cpu()]
    information = mutual_info_score(own[:, None].expand_as(theirs).flatten(), theirs.flatten())
    return float(information / np.log(count))


def _counts(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(classes, clusters) samples of each class in each cluster."""
    from sklearn.metrics.cluster import contingency_matrix

    return np.asarray(contingency_matrix(truth, found))


def _by_appearance(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct codes in the order in which they first appear, and the place of each code (n,) among them."""
    values, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    order = first.argsort()
    return values[order], order.argsort()[inverse]


def _accuracy(counts: np.ndarray) -> float:
    chosen = _matched(counts)
    return float(counts[chosen, np.arange(len(chosen))].sum() / counts.sum())


def _matched(counts: np.ndarray) -> np.ndarray:
    """(clusters,) the row of each cluster: by the Hungarian algorithm, else its majority.

    A matched cluster gives up its majority. Of the matchings with most samples that with the smallest majorities among
    the matched is the best; a weight of n + 1 keeps the two in this order.
    """
    from scipy.optimize import linear_sum_assignment

    majority = counts.max(axis=0)
    result = counts.argmax(axis=0)
    classes, clusters = linear_sum_assignment((counts.sum() + 1) * counts - majority, maximize=True)
    result[clusters] = classes
    return result


def _purity(counts: np.ndarray) -> float:
    return float(counts.max(axis=0).sum() / counts.sum())
