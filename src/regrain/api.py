"""The public verbs: load data, fit a method, resume, open a run, evaluate, adapt to a few labels, predict, export."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.data.readers import read
from regrain.encoders import build_encoder, is_pretrained, weights_origin
from regrain.errors import NoLabelsError, UserError
from regrain.evaluation import Evaluation, apply_model, available_criteria, criterion_values, embed, evaluate_model
from regrain.evaluation.few_shot import unseen_superclasses as select_unseen
from regrain.labels import Labels
from regrain.methods import method_class
from regrain.tasks import Discovery, FewShotClassifier, Trial, Tuning
from regrain.tasks.adapt import read_support
from regrain.tasks.class_count import class_count_of
from regrain.tasks.classifier import fit_classifier
from regrain.tasks.discover import Settled, read_discovery, read_names, write_discovery
from regrain.tasks.discover import discover as discover_subclasses
from regrain.tasks.export import FORMATS, Export, check_export, write_export
from regrain.tasks.grids import write_grids
from regrain.tasks.predict import predicted_columns
from regrain.tasks.tables import require_writable, write_columns, write_parquet
from regrain.tasks.tune import Plan, Range, assignments, default_ranges
from regrain.training.assemble import Assembly, assemble, roles_of
from regrain.training.loop import (
    Device,
    check_training,
    is_first_process,
    resolve_device,
    resolve_precision,
    train,
)
from regrain.training.model import Model, load_model
from regrain.training.recipe import check_recipe, merge, parse_assignments, read_recipe
from regrain.training.source import SAMPLE_OPTIONS, data_section, own_parts, read_data, table_of
from regrain.training.store import RunFolder, labels_to_json, library_versions

__all__ = [
    "Run",
    "adapt",
    "discover",
    "evaluate",
    "export",
    "export_embeddings",
    "fit",
    "load",
    "predict",
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


@dataclass
class Run:
    """A run folder, and the model in it.

    Parameters
    ----------
    folder : RunFolder
    data : Dataset, optional
        The data it was made from, where they are at hand; otherwise they are read again from the recipe.
    device : {"auto", "cpu", "cuda"}
    notices : list of str
        What was chosen for the user at the start.
    """

    folder: RunFolder
    data: Dataset | None = None
    device: Device = "auto"
    notices: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, path: str | Path, *, device: Device = "auto") -> Run:
        """A run on disk; a UserError where there is none."""
        return cls(RunFolder.open(path), device=device)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder.path

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything the run was made of."""
        return self.folder.read_recipe()

    @cached_property
    def _loaded(self) -> tuple[Model, Labels]:
        if not (self.folder.model_folder / "config.json").exists():
            raise UserError(f"{self.path} is not finished: go on with `regrain resume {self.path}`")
        model, labels = load_model(self.folder.model_folder)
        return model.to(resolve_device(self.device)), labels

    @property
    def model(self) -> Model:
        """The trained model."""
        return self._loaded[0]

    @property
    def labels(self) -> Labels:
        """Levels and classes that the method was trained on (labels of no samples)."""
        return self._loaded[1]

    @cached_property
    def classifier(self) -> FewShotClassifier | None:
        """What :func:`adapt` made of a few labelled samples; None for a run that was not adapted."""
        return FewShotClassifier.load(self.folder.model_folder)

    def parts(self) -> dict[str, Dataset]:
        """The splits of the data it was made from."""
        settings = self.recipe["data"]
        data = self.data
        if data is None:
            if settings.get("source") is None:
                raise UserError(f"{self.path} was trained on data in memory: give the data to evaluate or embed")
            data = read_data(settings["source"], settings["levels"], settings["reader"])
        parts = self._own_parts(data)
        if parts is None:
            raise UserError(
                f"the training data of {self.path} are not those it was started on (their fingerprint differs), "
                "so what it was trained on and what was held out cannot be told apart: bring the old data back, "
                "give the data to judge as --data with a split of their own, or train again with `regrain fit "
                "... --overwrite`"
            )
        return parts

    def _own_parts(self, data: Dataset) -> dict[str, Dataset] | None:
        """The splits of ``data`` when its training samples are those of this run, else None."""
        settings = self.recipe["data"]
        if data.splits is not None and "train" not in data.parts:
            return None
        parts = own_parts(data, settings)
        return parts if parts["train"].fingerprint() == settings["fingerprint"] else None

    def embed(self, data: Dataset | None = None, *, split: str | None = None) -> Tensor:
        """Embeddings (N, width) of data (default: the run's own ``test``), or of a split; float32 on the CPU."""
        if data is None:
            data = _part(self.parts(), split or "test", str(self.path))
        elif split is not None:
            data = data.part(split)
        _require_fitting(self, data)
        return embed(self.model, data)

    def predict_proba(self, data: Dataset, role: str) -> Tensor:
        """Class probabilities (N, classes) at the level of a role; a UserError where the method does not classify."""
        return apply_model(self.model, data, lambda x: self.model.method.predict_proba(x, role))


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
    limit_per_class: int | None = None,
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
    limit_per_class : int, optional
        At most so many training samples of every class of the finest level in use: a smaller experiment, drawn before
        anything is hidden from the method.
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
        encoder={"name": encoder, "pretrained": pretrained, "frozen": frozen},
        recipe=recipe,
        settings=settings,
        seed=seed,
        holdout=holdout,
        limit_per_class=limit_per_class,
        reader=_with_split(reader_options, split_column),
    )
    wanted, dataset, training = request.recipe, request.dataset, request.training
    assembly = assemble(wanted, training.with_levels(wanted["data"]["levels"]))
    assembly.recipe["data"]["labels_fingerprint"] = assembly.dataset.labels.fingerprint()
    check_training(
        assembly.model.method, training, assembly.options, device=kind, devices=devices, tensorboard=tensorboard
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
        parts, where = _judged_parts(run, dataset, split, notes), dataset.name
    test = _part(parts, split, where)
    _require_fitting(run, test)
    if unseen_superclasses:
        test = _unseen(test, parts.get("train"), where, notes)
    evaluation = evaluate_model(
        run.model,
        test,
        parts.get("train") if split != "train" else None,
        split=split,
        levels=levels,
        protocols=protocols,
        options=options,
        baselines=baselines,
        projection=projection,
        model_folder=run.folder.model_folder,
        start=_start(run, notes) if baselines else None,
        augmentation=run.recipe["views"]["presets"][0],
        seed=seed,
    )
    evaluation.notes += notes
    if split == "train":
        evaluation.notes.append(
            "these are the samples the model was trained on: the figures say nothing about new ones"
        )
    if write:
        run.folder.write_json("evaluation.json", evaluation.to_json() | {"data": where})
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
    levels: Sequence[str] | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] = (),
    seed: int | None = None,
    holdout: float | None = None,
    limit_per_class: int | None = None,
    device: Device = "auto",
    on_trial: Callable[[Trial], None] | None = None,
    split_column: str | None = None,
    **reader_options: Any,
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
    levels, encoder, pretrained, frozen, recipe, settings, seed, holdout, limit_per_class, device, split_column
        As in :func:`fit`; they hold for every trial.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Tuning
        ``best.yaml`` in its folder is a recipe for :func:`fit`.

    Raises
    ------
    UserError
        For a range, criterion or option that cannot work, or when every trial failed.
    """
    request = _request(
        method,
        data,
        levels=levels,
        encoder={"name": encoder, "pretrained": pretrained, "frozen": frozen},
        recipe=recipe,
        settings=settings,
        seed=seed,
        holdout=holdout,
        limit_per_class=limit_per_class,
        reader=_with_split(reader_options, split_column),
    )
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
    kept = {key: request.recipe["data"][key] for key in ("reader", "levels", "holdout", "limit_per_class")}
    tuning.conclude(shared | {"data": kept})
    return tuning


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
        Replace the file at ``out``.
    seed : int
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Raises
    ------
    UserError
        If the data do not fit the run, an option does not fit the method, or a named subclass does not exist.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    target = None if out is None else Path(out)
    if target is not None:
        require_writable(target, overwrite)
    clustering = {"subclasses": subclasses, "each": each, "balanced": balanced}
    anew = any(clustering.values()) or superclass is not None
    if data is None:
        options = {"unaided": unaided, "exemplars": exemplars, "seed": seed}
        parts = run.parts()
        found = _settle_subclasses(run, parts, superclass, clustering if anew else {}, names, options)
        _look_closer(run, found, parts, grids, estimate_classes, seed)
        write_columns(found.columns(), target or run.path / "discovery" / "samples.parquet")
        return found
    if anew or names is not None:
        raise UserError(
            "--subclasses, --each, --balanced, --superclass and --names are about the run's own subclasses: settle "
            "those first, without --data"
        )
    settled = read_discovery(run.folder)
    if settled is None:
        _settle_subclasses(run, run.parts(), None, {}, None, {"seed": seed})
        settled = read_discovery(run.folder)
        assert settled is not None
    table = table_of(data)
    levels = None if table is None else [level for level in run.recipe["data"]["levels"] if level in table.columns]
    dataset = read_data(data, levels, _read_as(run, data) | _with_split(reader_options, split_column))
    _require_fitting(run, dataset)
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


def _settle_subclasses(
    run: Run,
    parts: Mapping[str, Dataset],
    superclass: str | None,
    clustering: Mapping[str, Any],
    names: str | Path | None,
    options: Mapping[str, Any],
) -> Discovery:
    """The subclasses of the run's own data, as settled before or anew, written to its ``discovery/`` folder."""
    read_as_coarse = run.recipe["data"]["roles"].get("coarse")
    labels = next(iter(parts.values())).labels
    if superclass is not None:
        labels.level_index(superclass)
        if read_as_coarse not in (None, superclass):
            raise UserError(
                f"{run.path} read '{read_as_coarse}' as superclasses, so that its subclasses lie in those: leave "
                "--superclass out, or train on the other level"
            )
    settled = read_discovery(run.folder)
    if clustering or settled is None:
        if names is not None and settled is not None:
            raise UserError("--names are for the subclasses already settled: give them without options of clustering")
        clustered_within = labels.levels[0] if labels.levels and not run.model.method.has_subclasses else None
        level = read_as_coarse or superclass or clustered_within
        known_names = run.labels if read_as_coarse else labels
        settled = Settled(level, known_names.names(level) if level is not None else ())
    found, settled = discover_subclasses(run.model, parts, settled, **options, **clustering)
    if names is not None:
        found.rename(read_names(names, [s.number for s in found.subclasses]))
    write_discovery(run.folder, found, settled)
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
    import pyarrow as pa

    run = run if isinstance(run, Run) else Run.open(run)
    if data is None:
        parts = run.parts()
    else:
        dataset = read_data(data, levels, _with_split(reader_options, split_column))
        parts = {n: dataset.part(n) for n in dataset.parts} if dataset.splits is not None else {"": dataset}
    if split is not None:
        parts = {split: _part(parts, split, str(data or run.path))}
    tables = []
    for name, part in parts.items():
        vectors = run.embed(part)
        columns: dict[str, Any] = {"id": [str(i) for i in part.ids], "split": [name] * len(part)}
        for level, names in zip(part.labels.levels, part.labels.classes, strict=True):
            if level in (*columns, "embedding"):
                raise UserError(f"level '{level}' would overwrite a column of that name in {out}; rename the level")
            columns[level] = pa.array(
                [names[c] if c >= 0 else None for c in part.labels.level(level).tolist()], pa.string()
            )
        flat = pa.array(vectors.numpy().reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables)
    write_parquet(table, Path(out))
    return table.num_rows, vectors.shape[1]


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
    reading = _read_as(run, support) | reader_options
    found = read_support(support, level=level, own_parts=run.parts, reader=reading)
    for part in found.parts:
        _require_fitting(run, part)
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
    subclasses were discovered predicts ``subclass``, by the names that they have.

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
    The columns: ``id``, ``split`` where there are splits, for each level its classes and ``LEVEL_probability``, and
    ``abstained`` for an adapted run.

    Raises
    ------
    UserError
        If the file's ending is unknown, the data do not fit the run, or it has nothing to predict with.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    target = Path(out)
    require_writable(target, overwrite)
    reading = _read_as(run, data) | _with_split(reader_options, split_column)
    dataset = read_data(data, None if table_of(data) is None else [], reading)
    if split is not None:
        dataset = dataset.part(split)
    _require_fitting(run, dataset)
    columns: dict[str, Column] = {"id": [str(i) for i in dataset.ids]}
    if dataset.splits is not None:
        columns["split"] = [str(name) for name in dataset.splits]
    settled = read_discovery(run.folder)
    columns |= predicted_columns(run.model, run.labels, dataset, classifier=run.classifier, settled=settled)
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
    levels: Sequence[str] | None,
    encoder: Mapping[str, Any],
    recipe: Mapping[str, Any] | str | Path | None,
    settings: Sequence[str],
    seed: int | None,
    holdout: float | None,
    limit_per_class: int | None,
    reader: Mapping[str, Any],
) -> _Request:
    """One recipe from a file's or a mapping's, arguments and settings; the data read and split as it says."""
    method = method_class(method).name
    from_file = read_recipe(recipe) if isinstance(recipe, str | Path) else check_recipe(recipe or {})
    if from_file.get("method", {}).get("name", method) != method:
        raise UserError(f"the recipe is for {from_file['method']['name']}, and {method} was asked for")
    flags: dict[str, Any] = {"method": {"name": method}, "encoder": {k: v for k, v in encoder.items() if v}}
    if seed is not None:
        flags["seed"] = seed
    wanted = check_recipe(merge(from_file, flags, parse_assignments(settings, method)))
    section = data_section(
        data,
        levels=levels,
        holdout=holdout,
        limit_per_class=limit_per_class,
        reader=reader,
        recorded=wanted.get("data", {}),
    )
    options = section["reader"] or reader
    try:
        dataset = read_data(data, section["levels"], options)
    except NoLabelsError:
        if method_class(method).needs.levels:
            raise
        dataset = read_data(data, [], options)
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
        run.folder.write_text("card.md", _card(assembly, len(run.folder.read_metrics()), precision, kind))


