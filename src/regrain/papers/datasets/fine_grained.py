"""Products, cars, birds and flowers in their authors' layouts, and tieredImageNet and ImageNet at 32 pixels.

Every function takes the folder where the user keeps data, and returns None if its data set is absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.rows import Rows
from regrain.data.taxonomies import grouping
from regrain.errors import UserError, examples
from regrain.papers.datasets.originals import (
    class_folders,
    complete_text,
    first_folder,
    found_rows,
    image_files,
    plain_pickle,
)

_SOP_PLACES = ("Stanford_Online_Products", "stanford_online_products", "SOP", "sop", ".")
_SOP_FILE = re.compile(r"(\d+)_(\d+)\.jpe?g", re.IGNORECASE)
_CARS_PLACES = ("stanford_cars", "cars196", "car_data/car_data", "car_data", ".")
_TIERED_PLACES = ("tiered-imagenet", "tiered_imagenet", "tieredImageNet", "tieredimagenet")
_IMAGENET32_PLACES = (".", "imagenet32", "imagenet-32", "ImageNet32", "downsampled-imagenet-32")


def sop(root: Path) -> Rows | None:
    """The authors' split, ``Ebay_train.txt`` and ``Ebay_test.txt``: products tested are not trained on."""
    folder = first_folder(root, _SOP_PLACES, "Ebay_train.txt")
    if folder is None:
        return None
    images: list[str] = []
    labels: dict[str, list[str]] = {"category": [], "product": []}
    splits: list[str] = []
    for split in ("train", "test"):
        path = folder / f"Ebay_{split}.txt"
        for number, line in enumerate(complete_text(path).splitlines()[1:], start=2):
            cells = line.split()
            found = _SOP_FILE.fullmatch(Path(cells[-1]).name) if len(cells) == 4 else None
            if found is None:
                if cells:
                    raise UserError(
                        f"{path}, line {number} is '{line}'; expected image_id class_id super_class_id path, such as "
                        "1 1 1 bicycle_final/111085122871_0.JPG"
                    )
                continue
            images.append(cells[-1])
            labels["category"].append(_category(cells[-1].split("/")[0]))
            labels["product"].append(found[1])
            splits.append(split)
    return found_rows(folder, "image", [f"{folder}/{image}" for image in images], dict(labels), images, splits)


def sop_split(root: Path, *, name: str) -> Rows | None:
    """MaskCon's splits: folders ``CATEGORY_final`` of ``PRODUCT_NUMBER.JPG``; the grouping says which are tested."""
    folder = first_folder(root, _SOP_PLACES, "*_final")
    if folder is None:
        return None
    content = grouping(name)
    wanted = content["classes"]
    tested_products = set(content.get("test_products", ()))
    tested_images = content.get("test_images", {})
    images, products, splits = [], [], []
    for place in sorted(folder.glob("*_final")):
        for file in image_files(place):
            found = _SOP_FILE.fullmatch(file)
            if found is None or found[1] not in wanted:
                continue
            product, number = found[1], int(found[2])
            images.append(f"{place.name}/{file}")
            products.append(product)
            tested = product in tested_products or number in tested_images.get(product, ())
            splits.append("test" if tested else "train")
    if not images:
        raise UserError(
            f"{folder} has no image of the {len(wanted)} products of {name}: looked for files such as "
            f"{folder}/bicycle_final/{next(iter(wanted))}_0.JPG"
        )
    rows = found_rows(folder, "image", [f"{folder}/{i}" for i in images], {"product": products}, images, splits)
    absent = len(wanted) - len(set(products))
    return replace(
        rows,
        notes=rows.notes | {"remarks": [f"{absent} of {len(wanted)} products have no image"] if absent else []},
    )


def cars196(root: Path) -> Rows | None:
    """``cars_train``, ``cars_test`` and the lists of ``devkit`` (torchvision), or ``train/CLASS``, ``test/CLASS``."""
    folder = first_folder(root, _CARS_PLACES, "devkit/cars_meta.mat")
    if folder is not None:
        return _cars_by_lists(folder)
    spelt = _cars()
    first = next(iter(spelt.values()))
    folder = first_folder(root, _CARS_PLACES, f"train/{first}")
    if folder is None:
        return None
    images, labels, splits = [], [], []
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise UserError(f"{folder / split} is missing: the data set is not complete")
        for place in sorted(path for path in (folder / split).iterdir() if path.is_dir()):
            if _plain(place.name) not in spelt:
                raise UserError(f"{place} is the folder of no class of Stanford Cars, such as '{first}'")
            for file in image_files(place):
                images.append(f"{split}/{place.name}/{file}")
                labels.append(spelt[_plain(place.name)])
                splits.append(split)
    return found_rows(folder, "image", [f"{folder}/{image}" for image in images], {"label": labels}, images, splits)


