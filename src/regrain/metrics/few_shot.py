"""Few-shot classification: episodes of a few labelled samples of some classes, and queries to be named by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError, nearest

from ._arrays import as_labels, as_unit_vectors
from .intervals import mean_interval
from .logistic import fit_logistic_regressions

Classifier = Literal["logistic", "nearest-mean", "cosine"]
"""Logistic regression; the nearest class mean; the class mean of the nearest direction."""

_CHUNK_ELEMENTS = 2**22
"""Numbers of support or query vectors held at once."""

_LARGE = 10_000
"""Vectors times classes of an episode from which on its logistic regression is solved in float32.

The logits are then still within 6e-6 of the optimum's, as measured on unit vectors of 100 classes.
"""


@dataclass(frozen=True)
class Episodes:
    """Episodes with the same number of classes."""

    numbers: np.ndarray
    """Int array (E,): which episodes these are, from 0."""
    classes: np.ndarray
    """Int array (E, ways): the classes of each, as they are called in the labels."""
    support: np.ndarray
    """Int array (E, ways, shots): rows of the labelled samples."""
    queries: np.ndarray
    """Int array (E, ways, most): rows of the samples to name; -1 where a class has fewer than the others."""


@dataclass(frozen=True)
class FewShot:
    """Result of few-shot episodes."""

    accuracy: float
    """Mean over episodes of the share of queries named correctly."""
    low: float | None
    high: float | None
    """``low``, ``high``: ends of the mean's 95% interval (:func:`mean_interval`); None for a single episode."""
    episodes: Tensor
    """(episodes,): the accuracy of each."""
    notes: tuple[str, ...] = ()
    """Deviations from the request: classes with fewer queries than the others."""


