"""Data sets by name: where they come from, what they hold, and how to read them in the layouts people have.

Nothing is downloaded unless it is asked for. The groupings of classes into coarser ones are facts of the papers, kept in
``groupings/*.json`` with their sources.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from regrain.data.cache import cache_folder
from regrain.data.catalog import originals
from regrain.data.dataset import Dataset, Modality
from regrain.data.readers import rows_from_parquet_folder
from regrain.data.rows import Rows, StorageOptions, examples
from regrain.errors import UserError, nearest
from regrain.labels import Labels

__all__ = ["CatalogOptions", "Entry", "entries", "load", "rows"]


class CatalogOptions(StorageOptions, total=False):
    """Options for the catalogue's data sets.

    root : path, optional
        The folder that holds the data set, or is it; default: the environment variable REGRAIN_DATA.
    download : bool, default False
        Fetch it when it is not there (CIFAR only).
    splits : sequence of str, optional
        Which splits; default all but extra ones.
    """

    root: str | Path | None
    download: bool
    splits: Sequence[str] | None


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue.

    Parameters
    ----------
    name, description : str
    modality : Modality
    levels : mapping of level to number of classes, coarse to fine
    samples : mapping of split to number of samples
    source, licence : str
    layouts : tuple of str
        What is looked for under the root.
    views : tuple of str
        Names of presets for the two views to train on; empty: the modality's own.
    notes : tuple of str
        What one should know before quoting numbers.
    """

    name: str
    description: str
    modality: Modality
    levels: Mapping[str, int]
    samples: Mapping[str, int]
    source: str
    licence: str
    layouts: tuple[str, ...]
    views: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    _original: Callable[[Path], Rows | None] = field(default=lambda root: None, repr=False)
    _grouping: str | None = field(default=None, repr=False)
    _folder: str | None = field(default=None, repr=False)
    _torchvision: str | None = field(default=None, repr=False)


_CIFAR10_LAYOUTS = ("cifar10/train.parquet, cifar10/test.parquet", "cifar-10-batches-py/data_batch_1 ... (torchvision)")
_CIFAR100_LAYOUTS = (
    "cifar100/train.parquet, cifar100/test.parquet",
    "cifar-100-python/train, test, meta (torchvision)",
)
_CIFAR10_NOTE = (
    "the Parquet copy holds JPEG files, a lossy copy: its numbers are not exactly comparable with published ones"
)
_CIFAR_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_PHOTO_VIEWS = ("strong", "weak")
_GLYPH_VIEWS = ("glyph-strong", "glyph-weak")


def _cifar100(name: str, description: str) -> Entry:
    return Entry(
        name=name,
        description=description,
        modality="image",
        levels={"superclass": 20, "label": 100},
        samples={"train": 50_000, "test": 10_000},
        source=_CIFAR_SOURCE,
        licence="none stated",
        layouts=_CIFAR100_LAYOUTS,
        views=_PHOTO_VIEWS,
        notes=("26 groups of byte-identical images, 10 of them across train and test",),
        _original=originals.cifar100,
        _grouping="cifar100",
        _folder="cifar100",
        _torchvision="CIFAR100",
    )


def _cifartoy(name: str, description: str, grouping: str) -> Entry:
    return Entry(
        name=name,
        description=description,
        modality="image",
        levels={"coarse": 2, "label": 8},
        samples={"train": 40_000, "test": 8_000},
        source=_CIFAR_SOURCE,
        licence="none stated",
        layouts=_CIFAR10_LAYOUTS,
        views=_PHOTO_VIEWS,
        notes=("CIFAR-10 without deer and frog", _CIFAR10_NOTE),
        _original=originals.cifar10,
        _grouping=grouping,
        _folder="cifar10",
        _torchvision="CIFAR10",
    )