def _card(assembly: Assembly, epochs: int, precision: str, device: str) -> str:
    recipe, labels = assembly.recipe, assembly.dataset.labels
    origin = weights_origin(assembly.model.backbone or assembly.model.method.encoder)
    levels = ", ".join(f"{level} ({count} classes)" for level, count in labels.counts.items()) or "none"
    lines = [
        f"# {recipe['method']['name']} on {assembly.dataset.name}",
        "",
        f"- data: {assembly.dataset.name}, {len(assembly.dataset)} training samples",
        f"- labels read: {levels}",
        f"- encoder: {recipe['encoder']['name']}; initial weights: {origin}",
        f"- trained for {epochs} epochs in {precision} on {device}, seed {recipe['seed']}",
    ]
    for key in ("source", "licence", "license"):
        if assembly.dataset.notes.get(key):
            lines.append(f"- {key} of the data: {assembly.dataset.notes[key]}")
    if is_pretrained(origin):
        lines += [
            "",
            "Leak notice: the initial weights come from other data. Where those had fine labels of these "
            "classes, figures at the fine level are not those of a model that never saw fine labels.",
        ]
    return "\n".join(lines) + "\n"


def _start(run: Run, notes: list[str]) -> Model | None:
    """The model as training found it, where it began from pretrained weights that training changed."""
    section = dict(run.recipe["encoder"])
    saved = run.model.config["encoder"]
    if section.get("frozen") or not is_pretrained(saved["origin"]):
        return None
    name, config = section.pop("name"), run.model.config
    try:
        encoder = build_encoder(name, modality=saved["modality"], sample_shape=saved["sample_shape"], **section)
    except UserError as error:
        notes.append(f"the pretrained start was left out: {error}")
        return None
    model = Model.build(config["method"], config["hyperparameters"], config["classes"], encoder, config["inputs"])
    return model.to(run.model.device)


