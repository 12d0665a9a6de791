"""How many classes there are, estimated from a run that found more clusters than that, without any label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import apply_model, embed
from regrain.methods.clustering import kmeans
from regrain.model import Model

_JUDGED = 4000
_ALL_UP_TO, _GROWTH = 20, 1.08
_NEARLY = 0.98
_CLUSTERS, _SAMPLES_EACH = 300, 10
_CROWDED = 0.7


@dataclass(frozen=True)
class ClassCount:
    """An estimate of the number of classes.

    Attributes
    ----------
    estimate : int
    low, high : int
        The fewest and most classes whose silhouette is nearly as large (98% of the largest).
    clusters : int
        Over-clusters that it was made from; no estimate can be above it.
    silhouettes : dict of int to float
        By number of classes tried.
    """

    estimate: int
    low: int
    high: int
    clusters: int
    silhouettes: dict[int, float]

    def describe(self) -> str:
        """In words, with a warning where there were too few clusters to tell."""
        told = (
            f"about {self.estimate} classes ({self.low} to {self.high} fit nearly as well), by the silhouette of "
            f"{self.clusters} clusters merged"
        )
        if self.high > _CROWDED * self.clusters:
            told += "; that is near the number of clusters itself: train with more of them before believing it"
        return told


def class_count_of(model: Model, dataset: Dataset, *, seed: int = 0) -> ClassCount:
    """The estimate from a trained model: its finest partition, or k-means on its embeddings, merged.

    Parameters
    ----------
    model : Model
    dataset : Dataset
        No label is looked at.
    seed : int

    Raises
    ------
    UserError
        If there are too few samples or clusters.
    """
    vectors = embed(model, dataset)
    if model.method.has_subclasses:

        def finest(x: object) -> Tensor:
            return max(model.method.partitions(x), key=lambda rows: rows.shape[1]).argmax(dim=1)

        codes = apply_model(model, dataset, finest).long()
    else:
        count = min(_CLUSTERS, len(vectors) // _SAMPLES_EACH)
        if count < 3:
            raise UserError(f"{len(vectors)} samples are too few to estimate a number of classes from")
        codes, _ = kmeans(functional.normalize(vectors, dim=1), count, seed=seed)
    return estimate_class_count(vectors, codes, seed=seed)


def estimate_class_count(embedding: Tensor, codes: Tensor, *, seed: int = 0) -> ClassCount:
    """Merge over-clusters to k classes for many k; the k of the largest mean silhouette is the estimate.

    Over-clusters are merged by k-means on their means, weighted by their sizes; the silhouette (Rousseeuw 1987, by
    cosine) is taken over at most 4000 samples. Every k up to 20 is tried, then steps of 8%.

    It can tell classes that form compact clusters in the embedding. It finds coarse classes where those stand further
    apart than the fine ones within, and it cannot find more classes than there are clusters.

    Parameters
    ----------
    embedding : Tensor (N, d)
    codes : LongTensor (N,)
        The over-cluster of each sample.
    seed : int

    Raises
    ------
    UserError
        If fewer than three over-clusters have samples, or all samples are alike.

    Examples
    --------
    >>> corners = torch.eye(4).repeat_interleave(30, dim=0)
    >>> noise = 0.05 * torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    >>> estimate_class_count(corners + noise, torch.arange(120) // 10).estimate
    4
    """
    from sklearn.metrics import silhouette_score

    vectors = functional.normalize(embedding.float(), dim=1)
    sizes = torch.bincount(codes)
    kept = sizes > 0
    count = int(kept.sum())
    if count < 3:
        raise UserError(
            f"a number of classes is estimated by merging clusters, and {count} have samples: train with more"
        )
    sums = torch.zeros(len(sizes), vectors.shape[1]).index_add_(0, codes, vectors)[kept]
    means = functional.normalize(sums, dim=1)
    place = torch.cumsum(kept, dim=0)[codes].numpy() - 1
    judged = np.random.default_rng(seed).permutation(len(vectors))[:_JUDGED]
    silhouettes: dict[int, float] = {}
    for classes in _tried(min(count, len(judged) - 1)):
        merged = kmeans(means, classes, seed=seed, weights=sizes[kept])[0].numpy()
        labels = merged[place][judged]
        if 1 < len(np.unique(labels)) < len(judged):
            silhouettes[classes] = float(silhouette_score(vectors.numpy()[judged], labels, metric="cosine"))
    if not silhouettes:
        raise UserError("a number of classes cannot be estimated where all samples are embedded alike")
    best = max(silhouettes, key=lambda k: silhouettes[k])
    least = silhouettes[best] - (1 - _NEARLY) * abs(silhouettes[best])
    near = [k for k, value in silhouettes.items() if value >= least]
    return ClassCount(best, min(near), max(near), count, silhouettes)


def _tried(largest: int) -> list[int]:
    numbers = list(range(2, min(_ALL_UP_TO, largest) + 1))
    while numbers[-1] < largest:
        numbers.append(min(largest, int(numbers[-1] * _GROWTH) + 1))
    return numbers
