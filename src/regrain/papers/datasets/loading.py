"""Find a data set of the catalogue on disk, and read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regrain.data.cache import cache_folder
from regrain.data.parquet import read_parquet_folder
from regrain.data.rows import Rows
from regrain.data.taxonomies import grouping
from regrain.errors import MissingDataError, UserError, examples, nearest
from regrain.papers.datasets.listing import Entry, entries


def rows(
    name: str,
    *,
    root: str | Path | None = None,
    download: bool = False,
    splits: Sequence[str] | None = None,
    levels: Sequence[str] | None = None,
) -> Rows:
    """The rows of a data set of the catalogue; the options are :class:`~regrain.data.options.CatalogOptions`.

    ``notes`` hold source, licence and the names of the default views.

    Raises
    ------
    UserError
        If the name is not in the catalogue, or the data are not found; the message lists the expected files and
        places.

    Examples
    --------
    >>> sorted(rows("digits", splits=["test"], levels=["group"]).label_columns)
    ['group']
    """
    catalogue = entries()
    if name not in catalogue:
        raise UserError(f"no data set '{name}' in the catalogue: {nearest(name, catalogue)}")
    entry = catalogue[name]
    for level in levels or ():
        if level not in entry.levels:
            raise UserError(f"{name} has no level '{level}': {nearest(level, entry.levels)}")
    folder = _root(root)
    found = _find(entry, folder, splits)
    if found is None and download:
        _download(entry, folder)
        found = _find(entry, folder, splits)
    if found is None:
        raise MissingDataError(_not_found(entry, folder))
    notes = {
        **found.notes,
        "source": f"{entry.source} ({found.where})",
        "licence": entry.licence,
        "views": list(entry.views),
        "messages": [*entry.notes, *found.notes.get("remarks", ())],
    }
    found = _grouped(replace(_with_splits(found, entry, splits), name=name, notes=notes), entry)
    kept = {level: names for level, names in found.label_columns.items() if levels is None or level in levels}
    return replace(found, labels=kept)


def _root(root: str | Path | None) -> Path:
    given = root or os.environ.get("REGRAIN_DATA")
    return Path(os.path.expanduser(given)) if given else cache_folder() / "data"


def _find(entry: Entry, root: Path, splits: Sequence[str] | None) -> Rows | None:
    for folder in (root / entry.folder, root) if entry.folder else ():
        if (folder / "train.parquet").is_file() or (folder / "test.parquet").is_file():
            counts = entry.stored or entry.levels
            roles: Any = entry.roles or {entry.modality: entry.modality}
            found = read_parquet_folder(folder, splits=splits, levels=list(counts), **roles)
            for level, names in found.label_columns.items():  # the root itself may be the folder of another data set
                count = len({name for name in names if name is not None})
                if count > counts[level]:
                    raise UserError(
                        f"{folder} is not {entry.name}: level '{level}' has {count} classes, not {counts[level]}"
                    )
            return found
    return entry.original(root)


def _with_splits(found: Rows, entry: Entry, splits: Sequence[str] | None) -> Rows:
    assert found.splits is not None
    for split in splits or ():
        if split not in found.splits:
            raise UserError(f"{entry.name} has no split '{split}': {nearest(split, set(found.splits))}")
    wanted = set(splits or entry.samples)
    return found.select(np.flatnonzero([split in wanted for split in found.splits]))


def _grouped(found: Rows, entry: Entry) -> Rows:
    """Add missing coarse labels from the finest ones; remove classes that the grouping drops."""
    labels = dict(found.label_columns)
    if entry.grouping is None or set(labels) == set(entry.levels):
        return found
    content = grouping(entry.grouping)
    finest = [None if name is None else str(name) for name in labels[list(labels)[-1]]]
    dropped = set(content.get("dropped", ()))
    above = content["classes"]
    unknown_classes = sorted({name for name in finest if name is not None} - dropped - above.keys())
    if unknown_classes:
        raise UserError(f"{found.where} is not {entry.name}: unknown classes {examples(unknown_classes)}")
    coarse = {
        level: [above[name][position] if name in above else None for name in finest]
        for position, level in enumerate(content["levels"])
    }
    kept = np.flatnonzero([name not in dropped for name in finest])
    return replace(found, labels=coarse | labels).select(kept)


def _download(entry: Entry, root: Path) -> None:
    if entry.torchvision is None:
        raise UserError(f"{entry.name} is not downloaded automatically: get it from {entry.source} and give --root")
    import torchvision

    try:
        root.mkdir(parents=True, exist_ok=True)
        getattr(torchvision.datasets, entry.torchvision)(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{entry.name} could not be downloaded to {root}: {error}") from error


def _not_found(entry: Entry, root: Path) -> str:
    looked = "; ".join(f"{root}/{layout}" for layout in entry.layouts)
    present = sorted(item.name for item in root.iterdir()) if root.is_dir() else None
    there = f"{root} does not exist" if present is None else f"{root} holds {examples(present, 8) or 'nothing'}"
    fetch = ", or fetch it with --download (download=True)" if entry.torchvision else ""
    return (
        f"{entry.name} was not found. Looked for {looked}; but {there}. Give the folder that holds it with --root DIR "
        f"(root=...) or REGRAIN_DATA{fetch}. Source: {entry.source}"
    )
