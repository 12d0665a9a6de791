"""Protocol ``clustering``: do clusters of the embeddings agree with the classes (category discovery)."""

from __future__ import annotations

import warnings

from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from regrain.errors import UserError
from regrain.evaluation.base import Representation, Score, Setting, unit_rows
from regrain.metrics import clustering_metrics, student_interval

__all__ = ["clustering"]

_SEEDS = 3
_STARTS = 10
"""From a single start, k-means merges and splits some of many clusters even where they are well apart."""

_METRICS = ("acc", "nmi", "ami", "ari", "purity")


def clustering(representation: Representation, setting: Setting) -> dict[str, Score]:
    """ACC, NMI, AMI, ARI and purity of k-means on unit-length test embeddings, k = number of classes that occur.

    A seed runs k-means from ``cluster_starts`` k-means++ starts (default 10) and keeps the one of lowest inertia, which
    no label decides; ``cluster_seeds`` says how many seeds (default 3). Means over the seeds with Student's interval.

    Raises
    ------
    UserError
        If there are fewer samples than classes.
    """
    known = setting.known()
    labels = setting.test_labels[known]
    count = len(labels.unique())
    if len(labels) <= count:
        raise UserError(
            f"clustering needs more samples than classes; level '{setting.level}' has {len(labels)} samples of "
            f"{count} classes"
        )
    vectors = unit_rows(representation.test[known]).numpy()
    starts = int(setting.options.get("cluster_starts", _STARTS))
    runs = []
    for seed in range(int(setting.options.get("cluster_seeds", _SEEDS))):
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ConvergenceWarning
            )  # fewer distinct points than clusters: pixels of one colour
            clusters = KMeans(count, n_init=starts, random_state=setting.seed + seed).fit_predict(vectors)
        runs.append(clustering_metrics(labels.numpy(), clusters))
    scores = {}
    for metric in _METRICS:
        values = [run[metric] for run in runs]
        if len(values) < 2:
            scores[f"kmeans-{metric}"] = Score(values[0])
            continue
        mean, half = student_interval(values)
        scores[f"kmeans-{metric}"] = Score(mean, mean - half, mean + half, "seeds")
    return scores
