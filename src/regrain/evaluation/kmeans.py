"""k-means on judged samples, for the protocols that cluster."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from regrain.evaluation.base import Setting, unit_rows
from regrain.methods.lloyd import STARTS, lloyd

__all__ = ["kmeans_clusters"]


def kmeans_clusters(embeddings: Tensor, count: int, setting: Setting, seed: int = 0) -> np.ndarray:
    """(n,) clusters of unit-length embeddings (n, d), from ``cluster_starts`` k-means++ starts (default 10).

    That of lowest inertia is kept, which no label decides.
    """
    starts = int(setting.options.get("cluster_starts", STARTS))
    result: np.ndarray = lloyd(unit_rows(embeddings), count, starts=starts, seed=setting.seed + seed)[0].numpy()
    return result
