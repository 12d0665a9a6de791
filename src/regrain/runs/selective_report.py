"""Figures of a run's answers: how many samples are answered, at which levels, and how many answers are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from regrain.labels import UNKNOWN, Taxonomy
from regrain.metrics import confidence_error, risk_coverage_area
from regrain.runs.calibration import thresholds_of
from regrain.runs.selective import NO_CLASS, Counts, SelectiveClassifier, answered_levels, right_predictions

if TYPE_CHECKING:
    import pandas as pd

_REDRAWS = 100


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
    """Sentences that qualify the figures."""

    def to_frame(self) -> pd.DataFrame:
        """A row a split and level, with the figures of that level (:class:`LevelReport`)."""
        import pandas as pd

        reports = [self.figures, *([] if self.judged is None else [self.judged])]
        rows = [{"split": report.split, **asdict(level)} for report in reports for level in report.levels]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


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
        pooled.append((found.mass, right_predictions(found.codes, truth)))
    mass, right = (torch.cat(both) for both in zip(*pooled, strict=True))
    generator = torch.Generator().manual_seed(0)
    missed = []
    for _ in range(_REDRAWS):
        order = torch.randperm(len(mass), generator=generator)
        drawn, rest = order[: len(seen[1])], order[len(seen[1]) :]
        for part in classifier.together:
            thresholds, _ = thresholds_of(classifier, mass[drawn, part], right[drawn, part])
            level = answered_levels(mass[rest, part], thresholds)
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
    right = right_predictions(found.codes, truth)
    nowhere = (found.codes == UNKNOWN) & (truth == NO_CLASS)  # rightly no class of that level
    levels = []
    for index, level in enumerate(classifier.levels):
        labelled = (truth[:, index] != UNKNOWN) & ~nowhere[:, index]
        judged, own = right[:, index] >= 0, right[:, index] == 1
        here, named = answered.level == index, answered.codes[:, index] != UNKNOWN
        levels.append(
            LevelReport(
                level=level,
                samples=int(labelled.sum()),
                accuracy=_share(own[labelled]),
                calibration_error=_error(found.confidence[judged, index], own[judged]),
                answered=float(here.double().mean()),
                judged=int((here & judged).sum()),
                precision=_share(own[here & judged]),
                named=float(named.double().mean()),
                named_precision=_share(own[named & judged]),
            )
        )
    at = answered.level.clamp(min=0)[:, None]
    outcome = torch.where(answered.level >= 0, right.gather(1, at)[:, 0], -1)
    share = float((answered.level >= 0).double().mean())
    says = class_information(found.codes, taxonomy)
    area = risk_coverage_area(says, found.confidence, right)
    return SelectiveReport(
        split=split,
        samples=len(truth),
        levels=tuple(levels),
        answered=share,
        abstained=1 - share,
        judged=int((outcome >= 0).sum()),
        precision=_share(outcome[outcome >= 0] == 1),
        calibration_error=_error(answered.confidence[outcome >= 0], outcome[outcome >= 0] == 1),
        information=float(torch.where(answered.level >= 0, says.gather(1, at)[:, 0], 0.0).mean()),
        risk_coverage_area=None if np.isnan(area) else area,
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
        split=split,
        samples=len(truth),
        levels=tuple(one.levels[0] for one in found),
        answered=answered,
        abstained=1 - answered,
        judged=judged,
        precision=right / judged if judged else None,
        calibration_error=None,
        information=answered,
        risk_coverage_area=float(np.mean(areas)) if areas else None,
    )


def _share(right: Tensor) -> float | None:
    return float(right.double().mean()) if len(right) else None


def _error(confidence: Tensor, right: Tensor) -> float | None:
    return confidence_error(confidence, right) if len(right) else None
