"""Read and check settings, which are declared only in signatures, with their ranges as annotations."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, Predicate

from regrain.errors import UserError, nearest
from regrain.registry import is_url

Positive = Annotated[float, Gt(0), Lt(math.inf)]
NonNegative = Annotated[float, Ge(0), Lt(math.inf)]
Share = Annotated[float, Ge(0), Le(1)]
PositiveShare = Annotated[float, Gt(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Count = Annotated[int, Ge(1)]
CountFromZero = Annotated[int, Ge(0)]
"""A count, which may be 0."""
Several = Annotated[int, Ge(2)]
Seed = Annotated[int, Ge(0), Le(4_294_967_295)]

_IN_ORDER = Predicate(lambda pair: pair[0] <= pair[1])
PositiveRange = Annotated[tuple[Positive, Positive], _IN_ORDER]
ShareRange = Annotated[tuple[PositiveShare, PositiveShare], _IN_ORDER]
"""A range from the first number to the second."""

PathOrAddress = Annotated[str | Path, "address"]
"""A path, or an address in an object store, such as ``s3://bucket/photos``, which no other path may be."""

_NOUNS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", Path: "a path"}

Class = TypeVar("Class", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])


def hyperparameters(owner: Any) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a function or constructor, those passed to bases by ``**`` included.

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
        parameters = _parameters(constructor)
        for parameter in parameters:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                found.setdefault(parameter.name, parameter)
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return found


def check_values(values: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], owner: str) -> dict[str, Any]:
    """Return all settings of a section: the given values, checked and converted, and the defaults for the rest.

    Raises a UserError for an unknown key (the nearest is named), a value of the wrong type or out of range.

    Examples
    --------
    >>> def method(*, weight: Share = 1.0, size: Count = 8): ...
    >>> check_values({"weight": "0.5"}, hyperparameters(method), "method")
    {'weight': 0.5, 'size': 8}
    >>> check_values({"weight": 2}, hyperparameters(method), "method")
    Traceback (most recent call last):
    regrain.errors.UserError: method.weight must be between 0 and 1; got 2
    """
    for key in values:
        if key not in parameters:
            hint = nearest(str(key), parameters) if parameters else "it has none"
            raise UserError(f"{owner} has no setting '{key}': {hint}", code="unknown_option")
    result = {}
    for name, parameter in parameters.items():
        if name in values:
            result[name] = _checked(values[name], parameter.annotation, f"{owner}.{name}")
        elif parameter.default is inspect.Parameter.empty:
            raise UserError(f"{owner} needs the setting '{name}'", code="missing_option")
        else:
            result[name] = parameter.default
    return result


def checks_settings(cls: Class) -> Class:
    """Let a class's own constructor check and convert its keyword-only arguments as :func:`check_values` does.

    An attribute ``name`` of the class is what messages call it.

    Examples
    --------
    >>> @checks_settings
    ... class Method:
    ...     name = "method"
    ...     def __init__(self, *, momentum: BelowOne = 0.9): ...
    >>> Method(momentum=1)
    Traceback (most recent call last):
    regrain.errors.UserError: method.momentum must be at least 0 and below 1; got 1
    """
    constructor = vars(cls).get("__init__")
    if constructor is None:
        return cls

    @functools.wraps(constructor)
    def checked(self: Any, *args: Any, **given: Any) -> None:
        owner = getattr(type(self), "name", type(self).__name__)
        for parameter in _parameters(constructor):
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name in given:
                name, value = parameter.name, given[parameter.name]
                given[name] = _checked(value, parameter.annotation, f"{owner}.{name}")
        constructor(self, *args, **given)

    cls.__init__ = checked  # type: ignore[misc]
    return cls


def checks_arguments(function: Function) -> Function:
    """Let a function refuse arguments that are not of the type which its annotations say.

    Numbers, true and false are checked and converted as :func:`check_values` does. A path is a text or a path, and a
    ``~`` at its beginning is the home folder. One text is not a list of texts, a dictionary is a mapping, and a
    function can be called. Any other annotation is left to the function.

    Examples
    --------
    >>> @checks_arguments
    ... def verb(*, levels: Sequence[str] = (), out: str | Path = "", seed: Seed = 0): ...
    >>> for given in ({"levels": "kind"}, {"out": 5}, {"seed": "a"}):
    ...     try:
    ...         verb(**given)
    ...     except UserError as error:
    ...         print(error)
    levels must be a list of texts, such as ['kind']; got 'kind'
    out must be a text or a path; got 5
    seed must be a whole number between 0 and 4294967295; got 'a'
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **given: Any) -> Any:
        bound = signature.bind_partial(*args, **given)
        bound.arguments.update(check_arguments(function, bound.arguments))
        return function(*bound.args, **bound.kwargs)

    return checked  # type: ignore[return-value]


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a function, checked and converted as :func:`checks_arguments` does."""
    annotations = {parameter.name: parameter.annotation for parameter in _parameters(function)}
    return {name: _argument(value, annotations[name], name) for name, value in given.items()}


