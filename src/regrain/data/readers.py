"""Data sets from anything that holds one: :func:`read` finds the reader of a source.

A reader's sentences are in the data set's ``notes["messages"]``: which columns were guessed, what was left out, how
large images are kept.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch

from regrain.data.anndata import CELL_SUFFIX, CellMatrix, as_cell_matrix, is_anndata, read_cells
from regrain.data.arrays import read_arrays
from regrain.data.dataset import Dataset
from regrain.data.folder import read_folder
from regrain.data.formats import as_table, is_frame
from regrain.data.huggingface import huggingface_table, is_huggingface
from regrain.data.options import (
    ArrayOptions,
    CellOptions,
    FolderOptions,
    ParquetFolderOptions,
    ReaderOptions,
    ShardOptions,
    StorageOptions,
    TableOptions,
)
from regrain.data.parquet import parquet_files, read_parquet_folder
from regrain.data.rows import Rows
from regrain.data.samples import ImageSamples, SeriesSamples, TensorSamples, TextSamples
from regrain.data.shards import is_sharded, read_shards
from regrain.data.table import Table
from regrain.errors import UserError, nearest
from regrain.registry import catalogue_of, is_url, no_source
from regrain.spelling import command

_ARRAY = {"labels": Any, **ArrayOptions.__annotations__}


def read(source: Any, **options: Any) -> Dataset:
    """The data set in anything that holds one.

    Parameters
    ----------
    source
        - a :class:`Dataset`, returned as it is;
        - the name of a data set (``regrain datasets`` lists them);
        - a path to a folder tree of images (:func:`regrain.data.folder.read_folder`), to a folder of Parquet files, one
          a split, to a table: CSV, TSV, Parquet, JSON; or to single cells: ``.h5ad``;
        - a folder of shards that ``regrain convert`` wrote, or its address in an object store, such as
          ``s3://bucket/photos`` (:func:`regrain.data.shards.read_shards`);
        - a DataFrame, columns in a mapping, or a Hugging Face data set: tables with one row a sample, or one a time
          step. ClassLabel columns are the levels unless others are named;
        - an AnnData object: single cells (:func:`regrain.data.anndata.read_cells`);
        - an array, a tensor or a list (:func:`regrain.data.arrays.read_arrays`); so is a DataFrame with ``labels``.
    options
        Those of the reader that fits: see :mod:`regrain.data.options`. Columns that no option names are guessed, and
        ``notes["messages"]`` reports the guesses. The same table gives the same data set in every format: numbers and
        classes mean the same however they are written, and ids keep their spelling. Only empty cells and ``nan`` are
        unknown labels, so that a class called ``NA`` or ``None`` survives.

    Raises
    ------
    UserError
        If there is no such source (the nearest name of the catalogue is given), for an option that the reader does not
        have, and for what is wrong with the data, by row.

    Examples
    --------
    >>> digits = read("digits")
    >>> digits.modality, digits.labels.counts, digits.split_names
    ('image', {'group': 3, 'digit': 10}, ('train', 'test'))
    >>> read("digitz")
    Traceback (most recent call last):
    ...
    regrain.errors.UserError: no file, folder or data set 'digitz': did you mean 'digits'?

    A table, one row a sample:

    >>> import numpy as np, pandas as pd
    >>> table = pd.DataFrame({"text": ["hi there", "bye now", "go left"], "kind": ["talk", "talk", "way"]})
    >>> data = read(table, levels=["kind"])
    >>> data.samples.texts[1], data.labels.classes, data.notes["messages"]
    ('bye now', (('talk', 'way'),), ["texts: column 'text' (guessed)"])

    One row a time step: two patients, three and two sessions each, cut into windows of two sessions.

    >>> sessions = pd.DataFrame({"patient": ["p", "p", "p", "q", "q"], "pulse": [61, 70, 64, 88, 90],
    ...     "age": [50, 50, 50, 71, 71], "event": ["no", "no", "yes", "no", "no"]})
    >>> data = read(sessions, record="patient", window=2, stride=1, static=["age"], levels=["event"])
    >>> data.samples.shape, data.samples.static_width, data.ids.tolist(), data.groups.tolist()
    ((2, 1), 1, ['p:0', 'p:1', 'q:0'], ['p', 'p', 'q'])

    Arrays:

    >>> data = read(np.eye(4), labels={"shape": ["round", "round", "square", None]})
    >>> data.modality, data.labels.codes[:, 0].tolist()
    ('vector', [0, 0, 1, -1])
    """
    if isinstance(source, Dataset):
        _require_known(options, {}, "a data set that has been read")
        return source
    if is_sharded(source):
        _require_known(options, ShardOptions.__annotations__, "a folder of shards")
        return read_shards(source, **options)
    rows, storage = find_rows(source, **options)
    return rows.dataset(**storage)


def find_rows(source: Any, **options: Any) -> tuple[Rows, dict[str, Any]]:
    """The rows of anything that :func:`read` takes, and those of the options that say how to store them.

    Raises
    ------
    UserError
        As :func:`read`, except for faults of single rows.
    """
    reader, known, what = _reader(source, options)
    _require_known(options, known, what)
    own, storage = separate(options)
    rows = reader(source, **own)
    if isinstance(source, str) and what.endswith(f" ./{source})"):
        rows = replace(rows, notes={**rows.notes, "messages": [*rows.notes.get("messages", ()), f"read {what}"]})
    return rows, storage


def separate(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A reader's own options, and those that say how to store samples."""
    stored = StorageOptions.__annotations__.keys() & options.keys()
    return {k: v for k, v in options.items() if k not in stored}, {k: options[k] for k in stored}


