"""``embed``: embeddings of samples, in memory or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor
from torch.nn import functional

from regrain.checks import Count
from regrain.cluster import Engine
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.evaluation import embed as embeddings_of
from regrain.runs.blocks import blocks_of, helpers, key_of, tables_of, write_in_blocks
from regrain.runs.run import Run, get_split
from regrain.runs.source import require_no_reading
from regrain.runs.tables import embeddings_table, require_writable
from regrain.runs.verb import RunOrPath, verb

if TYPE_CHECKING:
    import pyarrow as pa

    from regrain.runs.blocks import Maker


@verb
def embed(
    run: RunOrPath,
    data: Any = None,
    *,
    split: str | None = None,
    normalise: bool = False,
    **reader_options: Unpack[ReaderOptions],
) -> Tensor:
    """Compute embeddings (N, width), float32 on the CPU, of data or of the run's own.

    Parameters
    ----------
    data : optional
        Whatever :func:`load` reads, read as the run's own data were; default: those.
    split : str, optional
        Default ``test`` of the run's own data, and all of others.
    normalise : bool
        Divide every embedding by its length, as cosine similarity does. An index of inner products or of Euclidean
        distances then ranks by cosine, as `regrain evaluate` does.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        If the samples are unlike those that the run was trained on, or there is no such split.
    """
    if data is None:
        require_no_reading(reader_options)
        dataset = get_split(run.splits(), split or "test", str(run.path))
    else:
        dataset = run.read(data, wanted="none", **reader_options)
        dataset = dataset if split is None else get_split(dataset.by_split(), split, dataset.name)
    vectors = embeddings_of(run.model, run.fitting(dataset))
    return functional.normalize(vectors, dim=1) if normalise else vectors


@verb
def export_embeddings(
    run: RunOrPath,
    out: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    levels: Sequence[str] | None = None,
    normalise: bool = False,
    overwrite: bool = False,
    engine: Engine = "processes",
    devices: Count = 1,
    **reader_options: Unpack[ReaderOptions],
) -> tuple[int, int]:
    """Write embeddings: a Parquet file with id, split, labels and one list of floats a sample.

    Embeddings of more than 8,192 samples are computed and kept block by block: the same command, given again after it
    was stopped, goes on after the last block.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run.
    out : path
        The Parquet file to write.
    data : optional
        Other data than the run's own: whatever :func:`load` reads, such as a path. They are read as the run's own were;
        a table may lack the labels.
    split : str, optional
        Only this split; default: all.
    levels : sequence of str, optional
        A label level (column) of other data, from coarse to fine.
    normalise : bool
        Divide every embedding by its length: an index of inner products or of distances then ranks by cosine.
    overwrite : bool
        Replace the file.
    engine : {"processes", "ray"}
        With ray, workers of a Ray cluster share the blocks out.
    devices : int
        How many workers of the cluster: each takes a GPU, or a core where there is none.
    **reader_options
        See :func:`load`.

    Returns
    -------
    tuple of int
        The numbers of rows and of dimensions.

    Raises
    ------
    UserError
        If the data do not fit the run, or have no such split, or the file would be lost.
    """
    import pyarrow.parquet

    require_writable(Path(out), overwrite, suffixes=(".parquet", ".pq"), content="embeddings")
    with helpers(run, engine, devices) as (run, cluster):
        dataset = run.given_or_own(data, reader_options, levels=levels)
        splits = run.splits() if dataset is None else dataset.by_split()
        if split is not None:
            splits = {split: get_split(splits, split, str(run.path) if dataset is None else dataset.name)}
        fitting = {name: run.fitting(part) for name, part in splits.items()}
        del dataset, splits  # whose ids and labels would be held twice
        tables = partial(tables_of, run, partial(_maker, normalise=normalise), cluster=cluster)
        blocks = blocks_of(fitting, run, cluster)
        rows = write_in_blocks(tables, blocks, Path(out), lambda: key_of(run, fitting.values(), normalise))
    return rows, pyarrow.parquet.read_schema(out).field("embedding").type.list_size


def _maker(run: Run, *, normalise: bool) -> Maker:
    def table(split: str, block: Dataset) -> pa.Table:
        vectors = embeddings_of(run.model, block)
        return embeddings_table(split, block, functional.normalize(vectors, dim=1) if normalise else vectors)

    return table
