"""Tables that tasks write: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regrain.data.cells import Column
from regrain.errors import UserError

__all__ = ["require_writable", "write_columns"]

_SUFFIXES = (".csv", ".parquet", ".pq")


def require_writable(out: Path, overwrite: bool) -> None:
    """Raise a UserError, before anything is computed, where the result could not be written."""
    if out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{out} ends in '{out.suffix}': tables are written to {', '.join(_SUFFIXES)}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite")


def write_columns(columns: Mapping[str, Column], out: Path) -> None:
    """Write a table to a temporary name, then rename it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table(dict(columns))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        if out.suffix.lower() == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pa.parquet.write_table(table, temporary, compression="zstd")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
