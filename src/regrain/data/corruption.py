"""Reduce or corrupt a training split for an experiment: fewer samples, hidden labels, or wrong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.labels import UNKNOWN, Labels


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Corruption of a training split before a method sees it, applied in the order of the fields.

    Attributes
    ----------
    samples : int, optional
        Number of samples to keep: see :func:`subsample`.
    limit_per_class : int, optional
        Largest number of samples of every class of the finest level in use.
    label_noise : float, or mapping of level to float
        See :func:`with_label_noise`.
    noise_within : str, optional
        Draw wrong labels only from the same class at this level.
    hide_labels : float, or mapping of level to float
        See :func:`hide_labels`.
    draw : int
        At least 0. The seed of all that is drawn here, apart from the seed of the training: methods are compared on
        the same samples, and another draw is another experiment.
    """

    samples: int | None = None
    limit_per_class: int | None = None
    label_noise: float | Mapping[str, float] = 0.0
    noise_within: str | None = None
    hide_labels: float | Mapping[str, float] = 0.0
    draw: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.draw < 2**32:
            raise UserError(f"data.draw is a whole number from 0 to 2^32 - 1; got {self.draw}")

    def apply(self, train: Dataset, levels: Sequence[str]) -> Dataset:
        """The corrupted training split; ``levels`` are those in use, coarse to fine.

        Raises
        ------
        UserError
            If a number is outside its range, a level is unknown, or more samples are asked for than there are.
        """
        if self.samples is not None:
            train = subsample(train, self.samples, seed=self.draw)
        if self.limit_per_class is not None:
            finest = levels[-1] if levels else None
            train = limit_per_class(train, self.limit_per_class, level=finest, seed=self.draw)
        if self.noise_within is not None:
            train.labels.level_index(self.noise_within)
        if self.label_noise and levels:
            train = with_label_noise(train, self.label_noise, levels=levels, within=self.noise_within, seed=self.draw)
        if self.hide_labels and levels:
            train = hide_labels(train, self.hide_labels, within=levels[0], seed=self.draw)
        return train


def limit_per_class(data: Dataset, count: int, *, level: str | None = None, seed: int = 0) -> Dataset:
    """At most ``count`` samples of every class of ``level`` (default: the finest), drawn by seed; order is kept.

    This makes a smaller data set for an experiment, before anything is hidden from a method. Samples of unknown
    class at that level are limited together.
    """
    if count < 1:
        raise UserError(f"the limit per class is at least 1; got {count}")
    finest = data.labels.levels[-1] if data.labels.levels else None
    drawn = data.rows_by_class(level or finest, np.random.default_rng(seed))
    return data.select(np.sort(np.concatenate([rows[:count] for rows in drawn])))


