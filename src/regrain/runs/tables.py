"""Tables that verbs write: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from regrain.data.cells import Column, escape_formula
from regrain.data.columns import free_name
from regrain.data.dataset import Dataset
from regrain.data.images import as_png
from regrain.data.rows import Rows
from regrain.errors import UserError
from regrain.storage.files import replace_file, require_place

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

WRITABLE_SUFFIXES = (".csv", ".parquet", ".pq")
"""Endings of the tables that are written."""

_FEW = 4096
"""Rows of a part that are read at a time."""


def require_writable(
    out: Path, overwrite: bool, *, suffixes: Sequence[str] = WRITABLE_SUFFIXES, content: str = "tables"
) -> None:
    """Raise a UserError, before anything is computed, where the result could not be written."""
    if out.suffix.lower() not in suffixes:
        raise UserError(f"{out} ends in '{out.suffix}': {content} are written to {', '.join(suffixes)}")
    require_place(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: choose another --out", code="would_overwrite")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite", code="would_overwrite")


def write_columns(columns: Mapping[str, Column], out: Path) -> None:
    """Write a table to a temporary name, then rename it; texts in CSV are guarded against being taken for formulas."""
    replace_file(out, table_writer(columns, out.suffix.lower()))


def _unpacked(columns: Mapping[str, Column]) -> dict[str, Any]:
    """The columns with packed texts as lists: neither pandas nor every PyArrow knows NumPy's strings."""
    packed = {name: c.tolist() for name, c in columns.items() if isinstance(c, np.ndarray) and c.dtype.kind == "T"}
    return {**columns, **packed}


def frame_of(columns: Mapping[str, Column]) -> pd.DataFrame:
    """A table of columns; packed texts become the texts of pandas."""
    import pandas as pd

    return pd.DataFrame(_unpacked(columns))


def arrow_table(columns: Mapping[str, Column]) -> pa.Table:
    """A table of columns; names none of which is known are texts."""
    import pyarrow as pa

    table = pa.table(_unpacked(columns))
    for index, column in enumerate(table.schema):
        if pa.types.is_null(column.type):
            table = table.set_column(index, column.name, table[index].cast(pa.string()))
    return table


def table_writer(columns: Mapping[str, Column], suffix: str) -> Callable[[Path], object]:
    """A writer of a table, as CSV or Parquet, to a file of any name."""
    return _writer(arrow_table(columns), suffix)


def write_table(table: pa.Table, out: Path) -> None:
    """Write a table to a temporary name, then rename it."""
    replace_file(out, _writer(table, out.suffix.lower()))


def _writer(table: pa.Table, suffix: str) -> Callable[[Path], object]:
    import pyarrow.csv

    return partial(pyarrow.csv.write_csv, _guarded(table)) if suffix == ".csv" else parquet_writer(table)


def parquet_writer(table: pa.Table) -> Callable[[Path], object]:
    """A writer of a table as Parquet."""
    import pyarrow.parquet

    def write(out: Path) -> None:
        pyarrow.parquet.write_table(table, out, **_parquet_options(table.schema))
        pyarrow.default_memory_pool().release_unused()  # which keeps what a table took

    return write


def _parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Texts as dictionaries; numbers hardly come back."""
    import pyarrow as pa

    return {"compression": "zstd", "use_dictionary": [f.name for f in schema if pa.types.is_string(f.type)]}


def read_table(file: Path) -> pa.Table:
    """A Parquet file, read with little more memory than its table takes."""
    import pyarrow.parquet

    opened = pyarrow.parquet.ParquetFile(file)
    table = pyarrow.Table.from_batches(opened.iter_batches(batch_size=_FEW, use_threads=False), opened.schema_arrow)
    pyarrow.default_memory_pool().release_unused()
    return table


def joined_writer(files: Sequence[Path], suffix: str) -> Callable[[Path], object]:
    """A writer of Parquet files under each other, as CSV or Parquet; one of them is held at a time."""
    import pyarrow.csv
    import pyarrow.parquet

    def read(file: Path) -> pa.Table:
        table = read_table(file)
        return _guarded(table) if suffix == ".csv" else table

    def write(out: Path) -> None:
        schema = read(files[0]).schema
        kinds = {".csv": pyarrow.csv.CSVWriter}
        options = {} if suffix == ".csv" else _parquet_options(schema)
        with kinds.get(suffix, pyarrow.parquet.ParquetWriter)(out, schema, **options) as writer:
            for file in files:
                writer.write_table(read(file))

    return write


def _guarded(table: pa.Table) -> pa.Table:
    """The table with every text, headers too, through :func:`~regrain.data.cells.escape_formula`."""
    import pyarrow as pa

    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            texts = [None if text is None else escape_formula(text) for text in table[index].to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, field.type))
    return table.rename_columns([escape_formula(name) for name in table.column_names])


def embeddings_table(name: str, part: Dataset, vectors: Tensor) -> pa.Table:
    """The embeddings (N, width) of a split, with ids and class names."""
    import pyarrow as pa

    columns: dict[str, Any] = {"id": part.ids.tolist(), "split": [name] * len(part)}
    for level in part.labels.levels:
        if level in (*columns, "embedding"):
            raise UserError(f"level '{level}' would overwrite a column of embeddings of that name; rename the level")
        columns[level] = pa.array(part.labels.column(level), pa.string())
    flat = pa.array(vectors.numpy().reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(columns)


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
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes() if isinstance(source, str) else as_png(source)
