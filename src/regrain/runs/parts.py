"""Tables of very many rows, made block by block: one that was stopped goes on after its last block."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from regrain.data.dataset import Dataset
from regrain.model import Model
from regrain.runs.run import Run
from regrain.runs.tables import joined_writer, parquet_writer, write_table
from regrain.storage.files import MANIFEST, replace_file
from regrain.training.processes import from_first_process, is_first_process

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 2**15
"""Rows that are computed and written at once."""


def blocks_of(dataset: Dataset, model: Model) -> list[range]:
    """The rows of each block, in their order; all where a frozen backbone's features are cached for the whole."""
    step = max(1, len(dataset)) if model.backbone is not None else BLOCK
    return [range(start, min(start + step, len(dataset))) for start in range(0, max(1, len(dataset)), step)]


def block_of(dataset: Dataset, rows: range) -> Dataset:
    """A block of a data set."""
    return dataset if len(rows) == len(dataset) else dataset.select(rows)


def key_of(run: Run, datasets: Iterable[Dataset], *about: object) -> str:
    """A name for a table of what a run makes of data: other files of the run, other data or options have another."""
    files = [run.folder.model_folder / MANIFEST, run.path / "discovery" / "discovery.json"]
    described = [file.read_bytes() for file in files if file.exists()]
    parts = [described, [part.fingerprint() for part in datasets], BLOCK, about]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def write_in_blocks(
    makers: Sequence[Callable[[], pa.Table]],
    out: Path,
    key: Callable[[], str],
    look: Callable[[pa.Table], object] | None = None,
) -> int:
    """Write a table whose blocks are made one after the other; gives its number of rows.

    Several blocks are kept in a folder ``.NAME.parts`` beside ``out`` until all are made, and are then put together. A
    call that finds blocks of its own key there goes on after them. Within
    :func:`~regrain.training.processes.shared_out` all processes make the blocks, and the first one writes them.

    ``makers``: each makes the table of a block. ``out``: A .csv or .parquet file. ``key``: gives what the content
    depends on; see :func:`key_of`. ``look``: called with the table of every block, in their order.
    """
    import pyarrow.parquet

    writes = is_first_process()
    if len(makers) == 1:
        table = makers[0]()
        if look is not None:
            look(table)
        if writes:
            write_table(table, out)
        return int(table.num_rows)
    folder = out.parent / f".{out.name}.parts"
    found = from_first_process(_made(folder, key()) if writes else None)
    files = [folder / f"{number}.parquet" for number in range(len(makers))]
    rows = 0
    for number, (make, file) in enumerate(zip(makers, files, strict=True)):
        if number not in found:
            table = make()
            rows += table.num_rows
            if writes:
                replace_file(file, parquet_writer(table))
        else:
            rows += found[number]
            table = None if look is None else pyarrow.parquet.read_table(file)
        if look is not None:
            look(table)
    if writes:
        replace_file(out, joined_writer(files, out.suffix.lower()))
        shutil.rmtree(folder)
    return rows


def _made(folder: Path, key: str) -> dict[int, int]:
    """The blocks that are there, and their rows; blocks of another key are removed."""
    import pyarrow.parquet

    note = folder / "key"
    if not note.exists() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        replace_file(note, partial(Path.write_text, data=key))
    return {int(file.stem): pyarrow.parquet.read_metadata(file).num_rows for file in folder.glob("[0-9]*.parquet")}
