"""Data sets from folders, tables, arrays and Hugging Face data sets.

:func:`read` takes anything and finds the reader. What a reader has to tell the user is in the data set's
``notes["messages"]``, a list of sentences: which columns were guessed, what was left out, at which size images are kept.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch

from regrain.data.dataset import Dataset, ImageSamples, Modality, TensorSamples, TextSamples
from regrain.data.formats import TABLE_SUFFIXES, file_table, frame_table, huggingface_table, parquet_table
from regrain.data.rows import Fault, Rows, StorageOptions, examples
from regrain.data.table import (
    IMAGE_SUFFIXES,
    RoleOptions,
    as_matrix,
    is_split,
    label_names,
    numbered,
    path_columns,
    split_name,
)
from regrain.errors import RegrainWarning, UserError, nearest
from regrain.labels import Labels, Relation

__all__ = [
    "find_rows",
    "read",
    "read_arrays",
    "read_folder",
    "read_huggingface",
    "read_parquet_folder",
    "read_table",
    "rows_from_arrays",
    "rows_from_folder",
    "rows_from_parquet_folder",
]

_IGNORED_FOLDERS = ("__MACOSX",)


class FolderOptions(StorageOptions, total=False):
    """Options of :func:`read_folder`."""

    levels: Sequence[str] | None
    name: str | None


class TableOptions(RoleOptions, StorageOptions, total=False):
    """Options of :func:`read_table` and :func:`read_huggingface`."""


class ParquetFolderOptions(TableOptions, total=False):
    """Options of :func:`read_parquet_folder`."""

    splits: Sequence[str] | None


class ArrayRoleOptions(TypedDict, total=False):
    """What comes with an array besides the samples.

    labels : optional
        Class numbers or names (N,) or (N, L), a mapping of level to names, a DataFrame, or :class:`Labels`. -1, None and
        NaN mean unknown.
    levels : sequence of str, optional
        Names of the levels, for labels that bring none.
    relation : "tree", "paths" or "aspects", default "tree"
    ids, groups, splits : sequences (N,), optional
    modality : "image", "text", "vector" or "series", optional
        Where the shape says too little: a float array (N, A, B) is a series unless it is said to hold images.
    layout : "NCHW" or "NHWC", optional
        Where the channels of images are.
    name : str, optional
    """

    labels: Any
    levels: Sequence[str] | None
    relation: Relation
    ids: Sequence[Any] | np.ndarray | None
    groups: Sequence[Any] | np.ndarray | None
    splits: Sequence[Any] | np.ndarray | None
    modality: Modality | None
    layout: Literal["NCHW", "NHWC"] | None
    name: str | None


class ArrayOptions(ArrayRoleOptions, StorageOptions, total=False):
    """Options of :func:`read_arrays`."""


def read(source: Any, **options: Any) -> Dataset:
    """The data set in anything that holds one.

    Parameters
    ----------
    source
        A :class:`Dataset` (returned as it is), a name of the catalogue (:func:`regrain.data.catalog.entries`), a path to a
        folder tree of images (:func:`read_folder`), to a folder of Parquet splits (:func:`read_parquet_folder`) or to a
        table file (:func:`read_table`), a DataFrame, an array or a list (:func:`read_arrays`), a Hugging Face data set
        (:func:`read_huggingface`).
    options
        Those of the reader that fits.

    Raises
    ------
    UserError
        If there is no such thing (the nearest name of the catalogue is given), for an option that the reader does not have,
        and for what is wrong with the data.

    Examples
    --------
    >>> digits = read("digits")
    >>> digits.modality, digits.labels.counts, digits.parts
    ('image', {'group': 3, 'digit': 10}, ('train', 'test'))
    >>> read("digitz")
    Traceback (most recent call last):
    ...
    regrain.errors.UserError: no path 'digitz', and no data set of that name in the catalogue: did you mean 'digits'?
    """
    if isinstance(source, Dataset):
        _require_known(options, (), "a data set that has been read")
        return source
    rows, storage = find_rows(source, **options)
    return rows.dataset(**storage)


def read_folder(path: str | Path, **options: Unpack[FolderOptions]) -> Dataset:
    """Images in a tree of folders, ``super/sub/.../image.jpg``, of any depth.

    A class is its whole path, so ``a/other`` is not ``b/other``. Top-level folders called train, val (valid, validation,
    dev) and test, and nothing else there, are splits. Hidden files are passed over, and so are files that are no images,
    which are counted in ``notes["ignored_files"]``. Ids are paths relative to the folder.

    Parameters
    ----------
    path : path of the folder
    levels : sequence of str, optional
        Names of the levels, coarse to fine; default level1, level2, ..., or label when there is one. ``[]``: no labels.
    name : str, optional
    image_size, channels, skip_unreadable, cache
        See :class:`~regrain.data.rows.StorageOptions`.

    Raises
    ------
    UserError
        If there are no images, naming what was looked for and what is there; for images that cannot be decoded.
    """
    return _read(rows_from_folder, path, options)


def read_table(source: str | Path | Any, **options: Unpack[TableOptions]) -> Dataset:
    """A table with one row per sample: CSV, TSV, Parquet, JSON lines, or a DataFrame.

    Columns are named or guessed; guesses are told in ``notes["messages"]``. Cells of a CSV file are taken as they are written:
    only empty cells and ``nan`` are unknown labels, so that a class called ``NA`` or ``None`` survives.

    Parameters
    ----------
    source : path or DataFrame
    image, text, columns, series_shape, levels, label_paths, relation, split, group, id, unknown, name
        See :class:`~regrain.data.table.RoleOptions`.
    image_size, channels, skip_unreadable, cache
        See :class:`~regrain.data.rows.StorageOptions`.

    Raises
    ------
    UserError
        For a column that does not exist, naming the nearest; for rows that cannot be used, by the line of the file; for
        repeated ids, and for labels that do not nest.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"text": ["hi there", "bye now", "go left"], "kind": ["talk", "talk", "way"]})
    >>> data = read_table(table, levels=["kind"])
    >>> data.samples.texts[1], data.labels.classes, data.notes["messages"]
    ('bye now', (('talk', 'way'),), ["texts: column 'text' (guessed)"])
    """
    return _read(_rows_from_table, source, options)


def read_parquet_folder(path: str | Path, **options: Unpack[ParquetFolderOptions]) -> Dataset:
    """A folder of Parquet files, one per split: ``train.parquet``, ``val.parquet``, ``test.parquet``.

    Shards ``train-00000-of-00002.parquet`` are put together; files of other names are read only when ``splits`` names them.

    Parameters
    ----------
    path : path of the folder
    splits : sequence of str, optional
        Which files to read, without ``.parquet``.
    other options
        Those of :func:`read_table`.

    Raises
    ------
    UserError
        If the folder has no such file, and as :func:`read_table`.
    """
    return _read(rows_from_parquet_folder, path, options)


def read_arrays(samples: Any, labels: Any = None, **options: Unpack[ArrayOptions]) -> Dataset:
    """Arrays, tensors, a DataFrame of numbers, or a list of texts.

    - uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) are images, C being 1, 3 or 4; where both would do, tensors are taken for
      (N, C, H, W) and NumPy arrays for (N, H, W, C) unless ``layout`` says otherwise.
    - Other numbers: (N, D) are vectors, (N, T, C) series, four dimensions images in [0, 1], which become uint8 with a warning.
    - A list of texts; of paths to image files, when all of them end like images.

    Parameters
    ----------
    samples : array, tensor, DataFrame or list, N long
    labels
        See :class:`ArrayRoleOptions`, and there for ``levels, relation, ids, groups, splits, modality, layout, name``.
    image_size, channels, skip_unreadable, cache
        See :class:`~regrain.data.rows.StorageOptions`.

    Raises
    ------
    UserError
        For lengths that differ, giving both; for NaN and infinity, by row and column; for shapes that are no samples.

    Examples
    --------
    >>> data = read_arrays(np.eye(4), labels={"shape": ["round", "round", "square", None]})
    >>> data.modality, data.labels.codes[:, 0].tolist()
    ('vector', [0, 0, 1, -1])
    """
    if labels is not None:
        options["labels"] = labels
    return _read(rows_from_arrays, samples, options)


def read_huggingface(dataset: Any, **options: Unpack[TableOptions]) -> Dataset:
    """A Hugging Face ``datasets.Dataset``, or a ``DatasetDict`` whose keys are the splits.

    ClassLabel columns are the levels unless others are named; images are not decoded on the way.

    Parameters
    ----------
    dataset : Dataset or DatasetDict
    other options
        Those of :func:`read_table`.
    """
    return _read(_rows_from_huggingface, dataset, options)


def find_rows(source: Any, **options: Any) -> tuple[Rows, StorageOptions]:
    """The rows of anything that :func:`read` takes, and those of the options that say how to store them.

    Raises
    ------
    UserError
        As :func:`read`, but for what is wrong with single rows.
    """
    if isinstance(source, Dataset):
        _require_known(options, (), "a data set that has been read")
        return _rows_from_dataset(source), {}
    reader, known, what = _reader(source)
    _require_known(options, known, what)
    storage: StorageOptions = {k: v for k, v in options.items() if k in StorageOptions.__annotations__}  # type: ignore[assignment]
    return reader(source, **{k: v for k, v in options.items() if k not in storage}), storage


def _read(reader: Callable[..., Rows], source: Any, options: Mapping[str, Any]) -> Dataset:
    storage = {k: v for k, v in options.items() if k in StorageOptions.__annotations__}
    return reader(source, **{k: v for k, v in options.items() if k not in storage}).dataset(**storage)


def _reader(source: Any) -> tuple[Callable[..., Rows], Mapping[str, Any], str]:
    """The reader for a source, the options it knows, and what the source is."""
    from regrain.data import catalog  # the catalogue's entries are read with the readers of this module

    if isinstance(source, str | os.PathLike):
        if str(source) in catalog.entries():
            return catalog.rows, catalog.CatalogOptions.__annotations__, f"the catalogue's {source}"
        path = Path(source).expanduser()
        if path.is_file():
            return _rows_from_table, TableOptions.__annotations__, "a table"
        if path.is_dir() and _parquet_files(path):
            return rows_from_parquet_folder, ParquetFolderOptions.__annotations__, "a folder of Parquet files"
        if path.is_dir():
            return rows_from_folder, FolderOptions.__annotations__, "a folder of images"
        raise UserError(
            f"no path '{source}', and no data set of that name in the catalogue: {nearest(path.name, catalog.entries())}"
        )
    first = next(iter(source.values()), None) if isinstance(source, Mapping) else source
    if hasattr(first, "features") and hasattr(first, "column_names"):
        return _rows_from_huggingface, TableOptions.__annotations__, "a Hugging Face data set"
    if _is_frame(source) and "labels" not in _given(source):
        return _rows_from_table, TableOptions.__annotations__, "a DataFrame"
    return rows_from_arrays, ArrayOptions.__annotations__, "an array"
