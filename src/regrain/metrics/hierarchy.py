"""Agreement along a class hierarchy: predictions at its leaves, judged at every level above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.errors import UserError
from regrain.labels import Taxonomy

from ._arrays import known_pairs


class HierarchyMetrics(NamedTuple):
    """Result of :func:`hierarchy_metrics`."""

    levels: dict[str, dict[str, float]]
    """Level -> acc, nmi, ami, ari of both sides mapped up to it."""
    counted: dict[str, int]
    """Level -> samples whose class has an ancestor there; only those are judged."""
    meets: dict[str, float]
    """Level -> share of all samples whose prediction and class first agree there, from the leaves up; ``none`` for
    those that agree at no level. Adds up to 1.
    """


def hierarchy_metrics(
    labels: ArrayLike | Tensor, predictions: ArrayLike | Tensor, ancestors: Mapping[str, ArrayLike | Tensor]
) -> HierarchyMetrics:
    """Leaf predictions and leaf classes mapped up to each level (Self-Classifier, ECCV 2022, tables 2 and 3).

    Samples whose class has no ancestor at a level are left out there. A prediction without an ancestor there is wrong,
    and such predictions count as one class more.

    Parameters
    ----------
    labels, predictions
        (n,) leaf classes; samples labelled -1 are left out, a prediction of -1 is none.
    ancestors
        From the coarsest level to the leaves: level -> (classes,) the class at that level over each leaf class, -1
        where there is none.

    Raises
    ------
    UserError
        If the lengths differ, no label is known, or a leaf class has no entry in ``ancestors``.

    Examples
    --------
    >>> found = hierarchy_metrics([0, 1, 2, 3], [0, 0, 3, 1], {"super": [0, 0, 1, 1], "leaf": [0, 1, 2, 3]})
    >>> found.levels["super"]["acc"], found.levels["leaf"]["acc"], found.meets
    (0.75, 0.25, {'leaf': 0.25, 'super': 0.5, 'none': 0.25})
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

    truth, found = known_pairs(labels, predictions, "predictions")
    levels: dict[str, dict[str, float]] = {}
    counted: dict[str, int] = {}
    agrees: dict[str, np.ndarray] = {}
    for level, codes in ancestors.items():
        above = np.asarray(codes)
        if max(truth.max(), found.max()) >= len(above):
            raise UserError(
                f"level '{level}' has ancestors of {len(above)} leaf classes, and class "
                f"{max(truth.max(), found.max())} occurs",
                code="out_of_range",
            )
        upper_truth, upper_found = above[truth], np.where(found >= 0, above[found], -1)
        kept = upper_truth >= 0
        agrees[level] = kept & (upper_truth == upper_found)
        counted[level] = int(kept.sum())
        if counted[level]:
            pair = upper_truth[kept], upper_found[kept]
            levels[level] = {
                "acc": float(agrees[level][kept].mean()),
                "nmi": float(normalized_mutual_info_score(*pair, average_method="arithmetic")),
                "ami": float(adjusted_mutual_info_score(*pair, average_method="arithmetic")),
                "ari": float(adjusted_rand_score(*pair)),
            }
    meets: dict[str, float] = {}
    open_ = np.ones(len(truth), dtype=bool)
    for level in reversed(list(ancestors)):
        meets[level] = float((open_ & agrees[level]).mean())
        open_ &= ~agrees[level]
    return HierarchyMetrics(levels, counted, meets | {"none": float(open_.mean())})


