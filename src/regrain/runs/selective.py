"""Answers at the most specific level that a run is sure of, calibrated on labelled samples that it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from scipy import optimize
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypedDict

from regrain.errors import RegrainWarning, UserError
from regrain.labels import UNKNOWN, Labels, Taxonomy
from regrain.metrics import confidence_error
from regrain.storage.files import Finite, Folder

_FEWEST = 50
"""Labelled samples of a level below which its threshold says little."""

_FEWEST_ANSWERS = 20
"""Answers below which a share of right ones says little."""

_NONE = UNKNOWN - 1
"""The truth of a sample that has none of the run's classes at a level: whatever is predicted there is wrong."""

_SLOPES = (1e-3, 1e3)
"""1 / T lies between them."""

_LARGEST_LOGIT = 16.0  # of a probability that float32 tells from one
_CONFIG = "answers.json"
_ONE_EACH = ("temperatures", "shifts", "thresholds", "samples", "support")
"""Fields with a value for each level."""


class _AnswersForm(TypedDict):
    levels: list[str]
    temperatures: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    shifts: list[Finite]
    thresholds: list[Finite | None]
    precision: Finite
    calibrated_on: str
    samples: list[int]
    support: list[int]


class Prediction(NamedTuple):
    """The answers for N samples.

    Attributes
    ----------
    level : LongTensor (N,)
        Index of the level that is answered at, -1 where nothing is.
    codes : LongTensor (N, L)
        The answer and its ancestors: the class at every level, -1 below the answer and where there is none.
    confidence : Tensor (N,)
        Of the answer; of the surest level where nothing is answered.
    """

    level: Tensor
    codes: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class SelectiveClassifier:
    r"""When a run answers at which level.

    At every level the most probable class is the prediction, and its confidence is

    .. math:: s_l = \sigma(\operatorname{logit}(\max_c p_l(c)) / T_l + b_l)

    but never less than that of a finer level's prediction which lies under it. The answer is the prediction at the
    finest level whose confidence reaches its threshold; what is said at coarser levels are the ancestors of that class,
    so that an answer's parents and children always agree. Where no level reaches its threshold, nothing is answered. A
    class without children is answered at its own level.

    Aspects, which do not nest, are answered one by one: each has its own temperature, shift and threshold.

    Attributes
    ----------
    levels : tuple of str
        Coarse to fine, L of them.
    temperatures, shifts : tuple of float
        T > 0 and b of every level.
    thresholds : tuple of float or None
        None: no threshold reached the precision, and this level is never answered.
    precision : float
        The share of right answers that was asked for.
    calibrated_on : str
    samples : tuple of int
        Labelled samples of every level that it was calibrated on.
    support : tuple of int
        Those of them that the threshold rests on.
    nested : bool
        Whether the levels nest.
    """

    levels: tuple[str, ...]
    temperatures: tuple[float, ...]
    shifts: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    precision: float
    calibrated_on: str
    samples: tuple[int, ...]
    support: tuple[int, ...]
    nested: bool = True

    def of_aspect(self, index: int) -> SelectiveClassifier:
        """The classifier of one aspect alone."""
        own: dict[str, Any] = {name: (getattr(self, name)[index],) for name in ("levels", *_ONE_EACH)}
        return replace(self, nested=True, **own)

    def level_predictions(
        self, probabilities: Mapping[str, Tensor], taxonomy: Taxonomy | None
    ) -> tuple[Tensor, Tensor]:
        """The class (N, L) predicted at every level, and the confidence (N, L) of each.

        Parameters
        ----------
        probabilities : mapping of str to Tensor (N, classes)
            By level.
        taxonomy : Taxonomy or None
            Of these levels; None where they are aspects.
        """
        best = [probabilities[level].double().max(dim=1) for level in self.levels]
        codes = torch.stack([found.indices for found in best], dim=1)
        logits = torch.stack([_logits(found.values) for found in best], dim=1)
        temperatures, shifts = (torch.tensor(v, dtype=torch.float64) for v in (self.temperatures, self.shifts))
        confidence = (logits / temperatures + shifts).sigmoid()
        if taxonomy is None:
            return codes, confidence
        for fine in range(len(self.levels) - 1, 0, -1):
            for upper in range(fine):
                above = taxonomy.ancestors(self.levels[fine], self.levels[upper])[codes[:, fine]]
                under = torch.where(above == codes[:, upper], confidence[:, fine], 0.0)
                confidence[:, upper] = torch.maximum(confidence[:, upper], under)
        return codes, confidence

    def predict(self, probabilities: Mapping[str, Tensor], taxonomy: Taxonomy) -> Prediction:
        """The answer for every sample at levels that nest; arguments as of :meth:`level_predictions`."""
        codes, confidence = self.level_predictions(probabilities, taxonomy)
        level = torch.full_like(codes[:, 0], -1)
        for index, threshold in enumerate(self.thresholds):  # the finest comes last, and wins
            if threshold is not None:
                level = torch.where(confidence[:, index] >= threshold, index, level)
        said = [torch.full_like(level, UNKNOWN) for _ in self.levels]
        for index, name in enumerate(self.levels):
            for upper in range(index + 1):
                above = taxonomy.ancestors(name, self.levels[upper])[codes[:, index]]
                said[upper] = torch.where(level == index, above, said[upper])
        own = confidence.gather(1, level.clamp(min=0)[:, None])[:, 0]
        return Prediction(level, torch.stack(said, dim=1), torch.where(level >= 0, own, confidence.max(dim=1).values))

    def notes(self) -> list[str]:
        """What the reader of confidences and thresholds must know."""
        few = [
            f"the threshold of level '{level}' rests on {support} answers: its share of right ones says little"
            for level, support in zip(self.levels, self.support, strict=True)
            if 0 < support < _FEWEST_ANSWERS
        ]
        blind = [
            f"at level '{level}' what the run is surer of is not right more often: confidences are nearly one number"
            for level, temperature in zip(self.levels, self.temperatures, strict=True)
            if temperature > 0.99 / _SLOPES[0]
        ]
        return few + blind

    def save(self, folder: Folder) -> None:
        """Write a JSON into a run's ``model`` folder."""
        folder.write_json(_CONFIG, asdict(self))

    @classmethod
    def load(cls, folder: Folder, labels: Labels) -> SelectiveClassifier | None:
        """The answers in a run's ``model`` folder; None where the run was not calibrated.

        Raises
        ------
        UserError
            If the file is missing or damaged, of another schema, or not of the run's levels.
        """
        if not folder.has(_CONFIG):
            return None
        content = folder.read_json(_CONFIG, _AnswersForm)
        values: dict[str, Any] = {f.name: content[f.name] for f in fields(cls)}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        if values["levels"] != labels.levels or any(len(values[name]) != len(labels.levels) for name in _ONE_EACH):
            raise UserError(
                f"{folder.path / _CONFIG} is not of this run's levels ({', '.join(labels.levels)}): run `regrain "
                "calibrate` again"
            )
        return cls(**values)


