"""The examples run, and do what they say."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Callable[..., Any]]:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    return lambda name: runpy.run_path(str(EXAMPLES / name))["main"]


def test_all_examples_are_tested() -> None:
    assert {file.name for file in EXAMPLES.glob("*.py")} == {
        "add_a_method.py",  # in tests/docs
        "add_a_protocol.py",  # in tests/docs
        "plain_loop.py",
        "lightning_trainer.py",
        "objective_alone.py",
        "frozen_first.py",
    }


def test_a_plain_loop(example: Callable[[str], Callable[..., Any]]) -> None:
    before, after = example("plain_loop.py")()
    assert after > 0.9
    assert after > before - 0.05


def test_a_bare_trainer(example: Callable[[str], Callable[..., Any]]) -> None:
    losses = example("lightning_trainer.py")()
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_an_objective_alone(example: Callable[[str], Callable[..., Any]]) -> None:
    first, last = example("objective_alone.py")()
    assert last < first


def test_a_frozen_encoder_first(example: Callable[[str], Callable[..., Any]]) -> None:
    found = example("frozen_first.py")()
    assert list(found) == ["frozen", "adapter"]
    assert all(0.5 < value <= 1 for value in found.values())
