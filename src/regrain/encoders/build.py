"""Encoders by name: built from options, described as JSON, and built again from that."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from regrain.checks import check_values, hyperparameters
from regrain.errors import UserError, nearest, warn

from . import image
from .base import RANDOM, Encoder
from .conv import Conv4, ResNet12
from .frozen import FrozenEncoder
from .hash_text import HashTextEncoder
from .series import DCCNEncoder
from .text import TextEncoder, minilm_is_at_hand
from .vector import IdentityEncoder, MLPEncoder, ResidualEncoder, StandardisedEncoder
from .vision import VisionEncoder, is_vision_source, trained_side
from .weights import load_weights

_ANY_TENSOR: dict[str, type[Encoder]] = {"identity": IdentityEncoder, "mlp": MLPEncoder, "residual": ResidualEncoder}
_OURS: dict[str, dict[str, type[Encoder]]] = {
    "image": {"conv4": Conv4, "resnet12": ResNet12, **_ANY_TENSOR},
    "text": {"hash-text": HashTextEncoder},
    "vector": {"standardised": StandardisedEncoder, **_ANY_TENSOR},
    "series": {"dccn": DCCNEncoder, "standardised": StandardisedEncoder, **_ANY_TENSOR},
}
RAW_INPUT = ("identity", "standardised")
"""Encoders that learn nothing: f(x) is the input, as it is or with its columns scaled alike."""
_FROM_LIBRARIES = {"image": image.NAMED, "text": ("minilm",)}
_SAMPLE_DIMENSIONS = {"image": (3, "(C, H, W)"), "text": (0, "()"), "vector": (1, "(D,)"), "series": (2, "(T, C)")}
_SET_BY_BUILD = {"pretrained", "folder"}


def encoder_names(modality: str) -> list[str]:
    """Names of the encoders for a modality; images also take every timm model, texts every folder or hub id.

    Examples
    --------
    >>> encoder_names("image")[:5]
    ['conv4', 'identity', 'lite', 'lite0', 'lite1']
    >>> encoder_names("text")
    ['hash-text', 'minilm']
    """
    if modality not in _OURS:
        raise UserError(f"unknown modality '{modality}': {nearest(modality, _OURS)}", code="unknown_name")
    return sorted([*_OURS[modality], *_FROM_LIBRARIES.get(modality, ())])


def default_encoder(modality: str, sample_shape: Sequence[int]) -> str:
    """The encoder for a modality when the user names none, one that needs no download.

    Examples
    --------
    >>> default_encoder("image", (3, 32, 32)), default_encoder("image", (3, 224, 224)), default_encoder("vector", (8,))
    ('resnet18', 'resnet50', 'mlp')
    """
    encoder_names(modality)
    if modality == "image":
        return "resnet18" if max(sample_shape[1:]) <= image.SMALL_IMAGE else "resnet50"
    if modality == "text":
        return "minilm" if minilm_is_at_hand() else "hash-text"
    return "dccn" if modality == "series" else "mlp"


def side_of_weights(name: str, pretrained: bool | str) -> int | None:
    """The side in pixels of the images that an encoder's published weights were trained on; None without such weights.

    Examples
    --------
    >>> side_of_weights("lite", False), side_of_weights("resnet50", True), side_of_weights("resnet50", False)
    (224, 224, None)
    """
    if name in _OURS["image"] or isinstance(pretrained, str):
        return None
    if is_vision_source(name):
        return trained_side(name)
    return image.published_side(name) if pretrained or name in image.PACKAGED else None


def build_encoder(
    name: str,
    *,
    modality: str,
    sample_shape: Sequence[int],
    static_width: int = 0,
    pretrained: bool | str = False,
    frozen: bool = False,
    freeze_statistics: bool = True,
    adapter: str = "residual",
    adapter_options: Mapping[str, Any] | None = None,
    seed: int | None = None,
    folder: str | Path | None = None,
    origin: str | None = None,
    **options: Any,
) -> Encoder:
    """Build an encoder by name.

    Parameters
    ----------
    name : str
        One of :func:`encoder_names`; for images also any timm model; for texts and images a folder or a hub id, which
        transformers loads.
    modality : {"image", "text", "vector", "series"}
    sample_shape : tuple of int
        (C, H, W) of the views, (D,), (T, C), or () for texts.
    static_width : int, default 0
        Number of static features of a series.
    pretrained : bool or str, default False
        Images: True for timm's published weights. A path loads a local weights file. Text models carry their weights,
        and so does EfficientNet-Lite ("lite").
    frozen : bool, default False
        Freeze the encoder and train an adapter on its features (:class:`~regrain.encoders.FrozenEncoder`).
    freeze_statistics : bool, default True
        Fine-tune from pretrained weights with the batch normalisation's running statistics as they are; False updates
        them, as from random weights and behind a new first convolution they always are. See
        :class:`~regrain.encoders.Encoder` for why.
    adapter : {"residual", "mlp", "identity"}, default "residual"
    adapter_options : mapping, optional
        Options of the adapter.
    seed : int, optional
        The same seed gives the same initial weights; the global random state is left alone. Without a seed the
        weights are drawn from the global random state.
    folder : path, optional
        A saved model's folder: what ``save_extra`` wrote is read from there and no weights are looked up.
    origin : str, optional
        Where the weights that will be loaded come from; written by :func:`encoder_config`. No others are looked up.
    **options
        The encoder's own, as its constructor names them.

    Raises
    ------
    UserError
        Unknown modality, name or option (the nearest is named), wrong sample shape, weights that cannot be had.

    Examples
    --------
    >>> encoder = build_encoder("conv4", modality="image", sample_shape=(3, 32, 32), seed=0)
    >>> encoder.width
    64
    >>> build_encoder("conv4", modality="image", sample_shape=(3, 32, 32), chanels=32)
    Traceback (most recent call last):
    regrain.errors.UserError: encoder 'conv4' has no setting 'chanels': did you mean 'channels'?
    """
    sample_shape = _checked_shape(modality, sample_shape)
    with _seeded(seed):
        if modality == "image" and name in image.PACKAGED and not pretrained:
            pretrained = origin is None
        encoder = _build(name, modality, sample_shape, static_width, pretrained, folder, options)
        if frozen:
            if encoder.origin == RANDOM and origin is None:
                warn(f"the frozen encoder '{name}' has random weights")
            encoder = FrozenEncoder(encoder, _build_adapter(adapter, (encoder.width,), dict(adapter_options or {})))
    encoder.origin = origin or encoder.origin
    if encoder.freeze_statistics and freeze_statistics:
        encoder.train()  # which leaves batch normalisation out
    else:
        encoder.freeze_statistics = False
    encoder.build_config = {
        "name": name,
        "modality": modality,
        "sample_shape": sample_shape,
        **({"static_width": static_width} if static_width else {}),
        "frozen": frozen,
        **({"adapter": adapter, "adapter_options": dict(adapter_options or {})} if frozen else {}),
        **options,
    }
    return encoder


def encoder_config(encoder: nn.Module) -> dict[str, Any]:
    """Return the arguments with which ``build_encoder(**config)`` rebuilds the structure, as plain JSON values.

    The weights are not part of it (load a state dict), nor are a text model's tokenizer and configuration
    (``encoder.save_extra(folder)``, then ``build_encoder(**config, folder=folder)``).

    Examples
    --------
    >>> config = encoder_config(build_encoder("conv4", modality="image", sample_shape=(3, 32, 32), channels=8))
    >>> config["name"], config["sample_shape"], config["channels"], config["origin"]
    ('conv4', [3, 32, 32], 8, 'random initialisation')
    >>> build_encoder(**config).width
    8
    """
    if not isinstance(encoder, Encoder) or encoder.build_config is None:
        raise UserError(
            f"the encoder {type(encoder).__name__} was not made by build_encoder, so a saved model could not be "
            "rebuilt",
            code="not_supported",
        )
    config = encoder.build_config | {"pretrained": False, "origin": encoder.origin}
    network = encoder.backbone if isinstance(encoder, FrozenEncoder) else encoder
    if network.mean is not None and network.std is not None:
        config |= {"mean": network.mean, "std": network.std}  # else lost with ``pretrained``
    return json.loads(json.dumps(config))


def _build(
    name: str,
    modality: str,
    sample_shape: tuple[int, ...],
    static_width: int,
    pretrained: bool | str,
    folder: str | Path | None,
    options: dict[str, Any],
) -> Encoder:
    if name in _OURS[modality]:
        if pretrained is True:
            raise UserError(
                f"no published weights for '{name}': give a weights file, or drop --pretrained", code="not_supported"
            )
        options = _checked(name, _OURS[modality][name], options)
        beside = {"static_width": static_width} if modality == "series" else {}
        encoder = _OURS[modality][name](sample_shape, **beside, **options)
        if pretrained:
            encoder.freeze_statistics = load_weights(encoder, pretrained)
            encoder.origin = f"weights file {pretrained}"
    else:
        _check_modality(name, modality)
        if modality == "image" and is_vision_source(name):
            options = _checked(name, VisionEncoder, options)
            _require_own_weights("an image model of transformers", name, pretrained)
            encoder = VisionEncoder(name, sample_shape, folder=folder, **options)
        elif modality == "image":
            options = _checked(name, image.TimmEncoder, options)
            encoder = image.TimmEncoder(name, sample_shape, pretrained=pretrained, **options)
        else:
            options = _checked(name, TextEncoder, options)
            _require_own_weights("a text model", name, pretrained)
            encoder = TextEncoder(name, folder=folder, **options)
    encoder.modality = modality
    return encoder


def _require_own_weights(kind: str, name: str, pretrained: bool | str) -> None:
    if isinstance(pretrained, str):
        raise UserError(
            f"{kind} comes with its weights and what belongs to them: give the folder as the encoder's name, not "
            f"'{name}'",
            code="conflicting_options",
        )


def _build_adapter(name: str, sample_shape: tuple[int, ...], options: dict[str, Any]) -> Encoder:
    if name not in _ANY_TENSOR:
        raise UserError(f"unknown adapter '{name}': {nearest(name, _ANY_TENSOR)}", code="unknown_name")
    return _ANY_TENSOR[name](sample_shape, **_checked(name, _ANY_TENSOR[name], options))


def _check_modality(name: str, modality: str) -> None:
    """Refuse a name that is not one of a library's for this modality, saying what it is instead."""
    elsewhere = [other for other in _OURS if other != modality and name in encoder_names(other)]
    if elsewhere:
        more = {"image": ", or any timm model", "text": ", or a folder or hub id"}.get(modality, "")
        raise UserError(
            f"'{name}' is an encoder for {' and '.join(elsewhere)} data; for {modality} there are "
            f"{', '.join(encoder_names(modality))}{more}",
            code="unknown_name",
        )
    is_text_source = modality == "text" and (name == "minilm" or "/" in name or Path(os.path.expanduser(name)).is_dir())
    if modality != "image" and not is_text_source:
        hint = nearest(name, encoder_names(modality))
        more = "; or give a folder, or a hub id such as 'sentence-transformers/all-mpnet-base-v2'" * (
            modality == "text"
        )
        raise UserError(f"unknown {modality} encoder '{name}': {hint}{more}", code="unknown_name")


def _checked(name: str, factory: type[Encoder], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options given, converted; the constructor's keyword-only parameters are those there are."""
    known = {n: p for n, p in hyperparameters(factory).items() if n not in _SET_BY_BUILD}
    converted = check_values(options, known, f"encoder '{name}'")
    return {option: converted[option] for option in options}


def _checked_shape(modality: str, sample_shape: Sequence[int]) -> tuple[int, ...]:
    encoder_names(modality)
    dimensions, form = _SAMPLE_DIMENSIONS[modality]
    shape = tuple(int(size) for size in sample_shape)
    if len(shape) != dimensions or any(size < 1 for size in shape):
        raise UserError(f"a sample of {modality} data has shape {form}, got {shape}", code="wrong_shape")
    return shape


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would seed the GPUs as well
        yield
