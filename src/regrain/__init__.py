"""Regrain: representations and classifiers from labels of the wrong granularity.

``regrain.load``, ``regroup``, ``fit``, ``resume``, ``evaluate``, ``tune``, ``isotropy``, ``low_data``, ``label_noise``,
``reproduce``, ``discover``, ``attend``, ``adapt``, ``calibrate``, ``predict``, ``export``, ``export_embeddings`` are
the public verbs (:mod:`regrain.verbs`). They load on first use, so that ``import regrain.objectives`` brings torch and
nothing else heavy.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module, metadata
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from regrain import registry

__version__ = metadata.version("regrain")

if TYPE_CHECKING:
    from regrain.data.dataset import Dataset
    from regrain.errors import DataWarning, RegrainWarning, UserError
    from regrain.labels import Labels, Taxonomy
    from regrain.papers.curve import label_noise, low_data
    from regrain.papers.reproducing import reproduce
    from regrain.papers.swapping import isotropy
    from regrain.runs.run import Run
    from regrain.verbs.adapt import adapt
    from regrain.verbs.attend import attend
    from regrain.verbs.calibrate import calibrate
    from regrain.verbs.discover import discover
    from regrain.verbs.embed import export_embeddings
    from regrain.verbs.evaluate import evaluate
    from regrain.verbs.export import export
    from regrain.verbs.fit import fit
    from regrain.verbs.load import load
    from regrain.verbs.predict import predict
    from regrain.verbs.regroup import regroup
    from regrain.verbs.resume import resume
    from regrain.verbs.tune import tune

__all__ = [
    "DataWarning",
    "Dataset",
    "Labels",
    "RegrainWarning",
    "Run",
    "Taxonomy",
    "UserError",
    "__version__",
    "adapt",
    "attend",
    "calibrate",
    "discover",
    "evaluate",
    "export",
    "export_embeddings",
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
    "DataWarning": "regrain.errors",
    "Labels": "regrain.labels",
    "RegrainWarning": "regrain.errors",
    "Run": "regrain.runs.run",
    "Taxonomy": "regrain.labels",
    "UserError": "regrain.errors",
    "export_embeddings": "regrain.verbs.embed",
    "isotropy": "regrain.papers.swapping",
    "label_noise": "regrain.papers.curve",
    "low_data": "regrain.papers.curve",
    "reproduce": "regrain.papers.reproducing",
}
"""Where a public name lives that is not a verb with a file of its own name."""

registry.register_datasets("regrain.papers.datasets")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'regrain' has no attribute '{name}'")
    found = getattr(import_module(_HOMES.get(name, f"regrain.verbs.{name}")), name)
    return _spoken(found) if isfunction(found) else found


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


@cache
def _spoken(verb: Any) -> Any:
    """A verb whose errors are in Python's words."""
    from regrain.errors import speaks_python

    return speaks_python(verb)
