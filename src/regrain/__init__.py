"""Regrain: representations and classifiers from labels of the wrong granularity.

``regrain.load``, ``regroup``, ``fit``, ``resume`` and ``tune`` are functions; ``evaluate``, ``embed``, ``discover``,
``adapt``, ``calibrate``, ``predict``, ``attend``, ``export`` and their like are functions of a run, or of its path, and
methods of :class:`Run`. They load on first use, so that ``import regrain.objectives`` brings torch and nothing else
heavy.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from regrain import registry

__version__ = metadata.version("regrain")

if TYPE_CHECKING:
    from regrain.automatic import auto
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
    from regrain.verbs.clean import clean
    from regrain.verbs.convert import convert
    from regrain.verbs.discover import discover
    from regrain.verbs.embed import embed, export_embeddings
    from regrain.verbs.evaluate import evaluate
    from regrain.verbs.export import export, push_to_hub
    from regrain.verbs.fit import fit
    from regrain.verbs.load import load
    from regrain.verbs.predict import predict, predict_proba
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
    "auto",
    "calibrate",
    "clean",
    "convert",
    "discover",
    "embed",
    "evaluate",
    "export",
    "export_embeddings",
    "fit",
    "isotropy",
    "label_noise",
    "load",
    "low_data",
    "predict",
    "predict_proba",
    "push_to_hub",
    "regroup",
    "reproduce",
    "resume",
    "tune",
]

_VERBS = {
    name: f"regrain.verbs.{module}"
    for module, names in {
        "adapt": ("adapt",),
        "attend": ("attend",),
        "calibrate": ("calibrate",),
        "clean": ("clean",),
        "discover": ("discover",),
        "embed": ("embed", "export_embeddings"),
        "evaluate": ("evaluate",),
        "export": ("export", "push_to_hub"),
        "predict": ("predict", "predict_proba"),
    }.items()
    for name in names
}
"""The verbs that begin with a run, which runs have as methods, and their modules."""

_HOMES = {
    **_VERBS,
    **{name: f"regrain.verbs.{name}" for name in ("convert", "fit", "load", "regroup", "resume", "tune")},
    "Dataset": "regrain.data.dataset",
    "DataWarning": "regrain.errors",
    "Labels": "regrain.labels",
    "RegrainWarning": "regrain.errors",
    "Run": "regrain.runs.run",
    "Taxonomy": "regrain.labels",
    "UserError": "regrain.errors",
    "auto": "regrain.automatic",
    "isotropy": "regrain.papers.swapping",
    "label_noise": "regrain.papers.curve",
    "low_data": "regrain.papers.curve",
    "reproduce": "regrain.papers.reproducing",
}
"""The module of every public name."""

registry.register_datasets("regrain.papers.datasets")
registry.register_verbs(_VERBS)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'regrain' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