def _judged_parts(run: Run, dataset: Dataset, split: str, notes: list[str]) -> dict[str, Dataset]:
    """The splits of given data; where they are the run's own data, what was trained on is never called ``test``."""
    own = run._own_parts(dataset)
    if own is not None:
        return own
    if dataset.splits is not None:
        return {name: dataset.part(name) for name in dataset.parts}
    notes.append(f"all {len(dataset)} samples of {dataset.name} were judged: they have no splits")
    return {split: dataset}


def _with_split(options: Mapping[str, Any], split_column: str | None) -> dict[str, Any]:
    """Options of a reader; ``split`` means the column to it, and the part to judge everywhere here."""
    return {**options, **({"split": split_column} if split_column else {})}


def _unseen(test: Dataset, train: Dataset | None, where: str, notes: list[str]) -> Dataset:
    """The test samples of superclasses without a training sample."""
    if train is None:
        raise UserError(f"{where} has no split 'train': which superclasses were seen in training cannot be told")
    kept = select_unseen(test, train)
    level = test.labels.levels[0]
    notes.append(f"unseen superclasses: {len(kept)} of {len(test)} samples, whose {level} has no training sample")
    return kept


def _read_as(run: Run, data: Any) -> dict[str, Any]:
    """How a table with the columns of the run's own samples is read: as those were."""
    table = table_of(data)
    if table is None:
        return {}
    recorded = run.recipe["data"]["reader"]
    options = {name: recorded[name] for name in SAMPLE_OPTIONS if recorded.get(name) is not None}
    columns = run.model.config["inputs"].get("columns")
    if not options and columns:
        options = {"columns": columns}
    named = [value for name in ("text", "image", "record", "time") if (value := options.get(name)) is not None]
    named += options.get("columns") or []
    return options if named and all(table.covers(name) for name in named) else {}


