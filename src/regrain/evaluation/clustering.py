"""Protocol ``clustering``: do clusters of the embeddings, and the classes a method found, agree with the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from regrain.checks import Count
from regrain.errors import UserError
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.methods.clustering import kmeans
from regrain.metrics import clustering_metrics, match_clusters

MOST_FITTED = 20_000
"""Training samples that k-means is fitted on at most: more move its centres little, and cost time."""

MOST_LINKED = 10_000
"""Largest number of samples for linkage: it holds the distances of all pairs, 0.4 GB for this many."""

_BLOCK = 512
_METRICS = ("acc", "nmi", "ami", "ari", "purity", "homogeneity")
_FITTED = "clusters are matched to classes on the labels that they are then judged by, as is usual for ACC"


@protocol("train", "partitions", default=True)
def clustering(
    representation: Representation,
    task: Task,
    *,
    cluster_seeds: Count = 3,
    cluster_starts: Count = 10,
    cluster_train: bool = False,
) -> dict[str, Score]:
    """ACC, NMI, AMI, ARI, purity and homogeneity of clusters against the classes of the level.

    ``kmeans-`` figures are of k-means on unit-length test embeddings, k = number of classes that occur: means over
    seeds, with their intervals.
    ``ward-`` figures are of Ward linkage on the test embeddings; above 10,000 samples it is left out, for it holds the
    distances of all pairs.

    ``head1-`` and so on are of the partitions that the method made of its own, one after the other, with the number of
    clusters that occur. ACC matches clusters to classes on the evaluated labels themselves; where training samples are
    labelled at this level, ``-acc-by-train`` is the accuracy of the matching made on those.

    Raises a UserError if there are fewer samples than classes.

    Parameters
    ----------
    cluster_seeds : int
        Seeds of k-means.
    cluster_starts : int
        Starts of k-means a seed; that of lowest inertia counts, which no label decides.
    cluster_train : bool
        Whether to fit k-means on the training embeddings too, on 20,000 drawn at random where there are more: the
        ``kmeans-train-`` figures are of the nearest centres to the test samples. This is the Self-Classifier paper's
        protocol, and what a method that trains on them must beat; it takes most of the time.
    """
    known = task.known()
    labels = task.test_labels[known].numpy()
    count = len(np.unique(labels))
    if len(labels) <= count:
        raise UserError(
            f"clustering needs more samples than classes; level '{task.level}' has {len(labels)} samples of "
            f"{count} classes",
            code="too_few",
        )
    test, train = representation.test[known], representation.train
    seeds = range(task.seed, task.seed + cluster_seeds)
    of_test = [kmeans(normalize(test), count, starts=cluster_starts, seed=seed)[0].numpy() for seed in seeds]
    scores = _scores("kmeans", [clustering_metrics(labels, clusters) for clusters in of_test])
    if cluster_train and train is not None and len(train) > count:
        by_train = [_nearest_centres(train, test, count, cluster_starts, seed) for seed in seeds]
        fewer = f"k-means is fitted on {MOST_FITTED} of the {len(train)} training samples"
        scores |= _scores(
            "kmeans-train",
            [clustering_metrics(labels, clusters) for clusters in by_train],
            fewer if len(train) > MOST_FITTED else "",
            of_many=True,
        )
    if len(test) > MOST_LINKED:
        left_out = f"Ward linkage was left out, {len(test)} samples being more than {MOST_LINKED}"
        scores["kmeans-acc"] = replace(scores["kmeans-acc"], note=left_out)
    else:
        scores |= _scores("ward", [clustering_metrics(labels, ward_clusters(test, count))], of_many=True)
    for number, clusters in enumerate([] if representation.partitions is None else representation.partitions.T, 1):
        found = clusters[known].numpy()
        agreement = clustering_metrics(labels, found)
        scores |= {f"head{number}-{metric}": Score(agreement[metric]) for metric in _METRICS}
        scores[f"head{number}-acc"] = Score(agreement["acc"], note=_FITTED)
        scores[f"head{number}-clusters"] = Score(len(np.unique(found)), count=True)
        transferred = _by_train(representation, task, number - 1, known)
        if transferred is not None:
            scores[f"head{number}-acc-by-train"] = transferred
    return scores


def ward_clusters(embeddings: Tensor, count: int) -> np.ndarray:
    """(n,) clusters of unit-length embeddings (n, d): those pairs merge that add least variance within (Ward 1963)."""
    from scipy.cluster.hierarchy import cut_tree, linkage

    return cut_tree(linkage(_distances(normalize(embeddings)), "ward"), count)[:, 0]


def _scores(
    name: str, runs: Sequence[Mapping[str, float]], note: str = "", *, of_many: bool = False
) -> dict[str, Score]:
    """Means over runs; ``of_many``: all but ACC and NMI are for files and not for a table on a screen."""
    scores = {f"{name}-{metric}": Score.mean([run[metric] for run in runs], "seeds") for metric in _METRICS}
    scores[f"{name}-acc"] = replace(scores[f"{name}-acc"], note=note)
    if of_many:
        scores |= {f"{name}-{metric}": replace(scores[f"{name}-{metric}"], detail=True) for metric in _METRICS[2:]}
    return scores


def _nearest_centres(train: Tensor, test: Tensor, count: int, starts: int, seed: int) -> np.ndarray:
    """(n,) the nearest centre of k-means on training embeddings (m, d) to each test embedding (n, d)."""
    if len(train) > MOST_FITTED:
        train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:MOST_FITTED]]
    centres = kmeans(normalize(train), count, starts=starts, seed=seed)[1]
    return torch.cdist(normalize(test), centres).argmin(dim=1).numpy()


def _distances(vectors: Tensor) -> np.ndarray:
    """(n (n - 1) / 2,) of all pairs, in SciPy's order; by matrix products, which are faster than SciPy's loops."""
    count, place = len(vectors), 0
    result = np.empty(count * (count - 1) // 2)
    for start in range(0, count, _BLOCK):
        block = torch.cdist(vectors[start : start + _BLOCK], vectors[start:]).numpy()
        for row, distances in enumerate(block):
            result[place : place + len(distances) - row - 1] = distances[row + 1 :]
            place += len(distances) - row - 1
    return result


def _by_train(representation: Representation, task: Task, number: int, known: Tensor) -> Score | None:
    """Accuracy by the matching of clusters to classes that training samples give; a cluster they lack is wrong."""
    if representation.partitions is None or representation.train_partitions is None or task.train_labels is None:
        return None
    if not bool((task.train_labels >= 0).any()):
        return None
    mapping = match_clusters(task.train_labels, representation.train_partitions[:, number])
    clusters = representation.partitions[known][:, number].tolist()
    predicted = torch.tensor([mapping.get(cluster, -1) for cluster in clusters])
    return Score.of_samples(predicted == task.test_labels[known], task)
