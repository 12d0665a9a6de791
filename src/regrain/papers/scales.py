"""The scales at which a paper's recipe runs, and the cost of a run.

``paper`` is the unchanged recipe. ``small`` and ``tiny`` follow from it by the rules below, which are the same for
every recipe. Their figures show that a method learns; they do not repeat the paper's experiment.

small, minutes on a laptop
    Images at 64 pixels at most, by a ResNet-18 of width 16; texts by the encoder at hand. About 5,000 training samples,
    the same number of every class; 10 epochs at most, warm-up, cycles and stages in proportion; batches of 128 at most,
    the learning rate in proportion; queues of half the samples at most; 200 episodes.
tiny, seconds
    Generated samples in the layout of the data set (:mod:`regrain.papers.datasets.synthetic`), noise with a colour
    or a word for each class; images of 16 pixels by four convolutions, texts by their hashed words; one epoch, or one
    per stage; counts of classes or samples are cut to the data. It shows only that the recipe runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch

from regrain.encoders import build_encoder, default_encoder
from regrain.evaluation import PROTOCOLS
from regrain.methods import method_class
from regrain.papers.datasets.synthetic import FINE, SAMPLES
from regrain.papers.rows import Recipe

Scale = Literal["tiny", "small", "paper"]
SCALES: tuple[Scale, ...] = ("tiny", "small", "paper")

RATE = 3e11
"""Training operations per second on two CPU cores with bf16, counted as :func:`flops` counts them: 713 images/s of
MaskCon with resnet18-w16 at 32 pixels (`python benchmarks/step.py`, docs/speed.md)."""

_SMALL_SAMPLES, _SMALL_EPOCHS, _SMALL_BATCH, _SMALL_SIDE = 5000, 10, 128, 64
_TINY_BATCH, _TINY_SIDE, _TINY_SAMPLES = 32, 16, 60
_PASSES = 3
"""A step is a forward pass and a backward pass of twice its operations."""

_TEXT_FLOPS = {"google-bert/bert-base-uncased": 2 * 85e6 * 128}
"""Operations of a forward pass: two for each layer weight and each of 128 tokens."""

_SMALL_JUDGE = {"episodes": 200}
_TINY_JUDGE = {
    "episodes": 5,
    "copies": 1,
    "queries": "rest",
    "cluster_seeds": 1,
    "cluster_starts": 1,
}
_STAGES = ("pretext_epochs", "clustering_epochs", "coarse_epochs")
_TINY_METHOD = {"hidden": 32, "bank_size": 16, "queue_size": 24, "subclasses": FINE}


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """Scale a recipe by the rules of this module.

    Examples
    --------
    >>> from regrain.papers.rows import recipes
    >>> small = at_scale(recipes()["maskcon/table2/maskcon"], "small")
    >>> small.sections["training"]["epochs"], small.data["limit_per_class"], small.sections["encoder"]["name"]
    (10, 50, 'resnet18-w16')
    """
    if scale == "paper" or recipe.absent:
        return recipe
    resolved = recipe.resolved()
    scaled = replace(
        recipe,
        data=_data(recipe, scale),
        judge={**recipe.judge, "options": _judged(recipe.judge, scale)},
    )
    training = dict(resolved["training"])
    epochs, batch = training["epochs"], training["batch_size"]
    if scale == "small":
        training["epochs"] = min(epochs, _SMALL_EPOCHS)
        training["batch_size"] = min(batch, _SMALL_BATCH)
    else:
        training |= {
            "epochs": 3 if method_class(recipe.method).multi_stage else 1,
            "batch_size": _TINY_BATCH,
            "workers": 0,
        }
    share = training["epochs"] / epochs
    training["learning_rate"] *= training["batch_size"] / batch
    for name in ("warmup_epochs", "restart_epochs"):
        training[name] = training[name] and training[name] * share
    if recipe.entry.modality == "text":  # a transformer's fine-tuning rate does not suit another encoder
        training = {name: training[name] for name in ("epochs", "batch_size", "workers")}
    sections = {
        "method": _method(resolved["method"], scale, share, samples(scaled)),
        "encoder": _encoder(recipe, scale),
        "training": training,
        "views": _views(recipe, scale),
    }
    return replace(scaled, sections=sections)


def samples(recipe: Recipe) -> int:
    """Number of training samples of a recipe."""
    entry, limit = recipe.entry, recipe.data.get("limit_per_class")
    limits = [entry.samples["train"], recipe.data.get("samples")]
    limits += [limit * entry.levels[recipe.levels[-1]]] if limit else []
    return min(filter(None, limits))


def flops(recipe: Recipe) -> float | None:
    """Operations of a training: samples x epochs x views x 3 x operations of a forward pass; None if unknown.

    Smaller views count by their area. Only the encoder's computation is counted.
    """
    resolved = recipe.resolved()
    method = dict(resolved["method"])
    chosen = method_class(method.pop("name"))
    if not chosen.trains_encoder:
        return 0.0
    side = recipe.view_size
    forward = _forward(recipe, resolved["encoder"], side)
    if forward is None:
        return None
    names = chosen.view_names(method)
    views = sum((96 / 224) ** 2 if name == "local" else 1.0 for name in names)
    return samples(recipe) * resolved["training"]["epochs"] * views * _PASSES * forward


def hours(operations: float | None, rate: float = RATE) -> float | None:
    """Hours that a number of operations takes at a rate."""
    return None if operations is None else operations / rate / 3600


def _data(recipe: Recipe, scale: Scale) -> dict[str, Any]:
    data = dict(recipe.data)
    if scale == "small" and recipe.entry.side > _SMALL_SIDE and recipe.entry.modality == "image":
        data["reader"] = {**data.get("reader", {}), "image_size": _SMALL_SIDE}
    if "samples" in data:
        return data | {"samples": min(data["samples"], _SMALL_SAMPLES if scale == "small" else _TINY_SAMPLES)}
    given = data.get("limit_per_class") or math.inf
    each = max(2, _SMALL_SAMPLES // recipe.entry.levels[recipe.levels[-1]])
    return data | {"limit_per_class": min(given, each if scale == "small" else SAMPLES)}


def _encoder(recipe: Recipe, scale: Scale) -> dict[str, Any]:
    modality = recipe.entry.modality
    if modality == "image":
        return {"name": "conv4", "channels": 8} if scale == "tiny" else {"name": "resnet18-w16"}
    if modality == "text":
        return {"name": "hash-text"} if scale == "tiny" else {}
    return dict(recipe.sections.get("encoder", {}))


def _views(recipe: Recipe, scale: Scale) -> dict[str, Any]:
    views = {key: value for key, value in recipe.sections.get("views", {}).items() if key != "size"}
    if recipe.entry.modality != "image":
        return views
    return views | {"size": min(recipe.view_size, _TINY_SIDE if scale == "tiny" else _SMALL_SIDE)}


def _method(method: Mapping[str, Any], scale: Scale, share: float, count: int) -> dict[str, Any]:
    result = dict(method)
    if result.get("queue_size"):
        result["queue_size"] = min(result["queue_size"], count // 2)
    for name in _STAGES:
        if result.get(name):
            result[name] = max(1, round(result[name] * share)) if scale == "small" else 1
    if scale == "tiny":
        result |= {name: min(result[name], most) for name, most in _TINY_METHOD.items() if result.get(name)}
        if "class_counts" in result:
            result["class_counts"] = tuple(min(c, FINE) for c in result["class_counts"])
    return result


def _judged(judge: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    known = {option for name in judge["protocols"] for option in PROTOCOLS[name].options}
    fewer = _SMALL_JUDGE if scale == "small" else _TINY_JUDGE
    result = {**judge.get("options", {}), **{name: value for name, value in fewer.items() if name in known}}
    if result.get("linear_epochs"):
        result["linear_epochs"] = min(result["linear_epochs"], _SMALL_EPOCHS if scale == "small" else 1)
    return result


def _forward(recipe: Recipe, encoder: Mapping[str, Any], side: int) -> float | None:
    modality = recipe.entry.modality
    if modality == "image":
        name = encoder.get("name") or default_encoder("image", (3, side, side))
        return _image_forward(name, side, bool(encoder.get("small_stem")), encoder.get("channels", 0))
    return _TEXT_FLOPS.get(encoder.get("name", "")) if modality == "text" else None


@cache
def _image_forward(name: str, side: int, small_stem: bool, channels: int) -> float:
    """Operations of a forward pass, counted by torch on meta tensors."""
    from torch.utils.flop_counter import FlopCounterMode

    options: dict[str, Any] = ({"small_stem": True} if small_stem else {}) | (
        {"channels": channels} if channels else {}
    )
    encoder = build_encoder(name, modality="image", sample_shape=(3, side, side), **options).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, side, side, device="meta"))
    return float(counter.get_total_flops())
