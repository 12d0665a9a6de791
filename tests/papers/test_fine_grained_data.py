"""Stanford Online Products, Stanford Cars, tieredImageNet and ImageNet at 32 pixels, read from tiny folders."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode, pixels
from scipy.io import savemat

from regrain.data import Dataset
from regrain.data import read as load
from regrain.data.taxonomies import grouping
from regrain.errors import MissingDataError, UserError
from regrain.papers.datasets import entries
from regrain.papers.datasets.fine_grained import imagenet32_classes
from regrain.papers.datasets.synthetic import FINE, SAMPLES, few_classes, synthetic_names, write_synthetic

pytestmark = pytest.mark.usefixtures("own_cache")


def write_photo(path: Path, seed: int = 0, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(pixels(seed, side), "JPEG"))


def by_id(data: Dataset) -> dict[str, tuple[str, dict[str, str | None]]]:
    assert data.splits is not None
    return {str(data.ids[row]): (str(data.splits[row]), data[row][1]) for row in range(len(data))}


# Stanford Online Products


@pytest.mark.parametrize("place", ["Stanford_Online_Products", "."])
def test_sop_in_its_authors_split(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    lists = {"train": ["bicycle_final/111_0.JPG", "bicycle_final/111_1.JPG"], "test": ["toaster_final/222_0.JPG"]}
    for split, images in lists.items():
        lines = ["image_id class_id super_class_id path", *(f"{i} 1 1 {image}" for i, image in enumerate(images))]
        for seed, image in enumerate(images):
            write_photo(folder / image, seed)
        (folder / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")
    found = by_id(load("sop", root=tmp_path))
    assert found == {
        "bicycle_final/111_0.JPG": ("train", {"category": "bicycle", "product": "111"}),
        "bicycle_final/111_1.JPG": ("train", {"category": "bicycle", "product": "111"}),
        "toaster_final/222_0.JPG": ("test", {"category": "toaster", "product": "222"}),
    }
    (folder / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 1 toaster_final/222_0.JPG\n")
    with pytest.raises(UserError, match=r"Ebay_test\.txt, line 2 is '1 1 toaster.*expected image_id class_id"):
        load("sop", root=tmp_path)
    (folder / "Ebay_test.txt").unlink()
    with pytest.raises(UserError, match=r"Ebay_test\.txt is missing: the data set is not complete"):
        load("sop", root=tmp_path)


def test_maskcons_splits_of_sop(tmp_path: Path, shared: Path) -> None:
    counts = json.loads((shared / "taxonomies" / "sop_split1.json").read_text())["images_per_product"]
    trained = next(p for p, (train, _) in counts.items() if train)
    tested = next(p for p, (_, test) in counts.items() if test)
    kinds = {name: above[0] for name, above in grouping("sop_split1")["classes"].items()}
    for product in (trained, tested, "1"):  # the last is of neither split
        for number in range(12):
            write_photo(tmp_path / f"{kinds.get(product, 'sofa')}_final" / f"{product}_{number}.JPG", number)
    data = load("sop-split1", root=tmp_path)
    assert {(s, labels["product"]) for s, labels in by_id(data).values()} == {("train", trained), ("test", tested)}
    assert data.labels.levels == ("coarse12", "product")
    assert "5033 of 5035 products have no image" in " ".join(data.notes["messages"])

    held = json.loads((shared / "taxonomies" / "sop_split2_test_images.json").read_text())["test_images"]
    product = next(p for p in held if p in kinds)
    for number in range(12):
        write_photo(tmp_path / f"{kinds[product]}_final" / f"{product}_{number}.JPG", number)
    found = by_id(load("sop-split2", root=tmp_path))
    numbers: dict[str, list[int]] = {"train": [], "test": []}
    for identity, (split, labels) in found.items():
        if labels["product"] == product:
            numbers[split].append(int(Path(identity).stem.split("_")[1]))
    assert sorted(numbers["test"]) == held[product]
    assert len(numbers["train"]) == 10


def test_a_copy_without_the_products_is_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "bicycle_final" / "1_0.JPG")
    with pytest.raises(UserError, match=r"has no image of the 1498 products .*looked for files such as .*_0\.JPG"):
        load("sop-split2", root=tmp_path)


def test_the_splits_are_as_large_as_published(shared: Path) -> None:
    one, two = grouping("sop_split1"), grouping("sop_split2")
    counts = json.loads((shared / "taxonomies" / "sop_split1.json").read_text())["images_per_product"]
    tested = set(one["test_products"])
    assert tested == {product for product, (_, test) in counts.items() if test}
    assert (len(one["classes"]) - len(tested), len(tested)) == (2517, 2518)
    assert two["test_images"].keys() == two["classes"].keys()
    assert all(len(set(numbers)) == 2 for numbers in two["test_images"].values())


# Stanford Cars


def write_cars(folder: Path, names: list[str], test_list: str = "cars_test_annos_withlabels.mat") -> None:
    """An image of the third class to train on, two of the first to test."""
    (folder / "devkit").mkdir(parents=True, exist_ok=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)[None]})
    kind = [(n, "O") for n in ("bbox_x1", "class", "fname")]
    lists = {
        "train": (folder / "devkit" / "cars_train_annos.mat", [(1, 3, "00001.jpg")]),
        "test": (folder / test_list, [(1, 1, "00001.jpg"), (1, 1, "00002.jpg")]),
    }
    for split, (file, rows) in lists.items():
        savemat(file, {"annotations": np.array([rows], dtype=kind)})
        for _, _, name in rows:
            write_photo(folder / f"cars_{split}" / name)


@pytest.mark.parametrize("test_list", ["cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"])
def test_cars_as_torchvision_has_them(tmp_path: Path, test_list: str) -> None:
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    write_cars(tmp_path / "stanford_cars", names, test_list)
    data = load("cars196", root=tmp_path)
    assert by_id(data) == {
        "cars_train/00001.jpg": ("train", {"coarse8": "Van", "label": "Ram C/V Cargo Van Minivan 2012"}),
        "cars_test/00001.jpg": ("test", {"coarse8": "SUV", "label": "AM General Hummer SUV 2000"}),
        "cars_test/00002.jpg": ("test", {"coarse8": "SUV", "label": "AM General Hummer SUV 2000"}),
    }
    assert data.notes["views"] == ["cars-strong", "cars-weak"]
    write_cars(tmp_path / "stanford_cars", names[:2], test_list)
    with pytest.raises(UserError, match=r"cars_train_annos\.mat: class 3 of 00001\.jpg is none of the 2 classes"):
        load("cars196", root=tmp_path)
    (tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat").write_bytes(b"no MATLAB file")
    with pytest.raises(UserError, match=r"cars_train_annos\.mat cannot be read as a MATLAB file"):
        load("cars196", root=tmp_path)
    (tmp_path / "stanford_cars" / "devkit" / "cars_train_annos.mat").unlink()
    with pytest.raises(UserError, match=r"cars_train_annos\.mat is missing"):
        load("cars196", root=tmp_path)


def test_cars_in_folders(tmp_path: Path) -> None:
    folder = tmp_path / "car_data" / "car_data"
    write_photo(folder / "train" / "AM General Hummer SUV 2000" / "1.jpg")
    write_photo(folder / "train" / "Ram C-V Cargo Van Minivan 2012" / "2.jpg")
    write_photo(folder / "test" / "AM General Hummer SUV 2000" / "3.jpg")
    found = by_id(load("cars196", root=tmp_path))
    assert found["train/Ram C-V Cargo Van Minivan 2012/2.jpg"] == (
        "train",
        {"coarse8": "Van", "label": "Ram C/V Cargo Van Minivan 2012"},
    )
    assert Counter(split for split, _ in found.values()) == {"train": 2, "test": 1}
    write_photo(folder / "test" / "Trabant 601 1964" / "4.jpg")
    with pytest.raises(UserError, match=r"test/Trabant 601 1964 is the folder of no class of Stanford Cars"):
        load("cars196", root=tmp_path)


# Birds, flowers and commands


def test_cub200_as_distributed(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    files = {"1": "001.Black_footed_Albatross/a.jpg", "2": "200.Common_Yellowthroat/b.jpg"}
    lists = {
        "images": [f"{number} {file}" for number, file in files.items()],
        "image_class_labels": ["1 1", "2 200"],
        "classes": ["1 001.Black_footed_Albatross", "200 200.Common_Yellowthroat"],
        "train_test_split": ["1 1", "2 0"],
    }
    for seed, file in enumerate(files.values()):
        write_photo(folder / "images" / file, seed)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    found = by_id(load("cub200", root=tmp_path))
    assert found[files["1"]] == ("train", {"coarse": "Waterbird", "label": "Black_Footed_Albatross"})
    assert found[files["2"]][0] == "test"
    (folder / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(UserError, match=r"image 2, 200\.Common_Yellowthroat/b\.jpg, has no class"):
        load("cub200", root=tmp_path)


def test_flowers102_as_torchvision_unpacks_them(tmp_path: Path) -> None:
    folder = tmp_path / "flowers-102"
    for number in range(1, 4):
        write_photo(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 102, 77]])})
    savemat(folder / "setid.mat", {"trnid": np.array([[2]]), "valid": np.array([[3]]), "tstid": np.array([[1]])})
    found = by_id(load("flowers102", root=tmp_path))
    assert {image: (split, labels["label"]) for image, (split, labels) in found.items()} == {
        "jpg/image_00001.jpg": ("test", "pink primrose"),
        "jpg/image_00002.jpg": ("train", "blackberry lily"),
        "jpg/image_00003.jpg": ("val", "passion flower"),
    }
    savemat(folder / "setid.mat", {"trnid": np.array([[4]]), "valid": np.array([[3]]), "tstid": np.array([[1]])})
    with pytest.raises(UserError, match=r"setid\.mat: image 4 has no class from 1 to 102"):
        load("flowers102", root=tmp_path)


def test_hwu64_as_distributed(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "hwu64"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("text\tcategory\nwake me\talarm_set\nstop\t now\talarm_set\n")
    (folder / "test.tsv").write_text("text\tcategory\nlouder\taudio_volume_up\n")
    data = load("hwu64", root=tmp_path)
    assert by_id(data) == {
        "train/2": ("train", {"coarse": "alarm", "label": "alarm_set"}),
        "test/2": ("test", {"coarse": "audio", "label": "audio_volume_up"}),
    }
    assert "1 lines that are not of two cells were left out" in data.notes["messages"]
    (folder / "test.tsv").write_text("louder\taudio_volume_up\n")
    with pytest.raises(UserError, match=r"test\.tsv does not begin with the line"):
        load("hwu64", root=tmp_path)


# tieredImageNet


def test_tieredimagenet_in_its_parts(tmp_path: Path) -> None:
    content = grouping("tieredimagenet")
    parts = {
        part: next(f for f, above in content["classes"].items() if above[0] in coarse)
        for part, coarse in content["parts"].items()
    }
    for seed, (part, wnid) in enumerate(parts.items()):
        write_photo(tmp_path / "own" / "tiered-imagenet" / part / wnid / "1.jpg", seed)
        write_photo(tmp_path / "ilsvrc" / "imagenet" / "train" / wnid / f"{wnid}_1.JPEG", seed)
    stranger = min(grouping("imagenet_12")["classes"].keys() - content["classes"].keys())
    write_photo(tmp_path / "ilsvrc" / "imagenet" / "train" / stranger / "1.JPEG")
    for side in ("own", "ilsvrc"):
        data = load("tieredimagenet", root=tmp_path / side)
        assert data.splits is not None
        assert {part: by_id(data.split(part)) for part in parts} == {
            part: {identity: (part, {"coarse": content["classes"][wnid][0], "label": wnid})}
            for part, wnid in parts.items()
            for identity in data.split(part).ids.tolist()
        }
        assert "605 of 608 classes have no images" in " ".join(data.notes["messages"])
    (tmp_path / "none" / "train" / "n00000000").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no images in folders of classes: looked for .*/train/n01440764/"):
        load("tieredimagenet", root=tmp_path / "none")


# ImageNet at 32 pixels


def write_imagenet32(folder: Path, form: str, labels: dict[str, list[int]]) -> dict[str, np.ndarray]:
    written = {}
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (file, codes) in enumerate(labels.items()):
        data = np.random.default_rng(seed).integers(0, 256, (len(codes), 3072), dtype=np.uint8)
        if form == "npz":
            np.savez(folder / f"{file}.npz", data=data, labels=np.array(codes))
        else:
            (folder / file).write_bytes(pickle.dumps({"data": data, "labels": codes}, protocol=2))
        written[file] = data.reshape(-1, 3, 32, 32)
    return written


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_imagenet_32(tmp_path: Path, form: str, shared: Path) -> None:
    batches = {"train_data_batch_1": [1, 1000], "train_data_batch_10": [2], "train_data_batch_2": [3], "val_data": [1]}
    images = write_imagenet32(tmp_path / "imagenet32", form, batches)
    data = load("imagenet-32", root=tmp_path)
    order = json.loads((shared / "taxonomies" / "imagenet32_label_order.json").read_text())["map"]
    wnids = sorted(grouping("imagenet_12")["classes"])
    names = {label: wnids[order[str(label - 1)]] for label in (1, 2, 3, 1000)}
    found = by_id(data)
    assert [found[f"train/{row}"][1]["label"] for row in range(4)] == [names[label] for label in (1, 1000, 3, 2)]
    assert found["test/0"] == ("test", {"coarse12": grouping("imagenet_12")["classes"][names[1]][0], "label": names[1]})
    assert np.array_equal(data.samples.take(torch.tensor([4]))[0].numpy(), images["val_data"][0])
    assert data.samples.shape == (3, 32, 32)
    write_imagenet32(tmp_path / "imagenet32", form, {"val_data": [0]})
    with pytest.raises(UserError, match=r"val_data.*: labels from 0 to 0; those of these files are 1 to 1000"):
        load("imagenet-32", root=tmp_path)


def test_broken_files_of_imagenet_32_are_named(tmp_path: Path) -> None:
    write_imagenet32(tmp_path, "npz", {"train_data_batch_1": [1]})
    with pytest.raises(UserError, match=r"val_data\.npz is missing: the data set is not complete"):
        load("imagenet-32", root=tmp_path)
    (tmp_path / "val_data.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"val_data\.npz cannot be read as an \.npz file"):
        load("imagenet-32", root=tmp_path)
    np.savez(tmp_path / "val_data.npz", data=np.zeros((1, 5), np.uint8), labels=np.array([1]))
    with pytest.raises(UserError, match=r"should be uint8 of shape \(N, 3072\)"):
        load("imagenet-32", root=tmp_path)


def test_the_order_of_the_downsampled_files_is_a_permutation() -> None:
    assert sorted(imagenet32_classes()) == sorted(grouping("imagenet_12")["classes"])


# Generated samples


@pytest.mark.parametrize("name", synthetic_names())
def test_generated_samples_have_the_layout_of_the_data_set(tmp_path: Path, name: str) -> None:
    write_synthetic(name, tmp_path)
    data = load(name, root=tmp_path)
    entry = entries()[name]
    assert data.modality == entry.modality
    assert set(data.labels.levels) == set(entry.levels)
    assert {"train", "test"} <= set(data.split_names)
    assert all(len(data.labels.present(level)) >= 2 for level in data.labels.levels)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write_synthetic(name, tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_generated_classes_are_told_apart_and_samples_differ(tmp_path: Path) -> None:
    write_synthetic("cifar100-20", tmp_path)
    data = load("cifar100-20", root=tmp_path)
    assert len(data.split("train")) == FINE * SAMPLES
    assert data.labels.counts == {"superclass": 3, "label": FINE}
    images = data.samples.take(torch.arange(len(data)))
    assert len(images.flatten(1).unique(dim=0)) == len(data)
    assert set(few_classes("cifar100_3")) <= grouping("cifar100_3")["classes"].keys()
    with pytest.raises(UserError, match="omniglot is not generated: there are beeradvocate"):
        write_synthetic("omniglot", tmp_path)


def test_missing_data_are_an_error_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"cars196 was not found\. Looked for .*stanford_cars/cars_train"):
        load("cars196", root=tmp_path)


# Free-grained labels


def test_free_grained_imagenet_keeps_the_given_levels(tmp_path: Path) -> None:
    lists, images = tmp_path / "FreeGrainLearning" / "data", tmp_path / "imagenet"
    lists.mkdir(parents=True)
    given = {"train/n02268853/a.JPEG": "6 43 229 6", "train/n02268853/b.JPEG": "6 43 229 63",
             "train/n02837789/c.JPEG": "7 55 259 406"}  # fmt: skip
    (lists / "imagenet-F-train.txt").write_text("".join(f"{image} {codes}\n" for image, codes in given.items()))
    (lists / "imagenet-F-val.txt").write_text("val/n02268853/d.JPEG 6 43 229\n")
    for seed, image in enumerate([*given, "val/n02268853/d.JPEG"]):
        write_photo(images / image, seed)
    (lists / "imagenet-3L-id_basic_dic.json").write_text(json.dumps({"6": "insect", "7": "clothing"}))
    whole = ("insect", "43", "n02268853")
    rows = {
        "train/n02268853/a.JPEG": ("train", ("insect", None, None)),
        "train/n02268853/b.JPEG": ("train", ("insect", "43", None)),
        "train/n02837789/c.JPEG": ("train", ("clothing", "55", "n02837789")),
        "val/n02268853/d.JPEG": ("test", whole),
    }
    levels = ("basic", "subordinate", "label")
    expected = {image: (split, dict(zip(levels, path, strict=True))) for image, (split, path) in rows.items()}
    assert by_id(load("imagenet-f", root=tmp_path)) == expected
    full = by_id(load("imagenet-3l", root=tmp_path))
    assert full["train/n02268853/a.JPEG"][1] == dict(zip(levels, whole, strict=True))
    (lists / "imagenet-F-val.txt").write_text("val/n02268853/d.JPEG 6 43\n")
    with pytest.raises(UserError, match=r"imagenet-F-val\.txt, line 1 is 'val.*expected a path and 3 numbers"):
        load("imagenet-f", root=tmp_path)


def test_free_grained_inaturalist_names_levels_by_folder(tmp_path: Path) -> None:
    place = "03200_Animalia_Chordata_Aves_Anseriformes_Anatidae_Anas_gracilis"
    images = {f"train_mini/{place}/a.jpg": "57 350 3200 330", f"val/{place}/b.jpg": "57 350 3200"}
    for seed, image in enumerate(images):
        write_photo(tmp_path / "inat21" / image, seed)
    for part, (image, codes) in zip(("train", "val"), images.items(), strict=True):
        (tmp_path / f"inat21-F-{part}.txt").write_text(f"{image} {codes}\n")
    found = by_id(load("inat21-mini-f", root=tmp_path))
    assert found[f"train_mini/{place}/a.jpg"][1] == {"order": "Anseriformes", "family": "Anatidae", "species": None}
    assert found[f"val/{place}/b.jpg"][1] == {"order": "Anseriformes", "family": "Anatidae", "species": place}


def test_free_grained_birds(tmp_path: Path) -> None:
    folder = tmp_path / "CUB_200_2011"
    kinds = {"1": "001.Black_footed_Albatross", "84": "084.Red_legged_Kittiwake"}
    for seed, kind in enumerate(kinds.values()):
        write_photo(folder / "images" / kind / "a.jpg", seed)
        write_photo(folder / "images_split" / "train" / kind / "a.jpg", seed)
    lines = {
        "images": [f"{i} {kind}/a.jpg" for i, kind in kinds.items()],
        "image_class_labels": [f"{i} {i}" for i in kinds],
        "classes": [f"{i} {kind}" for i, kind in kinds.items()],
        "train_test_split": ["1 1", "84 0"],
    }
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(content) + "\n")
    found = by_id(load("cub-f", root=tmp_path))
    assert found["001.Black_footed_Albatross/a.jpg"][1] == {
        "order": "Procellariiformes", "family": "Diomedeidae", "species": "Black_Footed_Albatross",
    }  # fmt: skip
    assert found["084.Red_legged_Kittiwake/a.jpg"][1]["order"] == "Coraciiformes"
    codes = ("11 34 0 47", "4 7 83 4")
    train = [f"train/{kind}/a.jpg {given}" for kind, given in zip(kinds.values(), codes, strict=True)]
    (tmp_path / "cub-Real-train.txt").write_text("\n".join(train) + "\n")
    (tmp_path / "cub-Real-val.txt").write_text(train[1].rsplit(" ", 1)[0] + "\n")
    real = load("cub-real", root=tmp_path, splits=["train"])
    assert [real[row][1]["species"] for row in range(2)] == [None, None]
    assert [real[row][1]["family"] for row in range(2)] == ["Diomedeidae", None]


def test_aircraft_in_the_authors_lists(tmp_path: Path) -> None:
    folder = tmp_path / "fgvc-aircraft-2013b" / "data"
    for seed, image in enumerate(("1025794", "0034309")):
        write_photo(folder / "images" / f"{image}.jpg", seed)
    for level, name in (("manufacturer", "Boeing"), ("family", "Boeing 737"), ("variant", "737-200")):
        (folder / f"images_{level}_trainval.txt").write_text(f"1025794 {name}\n")
        (folder / f"images_{level}_test.txt").write_text(f"0034309 {name}\n")
    expected = {"manufacturer": "Boeing", "family": "Boeing 737", "variant": "737-200"}
    assert by_id(load("aircraft-f", root=tmp_path)) == {
        "1025794.jpg": ("train", expected), "0034309.jpg": ("test", expected),
    }  # fmt: skip
    (folder / "images_family_test.txt").write_text("")
    with pytest.raises(UserError, match=r"images_family_test\.txt lacks image 0034309"):
        load("aircraft-f", root=tmp_path)
