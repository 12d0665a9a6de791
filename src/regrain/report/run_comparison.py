"""``compare``: compare several runs, with differences paired over the same samples or seeds."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.checks import Seed
from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest
from regrain.evaluation.results import figure_text
from regrain.evaluation.retrieval import per_query
from regrain.metrics import bootstrap_interval, mean_interval
from regrain.report.build import curves_of
from regrain.report.content import Chart, Line
from regrain.report.figures import write_charts
from regrain.report.page import chart_payload, render, require_packages
from regrain.runs.evaluations import evaluation_of
from regrain.runs.run import Run, get_split
from regrain.runs.source import require_no_reading
from regrain.runs.tables import require_writable
from regrain.runs.verb import verb
from regrain.spelling import command
from regrain.storage.files import require_place, write_text

COSTS = {"seconds": "training, s", "samples_per_second": "samples / s", "peak_memory_mb": "peak memory, MB"}
"""Costs of a run, with their titles."""

_SMALLER_IS_BETTER = ("seconds", "peak_memory_mb", "calibration-error", "tree-distance")
_HEADLINES = re.compile(r"recall@1|map@r|knn@\d+|kmeans-acc|head1-acc|linear")
_NOT_SETTINGS = ("seed", "data.labels_fingerprint")
_OTHER_SAMPLES = "their test samples are not the same, and pairs need the same samples"
_OTHER_LABELS = "the same samples have other labels at level"


@dataclass(frozen=True)
class ComparedFigure:
    """A value or a difference, with an optional 95% interval and the units that it is taken over."""

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""
    count: bool = False

    @property
    def stands_out(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def text(self, *, sign: bool = False) -> str:
        """Format in per cent with the interval; counts unchanged."""
        shown = partial(figure_text, count=self.count, sign=sign)
        between = "" if self.low is None else f" ({shown(self.low)} to {shown(self.high or 0)})"
        return f"{shown(self.value)}{between}"


@dataclass
class Compared:
    """A run, or runs of one recipe with several seeds."""

    name: str
    runs: list[str]
    seeds: list[int]
    # recipe values that differ between the compared runs, by dotted key
    settings: dict[str, Any] = field(default_factory=dict)
    # ``split/level/metric`` -> value; over seeds the mean with its interval
    figures: dict[str, ComparedFigure] = field(default_factory=dict)
    # differences to the first run of the comparison
    differences: dict[str, ComparedFigure] = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)  # see :data:`COSTS`; means over seeds


@dataclass
class Comparison:
    """A comparison of runs."""

    rows: list[Compared]
    reference: str  # name of the row that the others are compared with
    curves: list[Chart]
    notes: list[str]

    @property
    def keys(self) -> list[str]:
        """All ``split/level/metric``, in the order of the evaluations."""
        return list(dict.fromkeys(key for row in self.rows for key in row.figures))

    @property
    def headlines(self) -> list[str]:
        """The keys that tables show first: the best known metric of each kind; all of them if there is none."""
        return [key for key in self.keys if _HEADLINES.fullmatch(key.rsplit("/", 1)[1])] or self.keys

    @property
    def settings(self) -> list[str]:
        """Keys of the recipe that differ."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    def sorted_by(self, key: str) -> list[Compared]:
        """Sort the rows, best first; rows without the figure come last.

        Parameters
        ----------
        key : str
            ``split/level/metric``, its end from a slash on, or one of :data:`COSTS`.

        Raises
        ------
        UserError
            If no row has the figure, or the key matches several figures.
        """
        if key in COSTS:
            sign = 1 if key in _SMALLER_IS_BETTER else -1
            return sorted(self.rows, key=lambda row: (key not in row.cost, sign * row.cost.get(key, 0)))
        meant = [known for known in self.keys if known == key or known.endswith(f"/{key}")]
        if len(meant) != 1:
            why = f"means {', '.join(meant)}" if meant else nearest(key, [*self.keys, *COSTS])
            raise UserError(f"--sort {key}: one figure of the runs was expected; {why}")
        figure = meant[0]
        sign = 1 if figure.rpartition("/")[2] in _SMALLER_IS_BETTER else -1
        with_figure = [row for row in self.rows if figure in row.figures]
        without = [row for row in self.rows if figure not in row.figures]
        return sorted(with_figure, key=lambda row: sign * row.figures[figure].value) + without

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values."""
        return {"reference": self.reference, "notes": self.notes, "runs": [asdict(row) for row in self.rows]}


@verb
def compare(
    runs: Sequence[Run | str | Path],
    data: Any = None,
    *,
    out: str | Path | None = None,
    figures: str | Path | None = None,
    split: str = "test",
    levels: Sequence[str] | None = None,
    paired: bool = True,
    sort: str | None = None,
    seed: Seed = 0,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda step: None,
    **reading: Any,
) -> Comparison:
    """Compare runs: differing recipe settings, figures with paired differences, and cost.

    Figures come from ``evaluation.json``. Runs whose recipes differ only in the seed share one row, with mean and
    interval over seeds. Differences are to the first run given. They are paired over seeds if both rows share at
    least two, each pair judged on the same samples. Otherwise they are paired over the test samples, which are embedded
    again for recall@1 and MAP@R, with an interval bootstrapped over samples. If neither works, a note says why.

    Parameters
    ----------
    runs : sequence of Run or path
        Run folders; differences are to the first.
    data : optional
        Other data than the runs' own, for paired differences.
    split : str
        The split whose figures are compared.
    levels : sequence of str, optional
        A label level (column) of other data, from coarse to fine.
    paired : bool
        Differences over the same samples, for which data are read.
    sort : str, optional
        Best first by a figure, such as digit/recall@1, or by seconds, samples_per_second, ... See
        :meth:`Comparison.sorted_by`; default the order given.
    seed : int
        Of intervals.
    say : callable
        Called with messages on progress.
    out : path, optional
        A page, .html, with everything.
    figures : path, optional
        A folder for the curves as PNG and SVG.
    overwrite : bool
        Replace the page, and figures.
    **reading
        Of the reader; see :func:`regrain.load`.

    Raises
    ------
    UserError
        If there are fewer than two runs, one is not a run, one comes twice, or the figure to sort by is unknown.

    Examples
    --------
    >>> import tempfile, regrain
    >>> folder = tempfile.TemporaryDirectory()
    >>> def quick(name, rate):
    ...     settings = ["epochs=1", f"learning_rate={rate}"]
    ...     run = regrain.fit("maskcon", "digits", encoder="conv4", out=f"{folder.name}/{name}", settings=settings)
    ...     regrain.evaluate(run, protocols=["recall"])
    ...     return run
    >>> found = compare([quick("slow", 0.001), quick("fast", 0.05)])
    >>> found.settings, found.rows[1].differences["test/digit/recall@1"].over
    (['training.learning_rate'], '445 samples')
    >>> folder.cleanup()
    """
    if out is not None:
        require_writable(Path(out), overwrite, suffixes=(".html",), content="comparisons")
    if figures is not None:
        require_place(Path(figures), "choose another folder for --figures")
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    places = [run.path.resolve() for run in opened]
    if len(set(places)) != len(places) or len(opened) < 2:
        given = ", ".join(str(run.path) for run in opened) or "none"
        raise UserError(f"compare needs two or more different runs; got {given}", code="too_few")
    names = _names(opened)
    notes: list[str] = []
    grouped = _grouped(opened, names, split, notes)
    rows = [row for row, _ in grouped]
    _tell_settings_apart(grouped)
    if data is None:
        require_no_reading(reading)
        if levels is not None:
            raise UserError("levels (--level) name those of other data: leave them out, or give --data")
    found_own = [run.finds_own(data, reading) for run in opened]  # each of them, also after one that does not
    if all(found_own):
        data = None
    dataset = None if data is None else opened[0].read(data, levels=levels, **reading)
    first, first_runs = grouped[0]
    seen: dict[Path, tuple[Dataset, Tensor]] = {}

    def embedded(run: Run) -> tuple[Dataset, Tensor]:
        if run.path not in seen:
            parts, where = run.splits_of(dataset, split, [])
            judged = run.fitting(get_split(parts, split, where))
            seen[run.path] = judged, run.embed(judged)
        return seen[run.path]

    for row, own in grouped[1:]:
        common = sorted(set(first.seeds) & set(row.seeds))
        if len(common) >= 2 and dataset is None:
            try:
                row.differences = _over_seeds(first_runs, own, common, split)
            except UserError as error:
                notes.append(f"{row.name} has no paired differences: {error}")
        elif paired:
            couple = [_of_seed(first_runs, common), _of_seed(own, common)]
            say(f"{row.name}: differences over samples")
            try:
                row.differences = _over_samples(embedded(couple[0]), embedded(couple[1]), split, seed)
            except UserError as error:
                if error.code == "unknown_split" and not any(found.figures for found in rows):
                    raise
                notes.append(f"{row.name} has no paired differences: {error}")
            if row.differences and max(len(first.seeds), len(row.seeds)) > 1:
                between = " and ".join(f"{run.path} (seed {run.recipe['seed']})" for run in couple[::-1])
                why = "fewer than two seeds in common" if dataset is None else "other data are judged by one run a row"
                notes.append(f"{row.name}: {why}; differences are of {between}, over samples")
    comparison = Comparison(rows, first.name, _curves(opened, names), notes)
    if sort is not None:
        comparison.rows = comparison.sorted_by(sort)
    write_comparison(comparison, out, figures=figures, overwrite=overwrite)
    return comparison


def write_comparison(
    comparison: Comparison, out: str | Path | None = None, *, figures: str | Path | None = None, overwrite: bool = False
) -> None:
    """Write the page of a comparison, and its charts as PNG and SVG.

    Parameters
    ----------
    out : path, optional
        The ``.html`` file.
    figures : path, optional
        A folder.
    overwrite : bool
        Replace existing files.

    Raises
    ------
    UserError
        If a file would be overwritten, or a package of the extra ``report`` is missing.
    """
    require_packages(*(["jinja2"] if out is not None else []), *(["matplotlib"] if figures is not None else []))
    if figures is not None:
        write_charts(comparison.curves, Path(figures), overwrite=overwrite)
    if out is not None:
        require_writable(Path(out), overwrite, suffixes=(".html",), content="comparisons")
        charts = {f"curve-{n}": chart_payload(chart) for n, chart in enumerate(comparison.curves)}
        names = list(dict.fromkeys(line.name for chart in comparison.curves for line in chart.lines))
        page = render("compare.html", {"charts": charts, "names": names}, comparison=comparison, costs=COSTS)
        write_text(Path(out), page)


def _names(runs: Sequence[Run]) -> list[str]:
    """Folder names, or paths if two folders share a name."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