def _argument(value: Any, annotation: Any, name: str) -> Any:
    plain = list(_kinds(annotation))
    classes = {get_origin(kind) or kind for kind in plain}
    if value is None and NoneType in classes:
        return None
    if classes <= {bool, int, float, NoneType}:
        return _checked(value, annotation, name)
    wrong, such = False, ""
    numbers = [
        item
        for kind in plain
        if get_origin(kind) is Sequence and set(_kinds(item := get_args(kind)[0])) <= {int, float}
    ]
    if numbers and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return [_checked(number, numbers[0], f"each of {name}") for number in value]
    if Path in classes:
        if is_url(value) and "address" not in getattr(annotation, "__metadata__", ()):
            raise UserError(
                f"{name} is a path on this machine, and {value!r} an address: only data are read from there, and only "
                "shards written (convert)",
                code="out_of_range",
            )
        wrong = not isinstance(value, (os.PathLike, *filter(inspect.isclass, classes)))
    elif classes <= {str, NoneType}:
        wrong = isinstance(value, list | tuple | dict | set)
    elif Callable in classes:
        wrong = not callable(value)
    elif classes & {Sequence, Mapping} and classes <= {Sequence, Mapping, str, NoneType}:
        fits = {str: isinstance(value, str), Mapping: isinstance(value, Mapping)}
        fits[Sequence] = isinstance(value, Iterable) and not isinstance(value, str | bytes)
        wrong = not any(fits.get(kind) for kind in classes)
        if isinstance(value, str) and any(str in get_args(kind) for kind in plain if get_origin(kind) is Sequence):
            such = f", such as [{value!r}]"
    if wrong:
        raise UserError(f"{name} must be {expected(annotation)}{such}; got {value!r}", code="out_of_range")
    if Path in classes and str(value).startswith("~") and isinstance(value, str | Path):
        return type(value)(os.path.expanduser(value))  # quoted, or from Python: no shell did it
    return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types of an annotation, one of which a value has, without their bounds."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _kinds(part)
    elif get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    else:
        yield annotation


def is_whole(annotation: Any) -> bool:
    """Whether a setting takes whole numbers, optional or not.

    Examples
    --------
    >>> is_whole(Count), is_whole(Count | None), is_whole(Share)
    (True, True, False)
    """
    return int in _kinds(annotation)


def expected(annotation: Any) -> str:
    """Describe in words the values that a setting takes.

    Examples
    --------
    >>> expected(Count), expected(tuple[Positive, ...] | None), expected(Literal["a", "b"])
    ('a whole number of at least 1', 'a list of numbers greater than 0', 'one of a, b')
    >>> expected(PositiveRange)
    'a pair of numbers greater than 0 (from, to)'
    """
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = _bounds(annotation)
        of = " of" * bounds.startswith("at least")
        return f"{expected(parts[0])}{of} {bounds}".rstrip()
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin in (Union, UnionType):
        return " or ".join(expected(part) for part in parts if part is not NoneType)
    if origin is Callable:
        return "a function"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return "a dictionary"
    if origin is not None and parts:
        several = re.sub(r"^an? (.*?)(number|text|list)", r"\1\2s", expected(parts[0]))
        return f"a pair of {several} (from, to)" if origin is tuple and ... not in parts else f"a list of {several}"
    return _NOUNS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _checked(value: Any, annotation: Any, where: str) -> Any:
    from pydantic import ValidationError  # imported here, because objectives and encoders load without it

    if getattr(value, "shape", None) == ():  # NumPy's numbers are numbers
        value = value.item()
    is_odd = isinstance(value, bool) or (isinstance(value, float) and math.isnan(value))
    if not (is_odd and set(_kinds(annotation)) <= {int, float, NoneType}):
        with suppress(ValidationError):
            return _adapter(annotation).validate_python(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    what = (_bounds(annotation) if is_number else "") or expected(annotation)
    if is_number and math.isfinite(value) and value != int(value) and is_whole(annotation):
        what = expected(annotation)
    raise UserError(f"{where} must be {what}; got {value!r}", code="out_of_range")


def _bounds(annotation: Any) -> str:
    """The range of a number in words, empty where there is none."""
    if get_origin(annotation) in (Union, UnionType):
        return next(filter(None, map(_bounds, get_args(annotation))), "")
    kinds = {type(bound): bound for bound in getattr(annotation, "__metadata__", ())}
    if Ge in kinds and Le in kinds:
        return f"between {kinds[Ge].ge:g} and {kinds[Le].le:.12g}"
    words = {
        Gt: lambda b: f"greater than {b.gt:g}",
        Ge: lambda b: f"at least {b.ge:g}",
        Lt: lambda b: f"below {b.lt:g}" if b.lt < math.inf else "",
        Le: lambda b: f"at most {b.le:g}",
    }
    return " and ".join(filter(None, (words[kind](kinds[kind]) for kind in words if kind in kinds)))


@functools.cache
def _parameters(constructor: Any) -> tuple[inspect.Parameter, ...]:
    names = inspect.unwrap(constructor).__globals__
    return tuple(  # of parameters alone: what a function returns may have a type that is known to type checkers only
        p.replace(annotation=eval(p.annotation, names)) if isinstance(p.annotation, str) else p
        for p in inspect.signature(constructor).parameters.values()
    )


@functools.cache
def _adapter(annotation: Any) -> Any:
    """Return the validator of an annotation; it is expensive to build, so it is built once per annotation."""
    from pydantic import TypeAdapter

    return TypeAdapter(annotation)
