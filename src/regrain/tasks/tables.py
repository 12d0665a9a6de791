"""Files that tasks write, tables above all: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from regrain.data.cells import Column, escape_formula
from regrain.data.dataset import Dataset
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


def write_parquet(table: pa.Table, out: Path) -> None:
    """Write a table as Parquet, whatever the file's ending, to a temporary name, then rename it."""
    replace_file(out, partial(_write_parquet, table))


def _write_parquet(table: pa.Table, file: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, file, compression="zstd")


def write_embeddings(parts: Mapping[str, tuple[Dataset, Tensor]], out: Path) -> tuple[int, int]:
    """Write embeddings (N, width) of every split as Parquet, beside ids and class names; gives (rows, width)."""
    import pyarrow as pa

    tables = []
    for name, (part, vectors) in parts.items():
        columns: dict[str, Any] = {"id": [str(i) for i in part.ids], "split": [name] * len(part)}
        for level, names in zip(part.labels.levels, part.labels.classes, strict=True):
            if level in (*columns, "embedding"):
                raise UserError(f"level '{level}' would overwrite a column of that name in {out}; rename the level")
            columns[level] = pa.array(
                [names[c] if c >= 0 else None for c in part.labels.level(level).tolist()], pa.string()
            )
        flat = pa.array(vectors.numpy().reshape(-1))
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
        tables.append(pa.table(columns))
    table = pa.concat_tables(tables)
    write_parquet(table, out)
    return table.num_rows, vectors.shape[1]
