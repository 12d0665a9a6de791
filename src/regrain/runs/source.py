"""The data section of a recipe: where the samples come from, how they are read, and what is held out.

A recipe records ``source`` (a catalog name or an absolute path; None for data in memory), ``reader`` (the reader's
options), ``levels`` (those in use, coarse to fine), ``holdout``, and the fields of
:class:`~regrain.data.corruption.Corruption`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from regrain.data.corruption import Corruption
from regrain.data.dataset import Dataset
from regrain.data.folder import image_suffixes, opens_as_image
from regrain.data.options import ColumnOptions, SampleOptions
from regrain.data.readers import observed_columns, options_of, parsed, read, table_of
from regrain.data.table import Table
from regrain.errors import NoLabelsError, UserError, examples, nearest
from regrain.evaluation.representations import raw_representation
from regrain.labels import Labels
from regrain.model import Model
from regrain.registry import catalogue_of, is_url
from regrain.runs.assemble import frozen_encoder
from regrain.runs.recipe import plain_value

SAMPLE_OPTIONS = tuple(SampleOptions.__annotations__)
"""Options of readers that say where a sample is: new data have all of its columns, or their samples are looked for."""

_OF_ONE_SOURCE = ("labels", "ids", "groups", "splits", "name")
"""Options that belong to the samples given with them, and hold for no others; nor do static features of an array."""

_UNCORRUPTED = asdict(Corruption())
CORRUPTIONS = tuple(_UNCORRUPTED)
"""Names of what corrupts a training split."""

_DEFAULTS = {"levels": None, "holdout": 0.2, **_UNCORRUPTED}
_KEYS = ("source", "reader", *_DEFAULTS, "roles", "fingerprint", "labels_fingerprint")


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
    """Make the data section of a recipe: arguments win over values that an earlier recipe ``recorded``.

    ``levels`` is None where nobody said any; fields of ``corruption`` that are missing or None were not given.
    ``roles`` are those that levels were chosen for; the recorded ones hold for the recorded levels.
    """
    for key in recorded:
        if key not in _KEYS:
            raise UserError(f"data has no setting '{key}': {nearest(key, _KEYS)}", code="unknown_option")
    before = recorded.get("reader") or {}
    if not isinstance(before, Mapping):
        raise UserError(f"data.reader holds the reader's options, such as text: question; got {before!r}")
    if reader.get("label_paths") and levels is not None:  # the column of a path, which becomes several levels
        reader, levels = {**reader, "levels": list(levels)}, None
    section: dict[str, Any] = {"source": None}
    if isinstance(data, str | Path):
        section["source"] = str(data) if is_url(data) or catalogue_of(str(data)) else _absolute(data)
        options = {**before, **reader}
    else:  # what was said of data in memory holds for new data
        known = options_of(data, reader)
        unlike = (*_OF_ONE_SOURCE, *(("static",) if "ids" in known else ()))
        options = {name: value for name, value in before.items() if name in known} | dict(reader)
        options = {name: value for name, value in options.items() if name not in unlike}
    section["reader"] = {name: _plain(name, value) for name, value in options.items()}
    given = {"levels": levels, "holdout": holdout, **corruption}
    for name, default in _DEFAULTS.items():
        section[name] = recorded.get(name, default) if given.get(name) is None else _plain(name, given[name])
    if section["holdout"] is None:
        section["holdout"] = _DEFAULTS["holdout"]
    if isinstance(section["holdout"], bool) or not isinstance(section["holdout"], int | float):
        raise UserError(f"data.holdout is a share such as 0.2; got {section['holdout']!r}", code="wrong_shape")
    levels = section["levels"]
    if isinstance(levels, str) or not (levels is None or isinstance(levels, Sequence)):
        raise UserError(
            f"data.levels is a list of levels, such as ['kind', 'species']; got {levels!r}", code="wrong_shape"
        )
    kept = dict(recorded.get("roles") or {}) if given["levels"] is None else {}
    if "coarse" in roles:
        kept = {role: level for role, level in kept.items() if not role.startswith("coarse")}
    return section | {"roles": {**kept, **roles}}


def with_levels(data: Any, levels: Sequence[str] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the reader of ``data``, its levels among them.

    None lets the reader find them, ``[]`` means that there are no labels. Data that know their own levels get
    none; an option ``levels`` stays: it is the column of a path, whose levels have other names.
    """
    known = levels is None or isinstance(data, Dataset) or (isinstance(data, str) and catalogue_of(data))
    return dict(options) if known or levels is None else {"levels": list(levels), **options}


