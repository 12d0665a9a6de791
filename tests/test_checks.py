"""Settings: one form of message for every constraint, whether a recipe, the command line or a constructor gives it."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, Literal

import pytest

from regrain.checks import BelowOne, Count, Positive, Share, check_values, expected, hyperparameters, is_whole
from regrain.encoders import build_encoder
from regrain.encoders.conv import Conv4
from regrain.encoders.vector import MLPEncoder
from regrain.errors import UserError
from regrain.methods import METHODS, method_class
from regrain.training.options import TrainingOptions


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight", 2, "maskcon.weight must be between 0 and 1; got 2"),
        ("weight", math.nan, "maskcon.weight must be between 0 and 1; got nan"),
        ("weight", "much", "maskcon.weight must be a number between 0 and 1; got 'much'"),
        ("temperature", 0, "maskcon.temperature must be greater than 0; got 0"),
        ("temperature", math.inf, "maskcon.temperature must be greater than 0; got inf"),
        ("momentum", 1.0, "maskcon.momentum must be at least 0 and below 1; got 1.0"),
        ("weight", True, "maskcon.weight must be a number between 0 and 1; got True"),
        ("queue_size", True, "maskcon.queue_size must be a whole number of at least 0; got True"),
        ("queue_size", -1, "maskcon.queue_size must be at least 0; got -1"),
        ("queue_size", 1.5, "maskcon.queue_size must be a whole number of at least 0; got 1.5"),
        ("projector_width", 0, "maskcon.projector_width must be at least 1; got 0"),
    ],
)
def test_a_recipe_and_a_constructor_say_the_same(name: str, value: Any, message: str) -> None:
    maskcon = method_class("maskcon")
    encoder = build_encoder("identity", modality="vector", sample_shape=(4,))
    calls = (
        lambda: check_values({name: value}, hyperparameters(maskcon), "maskcon"),
        lambda: maskcon(encoder, [2], **{name: value}),
    )
    for call in calls:
        with pytest.raises(UserError) as refused:
            call()
        assert str(refused.value) == message
        assert refused.value.code == "out_of_range"


def test_constructors_convert_what_is_given() -> None:
    encoder = build_encoder("identity", modality="vector", sample_shape=(4,))
    method = method_class("mlcl")(encoder, [2, 3], temperatures=["0.5", 1], weights=[1, 2])
    assert method.temperatures == (0.5, 1.0)
    assert TrainingOptions(epochs="3").epochs == 3  # type: ignore[arg-type]


def test_encoders_and_training_options_are_checked_too() -> None:
    for call, message in (
        (lambda: Conv4((3, 8, 8), channels=0), "Conv4.channels must be at least 1; got 0"),
        (lambda: MLPEncoder((4,), hidden=(8, 0)), "MLPEncoder.hidden must be a list of whole numbers of at least 1"),
        (
            lambda: TrainingOptions(layer_decay=1.5),
            "training.layer_decay must be greater than 0 and at most 1; got 1.5",
        ),
        (lambda: TrainingOptions(schedule="cosin"), "training.schedule must be one of cosine, restarts, constant"),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError) as refused:
            call()
        assert str(refused.value).startswith(message)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_every_method_says_what_it_takes(name: str) -> None:
    for parameter in hyperparameters(METHODS[name]).values():
        words = expected(parameter.annotation)
        assert not set("<>[]|") & set(words), words
        check_values({parameter.name: parameter.default}, {parameter.name: parameter}, name)


def test_words() -> None:
    assert expected(Share | tuple[Count, ...]) == "a number between 0 and 1 or a list of whole numbers of at least 1"
    assert expected(Literal["drop", "self"]) == "one of drop, self"
    assert expected(tuple[tuple[str, ...], ...] | None) == "a list of lists of texts"
    assert [is_whole(a) for a in (int, Count | None, Positive, BelowOne | None)] == [True, True, False, False]


def test_objectives_and_encoders_load_without_pydantic() -> None:
    code = "import sys, regrain.objectives, regrain.encoders; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
