"""Protocol ``knn``: does a vote of the nearest training samples name the class."""

from __future__ import annotations

from regrain.errors import UserError
from regrain.evaluation.base import Representation, Score, Setting
from regrain.metrics import balanced_accuracy, bootstrap_interval, knn_predict

_NEIGHBOURS = 20


def knn(representation: Representation, setting: Setting) -> dict[str, Score]:
    """Accuracy of k-NN on frozen embeddings, training samples voting by their labels at this level.

    The option ``neighbours`` is k (default 20, or the number of labelled training samples where those are fewer). The
    interval is bootstrapped over test samples.

    Raises
    ------
    UserError
        If no training sample is labelled at this level.
    """
    known = setting.known()
    labels = setting.test_labels[known]
    fitted = None if setting.train_labels is None else setting.train_labels >= 0
    if fitted is None or representation.train is None or setting.train_labels is None or not fitted.any():
        raise UserError(f"knn needs training samples labelled at level '{setting.level}'; there are none")
    k = min(int(setting.options.get("neighbours", _NEIGHBOURS)), int(fitted.sum()))
    predicted = knn_predict(
        representation.train[fitted],
        setting.train_labels[fitted],
        representation.test[known],
        k=k,
        classes=len(setting.classes),
    )
    mean, low, high = bootstrap_interval((predicted == labels).double(), seed=setting.seed)
    return {
        f"knn@{k}": Score(mean, low, high, "queries"),
        f"knn@{k}-balanced": Score(balanced_accuracy(labels, predicted)),
    }
