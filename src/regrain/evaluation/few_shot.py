"""Protocol ``few-shot``: do a few labelled samples of each class suffice to name the others (SCGM's protocol)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation.base import Representation, Score, Setting
from regrain.metrics import FewShot, few_shot_accuracy

_WAYS, _SHOTS, _QUERIES, _EPISODES, _COPIES = 5, 1, 15, 1000, 5


def few_shot(representation: Representation, setting: Setting) -> dict[str, Score]:
    """Accuracy of classifiers fitted on a few test samples of each class, over episodes; the others are queries.

    Classifiers are fitted on the representation's augmented views where it has some that differ, else on the
    embeddings. All representations see the same episodes, as do all runs on the same labels. The interval is over
    episodes.

    Options: ``ways`` (a list of numbers of classes, None for all; default 5, or all where there are fewer), ``shots``
    (a list; default 1), ``queries`` (of a class, or ``rest``; default 15), ``episodes`` (default 1000), ``classifier``
    (``logistic``, ``nearest-mean`` or ``cosine``), ``intra_class`` (judge episodes within one superclass too).

    Raises
    ------
    UserError
        If a class has too few samples (the message names it), or there are fewer classes than ways.
    """
    known = setting.known()
    labels = setting.test_labels[known]
    options = setting.options
    augmented = None if representation.augmented is None else representation.augmented[:, known]
    if augmented is not None and len(augmented) > 1 and torch.equal(augmented[0], augmented[1]):
        augmented = None  # views that change nothing: copies would but weaken the classifier's penalty
    classifier = options.get("classifier", "logistic")
    shots = options.get("shots") or [_SHOTS]
    ways = options.get("ways") or [min(_WAYS, len(labels.unique()))]

    def judge(**more: Any) -> FewShot:
        return few_shot_accuracy(
            representation.test[known],
            labels,
            queries=options.get("queries", _QUERIES),
            episodes=int(options.get("episodes", _EPISODES)),
            augmented=augmented,
            classifier=classifier,
            seed=setting.seed,
            class_names=setting.classes,
            **more,
        )

    suffix = "" if classifier == "logistic" else f"-{classifier}"
    scores = {
        f"{'all' if way is None else way}-way-{shot}-shot{suffix}": _score(judge(ways=way, shots=shot))
        for way in ways
        for shot in shots
    }
    if options.get("intra_class") and setting.superclasses is None:
        first = next(iter(scores))
        why = "no intra-class episodes: no level lies above this one"
        scores[first] = replace(scores[first], note="; ".join(filter(None, (scores[first].note, why))))
    elif options.get("intra_class") and setting.superclasses is not None:
        above = setting.superclasses[known]
        for shot in shots:
            scores[f"{shot}-shot-intra{suffix}"] = _score(judge(shots=shot, superclasses=above))
    return scores


def unseen_superclasses(test: Dataset, train: Dataset, level: str | None = None) -> Dataset:
    """The test samples whose superclass has no training sample, as tieredImageNet's protocol asks.

    Parameters
    ----------
    test, train : Dataset
        Of the same classes.
    level : str, optional
        The superclasses' level; default the coarsest.

    Raises
    ------
    UserError
        If there is none: every superclass of the test samples was trained on, or is unknown.
    """
    if not test.labels.levels:
        raise UserError(f"{test.name} has no labels: which superclasses are unseen cannot be told")
    level = level or test.labels.levels[0]
    seen = torch.tensor(train.labels.present(level), dtype=torch.long)
    codes = test.labels.level(level)
    unseen = (codes >= 0) & ~torch.isin(codes, seen)
    if not unseen.any():
        raise UserError(
            f"all {len(test.labels.present(level))} classes of level '{level}' among the samples to judge occur in "
            "training: unseen superclasses need a split whose superclasses were held out"
        )
    return test.select(unseen)


def superclass_codes(dataset: Dataset, level: str) -> Tensor | None:
    """Codes (N,) one level up; None where there is none, or levels do not nest."""
    index = dataset.labels.level_index(level)
    return dataset.labels.codes[:, index - 1] if index and dataset.labels.taxonomy is not None else None


def wanted_copies(options: Mapping[str, Any]) -> int:
    """How many augmented views of every sample the options ask for."""
    copies = int(options.get("copies", _COPIES))
    if copies < 0:
        raise UserError(f"copies is a whole number of at least 0; got {copies}")
    return copies


def _score(found: FewShot) -> Score:
    over = "" if found.low is None else "episodes"
    return Score(found.accuracy, found.low, found.high, over, "; ".join(found.notes))
