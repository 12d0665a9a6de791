"""Map embeddings to points in the plane; near embeddings get near points."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.metrics import nearest_neighbours
from regrain.storage.files import replace_file

MapKind = Literal["auto", "pca", "tsne"]

_FEWEST = 8
"""Fewest samples for t-SNE."""

_MOST_TSNE, _MOST_OPEN_TSNE = 6_000, 20_000
"""Number of samples that t-SNE places in about a minute, with scikit-learn and with openTSNE."""

_PERPLEXITY = 30.0
"""Approximate number of neighbours of a point in t-SNE; at most a third of the other points."""

_AROUND = 10
"""Number of nearest samples whose median position places a class mean."""


@dataclass(frozen=True)
class EmbeddingMap:
    """Points in the plane, without a unit; only small distances are meaningful."""

    points: np.ndarray  # float32 array (N, 2)
    perplexity: float
    vectors: Tensor  # (N, d): the embeddings

    def in_square(self) -> np.ndarray:
        """Points centred and scaled to [-1, 1] by the longer side: float32 (N, 2)."""
        found = self.points - (self.points.max(axis=0) + self.points.min(axis=0)) / 2
        return np.ascontiguousarray(found / max(float(np.abs(found).max()), 1e-12), dtype=np.float32)

    def means(self, codes: Tensor, classes: int) -> np.ndarray:
        """Positions of the classes' mean embeddings: float32 (classes, 2), NaN for a class without samples.

        A mean gets the median position of the ten samples nearest to it by cosine, as for new points in a t-SNE.

        ``codes``: LongTensor (N,); -1 is unknown.
        """
        known = codes >= 0
        unit = torch.nn.functional.normalize(self.vectors, dim=1)
        sums = unit.new_zeros(classes, unit.shape[1]).index_add_(0, codes[known], unit[known])
        present = torch.bincount(codes[known], minlength=classes) > 0
        result = np.full((classes, 2), np.nan, np.float32)
        if bool(present.any()):
            around = min(_AROUND, len(unit))
            _, nearest = nearest_neighbours(sums[present], unit, around, exclude_self=False)
            result[present.numpy()] = np.median(self.points[nearest.numpy()], axis=1)
        return result


def embedding_map(
    vectors: Tensor, *, kind: MapKind = "tsne", seed: int = 0, cache: str | Path | None = None
) -> EmbeddingMap:
    """Map embeddings to the plane; the same embeddings and seed give the same map on one machine.

    Raises a UserError if t-SNE is asked for and there are fewer than 8 samples.

    Parameters
    ----------
    vectors : Tensor (N, d)
        On the CPU; compared by cosine.
    kind : {"tsne", "pca", "auto"}
        ``tsne`` is t-SNE (van der Maaten and Hinton 2008) started from principal components, by openTSNE if installed,
        else by scikit-learn. ``pca`` is the first two principal components. ``auto`` is t-SNE if that takes about a
        minute (at most 20,000 samples with openTSNE, 6,000 without), else principal components.
    seed : int
        Seed of the start and of the descent.
    cache : path, optional
        An ``.npz`` file: read if it holds the map of these embeddings, else written.

    Examples
    --------
    >>> embedding_map(torch.eye(4), kind="pca").points.shape
    (4, 2)
    """
    count = len(vectors)
    kind = chosen_kind(kind, count)
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    key = hashlib.blake2b(f"{kind} {perplexity} {seed} {tuple(vectors.shape)}".encode(), digest_size=16)
    key.update(vectors.contiguous().numpy().tobytes())
    file = None if cache is None else Path(cache)
    points = None if file is None else _read(file, key.hexdigest())
    if points is None:
        unit = torch.nn.functional.normalize(vectors, dim=1)
        points = _tsne(unit, perplexity, seed) if kind == "tsne" else _principal(unit, seed)
        if file is not None:
            with suppress(UserError):  # a cache that cannot be written to costs time alone
                replace_file(file, partial(_write, key.hexdigest(), points))
    return EmbeddingMap(points, perplexity, vectors)


def chosen_kind(kind: MapKind, count: int) -> Literal["pca", "tsne"]:
    """Choose between t-SNE and principal components for ``count`` samples; see :func:`embedding_map`.

    Raises a UserError if t-SNE is asked for and there are fewer than 8 samples.
    """
    if kind == "tsne" and count < _FEWEST:
        raise UserError(f"a map needs at least {_FEWEST} samples; there are {count}", code="too_few")
    if kind != "auto":
        return kind
    fits = _FEWEST <= count <= (_MOST_OPEN_TSNE if _has_open() else _MOST_TSNE)
    return "tsne" if fits else "pca"


def _has_open() -> bool:
    return importlib.util.find_spec("openTSNE") is not None


def _principal(unit: Tensor, seed: int) -> np.ndarray:
    from sklearn.decomposition import PCA

    count, width = unit.shape
    solver = "covariance_eigh" if count > 10 * width else "auto"
    with np.errstate(invalid="ignore"):  # embeddings that are all alike have shares of no variance
        found = PCA(min(2, count, width), svd_solver=solver, random_state=seed).fit_transform(unit.numpy())
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1]))).astype(np.float32)


def _tsne(unit: Tensor, perplexity: float, seed: int) -> np.ndarray:
    """Run t-SNE on exact neighbours, in one thread for a fixed order of sums: float32 (N, 2)."""
    if not _has_open():
        from sklearn.manifold import TSNE

        slow = TSNE(perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        return np.asarray(slow.fit_transform(unit.numpy()), np.float32)
    import openTSNE
    from openTSNE.nearest_neighbors import PrecomputedNeighbors

    cosine, index = nearest_neighbours(unit, unit, min(len(unit) - 1, int(3 * perplexity)), exclude_self=True)
    distance = (2 - 2 * cosine).clamp(min=0).sqrt().numpy().astype(np.float64)
    affinities = openTSNE.affinity.PerplexityBasedNN(
        perplexity=perplexity, knn_index=PrecomputedNeighbors(index.numpy(), distance), n_jobs=1, random_state=seed
    )
    start = openTSNE.initialization.pca(unit.numpy().astype(np.float64), random_state=seed)
    found = openTSNE.TSNE(perplexity=perplexity, n_jobs=1, random_state=seed).fit(
        affinities=affinities, initialization=start
    )
    return np.asarray(found, np.float32)


def _read(file: Path, key: str) -> np.ndarray | None:
    """Read the points; None if the file is absent, damaged, or of other embeddings."""
    try:
        with np.load(file) as content:
            return content["points"] if str(content["key"]) == key else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _write(key: str, points: np.ndarray, file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, key=np.array(key), points=points)
