"""From a recipe and a data set to everything a training needs; every default is resolved and written back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from regrain.checks import check_values, hyperparameters
from regrain.data.dataset import Dataset
from regrain.encoders import Encoder, build_encoder, is_pretrained
from regrain.errors import UserError
from regrain.methods import Method, method_class
from regrain.methods.base import Training
from regrain.model import Model, describe_inputs
from regrain.runs.defaults import GENTLE, Regime, default_encoder_section, default_epochs, encoder_settings
from regrain.runs.recipe import (
    is_as_it_is,
    kind_of_recipes,
    merge,
    packaged_recipe,
)
from regrain.runs.roles import labels_read, roles_of
from regrain.training.loader import loader_of
from regrain.training.options import TrainingOptions

_VIEW_ALIASES = {
    "text": {
        "strong": "token-drop",
        "weak": "plain",
        "jitter": "token-drop",
        "simclr": "plain",
        "global": "plain",
        "local": "token-drop",
    },
    "vector": {"jitter": "strong", "simclr": "strong", "global": "weak", "local": "strong"},
    "series": {"jitter": "strong", "simclr": "strong", "global": "weak", "local": "strong"},
}
"""Names of the views for samples that are not images; text views differ by dropout."""

_COUNTED_TEXTS = 20_000
_SMALLEST_BATCH = 32


@dataclass
class Assembly:
    """Everything that a training needs."""

    model: Model
    # for the loader: only the levels the method reads, in its order; features where the encoder has a frozen backbone
    dataset: Dataset
    options: TrainingOptions
    recipe: dict[str, Any]  # resolved
    notices: list[str] = field(default_factory=list)  # choices made for the user
    visits: Tensor | None = None  # (N,): how often the first epoch visits every sample, where that is not once each


def assemble(recipe: Mapping[str, Any], train: Dataset) -> Assembly:
    """Build model, views and options for a recipe; ``train`` holds all the training samples with the levels in use.

    Raises a UserError if the recipe or the data cannot work: the message names it and what would be right.
    """
    notices: list[str] = []
    method = method_class(recipe["method"]["name"])
    seed = int(recipe.get("seed", 0))
    modality, shape = train.modality, train.samples.shape
    section, size = encoder_settings(recipe, train, method, notices)
    encoder = build_encoder(
        modality=modality,
        sample_shape=(shape[0], size, size) if modality == "image" else shape,
        static_width=getattr(train.samples, "static_width", 0),
        seed=seed,
        **section,
    )
    pretrained = is_pretrained(encoder.origin)
    packaged = packaged_recipe(
        method, modality=modality, encoder=section, size=size, pretrained=pretrained, samples=len(train)
    )
    given = merge(packaged, recipe)
    settings = {name: value for name, value in given.get("method", {}).items() if name != "name"}
    settings = check_values(settings, hyperparameters(method), method.name)
    options = _training_options(given, section, encoder, train, pretrained=pretrained)
    roles = roles_of(method, train.labels.levels, recipe.get("data", {}).get("roles"))
    reduced = replace(train, labels=labels_read(method, roles, train.labels))
    data = {**given.get("data", {}), "roles": roles, "labels_fingerprint": reduced.labels.fingerprint()}
    classes = list(reduced.labels.counts.values())
    start = Training(len(train), options.epochs, tuple(classes), encoder, frozenset(recipe.get("method", {})))
    notices += method.fit_settings(settings, start)
    notices += _require_useful(options, method, section, encoder, modality)
    options = _fit_steps(options, recipe.get("training", {}), len(train), method, notices)
    visits = _first_visits(reduced, options, list(roles.values()), seed, notices)
    _count_truncated(encoder, train, notices)
    presets = _presets(given.get("views", {}).get("presets"), method, settings, section, train)
    inputs = describe_inputs(train, encoder, size)
    model = Model.build(method.name, settings, classes, encoder, inputs, presets=presets, seed=seed)
    model.precision = options.precision
    model.method.setup(reduced.labels)
    resolved: dict[str, Any] = {
        "data": data,
        "method": {"name": method.name, **settings},
        "encoder": section,
        "views": {"presets": presets} | ({"size": size} if modality == "image" else {}),
        "training": asdict(options),
        "seed": seed,
    }
    return Assembly(model, reduced, options, resolved, notices, visits)


def _training_options(
    given: Mapping[str, Any], section: Mapping[str, Any], encoder: Encoder, train: Dataset, *, pretrained: bool
) -> TrainingOptions:
    """The options of the training, with epochs and a ``pretrained`` encoder's rate where nobody says."""
    training = check_values(given.get("training", {}), hyperparameters(TrainingOptions), "training")
    asked = {key for key, value in given.get("training", {}).items() if value is not None}
    if "epochs" not in asked:
        kind = kind_of_recipes(train.modality, section, pretrained=pretrained)
        small = is_as_it_is(section) or kind in ("vector", "series")
        regime: Regime = "features" if small else "fine-tuning" if pretrained else "from scratch"
        training["epochs"] = default_epochs(regime, len(train), training["batch_size"])
    if pretrained and encoder.freeze_statistics and not {"learning_rate", "encoder_learning_rate"} & asked:
        training["encoder_learning_rate"] = GENTLE * training["learning_rate"]
    return TrainingOptions(**training)


