"""``clean``: doubtful labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import regrain
from regrain.data.dataset import Dataset
from regrain.labels import Labels


def _digits(*, flipped: float = 0.05, seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """Digits with wrong labels at the fine level, and which samples have one."""
    data = regrain.load("digits")
    data = data.select(np.flatnonzero(data.splits == "train")) if data.splits is not None else data
    generator = np.random.default_rng(seed)
    truth = data.labels.level("digit").numpy()
    wrong = generator.random(len(truth)) < flipped
    codes = np.where(wrong, (truth + generator.integers(1, 10, len(truth))) % 10, truth)
    names = data.labels.names("digit")
    splits = np.where(np.arange(len(truth)) % 4 == 0, "test", "train")
    return replace(data, labels=Labels.from_columns({"digit": [names[code] for code in codes]}), splits=splits), wrong


def test_many_classes_are_told_apart(tmp_path: Path) -> None:
    """150 classes of 20 samples: a solver that stops where the mean loss is flat finds all of them equally likely."""
    generator = np.random.default_rng(0)
    truth = np.arange(3000) % 150
    centres = generator.normal(size=(150, 64))
    vectors = (centres[truth] + generator.normal(size=(3000, 64))).astype(np.float32)
    wrong = generator.random(3000) < 0.05
    codes = np.where(wrong, (truth + generator.integers(1, 150, 3000)) % 150, truth)
    data = regrain.load(vectors, labels={"kind": [f"k{code}" for code in codes]})
    run = regrain.fit("features", data, encoder="identity", out=tmp_path / "run")
    found = run.clean().table
    marked = {int(name) for name in found["id"]}
    hits = len(marked & set(np.flatnonzero(wrong).tolist()))
    assert hits > 0.9 * len(marked)
    assert hits > 0.5 * wrong.sum()


def test_an_embedding_that_tells_nothing_apart_is_reported(tmp_path: Path) -> None:
    labels = [f"k{row % 2}" for row in range(60)]
    same = regrain.load(np.ones((60, 4), dtype=np.float32), labels={"kind": labels})
    notes = regrain.fit("features", same, encoder="identity", out=tmp_path / "same").clean().notes
    assert any("its doubts say nothing" in note for note in notes), notes
    apart = regrain.load(np.eye(2, dtype=np.float32)[np.arange(60) % 2], labels={"kind": labels})
    assert not regrain.fit("features", apart, encoder="identity", out=tmp_path / "apart").clean().notes


def test_flipped_labels_come_first_and_their_class_is_proposed(tmp_path: Path) -> None:
    data, wrong = _digits()
    run = regrain.fit("features", data, encoder="identity", out=tmp_path / "run")
    found = run.clean(out=tmp_path / "doubtful.csv")
    truth = dict(zip(data.ids.tolist(), wrong.tolist(), strict=True))
    first = found.table.head(int(wrong.sum()) // 2)
    assert np.mean([truth[name] for name in first["id"]]) > 0.9
    assert set(found.table["split"]) == {"train", "test"}
    assert found.counts["doubtful"].sum() == len(found.table)
    flagged = {name for name in found.table["id"] if truth[name]}
    assert len(flagged) > 0.5 * wrong.sum()
    clean = regrain.load("digits")
    digit = dict(zip(clean.ids.tolist(), clean.labels.level("digit").tolist(), strict=True))
    right = found.table[[name in flagged for name in found.table["id"]]]
    proposed = [clean.labels.names("digit")[digit[name]] for name in right["id"]]
    assert np.mean(right["digit_proposed"].astype(str).to_numpy() == np.array(proposed)) > 0.9
    written = pd.read_csv(tmp_path / "doubtful.csv", dtype={"id": str})
    assert written["id"].tolist() == found.table["id"].astype(str).tolist()
    assert regrain.clean(run.path, data).table.shape == found.table.shape


def test_other_data_are_judged_by_the_training_samples(tmp_path: Path) -> None:
    data, _ = _digits(flipped=0)
    run = regrain.fit("features", data, encoder="identity", out=tmp_path / "run")
    images = data.select(np.arange(40))
    names = list(images.labels.names("digit"))
    labels = [names[code] for code in images.labels.level("digit").tolist()]
    labels[3] = names[(names.index(labels[3]) + 1) % 10]
    labels[5] = "eleven"  # a class that training does not have
    given = replace(images, labels=Labels.from_columns({"digit": labels}), splits=None)
    found = run.clean(given)
    assert found.table["id"].iloc[0] == images.ids[3]
    assert images.ids[5] not in set(found.table["id"])
    assert int(found.counts["labels"].sum()) == 39


def test_single_samples_and_missing_labels_are_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(41, 4)).astype("float32")
    data = regrain.load(x, labels={"one": ["same"] * 41, "kind": ["a", "b"] * 20 + ["alone"]})
    run = regrain.fit("features", data, encoder="identity", holdout=0, out=tmp_path / "run")
    found = run.clean()
    assert any("single training sample" in note and "alone" in note for note in found.notes)
    assert any("'one'" in note for note in found.notes)
    with pytest.raises(regrain.UserError, match="no label can be judged"):
        run.clean(levels=["one"])
    with pytest.raises(regrain.UserError):
        run.clean(levels=["kid"])


def test_whole_groups_are_held_out_together(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(30, 16))
    group = np.repeat(np.arange(30), 6)
    x = (centres[group] + 0.01 * generator.normal(size=(180, 16))).astype("float32")
    labels = [f"k{g % 2}" for g in group]  # a class cannot be known but from the group's own copies
    groups = [f"g{g}" for g in group]
    data = regrain.load(x, labels={"kind": labels}, groups=groups)
    run = regrain.fit("features", data, encoder="identity", holdout=0, out=tmp_path / "run")
    alone = regrain.load(x, labels={"kind": labels})
    copies = regrain.fit("features", alone, encoder="identity", holdout=0, out=tmp_path / "copies")
    assert run.clean().counts["doubtful"].sum() > copies.clean().counts["doubtful"].sum()


@pytest.mark.parametrize("each", [2, 3])
def test_classes_of_fewer_samples_than_folds(tmp_path: Path, each: int) -> None:
    x = np.eye(4, dtype="float32").repeat(each, axis=0)
    data = regrain.load(x, labels={"kind": [f"k{code}" for code in range(4) for _ in range(each)]})
    run = regrain.fit("features", data, encoder="identity", holdout=0, out=tmp_path / "run")
    found = run.clean()
    assert int(found.counts["labels"].sum()) == 4 * each
    assert found.table.empty


@pytest.mark.parametrize("groups", [["g0"] * 6 + ["g1"] * 6, ["g0"] * 12])
def test_a_class_within_one_group_is_not_judged(tmp_path: Path, groups: list[str]) -> None:
    x = np.eye(2, dtype="float32").repeat(6, axis=0)
    data = regrain.load(x, labels={"kind": ["a"] * 6 + ["b"] * 6}, groups=groups)
    run = regrain.fit("features", data, encoder="identity", holdout=0, out=tmp_path / "run")
    found = run.clean()
    assert found.table.empty
    assert int(found.counts["labels"].sum()) == 0
    assert "12 training samples are not judged" in found.notes[0]


def test_a_missing_label_is_proposed_beside_a_doubtful_one(tmp_path: Path) -> None:
    x = np.eye(4, dtype="float32").repeat(8, axis=0)
    fine = [f"k{code}" for code in range(4) for _ in range(8)]
    other: list[str | None] = ["left" if name < "k2" else "right" for name in fine]
    other[0], fine_known = "right", [None, *fine[1:]]  # the first is wrong at one aspect, unknown at the other
    data = regrain.load(x, labels={"side": other, "kind": fine_known}, relation="aspects")
    run = regrain.fit("features", data, encoder="identity", holdout=0, out=tmp_path / "run")
    first = run.clean().table.iloc[0]
    assert (first["side"], first["side_proposed"]) == ("right", "left")
    assert first["kind_proposed"] == "k0"
    assert first["kind_confidence"] > 0.5
