"""Training a run, and taking one up again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from regrain.api.data import request_of, with_split
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.runs.assemble import Assembly, assemble
from regrain.runs.card import card
from regrain.runs.recipe import merge
from regrain.runs.run import Run
from regrain.storage.run_folder import RunFolder, labels_to_json
from regrain.tasks.tables import write_columns
from regrain.training.loop import (
    Device,
    check_training,
    resolve_device,
    resolve_precision,
    train,
)
from regrain.training.processes import is_first_process, leave_unguarded, was_restarted
from regrain.training.randomness import callers_random_state

_PATIENCE = 1.0
"""Seconds for which a training waits for another one in its folder."""


@callers_random_state()
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
    settings: Sequence[str] | Mapping[str, Any] = (),
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
    settings : mapping, or sequence of str
        Settings of the training and the method, such as ``{"epochs": 20, "weight": 0.8}``; those of other sections as
        ``{"views": {"size": 32}}`` or ``{"views.size": 32}``. Texts are ``key=value``, as ``--set`` takes them.
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
        See :func:`load`; and settings of the training and the method, such as ``epochs=20``, as in ``settings``. A
        name that is neither is an error.

    Raises
    ------
    UserError
        For whatever in the options or the data cannot work.

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
    kind = resolve_device(device)
    request = request_of(
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
    folder = RunFolder(place)
    run = Run(folder, dataset, device, _notices(dataset, assembly))
    again = was_restarted() and _is_of(folder, assembly.recipe)
    if again and folder.is_complete:
        return run
    with _writing(folder):
        if is_first_process():
            if not again:
                folder.begin(overwrite=overwrite)
                folder.write_start(assembly.recipe, labels_to_json(training.labels))
            if assembly.visits is not None:
                visits = {"id": assembly.dataset.ids, "visits": assembly.visits.numpy()}
                write_columns(visits, folder.path / "visits.csv")
                run.notices.append("visits.csv says how often the first epoch visits each sample")
            if on_start is not None:
                on_start(run, training)
        _train(run, assembly, device, devices, progress, tensorboard, interrupt, resume=again)
    return run


def _writing(folder: RunFolder) -> AbstractContextManager[None]:
    """The run is this training's alone; of several processes the first one sees to it."""
    return folder.writing(patience=_PATIENCE) if is_first_process() else nullcontext()


def _is_of(folder: RunFolder, recipe: Mapping[str, Any]) -> bool:
    """Whether the run that lies there has this very recipe."""
    return folder.is_run and folder.read_recipe() == yaml.safe_load(yaml.safe_dump(recipe, allow_unicode=True))


@callers_random_state()
def resume(
    path: str | Path,
    data: Any = None,
    *,
    device: Device = "auto",
    devices: int = 1,
    progress: bool = False,
    interrupt: threading.Event | None = None,
    split_column: str | None = None,
    **reader_options: Any,
) -> Run:
    """Go on with an interrupted run; it ends with the weights of an uninterrupted one.

    Parameters
    ----------
    path : path
    data : optional
        The run's own data, where they were in memory or are no longer where they were; whatever :func:`load` reads.
    device, devices, progress, interrupt
        As in :func:`fit`.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`; what is left out is as it was.

    Raises
    ------
    UserError
        If there is no run, it is finished, or the data are no longer those it was started on.
    """
    leave_unguarded()
    run = Run(RunFolder.open(path), None, device)
    if run.folder.is_complete:
        raise UserError(f"{path} is finished: nothing to resume")
    if data is not None:
        run.take_data(data, **with_split(reader_options, split_column))
    settings = run.recipe["data"]
    training = run.splits()["train"]
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
    run.notices = _notices(run.data, assembly)
    tensorboard = (run.path / "tensorboard").exists()
    with _writing(run.folder):
        _train(run, assembly, device, devices, progress, tensorboard, interrupt, resume=True)
    return run


def trained_once(
    method: str,
    training: Dataset,
    place: Path,
    recipe: Mapping[str, Any],
    seed: int,
    device: Device,
    on_run: Callable[[Run], None] | None,
) -> Run:
    """The finished run of a method on given samples: see :func:`finished_run`."""
    train_it = partial(
        fit, method, training, out=place, recipe=recipe, seed=seed, holdout=0, device=device, overwrite=True
    )
    return finished_run(place, train_it, training, device, on_run)


def finished_run(
    place: Path,
    train: Callable[[], Run],
    data: Dataset | None,
    device: Device,
    on_run: Callable[[Run], None] | None,
) -> Run:
    """The finished run at a place; where there is none yet it is trained there, or an interrupted one resumed."""
    folder = RunFolder(place)
    if folder.is_run and folder.is_complete:
        return Run(folder, data, device)
    run = resume(place, data, device=device) if folder.is_run and folder.checkpoint_file.exists() else train()
    run.folder.checkpoint_file.unlink(missing_ok=True)
    if on_run is not None:
        on_run(run)
    return run


def _notices(dataset: Dataset | None, assembly: Assembly) -> list[str]:
    """What was chosen for the user: in reading the data, and in fitting the settings to them."""
    messages = [] if dataset is None else dataset.notes.get("messages", [])
    return [*messages, *assembly.notices]


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
        text = card(assembly, len(run.folder.read_metrics()), precision, kind, run.notices)
        run.folder.write_text("card.md", text)
