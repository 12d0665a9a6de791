"""Verbs that train several runs to answer one question."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from regrain.api.data import request_of
from regrain.api.judging import evaluate, judge_run
from regrain.api.training import finished_run, fit, trained_once
from regrain.data.catalog.synthetic import write_synthetic
from regrain.data.dataset import Dataset
from regrain.errors import MissingDataError, UserError
from regrain.evaluation import CRITERIA, criterion_values, obstacles, require_protocols
from regrain.evaluation.multi_aspect import ALL
from regrain.methods import method_class
from regrain.tasks import Curve, Isotropy, Trial, Tuning
from regrain.tasks.isotropy import Fate, Move, fate_of
from regrain.tasks.plans import begin_plan
from regrain.tasks.recipes import Recipe, overridden, select_one
from regrain.tasks.reproduce import Reproduction, judged_once, run_name
from regrain.tasks.run import Run, part_named
from regrain.tasks.scales import SCALES, Scale, at_scale
from regrain.tasks.tune import Plan, Range, assignments, default_ranges
from regrain.training.assemble import assemble, roles_of
from regrain.training.loop import Device
from regrain.training.recipe import parse_assignments
from regrain.training.source import IMPAIRMENTS, own_parts
from regrain.training.store import RunFolder

__all__ = ["isotropy", "label_noise", "low_data", "reproduce", "tune"]


def tune(
    method: str,
    data: Any,
    *,
    ranges: Sequence[str] = (),
    criterion: str = "agreement",
    trials: int = 12,
    validation: float = 0.2,
    out: str | Path | None = None,
    device: Device = "auto",
    on_trial: Callable[[Trial], None] | None = None,
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Tuning:
    """Choose settings by a criterion that sees no hidden label and no test sample.

    The training split alone is used: a part of it (whole groups, or samples in the shares of the coarse classes) is
    kept from training and judges every trial. Levels but the first and those that the method reads are taken away
    before anything. The same call goes on where an earlier one stopped.

    Parameters
    ----------
    method, data
        As in :func:`fit`.
    ranges : sequence of str
        See :meth:`regrain.tasks.Range.parse`; default: the learning rate, and w and the soft temperature where the
        method has them.
    criterion : {"agreement", "coarse-knn", "stability"}
        See :mod:`regrain.evaluation.criteria`; all are computed, this one chooses.
    trials : int
    validation : float
        Share of the training split that judges.
    out : path, optional
        Default ``runs/tune-METHOD-DATA``.
    on_trial : callable, optional
        Called with each finished trial.
    on_run : callable, optional
        Called with each trial's run that was trained to its end.
    device
        As in :func:`fit`.
    **options
        Of :func:`fit`: levels, encoder, pretrained, frozen, recipe, settings, seed, holdout, what impairs the training
        split, split_column, and the reader's. They hold for every trial.

    Returns
    -------
    Tuning
        ``best.yaml`` in its folder is a recipe for :func:`fit`.

    Raises
    ------
    UserError
        For a range, criterion or option that cannot work, a method that does not train the encoder, or when every trial
        failed.
    """
    chosen = method_class(method)
    if not chosen.trains_encoder:
        raise UserError(
            f"tune judges embeddings, and {chosen.name} leaves them as the encoder gives them: no learning rate or "
            "weight changes them. Choose the encoder by `regrain evaluate`, and the number of classes by `regrain "
            f"discover RUN --estimate-classes`; then `regrain fit {chosen.name} DATA --set subclasses=N`"
        )
    request = request_of(method, data, **options)
    shared = {section: values for section, values in request.recipe.items() if section != "data"}
    in_use = request.recipe["data"]["levels"]
    roles = roles_of(method_class(method), in_use)
    seen = request.training.with_levels(list(dict.fromkeys([*in_use[:1], *roles.values()])))
    stratify = seen.labels.levels[0] if seen.labels.levels and seen.groups is None else None
    train_part, validation_part = seen.split(validation, stratify=stratify)
    resolved = assemble(request.recipe, train_part)  # what cannot work in any trial is said before the first
    parsed = [Range.parse(text) for text in ranges] or default_ranges(method, resolved.options.learning_rate)
    plan = Plan(method, tuple(parsed), criterion, trials, request.recipe.get("seed", 0))
    hindered = obstacles(train_part, validation_part)
    if criterion in hindered:
        others = " or ".join(name for name in CRITERIA if name not in hindered)
        raise UserError(f"{criterion} {hindered[criterion]}: choose {others}")
    place = Path(out) if out is not None else Path("runs") / f"tune-{method}-{request.dataset.name}"
    circumstances = {"recipe": shared, "data": request.recipe["data"], "validation": validation}
    tuning = Tuning.open(place, plan, circumstances)
    for trial in tuning.pending():
        folder = tuning.trial_path(trial.number)
        try:
            run = fit(
                method,
                train_part,
                out=folder,
                recipe=shared,
                settings=assignments(trial.settings),
                holdout=0,
                device=device,
                overwrite=True,
            )
        except UserError as error:
            done = replace(trial, problem=str(error))
        else:
            done = replace(trial, criteria=criterion_values(run.model, train_part, validation_part, seed=plan.seed))
            run.folder.checkpoint_file.unlink(missing_ok=True)
            if on_run is not None:
                on_run(run)
        tuning.add(done)
        if on_trial is not None:
            on_trial(done)
    kept = ("reader", "levels", "holdout", *IMPAIRMENTS)
    tuning.conclude(shared | {"data": {key: request.recipe["data"][key] for key in kept}})
    return tuning


def isotropy(
    method: str,
    data: Any,
    *,
    subclass: str,
    to: str,
    out: str | Path,
    seeds: int = 1,
    device: Device = "auto",
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Isotropy:
    """Train with a subclass's labels as they are, and moved to another superclass: where do its test samples go.

    The experiment of SCLRE's table 5: the training labels of one class of the finest level are moved to another class
    of the coarsest, everything else is equal. A method that reads no labels is trained once, and judged by both. The
    same call goes on where an earlier one stopped, and may ask for more seeds.

    Parameters
    ----------
    method, data
        As in :func:`fit`; a method that reads superclass labels, or none.
    subclass : str
        A class of the last of the levels in use.
    to : str
        The class of the first of the levels that it is moved to.
    out : path
        The folder: see :mod:`regrain.tasks.isotropy`.
    seeds : int
        Trainings with each labelling, of the seeds from ``seed`` upwards.
    on_run : callable, optional
        Called with each finished run.
    device
        As in :func:`fit`.
    **options
        Of :func:`fit`: levels, encoder, pretrained, frozen, recipe, settings, seed, holdout, what impairs the training
        split, split_column, and the reader's.

    Raises
    ------
    UserError
        If the method reads finer labels, the data have no such classes, the subclass lies under the superclass already,
        there is nothing to compare, or another experiment lies at ``out``.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> asked = {"encoder": "conv4", "settings": ["epochs=1"], "limit_per_class": 20, "out": folder.name}
    >>> found = isotropy("sup-ce", "digits", subclass="8", to="straight", **asked)
    >>> found.move.origin, found.samples, sorted(found.figures()["moved"])
    ('loop', 43, ['accuracy', 'new', 'others', 'own'])
    >>> folder.cleanup()
    """
    chosen = method_class(method)
    if chosen.needs.levels not in ((), ("coarse",)):
        raise UserError(
            f"{chosen.name} reads labels of finer levels, and isotropy moves superclass labels alone: choose a method "
            "that reads those, such as sup-ce or maskcon, or none, such as simclr"
        )
    if seeds < 1:
        raise UserError(f"isotropy needs at least one seed; got {seeds}")
    request = request_of(method, data, **options)
    train, in_use = request.training, request.recipe["data"]["levels"]
    test = part_named(own_parts(request.dataset, request.recipe["data"]), "test", request.dataset.name)
    move = Move.of(train, test, in_use, subclass, to)
    labelled = {"given": train.with_levels([move.superclass_level]), "moved": move.apply(train)}
    assemble(request.recipe, labelled["moved"])  # what cannot work is said before anything is trained
    shared = {section: values for section, values in request.recipe.items() if section not in ("data", "seed")}
    place, first = Path(out), request.recipe.get("seed", 0)
    circumstances = {"recipe": shared, "data": request.recipe["data"], "labels": train.labels.fingerprint()}
    begin_plan(place, {"plan": asdict(move), "circumstances": circumstances}, "experiment")
    fates: dict[str, list[Fate]] = {name: [] for name in labelled}
    for number in range(first, first + seeds):
        for name, training in labelled.items():
            folder = place / (f"s{number}-{name}" if chosen.needs.levels else f"s{number}")
            run = trained_once(chosen.name, training, folder, shared, number, device, on_run)
            fates[name].append(fate_of(run, training, test, move))
    members = move.members(test)
    result = Isotropy(
        place,
        chosen.name,
        "own classifier" if run.model.method.has_classifier else "logistic regression on the training embeddings",
        move,
        int(members.sum()),
        int((test.labels.level(move.superclass_level)[~members] >= 0).sum()),
        tuple(range(first, first + seeds)),
        tuple(fates["given"]),
        tuple(fates["moved"]),
    )
    RunFolder(place).write_json("isotropy.json", result.to_json())
    return result


def low_data(method: str, data: Any, *, sizes: Sequence[int], out: str | Path, **options: Any) -> Curve:
    """Train on ever fewer samples, and judge: the protocol ``low-data`` (MLCL, AISTATS 2025, table 3).

    Every seed of the training has a draw of its own, ``draw`` plus the seed; of one draw, the smaller set lies in the
    larger. The same call goes on where an earlier one stopped, and may ask for more sizes and seeds.

    Parameters
    ----------
    method, data
        As in :func:`fit`.
    sizes : sequence of int
        Numbers of training samples.
    out : path
        The folder: see :mod:`regrain.tasks.curve`.
    **options
        ``seeds`` (default 3), ``protocols`` (default linear), ``judging`` (``options`` of :func:`evaluate`),
        ``baselines``, ``device``, ``on_run``, and those of :func:`fit`: levels, encoder, pretrained, frozen, recipe,
        settings, seed, holdout, what else impairs the training split, split_column, and the reader's.

    Raises
    ------
    UserError
        If the data have fewer samples, a training or the judging is not possible, or another experiment lies at
        ``out``.

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


