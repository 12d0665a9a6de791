"""A few generated samples in the layout of a data set of the catalogue, to check that code runs, not to judge it.

Classes are the data set's own: three superclasses of three classes each, if it has superclasses. Images are noise
around a colour of their class, texts hold a word of their class. Sizes and lists follow the authors' layout.
"""

from __future__ import annotations

import itertools
import pickle
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from regrain.data.taxonomies import grouping
from regrain.errors import UserError
from regrain.papers.datasets.fine_grained import imagenet32_classes

SUPERCLASSES = 3
FINE = 9
"""Number of written classes."""

SAMPLES = 8
"""Samples of every class in each split."""

_SIDE = 40
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_STARS = (1, 3, 5)


def write_synthetic(name: str, root: Path) -> None:
    """Write the samples of a data set under ``root``; existing files stay as they are.

    Raises
    ------
    UserError
        For a data set that cannot be generated.
    """
    if name in ("alphabets", "dialysis", "digits"):
        return
    if name not in _WRITERS:
        raise UserError(f"{name} is not generated: there are {', '.join(sorted(_WRITERS))}")
    marker = root / f".{name}.written"
    if not marker.exists():
        root.mkdir(parents=True, exist_ok=True)
        _WRITERS[name](root)
        marker.touch()


def synthetic_names() -> list[str]:
    """Names of the data sets that can be generated."""
    return list(_WRITERS)


