"""k-means by scikit-learn, as everything here that clusters calls it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

STARTS = 10
"""From a single start, k-means merges and splits some of many clusters even where they are well apart."""

CLUSTER_VARIANCE = 0.1
"""Of a cluster on the unit sphere, for probabilities: SCGM's sigma^2."""


def lloyd(
    vectors: Tensor, count: int, *, starts: int = STARTS, seed: int = 0, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """k-means from k-means++ starts, of which that of lowest inertia is kept (Lloyd 1982).

    Parameters
    ----------
    vectors : (N, d)
    count : int
        At most N. With fewer distinct vectors some clusters stay empty.
    starts, seed : int
    weights : (N,), optional
        Of the vectors.

    Returns
    -------
    (N,) int64 clusters and (count, d) centres, on the CPU.

    Examples
    --------
    >>> codes, centres = lloyd(torch.tensor([[0.0], [0.1], [5.0]]), 2)
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