def path_metrics(labels: ArrayLike | Tensor, predictions: ArrayLike | Tensor, taxonomy: Taxonomy) -> dict[str, float]:
    """Judge predictions at several nested levels by their paths in the hierarchy.

    A sample's path holds its class at the finest level that is known of it, and the classes above; so does the path of
    its prediction, cut off below that level, because the truth there is unknown. With P and T the classes of
    both paths,

        hierarchical precision = sum |P & T| / sum |P|,    recall = sum |P & T| / sum |T|,

    sums over samples, F1 their harmonic mean (Kiritchenko et al. 2005; Silla & Freitas 2011), and the tree distance of
    a sample, |P| + |T| - 2 |P & T|, is the number of edges from one class to the other, a root lying over all. The
    result has ``path-consistency``, the share of samples whose predictions are all on one path, ``tree-distance``, its
    mean, ``hierarchical-precision``, ``-recall`` and ``-f1``; and under the names of Free-Grained Hierarchical Visual
    Recognition (CVPR 2026) ``tice``, the share whose predictions are on no path (1 - ``path-consistency``), and
    ``fpa``, the share right at every level of those whose class without children is known (left out without any).

    Parameters
    ----------
    labels, predictions
        (n, L) integers, a column a level of ``taxonomy``; -1 for unknown, and for no prediction. Samples without any
        label are left out.
    taxonomy
        A tree.

    Raises
    ------
    UserError
        If shapes do not fit the taxonomy, no label is known, or a class is under two classes of a level.

    Examples
    --------
    >>> tree = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog"), ("siamese", "cat")])
    >>> tree.classes
    (('cat', 'dog'), ('beagle', 'poodle', 'siamese'))
    >>> found = path_metrics([[1, 0], [0, 2]], [[1, 1], [1, 2]], tree)  # another dog; a siamese called a dog
    >>> found["path-consistency"], found["tree-distance"], found["hierarchical-precision"]
    (0.5, 1.0, 0.75)
    """
    truth, found = torch.as_tensor(labels).long(), torch.as_tensor(predictions).long()
    if truth.shape != found.shape or truth.ndim != 2 or truth.shape[1] != len(taxonomy.levels):
        raise UserError(
            f"labels and predictions must be (n, {len(taxonomy.levels)}), a column a level; got {tuple(truth.shape)} "
            f"and {tuple(found.shape)}",
            code="wrong_shape",
        )
    known = (truth >= 0).any(dim=1)
    if not known.any():
        raise UserError(
            "none of the samples has a label at any level: there is nothing to compare with", code="no_labels"
        )
    truth, found = truth[known], found[known]
    true_path, found_path = _paths(truth, taxonomy), _paths(found, taxonomy)
    consistent = ((found < 0) | (found_path < 0) | (found == found_path)).all(dim=1)
    columns = torch.arange(truth.shape[1])
    judged = columns <= (columns * (truth >= 0)).amax(dim=1, keepdim=True)
    right = ((true_path == found_path) & (true_path >= 0)).sum(dim=1).double()
    said, asked = ((found_path >= 0) & judged).sum(dim=1).double(), (true_path >= 0).sum(dim=1).double()
    precision = float(right.sum() / said.sum().clamp(min=1))
    recall = float(right.sum() / asked.sum())
    figures = {
        "path-consistency": float(consistent.double().mean()),
        "tree-distance": float((said + asked - 2 * right).mean()),
        "hierarchical-precision": precision,
        "hierarchical-recall": recall,
        "hierarchical-f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "tice": 1 - float(consistent.double().mean()),
    }
    whole = torch.zeros(len(truth), dtype=torch.bool)
    for column, level in enumerate(taxonomy.levels):
        leaf = ~taxonomy.has_children(level)
        whole |= (truth[:, column] >= 0) & leaf[truth[:, column].clamp(min=0)]
    if whole.any():
        every = ((found == true_path) | (true_path < 0)).all(dim=1)
        figures["fpa"] = float(every[whole].double().mean())
    return figures


def _paths(codes: Tensor, taxonomy: Taxonomy) -> Tensor:
    """(n, L): each sample's class at its finest level that is not -1, and that class's ancestors above."""
    paths = torch.full_like(codes, -1)
    for column, level in reversed(list(enumerate(taxonomy.levels))):
        deepest = (codes[:, column] >= 0) & (paths < 0).all(dim=1)
        own = codes[deepest, column]
        paths[deepest, column] = own
        for upper, name in enumerate(taxonomy.levels[:column]):
            paths[deepest, upper] = taxonomy.ancestors(level, name)[own]
    return paths
