"""Protocol ``multi-aspect``: classification at every level or aspect, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.evaluation.probe import class_probabilities
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.labels import Taxonomy
from regrain.metrics import balanced_accuracy, hops, least_cost_classes, path_metrics

ALL = "all"
"""Name in place of a level for figures of all levels together."""


_MOST_CLASSES = 2_000
"""Classes of the finest level up to which the order of all of them is judged: it takes their square of memory."""

_ROWS = 1_000


@protocol("train", "probabilities", levels="together", classifies=True)
def multi_aspect(
    representation: Representation, tasks: Sequence[Task], *, decode: Literal["levels", "leaf", "least-cost"] = "levels"
) -> dict[str, dict[str, Score]]:
    """Level -> figures, and ``all``: their means, samples right at every level, and the paths where levels nest.

    Predictions are those of the method's own classifiers, else of logistic regression on the training split's
    embeddings (see :mod:`regrain.evaluation.probe`). At each level ``accuracy``, ``balanced-accuracy`` and
    ``macro-f1``, the mean over classes, which is what a classifier of the majority class does not get. A sample whose
    label is unknown is left out at that level; ``all-right`` is over samples whose label is known at some, and counts
    those. Where levels nest, ``all`` has the figures of :func:`~regrain.metrics.path_metrics` too, and ``hops``, the
    mean of :func:`~regrain.metrics.hops` at the finest level.

    Raises a UserError if the method has no classifier of a level, and fewer than two classes are labelled in the
    training split; or if a path is to be decided where levels do not nest.

    Parameters
    ----------
    decode : {"levels", "leaf", "least-cost"}
        How levels that nest are decided. Most probable class of each level by itself; most probable class without
        children and those above it; or the path of least expected cost (CRM), the height of the lowest common ancestor,
        as `regrain predict` decides.
    """
    scores: dict[str, dict[str, Score]] = {}
    found_by = {task.level: class_probabilities(representation, task, "multi-aspect") for task in tasks}
    tree = tasks[0].taxonomy if len(tasks) > 1 else None
    tree = None if tree is None else tree.keep([task.level for task in tasks])
    decided = _decided({level: values for level, (values, _) in found_by.items()}, tree, decode)
    truths, guesses = [], []
    for task in tasks:
        known = task.known()
        by, predicted = found_by[task.level][1], decided[task.level]
        truth, found = task.test_labels[known], predicted[known]
        scores[task.level] = {
            "accuracy": Score.of_samples(truth == found, task, by),
            "balanced-accuracy": Score(balanced_accuracy(truth, found)),
            "macro-f1": Score(_macro_f1(truth, found, len(task.classes))),
        }
        truths.append(task.test_labels)
        guesses.append(torch.where(predicted < len(task.classes), predicted, -1))
    labels, predictions = torch.stack(truths, dim=1), torch.stack(guesses, dim=1)
    together = {name: Score(fmean(s[name].value for s in scores.values())) for name in next(iter(scores.values()))}
    known = (labels >= 0).any(dim=1)
    right = ((labels == predictions) | (labels < 0)).all(dim=1)[known]
    together["all-right"] = Score.of_samples(right, tasks[0])
    if tree is not None:
        names = [task.level for task in tasks]
        order = [names.index(level) for level in tree.levels]  # coarse to fine, however they were asked for
        found_paths = path_metrics(labels[:, order], predictions[:, order], tree)
        together |= {name: Score(value, count=name == "tree-distance") for name, value in found_paths.items()}
        finest = tasks[order[-1]]
        if len(finest.classes) <= _MOST_CLASSES:
            together["hops"] = Score(_mean_hops(found_by[finest.level][0], finest.test_labels, tree))
    return scores | {ALL: together}


def _decided(probabilities: dict[str, Tensor], tree: Taxonomy | None, decode: str) -> dict[str, Tensor]:
    """Level -> (N,) codes of the predicted classes; -1 where a path ends above the level."""
    if decode == "levels":
        return {level: values.argmax(dim=1) for level, values in probabilities.items()}
    if tree is None or not tree.is_tree:
        raise UserError(f"decode={decode} decides on a path, and these levels do not nest", code="conflicting_options")
    paths = tree.paths()
    finest = (paths >= 0).sum(dim=1) - 1
    columns = [probabilities[tree.levels[at]][:, path[at]] for path, at in zip(paths, finest.tolist(), strict=True)]
    p = torch.stack(columns, dim=1)
    if decode == "leaf":
        best = p.argmax(dim=1)
    else:
        shared = ((paths[:, None] == paths) & (paths >= 0)).sum(dim=2)
        best = least_cost_classes(p, torch.maximum(finest[:, None], finest) + 1 - shared)
    return dict(zip(tree.levels, paths[best].T, strict=True))


def _mean_hops(probabilities: Tensor, labels: Tensor, tree: Taxonomy) -> float:
    """Of the classes of the finest level, by the number of classes above that two of them share."""
    finest = tree.levels[-1]
    above = torch.stack([tree.ancestors(finest, level) for level in tree.levels], dim=1)
    shared = ((above[:, None] == above) & (above >= 0)).sum(dim=2)
    scores = probabilities[:, : len(above)]
    parts = zip(scores.split(_ROWS), labels.split(_ROWS), strict=True)
    found = [hops(values, own, shared) for values, own in parts if bool((own >= 0).any())]
    return float(torch.cat(found).nanmean())


def _macro_f1(truth: Tensor, found: Tensor, classes: int) -> float:
    """The mean over the data's classes that occur in labels or predictions."""
    from sklearn.metrics import f1_score

    given, named = truth.numpy(), found.numpy()  # not every scikit-learn takes tensors
    occurring = np.union1d(given, named)
    return float(f1_score(given, named, labels=occurring[occurring < classes], average="macro", zero_division=0.0))
