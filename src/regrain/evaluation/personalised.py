"""Protocol ``personalised``: a classifier for each subject, learnt from the subject's first records (SCGM 4.3)."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import normalize

from regrain.errors import UserError
from regrain.evaluation.protocols import Representation, Score, Task, protocol


@protocol()
def personalised(representation: Representation, task: Task) -> dict[str, Score]:
    """Mean accuracy over subjects of a classifier fitted on each subject's first records and tested on the rest.

    Of the labelled test samples of a subject (a group), in the order of the data, which is time, the first half is the
    support and the rest the query (an odd one goes to the query). Multinomial logistic regression on unit-length
    embeddings (scikit-learn's: L2 with C = 1, intercept not penalised) learns from the support. The figure is the mean
    of the subjects' accuracies, with its interval over subjects.

    Left out, and counted in the figure's note, are subjects with fewer than two labelled samples, whose support has one
    class only, or some of whose query classes do not occur in the support: no classifier could name these, and the
    paper leaves such subjects out too. The note also says how often a subject's most frequent support class is right,
    which is what a classifier scores that looks at no embedding.

    Raises a UserError if the data have no groups, or no subject can be judged.

    Notes
    -----
    The paper's figure is a mean over ten random splits of the subjects into halves for training and test. A run has one
    split; for ten, train and judge ten times, in Python::

        train, test = data.hold_out(0.5, by="group", seed=seed)
        run = regrain.fit("sup-ce", train, holdout=0, seed=seed, out=f"runs/split{seed}")
        regrain.evaluate(run, test, protocols=["personalised"])

    with ``dataclasses.replace(data, splits=None)`` where the data come with splits of their own.

    Windows that overlap do so across the two halves as well: the last of the support share time steps with the first of
    the query, as they do in the paper (width 5, stride 1). A stride of the width avoids it.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if task.groups is None:
        raise UserError(
            "personalised judges subject by subject, and the data have no groups: name the column of subjects "
            "(--group-column)"
        )
    known = task.known().numpy()
    labels = task.test_labels.numpy()[known]
    groups = task.groups[known]
    vectors = normalize(representation.test).numpy()[known]
    accuracies, frequent = [], []
    left_out = {
        "fewer than two labelled samples": 0,
        "one class in the support": 0,
        "query classes not in the support": 0,
    }
    subjects = list(dict.fromkeys(groups.tolist()))
    for subject in subjects:
        rows = np.flatnonzero(groups == subject)
        support, query = np.split(rows, [len(rows) // 2])
        classes, counts = np.unique(labels[support], return_counts=True)
        if not len(support):
            left_out["fewer than two labelled samples"] += 1
        elif len(classes) < 2:
            left_out["one class in the support"] += 1
        elif not np.isin(labels[query], classes).all():
            left_out["query classes not in the support"] += 1
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                classifier = LogisticRegression(C=1.0, max_iter=1000).fit(vectors[support], labels[support])
            accuracies.append(float((classifier.predict(vectors[query]) == labels[query]).mean()))
            frequent.append(float((labels[query] == classes[counts.argmax()]).mean()))
    reasons = ", ".join(f"{count} with {reason}" for reason, count in left_out.items() if count)
    if not accuracies:
        raise UserError(f"personalised can judge none of the {len(subjects)} subjects: {reasons}")
    note = (
        f"{len(accuracies)} of {len(subjects)} subjects"
        + (f"; left out: {reasons}" if reasons else "")
        + f". Always a subject's most frequent class of the support: {100 * np.mean(frequent):.2f}"
    )
    score = Score.mean(accuracies, "subjects", note)
    return {"personalised": replace(score, values=torch.tensor(accuracies, dtype=torch.float64))}
