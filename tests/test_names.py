"""Names of the package: a module is reached by its name, and a name means one thing."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict
from types import ModuleType

import regrain

MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(regrain.__path__, "regrain.")]

STILL_SHADOWED = {"regrain.cli.main"}
STILL_TWICE = {"embed"}


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    hidden = set()
    for module in MODULES:
        package, _, name = module.__name__.rpartition(".")
        if not isinstance(getattr(importlib.import_module(package), name), ModuleType):
            hidden.add(module.__name__)
    assert hidden <= STILL_SHADOWED


def test_no_two_public_functions_have_one_name() -> None:
    """A command is named as the function that it runs, so those of the command line do not count."""
    homes: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        if module.__name__.startswith("regrain.cli"):
            continue
        for name, _ in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_"):
                function = inspect.unwrap(getattr(module, name))
                if function.__module__.startswith("regrain."):
                    homes[name].add(function.__module__)
    assert {name: found for name, found in homes.items() if len(found) > 1}.keys() <= STILL_TWICE


def test_no_two_classes_have_one_name() -> None:
    homes: dict[str, set[str]] = defaultdict(set)
    for module in MODULES:
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if not name.startswith("_") and kind.__module__ == module.__name__:
                homes[name].add(module.__name__)
    assert not {name: found for name, found in homes.items() if len(found) > 1}
