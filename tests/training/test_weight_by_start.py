"""How far neighbours of the same coarse label are trusted by default: less where the encoder starts from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import regrain
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.methods import method_class

IMAGE: dict[str, Any] = {"modality": "image", "sample_shape": (1, 8, 8), "seed": 0}


def start_of(folder: Path) -> str:
    torch.save(build_encoder("conv4", **IMAGE).state_dict(), folder / "start.pth")
    return str(folder / "start.pth")


@pytest.mark.parametrize(
    ("method", "scratch", "pretrained"), [("maskcon", 0.5, 1.0), ("grafit", 0.5, 0.8), ("coins", 0.5, 0.5)]
)
def test_the_default_follows_the_start(method: str, scratch: float, pretrained: float, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": "conv4", "device": "cpu", "limit_per_class": 6, "settings": ["epochs=1"]}
    starts: dict[str, tuple[float, dict[str, Any]]] = {
        "the encoder starts from random weights": (scratch, {}),
        "the encoder starts from pretrained weights": (pretrained, {"pretrained": start_of(tmp_path)}),
        "the encoder is frozen": (pretrained, {"pretrained": start_of(tmp_path), "frozen": True}),
    }
    for words, (expected, start) in starts.items():
        run = regrain.fit(method, "digits", out=tmp_path / words[-15:], **options, **start)
        assert run.recipe["method"]["weight"] == expected
        assert run.model.method.weight == expected
        assert run.notices.count(f"weight {expected:g}, for {words}") == 1
        again = regrain.fit(
            method,
            "digits",
            recipe=run.path / "recipe.yaml",
            settings=["epochs=1"],
            out=tmp_path / "again",
            device="cpu",
            overwrite=True,
        )
        assert again.recipe["method"]["weight"] == expected
        assert not any("weight" in notice for notice in again.notices)


def test_what_is_asked_for_stands(tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": "conv4", "device": "cpu", "limit_per_class": 6, "out": tmp_path / "run"}
    run = regrain.fit("maskcon", "digits", settings=["epochs=1", "weight=0.9"], **options)
    assert run.recipe["method"]["weight"] == 0.9
    assert not any("weight" in notice for notice in run.notices)


@pytest.mark.parametrize(
    ("modality", "name", "shape", "expected"),
    [("text", "hash-text", (), 1.0), ("vector", "mlp", (4,), 1.0), ("series", "dccn", (16, 2), 1.0)],
)
def test_neighbours_of_words_and_numbers_mean_something_from_the_start(
    modality: str, name: str, shape: tuple[int, ...], expected: float
) -> None:
    encoder = build_encoder(name, modality=modality, sample_shape=shape, seed=0)
    assert method_class("maskcon")(encoder, [3], queue_size=4).weight == expected


def test_a_method_built_by_hand() -> None:
    encoder = build_encoder("conv4", **IMAGE)
    assert method_class("maskcon")(encoder, [3], queue_size=4).weight == 0.5
    encoder.origin = "weights file start.pth"
    assert method_class("maskcon")(encoder, [3], queue_size=4).weight == 1.0
    with pytest.raises(UserError, match=r"weight must be between 0 and 1; got 2"):
        method_class("grafit")(encoder, [3], queue_size=4, weight=2.0)
