"""Run a row of a paper's table, and compare our figures with the paper's, on screen and on a page."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from regrain.errors import MissingDataError, UserError
from regrain.evaluation.multi_aspect import ALL
from regrain.metrics import mean_interval
from regrain.papers.datasets.synthetic import write_synthetic
from regrain.papers.rows import OF_RUN, Recipe, overridden, select_one
from regrain.papers.scales import SCALES, Scale, at_scale
from regrain.runs.recipe import parse_assignments
from regrain.runs.run import Run
from regrain.runs.source import CORRUPTIONS
from regrain.runs.verb import verb
from regrain.storage.files import Finite, read_json, write_text
from regrain.training.device import Device
from regrain.verbs.evaluate import evaluate
from regrain.verbs.finished import finished_run
from regrain.verbs.fit import fit

BASELINES = {
    "majority": "majority class",
    "raw": "raw input",
    "random": "random weights",
    "start": "pretrained start",
}
"""Names of a model's baselines in a table."""


@dataclass(frozen=True)
class Reproduction:
    """Results of a recipe at one scale.

    Attributes
    ----------
    recipe : Recipe
        As published.
    scale : Scale
    seeds : tuple of int
    figures : dict of str to tuple of float
        Title to one figure per seed, in per cent; a title is left out if the data have no such class.
    problem : str
        Why figures are missing; empty if there are figures.
    settings : tuple of str
        Changes to the recipe, as ``key=value``.
    beside : dict of str to dict of str to tuple of float
        Baseline (of :data:`BASELINES`) to its figures, if it was judged too.
    """

    recipe: Recipe
    scale: Scale
    seeds: tuple[int, ...]
    figures: dict[str, tuple[float, ...]]
    problem: str = ""
    settings: tuple[str, ...] = ()
    beside: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that gives these figures, with the data under REGRAIN_DATA."""
        seeds = f" --seeds {len(self.seeds)}" if len(self.seeds) > 1 else ""
        changed = "".join(f" --set {shlex.quote(setting)}" for setting in self.settings)
        return f"regrain reproduce {self.recipe.name} --scale {self.scale}{seeds}{changed}"

    def to_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            "recipe": self.recipe.name,
            "scale": self.scale,
            "seeds": list(self.seeds),
            "settings": list(self.settings),
            "ours": {title: list(values) for title, values in self.figures.items()},
            "paper": self.recipe.figures,
            "baselines": {name: {t: list(values) for t, values in own.items()} for name, own in self.beside.items()},
            "problem": self.problem,
        }


def run_name(recipe: Recipe) -> str:
    """The folder of a training: rows that are trained alike, in whatever table, share it.

    Examples
    --------
    >>> from regrain.papers.rows import recipes
    >>> first, again = (recipes()[f"maskcon/{row}"] for row in ("table2/maskcon", "table10/maskcon-w=1-t=0.05"))
    >>> run_name(first) == run_name(again)
    True
    """
    return f"{recipe.method}-{recipe.data['source']}-{_digest([recipe.data, recipe.sections])}"


def judges_alike(recipe: Recipe) -> str:
    """A key that rows with the same baselines share: data, protocols, columns and encoder."""
    data = {name: value for name, value in recipe.data.items() if name != "levels"}
    encoder = recipe.sections.get("encoder", {}), recipe.view_size
    return _digest([recipe.paper, recipe.table, data, recipe.judge, recipe.metrics, encoder])


def judged_once(recipe: Recipe, run: Path, judge: Any, *, baselines: bool) -> dict[str, dict[str, float]]:
    """Figures of a run by title, from ``judge()``, which gives them by key and is called only once.

    Shares are in per cent, costs in hours and GB. The run folder keeps the figures, in one file for each way to judge.
    ``model`` holds the model's figures; with ``baselines``, the names of :data:`BASELINES` hold the baselines' figures.
    """
    file = run / f"judged-{_digest([recipe.judge, 'baselines'] if baselines else recipe.judge)}.json"
    if not file.exists():
        write_text(file, json.dumps(judge(), indent=1))
    flat: Mapping[str, float] = read_json(file, dict[str, Finite])
    found = {}
    for name, end in {"model": "", **({name: f".{name}" for name in BASELINES} if baselines else {})}.items():
        scales = {title: 1 if key.startswith(OF_RUN) else 100 for title, key in recipe.keys().items()}
        own = {title: scales[title] * flat[key + end] for title, key in recipe.keys().items() if key + end in flat}
        if own or name == "model":
            found[name] = own
    return found


def over_seeds(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    """Format one value in per cent, or several as mean with 95% interval; ``sign`` is for differences.

    Examples
    --------
    >>> over_seeds([61.25]), over_seeds([60.0, 62.0, 64.0])
    ('61.2', '62.0 (56.9 to 66.8)')
    """
    if len(values) < 2:
        return "".join(f"{value:{sign}.{digits}f}" for value in values)
    mean, low, high = (100 * end for end in mean_interval([value / 100 for value in values], share=not sign))
    return f"{mean:{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


class RecipeGroup(NamedTuple):
    """One table: rows of one table of a paper that have the same metrics."""

    title: str
    metrics: tuple[str, ...]
    rows: list[Reproduction]

    def lines(self) -> list[list[str]]:
        """Label and cells of every line: baselines first, then rows with our and the paper's figures by metric."""
        several = sum(bool(row.beside) for row in self.rows) > 1
        beside = [
            [f"{words} ({row.recipe.label})" if several else words, *self._ours(row.beside[name])]
            for row in self.rows
            for name, words in BASELINES.items()
            if name in row.beside
        ]
        return beside + [[row.recipe.label, *self._cells(row)] for row in self.rows]

    def _ours(self, figures: Mapping[str, tuple[float, ...]]) -> list[str]:
        """Means of a baseline, with empty cells for the paper's figures."""
        own = [figures.get(title, ()) for title in self.metrics]
        return [cell for values in own for cell in (f"{sum(values) / len(values):.1f}" if values else "", "")]

    def _cells(self, row: Reproduction) -> list[str]:
        return [
            cell
            for title in self.metrics
            for cell in (
                over_seeds(row.figures.get(title, ()), digits=2 if row.recipe.metrics[title].startswith(OF_RUN) else 1),
                row.recipe.printed(title),
            )
        ]

    def remarks(self) -> list[str]:
        """Notes on the rows, with the rows they concern if not all, and reasons for missing figures."""
        about: dict[str, list[str]] = {}
        for row in self.rows:
            for note in row.recipe.notes:
                about.setdefault(note, []).append(row.recipe.label)
        notes = [
            note if len(labels) == len(self.rows) else f"{'; '.join(dict.fromkeys(labels))}: {note}"
            for note, labels in about.items()
        ]
        problems: dict[str, list[str]] = {}
        for row in self.rows:
            if row.problem:
                problems.setdefault(row.problem, []).append(row.recipe.label)
        return [*notes, *(f"{'; '.join(labels)}: {problem}" for problem, labels in problems.items())]


