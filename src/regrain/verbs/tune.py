"""``tune``: settings chosen by a criterion that sees no hidden label and no test sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from regrain.checks import Count, hyperparameters
from regrain.errors import UserError
from regrain.evaluation import CRITERIA, criterion_values, obstacles
from regrain.methods import method_class
from regrain.runs.assemble import assemble
from regrain.runs.recipe import merge, parse_assignments
from regrain.runs.roles import roles_of
from regrain.runs.run import Run
from regrain.runs.source import CORRUPTIONS
from regrain.runs.tuning import Plan, Range, Trial, Tuning, assignments, default_ranges
from regrain.runs.verb import verb
from regrain.training.device import Device
from regrain.training.options import TrainingOptions
from regrain.verbs.fit import fit, plan_fit


@verb
def tune(
    method: str,
    data: Any,
    *,
    ranges: Sequence[str] = (),
    criterion: Literal["agreement", "coarse-knn", "stability"] = "agreement",
    trials: Count = 12,
    validation: float = 0.2,
    out: str | Path | None = None,
    device: Device = "auto",
    on_trial: Callable[[Trial], None] | None = None,
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Tuning:
    """Choose settings of a method by a criterion that sees neither hidden labels nor test samples.

    agreement: a view of a sample finds the sample's other view. coarse-knn: neighbours name the coarse class of samples
    kept from training. stability: two halves of the samples give the same clusters within coarse classes.

    Only the training split is used: a part of it (whole groups, or samples in the shares of the coarse classes) is
    kept from training and judges every trial. All levels except the first and those that the method reads are
    removed first. The same call goes on where an earlier one stopped.

    Parameters
    ----------
    method, data
        As in :func:`fit`.
    ranges : sequence of str
        NAME=A,B,C or NAME=LOW:HIGH or NAME=LOW:HIGH:log; default: the learning rate, and w and the soft temperature
        where the method has them. See :meth:`regrain.runs.tuning.Range.parse`.
    criterion : {"agreement", "coarse-knn", "stability"}
        The criterion of the choice; all are computed. See :mod:`regrain.evaluation.criteria`.
    trials : int
        Trainings.
    validation : float
        Share of the training split that judges.
    out : path, optional
        The folder; default ``runs/tune-METHOD-DATA``.
    on_trial : callable, optional
        Called with each finished trial.
    on_run : callable, optional
        Called with each trial's run that was trained to its end.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    **options
        Of :func:`fit`: levels, encoder, pretrained, frozen, recipe, settings, seed, holdout, what corrupts the training
        split, and the reader's. They hold for every trial.

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
    if not 0 < validation < 1:
        raise UserError(f"--validation is a share between 0 and 1, such as 0.2; got {validation}", code="out_of_range")
    plan = plan_fit(method, data, **options)
    shared = {section: values for section, values in plan.recipe.items() if section != "data"}
    in_use = plan.recipe["data"]["levels"]
    roles = roles_of(method_class(method), in_use, plan.recipe["data"]["roles"])
    seen = plan.training.with_levels(list(dict.fromkeys([*in_use[:1], *roles.values()])))
    train_part, validation_part = seen.hold_out(validation, stratify=next(iter(seen.labels.levels), None))
    resolved = assemble(plan.recipe, train_part)  # faults that affect every trial are reported before the first
    given = _settings_given(method, options)
    parsed = [Range.parse(text) for text in ranges]
    twice = next((searched.name for searched in parsed if searched.place(method) in given), None)
    if twice is not None:
        raise UserError(
            f"{twice} has a value of its own, and --range {twice}: leave one out", code="conflicting_options"
        )
    if not parsed:
        default = default_ranges(method, resolved.options.learning_rate)
        parsed = [searched for searched in default if searched.place(method) not in given]
    search = Plan(method, tuple(parsed), criterion, trials, plan.recipe.get("seed", 0))
    hindered = obstacles(train_part, validation_part)
    if criterion in hindered:
        others = " or ".join(name for name in CRITERIA if name not in hindered)
        raise UserError(f"{criterion} {hindered[criterion]}: choose {others}")
    place = Path(out) if out is not None else Path("runs") / f"tune-{method}-{plan.dataset.name}"
    circumstances = {"recipe": shared, "data": plan.recipe["data"], "validation": validation}
    tuning = Tuning.open(place, search, circumstances)
    for trial in tuning.pending():
        folder = tuning.trial_path(trial.number)
        try:
            run = fit(
                method,
                train_part,
                out=folder,
                recipe=shared | {"data": {"roles": roles}},
                settings=assignments(trial.settings),
                holdout=0,
                device=device,
                overwrite=True,
            )
        except UserError as error:
            if error.code == "not_writable":  # a full disk says nothing about the settings
                raise
            done = replace(trial, problem=str(error))
        else:
            done = replace(trial, criteria=criterion_values(run.model, train_part, validation_part, seed=search.seed))
            run.folder.checkpoint_file.unlink(missing_ok=True)
            if on_run is not None:
                on_run(run)
        tuning.add(done)
        if on_trial is not None:
            on_trial(done)
    kept = ("reader", "levels", "holdout", *CORRUPTIONS)
    tuning.conclude(shared | {"data": {key: plan.recipe["data"][key] for key in kept}})
    return tuning


def _settings_given(method: str, options: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Section and name of every setting that has a value, by its own keyword or among the settings."""
    known = {**hyperparameters(TrainingOptions), **hyperparameters(method_class(method))}
    keywords = {name: value for name, value in options.items() if name in known}
    given = merge(parse_assignments(options.get("settings", ()), method), parse_assignments(keywords, method))
    return {(section, name) for section, values in given.items() if isinstance(values, Mapping) for name in values}
