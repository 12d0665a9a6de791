"""The commands that an export prints, run as printed, for runs of every method."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from explorer_hand import Hand
from support import Command

import regrain as package
from regrain.explorer.outcome import Outcome, write_outcome
from regrain.explorer.session import Session
from regrain.methods import METHODS
from regrain.runs.run import Run

QUICK = ("mixed", "features", "maskcon", "sup-ce")
"""Methods of which every test run has one: every level, nothing trained, a momentum encoder, a classifier."""


def _outcome(run: Run, *, level: str | None = None, confirmed: bool = False) -> Outcome:
    """Every subclass gets a name, and one held-out sample of each is confirmed where asked for."""
    opened = Session(run, level=level)
    hand = Hand(opened, f"hand-{opened.state.seq}")
    for group in opened.changes(0)["groups"]:
        rows = opened.members(group["number"])["exemplars"]
        if confirmed:
            rows = opened.members(group["number"])["rows"]
        hand("name", group=group["number"], name=f"it's {group['number']}", samples=rows)
    outcome = write_outcome(opened)
    opened.close()
    return outcome


def _run_as_printed(regrain: Command, outcome: Outcome) -> tuple[Run, dict[str, Any]]:
    """The run that the command makes, and the figures of the command that judges it."""
    words = shlex.split(outcome.commands["fit"])
    assert words[0] == "regrain"
    code, _, err = regrain(*words[1:])
    assert code == 0, err
    code, out, err = regrain(*shlex.split(outcome.commands["evaluate"])[1:], "--json")
    assert code == 0, err
    return Run.open(words[-1], device="cpu"), json.loads(out)


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=[] if m in QUICK else [pytest.mark.slow]) for m in sorted(METHODS)]
)
def test_the_command_of_a_run_of_every_method_leads_to_a_run_that_is_judged(
    method: str, table: Path, regrain: Command, tmp_path: Path
) -> None:
    run = package.fit(
        method,
        str(table),
        levels=["kind", "sub"],
        out=tmp_path / "my run",
        epochs=3,
        batch_size=24,
        seed=7,
        encoder="mlp",
        settings={"encoder.width": 16},
        device="cpu",
    )
    found, figures = _run_as_printed(regrain, _outcome(run))
    assert found.recipe["seed"] == 7
    assert found.recipe["encoder"]["width"] == 16
    if METHODS[method].trains_encoder:
        assert (found.recipe["training"]["epochs"], found.recipe["training"]["batch_size"]) == (3, 24)
    assert found.recipe["data"]["levels"] in (["kind", "subclass"], ["subclass"])  # found without superclasses
    assert 0 < figures["test/sub/recall@1"] <= 1
    assert 0 < figures["test/kind/recall@1"] <= 1


def test_confirmed_samples_that_are_held_out_judge_the_names(table: Path, regrain: Command, tmp_path: Path) -> None:
    frame = pd.read_csv(table).drop(columns="sub")
    frame.to_csv(tmp_path / "coarse.csv", index=False)
    run = package.fit("supcon", tmp_path / "coarse.csv", out=tmp_path / "run", levels=["kind"], epochs=1)
    package.discover(run, each=3)
    outcome = _outcome(run)
    assert any("no sample held out has a class of level 'subclass'" in notice for notice in outcome.notices)
    outcome = _outcome(run, confirmed=True)
    assert not any("no sample held out" in notice for notice in outcome.notices)
    _, figures = _run_as_printed(regrain, outcome)
    assert 0 < figures["test/subclass/recall@1"] <= 1


def test_a_run_on_all_samples_is_trained_again_with_some_held_out(
    table: Path, regrain: Command, tmp_path: Path
) -> None:
    frame = pd.read_csv(table).drop(columns=["split", "sub"]).assign(person=np.arange(144) % 12)
    frame.to_csv(tmp_path / "all.csv", index=False)
    reading = {"levels": ["kind"], "group_column": "person", "columns": ["x*"]}
    run = package.fit("sup-ce", tmp_path / "all.csv", out=tmp_path / "run", holdout=0, epochs=1, **reading)
    package.discover(run, each=3)
    outcome = _outcome(run)
    assert any("the new one holds some out" in notice for notice in outcome.notices)
    found, figures = _run_as_printed(regrain, outcome)
    assert 0 < figures["test/subclass/recall@1"] <= 1
    splits = found.splits()
    assert not set(splits["train"].groups) & set(splits["test"].groups)


def test_what_was_chosen_for_a_run_carries_over_and_what_a_method_brought_does_not(
    table: Path, regrain: Command, tmp_path: Path
) -> None:
    settings = {
        "training.weight_decay": 1e-6,
        "training.schedule": "constant",
        "views.presets": ["weak", "weak"],
        "encoder.hidden": [12, 12],
        "method.temperature": 0.3,
    }
    run = package.fit(
        "mixed", str(table), levels=["kind", "sub"], out=tmp_path / "run", epochs=2, encoder="mlp", settings=settings
    )
    found, _ = _run_as_printed(regrain, _outcome(run, level="sub"))
    for section in ("encoder", "method", "training", "views"):
        assert found.recipe[section] == run.recipe[section], section
    quiet = package.fit("self-classifier", str(table), levels=[], out=tmp_path / "own", epochs=2, encoder="mlp")
    assert quiet.recipe["training"]["weight_decay"] != found.recipe["training"]["weight_decay"]
    words = shlex.split(_outcome(quiet).commands["fit"])
    assert not [word for word in words if word.startswith("method.")]
    assert "weight_decay" not in str(words)


def test_a_frozen_encoder_stays_the_runs_own(regrain: Command, tmp_path: Path) -> None:
    texts = ["turn left", "turn right", "how are you", "well thank you"] * 12
    pd.DataFrame({"text": texts, "kind": ["way", "way", "talk", "talk"] * 12}).to_csv(tmp_path / "t.csv", index=False)
    for method in ("features", "maskcon"):
        run = package.fit(
            method,
            tmp_path / "t.csv",
            out=tmp_path / method,
            encoder="hash-text",
            frozen=True,
            text="text",
            levels=["kind"],
        )
        package.discover(run, each=2)
        outcome = _outcome(run, confirmed=True)
        found, _ = _run_as_printed(regrain, outcome)
        assert (found.recipe["encoder"]["name"], found.recipe["encoder"]["frozen"]) == ("hash-text", True)
        assert found.recipe["encoder"].get("adapter") != "identity"
