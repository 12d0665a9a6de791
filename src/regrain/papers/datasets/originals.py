"""The layouts in which the catalogue's data sets are distributed by their authors, each read into rows.

Every function takes the folder where the user keeps data, and returns None if its data set is absent.
"""

from __future__ import annotations

import codecs
import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.cells import numbered
from regrain.data.folder import image_suffixes, read_folder
from regrain.data.formats import utf8_text
from regrain.data.rows import Rows
from regrain.data.taxonomies import grouping
from regrain.errors import UserError, examples
from regrain.papers.datasets.dialysis import dialysis_rows

_TRAIN_DRAWERS = 14
_ALPHABETS = {"Balinese": 24, "Early_Aramaic": 22, "Greek": 24, "Korean": 40, "Latin": 26}
"""Characters of each alphabet on the packed sheet, from the top."""
_SHEET_SIDE = 28
_ILSVRC_PLACES = (".", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
_ILSVRC_SIGNS = ("train/n[0-9]*", "val/n[0-9]*", "val/ILSVRC2012_val_*")
_FASHION_PLACES = (
    ".",
    "Category and Attribute Prediction Benchmark",
    "DeepFashion/Category and Attribute Prediction Benchmark",
    "deepfashion",
    "DeepFashion",
)


def digits(root: Path) -> Rows:
    """scikit-learn's 8 x 8 digits, which come with it; every fourth sample of a class is a test sample."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[:, None]
    rank = np.empty(len(data.target), dtype=np.int64)
    for digit in np.unique(data.target):
        members = np.flatnonzero(data.target == digit)
        rank[members] = np.arange(len(members))
    splits = np.where(rank % 4 == 3, "test", "train").tolist()
    return found_rows("scikit-learn", "image", images, {"digit": data.target.tolist()}, numbered(len(images)), splits)


def alphabets(root: Path) -> Rows:
    """Omniglot's five small alphabets at 28 x 28 pixels, which come with the package; drawers split as in Omniglot."""
    from PIL import Image

    with (resources.files("regrain.papers.datasets") / "alphabets.png").open("rb") as file:
        sheet = np.asarray(Image.open(file).convert("L"))
    names = [f"{name}/character{k:02d}" for name, count in _ALPHABETS.items() for k in range(1, count + 1)]
    drawers = sheet.shape[1] // _SHEET_SIDE
    images = sheet.reshape(len(names), _SHEET_SIDE, drawers, _SHEET_SIDE).swapaxes(1, 2)
    drawn = [(name, drawer) for name in names for drawer in range(1, drawers + 1)]
    labels: dict[str, list[Any]] = {
        "alphabet": [name.partition("/")[0] for name, _ in drawn],
        "character": [name for name, _ in drawn],
    }
    splits = ["train" if drawer <= _TRAIN_DRAWERS else "test" for _, drawer in drawn]
    ids = [f"{name}/{drawer:02d}" for name, drawer in drawn]
    return found_rows(
        "the package", "image", images.reshape(-1, 1, _SHEET_SIDE, _SHEET_SIDE).copy(), labels, ids, splits
    )


def dialysis(root: Path) -> Rows:
    """Synthetic records, which are generated: nothing is read."""
    return dialysis_rows()


def cifar10(root: Path) -> Rows | None:
    """``cifar-10-batches-py``, as torchvision unpacks it."""
    folder = first_folder(root, ("cifar-10-batches-py", "."), "data_batch_1")
    if folder is None:
        return None
    names = plain_pickle(folder / "batches.meta")["label_names"]
    files = dict.fromkeys(sorted(folder.glob("data_batch_*")), "train") | {folder / "test_batch": "test"}
    images, codes, splits = [], [], []
    for path, split in files.items():
        batch = plain_pickle(path)
        images.append(_pixels(path, batch))
        codes += batch["labels"]
        splits += [split] * len(batch["labels"])
    ids = numbered(len(splits), splits)
    return found_rows(folder, "image", np.concatenate(images), {"label": _named(folder, codes, names)}, ids, splits)


def cifar100(root: Path) -> Rows | None:
    """``cifar-100-python``, as torchvision unpacks it."""
    folder = first_folder(root, ("cifar-100-python", "."), "meta")
    if folder is None:
        return None
    names = plain_pickle(folder / "meta")["fine_label_names"]
    images, labels, ids, splits = [], [], [], []
    for split in ("train", "test"):
        batch = plain_pickle(folder / split)
        images.append(_pixels(folder / split, batch))
        labels += _named(folder, batch["fine_labels"], names)
        ids += [f"{split}/{names[c]}/{f}" for c, f in zip(batch["fine_labels"], batch["filenames"], strict=True)]
        splits += [split] * len(batch["fine_labels"])
    return found_rows(folder, "image", np.concatenate(images), {"label": labels}, ids, splits)


def omniglot(root: Path) -> Rows | None:
    """``images_background_small1`` or ``images_background``: alphabet/characterNN/NNNN_DD.png, DD being the drawer."""
    places = [
        f"{above}{part}" for part in ("images_background_small1", "images_background") for above in ("", "omniglot-py/")
    ]
    folder = first_folder(root, (*places, "."), "*/character01")
    if folder is None:
        return None
    rows = read_folder(folder, levels=["alphabet", "character"])
    drawers = [Path(path).stem[-2:] for path in rows.ids]
    for path, drawer in zip(rows.ids, drawers, strict=True):
        if not drawer.isdigit():
            raise UserError(f"{folder}/{path}: Omniglot's files end in the drawer's two digits, such as 0709_01.png")
    splits = ["train" if int(drawer) <= _TRAIN_DRAWERS else "test" for drawer in drawers]
    return replace(rows, ids=[f"{folder.name}/{path}" for path in rows.ids], splits=splits)


def clinc150(root: Path) -> Rows | None:
    """``data_full.json`` of github.com/clinc/oos-eval; out-of-scope texts are a split of their own, without labels."""
    folder = first_folder(root, (".", "clinc150", "data", "oos-eval/data"), "data_full.json")
    if folder is None:
        return None
    path = folder / "data_full.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {"train": ["train"], "val": ["val"], "test": ["test"], "oos": ["oos_train", "oos_val", "oos_test"]}
        found = [(s, text, label) for s, keys in parts.items() for key in keys for text, label in content.get(key, [])]
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not CLINC150's list of [text, intent] pairs: {error}") from None
    splits = [split for split, _, _ in found]
    intents = [None if split == "oos" else intent for split, _, intent in found]
    ids = numbered(len(found), splits)
    return found_rows(path, "text", [text for _, text, _ in found], {"intent": intents}, ids, splits)


def tabbed_texts(root: Path, *, name: str) -> Rows | None:
    """``train.tsv`` and ``test.tsv`` (text, category) of github.com/Lackel/Hierarchical_Weighted_SCL.

    Lines with more than two cells (texts with a tab) are left out, as by the authors.
    """
    folder = first_folder(root, (name, f"data/{name}", name.upper()), "train.tsv")
    if folder is None:
        return None
    texts, labels, ids, splits, odd = [], [], [], [], 0
    for split in ("train", "test"):
        lines = [line.removesuffix("\r") for line in complete_text(folder / f"{split}.tsv").split("\n")]
        if not lines or lines[0].split("\t") != ["text", "category"]:
            raise UserError(f"{folder}/{split}.tsv does not begin with the line 'text<tab>category'")
        for number, line in enumerate(lines[1:], start=2):
            cells = line.split("\t")
            odd += len(cells) != 2 and bool(line)
            if len(cells) == 2:
                texts.append(cells[0].strip('"'))
                labels.append(cells[1])
                ids.append(f"{split}/{number}")
                splits.append(split)
    rows = found_rows(folder, "text", texts, {"label": labels}, ids, splits)
    return replace(rows, notes=rows.notes | {"remarks": [f"{odd} lines that are not of two cells were left out"]})


def grocery(root: Path) -> Rows | None:
    """``GroceryStoreDataset/dataset``: split/.../class/image.jpg; the fine class is the folder of the image."""
    folder = first_folder(root, ("GroceryStoreDataset/dataset", "grocery/dataset", "dataset", "."), "classes.csv")
    if folder is None:
        return None
    rows = read_folder(folder)
    natural = [row for row, path in enumerate(rows.ids) if path.startswith(("train/", "val/", "test/"))]
    rows = rows.select(np.array(natural, dtype=np.int64))
    splits = [path.split("/")[0] for path in rows.ids]
    return replace(rows, labels={"fine": [path.split("/")[-2] for path in rows.ids]}, splits=splits)


def deepfashion(root: Path) -> Rows | None:
    """DeepFashion's Category and Attribute Prediction Benchmark: ``Anno_coarse``, ``Eval`` and ``Img/img``.

    Older copies have ``Anno`` in place of ``Anno_coarse``. Splits are the authors'.
    """
    folder = first_folder(root, _FASHION_PLACES, "Eval/list_eval_partition.txt")
    if folder is None:
        return None
    notes = folder / ("Anno" if (folder / "Anno" / "list_category_cloth.txt").is_file() else "Anno_coarse")
    names = [name for name, _ in _listed(notes / "list_category_cloth.txt")]
    codes = dict(_listed(notes / "list_category_img.txt"))
    images, splits = map(list, zip(*_listed(folder / "Eval" / "list_eval_partition.txt"), strict=True))
    strangers = [image for image in images if not codes.get(image, "").isdecimal()]
    if strangers:
        raise UserError(f"{notes}/list_category_img.txt gives no number of a category for {examples(strangers)}")
    labels = {"category": _named(folder, [int(codes[image]) - 1 for image in images], names)}
    above = folder if (folder / "img").is_dir() else folder / "Img"
    return found_rows(folder, "image", [f"{above}/{image}" for image in images], labels, images, splits)


def ilsvrc(root: Path, *, classes_of: str) -> Rows | None:
    """An ImageFolder copy of ILSVRC 2012, ``train/WNID/*.JPEG`` and ``val/WNID/*.JPEG``, with ``val`` as test split.

    Reads only the class folders of the grouping ``classes_of``.
    """
    folder = class_folders(root)
    if folder is None:
        return None
    wnids = sorted(grouping(classes_of)["classes"])
    images: list[str] = []
    remarks = []
    for part in ("train", "val"):
        if not (folder / part).is_dir():
            remarks.append(f"{folder} has no folder {part}, and so the data have one split only")
            continue
        of_class = {wnid: image_files(folder / part / wnid) for wnid in wnids}
        present = sum(map(bool, of_class.values()))
        if not present:
            raise UserError(_no_class_folders(folder / part, wnids))
        if present < len(wnids):
            absent = examples(wnid for wnid in wnids if not of_class[wnid])
            remarks.append(f"{folder}/{part} has images of {present} of {len(wnids)} classes, and none of {absent}")
        images += [f"{part}/{wnid}/{file}" for wnid in wnids for file in of_class[wnid]]
    labels = {"label": [image.split("/")[1] for image in images]}
    splits = ["train" if image.startswith("train/") else "test" for image in images]
    rows = found_rows(folder, "image", [f"{folder}/{image}" for image in images], labels, images, splits)
    return replace(rows, describe_row=images.__getitem__, notes=rows.notes | {"remarks": remarks})


def class_folders(root: Path) -> Path | None:
    """The folder under ``root`` that holds an ImageFolder copy of ILSVRC 2012; None if absent."""
    found = (first_folder(root, _ILSVRC_PLACES, sign) for sign in _ILSVRC_SIGNS)
    return next((place for place in found if place is not None), None)


def _listed(path: Path) -> list[tuple[str, str]]:
    """The pairs of one of DeepFashion's lists, which begins with their number and the names of its two columns."""
    lines = [line.rsplit(None, 1) for line in complete_text(path).splitlines() if line.strip()]
    count = lines[0][0] if lines else "no"
    pairs = [(line[0].strip(), line[1]) for line in lines[2:] if len(line) == 2]
    if not pairs or count != str(len(pairs)):
        raise UserError(f"{path} announces {count} lines of a name and a value, and holds {len(pairs)}")
    return pairs


def image_files(folder: Path) -> list[str]:
    """Names of the images directly in a folder, in order; none if the folder is absent."""
    if not folder.is_dir():
        return []
    names = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(image_suffixes()) and not name.startswith("."))