def cub200(root: Path) -> Rows | None:
    """``CUB_200_2011``: ``images.txt``, ``image_class_labels.txt``, ``classes.txt`` and ``train_test_split.txt``."""
    found = cub200_numbers(root)
    return None if found is None else found[0]


def cub200_numbers(root: Path) -> tuple[Rows, list[str]] | None:
    """The rows of :func:`cub200`, and the number of each one's class."""
    folder = first_folder(root, ("CUB_200_2011", "cub200", "."), "train_test_split.txt")
    if folder is None or not (folder / "image_class_labels.txt").is_file():
        return None
    images, codes, names, trained = (
        _pairs(folder / f"{name}.txt") for name in ("images", "image_class_labels", "classes", "train_test_split")
    )
    spelt = {_plain(name): name for name in grouping("cub200_24")["classes"]}
    labels, splits = [], []
    for number, image in images.items():
        name = names.get(codes.get(number, ""))
        if name is None or number not in trained:
            raise UserError(f"{folder}: image {number}, {image}, has no class or is of no split: the lists do not fit")
        labels.append(spelt.get(_plain(name.partition(".")[2]), name))
        splits.append("train" if trained[number] == "1" else "test")
    files = list(images.values())
    rows = found_rows(folder, "image", [f"{folder}/images/{f}" for f in files], {"label": labels}, files, splits)
    return rows, [codes[number] for number in images]


def flowers102(root: Path) -> Rows | None:
    """``jpg/image_00001.jpg`` and so on, with ``imagelabels.mat`` and ``setid.mat``, as torchvision unpacks them."""
    folder = first_folder(root, ("flowers-102", "flowers102", "."), "imagelabels.mat")
    if folder is None:
        return None
    names = grouping("flowers102")["numbered"]
    codes = [int(code) for code in _flat(_mat(folder / "imagelabels.mat").get("labels"))]
    lists = _mat(folder / "setid.mat")
    images, labels, splits = [], [], []
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        for number in map(int, _flat(lists.get(key, ()))):
            if not 1 <= number <= len(codes) or not 1 <= codes[number - 1] <= len(names):
                raise UserError(
                    f"{folder}/setid.mat: image {number} has no class from 1 to {len(names)} in imagelabels.mat"
                )
            images.append(f"jpg/image_{number:05d}.jpg")
            labels.append(names[codes[number - 1] - 1])
            splits.append(split)
    return found_rows(folder, "image", [f"{folder}/{image}" for image in images], {"label": labels}, images, splits)


def tiered_imagenet(root: Path) -> Rows | None:
    """``train``, ``val`` and ``test`` of class folders, or the folder ``train`` of ILSVRC 2012, shared out by class."""
    content = grouping("tieredimagenet")
    part_of = {
        fine: part
        for part, coarse in content["parts"].items()
        for fine, above in content["classes"].items()
        if above[0] in coarse
    }
    folder = first_folder(root, _TIERED_PLACES, "train/n[0-9]*")
    own = folder is not None
    folder = folder or class_folders(root)
    if folder is None or not (folder / "train").is_dir():
        return None
    images, absent = [], []
    for wnid in sorted(part_of):
        above = part_of[wnid] if own else "train"
        files = image_files(folder / above / wnid)
        images += [f"{above}/{wnid}/{file}" for file in files]
        absent += [] if files else [wnid]
    if not images:
        raise UserError(
            f"{folder} has no images in folders of classes: looked for {folder}/train/{min(part_of)}/*.JPEG and "
            f"{len(part_of) - 1} folders like it"
        )
    labels = [image.split("/")[1] for image in images]
    rows = found_rows(
        folder, "image", [f"{folder}/{i}" for i in images], {"label": labels}, images, [part_of[c] for c in labels]
    )
    remarks = [f"{len(absent)} of {len(part_of)} classes have no images, such as {examples(absent)}"] if absent else []
    return replace(rows, notes=rows.notes | {"remarks": remarks})


