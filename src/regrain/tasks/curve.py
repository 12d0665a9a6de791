"""How a method fares as its training split gets poorer: fewer samples (``low-data``), wrong labels (``label-noise``).

An experiment's folder holds ``plan.json`` (what was asked for), a run folder for each value and seed (``1000-s0``) and
``curve.json`` (what came out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrain.evaluation import Score

__all__ = ["Curve"]


@dataclass(frozen=True)
class Curve:
    """An experiment's outcome.

    Attributes
    ----------
    path : Path
    method : str
    impairment : str
        The field of :class:`~regrain.data.impairment.Impairment` that was varied.
    values : tuple of float
    seeds : tuple of int
        Of the trainings; each has a draw of its own too.
    figures : tuple of tuple of mapping
        For each value and seed, the figures by key (``split/level/metric``, of a baseline with ``.NAME``).
    counted : frozenset of str
        Keys of figures that are numbers of things, not shares.
    notes : tuple of str
    """

    path: Path
    method: str
    impairment: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    figures: tuple[tuple[Mapping[str, float], ...], ...]
    counted: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def scores(self) -> dict[str, list[Score]]:
        """Key of a figure -> its mean over seeds at each value; only keys that every training has."""
        shared = set.intersection(*(set(flat) for seeds in self.figures for flat in seeds))
        ordered = [key for key in self.figures[0][0] if key in shared]
        return {
            key: [
                replace(Score.mean([flat[key] for flat in seeds], "seeds"), count=key in self.counted)
                for seeds in self.figures
            ]
            for key in ordered
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``curve.json``."""
        means = {
            key: [{"mean": s.value, "low": s.low, "high": s.high} for s in scores]
            for key, scores in self.scores().items()
        }
        plain = {name: value for name, value in vars(self).items() if name not in ("path", "counted")}
        return plain | {"means": means}
