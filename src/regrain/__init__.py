"""Regrain: representations and classifiers from labels of the wrong granularity.

``regrain.load``, ``regroup``, ``fit``, ``resume``, ``evaluate``, ``tune``, ``isotropy``, ``low_data``, ``label_noise``,
``discover``, ``attend``, ``adapt``, ``calibrate``, ``predict``, ``export``, ``Run`` are the public verbs
(:mod:`regrain.api`). They load on first use, so that ``import regrain.objectives`` brings torch and nothing else heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regrain.api import (
        Run,
        adapt,
        attend,
        calibrate,
        discover,
        evaluate,
        export,
        fit,
        isotropy,
        label_noise,
        load,
        low_data,
        predict,
        regroup,
        reproduce,
        resume,
        tune,
    )
    from regrain.data.dataset import Dataset
    from regrain.errors import RegrainWarning, UserError
    from regrain.labels import Labels, Taxonomy

__all__ = [
    "Dataset",
    "Labels",
    "RegrainWarning",
    "Run",
    "Taxonomy",
    "UserError",
    "adapt",
    "attend",
    "calibrate",
    "discover",
    "evaluate",
    "export",
    "fit",
    "isotropy",
    "label_noise",
    "load",
    "low_data",
    "predict",
    "regroup",
    "reproduce",
    "resume",
    "tune",
]

_HOMES = {
    "regrain.api": (
        "Run",
        "adapt",
        "attend",
        "calibrate",
        "discover",
        "evaluate",
        "export",
        "fit",
        "isotropy",
        "label_noise",
        "load",
        "low_data",
        "predict",
        "regroup",
        "reproduce",
        "resume",
        "tune",
    ),
    "regrain.data.dataset": ("Dataset",),
    "regrain.errors": ("RegrainWarning", "UserError"),
    "regrain.labels": ("Labels", "Taxonomy"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'regrain' has no attribute '{name}'")
