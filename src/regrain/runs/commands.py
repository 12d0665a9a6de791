"""Options of commands for a shell, made from recipes: what a user may run next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


def fit_options(recipe: Mapping[str, Any]) -> list[str]:
    """Options of `regrain fit` that say what a recipe holds of encoder, views, method, training and seed.

    Examples
    --------
    >>> encoder = {"name": "lite", "frozen": True}
    >>> " ".join(fit_options({"encoder": encoder, "training": {"epochs": 20, "weight_decay": 1e-5}, "seed": 3}))
    '--encoder lite --frozen --epochs 20 --set training.weight_decay=1.0e-05 --seed 3'
    """
    encoder, training = dict(recipe.get("encoder", {})), dict(recipe.get("training", {}))
    name, frozen, pretrained = encoder.pop("name", None), encoder.pop("frozen", False), encoder.pop("pretrained", False)
    options = ["--encoder", name] if name else []
    options += ["--frozen"] if frozen else []
    options += [] if not pretrained else ["--pretrained"] if pretrained is True else ["--weights", str(pretrained)]
    for setting in ("epochs", "batch_size"):
        if setting in training:
            options += [f"--{setting.replace('_', '-')}", str(training.pop(setting))]
    sections = {"encoder": encoder, "views": recipe.get("views", {}), "training": training}
    sections["method"] = {setting: value for setting, value in recipe.get("method", {}).items() if setting != "name"}
    for section, values in sections.items():
        for setting, value in values.items():
            options += ["--set", f"{section}.{setting}={_yaml(value)}"]
    return options + (["--seed", str(recipe["seed"])] if "seed" in recipe else [])


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1_000_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