def few_classes(name: str) -> list[str]:
    """Pick three classes of each of three superclasses of a grouping, first those with enough classes."""
    under: dict[str, list[str]] = {}
    for fine, above in grouping(name)["classes"].items():
        if above[0] is not None:
            under.setdefault(above[0], []).append(fine)
    each = FINE // SUPERCLASSES
    wide = [members[:each] for members in under.values() if len(members) >= each]
    if len(wide) >= SUPERCLASSES:
        return list(itertools.chain(*wide[:SUPERCLASSES]))
    return list(itertools.chain(*(members[: -(-FINE // len(under))] for members in under.values())))[:FINE]


def _pixels(label: str, index: int, side: int) -> np.ndarray:
    """uint8 (side, side, 3): the same for the same label and index."""
    colour = np.random.default_rng(zlib.crc32(label.encode())).integers(64, 192, 3)
    noise = np.random.default_rng(zlib.crc32(f"{label}/{index}".encode())).normal(0, 24, (side, side, 3))
    return (colour + noise).clip(0, 255).astype(np.uint8)


def _write_image(path: Path, label: str, index: int, side: int = _SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels(label, index, side)).save(path)


def _flat(labels: Sequence[str], split: str) -> tuple[np.ndarray, list[int]]:
    """CIFAR's rows (N, 3072) of every class, and the positions of the classes."""
    codes = [code for code in range(len(labels)) for _ in range(SAMPLES)]
    rows = [_pixels(labels[code], zlib.crc32(f"{split}{i}".encode()), 32) for i, code in enumerate(codes)]
    return np.stack(rows).transpose(0, 3, 1, 2).reshape(len(rows), -1), codes


def _pickled(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def _cifar10(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    _pickled(folder / "batches.meta", {"label_names": list(_CIFAR10)})
    for file, split in (("data_batch_1", "train"), ("test_batch", "test")):
        data, codes = _flat(_CIFAR10, split)
        _pickled(folder / file, {"data": data, "labels": codes})


def _cifar100(root: Path, *, of: str) -> None:
    names = few_classes(of)
    folder = root / "cifar-100-python"
    _pickled(folder / "meta", {"fine_label_names": names})
    for split in ("train", "test"):
        data, codes = _flat(names, split)
        files = [f"{names[code]}_s_{i:06d}.png" for i, code in enumerate(codes)]
        _pickled(folder / split, {"data": data, "fine_labels": codes, "filenames": files})


def _ilsvrc(root: Path, *, of: str) -> None:
    for split, label, index in _each(few_classes(of), ("train", "val")):
        _write_image(root / split / label / f"{label}_{split}_{index}.JPEG", label, index)


def _imagenet32(root: Path) -> None:
    names = few_classes("imagenet_12")
    place = {name: label for label, name in enumerate(imagenet32_classes(), start=1)}
    for file, split in (("train_data_batch_1", "train"), ("val_data", "val")):
        data, codes = _flat(names, split)
        _pickled(root / file, {"data": data, "labels": [place[names[code]] for code in codes]})


def _tiered(root: Path) -> None:
    content = grouping("tieredimagenet")
    for part, coarse in content["parts"].items():
        under = [[f for f, above in content["classes"].items() if above[0] == name][:3] for name in coarse]
        for label, index in itertools.product(itertools.chain(*under[:SUPERCLASSES]), range(SAMPLES)):
            _write_image(root / "tiered-imagenet" / part / label / f"{label}_{index}.jpg", label, index)


def _sop(root: Path, *, of: str) -> None:
    """Whole products, some in the training split and some in the test split."""
    content = grouping(of)
    tested = set(content.get("test_products", ()))
    folder = root / "Stanford_Online_Products"
    for trains in (True, False) if tested else (True,):
        members: dict[str, list[str]] = {}
        for product, above in content["classes"].items():
            if (product not in tested) == trains:
                members.setdefault(above[0], []).append(product)
        for kind, product in ((k, p) for k in sorted(members)[:SUPERCLASSES] for p in members[k][:3]):
            for index in range(12):
                _write_image(folder / f"{kind}_final" / f"{product}_{index}.JPG", product, index)


def _cars(root: Path) -> None:
    from scipy.io import savemat

    names = list(grouping("cars196_8")["classes"])
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True, exist_ok=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)[None]})
    lists = {"train": folder / "devkit" / "cars_train_annos.mat", "test": folder / "cars_test_annos_withlabels.mat"}
    chosen = few_classes("cars196_8")
    for split, file in lists.items():
        rows = []
        for number, (label, index) in enumerate(itertools.product(chosen, range(SAMPLES))):
            rows.append((names.index(label) + 1, f"{number:05d}.jpg"))
            _write_image(folder / f"cars_{split}" / f"{number:05d}.jpg", label, index + SAMPLES * (split == "test"))
        savemat(file, {"annotations": np.array([rows], dtype=[("class", "O"), ("fname", "O")])})


def _deepfashion(root: Path) -> None:
    names = list(grouping("deepfashion_50")["classes"])
    rows = [
        (f"img/{label.replace(' ', '_')}/{split}_{index}.jpg", label, split)
        for split, label, index in _each(few_classes("deepfashion_50"), ("train", "test"))
    ]
    folder = root / "deepfashion"
    for number, (image, label, _) in enumerate(rows):
        _write_image(folder / "Img" / image, label, number)
    for file, columns, lines in (
        ("Anno_coarse/list_category_cloth.txt", "category_name category_type", [f"{name} 1" for name in names]),
        (
            "Anno_coarse/list_category_img.txt",
            "image_name category_label",
            [f"{image} {names.index(label) + 1}" for image, label, _ in rows],
        ),
        (
            "Eval/list_eval_partition.txt",
            "image_name evaluation_status",
            [f"{image} {part}" for image, _, part in rows],
        ),
    ):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("\n".join([str(len(lines)), columns, *lines]) + "\n", encoding="utf-8")


def _hotels(root: Path) -> None:
    folder = root / "Review_Texts"
    folder.mkdir(parents=True, exist_ok=True)
    aspects = ("Overall", "Value", "Rooms", "Location", "Cleanliness", "Service")
    for hotel, reviews in enumerate(_reviews(len(aspects))):
        blocks = [
            "\n".join(["<Author>a", f"<Content>{text}", *(f"<{a}>{s}" for a, s in zip(aspects, stars, strict=True))])
            for text, stars in reviews
        ]
        (folder / f"hotel_{hotel}.dat").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _beers(root: Path) -> None:
    aspects = ("overall", "appearance", "aroma", "palate", "taste")
    blocks = [
        "\n".join(
            [
                f"beer/name: {beer}",
                f"beer/beerId: {beer}",
                *(f"review/{aspect}: {value}" for aspect, value in zip(aspects, stars, strict=True)),
                f"review/text: {text}",
            ]
        )
        for beer, reviews in enumerate(_reviews(len(aspects)))
        for text, stars in reviews
    ]
    (root / "beeradvocate.txt").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _reviews(aspects: int) -> Iterator[list[tuple[str, list[int]]]]:
    """Reviews of some subjects, with a word and stars for every aspect."""
    for subject in range(4 * FINE):
        draw = np.random.default_rng(subject)
        found = []
        for _ in range(3):
            kinds = draw.integers(0, len(_STARS), aspects)
            words = " ".join(f"{('bad', 'fair', 'good')[kind]}{aspect}" for aspect, kind in enumerate(kinds))
            found.append((words, [_STARS[kind] for kind in kinds]))
        yield found


def _each(labels: Sequence[str], splits: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Split, class, and an image number that is unique within the class."""
    for part, split in enumerate(splits):
        for label, index in itertools.product(labels, range(SAMPLES)):
            yield split, label, index + part * SAMPLES


_BREEDS = ("living17", "nonliving26", "entity13", "entity30")
_WRITERS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("cifar10", "cifartoy-good", "cifartoy-bad", "cifartoy-bad-code"), _cifar10),
    **dict.fromkeys(("cifar100", "cifar100-20"), partial(_cifar100, of="cifar100")),
    **{f"cifar100-{count}": partial(_cifar100, of=f"cifar100_{count}") for count in (3, 4, 7)},
    "imagenet": partial(_ilsvrc, of="imagenet_12"),
    **{name: partial(_ilsvrc, of=f"breeds_{name}") for name in _BREEDS},
    "imagenet-32": _imagenet32,
    "tieredimagenet": _tiered,
    "sop-split1": partial(_sop, of="sop_split1"),
    "sop-split2": partial(_sop, of="sop_split2"),
    "cars196": _cars,
    "deepfashion": _deepfashion,
    "tripadvisor-lara": _hotels,
    "beeradvocate": _beers,
}
