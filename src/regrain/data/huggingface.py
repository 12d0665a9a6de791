"""Data sets of Hugging Face's ``datasets``, by their methods alone: the package itself is not needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regrain.coded import Coded
from regrain.data.cells import Column, split_name
from regrain.data.columns import class_names_of, require_rows, stacked
from regrain.data.table import Table
from regrain.errors import Notable, UserError
from regrain.labels import missing


def is_huggingface(source: Any) -> bool:
    """Whether a source is a data set of Hugging Face's ``datasets``, or several by split."""
    first = next(iter(source.values()), None) if isinstance(source, Mapping) else source
    return hasattr(first, "features") and hasattr(first, "column_names")


def huggingface_table(dataset: Any) -> Table:
    """A Hugging Face ``Dataset`` or ``DatasetDict``, used by its methods alone, so that the package is not needed.

    Images are taken as they are stored, without decoding, where the data set allows it; decoded ones are encoded again
    (PNG, no loss). Rows of one matrix each (Array2D) are series. Where ``train`` is the only split of a DatasetDict, it
    is all of the data: a part of it is held out, as of a table.

    Raises a UserError for a data set that is streamed, whose samples come once.
    """
    whole = not isinstance(dataset, Mapping)
    parts: dict[str, Any] = {"": dataset} if whole else dict(dataset)
    if not parts:
        raise UserError("the Hugging Face DatasetDict has no splits")
    if not all(hasattr(part, "__len__") and part.features is not None for part in parts.values()):
        raise UserError(
            "the Hugging Face data set is streamed (IterableDataset), and training visits its samples again and again: "
            "load it without streaming=True, or give datasets.Dataset.from_list(list(dataset.take(N)))"
        )
    parts = {name: part.with_format(None) if hasattr(part, "with_format") else part for name, part in parts.items()}
    messages = []
    if not whole and [split_name(name) for name in parts] == ["train"]:
        whole, parts = True, {"": next(iter(parts.values()))}
        messages.append(Notable("the only split is 'train': a part of it is held out (holdout says how much)"))
    names = list(dict.fromkeys(name for part in parts.values() for name in part.column_names))
    declared: dict[str, None] = {}
    blocks: dict[str, list[Column]] = {name: [] for name in names}
    for part in parts.values():
        for name in names:
            classes = getattr(part.features.get(name), "names", None)
            if classes is not None:
                declared[name] = None
            blocks[name].append(_huggingface_column(part, name, classes))
    columns = {name: stacked(of_splits) for name, of_splits in blocks.items()}
    shapes: dict[str, tuple[int, int]] = {}
    for name, column in columns.items():
        matrices = _matrices(column)
        if matrices is not None:
            count, time, channels = matrices.shape
            columns[name], shapes[name] = list(matrices.reshape(count, -1)), (time, channels)
            messages.append(Notable(f"column '{name}' holds {time} x {channels} numbers a row: series"))
    splits = Coded(np.repeat(np.arange(len(parts)), list(map(len, parts.values()))), list(parts))
    where = "the Hugging Face data set"
    require_rows(where, splits, [])
    starts = np.cumsum([0, *map(len, parts.values())])

    def describe_row(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        return f"{list(parts)[part]} row {row - int(starts[part])} (from 0)".lstrip()

    return Table(
        where,
        "data",
        columns,
        describe_row,
        Path(),
        splits=None if whole else Coded.of(splits),
        classes=tuple(declared),
        messages=tuple(messages),
        shapes=shapes,
    )


def _matrices(column: Column) -> np.ndarray | None:
    """Rows of one matrix each as float32 (N, T, C); None for anything else."""
    first = next((cell for cell in column if not missing(cell)), None)
    if not isinstance(first, list | tuple | np.ndarray) or np.ndim(np.asarray(first, dtype=object)) != 2:
        return None
    try:
        found = np.asarray(column, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return found if found.ndim == 3 else None


def _huggingface_column(part: Any, name: str, classes: Sequence[str] | None) -> Column:
    if name not in part.column_names:
        return [None] * len(part)
    feature = part.features.get(name)
    if type(feature).__name__ == "Image":
        if hasattr(part, "cast_column") and getattr(feature, "decode", False):
            part = part.cast_column(name, type(feature)(decode=False))
        return [_encoded(part[row][name]) for row in range(len(part))]
    cells = list(part[name])
    return cells if classes is None else class_names_of(cells, classes, f"the Hugging Face data set, column '{name}'")


def _encoded(image: Any) -> Any:
    """An image as bytes or path; a PIL image becomes a PNG."""
    if isinstance(image, Mapping):
        return image.get("bytes") or image.get("path")
    if not hasattr(image, "save"):
        return image
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