@cache
def _entries() -> dict[str, Entry]:
    entries = [
        Entry(
            name="digits",
            description="handwritten digits of 8 x 8 pixels, grouped by the shape of their strokes",
            modality="image",
            levels={"group": 3, "digit": 10},
            samples={"train": 1352, "test": 445},
            source="https://archive.ics.uci.edu/dataset/80, as it comes with scikit-learn",
            licence="CC BY 4.0",
            layouts=("comes with scikit-learn",),
            views=_GLYPH_VIEWS,
            notes=("the groups and the split (every fourth sample of a digit is tested) are our own",),
            _original=originals.digits,
            _grouping="digits",
        ),
        Entry(
            name="cifar10",
            description="photographs of 32 x 32 pixels in ten classes",
            modality="image",
            levels={"label": 10},
            samples={"train": 50_000, "test": 10_000},
            source=_CIFAR_SOURCE,
            licence="none stated",
            layouts=_CIFAR10_LAYOUTS,
            views=_PHOTO_VIEWS,
            notes=(_CIFAR10_NOTE,),
            _original=originals.cifar10,
            _folder="cifar10",
            _torchvision="CIFAR10",
        ),
        _cifar100("cifar100", "photographs of 32 x 32 pixels in 100 classes under 20 superclasses"),
        _cifar100("cifar100-20", "CIFAR-100 under MaskCon's name: train on 20 superclasses, tell 100 classes apart"),
        _cifartoy("cifartoy-good", "CIFARtoy, good split: vehicles against animals", "cifartoy_good"),
        _cifartoy("cifartoy-bad", "CIFARtoy, bad split as in MaskCon's paper", "cifartoy_bad"),
        _cifartoy("cifartoy-bad-code", "CIFARtoy, bad split as in MaskCon's code", "cifartoy_bad_code"),
        Entry(
            name="omniglot",
            description="handwritten characters of five alphabets by twenty drawers each, 105 x 105 pixels",
            modality="image",
            levels={"alphabet": 5, "character": 136},
            samples={"train": 1904, "test": 816},
            source="https://github.com/brendenlake/omniglot, python/images_background_small1.zip",
            licence="MIT",
            layouts=(
                "omniglot/train.parquet, omniglot/test.parquet",
                "images_background_small1/ALPHABET/characterNN/*.png",
                "images_background/ALPHABET/characterNN/*.png (30 alphabets, 964 characters)",
            ),
            views=_GLYPH_VIEWS,
            notes=("drawers 1 to 14 are for training, 15 to 20 for testing",),
            _original=originals.omniglot,
            _folder="omniglot",
        ),
        Entry(
            name="clinc150",
            description="short questions to an assistant, 150 intents under ten domains",
            modality="text",
            levels={"domain": 10, "intent": 150},
            samples={"train": 15_000, "val": 3_000, "test": 4_500},
            source="https://github.com/clinc/oos-eval",
            licence="CC BY 3.0",
            layouts=("clinc150/train.parquet, val.parquet, test.parquet, oos.parquet", "data_full.json"),
            notes=(
                "out-of-scope texts are a split of their own, oos, without labels, read when splits names it",
                "five texts occur in two splits, four of them with different intents",
            ),
            _original=originals.clinc150,
            _grouping="clinc150",
            _folder="clinc150",
        ),
        Entry(
            name="grocery",
            description="photographs of groceries in a shop, three levels, unbalanced",
            modality="image",
            levels={"category": 3, "coarse": 43, "fine": 81},
            samples={"train": 2640, "val": 296, "test": 2485},
            source="https://github.com/marcusklasson/GroceryStoreDataset",
            licence="MIT",
            layouts=(
                "grocery/train.parquet, val.parquet, test.parquet (64 x 64 pixels)",
                "GroceryStoreDataset/dataset/train/... (about 350 pixels)",
            ),
            views=_PHOTO_VIEWS,
            notes=("the Parquet copy is cropped to the centre and resized to 64 x 64",),
            _original=originals.grocery,
            _grouping="grocery",
            _folder="grocery",
        ),
    ]
    return {entry.name: entry for entry in entries}


def entries() -> dict[str, Entry]:
    """The catalogue, by name.

    Examples
    --------
    >>> entries()["cifar100"].levels
    {'superclass': 20, 'label': 100}
    """
    return dict(_entries())


def load(name: str, **options: Unpack[CatalogOptions]) -> Dataset:
    """A data set of the catalogue.

    Parameters
    ----------
    name : str
    root, download, splits
        See :class:`CatalogOptions`.
    image_size, channels, skip_unreadable, cache
        See :class:`~regrain.data.rows.StorageOptions`.

    Returns
    -------
    Dataset
        With every split; ``notes`` holds source, licence and the names of the default views.

    Raises
    ------
    UserError
        For a name that is not in the catalogue, and if the data are not found: the message says where was looked for what.

    Examples
    --------
    >>> load("digits", splits=["test"]).labels.names("group")
    ('loop', 'open', 'straight')
    """
    stored = StorageOptions.__annotations__.keys() & options.keys()
    found: dict[str, Any] = {key: value for key, value in options.items() if key not in stored}
    storage: dict[str, Any] = {key: value for key, value in options.items() if key in stored}
    return rows(name, **found).dataset(**storage)


