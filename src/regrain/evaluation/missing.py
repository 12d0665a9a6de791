"""Whether labels are missing by chance: are the samples that have one like those that have none?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regrain.labels import Labels
from regrain.metrics import separability

_FEWEST, _MOST = 20, 1_000
"""Samples of either kind from which, and of at most how many, a probe learns."""

_ALIKE = 0.6
"""Area under the ROC curve up to which two kinds of samples count as alike."""

_FOLDS = 5


def missing_for_a_reason(
    labels: Labels, levels: Sequence[str], features: Callable[[Tensor], Tensor], *, seed: int = 0
) -> list[str]:
    """A sentence for each level at which samples with a label are unlike those without.

    A logistic regression on features tells them apart on held-out folds better than by chance: the lower end of the 95%
    interval of the area under the ROC curve is above 0.6.

    ``levels``: those to look at. ``features``: rows (m,) -> features (m, d). ``seed``: of the samples drawn.

    Examples
    --------
    >>> x = torch.arange(100.0)[:, None]
    >>> labels = Labels.from_columns({"kind": [str(i % 2) if i < 50 else None for i in range(100)]})
    >>> (found,) = missing_for_a_reason(labels, ["kind"], lambda rows: x[rows])
    >>> found.partition(":")[0]
    "level 'kind'"
    """
    sentences = []
    for level in levels:
        known = labels.level(level) >= 0
        rows = _drawn(known, seed)
        if not len(rows):
            continue
        folds = torch.arange(len(rows)) % _FOLDS
        found = separability(features(rows), known[rows], folds)
        if found.low <= _ALIKE:
            continue
        names, present = labels.names(level), labels.present(level)
        absent = f"; of {len(names) - len(present)} of the {len(names)} classes no sample has one"
        sentences.append(
            f"level '{level}': the {int(known.sum())} samples with a label are not like the {int((~known).sum())} "
            f"without: a probe tells them apart (area under the ROC curve {found.area:.2f}, by chance 0.5)"
            f"{absent * (len(present) < len(names))}. Labels that "
            "are missing for a reason cost accuracy that no labelled sample shows: label some of the others, drawn by "
            "chance, to learn from and to judge by"
        )
    return sentences


def _drawn(known: Tensor, seed: int) -> Tensor:
    """Rows of both kinds, in a random order; none where there are too few of either."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for kind in (known, ~known):
        rows = kind.nonzero()[:, 0]
        if len(rows) < _FEWEST:
            return rows[:0]
        parts.append(rows[torch.randperm(len(rows), generator=generator)[:_MOST]])
    rows = torch.cat(parts)
    return rows[torch.randperm(len(rows), generator=generator)]
