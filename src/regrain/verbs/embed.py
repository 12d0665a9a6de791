"""``embed``: embeddings of samples, in memory or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from regrain.evaluation import embed as embeddings_of
from regrain.runs.run import get_split
from regrain.runs.source import require_no_reading
from regrain.runs.tables import require_writable, write_embeddings
from regrain.runs.verb import RunOrPath, verb
from regrain.training.processes import is_first_process


@verb
def embed(run: RunOrPath, data: Any = None, *, split: str | None = None, **reader_options: Any) -> Tensor:
    """Embeddings (N, width), float32 on the CPU, of data or of the run's own.

    Parameters
    ----------
    run : Run or path
    data : optional
        Whatever :func:`load` reads, read as the run's own data were; default: those.
    split : str, optional
        Default ``test`` of the run's own data, and all of others.
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
        dataset = dataset if split is None else dataset.split(split)
    return embeddings_of(run.model, run.fitting(dataset))


@verb
def export_embeddings(
    run: RunOrPath,
    out: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    levels: Sequence[str] | None = None,
    overwrite: bool = False,
    **reader_options: Any,
) -> tuple[int, int]:
    """Write embeddings as Parquet: id, split, one column of class names a level, and ``embedding``, a list of float32.

    Parameters
    ----------
    run : Run or path
    out : path
        A .parquet file.
    data : optional
        Default: the run's own. Others are read as those were; a table may lack the labels.
    split : str, optional
        Only this split; default all.
    levels : sequence of str, optional
        Label levels of ``data``.
    overwrite : bool
        Replace the file.
    **reader_options
        See :func:`load`.

    Returns
    -------
    (rows, width)

    Raises
    ------
    UserError
        If the data do not fit the run, or have no such split, or the file would be lost.
    """
    require_writable(Path(out), overwrite, suffixes=(".parquet", ".pq"), content="embeddings")
    dataset = run.given_or_own(data, reader_options, levels=levels)
    splits = run.splits() if dataset is None else dataset.by_split()
    if split is not None:
        splits = {split: get_split(splits, split, str(run.path) if dataset is None else dataset.name)}
    embedded = {name: (part, embeddings_of(run.model, run.fitting(part))) for name, part in splits.items()}
    if is_first_process():
        return write_embeddings(embedded, Path(out))
    return sum(len(part) for part in splits.values()), next(iter(embedded.values()))[1].shape[1]
