"""The public verbs: load and regroup data, fit, resume, open a run, evaluate, adapt, calibrate, predict, export."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.data.catalog.synthetic import write_synthetic
from regrain.data.catalog.taxonomies import taxonomies, taxonomy
from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.data.readers import find_rows, read
from regrain.errors import MissingDataError, NoLabelsError, UserError
from regrain.evaluation import (
    Evaluation,
    available_criteria,
    criterion_values,
    embed,
    evaluate_model,
    level_probabilities,
)
from regrain.evaluation.few_shot import unseen_superclasses as select_unseen
from regrain.evaluation.multi_aspect import ALL
from regrain.labels import Taxonomy
from regrain.methods import method_class
from regrain.tasks import Attention, Calibration, Curve, Discovery, Isotropy, Regrouping, Trial, Tuning
from regrain.tasks.adapt import read_support
from regrain.tasks.answers import fit_answers, judge_answers, known_classes, taxonomy_of
from regrain.tasks.attend import attention_of, require_attention, write_attention
from regrain.tasks.class_count import class_count_of
from regrain.tasks.classifier import fit_classifier
from regrain.tasks.discover import discover as discover_subclasses
from regrain.tasks.discover import read_discovery, settle_subclasses
from regrain.tasks.export import FORMATS, Export, check_export, write_export
from regrain.tasks.grids import require_drawable, write_grids
from regrain.tasks.isotropy import Fate, Move, fate_of
from regrain.tasks.pictures import require_images
from regrain.tasks.plans import begin_plan
from regrain.tasks.predict import predicted_columns
from regrain.tasks.recipes import Recipe, overridden, select_one
from regrain.tasks.regroup import regroup_rows
from regrain.tasks.reproduce import Reproduction, judged_once, run_name
from regrain.tasks.run import Run, part_named
from regrain.tasks.scales import Scale, at_scale
from regrain.tasks.tables import WRITABLE_SUFFIXES, require_writable, write_columns, write_embeddings
from regrain.tasks.tune import Plan, Range, assignments, default_ranges
from regrain.training.assemble import Assembly, assemble, roles_of
from regrain.training.card import card
from regrain.training.loop import (
    Device,
    check_training,
    resolve_device,
    resolve_precision,
    train,
)
from regrain.training.processes import is_first_process
from regrain.training.recipe import check_recipe, merge, parse_assignments, read_recipe
from regrain.training.source import IMPAIRMENTS, data_section, own_parts, read_data, table_of, told_levels
from regrain.training.store import RunFolder, labels_to_json, library_versions

__all__ = [
    "Run",
    "adapt",
    "attend",
    "calibrate",
    "discover",
    "evaluate",
    "export",
    "export_embeddings",
    "fit",
    "isotropy",
    "label_noise",
    "load",
    "low_data",
    "predict",
    "regroup",
    "reproduce",
    "resume",
    "tune",
]


def load(source: Any, **options: Any) -> Dataset:
    """Data from a catalog name, a path, arrays, a DataFrame or a Hugging Face data set.

    Parameters
    ----------
    source
        See :func:`regrain.data.readers.read`.
    **options
        Of the reader.

    Examples
    --------
    >>> data = load("digits")
    >>> data.modality, data.labels.levels
    ('image', ('group', 'digit'))
    """
    return read(source, **options)


def fit(
    method: str,
    data: Any,
    *,
    out: str | Path | None = None,
    levels: Sequence[str] | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    holdout: float | None = None,
    samples: int | None = None,
    limit_per_class: int | None = None,
    label_noise: float | Mapping[str, float] | None = None,
    noise_within: str | None = None,
    hide_labels: float | Mapping[str, float] | None = None,
    draw: int | None = None,
    device: Device = "auto",
    devices: int = 1,
    overwrite: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
    interrupt: threading.Event | None = None,
    on_start: Callable[[Run, Dataset], None] | None = None,
    split_column: str | None = None,
    **reader_options: Any,
) -> Run:
    """Train a method on data, in a run folder.

    Parameters
    ----------
    method : str
        A name of :data:`regrain.methods.METHODS`.
    data
        A Dataset, or whatever :func:`load` reads.
    out : path, optional
        The run folder; default ``runs/METHOD-DATA-sSEED``.
    levels : sequence of str, optional
        Label levels from coarse to fine; the first plays ``coarse``, the last ``fine``. Default: all that the data
        have.
    encoder : str, optional
        Default by modality and size.
    pretrained : bool or path
    frozen : bool
        Keep the encoder as it is, and train an adapter on its features, which are computed once.
    recipe : mapping or path, optional
        A run's ``recipe.yaml`` repeats it: arguments given here win over it.
    settings : sequence of str
        ``key=value`` assignments, as ``--set`` takes them.
    seed : int, optional
        Fixes everything; default 0, or the recipe's.
    holdout : float
        Share of the data held out for testing where they come without splits (default 0.2); 0 trains on everything.
    samples : int, optional
        Train on so many samples alone, drawn whatever their classes.
    limit_per_class : int, optional
        At most so many training samples of every class of the finest level in use: a smaller experiment, drawn before
        anything is hidden from the method.
    label_noise : float or mapping of level to float, optional
        Share of the training samples whose label is drawn anew: see
        :meth:`regrain.data.dataset.Dataset.with_label_noise`.
    noise_within : str, optional
        The level whose classes wrong labels do not leave: confusions between siblings.
    hide_labels : float or mapping of level to float, optional
        Share of the training samples that lose their labels, at every level or at those named, in [0, 1): what fewer
        labels would give. See :meth:`regrain.data.dataset.Dataset.hide_labels`.
    draw : int, optional
        The seed of these draws, default 0: apart from ``seed``, so that seeds are compared on the same samples.
    device, devices
        ``auto``, ``cpu`` or ``cuda``, and how many.
    overwrite : bool
        Replace a run that lies at ``out``.
    progress, tensorboard : bool
    interrupt : threading.Event, optional
        Set it to stop after the step, with a checkpoint.
    on_start : callable, optional
        Called with the Run and the training Dataset before the first epoch.
    split_column : str, optional
        The column of a table that holds the splits (the reader's option ``split``).
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        For whatever in the options or the data cannot work.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = fit("maskcon", "digits", encoder="conv4", out=folder.name, settings=["epochs=1"], limit_per_class=20)
    >>> run.embed(split="test").shape[1]
    64
    >>> folder.cleanup()
    """
    kind = resolve_device(device)
    request = _request(
        method,
        data,
        levels=levels,
        encoder=encoder,
        pretrained=pretrained,
        frozen=frozen,
        recipe=recipe,
        settings=settings,
        seed=seed,
        holdout=holdout,
        samples=samples,
        limit_per_class=limit_per_class,
        label_noise=label_noise,
        noise_within=noise_within,
        hide_labels=hide_labels,
        draw=draw,
        split_column=split_column,
        **reader_options,
    )
    wanted, dataset, training = request.recipe, request.dataset, request.training
    assembly = assemble(wanted, training.with_levels(wanted["data"]["levels"]))
    assembly.recipe["data"]["labels_fingerprint"] = assembly.dataset.labels.fingerprint()
    check_training(
        assembly.model.method, assembly.dataset, assembly.options, device=kind, devices=devices, tensorboard=tensorboard
    )

    place = Path(out) if out is not None else Path("runs") / f"{method}-{dataset.name}-s{assembly.recipe['seed']}"
    first_process = is_first_process()
    folder = RunFolder.create(place, overwrite=overwrite) if first_process else RunFolder(place)
    run = Run(folder, dataset, device, [*dataset.notes.get("messages", []), *assembly.notices])
    if first_process:
        folder.write_json("versions.json", {"versions": library_versions()})
        folder.write_json("labels.json", labels_to_json(training.labels))
        folder.write_recipe(assembly.recipe)
        if on_start is not None:
            on_start(run, training)
    _train(run, assembly, device, devices, progress, tensorboard, interrupt, resume=False)
    return run


def resume(
    path: str | Path,
    data: Dataset | None = None,
    *,
    device: Device = "auto",
    devices: int = 1,
    progress: bool = False,
    interrupt: threading.Event | None = None,
) -> Run:
    """Go on with an interrupted run; it ends with the weights of an uninterrupted one.

    Parameters
    ----------
    path : path
    data : Dataset, optional
        Needed where the run was started on data in memory.
    device, devices, progress, interrupt
        As in :func:`fit`.

    Raises
    ------
    UserError
        If there is no run, it is finished, or the data are no longer those it was started on.
    """
    run = Run(RunFolder.open(path), data, device)
    if run.folder.finished and run.folder.model_folder.exists():
        raise UserError(f"{path} is finished: nothing to resume")
    settings = run.recipe["data"]
    training = run.parts()["train"]
    recipe = merge(run.recipe)
    recipe["data"].pop("roles")
    recipe["data"].pop("labels_fingerprint")
    assembly = assemble(recipe, training.with_levels(settings["levels"]))
    if assembly.dataset.labels.fingerprint() != settings["labels_fingerprint"]:
        raise UserError(
            f"the labels that {path} was started on have changed: bring the old ones back, or start again with "
            "`regrain fit ... --overwrite`"
        )
    assembly.recipe["data"]["labels_fingerprint"] = settings["labels_fingerprint"]
    tensorboard = (run.path / "tensorboard").exists()
    _train(run, assembly, device, devices, progress, tensorboard, interrupt, resume=True)
    return run


def evaluate(
    run: Run | str | Path,
    data: Any = None,
    *,
    split: str = "test",
    levels: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    baselines: bool = True,
    projection: bool = False,
    unseen_superclasses: bool = False,
    seed: int = 0,
    write: bool = True,
    split_column: str | None = None,
    **reader_options: Any,
) -> Evaluation:
    """Judge a run, beside raw inputs and random weights.

    Parameters
    ----------
    run : Run or path
    data : optional
        Other data than the run's own; whatever :func:`load` reads.
    split : str
        Default ``test``.
    levels, protocols, options, baselines, projection, seed
        See :func:`regrain.evaluation.evaluate_model`.
    unseen_superclasses : bool
        Judge only samples whose class at the coarsest level has no training sample.
    write : bool
        Whether to write ``evaluation.json`` into the run folder.
    split_column : str, optional
        The column of a table that holds the splits (the reader's option ``split``).
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        For an unknown split, protocol or level, or K larger than the set.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    notes: list[str] = []
    if data is None:
        parts, where = run.parts(), str(run.path)
    else:
        dataset = read_data(data, levels, _with_split(reader_options, split_column))
        parts, where = run.judged_parts(dataset, split, notes), dataset.name
    if "transfer" in (protocols or ()) and (
        data is None or ("train" in parts and parts["train"].fingerprint() == run.recipe["data"]["fingerprint"])
    ):
        raise UserError("transfer judges on data that the encoder was not trained on: give others as --data")
    test = part_named(parts, split, where)
    run.require_fitting(test)
    if unseen_superclasses:
        test = _unseen(test, parts.get("train"), where, notes)
    evaluation = _judge(
        run,
        test,
        parts.get("train") if split != "train" else None,
        notes,
        split=split,
        levels=levels,
        protocols=protocols,
        options=options,
        baselines=baselines,
        projection=projection,
        seed=seed,
    )
    if split == "train":
        evaluation.notes.append(
            "these are the samples the model was trained on: the figures say nothing about new ones"
        )
    if write and is_first_process():
        run.folder.write_json("evaluation.json", evaluation.to_json() | {"data": where, "own_data": data is None})
    return evaluation


def _judge(
    run: Run, test: Dataset, train: Dataset | None, notes: list[str], *, baselines: bool, **options: Any
) -> Evaluation:
    """What :func:`regrain.evaluation.evaluate_model` makes of a run, with what only the run knows."""
    evaluation = evaluate_model(
        run.model,
        test,
        train,
        baselines=baselines,
        model_folder=run.folder.model_folder,
        start=run.pretrained_start(notes) if baselines else None,
        augmentation=run.recipe["views"]["presets"][0],
        labels=run.labels,
        **options,
    )
    evaluation.notes += notes
    return evaluation


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
    request = _request(method, data, **options)
    shared = {section: values for section, values in request.recipe.items() if section != "data"}
    in_use = request.recipe["data"]["levels"]
    roles = roles_of(method_class(method), in_use)
    seen = request.training.with_levels(list(dict.fromkeys([*in_use[:1], *roles.values()])))
    stratify = seen.labels.levels[0] if seen.labels.levels and seen.groups is None else None
    train_part, validation_part = seen.split(validation, stratify=stratify)
    resolved = assemble(request.recipe, train_part)  # what cannot work in any trial is said before the first
    parsed = [Range.parse(text) for text in ranges] or default_ranges(method, resolved.options.learning_rate)
    plan = Plan(method, tuple(parsed), criterion, trials, request.recipe.get("seed", 0))
    if criterion not in available_criteria(seen):
        others = " or ".join(available_criteria(seen))
        raise UserError(f"{criterion} compares coarse labels, and the data have none: choose {others}")
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
    request = _request(method, data, **options)
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
            run = _trained_once(chosen.name, training, folder, shared, number, device, on_run)
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

    Every seed of the training has a draw of its own; of one draw, the smaller set lies in the larger. The same call
    goes on where an earlier one stopped, and may ask for more sizes and seeds.

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
    request = _request(method, data, **options)
    section, first = request.recipe["data"], request.recipe.get("seed", 0)
    shared = {name: values for name, values in request.recipe.items() if name not in ("data", "seed")}
    sections = {
        (value, k): section | {impairment: value, "draw": section["draw"] + k} for value in values for k in range(seeds)
    }
    parts = {key: own_parts(request.dataset, changed) for key, changed in sections.items()}  # says what cannot be
    part_named(parts[values[0], 0], "test", request.dataset.name)
    for value in values:
        assemble(request.recipe, parts[value, 0]["train"].with_levels(section["levels"]))
    circumstances = {"recipe": shared, "data": section, "labels": request.training.labels.fingerprint()}
    begin_plan(place, {"plan": {"varied": impairment}, "circumstances": circumstances}, "experiment")
    figures, counted, notes = [], set(), []
    for value in values:
        judged = []
        for k in range(seeds):
            train, test = parts[value, k]["train"], parts[value, k]["test"]
            seen = train.with_levels(section["levels"])
            folder = place / f"{value:g}-s{first + k}"
            run = _trained_once(method, seen, folder, shared, first + k, device, on_run)
            chosen = {"protocols": list(protocols), "options": judging, "seed": 0, "levels": None}
            found = _judge(run, test, train, [], baselines=baselines, **chosen)
            run.folder.write_json("evaluation.json", found.to_json() | {"data": request.dataset.name})
            shown = [row for row in found.rows if not row.score.detail]
            judged.append({row.key: row.score.value for row in shown})
            counted |= {row.key for row in shown if row.score.count}
            notes += found.notes
        figures.append(tuple(judged))
    told = tuple(dict.fromkeys(notes))
    numbers = tuple(range(first, first + seeds))
    result = Curve(place, method, impairment, tuple(values), numbers, tuple(figures), frozenset(counted), told)
    RunFolder(place).write_json("curve.json", result.to_json())
    return result


def _trained_once(
    method: str,
    training: Dataset,
    place: Path,
    recipe: Mapping[str, Any],
    seed: int,
    device: Device,
    on_run: Callable[[Run], None] | None,
) -> Run:
    """The finished run of a method on given samples: see :func:`_finished_run`."""
    train_it = partial(
        fit, method, training, out=place, recipe=recipe, seed=seed, holdout=0, device=device, overwrite=True
    )
    return _finished_run(place, train_it, training, device, on_run)


def _finished_run(
    place: Path,
    train: Callable[[], Run],
    data: Dataset | None,
    device: Device,
    on_run: Callable[[Run], None] | None,
) -> Run:
    """The finished run at a place; where there is none yet it is trained there, or an interrupted one resumed."""
    folder = RunFolder(place)
    if folder.is_run and folder.finished and folder.model_folder.exists():
        return Run(folder, data, device)
    run = resume(place, data, device=device) if folder.is_run and folder.checkpoint_file.exists() else train()
    run.folder.checkpoint_file.unlink(missing_ok=True)
    if on_run is not None:
        on_run(run)
    return run


def discover(
    run: Run | str | Path,
    data: Any = None,
    *,
    out: str | Path | None = None,
    superclass: str | None = None,
    subclasses: int | None = None,
    each: int | None = None,
    balanced: bool = False,
    names: str | Path | None = None,
    unaided: bool = False,
    exemplars: int = 10,
    grids: str | Path | None = None,
    estimate_classes: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    write: bool = True,
    split_column: str | None = None,
    **reader_options: Any,
) -> Discovery:
    """The hidden subclasses of a run: for every sample its subclass, for every subclass what it holds.

    The first call settles them, in the run's ``discovery/`` folder: by the method's own subclasses, or by k-means
    within each superclass where it has none. Later calls use the same, so that names stay true; other options of
    k-means settle them anew.

    Parameters
    ----------
    run : Run or path
    data : optional
        Other data than the run's own: their samples are told apart by the subclasses settled on the run's own.
    out : path, optional
        A .csv or .parquet table of the samples; default ``discovery/samples.parquet`` in the run, for its own data.
    superclass : str, optional
        The level of the superclasses; default what the method read as ``coarse``, else the data's first level; none
        for a method that found classes without reading labels.
    subclasses, each, balanced
        See :func:`regrain.tasks.discover.discover`.
    names : path, optional
        A JSON mapping of subclass number to name: it makes the run a classifier of the classes named there. Several
        subclasses may share a name.
    unaided : bool
        Tell the subclasses of all samples but the training ones without their superclass labels, as of new samples.
    exemplars : int
        How many samples nearest to the mean, and farthest from it, are named for each subclass.
    grids : path, optional
        A folder for pictures of the purest, the most mixed and some random subclasses; see
        :func:`regrain.tasks.grids.write_grids`.
    estimate_classes : bool
        Also estimate how many classes there are; see :func:`regrain.tasks.class_count.estimate_class_count`.
    overwrite : bool
        Replace the file at ``out``, and the pictures in ``grids``.
    seed : int
    write : bool
        Whether the run keeps what is settled here, and the table of its own samples.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Raises
    ------
    UserError
        If the data do not fit the run, an option does not fit the method, a named subclass does not exist, or a file
        would be lost.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    target = None if out is None else Path(out)
    if target is not None:
        require_writable(target, overwrite)
    if grids is not None:
        require_drawable(grids, run.model.config["inputs"]["modality"], str(run.path), overwrite=overwrite)
    clustering = {"subclasses": subclasses, "each": each, "balanced": balanced}
    anew = any(clustering.values()) or superclass is not None
    if data is None:
        options = {"unaided": unaided, "exemplars": exemplars, "seed": seed}
        parts = run.parts()
        found = settle_subclasses(run, parts, superclass, clustering if anew else {}, names, options, write=write)
        _look_closer(run, found, parts, grids, estimate_classes, seed)
        if target is not None or write:
            write_columns(found.columns(), target or run.path / "discovery" / "samples.parquet")
        return found
    if anew or names is not None:
        raise UserError(
            "--subclasses, --each, --balanced, --superclass and --names are about the run's own subclasses: settle "
            "those first, without --data"
        )
    settled = read_discovery(run.folder)
    if settled is None:
        if not write:
            raise UserError(
                f"the subclasses of {run.path} are not settled yet: `regrain discover {run.path}` settles them"
            )
        settle_subclasses(run, run.parts(), None, {}, None, {"seed": seed})
        settled = read_discovery(run.folder)
        assert settled is not None
    dataset = read_beside(run, data, _with_split(reader_options, split_column))
    run.require_fitting(dataset)
    parts = {n: dataset.part(n) for n in dataset.parts} if dataset.splits is not None else {"": dataset}
    found, _ = discover_subclasses(run.model, parts, settled, unaided=unaided, exemplars=exemplars, seed=seed)
    _look_closer(run, found, parts, grids, estimate_classes, seed)
    if target is not None:
        write_columns(found.columns(), target)
    return found


def _look_closer(
    run: Run,
    found: Discovery,
    parts: Mapping[str, Dataset],
    grids: str | Path | None,
    estimate_classes: bool,
    seed: int,
) -> None:
    """Pictures of what was discovered, and the number of classes, where they were asked for."""
    if grids is not None:
        write_grids(found, parts, grids, split="test" if "test" in parts else None, seed=seed)
    if estimate_classes:
        found.class_count = class_count_of(run.model, parts.get("train", next(iter(parts.values()))), seed=seed)
        found.notes.append(found.class_count.describe())


def attend(
    run: Run | str | Path,
    data: Any = None,
    *,
    out: str | Path | None = None,
    split: str = "test",
    samples: int = 10,
    seed: int = 0,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> Attention:
    """What attends to what, of a run of SCLRE: samples, and the training samples that have most of their attention.

    Parameters
    ----------
    run : Run or path
    data : optional
        Other data than the run's own; whatever :func:`load` reads.
    out : path, optional
        A ``.csv`` or ``.parquet`` table; of images also a ``.png``, with a sample and its nine most attended training
        samples in each row.
    split : str
        Default ``test``.
    samples : int
        How many, equally many of every superclass.
    seed : int
        Draws the samples.
    overwrite : bool
        Replace the file at ``out``.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Raises
    ------
    UserError
        If the run is of another method or was trained without attention, the data do not fit it or have no such split,
        or the file cannot be written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if samples < 1:
        raise UserError(f"attend shows at least one sample; got {samples}")
    require_attention(run.model.method)
    target = None if out is None else Path(out)
    pictured = target is not None and target.suffix.lower() == ".png"
    if target is not None:
        require_writable(target, overwrite, suffixes=(*WRITABLE_SUFFIXES, ".png"), content="tables and pictures")
    if pictured:
        require_images(run.model.config["inputs"]["modality"], str(run.path), "pictures", "give --out FILE.csv")
    notes: list[str] = []
    parts, where = run.parts(), str(run.path)
    train = parts["train"]
    if data is not None:
        dataset = read_beside(run, data, _with_split(reader_options, split_column))
        parts, where = run.judged_parts(dataset, split, notes), dataset.name
    judged = part_named(parts, split, where)
    run.require_fitting(judged)
    found = attention_of(run.model, run.labels, judged, train, samples=samples, seed=seed)
    found.notes += notes
    if target is not None and pictured:
        write_attention(found, judged, train, target)
    elif target is not None:
        write_columns(found.columns(), target)
    return found


def export_embeddings(
    run: Run | str | Path,
    out: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    levels: Sequence[str] | None = None,
    split_column: str | None = None,
    **reader_options: Any,
) -> tuple[int, int]:
    """Write embeddings as Parquet: id, split, one column of class names a level, and ``embedding``, a list of float32.

    Parameters
    ----------
    run : Run or path
    out : path
    data : optional
        Default: the run's own.
    split : str, optional
        Only this split; default all.
    levels, split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    (rows, width)

    Raises
    ------
    UserError
        If the data do not fit the run, or have no such split.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if data is None:
        parts = run.parts()
    else:
        dataset = read_data(data, levels, _with_split(reader_options, split_column))
        parts = {n: dataset.part(n) for n in dataset.parts} if dataset.splits is not None else {"": dataset}
    if split is not None:
        parts = {split: part_named(parts, split, str(data or run.path))}
    embedded = {name: (part, run.embed(part)) for name, part in parts.items()}
    if is_first_process():
        return write_embeddings(embedded, Path(out))
    return sum(len(part) for part in parts.values()), next(iter(embedded.values()))[1].shape[1]


def adapt(
    run: Run | str | Path,
    support: Any,
    out: str | Path,
    *,
    level: str | None = None,
    abstain: float = 0.05,
    inverse_penalty: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    **reader_options: Any,
) -> Run:
    """A few labelled samples become a classifier on a run's embeddings, in a run folder of its own.

    Parameters
    ----------
    run : Run or path
        Stays as it is.
    support
        A table with ids of the run's own data and labels, or labelled samples: see
        :func:`regrain.tasks.adapt.read_support`.
    out : path
        The new run folder: the same model, and the classifier.
    level : str, optional
        The column of the labels; default the table's only one beside the ids, or the finest.
    abstain, inverse_penalty, seed
        See :func:`regrain.tasks.classifier.fit_classifier`.
    overwrite : bool
        Replace a run that lies at ``out``.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Run
        With ``classifier``; its ``notices`` say what was chosen and left out.

    Raises
    ------
    UserError
        For a support that names unknown ids, fewer than two classes, or samples that do not fit the run.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    place = Path(out)
    if place.resolve() == run.path.resolve():
        raise UserError(f"{place} is the run that is adapted, and stays as it is: choose another --out")
    reading = run.reading_of(support) | reader_options
    found = read_support(support, level=level, own_parts=run.parts, reader=reading)
    for part in found.parts:
        run.require_fitting(part)
    classifier = fit_classifier(
        torch.cat([embed(run.model, part) for part in found.parts]),
        found.labels,
        level=found.level,
        classes=found.classes,
        abstain=abstain,
        inverse_penalty=inverse_penalty,
        seed=seed,
    )
    folder = RunFolder.create(place, overwrite=overwrite)
    folder.copy_model(run.folder, classifier.save)
    notices = [*found.notices, *classifier.notices]
    card = run.path / "card.md"
    described = card.read_text(encoding="utf-8") if card.exists() else ""
    added = [
        f"adapted to {len(classifier.classes)} classes of '{found.level}' by {len(found.labels)} samples",
        *notices,
    ]
    folder.write_text("card.md", described + "\n" + "".join(f"- {line}\n" for line in added))
    folder.write_json("versions.json", {"versions": library_versions()})
    return Run(folder, run.data, run.device, notices)


def calibrate(
    run: Run | str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    precision: float = 0.95,
    judge: str | None = None,
    levels: Sequence[str] | None = None,
    split_column: str | None = None,
    **reader_options: Any,
) -> Calibration:
    """Let a run answer at the most specific level that it is sure of, by labelled samples that it has not seen.

    Afterwards :func:`predict` adds the answers. See :class:`regrain.tasks.answers.Answers` for the rule, and
    :func:`regrain.tasks.answers.fit_answers` for what the samples decide. A sample may be labelled at any mixture of
    the run's levels.

    Parameters
    ----------
    run : Run or path
        Of a method that predicts one level or several that nest; calibrating again replaces the earlier answers.
    data : optional
        Labelled samples to calibrate on, none of which training has seen; default: the run's own.
    split : str, optional
        The split to calibrate on; default ``val``, or all of ``data`` without splits.
    precision : float
        In (0, 1]: the share of right answers to aim at, level by level.
    judge : str, optional
        Another split to judge the answers on: of ``data`` if they have it, else of the run's own.
    levels : sequence of str, optional
        Label levels of ``data``; default the run's.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    Calibration
        The answers, kept in the run's ``model/answers.json``, and their figures, in its ``answers.json``.

    Warns
    -----
    RegrainWarning
        For a level with fewer than 50 labelled samples.

    Raises
    ------
    UserError
        If there are no labelled samples that training has not seen, the run's levels do not nest, or it predicts none.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if run.classifier is not None:
        raise UserError(
            f"{run.path} was adapted, and knows by its support what to abstain from: calibrate the run it came from"
        )
    if not run.model.method.has_classifier:
        raise UserError(
            f"{run.model.method.name} learns embeddings and has no classifier whose probabilities could be calibrated: "
            "`regrain adapt` makes a calibrated one from a few labelled samples"
        )
    taxonomy = taxonomy_of(run.labels)
    if "train" in (split, judge):
        raise UserError(
            "training has seen the split 'train', and is surer of its samples than of new ones: calibrate and judge on "
            "others"
        )
    notes: list[str] = []
    if data is None:
        parts, where = run.parts(), str(run.path)
    else:
        dataset = read_beside(run, data, _with_split(reader_options, split_column), levels=levels, labelled=True)
        parts, where = run.judged_parts(dataset, split or "all", notes), dataset.name
    name = split or ("all" if "all" in parts else "val")
    if split is None and name not in parts:
        raise UserError(
            f"calibration needs labelled samples that training has not seen, and {where} has no split 'val' (there are "
            f"{', '.join(parts)}): give such samples as --data, or a split that you will not judge by as --split"
        )
    if judge == name:
        raise UserError(f"answers are not judged on what they were calibrated on: judge on another split than '{name}'")
    if name == "test":
        notes.append("calibrated on 'test': what is judged on that split from now on flatters this run's answers")
    seen = _predicted(run, part_named(parts, name, where))
    judged = None
    if judge is not None:
        judged = part_named(parts, judge, where) if judge in parts else part_named(run.parts(), judge, str(run.path))
    answers = fit_answers(*seen, taxonomy, precision=precision, calibrated_on=f"{name} of {where}")
    made = Calibration(
        answers,
        judge_answers(answers, *seen, taxonomy, split=name),
        None if judged is None else judge_answers(answers, *_predicted(run, judged), taxonomy, split=str(judge)),
        notes,
    )
    answers.save(run.folder.model_folder)
    run.folder.write_json("answers.json", made.to_json())
    run.answers = answers
    return made


def predict(
    run: Run | str | Path,
    data: Any,
    out: str | Path,
    *,
    split: str | None = None,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> dict[str, Column]:
    """Predict the class of every sample at every level that a run can predict, and write a table.

    A run of a method with a classifier predicts the level that it was trained on; an adapted run also the level of its
    support, and says which samples it abstains from: those are unlike all samples of the support. A run whose
    subclasses were discovered predicts ``subclass``, by the names that they have. A run that was calibrated adds its
    answer: the class of the most specific level that it is sure of, or none.

    Parameters
    ----------
    run : Run or path
    data
        A Dataset, or whatever :func:`load` reads; labels in it are not looked at.
    out : path
        Ends in ``.csv`` or ``.parquet``.
    split : str, optional
        Only this split; default all.
    overwrite : bool
        Replace the file.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    The columns: ``id``, ``split`` where there are splits, for each level its classes and ``LEVEL_probability``,
    ``abstained`` for an adapted run, and ``answer``, ``answer_level`` and ``answer_probability`` for a calibrated one.

    Raises
    ------
    UserError
        If the file's ending is unknown, the data do not fit the run, or it has nothing to predict with.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    target = Path(out)
    require_writable(target, overwrite)
    reading = run.reading_of(data) | _with_split(reader_options, split_column)
    dataset = read_data(data, None if table_of(data) is None else [], reading)
    if split is not None:
        dataset = dataset.part(split)
    run.require_fitting(dataset)
    columns: dict[str, Column] = {"id": [str(i) for i in dataset.ids]}
    if dataset.splits is not None:
        columns["split"] = [str(name) for name in dataset.splits]
    settled = read_discovery(run.folder)
    columns |= predicted_columns(
        run.model, run.labels, dataset, classifier=run.classifier, settled=settled, answers=run.answers
    )
    write_columns(columns, target)
    return columns


def export(run: Run | str | Path, out: str | Path | None = None, *, format: str, overwrite: bool = False) -> Export:
    """Write a run's encoder as other software loads it.

    Parameters
    ----------
    run : Run or path
    out : path, optional
        Default ``RUN/export/NAME-FORMAT`` with the format's ending.
    format : {"timm", "torchvision", "detectron2", "safetensors", "onnx"}
        Weights under that framework's names (``safetensors``: under Regrain's own, of any encoder), or for ``onnx`` a
        graph from normalised input to what evaluation uses.
    overwrite : bool
        Replace the file.

    Returns
    -------
    Export
        The file, the lines that load it, what its input must look like, and what it does not hold.

    Raises
    ------
    UserError
        If the framework has no network that these weights fit (the message says which formats do), the file exists,
        or an ONNX graph does not give the model's embeddings within 1e-4.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = fit("maskcon", "digits", encoder="conv4", out=folder.name, settings=["epochs=1"], limit_per_class=20)
    >>> export(run, format="safetensors").keys
    24
    >>> export(run, format="timm")
    Traceback (most recent call last):
    regrain.errors.UserError: the encoder 'conv4' is no timm model; formats that fit this run: safetensors or onnx
    >>> folder.cleanup()
    """
    run = run if isinstance(run, Run) else Run.open(run)
    ending = FORMATS.get(format, ("",))[0]
    place = Path(out) if out is not None else run.path / "export" / f"{run.path.resolve().name}-{format}{ending}"
    check_export(format, place, overwrite=overwrite)
    model = Run(run.folder, device="cpu").model  # a copy: the run's own may be on a GPU, and stays there
    return write_export(model, format, place, model_folder=run.folder.model_folder)


def regroup(
    data: Any,
    mapping: Taxonomy | str | Path,
    out: str | Path,
    *,
    levels: Sequence[str] | None = None,
    superclass: str | None = None,
    drop_unknown: bool = False,
    most_imbalance: float = 3.0,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> Regrouping:
    """Write a superclass data set: the samples of a fine-labelled one in a table, under a mapping of its classes.

    Parameters
    ----------
    data
        Whatever :func:`load` reads, of images, texts or vectors.
    mapping : Taxonomy, str or path
        A name or file as of :func:`regrain.data.catalog.taxonomies.taxonomy`.
    out : path
        Ends in ``.csv`` or ``.parquet``; :func:`load` reads it as it is. Files of images stay where they are.
    levels : sequence of str, optional
        Label levels of the data; the last one is regrouped. Default: all that the data have.
    superclass : str, optional
        The level of the mapping that gives superclasses; default its coarsest.
    drop_unknown, most_imbalance
        See :func:`regrain.tasks.regroup.regroup_rows`.
    overwrite : bool
        Replace the file.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    Regrouping
        What was written, and its balance.

    Raises
    ------
    UserError
        As :func:`regrain.tasks.regroup.regroup_rows`, and if the file exists or its ending is unknown.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> parity = Taxonomy.from_edges([(str(digit), "even" if digit % 2 == 0 else "odd") for digit in range(10)])
    >>> regroup("digits", parity, f"{folder.name}/parity.parquet").counts["odd"]
    {'train': 682, 'test': 224}
    >>> load(f"{folder.name}/parity.parquet").labels.counts
    {'superclass': 2, 'label': 10}
    >>> folder.cleanup()
    """
    target = Path(out)
    require_writable(target, overwrite)
    if most_imbalance < 1:
        raise UserError(f"the most imbalance is 1 (all superclasses alike) or more; got {most_imbalance}")
    known = mapping if isinstance(mapping, Taxonomy) else taxonomy(mapping)
    rows, storage = find_rows(data, **told_levels(data, levels), **_with_split(reader_options, split_column))
    rows = rows.usable(storage.pop("skip_unreadable", False))
    if storage:
        name = next(iter(storage))
        raise UserError(f"regroup writes samples as they are: give {name} when the table is read")
    made = regroup_rows(
        rows,
        known,
        target,
        level=levels[-1] if levels else None,
        superclass=superclass,
        drop_unknown=drop_unknown,
        most_imbalance=most_imbalance,
    )
    about = taxonomies().get(str(mapping))
    told = [*rows.notes.get("messages", ()), *([f"{about.name}: {about.source}"] if about else [])]
    write_columns(made.columns, target)
    return replace(made, notices=[*told, *made.notices])


def reproduce(
    recipe: Recipe | str,
    *,
    scale: Scale = "small",
    seeds: int = 1,
    out: str | Path = "runs/reproduce",
    root: str | Path | None = None,
    settings: Sequence[str] = (),
    device: Device = "auto",
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
    figures: dict[str, tuple[float, ...]] = {}
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
            run = _finished_run(folder, train_it, None, device, on_run)
            found = judged_once(scaled, folder, partial(_judged, run, scaled, seed, reader))
        except MissingDataError as error:
            return Reproduction(published, scale, (), {}, str(error))
        for title, value in found.items():
            figures[title] = (*figures.get(title, ()), value)
    return Reproduction(published, scale, tuple(range(seeds)), figures, settings=tuple(settings))


def _judged(run: Run, recipe: Recipe, seed: int, reader: Mapping[str, Any]) -> dict[str, float]:
    """What a recipe's protocols give."""
    judge = recipe.judge
    other = judge.get("data")
    return evaluate(
        run,
        other,
        levels=None if judge["level"] == ALL else [judge["level"]],
        protocols=judge["protocols"],
        options=judge.get("options"),
        baselines=False,
        unseen_superclasses=judge.get("unseen_superclasses", False),
        seed=seed,
        write=False,
        **(reader | recipe.data.get("reader", {}) if other else {}),
    ).flat()


@dataclass(frozen=True)
class _Request:
    """What was asked for: the recipe so far, all data, and the training samples among them."""

    recipe: dict[str, Any]
    dataset: Dataset
    training: Dataset


def _request(
    method: str,
    data: Any,
    *,
    levels: Sequence[str] | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    holdout: float | None = None,
    split_column: str | None = None,
    **options: Any,
) -> _Request:
    """One recipe from a file's or a mapping's, arguments and settings; the data read and split as it says."""
    method = method_class(method).name
    from_file = read_recipe(recipe) if isinstance(recipe, str | Path) else check_recipe(recipe or {})
    if from_file.get("method", {}).get("name", method) != method:
        raise UserError(f"the recipe is for {from_file['method']['name']}, and {method} was asked for")
    asked = {"name": encoder, "pretrained": pretrained, "frozen": frozen}
    flags: dict[str, Any] = {"method": {"name": method}, "encoder": {k: v for k, v in asked.items() if v}}
    if seed is not None:
        flags["seed"] = seed
    wanted = check_recipe(merge(from_file, flags, parse_assignments(settings, method)))
    impairment = {name: options.pop(name) for name in IMPAIRMENTS if name in options}
    reader = _with_split(options, split_column)
    section = data_section(
        data,
        levels=levels,
        holdout=holdout,
        impairment=impairment,
        reader=reader,
        recorded=wanted.get("data", {}),
    )
    reader = section["reader"] or reader
    try:
        dataset = read_data(data, section["levels"], reader)
    except NoLabelsError:
        if method_class(method).needs.levels:
            raise
        dataset = read_data(data, [], reader)
    section["levels"] = list(dataset.labels.levels if section["levels"] is None else section["levels"])
    for level in section["levels"]:
        dataset.labels.level_index(level)
    training = own_parts(dataset, section)["train"]
    section["fingerprint"] = training.fingerprint()
    return _Request(wanted | {"data": section}, dataset, training)


def _train(
    run: Run,
    assembly: Assembly,
    device: Device,
    devices: int,
    progress: bool,
    tensorboard: bool,
    interrupt: threading.Event | None,
    *,
    resume: bool,
) -> None:
    kind = resolve_device(device)
    model = assembly.model
    if model.backbone is not None:
        model.to(kind)
        assembly.dataset = model.featurised(assembly.dataset, workers=assembly.options.workers)
        model.take_features(assembly.dataset)
    train(
        model.method,
        model.views,
        assembly.dataset,
        assembly.options,
        run.folder,
        seed=assembly.recipe["seed"],
        device=kind,
        devices=devices,
        resume=resume,
        progress=progress,
        tensorboard=tensorboard,
        interrupt=interrupt,
    )
    if is_first_process():
        model.save(run.folder, labels_to_json(assembly.dataset.labels))
        precision = resolve_precision(assembly.options.precision, kind)
        run.folder.write_text("card.md", card(assembly, len(run.folder.read_metrics()), precision, kind))


def _with_split(options: Mapping[str, Any], split_column: str | None) -> dict[str, Any]:
    """Options of a reader; ``split`` means the column to it, and the part to judge everywhere here."""
    return {**options, **({"split": split_column} if split_column else {})}


def read_beside(
    run: Run, data: Any, options: Mapping[str, Any], *, levels: Sequence[str] | None = None, labelled: bool = False
) -> Dataset:
    """Other data than a run's own, read as those were; of a table, with the levels of the run that it has.

    Of other data the reader finds the levels, unless they are named or must be the run's own (``labelled``).
    """
    recorded = run.recipe["data"]["levels"]
    if levels is None:
        table = table_of(data)
        levels = [level for level in recorded if level in table.columns] if table is not None else None
        levels = recorded if levels is None and labelled else levels
    return read_data(data, levels, {**run.reading_of(data), **options})


def _predicted(run: Run, part: Dataset) -> tuple[dict[str, Tensor], Tensor]:
    """Class probabilities of every level, and the labels in the run's classes."""
    run.require_fitting(part)
    return level_probabilities(run.model, run.labels, part), known_classes(part.labels, run.labels)


def _unseen(test: Dataset, train: Dataset | None, where: str, notes: list[str]) -> Dataset:
    """The test samples of superclasses without a training sample."""
    if train is None:
        raise UserError(f"{where} has no split 'train': which superclasses were seen in training cannot be told")
    kept = select_unseen(test, train)
    level = test.labels.levels[0]
    notes.append(f"unseen superclasses: {len(kept)} of {len(test)} samples, whose {level} has no training sample")
    return kept