def options_of(source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that the reader of a source knows, by name; none for a :class:`Dataset`.

    The given options may decide which reader it is: a DataFrame given with ``labels`` holds only numbers.
    """
    return _reader(source, options)[1]


def require_reading(source: Any, options: Mapping[str, Any]) -> None:
    """A UserError for an option that the reader of a source does not know."""
    _, known, what = _reader(source, options)
    _require_known(options, known, what)


def parsed(source: Any, options: Mapping[str, Any] | None = None) -> Any:
    """A table or cells parsed, to be looked at and read again without being parsed again; else the source itself."""
    reader = _reader(source, options or {})[0]
    return _table(source) if reader is _rows_of_table else as_cell_matrix(source) if reader is read_cells else source


def table_of(source: Any) -> Table | None:
    """The table that a source is, parsed; None where it is something else."""
    found = as_table(source) if _reader(source, {})[0] is read_parquet_folder else parsed(source)
    return found if isinstance(found, Table) else None


def observed_columns(source: Any) -> Collection[str] | None:
    """Names of the columns that may hold the labels of a table or of cells, parsed; None for what has no columns."""
    if isinstance(source, CellMatrix):
        return [str(name) for name in source.data.obs.columns]
    return source.columns if isinstance(source, Table) else None


def _table(source: Any) -> Table:
    return huggingface_table(source) if is_huggingface(source) else as_table(source)


def _rows_of_table(source: Any, **options: Any) -> Rows:
    return _table(source).rows(**options)


def _rows_of_dataset(source: Dataset) -> Rows:
    samples = source.samples
    values: Any
    if isinstance(samples, TensorSamples):
        values = samples.tensor.cpu().numpy()
    elif isinstance(samples, SeriesSamples):
        values = samples.series.cpu().numpy()
    elif isinstance(samples, TextSamples):
        values = samples.texts
    elif isinstance(samples, ImageSamples):
        values = samples.sources
    else:
        values = samples.take(torch.arange(len(samples))).numpy()
    static = samples.static if isinstance(samples, SeriesSamples) else None
    return Rows(
        where=source.name,
        name=source.name,
        modality=source.modality,
        values=values,
        labels=source.labels,
        ids=list(map(str, source.ids)),
        describe_row=lambda row: f"sample '{source.ids[row]}'",
        splits=None if source.splits is None else list(source.splits),
        groups=None if source.groups is None else list(source.groups),
        notes=source.notes,
        static=None if static is None else static.cpu().numpy(),
    )


def _reader(source: Any, options: Mapping[str, Any]) -> tuple[Callable[..., Rows], Mapping[str, Any], str]:
    """The reader for a source, the options it knows, and what the source is."""
    if isinstance(source, Dataset):
        return _rows_of_dataset, {}, "a data set that has been read"
    if isinstance(source, str | os.PathLike):
        return _reader_of_path(source)
    if is_huggingface(source):
        return _rows_of_table, TableOptions.__annotations__, "a Hugging Face data set"
    if isinstance(source, CellMatrix) or is_anndata(source):
        return read_cells, CellOptions.__annotations__, "single cells"
    if (is_frame(source) or isinstance(source, Table | Mapping)) and options.get("labels") is None:
        return _rows_of_table, TableOptions.__annotations__, "a table"
    return read_arrays, _ARRAY, "an array"


def _rows_of_shards(source: str | Path, **options: Any) -> Rows:
    return _rows_of_dataset(read_shards(source, **options))


def _reader_of_path(source: str | os.PathLike[str]) -> tuple[Callable[..., Rows], Mapping[str, Any], str]:
    if is_sharded(source):
        return _rows_of_shards, ShardOptions.__annotations__, "a folder of shards"
    if is_url(source):
        write = f"`{command('convert', 'DATA', '--out', source)}`"
        raise UserError(f"{source} holds no shards: {write} writes them", code="missing_file")
    catalogue = catalogue_of(str(source))
    if catalogue is not None:
        return catalogue.rows, catalogue.CatalogOptions.__annotations__, named_twice(source)
    path = Path(os.path.expanduser(source))
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise no_source(str(source)) from None
    except (OSError, ValueError) as error:  # a closed folder above it, a name too long, a NUL character
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{source} cannot be reached ({reason})") from None
    if path.is_file() and path.suffix.lower() == CELL_SUFFIX:
        return read_cells, CellOptions.__annotations__, "single cells"
    if path.is_file():
        return _rows_of_table, TableOptions.__annotations__, "a table"
    if path.is_dir() and parquet_files(path):
        return read_parquet_folder, ParquetFolderOptions.__annotations__, "a folder of Parquet files"
    if path.is_dir():
        return read_folder, FolderOptions.__annotations__, "a folder of images"
    raise UserError(f"{source} is neither a file nor a folder", code="missing_file")


def named_twice(source: Any) -> str:
    """A data set in words; both where a path here has the name of a data set of the catalogue."""
    if not isinstance(source, str | os.PathLike) or catalogue_of(str(source)) is None:
        return "these data"
    beside = f" (what has that name in this folder is ./{source})" if Path(source).exists() else ""
    return f"the catalogue's {source}{beside}"


def _require_known(options: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for option in options:
        if option not in known:
            if not known:
                raise UserError(f"there is no option '{option}' for {what}", code="unknown_option")
            raise UserError(f"reading {what} has no option '{option}': {nearest(option, known)}", code="unknown_option")
        value = options[option]
        if option in _switches() and not (value is None or isinstance(value, bool | np.bool_)):
            raise UserError(f"{option} must be true or false; got {value!r}", code="out_of_range")


@functools.cache
def _switches() -> frozenset[str]:
    """The options that are true or false."""
    return frozenset(name for name, hint in get_type_hints(ReaderOptions).items() if hint is bool)
