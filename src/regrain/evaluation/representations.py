"""Representations to evaluate: the model's embeddings, and weak baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.encoders.base import column_statistics
from regrain.evaluation.embedding import apply_model, apply_to_views, level_probabilities
from regrain.evaluation.protocols import Representation
from regrain.labels import Labels
from regrain.model import Model
from regrain.training.scan import scan_batches

_PIXELS = 32
_WORDS = 4096


@dataclass(frozen=True)
class Sources:
    """The samples, and which parts of their representations are needed."""

    test: Dataset
    train: Dataset | None
    needs: frozenset[str]
    """See :func:`~regrain.evaluation.protocols.protocol`."""
    augmentation: str | Mapping[str, Any]
    """The view preset of augmented test samples."""
    seed: int
    workers: int

    def represent(
        self, name: str, model: Model, function: Callable[[Any], Tensor] | None = None, labels: Labels | None = None
    ) -> Representation:
        """By ``function`` of the inputs (default: the embedding); ``labels`` are those of the model's classifier."""
        embed, test, train, workers = function or model.method.embed, self.test, self.train, self.workers
        parts: dict[str, Any] = {}
        if "train" in self.needs and train is not None:
            parts["train"] = apply_model(model, train, embed, workers=workers)
        if "augmented" in self.needs:
            views = partial(apply_to_views, model, test, embed, self.augmentation, seed=self.seed, workers=workers)
            parts["augmented"] = cache(lambda copies: views(copies=copies))
        if "augment_train" in self.needs and train is not None:
            recolours_nothing = "token-drop" if model.backbone is None and train.modality == "text" else "weak"
            epoch = partial(apply_to_views, model, train, embed, recolours_nothing, copies=1, seed=self.seed)
            parts["augment_train"] = lambda number: epoch(first=number, workers=workers)[0]
        if "partitions" in self.needs and function is None:
            parts["partitions"] = _partitions(model, test, workers)
            parts["train_partitions"] = None if train is None else _partitions(model, train, workers)
        if "probabilities" in self.needs and labels is not None:
            parts["probabilities"] = own_probabilities(model, test, labels, workers=workers)
        return Representation(name, apply_model(model, test, embed, workers=workers), **parts)

    def raw(self, model: Model) -> tuple[Representation, str]:
        """See :func:`raw_representation`."""
        return raw_representation(self.test, self.train, model, fits="train" in self.needs, workers=self.workers)

    def majority(self) -> Representation:
        """All samples alike: whatever is fitted on it predicts the most frequent class."""
        train = None if self.train is None else torch.zeros(len(self.train), 1)
        return Representation("majority", torch.zeros(len(self.test), 1), train)


def own_probabilities(model: Model, test: Dataset, labels: Labels, *, workers: int = 2) -> dict[str, Tensor]:
    """Level -> (N, classes + more) by the method's own classifier, in the order of the data's class names.

    Of :func:`~regrain.evaluation.embedding.level_probabilities`, whose columns are the run's classes. Classes that the
    data lack come last: predicting one is wrong. A level is left out where the run knows no class of it.
    """
    result = {}
    for level, found in level_probabilities(model, labels, test, workers=workers).items():
        if level not in test.labels.levels:
            continue
        places = {name: column for column, name in enumerate(labels.names(level))}
        columns = [places.pop(name, None) for name in test.labels.names(level)]
        if any(c is not None for c in columns):
            none = found.new_zeros(len(found))
            named = [none if c is None else found[:, c] for c in columns]
            result[level] = torch.stack([*named, *(found[:, c] for c in places.values())], dim=1)
    return result


def _partitions(model: Model, dataset: Dataset, workers: int) -> Tensor | None:
    """(N, P): the cluster of every sample in each partition that the method made of its own; None without any."""
    if not model.method.has_subclasses:
        return None

    def clusters(x: Any) -> Tensor:
        return torch.stack([rows.argmax(dim=1) for rows in model.method.partitions(x)], dim=1)

    return apply_model(model, dataset, clusters, workers=workers).long()


def raw_representation(
    test: Dataset, train: Dataset | None, model: Model | None, *, fits: bool, workers: int = 2
) -> tuple[Representation, str]:
    """Raw inputs as vectors, and in words what they are.

    With a model that has a frozen backbone, its features; else pixels (at most 32 x 32), TF-IDF of words, or
    standardised values, where missing ones count as the mean; static features follow the series.
    Statistics come from the training samples where there are any; their own vectors are given when a protocol ``fits``
    on them.
    """
    needed = train if fits else None
    if model is not None and model.backbone is not None:
        what = "features of the frozen encoder"
        parts = [None if d is None else _values(model.featurised(d, workers=workers), workers) for d in (test, needed)]
    elif test.modality == "text":
        what = f"TF-IDF of at most {_WORDS} words"
        parts = list(_word_weights(test, train, needed))
    elif test.modality == "image":
        what = f"pixels at {min(_PIXELS, *test.samples.shape[1:])} px"
        parts = [None if d is None else _values(d, workers) for d in (test, needed)]
    else:
        what = "standardised values"
        parts = _standardised([None if d is None else _values(d, workers) for d in (test, train)])
    judged, fitted = parts
    assert judged is not None
    return Representation("raw", judged, fitted), what


def _values(dataset: Dataset, workers: int) -> Tensor:
    """Samples flattened, images made small first."""
    rows = []
    for raw, _, _ in scan_batches(dataset, workers=workers):
        if isinstance(raw, dict):
            rows.append(torch.cat([values.float().flatten(1) for values in raw.values()], dim=1))
            continue
        values = raw.float()
        if dataset.modality == "image" and min(values.shape[2:]) > _PIXELS:
            values = functional.interpolate(values, size=(_PIXELS, _PIXELS), mode="bilinear", antialias=True)
        rows.append(values.flatten(1))
    return torch.cat(rows)


def _standardised(parts: list[Tensor | None]) -> list[Tensor | None]:
    fitted = next(p for p in reversed(parts) if p is not None)
    mean, std = column_statistics(fitted)
    return [None if p is None else ((p - mean) / std.clamp(min=1e-6)).nan_to_num(nan=0.0) for p in parts]


def _word_weights(test: Dataset, train: Dataset | None, needed: Dataset | None) -> tuple[Tensor, Tensor | None]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    def texts(dataset: Dataset) -> list[str]:
        return dataset.samples.take(torch.arange(len(dataset)))

    vectorizer = TfidfVectorizer(max_features=_WORDS, dtype=np.float32, token_pattern=r"(?u)\b\w+\b")
    fitted_on = texts(train if train is not None else test)
    worded = any(map(vectorizer.build_analyzer(), fitted_on))
    if worded:
        vectorizer.fit(fitted_on)

    def weigh(dataset: Dataset) -> Tensor:
        if not worded:  # emojis, punctuation: all texts are alike
            return torch.zeros(len(dataset), 1)
        return torch.from_numpy(vectorizer.transform(texts(dataset)).toarray())

    return weigh(test), None if needed is None else weigh(needed)
