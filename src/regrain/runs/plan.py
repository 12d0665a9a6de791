"""What a training was asked for: one recipe, and the data split as it says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrain.checks import hyperparameters
from regrain.data.dataset import Dataset
from regrain.data.readers import named_twice, options_of
from regrain.errors import NoLabelsError, UserError, nearest, warn_of_data
from regrain.methods import method_class
from regrain.runs.recipe import check_recipe, merge, parse_assignments, read_recipe
from regrain.runs.source import (
    CORRUPTIONS,
    data_section,
    read_data,
    split_dataset,
    with_path_column,
)
from regrain.training.options import TrainingOptions


@dataclass(frozen=True)
class FitPlan:
    """What was asked for: the recipe so far, all data, and the training samples among them."""

    recipe: dict[str, Any]
    dataset: Dataset
    training: Dataset


def plan_fit(
    method: str,
    data: Any,
    *,
    levels: Sequence[str] | None = None,
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
            raise UserError(f"{name} is given twice, as a keyword and in settings: leave one out")
    wanted = check_recipe(merge(from_file, flags, assigned, parse_assignments(keywords, method)))
    reader, levels = with_path_column(options, levels)
    section = data_section(
        data,
        levels=levels,
        holdout=holdout,
        corruption=corruption,
        reader=reader,
        recorded=wanted.get("data", {}),
    )
    reader = {**section["reader"], **({} if isinstance(data, str | Path) else reader)}
    try:
        dataset = read_data(data, section["levels"], reader)
    except NoLabelsError:
        if method_class(method).needs.levels:
            raise
        dataset = read_data(data, [], reader)
    section["levels"] = list(dataset.labels.levels if section["levels"] is None else section["levels"])
    for level in section["levels"]:
        dataset.labels.level_index(level)
    training = split_dataset(dataset, section)["train"]
    section["fingerprint"] = training.fingerprint()
    warn_of_data(dataset.name, dataset.notes.get("messages", ()))
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
        if name not in settings and name not in reader:
            known = [*settings, *reader, *inspect.signature(plan_fit).parameters]
            known = [other for other in known if other not in ("data", "method", "options")]
            hint = f"in Python it is {_ELSEWHERE[name]}=" if name in _ELSEWHERE else nearest(name, known)
            raise UserError(f"{method} on {named_twice(data)} has no option '{name}': {hint}", code="unknown_option")
    return {name: value for name, value in options.items() if name in settings}
