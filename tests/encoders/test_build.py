"""Building by name: messages, seeds, configurations that rebuild, quick imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support import raises
from torch import nn

from regrain.encoders import build_encoder, default_encoder, encoder_config, encoder_names
from regrain.errors import UserError

SAMPLES: dict[str, tuple[str, tuple[int, ...]]] = {
    "conv4": ("image", (3, 16, 16)),
    "resnet12": ("image", (1, 8, 8)),
    "resnet18-w16": ("image", (3, 32, 32)),
    "resnet26d": ("image", (4, 16, 16)),
    "vit_tiny_patch16_224": ("image", (3, 32, 32)),
    "hash-text": ("text", ()),
    "mlp": ("vector", (9,)),
    "identity": ("series", (5, 2)),
    "dccn": ("series", (5, 2)),
    "residual": ("image", (1, 4, 4)),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    modality, shape = SAMPLES[name]
    encoder: Any = build_encoder(name, modality=modality, sample_shape=shape).eval()
    save_file(encoder.state_dict(), tmp_path / "model.safetensors")
    config = json.loads(json.dumps(encoder_config(encoder)))
    again = build_encoder(**config).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = encoder.tokenize(["two cats", "a dog"]) if modality == "text" else torch.randn(2, *shape)
    assert torch.equal(encoder(x), again(x))
    assert again.modality == modality
    assert str(again) == str(encoder)
    assert encoder_config(again) == config


def test_round_trip_keeps_what_the_pretrained_weights_said(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18", num_classes=10).state_dict(), tmp_path / "w.safetensors")
    shape = (3, 32, 32)
    encoder = build_encoder(
        "resnet18", modality="image", sample_shape=shape, pretrained=str(tmp_path / "w.safetensors"), frozen=True
    )
    (tmp_path / "w.safetensors").unlink()
    again = build_encoder(**encoder_config(encoder))  # a warning of random frozen weights would be an error here
    assert again.mean == encoder.mean == (0.485, 0.456, 0.406)
    assert again.std == encoder.std
    assert again.origin == encoder.origin
    assert again.origin.endswith("w.safetensors (frozen, with a trained adapter)")
    assert again.state_dict().keys() == encoder.state_dict().keys()


@pytest.mark.parametrize("name", SAMPLES)
def test_same_seed_same_weights_and_global_state_untouched(name: str) -> None:
    modality, shape = SAMPLES[name]

    def weights(seed: int) -> list[torch.Tensor]:
        return list(build_encoder(name, modality=modality, sample_shape=shape, seed=seed).state_dict().values())

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = weights(1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    if name != "identity":
        assert not all(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))


@pytest.mark.parametrize(
    ("name", "modality", "shape", "message"),
    [
        (
            "minilm",
            "image",
            (3, 32, 32),
            r"'minilm' is an encoder for text data; for image there are conv4.*timm model",
        ),
        (
            "resnet18",
            "text",
            (),
            r"'resnet18' is an encoder for image data; for text there are hash-text, minilm, or a",
        ),
        ("mlp", "text", (), "'mlp' is an encoder for image and vector and series data"),
        ("conv4", "vector", (3,), "'conv4' is an encoder for image data; for vector there are identity, mlp, residual"),
        ("mpl", "vector", (3,), "unknown vector encoder 'mpl': did you mean 'mlp'"),
        ("mlp", "sound", (3,), "unknown modality 'sound'"),
        ("mlp", "vector", (3, 4), r"a sample of vector data has shape \(D,\), got \(3, 4\)"),
        ("conv4", "image", (3, 0, 4), r"a sample of image data has shape \(C, H, W\)"),
    ],
)
def test_messages(name: str, modality: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_encoder(name, modality=modality, sample_shape=shape)


@pytest.mark.parametrize(
    ("name", "option", "hint"),
    [
        ("resnet18", "smal_stem", "did you mean 'small_stem'"),
        ("mlp", "hiden", "did you mean 'hidden'"),
        ("resnet12", "zzz", "choose from drop_rate"),
        ("identity", "hidden", "it has none"),
    ],
)
def test_unknown_options(name: str, option: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"encoder '{name}' has no setting '{option}': {hint}"):
        build_encoder(name, modality="image", sample_shape=(3, 32, 32), **dict[str, Any]({option: 1}))


@pytest.mark.parametrize(
    ("name", "modality", "shape", "option", "value"),
    [
        ("hash-text", "text", (), "max_length", 0),
        ("conv4", "image", (3, 8, 8), "channels", 0),
        ("resnet12", "image", (3, 8, 8), "drop_rate", 1.5),
        ("resnet18-w16", "image", (3, 32, 32), "drop_path_rate", -0.1),
        ("dccn", "series", (4, 2), "dropout", 2.0),
        ("dccn", "series", (4, 2), "static_hidden", [0]),
    ],
)
def test_options_out_of_range(name: str, modality: str, shape: tuple[int, ...], option: str, value: object) -> None:
    with pytest.raises(UserError, match=f"{option} must be "):
        build_encoder(name, modality=modality, sample_shape=shape, **dict[str, Any]({option: value}))


def test_unknown_adapter() -> None:
    with raises("unknown_name"):
        build_encoder("identity", modality="vector", sample_shape=(3,), frozen=True, adapter="residul")


def test_config_of_a_foreign_module() -> None:
    with raises("not_supported"):
        encoder_config(nn.Linear(2, 2))


def test_every_listed_name_builds() -> None:
    shapes = {"image": (3, 32, 32), "vector": (4,), "series": (5, 2)}
    for modality, shape in shapes.items():
        for name in encoder_names(modality):
            encoder = build_encoder(name, modality=modality, sample_shape=shape)
            assert encoder.eval()(torch.randn(2, *shape)).shape == (2, encoder.width)
        assert default_encoder(modality, shape) in encoder_names(modality)


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, regrain.encoders;"
        "print([m for m in ('timm', 'transformers', 'sentence_transformers', 'torchvision', 'huggingface_hub')"
        " if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
