"""Protocol ``clustering``: do clusters of the embeddings, and the classes a method found, agree with the classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.evaluation.base import Representation, Score, Setting
from regrain.evaluation.kmeans import kmeans_clusters
from regrain.metrics import bootstrap_interval, clustering_metrics, match_clusters

__all__ = ["clustering"]

_SEEDS = 3
_METRICS = ("acc", "nmi", "ami", "ari", "purity", "homogeneity")
_FITTED = "clusters are matched to classes on the labels that they are then judged by, as is usual for ACC"


def clustering(representation: Representation, setting: Setting) -> dict[str, Score]:
    """ACC, NMI, AMI, ARI, purity and homogeneity of clusters against the classes of the level.

    ``kmeans-`` figures are of k-means on unit-length test embeddings, k = number of classes that occur. A seed runs it
    from ``cluster_starts`` k-means++ starts (default 10) and keeps the one of lowest inertia, which no label decides;
    ``cluster_seeds`` says how many seeds (default 3). Means over the seeds with Student's interval.

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
    runs = [
        clustering_metrics(labels, kmeans_clusters(representation.test[known], count, setting, seed))
        for seed in range(int(setting.options.get("cluster_seeds", _SEEDS)))
    ]
    scores = {f"kmeans-{metric}": Score.mean([run[metric] for run in runs], "seeds") for metric in _METRICS}
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
