"""The data sets besides CIFAR-100 that SCLRE (CVPR 2023) regroups into superclasses, in their authors' layouts.

Every function takes the folder where the user keeps data, and returns None if its data set is absent. SCLRE names the
superclasses, but lists their classes only for FMoW. The other rules are ours; the catalogue's notes state them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from regrain.data.formats import utf8_text
from regrain.data.rows import Rows
from regrain.data.taxonomies import grouping
from regrain.errors import UserError, examples, nearest
from regrain.papers.datasets.originals import complete_text, first_folder, found_rows

_MINI_PLACES = ("mini-imagenet", "mini_imagenet", "miniImagenet", "miniimagenet", ".")
_FMOW_PLACES = (".", "fmow_v1.1")
_ADIENCE_PLACES = (".", "adience", "Adience", "AdienceBenchmarkOfUnfilteredFacesForGenderAndAgeClassification")
_ADIENCE_LISTS = (
    "fold_{}_data.txt",
    "folds/fold_{}_data.txt",
    "fold_frontal_{}_data.txt",
    "folds/fold_frontal_{}_data.txt",
)
_TESTED_FOLD = 4
_AGES = {
    "0-2": (0, 2),
    "4-6": (4, 6),
    "8-13": (8, 13),
    "15-20": (15, 20),
    "25-32": (25, 32),
    "38-43": (38, 43),
    "48-53": (48, 53),
    "60+": (60, 200),
}


def mini_imagenet(root: Path) -> Rows | None:
    """``train.csv``, ``val.csv`` and ``test.csv`` of Ravi and Larochelle (filename,label), next to ``images``."""
    folder = first_folder(root, _MINI_PLACES, "train.csv")
    if folder is None or not (folder / "images").is_dir():
        return None
    images, labels, splits, remarks = [], [], [], []
    for split in ("train", "val", "test"):
        if not (folder / f"{split}.csv").is_file():
            remarks.append(f"{folder} has no {split}.csv, and so the data have no such split")
            continue
        found = _cells(folder / f"{split}.csv", ("filename", "label"))
        images += [f"images/{file}" for file, _ in found]
        labels += [label for _, label in found]
        splits += [split] * len(found)
    return _images(folder, images, {"label": labels}, splits, remarks)


def voc(root: Path, *, year: int, splits: Mapping[str, str]) -> Rows | None:
    """``VOCdevkit/VOC<year>``: the images whose objects are all biotic or all abiotic.

    ``splits`` names the lists in ``ImageSets/Main`` to read, and the split that each becomes. The class of an image is
    known if all its objects share one.
    """
    folder = first_folder(root, (f"VOCdevkit/VOC{year}", f"VOC{year}"), "ImageSets/Main/train*.txt")
    if folder is None:
        return None
    kinds = {name: above[0] for name, above in grouping("voc_2")["classes"].items()}
    images: list[str] = []
    labels: dict[str, list[str | None]] = {"superclass": [], "label": []}
    parts, remarks = [], []
    for part, split in splits.items():
        file = folder / "ImageSets" / "Main" / f"{part}.txt"
        if not file.is_file():
            remarks.append(f"{folder} has no ImageSets/Main/{part}.txt, and so the data have no split {split}")
            continue
        names = utf8_text(file).split()
        mixed = 0
        for name in names:
            classes = _objects(folder / "Annotations" / f"{name}.xml", kinds)
            kind = {kinds[c] for c in classes}
            if len(kind) != 1:
                mixed += 1
                continue
            images.append(f"JPEGImages/{name}.jpg")
            labels["superclass"] += kind
            labels["label"].append(classes.pop() if len(classes) == 1 else None)
            parts.append(split)
        remarks.append(
            f"{split}: {mixed} of {len(names)} images show objects of both kinds, or none, and were left out"
        )
    return _images(folder, images, labels, parts, remarks)


def fmow(root: Path) -> Rows | None:
    """``fmow_v1.1`` of WILDS: ``rgb_metadata.csv``, ``country_code_mapping.csv`` and ``images/rgb_img_ROW.png``.

    Splits are WILDS': ``train``, ``id_val`` and ``id_test`` before 2013, ``val`` from 2013 to 2015, ``test`` from 2016.
    Groups are the places photographed, many of them several times.
    """
    folder = first_folder(root, _FMOW_PLACES, "rgb_metadata.csv")
    if folder is None:
        return None
    countries = _cells(folder / "country_code_mapping.csv", ("alpha-3", "region"))
    regions = {cells[0]: cells[1] for cells in countries}
    columns = ("split", "img_filename", "category", "country_code", "timestamp")
    images, splits, groups = [], [], []
    labels: dict[str, list[str]] = {"region": [], "category": []}
    for row, (part, file, category, country, time) in enumerate(_cells(folder / "rgb_metadata.csv", columns)):
        split = _wilds_split(part, time)
        if split is None:
            continue
        images.append(f"images/rgb_img_{row}.png")
        labels["region"].append(regions.get(country) or "Other")
        labels["category"].append(category)
        splits.append(split)
        groups.append(
            f"{part}/{'_'.join(Path(file).stem.split('_')[:-2])}"
        )  # airport_12_3_rgb.jpg: fourth of its place
    return replace(_images(folder, images, labels, splits, []), groups=groups, relation="aspects")


def adience(root: Path) -> Rows | None:
    """The five lists of faces next to ``aligned/USER/landmark_aligned_face.FACE.IMAGE``; the last fold is tested.

    Reads all faces if their lists are present, else the frontal ones. Groups are users, whose albums show few people
    each; the authors' folds keep each user together.
    """
    found = ((first_folder(root, _ADIENCE_PLACES, files.format(0)), files) for files in _ADIENCE_LISTS)
    folder, files = next(((place, files) for place, files in found if place is not None), (None, ""))
    if folder is None:
        return None
    images, splits, users = [], [], []
    ages: list[str | None] = []
    for fold in range(_TESTED_FOLD + 1):
        columns = ("user_id", "original_image", "face_id", "age")
        for user, image, face, age in _cells(folder / files.format(fold), columns, delimiter="\t"):
            images.append(f"aligned/{user}/landmark_aligned_face.{face}.{image}")
            ages.append(age_group(age))
            splits.append("test" if fold == _TESTED_FOLD else "train")
            users.append(user)
    remarks = [f"{ages.count(None)} of {len(ages)} faces have no age, or one that fits two groups: it is unknown"]
    if "frontal" in files:
        remarks.append(f"frontal faces alone: {folder} has no fold_0_data.txt")
    return replace(_images(folder, images, {"age": ages}, splits, remarks), groups=users)


def age_group(label: str) -> str | None:
    """Adience age group (of eight) that an age or age range overlaps, else the nearest; None if two overlap.

    Examples
    --------
    >>> [age_group(label) for label in ("(25, 32)", "(8, 12)", "36", "57", "(60, 100)")]
    ['25-32', '8-13', '38-43', '60+', '60+']
    >>> [age_group(label) for label in ("None", "35", "(38, 48)")]
    [None, None, None]
    """
    years = list(map(int, re.findall(r"\d+", label)))
    if not years:
        return None
    away = {group: max(0, low - years[-1], years[0] - high) for group, (low, high) in _AGES.items()}
    near = [group for group, distance in away.items() if distance == min(away.values())]
    return near[0] if len(near) == 1 else None


def _images(
    folder: Path, images: list[str], labels: Mapping[str, Sequence[str | None]], splits: list[str], remarks: list[str]
) -> Rows:
    columns = {level: list(names) for level, names in labels.items()}
    rows = found_rows(folder, "image", [f"{folder}/{image}" for image in images], columns, images, splits)
    return replace(rows, notes=rows.notes | {"remarks": remarks})


def _cells(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> list[tuple[str, ...]]:
    """Read some columns of a table with a header, row by row."""
    reader = csv.reader(io.StringIO(complete_text(path), newline=""), delimiter=delimiter)
    header = [name.strip() for name in next(reader, [])]
    for column in columns:
        if column not in header:
            raise UserError(f"{path} has no column '{column}': {nearest(column, header)}")
    places = [header.index(column) for column in columns]
    rows = []
    for cells in filter(None, reader):
        if len(cells) <= max(places):
            raise UserError(f"{path}, line {reader.line_num} has {len(cells)} cells where the header has {len(header)}")
        rows.append(tuple(cells[place].strip() for place in places))
    return rows


def _objects(path: Path, known: Mapping[str, str]) -> set[str]:
    """Classes of an image's objects, including objects marked difficult."""
    try:
        objects = ElementTree.parse(path).getroot().findall("object")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the data set is not complete") from None
    except ElementTree.ParseError as error:
        raise UserError(f"{path} cannot be read as an annotation: {error}") from None
    classes = {str(item.findtext("name")).strip() for item in objects}
    strangers = sorted(classes - known.keys())
    if strangers:
        raise UserError(f"{path} has objects of unknown classes: {examples(strangers)}")
    return classes


def _wilds_split(part: str, time: str) -> str | None:
    """WILDS' split of an image, by FMoW's own split and the year; None if WILDS leaves the image out."""
    year = time[:4]
    if year < "2013":
        return {"train": "train", "val": "id_val", "test": "id_test"}.get(part)
    return part if (part == "val" and year < "2016") or (part == "test" and year >= "2016") else None
