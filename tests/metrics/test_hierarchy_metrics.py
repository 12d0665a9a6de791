"""Agreement along a hierarchy against a loop over samples, with classes and predictions that have no ancestor."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score
from support import raises

from regrain.labels import Taxonomy
from regrain.metrics import accuracy, hierarchy_metrics, path_metrics

LEAVES = 12


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    labels = random.integers(-1, LEAVES, 90)
    predictions = np.where(random.random(90) < 0.4, labels, random.integers(-1, LEAVES, 90))
    above = {"top": random.integers(-1, 2, LEAVES), "mid": random.integers(-1, 5, LEAVES), "leaf": np.arange(LEAVES)}
    return labels, predictions, above


@pytest.mark.parametrize("seed", range(4))
def test_every_level_against_a_loop(seed: int) -> None:
    labels, predictions, above = drawn(seed)
    found = hierarchy_metrics(torch.tensor(labels), torch.tensor(predictions), above)
    for level, codes in above.items():
        truth, guessed = [], []
        for label, prediction in zip(labels, predictions, strict=True):
            if label >= 0 and codes[label] >= 0:
                truth.append(codes[label])
                guessed.append(codes[prediction] if prediction >= 0 else -1)
        assert found.counted[level] == len(truth)
        hits = [a == b for a, b in zip(truth, guessed, strict=True)]
        assert found.levels[level] == pytest.approx(
            {
                "acc": np.mean(hits),
                "nmi": normalized_mutual_info_score(truth, guessed),
                "ami": adjusted_mutual_info_score(truth, guessed),
                "ari": adjusted_rand_score(truth, guessed),
            }
        )


@pytest.mark.parametrize("seed", range(4))
def test_where_prediction_and_class_meet_against_a_loop(seed: int) -> None:
    labels, predictions, above = drawn(seed)
    met = Counter()
    for label, prediction in zip(labels, predictions, strict=True):
        if label < 0:
            continue
        agreeing = [
            level
            for level in ("leaf", "mid", "top")
            if prediction >= 0 and above[level][label] == above[level][prediction] >= 0
        ]
        met[(agreeing or ["none"])[0]] += 1
    found = hierarchy_metrics(labels, predictions, above).meets
    assert found == pytest.approx({level: met[level] / sum(met.values()) for level in ("leaf", "mid", "top", "none")})
    assert sum(found.values()) == pytest.approx(1)


def test_a_flat_hierarchy_is_the_accuracy() -> None:
    labels, predictions, above = drawn(0)
    found = hierarchy_metrics(labels, predictions, {"leaf": above["leaf"]})
    assert found.levels["leaf"]["acc"] == pytest.approx(accuracy(labels, predictions))
    assert found.meets["leaf"] == found.levels["leaf"]["acc"]


def test_a_level_that_no_sample_reaches_has_no_figure() -> None:
    found = hierarchy_metrics([0, 1, -1], [0, 0, 2], {"top": [-1, -1, 0], "leaf": [0, 1, 2]})
    assert (found.counted, found.levels.keys()) == ({"top": 0, "leaf": 2}, {"leaf"})
    assert found.meets == {"leaf": 0.5, "top": 0.0, "none": 0.5}


def test_errors_name_what_is_wrong() -> None:
    with raises("out_of_range"):
        hierarchy_metrics([0, 1], [0, 2], {"top": [0, 0]})
    with raises("wrong_shape"):
        hierarchy_metrics([0, 1], [0, 1, 2], {"top": [0, 0, 0]})
    with raises("no_labels"):
        hierarchy_metrics([-1, -1], [0, 1], {"top": [0, 0]})


def random_tree(generator: np.random.Generator) -> Taxonomy:
    """Three levels; every class has children but for some at the middle level."""
    middle = np.concatenate([np.arange(3), generator.integers(0, 3, 4)])
    leaf = np.concatenate([np.arange(5), generator.integers(0, 5, 7)])
    codes = np.stack([middle[leaf], leaf, np.arange(12)], axis=1)
    bare = np.stack([middle, np.arange(7), np.full(7, -1)], axis=1)
    names = [[f"{level}{i}" for i in range(count)] for level, count in (("a", 3), ("b", 7), ("c", 12))]
    return Taxonomy.from_codes(torch.from_numpy(np.concatenate([codes, bare])), ["a", "b", "c"], names)


@pytest.mark.parametrize("seed", range(5))
def test_path_metrics_are_those_of_sets_of_nodes(seed: int) -> None:
    """Sets of (level, class) nodes, sample by sample, and the shortest way in the tree with a root over all."""
    generator = np.random.default_rng(seed)
    tree = random_tree(generator)
    parents = {(k, c): (k - 1, int(p)) for k in (1, 2)
               for c, p in enumerate(tree.ancestors(tree.levels[k], tree.levels[k - 1]).tolist())}  # fmt: skip

    def path(level: int, code: int) -> list[tuple[int, int]]:
        nodes = [(level, code)]
        while nodes[-1] in parents:
            nodes.append(parents[nodes[-1]])
        return nodes

    counts = [len(names) for names in tree.classes]
    truth = np.full((60, 3), -1)
    for i in range(60):
        level = int(generator.integers(-1, 3))
        for k, c in path(level, int(generator.integers(counts[level]))) if level >= 0 else []:
            truth[i, k] = c
    guess = np.stack([generator.integers(-1, count, 60) for count in counts], axis=1)
    common = told = asked = consistent = distance = judged = leaves = all_right = 0
    inner = set(parents.values())
    for t, g in zip(truth, guess, strict=True):
        if (t < 0).all():
            continue
        judged += 1
        deepest = max(k for k in range(3) if t[k] >= 0)
        right = set(path(deepest, t[deepest]))
        if (deepest, t[deepest]) not in inner:
            leaves += 1
            all_right += all(g[k] == c for k, c in right)
        said = [k for k in range(3) if g[k] >= 0]
        whole = path(said[-1], g[said[-1]]) if said else []
        consistent += all((k, g[k]) in whole for k in said)
        found = {node for node in whole if node[0] <= deepest}
        common, told, asked = common + len(right & found), told + len(found), asked + len(right)
        distance += len(right ^ found)
    figures = path_metrics(truth, guess, tree)
    precision, recall = common / told, common / asked
    assert figures == pytest.approx(
        {
            "path-consistency": consistent / judged,
            "tree-distance": distance / judged,
            "hierarchical-precision": precision,
            "hierarchical-recall": recall,
            "hierarchical-f1": 2 * precision * recall / (precision + recall),
            "tice": 1 - consistent / judged,
            "fpa": all_right / leaves,
        }
    )
    perfect = path_metrics(truth, truth, tree)
    assert (perfect["hierarchical-f1"], perfect["tree-distance"], perfect["path-consistency"]) == (1, 0, 1)
    nothing = path_metrics(truth, np.full_like(truth, -1), tree)
    assert (nothing["hierarchical-f1"], nothing["path-consistency"]) == (0, 1)


def test_published_values_of_fpa_and_tice(shared: Path) -> None:
    """The tree of ImageNet-F: 505 classes, each below one of 127 and one of 20."""
    with np.load(shared / "golden" / "rivals.npz") as file:
        tree, truth, guess = (file[f"path/{name}"][:, ::-1].copy() for name in ("tree", "truth", "pred"))
        expected = {name: float(file[f"path/{name}"]) for name in ("fpa", "tice")}
    levels = ["basic", "subordinate", "fine"]
    names = [[f"{level}{code}" for code in range(tree[:, k].max() + 1)] for k, level in enumerate(levels)]
    found = path_metrics(truth, guess, Taxonomy.from_codes(torch.from_numpy(tree), levels, names))
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_path_metrics_say_what_does_not_fit() -> None:
    tree = random_tree(np.random.default_rng(0))
    with raises("wrong_shape"):
        path_metrics([[0, 0]], [[0, 0]], tree)
    with raises("no_labels"):
        path_metrics([[-1, -1, -1]], [[0, 0, 0]], tree)