@dataclass(frozen=True)
class LevelReport:
    """How one level is predicted and answered.

    Attributes
    ----------
    level : str
    samples : int
        Labelled ones, over which ``accuracy`` and ``calibration_error`` are; the latter of the confidences.
    accuracy, calibration_error : float or None
        None without labelled samples.
    answered : float
        Share of all samples that are answered at this level.
    judged : int
        Labelled ones among them, over which ``precision`` is.
    precision : float or None
        Share of right answers; None where there is none to judge.
    named : float
        Share of all samples whose answer says a class of this level: answered here, or finer.
    named_precision : float or None
        Share of those classes that are right.
    """

    level: str
    samples: int
    accuracy: float | None
    calibration_error: float | None
    answered: float
    judged: int
    precision: float | None
    named: float
    named_precision: float | None


@dataclass(frozen=True)
class SelectiveReport:
    """How the samples of a split are answered.

    Attributes
    ----------
    split : str
    samples : int
    levels : tuple of LevelReport
    answered, abstained : float
        Shares of all samples.
    judged : int
        Answers at a level where the sample's label is known, over which the other figures are.
    precision : float or None
        Share of right answers.
    calibration_error : float or None
        Of the answers' confidences; None for aspects, whose own are in ``levels``.
    """

    split: str
    samples: int
    levels: tuple[LevelReport, ...]
    answered: float
    abstained: float
    judged: int
    precision: float | None
    calibration_error: float | None


