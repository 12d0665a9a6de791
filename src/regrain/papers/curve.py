"""Measure a method on a poorer training split: fewer samples (``low-data``) or wrong labels (``label-noise``).

An experiment's folder holds ``plan.json`` (the request), a run folder for each value and seed (``1000-s0``) and
``curve.json`` (the results).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrain.checks import Count
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import Score, chosen_protocols
from regrain.runs.assemble import assemble
from regrain.runs.evaluations import keep_evaluation
from regrain.runs.run import Run, get_split
from regrain.runs.source import split_dataset
from regrain.runs.verb import verb
from regrain.storage.files import Folder
from regrain.storage.plans import begin_plan
from regrain.training.device import Device
from regrain.verbs.evaluate import evaluate_run
from regrain.verbs.finished import finished_run
from regrain.verbs.fit import fit, plan_fit

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Curve:
    """Results of an experiment.

    Attributes
    ----------
    path : Path
    method : str
    corruption : str
        The field of :class:`~regrain.data.corruption.Corruption` that was varied.
    values : tuple of float
    seeds : tuple of int
        Seeds of the trainings; each has its own draw too.
    figures : tuple of tuple of mapping
        For each value and seed, the figures by key (``split/level/metric``, with ``.NAME`` for a baseline).
    counted : frozenset of str
        Keys of figures that are counts, not shares.
    notes : tuple of str
    """

    path: Path
    method: str
    corruption: str
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    figures: tuple[tuple[Mapping[str, float], ...], ...]
    counted: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def scores(self) -> dict[str, list[Score]]:
        """Means over seeds at each value, by figure key; only keys that every training has."""
        shared = set.intersection(*(set(flat) for seeds in self.figures for flat in seeds))
        ordered = [key for key in self.figures[0][0] if key in shared]
        return {
            key: [
                Score.mean([flat[key] for flat in seeds], "seeds", count=key in self.counted) for seeds in self.figures
            ]
            for key in ordered
        }

    def to_frame(self) -> pd.DataFrame:
        """A row a figure and value of ``corruption``: the mean over seeds, and its interval."""
        import pandas as pd

        rows = [
            {"figure": key, self.corruption: value, "mean": score.value, "low": score.low, "high": score.high}
            for key, scores in self.scores().items()
            for value, score in zip(self.values, scores, strict=True)
        ]
        return pd.DataFrame(rows)

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``curve.json``."""
        means = {
            key: [{"mean": s.value, "low": s.low, "high": s.high} for s in scores]
            for key, scores in self.scores().items()
        }
        plain = {name: value for name, value in vars(self).items() if name not in ("path", "counted")}
        return plain | {"means": means}


@verb
def low_data(method: str, data: Any, *, sizes: Sequence[int], out: str | Path, **options: Any) -> Curve:
    """Train a method on fewer and fewer samples, and evaluate each model on the whole test split.

    Every training seed draws its own samples; within one draw, a smaller set is a subset of a larger one. The same call
    continues where an earlier one stopped, and may ask for more sizes and seeds.

    Parameters
    ----------
    method, data
        As in :func:`fit`.
    sizes : sequence of int
        Numbers of training samples, such as 1000,5000.
    out : path
        The folder; repeat the command to continue in it. See :mod:`regrain.papers.curve`.
    **options
        ``seeds`` (default 3), ``protocols`` (default linear), ``judging`` (``options`` of :func:`evaluate`),
        ``baselines``, ``device``, ``on_run``, and those of :func:`fit`: levels, encoder, pretrained, frozen, recipe,
        settings, seed, holdout, what else corrupts the training split, and the reader's.

    Raises
    ------
    UserError
        If the data have fewer samples, a training or the evaluation is not possible, or ``out`` holds another
        experiment.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> asked = {"encoder": "identity", "settings": ["epochs=1"], "seeds": 2, "baselines": False}
    >>> found = low_data("multi-ce", "digits", sizes=[50, 200], out=folder.name, **asked)
    >>> few, more = found.scores()["test/digit/linear"]
    >>> few.value < more.value, few.over
    (True, 'seeds')
    >>> folder.cleanup()
    """
    return _curve(method, data, "samples", sizes, Path(out), **options)


