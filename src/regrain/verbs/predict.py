"""``predict``: classes of samples as a table, and ``predict_proba``: their probabilities at one level."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor

from regrain.checks import Count
from regrain.cluster import Engine
from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.runs.blocks import blocks_of, helpers, key_of, tables_of, write_in_blocks
from regrain.runs.classifier import level_proba
from regrain.runs.prediction import predicted_columns
from regrain.runs.run import Run, get_split
from regrain.runs.subclass_model import read_discovery
from regrain.runs.tables import arrow_table, frame_of, require_writable, write_columns
from regrain.runs.verb import RunOrPath, verb

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from regrain.runs.blocks import Maker


@verb
def predict(
    run: RunOrPath,
    data: Any,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    engine: Engine = "processes",
    devices: Count = 1,
    **reader_options: Unpack[ReaderOptions],
) -> pd.DataFrame:
    """Predict classes: a table with id, split, and for each level its class and probability.

    A run of a method with a classifier predicts the level that it was trained on; an adapted run also the level of its
    support, and says which samples it abstains from: those are unlike all samples of the support. A run whose
    subclasses were discovered predicts ``subclass``, by the names that they have. A run that was calibrated adds its
    answer: the class of the most specific level that it is sure of, or none.

    Predictions of more than 8,192 samples that go into a file are computed and kept block by block: the same call,
    given again after it was stopped, goes on after the last block.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run, of a method that classifies or of `regrain adapt`.
    data
        A data set's name (`regrain datasets`), the path of a folder or table, or whatever :func:`load` reads. Labels in
        it are not looked at.
    out : path, optional
        The .csv or .parquet file to write.
    split : str, optional
        Only this split; default: all.
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
    DataFrame
        A row a sample: ``id``, the path of an image, ``split`` where there are splits, for each level its
        classes and ``LEVEL_probability``, ``subclass`` and ``subclass_probability`` of discovered ones, ``abstained``
        for an adapted run, and ``answer``, ``answer_level`` and ``answer_probability`` for a calibrated one.

    Raises
    ------
    UserError
        If the file's ending is unknown, the data do not fit the run, or the run cannot predict anything.
    """
    import pyarrow

    if out is not None:
        require_writable(Path(out), overwrite)
    made: list[pa.Table] = []
    with helpers(run, engine, devices) as (run, cluster):
        dataset = run.read(data, wanted="none", **reader_options)
        dataset = run.fitting(dataset if split is None else get_split(dataset.by_split(), split, dataset.name))
        blocks = blocks_of({"": dataset}, run, cluster)
        if cluster is None and (out is None or len(blocks) == 1):
            columns = _columns(run)(dataset)
            if out is not None:
                write_columns(columns, Path(out))
            return frame_of(columns)
        tables = partial(tables_of, run, _maker, cluster=cluster)
        if out is None:
            made += tables(blocks)
        else:
            write_in_blocks(tables, blocks, Path(out), lambda: key_of(run, [dataset]), made.append)
    whole = pyarrow.concat_tables(made)
    made.clear()
    return whole.to_pandas(split_blocks=True, self_destruct=True)  # column by column: held once, not twice


def _columns(run: Run) -> Callable[[Dataset], dict[str, Column]]:
    aids: dict[str, Any] = {"classifier": run.classifier, "subclasses": read_discovery(run), "selective": run.selective}
    return lambda block: predicted_columns(run.model, run.labels, block, **aids)


def _maker(run: Run) -> Maker:
    columns = _columns(run)
    return lambda split, block: arrow_table(columns(block))


@verb
def predict_proba(run: RunOrPath, data: Any, level: str, **reader_options: Unpack[ReaderOptions]) -> Tensor:
    """Predict class probabilities (N, classes) at a label level.

    Classes are in the order of ``run.labels.names(level)``, those of an adapted run's support in that of
    ``run.classifier.classes``.

    Parameters
    ----------
    data
        As :func:`predict` takes them.
    level : str
        The name of a level that the run was trained on, or adapted to.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        If the method does not predict that level, or the samples are unlike those that the run was trained on.
    """
    dataset = run.fitting(run.read(data, wanted="none", **reader_options))
    return level_proba(run.model, run.labels, dataset, level, run.classifier)
