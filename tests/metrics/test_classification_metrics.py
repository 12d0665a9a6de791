"""k-NN, accuracy and balanced accuracy against scikit-learn and closed cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from support import raises

from regrain.metrics import accuracy, balanced_accuracy, knn_predict


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.normal(size=(80, 6)), random.integers(4, size=80), random.normal(size=(50, 6))


@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_votes_equal_scikit_learn(data: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> None:
    train, labels, test = data
    reference = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(train, labels).predict(test)
    assert knn_predict(train, labels, test, k=k, classes=4).tolist() == reference.tolist()


def test_weighted_votes_equal_scikit_learn(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = data
    reference = KNeighborsClassifier(
        15, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    )
    expected = reference.fit(train, labels).predict(test)
    assert knn_predict(train, labels, test, k=15, classes=4, temperature=0.07).tolist() == expected.tolist()


def test_small_temperature_is_the_nearest_neighbour(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = data
    nearest = knn_predict(train, labels, test, k=1, classes=4)
    assert knn_predict(train, labels, test, k=10, classes=4, temperature=1e-5).equal(nearest)


def test_unlabelled_training_samples_do_not_vote(data: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    train, labels, test = data
    hidden = np.where(np.arange(80) % 3 == 0, -1, labels)
    known = hidden >= 0
    expected = knn_predict(train[known], labels[known], test, k=5, classes=4)
    assert knn_predict(train, hidden, test, k=5, classes=4).equal(expected)


def test_equal_votes_go_to_the_smallest_class() -> None:
    train, labels = torch.eye(3), torch.tensor([2, 1, 1])
    assert knn_predict(train, labels, torch.ones(1, 3), k=2, classes=3).tolist() == [1]


def test_accuracies_equal_scikit_learn_and_leave_unknown_labels_out() -> None:
    random = np.random.default_rng(1)
    labels, predictions = random.integers(3, size=40) * 5, random.integers(3, size=40) * 5
    extended = np.append(labels, [-1, -1]), np.append(predictions, [0, 5])
    assert accuracy(*extended) == pytest.approx(accuracy_score(labels, predictions))
    assert balanced_accuracy(*map(torch.tensor, extended)) == pytest.approx(
        balanced_accuracy_score(labels, predictions)
    )


def test_errors_name_what_is_wrong() -> None:
    train, labels = torch.eye(3), torch.tensor([0, 1, -1])
    with raises("out_of_range"):
        knn_predict(train, labels, train, k=1, classes=1)
    with raises("out_of_range"):
        knn_predict(train, labels, train, k=3, classes=2)
    with raises("out_of_range"):
        knn_predict(train, labels, train, k=1, classes=2, temperature=0.0)
    with raises("wrong_shape"):
        accuracy([0, 1], [0])
