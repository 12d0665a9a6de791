"""Data as the verbs take them: read, regrouped, settled by a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrain.checks import hyperparameters
from regrain.data.dataset import Dataset
from regrain.data.readers import find_rows, named_twice, options_of, read
from regrain.data.taxonomies import taxonomies, taxonomy
from regrain.errors import NoLabelsError, UserError, nearest, warn_of_data
from regrain.labels import Taxonomy
from regrain.methods import method_class
from regrain.runs.recipe import check_recipe, merge, parse_assignments, read_recipe
from regrain.runs.source import (
    CORRUPTIONS,
    data_section,
    read_data,
    split_dataset,
    told_levels,
    with_path_column,
)
from regrain.tasks import Regrouping
from regrain.tasks.regroup import regroup_rows
from regrain.tasks.tables import require_writable, write_columns
from regrain.training.options import TrainingOptions


def load(source: Any, **options: Any) -> Dataset:
    """Data from a catalog name, a path, arrays, a DataFrame or a Hugging Face data set.

    Parameters
    ----------
    source
        See :func:`regrain.data.readers.read`.
    **options
        Of the reader.

    Examples
    --------
    >>> data = load("digits")
    >>> data.modality, data.labels.levels
    ('image', ('group', 'digit'))
    """
    dataset = read(source, **options)
    warn_of_data(dataset.name, dataset.notes.get("messages", ()))
    return dataset


def regroup(
    data: Any,
    mapping: Taxonomy | str | Path,
    out: str | Path,
    *,
    levels: Sequence[str] | None = None,
    superclass: str | None = None,
    drop_unknown: bool = False,
    most_imbalance: float = 3.0,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> Regrouping:
    """Write a superclass data set: the samples of a fine-labelled one in a table, under a mapping of its classes.

    Parameters
    ----------
    data
        Whatever :func:`load` reads, of images, texts or vectors.
    mapping : Taxonomy, str or path
        A name or file as of :func:`regrain.data.taxonomies.taxonomy`.
    out : path
        Ends in ``.csv`` or ``.parquet``; :func:`load` reads it as it is. Files of images stay where they are.
    levels : sequence of str, optional
        Label levels of the data; the last one is regrouped. Default: all that the data have.
    superclass : str, optional
        The level of the mapping that gives superclasses; default its coarsest.
    drop_unknown, most_imbalance
        See :func:`regrain.tasks.regroup.regroup_rows`.
    overwrite : bool
        Replace the file.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    Regrouping
        What was written, and its balance.

    Raises
    ------
    UserError
        As :func:`regrain.tasks.regroup.regroup_rows`, and if the file exists or its ending is unknown.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> parity = Taxonomy.from_edges([(str(digit), "even" if digit % 2 == 0 else "odd") for digit in range(10)])
    >>> regroup("digits", parity, f"{folder.name}/parity.parquet").counts["odd"]
    {'train': 682, 'test': 224}
    >>> load(f"{folder.name}/parity.parquet").labels.counts
    {'superclass': 2, 'label': 10}
    >>> folder.cleanup()
    """
    target = Path(out)
    require_writable(target, overwrite)
    if most_imbalance < 1:
        raise UserError(f"the most imbalance is 1 (all superclasses alike) or more; got {most_imbalance}")
    known = mapping if isinstance(mapping, Taxonomy) else taxonomy(mapping)
    rows, storage = find_rows(data, **told_levels(data, levels), **with_split(reader_options, split_column))
    rows = rows.usable(storage.pop("skip_unreadable", False))
    if storage:
        name = next(iter(storage))
        raise UserError(f"regroup writes samples as they are: give {name} when the table is read")
    made = regroup_rows(
        rows,
        known,
        target,
        level=levels[-1] if levels else None,
        superclass=superclass,
        drop_unknown=drop_unknown,
        most_imbalance=most_imbalance,
    )
    about = taxonomies().get(str(mapping))
    told = [*rows.notes.get("messages", ()), *([f"{about.name}: {about.source}"] if about else [])]
    write_columns(made.columns, target)
    return replace(made, notices=[*told, *made.notices])


@dataclass(frozen=True)
class Request:
    """What was asked for: the recipe so far, all data, and the training samples among them."""

    recipe: dict[str, Any]
    dataset: Dataset
    training: Dataset


def request_of(
    method: str,
    data: Any,
    *,
    levels: Sequence[str] | None = None,
    encoder: str | None = None,
    pretrained: bool | str = False,
    frozen: bool = False,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    holdout: float | None = None,
    split_column: str | None = None,
    **options: Any,
) -> Request:
    """One recipe from a file's or a mapping's, arguments and settings; the data read and split as it says.

    ``options`` are what corrupts the training split, settings of the training and the method, and the reader's.
    """
    method = method_class(method).name
    corruption = {name: options.pop(name) for name in CORRUPTIONS if name in options}
    keywords = _settings_among(options, method, data)
    options = {name: value for name, value in options.items() if name not in keywords}
    from_file = read_recipe(recipe) if isinstance(recipe, str | Path) else check_recipe(recipe or {})
    if from_file.get("method", {}).get("name", method) != method:
        raise UserError(f"the recipe is for {from_file['method']['name']}, and {method} was asked for")
    asked = {"name": encoder, "pretrained": pretrained, "frozen": frozen}
    flags: dict[str, Any] = {"method": {"name": method}, "encoder": {k: v for k, v in asked.items() if v}}
    if seed is not None:
        flags["seed"] = seed
    assigned = parse_assignments(settings, method)
    for name, value in keywords.items():
        if name in assigned.get(next(iter(parse_assignments({name: value}, method))), {}):
            raise UserError(f"{name} is given twice, as a keyword and in settings: leave one out")
    wanted = check_recipe(merge(from_file, flags, assigned, parse_assignments(keywords, method)))
    reader, levels = with_path_column(with_split(options, split_column), levels)
    section = data_section(
        data,
        levels=levels,
        holdout=holdout,
        corruption=corruption,
        reader=reader,
        recorded=wanted.get("data", {}),
    )
    reader = {**section["reader"], **({} if isinstance(data, str | Path) else reader)}
    try:
        dataset = read_data(data, section["levels"], reader)
    except NoLabelsError:
        if method_class(method).needs.levels:
            raise
        dataset = read_data(data, [], reader)
    section["levels"] = list(dataset.labels.levels if section["levels"] is None else section["levels"])
    for level in section["levels"]:
        dataset.labels.level_index(level)
    training = split_dataset(dataset, section)["train"]
    section["fingerprint"] = training.fingerprint()
    warn_of_data(dataset.name, dataset.notes.get("messages", ()))
    return Request(wanted | {"data": section}, dataset, training)


_ELSEWHERE = {
    "level": "levels",
    "set": "settings",
    "assignments": "settings",
    "split": "split_column",
    "group": "group_column",
    "id": "id_column",
    "weights": "pretrained",
    "label": "levels",
    "labels_column": "levels",
}
"""Words of the command line and of other libraries, and the keyword that Python has for them here."""


def _settings_among(options: Mapping[str, Any], method: str, data: Any) -> dict[str, Any]:
    """The settings of training and method among keywords; a UserError for what neither these nor a reader knows."""
    settings = {**hyperparameters(TrainingOptions), **hyperparameters(method_class(method))}
    reader = options_of(data, options)
    for name in options:
        if name in settings and name in reader:
            raise UserError(
                f"{name} is a setting of {method}, and says how data are read: give the one in settings={{...}}, the "
                "other to regrain.load"
            )
        if name not in settings and name not in reader:
            known = [*settings, *reader, *inspect.signature(request_of).parameters]
            known = [other for other in known if other not in ("data", "method", "options")]
            hint = f"in Python it is {_ELSEWHERE[name]}=" if name in _ELSEWHERE else nearest(name, known)
            raise UserError(f"{method} on {named_twice(data)} has no option '{name}': {hint}", code="unknown_option")
    return {name: value for name, value in options.items() if name in settings}


def with_split(options: Mapping[str, Any], split_column: str | None) -> dict[str, Any]:
    """Options of a reader, the column of the split among them where one is named."""
    return {**options, **({"split_column": split_column} if split_column else {})}
