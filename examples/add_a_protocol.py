"""A protocol in one file: the nearest class mean. As a script it is `regrain` with one protocol more."""

from __future__ import annotations

import torch

from regrain.errors import UserError
from regrain.evaluation import PROTOCOLS, Representation, Score, Task, protocol


@protocol("train", classifies=True)
def nearest_mean(representation: Representation, task: Task, *, power: float = 2.0) -> dict[str, Score]:
    """Accuracy of the class whose mean training embedding is nearest.

    Parameters
    ----------
    power : float
        1 for the city block distance, 2 for the Euclidean one.
    """
    train, labels = representation.train, task.train_labels
    if train is None or labels is None or not (labels >= 0).any():
        raise UserError(f"nearest-mean needs training samples labelled at level '{task.level}'; there are none")
    classes, known = labels[labels >= 0].unique(), task.known()
    means = torch.stack([train[labels == code].mean(dim=0) for code in classes])
    nearest = classes[torch.cdist(representation.test[known], means, p=power).argmin(dim=1)]
    return {"nearest-mean": Score.of_samples(nearest == task.test_labels[known], task)}


PROTOCOLS[nearest_mean.name] = nearest_mean

if __name__ == "__main__":
    from regrain.cli import main

    main()
