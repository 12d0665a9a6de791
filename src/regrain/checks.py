"""Settings: declared in constructor signatures and nowhere else, read and checked here."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from regrain.errors import UserError, nearest


def require_range(low: float, high: float = math.inf, *, above: bool = False, **settings: float) -> None:
    """Raise a UserError unless every setting lies in [low, high]; with ``above`` it must be greater than ``low``.

    Examples
    --------
    >>> require_range(0, 1, weight=2.0)
    Traceback (most recent call last):
    regrain.errors.UserError: weight lies in [0, 1]; got 2.0
    """
    for name, value in settings.items():
        if not low <= value <= high or (above and value == low):
            ends = f"is greater than {low:g}" if above else f"lies in [{low:g}, {high:g}]"
            raise UserError(f"{name} {ends}; got {value}", code="out_of_range")


def hyperparameters(owner: Any) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function or a constructor, those passed on to base classes by ``**`` included.

    Examples
    --------
    >>> class Base:
    ...     def __init__(self, x, *, momentum: float = 0.9): ...
    >>> class Sub(Base):
    ...     def __init__(self, x, *, weight: float = 1.0, **base): ...
    >>> list(hyperparameters(Sub))
    ['weight', 'momentum']
    """
    found: dict[str, inspect.Parameter] = {}
    constructors = (
        [vars(c)["__init__"] for c in owner.__mro__ if "__init__" in vars(c)] if inspect.isclass(owner) else [owner]
    )
    for constructor in constructors:
        parameters = inspect.signature(constructor, eval_str=True).parameters.values()
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


def check_values(values: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], owner: str) -> dict[str, Any]:
    """All settings of a section: the given values, checked and converted, and the signature's defaults for the rest.

    Raises
    ------
    UserError
        For an unknown key (the nearest is named) or a value of the wrong type.

    Examples
    --------
    >>> def method(*, weight: float = 1.0, size: int = 8): ...
    >>> check_values({"weight": "0.5"}, hyperparameters(method), "method")
    {'weight': 0.5, 'size': 8}
    """
    from pydantic import ValidationError  # here, for objectives and encoders load without it

    for key in values:
        if key not in parameters:
            hint = nearest(str(key), parameters) if parameters else "it has none"
            raise UserError(f"{owner} has no setting '{key}': {hint}", code="unknown_option")
    result = {}
    for name, parameter in parameters.items():
        if name not in values:
            if parameter.default is inspect.Parameter.empty:
                raise UserError(f"{owner} needs the setting '{name}'", code="missing_option")
            result[name] = parameter.default
            continue
        try:
            result[name] = _adapter(parameter.annotation).validate_python(values[name])
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            expected = _expected(parameter)
            raise UserError(
                f"{owner}.{name}: {values[name]!r} is no valid value ({expected} was expected): {problem}",
                code="out_of_range",
            ) from None
    return result


@cache
def _adapter(annotation: Any) -> Any:
    """What checks and converts a value; dear to make, and made once for every annotation."""
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)


def _expected(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
