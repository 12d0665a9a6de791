"""Data sets by name: packages above the readers register them here, and the readers look names up.

A registered module has ``entries()``, a mapping whose keys are the names; ``rows(name, **options)``, which reads one;
and ``CatalogOptions``, a TypedDict of those options.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

_modules: list[str] = []


def register_datasets(module: str) -> None:
    """Let the readers know the data sets of a module, which is imported when a name is first looked up.

    Examples
    --------
    >>> register_datasets("regrain.papers.datasets")  # as ``import regrain`` does; a second time changes nothing
    >>> "digits" in dataset_names()
    True
    """
    if module not in _modules:
        _modules.append(module)


def dataset_names() -> list[str]:
    """All names, in the order of registration."""
    return [name for module in map(import_module, _modules) for name in module.entries()]


def catalogue_of(name: str) -> ModuleType | None:
    """The registered module that has a data set of this name, or None.

    Examples
    --------
    >>> catalogue_of("digits").__name__, catalogue_of("digitz")
    ('regrain.papers.datasets', None)
    """
    return next((module for module in map(import_module, _modules) if name in module.entries()), None)
