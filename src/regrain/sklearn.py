"""A scikit-learn estimator over vectors: ``CoarseToFine`` in a Pipeline, a GridSearchCV, or alone."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from regrain.checks import Count, check_arguments
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import RegrainWarning, UserError
from regrain.evaluation import apply_model, embed
from regrain.labels import Labels, missing
from regrain.methods import method_class
from regrain.runs.run import Run
from regrain.spelling import counted
from regrain.verbs.fit import fit


class CoarseToFine(ClassNamePrefixFeaturesOutMixin, ClassifierMixin, TransformerMixin, BaseEstimator):
    """Any method on vectors: embeddings by ``transform``, classes of one label level by ``predict``.

    Parameters
    ----------
    method : str
        A name of :data:`regrain.methods.METHODS`.
    encoder : str
        An encoder of vectors.
    epochs : int, optional
        Default: the recipe's.
    settings : mapping, optional
        Further settings, such as ``{"weight": 0.8, "training.batch_size": 64}``.
    predict_level : int
        The column of y that ``predict`` gives. Where the method classifies at that level its own classifier answers;
        else a logistic regression, fitted on the training samples' standardised embeddings whose label is known.
    unknown : label, optional
        The value in y of a class that is not known, besides None and NaN: -1, say, as in scikit-learn's
        semi-supervised estimators. Default: every number is a class.
    random_state : int, RandomState or None
        Seed of everything.
    device : {"cpu", "cuda", "auto"}
        Where to train; the fitted model is on the CPU.
    run_folder : path, optional
        Keep the run there instead of in a temporary folder; an existing run there is replaced.

    Attributes
    ----------
    classes_ : array
        Known classes of the level that ``predict`` gives; absent when y was not given.
    model_ : regrain.model.Model
        The trained model.
    n_features_in_ : int
        Columns of X.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> X, digit = load_digits(return_X_y=True)
    >>> model = CoarseToFine(epochs=2, random_state=0).fit(X, digit % 2)  # only the parity of the digits is known
    >>> model.transform(X).shape, model.predict(X[:3]).shape
    ((1797, 128), (3,))
    """

    def __init__(
        self,
        method: str = "maskcon",
        *,
        encoder: str = "mlp",
        epochs: Count | None = None,
        settings: Mapping[str, Any] | None = None,
        predict_level: int = 0,
        unknown: Any = None,
        random_state: int | np.random.RandomState | None = None,
        device: Literal["cpu", "cuda", "auto"] = "cpu",
        run_folder: str | Path | None = None,
    ) -> None:
        self.method = method
        self.encoder = encoder
        self.epochs = epochs
        self.settings = settings
        self.predict_level = predict_level
        self.unknown = unknown
        self.random_state = random_state
        self.device = device
        self.run_folder = run_folder

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = bool(method_class(self.method).needs.levels)
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.non_deterministic = self.random_state is None
        return tags

    def fit(self, X: Any, y: Any = None) -> CoarseToFine:
        """Train.

        Parameters
        ----------
        X : (n, d)
        y : (n,) or (n, levels), optional
            Class labels, levels from coarse to fine. None, NaN and :attr:`unknown` say unknown. Methods without labels
            need none.

        Raises
        ------
        UserError
            A ValueError: for what cannot be trained.
        """
        parameters = check_arguments(type(self).__init__, self.get_params(deep=False))
        X = validate_data(self, X, y=None if y is None else "no_validation", dtype=np.float32, ensure_min_samples=2)
        known = [] if y is None else [_codes(column, self.unknown) for column in _columns(y, len(X), self.unknown)]
        self._level = parameters["predict_level"]
        if known:
            self._require_level(known)
        for name in ("classes_", "_role", "_order", "_classifier"):  # left by an earlier fit
            if hasattr(self, name):
                delattr(self, name)
        data = _dataset(X, _labels(known) if known else Labels.empty(len(X)))
        run = self._trained(data, parameters)
        self.model_ = run.model
        self._n_features_out = int(embed(self.model_, data.select(torch.arange(1))).shape[1])
        if known:
            self.classes_, codes = known[self._level]
            self._settle_classifier(run, data, codes)
        return self

    def _require_level(self, columns: Sequence[Any]) -> None:
        if not -len(columns) <= self._level < len(columns):
            raise UserError(
                f"predict_level is {self._level}, and y has {len(columns)} columns, counted from 0",
                code="out_of_range",
            )

    def _trained(self, data: Dataset, parameters: Mapping[str, Any]) -> Run:
        """The finished run of checked parameters, its model loaded on the CPU."""
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
            warnings.simplefilter("ignore", RegrainWarning)
            run = fit(
                self.method,
                data,
                out=self.run_folder if self.run_folder is not None else Path(temporary) / "run",
                encoder=self.encoder,
                settings=parameters["settings"] or {},
                seed=seed,
                holdout=0,
                device=self.device,
                overwrite=self.run_folder is not None,
                **{} if self.epochs is None else {"epochs": parameters["epochs"]},
            )
            loaded = Run(run.folder, data, "cpu")
            assert loaded.recipe
            assert loaded.model  # read before the temporary folder is removed
            return loaded

    def _settle_classifier(self, run: Run, data: Dataset, codes: np.ndarray) -> None:
        """Choose the classifier: the method's own, or a logistic regression on the training embeddings."""
        level = data.labels.levels[self._level]
        roles = {name: role for role, name in run.recipe["data"]["roles"].items()}
        self._role = roles.get(level) if self.model_.method.has_classifier else None
        self._order = [run.labels.names(level).index(name) for name in _names(self.classes_)] if self._role else []
        self._classifier = None
        if self._role is None and len(self.classes_) > 1:
            rows = np.flatnonzero(codes >= 0)
            vectors = embed(self.model_, data.select(torch.from_numpy(rows))).numpy().astype(np.float64)
            self._classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            self._classifier.fit(vectors, codes[rows])

    def transform(self, X: Any) -> np.ndarray:
        """Embeddings (n, width), float32."""
        data = self._read(X)  # first: it requires a fitted model
        return embed(self.model_, data).numpy()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, classes) of :attr:`classes_`."""
        data = self._read(X)
        if not hasattr(self, "classes_"):
            raise UserError(
                "y was not given to fit: there are no classes to predict; transform gives embeddings", code="no_labels"
            )
        if self._classifier is not None:
            return self._classifier.predict_proba(embed(self.model_, data).numpy().astype(np.float64))
        if self._role is None:  # one class
            return np.ones((len(data), 1))
        method = self.model_.method
        found = apply_model(self.model_, data, partial(method.predict_proba, role=self._role))
        return found[:, self._order].double().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class (n,) at the level ``predict_level``."""
        best = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy at the level ``predict_level``, over the samples whose label is known there."""
        predicted = self.predict(X)
        columns = _columns(y, len(predicted), self.unknown)
        self._require_level(columns)
        column = columns[self._level]
        known = ~_unknown(column, self.unknown)
        if not known.any():
            raise UserError(
                f"every label of y at level {self._level} is unknown: score needs some that are known",
                code="no_labels",
            )
        check_consistent_length(predicted, sample_weight)
        weight = None if sample_weight is None else np.asarray(sample_weight, dtype=float)[known]
        return float(np.average(predicted[known] == column[known], weights=weight))

    def _read(self, X: Any) -> Dataset:
        check_is_fitted(self, "model_")
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return _dataset(X, Labels.empty(len(X)))


def _columns(y: Any, count: int, unknown: Any) -> list[np.ndarray]:
    """The levels of y, each (n,), coarse to fine; a UserError, or scikit-learn's ValueError, for no class labels."""
    if isinstance(unknown, Iterable) and not isinstance(unknown, str | bytes):
        raise UserError(f"unknown is one label, such as -1; got {unknown!r}", code="wrong_shape")
    if isinstance(y, list | tuple) and len({np.shape(labels) for labels in y}) > 1:
        raise UserError("y holds a label a sample, or as many of each sample as there are levels", code="wrong_shape")
    array = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    if array.ndim not in (1, 2) or array.size == 0:
        raise UserError(
            f"y holds a label a sample, or one a sample and level; got shape {array.shape}", code="wrong_shape"
        )
    if len(array) != count:
        raise UserError(f"X has {counted(count, 'sample')}, and y has labels for {len(array)}", code="wrong_shape")
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn("y of shape (n, 1) was taken as (n,)", DataConversionWarning, stacklevel=3)
        array = array[:, 0]
    if array.dtype.kind == "f" and np.isinf(array).any():
        raise UserError("y holds infinite numbers; class labels are finite, NaN says unknown", code="not_finite")
    columns = list(array.reshape(len(array), -1).T)
    for column in columns:
        known = column[~_unknown(column, unknown)]
        if len(known):
            check_classification_targets(known.astype(str) if array.dtype.kind == "O" else known)
    return columns


