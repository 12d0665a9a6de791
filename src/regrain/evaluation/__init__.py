"""Protocols: how a model is judged on data."""

from __future__ import annotations

from regrain.evaluation.base import Representation, Score, Setting
from regrain.evaluation.criteria import CRITERIA, criterion_values, obstacles
from regrain.evaluation.embed import apply_model, embed, level_probabilities
from regrain.evaluation.evaluate import (
    PROTOCOLS,
    TOGETHER,
    Evaluation,
    Row,
    evaluate_model,
    own_probabilities,
    require_protocols,
)

__all__ = [
    "CRITERIA",
    "PROTOCOLS",
    "TOGETHER",
    "Evaluation",
    "Representation",
    "Row",
    "Score",
    "Setting",
    "apply_model",
    "criterion_values",
    "embed",
    "evaluate_model",
    "level_probabilities",
    "obstacles",
    "own_probabilities",
    "require_protocols",
]
