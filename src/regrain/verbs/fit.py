"""``fit``: train a method on data."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from regrain.checks import Count, hyperparameters
from regrain.cluster import Engine, cluster_of
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.data.readers import named_twice, options_of, require_reading
from regrain.errors import UserError, nearest, warn, warn_of_data
from regrain.evaluation.missing import missing_for_a_reason
from regrain.evaluation.representations import raw_representation
from regrain.methods import method_class
from regrain.methods.base import coarse_roles
from regrain.processes import is_first_process, layout_of, leave_unguarded, was_restarted
from regrain.runs.assemble import Assembly, assemble
from regrain.runs.recipe import check_recipe, merge, parse_assignments, read_recipe
from regrain.runs.roles import unread
from regrain.runs.run import Run
from regrain.runs.source import CORRUPTIONS, data_section, read_data, split_dataset
from regrain.runs.tables import write_columns
from regrain.runs.timing import announce_time
from regrain.runs.training import start_notices, train_on, train_run, writing
from regrain.runs.verb import verb
from regrain.storage.run_folder import RunFolder, as_written
from regrain.training.device import Device, resolve_device
from regrain.training.options import TrainingOptions


@dataclass(frozen=True)
class FitPlan:
    """Request of the user: the recipe so far, all data, and the training samples among them."""

    recipe: dict[str, Any]
    dataset: Dataset
    training: Dataset


def plan_fit(
    method: str,
    data: Any,
    *,
    levels: Sequence[str] | None = None,
    coarse: Sequence[str] | str | None = None,
    fine: str | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    holdout: float | None = None,
    **options: Any,
) -> FitPlan:
    """One recipe from a file's or a mapping's, arguments and settings; the data read and split as it says.

    ``options`` are what corrupts the training split, settings of the training and the method, and the reader's.
    """
    method = method_class(method).name
    corruption = {name: options.pop(name) for name in CORRUPTIONS if name in options}
    keywords = _settings_among(options, method, data)
    options = {name: value for name, value in options.items() if name not in keywords}
    from_file = read_recipe(recipe) if isinstance(recipe, str | Path) else check_recipe(recipe or {})
    if from_file.get("method", {}).get("name", method) != method:
        raise UserError(f"the recipe is for {from_file['method']['name']}, and {method} was asked for")
    asked = {"name": encoder, "pretrained": pretrained, "frozen": frozen}
    flags: dict[str, Any] = {"method": {"name": method}, "encoder": {k: v for k, v in asked.items() if v}}
    if seed is not None:
        flags["seed"] = seed
    assigned = parse_assignments(settings, method)
    for name, value in keywords.items():
        if name in assigned.get(next(iter(parse_assignments({name: value}, method))), {}):
            raise UserError(f"{name} is given twice, by its own option and in the settings: leave one out")
    wanted = check_recipe(merge(from_file, flags, assigned, parse_assignments(keywords, method)))
    named = [coarse] if isinstance(coarse, str) else list(coarse or ())
    roles = dict(zip(coarse_roles(len(named)), named, strict=True)) | ({} if fine is None else {"fine": fine})
    if levels is None and len(roles) > 1 and "id_column" in options_of(data, options):
        levels = list(roles.values())  # columns of a table
    section = data_section(
        data,
        levels=levels,
        holdout=holdout,
        corruption=corruption,
        reader=options,
        roles=roles,
        recorded=wanted.get("data", {}),
    )
    if holdout is not None and not 0 <= holdout < 1:
        raise UserError(f"--holdout is a share between 0 and 1, such as 0.2; got {holdout}", code="out_of_range")
    reader = {**section["reader"], **({} if isinstance(data, str | Path) else options)}
    dataset = read_data(data, section["levels"], reader, labels_optional=not method_class(method).needs.levels)
    if holdout and dataset.splits is not None:
        raise UserError(
            f"{dataset.name} has the splits {', '.join(dataset.split_names)}, and nothing is held out: leave out "
            "--holdout",
            code="conflicting_options",
        )
    section["levels"] = list(dataset.labels.levels if section["levels"] is None else section["levels"])
    for level in section["levels"]:
        dataset.labels.level_index(level)
    training = split_dataset(dataset, wanted | {"data": section})["train"]
    section["fingerprint"] = training.fingerprint()
    warn_of_data(dataset.name, dataset.messages)
    return FitPlan(wanted | {"data": section}, dataset, training)


_ELSEWHERE = {
    "level": "levels",
    "set": "settings",
    "assignments": "settings",
    "split": "split_column",
    "group": "group_column",
    "id": "id_column",
    "weights": "pretrained",
    "label": "levels",
    "labels_column": "levels",
}
"""Words of the command line and of other libraries, and the keyword that Python has for them here."""


def _settings_among(options: Mapping[str, Any], method: str, data: Any) -> dict[str, Any]:
    """The settings of training and method among keywords; a UserError for what neither these nor a reader knows."""
    settings = {**hyperparameters(TrainingOptions), **hyperparameters(method_class(method))}
    reader = options_of(data, options)
    for name in options:
        if name in settings and name in reader:
            raise UserError(
                f"{name} is a setting of {method}, and says how data are read: give the one in settings={{...}}, the "
                "other to regrain.load"
            )
        if name in ReaderOptions.__annotations__ and name not in settings:
            require_reading(data, {name: options[name]})
        elif name not in settings and name not in reader:
            known = {*settings, *reader, *CORRUPTIONS, *inspect.signature(fit).parameters}
            hint = (
                f"in Python it is {_ELSEWHERE[name]}="
                if name in _ELSEWHERE
                else nearest(name, known - {"data", "method", "options"})
            )
            raise UserError(f"{method} on {named_twice(data)} has no option '{name}': {hint}", code="unknown_option")
    return {name: value for name, value in options.items() if name in settings}


@verb
def fit(
    method: str,
    data: Any,
    *,
    out: str | Path | None = None,
    levels: Sequence[str] | None = None,
    coarse: Sequence[str] | str | None = None,
    fine: str | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    holdout: float | None = None,
    device: Device = "auto",
    devices: Count = 1,
    engine: Engine = "processes",
    overwrite: bool = False,
    continue_: bool = False,
    progress: bool = False,
    tensorboard: bool = False,
    interrupt: threading.Event | None = None,
    on_start: Callable[[Run, Dataset], None] | None = None,
    **options: Any,
) -> Run:
    """Train a method on data; everything about the run lands in one folder.

    Parameters
    ----------
    method : str
        A method's name; `regrain methods` lists them.
    data
        A data set's name (`regrain datasets`), the path of a folder or table, or whatever :func:`load` reads.
    out : path, optional
        The run folder; default ``runs/METHOD-DATA-sSEED``.
    levels : sequence of str, optional
        A label level (column), from coarse to fine. The first plays ``coarse``, the last ``fine``. Default: all that
        the data have.
    coarse : str or sequence of str, optional
        The level that plays coarse; default the first. Methods that read coarse labels train on it. falcon reads
        several, also such that cut across each other.
    fine : str, optional
        The level that plays fine; default the last. Methods that read fine labels train on it; others
        are to find it.
    encoder : str, optional
        An encoder, such as resnet18-w16, minilm, mlp; default by the data. See :func:`regrain.encoders.encoder_names`.
    pretrained : bool or path
        Start from published weights. A path is a weights file, a run, or a folder in the Hub's layout.
    frozen : bool
        Keep the encoder; train an adapter on its features, which are computed once.
    recipe : mapping or path, optional
        A YAML file with sections data, method, encoder, views, training, and a seed. A run's ``recipe.yaml`` repeats
        it; arguments given here win over it.
    settings : mapping, or sequence of str
        A setting of the method or the training as key=value, such as weight=0.8 or training.precision=bf16. In Python a
        mapping ``{"epochs": 20, "weight": 0.8}``, with other sections as ``{"views": {"size": 32}}`` or
        ``{"views.size": 32}``.
    seed : int, optional
        Fixes everything; default 0, or the recipe's.
    holdout : float
        Share held out for testing where the data have no splits; default 0.2. 0 trains on everything.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    devices : int
        How many devices.
    engine : {"processes", "ray"}
        With ray, ``devices`` workers of a Ray cluster train together, one a GPU or core; lost ones are replaced.
    overwrite : bool
        Replace the run at ``out``.
    continue_ : bool
        Go on from the last checkpoint where ``out`` holds this very run, with any number of processes; else begin it.
        For jobs that are stopped and given again.
    progress : bool
        Show a progress bar.
    tensorboard : bool
        Log for TensorBoard too.
    interrupt : threading.Event, optional
        Set it to stop after the step, with a checkpoint.
    on_start : callable, optional
        Called with the Run and the training Dataset before the first epoch.
    **options
        Settings of the training and the method, such as ``epochs=20``, as in ``settings``; how data are read, see
        :func:`load`; and what an experiment takes from the training split, such as ``limit_per_class=20``, see
        :class:`regrain.data.corruption.Corruption`. A name that is none of these is an error.

    Raises
    ------
    UserError
        If the options or the data cannot work.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = fit("maskcon", "digits", encoder="conv4", out=folder.name, epochs=1, limit_per_class=20)
    >>> run.embed(split="test").shape[1]
    64
    >>> folder.cleanup()
    """
    leave_unguarded()
    with cluster_of(engine, devices, device) as cluster:
        kind = resolve_device(device) if cluster is None else cluster.device
        plan = plan_fit(
            method,
            data,
            levels=levels,
            coarse=coarse,
            fine=fine,
            encoder=encoder,
            pretrained=pretrained,
            frozen=frozen,
            recipe=recipe,
            settings=settings,
            seed=seed,
            holdout=holdout,
            **options,
        )
        wanted, dataset, training = plan.recipe, plan.dataset, plan.training
        assembly = assemble(wanted, training.with_levels(wanted["data"]["levels"]))
        from regrain.training.loop import check_training  # Lightning takes seconds to import

        check_training(
            assembly.model.method,
            assembly.dataset,
            assembly.options,
            device=kind,
            devices=devices,
            tensorboard=tensorboard,
            here=cluster is None,
        )

        assembly.recipe = as_written(assembly.recipe)
        folder = RunFolder(f"runs/{method}-{dataset.name}-s{assembly.recipe['seed']}" if out is None else out)
        run = Run(folder, dataset, device)
        run.recipe = assembly.recipe
        again = _goes_on(folder, assembly.recipe, continue_, overwrite)
        done = again and folder.is_complete
        here = kind if cluster is None else resolve_device("auto")
        if is_first_process() and here == kind and not done:
            assembly.notices += announce_time(assembly, kind, layout_of(devices).processes)
        assembly.notices += unread(training.labels, assembly.recipe, wanted["data"]["roles"])
        run.notices = start_notices(dataset, assembly)
        if done:
            return run
        with writing(folder):
            if is_first_process():
                if not again:
                    run.notices += folder.start(assembly.recipe, training.labels, overwrite=overwrite)
                _announce(run, assembly, training, here, on_start)
            if cluster is None:
                train_run(
                    run,
                    assembly,
                    resume=again,
                    devices=devices,
                    progress=progress,
                    tensorboard=tensorboard,
                    interrupt=interrupt,
                )
        if cluster is not None:
            train_on(cluster, run, progress, tensorboard, interrupt)
    return run


def _goes_on(folder: RunFolder, recipe: Mapping[str, Any], continue_: bool, overwrite: bool) -> bool:
    """Whether a run of this very recipe was begun in the folder, and is to go on; a UserError where it is another."""
    again = (continue_ or was_restarted()) and folder.is_run and folder.read_recipe() == recipe
    if continue_ and not again and folder.is_run and not overwrite:
        raise UserError(
            f"{folder.path} holds another run: its recipe differs from this one's. Choose another --out, or replace it "
            "with --overwrite",
            code="would_overwrite",
        )
    return again


def _announce(
    run: Run,
    assembly: Assembly,
    training: Dataset,
    device: str,
    on_start: Callable[[Run, Dataset], None] | None,
) -> None:
    """Call ``on_start``, and keep in the run's folder what its training samples are like."""
    if assembly.visits is not None:
        visits = {"id": assembly.dataset.ids, "visits": assembly.visits.numpy()}
        write_columns(visits, run.path / "visits.csv")
        run.notices.append("visits.csv says how often the first epoch visits each sample")
    if on_start is not None:
        on_start(run, training)
    apart = _missing_for_a_reason(assembly, device)
    run.notices += apart  # which the warnings have said; the card says it too
    if apart:
        run.folder.write_json("missing.json", {"sentences": apart})


def _missing_for_a_reason(assembly: Assembly, device: str) -> list[str]:
    """Warn of labels that the method reads and that are missing for a reason."""
    model, data = assembly.model, assembly.dataset

    def features(rows: Tensor) -> Tensor:
        if model.backbone is None:
            return raw_representation(data.select(rows.numpy()), None, None, fits=False)[0].test
        model.to(device)
        return model.featurised(data, workers=assembly.options.workers).samples.take(rows)

    found = missing_for_a_reason(data.labels, data.labels.levels, features)
    for sentence in found:
        warn(sentence)
    return found
