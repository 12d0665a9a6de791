"""How a model is evaluated: protocols, one file a family, and criteria for choosing settings."""

from __future__ import annotations

from regrain.evaluation.criteria import CRITERIA, criterion_values, obstacles
from regrain.evaluation.embedding import apply_model, embed, level_probabilities
from regrain.evaluation.evaluate import PROTOCOLS, chosen_protocols, evaluate_model
from regrain.evaluation.protocols import Protocol, Representation, Score, Task, protocol
from regrain.evaluation.representations import own_probabilities
from regrain.evaluation.results import Evaluation, Finding, Row

__all__ = ["CRITERIA", "PROTOCOLS", "Evaluation", "Finding", "Protocol", "Representation", "Row", "Score", "Task",
           "apply_model", "chosen_protocols", "criterion_values", "embed", "evaluate_model", "level_probabilities",
           "obstacles", "own_probabilities", "protocol"]  # fmt: skip
