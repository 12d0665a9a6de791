"""Protocols: how a model is judged on data."""

from __future__ import annotations

from regrain.evaluation.base import Representation, Score, Setting
from regrain.evaluation.embed import apply_model, embed
from regrain.evaluation.evaluate import PROTOCOLS, Evaluation, Row, evaluate_model

__all__ = [
    "PROTOCOLS",
    "Evaluation",
    "Representation",
    "Row",
    "Score",
    "Setting",
    "apply_model",
    "embed",
    "evaluate_model",
]
