"""The public verbs: load and regroup data, fit, resume, open a run, evaluate, adapt, calibrate, predict, export."""

from __future__ import annotations

from regrain.api.data import load, regroup
from regrain.api.judging import evaluate
from regrain.api.runs import adapt, attend, calibrate, discover, export, export_embeddings, predict
from regrain.api.training import fit, resume
from regrain.api.tuning import tune
from regrain.runs.run import Run

__all__ = [
    "Run",
    "adapt",
    "attend",
    "calibrate",
    "discover",
    "evaluate",
    "export",
    "export_embeddings",
    "fit",
    "load",
    "predict",
    "regroup",
    "resume",
    "tune",
]
