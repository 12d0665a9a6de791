"""The data section of a recipe: where the samples come from, how they are read, and what is held out.

A recipe records ``source`` (a catalog name or an absolute path; None for data in memory), ``reader`` (the reader's
options), ``levels`` (those in use, coarse to fine), ``holdout``, and the fields of
:class:`~regrain.data.impairment.Impairment`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regrain.data.dataset import Dataset
from regrain.data.formats import TABLE_SUFFIXES, file_table, frame_table
from regrain.data.impairment import Impairment
from regrain.data.readers import read
from regrain.data.table import Table
from regrain.errors import UserError, nearest
from regrain.registry import catalogue_of
from regrain.settings import check_values, hyperparameters

__all__ = ["IMPAIRMENTS", "SAMPLE_OPTIONS", "data_section", "own_parts", "read_data", "table_of", "told_levels"]

SAMPLE_OPTIONS = ("text", "image", "columns", "series_shape", "record", "time", "window", "stride", "static")
"""Options of readers that say where a sample is."""

_HOLDOUT = 0.2
_UNIMPAIRED = asdict(Impairment())
IMPAIRMENTS = tuple(_UNIMPAIRED)
"""Names of what impairs a training split."""
_KEYS = ("source", "reader", "levels", "holdout", *_UNIMPAIRED, "roles", "fingerprint", "labels_fingerprint")


def data_section(
    data: Any,
    *,
    levels: Sequence[str] | None,
    holdout: float | None,
    impairment: Mapping[str, Any],
    reader: Mapping[str, Any],
    recorded: Mapping[str, Any],
) -> dict[str, Any]:
    """What a recipe says of its data: arguments win over what an earlier recipe ``recorded``.

    ``levels`` is None where nobody said any; fields of ``impairment`` that are missing or None were not given.
    """
    for key in recorded:
        if key not in _KEYS:
            raise UserError(f"data has no setting '{key}': {nearest(key, _KEYS)}")
    section: dict[str, Any] = {"source": None, "reader": {}}
    if isinstance(data, str | Path):
        section["source"] = str(data) if catalogue_of(str(data)) else str(Path(data).resolve())
        options = {**_mapping(recorded.get("reader")), **reader}
        section["reader"] = {name: _plain(name, value) for name, value in options.items()}
    given = {"levels": levels, "holdout": holdout, **impairment}
    defaults = {"levels": None, "holdout": _HOLDOUT, **_UNIMPAIRED}
    chosen = {
        name: recorded.get(name, default) if given.get(name) is None else _plain(name, given[name])
        for name, default in defaults.items()
    }
    if chosen["holdout"] is None:
        chosen["holdout"] = _HOLDOUT
    if isinstance(chosen["holdout"], bool) or not isinstance(chosen["holdout"], int | float):
        raise UserError(f"data.holdout is a share such as 0.2; got {chosen['holdout']!r}")
    levels = chosen["levels"]
    if isinstance(levels, str) or not (levels is None or isinstance(levels, Sequence)):
        raise UserError(f"data.levels is a list of levels, such as ['kind', 'species']; got {levels!r}")
    return section | chosen


def read_data(data: Any, levels: Sequence[str] | None, reader: Mapping[str, Any]) -> Dataset:
    """Data as they are, or read. Readers of tables and folders are told the levels; a catalog entry knows its own.

    Without any level (``[]``) there are no labels; None lets the reader find them. A reader that has ``levels`` of
    its own, the column of a path, gives those in use other names.
    """
    return data if isinstance(data, Dataset) else read(data, **(told_levels(data, levels) | dict(reader)))


def told_levels(data: Any, levels: Sequence[str] | None) -> dict[str, list[str]]:
    """The option by which the reader of ``data`` is told its levels; none for what knows its own."""
    if levels is None or isinstance(data, Dataset) or (isinstance(data, str) and catalogue_of(data)):
        return {}
    return {"levels": list(levels)}


def table_of(source: Any) -> Table | None:
    """The table in a file or a DataFrame; None where the source is anything else."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        return file_table(path) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() else None
    is_frame = type(source).__name__ == "DataFrame" and hasattr(source, "columns")
    return frame_table(source) if is_frame else None


def own_parts(dataset: Dataset, section: Mapping[str, Any]) -> dict[str, Dataset]:
    """The parts that the section says: the data's own splits, else ``train`` and a held-out ``test``.

    Held out are whole groups where there are groups, otherwise samples in the shares of the coarsest level's classes.
    The training split is impaired as the section says.

    Raises
    ------
    UserError
        If the data have splits and none is called ``train``, or they do not allow what the section asks.
    """
    levels = section["levels"] or dataset.labels.levels
    given = {name: section[name] for name in IMPAIRMENTS if name in section}
    impairment = Impairment(**check_values(given, hyperparameters(Impairment), "data"))
    parts = _split(dataset, section["holdout"])
    return parts | {"train": impairment.apply(parts["train"], levels)}


def _split(dataset: Dataset, holdout: float) -> dict[str, Dataset]:
    if dataset.splits is not None:
        if "train" not in dataset.parts:
            raise UserError(f"{dataset.name} has the splits {', '.join(dataset.parts)}, and none called 'train'")
        return {name: dataset.part(name) for name in dataset.parts}
    if holdout == 0:
        return {"train": dataset}
    stratify = dataset.labels.levels[0] if dataset.labels.levels and dataset.groups is None else None
    train, test = dataset.split(holdout, stratify=stratify)
    return {"train": train, "test": test}


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"data.reader holds the reader's options, such as text: question; got {value!r}")
    return value or {}


def _plain(name: str, value: Any) -> Any:
    """An option as a recipe keeps it: the root absolute, sequences as lists, NumPy's and pandas' values as Python's."""
    if name == "root":
        return str(Path(value).resolve())
    if hasattr(value, "tolist"):  # arrays, scalars, an Index
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain("", inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain("", inner) for inner in value]
    return str(value) if isinstance(value, Path | str) else value
