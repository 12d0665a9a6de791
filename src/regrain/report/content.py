"""Content of a report: plain values, from which the page and the figures are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regrain.data.dataset import Dataset


@dataclass(frozen=True)
class Line:
    """A curve: name, x and y values, and an optional interval."""

    name: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Chart:
    """Curves under a title, with the axes' names and units."""

    title: str
    y: str
    lines: list[Line]
    x: str = "epoch"
    log_x: bool = False


@dataclass(frozen=True)
class LevelTable:
    """Figures of one level as shown: a row per metric, a column per representation; ``more`` is folded."""

    level: str
    representations: list[str]
    rows: list[tuple[str, list[str], str]]
    more: list[tuple[str, list[str], str]]


@dataclass(frozen=True)
class Shown:
    """A sample on the page: its row among the judged samples, and its caption."""

    row: int
    caption: str


@dataclass(frozen=True)
class Found:
    """A query's neighbour at one rank; the verdict is right, above (right at a coarser level), wrong or unknown."""

    row: int
    verdict: str
    caption: str
    similarity: float


@dataclass(frozen=True)
class Query:
    """A query and its nearest neighbours."""

    row: int
    caption: str
    found: list[Found]


@dataclass(frozen=True)
class ShownSubclass:
    """A discovered subclass and some of its samples."""

    name: str
    size: int
    words: str
    samples: list[Shown]


@dataclass(frozen=True)
class Confusion:
    """Predictions of one level: ``counts`` (C, C), rows are labels; classes are ordered by their parents.

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
    """The most doubtful labels of one level: sample, given, proposed, score in [0, 1], lowest first.

    Confident learning counts ``counted`` of ``labelled`` as wrong; the rows are labels that another class outscores.
    """

    level: str
    labelled: int
    counted: int
    rows: list[tuple[Shown, str, str, float]]


@dataclass(frozen=True)
class Map:
    """The map of the drawn samples ``rows``; ``means`` holds the class means of every level."""

    rows: np.ndarray
    total: int
    points: np.ndarray
    perplexity: float
    levels: list[tuple[str, tuple[str, ...], np.ndarray]]
    means: list[np.ndarray]


@dataclass
class Content:
    """Everything on the page; ``missing`` gives the reason for each absent section."""

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