def _no_class_folders(folder: Path, wnids: Sequence[str]) -> str:
    """Message with the expected folders, the folders found, and how to arrange them."""
    present = sorted(entry.name for entry in os.scandir(folder))
    message = (
        f"{folder} has no images in folders of classes: looked for {folder}/{wnids[0]}/*.JPEG and {len(wnids) - 1} "
        f"folders like it, found {examples(present) or 'nothing'}"
    )
    if any(name.startswith("ILSVRC2012_val_") for name in present):
        message += (
            ". Move every image into the folder of its class: the classes are listed in LOC_val_solution.csv (Kaggle) "
            "and in the development kit, by which torchvision.datasets.ImageNet(folder, split='val') unpacks "
            "ILSVRC2012_img_val.tar into such folders"
        )
    elif any(name.endswith(".tar") for name in present):
        message += ". Unpack every archive nNNNNNNNN.tar into a folder of that name"
    return message


def found_rows(
    where: Path | str, modality: Any, values: Any, labels: dict[str, list[Any]], ids: Any, splits: list[str]
) -> Rows:
    """Make rows of a data set with given splits, as its folder or file holds them."""
    return Rows(
        where=str(where),
        name="",
        modality=modality,
        values=values,
        labels=labels,
        ids=ids,
        describe_row=lambda row: f"{splits[row]} sample {ids[row]}",
        splits=splits,
        notes={"source": str(where), "messages": []},
    )


