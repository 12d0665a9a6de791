"""Tables of very many rows, made block by block: one that was stopped goes on after its last block."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from regrain.cluster import Cluster, Engine, cluster_of
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.processes import from_first_process, is_first_process
from regrain.runs.run import Run
from regrain.runs.tables import joined_writer, parquet_writer, read_table, write_table
from regrain.storage.files import MANIFEST, hidden_beside, replace_file
from regrain.training.device import Precision

if TYPE_CHECKING:
    import pyarrow as pa

    Maker: TypeAlias = Callable[[str, Dataset], pa.Table]
    """Makes the table of a block from the name of its split, and its samples."""

BLOCK = 2**13
"""Rows that are computed and written at once."""


class Block(NamedTuple):
    """Rows of a split that are computed and written at once."""

    split: str
    whole: Dataset
    rows: range

    def samples(self) -> Dataset:
        return self.whole if len(self.rows) == len(self.whole) else self.whole.select(self.rows)

    def sent(self) -> Dataset:
        """The samples without those of other blocks, which a selection in memory still refers to."""
        found = self.samples()
        if not isinstance(found.samples, TensorSamples):
            return found
        return replace(found, samples=TensorSamples(found.samples.tensor, found.modality))


@contextmanager
def helpers(run: Run, engine: Engine, devices: int) -> Iterator[tuple[Run, Cluster | None]]:
    """The run, and the Ray cluster that a verb was asked to apply it on, or None.

    Raises
    ------
    UserError
        If the cluster is not there, or ``devices`` are asked for without it.
    """
    with cluster_of(engine, devices, run.device, alone=True) as cluster:
        yield (run if cluster is None else replace(run, device="cpu")), cluster  # which reads the data, and no more


def blocks_of(splits: Mapping[str, Dataset], run: Run, cluster: Cluster | None = None) -> list[Block]:
    """The blocks of all splits, in their order.

    A split is one block where a frozen backbone's features are cached for the whole; a cluster's workers share it out.
    """
    caches = run.model.backbone is not None and cluster is None
    blocks = []
    for name, dataset in splits.items():
        step = max(1, len(dataset)) if caches else BLOCK
        starts = range(0, max(1, len(dataset)), step)
        blocks += [Block(name, dataset, range(start, min(start + step, len(dataset)))) for start in starts]
    return blocks


def key_of(run: Run, datasets: Iterable[Dataset], *about: object) -> str:
    """A name for a table of what a run makes of data: other files of the run, other data or options have another."""
    files = [run.folder.model_folder / MANIFEST, run.path / "discovery" / "discovery.json"]
    described = [file.read_bytes() for file in files if file.exists()]
    parts = [described, [part.fingerprint() for part in datasets], BLOCK, about]
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()


def tables_of(
    run: Run, prepare: Callable[[Run], Maker], blocks: Sequence[Block], cluster: Cluster | None = None
) -> Iterator[pa.Table]:
    """The tables of blocks, in their order, computed here or by a cluster's workers.

    ``prepare``: called once by each process, with the run; makes the function that makes the tables.
    """
    if cluster is None:
        make = prepare(run)
        return (make(block.split, block.samples()) for block in blocks)
    opened = partial(_opened, run.path.absolute(), cluster.device, run.precision, run.folder.verify, prepare)
    return cluster.map(opened, ((block.split, block.sent()) for block in blocks))


def _opened(
    path: Path,
    device: Literal["cpu", "cuda"],
    precision: Precision | None,
    verify: bool,
    prepare: Callable[[Run], Maker],
) -> Callable[[tuple[str, Dataset]], pa.Table]:
    """The function of a cluster's worker, which opens the run itself."""
    make = prepare(Run.open(path, device=device, precision=precision, verify=verify))
    return lambda block: make(*block)


def write_in_blocks(
    tables: Callable[[Sequence[Block]], Iterator[pa.Table]],
    blocks: Sequence[Block],
    out: Path,
    key: Callable[[], str],
    look: Callable[[pa.Table], object] | None = None,
) -> int:
    """Write a table whose blocks are made one after the other; gives its number of rows.

    Several blocks are kept in a folder ``.NAME.parts`` beside ``out`` until all are made, and are then put together. A
    call that finds blocks of its own key there goes on after them. Within
    :func:`~regrain.processes.shared_out` all processes make the blocks, and the first one writes them.

    ``tables``: makes the tables of blocks. ``out``: A .csv or .parquet file. ``key``: gives what the content depends
    on; see :func:`key_of`. ``look``: called with the table of every block, in their order,
    when all are made.
    """
    writes = is_first_process()
    if len(blocks) == 1:
        (table,) = tables(blocks)
        if look is not None:
            look(table)
        if writes:
            write_table(table, out)
        return int(table.num_rows)
    folder = hidden_beside(out, "parts")
    found = from_first_process(_made(folder, key()) if writes else None)
    files = [folder / f"{number}.parquet" for number in range(len(blocks))]
    made = tables([block for number, block in enumerate(blocks) if number not in found])
    rows, held = 0, []
    for number, file in enumerate(files):
        if number not in found:
            table = next(made)
            rows += table.num_rows
            if writes:
                replace_file(file, parquet_writer(table))
            elif look is not None:
                held.append(table)
            del table  # read again it takes half of the memory
        else:
            rows += found[number]
            if look is not None and not writes:
                held.append(read_table(file))
    if look is not None:
        for table in map(read_table, files) if writes else held:
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
