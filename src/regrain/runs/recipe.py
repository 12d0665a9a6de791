"""Recipes: what a run is made of, checked against the signatures that declare it.

A recipe is a mapping of sections. Later sources win: the defaults in the signatures, the package's recipe for the
modality and the method, the data set's views, the user's file, the command line's options, ``--set key=value``. The
result holds everything, and a run folder keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from regrain.checks import hyperparameters
from regrain.encoders import RAW_INPUT
from regrain.encoders.image import SMALL_IMAGE
from regrain.errors import UserError, nearest, no_section, no_setting
from regrain.methods import Method, method_class
from regrain.storage.files import yaml_fault
from regrain.training.options import TrainingOptions

SECTIONS = ("data", "method", "encoder", "views", "training", "seed")
"""The keys of a recipe, in the order in which they are written."""


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A recipe from a YAML file.

    Raises a UserError if the file is missing, is not YAML, or has an unknown section; the message names the nearest
    one.
    """
    file = Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such recipe: {file}", code="missing_file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} cannot be read as YAML: {yaml_fault(error)}", code="damaged_file") from None
    return check_recipe(content, str(file))


def check_recipe(content: Any, where: str = "the recipe") -> dict[str, Any]:
    """A recipe whose form is right: known sections, mappings where mappings belong, a whole number as seed.

    Raises a UserError for anything else; the message names section and nearest valid name.

    Examples
    --------
    >>> check_recipe({"training": {"epochs": 3}, "views": None})
    {'training': {'epochs': 3}, 'views': {}}
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where} holds no recipe: sections such as method: and training: were expected")
    result: dict[str, Any] = {}
    for key, value in content.items():
        if key not in SECTIONS:
            raise UserError(f"{where}: no section '{key}': {nearest(str(key), SECTIONS)}", code="unknown_option")
        if key == "seed":
            result[key] = _checked_seed(value, where)
        elif value is None:
            result[key] = {}
        elif isinstance(value, Mapping):
            result[key] = {str(name): setting for name, setting in value.items()}
        else:
            example = "name: maskcon" if key == "method" else "a mapping of settings"
            raise UserError(f"{where}: section '{key}' is {value!r}; {example} was expected under it")
    return result


def _checked_seed(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise UserError(f"{where}: seed is a whole number from 0 to 2^32 - 1; got {value!r}")
    return value


def recipe_for(
    modality: str, method: str, *, small: bool = False, features: bool = False, pretrained: bool = False
) -> dict[str, Any]:
    """The package's recipe for a modality and a method: what differs there from the defaults in the signatures.

    ``small`` says that images are small (:data:`regrain.encoders.image.SMALL_IMAGE`), ``features`` that samples are
    features that are good as they are: a frozen encoder's, or the input itself; ``pretrained`` that the encoder starts
    from weights. Some methods have a recipe of their own for those.
    """
    of_method = recipes_of_method(method)
    kinds = ["features"] * features + [f"pretrained-{modality}"] * pretrained + [f"small-{modality}"] * small
    kind = next((kind for kind in kinds if kind in of_method), modality)
    return merge(_packaged(modality), of_method.get(kind, {}))


def recipes_of_method(method: str) -> dict[str, dict[str, Any]]:
    """Modality -> what a method's own recipe says there.

    ``small-image`` is for images of at most SMALL_IMAGE pixels, ``pretrained-image`` for encoders that start from
    weights, ``features`` for those of a frozen encoder, and for the input itself (``--encoder identity`` or
    ``standardised``).

    Examples
    --------
    >>> recipes_of_method("self-classifier")["small-image"]["training"]["epochs"]
    100
    """
    return _packaged("methods").get(method, {})


def _packaged(name: str) -> dict[str, Any]:
    file = resources.files("regrain") / "recipes" / f"{name}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def packaged_recipe(
    method: type[Method], *, modality: str, encoder: Mapping[str, Any], size: int, pretrained: bool, samples: int
) -> dict[str, Any]:
    """The package's recipe for a method, on samples of a modality seen through an encoder.

    Where a method's recipe wants larger batches than the modality's, there are two at least.

    ``encoder``: its section of the recipe. ``size``: the side of a view in pixels; 0 where samples are not images.
    ``pretrained``: whether the encoder starts from weights. ``samples``: number of training samples.
    """
    kind, features = kind_of_recipes(modality, encoder, pretrained=pretrained), is_as_it_is(encoder)
    found = recipe_for(kind, method.name, small=size <= SMALL_IMAGE, features=features, pretrained=pretrained)
    if features and "features" in recipes_of_method(method.name):
        smaller = recipe_for(kind, "").get("training", {}).get("batch_size", TrainingOptions.batch_size)
        if found["training"]["batch_size"] > max(smaller, samples // 2):
            found["training"]["batch_size"] = smaller
    return merge(found, {"encoder": adapter_of(method)}) if encoder.get("frozen") else found


def is_as_it_is(encoder: Mapping[str, Any]) -> bool:
    """Whether a method sees features that are good as they are: a frozen encoder's, or the input itself."""
    return bool(encoder.get("frozen")) or encoder["name"] in RAW_INPUT


