"""Few-shot episodes and their logistic regressions, against scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from support import raises

from regrain.errors import RegrainWarning, UserError
from regrain.metrics import draw_episodes, few_shot_accuracy, fit_logistic_regressions


def classes(count: int = 8, size: int = 25, width: int = 40, spread: float = 0.6) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes on the unit sphere."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count * size) % count
    centres = torch.randn(count, width, generator=generator)
    noise = torch.randn(len(labels), width, generator=generator) / spread
    return torch.nn.functional.normalize(centres[labels] + noise, dim=1), labels


def reference(x: np.ndarray, y: np.ndarray, penalty: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=penalty, tol=1e-10, max_iter=10_000).fit(x, y)


@pytest.mark.parametrize("ways", [2, 5, None])
@pytest.mark.parametrize("copies", [0, 5])
def test_predictions_are_scikit_learns_on_50_episodes(ways: int | None, copies: int) -> None:
    vectors, labels = classes()
    generator = torch.Generator().manual_seed(1)
    augmented = None
    if copies:
        views = vectors + 0.1 * torch.randn(copies, *vectors.shape, generator=generator)
        augmented = torch.nn.functional.normalize(views, dim=2)
    found = few_shot_accuracy(vectors, labels, ways=ways, shots=2, episodes=50, augmented=augmented)
    groups, _ = draw_episodes(labels.numpy(), ways=ways, shots=2, queries=15, episodes=50)
    x = vectors.double().numpy()
    support = x[None] if augmented is None else augmented.double().numpy()
    for episode in range(50):
        rows, asked = groups[0].support[episode], groups[0].queries[episode]
        fitted = reference(
            np.concatenate([part[rows].reshape(-1, 40) for part in support]),
            np.tile(np.repeat(np.arange(len(rows)), 2), len(support)),
        )
        score = fitted.score(x[asked].reshape(-1, 40), np.repeat(np.arange(len(rows)), 15))
        assert float(found.episodes[episode]) == pytest.approx(score, abs=1e-12)
    mean = found.episodes.mean()  # Student's, on the scale of the logit
    scale = stats.sem(found.episodes) / (mean * (1 - mean))
    interval = special.expit(stats.t.interval(0.95, 49, loc=special.logit(mean), scale=scale))
    assert (found.low, found.high) == pytest.approx(interval)


@pytest.mark.parametrize(("count", "width"), [(12, 30), (30, 12)])
@pytest.mark.parametrize("ways", [2, 3])
@pytest.mark.parametrize("penalty", [0.05, 1.0, 100.0])
def test_logistic_regressions_reach_scikit_learns_optimum(count: int, width: int, ways: int, penalty: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, count, width, generator=generator).double() + 3  # the intercept matters
    y = torch.arange(count).expand(4, -1) % ways
    found = fit_logistic_regressions(x, y, classes=ways, inverse_penalty=penalty)
    assert found.gradient_norms.max() <= 1e-6
    for episode in range(4):
        fitted = reference(x[episode].numpy(), y[episode].numpy(), penalty)
        logits = found.logits(x)[episode].softmax(dim=1).numpy()
        np.testing.assert_allclose(logits, fitted.predict_proba(x[episode].numpy()), atol=2e-5)


@pytest.mark.parametrize("shots", [1, 6])  # 200 vectors of 240 dimensions, and 1,200
def test_float32_names_as_the_optimum_does_with_many_classes(shots: int) -> None:
    vectors, labels = classes(count=40, size=12, width=240)
    views = vectors + 0.05 * torch.randn(5, *vectors.shape, generator=torch.Generator().manual_seed(1))
    found = few_shot_accuracy(vectors, labels, ways=None, shots=shots, queries="rest", episodes=2, augmented=views)
    (group,), _ = draw_episodes(labels.numpy(), ways=None, shots=shots, queries="rest", episodes=2)
    support = torch.nn.functional.normalize(views, dim=2).double().numpy()
    for episode in range(2):
        x = np.concatenate([part[group.support[episode]].reshape(-1, 240) for part in support])
        fitted = reference(x, np.tile(np.repeat(np.arange(40), shots), 5))
        asked = group.queries[episode]
        score = fitted.score(vectors.double().numpy()[asked].reshape(-1, 240), np.repeat(np.arange(40), asked.shape[1]))
        assert float(found.episodes[episode]) == pytest.approx(score, abs=1e-12)


def test_a_problem_alone_has_the_solution_it_has_in_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(30, 6, 9, generator=generator).double(), torch.arange(6).expand(30, -1) % 3
    together = fit_logistic_regressions(x, y, classes=3)
    alone = fit_logistic_regressions(x[7:8], y[7:8], classes=3)
    torch.testing.assert_close(together.weights[7:8], alone.weights, rtol=0, atol=1e-12)


def test_what_has_not_converged_is_said() -> None:
    x, y = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0)), torch.arange(6).expand(2, -1) % 3
    with pytest.warns(RegrainWarning, match="2 of 2 logistic regressions have not converged after 1 iterations"):
        fit_logistic_regressions(x, y, classes=3, max_iterations=1)
    for wrong, expected in (
        ({"features": x[0]}, "problems, samples, dimensions"),
        ({"labels": y[:, :2]}, "one for each row"),
        ({"labels": y - 1}, "leave samples of unknown class out"),
        ({"classes": 1}, "at least 2 classes"),
        ({"inverse_penalty": 0.0}, "inverse_penalty must be positive"),
        ({"features": x / 0}, "must be finite"),
    ):
        arguments = {"features": x, "labels": y, "classes": 3, **wrong}
        with pytest.raises(UserError, match=expected):
            fit_logistic_regressions(**arguments)


def test_nearest_mean_and_cosine() -> None:
    vectors, labels = classes()
    groups, _ = draw_episodes(labels.numpy(), ways=5, shots=3, queries=10, episodes=20)
    options = {"ways": 5, "shots": 3, "queries": 10, "episodes": 20}
    mean = few_shot_accuracy(vectors, labels, classifier="nearest-mean", **options)
    cosine = few_shot_accuracy(vectors, labels, classifier="cosine", **options)
    x, truth = vectors.double().numpy(), np.repeat(np.arange(5), 10)
    for episode in range(20):
        support, asked = x[groups[0].support[episode]], x[groups[0].queries[episode]].reshape(-1, 40)
        fitted = NearestCentroid().fit(support.reshape(-1, 40), np.repeat(np.arange(5), 3))
        assert float(mean.episodes[episode]) == pytest.approx(fitted.score(asked, truth))
        centres = support.mean(axis=1) / np.linalg.norm(support.mean(axis=1), axis=1, keepdims=True)
        assert float(cosine.episodes[episode]) == pytest.approx(((asked @ centres.T).argmax(1) == truth).mean())


def test_episodes_hang_on_seed_and_number_alone() -> None:
    _, labels = classes()
    draw = {"ways": 5, "shots": 2, "queries": 3}
    (many,), _ = draw_episodes(labels.numpy(), episodes=20, **draw)
    (few,), _ = draw_episodes(labels.numpy(), episodes=5, **draw)
    np.testing.assert_array_equal(many.support[:5], few.support)
    np.testing.assert_array_equal(many.queries[:5], few.queries)
    (other,), _ = draw_episodes(labels.numpy(), episodes=5, seed=1, **draw)
    assert (other.support != few.support).any()
    for episode in range(20):
        rows = np.concatenate([many.support[episode], many.queries[episode]], axis=1)
        assert (labels.numpy()[rows] == many.classes[episode][:, None]).all()
        assert len(np.unique(rows)) == rows.size
        assert len(np.unique(many.classes[episode])) == 5
    appearances = np.bincount(many.classes.flatten(), minlength=8)
    assert appearances.min() > 0


def test_intra_class_episodes_stay_within_a_superclass() -> None:
    vectors, labels = classes()
    above = torch.tensor([0, 0, 0, 1, 1, 2, -1, -1])[labels]  # superclass 2 has one class, two classes have none
    groups, _ = draw_episodes(
        labels.numpy(), ways=None, shots=1, queries="rest", episodes=30, superclasses=above.numpy()
    )
    assert sorted(g.classes.shape[1] for g in groups) == [2, 3]
    for group in groups:
        assert {tuple(sorted(c)) for c in group.classes.tolist()} <= {(0, 1, 2), (3, 4)}
        assert group.queries.shape[2] == 24
    assert sorted(np.concatenate([g.numbers for g in groups])) == list(range(30))
    found = few_shot_accuracy(vectors, labels, episodes=30, superclasses=above)
    assert 0.3 < found.accuracy < 1
    with raises("too_few"):
        few_shot_accuracy(vectors, labels, superclasses=labels)
    with raises("labels_conflict"):
        few_shot_accuracy(vectors, labels, superclasses=torch.arange(len(labels)) % 3)


def test_classes_of_few_samples() -> None:
    vectors, labels = classes(count=3, size=20)
    keep = (labels != 1) | (torch.arange(60) < 15)  # class 1 has 5 samples
    found = few_shot_accuracy(
        vectors[keep], labels[keep], ways=3, shots=2, episodes=10, class_names=["cat", "dog", "cow"]
    )
    assert found.notes == (
        "1 of 3 classes have fewer than 2 + 15 samples and give the rest as queries, 3 of class 'dog'",
    )
    with raises("too_few"):
        few_shot_accuracy(vectors[keep], labels[keep], ways=3, shots=5, class_names=["cat", "dog", "cow"])
    rest = few_shot_accuracy(vectors[keep], labels[keep], ways=3, shots=2, queries="rest", episodes=10)
    assert rest.notes == ()
    unknown = labels[keep].clone()
    unknown[0] = -1
    assert few_shot_accuracy(vectors[keep], unknown, ways=3, shots=1, queries=1, episodes=1).low is None


def test_mistakes_are_said() -> None:
    vectors, labels = classes()
    for wrong, expected in (
        ({"ways": 9}, "an episode of 9 classes cannot be drawn from the 8"),
        ({"ways": 1}, "between 2 and 8"),
        ({"shots": 0}, "shots is a whole number of at least 1"),
        ({"queries": 0}, "queries is a whole number of at least 1 or rest"),
        ({"classifier": "logistik"}, "did you mean 'logistic'"),
        ({"augmented": vectors}, r"\(copies, 200, 40\)"),
        ({"labels": torch.zeros_like(labels)}, "at least two labelled classes"),
    ):
        with pytest.raises(UserError, match=expected):
            few_shot_accuracy(**{"embeddings": vectors, "labels": labels, **wrong})
