"""k-means on judged samples, for the protocols that cluster."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from regrain.evaluation.base import Setting, unit_rows

__all__ = ["kmeans_clusters"]

_STARTS = 10
"""From a single start, k-means merges and splits some of many clusters even where they are well apart."""


def kmeans_clusters(embeddings: Tensor, count: int, setting: Setting, seed: int = 0) -> np.ndarray:
    """(n,) clusters of unit-length embeddings (n, d), from ``cluster_starts`` k-means++ starts (default 10).

    That of lowest inertia is kept, which no label decides.
    """
    starts = int(setting.options.get("cluster_starts", _STARTS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: pixels of one colour
        model = KMeans(count, n_init=starts, random_state=setting.seed + seed)
        result: np.ndarray = model.fit_predict(unit_rows(embeddings).numpy())
    return result
