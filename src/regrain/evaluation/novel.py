"""Protocol ``novel``: generalised category discovery, where some classes had labels in training and others never."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from regrain.checks import Count
from regrain.errors import UserError, nearest
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.methods.clustering import kmeans_with_known
from regrain.metrics import novel_accuracy


@protocol("train", "partitions")
def novel(
    representation: Representation,
    task: Task,
    *,
    new_classes: tuple[str, ...] = (),
    cluster_seeds: Count = 3,
    cluster_starts: Count = 10,
) -> dict[str, Score]:
    """ACC on all test samples, on those of old classes (labelled in training) and on those of new ones.

    The generalised category discovery of Vaze et al. (CVPR 2022): semi-supervised k-means on the unit-length embeddings
    of the labelled training samples, which stay with their classes, and of all test samples; k is the number of old
    and new classes. Clusters are matched to classes once, over all test samples
    (:func:`regrain.metrics.novel_accuracy`). Means over seeds, with their intervals.

    ``head1-`` and so on are of the partitions that the method made of its own; clusters beyond the number of classes
    count as wrong.

    Parameters
    ----------
    new_classes : tuple of str
        Classes that count as new, and whose training labels are not looked at. By default those without a label in
        training.
    cluster_seeds : int
        Seeds of the semi-supervised k-means.
    cluster_starts : int
        Starts of it a seed; that of lowest inertia counts.

    Raises
    ------
    UserError
        If there are no labelled training samples, no old or no new class among the test samples, or a class that is
        said to be new does not exist.
    """
    known = task.known()
    truth, train = task.test_labels[known], representation.train
    old, labels = _old_classes(task, new_classes)
    if train is None:
        raise UserError("novel needs training samples: these data have no split 'train'", code="unknown_split")
    labelled = labels >= 0
    occurring = truth.unique()
    for which, found in (("old", torch.isin(occurring, old)), ("new", ~torch.isin(occurring, old))):
        if not bool(found.any()):
            raise UserError(
                f"every class of level '{task.level}' among the test samples "
                + ("has labels in training" if which == "new" else "is without a label in training")
                + f", so that none is {which}: fit with --hide-classes {task.level}=0.5, or declare classes as new "
                "with --new-classes",
                code="no_labels",
            )
    own = torch.searchsorted(old, labels[labelled])
    vectors = normalize(torch.cat([train[labelled], representation.test[known]]), dim=1)
    fixed = torch.cat([own, torch.full_like(truth, -1)])
    count = len(torch.cat([old, occurring]).unique())
    if len(vectors) < count:
        raise UserError(
            f"novel needs more samples than classes; level '{task.level}' has {len(vectors)} of {count}", code="too_few"
        )
    runs = []
    for seed in range(task.seed, task.seed + cluster_seeds):
        codes, _ = kmeans_with_known(vectors, fixed, count, starts=cluster_starts, seed=seed)
        runs.append(novel_accuracy(truth, codes[len(own) :], old))
    scores = {f"novel-{name}": Score.mean([run[name] for run in runs], "seeds") for name in ("all", "old", "new")}
    if representation.partitions is not None:
        for number, clusters in enumerate(representation.partitions.T, 1):
            found_by = novel_accuracy(truth, clusters[known], old)
            scores |= {f"head{number}-novel-{name}": Score(value) for name, value in found_by.items()}
    return scores


def _old_classes(task: Task, new_classes: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """The classes with labels in training, and those labels (M,), -1 for new classes."""
    labels = task.train_labels
    if labels is None:
        raise UserError("novel needs training samples: these data have no split 'train'", code="unknown_split")
    new = []
    for name in new_classes:
        if name not in task.classes:
            raise UserError(
                f"level '{task.level}' has no class '{name}': {nearest(name, task.classes)}", code="unknown_name"
            )
        new.append(task.classes.index(name))
    labels = labels.where(~torch.isin(labels, torch.tensor(new, dtype=labels.dtype)), -1)
    return labels[labels >= 0].unique(), labels
