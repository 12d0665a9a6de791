"""From a recipe and a data set to everything a training needs; every default is resolved and written back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from regrain.checks import check_values, hyperparameters
from regrain.data.dataset import Dataset
from regrain.data.images import DEEP_WHITE
from regrain.encoders import RAW_INPUT, Encoder, FrozenEncoder, build_encoder, is_pretrained
from regrain.encoders.image import SMALL_IMAGE
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods import Method, method_class
from regrain.methods.base import EVERY, Training
from regrain.model import Model, channel_statistics, rows_for_statistics, series_statistics, take_statistics
from regrain.runs.defaults import GENTLE, Regime, default_encoder_section, default_epochs, view_size
from regrain.runs.recipe import merge, recipe_for, recipes_of_method
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


def roles_of(method: type[Method], levels: Sequence[str], recorded: Mapping[str, str] | None = None) -> dict[str, str]:
    """The level that plays each role a method reads.

    ``coarse`` is the first of the levels and ``fine`` the last, unless ``recorded`` names others; there it may also
    name further coarse levels, for methods that read several.

    Raises a UserError if the method reads labels and there are none, or what was asked for does not fit the levels in
    use.
    """
    asked = {role: level for role, level in (recorded or {}).items() if re.fullmatch(r"fine|coarse\d*", role)}
    if asked and method.needs.levels in ((), (EVERY,)):
        reads = "every level in use: choose them by --level" if method.needs.levels else "no labels"
        raise UserError(f"{method.name} reads {reads}; leave out --{next(iter(asked))}", code="conflicting_options")
    coarse = [level for role, level in asked.items() if role != "fine"]
    for role, level in asked.items():
        if level not in levels:
            raise UserError(
                f"--{role.rstrip('0123456789')} {level} is not one of the levels in use, {', '.join(levels)}: --level "
                "names them",
                code="unknown_level",
            )
    for level in coarse:
        if "fine" in asked and levels.index(level) >= levels.index(asked["fine"]):
            raise UserError(
                f"--coarse {level} is not coarser than --fine {asked['fine']}: from coarse to fine the levels in "
                f"use are {', '.join(levels)}",
                code="conflicting_options",
            )
        if coarse.count(level) > 1:
            raise UserError(f"--coarse {level} is given twice", code="conflicting_options")
    if len(coarse) > 1 and not method.needs.several:
        raise UserError(
            f"{method.name} reads one coarse level; got --coarse {' --coarse '.join(coarse)}: falcon reads several",
            code="conflicting_options",
        )
    if not method.needs.levels:
        return {}
    if not levels:
        every = method.needs.levels == (EVERY,)
        read = "the labels of every level" if every else f"{' and '.join(method.needs.levels)} labels"
        raise UserError(
            f"{method.name} reads {read}, and the data have none; "
            "selfcon, simclr, nnclr, self-classifier, scan, sela and kmeans need none"
        )
    if method.needs.levels == (EVERY,):
        return dict(zip(method.roles_of(len(levels)), levels, strict=True))
    ends = {"coarse": levels[0], "fine": levels[-1], **asked}
    return {role: ends[role] for role in method.roles_of(len(coarse))}


def assemble(recipe: Mapping[str, Any], train: Dataset) -> Assembly:
    """Build model, views and options for a recipe; ``train`` holds all the training samples with the levels in use.

    Raises a UserError if the recipe or the data cannot work: the message names it and what would be right.
    """
    notices: list[str] = []
    asked = _encoder_section(recipe.get("encoder", {}))
    encoder_section = default_encoder_section(asked, recipe, train, notices)
    size = view_size(recipe.get("views", {}), train, encoder_section)
    shape = (train.samples.shape[0], size, size) if train.modality == "image" else train.samples.shape
    name = encoder_section.pop("name")
    if train.modality == "image" and size > min(train.samples.shape[1:]) and "size" not in recipe.get("views", {}):
        notices.append(
            f"views of {size} pixels, for which '{name}' was trained: images of {min(train.samples.shape[1:])} pixels "
            "are enlarged; --set views.size sets another side, smaller ones are faster"
        )
    frozen = bool(encoder_section.get("frozen"))
    chosen = method_class(recipe["method"]["name"])
    as_it_is = frozen or name in RAW_INPUT  # what the method sees is good as it is
    if frozen:
        encoder_section = {**_adapter_of(chosen), **encoder_section}
    seed = int(recipe.get("seed", 0))
    static = getattr(train.samples, "static_width", 0)
    encoder = build_encoder(
        name, modality=train.modality, sample_shape=shape, static_width=static, seed=seed, **encoder_section
    )
    if not chosen.trains_encoder and not is_pretrained(encoder.origin) and any(True for _ in encoder.parameters()):
        packaged = ", --encoder lite" * (train.modality == "image")
        notices.append(
            f"{chosen.name} does not train the encoder, and '{name}' has random weights: give --pretrained or "
            f"--weights{packaged}, or --encoder {'identity' if train.modality == 'image' else 'standardised'} for the "
            "input as it is"
        )
    weights = is_pretrained(encoder.origin)
    named = {"name": name, **encoder_section}
    kind = _recipes_of(train.modality, named, pretrained=weights)
    own = packaged_recipe(chosen, modality=train.modality, encoder=named, size=size, pretrained=weights)
    if as_it_is and "features" in recipes_of_method(chosen.name):
        _fit_batch(own["training"], recipe_for(kind, "").get("training", {}), len(train))
    given = merge(own, recipe)
    method_section = dict(given.get("method", {}))
    method = method_class(method_section.pop("name"))
    settings = check_values(method_section, hyperparameters(method), method.name)
    training = check_values(given.get("training", {}), hyperparameters(TrainingOptions), "training")
    training_given = {key for key, value in given.get("training", {}).items() if value is not None}
    if "epochs" not in training_given:
        small = as_it_is or kind in ("vector", "series")
        regime: Regime = "features" if small else "fine-tuning" if weights else "from scratch"
        training["epochs"] = default_epochs(regime, len(train), training["batch_size"])
    if weights and encoder.freeze_statistics and not {"learning_rate", "encoder_learning_rate"} & training_given:
        training["encoder_learning_rate"] = GENTLE * training["learning_rate"]
    options = TrainingOptions(**training)

    if options.early_stop and method.multi_stage:
        raise UserError(
            f"training.early_stop stops when the loss falls no more, and {method.name}'s loss starts again with every "
            "stage of its training: leave it out, and choose training.epochs"
        )
    roles = roles_of(method, train.labels.levels, recipe.get("data", {}).get("roles"))
    _require_labels(method, roles, train.labels)
    if options.layer_decay is not None and not encoder.layer_numbers():
        why = "its weights are frozen" if frozen else "its layers are not told apart"
        raise UserError(
            f"training.layer_decay gives the layers of the encoder '{name}' rates of their own, and {why}: leave it out"
        )
    classes = [train.labels.counts[level] for level in roles.values()]
    start = Training(len(train), options.epochs, tuple(classes), encoder, frozenset(recipe.get("method", {})))
    notices += method.fit_settings(settings, start)
    options = _fit_steps(options, recipe.get("training", {}), len(train), method, notices)
    reduced = replace(train, labels=_by_role(train.labels, list(roles.values())))
    visits = None
    if options.sampling != "uniform":
        visits = loader_of(reduced, options, seed=seed).visits(0)
        read = list(roles.values())
        balanced = read[0] if options.sampling == "balanced" else f"{read[0]} and {read[-1]}"
        notices.append(
            f"sampling {options.sampling}, by {balanced}: the first epoch visits {int((visits > 0).sum())} of "
            f"{len(train)} samples, one of them {int(visits.max())} times"
        )
    _count_truncated(encoder, train, notices)

    inputs: dict[str, Any] = {"modality": train.modality, "shape": list(train.samples.shape)}
    inputs |= {"static": static} if static else {}
    inputs |= {key: list(train.notes[key]) for key in ("columns", "static_columns") if train.notes.get(key)}
    inputs |= {"notations": dict(train.notes["notations"])} if train.notes.get("notations") else {}
    if train.modality == "image":
        mean, std = (encoder.mean, encoder.std) if encoder.mean and encoder.std else channel_statistics(train)
        white = train.notes.get("white", DEEP_WHITE)
        inputs |= {"white": white, "size": size, "mean": list(mean), "std": list(std)}
    elif train.modality == "series":
        values = train.samples.take(rows_for_statistics(len(train)))
        if not isinstance(encoder, FrozenEncoder):
            take_statistics(encoder, values)
        elif not is_pretrained(encoder.backbone.origin):  # pretrained ones know the scale they were trained at
            take_statistics(encoder.backbone, values)
        inputs |= series_statistics(values)
    elif train.modality == "vector" and not frozen:
        values = train.samples.take(rows_for_statistics(len(train)))
        take_statistics(encoder, values)
        inputs |= {"mean": values.mean(dim=0).tolist(), "std": values.std(dim=0).tolist()}

    presets = given.get("views", {}).get("presets")
    usual = default_presets(method, settings, train, frozen=frozen)
    if presets is None:
        presets = usual
    elif not isinstance(presets, list) or len(presets) != len(usual):
        raise UserError(
            f"{method.name} takes {len(usual)} views, and views.presets is {presets!r}: give a list of {len(usual)} "
            "presets"
        )
    classes = [len(reduced.labels.names(level)) for level in roles.values()]
    model = Model.build(method.name, settings, classes, encoder, inputs, presets=presets, seed=seed)
    model.precision = options.precision
    model.method.setup(reduced.labels)
    resolved: dict[str, Any] = {
        "data": {**given.get("data", {}), "roles": roles},
        "method": {"name": method.name, **settings},
        "encoder": {"name": name, **encoder_section},
        "views": {"presets": presets} | ({"size": size} if train.modality == "image" else {}),
        "training": asdict(options),
        "seed": seed,
    }
    return Assembly(model, reduced, options, resolved, notices, visits)


def frozen_encoder(recipe: Mapping[str, Any], train: Dataset) -> Model | None:
    """The encoder of a recipe before any training, as the model ``features``; None unless its weights stay."""
    section = default_encoder_section(_encoder_section(recipe.get("encoder", {})), recipe, train, [])
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


def _encoder_section(section: Mapping[str, Any]) -> dict[str, Any]:
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


def _by_role(labels: Labels, levels: Sequence[str]) -> Labels:
    """Keep only these levels, in the order of the roles."""
    kept = labels.keep(levels)
    order = [kept.levels.index(level) for level in levels]
    return replace(
        kept, codes=kept.codes[:, order], levels=tuple(levels), classes=tuple(kept.classes[i] for i in order)
    )


def _require_labels(method: type[Method], roles: Mapping[str, str], labels: Labels) -> None:
    for role, level in roles.items():
        present = labels.present(level)
        if not present:
            raise UserError(
                f"every label of level '{level}' is unknown in the training data: {method.name} has no {role} "
                "label to learn from"
            )
        if len(present) < method.needs.minimum_classes:
            raise UserError(
                f"level '{level}' has one class in the training data ('{labels.names(level)[present[0]]}'): "
                f"{method.name} needs at least {method.needs.minimum_classes} {role} classes. Choose another "
                "--level, or a method without labels (selfcon, simclr, nnclr)"
            )


def _fit_batch(training: dict[str, Any], general: Mapping[str, Any], samples: int) -> None:
    """Two batches at least, where a method's recipe wants larger ones than the modality's."""
    smaller = general.get("batch_size", TrainingOptions.batch_size)
    if training["batch_size"] > max(smaller, samples // 2):
        training["batch_size"] = smaller


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


def packaged_recipe(
    method: type[Method], *, modality: str, encoder: Mapping[str, Any], size: int, pretrained: bool
) -> dict[str, Any]:
    """The package's recipe for a method, on samples of a modality seen through an encoder.

    ``encoder``: its section of the recipe. ``size``: the side of a view in pixels; 0 where samples are not images.
    ``pretrained``: whether the encoder starts from weights.
    """
    frozen = bool(encoder.get("frozen"))
    kind = _recipes_of(modality, encoder, pretrained=pretrained)
    features = frozen or encoder["name"] in RAW_INPUT
    found = recipe_for(kind, method.name, small=size <= SMALL_IMAGE, features=features, pretrained=pretrained)
    return merge(found, {"encoder": _adapter_of(method)}) if frozen else found


def _recipes_of(modality: str, encoder: Mapping[str, Any], *, pretrained: bool) -> str:
    """The modality whose recipes hold: a text encoder from scratch learns too little at a rate for fine-tuning."""
    return "vector" if encoder.get("frozen") or (modality == "text" and not pretrained) else modality


def _adapter_of(method: type[Method]) -> dict[str, Any]:
    """Return the part of a frozen encoder's section that the method decides."""
    adapter = {} if method.trains_encoder else {"adapter": "identity"}
    return adapter | recipe_for("vector", method.name, features=True).get("encoder", {})
