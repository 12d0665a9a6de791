"""Clusters of embeddings, for the protocols that compare them with classes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from regrain.evaluation.base import Setting, unit_rows
from regrain.methods.lloyd import STARTS, lloyd

MOST_FITTED = 20_000
"""Training samples that k-means is fitted on at most: more move its centres little, and cost time."""

MOST_LINKED = 10_000
"""Samples that linkage takes at most: it holds the distances of all pairs, 0.4 GB of so many."""

_BLOCK = 512


def kmeans_clusters(embeddings: Tensor, count: int, setting: Setting, seed: int = 0) -> np.ndarray:
    """(n,) clusters of unit-length embeddings (n, d), from ``cluster_starts`` k-means++ starts (default 10).

    The start of lowest inertia is kept, which no label decides.
    """
    result: np.ndarray = _kmeans(unit_rows(embeddings), count, setting, seed)[0].numpy()
    return result


def kmeans_of_train(train: Tensor, embeddings: Tensor, count: int, setting: Setting, seed: int = 0) -> np.ndarray:
    """(n,) the nearest centre to each of the embeddings (n, d), the centres being fitted on others (m, d)."""
    if len(train) > MOST_FITTED:
        train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:MOST_FITTED]]
    centres = _kmeans(unit_rows(train), count, setting, seed)[1]
    nearest: np.ndarray = torch.cdist(unit_rows(embeddings), centres).argmin(dim=1).numpy()
    return nearest


def ward_clusters(embeddings: Tensor, count: int) -> np.ndarray:
    """(n,) clusters of unit-length embeddings (n, d): those pairs merge that add least variance within (Ward 1963)."""
    from scipy.cluster.hierarchy import cut_tree, linkage

    result: np.ndarray = cut_tree(linkage(_distances(unit_rows(embeddings)), "ward"), count)[:, 0]
    return result


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


def _kmeans(vectors: Tensor, count: int, setting: Setting, seed: int) -> tuple[Tensor, Tensor]:
    starts = int(setting.options.get("cluster_starts", STARTS))
    return lloyd(vectors, count, starts=starts, seed=setting.seed + seed)
