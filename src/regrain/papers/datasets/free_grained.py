"""Data sets of Free-Grained Hierarchical Visual Recognition (CVPR 2026): three levels, each image known to one of them.

Every function takes the folder where the user keeps data, and returns None if its data set is absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from regrain.data.rows import Rows
from regrain.errors import UserError
from regrain.papers.datasets.fine_grained import cub200_numbers
from regrain.papers.datasets.originals import class_folders, complete_text, first_folder, found_rows

_LIST_PLACES = ("FreeGrainLearning/data", "FreeGrainLearning", "data", ".")
_INAT_PLACES = ("inat21", "inat21Mini", "inaturalist-2021", "iNat21", ".")
_CUB_PLACES = ("CUB_200_2011/images_split", "images_split")
_AIRCRAFT_PLACES = ("fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b", "data", ".")
_IMAGENET = {"basic": 20, "subordinate": 127, "label": 505}
_INAT = {"order": 273, "family": 1103, "species": 10_000}
_CUB = {"order": 13, "family": 38, "species": 200}
_SPECIES_FOLDER = re.compile(r"\d+(?:_[^_]+){3}_([^_]+)_([^_]+)_(.+)")


def imagenet_three(root: Path, *, free: bool) -> Rows | None:
    """``imagenet-F-train.txt`` and ``-val.txt``, over an ImageFolder copy of ILSVRC 2012; ``free``: as far as given."""
    lists, folder = _lists(root, "imagenet-F"), class_folders(root)
    if lists is None or folder is None:
        return None
    files = dict(zip(_IMAGENET, ("basic", "subord", "finegrained"), strict=True))
    names = {level: _names(lists / f"imagenet-3L-id_{file}_dic.json") for level, file in files.items()}

    def named(image: str, codes: tuple[int, ...]) -> list[str]:
        fine = image.split("/")[-2]
        return [names[level].get(str(code), str(code)) for level, code in zip(files, codes[:2], strict=False)] + [fine]

    return _listed(lists, "imagenet-F", folder, _IMAGENET, named, free=free)


def inat21(root: Path) -> Rows | None:
    """``inat21-F-train.txt`` and ``-val.txt``, over ``train_mini`` and ``val`` of iNaturalist 2021."""
    lists = _lists(root, "inat21-F")
    folder = first_folder(root, _INAT_PLACES, "val")
    if lists is None or folder is None:
        return None

    def named(image: str, codes: tuple[int, ...]) -> list[str]:
        place = image.split("/")[-2]
        found = _SPECIES_FOLDER.fullmatch(place)
        if found is None:
            raise UserError(
                f"{place} is the folder of no species of iNaturalist 2021, such as "
                "03200_Animalia_Chordata_Aves_Anseriformes_Anatidae_Anas_gracilis"
            )
        return [found[1], found[2], place]

    return _listed(lists, "inat21-F", folder, _INAT, named, free=True)


def cub_real(root: Path) -> Rows | None:
    """``cub-Real-train.txt`` and ``-val.txt``, over CUB-200-2011 in ``images_split/train`` and ``test``."""
    lists = _lists(root, "cub-Real")
    folder = first_folder(root, _CUB_PLACES, "train")
    if lists is None or folder is None:
        return None
    families = _cub_families()

    def named(image: str, codes: tuple[int, ...]) -> list[str]:
        number, _, species = image.split("/")[-2].partition(".")
        return [*families(number), species]

    return _listed(lists, "cub-Real", folder, _CUB, named, free=True)


def cub(root: Path) -> Rows | None:
    """``CUB_200_2011`` as its authors hand it out, with order and family of every species."""
    found = cub200_numbers(root)
    if found is None:
        return None
    rows, numbers = found
    families = _cub_families()
    above = [families(number) for number in numbers]
    (species,) = rows.label_columns.values()
    labels = {"order": [a[0] for a in above], "family": [a[1] for a in above], "species": list(species)}
    splits = [] if rows.splits is None else list(rows.splits)
    return found_rows(rows.where, "image", rows.values, labels, list(rows.ids), splits)


def aircraft(root: Path) -> Rows | None:
    """``fgvc-aircraft-2013b``: ``images_manufacturer_trainval.txt`` and so on, which name the levels themselves."""
    folder = first_folder(root, _AIRCRAFT_PLACES, "images_variant_trainval.txt")
    if folder is None:
        return None
    levels = ("manufacturer", "family", "variant")
    labels: dict[str, list[str]] = {level: [] for level in levels}
    images: list[str] = []
    splits: list[str] = []
    for split, part in (("train", "trainval"), ("test", "test")):
        lists = {level: _pairs(folder / f"images_{level}_{part}.txt") for level in levels}
        for image in lists["variant"]:
            for level in levels:
                if image not in lists[level]:
                    raise UserError(f"{folder}/images_{level}_{part}.txt lacks image {image}: the lists do not fit")
                labels[level].append(lists[level][image])
            images.append(f"{image}.jpg")
            splits.append(split)
    return found_rows(folder, "image", [f"{folder}/images/{i}" for i in images], labels, images, splits)


def _lists(root: Path, name: str) -> Path | None:
    return first_folder(root, _LIST_PLACES, f"{name}-train.txt")


def _listed(
    lists: Path,
    name: str,
    folder: Path,
    levels: Mapping[str, int],
    named: Callable[[str, tuple[int, ...]], list[str]],
    *,
    free: bool,
) -> Rows:
    """Read lines ``path basic middle fine given``: the given label is the number of a node, the basic classes first.

    Lines of the validation list lack it: those images are known at every level.
    """
    images: list[str] = []
    splits: list[str] = []
    labels: dict[str, list[Any]] = {level: [] for level in levels}
    parts = {
        split: _lines(lists / f"{name}-{part}.txt", 3 + (split == "train"))
        for split, part in (("train", "train"), ("test", "val"))
    }
    basic, middle, _ = levels.values()
    for split, lines in parts.items():
        for image, codes in lines:
            depth = 3 if split == "test" or not free else 1 + (codes[3] >= basic) + (codes[3] >= basic + middle)
            path = named(image, codes)
            for level, (column, label) in enumerate(zip(labels, path, strict=True)):
                labels[column].append(label if level < depth else None)
            images.append(image)
            splits.append(split)
    return found_rows(folder, "image", [f"{folder}/{image}" for image in images], labels, images, splits)


def _lines(path: Path, numbers: int) -> list[tuple[str, tuple[int, ...]]]:
    found = []
    for number, line in enumerate(complete_text(path).splitlines(), start=1):
        cells = line.rsplit(None, numbers)
        if not cells:
            continue
        if len(cells) != numbers + 1 or not all(cell.isdecimal() for cell in cells[1:]):
            raise UserError(
                f"{path}, line {number} is '{line}'; expected a path and {numbers} numbers, such as "
                f"train/n02268853/n02268853_1.JPEG {'6 43 229 49' if numbers == 4 else '6 43 229'}"
            )
        found.append((cells[0], tuple(map(int, cells[1:]))))
    return found


def _names(path: Path) -> Mapping[str, str]:
    """Class names by number; the numbers themselves serve where the file is absent."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, str] = json.loads(complete_text(path))
    except ValueError as error:
        raise UserError(f"{path} is not a list of class names: {error}") from None
    return found


def _pairs(path: Path) -> dict[str, str]:
    lines = (line.split(None, 1) for line in complete_text(path).splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def _cub_families() -> Callable[[str], list[str]]:
    """Order and family of a species by its number, from 1."""
    text = (resources.files("regrain.papers.datasets") / "cub_families.json").read_text(encoding="utf-8")
    content = json.loads(text)

    def of(number: str) -> list[str]:
        if not number.isdecimal() or not 1 <= int(number) <= len(content["classes"]):
            raise UserError(f"'{number}' is the number of no species of CUB-200-2011, which are 1 to 200")
        family = content["classes"][int(number) - 1]
        return [content["family"][family], family]

    return of