def _unknown(column: np.ndarray, unknown: Any) -> np.ndarray:
    """Find the labels that are None, NaN or the value for unknown."""
    compared = not missing(unknown)  # pandas' NA compares with nothing
    return np.array([missing(value) or (compared and bool(value == unknown)) for value in column.tolist()])


def _codes(column: np.ndarray, unknown: Any) -> tuple[np.ndarray, np.ndarray]:
    """The classes that occur, and the code of every sample, -1 unknown."""
    known = ~_unknown(column, unknown)
    codes = np.full(len(column), -1)
    try:
        classes, codes[known] = np.unique(column[known], return_inverse=True)
    except TypeError:
        kinds = " and ".join(sorted({type(label).__name__ for label in column[known]}))
        raise UserError(
            f"a column of y mixes labels of kind {kinds}: give numbers alone, or texts alone", code="labels_conflict"
        ) from None
    if not len(classes):
        raise UserError("every label in a column of y is unknown: leave the column out", code="no_labels")
    return classes, codes


def _labels(known: list[tuple[np.ndarray, np.ndarray]]) -> Labels:
    named = [_names(classes) for classes, _ in known]
    return Labels.from_codes(np.stack([codes for _, codes in known], axis=1), classes=named)


def _names(classes: np.ndarray) -> list[str]:
    """The classes as texts; their numbers, where two are the same text or one is empty."""
    texts = [str(name).strip() for name in classes.tolist()]
    return texts if len(set(texts)) == len(texts) and all(texts) else list(map(str, range(len(texts))))


def _dataset(X: np.ndarray, labels: Labels) -> Dataset:
    samples = TensorSamples(torch.from_numpy(np.require(X, requirements=["C", "W"])), "vector")
    return Dataset(samples, labels, np.array([str(row) for row in range(len(X))]), "X")