def label_noise(method: str, data: Any, *, rates: Sequence[float], out: str | Path, **options: Any) -> Curve:
    """Train on labels that are wrong in ever more places, and judge: the protocol ``label-noise`` (MLCL, table 5).

    Parameters
    ----------
    method, data, out, **options
        As in :func:`low_data`; ``noise_within`` names the level whose classes wrong labels do not leave.
    rates : sequence of float
        Shares of the training labels that are drawn anew, in [0, 1].

    Raises
    ------
    UserError
        As in :func:`low_data`.
    """
    return _curve(method, data, "label_noise", rates, Path(out), **options)


def _curve(
    method: str,
    data: Any,
    impairment: str,
    values: Sequence[float],
    place: Path,
    *,
    seeds: int = 3,
    protocols: Sequence[str] = ("linear",),
    judging: Mapping[str, Any] | None = None,
    baselines: bool = True,
    device: Device = "auto",
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Curve:
    """Trainings on a training split that is impaired more and more, each judged on the whole test split."""
    if seeds < 1 or not values:
        raise UserError(f"an experiment needs a value and a seed at least; got {len(values)} and {seeds}")
    if options.get(impairment) is not None:
        raise UserError(f"{impairment} is what the experiment varies: leave out the option of that name")
    require_protocols(protocols)
    if "transfer" in protocols:
        raise UserError("transfer judges on other data: use `regrain evaluate RUN --data ... -p transfer` on the runs")
    request = request_of(method, data, **options)
    section, first = request.recipe["data"], request.recipe.get("seed", 0)
    shared = {name: values for name, values in request.recipe.items() if name not in ("data", "seed")}
    numbers = tuple(range(first, first + seeds))
    folders = {value: f"{value:.12g}" for value in values}
    if len(set(folders.values())) < len(values):
        raise UserError(f"two of the values {', '.join(folders.values())} are the same in twelve digits")

    def impaired(value: float, seed: int) -> dict[str, Dataset]:
        return own_parts(request.dataset, section | {impairment: value, "draw": section["draw"] + seed})

    for value in values:  # what cannot work is said before anything is trained
        parts = impaired(value, first)
        part_named(parts, "test", request.dataset.name)
        assemble(request.recipe, parts["train"].with_levels(section["levels"]))
    circumstances = {"recipe": shared, "data": section, "labels": request.training.labels.fingerprint()}
    begin_plan(place, {"plan": {"varied": impairment}, "circumstances": circumstances}, "experiment")
    figures, counted, notes = [], set(), []
    for value in values:
        judged = []
        for seed in numbers:
            parts = impaired(value, seed)
            train, test = parts["train"], parts["test"]
            seen = train.with_levels(section["levels"])
            run = trained_once(method, seen, place / f"{folders[value]}-s{seed}", shared, seed, device, on_run)
            chosen = {"protocols": list(protocols), "options": judging, "seed": 0, "levels": None}
            found = judge_run(run, test, train, [], baselines=baselines, **chosen)
            run.folder.write_json("evaluation.json", found.to_json() | {"data": request.dataset.name})
            shown = [row for row in found.rows if not row.score.detail]
            judged.append({row.key: row.score.value for row in shown})
            counted |= {row.key for row in shown if row.score.count}
            notes += found.notes
        figures.append(tuple(judged))
    told = tuple(dict.fromkeys(notes))
    result = Curve(place, method, impairment, tuple(values), numbers, tuple(figures), frozenset(counted), told)
    RunFolder(place).write_json("curve.json", result.to_json())
    return result


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
    """Run one row of a paper's table, and set its figures beside the paper's.

    Trainings that are finished under ``out`` are not repeated, interrupted ones go on, and rows of several tables that
    are trained alike share a run.

    Parameters
    ----------
    recipe : Recipe or str
        A name of :func:`regrain.tasks.recipes.recipes`, such as ``maskcon/table2/maskcon``.
    scale : {"tiny", "small", "paper"}
        See :mod:`regrain.tasks.scales`; ``tiny`` runs on generated data.
    seeds : int
        How many trainings, of the seeds from 0 upwards.
    out : path
    root : path, optional
        Where the catalogue's data lie; see :func:`load`.
    settings : sequence of str
        ``key=value`` assignments that change the recipe, as ``--set`` takes them.
    device
        As in :func:`fit`.
    baselines : bool
        Whether raw inputs and random weights are judged too, and the majority class beside a classifier.
    on_run : callable, optional
        Called with each run that was trained.

    Returns
    -------
    Reproduction
        With its ``problem`` where the data are not there or the method is not implemented.

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
            **{name: data[name] for name in IMPAIRMENTS if name in data},
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
    """What a recipe's protocols give."""
    judge = recipe.judge
    other = judge.get("data")
    return evaluate(
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
