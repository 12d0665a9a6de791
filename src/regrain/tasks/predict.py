"""Predicted classes of samples as a table: CSV or Parquet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import apply_model, embed
from regrain.labels import Labels
from regrain.methods import Method
from regrain.tasks.classifier import FewShotClassifier
from regrain.training.model import Model

__all__ = ["predicted_columns", "require_writable", "write_columns"]

_SUFFIXES = (".csv", ".parquet", ".pq")


def predicted_columns(
    model: Model, labels: Labels, classifier: FewShotClassifier | None, dataset: Dataset
) -> dict[str, Column]:
    """One column of class names and one of probabilities for every level that can be predicted.

    Parameters
    ----------
    model : Model
    labels : Labels
        The levels and classes the method was trained on.
    classifier : FewShotClassifier, optional
        Of an adapted run; it adds ``abstained``.
    dataset : Dataset

    Raises
    ------
    UserError
        If neither the method classifies nor the run was adapted.
    """
    columns: dict[str, Column] = {}
    if type(model.method).predict_proba is not Method.predict_proba:
        for role, level, names in zip(model.method.needs.levels, labels.levels, labels.classes, strict=True):
            if classifier is None or level != classifier.level:
                _put(columns, level, *_most_probable(_class_probabilities(model, dataset, role), names))
    if classifier is not None:
        named = classifier.name(embed(model, dataset))
        _put(
            columns,
            classifier.level,
            [classifier.classes[code] for code in named.codes.tolist()],
            named.probabilities.numpy(),
        )
        columns["abstained"] = named.abstained.numpy()
    if not columns:
        raise UserError(
            f"{model.method.name} learns embeddings and has no classifier: make one from a few labelled samples with "
            "`regrain adapt RUN --support FILE --out RUN2`, and predict with that"
        )
    return columns


def require_writable(out: Path, overwrite: bool) -> None:
    """Raise a UserError, before anything is computed, where the result could not be written."""
    if out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"{out} ends in '{out.suffix}': predictions are written to {', '.join(_SUFFIXES)}")
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite")


def write_columns(columns: Mapping[str, Column], out: Path) -> None:
    """Write a table to a temporary name, then rename it."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    table = pa.table(dict(columns))
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        if out.suffix.lower() == ".csv":
            pa.csv.write_csv(table, temporary)
        else:
            pa.parquet.write_table(table, temporary, compression="zstd")
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def _put(columns: dict[str, Column], level: str, names: Sequence[str], probabilities: np.ndarray) -> None:
    both: dict[str, Column] = {level: names, f"{level}_probability": probabilities}
    for column, values in both.items():
        if column in (*columns, "id", "split", "abstained"):
            raise UserError(f"level '{level}' would write a second column '{column}': rename the level")
        columns[column] = values


def _class_probabilities(model: Model, dataset: Dataset, role: str) -> Tensor:
    return apply_model(model, dataset, lambda x: model.method.predict_proba(x, role))


def _most_probable(probabilities: Tensor, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    best, codes = probabilities.max(dim=1)
    return [names[code] for code in codes.tolist()], best.numpy()