def grouped(found: Sequence[Reproduction]) -> list[RecipeGroup]:
    """Group the rows by table."""
    groups: dict[tuple[str, tuple[str, ...]], RecipeGroup] = {}
    for row in found:
        recipe = row.recipe
        place = re.sub(r"(?<=[a-z])(?=\d)", " ", recipe.table)
        title = f"{recipe.paper}, {place}: {recipe.title}"
        key = title, tuple(recipe.metrics)
        groups.setdefault(key, RecipeGroup(title, key[1], [])).rows.append(row)
    return list(groups.values())


def markdown(found: Sequence[Reproduction]) -> str:
    """Make a Markdown table for every group: our and the paper's figures by metric, the scale and the commands."""
    parts = []
    for group in grouped(found):
        seeds = max(len(row.seeds) for row in group.rows)
        scale = group.rows[0].scale
        head = ["what", *(cell for title in group.metrics for cell in (f"{title}, ours", "paper"))]
        lines = [head, ["---"] * len(head), *group.lines()]
        parts.append(
            f"### {group.title}\n\nScale `{scale}`, {seeds} seed{'s' * (seeds > 1)}.\n\n"
            + "".join("| " + " | ".join(line) + " |\n" for line in lines)
            + "".join(f"\n- {remark}" for remark in group.remarks())
            + "\n\n```text\n"
            + "\n".join(row.command for row in group.rows)
            + "\n```\n"
        )
    return "\n".join(parts)


def append(file: Path, text: str) -> None:
    """Append a text to a page, under a heading that is added once; the existing text stays."""
    heading = "## Reproductions\n"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if heading not in before:
        before += ("\n" if before else "") + heading
    write_text(file, before.rstrip("\n") + "\n\n" + text)


def _digest(content: Any) -> str:
    plain = json.dumps(content, sort_keys=True, default=list)
    return hashlib.blake2b(plain.encode(), digest_size=4).hexdigest()


