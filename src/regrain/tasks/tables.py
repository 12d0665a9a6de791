"""Tables that tasks write: CSV or Parquet by the file's ending, never half a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrain.errors import UserError

__all__ = ["require_table_name", "write_table"]

_ENDINGS = (".csv", ".parquet")


def require_table_name(out: str | Path) -> Path:
    """The path, with an ending that :func:`write_table` knows; to be asked before anything is computed."""
    path = Path(out)
    if path.suffix.lower() not in _ENDINGS:
        raise UserError(f"{path} is neither a .csv nor a .parquet file: give --out one of these endings")
    return path


def write_table(columns: Mapping[str, Any], out: str | Path) -> None:
    """Write columns of equal length under a temporary name, then rename it."""
    import pandas as pd

    path = require_table_name(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    frame = pd.DataFrame(dict(columns))
    if path.suffix.lower() == ".csv":
        frame.to_csv(temporary, index=False)
    else:
        frame.to_parquet(temporary, index=False, compression="zstd")
    temporary.replace(path)
