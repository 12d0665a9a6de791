"""Regrain: representations and classifiers from labels of the wrong granularity.

``regrain.load``, ``regroup``, ``fit``, ``resume``, ``evaluate``, ``tune``, ``isotropy``, ``low_data``, ``label_noise``,
``reproduce``, ``discover``, ``attend``, ``adapt``, ``calibrate``, ``predict``, ``export``, ``Run`` are the public verbs
(:mod:`regrain.api`). They load on first use, so that ``import regrain.objectives`` brings torch and nothing else heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from regrain import registry

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
        load,
        predict,
        regroup,
        resume,
        tune,
    )
    from regrain.data.dataset import Dataset
    from regrain.errors import RegrainWarning, UserError
    from regrain.labels import Labels, Taxonomy
    from regrain.papers.curve import label_noise, low_data
    from regrain.papers.reproducing import reproduce
    from regrain.papers.swapping import isotropy

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
    "isotropy": "regrain.papers.swapping",
    "label_noise": "regrain.papers.curve",
    "low_data": "regrain.papers.curve",
    "reproduce": "regrain.papers.reproducing",
}
"""Where a public name lives that is not of :mod:`regrain.api`."""

registry.register_datasets("regrain.papers.datasets")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'regrain' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "regrain.api")), name)
