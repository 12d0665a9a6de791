"""Choosing settings by criteria that see no hidden label and no test sample: ranges, trials, and what they gave.

A tuning folder holds ``plan.json`` (what was asked for), ``trials.csv`` (one line a finished trial), ``trials/NNN`` (a
run folder each) and ``best.yaml`` (a recipe with the winner's settings). The same command again goes on where it
stopped, or adds trials where more are asked for.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from regrain.checks import check_values, hyperparameters, is_whole
from regrain.data.cells import escape_formula, unescape_formula
from regrain.errors import UserError, nearest, warn
from regrain.evaluation import CRITERIA
from regrain.methods import method_class
from regrain.runs.recipe import merge, parse_assignments
from regrain.storage.files import read_csv, write_text
from regrain.storage.plans import begin_plan
from regrain.training.options import TrainingOptions

if TYPE_CHECKING:
    import pandas as pd

_SPREAD = 4.0
"""Default range of the learning rate: its default divided and multiplied by this."""

_DEFAULT_RANGES = {"weight": "0.2:1", "soft_temperature": "0.03:0.3:log"}


@dataclass(frozen=True)
class Range:
    """The values a setting may take: listed ones, or an interval."""

    name: str
    """A setting as ``--set`` takes it: ``weight``, ``training.learning_rate``, ``views.presets``."""
    values: tuple[Any, ...] = ()
    """Listed values; empty for an interval."""
    low: float = math.nan
    high: float = math.nan
    """``low``, ``high``: ends of the interval, both included."""
    log: bool = False
    """Whether to draw evenly on a logarithmic scale."""

    @classmethod
    def parse(cls, text: str) -> Range:
        """``NAME=A,B,C``, ``NAME=LOW:HIGH`` or ``NAME=LOW:HIGH:log``; a value may be YAML in brackets.

        Raises a UserError for any other form, or ends in the wrong order.

        Examples
        --------
        >>> Range.parse("weight=0.5,1")
        Range(name='weight', values=(0.5, 1), low=nan, high=nan, log=False)
        >>> Range.parse("learning_rate=0.01:0.1:log").low
        0.01
        """
        name, equals, said = (part.strip() for part in str(text).partition("="))
        form = f"--range takes NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log; got '{text}'"
        if not equals or not name or not said:
            raise UserError(form)
        if ":" not in said:
            try:
                return cls(name, tuple(_number(value) for value in yaml.safe_load(f"[{said}]")))
            except yaml.YAMLError:
                raise UserError(form) from None
        low, high, *scale = said.split(":")
        try:
            ends = float(low), float(high)
        except ValueError:
            raise UserError(form) from None
        if scale not in ([], ["log"]) or not all(map(math.isfinite, ends)):
            raise UserError(form)
        if not ends[0] < ends[1]:
            raise UserError(f"--range {name}: {low} is not below {high}", code="out_of_range")
        if scale and ends[0] <= 0:
            raise UserError(f"--range {name}: a logarithmic range begins above 0; got {low}")
        return cls(name, (), *ends, bool(scale))

    def __str__(self) -> str:
        if self.values:
            return f"{self.name}=" + ",".join(json.dumps(value) for value in self.values)
        return f"{self.name}={self.low:g}:{self.high:g}" + (":log" if self.log else "")

    def place(self, method: str) -> tuple[str, str]:
        """Section and name of the setting."""
        if self.name == "seed":
            raise UserError("--range seed: a seed fixes the draws, and is not a setting to choose: leave it out")
        try:
            ((section, values),) = parse_assignments({self.name: None}, method).items()
        except UserError as error:
            raise UserError(str(error).replace("--set", "--range"), code=error.code) from None
        return section, next(iter(values))

    def is_end(self, value: Any) -> bool:
        """Whether a value lies so near to an end of the interval that the best may lie beyond."""
        if self.values:
            return False
        scale = np.log if self.log else float
        low, high, at = (float(scale(v)) for v in (self.low, self.high, value))
        return not 0.05 < (at - low) / (high - low) < 0.95

    def distribution(self, *, whole: bool) -> Any:
        """Return the distribution for scikit-learn's samplers."""
        from scipy import stats

        if self.values:
            return list(self.values)
        if whole and not self.log:
            return stats.randint(round(self.low), round(self.high) + 1)
        return stats.loguniform(self.low, self.high) if self.log else stats.uniform(self.low, self.high - self.low)