def _grouped(
    runs: Sequence[Run], names: Sequence[str], split: str, notes: list[str]
) -> list[tuple[Compared, list[Run]]]:
    """Group runs into rows: one recipe per row, one run per seed."""
    groups: dict[str, dict[int, int]] = {}
    for index, run in enumerate(runs):
        seeds = groups.setdefault(repr(sorted(_flat(run.recipe).items())), {})
        first = seeds.setdefault(int(run.recipe["seed"]), index)
        if first != index:
            notes.append(f"{names[index]} is left out: recipe and seed are those of {names[first]}")
    result = []
    for members in groups.values():
        own = [runs[index] for index in members.values()]
        name = names[next(iter(members.values()))] + (f" ({len(own)} seeds)" if len(own) > 1 else "")
        row = Compared(name, [str(run.path) for run in own], list(members))
        row.figures = _mean([_figures(run, split) for run in own])
        costs = [_cost(run) for run in own]
        row.cost = {key: statistics.fmean(c[key] for c in costs) for key in COSTS if all(key in c for c in costs)}
        result.append((row, own))
    _tell_what_was_judged([run for _, own in result for run in own], split, notes)
    return result


def _tell_what_was_judged(runs: Sequence[Run], split: str, notes: list[str]) -> None:
    """Add notes on missing figures and on figures of different samples."""
    counts = set()
    for run in runs:
        if not _figures(run, split):
            named = () if split == "test" else ("--split", split)
            advice = f"`{command('evaluate', run.path, *named)}` makes them"
            notes.append(f"{run.path} has no figures of the split '{split}': {advice}")
            continue
        evaluation = evaluation_of(run.folder, split)
        assert evaluation is not None
        counts.add(evaluation["samples"])
        if not evaluation["own_data"]:
            notes.append(f"{run.path} was evaluated on other data than its own: {evaluation['data']}")
    if len(counts) > 1:
        said = ", ".join(map(str, sorted(counts)))
        notes.append(f"these runs were judged on different samples ({said} of them): figures do not compare")


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a recipe to dotted keys, leaving out entries that are not settings."""
    result: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{prefix}{key}"
        if name not in _NOT_SETTINGS:
            result |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return result


def _tell_settings_apart(grouped: Sequence[tuple[Compared, list[Run]]]) -> None:
    flat = [_flat(own[0].recipe) for _, own in grouped]
    keys = list(dict.fromkeys(key for recipe in flat for key in recipe))
    for (row, _), recipe in zip(grouped, flat, strict=True):
        row.settings = {key: recipe.get(key) for key in keys if any(r.get(key) != flat[0].get(key) for r in flat)}


def _figures(run: Run, split: str) -> dict[str, ComparedFigure]:
    evaluation = evaluation_of(run.folder, split)
    found = {}
    for row in [] if evaluation is None else evaluation["rows"]:
        score = row["score"]
        if row["representation"] == "model" and not score["detail"]:
            own = ComparedFigure(score["value"], score["low"], score["high"], score["over"], score["count"])
            found[f"{split}/{row['level']}/{row['metric']}"] = own
    return found


def _mean(figures: Sequence[Mapping[str, ComparedFigure]]) -> dict[str, ComparedFigure]:
    """Figures of one run, or means over seeds."""
    if len(figures) == 1:
        return dict(figures[0])
    keys = [key for key in figures[0] if all(key in f for f in figures)]
    return {key: _figure([f[key].value for f in figures], figures[0][key].count) for key in keys}


def _figure(values: Sequence[float], count: bool, *, difference: bool = False) -> ComparedFigure:
    return ComparedFigure(*mean_interval(values, share=not (count or difference)), f"{len(values)} seeds", count)


def _cost(run: Run) -> dict[str, float]:
    rows = run.folder.read_metrics()
    found: dict[str, float] = {}
    if rows and all("seconds" in row for row in rows):
        found["seconds"] = sum(row["seconds"] for row in rows)
    for key, gather in (("samples_per_second", statistics.median), ("peak_memory_mb", max)):
        values = [row[key] for row in rows if key in row]
        if values:
            found[key] = float(gather(values))
    return found


def _over_seeds(
    first: Sequence[Run], own: Sequence[Run], common: Sequence[int], split: str
) -> dict[str, ComparedFigure]:
    """Differences between runs of the same seed: mean and Student's interval over seeds."""
    sides = [{run.recipe["seed"]: run for run in side} for side in (first, own)]
    couples = [(sides[0][seed], sides[1][seed]) for seed in common]
    for one, other in couples:
        _require_same_judged(one, other, split)
    pairs = [(_figures(one, split), _figures(other, split)) for one, other in couples]
    keys = [key for key in pairs[0][0] if all(key in a and key in b for a, b in pairs)]
    return {
        key: _figure([b[key].value - a[key].value for a, b in pairs], pairs[0][0][key].count, difference=True)
        for key in keys
    }


