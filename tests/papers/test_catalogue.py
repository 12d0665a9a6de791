"""The catalogue: both layouts of every data set, groupings, and what is said when nothing is there."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import encode, pixels
from support import as_listed

import regrain.data
from regrain.data import Dataset, TensorSamples, read
from regrain.data import read as load
from regrain.errors import UserError
from regrain.labels import Taxonomy
from regrain.papers.datasets import entries

pytestmark = pytest.mark.usefixtures("own_cache")

GROUPINGS = Path(regrain.data.__file__).parent / "groupings"
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def parents(data: Dataset) -> dict[str, str]:
    """Coarse class of every fine one, as the samples have it."""
    assert data.labels.taxonomy is not None
    coarse, fine = data.labels.levels[-2:]
    above = data.labels.taxonomy.ancestors(fine, coarse).tolist()
    return {name: data.labels.names(coarse)[above[code]] for code, name in enumerate(data.labels.names(fine))}


def tensor(data: Dataset) -> torch.Tensor:
    assert isinstance(data.samples, TensorSamples)
    return data.samples.tensor


def write_pickle(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar10(folder: Path) -> np.ndarray:
    """Ten training images in two batches and ten test images, one of each class; returns all of them."""
    data = np.random.default_rng(0).integers(0, 256, (20, 3072), dtype=np.uint8)
    write_pickle(folder / "batches.meta", {"label_names": list(CIFAR10)})
    for batch in range(2):
        part = slice(5 * batch, 5 * batch + 5)
        write_pickle(folder / f"data_batch_{batch + 1}", {"data": data[part], "labels": list(range(10))[part]})
    write_pickle(folder / "test_batch", {"data": data[10:], "labels": list(range(10))})
    return data.reshape(-1, 3, 32, 32)


def write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)


# Entries


def test_entries_are_complete() -> None:
    catalogue = entries()
    assert list(catalogue) == [
        "digits",
        "cifar10",
        "cifar100",
        "cifar100-20",
        "cifar100-3",
        "cifar100-4",
        "cifar100-7",
        "cifartoy-good",
        "cifartoy-bad",
        "cifartoy-bad-code",
        "omniglot",
        "alphabets",
        "clinc150",
        "hwu64",
        "grocery",
        "imagenet",
        "living17",
        "nonliving26",
        "entity13",
        "entity30",
        "imagenet-32",
        "tieredimagenet",
        "sop",
        "sop-split1",
        "sop-split2",
        "cars196",
        "cub200",
        "flowers102",
        "imagenet-3l",
        "imagenet-f",
        "inat21-mini-f",
        "cub-f",
        "cub-real",
        "aircraft-f",
        "mini-imagenet",
        "voc2007",
        "voc2012",
        "fmow",
        "adience",
        "deepfashion",
        "tripadvisor",
        "tripadvisor-lara",
        "beeradvocate",
        "hapt",
        "dialysis",
    ]
    for name, entry in catalogue.items():
        assert entry.name == name
        assert entry.description
        assert entry.source
        assert entry.licence
        assert entry.layouts
        counts = list(entry.levels.values())
        assert counts == sorted(counts)
        assert len(entry.views) == (0 if entry.modality == "text" else 2)


def test_a_path_makes_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.papers.datasets.listing._entry", lambda *_: pytest.fail("an entry was made"))
    (tmp_path / "photos.csv").write_text("text,kind\na b,x\nc d,y\n")
    assert len(read(tmp_path / "photos.csv", levels=["kind"])) == 2
    assert "photos" not in entries()
    assert "digits" in entries()


@pytest.mark.parametrize(
    ("grouping", "published"),
    [
        ("cifar100", "cifar100_20"),
        ("cifartoy_good", "cifartoy_good"),
        ("cifartoy_bad", "cifartoy_bad_paper"),
        ("cifartoy_bad_code", "cifartoy_bad_code"),
        ("clinc150", "clinc150"),
    ],
)
def test_groupings_are_the_published_ones(shared: Path, grouping: str, published: str) -> None:
    file = GROUPINGS / f"{grouping}.json"
    ours, theirs = (json.loads(f.read_text()) for f in (file, shared / "taxonomies" / f"{published}.json"))
    assert ours["source"]

    def partition(classes: dict[str, str]) -> set[frozenset[str]]:
        groups: dict[str, set[str]] = {}
        for fine, coarse in classes.items():
            groups.setdefault(coarse, set()).add(fine)
        return {frozenset(group) for group in groups.values()}

    assert partition(ours["classes"]) == partition(theirs["classes"])
    assert Taxonomy.from_json(file).levels[-1] == "label"


# Digits


def test_alphabets_come_with_the_package() -> None:
    data = load("alphabets")
    assert data.labels.counts == entries()["alphabets"].levels
    assert data.splits is not None
    assert Counter(data.splits) == entries()["alphabets"].samples
    assert tensor(data).shape == (2720, 1, 28, 28)
    assert set(tensor(data).unique().tolist()) == {0, 255}
    assert 0.05 < float((tensor(data) == 0).float().mean()) < 0.15
    assert data.ids[21] == "Balinese/character02/02"
    assert data.splits[13:15].tolist() == ["train", "test"]
    assert parents(data)["Latin/character26"] == "Latin"
    notice = (resources.files("regrain.papers.datasets") / "alphabets.txt").read_text(encoding="utf-8")
    assert "The MIT License" in notice
    assert "Brenden Lake" in notice


def test_alphabets_are_omniglots(shared: Path) -> None:
    small, large = load("alphabets"), load("omniglot", root=shared / "data", image_size=28)
    assert small.labels.names("character") == large.labels.names("character")
    ink = {str(name): image for name, image in zip(small.ids, (tensor(small) < 128).flatten(1).float(), strict=True)}
    mean = {name: torch.stack([ink[f"{name}/{k:02d}"] for k in range(15, 21)]).mean(0) for name in parents(small)}
    theirs = large.split("test")
    codes = theirs.labels.level("character")
    for code in (0, 60, 135):
        drawn = (255 - tensor(theirs)[codes == code].float()).flatten(1).mean(0)
        assert torch.corrcoef(torch.stack([drawn, mean[theirs.labels.names("character")[code]]]))[0, 1] > 0.97


def test_digits_come_with_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    raw = load_digits()
    data = load("digits")
    assert data.labels.counts == entries()["digits"].levels
    assert data.splits is not None
    assert Counter(data.splits) == entries()["digits"].samples
    assert [data.labels.names("digit")[c] for c in data.labels.level("digit").tolist()] == [str(t) for t in raw.target]
    assert np.array_equal(tensor(data)[:, 0].numpy(), np.round(raw.images * 255 / 16))
    assert tensor(data).max() == 255
    share = {c: np.mean(data.splits[data.labels.level("digit").numpy() == c] == "test") for c in range(10)}
    assert all(abs(s - 0.25) < 0.01 for s in share.values())
    assert {k: v for k, v in parents(data).items() if v == "straight"}.keys() == {"1", "4", "7"}
    assert data.notes["views"] == ["glyph-strong", "glyph-weak"]
    assert load("digits", channels=3, image_size=16).samples.shape == (3, 16, 16)
    assert load("digits", levels=["group"]).labels.levels == ("group",)


# CIFAR


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "."])
def test_cifar10_as_torchvision_unpacks_it(tmp_path: Path, place: str) -> None:
    images = write_cifar10(tmp_path / place)
    data = read("cifar10", root=tmp_path)
    assert np.array_equal(tensor(data), images)
    assert data.split_names == ("train", "test")
    assert data.labels.classes == (CIFAR10,)
    assert data.labels.codes[:, 0].tolist() == list(range(10)) * 2
    assert data.ids.tolist()[8:12] == ["train/8", "train/9", "test/0", "test/1"]
    assert len(load("cifar10", root=tmp_path, splits=["test"])) == 10
    with pytest.raises(UserError, match="cifar10 has no split 'val'"):
        load("cifar10", root=tmp_path, splits=["val"])


@pytest.mark.parametrize(
    ("name", "with_cat"),
    [
        ("cifartoy-good", {"bird", "cat", "dog", "horse"}),
        ("cifartoy-bad", {"airplane", "automobile", "bird", "cat"}),
        ("cifartoy-bad-code", {"airplane", "automobile", "dog", "cat"}),
    ],
)
@pytest.mark.parametrize("layout", ["pickles", "parquet"])
def test_cifartoy(tmp_path: Path, name: str, with_cat: set[str], layout: str) -> None:
    if layout == "pickles":
        write_cifar10(tmp_path / "cifar-10-batches-py")
    else:
        columns = {"image": [encode(pixels(i, 32)) for i in range(10)], "label": list(CIFAR10)}
        for split in ("train", "test"):
            write_parquet(tmp_path / "cifar10" / f"{split}.parquet", columns)
    data = load(name, root=tmp_path)
    assert len(data) == 16
    assert data.labels.levels == ("coarse", "label")
    assert data.labels.names("label") == tuple(sorted(set(CIFAR10) - {"deer", "frog"}))
    groups = parents(data)
    assert {fine for fine, coarse in groups.items() if coarse == groups["cat"]} == with_cat
    assert len(set(groups.values())) == 2


def test_cifar100_in_both_layouts_has_the_same_ids(tmp_path: Path) -> None:
    names = ["apple", "beaver", "dolphin"]
    images = pixels(0, 32 * 3, 32).reshape(3, 32, 32, 3)
    files = [f"{name}_s_{i}.png" for i, name in enumerate(names)]
    for split in ("train", "test"):
        batch = {"data": images.transpose(0, 3, 1, 2).reshape(3, -1), "fine_labels": [0, 1, 2], "filenames": files}
        write_pickle(tmp_path / "a" / "cifar-100-python" / split, batch)
        columns = {
            "image": [encode(image) for image in images],
            "superclass": ["fruit_and_vegetables", "aquatic_mammals", "aquatic_mammals"],
            "label": names,
            "file": [f"{split}/{name}/{file}" for name, file in zip(names, files, strict=True)],
        }
        write_parquet(tmp_path / "b" / "cifar100" / f"{split}.parquet", columns)
    write_pickle(tmp_path / "a" / "cifar-100-python" / "meta", {"fine_label_names": names})
    one, two = (load("cifar100-20", root=tmp_path / side) for side in "ab")
    assert torch.equal(tensor(one), tensor(two))
    assert one.ids.tolist() == two.ids.tolist()
    assert one.labels.classes == two.labels.classes
    assert one.labels.levels == ("superclass", "label")
    assert parents(one)["dolphin"] == "aquatic_mammals"
    assert load("cifar100", root=tmp_path / "b" / "cifar100").ids.tolist() == two.ids.tolist()


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo run > /tmp/regrain-evil-was-run",)


def test_pickles_that_call_anything_are_not_run(tmp_path: Path) -> None:
    witness = Path("/tmp/regrain-evil-was-run")
    witness.unlink(missing_ok=True)
    write_cifar10(tmp_path)
    write_pickle(tmp_path / "batches.meta", {"label_names": Evil()})
    with pytest.raises(UserError, match=r"batches\.meta: the pickle asks for \w+\.system.*not run"):
        load("cifar10", root=tmp_path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02", r"test_batch cannot be read as a CIFAR batch"),
        (pickle.dumps([1]), "holds a list, not a CIFAR batch"),
        (pickle.dumps({"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]}, 2), r"uint8 of shape \(N, 3072\)"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}, 2), "do not fit 10 class names"),
        (None, "test_batch is missing: the data set is not complete"),
    ],
)
def test_damaged_batches_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    write_cifar10(tmp_path)
    if content is None:
        (tmp_path / "test_batch").unlink()
    else:
        (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load("cifar10", root=tmp_path)


# The others in their authors' layouts


@pytest.mark.parametrize("folder", ["images_background_small1", "images_background", "omniglot-py/images_background"])
def test_omniglot_as_distributed(tmp_path: Path, folder: str) -> None:
    for alphabet, character, drawer in [("Greek", 1, 14), ("Greek", 1, 15), ("Greek", 2, 1), ("Latin", 1, 20)]:
        file = tmp_path / folder / alphabet / f"character{character:02d}" / f"0{character}_{drawer:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(pixels(drawer, 105, channels=1) > 128))
    data = load("omniglot", root=tmp_path)
    assert data.samples.shape == (1, 105, 105)
    assert data.labels.levels == ("alphabet", "character")
    assert data.labels.names("character") == ("Greek/character01", "Greek/character02", "Latin/character01")
    assert data.splits is not None
    assert dict(zip(data.ids.tolist(), data.splits.tolist(), strict=True)) == {
        f"{Path(folder).name}/Greek/character01/01_14.png": "train",
        f"{Path(folder).name}/Greek/character01/01_15.png": "test",
        f"{Path(folder).name}/Greek/character02/02_01.png": "train",
        f"{Path(folder).name}/Latin/character01/01_20.png": "test",
    }
    (tmp_path / folder / "Latin" / "character01" / "x.png").write_bytes(encode(pixels(0)))
    with pytest.raises(UserError, match=r"Latin/character01/x\.png: Omniglot's files end in the drawer"):
        load("omniglot", root=tmp_path)


def test_clinc150_as_distributed(tmp_path: Path) -> None:
    content = {
        "train": [["how much is an apr", "apr"], ["wake me", "alarm"]],
        "val": [["rate", "apr"]],
        "test": [["up at 7", "alarm"]],
        "oos_train": [["what is love", "oos"]],
        "oos_test": [["why", "oos"]],
    }
    (tmp_path / "data_full.json").write_text(json.dumps(content))
    data = load("clinc150", root=tmp_path)
    assert data.split_names == ("train", "val", "test")
    assert parents(data) == {"apr": "credit_cards", "alarm": "utility"}
    beyond = load("clinc150", root=tmp_path, splits=["train", "oos"])
    assert beyond.ids.tolist() == ["train/0", "train/1", "oos/0", "oos/1"]
    assert beyond[2] == ("what is love", {"domain": None, "intent": None}, "oos/0")
    content["train"].append(["?", "dancing"])
    (tmp_path / "data_full.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="is not clinc150: unknown classes dancing"):
        load("clinc150", root=tmp_path)
    (tmp_path / "data_full.json").write_text("[]")
    with pytest.raises(UserError, match=r"is not CLINC150's list of \[text, intent\] pairs"):
        load("clinc150", root=tmp_path)


def test_grocery_as_distributed(tmp_path: Path) -> None:
    folder = tmp_path / "GroceryStoreDataset" / "dataset"
    paths = [
        "train/Fruit/Apple/Pink-Lady/1.jpg",
        "train/Vegetables/Brown-Cap-Mushroom/2.jpg",
        "val/Fruit/Lemon/3.jpg",
        "test/Fruit/Lemon/4.jpg",
        "iconic-images-and-descriptions/Fruit/Lemon/Lemon_Iconic.jpg",
    ]
    for index, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(pixels(index, 60, 80), "JPEG"))
    (folder / "classes.csv").write_text("Class Name (str)\n")
    data = load("grocery", root=tmp_path)
    assert data.split_names == ("test", "train", "val")
    assert sorted(data.ids) == sorted(paths[:4])
    assert data.samples.shape == (3, 60, 80)
    found = {identity: data[row][1] for row, identity in enumerate(data.ids)}
    assert found[paths[0]] == {"category": "Fruit", "coarse": "Apple", "fine": "Pink-Lady"}
    assert found[paths[1]] == {"category": "Vegetables", "coarse": "Mushroom", "fine": "Brown-Cap-Mushroom"}
    assert found[paths[3]] == {"category": "Fruit", "coarse": "Lemon", "fine": "Lemon"}


def write_deepfashion(folder: Path, above: str = "Img", notes: str = "Anno_coarse") -> dict[str, str]:
    """Four images of two categories beside all fifty names; returns the lists, by file."""
    names = list(json.loads((GROUPINGS / "deepfashion_50.json").read_text())["classes"])
    images = {
        f"img/Sheer_{place}/img_{place:08}.jpg": name for place, name in enumerate(("Tee", "Jeans", "Tee", "Robe"))
    }
    codes = "".join(f"{image}    {names.index(name) + 1}\n" for image, name in images.items())
    parts = "".join(f"{image} {part}\n" for image, part in zip(images, ("train", "val", "test", "train"), strict=True))
    categories = "".join(f"{name}  1\n" for name in names)
    lists = {
        f"{notes}/list_category_cloth.txt": f"50\ncategory_name  category_type\n{categories}",
        f"{notes}/list_category_img.txt": f"4\nimage_name  category_label\n{codes}",
        "Eval/list_eval_partition.txt": f"4\nimage_name  evaluation_status\n{parts}",
    }
    for file, text in lists.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    for seed, image in enumerate(images):
        (folder / above / image).parent.mkdir(parents=True)
        (folder / above / image).write_bytes(encode(pixels(seed, 8), "JPEG"))
    return lists


@pytest.mark.parametrize(
    ("place", "above", "notes"),
    [
        ("Category and Attribute Prediction Benchmark", "Img", "Anno_coarse"),
        ("deepfashion", ".", "Anno_coarse"),
        (".", "Img", "Anno"),
    ],
)
def test_deepfashion_as_distributed(tmp_path: Path, place: str, above: str, notes: str) -> None:
    write_deepfashion(tmp_path / place, above, notes)
    data = load("deepfashion", root=tmp_path)
    assert data.splits is not None
    assert dict(zip(data.ids.tolist(), data.splits.tolist(), strict=True)) == {
        "img/Sheer_0/img_00000000.jpg": "train",
        "img/Sheer_1/img_00000001.jpg": "val",
        "img/Sheer_2/img_00000002.jpg": "test",
        "img/Sheer_3/img_00000003.jpg": "train",
    }
    assert parents(data) == {"Tee": "upper-body", "Jeans": "lower-body", "Robe": "full-body"}
    assert data[1][1] == {"type3": "lower-body", "category": "Jeans"}
    assert data.samples.shape == (3, 8, 8)
    (tmp_path / place / notes / "list_category_img.txt").unlink()
    with pytest.raises(UserError, match=r"list_category_img\.txt is missing: the data set is not complete"):
        load("deepfashion", root=tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("Anno_coarse/list_category_img.txt", "4\n", "5\n", r"list_category_img\.txt announces 5 lines .* holds 4"),
        ("Anno_coarse/list_category_img.txt", "img/Sheer_2", "img/x", "gives no number of a category for img/Sheer_2"),
        ("Anno_coarse/list_category_img.txt", "00.jpg    18", "00.jpg    51", "do not fit 50 class names"),
        ("Anno_coarse/list_category_cloth.txt", "Tee", "Toga", "is not deepfashion: unknown classes Toga"),
        ("Eval/list_eval_partition.txt", "4\n", "", r"list_eval_partition\.txt announces image_name lines"),
    ],
)
def test_broken_lists_of_deepfashion_are_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    text = write_deepfashion(tmp_path)[file]
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load("deepfashion", root=tmp_path)


# Finding


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    monkeypatch.setenv("REGRAIN_DATA", str(tmp_path))
    assert len(read("cifar10")) == 20


def test_what_is_missing_is_told_with_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "cifar1000").mkdir()
    with pytest.raises(UserError) as error:
        load("cifar10", root=tmp_path)
    message = str(error.value)
    assert f"{tmp_path}/cifar10/train.parquet" in message
    assert f"{tmp_path}/cifar-10-batches-py/data_batch_1" in message
    assert f"{tmp_path} holds cifar1000" in message
    assert "--download" in message
    assert "https://" in message
    with pytest.raises(UserError, match="absent does not exist"):
        load("omniglot", root=tmp_path / "absent")
    with pytest.raises(UserError, match="did you mean 'omniglot'"):
        load("omniglott")
    with pytest.raises(UserError, match="cifar10 has no level 'lable': did you mean 'label'"):
        load("cifar10", root=tmp_path, levels=["lable"])


def test_another_data_set_in_the_root_is_not_taken(tmp_path: Path) -> None:
    columns = {"image": [encode(pixels(i, 32)) for i in range(12)], "label": [f"c{i}" for i in range(12)]}
    write_parquet(tmp_path / "train.parquet", columns)
    with pytest.raises(UserError, match="is not cifar10: level 'label' has 12 classes, not 10"):
        load("cifar10", root=tmp_path)
    with pytest.raises(UserError, match=r"has no column 'alphabet' \(level\)"):
        load("omniglot", root=tmp_path)


def test_download_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    asked: list[str] = []

    def fetch(root: str, *, download: bool) -> None:
        assert download
        asked.append(root)
        write_cifar10(Path(root) / "cifar-10-batches-py")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    root = tmp_path / "new"
    with pytest.raises(UserError, match="was not found"):
        load("cifar10", root=root)
    assert asked == []
    assert len(load("cifartoy-good", root=root, download=True)) == 16
    assert len(load("cifar10", root=root, download=True)) == 20
    assert asked == [str(root)]

    def fail(root: str, *, download: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR100", fail)
    with pytest.raises(UserError, match=r"cifar100 could not be downloaded to .*: no network"):
        load("cifar100", root=root, download=True)
    with pytest.raises(UserError, match=r"grocery is not downloaded automatically: get it from https://github\.com"):
        load("grocery", root=root, download=True)


# The real data


@pytest.mark.parametrize("name", ["omniglot", "clinc150", "grocery"])
def test_real_data_are_what_the_catalogue_says(shared: Path, name: str) -> None:
    data = as_listed(name, shared)
    assert all(filled == 0 for filled in data.labels.filled.values())
    assert len(set(data.keys.tolist())) == len(data)
    assert data.modality == entries()[name].modality
    original = parents(data)
    if name != "omniglot":
        classes = json.loads((GROUPINGS / f"{name}.json").read_text())["classes"]
        assert original == {k: v if isinstance(v, str) else v[-1] for k, v in classes.items()}


def test_out_of_scope_texts_are_read_on_request(shared: Path) -> None:
    data = load("clinc150", root=shared / "data", splits=["test", "oos"])
    assert data.splits is not None
    assert Counter(data.splits) == {"test": 4500, "oos": 1200}
    assert (data.split("oos").labels.codes == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar100-20", "cifartoy-good", "cifartoy-bad"])
def test_real_cifar(shared: Path, name: str) -> None:
    data = as_listed(name, shared)
    assert data.samples.shape == (3, 32, 32)


def test_layouts_tried_on_no_real_copy_are_marked_in_the_list(regrain: Callable[..., tuple[int, str, str]]) -> None:
    catalogue = entries()
    assert not catalogue["hwu64"].seen
    assert catalogue["clinc150"].seen
    code, out, _ = regrain("datasets")
    assert code == 0
    marked = {line.split()[1] for line in out.splitlines() if " * " in line and line.startswith("│")}
    assert marked == {name for name, entry in catalogue.items() if not entry.seen}
    assert "* the layout is the published one; it was tried on no real copy" in out