def kind_of_recipes(modality: str, encoder: Mapping[str, Any], *, pretrained: bool) -> str:
    """The modality whose recipes hold: a text encoder from scratch learns too little at a rate for fine-tuning."""
    return "vector" if encoder.get("frozen") or (modality == "text" and not pretrained) else modality


def adapter_of(method: type[Method]) -> dict[str, Any]:
    """Return the part of a frozen encoder's section that the method decides."""
    adapter = {} if method.trains_encoder else {"adapter": "identity"}
    return adapter | recipe_for("vector", method.name, features=True).get("encoder", {})


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


def parse_assignments(assignments: Iterable[str] | Mapping[str, Any], method: str) -> dict[str, Any]:
    """A recipe from ``key=value`` texts, or from a mapping; a key is ``section.name``, or the bare name of a setting.

    Values of texts are YAML: numbers, true, lists. A mapping may also hold a section as a mapping of its own.

    Raises a UserError for a text without "=", or a key that no section has; the message names the nearest one.

    Examples
    --------
    >>> parse_assignments(["weight=0.5", "training.epochs=3", "views.presets=[weak, weak]"], "maskcon")
    {'method': {'weight': 0.5}, 'training': {'epochs': 3}, 'views': {'presets': ['weak', 'weak']}}
    >>> parse_assignments({"weight": 0.5, "training.epochs": 3, "views": {"size": 32}}, "maskcon")
    {'method': {'weight': 0.5}, 'training': {'epochs': 3}, 'views': {'size': 32}}
    """
    sections = {"method": set(hyperparameters(method_class(method))), "training": set(hyperparameters(TrainingOptions))}
    result: dict[str, Any] = {}
    for key, value in _pairs(assignments):
        section, dot, name = key.partition(".")
        if not dot:
            owners = [s for s, names in sections.items() if key in names]
            if key == "seed":
                result["seed"] = _checked_seed(value, "--set")
                continue
            if not owners:
                raise no_setting("--set", method, key, set().union(*sections.values()) | {"seed"})
            section, name = owners[0], key
        if section not in SECTIONS or section == "seed":
            raise no_section("--set", key, SECTIONS)
        if section == "data" or (section == "method" and name == "name"):
            raise UserError(f"--set {key}: data and method are named on the command line, not by --set")
        result.setdefault(section, {})[name] = value
    return result


def _pairs(assignments: Iterable[str] | Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Key and value of each assignment; those of a section within a mapping under ``section.name``."""
    if isinstance(assignments, Mapping):
        for key, value in assignments.items():
            if key in SECTIONS and isinstance(value, Mapping):
                yield from ((f"{key}.{name}", plain_value(setting)) for name, setting in value.items())
            else:
                yield str(key), plain_value(value)
        return
    if isinstance(assignments, str):
        raise UserError(f"settings are a mapping such as {{'epochs': 20}}, or a list of texts; got {assignments!r}")
    for assignment in assignments:
        key, equals, text = str(assignment).partition("=")
        key = key.strip()
        if not equals or not key:
            raise UserError(f"--set takes key=value, for example --set training.epochs=20; got '{assignment}'")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {key}: '{text}' cannot be read as a value: {error}") from None
        yield key, value


def plain_value(value: Any) -> Any:
    """A value as a recipe keeps it: sequences as lists, paths as texts, NumPy's and pandas' values as Python's."""
    if hasattr(value, "tolist"):  # arrays, scalars, an Index
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain_value(inner) for inner in value]
    return str(value) if isinstance(value, Path | str) else value
