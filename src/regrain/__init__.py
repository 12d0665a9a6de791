"""Regrain: representations and classifiers from labels of the wrong granularity.

``regrain.load``, ``regroup``, ``fit``, ``resume``, ``evaluate``, ``tune``, ``isotropy``, ``low_data``, ``label_noise``,
``reproduce``, ``discover``, ``attend``, ``adapt``, ``calibrate``, ``predict``, ``export``, ``Run`` are the public verbs
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
    "Dataset": "regrain.data.dataset",
    "Labels": "regrain.labels",
    "RegrainWarning": "regrain.errors",
    "Taxonomy": "regrain.labels",
    "UserError": "regrain.errors",
}
"""Where what is no verb lives; the verbs are those of :mod:`regrain.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'regrain' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "regrain.api")), name)
