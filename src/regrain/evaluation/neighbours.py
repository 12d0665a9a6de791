"""Protocol ``knn``: does a vote of the nearest training samples name the class."""

from __future__ import annotations

from regrain.checks import Count
from regrain.errors import UserError
from regrain.evaluation.embedding import share_out
from regrain.evaluation.protocols import Representation, Score, Task, protocol
from regrain.metrics import balanced_accuracy, knn_predict


@protocol("train", default=True)
def knn(representation: Representation, task: Task, *, neighbours: Count = 20) -> dict[str, Score]:
    """Accuracy of k-NN on frozen embeddings, training samples voting by their labels at this level.

    The interval is bootstrapped over test samples.

    Raises a UserError if no training sample is labelled at this level.

    Parameters
    ----------
    neighbours : int
        K of k-NN; at most the number of labelled training samples.
    """
    known = task.known()
    labels = task.test_labels[known]
    fitted = None if task.train_labels is None else task.train_labels >= 0
    if fitted is None or representation.train is None or task.train_labels is None or not fitted.any():
        raise UserError(f"knn needs training samples labelled at level '{task.level}'; there are none")
    k = min(neighbours, int(fitted.sum()))
    train, votes, classes = representation.train[fitted], task.train_labels[fitted], len(task.classes)
    (predicted,) = share_out(
        lambda rows: [knn_predict(train, votes, rows, k=k, classes=classes)], representation.test[known]
    )
    return {
        f"knn@{k}": Score.of_samples(predicted == labels, task),
        f"knn@{k}-balanced": Score(balanced_accuracy(labels, predicted)),
    }