def few_shot_accuracy(
    embeddings: ArrayLike | Tensor,
    labels: ArrayLike | Tensor,
    *,
    ways: int | None = 5,
    shots: int = 1,
    queries: int | Literal["rest"] = 15,
    episodes: int = 1000,
    augmented: Tensor | None = None,
    superclasses: ArrayLike | Tensor | None = None,
    classifier: Classifier = "logistic",
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> FewShot:
    """Accuracy of classifiers that see a few samples of each class, over random episodes.

    Parameters
    ----------
    embeddings
        (N, d) floats; scaled to unit length here.
    labels
        (N,) integers; samples of -1 are left out.
    ways
        Classes of an episode; None: all of them.
    shots
        Labelled samples of each class, its support.
    queries
        Samples of each class to name; ``"rest"``: all others. A class that has fewer gives all it has, and the notes
        say so.
    episodes
        Number of episodes.
    augmented
        (copies, N, d) embeddings of augmented views of the samples: they are what a classifier is fitted on, ``copies``
        times ``shots`` vectors a class. None: the embeddings themselves.
    superclasses
        (N,) integers, -1 unknown. Given, an episode's classes are all those of one random superclass that has at least
        two (intra-class few-shot), and ``ways`` does not count.
    classifier
        ``logistic``: logistic regression, L2 with C = 1, intercept not penalised, to its optimum. ``nearest-mean``: the
        class whose mean support vector is nearest. ``cosine``: the class whose mean has the highest cosine.
    seed
        Episode i is drawn from (seed, i) and the labels alone, whatever the embeddings.
    class_names
        Names of the classes 0, 1, ..., for messages.

    Raises
    ------
    UserError
        If a class has too few samples for the shots and one query (the message names it), there are fewer classes than
        ways, or a shape or number does not fit.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> labels = torch.arange(60) % 3
    >>> embeddings = torch.eye(3)[labels] + 0.6 * torch.randn(60, 3, generator=generator)
    >>> found = few_shot_accuracy(embeddings, labels, ways=3, shots=5, episodes=50)
    >>> found.low < found.accuracy < found.high, found.accuracy > 0.6
    (True, True)
    """
    vectors = as_unit_vectors(embeddings, "embeddings").cpu()
    codes = as_labels(labels, len(vectors), "labels").cpu()
    support_vectors = vectors[None]
    if augmented is not None:
        if augmented.ndim != 3 or augmented.shape[1:] != vectors.shape:
            raise UserError(
                f"augmented holds copies of the embeddings, (copies, {len(vectors)}, {vectors.shape[1]}); got shape "
                f"{tuple(augmented.shape)}",
                code="wrong_shape",
            )
        flat = as_unit_vectors(augmented.flatten(0, 1), "augmented").cpu()
        support_vectors = flat.view(augmented.shape)
    if classifier not in get_args(Classifier):
        raise UserError(
            f"no few-shot classifier '{classifier}': {nearest(str(classifier), get_args(Classifier))}",
            code="unknown_name",
        )
    above = None if superclasses is None else as_labels(superclasses, len(vectors), "superclasses").cpu().numpy()
    groups, notes = draw_episodes(
        codes.numpy(),
        ways=ways,
        shots=shots,
        queries=queries,
        episodes=episodes,
        superclasses=above,
        seed=seed,
        class_names=class_names,
    )
    result = torch.zeros(episodes, dtype=torch.float64)
    for part in _chunks(groups, vectors.shape[1], len(support_vectors)):
        result[part.numbers] = _judge(part, vectors, support_vectors, classifier)
    if episodes == 1:
        return FewShot(float(result[0]), None, None, result, notes)
    return FewShot(*mean_interval(result), result, notes)


def draw_episodes(
    labels: np.ndarray,
    *,
    ways: int | None,
    shots: int,
    queries: int | Literal["rest"],
    episodes: int,
    superclasses: np.ndarray | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> tuple[list[Episodes], tuple[str, ...]]:
    """The episodes of :func:`few_shot_accuracy`, those of the same number of classes together, and its notes.

    Examples
    --------
    >>> groups, _ = draw_episodes(np.arange(12) % 3, ways=2, shots=1, queries=3, episodes=4)
    >>> groups[0].support.shape, groups[0].queries.shape
    ((4, 2, 1), (4, 2, 3))
    """
    for name, value in (("shots", shots), ("episodes", episodes), ("queries", 1 if queries == "rest" else queries)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise UserError(
                f"{name} is a whole number of at least 1{' or rest' * (name == 'queries')}; got {value!r}",
                code="out_of_range",
            )
    present = np.unique(labels[labels >= 0])
    by_class = [np.flatnonzero(labels == code) for code in present]
    pools = _pools(labels, present, by_class, superclasses)
    candidates = np.unique(np.concatenate(pools)) if superclasses is not None else np.arange(len(present))
    _require_enough(present, by_class, candidates, shots, class_names)
    if superclasses is None:
        ways = len(present) if ways is None else ways
        if not 2 <= ways <= len(present):
            raise UserError(
                f"an episode of {ways} classes cannot be drawn from the {len(present)} that are labelled: ways lies "
                f"between 2 and {len(present)}",
                code="too_few",
            )
    counts = np.array([len(rows) for rows in by_class])
    longest = counts[candidates].max()
    wanted = longest - shots if queries == "rest" else min(queries, longest - shots)
    table = np.full((len(present), longest), -1)
    for position in candidates:
        table[position, : counts[position]] = by_class[position]

    drawn: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for number in range(episodes):
        generator = np.random.default_rng([seed, number])
        if superclasses is None:
            chosen = np.arange(len(present)) if ways == len(present) else generator.permutation(len(present))[:ways]
        else:
            chosen = pools[generator.integers(len(pools))]
        keys = generator.random((len(chosen), longest))
        keys[table[chosen] < 0] = 2  # behind all samples
        order = keys.argsort(axis=1)[:, : shots + wanted]
        drawn.setdefault(len(chosen), []).append((number, present[chosen], np.take_along_axis(table[chosen], order, 1)))
    groups = []
    for group in drawn.values():
        numbers, classes, rows = (np.stack(values) for values in zip(*group, strict=True))
        groups.append(Episodes(numbers, classes, rows[:, :, :shots], rows[:, :, shots:]))
    short = candidates[counts[candidates] < shots + (wanted if queries == "rest" else queries)]
    notes: tuple[str, ...] = ()
    if queries != "rest" and len(short):
        fewest = short[counts[short].argmin()]
        notes = (
            f"{len(short)} of {len(candidates)} classes have fewer than {shots} + {queries} samples and give the rest "
            f"as queries, {counts[fewest] - shots} of {_called(int(present[fewest]), class_names)}",
        )
    return groups, notes


def _pools(
    labels: np.ndarray, present: np.ndarray, by_class: Sequence[np.ndarray], superclasses: np.ndarray | None
) -> list[np.ndarray]:
    """The positions in ``present`` of the classes of every superclass that has at least two."""
    if superclasses is None:
        return []
    parents = []
    for code, rows in zip(present, by_class, strict=True):
        above = np.unique(superclasses[rows])
        above = above[above >= 0]
        if len(above) > 1:
            raise UserError(
                f"class {code} lies under the superclasses {above[0]} and {above[1]}: it needs one",
                code="labels_conflict",
            )
        parents.append(above[0] if len(above) else -1)
    pools = [np.flatnonzero(np.array(parents) == above) for above in np.unique(parents) if above >= 0]
    pools = [pool for pool in pools if len(pool) >= 2]
    if not pools:
        raise UserError(
            "intra-class episodes need a superclass with at least two classes; there is none", code="too_few"
        )
    return pools


def _require_enough(
    present: np.ndarray,
    by_class: Sequence[np.ndarray],
    candidates: np.ndarray,
    shots: int,
    class_names: Sequence[str] | None,
) -> None:
    if len(present) < 2:
        raise UserError(
            f"few-shot episodes need at least two labelled classes; there are {len(present)}", code="too_few"
        )
    poor = [position for position in candidates if len(by_class[position]) <= shots]
    if poor:
        first = min(poor, key=lambda position: len(by_class[position]))
        others = f", and {len(poor) - 1} other classes have too few" if len(poor) > 1 else ""
        most = min(len(by_class[position]) for position in candidates) - 1
        advice = f"use at most {most} shots" if most else "leave the class out"
        raise UserError(
            f"{shots} shots and a query need {shots + 1} samples of a class; "
            f"{_called(int(present[first]), class_names)} has {len(by_class[first])}{others}: {advice}",
            code="too_few",
        )


def _called(code: int, class_names: Sequence[str] | None) -> str:
    return f"class '{class_names[code]}'" if class_names is not None else f"class {code}"


def _chunks(groups: Sequence[Episodes], width: int, copies: int) -> Iterator[Episodes]:
    for group in groups:
        _, ways, shots = group.support.shape
        size = max(1, _CHUNK_ELEMENTS // (ways * max(shots * copies, group.queries.shape[2]) * width))
        for start in range(0, len(group.numbers), size):
            part = slice(start, start + size)
            yield Episodes(group.numbers[part], group.classes[part], group.support[part], group.queries[part])


def _judge(part: Episodes, vectors: Tensor, support_vectors: Tensor, classifier: Classifier) -> Tensor:
    """(E,) shares of queries named correctly."""
    _, ways, most = part.queries.shape
    support = torch.from_numpy(part.support)
    rows = torch.from_numpy(part.queries)
    asked = vectors[rows.clamp(min=0)].flatten(1, 2)  # (E, ways * most, d)
    labelled = support_vectors[:, support].permute(1, 2, 0, 3, 4).flatten(2, 3)  # (E, ways, copies * shots, d)
    scores = _CLASSIFIERS[classifier](labelled, asked)  # (E, ways * most, ways)
    truth = torch.arange(ways)[:, None].expand(ways, most).flatten()
    known = (rows >= 0).flatten(1)
    right = (scores.argmax(dim=2) == truth) & known
    return right.sum(dim=1).double() / known.sum(dim=1)


def _logistic(labelled: Tensor, asked: Tensor) -> Tensor:
    count, ways, shots, _ = labelled.shape
    labels = torch.arange(ways).repeat_interleave(shots).expand(count, -1)
    large = labels.shape[1] * ways > _LARGE
    precision: dict[str, Any] = {"dtype": torch.float32, "tolerance": 1e-4} if large else {"tolerance": 1e-5}
    return fit_logistic_regressions(labelled.flatten(1, 2), labels, classes=ways, **precision).logits(asked)


def _nearest_mean(labelled: Tensor, asked: Tensor) -> Tensor:
    means = labelled.mean(dim=2)
    return 2 * asked @ means.transpose(1, 2) - means.square().sum(dim=2)[:, None]


def _cosine(labelled: Tensor, asked: Tensor) -> Tensor:
    return asked @ functional.normalize(labelled.mean(dim=2), dim=2).transpose(1, 2)


_CLASSIFIERS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logistic": _logistic,
    "nearest-mean": _nearest_mean,
    "cosine": _cosine,
}
"""Classifier by name: labelled (E, ways, n, d) and asked (E, q, d) to scores (E, q, ways)."""
