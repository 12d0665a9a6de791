"""CoarseToFine: scikit-learn's own checks, a Pipeline, a grid search, levels and unknown labels."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import raises

import regrain
from regrain.errors import UserError
from regrain.sklearn import CoarseToFine

EXPECTED_FAILURES = {
    "check_classifier_multioutput": "its columns are drawn at random, and levels nest; predict gives one of them",
    "check_methods_subset_invariance": "wants 1e-7 of float32 sums, whose order depends on the size of a batch",
}
CHECKED = CoarseToFine(
    "sup-ce", epochs=6, settings={"training.learning_rate": 0.3, "training.batch_size": 32}, random_state=0
)


@parametrize_with_checks([CHECKED], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, digit = load_digits(return_X_y=True)
    return x[:400].astype(np.float32), digit[:400]


def test_in_a_pipeline_and_a_grid_search(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    steps = make_pipeline(StandardScaler(), CoarseToFine("supcon", epochs=3, random_state=0))
    search = GridSearchCV(steps, {"coarsetofine__settings": [{"temperature": 0.1}, {"temperature": 1.0}]}, cv=2)
    search.fit(x, np.where(digit % 2, "odd", "even"))
    assert search.best_score_ > 0.75
    assert set(search.predict(x[:20])) <= {"odd", "even"}
    assert search.best_estimator_.transform(x[:5]).shape == (5, 128)
    np.testing.assert_allclose(search.predict_proba(x[:5]).sum(axis=1), 1)


def test_the_methods_own_classifier_answers_where_there_is_one(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    y = np.stack([digit // 5, digit], axis=1)
    y[::3, 1] = -1
    y[::7] = -1
    fitted = CoarseToFine("mixed", epochs=4, predict_level=1, unknown=-1, random_state=0).fit(x, y)
    assert fitted.classes_.tolist() == list(range(10))
    assert fitted.score(x, y) > 0.9
    known = y[:, 1] >= 0
    assert fitted.score(x, y) == np.mean(fitted.predict(x)[known] == digit[known])
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(x), fitted.predict_proba(x))
    read = CoarseToFine("sup-ce", epochs=4, predict_level=1, unknown=-1, random_state=0)
    read.fit(x, y)  # of a level that it never read
    assert read.predict_proba(x).shape == (400, 10)
    assert read._classifier is not None


def test_without_labels(digits: tuple[np.ndarray, np.ndarray]) -> None:
    fitted = CoarseToFine("simclr", epochs=1, random_state=0).fit(digits[0])
    assert fitted.transform(digits[0]).shape == (400, 128)
    with pytest.raises(UserError, match="there are no classes to predict"):
        fitted.predict(digits[0])
    with pytest.raises(ValueError, match="requires y"):
        CoarseToFine("maskcon").fit(digits[0])


def test_the_run_may_be_kept(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x, digit = digits
    fitted = CoarseToFine("sup-ce", epochs=1, random_state=0, run_folder=tmp_path / "run").fit(x, digit % 2)
    kept = regrain.Run.open(tmp_path / "run")
    assert kept.recipe["training"]["epochs"] == 1
    assert kept.model.method.state_dict().keys() == fitted.model_.method.state_dict().keys()


def test_what_cannot_be(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    for y, options, message in (
        (digit % 2, {"predict_level": 1}, "predict_level is 1, and y has 1 columns"),
        (np.full(400, -1), {"unknown": -1}, "every label in a column of y is unknown"),
        (digit[:10], {}, "X has 400 samples, and y has labels for 10"),
        (digit % 2, {"settings": {"weigth": 1}}, "did you mean 'weight'"),
    ):
        with pytest.raises(UserError, match=message):
            CoarseToFine(epochs=1, **options).fit(x, y)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"settings": "weight=1"}, "settings must be a dictionary; got 'weight=1'"),
        ({"settings": ["weight=1"]}, "settings must be a dictionary"),
        ({"settings": 3}, "settings must be a dictionary; got 3"),
        ({"settings": {3: 1}}, "has no setting '3'"),
        ({"settings": {"epochs": 1}, "epochs": 2}, "epochs is given twice"),
        ({"method": 3}, "no method '3'"),
        ({"method": None}, "no method 'None'"),
        ({"encoder": 3}, "the name of an encoder; got 3"),
        ({"epochs": "three"}, "epochs must be a whole number of at least 1; got 'three'"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number of at least 1; got True"),
        ({"predict_level": "first"}, "predict_level must be a whole number; got 'first'"),
        ({"predict_level": None}, "predict_level must be a whole number"),
        ({"unknown": [0, 1]}, r"unknown is one label, such as -1; got \[0, 1\]"),
        ({"unknown": np.array([0, 1])}, "unknown is one label"),
        ({"device": 0}, "no device '0'"),
        ({"run_folder": 3}, "run_folder must be a text or a path; got 3"),
    ],
)
def test_parameters_of_a_wrong_type_are_named_at_fit(
    wrong: dict[str, Any], words: str, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    x, digit = digits
    made = clone(CoarseToFine(**wrong))  # nothing is checked before
    with pytest.raises(UserError, match=words):
        made.fit(x, digit % 2)


def test_numbers_as_texts_are_read_as_everywhere(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    y = np.stack([digit // 5, digit], axis=1)
    fitted = CoarseToFine("sup-ce", epochs="1", predict_level=1.0, random_state=0).fit(x, y)  # type: ignore[arg-type]
    assert fitted.classes_.tolist() == list(range(10))
    assert 0 <= fitted.score(x, y) <= 1


def test_labels_and_weights_of_another_length(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    fitted = CoarseToFine("sup-ce", epochs=1, random_state=0).fit(x, digit % 2)
    with raises("wrong_shape", "X has 400 samples, and y has labels for 5"):
        fitted.score(x, digit[:5])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted.score(x, digit % 2, sample_weight=[1, 2])
    with raises("wrong_shape", "as many of each sample as there are levels"):
        fitted.fit(x, [[1], [2, 3]])
    for call in (CoarseToFine().transform, CoarseToFine().predict):
        with pytest.raises(NotFittedError):
            call(x)


def test_messages_name_the_classes(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x, digit = digits
    for method, y, name in (
        ("maskcon", np.full(400, "cat"), "cat"),
        ("sup-ce", np.full(400, 7.0), "7.0"),
        ("multi-ce", [["pet", "cat"]] * 400, "pet"),
    ):
        with raises("too_few", rf"has one class in the training data \('{name}'\)"):
            CoarseToFine(method, epochs=1).fit(x, y)
    named = np.array(["odd ", "even"])[1 - digit % 2]
    fitted = CoarseToFine("sup-ce", epochs=2, random_state=0, run_folder=tmp_path / "run").fit(x, named)
    assert regrain.Run.open(tmp_path / "run").labels.names("label") == ("even", "odd")
    assert fitted.score(x, named) > 0.7
    alike = np.array(["odd ", "odd"])[digit % 2]  # two classes whose names are one
    assert set(fitted.fit(x, alike).predict(x)) == {"odd", "odd "}


def test_settings_may_be_numbers_of_numpy(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    settings = {"weight": np.float32(0.5), "training.batch_size": np.int64(64)}
    model = CoarseToFine(epochs=np.int64(1), settings=settings, random_state=0).fit(x, digit % 2)
    assert model.model_.method.weight == 0.5


def test_labels_of_two_kinds_are_refused(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, _ = digits
    mixed = np.array([1, "one"] * 200, dtype=object)
    with pytest.raises(UserError, match="mixes labels of kind int and str"):
        CoarseToFine(epochs=1).fit(x, mixed)


def test_a_second_fit_forgets_the_first(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    estimator = CoarseToFine("simclr", epochs=1, random_state=0).fit(x, digit)
    assert set(estimator.predict(x[:50])) <= set(digit)
    estimator.fit(x)
    with pytest.raises(UserError, match="y was not given to fit"):
        estimator.predict(x[:5])


def test_missing_labels_of_pandas_and_levels_to_score(digits: tuple[np.ndarray, np.ndarray]) -> None:
    x, digit = digits
    names = pd.Series([f"d{d}" for d in digit], dtype="string")
    names[:40] = pd.NA
    estimator = CoarseToFine("sup-ce", epochs=1, random_state=0).fit(x, names)
    assert len(estimator.classes_) == 10
    both = np.stack([digit // 5, digit], axis=1)
    fine = CoarseToFine("sup-ce", epochs=1, predict_level=1, random_state=0).fit(x, both)
    assert 0 <= fine.score(x, both) <= 1
    with pytest.raises(UserError, match="predict_level is 1, and y has 1 columns"):
        fine.score(x, digit)
    with pytest.raises(UserError, match="every label of y at level 0 is unknown"):
        estimator.score(x, np.full(len(x), None))


@pytest.mark.parametrize("classes", [[-1, 1], [-1, 0, 1]])
def test_minus_one_is_a_class_unless_it_says_unknown(classes: list[int]) -> None:
    y = np.array(classes * 40)
    x = np.random.default_rng(0).normal(size=(len(y), 4)) + 3 * np.eye(4)[y + 1]
    estimator = CoarseToFine("sup-ce", epochs=20, settings={"training.batch_size": 16}, random_state=0).fit(x, y)
    assert estimator.classes_.tolist() == classes
    assert set(estimator.predict(x)) == set(classes)
    assert estimator.score(x, y) > 0.9
    assert estimator.score(x, np.where(y == -1, 1, y)) < 0.8  # no sample is left out
    if len(classes) > 2:
        without = CoarseToFine("sup-ce", epochs=1, unknown=-1, random_state=0).fit(x, y)
        assert without.classes_.tolist() == classes[1:]


def test_any_label_may_say_unknown() -> None:
    y = np.array(["a", "b", "?"] * 20, dtype=object)
    x = np.random.default_rng(0).normal(size=(60, 3))
    assert CoarseToFine("sup-ce", epochs=1, unknown="?", random_state=0).fit(x, y).classes_.tolist() == ["a", "b"]
