"""``predict``: classes of samples as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from regrain.runs.discovery import read_discovery
from regrain.runs.plan import with_split
from regrain.runs.prediction import predicted_columns
from regrain.runs.run import Run
from regrain.runs.tables import require_writable, write_columns
from regrain.training.randomness import callers_random_state


@callers_random_state()
def predict(
    run: Run | str | Path,
    data: Any,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> pd.DataFrame:
    """Predict the class of every sample at every level that a run can predict.

    A run of a method with a classifier predicts the level that it was trained on; an adapted run also the level of its
    support, and says which samples it abstains from: those are unlike all samples of the support. A run whose
    subclasses were discovered predicts ``subclass``, by the names that they have. A run that was calibrated adds its
    answer: the class of the most specific level that it is sure of, or none.

    Parameters
    ----------
    run : Run or path
    data
        A Dataset, or whatever :func:`load` reads; labels in it are not looked at.
    out : path, optional
        A table to write, too; ends in ``.csv`` or ``.parquet``.
    split : str, optional
        Only this split; default all.
    overwrite : bool
        Replace the file.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    DataFrame
        A row a sample: ``id``, the path of an image, ``split`` where there are splits, for each level its
        classes and ``LEVEL_probability``, ``subclass`` and ``subclass_probability`` of discovered ones, ``abstained``
        for an adapted run, and ``answer``, ``answer_level`` and ``answer_probability`` for a calibrated one.

    Raises
    ------
    UserError
        If the file's ending is unknown, the data do not fit the run, or it has nothing to predict with.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if out is not None:
        require_writable(Path(out), overwrite)
    dataset = run.read(data, labels="none", **with_split(reader_options, split_column))
    dataset = run.fitting(dataset if split is None else dataset.split(split))
    columns = predicted_columns(
        run.model,
        run.labels,
        dataset,
        classifier=run.classifier,
        settled=read_discovery(run),
        answers=run.answers,
    )
    if out is not None:
        write_columns(columns, Path(out))
    return pd.DataFrame(columns)
