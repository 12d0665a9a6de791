"""Protocol ``clustering``: do clusters of the embeddings, and the classes a method found, agree with the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.evaluation.base import Representation, Score, Setting
from regrain.evaluation.clusters import MOST_FITTED, MOST_LINKED, kmeans_clusters, kmeans_of_train, ward_clusters
from regrain.metrics import bootstrap_interval, clustering_metrics, match_clusters

_SEEDS = 3
_METRICS = ("acc", "nmi", "ami", "ari", "purity", "homogeneity")
_FITTED = "clusters are matched to classes on the labels that they are then judged by, as is usual for ACC"


def clustering(representation: Representation, setting: Setting) -> dict[str, Score]:
    """ACC, NMI, AMI, ARI, purity and homogeneity of clusters against the classes of the level.

    ``kmeans-`` figures are of k-means on unit-length test embeddings, k = number of classes that occur. A seed runs it
    from ``cluster_starts`` k-means++ starts (default 10) and keeps the one of lowest inertia, which no label decides;
    ``cluster_seeds`` says how many seeds (default 3). Means over the seeds with their intervals.
    ``kmeans-train-`` figures are of the nearest centres of k-means on the training embeddings, on 20,000 drawn at
    random where there are more: the Self-Classifier paper's protocol, and what a method that trains on them must beat.
    ``ward-`` figures are of Ward linkage on the test embeddings; above 10,000 samples it is left out, for it holds the
    distances of all pairs.

    ``head1-`` and so on are of the partitions that the method made of its own, one after the other, with the number of
    clusters that occur. ACC matches clusters to classes on the judged labels themselves; where training samples are
    labelled at this level, ``-acc-by-train`` is the accuracy of the matching made on those.

    Raises
    ------
    UserError
        If there are fewer samples than classes.
    """
    known = setting.known()
    labels = setting.test_labels[known].numpy()
    count = len(np.unique(labels))
    if len(labels) <= count:
        raise UserError(
            f"clustering needs more samples than classes; level '{setting.level}' has {len(labels)} samples of "
            f"{count} classes"
        )
    test, train = representation.test[known], representation.train
    seeds = range(int(setting.options.get("cluster_seeds", _SEEDS)))
    scores = _scores("kmeans", [clustering_metrics(labels, kmeans_clusters(test, count, setting, s)) for s in seeds])
    if train is not None and len(train) > count:
        of_train = [clustering_metrics(labels, kmeans_of_train(train, test, count, setting, s)) for s in seeds]
        fewer = f"k-means is fitted on {MOST_FITTED} of the {len(train)} training samples"
        scores |= _scores("kmeans-train", of_train, fewer if len(train) > MOST_FITTED else "", of_many=True)
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
        transferred = _by_train(representation, setting, number - 1, known)
        if transferred is not None:
            scores[f"head{number}-acc-by-train"] = transferred
    return scores


def _scores(
    name: str, runs: Sequence[Mapping[str, float]], note: str = "", *, of_many: bool = False
) -> dict[str, Score]:
    """Means over runs; ``of_many``: all but ACC and NMI are for files and not for a table on a screen."""
    scores = {f"{name}-{metric}": Score.mean([run[metric] for run in runs], "seeds") for metric in _METRICS}
    scores[f"{name}-acc"] = replace(scores[f"{name}-acc"], note=note)
    if of_many:
        scores |= {f"{name}-{metric}": replace(scores[f"{name}-{metric}"], detail=True) for metric in _METRICS[2:]}
    return scores


def _by_train(representation: Representation, setting: Setting, number: int, known: Tensor) -> Score | None:
    """Accuracy by the matching of clusters to classes that training samples give; a cluster they lack is wrong."""
    if representation.partitions is None or representation.train_partitions is None or setting.train_labels is None:
        return None
    if not bool((setting.train_labels >= 0).any()):
        return None
    mapping = match_clusters(setting.train_labels, representation.train_partitions[:, number])
    clusters = representation.partitions[known][:, number].tolist()
    predicted = torch.tensor([mapping.get(cluster, -1) for cluster in clusters])
    hits = (predicted == setting.test_labels[known]).double()
    return Score(*bootstrap_interval(hits, seed=setting.seed), "queries")
