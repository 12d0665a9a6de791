"""Registry of objects from higher layers, looked up by name: data sets for the readers, verbs for runs.

A registered module of data sets has ``entries()``, a mapping whose keys are the names; ``rows(name, **options)``, which
reads one; and ``CatalogOptions``, a TypedDict of those options.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from regrain.errors import UserError

_modules: list[str] = []
_verbs: dict[str, str] = {}


def register_datasets(module: str) -> None:
    """Register a module's data sets for the readers; it is imported when a name is first looked up.

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


def register_verbs(modules: Mapping[str, str]) -> None:
    """Register verbs as methods of runs: a mapping of function name to module; the first parameter is the run."""
    _verbs.update(modules)


def verbs_of_runs() -> dict[str, str]:
    """The names of the verbs that runs have as methods, and their modules."""
    return dict(_verbs)


def verb_of_runs(name: str) -> Callable[..., Any]:
    """Return a registered verb; its module is imported at the first look-up.

    Examples
    --------
    >>> verb_of_runs("evaluate").__module__
    'regrain.verbs.evaluate'
    """
    return getattr(import_module(_verbs[name]), name)


def is_url(source: object) -> bool:
    """Whether a source is in an object store, such as ``s3://bucket/photos``.

    Examples
    --------
    >>> is_url("s3://bucket/photos"), is_url("photos/")
    (True, False)
    """
    return isinstance(source, str) and "://" in source


def no_source(source: str) -> UserError:
    """The error of a name that is neither a path nor a data set.

    Examples
    --------
    >>> str(no_source("digitz")), str(no_source("my-photos/"))  # doctest: +NORMALIZE_WHITESPACE
    ("no file, folder or data set 'digitz': did you mean 'digits'?",
     "no file, folder or data set 'my-photos/'; `regrain datasets` lists the data sets that have a name")
    """
    name = source.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    close = difflib.get_close_matches(name, dataset_names(), n=1)
    hint = f": did you mean '{close[0]}'?" if close else "; `regrain datasets` lists the data sets that have a name"
    return UserError(f"no file, folder or data set '{source}'{hint}", code="unknown_name")
