"""Predicted classes of samples as columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import embed, level_probabilities
from regrain.labels import Labels
from regrain.model import Model
from regrain.runs.classifier import FewShotClassifier
from regrain.runs.selective import SelectiveClassifier, predicted_codes, taxonomy_of
from regrain.runs.subclass_model import SubclassModel


def predicted_columns(
    model: Model,
    labels: Labels,
    dataset: Dataset,
    *,
    classifier: FewShotClassifier | None = None,
    subclasses: SubclassModel | None = None,
    selective: SelectiveClassifier | None = None,
) -> dict[str, Column]:
    """``id``, ``split`` where there are splits, and for every level that can be predicted classes and probabilities.

    Parameters
    ----------
    labels : Labels
        The levels and classes the method was trained on.
    dataset : Dataset
        Its labels are not looked at.
    classifier : FewShotClassifier, optional
        Of an adapted run; it adds ``abstained``.
    subclasses : SubclassModel, optional
        The subclasses of a run that were discovered; they add ``subclass``, by name. Probabilities of subclasses of
        one name add up.
    selective : SelectiveClassifier, optional
        Of a calibrated run; they add ``answer``, ``answer_level`` and ``answer_probability``: none, none and the
        largest confidence where nothing is answered. Of aspects each has its ``LEVEL_answer``, none where the run is
        not sure, and ``LEVEL_answer_probability``.

    Raises
    ------
    UserError
        If neither the method classifies, nor subclasses were discovered, nor the run was adapted.
    """
    columns: dict[str, Column] = {"id": dataset.ids}
    if dataset.splits is not None:
        columns["split"] = dataset.splits
    own = len(columns)
    probabilities = level_probabilities(model, labels, dataset)
    codes = predicted_codes(probabilities, taxonomy_of(labels)) if probabilities else None
    for index, (level, values) in enumerate(probabilities.items()):
        if codes is not None and (classifier is None or level != classifier.level):
            names = [labels.names(level)[code] if code >= 0 else None for code in codes[:, index].tolist()]
            _put(columns, level, names, values.gather(1, codes[:, [index]].clamp(min=0))[:, 0].numpy())
    if selective is not None:
        _put_answers(columns, selective, probabilities, labels)
    if classifier is not None:
        named = classifier.name(embed(model, dataset))
        _put(
            columns,
            classifier.level,
            [classifier.classes[code] for code in named.codes.tolist()],
            named.probabilities.numpy(),
        )
        columns["abstained"] = named.abstained.numpy()
    if subclasses is not None:
        _put(columns, "subclass", *subclasses.names_of(model, dataset))
    if len(columns) == own:
        raise UserError(
            f"{model.method.name} learns embeddings and has no classifier: make one from a few labelled samples with "
            "`regrain adapt RUN --support FILE --out RUN2`, and predict with that, or find subclasses with "
            "`regrain discover RUN`",
            code="not_supported",
        )
    return columns


def _put_answers(
    columns: dict[str, Column], selective: SelectiveClassifier, probabilities: Mapping[str, Tensor], labels: Labels
) -> None:
    taxonomy = taxonomy_of(labels)
    if taxonomy is None:
        codes, sure, mass = selective.level_predictions(probabilities, None)
        for index, (level, threshold) in enumerate(zip(selective.levels, selective.thresholds, strict=True)):
            said = torch.zeros(len(sure), dtype=torch.bool) if threshold is None else mass[:, index] >= threshold
            pairs = zip(codes[:, index].tolist(), said.tolist(), strict=True)
            own = [labels.names(level)[code] if known else None for code, known in pairs]
            _put(columns, f"{level}_answer", own, sure[:, index].numpy())
        return
    answered = selective.predict(probabilities, taxonomy)
    names: list[str | None] = [None] * len(answered.level)
    levels = list(names)
    for row, index in enumerate(answered.level.tolist()):
        if index >= 0:
            levels[row] = selective.levels[index]
            names[row] = labels.names(selective.levels[index])[int(answered.codes[row, index])]
    confidence = answered.confidence.numpy()
    _add(columns, "answer", {"answer": names, "answer_level": levels, "answer_probability": confidence})


def _put(columns: dict[str, Column], level: str, names: Sequence[str | None], probabilities: np.ndarray) -> None:
    _add(columns, level, {level: names, f"{level}_probability": probabilities})


def _add(columns: dict[str, Column], level: str, added: Mapping[str, Column]) -> None:
    for column, values in added.items():
        if column in (*columns, "split", "abstained"):
            raise UserError(f"level '{level}' would write a second column '{column}': rename the level")
        columns[column] = values
