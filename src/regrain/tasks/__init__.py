"""What users do with data and runs beyond one training."""

from __future__ import annotations

from regrain.runs.answers import Answers, Calibration
from regrain.runs.classifier import FewShotClassifier
from regrain.tasks.attend import Attention
from regrain.tasks.discover import Discovery, Subclass
from regrain.tasks.regroup import Regrouping
from regrain.tasks.tune import Plan, Range, Trial, Tuning

__all__ = [
    "Answers",
    "Attention",
    "Calibration",
    "Discovery",
    "FewShotClassifier",
    "Plan",
    "Range",
    "Regrouping",
    "Subclass",
    "Trial",
    "Tuning",
]
