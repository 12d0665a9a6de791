"""Recipes: what a run is made of, checked against the signatures that declare it.

A recipe is a mapping of sections. Later sources win: the defaults in the signatures, the package's recipe for the
modality, the data set's views, the user's file, the command line's options, ``--set key=value``. What comes out holds
everything, and a run folder keeps it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pydantic
import yaml

from regrain.errors import UserError, nearest
from regrain.methods import hyperparameters, method_class
from regrain.training.options import TrainingOptions

__all__ = ["SECTIONS", "check_values", "merge", "parse_assignments", "read_recipe", "recipe_for_modality"]

SECTIONS = ("data", "method", "encoder", "views", "training", "seed")
"""The keys of a recipe, in the order in which they are written."""


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe from a YAML file.

    Raises
    ------
    UserError
        If the file is missing, is not YAML, or has an unknown section; the message names the nearest one.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such recipe: {file}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no recipe: sections such as method: and training: were expected")
    for key in content:
        if key not in SECTIONS:
            raise UserError(f"{file}: no section '{key}': {nearest(str(key), SECTIONS)}")
    return content


def recipe_for_modality(modality: str) -> dict[str, Any]:
    """The package's recipe for a modality: what differs there from the defaults in the signatures."""
    file = resources.files("regrain") / "recipes" / f"{modality}.yaml"
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    return content


def merge(*recipes: Mapping[str, Any]) -> dict[str, Any]:
    """One recipe from several, later ones win, section by section and key by key.

    Examples
    --------
    >>> merge({"training": {"epochs": 5, "batch_size": 8}}, {"training": {"epochs": 9}, "seed": 1})
    {'training': {'epochs': 9, 'batch_size': 8}, 'seed': 1}
    """
    result: dict[str, Any] = {}
    for recipe in recipes:
        for section, values in recipe.items():
            if isinstance(values, Mapping) and isinstance(result.get(section), Mapping):
                result[section] = {**result[section], **values}
            else:
                result[section] = dict(values) if isinstance(values, Mapping) else values
    return result


def parse_assignments(assignments: Iterable[str], method: str) -> dict[str, Any]:
    """A recipe from ``key=value`` texts; a key is ``section.name``, or the bare name of a setting.

    Values are YAML: numbers, true, lists.

    Raises
    ------
    UserError
        For a text without "=", or a key that no section has; the message names the nearest one.

    Examples
    --------
    >>> parse_assignments(["weight=0.5", "training.epochs=3", "views.presets=[weak, weak]"], "maskcon")
    {'method': {'weight': 0.5}, 'training': {'epochs': 3}, 'views': {'presets': ['weak', 'weak']}}
    """
    sections = {"method": set(hyperparameters(method_class(method))), "training": set(hyperparameters(TrainingOptions))}
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set takes key=value, for example --set training.epochs=20; got '{assignment}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {key}: '{text}' cannot be read as a value: {error}") from None
        section, dot, name = key.partition(".")
        if not dot:
            owners = [s for s, names in sections.items() if key in names]
            if key == "seed":
                result["seed"] = value
                continue
            if not owners:
                known = set().union(*sections.values()) | {"seed"}
                raise UserError(f"--set: {method} has no setting '{key}': {nearest(key, known)}")
            section, name = owners[0], key
        if section not in SECTIONS or section == "seed":
            raise UserError(f"--set {key}: no section '{section}': {nearest(section, SECTIONS)}")
        result.setdefault(section, {})[name] = value
    return result


def check_values(values: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], owner: str) -> dict[str, Any]:
    """All settings of a section: the given values, checked and converted, and the signature's defaults for the rest.

    Raises
    ------
    UserError
        For an unknown key (the nearest is named) or a value of the wrong type.

    Examples
    --------
    >>> check_values({"weight": "0.5"}, hyperparameters(method_class("grafit")), "grafit")["weight"]
    0.5
    """
    for key in values:
        if key not in parameters:
            hint = nearest(str(key), parameters) if parameters else "it has none"
            raise UserError(f"{owner} has no setting '{key}': {hint}")
    result = {}
    for name, parameter in parameters.items():
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                raise UserError(f"{owner} needs the setting '{name}'")
            result[name] = parameter.default
            continue
        try:
            result[name] = pydantic.TypeAdapter(parameter.annotation).validate_python(values[name])
        except pydantic.ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            expected = _expected(parameter)
            raise UserError(
                f"{owner}.{name}: {values[name]!r} is no valid value ({expected} was expected): {problem}"
            ) from None
    return result


def _expected(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
