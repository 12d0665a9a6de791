"""Answers at the most specific level that a run is sure of, calibrated on labelled samples that it has not seen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypedDict

from regrain.errors import RegrainWarning, UserError
from regrain.labels import UNKNOWN, Labels, Taxonomy
from regrain.metrics import confidence_error, fewest_samples, guaranteed_threshold, risk_coverage_area, root_threshold
from regrain.storage.files import Finite, Folder

_FEWEST = 50
"""Labelled samples of a level below which its threshold says little."""

_FEWEST_ANSWERS = 20
"""Answers below which a share of right ones says little."""

_NONE = UNKNOWN - 1
"""The truth of a sample that has none of the run's classes at a level: whatever is predicted there is wrong."""

LEAST_SURE = 0.5
"""An answer less sure than that is more likely wrong than right, however many surer ones make up for it."""

_REDRAWS = 100

Counts = Literal["answers", "roots"]
"""Denominators of the share of right answers: the answers; or all samples, where no answer counts as right."""

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
    confidence: Finite | None
    counts: Counts


class LevelPredictions(NamedTuple):
    """Predictions of a run for N samples at every level."""

    codes: Tensor
    """LongTensor (N, L): the class; where levels nest a path of the tree, -1 where it has no class."""
    confidence: Tensor
    """(N, L): of that class; NaN where there is none."""
    mass: Tensor
    """(N, L): value compared with the thresholds; NaN where there is no class, and where a prediction of that level or
    a coarser one contradicts the path and is surer.
    """


class Prediction(NamedTuple):
    """The answers for N samples."""

    level: Tensor
    """LongTensor (N,): index of the level that is answered at, -1 where nothing is."""
    codes: Tensor
    """LongTensor (N, L): the answer and its ancestors: the class at every level, -1 below the answer and where there is
    none.
    """
    confidence: Tensor
    """(N,): of the answer; of the surest level where nothing is answered."""


@dataclass(frozen=True)
class SelectiveClassifier:
    r"""Rule that decides at which level a run answers.

    The predictions of levels that nest are a path of the tree (:func:`predicted_codes`), with a confidence each,

    .. math:: s_l = \sigma(\operatorname{logit}(p_l(c_l)) / T_l + b_l)

    but never less than that of a finer level on the path. The answer is the prediction at the finest level whose
    confidence reaches its threshold, and no class off the path is surer at that level or above. Its ancestors come with
    it. Where no level reaches its threshold, nothing is answered. A class without children is answered at its level.

    Where thresholds keep a promise (``confidence``, or ``counts`` of roots) they are compared with the probabilities
    :math:`p_l(c_l)` instead: T and b are fitted on the samples that test the promise, and would break it.

    Aspects, which do not nest, are answered one by one: each has its own temperature, shift and threshold.
    """

    levels: tuple[str, ...]
    """Coarse to fine, L of them."""
    temperatures: tuple[float, ...]
    shifts: tuple[float, ...]
    """``temperatures``, ``shifts``: T > 0 and b of every level."""
    thresholds: tuple[float | None, ...]
    """None: no threshold reached the precision, and this level is never answered."""
    precision: float
    """The share of right ones that was asked for."""
    calibrated_on: str
    samples: tuple[int, ...]
    """Labelled samples of every level that it was calibrated on."""
    support: tuple[int, ...]
    """Those of them that the threshold rests on."""
    confidence: float | None = None
    """The probability with which that share is reached; None: it is aimed at."""
    counts: Counts = "answers"
    """``answers``: it is the share of the answers. ``roots``: of all samples, no answer counting as right."""
    nested: bool = True
    """Whether the levels nest."""

    def of_aspect(self, index: int) -> SelectiveClassifier:
        """The classifier of one aspect alone."""
        own: dict[str, Any] = {name: (getattr(self, name)[index],) for name in ("levels", *_ONE_EACH)}
        return replace(self, nested=True, **own)

    @property
    def keeps_promise(self) -> bool:
        """Whether thresholds are compared with probabilities instead of confidences."""
        return self.confidence is not None or self.counts == "roots"

    def level_predictions(self, probabilities: Mapping[str, Tensor], taxonomy: Taxonomy | None) -> LevelPredictions:
        """Return the prediction at every level, and its confidence.

        Parameters
        ----------
        probabilities : mapping of str to Tensor (N, classes)
            By level.
        taxonomy : Taxonomy or None
            Of these levels; None where they are aspects.
        """
        codes = predicted_codes(probabilities, taxonomy)
        own = torch.stack(
            [
                probabilities[level].double().gather(1, codes[:, [index]].clamp(min=0))[:, 0].clamp(max=1)
                for index, level in enumerate(self.levels)
            ],
            dim=1,
        )
        best = torch.stack([probabilities[level].double().max(dim=1).values for level in self.levels], dim=1)
        confidence, mass, rival = self._scaled(own), own, best
        if taxonomy is not None:
            present = codes != UNKNOWN
            confidence, mass = (_along_path(values, present) for values in (confidence, mass))
        if not self.keeps_promise:
            mass, rival = confidence, self._scaled(best)
        if taxonomy is not None:
            others = torch.where(present & (best > own), rival, 0.0)
            contradicts = torch.stack([others[:, : at + 1].max(dim=1).values for at in range(len(self.levels))], dim=1)
            mass = mass.masked_fill(contradicts > mass, torch.nan)
        return LevelPredictions(codes, confidence, mass)

    def predict(self, probabilities: Mapping[str, Tensor], taxonomy: Taxonomy) -> Prediction:
        """The answer for every sample at levels that nest; arguments as of :meth:`level_predictions`."""
        found = self.level_predictions(probabilities, taxonomy)
        level = _answered(found.mass, self.thresholds)
        said = torch.where(torch.arange(len(self.levels)) <= level[:, None], found.codes, UNKNOWN)
        own = found.confidence.gather(1, level.clamp(min=0)[:, None])[:, 0]
        surest = torch.where(found.confidence.isnan(), 0.0, found.confidence).max(dim=1).values
        return Prediction(level, said, torch.where(level >= 0, own, surest))

    def _scaled(self, probabilities: Tensor) -> Tensor:
        temperatures, shifts = (torch.tensor(v, dtype=torch.float64) for v in (self.temperatures, self.shifts))
        return (_logits(probabilities) / temperatures + shifts).sigmoid()

    def notes(self) -> list[str]:
        """Return caveats for the reader of confidences and thresholds."""
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

        Raises a UserError if the file is missing or damaged, of another schema, or not of the run's levels.
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
    """Figures of the predictions and answers of one level."""

    level: str
    samples: int
    """Labelled ones, over which ``accuracy`` and ``calibration_error`` are; the latter of the confidences."""
    accuracy: float | None
    calibration_error: float | None
    """``accuracy``, ``calibration_error``: none without labelled samples."""
    answered: float
    """Share of all samples that are answered at this level."""
    judged: int
    """Labelled ones among them, over which ``precision`` is."""
    precision: float | None
    """Share of right answers; None where there is none to judge."""
    named: float
    """Share of all samples whose answer says a class of this level: answered here, or finer."""
    named_precision: float | None
    """Share of those classes that are right."""


