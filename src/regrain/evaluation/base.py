"""What a protocol judges, and what it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.labels import Taxonomy
from regrain.metrics import mean_interval

LACKING = "a class that these data lack"
"""How tables call what a classifier predicts where the judged data have no such class."""


@dataclass(frozen=True)
class Score:
    """A figure, with the ends of its 95% interval where there is one.

    Attributes
    ----------
    value, low, high : float
    over : str
        What the interval is over: ``queries``, ``seeds``, ``episodes``, ``subjects``; empty without one.
    note : str
        What the reader of the figure must know.
    count : bool
        Whether the value is a number of things, or a mean number of them, not a share.
    detail : bool
        Whether it is one of many, for files and not for a table on a screen.
    """

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""
    note: str = ""
    count: bool = False
    detail: bool = False

    @classmethod
    def mean(cls, values: ArrayLike, over: str, note: str = "", *, count: bool = False) -> Score:
        """Mean of one share, or number of things, or several independent ones: then with its 95% interval.

        Examples
        --------
        >>> Score.mean([0.5], "seeds").low is None, round(Score.mean([0.4, 0.6], "seeds").value, 3)
        (True, 0.5)
        """
        numbers = np.asarray(values, dtype=float)
        if len(numbers) == 1:
            return cls(float(numbers[0]), note=note, count=count)
        return cls(*mean_interval(numbers, share=not count), over, note, count)


@dataclass(frozen=True)
class Representation:
    """One way to see the samples: the trained embedding, or a baseline.

    Attributes
    ----------
    name : str
        ``model``, ``raw``, ``random`` ...
    test : Tensor (N, d)
    train : Tensor (M, d) or None
        Of the training split, for protocols that fit on it.
    augmented : Tensor (copies, N, d) or None
        Of augmented views of the test samples, for protocols that fit on few of them.
    augment_train : callable or None
        Number of an epoch -> (M, d) of augmented views of the training split, for protocols that train on them.
    partitions : LongTensor (N, P) or None
        The cluster of each test sample in each of P partitions that the method made of its own.
    train_partitions : LongTensor (M, P) or None
        Of the training split.
    probabilities : mapping of str to Tensor (N, classes)
        Of the test samples by the method's own classifiers, level by level; empty without any.
    """

    name: str
    test: Tensor
    train: Tensor | None = None
    augmented: Tensor | None = None
    augment_train: Callable[[int], Tensor] | None = None
    partitions: Tensor | None = None
    train_partitions: Tensor | None = None
    probabilities: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """The labels of one level, and how to judge by them.

    Attributes
    ----------
    level : str
    classes : tuple of str
    test_labels : LongTensor (N,)
        -1 unknown: such samples are left out.
    train_labels : LongTensor (M,) or None
    seed : int
    options : mapping
        Options of the protocols, see :func:`~regrain.evaluation.evaluate_model`.
    superclasses : LongTensor (N,) or None
        The test samples' classes one level up; None at the coarsest level, and where levels do not nest.
    groups : array of str (N,) or None
        The subject of each test sample; rows of a subject are in time order.
    taxonomy : Taxonomy or None
        How the classes of this level lie under those of others.
    finer : mapping of str to (tuple of str, LongTensor (N,))
        Class names and codes of the test samples at the finer levels that have labels.
    """

    level: str
    classes: tuple[str, ...]
    test_labels: Tensor
    train_labels: Tensor | None
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    superclasses: Tensor | None = None
    groups: np.ndarray | None = None
    taxonomy: Taxonomy | None = None
    finer: Mapping[str, tuple[tuple[str, ...], Tensor]] = field(default_factory=dict)

    def known(self) -> Tensor:
        """BoolTensor (N,): the test samples labelled at this level; a UserError where there are fewer than two."""
        known = self.test_labels >= 0
        if int(known.sum()) < 2:
            raise UserError(
                f"level '{self.level}' has fewer than two labelled samples in this split: nothing to judge by"
            )
        return known


Protocol = Callable[[Representation, Setting], dict[str, Score]]
"""Figures by metric name."""


def figure_text(value: float, *, count: bool, sign: bool = False) -> str:
    """A share in per cent, with two decimals; a count as it is, with decimals only where it is a mean of counts.

    Examples
    --------
    >>> figure_text(0.5, count=False), figure_text(3.0, count=True), figure_text(1.25, count=True, sign=True)
    ('50.00', '3', '+1.25')
    """
    shown = value if count else 100 * value
    digits = 0 if count and value == round(value) else 2
    return f"{shown:{'+' if sign else ''}.{digits}f}"


def class_names(dataset: Dataset, level: str) -> list[str | None]:
    """The class of every sample, None where it is unknown."""
    names = dataset.labels.names(level)
    return [names[code] if code >= 0 else None for code in dataset.labels.level(level).tolist()]


def judged_fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Hashes of the ids of judged samples and, level by level, of their classes: what two evaluations must share."""
    levels = dataset.labels.levels
    return {
        "samples": _digest(dataset.ids.tolist()),
        "labels": {level: _digest(class_names(dataset, level)) for level in levels},
    }


def _digest(names: list[Any]) -> str:
    return hashlib.blake2b(repr(names).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def unit_rows(embeddings: Tensor) -> Tensor:
    """Rows scaled to unit length; k-means on them clusters by cosine."""
    return torch.nn.functional.normalize(embeddings, dim=1)
