"""Isotropy: what is relabelled, what is trained, what is counted, and that a subclass really moves."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regrain
from regrain.data.corruption import limit_per_class
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.papers.swapping import Move
from regrain.training.loop import Stopped

QUICK: dict[str, Any] = {
    "encoder": "conv4",
    "settings": ["epochs=1", "batch_size=32", "training.precision=float32"],
    "limit_per_class": 20,
    "device": "cpu",
}
EIGHT = {"subclass": "8", "to": "straight"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return regrain.load("digits")


def moved_eight(digits: Dataset) -> tuple[Move, Dataset, Dataset]:
    train, test = digits.split("train"), digits.split("test")
    return Move.of(train, test, ["group", "digit"], **{"subclass": "8", "target": "straight"}), train, test


# What is relabelled


def test_only_the_subclass_gets_another_superclass(digits: Dataset) -> None:
    move, train, _ = moved_eight(digits)
    assert (move.level, move.superclass_level, move.origin) == ("digit", "group", "loop")
    before = train.labels.level("group").clone()
    relabelled = move.apply(train)
    codes, names = relabelled.labels.level("group"), train.labels.names("group")
    eights = train.labels.level("digit") == 8
    assert {names[code] for code in codes[eights].tolist()} == {"straight"}
    assert torch.equal(codes[~eights], before[~eights])
    assert torch.equal(train.labels.level("group"), before)
    assert relabelled.labels.levels == ("group",)  # with the digits an 8 would have two parents
    assert relabelled.fingerprint() == train.fingerprint()


def test_hidden_labels_stay_hidden(digits: Dataset) -> None:
    move, train, _ = moved_eight(digits)
    codes = train.labels.codes.clone()
    codes[:, 0] = codes[:, 0].where(torch.arange(len(codes)) % 2 == 0, -1)
    hidden = replace(train, labels=replace(train.labels, codes=codes))
    assert torch.equal(move.apply(hidden).labels.level("group") < 0, codes[:, 0] < 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"subclass": "08", "to": "straight"}, r"subclass=: level 'digit' has no class '08': did you mean"),
        ({"subclass": "8", "to": "strait"}, r"to=: level 'group' has no class 'strait': did you mean 'straight'"),
        ({"subclass": "8", "to": "loop"}, "'8' lies under 'loop' already"),
        ({"levels": ["digit"]}, "one level is in use: name two levels with levels="),
        ({"seeds": 0}, "seeds must be at least 1; got 0"),
    ],
)
def test_impossible_move_is_refused(digits: Dataset, options: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        regrain.isotropy("sup-ce", digits, out=tmp_path / "e", **{**QUICK, **EIGHT, **options})
    assert not (tmp_path / "e").exists()


def small(coarse: list[int], fine: list[int], splits: list[str]) -> Dataset:
    codes = torch.tensor([coarse, fine]).T
    labels = Labels.from_codes(codes, ["kind", "sub"], [["k0", "k1"], ["s0", "s1", "s2"]], relation="aspects")
    ids = np.array([str(i) for i in range(len(coarse))])
    return Dataset(TensorSamples(torch.randn(len(coarse), 4), "vector"), labels, ids, splits=np.array(splits))


@pytest.mark.parametrize(
    ("coarse", "fine", "words"),
    [
        ([0, 0, 1, 0, 0, 1], [0, 1, 2, 1, 1, 2], "no test sample is of 's0'"),
        ([0, 0, 1, 0, -1, -1], [0, 1, 2, 0, 1, 2], "no test sample but those of 's0'"),
        ([0, 1, 1, 0, 1, 1], [0, 1, 2, 0, 1, 2], "'s0' is all that 'k0' has in training"),
        ([0, 1, 1, 0, 1, 1], [0, 0, 2, 0, 1, 2], "'s0' lies under k0 and k1"),
        ([-1, 0, 1, 0, 1, 1], [0, 1, 2, 0, 1, 2], "no training sample of 's0' has a label of level 'kind'"),
    ],
)
def test_nothing_to_compare_is_said(coarse: list[int], fine: list[int], words: str) -> None:
    data = small(coarse, fine, ["train"] * 3 + ["test"] * 3)
    with pytest.raises(UserError, match=words):
        Move.of(data.split("train"), data.split("test"), ["kind", "sub"], "s0", "k1")


def test_methods_of_fine_labels_and_data_without_labels_are_refused(digits: Dataset, tmp_path: Path) -> None:
    for method in ("sup-fine", "mixed"):
        with pytest.raises(UserError, match=f"{method} reads labels of finer levels"):
            regrain.isotropy(method, digits, out=tmp_path / "e", **EIGHT, **QUICK)
    bare = replace(digits, labels=Labels.empty(len(digits)))
    with pytest.raises(UserError, match="no label is in use"):
        regrain.isotropy("simclr", bare, out=tmp_path / "e", **EIGHT, **{**QUICK, "limit_per_class": None})
    with pytest.raises(UserError, match="no split 'test'"):
        regrain.isotropy("sup-ce", digits.split("train"), out=tmp_path / "e", **EIGHT, **QUICK)
    assert not (tmp_path / "e").exists()


# What comes out


def test_a_classifier_of_superclasses_follows_the_moved_labels(digits: Dataset, tmp_path: Path) -> None:
    settings = ["epochs=4", "batch_size=32", "learning_rate=0.05", "training.precision=float32"]
    asked = {**QUICK, **EIGHT, "settings": settings, "limit_per_class": 60}
    found = regrain.isotropy("sup-ce", digits, out=tmp_path / "e", **asked)
    (given,), (moved,) = found.given, found.moved
    assert given.own > 0.7
    assert moved.new > given.new + 0.4
    assert moved.own < given.own - 0.4
    assert min(given.accuracy, moved.accuracy) > 0.75
    for fate in (given, moved):
        assert fate.own + fate.new + fate.others == pytest.approx(1)
    test = digits.split("test")
    eights = (test.labels.level("digit") == 8).numpy()
    assert (found.samples, found.others) == (eights.sum(), (~eights).sum())
    names = test.labels.names("group")
    run = regrain.Run.open(tmp_path / "e" / "s0-moved", device="cpu")
    said = np.array(names)[run.predict_proba(test, "group").argmax(dim=1).numpy()]
    assert moved.new == pytest.approx((said[eights] == "straight").mean())
    truth = np.array(names)[test.labels.level("group").numpy()]
    assert moved.accuracy == pytest.approx((said == truth)[~eights].mean())


def test_a_method_without_labels_trains_once(digits: Dataset, tmp_path: Path) -> None:
    trained: list[str] = []
    out = tmp_path / "e"
    found = regrain.isotropy("simclr", digits, out=out, on_run=lambda r: trained.append(r.path.name), **EIGHT, **QUICK)
    assert trained == ["s0"]
    assert sorted(f.name for f in out.iterdir()) == ["isotropy.json", "manifest.json", "plan.json", "s0"]
    assert found.moved[0].new > found.given[0].new + 0.3  # the same features serve the wrong label
    assert "logistic regression" in found.judged_by


def test_a_method_without_a_classifier_is_judged_by_the_labels_it_was_trained_on(
    digits: Dataset, tmp_path: Path
) -> None:
    found = regrain.isotropy("supcon", digits, out=tmp_path / "e", **EIGHT, **QUICK)
    assert "logistic regression" in found.judged_by
    assert found.moved[0].new > found.given[0].new + 0.3


def test_finished_runs_are_reused_and_seeds_may_be_added(digits: Dataset, tmp_path: Path) -> None:
    trained: list[str] = []
    asked = {**QUICK, **EIGHT, "out": tmp_path / "e", "on_run": lambda run: trained.append(run.path.name)}
    first = regrain.isotropy("sup-ce", digits, **asked)
    assert trained == ["s0-given", "s0-moved"]
    assert first.figures()["given"]["own"].high is None
    both = regrain.isotropy("sup-ce", digits, seeds=2, **asked)
    assert trained == ["s0-given", "s0-moved", "s1-given", "s1-moved"]
    assert both.given[0] == first.given[0]
    score = both.figures()["moved"]["accuracy"]
    values = [fate.accuracy for fate in both.moved]
    assert score.value == pytest.approx(np.mean(values))
    half_width = 12.7062 * np.std(values, ddof=1) / np.sqrt(2)  # Student's t of one degree of freedom
    reach = half_width / (score.value * (1 - score.value))  # on the scale of the logit, where a share has no bounds
    ends = (1 / (1 + (1 / score.value - 1) * np.exp(sign * reach)) for sign in (1, -1))
    assert (score.low, score.high) == pytest.approx(tuple(ends), rel=1e-4)
    written = json.loads((tmp_path / "e" / "isotropy.json").read_text())
    assert written["moved"]["accuracy"]["mean"] == score.value
    assert [row["seed"] for row in written["by_seed"]] == [0, 1]
    assert (written["subclass"], written["origin"], written["target"]) == ("8", "loop", "straight")
    assert not list((tmp_path / "e").rglob("last.ckpt"))
    with pytest.raises(UserError, match=r"another experiment \(other subclass\)"):
        regrain.isotropy("sup-ce", digits, **{**asked, "subclass": "9"})
    with pytest.raises(UserError, match=r"another experiment \(other recipe\)"):
        regrain.isotropy("sup-ce", digits, **{**asked, "settings": ["epochs=2"]})
    assert len(trained) == 4


def test_an_interrupted_run_goes_on(digits: Dataset, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: Any) -> None:
        raise Stop

    asked = {**QUICK, **EIGHT, "settings": [*QUICK["settings"], "epochs=2"]}
    whole = regrain.isotropy("sup-ce", digits, out=tmp_path / "whole", **asked)
    with pytest.raises(Stop):
        regrain.isotropy("sup-ce", digits, out=tmp_path / "cut", on_run=stop, **asked)
    move, _, _ = moved_eight(digits)
    training = move.apply(limit_per_class(digits.split("train"), 20))
    interrupt = threading.Event()
    interrupt.set()
    recipe = {k: v for k, v in asked.items() if k in ("encoder", "settings", "device")}
    with pytest.raises(Stopped):
        regrain.fit("sup-ce", training, out=tmp_path / "cut" / "s0-moved", holdout=0, interrupt=interrupt, **recipe)
    cut = regrain.isotropy("sup-ce", digits, out=tmp_path / "cut", **asked)
    assert (cut.given, cut.moved) == (whole.given, whole.moved)
