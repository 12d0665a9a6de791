"""Proposed names of subclasses: keywords of texts, nearest words by CLIP, deviating columns of records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset, rows_among
from regrain.data.taxonomies import nouns
from regrain.encoders.vision import is_vision_source
from regrain.model import Model
from regrain.training.scan import on_device

_KEYWORDS, _COLUMNS = 3, 2
_WORD, _VOCABULARY = r"(?u)\b[^\W\d_][\w'-]*\w\b", 20_000
"""A word begins with a letter; the most frequent ones are looked at."""

_LEAST_DEVIATION = 0.5
"""A column whose mean is nearer than this to that of the others, in standard deviations, describes nothing."""

_PROMPT = "a photo of a {}"
_BATCH = 64


def proposed_names(
    model: Model,
    splits: Sequence[Dataset],
    subclass: np.ndarray,
    superclass: Mapping[int, str | None],
    exemplars: Mapping[int, np.ndarray],
) -> dict[int, str]:
    """A name for every subclass, by what sets its samples apart from others; no label is looked at.

    Texts: the three words with the largest class-based TF-IDF (:func:`keywords`). Images, where the run's encoder is a
    CLIP or SigLIP of transformers that is on this machine: the noun, of those of ImageNet's taxonomy, whose text
    embedding is nearest to the exemplars' mean. Vectors and series: the columns whose means deviate most, in standard
    deviations, from those of the other samples of its superclass, where columns have names.

    ``subclass``: int array (N,); the subclass of every sample of all splits together. ``superclass``: int -> str or
    None; of the subclasses to be named. ``exemplars``: int -> int array; rows of the samples nearest to their means.

    Returns
    -------
    Names by number; none where there is nothing to tell by.
    """
    modality = splits[0].modality
    if modality == "text":
        found = keywords([text for part in splits for text in _all(part)], subclass)
        return {number: ", ".join(found[number]) for number in superclass if found.get(number)}
    if modality == "image":
        return _nearest_nouns(model, splits, {number: exemplars[number] for number in superclass})
    return _deviating_columns(splits, subclass, superclass)


def keywords(texts: Sequence[str], classes: np.ndarray, *, count: int = _KEYWORDS) -> dict[int, list[str]]:
    r"""The words of each class with the largest class-based TF-IDF (Grootendorst 2022, BERTopic, eq. 2).

    .. math:: W_{t,c} = tf_{t,c} \, \log(1 + A / f_t)

    with tf the share of the word among those of the class, f its number over all classes, A the mean number of words
    of a class. English stop words are left out, and so is a word that begins as a better one does or the other way
    round (*transfer*, *transfers*).

    ``texts``: sequence of str (N,). ``classes``: int array (N,). ``count``: most words of a class.

    Returns
    -------
    Words by class, the best first; fewer, or none, where a class has no more.

    Examples
    --------
    >>> texts = ["please send money", "send the money home", "is it raining", "how is the weather, raining?"]
    >>> keywords(texts, np.array([0, 0, 1, 1]), count=2)
    {0: ['money', 'send'], 1: ['raining', 'weather']}
    """
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    present, place = np.unique(classes, return_inverse=True)
    vectorizer = CountVectorizer(stop_words="english", token_pattern=_WORD, max_features=_VOCABULARY, dtype=np.int64)
    try:
        words = vectorizer.fit_transform(texts)
    except ValueError:  # there is no word
        return {}
    belongs = sparse.csr_matrix((np.ones(len(place)), (place, np.arange(len(place)))))
    counts = (belongs @ words).toarray()
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    weights = shares * np.log1p(counts.sum() / len(present) / counts.sum(axis=0))
    names = vectorizer.get_feature_names_out()
    result = {}
    for number, row in zip(present.tolist(), weights, strict=True):
        chosen: list[str] = []
        for word in names[np.argsort(-row, kind="stable")[: 10 * count]][: int((row > 0).sum())].tolist():
            if len(chosen) < count and not any(word.startswith(w) or w.startswith(word) for w in chosen):
                chosen.append(word)
        result[number] = chosen
    return result


def _all(part: Dataset) -> Any:
    return part.samples.take(torch.arange(len(part)))


def _deviating_columns(
    splits: Sequence[Dataset], subclass: np.ndarray, superclass: Mapping[int, str | None]
) -> dict[int, str]:
    """Columns, or channels of series, and how far their means are from the others' of the superclass."""
    names = [str(name) for name in splits[0].notes.get("columns") or ()]
    if len(names) != splits[0].samples.shape[-1]:  # of an array, or lists in one column: they have no names
        return {}
    values = torch.cat([_as_columns(_all(part)) for part in splits]).double()
    known = values.isfinite()
    values = values.where(known, 0)
    values = (values - values.sum(dim=0) / known.sum(dim=0).clamp(min=1)).where(known, 0)
    numbers = sorted(superclass)
    place = torch.from_numpy(np.searchsorted(numbers, subclass))
    empty = values.new_zeros(len(numbers), values.shape[1])
    counts, sums, squares = (empty.index_add(0, place, v) for v in (known.double(), values, values.square()))
    result = {}
    for row, number in enumerate(numbers):
        company = [r for r, other in enumerate(numbers) if superclass[other] == superclass[number]]
        if len(company) == 1:
            company = list(range(len(numbers)))
        n, total = counts[company].sum(dim=0), sums[company].sum(dim=0)
        spread = (squares[company].sum(dim=0) / n - (total / n).square()).clamp(min=0).sqrt()
        others = (total - sums[row]) / (n - counts[row])
        apart = ((sums[row] / counts[row] - others) / spread).nan_to_num(nan=0, posinf=0, neginf=0)
        most = apart.abs().argsort(descending=True, stable=True)[:_COLUMNS].tolist()
        deviations = [f"{names[c]} {apart[c]:+.1f} sd" for c in most if abs(apart[c]) >= _LEAST_DEVIATION]
        if deviations:
            result[number] = ", ".join(deviations)
    return result