def rows(
    name: str, *, root: str | Path | None = None, download: bool = False, splits: Sequence[str] | None = None
) -> Rows:
    """The rows of :func:`load`."""
    catalogue = _entries()
    if name not in catalogue:
        raise UserError(f"no data set '{name}' in the catalogue: {nearest(name, catalogue)}")
    entry = catalogue[name]
    folder = _root(root)
    found = _find(entry, folder, splits)
    if found is None and download:
        _download(entry, folder)
        found = _find(entry, folder, splits)
    if found is None:
        raise UserError(_not_found(entry, folder))
    notes = {
        **found.notes,
        "source": f"{entry.source} ({found.where})",
        "licence": entry.licence,
        "views": list(entry.views),
        "messages": [*found.notes["messages"], *entry.notes],
    }
    return _grouped(replace(_with_splits(found, entry, splits), name=name, notes=notes), entry)


def _root(root: str | Path | None) -> Path:
    given = root or os.environ.get("REGRAIN_DATA")
    return Path(given).expanduser() if given else cache_folder() / "data"


def _find(entry: Entry, root: Path, splits: Sequence[str] | None) -> Rows | None:
    for folder in (root / entry._folder, root) if entry._folder else ():
        if (folder / "train.parquet").is_file() or (folder / "test.parquet").is_file():
            levels = ["label"] if entry._folder == "cifar10" else list(entry.levels)
            sample: Any = {"text": "text"} if entry.modality == "text" else {"image": "image"}
            found = rows_from_parquet_folder(folder, splits=splits, levels=levels, **sample)
            found.notes["messages"].clear()  # nothing was guessed that this module does not know
            _require_classes(found, entry, folder)
            return found
    return entry._original(root)


def _require_classes(found: Rows, entry: Entry, folder: Path) -> None:
    """A folder that is the root itself may hold another data set."""
    assert not isinstance(found.labels, Labels)
    for level, names in found.labels.items():
        count = len({name for name in names if name is not None})
        expected = 10 if entry._folder == "cifar10" else entry.levels[level]
        if count > expected:
            raise UserError(f"{folder} is not {entry.name}: level '{level}' has {count} classes, not {expected}")


def _with_splits(found: Rows, entry: Entry, splits: Sequence[str] | None) -> Rows:
    assert found.splits is not None
    for split in splits or ():
        if split not in found.splits:
            raise UserError(f"{entry.name} has no split '{split}': {nearest(split, set(found.splits))}")
    wanted = set(splits or entry.samples)
    return found.select(np.flatnonzero([split in wanted for split in found.splits]))


def _grouped(found: Rows, entry: Entry) -> Rows:
    """Coarse labels from the fine ones where the layout does not hold them; classes that the grouping drops leave."""
    if entry._grouping is None:
        return found
    assert not isinstance(found.labels, Labels)
    finest = list(found.labels)[-1]
    file = resources.files(__package__) / "groupings" / f"{entry._grouping}.json"
    grouping = json.loads(file.read_text(encoding="utf-8"))
    dropped = set(grouping.get("dropped", ()))
    if dropped:
        found = found.select(np.flatnonzero([name not in dropped for name in found.labels[finest]]))
    missing = [level for level in grouping["levels"] if level not in found.labels]
    fine = [None if name is None else str(name) for name in found.labels[finest]]
    strangers = sorted({name for name in fine if name is not None and name not in grouping["classes"]})
    if missing and strangers:
        raise UserError(f"{found.where} is not {entry.name}: unknown classes {examples(strangers)}")
    labels: dict[str, list[Any]] = {}
    for position, level in enumerate(grouping["levels"]):
        above = {k: [v][0] if isinstance(v, str) else v[position] for k, v in grouping["classes"].items()}
        labels[level] = list(found.labels[level]) if level not in missing else [above.get(name) for name in fine]
    return replace(found, labels={**labels, **found.labels})


def _download(entry: Entry, root: Path) -> None:
    if entry._torchvision is None:
        raise UserError(f"{entry.name} is not downloaded automatically: get it from {entry.source} and give --root")
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(torchvision.datasets, entry._torchvision)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{entry.name} could not be downloaded to {root}: {error}") from error


def _not_found(entry: Entry, root: Path) -> str:
    looked = "\n".join(f"  {root}/{layout}" for layout in entry.layouts)
    present = sorted(item.name for item in root.iterdir()) if root.is_dir() else None
    there = f"{root} does not exist" if present is None else f"{root} holds {examples(present, 8) or 'nothing'}"
    fetch = ", or fetch it with --download (download=True)" if entry._torchvision else ""
    return (
        f"{entry.name} was not found. Looked for\n{looked}\nbut {there}. Give the folder that holds it with --root DIR "
        f"(root=...) or REGRAIN_DATA{fetch}. Source: {entry.source}"
    )
