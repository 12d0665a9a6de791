"""k-means by scikit-learn, shared by all methods that cluster, and clusters within superclasses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError
from regrain.metrics.logistic import probe_probabilities
from regrain.objectives.transport import sinkhorn_potentials

STARTS = 10
"""Number of k-means starts: from a single start it merges and splits some clusters even if they are well apart."""

CLUSTER_VARIANCE = 0.1
"""Variance of a cluster on the unit sphere, for probabilities: SCGM's sigma^2."""

_ROUNDS = 300
"""Most rounds of k-means with known clusters, as in scikit-learn's."""

Counts = int | tuple[int, int]
"""A number of clusters, or the smallest and the largest that it may be."""

_LARGEST = 10
"""Most clusters that the silhouette may choose in a superclass where nobody gave bounds."""

MOST_FITTED, _FITTED_OF_EACH = 2**17, 64
"""Vectors that k-means is fitted on at most, or so many of each cluster; the others join the nearest centre."""

_BLOCK = 65536
_SILHOUETTE_SAMPLES = 2000
_SMALL_LOSS = 0.1
"""Share of the silhouette that clusters of equal size may cost where nobody said whether to make them equal."""

_FOLDS = 5
_BALANCED_SHARPNESS = 100.0
"""Sharpness of the transport on cosines: plans this sharp are nearly hard."""
_BALANCED_ROUNDS = 20


def kmeans(
    vectors: Tensor, count: int, *, starts: int = STARTS, seed: int = 0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run k-means from several k-means++ starts and keep the result of lowest inertia (Lloyd 1982).

    Of more than 131,072 vectors (or 64 a cluster, if these are more) so many are drawn to find the centres, which all
    then join block by block. Returns (N,) int64 clusters and (count, d) centres, on the CPU.

    ``vectors``: (N, d). ``count``: number of clusters, at most N. With fewer distinct vectors some clusters stay empty.
    ``starts``, ``seed``: number of starts, and their seed. ``weights`` (N,): weights of the vectors.

    Examples
    --------
    >>> codes, centres = kmeans(torch.tensor([[0.0], [0.1], [5.0]]), 2)
    >>> bool(codes[0] == codes[1]), bool(codes[0] == codes[2]), centres.shape
    (True, False, torch.Size([2, 1]))
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    most = max(MOST_FITTED, _FITTED_OF_EACH * count)
    fitted = vectors.cpu()
    if len(vectors) > most:
        drawn = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))[:most].sort().values
        fitted, weights = fitted[drawn], None if weights is None else weights.cpu()[drawn]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters
        model = KMeans(count, n_init=starts, random_state=seed).fit(
            fitted.numpy(), sample_weight=None if weights is None else weights.cpu().numpy()
        )
    if len(vectors) > most:
        codes = [torch.from_numpy(model.predict(block.cpu().numpy())) for block in vectors.split(_BLOCK)]
        return torch.cat(codes).long(), torch.from_numpy(model.cluster_centers_)
    return torch.from_numpy(model.labels_).long(), torch.from_numpy(model.cluster_centers_)


