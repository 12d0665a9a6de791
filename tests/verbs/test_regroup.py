"""Regrouping: every kind of sample survives the table, unknown classes are told, balance is counted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import regrain
from regrain.data import Dataset, ImageSamples, TensorSamples, TextSamples, read
from regrain.data.taxonomies import taxonomy
from regrain.errors import UserError
from regrain.labels import Taxonomy

pytestmark = pytest.mark.usefixtures("own_cache")

PETS = Taxonomy.from_edges([("beagle", "dog"), ("poodle", "dog"), ("siamese", "cat"), ("tabby", "cat"), ("pug", "dog")])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder class/image with three images of every class."""
    folder = tmp_path / "photos"
    for index, name in enumerate(("beagle", "poodle", "siamese", "tabby")):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.full((8, 8, 3), 50 * index + number, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def named(data: Dataset) -> dict[str, list[str | None]]:
    """Class names of every sample, by level."""
    return {level: [data[row][1][level] for row in range(len(data))] for level in data.labels.levels}


@pytest.mark.parametrize("name", ["digits.parquet", "deeper/digits.pq"])
def test_images_in_memory_come_back_pixel_by_pixel(tmp_path: Path, name: str) -> None:
    before = regrain.load("digits")
    made = regrain.regroup("digits", "digits", tmp_path / name)
    after = regrain.load(tmp_path / name)
    assert isinstance(before.samples, TensorSamples)
    assert isinstance(after.samples, TensorSamples)
    assert torch.equal(before.samples.tensor, after.samples.tensor)
    assert after.ids.tolist() == before.ids.tolist()
    assert after.split_names == ("train", "test")
    assert named(after) == {"superclass": named(before)["group"], "label": named(before)["digit"]}
    assert made.counts["loop"] == {"train": 536, "test": 177}
    assert made.classes == {"loop": 4, "open": 3, "straight": 3}
    assert any("digits: our own" in notice for notice in made.notices)


def test_colours_keep_their_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    data = read(images, labels={"breed": ["beagle", "tabby"] * 3})
    regrain.regroup(data, PETS, tmp_path / "a.parquet")
    after = regrain.load(tmp_path / "a.parquet")
    assert torch.equal(data.samples.take(torch.arange(6)), after.samples.take(torch.arange(6)))


@pytest.mark.parametrize(("name", "moves"), [("photos.csv", True), ("elsewhere/photos.parquet", False)])
def test_files_of_images_stay_where_they_are(tmp_path: Path, photos: Path, name: str, moves: bool) -> None:
    made = regrain.regroup(photos, PETS, tmp_path / name)
    assert made.columns["image"][0] == ("photos/beagle/0.png" if moves else str(photos / "beagle" / "0.png"))
    after = regrain.load(tmp_path / name)
    assert named(after)["superclass"] == ["dog"] * 6 + ["cat"] * 6
    assert after.ids.tolist() == regrain.load(photos).ids.tolist()
    assert made.notices[-1] == "classes of the mapping without a sample: 'pug'"
    if moves:  # the table and its images go together
        (tmp_path / "there").mkdir()
        for item in ("photos", "photos.csv"):
            (tmp_path / item).rename(tmp_path / "there" / item)
        assert len(regrain.load(tmp_path / "there" / "photos.csv")) == 12


def test_encoded_images_and_files_mix(tmp_path: Path, photos: Path) -> None:
    table = pd.DataFrame(
        {
            "image": [{"bytes": (photos / "beagle" / "0.png").read_bytes()}, {"path": str(photos / "tabby" / "1.png")}],
            "breed": ["beagle", "tabby"],
        }
    )
    made = regrain.regroup(table, PETS, tmp_path / "a.parquet", levels=["breed"])
    assert [(photos / file).read_bytes() for file in ("beagle/0.png", "tabby/1.png")] == made.columns["image"]
    with pytest.raises(UserError, match=r"are not files, and .*a\.csv cannot hold them: name a \.parquet file"):
        regrain.regroup(table, PETS, tmp_path / "a.csv", levels=["breed"])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_texts_splits_and_groups(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame(
        {
            "text": ["a, b", 'say "c"', "two\nlines", "d d"] * 2,
            "breed": ["beagle", "tabby", "pug", None] * 2,
            "part": ["train"] * 4 + ["fold 2"] * 4,
            "owner": ["x", "x", "y", "y"] * 2,
            "key": [f"k{i}" for i in range(8)],
        }
    )
    made = regrain.regroup(
        table,
        PETS,
        tmp_path / name,
        levels=["breed"],
        split_column="part",
        group_column="owner",
        id_column="key",
        text="text",
    )
    assert list(made.columns) == ["id", "split", "group", "superclass", "label", "text"]
    assert "2 samples have no label at level 'breed', and so no superclass" in made.notices
    assert "read the table with --group-column group --split-column split" in made.notices
    after = regrain.load(tmp_path / name, split_column="split", group_column="group")
    assert isinstance(after.samples, TextSamples)
    assert list(after.samples.texts) == table["text"].tolist()
    assert named(after) == {
        "superclass": ["dog", "cat", "dog", None] * 2,
        "label": ["beagle", "tabby", "pug", None] * 2,
    }
    assert after.ids.tolist() == table["key"].tolist()
    assert after.groups is not None
    assert after.groups.tolist() == table["owner"].tolist()
    assert after.split_names == ("train", "fold 2")


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_vectors_keep_their_columns(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    breeds = ["beagle", "tabby", "poodle", "siamese"] * 2
    frame = pd.DataFrame(values, columns=["width", "height", "weight"]).assign(breed=breeds)
    regrain.regroup(frame, PETS, tmp_path / name, levels=["breed"], columns=["width", "height", "weight"])
    after = regrain.load(tmp_path / name)
    assert after.notes["columns"] == ["width", "height", "weight"]
    assert np.allclose(after.samples.take(torch.arange(8)), values)
    regrain.regroup(read(values, labels=breeds), PETS, tmp_path / name, overwrite=True)
    assert regrain.load(tmp_path / name).notes["columns"] == ["f0", "f1", "f2"]


def test_classes_that_the_mapping_does_not_know(tmp_path: Path, photos: Path) -> None:
    cats = Taxonomy.from_edges([("siamese", "cat"), ("tabby", "striped"), ("poodle", "dog")])
    with pytest.raises(
        UserError,
        match=r"gives no superclass \(level 'level1'\) to 1 of the 4 classes of level 'label': 'beagle'\. Add",
    ):
        regrain.regroup(photos, cats, tmp_path / "a.csv")
    assert not (tmp_path / "a.csv").exists()
    made = regrain.regroup(photos, cats, tmp_path / "a.csv", drop_unknown=True)
    assert made.dropped == {"beagle": 3}
    assert "3 samples of classes that the mapping does not know were left out: 'beagle' (3)" in made.notices
    assert len(regrain.load(tmp_path / "a.csv")) == 9
    with pytest.raises(UserError, match=r"4 of the 4 classes .*Its classes are such as 'airplane'; 'automobile'"):
        regrain.regroup(photos, "cifartoy_good", tmp_path / "b.csv")
    with pytest.raises(UserError, match="samples of 0 superclasses by the mapping"):
        regrain.regroup(photos, "cifartoy_good", tmp_path / "b.csv", drop_unknown=True)


def test_a_level_of_a_deeper_mapping(tmp_path: Path) -> None:
    deep = Taxonomy.from_json(
        {"levels": ["kingdom", "kind"], "classes": {"a": ["k", "x"], "b": ["k", "y"], "c": ["l", "z"]}}
    )
    data = read(np.eye(6), labels=["a", "b", "c", "a", "b", "c"])
    assert list(regrain.regroup(data, deep, tmp_path / "a.csv").counts) == ["k", "l"]
    made = regrain.regroup(data, deep, tmp_path / "a.csv", superclass="kind", overwrite=True)
    assert made.counts == {name: {"all": 2} for name in "xyz"}
    with pytest.raises(UserError, match="no level 'kin': did you mean 'kind'"):
        regrain.regroup(data, deep, tmp_path / "b.csv", superclass="kin")
    torn = Taxonomy.from_edges([("a", "x"), ("a", "y"), ("b", "x"), ("c", "y")])
    with pytest.raises(UserError, match="'a' lies under level1 'x' and 'y'"):
        regrain.regroup(data, torn, tmp_path / "b.csv")


def test_classes_that_are_paths(tmp_path: Path) -> None:
    labels = {"area": ["a", "a", "b", "b"], "topic": ["x", "other", "other", "x"]}
    data = read(np.eye(4), labels=labels, relation="paths")
    edges = Taxonomy.from_edges([("a/x", "hot"), ("b/other", "hot"), ("a/other", "cold"), ("b/x", "cold")])
    made = regrain.regroup(data, edges, tmp_path / "a.csv")
    assert made.columns["superclass"] == ["hot", "cold", "hot", "cold"]
    assert made.columns["label"] == ["a/x", "a/other", "b/other", "b/x"]
    frame = pd.DataFrame(labels).assign(text=["one", "two", "three", "four"])
    again = regrain.regroup(frame, edges, tmp_path / "b.csv", levels=["area", "topic"], text="text", relation="paths")
    assert again.columns["label"] == made.columns["label"]


def test_levels_without_a_superclass_are_unknown(tmp_path: Path) -> None:
    wnids = taxonomy("imagenet_levels")
    data = read(np.eye(4), labels=["n01440764", "n02747177", "n03017168", "n01443537"])  # the second: no level2
    with pytest.raises(UserError, match="1 of the 4 classes of level 'label': 'n02747177'"):
        regrain.regroup(data, wnids, tmp_path / "a.csv")


def test_balance_is_told_by_split(tmp_path: Path) -> None:
    labels = ["beagle"] * 6 + ["pug"] * 3 + ["tabby"] * 2 + ["poodle"] * 2
    splits = ["train"] * 11 + ["test"] * 2
    made = regrain.regroup(read(np.eye(13), labels=labels, splits=splits), PETS, tmp_path / "a.csv")
    assert made.counts == {"cat": {"train": 2, "test": 0}, "dog": {"train": 9, "test": 2}}
    assert made.imbalance == {"train": 4.5, "test": math.inf}
    assert made.shares["dog"] == {"train": pytest.approx(9 / 11), "test": 1.0}
    assert made.warnings == [
        "in split train superclass 'dog' (9 samples) is 4.5 times as large as 'cat' (2); 3 times was to be the most",
        "in split test superclass 'cat' has no sample",
    ]
    data = read(np.eye(11), labels=labels[:11])
    assert regrain.regroup(data, PETS, tmp_path / "b.csv", most_imbalance=4.5).warnings == []
    with pytest.raises(UserError, match="most imbalance is 1"):
        regrain.regroup(data, PETS, tmp_path / "c.csv", most_imbalance=0.5)


def test_what_cannot_be_regrouped(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "a.csv"
    with pytest.raises(UserError, match="holds series, which regroup does not write"):
        regrain.regroup(read(np.zeros((4, 3, 2)), labels=["beagle", "tabby"] * 2), PETS, out)
    with pytest.raises(UserError, match="has no labels to regroup"):
        regrain.regroup(read(np.eye(4)), PETS, out)
    with pytest.raises(UserError, match=r"a\.txt ends in '\.txt'"):
        regrain.regroup(photos, PETS, tmp_path / "a.txt")
    with pytest.raises(UserError, match="no taxonomy 'cifar100_5'"):
        regrain.regroup(photos, "cifar100_5", out)
    with pytest.raises(UserError, match="writes samples as they are: give image_size when the table is read"):
        regrain.regroup(photos, PETS, out, image_size=16)
    with pytest.raises(UserError, match="has no level 'breed': did you mean 'breeds'"):
        regrain.regroup(read(np.eye(2), labels={"breeds": ["beagle", "tabby"]}), PETS, out, levels=["breed"])
    out.write_text("")
    with pytest.raises(UserError, match="overwrite=True"):
        regrain.regroup(photos, PETS, out)


def test_rows_that_cannot_be_used(tmp_path: Path, photos: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("image,breed\nphotos/beagle/0.png,beagle\nphotos/tabby/9.png,tabby\nphotos/tabby/0.png,tabby\n")
    with pytest.raises(UserError, match=r"1 of 3 rows cannot be used: line 3 names a file that does not exist"):
        regrain.regroup(table, PETS, tmp_path / "a.csv", levels=["breed"])
    made = regrain.regroup(table, PETS, tmp_path / "a.csv", levels=["breed"], skip_unreadable=True)
    assert made.counts == {"cat": {"all": 1}, "dog": {"all": 1}}
    assert any("1 of 3 rows were left out" in notice for notice in made.notices)
    after = regrain.load(tmp_path / "a.csv", levels=["superclass", "label"], image="image")
    assert isinstance(after.samples, TensorSamples | ImageSamples)
