"""Answers at the most specific level that a run is sure of: the rule, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from regrain.errors import UserError
from regrain.labels import UNKNOWN, Labels, Taxonomy
from regrain.storage.files import Finite, Folder

_FEWEST_ANSWERS = 20
"""Answers below which a share of right ones says little."""

NO_CLASS = UNKNOWN - 1
"""The truth of a sample that has none of the run's classes at a level: whatever is predicted there is wrong."""

Counts = Literal["answers", "roots"]
"""Denominators of the share of right answers: the answers; or all samples, where no answer counts as right."""

SLOPES = (1e-3, 1e3)
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
    """Number of them that the threshold rests on."""
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
    def together(self) -> list[slice]:
        """Levels that are answered together: all that nest, each aspect by itself."""
        count = len(self.levels)
        return [slice(0, count)] if self.nested else [slice(index, index + 1) for index in range(count)]

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
        level = answered_levels(found.mass, self.thresholds)
        said = torch.where(torch.arange(len(self.levels)) <= level[:, None], found.codes, UNKNOWN)
        own = found.confidence.gather(1, level.clamp(min=0)[:, None])[:, 0]
        surest = torch.where(found.confidence.isnan(), 0.0, found.confidence).max(dim=1).values
        return Prediction(level, said, torch.where(level >= 0, own, surest))

    def _scaled(self, probabilities: Tensor) -> Tensor:
        temperatures, shifts = (torch.tensor(v, dtype=torch.float64) for v in (self.temperatures, self.shifts))
        return (bounded_logits(probabilities) / temperatures + shifts).sigmoid()

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
            if temperature > 0.99 / SLOPES[0]
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
    columns = [
        labels.renumbered(level, {name: code for code, name in enumerate(names)}, other=NO_CLASS)
        for level, names in zip(own.levels, own.classes, strict=True)
    ]
    given = torch.stack(columns, dim=1)
    taxonomy = taxonomy_of(own)
    if taxonomy is None:
        return given
    known = replace(own, codes=given.clamp(min=UNKNOWN), taxonomy=taxonomy).filled_in()
    absent = torch.stack([known.absent(level) for level in own.levels], dim=1)
    return torch.where((given == NO_CLASS) | absent, NO_CLASS, known.codes)


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


def right_predictions(codes: Tensor, truth: Tensor) -> Tensor:
    """Whether predictions (N, L) are right: 1, 0, or -1 where nobody knows or nothing is predicted."""
    return torch.where((truth == UNKNOWN) | (codes == UNKNOWN), -1, (codes == truth).long())


def answered_levels(mass: Tensor, thresholds: Sequence[float | None]) -> Tensor:
    """The level (N,) that is answered at, -1 for none."""
    level = torch.full_like(mass[:, 0], -1, dtype=torch.long)
    for index, threshold in enumerate(thresholds):  # the finest comes last, and wins
        if threshold is not None:
            level = torch.where(mass[:, index] >= threshold, index, level)
    return level


def _along_path(values: Tensor, present: Tensor) -> Tensor:
    """Values (N, L) that are never less than those of a finer level; NaN where there is no class."""
    there = torch.where(present, values, -1.0)
    finer = torch.stack([there[:, at:].max(dim=1).values for at in range(there.shape[1])], dim=1)
    return finer.masked_fill(~present, torch.nan)


def bounded_logits(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(0, 1).logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