@verb
def label_noise(method: str, data: Any, *, rates: Sequence[float], out: str | Path, **options: Any) -> Curve:
    """Train a method with more and more wrong labels, and evaluate each model on the test split, which has none.

    Parameters
    ----------
    out : path
        The folder; repeat the command to continue in it.
    method, data, **options
        As in :func:`low_data`; ``noise_within`` names a level: wrong labels stay within its classes.
    rates : sequence of float
        Shares of the labels that are replaced by random ones, such as 0,0.3,0.5.

    Raises
    ------
    UserError
        As in :func:`low_data`.
    """
    return _curve(method, data, "label_noise", rates, Path(out), **options)


def _curve(
    method: str,
    data: Any,
    corruption: str,
    values: Sequence[float],
    place: Path,
    *,
    seeds: Count = 3,
    protocols: Sequence[str] = ("linear",),
    judging: Mapping[str, Any] | None = None,
    baselines: bool = True,
    device: Device = "auto",
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Curve:
    """Train on an increasingly corrupted training split, and evaluate each model on the whole test split.

    Parameters
    ----------
    seeds : int
        Trainings, each on another draw, for every value.
    protocols : sequence of str
        Protocols of `regrain evaluate`.
    baselines : bool
        Evaluate raw inputs, random weights and the majority class too.
    """
    if seeds < 1 or not values:
        raise UserError(f"an experiment needs a value and a seed at least; got {len(values)} and {seeds}")
    if options.get(corruption) is not None:
        raise UserError(f"{corruption} is what the experiment varies: leave out the option of that name")
    for protocol in chosen_protocols(protocols, judging or {}):
        if protocol.other_data:
            raise UserError(
                f"{protocol.name} is for other data: use `regrain evaluate RUN --data ... -p {protocol.name}` on runs"
            )
    plan = plan_fit(method, data, **options)
    section, first = plan.recipe["data"], plan.recipe.get("seed", 0)
    shared = {name: values for name, values in plan.recipe.items() if name not in ("data", "seed")}
    numbers = tuple(range(first, first + seeds))
    folders = {value: f"{value:.12g}" for value in values}
    if len(set(folders.values())) < len(values):
        raise UserError(f"two of the values {', '.join(folders.values())} are the same in twelve digits")

    def corrupted(value: float, seed: int) -> dict[str, Dataset]:
        varied = section | {corruption: value, "draw": section["draw"] + seed}
        return split_dataset(plan.dataset, plan.recipe | {"data": varied})

    for value in values:  # raise errors before any training
        splits = corrupted(value, first)
        get_split(splits, "test", plan.dataset.name, option=None)
        assemble(plan.recipe, splits["train"].with_levels(section["levels"]))
    circumstances = {"recipe": shared, "data": section, "labels": plan.training.labels.fingerprint()}
    begin_plan(place, {"plan": {"varied": corruption}, "circumstances": circumstances}, "experiment")
    figures, counted, notes = [], set(), []
    recipe = shared | {"data": {"roles": section["roles"]}}
    again: dict[str, Any] = {"recipe": recipe, "holdout": 0, "device": device, "overwrite": True}
    for value in values:
        judged = []
        for seed in numbers:
            splits = corrupted(value, seed)
            train, test = splits["train"], splits["test"]
            seen = train.with_levels(section["levels"])
            folder = place / f"{folders[value]}-s{seed}"
            run = finished_run(folder, partial(fit, method, seen, out=folder, seed=seed, **again), seen, device, on_run)
            chosen = {"protocols": list(protocols), "options": judging, "seed": 0, "levels": None}
            found = evaluate_run(run, test, train, [], baselines=baselines, **chosen)
            keep_evaluation(run.folder, found, data=plan.dataset.name, own_data=True)
            shown = [row for row in found.rows if not row.score.detail]
            judged.append({row.key: row.score.value for row in shown})
            counted |= {row.key for row in shown if row.score.count}
            notes += found.notes
        figures.append(tuple(judged))
    told = tuple(dict.fromkeys(notes))
    result = Curve(place, method, corruption, tuple(values), numbers, tuple(figures), frozenset(counted), told)
    Folder(place).write_json("curve.json", result.to_json())
    return result