def _number(value: Any) -> Any:
    """YAML takes 1e-3 for a text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def default_ranges(method: str, learning_rate: float) -> list[Range]:
    """Ranges for the settings that matter most and that the method has, around the learning rate in use."""
    known = hyperparameters(method_class(method))
    ranges = [f"{name}={text}" for name, text in _DEFAULT_RANGES.items() if name in known]
    return [Range.parse(text) for text in ranges] + [
        Range("learning_rate", (), learning_rate / _SPREAD, learning_rate * _SPREAD, True)
    ]


@dataclass(frozen=True)
class Plan:
    """A search: which settings, how often, judged by what.

    Raises a UserError for a setting the method does not have, an unknown criterion, less than one trial.

    Examples
    --------
    >>> plan = Plan("maskcon", (Range.parse("weight=0.5,1"), Range.parse("epochs=2:4")), "agreement", trials=2)
    >>> [sorted(settings) for settings in plan.settings()]
    [['epochs', 'weight'], ['epochs', 'weight']]
    """

    method: str
    ranges: tuple[Range, ...]
    criterion: str
    trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.criterion not in CRITERIA:
            raise UserError(
                f"no criterion '{self.criterion}': {nearest(self.criterion, CRITERIA)}", code="unknown_name"
            )
        if self.trials < 1:
            raise UserError(f"a search needs at least one trial; got {self.trials}")
        if not self.ranges:
            raise UserError("a search needs at least one --range, such as --range learning_rate=0.01:0.1:log")
        for given in self.ranges:
            given.place(self.method)
            if [r.name for r in self.ranges].count(given.name) > 1:
                raise UserError(f"--range {given.name} was given twice")
            whole = not given.values and _is_whole(given, self.method)
            for value in given.values or (given.low, given.high):
                _require_allowed(given, round(value) if whole else value, self.method)

    def settings(self) -> list[dict[str, Any]]:
        """The settings of every trial: of lists the grid, in random order, as far as the plan goes; else random draws.

        A longer plan begins with the trials of a shorter one.
        """
        from sklearn.model_selection import ParameterGrid, ParameterSampler

        whole = {r.name: _is_whole(r, self.method) for r in self.ranges}
        space = {r.name: r.distribution(whole=whole[r.name]) for r in self.ranges}
        if all(r.values for r in self.ranges):
            grid = ParameterGrid(space)
            order = np.random.default_rng(self.seed).permutation(len(grid))
            return [dict(grid[place]) for place in order[: self.trials].tolist()]
        drawn = ParameterSampler(space, self.trials, random_state=self.seed)
        return [{n: _plain(v, whole=whole[n]) for n, v in point.items()} for point in drawn]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``plan.json``: everything except the number of trials, which may grow."""
        return {k: v for k, v in asdict(self).items() if k != "trials"} | {"ranges": [str(r) for r in self.ranges]}


def _require_allowed(searched: Range, value: Any, method: str) -> None:
    """Refuse a value that the signature of a setting does not allow."""
    section, name = searched.place(method)
    owners = {"training": TrainingOptions, "method": method_class(method)}
    if section in owners:
        known = {key: parameter for key, parameter in hyperparameters(owners[section]).items() if key == name}
        check_values({name: value}, known, f"--range {method if section == 'method' else section}")


def _is_whole(given: Range, method: str) -> bool:
    """Whether a setting takes whole numbers: by its signature; of encoders and views, where both ends are such."""
    section, _, name = given.name.rpartition(".")
    if section in ("encoder", "views"):
        return given.high > 1 and given.low.is_integer() and given.high.is_integer()
    parameters = {**hyperparameters(TrainingOptions), **hyperparameters(method_class(method))}
    parameter: inspect.Parameter | None = parameters.get(name)
    return parameter is not None and is_whole(parameter.annotation)


def _plain(value: Any, *, whole: bool) -> Any:
    """Numbers as a recipe keeps them, with the digits that matter."""
    if isinstance(value, np.integer) or (whole and isinstance(value, float | np.floating)):
        return round(value)
    return float(f"{value:.3g}") if isinstance(value, float | np.floating) else value


@dataclass(frozen=True)
class Trial:
    """One training of a search."""

    number: int
    settings: dict[str, Any]
    criteria: dict[str, float] = field(default_factory=dict)
    """Criterion -> value, higher is better; empty where the training failed."""
    problem: str = ""
    """Why it failed (a learning rate far too high); such a trial never wins."""


