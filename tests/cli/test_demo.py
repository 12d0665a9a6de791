"""``regrain demo``: small here, whole where slow tests run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import Command, raises

from regrain.data.dataset import Dataset
from regrain.data.readers import read
from regrain.verbs import demo as module

NAMES = ["pixels", "random weights", "SupCE", "MaskCon", "SupFINE"]


def few(_: str) -> Dataset:
    """Three characters of each alphabet."""
    data = read("alphabets")
    kept = ("01", "02", "03")
    return data.select(np.flatnonzero([str(name).split("/")[1].endswith(kept) for name in data.ids]))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "load", few)
    monkeypatch.setattr(module, "_SETTINGS", {"epochs": 1, "batch_size": 64})


@pytest.mark.usefixtures("small")
def test_it_says_everything_as_json_too(regrain: Command, tmp_path: Path) -> None:
    code, out, _ = regrain("demo", "--out", str(tmp_path / "demo"), "--json")
    assert code == 0
    found = json.loads(out)
    assert [row["name"] for row in found["figures"]] == NAMES
    assert [row["labels"] for row in found["figures"]] == ["none", "none", "alphabet", "alphabet", "character"]
    assert all(0 <= row["low"] <= row["recall"] <= row["high"] <= 1 for row in found["figures"])
    by_name = {row["name"]: row["recall"] for row in found["figures"]}
    assert found["gain"][0] == pytest.approx(100 * (by_name["MaskCon"] - by_name["SupCE"]))
    assert found["gain"][1] <= found["gain"][0] <= found["gain"][2]
    assert "MIT licence" in found["credit"]
    picture = Image.open(found["picture"])
    assert picture.width > 900
    assert len(np.unique(np.asarray(picture))) > 3
    code, _, err = regrain("demo", "--out", str(tmp_path / "demo"))
    assert code == 2
    assert "--overwrite" in err


@pytest.mark.usefixtures("small")
def test_it_ends_with_a_verdict(regrain: Command, tmp_path: Path) -> None:
    code, out, _ = regrain("demo", "--out", str(tmp_path / "demo"))
    assert code == 0
    for word in (*NAMES, "recall@1", "MaskCon finds the same character first in", "neighbours.png", "MIT licence"):
        assert word in out
    with raises("would_overwrite"):
        module.demo(tmp_path / "demo")


def test_queries_are_drawn_alike_from_every_alphabet() -> None:
    test = few("").split("test")
    queries = module._queries(test, 0)
    assert torch.equal(queries, module._queries(test, 0))
    assert not torch.equal(queries, module._queries(test, 1))
    assert test.labels.codes[queries, 0].bincount().tolist() == [2] * 5


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        (
            (11.2, 7.0, 15.0),
            "more often than SupCE, which read the same labels (46), by 11 points (95% interval 7 to 15",
        ),
        ((-1.0, -4.0, 2.0), "about as often as SupCE, which read the same labels (46): the difference is within noise"),
        ((-9.0, -14.0, -4.0), "less often than SupCE, which read the same labels (46), by 9 points"),
    ],
)
def test_the_verdict_follows_the_figures(gain: tuple[float, float, float], words: str) -> None:
    assert words in module._verdict({"MaskCon": 0.572, "SupCE": 0.46, "pixels": 0.17}, gain)


@pytest.mark.slow
def test_the_whole_demo_shows_what_coarse_labels_teach(tmp_path: Path) -> None:
    found = module.demo(tmp_path / "demo")
    recall = {figure.name: figure.recall for figure in found.figures}
    assert found.gain[1] > 0
    assert recall["pixels"] < recall["SupCE"] < recall["MaskCon"] < recall["SupFINE"]
