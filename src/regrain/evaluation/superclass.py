"""Protocol ``superclass``: how well superclasses are told apart, each of them, and each subclass hidden in them."""

from __future__ import annotations

import numpy as np
import torch

from regrain.evaluation.probe import class_probabilities
from regrain.evaluation.protocols import LACKING, Representation, Score, Task, protocol
from regrain.metrics import balanced_accuracy, calibration_error

_FEWEST = 5
"""Test samples from which a hidden subclass can be called the worst."""


@protocol("train", "probabilities", levels="read", classifies=True)
def superclass(representation: Representation, task: Task) -> dict[str, Score]:
    """Accuracy in all, per superclass and per hidden subclass, with calibration and confusion.

    Predictions are those of the method's own classifier, else of logistic regression on the training split's embeddings
    (see :mod:`regrain.evaluation.probe`). ``accuracy`` is weighted by the superclasses' shares, as SCLRE reports it;
    ``macro`` is the mean over superclasses; ``calibration-error`` has 15 bins. For every superclass ``accuracy@NAME``
    and ``share@NAME``, and ``predicted@A>B``, the share of A's samples predicted as B. At each finer level with labels
    ``worst@LEVEL``, the accuracy of the hidden subclass, of five test samples at least, that fares worst (GEORGE,
    NeurIPS 2020), and ``accuracy@LEVEL/NAME`` of each.

    Raises a UserError if the method has no classifier of this level, and fewer than two classes are labelled in the
    training split.
    """
    known = task.known()
    truth = task.test_labels[known]
    probabilities, by = class_probabilities(representation, task, "superclass")
    probabilities = probabilities[known]
    classes = (*task.classes, LACKING)
    predicted = probabilities.argmax(dim=1).clamp(max=len(classes) - 1)
    hits = predicted == truth
    scores = {
        "accuracy": Score.of_samples(hits, task, by),
        "macro": Score(balanced_accuracy(truth, predicted)),
        "calibration-error": Score(calibration_error(probabilities, truth)),
    }
    for code in truth.unique().tolist():
        own, name = truth == code, classes[code]
        scores[f"accuracy@{name}"] = Score(float(hits[own].double().mean()))
        scores[f"share@{name}"] = Score(float(own.double().mean()))
        counts = torch.bincount(predicted[own], minlength=len(classes))
        for other in counts.nonzero()[:, 0].tolist():
            if other != code:
                share = float(counts[other] / counts.sum())
                scores[f"predicted@{name}>{classes[other]}"] = Score(share, detail=True)
    for level, (names, codes) in task.finer.items():
        scores |= _hidden(level, names, codes[known].numpy(), hits.numpy())
    return scores


def _hidden(level: str, names: tuple[str, ...], codes: np.ndarray, hits: np.ndarray) -> dict[str, Score]:
    scores: dict[str, Score] = {}
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    right = np.bincount(codes[codes >= 0], weights=hits[codes >= 0], minlength=len(names))
    shares = {code: right[code] / counts[code] for code in np.flatnonzero(counts).tolist()}
    fit = [code for code in shares if counts[code] >= _FEWEST]
    if fit:
        worst = min(fit, key=lambda code: (shares[code], code))
        scores[f"worst@{level}"] = Score(shares[worst], note=f"'{names[worst]}', {counts[worst]} test samples")
    return scores | {f"accuracy@{level}/{names[code]}": Score(share, detail=True) for code, share in shares.items()}