def subsample(data: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """``count`` of the samples, drawn by seed whatever their classes; order is kept, a larger draw holds a smaller.

    Raises
    ------
    UserError
        If there are fewer, or less than two are asked for.
    """
    if not 2 <= count <= len(data):
        raise UserError(f"samples to draw are 2 to {len(data)}, all that {data.name} has; got {count}")
    (order,) = data.rows_by_class(None, np.random.default_rng(seed))
    return data.select(np.sort(order[:count]))


def with_label_noise(
    data: Dataset,
    share: float | Mapping[str, float],
    *,
    levels: Sequence[str] | None = None,
    within: str | None = None,
    seed: int = 0,
) -> Dataset:
    """Replace labels by random ones: each label is redrawn with probability ``share``.

    The new label is drawn from all classes, the old one included, so that 1 makes labels random (MLCL, supplement
    8.1). Where
    levels nest, the labels above follow the new one, and a finer one that does not lie below it is lost. A larger
    share keeps the wrong labels of a smaller one.

    Parameters
    ----------
    share : float, or mapping of level to float
        In [0, 1]. One number is for every level where levels do not nest; where they do, for each sample at the
        finest level that is known of it. A mapping is for its levels alone, the coarsest first.
    levels : sequence of str, optional
        Levels in use: one number holds for all of them. Default: all levels.
    within : str, optional
        Draw wrong labels only within classes of this level: they are confusions between siblings. Samples without a
        known label below it keep their labels.
    seed : int

    Raises
    ------
    UserError
        If a share is outside [0, 1], a level is unknown, or ``within`` is not above a noisy level.
    """
    labels, taxonomy = data.labels, data.labels.taxonomy
    named = isinstance(share, Mapping)
    shares = dict(share) if isinstance(share, Mapping) else dict.fromkeys(levels or labels.levels, share)
    used = sorted(shares, key=labels.level_index)
    finest = labels.codes[:, [labels.level_index(level) for level in used]]
    finest = ((finest >= 0) * torch.arange(1, len(used) + 1)).amax(dim=1) - 1  # of the levels in use; -1 for none
    codes = labels.codes.clone()
    (order,) = data.rows_by_class(None, np.random.default_rng(seed))  # by ids, not by the order of rows
    rows = torch.from_numpy(order)
    for number, level in enumerate(used):
        column, part = labels.level_index(level), shares[level]
        if not 0 <= part <= 1:
            raise UserError(f"the share of noisy labels lies in [0, 1]; got {part}")
        if within is not None and not named and number < len(used) - 1 and column <= labels.level_index(within):
            continue
        generator = np.random.default_rng((seed, column))
        changed = torch.from_numpy(generator.random(len(data)) < part)
        draws = torch.from_numpy(generator.random(len(data)))
        old = codes[rows, column]
        classes = len(labels.names(level))
        new = (draws * classes).long() if within is None else _siblings_drawn(labels, level, within, old, draws)
        noisy = changed & (old >= 0) & (new != old)
        if taxonomy is None:
            codes[rows[noisy], column] = new[noisy]
            continue
        if not named:
            noisy &= finest[rows] == number
        codes[rows[noisy], column] = new[noisy]
        for upper in labels.levels[:column]:
            codes[rows[noisy], labels.level_index(upper)] = taxonomy.ancestors(level, upper)[new[noisy]]
        codes[rows[noisy][:, None], torch.arange(column + 1, len(labels.levels))] = UNKNOWN
    return replace(data, labels=replace(labels, codes=codes))


def hide_labels(
    data: Dataset, share: float | Mapping[str, float], *, within: str | None = None, seed: int = 0
) -> Dataset:
    """Hide the labels of a share of the samples, to measure the value of few labels.

    Drawn by seed within the classes of one level, each of which keeps one label at least; a larger share hides all
    that a smaller one hides.

    Parameters
    ----------
    share : float, or mapping of level to float
        In [0, 1). One number hides labels at every level; a mapping those of its levels, each from its own share of
        the samples, so that ``{"domain": 0.3, "intent": 0.95}`` leaves 5% labelled to the intent, 65% to the domain
        alone and the rest not at all.
    within : str, optional
        The level within whose classes is drawn; default the coarsest.
    seed : int

    Raises
    ------
    UserError
        If a share is outside [0, 1), a level is unknown, or the data have no labels.
    """
    labels = data.labels
    if not labels.levels:
        raise UserError(f"{data.name} has no labels to hide")
    shares = share if isinstance(share, Mapping) else dict.fromkeys(labels.levels, share)
    codes = labels.codes.clone()
    drawn = data.rows_by_class(within or labels.levels[0], np.random.default_rng(seed))
    for level, part in shares.items():
        if not 0 <= part < 1:
            raise UserError(f"the share of labels to hide lies in [0, 1), 1 left out; got {part}")
        for rows in drawn:
            hidden = rows[: min(round(part * len(rows)), len(rows) - 1)]
            codes[torch.from_numpy(hidden), labels.level_index(level)] = UNKNOWN
    return replace(data, labels=replace(labels, codes=codes))


def _siblings_drawn(labels: Labels, level: str, within: str, old: Tensor, draws: Tensor) -> Tensor:
    """Draw for each code a class with the same ancestor at level ``within``, possibly the same class."""
    if labels.taxonomy is None or labels.level_index(within) >= labels.level_index(level):
        raise UserError(f"labels of level '{level}' stay within classes of a level above it: '{within}' is none")
    above = labels.taxonomy.ancestors(level, within)
    new = old.clone()
    for code in above[old[old >= 0]].unique().tolist():
        own = (above == code).nonzero()[:, 0]
        at = (old >= 0) & (above[old.clamp(min=0)] == code)
        new[at] = own[(draws[at] * len(own)).long()]
    return new