@dataclass(frozen=True)
class Calibration:
    """What a calibration settled, and how well it does.

    Attributes
    ----------
    answers : SelectiveClassifier
    figures : SelectiveReport
        On the samples that it was calibrated on, where precision was aimed at: no figure for new samples.
    judged : SelectiveReport or None
        On another split.
    notes : list of str
        What the reader of the figures must know.
    """

    answers: SelectiveClassifier
    figures: SelectiveReport
    judged: SelectiveReport | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def taxonomy_of(labels: Labels) -> Taxonomy | None:
    """How the levels of a run nest; a level alone nests in nothing, and aspects have no taxonomy."""
    if labels.taxonomy is not None or len(labels.levels) > 1:
        return labels.taxonomy
    return Taxonomy.from_codes(labels.codes, labels.levels, labels.classes)


def known_classes(labels: Labels, own: Labels) -> Tensor:
    """The labels of N samples in the classes of a run, found by name: LongTensor (N, L).

    Unknown labels are -1; ancestors of known classes are filled in. A class that the run does not know is -2, and so is
    a level that does not exist for the sample, because its class has no children: no prediction is right there.

    Parameters
    ----------
    labels : Labels
        Of the samples.
    own : Labels
        Levels and classes of the run.

    Examples
    --------
    >>> own = Labels.from_paths(["cat/siamese", "dog/beagle", "fish"], ["animal", "breed"])
    >>> own.classes
    (('cat', 'dog', 'fish'), ('cat/siamese', 'dog/beagle'))
    >>> seen = Labels.from_columns({"breed": ["dog/beagle", None, "dog/pug"]})
    >>> known_classes(seen, own).tolist()
    [[1, 1], [-1, -1], [-1, -2]]
    >>> known_classes(Labels.from_columns({"animal": ["fish", "dog"]}), own).tolist()
    [[2, -2], [1, -1]]
    """
    columns = []
    for level, names in zip(own.levels, own.classes, strict=True):
        column = torch.full((len(labels),), UNKNOWN)
        if level in labels.levels:
            places = {name: code for code, name in enumerate(names)}
            found = [places.get(name, _NONE) for name in labels.names(level)]
            column = torch.tensor([*found, UNKNOWN])[labels.level(level)]
        columns.append(column)
    given = torch.stack(columns, dim=1)
    taxonomy = taxonomy_of(own)
    if taxonomy is None:
        return given
    known = replace(own, codes=given.clamp(min=UNKNOWN), taxonomy=taxonomy).filled_in()
    absent = torch.stack([known.absent(level) for level in own.levels], dim=1)
    return torch.where((given == _NONE) | absent, _NONE, known.codes)


