"""What attends to what: against the method itself, the picture read back, and what cannot be shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import regrain
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.runs.run import Run

QUICK: dict[str, Any] = {"encoder": "conv4", "limit_per_class": 20, "device": "cpu"}
SETTINGS = ["epochs=2", "batch_size=32", "training.precision=float32"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return regrain.load("digits")


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("sclre") / "run"
    return regrain.fit("sclre", digits, out=out, settings=[*SETTINGS, "bank_size=48"], **QUICK)


def test_samples_attend_to_what_the_method_says(run: Run, digits: Dataset) -> None:
    found = regrain.attend(run, samples=7)
    train, test = run.splits()["train"], digits.split("test")
    keys = {int(key): row for row, key in enumerate(train.keys)}
    places = {str(i): row for row, i in enumerate(test.ids)}
    names = train.labels.names("group")
    assert found.bank_size == 48
    for sample in found.samples:
        row = places[sample.id]
        with torch.inference_mode():
            x = run.model.prepare(test.samples.take(torch.tensor([row])))
            weights, ids = run.model.method.attends_to(x)
            predicted = run.model.method.predict_proba(x, "coarse").argmax()
        rows = [keys[int(key)] for key in ids]
        owners = [names[code] for code in train.labels.level("group")[rows].tolist()]
        expected = sorted(zip(weights[0].tolist(), train.ids[rows], owners, strict=True), reverse=True)[:9]
        assert [r.id for r in sample.references] == [str(i) for _, i, _ in expected]
        assert [r.superclass for r in sample.references] == [owner for _, _, owner in expected]
        assert [r.weight for r in sample.references] == pytest.approx([w for w, _, _ in expected], rel=1e-4)
        shares = Counter()
        for weight, owner in zip(weights[0].tolist(), owners, strict=True):
            shares[owner] += weight
        assert sample.shares == pytest.approx(dict(shares), rel=1e-4)
        assert sum(sample.shares.values()) + sample.itself == pytest.approx(1)
        assert list(sample.shares.values()) == sorted(sample.shares.values(), reverse=True)
        assert sample.predicted == names[int(predicted)]
        assert sample.superclass == names[int(test.labels.level("group")[row])]
        assert sample.finer == {"digit": str(int(test.labels.level("digit")[row]))}


def test_samples_are_drawn_from_all_superclasses_alike(run: Run, digits: Dataset) -> None:
    found = regrain.attend(run, samples=9)
    assert Counter(s.superclass for s in found.samples) == {"loop": 3, "open": 3, "straight": 3}
    assert [s.superclass for s in found.samples] == sorted(s.superclass for s in found.samples)
    assert regrain.attend(run, samples=9).samples == found.samples
    assert regrain.attend(run, samples=9, seed=1).samples != found.samples
    order = np.random.default_rng(0).permutation(len(digits))
    shuffled = regrain.attend(run, digits.select(order), samples=9)
    assert {s.id for s in shuffled.samples} == {s.id for s in found.samples}
    few = digits.split("test").select(np.arange(4))
    everything = regrain.attend(run, few)
    assert {s.id for s in everything.samples} == set(map(str, few.ids))
    assert "10 samples were asked for, and there are 4" in everything.notes
    bare = regrain.attend(run, replace(few, labels=Labels.empty(4)), samples=4)
    assert {s.superclass for s in bare.samples} == {None}
    assert "unknown (predicted" in bare.samples[0].title()


def test_the_picture_shows_samples_and_references(run: Run, digits: Dataset, tmp_path: Path) -> None:
    found = regrain.attend(run, samples=3, out=tmp_path / "made" / "a.png")
    everything = {str(i): digits.samples.take(torch.tensor([row]))[0, 0] for row, i in enumerate(digits.ids)}
    with Image.open(tmp_path / "made" / "a.png") as page:
        pixels = np.asarray(page.convert("RGB"))
    assert pixels.shape == (4 + 3 * (22 + 64 + 16 + 4), 4 + 10 * 68, 3)
    for number, sample in enumerate(found.samples):
        for column, identity in enumerate([sample.id, *(r.id for r in sample.references)]):
            top, left = 4 + number * 106 + 22, 4 + column * 68
            tile = pixels[top + 4 : top + 64 : 8, left + 4 : left + 64 : 8, 0]  # the middles of 8 by 8 pixels
            assert (tile == everything[identity].numpy()).all()
    titles = pixels[4 : 4 + 22]
    assert (titles != 255).any()
    with pytest.raises(UserError, match=r"a.png exists: choose another out=, or replace it with overwrite=True"):
        regrain.attend(run, out=tmp_path / "made" / "a.png")
    regrain.attend(run, samples=1, out=tmp_path / "made" / "a.png", overwrite=True)


def test_the_table_has_a_row_for_each_pair(run: Run, tmp_path: Path) -> None:
    found = regrain.attend(run, samples=3, out=tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv", dtype={"id": str, "reference": str})
    assert len(table) == 27
    assert table["rank"].tolist() == list(range(1, 10)) * 3
    sample = found.samples[1]
    own = table[table["id"] == sample.id]
    assert own["reference"].tolist() == [r.id for r in sample.references]
    assert own["weight"].tolist() == pytest.approx([r.weight for r in sample.references])
    assert own["superclass_share"].tolist() == pytest.approx(
        [sample.shares[r.superclass] for r in sample.references if r.superclass]
    )


def test_what_cannot_be_shown_is_said(run: Run, digits: Dataset, tmp_path: Path) -> None:
    for options, words in (
        ({"out": tmp_path / "a.txt"}, "tables and pictures are written to .csv, .parquet, .pq, .png"),
        ({"split": "val"}, "no split 'val': there are train, test"),
        ({"samples": 0}, "at least one sample"),
    ):
        with pytest.raises(UserError, match=words):
            regrain.attend(run, **options)
    other = regrain.fit("sup-ce", digits, out=tmp_path / "other", settings=["epochs=1"], **QUICK)
    with pytest.raises(UserError, match="sup-ce has no attention to show"):
        regrain.attend(other)
    settings = ["epochs=1", "attention=none"]
    without = regrain.fit("sclre", digits, out=tmp_path / "without", settings=settings, **QUICK)
    with pytest.raises(UserError, match="trained without attention"):
        regrain.attend(without)


def test_other_samples_than_images_give_a_table(tmp_path: Path) -> None:
    fine = np.arange(120) % 6
    frame = pd.DataFrame(
        np.random.default_rng(0).normal(size=(120, 6)) + 4 * np.eye(6)[fine], columns=[f"f{i}" for i in range(6)]
    )
    frame["kind"] = [f"k{f // 3}" for f in fine]
    frame.to_csv(tmp_path / "t.csv", index=False)
    run = regrain.fit(
        "sclre", tmp_path / "t.csv", columns=["f*"], levels=["kind"], out=tmp_path / "run", settings=SETTINGS
    )
    found = regrain.attend(Run.open(run.path), samples=4, out=tmp_path / "a.parquet")
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 4 * 9
    assert [s.finer for s in found.samples] == [{}] * 4
    with pytest.raises(UserError, match=r"pictures show images, and .* holds vector samples: give out= FILE.csv"):
        regrain.attend(run, out=tmp_path / "a.png")
    more = regrain.attend(Run.open(run.path), tmp_path / "t.csv", split="test", samples=4)
    assert [s.id for s in more.samples] == [s.id for s in found.samples]  # the run's own split, known again
