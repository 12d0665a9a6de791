"""``embed``: embeddings, in memory or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regrain.errors import UserError
from regrain.runs.plan import with_split
from regrain.runs.run import Run, get_split
from regrain.runs.source import require_no_reading
from regrain.runs.tables import require_writable, write_embeddings
from regrain.training.processes import is_first_process
from regrain.training.randomness import callers_random_state

_OWN_LEVELS = (
    "levels (--level) name those of other data: leave them out, or give --data; the run's own are in its recipe"
)


@callers_random_state()
def export_embeddings(
    run: Run | str | Path,
    out: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    levels: Sequence[str] | None = None,
    overwrite: bool = False,
    split_column: str | None = None,
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
    overwrite : bool
        Replace the file.
    levels, split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    (rows, width)

    Raises
    ------
    UserError
        If the data do not fit the run, or have no such split, or the file would be lost.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    require_writable(Path(out), overwrite, suffixes=(".parquet", ".pq"), content="embeddings")
    if levels is None and run.finds_own(data, with_split(reader_options, split_column)):
        data, split_column, reader_options = None, None, {}
    if data is None:
        require_no_reading(with_split(reader_options, split_column))
        if levels is not None:
            raise UserError(_OWN_LEVELS)
        parts, where = run.splits(), str(run.path)
    else:
        dataset = run.read(data, **with_split(reader_options, split_column), levels=levels)
        parts = {n: dataset.split(n) for n in dataset.split_names} if dataset.splits is not None else {"": dataset}
        where = dataset.name
    if split is not None:
        parts = {split: get_split(parts, split, where)}
    embedded = {name: (part, run.embed(part)) for name, part in parts.items()}
    if is_first_process():
        return write_embeddings(embedded, Path(out))
    return sum(len(part) for part in parts.values()), next(iter(embedded.values()))[1].shape[1]
