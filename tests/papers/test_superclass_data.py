"""The data sets of SCLRE, read from tiny folders in their authors' layouts, and the rules of their superclasses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encode, pixels

from regrain.data import Dataset, check
from regrain.data import read as load
from regrain.data.taxonomies import grouping
from regrain.errors import UserError
from regrain.papers.datasets import entries
from regrain.papers.datasets.superclasses import age_group

pytestmark = pytest.mark.usefixtures("own_cache")


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_photo(path: Path, seed: int = 0, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels(seed, side), "PNG" if path.suffix == ".png" else "JPEG"))


def by_id(data: Dataset) -> dict[str, tuple[str, dict[str, str | None]]]:
    """Split and labels of every sample."""
    assert data.splits is not None
    return {str(data.ids[row]): (str(data.splits[row]), data[row][1]) for row in range(len(data))}


# CIFAR-100


@pytest.mark.parametrize(
    ("count", "sizes", "of_apple"),
    [(3, [18, 40, 42], "stationary"), (4, [20, 20, 30, 30], "natures"), (7, [10, 10, 10, 15, 15, 18, 22], "plants")],
)
def test_cifar100_takes_the_fine_labels_of_the_copy(
    tmp_path: Path, count: int, sizes: list[int], of_apple: str
) -> None:
    classes = grouping("cifar100")["classes"]
    columns = {
        "image": [encode(pixels(row, 32)) for row in range(100)],
        "superclass": [above[0] for above in classes.values()],
        "label": list(classes),
    }
    for split in ("train", "test"):
        (tmp_path / "cifar100").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "cifar100" / f"{split}.parquet")
    data = load(f"cifar100-{count}", root=tmp_path)
    entry = entries()[f"cifar100-{count}"]
    assert data.labels.counts == entry.levels == {f"superclass{count}": count, "label": 100}
    assert data.labels.taxonomy is not None
    above = data.labels.taxonomy.ancestors("label", f"superclass{count}")
    assert sorted(Counter(above.tolist()).values()) == sizes
    assert data.labels.names(f"superclass{count}")[above[0]] == of_apple
    notes = " ".join(data.notes["messages"])
    assert ("RECONSTRUCTION" in notes) == (count != 4)
    assert ("inferred" in notes) == (count != 4)


# mini-ImageNet


def test_the_animals_of_mini_imagenet_are_wordnets() -> None:
    ours = {name: above[0] for name, above in grouping("mini_imagenet_2")["classes"].items()}
    nodes = {name: above[0] for name, above in grouping("imagenet_levels")["classes"].items()}
    decided = {name: nodes[name] == "n00015388" for name in ours if nodes[name] is not None}
    assert decided == {name: ours[name] == "animal" for name in decided}
    assert (len(ours), len(decided), sum(decided.values())) == (100, 90, 35)
    coarse = {name: above[0] for name, above in grouping("imagenet_12")["classes"].items()}
    left_open = ours.keys() - decided.keys()
    assert {ours[name] for name in left_open} == {"non-animal"}
    assert {coarse[name] for name in left_open} == {"Container", "Device"}  # MaskCon's superclasses say the same


@pytest.mark.parametrize("place", [".", "mini-imagenet"])
def test_mini_imagenet(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    files = {"train": ("n01532829", "n04275548"), "val": ("n01855672",), "test": ("n02110341", "n04522168")}
    for split, names in files.items():
        lines = [f"{name}0000000{i}.jpg,{name}" for name in names for i in (1, 2)]
        write_text(folder / f"{split}.csv", "\n".join(["filename,label", *lines]) + "\n")
        for seed, line in enumerate(lines):
            write_photo(folder / "images" / line.split(",")[0], seed)
    data = load("mini-imagenet", root=tmp_path)
    found = by_id(data)
    assert found["images/n0153282900000001.jpg"] == ("train", {"superclass": "animal", "label": "n01532829"})
    assert found["images/n0452216800000002.jpg"] == ("test", {"superclass": "non-animal", "label": "n04522168"})
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [4, 2, 4]
    (folder / "val.csv").unlink()
    assert f"{folder} has no val.csv" in " ".join(load("mini-imagenet", root=tmp_path).notes["messages"])
    write_text(folder / "train.csv", "filename,label\na.jpg,n02084071\n")
    with pytest.raises(UserError, match="is not mini-imagenet: unknown classes n02084071"):
        load("mini-imagenet", root=tmp_path)
    write_text(folder / "train.csv", "file,label\na.jpg,n01532829\n")
    with pytest.raises(UserError, match=r"train\.csv has no column 'filename'"):
        load("mini-imagenet", root=tmp_path)


def test_mini_imagenet_needs_its_images(tmp_path: Path) -> None:
    write_text(tmp_path / "train.csv", "filename,label\n")
    with pytest.raises(UserError, match="mini-imagenet was not found"):
        load("mini-imagenet", root=tmp_path)


# PASCAL VOC


def write_voc(folder: Path, lists: dict[str, dict[str, tuple[str, ...]]]) -> None:
    """Lists of images, each with the classes of its objects; a person has parts, which are no objects."""
    for part, images in lists.items():
        write_text(folder / "ImageSets" / "Main" / f"{part}.txt", "".join(f"{name}\n" for name in images))
        for seed, (name, classes) in enumerate(images.items()):
            objects = "".join(
                f"<object><name>{c}</name><difficult>1</difficult><part><name>head</name></part></object>"
                for c in classes
            )
            write_text(folder / "Annotations" / f"{name}.xml", f"<annotation>{objects}</annotation>")
            write_photo(folder / "JPEGImages" / f"{name}.jpg", seed)


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2007", "VOC2007"])
def test_voc_keeps_images_of_one_kind(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    lists: dict[str, dict[str, tuple[str, ...]]] = {
        "train": {"000001": ("dog", "dog"), "000002": ("person", "horse"), "000003": ("person", "car"), "000004": ()},
        "val": {"000005": ("pottedplant",)},
        "test": {"000006": ("car", "bus"), "000007": ("sofa",)},
    }
    write_voc(folder, lists)
    data = load("voc2007", root=tmp_path)
    assert by_id(data) == {
        "JPEGImages/000001.jpg": ("train", {"superclass": "biotic", "label": "dog"}),
        "JPEGImages/000002.jpg": ("train", {"superclass": "biotic", "label": None}),
        "JPEGImages/000005.jpg": ("val", {"superclass": "biotic", "label": "pottedplant"}),
        "JPEGImages/000006.jpg": ("test", {"superclass": "abiotic", "label": None}),
        "JPEGImages/000007.jpg": ("test", {"superclass": "abiotic", "label": "sofa"}),
    }
    messages = " ".join(data.notes["messages"])
    assert "train: 2 of 4 images show objects of both kinds, or none, and were left out" in messages
    assert "potted plants too" in messages
    with pytest.raises(UserError, match="voc2012 was not found"):
        load("voc2012", root=tmp_path)
    (folder / "ImageSets" / "Main" / "test.txt").unlink()
    assert load("voc2007", root=tmp_path).split_names == ("train", "val")
    write_text(folder / "Annotations" / "000001.xml", "<annotation><object><name>fox</name></object></annotation>")
    with pytest.raises(UserError, match=r"000001\.xml has objects of unknown classes: fox"):
        load("voc2007", root=tmp_path)
    write_text(folder / "Annotations" / "000001.xml", "<annotation>")
    with pytest.raises(UserError, match=r"000001\.xml cannot be read as an annotation"):
        load("voc2007", root=tmp_path)
    (folder / "Annotations" / "000001.xml").unlink()
    with pytest.raises(UserError, match=r"000001\.xml is missing: the data set is not complete"):
        load("voc2007", root=tmp_path)


def test_voc2012_tests_on_its_validation_images(tmp_path: Path) -> None:
    lists: dict[str, dict[str, tuple[str, ...]]] = {
        "train": {"2008_000002": ("tvmonitor",)},
        "val": {"2008_000003": ("cow",)},
        "trainval": {},
    }
    write_voc(tmp_path / "VOCdevkit" / "VOC2012", lists)
    assert load("voc2012", root=tmp_path).split_names == ("train", "test")


# FMoW


def test_fmow_has_the_regions_and_splits_of_wilds(tmp_path: Path) -> None:
    folder = tmp_path / "fmow_v1.1"
    countries = ("France,FR,FRA,Europe", '"Tanzania, United Republic of",TZ,TZA,Africa', "Antarctica,AQ,ATA,")
    header = "name,alpha-2,alpha-3,region"
    write_text(folder / "country_code_mapping.csv", "\n".join([header, *countries]) + "\n")
    rows = [
        ("train", "airport_0_0_rgb.jpg", "airport", "FRA", "2012-12-31T23:00:00Z"),
        ("train", "airport_0_1_rgb.jpg", "airport", "FRA", "2013-01-01T00:00:00Z"),  # too late for training
        ("seq", "zoo_3_0_rgb.jpg", "zoo", "FRA", "2010-01-01T00:00:00Z"),  # sequestered
        ("val", "car_dealership_0_7_rgb.jpg", "car_dealership", "TZA", "2012-01-01T00:00:00Z"),
        ("val", "car_dealership_0_8_rgb.jpg", "car_dealership", "TZA", "2015-01-01T00:00:00Z"),
        ("test", "zoo_1_0_rgb.jpg", "zoo", "XKO", "2016-01-01T00:00:00Z"),
        ("test", "zoo_1_1_rgb.jpg", "zoo", "ATA", "2011-01-01T00:00:00Z"),
        ("test", "zoo_1_2_rgb.jpg", "zoo", "FRA", "2014-01-01T00:00:00Z"),  # between the test splits
        ("train", "airport_0_2_rgb.jpg", "airport", "FRA", "2009-01-01T00:00:00Z"),
    ]
    header = "split,img_filename,category,country_code,timestamp"
    write_text(folder / "rgb_metadata.csv", "\n".join([header, *map(",".join, rows)]) + "\n")
    for row in range(len(rows)):
        write_photo(folder / "images" / f"rgb_img_{row}.png", row)
    data = load("fmow", root=tmp_path)
    assert by_id(data) == {
        "images/rgb_img_0.png": ("train", {"region": "Europe", "category": "airport"}),
        "images/rgb_img_4.png": ("val", {"region": "Africa", "category": "car_dealership"}),
        "images/rgb_img_5.png": ("test", {"region": "Other", "category": "zoo"}),
        "images/rgb_img_8.png": ("train", {"region": "Europe", "category": "airport"}),
    }
    assert data.groups is not None
    assert data.groups.tolist() == ["train/airport_0", "val/car_dealership_0", "test/zoo_1", "train/airport_0"]
    assert data.labels.taxonomy is None  # regions and categories do not nest
    early = load("fmow", root=folder, splits=["id_val", "id_test"])
    assert {name: labels["region"] for name, (_, labels) in by_id(early).items()} == {
        "images/rgb_img_3.png": "Africa",
        "images/rgb_img_6.png": "Other",
    }
    (folder / "country_code_mapping.csv").unlink()
    with pytest.raises(UserError, match=r"country_code_mapping\.csv is missing"):
        load("fmow", root=tmp_path)


# Adience


def write_adience(folder: Path, pattern: str = "fold_{}_data.txt") -> None:
    """Two faces of one user in every fold, the age of the second told irregularly."""
    ages = ("None", "35", "(8, 12)", "(8, 23)", "57")
    for fold, irregular in enumerate(ages):
        lines = ["user_id\toriginal_image\tface_id\tage\tgender\tx"]
        for face, age in enumerate(("(25, 32)", irregular)):
            lines.append(f"{fold}@N0\ta_o.jpg\t{face}\t{age}\tf\t0")
            write_photo(folder / "aligned" / f"{fold}@N0" / f"landmark_aligned_face.{face}.a_o.jpg", 2 * fold + face)
        write_text(folder / pattern.format(fold), "\n".join(lines) + "\n")


@pytest.mark.parametrize("place", [".", "adience", "AdienceBenchmarkOfUnfilteredFacesForGenderAndAgeClassification"])
def test_adience_folds_ages_and_users(tmp_path: Path, place: str) -> None:
    write_adience(tmp_path / place)
    data = load("adience", root=tmp_path)
    found = by_id(data)
    assert [split for split, _ in found.values()] == ["train"] * 8 + ["test"] * 2
    assert [labels["age"] for _, labels in found.values()][1::2] == [None, None, "8-13", None, "60+"]
    assert "aligned/4@N0/landmark_aligned_face.1.a_o.jpg" in found
    assert data.groups is not None
    assert data.groups.tolist() == [f"{fold}@N0" for fold in range(5) for _ in range(2)]
    assert "3 of 10 faces have no age, or one that fits two groups: it is unknown" in data.notes["messages"]
    (tmp_path / place / "fold_3_data.txt").unlink()
    with pytest.raises(UserError, match=r"fold_3_data\.txt is missing"):
        load("adience", root=tmp_path)


def test_adience_of_frontal_faces(tmp_path: Path) -> None:
    write_adience(tmp_path, "folds/fold_frontal_{}_data.txt")
    data = load("adience", root=tmp_path)
    assert len(data) == 10
    assert any("frontal faces alone" in message for message in data.notes["messages"])
    (tmp_path / "aligned" / "0@N0" / "landmark_aligned_face.0.a_o.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 10 rows cannot be used: train sample aligned/0@N0"):
        load("adience", root=tmp_path)
    assert len(load("adience", root=tmp_path, skip_unreadable=True)) == 9
    report = check("adience", root=tmp_path)
    assert report.issues[0].kind == "missing file"
    write_text(tmp_path / "folds" / "fold_frontal_2_data.txt", "user_id\toriginal_image\tface_id\tage\nu\ta\n")
    with pytest.raises(UserError, match=r"fold_frontal_2_data\.txt, line 2 has 2 cells where the header has 4"):
        load("adience", root=tmp_path)


def test_every_irregular_age_of_adience_has_its_group() -> None:
    irregular = {
        "0-2": ("2",),
        "8-13": ("13", "(8, 12)"),
        "15-20": ("22",),
        "25-32": ("23", "29", "32", "34", "(27, 32)"),
        "38-43": ("36", "42", "45", "(38, 42)"),
        "48-53": ("46", "55", "56"),
        "60+": ("57", "58", "(60, 100)"),
        None: ("3", "35", "(8, 23)", "(38, 48)", "None", ""),
    }
    for group, labels in irregular.items():
        for label in labels:
            assert age_group(label) == group, label


# Which part of the truth an entry tells


@pytest.mark.parametrize("name", ["mini-imagenet", "voc2007", "voc2012", "fmow", "adience"])
def test_rules_of_our_own_are_told(name: str) -> None:
    notes = " ".join(entries()[name].notes)
    assert "no copy was at hand" in notes
    assert name == "fmow" or "not publish" in notes
    assert entries()[name].folder is None


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 4, 7])
def test_real_cifar100_under_superclasses(shared: Path, count: int) -> None:
    entry = entries()[f"cifar100-{count}"]
    data = load(entry.name, root=shared / "data")
    assert data.labels.counts == entry.levels
    assert data.splits is not None
    assert Counter(data.splits) == entry.samples