def kmeans_with_known(
    vectors: Tensor, known: Tensor, count: int, *, starts: int = STARTS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Run k-means in which some samples stay in their clusters (semi-supervised k-means, Vaze et al., CVPR 2022).

    The known clusters start at the means of their samples, the others by k-means++ among the free samples; the start of
    lowest inertia is kept. Of more than 131,072 free samples (or 64 a cluster, if these are more) so many are drawn to
    find the centres, and of the known ones alike, some of each cluster; a drawn sample counts for those it stands for.
    Returns (N,) int64 clusters, of which the first K are the known ones, and (count, d) centres, on the CPU.

    ``vectors``: (N, d). ``known`` (N,): the cluster, 0 to K - 1, of samples that stay, each of which occurs; -1 for
    free samples. ``count``: number of clusters, at least K. With fewer distinct vectors some clusters stay empty.
    ``starts``, ``seed``: number of starts, and their seed.

    Examples
    --------
    >>> vectors = torch.tensor([[0.0], [0.2], [1.0], [5.0]])
    >>> kmeans_with_known(vectors, torch.tensor([0, -1, 0, -1]), 2)[0].tolist()
    [0, 0, 0, 1]
    """
    x, own = vectors.detach().cpu().float(), known.cpu()
    kept = int(own.max()) + 1
    if kept == 0:
        codes, centres = kmeans(vectors, count, starts=starts, seed=seed)
        return codes, centres
    if count < kept:
        raise UserError(f"{count} clusters cannot keep {kept} known classes apart", code="too_few")
    rows, weights = _representatives(own, max(MOST_FITTED, _FITTED_OF_EACH * count), seed)
    if rows is not None:
        centres = _with_known(x[rows], own[rows], weights, kept, count, starts, seed)[1]
        blocks = [_squares(block, centres).argmin(dim=1) for block in x.split(_BLOCK)]
        return torch.where(own < 0, torch.cat(blocks), own), centres.to(vectors.dtype)
    codes, centres = _with_known(x, own, None, kept, count, starts, seed)
    return codes, centres.to(vectors.dtype)


def _representatives(own: Tensor, most: int, seed: int) -> tuple[Tensor | None, Tensor | None]:
    """Rows of so many free and so many known samples, some of each cluster, and what each counts; None for all."""
    groups = [(own < 0).nonzero()[:, 0], (own >= 0).nonzero()[:, 0]]
    if max(map(len, groups)) <= most:
        return None, None
    generator = torch.Generator().manual_seed(seed)
    clusters = own + 1  # free samples are one
    drawn = []
    for group in groups:
        mixed = group[torch.randperm(len(group), generator=generator)]
        by_cluster = mixed[clusters[mixed].argsort(stable=True)]
        turn = torch.arange(len(group)) - torch.searchsorted(clusters[by_cluster], clusters[by_cluster])
        drawn.append(by_cluster[turn.argsort(stable=True)][:most])  # one of each cluster, then a second, ...
    rows = torch.cat(drawn).sort().values
    counts = clusters.bincount()
    return rows, (counts / clusters[rows].bincount(minlength=len(counts)))[clusters[rows]]


def _with_known(
    x: Tensor, own: Tensor, weights: Tensor | None, kept: int, count: int, starts: int, seed: int
) -> tuple[Tensor, Tensor]:
    """:func:`kmeans_with_known` of samples that count as much as their weights (N,)."""
    free = (own < 0).nonzero()[:, 0]
    of_known = own >= 0
    first = _means(
        x[of_known], own[of_known], x.new_zeros(kept, x.shape[1]), None if weights is None else weights[of_known]
    )
    random = np.random.default_rng(seed)
    best: tuple[float, Tensor, Tensor] | None = None
    for _ in range(starts if count > kept else 1):
        centres, codes = _spread(x[free], first, count, random), own
        for _ in range(_ROUNDS):
            found = own.index_copy(0, free, _squares(x[free], centres).argmin(dim=1))
            if torch.equal(found, codes):
                break
            codes = found
            centres = _means(x, codes, centres, weights)
        distances = (x - centres[codes]).square().sum(dim=1)
        inertia = float(distances.sum() if weights is None else distances @ weights)
        if best is None or inertia < best[0]:
            best = inertia, codes, centres
    assert best is not None
    return best[1], best[2]


def _means(x: Tensor, codes: Tensor, before: Tensor, weights: Tensor | None = None) -> Tensor:
    """(k, d): the mean of each cluster; that ``before`` where it has no samples."""
    counts = torch.bincount(codes, weights, minlength=len(before))[:, None]
    sums = torch.zeros_like(before).index_add_(0, codes, x if weights is None else x * weights[:, None])
    return torch.where(counts > 0, sums / counts.clamp(min=1), before)


def _squares(x: Tensor, centres: Tensor) -> Tensor:
    """(N, k): squared distances, less the squared lengths of the samples."""
    return centres.square().sum(dim=1) - 2 * x @ centres.T


def _spread(x: Tensor, centres: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """Add centres by k-means++ (Arthur & Vassilvitskii 2007): samples, drawn by their squared distances."""
    nearest = torch.cdist(x, centres).square().amin(dim=1).double().numpy() if len(x) else np.zeros(0)
    added: list[Tensor] = []
    while len(centres) + len(added) < count and nearest.sum() > 0:
        row = int(random.choice(len(x), p=nearest / nearest.sum()))
        added.append(x[row])
        nearest = np.minimum(nearest, (x - x[row]).square().sum(dim=1).double().numpy())
    spread = torch.cat([centres, torch.stack(added)]) if added else centres
    return torch.cat([spread, spread[:1].expand(count - len(spread), -1)])


@dataclass(frozen=True)
class Subclusters:
    """Clusters within superclasses."""

    # LongTensor (N,): the cluster of every sample; a sample of unknown superclass joins the nearest of all centres
    codes: Tensor
    centres: Tensor  # (r, d): unit vectors
    superclass: Tensor  # LongTensor (r,): the superclass of each cluster
    # (r,): added to a sample's cosine to a centre before the largest is taken: it keeps balanced clusters equal in
    # size, and is 0 for other clusters
    offsets: Tensor
    known: Tensor  # LongTensor (r,): the known class that a cluster is; -1 for a cluster that was found


def cluster_within(
    embedding: Tensor,
    coarse: Tensor,
    *,
    known: Tensor | None = None,
    each: Counts | Mapping[int, Counts] | None = None,
    total: int | None = None,
    balanced: bool | None = False,
    seed: int = 0,
) -> Subclusters:
    """Run k-means on unit vectors within each superclass.

    Raises a UserError if no superclass is known, both numbers are given, ``total`` is below the number of superclasses
    and known classes that occur, or a known class lies in two superclasses.

    Parameters
    ----------
    embedding : (N, d)
    coarse : (N,)
        -1 unknown.
    known : (N,), optional
        Codes of classes, -1 unknown, each of which lies in one superclass. Their samples stay together, as one cluster
        a class (:func:`kmeans_with_known`); the other samples join them, or clusters that are found.
    each : int, pair of int, or mapping from superclass to these, optional
        Number of clusters in every superclass, or bounds between which the largest mean silhouette chooses it; those
        that hold more known classes have as many as these. Default, also for the superclasses that a mapping leaves
        out: up to 10, and as many more as there are known classes but one.
    total : int, optional
        Number of clusters overall instead, divided in proportion to the superclasses' sizes, at least one each, and one
        for every known class.
    balanced : bool, optional
        Make clusters of equal size within a superclass: Sinkhorn assignments and means alternate, starting at k-means.
        With None they are made where they cost less than a tenth of the mean silhouette.
    seed : int
        Seed of k-means.

    Returns
    -------
    Subclusters
        On the device of the embedding.

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
    fixed = torch.full_like(superclasses, -1) if known is None else known.cpu().where(superclasses >= 0, -1)
    classes = {c: fixed[(superclasses == c) & (fixed >= 0)].unique().tolist() for c in present}
    if len({code for own in classes.values() for code in own}) < sum(map(len, classes.values())):
        raise UserError("a known class lies in one superclass; here one lies in several", code="labels_conflict")
    sizes = {c: int((superclasses == c).sum()) for c in present}
    least = {c: max(1, len(classes[c])) for c in present}
    counts: dict[int, Counts] = {c: (least[c], least[c] - 1 + _LARGEST) for c in present}
    if total is not None:
        counts |= _shares(sizes, total, least)
    elif each is not None:
        given = each if isinstance(each, Mapping) else dict.fromkeys(present, each)
        counts |= {c: _at_least(given[c], least[c]) for c in present if c in given}
    members = {c: vectors[superclasses == c] for c in present}
    stay = {}
    for c in present:
        place = {code: number for number, code in enumerate(classes[c])}
        stay[c] = torch.tensor([place.get(code, -1) for code in fixed[superclasses == c].tolist()])
    plain = {}
    for c in present:
        found = _cluster(members[c], stay[c], counts[c], seed)
        plain[c] = (*found, torch.zeros(len(found[1])))
    chosen = plain
    if balanced is not False:
        equal = {c: _balance(members[c], means, stay[c]) for c, (_, means, _) in plain.items()}
        kept = []
        if balanced is None:
            kept = [
                sum(sizes[c] * _silhouette(members[c], own, seed) for c, (own, _, _) in of.items())
                for of in (equal, plain)
            ]
        if balanced or kept[0] >= (1 - _SMALL_LOSS) * kept[1]:
            chosen = equal
    codes = torch.full((len(vectors),), -1)
    centres: list[Tensor] = []
    offsets: list[Tensor] = []
    owners: list[int] = []
    names: list[int] = []
    for superclass, (own, means, shift) in chosen.items():
        codes[superclasses == superclass] = own + len(owners)
        owners += [superclass] * len(means)
        names += classes[superclass] + [-1] * (len(means) - len(classes[superclass]))
        centres.append(means)
        offsets.append(shift)
    stacked, shifts = torch.cat(centres), torch.cat(offsets)
    unknown = codes < 0
    nearest = [(block @ stacked.T + shifts).argmax(dim=1) for block in vectors[unknown].split(_BLOCK)]
    codes[unknown] = torch.cat(nearest)
    device = embedding.device
    owner, named = torch.tensor(owners, device=device), torch.tensor(names, device=device)
    return Subclusters(codes.to(device), stacked.to(device), owner, shifts.to(device), named)


def smooth_within(embedding: Tensor, codes: Tensor, superclass: Tensor, *, seed: int = 0) -> Tensor:
    """Clusters (N,) that the other samples would give each sample, by logistic regression within each superclass.

    Five folds: a sample's cluster is predicted by a classifier that was fitted without it. This moves single samples
    that k-means, or equal sizes, put into the wrong cluster.

    ``embedding``: (N, d). ``codes`` (N,): their clusters now; -1 for samples that are left out, and stay so.
    ``superclass`` (r,): the superclass each cluster lies in. A sample stays in the superclass of its cluster. ``seed``:
    of the folds.

    Examples
    --------
    >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(20, 1)
    >>> codes = torch.tensor([0, 1]).repeat(20)
    >>> codes[3] = 0
    >>> smooth_within(vectors, codes, torch.tensor([7, 7]))[:4].tolist()
    [0, 1, 0, 1]
    """
    from sklearn.model_selection import KFold

    vectors = functional.normalize(embedding.detach().float(), dim=1).cpu()
    result, owners = codes.clone(), superclass[codes.clamp(min=0)].masked_fill(codes < 0, -1)
    for owner in owners[owners >= 0].unique().tolist():
        rows = (owners == owner).nonzero()[:, 0].numpy()
        own = codes[rows].cpu()
        if len(rows) < _FOLDS:
            continue
        for others, held in KFold(_FOLDS, shuffle=True, random_state=seed).split(rows):
            if len(own[others].unique()) > 1:
                proba = probe_probabilities(vectors[rows[others]], own[others], vectors[rows[held]])
                result[rows[held]] = proba.argmax(dim=1).to(result.device)
    return result


def _at_least(count: Counts, least: int) -> Counts:
    return max(count, least) if isinstance(count, int) else (max(count[0], least), max(count[1], least))


def _shares(sizes: dict[int, int], total: int, least: dict[int, int]) -> dict[int, int]:
    """Divide ``total`` in proportion to the sizes, at least ``least`` each; the largest remainders get the rest."""
    spare, samples = total - sum(least.values()), sum(sizes.values())
    if spare < 0:
        few = len(sizes) if max(least.values()) == 1 else sum(least.values())
        what = "superclasses" if max(least.values()) == 1 else "known classes and superclasses without one"
        raise UserError(f"{total} clusters cannot be shared out over {few} {what}")
    wanted = {c: max(0.0, 1 + (total - len(sizes)) * n / samples - least[c]) for c, n in sizes.items()}
    over = sum(wanted.values())
    exact = {c: spare * (share / over if over else sizes[c] / samples) for c, share in wanted.items()}
    counts = {c: least[c] + int(share) for c, share in exact.items()}
    by_remainder = sorted(exact, key=lambda c: int(exact[c]) - exact[c])
    for c in by_remainder[: total - sum(counts.values())]:
        counts[c] += 1
    return counts


def _cluster(vectors: Tensor, known: Tensor, count: Counts, seed: int) -> tuple[Tensor, Tensor]:
    """Return codes and unit centres of one superclass; centres are empty only where there are too few samples."""
    fewest = max(1, int(known.max()) + 1)

    def fitted(k: int) -> tuple[Tensor, Tensor]:
        codes, centres = kmeans_with_known(vectors, known, max(fewest, min(k, len(vectors))), seed=seed)
        means = functional.normalize(centres, dim=1)
        if k > len(means):  # more clusters than samples: the others are placed at the mean, and stay empty
            means = torch.cat([means, means[:1].expand(k - len(means), -1)])
        return codes, means

    smallest, largest = (count, count) if isinstance(count, int) else count
    if smallest == largest:
        return fitted(smallest)
    distinct = _count_distinct(vectors, largest + 1)
    best, best_silhouette = fitted(smallest), 0.0 if smallest == 1 else -1.0
    for k in range(max(2, smallest), min(largest, distinct - 1) + 1):
        found = best if k == smallest else fitted(k)
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


def _count_distinct(vectors: Tensor, enough: int) -> int:
    """How many different vectors there are, counted no further than to ``enough``."""
    found = np.empty((0, vectors.shape[1]), dtype=np.float32)
    for block in vectors.split(_SILHOUETTE_SAMPLES):
        found = np.unique(np.concatenate([found, block.numpy()]), axis=0)
        if len(found) >= enough:
            break
    return len(found)


def _balance(vectors: Tensor, means: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run Lloyd's algorithm with equal cluster sizes; return codes, unit centres and offsets (mean 0).

    Samples of known clusters are nearer to their own centres by 2 than any cosine, so that they fill these up first.
    """
    own = functional.one_hot(known + 1, len(means) + 1)[:, 1:] * 2.0
    codes = torch.full((len(vectors),), -1)
    potentials = torch.zeros(len(means), dtype=torch.float64)
    for _ in range(_BALANCED_ROUNDS):
        scores = vectors @ means.T + own
        potentials = sinkhorn_potentials(scores, sharpness=_BALANCED_SHARPNESS, tolerance=1e-3, warm_start=potentials)
        new = (_BALANCED_SHARPNESS * scores + potentials).argmax(dim=1).where(known < 0, known)
        if torch.equal(new, codes):
            break
        codes = new
        sums = torch.zeros_like(means).index_add_(0, codes, vectors)
        filled = torch.bincount(codes, minlength=len(means)) > 0
        means = torch.where(filled[:, None], functional.normalize(sums, dim=1), means)
    return codes, means, (potentials - potentials.mean()).float() / _BALANCED_SHARPNESS