@dataclass
class Tuning:
    """A search and what it gave so far, in a folder."""

    path: Path
    plan: Plan
    trials: list[Trial] = field(default_factory=list)
    """Finished ones."""

    @classmethod
    def open(cls, path: Path, plan: Plan, circumstances: Mapping[str, Any]) -> Tuning:
        """Open a new folder, or one in which the same search was begun.

        Raises a UserError if the folder holds another search, or anything else.

        Parameters
        ----------
        circumstances : mapping
            What else must be equal for trials to compare: fixed settings, data.
        """
        tuning = cls(path, plan)
        if begin_plan(path, {"plan": plan.to_json(), "circumstances": circumstances}, "search"):
            tuning.trials = tuning._read()
            planned = dict(enumerate(plan.settings()))
            if any(planned.get(trial.number) != trial.settings for trial in tuning.trials):
                raise UserError(
                    f"{path} holds a search whose trials are not among the {plan.trials} now planned: choose another "
                    "--out, or at least as many --trials"
                )
        return tuning

    def pending(self) -> list[Trial]:
        """Trials that are still to be trained."""
        done = {trial.number for trial in self.trials}
        return [Trial(n, settings) for n, settings in enumerate(self.plan.settings()) if n not in done]

    def trial_path(self, number: int) -> Path:
        """Return the path of a trial's run folder."""
        return self.path / "trials" / f"{number:03d}"

    def add(self, trial: Trial) -> None:
        """Keep a finished trial."""
        self.trials = sorted([*self.trials, trial], key=lambda t: t.number)
        columns = ["trial", *(r.name for r in self.plan.ranges), *CRITERIA, "problem"]
        lines = [columns] + [
            [
                str(t.number),
                *(json.dumps(t.settings[r.name]) for r in self.plan.ranges),
                *(repr(t.criteria[c]) if c in t.criteria else "" for c in CRITERIA),
                escape_formula(t.problem),
            ]
            for t in self.trials
        ]
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(lines)
        write_text(self.path / "trials.csv", table.getvalue())

    def to_frame(self) -> pd.DataFrame:
        """A row a finished trial: its settings, its criteria, and why it failed where it did."""
        import pandas as pd

        rows = [{"trial": t.number, **t.settings, **t.criteria, "problem": t.problem} for t in self.trials]
        return pd.DataFrame(rows).set_index("trial") if rows else pd.DataFrame()

    def ranked(self) -> list[Trial]:
        """Best first by the plan's criterion; failed ones last."""
        return sorted(self.trials, key=lambda t: -t.criteria.get(self.plan.criterion, -math.inf))

    def conclude(self, recipe: Mapping[str, Any]) -> Trial:
        """Write ``best.yaml``, and warn if the winner is at the end of a range or does not stand out.

        Raises a UserError if every trial failed.

        Parameters
        ----------
        recipe : mapping
            What all trials share; the winner's settings go into it.
        """
        best = self.ranked()[0]
        if not best.criteria:
            raise UserError(f"every trial failed; the first one: {best.problem}")
        content = merge(recipe, parse_assignments(assignments(best.settings), self.plan.method))
        write_text(self.path / "best.yaml", yaml.safe_dump(content, sort_keys=False))
        for given in self.plan.ranges:
            if given.is_end(best.settings[given.name]):
                warn(
                    f"the best {given.name} ({best.settings[given.name]}) lies at an end of its range ({given}): a "
                    "better one may lie beyond"
                )
        values = [t.criteria[self.plan.criterion] for t in self.trials if t.criteria]
        if len(values) > 1 and max(values) - min(values) < 0.01:
            warn(f"all trials lie within 0.01 by {self.plan.criterion}: these ranges hardly matter to it")
        return best

    def _read(self) -> list[Trial]:
        file = self.path / "trials.csv"
        if not file.exists():
            return []
        try:
            return [
                Trial(
                    int(row["trial"]),
                    {r.name: json.loads(row[r.name]) for r in self.plan.ranges},
                    {c: float(row[c]) for c in CRITERIA if row[c]},
                    unescape_formula(row["problem"]),
                )
                for row in read_csv(file)
            ]
        except (KeyError, ValueError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{file} is damaged ({error}): bring it back, or choose another --out", code="damaged_file"
            ) from None


def assignments(settings: Mapping[str, Any]) -> Sequence[str]:
    """Settings as ``--set`` takes them."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]