@verb
def reproduce(
    recipe: Recipe | str,
    *,
    scale: Scale = "small",
    seeds: int = 1,
    out: str | Path = "runs/reproduce",
    root: str | Path | None = None,
    settings: Sequence[str] = (),
    device: Device = "auto",
    baselines: bool = True,
    on_run: Callable[[Run], None] | None = None,
) -> Reproduction:
    """Run one row of a paper's table, and compare its figures with the paper's.

    Finished trainings under ``out`` are not repeated, and interrupted ones continue. Rows that are trained alike share
    a run, also across tables.

    Parameters
    ----------
    recipe : Recipe or str
        A name of :func:`regrain.papers.rows.recipes`, such as ``maskcon/table2/maskcon``.
    scale : {"tiny", "small", "paper"}
        See :mod:`regrain.papers.scales`; ``tiny`` runs on generated data.
    seeds : int
        Number of trainings, with seeds from 0 upwards.
    out : path
    root : path, optional
        Where the catalogue's data lie; see :func:`load`.
    settings : sequence of str
        ``key=value`` assignments that change the recipe, as ``--set`` takes them.
    device
        As in :func:`fit`.
    baselines : bool
        Whether to judge raw inputs and random weights too, and the majority class for classifiers.
    on_run : callable, optional
        Called with each trained run.

    Returns
    -------
    Reproduction
        Has a ``problem`` if the data are missing or the method is not implemented.

    Raises
    ------
    UserError
        For an unknown recipe or setting.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = reproduce("maskcon/table2/maskcon", scale="tiny", out=folder)
    >>> found.recipe.figures["R@1"], len(found.figures["R@1"])
    (65.52, 1)
    """
    if scale not in SCALES:
        raise UserError(f"no scale '{scale}': choose from {', '.join(SCALES)}")
    if seeds < 1:
        raise UserError(f"a recipe is trained at least once; got seeds={seeds}")
    published = recipe if isinstance(recipe, Recipe) else select_one(recipe)
    if published.absent:
        return Reproduction(published, scale, (), {}, published.absent)
    changed = parse_assignments(settings, published.method)
    scaled = overridden(at_scale(published, scale), changed)
    place = Path(out) / scale
    if scale == "tiny":
        root = place / "data" / "+".join(scaled.needed)
        for name in scaled.needed:
            write_synthetic(name, root)
    reader: dict[str, Any] = {} if root is None else {"root": root}
    data = scaled.data
    figures: dict[str, dict[str, tuple[float, ...]]] = {}
    for seed in range(seeds):
        folder = place / run_name(scaled) / f"s{seed}"
        train_it = partial(
            fit,
            scaled.method,
            data["source"],
            out=folder,
            levels=data.get("levels"),
            recipe=scaled.sections,
            seed=seed,
            draw=seed,
            device=device,
            overwrite=True,
            **{name: data[name] for name in CORRUPTIONS if name in data},
            **data.get("reader", {}),
            **reader,
        )
        try:
            run = finished_run(folder, train_it, None, device, on_run)
            judge = partial(_judged, run, scaled, seed, reader, baselines=baselines)
            found = judged_once(scaled, folder, judge, baselines=baselines)
        except MissingDataError as error:
            return Reproduction(published, scale, (), {}, str(error))
        for name, own in found.items():
            known = figures.setdefault(name, {})
            for title, value in own.items():
                known[title] = (*known.get(title, ()), value)
    ours = figures.pop("model")
    return Reproduction(published, scale, tuple(range(seeds)), ours, settings=tuple(settings), beside=figures)


def _judged(run: Run, recipe: Recipe, seed: int, reader: Mapping[str, Any], *, baselines: bool) -> dict[str, float]:
    """Evaluate a run with the recipe's protocols."""
    judge = recipe.judge
    other = judge.get("data")
    flat = evaluate(
        run,
        other,
        levels=None if judge["level"] == ALL else [judge["level"]],
        protocols=judge["protocols"],
        options=judge.get("options"),
        baselines=baselines,
        unseen_superclasses=judge.get("unseen_superclasses", False),
        seed=seed,
        write=False,
        **(reader | recipe.data.get("reader", {}) if other else {}),
    ).flat()
    return flat | _costs(run)


def _costs(run: Run) -> dict[str, float]:
    """Training hours, peak memory, and size of the training state including queues; in GB."""
    epochs = run.folder.read_metrics()
    whole = run.model.untrained(run.folder.model_folder, 0).method.state_dict().values()
    size = sum(value.numel() * value.element_size() for value in whole if isinstance(value, torch.Tensor))
    costs = {"hours": sum(epoch["seconds"] for epoch in epochs) / 3600, "size": size / 1e9}
    peaks = [epoch["peak_memory_mb"] for epoch in epochs if "peak_memory_mb" in epoch]
    return {
        f"{OF_RUN}{name}": value for name, value in (costs | ({"memory": max(peaks) / 1e3} if peaks else {})).items()
    }