def _as_columns(taken: Any) -> Tensor:
    """Vectors as they are; of series the means over time."""
    raw: Tensor = taken["series"] if isinstance(taken, dict) else taken
    return raw.float().nanmean(dim=1) if raw.ndim == 3 else raw


def _nearest_nouns(model: Model, splits: Sequence[Dataset], exemplars: Mapping[int, np.ndarray]) -> dict[int, str]:
    """The noun nearest to the mean image embedding of the exemplars, by the towers of the encoder's own model."""
    towers = _towers(str(model.config["encoder"].get("name", "")))
    if towers is None:
        return {}
    whole, tokenizer = towers
    views = model.views if model.backbone_views is None else model.backbone_views
    words = nouns()

    def of_images(rows: np.ndarray) -> Tensor:
        found = []
        for part, own in rows_among(splits, rows):
            pixels = views.plain(on_device(part.samples.take(own), model.device))
            found.append(_features(whole.get_image_features(pixel_values=pixels.cpu().expand(-1, 3, -1, -1))))
        return functional.normalize(torch.cat(found), dim=1).mean(dim=0)

    with torch.no_grad():
        texts = []
        for at in range(0, len(words), _BATCH):
            prompts = [_PROMPT.format(word) for word in words[at : at + _BATCH]]
            tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
            texts.append(_features(whole.get_text_features(**tokens)))
        towards = functional.normalize(torch.cat(texts), dim=1)
        return {number: words[int((towards @ of_images(rows)).argmax())] for number, rows in exemplars.items()}


def _features(output: Any) -> Tensor:
    """Newer transformers give a named output, older ones the embeddings."""
    found: Tensor = output if isinstance(output, Tensor) else output.pooler_output
    return found.float()


def _towers(name: str) -> tuple[Any, Any] | None:
    """The whole model of two towers behind a vision encoder, and its tokenizer; None where there is none at hand."""
    if not is_vision_source(name):
        return None
    try:
        import transformers

        source = os.path.expanduser(name)
        whole = transformers.AutoModel.from_pretrained(source, local_files_only=True, trust_remote_code=False)
        if not hasattr(whole, "get_text_features"):
            return None
        return whole.eval().float(), transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (ImportError, OSError, ValueError):
        return None