def imagenet32(root: Path) -> Rows | None:
    """``train_data_batch_1`` to ``10`` and ``val_data``, pickles as they are handed out, or ``.npz`` files."""
    forms = (("", plain_pickle), (".npz", _npz))
    found = ((first_folder(root, _IMAGENET32_PLACES, f"train_data_batch_1{form[0]}"), form) for form in forms)
    folder, form = next(((place, form) for place, form in found if place is not None), (None, forms[0]))
    if folder is None:
        return None
    suffix, read = form
    batches = sorted(folder.glob(f"train_data_batch_*{suffix}"), key=lambda path: int(path.stem.rsplit("_", 1)[1]))
    batches = [path for path in batches if path.suffix == suffix]
    classes = imagenet32_classes()
    pixels, labels, splits = [], [], []
    for path in (*batches, folder / f"val_data{suffix}"):
        batch = read(path)
        codes = np.asarray(batch.get("labels", ()), dtype=np.int64)
        data = batch.get("data")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(codes), 3072):
            raise UserError(f"{path} does not hold images of 32 pixels: 'data' should be uint8 of shape (N, 3072)")
        if len(codes) and not 1 <= codes.min() <= codes.max() <= len(classes):
            raise UserError(f"{path}: labels from {codes.min()} to {codes.max()}; those of these files are 1 to 1000")
        pixels.append(data.reshape(-1, 3, 32, 32))
        labels += [classes[code - 1] for code in codes]
        splits += ["test" if path.stem == "val_data" else "train"] * len(codes)
    counts = {split: iter(range(len(splits))) for split in ("train", "test")}
    ids = [f"{split}/{next(counts[split])}" for split in splits]
    return found_rows(folder, "image", np.concatenate(pixels), {"label": labels}, ids, splits)


@cache
def imagenet32_classes() -> tuple[str, ...]:
    """The WordNet ids of the labels 1 to 1000 of the downsampled files, which are in their own order."""
    text = (resources.files("regrain.papers.datasets") / "imagenet_32.json").read_text(encoding="utf-8")
    wnids = sorted(grouping("imagenet_12")["classes"])
    return tuple(wnids[number] for number in json.loads(text)["order"])


def _cars_by_lists(folder: Path) -> Rows:
    spelt = _cars()
    names = [str(name) for name in _flat(_mat(folder / "devkit" / "cars_meta.mat").get("class_names"))]
    lists = {
        "train": ("devkit/cars_train_annos.mat", "cars_train"),
        "test": ("cars_test_annos_withlabels.mat", "cars_test"),
    }
    images, labels, splits = [], [], []
    for split, (file, place) in lists.items():
        path = folder / file
        if not path.is_file() and (folder / "devkit" / path.name).is_file():
            path = folder / "devkit" / path.name
        annotations = _mat(path).get("annotations")
        if annotations is None or not {"class", "fname"} <= set(annotations.dtype.names or ()):
            raise UserError(f"{path} has no annotations with class and fname: it is none of Stanford Cars' lists")
        for code, name in zip(_flat(annotations["class"]), _flat(annotations["fname"]), strict=True):
            if not 1 <= int(code) <= len(names):
                raise UserError(f"{path}: class {code} of {name} is none of the {len(names)} classes")
            images.append(f"{place}/{name}")
            labels.append(spelt.get(_plain(names[int(code) - 1]), names[int(code) - 1]))
            splits.append(split)
    return found_rows(folder, "image", [f"{folder}/{image}" for image in images], {"label": labels}, images, splits)


def _pairs(path: Path) -> dict[str, str]:
    """Read a list with a number and its text on each line."""
    lines = (line.split(None, 1) for line in complete_text(path).splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def _mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise UserError(f"{path} is missing: the data set is not complete")
    try:
        content: dict[str, Any] = loadmat(path)
    except (MatReadError, OSError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} cannot be read as a MATLAB file: {error}") from None
    return content


def _flat(values: Any) -> Iterator[Any]:
    """Flatten MATLAB's nested arrays to scalars."""
    for value in np.ravel(np.asarray(values, dtype=object)):
        if isinstance(value, np.ndarray):
            yield from _flat(value)
        else:
            yield value


def _npz(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path} is missing: the data set is not complete")
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read as an .npz file: {error}") from None


def _category(folder: str) -> str:
    return folder.removesuffix("_final")


def _cars() -> dict[str, str]:
    """Class names by a key that is the same for every spelling."""
    return {_plain(name): name for name in grouping("cars196_8")["classes"]}


def _plain(name: str) -> str:
    """Make a name that any file system allows: one class has a slash, which copies replace differently."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())
