"""Protocol ``few-shot``: do a few labelled samples of each class suffice to name the others (SCGM's protocol)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch

from regrain.checks import Count, CountFromZero
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.metrics import FewShot, few_shot_accuracy

_WAYS = 5


@protocol("augmented")
def few_shot(
    representation: Representation,
    task: Task,
    *,
    shots: tuple[Count, ...] = (1,),
    ways: tuple[Count | None, ...] = (),
    queries: Count | Literal["rest"] = 15,
    episodes: Count = 1000,
    classifier: Literal["logistic", "nearest-mean", "cosine"] = "logistic",
    intra_class: bool = False,
    copies: CountFromZero = 5,
) -> dict[str, Score]:
    """Accuracy of classifiers fitted on a few test samples of each class, over episodes; the others are queries.

    Classifiers are fitted on the representation's augmented views where it has some that differ, else on the
    embeddings. All representations see the same episodes, as do all runs on the same labels. The interval is over
    episodes.

    Raises a UserError if a class has too few samples (the message names it), or there are fewer classes than ways.

    Parameters
    ----------
    shots : tuple of int
        Support samples of a class, such as 1,5.
    ways : tuple of int or None
        Classes of an episode, such as 5 or 5,all. Default 5, or all if there are fewer.
    queries : int or "rest"
        Queries of a class, or rest for all others.
    episodes : int
        Episodes.
    classifier : {"logistic", "nearest-mean", "cosine"}
        Fitted on the support.
    intra_class : bool
        Also episodes of the classes of one superclass.
    copies : int
        Augmented views of every support sample.
    """
    known, shots = task.known(), shots or (1,)
    labels = task.test_labels[known]
    augmented = representation.augmented(copies)[:, known] if representation.augmented is not None and copies else None
    if augmented is not None and copies > 1 and torch.equal(augmented[0], augmented[1]):
        augmented = None  # views that change nothing: copies would but weaken the classifier's penalty

    def accuracy(**more: Any) -> Score:
        found: FewShot = few_shot_accuracy(
            representation.test[known],
            labels,
            queries=queries,
            episodes=episodes,
            augmented=augmented,
            classifier=classifier,
            seed=task.seed,
            class_names=task.classes,
            **more,
        )
        return Score(
            found.accuracy, found.low, found.high, "" if found.low is None else "episodes", "; ".join(found.notes)
        )

    suffix = "" if classifier == "logistic" else f"-{classifier}"
    scores = {
        f"{'all' if way is None else way}-way-{shot}-shot{suffix}": accuracy(ways=way, shots=shot)
        for way in ways or (min(_WAYS, len(labels.unique())),)
        for shot in shots
    }
    notes = [f"fitted on {copies} augmented views of every support sample; raw has none"] if copies else []
    if intra_class and task.superclasses is None:
        notes.append("no intra-class episodes: no level lies above this one")
    elif intra_class and task.superclasses is not None:
        above = task.superclasses[known]
        scores |= {f"{shot}-shot-intra{suffix}": accuracy(shots=shot, superclasses=above) for shot in shots}
    first, score = next(iter(scores.items()))
    scores[first] = replace(score, note="; ".join(filter(None, (score.note, *notes))))
    return scores


def unseen_superclasses(test: Dataset, train: Dataset) -> Dataset:
    """The test samples whose superclass has no training sample, as tieredImageNet's protocol asks.

    Raises a UserError if there is none: every superclass of the test samples was trained on, or is unknown.

    Parameters
    ----------
    test, train : Dataset
        Of the same classes.
    """
    if not test.labels.levels:
        raise UserError(f"{test.name} has no labels: which superclasses are unseen cannot be told", code="no_labels")
    level = test.labels.levels[0]
    seen = torch.tensor(train.labels.present(level), dtype=torch.long)
    codes = test.labels.level(level)
    unseen = (codes >= 0) & ~torch.isin(codes, seen)
    if not unseen.any():
        raise UserError(
            f"all {len(test.labels.present(level))} classes of level '{level}' among the samples to evaluate occur in "
            "training: unseen superclasses need a split whose superclasses were held out"
        )
    return test.select(unseen)