def fit_selective_classifier(
    probabilities: Mapping[str, Tensor],
    truth: Tensor,
    taxonomy: Taxonomy | None,
    *,
    precision: float = 0.95,
    calibrated_on: str = "",
) -> SelectiveClassifier:
    """Temperatures, shifts and thresholds from samples that training has not seen.

    Temperature and shift of a level maximise the likelihood of which predictions are right (Platt 1999), with his
    targets a little inside of zero and one, so that a few samples without any error do not give certainty. The
    temperature is positive: what the run is surer of stays surer.

    The threshold of a level, from the finest up, is the smallest one at which the share of right answers among the
    labelled samples answered there, which no finer level answers, is at least ``precision``; where finer levels answer
    all of them, the share among all labelled samples counts. Where none reaches it, the level is never answered.

    What that gives on new samples is an estimate from these few: of n answers and a share p it has a standard error of
    sqrt(p (1 - p) / n), and choosing the smallest threshold flatters it. ``support`` holds n: a threshold may rest on
    a single right answer. Judge it on another split.

    Parameters
    ----------
    probabilities : mapping of str to Tensor (N, classes)
        By level.
    truth : LongTensor (N, L)
        As of :func:`known_classes`.
    taxonomy : Taxonomy or None
        Of the levels; None where they are aspects, each of which is calibrated by itself.
    precision : float
        In (0, 1].
    calibrated_on : str
        For the record.

    Warns
    -----
    RegrainWarning
        For a level with fewer than 50 labelled samples.

    Raises
    ------
    UserError
        If no sample is labelled, or the precision lies outside its range.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog")], ["animal", "breed"])
    >>> sure = torch.linspace(0.5, 1, 100)
    >>> both = {"animal": torch.ones(100, 1), "breed": torch.stack([sure, 1 - sure], dim=1)}
    >>> truth = torch.stack([torch.zeros(100), (torch.arange(100) % 4 < 1) & (sure < 0.75)], dim=1).long()
    >>> classifier = fit_selective_classifier(both, truth, taxonomy)
    >>> (classifier.predict(both, taxonomy).level == 1).sum().item() == classifier.support[1]
    True
    """
    if not 0 < precision <= 1:
        raise UserError(f"precision is a share of right answers, above 0 and at most 1; got {precision}")
    levels = tuple(probabilities) if taxonomy is None else taxonomy.levels
    samples = (truth != UNKNOWN).sum(dim=0).tolist()
    if not any(samples):
        raise UserError(f"none of the {len(truth)} samples has a label of {' or '.join(levels)}")
    temperatures, shifts = [], []
    for index, level in enumerate(levels):
        known = truth[:, index] != UNKNOWN
        best, codes = probabilities[level].double().max(dim=1)
        temperature, shift = _scaling(_logits(best)[known], (codes == truth[:, index])[known])
        temperatures.append(temperature)
        shifts.append(shift)
        if samples[index] < _FEWEST:
            warnings.warn(
                f"{samples[index]} samples are labelled at level '{level}': its scaling and threshold are guesses; "
                f"{_FEWEST} or more would do",
                RegrainWarning,
                stacklevel=2,
            )
    count = len(levels)
    settled = SelectiveClassifier(
        levels,
        tuple(temperatures),
        tuple(shifts),
        (None,) * count,
        precision,
        calibrated_on,
        tuple(samples),
        (0,) * count,
        nested=taxonomy is not None,
    )
    codes, confidence = settled.level_predictions(probabilities, taxonomy)
    thresholds: list[float | None] = [None] * count
    support = [0] * count
    unanswered = torch.ones(len(truth), dtype=torch.bool)
    for index in range(count - 1, -1, -1):
        labelled = truth[:, index] != UNKNOWN
        if taxonomy is None:
            unanswered[:] = True
        judged = unanswered & labelled if bool((unanswered & labelled).any()) else labelled
        sure, right = confidence[:, index], codes[:, index] == truth[:, index]
        threshold = _threshold(sure[judged], right[judged], precision)
        if threshold is not None:
            thresholds[index] = threshold
            support[index] = int((sure[judged] >= threshold).sum())
            unanswered &= sure < threshold
    return replace(settled, thresholds=tuple(thresholds), support=tuple(support))


