"""``fit``: a method is trained on data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from regrain.data.dataset import Dataset
from regrain.runs.assemble import assemble
from regrain.runs.defaults import announce_time
from regrain.runs.plan import plan_fit
from regrain.runs.run import Run
from regrain.runs.tables import write_columns
from regrain.runs.training import start_notices, train_run, writing
from regrain.runs.verb import verb
from regrain.storage.run_folder import RunFolder, labels_to_json
from regrain.training.loop import (
    Device,
    check_training,
    resolve_device,
)
from regrain.training.processes import is_first_process, layout_of, leave_unguarded, was_restarted


@verb
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
        :func:`regrain.data.corruption.with_label_noise`.
    noise_within : str, optional
        The level whose classes wrong labels do not leave: confusions between siblings.
    hide_labels : float or mapping of level to float, optional
        Share of the training samples that lose their labels, at every level or at those named, in [0, 1): what fewer
        labels would give. See :func:`regrain.data.corruption.hide_labels`.
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
    request = plan_fit(
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
    if is_first_process():
        processes = layout_of(devices).processes
        assembly.notices += announce_time(
            assembly.model, assembly.dataset, assembly.options, assembly.recipe, kind, processes
        )
    run = Run(folder, dataset, device, start_notices(dataset, assembly))
    again = was_restarted() and _is_of(folder, assembly.recipe)
    if again and folder.is_complete:
        return run
    with writing(folder):
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
        train_run(run, assembly, device, devices, progress, tensorboard, interrupt, resume=again)
    return run


def _is_of(folder: RunFolder, recipe: Mapping[str, Any]) -> bool:
    """Whether the run that lies there has this very recipe."""
    return folder.is_run and folder.read_recipe() == yaml.safe_load(yaml.safe_dump(recipe, allow_unicode=True))