def first_folder(root: Path, places: Sequence[str], holds: str) -> Path | None:
    """Find the first of some folders under ``root`` that holds a file matching a pattern."""
    for place in places:
        folder = root / place
        if folder.is_dir() and next(folder.glob(holds), None) is not None:
            return folder
    return None


def complete_text(path: Path) -> str:
    """Read the text of a required file."""
    if not path.is_file():
        raise UserError(f"{path} is missing: the data set is not complete")
    return utf8_text(path)


def _named(folder: Path, codes: Sequence[int], names: Sequence[str]) -> list[str]:
    if codes and not 0 <= min(codes) <= max(codes) < len(names):
        raise UserError(f"{folder}: class codes from {min(codes)} to {max(codes)} do not fit {len(names)} class names")
    return [names[code] for code in codes]


def _pixels(path: Path, batch: dict[str, Any]) -> np.ndarray:
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise UserError(f"{path} does not hold CIFAR images: 'data' should be uint8 of shape (N, 3072)")
    return data.reshape(-1, 3, 32, 32)


def plain_pickle(path: Path) -> dict[str, Any]:
    """Load a CIFAR batch; refuse anything except arrays and plain containers before it is built."""
    try:
        with path.open("rb") as stream:
            content = _PlainUnpickler(stream, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the data set is not complete") from None
    except UserError as error:
        raise UserError(f"{path}: {error}", code=error.code) from None
    except Exception as error:  # a damaged pickle fails in many ways
        raise UserError(f"{path} cannot be read as a CIFAR batch: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a CIFAR batch")
    return content


class _PlainUnpickler(pickle.Unpickler):
    """Builds NumPy arrays, text, bytes, numbers and containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        allowed = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype, ("_codecs", "encode"): codecs.encode}
        if (module, name) not in allowed:
            raise UserError(f"the pickle asks for {module}.{name}, which a CIFAR batch has no use for; it was not run")
        return allowed[module, name]
