"""Doubtful labels: planted errors come first; against a loop, and against scikit-learn's leave-one-out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.model_selection import LeaveOneOut
from sklearn.neighbors import KNeighborsClassifier
from support import raises
from torch import Tensor

from regrain.errors import UserError
from regrain.metrics import label_quality, neighbour_probabilities


def blobs(classes: int = 4, each: int = 50) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat_interleave(each)
    centres = torch.eye(classes, 16) * 4
    return centres[labels] + torch.randn(len(labels), 16, generator=generator) * 0.5, labels


def test_planted_wrong_labels_are_ranked_first_and_the_right_class_is_proposed() -> None:
    vectors, truth = blobs()
    planted = torch.tensor([3, 60, 61, 110, 199])
    given = truth.clone()
    given[planted] = (truth[planted] + 1) % 4
    found = label_quality(neighbour_probabilities(vectors, given, classes=4), given)
    assert sorted(found.score.argsort()[:5].tolist()) == planted.tolist()
    assert torch.equal(found.proposed[planted], truth[planted])
    assert found.doubtful.nonzero()[:, 0].tolist() == planted.tolist()
    assert bool(((found.score >= 0) & (found.score <= 1)).all())


def test_neighbours_vote_as_scikit_learns_do_when_left_out_one_by_one() -> None:
    vectors, labels = blobs(3, 8)
    labels = labels[torch.randperm(24, generator=torch.Generator().manual_seed(1))]
    unit = torch.nn.functional.normalize(vectors, dim=1).double().numpy()
    expected = np.zeros((24, 3))
    for train, test in LeaveOneOut().split(unit):
        judge = KNeighborsClassifier(
            5, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d - (1 - d).max()) / 0.07)
        )
        votes = judge.fit(unit[train], labels[train]).predict_proba(unit[test])[0]
        near = np.sort(1 - judge.kneighbors(unit[test])[0][0])[::-1]
        total = np.exp((near - near[0]) / 0.07).sum()
        expected[test[0]] = (votes * total + 0.01 / 3) / (total + 0.01)
    ours = neighbour_probabilities(vectors, labels, classes=3, k=5).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_samples_without_a_label_do_not_vote_and_have_no_score() -> None:
    vectors, labels = blobs(3, 10)
    hidden = labels.clone()
    hidden[::7] = -1
    known = hidden >= 0
    found = neighbour_probabilities(vectors, hidden, classes=3, k=4)
    alone = neighbour_probabilities(vectors[known], hidden[known], classes=3, k=4)
    torch.testing.assert_close(found[known], alone)
    assert torch.equal(found.argmax(dim=1), labels)
    quality = label_quality(found, hidden)
    assert torch.equal(quality.score.isnan(), ~known)
    assert not quality.doubtful[~known].any()


def test_confident_joint_by_a_loop() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(60, 5, generator=generator).double() ** 3
    values /= values.sum(dim=1, keepdim=True)
    labels = torch.randint(4, (60,), generator=generator)  # nobody has class 4
    found = label_quality(values, labels)
    thresholds = [float(values[labels == j, j].mean()) for j in range(4)]
    for row, given in enumerate(labels.tolist()):
        confident = [j for j in range(4) if values[row, j] >= thresholds[j]]
        best = max(confident, key=lambda j: float(values[row, j]), default=given)
        assert bool(found.doubtful[row]) == (best != given)
        assert float(found.score[row]) == float(values[row, given])
    assert 0 < int(found.doubtful.sum()) < 60


@pytest.mark.parametrize(
    ("change", "message"),
    [({"k": 0}, "k is at least 1"), ({"classes": 2}, "labels reach 3"), ({"temperature": 0}, "positive")],
)
def test_numbers_outside_their_range(change: dict[str, float], message: str) -> None:
    vectors, labels = blobs(4, 3)
    with pytest.raises(UserError, match=message):
        neighbour_probabilities(vectors, labels, **{"classes": 4, **change})  # type: ignore[arg-type]


def test_too_few_labels_and_lengths_that_differ() -> None:
    with raises("no_labels"):
        neighbour_probabilities(torch.eye(3), torch.tensor([0, -1, -1]), classes=1)
    with raises("wrong_shape"):
        label_quality([[0.5, 0.5]], [0, 1])
    with raises("out_of_range"):
        label_quality([[0.5, 0.5]], [2])
