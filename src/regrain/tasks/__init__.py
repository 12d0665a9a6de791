"""What users do with data and runs beyond one training."""

from __future__ import annotations

from regrain.tasks.classifier import FewShotClassifier
from regrain.tasks.tune import Plan, Range, Trial, Tuning

__all__ = ["FewShotClassifier", "Plan", "Range", "Trial", "Tuning"]
