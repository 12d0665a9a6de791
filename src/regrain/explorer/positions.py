"""Places of embeddings on a map."""

from __future__ import annotations

import importlib.util
from typing import Literal

import numpy as np
from torch import Tensor

__all__ = ["MapKind", "positions"]

MapKind = Literal["auto", "pca", "tsne"]

_MOST_TSNE, _MOST_OPEN_TSNE = 6_000, 20_000
"""Samples that t-SNE places in about a minute, by scikit-learn and by openTSNE."""

_COMPONENTS = 50


def positions(embeddings: Tensor, kind: MapKind = "auto", *, seed: int = 0) -> np.ndarray:
    """Places (N, 2) in [-1, 1] of unit vectors (N, d).

    Parameters
    ----------
    embeddings : Tensor (N, d)
    kind : {"auto", "pca", "tsne"}
        Principal components, or t-SNE (van der Maaten and Hinton 2008) started from them: by openTSNE where it is
        installed, else by scikit-learn. ``auto`` takes t-SNE where that is a matter of a minute.
    seed : int

    Examples
    --------
    >>> import torch
    >>> positions(torch.eye(4), "pca").shape
    (4, 2)
    """
    from sklearn.decomposition import PCA

    vectors = embeddings.numpy()
    count, width = vectors.shape
    components = min(_COMPONENTS, count, width)
    solver = "covariance_eigh" if count > 10 * width else "auto"
    reduced = PCA(components, svd_solver=solver, random_state=seed).fit_transform(vectors)
    has_open = importlib.util.find_spec("openTSNE") is not None
    fits = count <= (_MOST_OPEN_TSNE if has_open else _MOST_TSNE)
    if count > 3 and (kind == "tsne" or (kind == "auto" and fits)):
        found = _tsne(reduced, has_open, seed)
    else:
        found = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - components))))
    found = found - (found.max(axis=0) + found.min(axis=0)) / 2
    return np.ascontiguousarray(found / max(float(np.abs(found).max()), 1e-12), dtype=np.float32)


def _tsne(reduced: np.ndarray, has_open: bool, seed: int) -> np.ndarray:
    perplexity = min(30.0, (len(reduced) - 1) / 3)
    if has_open:
        from openTSNE import TSNE

        return np.asarray(TSNE(perplexity=perplexity, initialization="pca", random_state=seed).fit(reduced))
    from sklearn.manifold import TSNE as SlowTSNE

    return SlowTSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
