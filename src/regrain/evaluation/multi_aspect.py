"""Protocol ``multi-aspect``: classification at every level or aspect, and of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from sklearn.metrics import f1_score
from torch import Tensor

from regrain.evaluation.probe import class_probabilities
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.metrics import balanced_accuracy, path_metrics

ALL = "all"
"""Name in place of a level for figures of all levels together."""


@protocol("train", "probabilities", levels="together", classifies=True)
def multi_aspect(representation: Representation, tasks: Sequence[Task]) -> dict[str, dict[str, Score]]:
    """Level -> figures, and ``all``: their means, samples right at every level, and the paths where levels nest.

    Predictions are those of the method's own classifiers, else of logistic regression on the training split's
    embeddings (see :mod:`regrain.evaluation.probe`). At each level ``accuracy``, ``balanced-accuracy`` and
    ``macro-f1``, the mean over classes, which is what a classifier of the majority class does not get. A sample whose
    label is unknown is left out at that level; ``all-right`` is over samples whose label is known at some, and counts
    those. Where levels nest, ``all`` has the figures of :func:`~regrain.metrics.path_metrics` too.

    Raises
    ------
    UserError
        If the method has no classifier of a level, and fewer than two classes are labelled in the training split.
    """
    scores: dict[str, dict[str, Score]] = {}
    truths, guesses = [], []
    for task in tasks:
        known = task.known()
        probabilities, by = class_probabilities(representation, task, "multi-aspect")
        predicted = probabilities.argmax(dim=1)
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
    taxonomy = tasks[0].taxonomy
    if taxonomy is not None and len(tasks) > 1:
        names = [task.level for task in tasks]
        judged = taxonomy.keep(names)
        order = [names.index(level) for level in judged.levels]  # coarse to fine, however they were asked for
        found_paths = path_metrics(labels[:, order], predictions[:, order], judged)
        together |= {name: Score(value, count=name == "tree-distance") for name, value in found_paths.items()}
    return scores | {ALL: together}


def _macro_f1(truth: Tensor, found: Tensor, classes: int) -> float:
    """The mean over the data's classes that occur in labels or predictions."""
    occurring = torch.cat([truth, found]).unique()
    return float(f1_score(truth, found, labels=occurring[occurring < classes], average="macro", zero_division=0.0))
