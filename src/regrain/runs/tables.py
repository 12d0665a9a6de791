"""Files that tasks write, tables above all: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from regrain.data.cells import Column, escape_formula
from regrain.data.dataset import Dataset
from regrain.data.rows import Rows
from regrain.errors import UserError
from regrain.storage.files import replace_file

if TYPE_CHECKING:
    import pyarrow as pa

WRITABLE_SUFFIXES = (".csv", ".parquet", ".pq")
"""Endings of the tables that are written."""


def require_writable(
    out: Path, overwrite: bool, *, suffixes: Sequence[str] = WRITABLE_SUFFIXES, content: str = "tables"
) -> None:
    """Raise a UserError, before anything is computed, where the result could not be written."""
    if out.suffix.lower() not in suffixes:
        raise UserError(f"{out} ends in '{out.suffix}': {content} are written to {', '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite", code="would_overwrite")


def write_columns(columns: Mapping[str, Column], out: Path) -> None:
    """Write a table to a temporary name, then rename it; texts in CSV are guarded against being taken for formulas."""
    replace_file(out, table_writer(columns, out.suffix.lower()))


def table_writer(columns: Mapping[str, Column], suffix: str) -> Callable[[Path], object]:
    """A writer of a table, as CSV or Parquet, to a file of any name."""
    import pyarrow as pa
    import pyarrow.csv

    table = pa.table(dict(columns))
    for index, column in enumerate(table.schema):
        if pa.types.is_null(column.type):  # names, none of which is known
            table = table.set_column(index, column.name, table[index].cast(pa.string()))
    if suffix == ".csv":
        return partial(pa.csv.write_csv, _guarded(table))
    return partial(_write_parquet, table)


def _guarded(table: pa.Table) -> pa.Table:
    """The table with every text, headers too, through :func:`~regrain.data.cells.escape_formula`."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = [None if text is None else escape_formula(text) for text in table[index].to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, field.type))
    return table.rename_columns([escape_formula(name) for name in table.column_names])


def _write_parquet(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, file, compression="zstd")


def write_embeddings(parts: Mapping[str, tuple[Dataset, Tensor]], out: Path) -> tuple[int, int]:
    """Write embeddings (N, width) of every split as Parquet, with ids and class names; gives (rows, width)."""
    import pyarrow as pa

    tables = []
    for name, (part, vectors) in parts.items():
        columns: dict[str, Any] = {"id": [str(i) for i in part.ids], "split": [name] * len(part)}
        for level in part.labels.levels:
            if level in (*columns, "embedding"):
                raise UserError(f"level '{level}' would overwrite a column of that name in {out}; rename the level")
            columns[level] = pa.array(part.labels.column(level), pa.string())
        flat = pa.array(vectors.numpy().reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables)
    replace_file(out, partial(_write_parquet, table))
    return table.num_rows, vectors.shape[1]


def sample_columns(rows: Rows, out: Path, *, beside: Collection[str]) -> dict[str, Column]:
    """Images, texts, vectors or series without static features, as columns of a table that is read again.

    ``out``: see :func:`regroup_rows`. ``beside``: names of columns that are taken. Features keep their own names where
    none of these is among them.
    """
    if rows.modality == "text":
        return {free_name("text", beside): list(map(str, rows.values))}
    if rows.modality == "image":
        return {free_name("image", beside): _images(rows, out)}
    values = np.asarray(rows.values).reshape(len(rows), -1)
    names = list(rows.notes.get("columns", ())) if rows.modality == "vector" else []
    if len(names) != values.shape[1] or any(name in beside for name in names):
        names = [f"f{place}" for place in range(values.shape[1])]
    return dict(zip(names, values.T, strict=True))


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that is not taken yet.

    Examples
    --------
    >>> free_name("group", ["id", "group"])
    'group_'
    """
    while name in taken:
        name += "_"
    return name


def _images(rows: Rows, out: Path) -> list[str] | list[bytes]:
    """Paths, relative where the table's folder holds them, or else files' bytes; PNG for images in memory."""
    if all(isinstance(source, str) for source in rows.values):
        folder = os.path.abspath(out.parent)
        paths = map(os.path.abspath, rows.values)
        return [os.path.relpath(p, folder) if p.startswith(f"{folder}{os.sep}") else p for p in paths]
    if out.suffix.lower() == ".csv":
        raise UserError(f"the images of {rows.where} are not files, and {out} cannot hold them: name a .parquet file")
    return [_encoded(source) for source in rows.values]


def _encoded(source: Any) -> bytes:
    """The bytes of an image file: as they are, or a uint8 array (C, H, W) as PNG, which loses nothing."""
    from PIL import Image

    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        return Path(source).read_bytes()
    stream = io.BytesIO()
    Image.fromarray(source[0] if len(source) == 1 else source.transpose(1, 2, 0)).save(stream, format="PNG")
    return stream.getvalue()
