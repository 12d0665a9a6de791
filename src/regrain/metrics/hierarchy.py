"""Agreement along a class hierarchy: predictions at its leaves, judged at every level above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from regrain.errors import UserError

from ._arrays import known_pairs

__all__ = ["HierarchyMetrics", "hierarchy_metrics"]


class HierarchyMetrics(NamedTuple):
    """What :func:`hierarchy_metrics` gives.

    Attributes
    ----------
    levels : dict of str to dict
        Level -> acc, nmi, ami, ari of both sides mapped up to it.
    counted : dict of str to int
        Level -> samples whose class has an ancestor there; only those are judged.
    meets : dict of str to float
        Level -> share of all samples whose prediction and class first agree there, from the leaves up; ``none`` for
        those that agree at no level. Adds up to 1.
    """

    levels: dict[str, dict[str, float]]
    counted: dict[str, int]
    meets: dict[str, float]


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

    Returns
    -------
    HierarchyMetrics

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
    truth, found = known_pairs(labels, predictions, "predictions")
    levels: dict[str, dict[str, float]] = {}
    counted: dict[str, int] = {}
    agrees: dict[str, np.ndarray] = {}
    for level, codes in ancestors.items():
        above = np.asarray(codes)
        if max(truth.max(), found.max()) >= len(above):
            raise UserError(
                f"level '{level}' has ancestors of {len(above)} leaf classes, and class "
                f"{max(truth.max(), found.max())} occurs"
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