def evaluate_answers(
    classifier: SelectiveClassifier,
    probabilities: Mapping[str, Tensor],
    truth: Tensor,
    taxonomy: Taxonomy | None,
    *,
    split: str,
) -> SelectiveReport:
    """Figures of the answers at every level and in all, for aspects over all.

    Arguments are those of :func:`fit_selective_classifier`.
    """
    if taxonomy is None:
        return _evaluate_aspects(classifier, probabilities, truth, split)
    codes, confidence = classifier.level_predictions(probabilities, taxonomy)
    answered = classifier.predict(probabilities, taxonomy)
    known = truth != UNKNOWN
    levels = []
    for index, level in enumerate(classifier.levels):
        labelled, here, named = known[:, index], answered.level == index, answered.codes[:, index] != UNKNOWN
        right, said_right = codes[:, index] == truth[:, index], answered.codes[:, index] == truth[:, index]
        levels.append(
            LevelReport(
                level,
                int(labelled.sum()),
                _share(right[labelled]),
                _error(confidence[labelled, index], right[labelled]),
                float(here.double().mean()),
                int((here & labelled).sum()),
                _share(said_right[here & labelled]),
                float(named.double().mean()),
                _share(said_right[named & labelled]),
            )
        )
    at = answered.level.clamp(min=0)[:, None]
    own = truth.gather(1, at)[:, 0]
    judged = (answered.level >= 0) & (own != UNKNOWN)
    hits = (answered.codes.gather(1, at)[:, 0] == own)[judged]
    share = float((answered.level >= 0).double().mean())
    return SelectiveReport(
        split,
        len(truth),
        tuple(levels),
        share,
        1 - share,
        int(judged.sum()),
        _share(hits),
        _error(answered.confidence[judged], hits),
    )


def _evaluate_aspects(
    classifier: SelectiveClassifier, probabilities: Mapping[str, Tensor], truth: Tensor, split: str
) -> SelectiveReport:
    """Each aspect judged by itself; in all, over the answers to all of them."""
    found = []
    for index, level in enumerate(classifier.levels):
        own, codes = {level: probabilities[level]}, truth[:, [index]]
        alone = Taxonomy.from_codes(codes[:0], [level], [list(map(str, range(own[level].shape[1])))])
        found.append(evaluate_answers(classifier.of_aspect(index), own, codes, alone, split=split))
    answered = sum(one.answered for one in found) / len(found)
    judged = sum(one.judged for one in found)
    right = sum(one.precision * one.judged for one in found if one.precision is not None)
    return SelectiveReport(
        split,
        len(truth),
        tuple(one.levels[0] for one in found),
        answered,
        1 - answered,
        judged,
        right / judged if judged else None,
        None,
    )


def _logits(probabilities: Tensor) -> Tensor:
    return probabilities.logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


def _scaling(logits: Tensor, right: Tensor) -> tuple[float, float]:
    """Temperature and shift with which logits say best how often predictions are right; 1 and 0 without any.

    Where all are right, or none is, the best slope would be zero, one confidence for all: the temperature alone is
    fitted.
    """
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
    found = optimize.minimize(loss_and_gradient, [1.0, 0.0], jac=True, bounds=[_SLOPES, shifts], tol=1e-12)
    slope, shift = map(float, found.x)
    return 1 / slope, shift


def _threshold(confidence: Tensor, right: Tensor, precision: float) -> float | None:
    """The smallest confidence from which on the share of right predictions is high enough; None where none is."""
    values, order = confidence.sort(descending=True)
    shares = right[order].double().cumsum(dim=0) / torch.arange(1, len(values) + 1)
    last = torch.cat([values[1:] < values[:-1], torch.ones(min(len(values), 1), dtype=torch.bool)])
    reaching = (last & (shares >= precision)).nonzero()  # equal confidences are answered together
    return float(values[reaching[-1, 0]]) if len(reaching) else None


def _share(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None


def _error(confidence: Tensor, right: Tensor) -> float | None:
    return confidence_error(confidence, right) if len(right) else None