def _require_same_judged(one: Run, other: Run, split: str) -> None:
    """Refuse figures of other samples or labels."""
    found = [evaluation_of(run.folder, split) for run in (one, other)]
    judged = [content["judged"] for content in found if content is not None]
    if len(judged) < 2:
        return  # no figures of this split to pair; another note reports it
    if judged[0]["samples"] != judged[1]["samples"]:
        raise UserError(f"{_OTHER_SAMPLES} (seed {one.recipe['seed']})", code="other_data")
    for level, labels in judged[0]["labels"].items():
        if judged[1]["labels"].get(level, labels) != labels:
            raise UserError(f"{_OTHER_LABELS} '{level}' (seed {one.recipe['seed']})", code="other_data")


def _of_seed(runs: Sequence[Run], seeds: Sequence[int]) -> Run:
    """Pick the run of a seed that both rows have, else the first run."""
    return next((run for run in runs if run.recipe["seed"] in seeds), runs[0])


def _over_samples(
    first: tuple[Dataset, Tensor], other: tuple[Dataset, Tensor], split: str, seed: int
) -> dict[str, ComparedFigure]:
    """Differences query by query, from embeddings of the same samples."""
    judged, theirs = first[0], other[0]
    if judged.ids.tolist() != theirs.ids.tolist():
        raise UserError(_OTHER_SAMPLES, code="other_data")
    found: dict[str, ComparedFigure] = {}
    for level in judged.labels.levels:
        if level not in theirs.labels.levels:
            continue
        if judged.labels.column(level) != theirs.labels.column(level):
            raise UserError(f"{_OTHER_LABELS} '{level}'", code="other_data")
        codes = judged.labels.level(level)
        values = [_queries(vectors, codes) for vectors in (first[1], other[1])]
        for metric in values[0]:
            difference = values[1][metric] - values[0][metric]
            mean, low, high = bootstrap_interval(difference, seed=seed)
            found[f"{split}/{level}/{metric}"] = ComparedFigure(mean, low, high, f"{len(difference)} samples")
    if not found:
        raise UserError("no level has two labelled samples of a class there", code="too_few")
    return found


def _queries(vectors: Tensor, codes: Tensor) -> dict[str, Tensor]:
    """Recall@1 and MAP@R query by query; none if no class has two samples."""
    known = codes >= 0
    if int(known.sum()) < 2 or int(torch.bincount(codes[known]).max()) < 2:
        return {}
    return per_query(vectors[known], codes[known], ks=[1])


def _curves(runs: Sequence[Run], names: Sequence[str]) -> list[Chart]:
    """Overlay the runs' curves: a chart for every curve that any run has."""
    charts: dict[tuple[str, str], Chart] = {}
    for run, name in zip(runs, names, strict=True):
        for chart in curves_of(run):
            for line in chart.lines:
                title = chart.title if len(chart.lines) == 1 else f"{chart.title}: {line.name}"
                own = charts.setdefault((title, line.name), Chart(title, chart.y, []))
                own.lines.append(Line(name, line.x, line.y))
    return list(charts.values())