def _part(parts: Mapping[str, Dataset], name: str, where: str) -> Dataset:
    if name not in parts:
        raise UserError(f"{where} has no split '{name}': there are {', '.join(parts)}")
    return parts[name]


def _require_fitting(run: Run, dataset: Dataset) -> None:
    """Samples must look like those the model was trained on."""
    inputs = run.model.config["inputs"]
    if dataset.modality != inputs["modality"]:
        raise UserError(
            f"{run.path} was trained on {inputs['modality']} data; {dataset.name} holds {dataset.modality} data"
        )
    shape, trained = list(dataset.samples.shape), inputs["shape"]
    if dataset.modality == "image" and shape[0] != trained[0]:
        raise UserError(f"{run.path} was trained on images with {trained[0]} channels; {dataset.name} has {shape[0]}")
    for key in ("columns", "static_columns"):
        columns, known = dataset.notes.get(key), inputs.get(key)
        if columns and known and columns != known and dataset.modality in ("vector", "series"):
            odd = [f"'{name}'" for name in known if name not in columns] or ["their order"]
            raise UserError(
                f"{run.path} was trained on other columns than those of {dataset.name}: {', '.join(odd[:3])} differ"
            )
    if dataset.modality in ("vector", "series") and shape != trained:
        raise UserError(
            f"{run.path} was trained on samples of shape {tuple(trained)}; {dataset.name} has {tuple(shape)}"
        )
    static = getattr(dataset.samples, "static_width", 0)
    if static != inputs.get("static", 0):
        raise UserError(
            f"{run.path} was trained on series with {inputs.get('static', 0)} static features; {dataset.name} has "
            f"{static} of them"
        )
