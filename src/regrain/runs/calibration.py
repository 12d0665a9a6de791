"""Calibrate a run's answers on labelled samples that it has not seen: temperatures, shifts and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.errors import UserError, warn
from regrain.labels import UNKNOWN, Taxonomy
from regrain.metrics import fewest_samples, guaranteed_threshold, root_threshold
from regrain.runs.selective import (
    SLOPES,
    Counts,
    SelectiveClassifier,
    answered_levels,
    bounded_logits,
    predicted_codes,
    right_predictions,
)

_FEWEST = 50
"""Labelled samples of a level below which its threshold says little."""

LEAST_SURE = 0.5
"""An answer less sure than that is more likely wrong than right, however many surer ones make up for it."""


def fit_selective_classifier(
    probabilities: Mapping[str, Tensor],
    truth: Tensor,
    taxonomy: Taxonomy | None,
    *,
    precision: float = 0.95,
    confidence: float | None = None,
    counts: Counts = "answers",
    calibrated_on: str = "",
) -> SelectiveClassifier:
    """Temperatures, shifts and thresholds from samples that training has not seen.

    Temperature and shift of a level maximise the likelihood of which predictions are right (Platt 1999), with his
    targets a little inside of zero and one, so that a few samples without any error do not give certainty. The
    temperature is positive: what the run is surer of stays surer.

    Without ``confidence`` the threshold of a level, from the finest up, is the smallest one, and at least one half, at
    which the share of right answers among the labelled samples answered there, which no finer level answers, is at
    least ``precision``; where finer levels answer all of them, the share among all labelled samples counts. Where none
    reaches it, the level is never answered. The share on new samples is an estimate: of n answers and a share p
    it has a standard error of sqrt(p (1 - p) / n), and choosing the smallest threshold flatters it, so that about every
    second draw of the samples falls short. ``support`` holds n.

    With ``confidence`` one threshold serves all levels, that of :func:`regrain.metrics.guaranteed_threshold`: the share
    of right answers reaches ``precision`` with that probability. The promise is for samples such as the labelled ones:
    an answer below the level at which a sample is labelled counts neither way. Each aspect keeps its own.

    ``counts`` of roots is the rule of hierarchical selective classification
    (:func:`regrain.metrics.root_threshold`): the share is that of all samples, and no answer counts as right. Without
    ``confidence`` it is reached in the mean over draws.

    Raises a UserError if no sample is labelled, a number lies outside its range, or the samples cannot show the
    precision with that confidence; then the message says what they can.

    Parameters
    ----------
    probabilities : mapping of str to Tensor (N, classes)
        By level.
    truth : LongTensor (N, L)
        As of :func:`known_classes`.
    taxonomy : Taxonomy or None
        Of the levels; None where they are aspects, each of which is calibrated by itself.
    precision, confidence, counts
        As of :func:`regrain.calibrate`; with a promise ``precision`` is below 1.
    calibrated_on : str
        For the record.

    Warns
    -----
    RegrainWarning
        For a level with fewer than 50 labelled samples.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog")], ["animal", "breed"])
    >>> sure = torch.linspace(0.5, 1, 100)
    >>> both = {"animal": torch.ones(100, 1), "breed": torch.stack([sure, 1 - sure], dim=1)}
    >>> truth = torch.stack([torch.zeros(100), (torch.arange(100) % 4 < 1) & (sure < 0.75)], dim=1).long()
    >>> classifier = fit_selective_classifier(both, truth, taxonomy)
    >>> (classifier.predict(both, taxonomy).level == 1).sum().item() == classifier.support[1]
    True
    >>> promised = fit_selective_classifier(both, truth, taxonomy, precision=0.9, confidence=0.9)
    >>> promised.thresholds[0] == promised.thresholds[1] > 0.5
    True
    """
    if not 0 < precision <= 1:
        raise UserError(
            f"precision is a share of right answers, above 0 and at most 1; got {precision}", code="out_of_range"
        )
    if counts not in get_args(Counts):
        raise UserError(f"counts is {' or '.join(get_args(Counts))}; got {counts!r}", code="unknown_name")
    levels = tuple(probabilities) if taxonomy is None else taxonomy.levels
    samples = (truth != UNKNOWN).sum(dim=0).tolist()
    if not any(samples):
        raise UserError(f"none of the {len(truth)} samples has a label of {' or '.join(levels)}", code="no_labels")
    codes = predicted_codes({level: probabilities[level] for level in levels}, taxonomy)
    right = right_predictions(codes, truth)
    scalings = [
        _scaling_of(level, probabilities[level].double(), codes[:, index], right[:, index], samples[index])
        for index, level in enumerate(levels)
    ]
    temperatures, shifts = zip(*scalings, strict=True)
    count = len(levels)
    settled = SelectiveClassifier(
        levels=levels,
        temperatures=temperatures,
        shifts=shifts,
        thresholds=(None,) * count,
        precision=precision,
        calibrated_on=calibrated_on,
        samples=tuple(samples),
        support=(0,) * count,
        confidence=confidence,
        counts=counts,
        nested=taxonomy is not None,
    )
    mass = settled.level_predictions(probabilities, taxonomy).mass
    if settled.keeps_promise:
        judgeable = (right >= 0) & ~mass.isnan()
        most = max(int(judgeable[:, part].any(dim=1).sum()) for part in settled.together)
        require_enough(most, precision, confidence)
    thresholds, support = _all_thresholds(settled, mass, right)
    if settled.keeps_promise and all(threshold is None for threshold in thresholds):
        best = max(_best_precision(settled, mass[:, part], right[:, part]) for part in settled.together)
        raise UserError(
            f"the samples do not show that {precision:g} of the {_SHARE_OF[counts]} are right{_with(confidence)}: "
            + (f"--precision {best:g} is the most that they show" if best else "they show no such share at all"),
            code="too_few",
        )
    return replace(settled, thresholds=thresholds, support=support)


_SHARE_OF = {"answers": "answers", "roots": "samples, no answer counted as right,"}


def _with(confidence: float | None) -> str:
    return "" if confidence is None else f" with confidence {confidence:g}"


def require_enough(count: int, precision: float, confidence: float | None) -> None:
    """Refuse a promise that this many samples could not show even if all were right; the message says what they can.

    Parameters
    ----------
    precision, confidence : float
        In (0, 1). Without confidence: that the rank of :func:`regrain.metrics.root_threshold` exists.
    """
    if precision == 1:
        raise UserError("no samples show that all are right: --precision lies below 1 here", code="out_of_range")
    if confidence is None:
        needed = int(np.ceil(precision / (1 - precision) - 1e-9))
    else:
        needed = fewest_samples(precision, confidence)
    if count >= needed:
        return
    if confidence is None:
        possible = f"--precision {np.floor(1000 * count / (count + 1)) / 1000:g} at most"
    elif count:
        share, chance = (np.floor(1000 * v) / 1000 for v in ((1 - confidence) ** (1 / count), 1 - precision**count))
        possible = f"--precision {share:g} with --confidence {confidence:g}, or {precision:g} with {chance:g}, at most"
    else:
        possible = "nothing"
    raise UserError(
        f"precision {precision:g}{_with(confidence)} needs {needed} labelled samples, all right; there are {count}, "
        f"which could show {possible}",
        code="too_few",
    )


def _best_precision(settled: SelectiveClassifier, mass: Tensor, right: Tensor) -> float:
    """The largest share, in hundredths, that the samples show; 0 for none."""
    low, high = 0, int(100 * settled.precision)
    while low < high:
        middle = (low + high + 1) // 2
        found = _promised(replace(settled, precision=middle / 100), mass, right)
        low, high = (middle, high) if found is not None else (low, middle - 1)
    return low / 100 if low < 100 * settled.precision else 0.0


def _promised(settled: SelectiveClassifier, mass: Tensor, right: Tensor) -> float | None:
    if settled.counts == "roots":
        return root_threshold(mass, right, precision=settled.precision, confidence=settled.confidence)
    assert settled.confidence is not None
    return guaranteed_threshold(mass, right, precision=settled.precision, confidence=settled.confidence)


def _all_thresholds(
    settled: SelectiveClassifier, mass: Tensor, right: Tensor
) -> tuple[tuple[float | None, ...], tuple[int, ...]]:
    """The threshold of every level, and the judged answers that it rests on."""
    thresholds: list[float | None] = []
    support: list[int] = []
    for part in settled.together:
        found, rests_on = thresholds_of(settled, mass[:, part], right[:, part])
        thresholds += found
        support += rests_on
    return tuple(thresholds), tuple(support)


def thresholds_of(settled: SelectiveClassifier, mass: Tensor, right: Tensor) -> tuple[list[float | None], list[int]]:
    """The same of levels that are answered together, by the rule that is asked for."""
    count = mass.shape[1]
    if settled.keeps_promise:
        thresholds = [_promised(settled, mass, right)] * count
        level = answered_levels(mass, thresholds)
        return thresholds, [int(((level == index) & (right[:, index] >= 0)).sum()) for index in range(count)]
    thresholds, support = [None] * count, [0] * count
    unanswered = torch.ones(len(right), dtype=torch.bool)
    for index in range(count - 1, -1, -1):
        sure = mass[:, index]
        labelled = (right[:, index] >= 0) & ~sure.isnan()
        judged = unanswered & labelled if bool((unanswered & labelled).any()) else labelled
        threshold = threshold_reaching(sure[judged], right[judged, index] == 1, settled.precision)
        if threshold is not None:
            thresholds[index] = threshold
            support[index] = int((sure[judged] >= threshold).sum())
            unanswered &= ~(sure >= threshold)
    return thresholds, support


def _scaling_of(level: str, probabilities: Tensor, codes: Tensor, right: Tensor, samples: int) -> tuple[float, float]:
    """Temperature and shift of the predictions (N,) of a level, from those that can be judged."""
    judged = right >= 0
    predicted = probabilities.gather(1, codes[:, None].clamp(min=0))[:, 0]
    if samples < _FEWEST:
        warn(
            f"{samples} samples are labelled at level '{level}': its scaling and threshold are guesses; {_FEWEST} or "
            "more would do"
        )
    return _scaling(bounded_logits(predicted)[judged], right[judged] == 1)


def _scaling(logits: Tensor, right: Tensor) -> tuple[float, float]:
    """Temperature and shift with which logits say best how often predictions are right; 1 and 0 without any.

    Where all are right, or none is, the best slope would be zero, one confidence for all: the temperature alone is
    fitted.
    """
    from scipy import optimize

    if not len(right):
        return 1.0, 0.0
    hits = int(right.sum())
    targets = torch.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2)).double()

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = values
        scores = slope * logits + shift
        error = (scores.sigmoid() - targets) / len(targets)
        gradient = np.array([float((error * logits).sum()), float(error.sum())])
        return float(functional.binary_cross_entropy_with_logits(scores, targets)), gradient

    shifts = (None, None) if 0 < hits < len(right) else (0.0, 0.0)
    found = optimize.minimize(loss_and_gradient, [1.0, 0.0], jac=True, bounds=[SLOPES, shifts], tol=1e-12)
    slope, shift = map(float, found.x)
    return 1 / slope, shift


def threshold_reaching(confidence: Tensor, right: Tensor, precision: float) -> float | None:
    """The smallest confidence, one half at least, from which on the share of right ones is high enough; None: none."""
    right, confidence = right[confidence >= LEAST_SURE], confidence[confidence >= LEAST_SURE]
    values, order = confidence.sort(descending=True)
    shares = right[order].double().cumsum(dim=0) / torch.arange(1, len(values) + 1)
    last = torch.cat([values[1:] < values[:-1], torch.ones(min(len(values), 1), dtype=torch.bool)])
    reaching = (last & (shares >= precision)).nonzero()  # equal confidences are answered together
    return float(values[reaching[-1, 0]]) if len(reaching) else None
