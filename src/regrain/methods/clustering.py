"""k-means by scikit-learn, shared by all methods that cluster, and clusters within superclasses."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError
from regrain.objectives.transport import sinkhorn_potentials

STARTS = 10
"""Number of k-means starts: from a single start it merges and splits some clusters even if they are well apart."""

CLUSTER_VARIANCE = 0.1
"""Variance of a cluster on the unit sphere, for probabilities: SCGM's sigma^2."""

_SILHOUETTE_SAMPLES = 2000
_SMALL_LOSS = 0.05
"""Share of the silhouette that clusters of equal size may cost where nobody said whether to make them equal."""

_BALANCED_SHARPNESS = 100.0
"""Sharpness of the transport on cosines: plans this sharp are nearly hard."""
_BALANCED_ROUNDS = 20


def kmeans(
    vectors: Tensor, count: int, *, starts: int = STARTS, seed: int = 0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run k-means from several k-means++ starts and keep the result of lowest inertia (Lloyd 1982).

    Returns (N,) int64 clusters and (count, d) centres, on the CPU.

    Parameters
    ----------
    vectors : (N, d)
    count : int
        Number of clusters, at most N. With fewer distinct vectors some clusters stay empty.
    starts, seed : int
        Number of starts, and their seed.
    weights : (N,), optional
        Weights of the vectors.

    Examples
    --------
    >>> codes, centres = kmeans(torch.tensor([[0.0], [0.1], [5.0]]), 2)
    >>> bool(codes[0] == codes[1]), bool(codes[0] == codes[2]), centres.shape
    (True, False, torch.Size([2, 1]))
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters
        model = KMeans(count, n_init=starts, random_state=seed).fit(
            vectors.cpu().numpy(), sample_weight=None if weights is None else weights.cpu().numpy()
        )
    return torch.from_numpy(model.labels_).long(), torch.from_numpy(model.cluster_centers_)


@dataclass(frozen=True)
class Subclusters:
    """Clusters within superclasses.

    Attributes
    ----------
    codes : LongTensor (N,)
        The cluster of every sample; a sample of unknown superclass joins the nearest of all centres.
    centres : Tensor (r, d)
        Unit vectors.
    superclass : LongTensor (r,)
        The superclass of each cluster.
    offsets : Tensor (r,)
        Added to a sample's cosine to a centre before the largest is taken: it keeps balanced clusters equal in size,
        and is 0 for other clusters.
    """

    codes: Tensor
    centres: Tensor
    superclass: Tensor
    offsets: Tensor


def cluster_within(
    embedding: Tensor,
    coarse: Tensor,
    *,
    each: int | None = None,
    total: int | None = None,
    largest: int = 10,
    balanced: bool | None = False,
    seed: int = 0,
) -> Subclusters:
    """Run k-means on unit vectors within each superclass.

    Parameters
    ----------
    embedding : (N, d)
    coarse : (N,)
        -1 unknown.
    each : int, optional
        Number of clusters in every superclass.
    total : int, optional
        Number of clusters overall, divided in proportion to the superclasses' sizes, at least one each. Without
        ``each`` and ``total`` each superclass gets the number of clusters with the largest mean silhouette (over at
        most 2000 samples; 1 where no partition has a positive one).
    largest : int
        Largest number of clusters in a superclass where the silhouette decides.
    balanced : bool, optional
        Make clusters of equal size within a superclass: Sinkhorn assignments and means alternate, starting at k-means.
        With None they are made where they cost less than a twentieth of the mean silhouette.
    seed : int
        Seed of k-means.

    Returns
    -------
    Subclusters
        On the device of the embedding.

    Raises
    ------
    UserError
        If no superclass is known, both numbers are given, or ``total`` is below the number of superclasses that occur.

    Examples
    --------
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    >>> found = cluster_within(vectors, torch.tensor([0, 0, 0, 1]), total=3)
    >>> found.superclass.tolist(), bool(found.codes[0] == found.codes[1]), bool(found.codes[0] == found.codes[2])
    ([0, 0, 1], True, False)
    """
    if each is not None and total is not None:
        raise UserError("give the number of clusters of each superclass (each), or of all (subclasses): not both")
    vectors = functional.normalize(embedding.detach().float(), dim=1).cpu()
    superclasses = coarse.cpu()
    present = superclasses[superclasses >= 0].unique().tolist()
    if not present:
        raise UserError("no superclass is known: there is nothing to cluster within")
    sizes = {c: int((superclasses == c).sum()) for c in present}
    counts = _shares(sizes, total) if total is not None else dict.fromkeys(present, each)
    plain = {}
    for superclass in present:
        own = vectors[superclasses == superclass]
        found = _cluster(own, counts[superclass], largest, seed)
        plain[superclass] = (*found, torch.zeros(len(found[1])))
    chosen = plain
    if balanced is not False:
        equal = {c: _balance(vectors[superclasses == c], means) for c, (_, means, _) in plain.items()}
        kept = []
        if balanced is None:
            kept = [
                sum(sizes[c] * _silhouette(vectors[superclasses == c], own, seed) for c, (own, _, _) in of.items())
                for of in (equal, plain)
            ]
        if balanced or kept[0] >= (1 - _SMALL_LOSS) * kept[1]:
            chosen = equal
    codes = torch.full((len(vectors),), -1)
    centres: list[Tensor] = []
    offsets: list[Tensor] = []
    owners: list[int] = []
    for superclass, (own, means, shift) in chosen.items():
        codes[superclasses == superclass] = own + len(owners)
        owners += [superclass] * len(means)
        centres.append(means)
        offsets.append(shift)
    stacked, shifts = torch.cat(centres), torch.cat(offsets)
    unknown = codes < 0
    codes[unknown] = (vectors[unknown] @ stacked.T + shifts).argmax(dim=1)
    device = embedding.device
    owner = torch.tensor(owners, device=device)
    return Subclusters(codes.to(device), stacked.to(device), owner, shifts.to(device))


def _shares(sizes: dict[int, int], total: int) -> dict[int, int | None]:
    """Divide ``total`` in proportion to the sizes, at least one each; the largest remainders get the rest."""
    if total < len(sizes):
        raise UserError(f"{total} clusters cannot be shared out over {len(sizes)} superclasses")
    spare, samples = total - len(sizes), sum(sizes.values())
    exact = {c: spare * n / samples for c, n in sizes.items()}
    counts = {c: 1 + int(share) for c, share in exact.items()}
    by_remainder = sorted(exact, key=lambda c: int(exact[c]) - exact[c])
    for c in by_remainder[: total - sum(counts.values())]:
        counts[c] += 1
    return dict(counts)


def _cluster(vectors: Tensor, count: int | None, largest: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return codes and unit centres of one superclass; centres are empty only where there are too few samples."""
    distinct = len(np.unique(vectors.numpy(), axis=0))

    def fitted(k: int) -> tuple[Tensor, Tensor]:
        codes, centres = kmeans(vectors, min(k, len(vectors)), seed=seed)
        means = functional.normalize(centres, dim=1)
        if k > len(means):  # more clusters than samples: the others are placed at the mean, and stay empty
            means = torch.cat([means, means[:1].expand(k - len(means), -1)])
        return codes, means

    if count is not None:
        return fitted(count)
    best, best_silhouette = fitted(1), 0.0
    for k in range(2, min(largest, distinct - 1) + 1):
        found = fitted(k)
        silhouette = _silhouette(vectors, found[0], seed)
        if silhouette > best_silhouette:
            best, best_silhouette = found, silhouette
    return best


def _silhouette(vectors: Tensor, codes: Tensor, seed: int) -> float:
    """Return the mean silhouette of the clusters over some of the samples, 0 where it has none."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(codes.unique()) < len(codes):
        return 0.0
    sample = min(_SILHOUETTE_SAMPLES, len(vectors))
    return float(silhouette_score(vectors.numpy(), codes.numpy(), sample_size=sample, random_state=seed))


def _balance(vectors: Tensor, means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run Lloyd's algorithm with equal cluster sizes; return codes, unit centres and offsets (mean 0)."""
    codes = torch.full((len(vectors),), -1)
    potentials = torch.zeros(len(means), dtype=torch.float64)
    for _ in range(_BALANCED_ROUNDS):
        scores = vectors @ means.T
        potentials = sinkhorn_potentials(scores, sharpness=_BALANCED_SHARPNESS, tolerance=1e-3, warm_start=potentials)
        new = (_BALANCED_SHARPNESS * scores + potentials).argmax(dim=1)
        if torch.equal(new, codes):
            break
        codes = new
        sums = torch.zeros_like(means).index_add_(0, codes, vectors)
        filled = torch.bincount(codes, minlength=len(means)) > 0
        means = torch.where(filled[:, None], functional.normalize(sums, dim=1), means)
    return codes, means, (potentials - potentials.mean()).float() / _BALANCED_SHARPNESS
