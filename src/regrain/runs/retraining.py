"""A run's recipe as another training takes it over: other labels, perhaps another method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from regrain.checks import hyperparameters
from regrain.data.dataset import Dataset
from regrain.encoders import RAW_INPUT, is_pretrained
from regrain.methods import method_class
from regrain.runs.assemble import default_presets
from regrain.runs.recipe import packaged_recipe
from regrain.runs.run import Run
from regrain.training.options import TrainingOptions


def retraining(run: Run, method: str, train: Dataset) -> dict[str, Any]:
    """Return the part of a run's recipe that another training on its samples with new labels keeps.

    Encoder, side of the views, length and seed are the run's, whatever the defaults are then. So are the settings that
    were chosen for it; those that the package's recipe gave its method are left to that of the new one. Methods that do
    not train the encoder have no length that says anything of another one, nor does the raw input as an encoder.

    ``method``: the one to train. ``train``: samples of the run.
    """
    recipe, own = run.recipe, method_class(run.recipe["method"]["name"])
    other = method_class(method)
    section = dict(recipe["encoder"])
    frozen = bool(section.get("frozen"))
    usual = packaged_recipe(
        own,
        modality=train.modality,
        encoder=section,
        size=recipe["views"].get("size", 0),
        pretrained=is_pretrained(run.model.config["encoder"]["origin"]),
        samples=len(train),
    )
    result: dict[str, Any] = {"encoder": _differing(section, usual.get("encoder", {})), "views": {}}
    result["encoder"] |= {name: section[name] for name in ("name", "frozen", "pretrained") if name in section}
    training = asdict(TrainingOptions()) | usual.get("training", {})
    result["training"] = _differing(recipe["training"], training) | {"epochs": recipe["training"]["epochs"]}
    if not own.trains_encoder:
        del result["training"]["epochs"]
        if section["name"] in RAW_INPUT:
            result["encoder"] = {}
    if "size" in recipe["views"]:
        result["views"]["size"] = recipe["views"]["size"]
    settings = {name: value for name, value in recipe["method"].items() if name != "name"}
    presets = recipe["views"]["presets"]
    packaged = usual.get("views", {}).get("presets") or default_presets(own, settings, train, frozen=frozen)
    if presets != packaged and len(presets) == len(other.view_names({})):
        result["views"]["presets"] = presets
    if other is own:
        defaults = {name: setting.default for name, setting in hyperparameters(own).items()}
        result["method"] = _differing(settings, defaults | usual.get("method", {}))
    return result | {"seed": recipe["seed"]}


def _differing(values: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in usual or usual[name] != value}
