"""The data section of a recipe: where the samples come from, how they are read, and what is held out.

A recipe records ``source`` (a catalog name or an absolute path; None for data in memory), ``reader`` (the reader's
options), ``levels`` (those in use, coarse to fine), ``holdout``, and the fields of
:class:`~regrain.data.corruption.Corruption`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from regrain.checks import check_values, hyperparameters
from regrain.data.corruption import Corruption
from regrain.data.dataset import Dataset
from regrain.data.formats import (
    TABLE_SUFFIXES,
    columns_table,
    file_table,
    frame_table,
    huggingface_table,
    is_frame,
    parquet_table,
)
from regrain.data.options import ColumnOptions, SampleOptions
from regrain.data.readers import is_huggingface, options_of, parquet_files, read
from regrain.data.rows import examples
from regrain.data.table import Table
from regrain.data.walk import opens_as_image
from regrain.errors import UserError, nearest
from regrain.model import Model
from regrain.registry import catalogue_of
from regrain.runs.recipe import plain_value

SAMPLE_OPTIONS = tuple(SampleOptions.__annotations__)
"""Options of readers that say where a sample is: new data have all of its columns, or their samples are looked for."""

_COLUMN_OPTIONS = tuple(ColumnOptions.__annotations__)
"""Options that name one more column, which new data may lack."""

_OF_ONE_SOURCE = ("labels", "ids", "groups", "splits", "name")
"""Options that belong to the samples given with them, and hold for no others; nor do static features of an array."""

_HOLDOUT = 0.2
_UNCORRUPTED = asdict(Corruption())
CORRUPTIONS = tuple(_UNCORRUPTED)
"""Names of what corrupts a training split."""
_KEYS = ("source", "reader", "levels", "holdout", *_UNCORRUPTED, "roles", "fingerprint", "labels_fingerprint")


def data_section(
    data: Any,
    *,
    levels: Sequence[str] | None,
    holdout: float | None,
    corruption: Mapping[str, Any],
    reader: Mapping[str, Any],
    roles: Mapping[str, str],
    recorded: Mapping[str, Any],
) -> dict[str, Any]:
    """What a recipe says of its data: arguments win over what an earlier recipe ``recorded``.

    ``levels`` is None where nobody said any; fields of ``corruption`` that are missing or None were not given.
    ``roles`` are those that levels were chosen for; the recorded ones hold for the recorded levels.
    """
    for key in recorded:
        if key not in _KEYS:
            raise UserError(f"data has no setting '{key}': {nearest(key, _KEYS)}", code="unknown_option")
    section: dict[str, Any] = {"source": None, "reader": {}}
    if isinstance(data, str | Path):
        section["source"] = str(data) if catalogue_of(str(data)) else str(Path(data).resolve())
        options = {**_mapping(recorded.get("reader")), **reader}
        section["reader"] = {name: _plain(name, value) for name, value in options.items()}
    else:  # what was said of data in memory holds for new data
        known = options_of(data, reader)
        kept = {name: value for name, value in _mapping(recorded.get("reader")).items() if name in known} | dict(reader)
        unlike = (*_OF_ONE_SOURCE, *(("static",) if "ids" in known else ()))
        section["reader"] = {name: _plain(name, value) for name, value in kept.items() if name not in unlike}
    given = {"levels": levels, "holdout": holdout, **corruption}
    defaults = {"levels": None, "holdout": _HOLDOUT, **_UNCORRUPTED}
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
    kept = dict(recorded.get("roles") or {}) if given["levels"] is None else {}
    return section | chosen | {"roles": {**kept, **roles}}


def read_data(data: Any, levels: Sequence[str] | None, reader: Mapping[str, Any]) -> Dataset:
    """Data as they are, or read. Readers of tables and folders are told the levels; a catalog entry knows its own.

    Without any level (``[]``) there are no labels; None lets the reader find them. A reader that has ``levels`` of
    its own, the column of a path, gives those in use other names.
    """
    return read(data, **(told_levels(data, levels) | dict(reader)))


def read_alike(
    data: Any,
    model: Model,
    recorded: Mapping[str, Any],
    levels_in_use: Sequence[str],
    *,
    levels: Sequence[str] | None = None,
    wanted: Literal["any", "some", "own", "none"] = "any",
    options: Mapping[str, Any],
) -> Dataset:
    """Read other data as a model's own were read; ``options`` win over what was ``recorded`` then.

    Parameters
    ----------
    data
        Whatever :func:`regrain.data.readers.read` takes.
    model : Model
        Images are stored as its own are, alone or in company.
    recorded : mapping
        Options of the reader of the model's own data.
    levels_in_use : sequence of str
        Levels that it was trained on.
    levels : sequence of str, optional
        Label columns; default those of ``levels_in_use`` that a table has.
    wanted : {"any", "some", "own", "none"}
        Which labels. A table that has none of them is read without labels, unless there must be ``some``: the reader
        then finds others. Of folders the reader finds the levels, unless they must be the model's ``own``. With
        ``none`` a table's labels are not read.
    options : mapping
        Of the reader.
    """
    if isinstance(data, Dataset):
        return read_data(data, None, options)
    if isinstance(data, str | Path) and model.config["inputs"]["modality"] == "image" and opens_as_image(str(data)):
        data = [str(data)]
    table = table_of(data)
    source = data if table is None or (isinstance(data, str | Path) and Path(data).is_dir()) else table
    inherited = inherited_options(data, table, model, recorded, options)
    if table is not None and not any(name in inherited for name in SAMPLE_OPTIONS):
        _require_columns(table, model)
    if inherited.get("label_paths") and "label_paths" not in options:
        if levels is not None and table is not None and not all(level in table.columns for level in levels):
            levels = None  # they are levels of the path
        elif levels is not None or wanted == "none":
            inherited = {name: value for name, value in inherited.items() if name not in ("label_paths", "levels")}
    if wanted == "none":
        return read_data(source, None if table is None else [], inherited)
    options, levels = with_path_column(inherited, levels)
    if levels is None and not options.get("label_paths"):
        if table is not None:
            found = [level for level in levels_in_use if level in table.columns]
            levels = None if wanted == "some" and not found else found
        elif wanted == "own":
            levels = levels_in_use
    return read_data(source, levels, options)


def inherited_options(
    data: Any, table: Table | None, model: Model, recorded: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options given, and all of the reader of a model's own data that the reader of others knows.

    Options that name columns hold where a table has these. Images are stored as the model's own.

    Parameters
    ----------
    data
    table : Table, optional
        The one that they are, by :func:`table_of`.
    model, recorded, options
        As :func:`read_alike` takes them.

    Raises
    ------
    UserError
        For options that would store images otherwise.
    """
    if isinstance(data, Dataset):
        return dict(options)
    stored = _stored_so(model, options)
    return {**_recorded_for(data, table, model, recorded), **stored, **options}


