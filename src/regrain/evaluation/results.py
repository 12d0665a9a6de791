"""The figures of an evaluation."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from regrain.data.dataset import Dataset
from regrain.evaluation.protocols import Score

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 8
"""Figures that the short form of an evaluation shows."""


@dataclass(frozen=True)
class Row:
    """One figure: of which representation, on which split and level, by which metric; ``brief``: shown by default."""

    representation: str
    split: str
    level: str
    metric: str
    score: Score
    brief: bool = True

    @property
    def key(self) -> str:
        """``split/level/metric``; of a baseline with ``.NAME`` behind it."""
        name = f"{self.split}/{self.level}/{self.metric}"
        return name if self.representation == "model" else f"{name}.{self.representation}"


@dataclass(frozen=True)
class Finding:
    """Comparison of the trained model with an untrained representation, by one metric."""

    sentence: str
    outcome: Literal["better", "within noise", "worse"]
    """Of the model: ``within noise`` where the interval holds 0."""
    level: str
    metric: str
    baseline: str
    value: float
    baseline_value: float
    difference: float
    low: float
    high: float
    """``difference``, ``low``, ``high``: value - baseline_value, and its 95% interval, bootstrapped over the same
    samples of both.
    """
    count: int
    """Number of these samples."""

    def __str__(self) -> str:
        return self.sentence


@dataclass
class Evaluation:
    """All figures of one evaluation."""

    split: str
    samples: int
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Caveats for the reader of the figures."""
    judged: dict[str, Any] = field(default_factory=dict)
    """Fingerprints of the samples and of their labels: figures of other samples are not paired with these."""
    verdict: list[Finding] = field(default_factory=list)
    """Whether training helped, compared with each untrained representation; see :mod:`regrain.evaluation.verdicts`."""

    def __repr__(self) -> str:
        own = [row for row in self.rows if row.representation == "model" and not row.score.detail]
        shown = ", ".join(
            f"{r.level}/{r.metric} {figure_text(r.score.value, count=r.score.count)}" for r in own[:_SHOWN]
        )
        more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
        said = "".join(f"\n{finding}" for finding in self.verdict)
        return f"<Evaluation of {self.split}, {self.samples} samples: {shown or 'no figures'}{more}>{said}"

    def to_frame(self) -> pd.DataFrame:
        """One row per figure, with the ends of its interval (NaN without one); ``count``: whether it is not a share.

        Examples
        --------
        >>> Evaluation("test", 9, [Row("model", "test", "kind", "recall@1", Score(0.5, 0.4, 0.6))]).to_frame()
          representation level    metric  value  low  high  count
        0          model  kind  recall@1    0.5  0.4   0.6  False
        """
        import pandas as pd

        own, of_score = ["representation", "level", "metric"], ["value", "low", "high", "count"]
        rows = [[*(getattr(r, n) for n in own), *(getattr(r.score, n) for n in of_score)] for r in self.rows]
        return pd.DataFrame(rows, columns=own + of_score).astype(dict.fromkeys(("value", "low", "high"), float))

    def _repr_html_(self) -> str:
        """For notebooks: the verdict, then a line a brief metric, a column a representation."""
        import pandas as pd

        shown = [row for row in self.rows if row.brief and not row.score.detail]
        cells = [(r.level, r.metric, r.representation, figure_text(r.score.value, count=r.score.count)) for r in shown]
        if not cells:
            return repr(self)
        frame = pd.DataFrame(cells, columns=["level", "metric", "representation", "figure"])
        columns = list(dict.fromkeys(frame["representation"]))
        table = frame.pivot_table("figure", ["level", "metric"], "representation", aggfunc="first", sort=False)
        said = [f"{self.split}, {self.samples} samples", *(html.escape(finding.sentence) for finding in self.verdict)]
        return f"{''.join(f'<p>{line}</p>' for line in said)}{table[columns].to_html(na_rep='')}"

    def flat(self) -> dict[str, float]:
        """``split/level/metric`` -> value; ends of intervals with ``.low`` and ``.high``, baselines with ``.NAME``."""
        result: dict[str, float] = {}
        for row in self.rows:
            result[row.key] = row.score.value
            if row.representation == "model" and row.score.low is not None and row.score.high is not None:
                result[f"{row.key}.low"], result[f"{row.key}.high"] = row.score.low, row.score.high
        return result

    def add(self, figures: Mapping[str, Mapping[str, Mapping[str, Score]]], *, brief: bool) -> None:
        """Add representation -> level -> metric -> Score, with the notes of the model's.

        With ``brief`` only the first metric of a level is one that tables show unless they show all.
        """
        for level, scores in figures["model"].items():
            first = next(iter(scores), None)
            for name, levels in figures.items():
                self.rows += [
                    Row(name, self.split, level, metric, score, not brief or metric == first)
                    for metric, score in levels[level].items()
                ]
            notes = {metric: score.note for metric, score in figures["model"][level].items() if score.note}
            self.notes += [f"{metric} at level '{level}': {note}" for metric, note in notes.items()]

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``evaluation.json``."""
        return {
            "split": self.split,
            "samples": self.samples,
            "judged": self.judged,
            "verdict": [asdict(finding) for finding in self.verdict],
            "notes": self.notes,
            "rows": [
                {**vars(row), "score": {k: v for k, v in vars(row.score).items() if k != "values"}} for row in self.rows
            ],
        }


def figure_text(value: float, *, count: bool, sign: bool = False) -> str:
    """A share in per cent, with two decimals; a count as it is, with decimals only where it is a mean of counts.

    Examples
    --------
    >>> figure_text(0.5, count=False), figure_text(3.0, count=True), figure_text(1.25, count=True, sign=True)
    ('50.00', '3', '+1.25')
    """
    shown = value if count else 100 * value
    digits = 0 if count and value == round(value) else 2
    return f"{shown:{'+' if sign else ''}.{digits}f}"


def fingerprint(dataset: Dataset) -> dict[str, Any]:
    """Hashes of the samples' ids and, level by level, of their classes: what two evaluations must share."""
    levels = dataset.labels.levels
    return {
        "samples": _digest(dataset.ids.tolist()),
        "labels": {level: _digest(dataset.labels.column(level)) for level in levels},
    }


def _digest(names: list[Any]) -> str:
    return hashlib.blake2b(repr(names).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
