"""Criteria for choosing settings: figures of a trained model that look at no hidden label and at no test sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from regrain.data.dataset import Dataset
from regrain.evaluation.embedding import embed
from regrain.metrics import balanced_accuracy, knn_predict, nearest_neighbours
from regrain.model import Model
from regrain.training.scan import on_device, scan_batches, scanning

_NEIGHBOURS = 20
_CLUSTERS_PER_CLASS = (2, 4, 8)
_STABILITY_PAIRS = 3
_MOST_SAMPLES = 5000
"""More validation samples than this change a criterion less than another seed does, and cost time."""

_VIEWS = {"image": "simclr", "text": "token-drop", "vector": "strong", "series": "strong"}
"""The view, by modality, whose two draws ``agreement`` compares: the same for all methods, so that they compare."""


@dataclass(frozen=True)
class Candidate:
    """A trained model, what it was trained on and what was kept from it."""

    model: Model
    train: Dataset
    validation: Dataset
    """``train``, ``validation``: both from the training split, with no other level than the coarse one."""
    train_embeddings: Tensor
    validation_embeddings: Tensor
    """``train_embeddings``, ``validation_embeddings``: (N, width) and (M, width)."""
    seed: int


def agreement(candidate: Candidate) -> float:
    """How often a view of a validation sample finds the other view of the same sample first, in [0, 1].

    Two draws of the modality's strong view; nearest by cosine among the second views of the samples of its coarse class
    (all samples where there are no labels). Looks at no hidden label. A representation that keeps the sample's
    particulars scores high; one that keeps only the coarse class scores at chance.
    """
    model, part = candidate.model, candidate.validation
    data = model.featurised(part)
    views = model.views.with_presets([_VIEWS[model.views.modality]] * 2)
    drawn: tuple[list[Tensor], list[Tensor]] = ([], [])
    with scanning(model.dtype, model.method):
        for raw, _, ids in scan_batches(data, device=model.device):
            for kept, view in zip(drawn, views(on_device(raw, model.device), ids, candidate.seed), strict=True):
                kept.append(model.method.embed(view).float().cpu())
    first, second = (torch.cat(kept) for kept in drawn)
    codes = _coarse(part)
    found = 0.0
    for code in codes.unique():
        rows = (codes == code).nonzero()[:, 0]
        _, nearest = nearest_neighbours(first[rows], second[rows], 1, exclude_self=False)
        found += float((nearest[:, 0] == torch.arange(len(rows))).sum())
    return found / len(part)


def coarse_knn(candidate: Candidate) -> float:
    """Balanced accuracy of 20-NN on the coarse labels, training samples voting on validation samples, in [0, 1]."""
    train, validation = _coarse(candidate.train), _coarse(candidate.validation)
    voters, judged = train >= 0, validation >= 0
    predicted = knn_predict(
        candidate.train_embeddings[voters],
        train[voters],
        candidate.validation_embeddings[judged],
        k=min(_NEIGHBOURS, int(voters.sum())),
        classes=len(candidate.train.labels.classes[0]),
    )
    return balanced_accuracy(validation[judged], predicted)


def stability(candidate: Candidate) -> float:
    """Do two halves of the training samples give the same clusters of the validation samples, in [-0.5, 1].

    Within each coarse class (the whole set without labels) k-means runs on two disjoint random halves of the training
    embeddings, each names the nearest of its centres for every validation sample, and the adjusted Rand index compares
    them (after Lange et al. 2004). The mean over k = 2, 4, 8 clusters a class, three pairs of halves, and the classes
    by their share. Looks at no hidden label, and at no number of hidden classes.
    """
    from sklearn.metrics import adjusted_rand_score

    train, validation = normalize(candidate.train_embeddings), normalize(candidate.validation_embeddings)
    train_codes, codes = _coarse(candidate.train), _coarse(candidate.validation)
    generator = np.random.default_rng(candidate.seed)
    values, shares = [], []
    for code in codes.unique():
        fitted, judged = train[train_codes == code].numpy(), validation[codes == code].numpy()
        if code < 0 or len(judged) < 2:
            continue
        for k in _CLUSTERS_PER_CLASS:
            if len(fitted) < 4 * k:
                continue
            for pair in range(_STABILITY_PAIRS):
                order = generator.permutation(len(fitted))
                halves = order[: len(order) // 2], order[len(order) // 2 :]
                named = [_named_clusters(fitted[half], judged, k, pair) for half in halves]
                values.append(adjusted_rand_score(*named))
                shares.append(len(judged))
    return float(np.average(values, weights=shares))


def _named_clusters(fitted: np.ndarray, judged: np.ndarray, k: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: a collapsed model
        result: np.ndarray = KMeans(k, n_init=1, random_state=seed).fit(fitted).predict(judged)
    return result


CRITERIA: dict[str, Callable[[Candidate], float]] = {
    "agreement": agreement,
    "coarse-knn": coarse_knn,
    "stability": stability,
}
"""Criterion by name; higher is better."""


def obstacles(train: Dataset, validation: Dataset) -> dict[str, str]:
    """Criterion -> why it cannot judge models trained on ``train``; nothing of those that can."""
    train, validation = _looked_at(train), _looked_at(validation)
    counts = [torch.bincount(codes[codes >= 0], minlength=1) for codes in (_coarse(train), _coarse(validation))]
    shared = min(map(len, counts))
    fitted, judged = (count[:shared] for count in counts)
    found = {}
    if not train.labels.levels:
        found["coarse-knn"] = "compares coarse labels, and the data have none"
    elif not fitted.any() or not judged.any():
        found["coarse-knn"] = "needs samples of known coarse label in training and validation"
    if not ((fitted >= 4 * _CLUSTERS_PER_CLASS[0]) & (judged >= 2)).any():
        found["stability"] = (
            f"needs {4 * _CLUSTERS_PER_CLASS[0]} training samples and 2 validation samples of one coarse class"
        )
    return found


def criterion_values(model: Model, train: Dataset, validation: Dataset, *, seed: int = 0) -> dict[str, float]:
    """All criteria that have no obstacle, of a model trained on ``train``.

    Parameters
    ----------
    train, validation : Dataset
        Disjoint parts of the training split. Of their levels only the first is looked at.
    seed : int
        Of views, halves and k-means.
    """
    seen, kept = _looked_at(train), _looked_at(validation)
    if model.backbone is not None:
        model.take_features(model.featurised(train))  # a model from disk does not hold the views' statistics
    candidate = Candidate(model, seen, kept, embed(model, seen), embed(model, kept), seed)
    hindered = obstacles(seen, kept)
    return {name: criterion(candidate) for name, criterion in CRITERIA.items() if name not in hindered}


def _looked_at(part: Dataset) -> Dataset:
    return part.select(np.arange(0, len(part), -(-len(part) // _MOST_SAMPLES))).with_levels(part.labels.levels[:1])


def _coarse(part: Dataset) -> Tensor:
    """Return codes (N,) of the coarse level; without labels, all samples are in one class."""
    if not part.labels.levels:
        return torch.zeros(len(part), dtype=torch.long)
    return part.labels.level(part.labels.levels[0])
