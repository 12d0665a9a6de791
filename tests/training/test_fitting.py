"""Settings that follow from the data and the length of a training, where the user gives none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.runs.assemble import Assembly, assemble


def assembled(
    method: str, count: int = 240, training: dict[str, Any] | None = None, encoder: str = "mlp", **settings: Any
) -> Assembly:
    coarse = torch.arange(count) % 3
    labels = Labels.from_codes(coarse[:, None], ["coarse"])
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    data = Dataset(TensorSamples(x, "vector"), labels, np.arange(count).astype(str))
    recipe = {"method": {"name": method, **settings}, "encoder": {"name": encoder}, "training": training or {}}
    return assemble(recipe, data)


def test_assignment_period_follows_the_length_of_the_training() -> None:
    for epochs, period in ((1, 1), (10, 1), (80, 2), (200, 5)):
        assert assembled("scgm", training={"epochs": epochs}).recipe["method"]["assignment_period"] == period
    assert assembled("scgm", assignment_period=7).recipe["method"]["assignment_period"] == 7


def test_means_start_again_only_while_random_weights_learn() -> None:
    training = {"epochs": 12}
    scratch = assembled("scgm", training=training)
    assert scratch.recipe["method"]["start_epochs"] == 6
    assert any("starts from random weights" in n for n in scratch.notices)
    assert assembled("scgm", training=training, encoder="identity").recipe["method"]["start_epochs"] == 1
    assert assembled("scgm", training=training, initial_means="random").recipe["method"]["start_epochs"] == 1
    assert assembled("scgm-a", training=training, start_epochs=2).recipe["method"]["start_epochs"] == 2


def test_batches_shrink_until_there_are_enough_steps() -> None:
    short = assembled("scgm", count=2560, training={"epochs": 10})
    assert short.options.batch_size == 32  # 10 epochs of 10 steps; 320 with batches of 64
    assert any("batches of 32, not 256: 800 steps" in n for n in short.notices)
    assert assembled("scgm", count=2560, training={"epochs": 50}).options.batch_size == 256
    assert assembled("scgm", count=2560, training={"epochs": 10, "batch_size": 256}).options.batch_size == 256
    assert assembled("scgm", count=60, training={"epochs": 2}).options.batch_size == 32
    assert assembled("maskcon", count=2560, training={"epochs": 10}).options.batch_size == 256
    assert short.recipe["training"]["batch_size"] == 32


@pytest.mark.parametrize(("epochs", "fits"), [(20, True), (60, True), (10, False), (30, False)])
def test_warm_restarts_that_do_not_fit_are_told(epochs: int, fits: bool) -> None:
    asked = assembled("scgm", training={"epochs": epochs, "schedule": "restarts", "restart_epochs": 20})
    assert asked.options.schedule == "restarts"
    assert any("end within a cycle of 20" in n for n in asked.notices) is not fits
    if epochs == 30:
        assert any("at 0.50 of the learning rate" in n for n in asked.notices)


def test_queues_have_their_length_a_superclass() -> None:
    made = assembled("scgm-a", count=240)
    assert made.recipe["method"]["queue_size"] == 40
    assert made.model.method.angular.queues.by_owner.shape[:2] == (3, 40)
    assert any("queue of 40 entries for each superclass" in n for n in made.notices)
    with pytest.raises(UserError, match="queue_size 81 for each superclass is longer"):
        assembled("ancor", queue_size=81)
