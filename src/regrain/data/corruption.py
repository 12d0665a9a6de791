"""Reduce or corrupt a training split for an experiment: fewer samples, hidden labels, or wrong labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from regrain.checks import Seed, checks_settings
from regrain.data.cache import cached_tensor
from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest
from regrain.labels import UNKNOWN, Labels
from regrain.metrics import held_out_margins

_MODES = ("hard", "easy")
_FOLDS = 5
_UNTOLD = -1e30
"""Margin of a sample whose class no other fold can tell from another."""


@checks_settings
@dataclass(frozen=True, kw_only=True)
class Corruption:
    """Corruption of a training split before a method sees it, applied in the order of the fields.

    A field's text is what the command line says of it: ``Annotated[type, text]``.
    """

    name: ClassVar[str] = "data"

    samples: Annotated[int | None, "Train on this many samples alone, drawn whatever their classes."] = None
    limit_per_class: Annotated[
        int | None, "At most this many training samples of every class of the finest level in use."
    ] = None
    imbalance: Annotated[
        float,
        "Make classes of the finest level in use unequal: one keeps all its training samples, another one in this many "
        "(10: a tenth), the others shares in between.",
    ] = 1.0
    label_noise: Annotated[
        float | Mapping[str, float],
        "Share of the training samples whose label is replaced by a random one, as 0.3 or LEVEL=0.3.",
    ] = 0.0
    noise_within: Annotated[str | None, "Draw wrong labels only from the same class at this level."] = None
    hide_labels: Annotated[
        float | str | Mapping[str, float | str],
        "Share of the training samples that lose their labels, as 0.8 or LEVEL=0.8: by chance, or with 0.8:hard "
        "(0.8:easy) those that are hard (easy) to tell. At every level, or at those named.",
    ] = 0.0
    hide_classes: Annotated[
        Sequence[str] | None,
        "Classes that lose all their training labels, as LEVEL=NAME, or LEVEL=0.5 for a share of them. They are new "
        "classes then: `discover --known LEVEL` finds them, the protocol novel says how well.",
    ] = None
    draw: Annotated[
        Seed, "The seed of these draws; default 0 for every --seed, so that seeds are compared on the same samples."
    ] = 0

    def apply(
        self, train: Dataset, levels: Sequence[str], features: Callable[[Dataset], Tensor] | None = None
    ) -> Dataset:
        """The corrupted training split.

        Parameters
        ----------
        levels : sequence of str
            The levels in use, coarse to fine.
        features : callable, optional
            Data set -> (n, d) features, by which labels are hard or easy.

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
        if self.imbalance != 1:
            train = with_imbalance(train, self.imbalance, level=levels[-1] if levels else None, seed=self.draw)
        if self.noise_within is not None:
            train.labels.level_index(self.noise_within)
        if self.label_noise and levels:
            train = with_label_noise(train, self.label_noise, levels=levels, within=self.noise_within, seed=self.draw)
        if self.hide_labels and levels:
            train = hide_labels(train, self.hide_labels, within=levels[0], seed=self.draw, features=features)
        return train if self.hide_classes is None else hide_classes(train, self.hide_classes, seed=self.draw)


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


