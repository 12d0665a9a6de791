"""What a report shows: plain values, from which the page and the figures are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regrain.data.dataset import Dataset


@dataclass(frozen=True)
class Line:
    """A curve: its name, places and values, and where there is one the interval."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Chart:
    """Curves under a title, with what the axes are and their units."""

    title: str
    y: str
    lines: list[Line]
    x: str = "epoch"
    log_x: bool = False


@dataclass(frozen=True)
class LevelTable:
    """Figures of one level: a row a metric, a column a representation; numbers as they are shown."""

    level: str
    representations: list[str]
    rows: list[tuple[str, list[str], str]]


@dataclass(frozen=True)
class Shown:
    """A sample on the page: its row among those judged, and what is written under it."""

    row: int
    caption: str


@dataclass(frozen=True)
class Found:
    """What a query retrieved at one rank; the verdict is right, above (right one level up or more), wrong, unknown."""

    row: int
    verdict: str
    caption: str
    similarity: float


@dataclass(frozen=True)
class Query:
    """A query and its nearest others."""

    row: int
    caption: str
    found: list[Found]


@dataclass(frozen=True)
class ShownSubclass:
    """A discovered subclass: some of its samples."""

    name: str
    size: int
    words: str
    samples: list[Shown]


@dataclass(frozen=True)
class Confusion:
    """Predictions of one level: ``counts`` (C, C), rows are labels; classes in the order of those above them.

    ``above`` names the class one level up (empty without one); ``within`` is the share of the errors that stay in it;
    ``pairs`` are the most frequent errors: label, prediction, count, share of the label's samples, whether they share
    the class above.
    """

    level: str
    by: str
    classes: list[str]
    above: list[str]
    counts: np.ndarray
    accuracy: float
    within: float | None
    pairs: list[tuple[str, str, int, float, bool | None]]


@dataclass(frozen=True)
class Doubt:
    """The labels of one level that are most doubtful: sample, given, proposed, score in [0, 1], lowest first.

    ``counted`` of ``labelled`` are counted as wrong by confident learning; the rows are those another class outdoes.
    """

    level: str
    labelled: int
    counted: int
    rows: list[tuple[Shown, str, str, float]]


@dataclass(frozen=True)
class Map:
    """The map of the drawn samples ``rows``; the means of every level's classes lie in ``means``."""

    rows: np.ndarray
    total: int
    points: np.ndarray
    perplexity: float
    levels: list[tuple[str, tuple[str, ...], np.ndarray]]
    means: list[np.ndarray]


@dataclass
class Content:
    """Everything on the page. ``missing`` says in one line why a section is not there."""

    title: str
    split: str
    judged: Dataset
    about: list[tuple[str, str]]
    recipe: str
    versions: dict[str, str | None]
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    curves: list[Chart] = field(default_factory=list)
    metrics: list[LevelTable] = field(default_factory=list)
    verdict: list[str] = field(default_factory=list)
    map: Map | None = None
    queries: list[Query] = field(default_factory=list)
    retrieved: str = ""
    groups: list[ShownSubclass] = field(default_factory=list)
    grouped: str = ""
    confusions: list[Confusion] = field(default_factory=list)
    few_shot: list[Chart] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
