"""How many classes there are, estimated from a run that found more clusters than that, without any label."""

from __future__ import annotations

import math
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
_WIDTH = 128
"""Width of BuCSFR's embeddings; wider ones are projected onto their first singular vectors."""
_NEIGHBOURS = 10
_THRESHOLD = 1.08
"""Of merging by coding length: two of Grocery's categories, of 28 and 22 products, are left with 22 and 24.

Domains of CLINC150, of 15 intents, are left with 31 and 35: there 1.2 is right."""


@dataclass(frozen=True)
class ClassCount:
    """An estimate of the number of classes."""

    estimate: int
    low: int
    high: int
    """``low``, ``high``: the fewest and most classes whose silhouette is nearly as large (98% of the largest)."""
    clusters: int
    """Over-clusters that it was made from; no estimate can be above it."""
    silhouettes: dict[int, float]
    """By number of classes tried."""
    by_coding_length: int
    """Clusters that :func:`merge_by_coding_length` leaves: a second opinion, without any number tried."""

    def describe(self) -> str:
        """In words, with a warning where there were too few clusters to tell."""
        sentence = (
            f"about {self.estimate} classes ({self.low} to {self.high} fit nearly as well), by the silhouette of "
            f"{self.clusters} clusters merged"
        )
        if self.high > _CROWDED * self.clusters:
            sentence += "; that is near the number of clusters itself: train with more of them before believing it"
        return f"{sentence}; {self.by_coding_length} by coding length"


def class_count_of(model: Model, dataset: Dataset, *, seed: int = 0) -> ClassCount:
    """The estimate from a trained model: its finest partition, or k-means on its embeddings, merged.

    Parameters
    ----------
    dataset : Dataset
        No label is looked at.

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
    left = merge_by_coding_length(vectors, torch.from_numpy(place))
    return ClassCount(best, min(near), max(near), count, silhouettes, len(left.unique()))


def coding_length(vectors: Tensor) -> float:
    r"""Bits that it takes to code vectors up to a distortion (Ma et al. 2007; BuCSFR, ICCV 2025).

    .. math:: L(Z) = \frac{n + d}{2} \log_2 \det\Big(I + \frac{8}{n} Z^T Z\Big)

    Parameters
    ----------
    vectors : Tensor (n, d)
        Of unit length.

    Examples
    --------
    >>> round(coding_length(torch.eye(2)), 3)  # 2 log2 det(5 I)
    9.288
    """
    z = vectors.double()
    return float(_lengths(z.T @ z, torch.tensor(float(len(z)), dtype=torch.float64)))


def _lengths(products: Tensor, sizes: Tensor) -> Tensor:
    """(...): coding lengths from Z^T Z (..., d, d) and numbers of vectors (...)."""
    width = products.shape[-1]
    scaled = torch.eye(width, dtype=products.dtype) + 8 / sizes[..., None, None] * products
    return (sizes + width) / 2 * torch.linalg.slogdet(scaled).logabsdet / math.log(2)


def merge_by_coding_length(embedding: Tensor, codes: Tensor, *, threshold: float = _THRESHOLD) -> Tensor:
    r"""Merge clusters as long as it shortens their code enough, after BuCSFR (ICCV 2025).

    Step by step the pair with the smallest positive

    .. math:: \frac{\min(M_a, M_b)}{L_a + L_b - L_{ab}}, \qquad M = \frac{L}{1 + n / d}

    is merged, while that is below the threshold. Two large halves of one cluster have 1, two clusters that differ have
    more. BuCSFR has the smaller L in place of M, so that halves have 1 + n / d, and its threshold has to be set by the
    size of a data set's classes (1.1, 2, 5). A cluster is compared with its 10 nearest by their means.

    Parameters
    ----------
    embedding : Tensor (N, d)
        Scaled to unit length here; wider ones than 128 are projected to that first.
    codes : LongTensor (N,)
        Clusters, numbered without a gap.

    Returns
    -------
    LongTensor (N,): the clusters that are left, by the smallest number that each is made of.
    """
    x = functional.normalize(embedding.double(), dim=1)
    if x.shape[1] > _WIDTH:
        values, axes = torch.linalg.eigh(x.T @ x)
        x = functional.normalize(x @ axes[:, values.argsort(descending=True)[:_WIDTH]], dim=1)
    count = int(codes.max()) + 1
    sizes = torch.bincount(codes, minlength=count).double()
    sums = x.new_zeros(count, x.shape[1]).index_add_(0, codes, x)
    products = torch.stack([x[codes == code].T @ x[codes == code] for code in range(count)])
    lengths, alive = _lengths(products, sizes), torch.ones(count, dtype=torch.bool)
    ratios = x.new_full((count, count), math.inf)

    def compare(a: int) -> None:
        """Renew the ratios of a cluster with its nearest ones."""
        likeness = functional.normalize(sums, dim=1) @ functional.normalize(sums[a], dim=0)
        likeness[~alive] = likeness[a] = -math.inf
        near = likeness.topk(min(_NEIGHBOURS, int(alive.sum()) - 1)).indices
        saved = lengths[a] + lengths[near] - _lengths(products[a] + products[near], sizes[a] + sizes[near])
        most = lengths / (1 + sizes / x.shape[1])  # what a half saves
        found = torch.where(saved > 0, torch.minimum(most[a], most[near]) / saved, math.inf)
        ratios[a] = ratios[:, a] = math.inf
        ratios[a, near] = ratios[near, a] = found

    for a in range(count):
        compare(a)
    into = torch.arange(count)
    while int(alive.sum()) > 1 and float(ratios.min()) < threshold:
        a, b = sorted(divmod(int(ratios.argmin()), count))
        for held in (sizes, sums, products):
            held[a] += held[b]
        lengths[a] = _lengths(products[a], sizes[a])
        alive[b] = False
        ratios[b] = ratios[:, b] = math.inf
        into[into == b] = a
        if int(alive.sum()) > 1:
            compare(a)
    return into[codes]


def _tried(largest: int) -> list[int]:
    numbers = list(range(2, min(_ALL_UP_TO, largest) + 1))
    while numbers[-1] < largest:
        numbers.append(min(largest, int(numbers[-1] * _GROWTH) + 1))
    return numbers