def _stored_so(model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
    form = model.storage
    if form is None:
        return {}
    channels, height, width = form.shape
    for name, own in (("image_size", (height, width)), ("channels", channels), ("white", form.white)):
        given = options.get(name)
        if given is not None and own not in (given, (given, given)):
            raise UserError(
                f"the model stores images at {width} x {height} pixels with {channels} channels, 16 bits with "
                f"{form.white} as white, and new ones alike: leave out {name} (--{name.replace('_', '-')})"
            )
    return {"image_size": (height, width), "channels": channels, "white": form.white}


def _recorded_for(data: Any, table: Table | None, model: Model, recorded: Mapping[str, Any]) -> dict[str, Any]:
    inputs = model.config["inputs"]
    known = options_of(data, {})
    found = {name: v for name, v in recorded.items() if name in known and v is not None and name not in _OF_ONE_SOURCE}
    if table is None:
        if "modality" in known:  # an array or a list
            found["modality"] = inputs["modality"]
        return found
    where = {name: found.pop(name) for name in SAMPLE_OPTIONS if name in found}
    own = {"columns": "columns", "static": "static_columns", "notations": "notations"}
    where |= {option: inputs[key] for option, key in own.items() if inputs.get(key)}  # by name, whatever their order
    named = [where[name] for name in ("text", "image", "record", "time") if name in where]
    named += [*(where.get("columns") or ()), *(where.get("static") or ())]
    if named and all(table.covers(name) for name in named):
        found |= where
    lacking = [name for name in _COLUMN_OPTIONS if name in found and found[name] not in table.columns]
    if found.get("label_paths") and not all(level in table.columns for level in found.get("levels", ())):
        lacking += ["label_paths", "levels"]
    return {name: value for name, value in found.items() if name not in lacking}


def _require_columns(table: Table, model: Model) -> None:
    """A UserError for a table without one of the columns whose numbers a model was trained on."""
    inputs = model.config["inputs"]
    names = [*(inputs.get("columns") or ()), *(inputs.get("static_columns") or ())]
    lacking = [repr(name) for name in names if not table.covers(name)]
    if lacking:
        one = len(lacking) == 1
        raise UserError(
            f"{table.where}: column{'' if one else 's'} {examples(lacking)} {'is' if one else 'are'} missing: the "
            f"model was trained on {'it' if one else 'them'} (--columns names others)"
        )


def require_no_reading(options: Mapping[str, Any]) -> None:
    """A UserError for options of a reader where no data are given that they could be about."""
    given = next((name for name, value in options.items() if value is not None), None)
    if given is not None:
        raise UserError(
            f"there is no option '{given}' without other data (--data): the run reads its own by its recipe",
            code="unknown_option",
        )


def with_path_column(
    options: Mapping[str, Any], levels: Sequence[str] | None
) -> tuple[Mapping[str, Any], Sequence[str] | None]:
    """Options of a reader, and the levels in use: with ``label_paths`` a level is a column that becomes several."""
    if options.get("label_paths") and levels is not None:
        return {**options, "levels": list(levels)}, None
    return options, levels


def told_levels(data: Any, levels: Sequence[str] | None) -> dict[str, list[str]]:
    """The option by which the reader of ``data`` is told its levels; none for what knows its own."""
    if levels is None or isinstance(data, Dataset) or (isinstance(data, str) and catalogue_of(data)):
        return {}
    return {"levels": list(levels)}


def table_of(source: Any) -> Table | None:
    """The table in a file, a folder of Parquet files, a DataFrame or a Hugging Face data set; None otherwise."""
    if isinstance(source, str | Path):
        path = Path(os.path.expanduser(source))
        if path.is_dir():
            files = parquet_files(path)
            return parquet_table(list(files), list(files.values())) if files else None
        return file_table(path) if path.suffix.lower() in TABLE_SUFFIXES and path.is_file() else None
    if is_huggingface(source):
        return huggingface_table(source)
    if isinstance(source, Table):
        return source
    if isinstance(source, Mapping):
        return columns_table(source)
    return frame_table(source) if is_frame(source) else None


def split_dataset(dataset: Dataset, section: Mapping[str, Any]) -> dict[str, Dataset]:
    """The parts that the section says: the data's own splits, else ``train`` and a held-out ``test``.

    Held out are whole groups where there are groups, otherwise samples in the shares of the coarsest level's classes.
    The training split is corrupted as the section says.

    Raises
    ------
    UserError
        If the data have splits and none is called ``train``, or they do not allow what the section asks.
    """
    levels = section["levels"] or dataset.labels.levels
    given = {name: section[name] for name in CORRUPTIONS if name in section}
    corruption = Corruption(**check_values(given, hyperparameters(Corruption), "data"))
    parts = _split(dataset, section["holdout"])
    return parts | {"train": corruption.apply(parts["train"], levels)}


def _split(dataset: Dataset, holdout: float) -> dict[str, Dataset]:
    if dataset.splits is not None:
        if "train" not in dataset.split_names:
            raise UserError(
                f"{dataset.name} has the splits {', '.join(dataset.split_names)}, and none called 'train'",
                code="unknown_split",
            )
        return dataset.by_split()
    if holdout == 0:
        return {"train": dataset}
    stratify = dataset.labels.levels[0] if dataset.labels.levels and dataset.groups is None else None
    train, test = dataset.hold_out(holdout, stratify=stratify)
    return {"train": train, "test": test}


def _mapping(value: Any) -> Mapping[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UserError(f"data.reader holds the reader's options, such as text: question; got {value!r}")
    return value or {}


def _plain(name: str, value: Any) -> Any:
    """An option as a recipe keeps it; the root is absolute."""
    return str(Path(value).resolve()) if name == "root" else plain_value(value)