@dataclass(frozen=True)
class SelectiveReport:
    """Figures of the answers for a split."""

    split: str
    samples: int
    levels: tuple[LevelReport, ...]
    answered: float
    abstained: float
    """``answered``, ``abstained``: shares of all samples."""
    judged: int
    """Answers at a level where the sample's label is known, over which the other figures are."""
    precision: float | None
    """Share of right answers."""
    calibration_error: float | None
    """Of the answers' confidences; None for aspects, whose own are in ``levels``."""
    information: float
    """How much the answers say, in the mean over samples: 1 - log(leaves below) / log(leaves), 1 for a leaf, 0 for
    none.
    """
    risk_coverage_area: float | None
    """hAURC of the confidences, whatever the thresholds (:func:`regrain.metrics.risk_coverage_area`); lower is better.
    """
    misses: float | None = None
    """Share of redraws in which the share of right ones falls short: calibration samples, as many as there were, are
    drawn from both splits together, and judged on the rest.
    """


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration, and its figures."""

    answers: SelectiveClassifier
    figures: SelectiveReport
    """On the samples that it was calibrated on, where precision was aimed at: no figure for new samples."""
    judged: SelectiveReport | None = None
    """On another split."""
    notes: list[str] = field(default_factory=list)
    """What the reader of the figures must know."""

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


def predicted_codes(probabilities: Mapping[str, Tensor], taxonomy: Taxonomy | None) -> Tensor:
    """The class (N, L) predicted at every level: LongTensor.

    Where levels nest it is the path from the top to a class without children with the largest mean probability of its
    classes, so the largest expected share of right ones; -1 at levels where it has none. Else, or where classes have
    several parents, it is the most probable class of each level.

    Examples
    --------
    >>> taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog"), ("tabby", "cat")], ["animal", "breed"])
    >>> at_odds = {"animal": torch.tensor([[0.2, 0.8]]), "breed": torch.tensor([[0.3, 0.2, 0.5]])}
    >>> predicted_codes(at_odds, taxonomy).tolist()  # cat, dog; beagle, poodle, tabby
    [[1, 0]]
    """
    if taxonomy is None or not taxonomy.is_tree:
        return torch.stack([found.argmax(dim=1) for found in probabilities.values()], dim=1)
    paths = taxonomy.paths()
    shares = [
        probabilities[level][:, column.clamp(min=0)].float() * (column >= 0)
        for level, column in zip(taxonomy.levels, paths.T, strict=True)
    ]
    best = (sum(shares[1:], shares[0]) / (paths >= 0).sum(dim=1)).argmax(dim=1)
    return paths[best]


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
    reaches it, the level is never answered. What that gives on new samples is an estimate: of n answers and a share p
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
    right = _right(codes, truth)
    temperatures, shifts = [], []
    for index, level in enumerate(levels):
        judged = right[:, index] >= 0
        own = probabilities[level].double().gather(1, codes[:, [index]].clamp(min=0))[:, 0]
        temperature, shift = _scaling(_logits(own)[judged], right[judged, index] == 1)
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
        confidence,
        counts,
        nested=taxonomy is not None,
    )
    mass = settled.level_predictions(probabilities, taxonomy).mass
    if settled.keeps_promise:
        judgeable = (right >= 0) & ~mass.isnan()
        most = max(int(judgeable[:, part].any(dim=1).sum()) for part in _parts(settled))
        require_enough(most, precision, confidence)
    thresholds, support = _all_thresholds(settled, mass, right)
    if settled.keeps_promise and all(threshold is None for threshold in thresholds):
        best = max(_best_precision(settled, mass[:, part], right[:, part]) for part in _parts(settled))
        raise UserError(
            f"the samples do not show that {precision:g} of the {_SHARE_OF[counts]} are right{_with(confidence)}: "
            + (f"--precision {best:g} is the most that they show" if best else "they show no such share at all"),
            code="too_few",
        )
    return replace(settled, thresholds=thresholds, support=support)


_SHARE_OF = {"answers": "answers", "roots": "samples, no answer counted as right,"}


def _with(confidence: float | None) -> str:
    return "" if confidence is None else f" with confidence {confidence:g}"


def _right(codes: Tensor, truth: Tensor) -> Tensor:
    """Whether predictions (N, L) are right: 1, 0, or -1 where nobody knows or nothing is predicted."""
    return torch.where((truth == UNKNOWN) | (codes == UNKNOWN), -1, (codes == truth).long())


def _parts(classifier: SelectiveClassifier) -> list[slice]:
    """The levels that are answered together: all that nest, each aspect by itself."""
    count = len(classifier.levels)
    return [slice(0, count)] if classifier.nested else [slice(index, index + 1) for index in range(count)]


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
    for part in _parts(settled):
        found, rests_on = _thresholds(settled, mass[:, part], right[:, part])
        thresholds += found
        support += rests_on
    return tuple(thresholds), tuple(support)


def _thresholds(settled: SelectiveClassifier, mass: Tensor, right: Tensor) -> tuple[list[float | None], list[int]]:
    """The same of levels that are answered together, by the rule that is asked for."""
    count = mass.shape[1]
    if settled.keeps_promise:
        thresholds = [_promised(settled, mass, right)] * count
        level = _answered(mass, thresholds)
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


def _answered(mass: Tensor, thresholds: Sequence[float | None]) -> Tensor:
    """The level (N,) that is answered at, -1 for none."""
    level = torch.full_like(mass[:, 0], -1, dtype=torch.long)
    for index, threshold in enumerate(thresholds):  # the finest comes last, and wins
        if threshold is not None:
            level = torch.where(mass[:, index] >= threshold, index, level)
    return level


def share_of_misses(
    classifier: SelectiveClassifier,
    seen: tuple[Mapping[str, Tensor], Tensor],
    judged: tuple[Mapping[str, Tensor], Tensor],
    taxonomy: Taxonomy | None,
) -> float:
    """In which share of redraws the share of right ones falls short of ``precision``; in the mean over aspects.

    Of both splits' samples together as many as were calibrated on are drawn, 100 times from a fixed seed; thresholds
    are chosen on these, temperatures and shifts staying as they are, and judged on the rest. A draw that shows no
    threshold does not miss, for nothing is answered.

    Parameters
    ----------
    seen, judged : (probabilities, truth)
        Of the samples that it was calibrated on, and of others; as of :func:`fit_selective_classifier`.
    """
    pooled = []
    for probabilities, truth in (seen, judged):
        found = classifier.level_predictions(probabilities, taxonomy)
        pooled.append((found.mass, _right(found.codes, truth)))
    mass, right = (torch.cat(both) for both in zip(*pooled, strict=True))
    generator = torch.Generator().manual_seed(0)
    missed = []
    for _ in range(_REDRAWS):
        order = torch.randperm(len(mass), generator=generator)
        drawn, rest = order[: len(seen[1])], order[len(seen[1]) :]
        for part in _parts(classifier):
            level = _answered(mass[rest, part], _thresholds(classifier, mass[drawn, part], right[drawn, part])[0])
            share = _right_share(level, right[rest, part], mass[rest, part], classifier.counts)
            missed.append(share is not None and share < classifier.precision)
    return float(np.mean(missed))


def _right_share(level: Tensor, right: Tensor, mass: Tensor, counts: Counts) -> float | None:
    """The share that is promised, of the samples that can be judged."""
    outcome = torch.where(level >= 0, right.gather(1, level.clamp(min=0)[:, None])[:, 0], -1)
    if counts == "roots":
        finest = (~mass.isnan()).long().cumsum(dim=1).argmax(dim=1)
        outcome = torch.where(level < 0, torch.where(right.gather(1, finest[:, None])[:, 0] >= 0, 1, -1), outcome)
    return _share(outcome[outcome >= 0] == 1)


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
    found = classifier.level_predictions(probabilities, taxonomy)
    answered = classifier.predict(probabilities, taxonomy)
    right = _right(found.codes, truth)
    nowhere = (found.codes == UNKNOWN) & (truth == _NONE)  # rightly no class of that level
    levels = []
    for index, level in enumerate(classifier.levels):
        labelled = (truth[:, index] != UNKNOWN) & ~nowhere[:, index]
        judged, own = right[:, index] >= 0, right[:, index] == 1
        here, named = answered.level == index, answered.codes[:, index] != UNKNOWN
        levels.append(
            LevelReport(
                level,
                int(labelled.sum()),
                _share(own[labelled]),
                _error(found.confidence[judged, index], own[judged]),
                float(here.double().mean()),
                int((here & judged).sum()),
                _share(own[here & judged]),
                float(named.double().mean()),
                _share(own[named & judged]),
            )
        )
    at = answered.level.clamp(min=0)[:, None]
    outcome = torch.where(answered.level >= 0, right.gather(1, at)[:, 0], -1)
    share = float((answered.level >= 0).double().mean())
    says = class_information(found.codes, taxonomy)
    area = risk_coverage_area(says, found.confidence, right)
    return SelectiveReport(
        split,
        len(truth),
        tuple(levels),
        share,
        1 - share,
        int((outcome >= 0).sum()),
        _share(outcome[outcome >= 0] == 1),
        _error(answered.confidence[outcome >= 0], outcome[outcome >= 0] == 1),
        float(torch.where(answered.level >= 0, says.gather(1, at)[:, 0], 0.0).mean()),
        None if np.isnan(area) else area,
    )


def class_information(codes: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Information of a class (N, L): 1 - log(leaves below) / log(leaves); 0 for none."""
    paths = taxonomy.paths()
    result = torch.zeros(codes.shape, dtype=torch.float64)
    for index, names in enumerate(taxonomy.classes):
        below = paths[paths[:, index] >= 0, index].bincount(minlength=len(names))
        says = 1 - below.double().log() / np.log(max(len(paths), 2))
        result[:, index] = torch.cat([says, torch.zeros(1, dtype=torch.float64)])[codes[:, index]]
    return result


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
    areas = [one.risk_coverage_area for one in found if one.risk_coverage_area is not None]
    return SelectiveReport(
        split,
        len(truth),
        tuple(one.levels[0] for one in found),
        answered,
        1 - answered,
        judged,
        right / judged if judged else None,
        None,
        answered,
        float(np.mean(areas)) if areas else None,
    )


def _along_path(values: Tensor, present: Tensor) -> Tensor:
    """Values (N, L) that are never less than those of a finer level; NaN where there is no class."""
    there = torch.where(present, values, -1.0)
    finer = torch.stack([there[:, at:].max(dim=1).values for at in range(there.shape[1])], dim=1)
    return finer.masked_fill(~present, torch.nan)


def _logits(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(0, 1).logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)


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
    found = optimize.minimize(loss_and_gradient, [1.0, 0.0], jac=True, bounds=[_SLOPES, shifts], tol=1e-12)
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


def _share(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None


def _error(confidence: Tensor, right: Tensor) -> float | None:
    return confidence_error(confidence, right) if len(right) else None