def with_imbalance(data: Dataset, ratio: float, *, level: str | None = None, seed: int = 0) -> Dataset:
    """Unbalanced classes: all samples of one, 1 / ``ratio`` of those of another, the others' shares geometric between.

    That is the long tail of Cui et al. (CVPR 2019) where classes are equal before; here the order of the classes is
    drawn by seed. Every class keeps a sample at least, and samples of unknown class all stay.

    Parameters
    ----------
    ratio : float
        At least 1.
    level : str, optional
        Level of the classes; default the finest.

    Raises
    ------
    UserError
        For a ratio below 1, and data without labels.
    """
    if not 1 <= ratio < np.inf:
        raise UserError(f"imbalance is the ratio of the largest to the smallest share, at least 1; got {ratio:g}")
    if not data.labels.levels:
        raise UserError(
            "--imbalance makes classes unequal, and the data have no labels: leave it out", code="no_labels"
        )
    level = level or data.labels.levels[-1]
    generator = np.random.default_rng(seed)
    classes = data.labels.present(level)
    shares = ratio ** -(generator.permutation(len(classes)) / max(1, len(classes) - 1))
    codes = data.labels.level(level).numpy()
    kept = [np.flatnonzero(codes == UNKNOWN)]
    for rows in data.rows_by_class(level, generator):
        if codes[rows[0]] != UNKNOWN:
            share = shares[classes.index(int(codes[rows[0]]))]
            kept.append(rows[: max(1, round(share * len(rows)))])
    return data.select(np.sort(np.concatenate(kept)))


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
    data: Dataset,
    share: float | str | Mapping[str, float | str],
    *,
    within: str | None = None,
    seed: int = 0,
    features: Callable[[Dataset], Tensor] | None = None,
) -> Dataset:
    """Hide the labels of a share of the samples, to measure the value of few labels.

    By chance: drawn by seed within the classes of one level, each of which keeps one label at least. A larger share
    hides all that a smaller one hides.

    ``"0.8:hard"`` hides where the label is hard to tell, as annotators leave labels out, and ``"0.8:easy"`` the
    others. A sample is the harder, the less its own class leads in a logistic regression on ``features`` whose folds
    do not hold it (:func:`regrain.metrics.held_out_margins`): the share that this probe gets wrong goes first. Of
    levels that nest, labels go missing from the coarse end: a sample that has lost its coarser label loses the finer
    one before all others. Classes of finer levels may be left without any label.

    Parameters
    ----------
    share : float or str, or mapping of level to float or str
        In [0, 1), with ``:hard`` or ``:easy`` behind it or not. One hides labels at every level; a mapping those of its
        levels, each from its own share of the samples, so that ``{"domain": 0.3, "intent": 0.95}`` leaves 5% labelled
        to the intent, 65% to the domain alone and the rest not at all.
    within : str, optional
        The level within whose classes is drawn, and each of whose classes keeps a label; default the coarsest.
    seed : int
        Of the draw, or of the folds.
    features : callable, optional
        Data set -> (n, d) features of its samples, needed where labels are hard or easy.

    Raises
    ------
    UserError
        If a share is outside [0, 1), a level is unknown, the data have no labels, or a level has too few to probe.
    """
    labels = data.labels
    if not labels.levels:
        raise UserError(f"{data.name} has no labels to hide")
    shares = share if isinstance(share, Mapping) else dict.fromkeys(labels.levels, share)
    wanted = {level: _share_of(level, shares[level]) for level in sorted(shares, key=labels.level_index)}
    codes = labels.codes.clone()
    drawn = data.rows_by_class(within or labels.levels[0], np.random.default_rng(seed))
    seen = None if features is None else cache(lambda: features(data))
    for level, (part, mode) in wanted.items():
        column = labels.level_index(level)
        if mode is None:
            for rows in drawn:
                hidden = rows[: min(round(part * len(rows)), len(rows) - 1)]
                codes[torch.from_numpy(hidden), column] = UNKNOWN
            continue
        if seen is None:
            raise UserError(f"labels that are {mode} to tell are known by features of the samples: give some")
        above = labels.codes[:, :column] if labels.taxonomy is not None else labels.codes[:, :0]
        lost = ((above >= 0) & (codes[:, :column][:, : above.shape[1]] < 0)).any(dim=1)
        margins = _margins(data, level, seen(), seed) * (1 if mode == "hard" else -1)
        codes[_hardest(margins.where(~lost | margins.isnan(), -torch.inf), part, drawn), column] = UNKNOWN
    return replace(data, labels=replace(labels, codes=codes))


def _share_of(level: str, given: float | str) -> tuple[float, str | None]:
    """Split a share such as ``0.8:hard`` into number and mode."""
    number, sign, mode = given.partition(":") if isinstance(given, str) else (given, "", "")
    try:
        part = float(number)
    except ValueError:
        part = None
    if part is None or (sign and mode not in _MODES):
        raise UserError(
            f"the share of labels of '{level}' to hide is a number such as 0.8, 0.8:hard or 0.8:easy; got '{given}'",
            code="out_of_range",
        )
    if not 0 <= part < 1:
        raise UserError(f"the share of labels to hide lies in [0, 1), 1 left out; got {part}")
    return part, mode or None


