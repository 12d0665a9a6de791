"""``@verb``: makes a function a public verb."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from regrain.checks import checks_arguments
from regrain.errors import speaks_python
from regrain.runs.run import Run
from regrain.training.randomness import callers_random_state

Function = TypeVar("Function", bound=Callable[..., Any])

if TYPE_CHECKING:
    RunOrPath: TypeAlias = Any
else:
    RunOrPath = Run | str | Path
"""The first parameter of a verb of runs. Its body has a Run, whatever the caller gave: hence Any to type checkers."""


def verb(function: Function) -> Function:
    """A public verb: it checks its arguments, its errors speak Python, and the caller's random state stays as it was.

    Where the first parameter is ``run``, the path of a run's folder does too: the run is opened.
    """
    takes_run = next(iter(inspect.signature(function).parameters)) == "run"
    checked = checks_arguments(function)
    return cast(Function, speaks_python(callers_random_state()(_opening_run(checked) if takes_run else checked)))


def _opening_run(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if given:
            given = (_opened(given[0]), *given[1:])
        elif "run" in named:
            named["run"] = _opened(named["run"])
        return function(*given, **named)

    return call


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run.open(run)
