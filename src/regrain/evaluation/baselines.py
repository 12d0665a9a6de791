"""The weak baseline beside every figure: the samples as they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.encoders.base import column_statistics
from regrain.evaluation.base import Representation
from regrain.model import Model
from regrain.training.loader import scan_batches

_PIXELS = 32
_WORDS = 4096


def raw_representation(
    test: Dataset, train: Dataset | None, model: Model, *, fits: bool, workers: int = 2
) -> tuple[Representation, str]:
    """Raw inputs as vectors, and in words what they are.

    With a frozen backbone its features; else pixels (at most 32 x 32), TF-IDF of words, or standardised values, where
    missing ones count as the mean; static features follow the series.
    Statistics come from the training samples where there are any; their own vectors are given when a protocol ``fits``
    on them.
    """
    needed = train if fits else None
    if model.backbone is not None:
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
        result: list[str] = dataset.samples.take(torch.arange(len(dataset)))
        return result

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