def _margins(data: Dataset, level: str, features: Tensor, seed: int) -> Tensor:
    """(n,) margins of the labels by a probe, from the cache if they were computed before; NaN without a label."""
    codes = data.labels.level(level)
    if len(codes.unique()) - int((codes < 0).any()) < 2:
        raise UserError(
            f"which labels of '{level}' are hard cannot be told: they are of fewer than two classes", code="too_few"
        )
    fold = torch.empty(len(data), dtype=torch.long)
    generator = np.random.default_rng(seed)
    if data.groups is None:
        order = np.concatenate(data.rows_by_class(level, generator))
        fold[torch.from_numpy(order)] = torch.arange(len(data)) % _FOLDS
    else:
        names, group = np.unique(data.groups, return_inverse=True)
        fold = torch.from_numpy(generator.permutation(len(names))[group] % _FOLDS)
    rows = torch.from_numpy(np.argsort(data.keys.numpy(), kind="stable"))  # by ids: another order changes nothing
    rows = rows[codes[rows] >= 0]
    x = features[rows]
    key = f"margins|{level}|{_digest(x)}|{_digest(codes[rows])}|{_digest(fold[rows])}"
    found = torch.full((len(data),), torch.nan)
    found[rows] = cached_tensor(
        key, (len(rows),), lambda: [held_out_margins(x, codes[rows], fold[rows]).nan_to_num(nan=_UNTOLD)]
    )
    return found


def _digest(features: Tensor) -> str:
    return hashlib.blake2b(features.contiguous().numpy().tobytes(), digest_size=16).hexdigest()


def _hardest(margins: Tensor, part: float, drawn: Sequence[np.ndarray]) -> Tensor:
    """Rows of the smallest margins, a part of those that are known; the largest of each class that is drawn stays."""
    known = ~margins.isnan()
    kept = [rows[known[rows]] for rows in map(torch.from_numpy, drawn)]
    kept = [rows[margins[rows].argmax()] for rows in kept if len(rows)]
    order = torch.from_numpy(np.concatenate(drawn))  # by ids, not by the order of rows: where margins are equal
    order = order[known[order]]
    order = order[margins[order].argsort(stable=True)]
    order = order[~torch.isin(order, torch.stack(kept))]
    return order[: round(part * int(known.sum()))]


def hide_classes(data: Dataset, classes: Sequence[str], *, seed: int = 0) -> Dataset:
    """Hide every label of some classes: they are then new classes, which are to be found.

    Where levels nest, the labels of these samples at finer levels go too, and those at coarser levels stay.

    Parameters
    ----------
    classes : sequence of str
        ``LEVEL=NAME`` for a class, or ``LEVEL=SHARE``, in (0, 1), for a share of the level's classes that have labels,
        drawn by seed; where levels nest it is drawn within each class of the level above, so that ``fine=0.5`` leaves
        half of every superclass known. A larger share hides all that a smaller one hides.

    Raises
    ------
    UserError
        If a level or a class does not exist, a share is outside (0, 1), or no label of the level is left.
    """
    labels, codes = data.labels, data.labels.codes.clone()
    hidden: dict[str, set[int]] = {}
    for text in classes:
        if "=" not in text:
            raise UserError(
                f"classes to hide are LEVEL=NAME, or LEVEL=0.5 for a share of them; got '{text}'", code="wrong_shape"
            )
        having = [name for name in labels.levels if text.startswith(f"{name}=")]
        level = max(having, key=len) if having else text.partition("=")[0]
        names, what = labels.names(level), text[len(level) + 1 :]
        hidden.setdefault(level, set()).update(
            [names.index(what)] if what in names else _share_drawn(labels, level, what, seed)
        )
    for level, gone in hidden.items():
        column = labels.level_index(level)
        rows = torch.isin(labels.codes[:, column], torch.tensor(sorted(gone), dtype=torch.long))
        below = slice(column, None if labels.taxonomy is not None else column + 1)
        codes[rows, below] = UNKNOWN
        if not bool((codes[:, column] >= 0).any()):
            raise UserError(f"no class of level '{level}' is left with a label: hide fewer", code="no_labels")
    return replace(data, labels=replace(labels, codes=codes)) if hidden else data


def _share_drawn(labels: Labels, level: str, share: str, seed: int) -> list[int]:
    """A share of the classes of a level that have labels, drawn within the classes of the level above it."""
    try:
        part = float(share)
    except ValueError:
        raise UserError(
            f"level '{level}' has no class '{share}': {nearest(share, labels.names(level))}", code="unknown_name"
        ) from None
    if not 0 < part < 1:
        raise UserError(f"the share of classes to hide lies in (0, 1); got {share}", code="out_of_range")
    index, present = labels.level_index(level), torch.tensor(labels.present(level), dtype=torch.long)
    above = torch.zeros_like(present)
    if labels.taxonomy is not None and index:
        above = labels.taxonomy.ancestors(level, labels.levels[index - 1])[present]
    generator = np.random.default_rng((seed, index))
    drawn: list[int] = []
    for upper in above.unique().tolist():
        own = present[above == upper].numpy()
        drawn += generator.permutation(own)[: round(part * len(own))].tolist()
    return drawn


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
