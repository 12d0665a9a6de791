"""Files that tasks write, tables above all: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regrain.data.cells import Column
from regrain.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["replace_file", "require_writable", "write_columns", "write_parquet"]

_SUFFIXES = (".csv", ".parquet", ".pq")


def require_writable(
    out: Path, overwrite: bool, *, suffixes: Sequence[str] = _SUFFIXES, content: str = "tables"
) -> None:
    """Raise a UserError, before anything is computed, where the result could not be written."""
    if out.suffix.lower() not in suffixes:
        raise UserError(f"{out} ends in '{out.suffix}': {content} are written to {', '.join(suffixes)}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite")


def write_columns(columns: Mapping[str, Column], out: Path) -> None:
    """Write a table to a temporary name, then rename it."""
    import pyarrow as pa
    import pyarrow.csv

    table = pa.table(dict(columns))
    if out.suffix.lower() == ".csv":
        replace_file(out, lambda temporary: pa.csv.write_csv(table, temporary))
    else:
        write_parquet(table, out)


def write_parquet(table: pa.Table, out: Path) -> None:
    """Write a table as Parquet, whatever the file's ending, to a temporary name, then rename it."""
    import pyarrow.parquet

    replace_file(out, lambda temporary: pyarrow.parquet.write_table(table, temporary, compression="zstd"))


def replace_file(out: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write to a temporary name beside ``out``, and rename that; what fails leaves nothing behind."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        write(temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