def read_data(
    data: Any, levels: Sequence[str] | None, reader: Mapping[str, Any], *, labels_optional: bool = False
) -> Dataset:
    """Return data as they are, or read them with these levels: see :func:`with_levels`.

    ``labels_optional``: data in which no labels are found are read without any, instead of a
    :class:`~regrain.errors.NoLabelsError`.
    """
    options = with_levels(data, levels, reader)
    if not labels_optional:
        return read(data, **options)
    source = parsed(data, reader)  # a table is parsed once
    try:
        return read(source, **options)
    except NoLabelsError:
        return read(source, **with_levels(data, [], reader))


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
        Label columns; default those of ``levels_in_use`` that a table or cells have.
    wanted : {"any", "some", "own", "none"}
        Which labels. A table that has none of them is read without labels, unless there must be ``some``: the reader
        then finds others. Of folders the reader finds the levels, unless they must be the model's ``own``. With
        ``none`` a table's labels are not read.
    options : mapping
        Of the reader.
    """
    if isinstance(data, Dataset):
        return read(data, **options)
    if isinstance(data, str | Path) and model.config["inputs"]["modality"] == "image":
        ends = str(data).lower().endswith(image_suffixes()) and Path(data).is_file()
        data = [str(data)] if ends or opens_as_image(str(data)) else data
    is_folder = isinstance(data, str | Path) and Path(data).is_dir()
    data = data if is_folder else parsed(data)
    table = table_of(data)
    source = data if table is None or is_folder else table
    inherited = inherited_options(data, table, model, recorded, options)
    if table is not None and not any(name in inherited for name in SAMPLE_OPTIONS):
        _require_columns(table, model)
    columns = observed_columns(source if table is None else table)
    has = [level for level in levels or levels_in_use if columns is not None and level in columns]
    if inherited.get("label_paths") and "label_paths" not in options:
        if wanted == "none" or (levels is not None and (table is None or len(has) == len(levels))):
            inherited = {name: value for name, value in inherited.items() if name not in ("label_paths", "levels")}
        else:
            levels = None  # they are levels of the path
    if wanted == "none":
        return read_data(source, None if columns is None else [], inherited)
    if inherited.get("label_paths"):
        return read(source, **(inherited if levels is None else {**inherited, "levels": list(levels)}))
    if levels is None and columns is not None:
        levels = None if wanted == "some" and not has else has
    elif levels is None and wanted == "own":
        levels = levels_in_use
    return read_data(source, levels, inherited)


def inherited_options(
    data: Any, table: Table | None, model: Model, recorded: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options given, and all of the reader of a model's own data that the reader of others knows.

    Options that name columns hold where a table has these. Images are stored as the model's own.

    Raises a UserError for options that would store images otherwise.

    ``table``: the one that they are, by :func:`table_of`. ``model``, ``recorded``, ``options``: as :func:`read_alike`
    takes them.
    """
    if isinstance(data, Dataset):
        return dict(options)
    return {**_recorded_for(data, table, model, recorded), **_storage_options(model, options), **options}


def _storage_options(model: Model, options: Mapping[str, Any]) -> dict[str, Any]:
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
            found = {name: v for name, v in found.items() if name != "static"} | {"modality": inputs["modality"]}
        columns = observed_columns(data)
        return {
            n: v for n, v in found.items() if columns is None or n not in ColumnOptions.__annotations__ or v in columns
        }
    where = {name: found.pop(name) for name in SAMPLE_OPTIONS if name in found}
    own = {"columns": "columns", "static": "static_columns", "notations": "notations"}
    where |= {option: inputs[key] for option, key in own.items() if inputs.get(key)}  # by name, whatever their order
    named = [where[name] for name in ("text", "image", "record", "time") if name in where]
    named += [*(where.get("columns") or ()), *(where.get("static") or ())]
    if named and all(table.covers(name) for name in named):
        found |= where
    lacking = [name for name in ColumnOptions.__annotations__ if name in found and found[name] not in table.columns]
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


def split_dataset(dataset: Dataset, recipe: Mapping[str, Any]) -> dict[str, Dataset]:
    """The splits that the recipe's data section says: the data's own splits, else ``train`` and a held-out ``test``.

    Held out are whole groups where there are groups, otherwise samples in the shares of the coarsest level's classes.
    The training split is corrupted as the section says; labels are hard or easy by the recipe's encoder where it is
    frozen, else by the raw input.

    Raises a UserError if the data have splits and none is called ``train``, or they do not allow what the section asks.
    """
    section = recipe["data"]
    given = {name: section[name] for name in CORRUPTIONS if name in section}
    corruption = Corruption(**given)
    if dataset.splits is not None:
        if "train" not in dataset.split_names:
            raise UserError(
                f"{dataset.name} has no split 'train', the one to train on: there are {', '.join(dataset.split_names)}"
                "; give one of them this name, in its column or as its folder's name",
                code="unknown_split",
            )
        splits = dataset.by_split()
    elif section["holdout"] == 0:
        splits = {"train": dataset}
    else:
        coarsest = next(iter(dataset.labels.levels), None)
        splits = dict(zip(("train", "test"), dataset.hold_out(section["holdout"], stratify=coarsest), strict=True))
    levels = section["levels"] or dataset.labels.levels
    train = corruption.apply(splits["train"], levels, lambda train: probed_features(train, recipe))
    return splits | {"train": train}


def probed_features(train: Dataset, recipe: Mapping[str, Any]) -> Tensor:
    """(n, d) what a probe sees of the samples before any training.

    The features of the recipe's encoder where that is frozen, else the raw input: see
    :func:`~regrain.evaluation.representations.raw_representation`.
    """
    unlabelled = replace(train, labels=Labels.empty(len(train)))
    return raw_representation(unlabelled, None, frozen_encoder(recipe, unlabelled), fits=False)[0].test


def _plain(name: str, value: Any) -> Any:
    """An option as a recipe keeps it; the root is absolute."""
    return _absolute(value) if name == "root" and value is not None else plain_value(value)


def _absolute(path: str | Path) -> str:
    return str(Path(os.path.expanduser(path)).resolve())
