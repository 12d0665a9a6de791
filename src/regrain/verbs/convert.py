"""``convert``: write data as shards, for training beyond memory and from object stores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from regrain.checks import Count, PathOrAddress
from regrain.data.options import ReaderOptions
from regrain.data.shards import Format, is_sharded, reaching, write_shards
from regrain.errors import UserError
from regrain.registry import is_url
from regrain.runs.source import read_data
from regrain.runs.verb import verb
from regrain.storage.files import require_place


@dataclass(frozen=True)
class Conversion:
    """Shards that were written."""

    out: str
    """Path or address of their folder."""
    samples: int
    files: tuple[str, ...]
    notices: tuple[str, ...] = ()
    """Messages of the reader."""


@verb
def convert(
    data: Any,
    out: PathOrAddress,
    *,
    levels: Sequence[str] | None = None,
    format: Format = "parquet",
    shard_rows: Count | None = None,
    **reader_options: Unpack[ReaderOptions],
) -> Conversion:
    """Write data as a folder of shards with an index, which every command reads as data.

    Samples that memory does not hold are then read when they are needed. Images are kept as the bytes of their files.

    Parameters
    ----------
    data
        A data set's name (`regrain datasets`), the path of a folder or table, or whatever :func:`load` reads.
    out : path
        The folder to write, or an address such as s3://bucket/photos, for which fsspec needs a package (s3fs). It holds
        nothing yet.
    levels : sequence of str, optional
        A label level (column), from coarse to fine. Default: all that the data have.
    format : {"parquet", "lance"}
        Parquet, with its rows mixed, is read by windows, by other programs and from object stores; lance row by row.
    shard_rows : int, optional
        Samples of a shard. By default a shard takes about 256 MB.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Conversion

    Raises
    ------
    UserError
        If the data cannot be read, or the folder is not empty.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> convert("digits", f"{folder.name}/digits", shard_rows=1000).files[:2]
    ('train-00000-of-00002.parquet', 'train-00001-of-00002.parquet')
    >>> from regrain import load
    >>> load(f"{folder.name}/digits").split_names
    ('train', 'test')
    >>> folder.cleanup()
    """
    place = os.path.expanduser(os.fspath(out))
    if not is_url(place):
        require_place(Path(place))
        if Path(place).is_file():
            raise UserError(
                f"{place} is a file, and shards need a folder: choose another --out", code="would_overwrite"
            )
    if is_sharded(place) or (not is_url(place) and Path(place).exists() and any(Path(place).iterdir())):
        raise UserError(f"{place} is not empty: choose another --out", code="would_overwrite")
    dataset = read_data(data, levels, reader_options)
    with reaching(place):
        files = write_shards(dataset, place, format=format, shard_rows=shard_rows)
    return Conversion(place, len(dataset), tuple(files), dataset.messages)
