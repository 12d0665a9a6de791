"""Clustering measures against scikit-learn, all permutations, and known cases."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from support import raises

from regrain.metrics import (
    clustering_accuracy,
    clustering_metrics,
    match_clusters,
    neighbour_information,
    novel_accuracy,
    purity,
)


def random_codes(classes: int, clusters: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=80)
    noise = random.integers(clusters, size=80)
    return labels, np.where(random.random(80) < 0.6, labels % clusters, noise)


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (5, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_the_best_of_all_one_to_one_assignments(classes: int, clusters: int, seed: int) -> None:
    labels, found = random_codes(classes, clusters, seed)
    best = max(
        np.mean(np.array(classes_of)[found] == labels)
        for classes_of in itertools.permutations(range(classes), clusters)
    )
    assert clustering_accuracy(labels, found) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_with_more_clusters_sends_the_unmatched_to_their_majority(seed: int) -> None:
    labels, found = random_codes(3, 5, seed)
    scores = {}
    for matched in itertools.permutations(range(5), 3):  # cluster of class 0, 1, 2
        one_to_one = sum(np.sum((found == cluster) & (labels == c)) for c, cluster in enumerate(matched))
        rest = [np.bincount(labels[found == c]).max() for c in set(range(5)) - set(matched) if (found == c).any()]
        scores[one_to_one] = max(scores.get(one_to_one, 0), (one_to_one + sum(rest)) / len(labels))
    assert clustering_accuracy(labels, found) == pytest.approx(scores[max(scores)])


def test_nine_pure_clusters_of_three_classes_score_one() -> None:
    labels = np.repeat([0, 1, 2], 30)
    clusters = np.repeat(np.arange(9), 10)
    assert clustering_accuracy(labels, clusters) == 1.0
    assert purity(labels, clusters) == 1.0


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (5, 3), (3, 6)])
@pytest.mark.parametrize("seed", range(3))
def test_the_matching_is_what_the_accuracy_scores(classes: int, clusters: int, seed: int) -> None:
    labels, found = random_codes(classes, clusters, seed)
    mapping = match_clusters(torch.from_numpy(10 * labels), found + 7)
    assert mapping.keys() == set((found + 7).tolist())
    hits = [mapping[cluster + 7] == 10 * label for label, cluster in zip(labels, found, strict=True)]
    assert np.mean(hits) == pytest.approx(clustering_accuracy(labels, found))
    assert len(set(mapping.values())) == min(classes, clusters)  # one to one as far as it goes


def test_a_matching_knows_no_cluster_without_labels() -> None:
    assert match_clusters([3, 3, -1, 7], [0, 0, 1, 2]) == {0: 3, 2: 7}
    with raises("no_labels"):
        match_clusters([-1, -1], [0, 1])


def test_merged_clusters_cost_one_class() -> None:
    assert clustering_accuracy([0, 0, 1, 1, 2, 2], [7, 7, 7, 7, 3, 3]) == pytest.approx(4 / 6)
    assert purity([0, 0, 1, 1, 2, 2], [7, 7, 7, 7, 3, 3]) == pytest.approx(4 / 6)


@pytest.mark.parametrize("seed", range(3))
def test_all_measures_equal_scikit_learn_and_leave_unknown_labels_out(seed: int) -> None:
    labels, found = random_codes(4, 6, seed)
    extended = np.concatenate([labels, [-1] * 5]), np.concatenate([found, [0, 1, 2, 77, -1]])
    scores = clustering_metrics(torch.tensor(extended[0]), torch.tensor(extended[1]))
    assert scores["nmi"] == pytest.approx(sklearn_metrics.normalized_mutual_info_score(labels, found))
    assert scores["ami"] == pytest.approx(sklearn_metrics.adjusted_mutual_info_score(labels, found))
    assert scores["ari"] == pytest.approx(sklearn_metrics.adjusted_rand_score(labels, found))
    assert scores["homogeneity"] == pytest.approx(sklearn_metrics.homogeneity_score(labels, found))
    assert scores["acc"] == clustering_accuracy(labels, found)
    majority = sum(np.bincount(labels[found == c]).max() for c in range(6))
    assert scores["purity"] == purity(labels, found) == pytest.approx(majority / 80)


def test_names_of_classes_and_clusters_do_not_matter() -> None:
    labels, found = random_codes(4, 5, 1)
    renamed = clustering_metrics(labels * 10 + 3, 5 - found)
    assert renamed == pytest.approx(clustering_metrics(labels, found))


def relabelled(codes: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """The same partition under other numbers, and the old number of every new one."""
    values = np.unique(codes)
    numbers = random.permutation(1000)[: len(values)]
    return numbers[np.searchsorted(values, codes)], dict(zip(numbers.tolist(), values.tolist(), strict=True))


def test_a_matched_cluster_is_the_one_whose_majority_costs_least() -> None:
    labels = np.array([0, 0, 0, 1, 1, 0, 0, 1])
    clusters = np.array([0, 0, 1, 1, 1, 2, 2, 2])  # class 0 best keeps cluster 0 or 2: the other goes to its majority
    for numbers in itertools.permutations(range(3)):
        assert clustering_accuracy(labels, np.array(numbers)[clusters]) == 0.75
    # class 1 gains 2 samples in cluster 0, 1 or 2 alike, and only in 2 it takes nothing from the majority of class 0
    labels = np.repeat([0, 1, 0, 1, 1], [3, 2, 3, 2, 2])
    clusters = np.repeat([0, 0, 1, 1, 2], [3, 2, 3, 2, 2])
    for numbers in itertools.permutations(range(3)):
        assert clustering_accuracy(labels, np.array(numbers)[clusters]) == pytest.approx(8 / 12)


@pytest.mark.parametrize("seed", range(8))
def test_no_value_depends_on_how_clusters_and_classes_are_numbered(seed: int) -> None:
    random = np.random.default_rng(seed)
    size = int(random.integers(6, 30))
    labels, found = random.integers(random.integers(2, 5), size=size), random.integers(random.integers(2, 9), size=size)
    scores, mapping = clustering_metrics(labels, found), match_clusters(labels, found)
    for _ in range(5):
        other_labels, class_of = relabelled(labels, random)
        other_found, cluster_of = relabelled(found, random)
        assert clustering_metrics(other_labels, other_found) == pytest.approx(scores, abs=1e-12)
        other = match_clusters(other_labels, other_found)
        assert {cluster_of[z]: class_of[c] for z, c in other.items()} == mapping


def test_one_class_and_one_cluster() -> None:
    assert clustering_metrics([2, 2, 2], [4, 4, 4])["acc"] == 1.0


def test_the_neighbours_information_is_the_definition_and_needs_no_number() -> None:
    random = np.random.default_rng(0)
    clusters, neighbours = random.integers(5, size=60), random.integers(60, size=(60, 4))
    joint = np.zeros((5, 5))
    for own, places in zip(clusters, neighbours, strict=True):
        for place in places:
            joint[own, clusters[place]] += 1 / 240
    outer = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    expected = (joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0])).sum() / np.log(7)
    found = neighbour_information(clusters, torch.from_numpy(neighbours), 7)
    assert found == pytest.approx(expected)
    assert neighbour_information(relabelled(clusters, random)[0], neighbours, 7) == pytest.approx(found)
    assert neighbour_information(np.zeros(60, int), neighbours, 7) == pytest.approx(0, abs=1e-12)
    with raises("wrong_shape"):
        neighbour_information(clusters[:5], neighbours, 7)
    with raises("out_of_range"):
        neighbour_information(clusters, neighbours, 1)


def test_errors_name_what_is_wrong() -> None:
    with raises("no_labels"):
        clustering_accuracy([-1, -1], [0, 1])
    with raises("wrong_shape"):
        clustering_accuracy([0, 1], [0, 1, 2])


@pytest.mark.parametrize(("classes", "clusters"), [(4, 4), (5, 3), (3, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_old_and_new_classes_share_the_best_of_all_assignments(classes: int, clusters: int, seed: int) -> None:
    labels, found = random_codes(classes, clusters, seed)
    size = max(classes, clusters)  # clusters or classes left over are wrong
    of_old = np.isin(labels, [0, 2])
    best = max(
        ((np.array(order)[found] == labels) for order in itertools.permutations(range(size))),
        key=lambda right: (right.sum(), right[of_old].sum()),
    )
    figures = novel_accuracy(labels, found, old=[0, 2])
    expected = {"all": best.mean(), "old": best[of_old].mean(), "new": best[~of_old].mean()}
    assert figures == pytest.approx(expected)
    numbered = np.random.default_rng(seed).permutation(clusters)
    assert novel_accuracy(torch.tensor(labels), numbered[found], torch.tensor([2, 0, 77])) == figures
    shifted = novel_accuracy(np.append(10 * labels, -1), np.append(found, 0), old=[0, 20])
    assert shifted == pytest.approx(figures)


def test_one_assignment_serves_old_and_new() -> None:
    figures = novel_accuracy([0] * 4 + [1] * 6, [0] * 10, old=[0])  # the only cluster is the new class's
    assert figures == {"all": 0.6, "old": 0.0, "new": 1.0}
    assert np.isnan(novel_accuracy([0, 1], [0, 1], old=[0, 1])["new"])
    with raises("no_labels"):
        novel_accuracy([-1], [0], old=[0])