def _require_useful(
    options: TrainingOptions, method: type[Method], section: Mapping[str, Any], encoder: Encoder, modality: str
) -> list[str]:
    """Refuse options that this method or this encoder cannot use; a notice where weights are random and stay so."""
    if options.early_stop and method.multi_stage:
        raise UserError(
            f"training.early_stop stops when the loss falls no more, and {method.name}'s loss starts again with every "
            "stage of its training: leave it out, and choose training.epochs"
        )
    if options.layer_decay is not None and not encoder.layer_numbers():
        why = "its weights are frozen" if section.get("frozen") else "its layers are not told apart"
        raise UserError(
            f"training.layer_decay gives the layers of the encoder '{section['name']}' rates of their own, and {why}: "
            "leave it out"
        )
    if method.trains_encoder or is_pretrained(encoder.origin) or not any(True for _ in encoder.parameters()):
        return []
    packaged = ", --encoder lite" * (modality == "image")
    return [
        f"{method.name} does not train the encoder, and '{section['name']}' has random weights: give --pretrained "
        f"or --weights{packaged}, or --encoder {'identity' if modality == 'image' else 'standardised'} for "
        "the input as it is"
    ]


def _first_visits(
    train: Dataset, options: TrainingOptions, read: Sequence[str], seed: int, notices: list[str]
) -> Tensor | None:
    """How often the first epoch visits every sample (N,), by the levels ``read``; None where that is once each."""
    if options.sampling == "uniform":
        return None
    visits = loader_of(train, options, seed=seed).visits(0)
    balanced = read[0] if options.sampling == "balanced" else f"{read[0]} and {read[-1]}"
    notices.append(
        f"sampling {options.sampling}, by {balanced}: the first epoch visits {int((visits > 0).sum())} of "
        f"{len(train)} samples, one of them {int(visits.max())} times"
    )
    return visits


def _presets(
    asked: Any, method: type[Method], settings: Mapping[str, Any], section: Mapping[str, Any], train: Dataset
) -> list[Any]:
    """The views of a sample that were asked for, else the usual ones."""
    usual = default_presets(method, settings, train, frozen=bool(section.get("frozen")))
    if asked is None:
        return usual
    if not isinstance(asked, list) or len(asked) != len(usual):
        raise UserError(
            f"{method.name} takes {len(usual)} views, and views.presets is {asked!r}: give a list of {len(usual)} "
            "presets"
        )
    return asked


def frozen_encoder(recipe: Mapping[str, Any], train: Dataset) -> Model | None:
    """The encoder of a recipe before any training, as the model ``features``; None unless its weights stay."""
    section = default_encoder_section(recipe, train, [])
    if not section.get("frozen"):
        return None
    section = {name: value for name, value in section.items() if name not in ("adapter", "adapter_options")}
    views = {name: value for name, value in recipe.get("views", {}).items() if name == "size"}
    return assemble({"method": {"name": "features"}, "encoder": section, "views": views}, train).model


def _count_truncated(encoder: Encoder, train: Dataset, notices: list[str]) -> None:
    """Report how many texts are longer than the encoder reads; of many texts, only the first are counted."""
    if train.modality != "text":
        return
    counted = min(len(train), _COUNTED_TEXTS)
    cut = encoder.count_truncated(train.samples.take(torch.arange(counted)))  # type: ignore[operator]
    if cut:
        of_them = "" if counted == len(train) else " first"
        notices.append(
            f"{cut} of the{of_them} {counted} training texts are longer than the encoder reads and are cut: "
            "encoder.max_length sets where"
        )


def _fit_steps(
    options: TrainingOptions, asked_for: Mapping[str, Any], samples: int, method: type[Method], notices: list[str]
) -> TrainingOptions:
    """A schedule that ends where the training ends, and a batch small enough for the steps that the method needs."""
    cycles = (options.epochs - options.warmup_epochs) / (options.restart_epochs or options.epochs)
    if options.schedule == "restarts" and (cycles < 1 or abs(cycles - round(cycles)) > 1e-6):
        if "schedule" in asked_for or "restart_epochs" in asked_for:
            done = cycles % 1
            share = options.final_factor + (1 - options.final_factor) * (1 + math.cos(math.pi * done)) / 2
            notices.append(
                f"{options.epochs} epochs end within a cycle of {options.restart_epochs:g}, at {share:.2f} of the "
                "learning rate: choose training.epochs as a multiple of training.restart_epochs, or schedule=cosine"
            )
        else:
            notices.append(
                f"one cosine over {options.epochs} epochs: warm restarts every {options.restart_epochs:g} do not fit"
            )
            options = replace(options, schedule="cosine", restart_epochs=None)
    size = options.batch_size
    while "batch_size" not in asked_for and size >= 2 * _SMALLEST_BATCH:
        if options.epochs * math.ceil(samples / (size * options.accumulate)) >= method.fewest_steps:
            break
        size //= 2
    if size < options.batch_size:
        steps = options.epochs * math.ceil(samples / (size * options.accumulate))
        notices.append(f"batches of {size}, not {options.batch_size}: {steps} steps of training")
        options = replace(options, batch_size=size)
    return options


def default_presets(method: type[Method], settings: Mapping[str, Any], train: Dataset, *, frozen: bool) -> list[Any]:
    """The views of a method's samples, or of their features where the encoder is ``frozen``, unless the user says."""
    strong, weak = (train.modality == "image" and not frozen and train.notes.get("views")) or ("strong", "weak")
    own = {"strong": strong, "weak": weak}
    if strong != "strong":  # what these pictures bear, others' crops and colours are not
        own |= dict.fromkeys(("jitter", "simclr", "global", "local"), strong)
    names = [own.get(name, name) for name in method.view_names(settings)]
    return [_VIEW_ALIASES.get("vector" if frozen else train.modality, {}).get(name, name) for name in names]
