"""Input errors: one exception type that every interface turns into one clear message.

Messages are written in the words of the command line. :func:`speaks_python` gives the functions of the Python face the
words of Python.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Literal, ParamSpec, TypeVar

Given = ParamSpec("Given")
Result = TypeVar("Result")

_MOST = 40

_ON_COMMAND_LINE: ContextVar[bool] = ContextVar("_ON_COMMAND_LINE", default=False)
"""Whether the interface is the command line: messages stay as written, and guesses are printed."""

_VERBS = ("adapt", "attend", "calibrate", "discover", "evaluate", "export", "fit", "isotropy", "load", "predict",
          "regroup", "reproduce", "resume", "tune")  # fmt: skip
_SWITCHES = ("balanced", "cache", "download", "drop-unknown", "estimate-classes", "frozen", "label-paths", "overwrite",
             "pretrained", "skip-unreadable", "tensorboard", "ignore-coarse-labels", "unseen-superclasses")  # fmt: skip
_KEYWORDS = {"level": "levels", "set": "settings", "weights": "pretrained", "range": "ranges", "p": "protocols"}
"""Options of the command line that have other names in Python."""
_WORDS = ("tree", "paths", "aspects", "ray", "auto", "cpu", "cuda", "parquet", "lance")
"""Values of options that messages name."""


Code = Literal[
    "invalid_input",  # none of the others
    "unknown_name",  # a method, encoder, protocol, preset, ... that does not exist
    "unknown_option",  # a setting, section or field that does not exist
    "unknown_level",
    "unknown_column",
    "unknown_split",
    "missing_option",
    "conflicting_options",
    "out_of_range",  # a number or word outside what is allowed
    "wrong_shape",  # an array, a list or a sample of another form, type or length
    "not_finite",
    "too_few",  # samples, classes, runs, ...
    "no_labels",
    "labels_conflict",  # labels that contradict each other, the taxonomy or their names
    "other_data",  # not the data that a run or a model was made from
    "missing_data",  # a data set that is not where it was looked for
    "missing_file",
    "damaged_file",
    "would_overwrite",
    "not_writable",
    "missing_package",
    "not_reachable",  # a download that failed
    "not_supported",  # what this method, encoder or machine does not do
    "stale",  # another process changed the object of an action
]
"""Kind of mistake that an error reports: one word, which stays the same when the message is rephrased."""


class UserError(ValueError):
    """A mistake in the user's input: the message says what is wrong, where, and what would be right.

    The command line prints the message without a traceback and exits with code 2.

    Parameters
    ----------
    message : str
        One sentence or two for the user.
    code : Code
        The kind of mistake, for programs; an attribute of the error.

    Examples
    --------
    >>> import regrain
    >>> try:
    ...     regrain.Labels.from_columns({"class": ["cat", "dog"]}).level_index("species")
    ... except regrain.UserError as error:
    ...     error.code
    'unknown_level'
    """

    code: Code = "invalid_input"

    def __init__(self, message: str, *, code: Code | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class NoLabelsError(UserError):
    """The data have nothing that looks like labels; callers that need none read them without labels."""

    code = "no_labels"


class MissingDataError(UserError):
    """A data set of the catalogue was not found; a caller with many experiments can go on with the others."""

    code = "missing_data"


class Stopped(Exception):
    """Training was interrupted and left a checkpoint from which it resumes; the run's path is its argument."""


class RegrainWarning(UserWarning):
    """Something the user may not mean; training or evaluation goes on."""


class DataWarning(RegrainWarning):
    """A guess of a reader, such as the label columns, or an oddity of the data; options override guesses."""


class Notable(str):
    """A reader's message that becomes a Python warning: a guess, or an oddity of the data."""


_WARNED: set[tuple[str, str]] = set()


def warn_of_data(where: str, messages: Iterable[str]) -> None:
    """Warn of the notable ones among a reader's messages, each once in a process; the command line prints them."""
    notable = [in_python(message) for message in dict.fromkeys(messages) if isinstance(message, Notable)]
    new = [message for message in notable if (where, message) not in _WARNED]
    if new and not _ON_COMMAND_LINE.get():
        _WARNED.update((where, message) for message in new)
        warnings.warn(f"{where}: {'; '.join(new)}", DataWarning, stacklevel=_outside())


def warn(message: str) -> None:
    """Warn the caller of the package, in the words of the interface in use."""
    text = message if _ON_COMMAND_LINE.get() else in_python(message)
    warnings.warn(text, RegrainWarning, stacklevel=_outside())


_INSIDE = ("regrain", "contextlib", "lightning", "torch")
"""Packages whose frames lie between a warning and the caller of regrain."""


def _outside() -> int:
    """Return the stack level of the package's caller."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        level, frame = level + 1, frame.f_back
    return level


@contextmanager
def command_line() -> Iterator[None]:
    """Within it, the interface is the command line."""
    token = _ON_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _ON_COMMAND_LINE.reset(token)


def python_only(advice: str) -> str:
    """Return advice that only Python users need: empty on the command line.

    Examples
    --------
    >>> python_only(", or give unknown=[...]")
    ', or give unknown=[...]'
    >>> with command_line():
    ...     python_only(", or give unknown=[...]")
    ''
    """
    return "" if _ON_COMMAND_LINE.get() else advice


def speaks_python(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """A function of the Python face: its errors are short, in Python's words, and an interrupt says how to go on.

    An interrupted training is a KeyboardInterrupt whose message holds the call that resumes; where the caller gave an
    ``interrupt`` of its own it is :class:`Stopped`. The traceback ends at the call.
    """

    @functools.wraps(function)
    def call(*args: Given.args, **given: Given.kwargs) -> Result:
        if _ON_COMMAND_LINE.get():
            return function(*args, **given)
        try:
            return function(*args, **given)
        except UserError as error:
            error.args = (in_python(str(error)),)
            raise error.with_traceback(None) from None
        except Stopped as stopped:
            if given.get("interrupt") is not None:
                raise
            path = str(stopped.args[0])
        raise KeyboardInterrupt(f"training stopped with a checkpoint: regrain.resume({path!r}) goes on from there")

    return call


def in_python(message: str) -> str:
    """A message in Python's words: keywords where it has options of the command line, calls where it has commands.

    Commands without a counterpart in Python stay as they are.

    Examples
    --------
    >>> in_python("choose another --out, or replace it with --overwrite")
    'choose another out=, or replace it with overwrite=True'
    >>> in_python("name them (--level; levels=[...]), or see `regrain methods`; `regrain resume runs/a` goes on")
    "name them (levels=[...]), or see `regrain methods`; `regrain.resume('runs/a')` goes on"
    >>> in_python("train it with --set encoder.small_stem=false")
    "train it with settings={'encoder.small_stem': 'false'}"
    >>> in_python("use --device cpu, or the same --format as before")
    "use device='cpu', or the same format= as before"
    """
    message = re.sub(r"`regrain ([a-z-]+)( [^`]*)?`", _call, message)
    message = re.sub(r"\(--[a-z][^();]*; ([^()]*=[^()]*)\)", r"(\1)", message)
    message = re.sub(r"--[a-z-]+(?: [A-Z]+)? \(([a-z_]+=[^()]*)\)", r"\1", message)
    message = re.sub(r"--set ([a-z_][\w.]*)=([^\s`,;:()]+)", lambda found: _settings([found[1], found[2]]), message)
    message = re.sub(rf"--(relation|engine|device|format) ({'|'.join(_WORDS)})\b", r"\1='\2'", message)
    message = re.sub(r"--([a-z][a-z-]*) (\d[\d.]*)\b", lambda found: python_option(found[1]) + found[2], message)
    return re.sub(r"(?<![\w-])--([a-z][a-z-]*)", lambda found: python_option(found[1]), message)


def python_option(name: str) -> str:
    """An option of the command line, without its dashes, as Python's keyword.

    Examples
    --------
    >>> python_option("split-column"), python_option("overwrite"), python_option("level")
    ('split_column=', 'overwrite=True', 'levels=')
    """
    return f"{_KEYWORDS.get(name, name).replace('-', '_')}={'True' if name in _SWITCHES else ''}"


def _settings(pair: list[str]) -> str:
    return f"settings={{{pair[0]!r}: {pair[1]!r}}}"


def _call(found: re.Match[str]) -> str:
    """A command as a call, where Python has it."""
    if found[1] not in _VERBS:
        return found[0]
    try:
        words = shlex.split(found[2] or "")
    except ValueError:
        return found[0]
    if not words:
        return f"`regrain.{found[1]}`"
    arguments: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            arguments.append(word.lower() if word.isupper() else word if word == "..." else repr(word))
            continue
        keyword = python_option(word.lstrip("-"))
        if keyword.endswith("=True"):
            arguments.append(keyword)
            continue
        value = words.pop(0) if words else "..."
        if keyword == "settings=":
            arguments.append(_settings(value.split("=", 1)) if "=" in value else "settings=...")
        else:
            shown = value.lower() if value.isupper() else value if value == "..." else repr(value)
            arguments.append(f"{keyword}[{shown}]" if keyword in ("levels=", "protocols=") else keyword + shown)
    return f"`regrain.{found[1]}({', '.join(arguments)})`"


def not_a_run(path: str | os.PathLike[str]) -> UserError:
    """The error for the path of a run where no folder is."""
    why = "is a file, and a run is a folder" if os.path.exists(path) else "does not exist"
    return UserError(f"{path} {why}; runs are made by `regrain fit`", code="missing_file")


def no_setting(flag: str, method: str, key: str, known: Iterable[str]) -> UserError:
    """The error for a setting that a method and its training do not have."""
    return UserError(f"{flag}: {method} has no setting '{key}': {nearest(key, known)}", code="unknown_option")


def no_section(flag: str, key: str, known: Iterable[str]) -> UserError:
    """The error for a setting of a section that recipes do not have."""
    section = key.partition(".")[0]
    return UserError(f"{flag} {key}: no section '{section}': {nearest(section, known)}", code="unknown_option")


def no_protocol_option(option: str, known: Iterable[str]) -> UserError:
    """The error for an option that no protocol has."""
    return UserError(f"no protocol has an option '{option}': {nearest(option, known)}", code="unknown_option")


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint that names the valid choice nearest to ``word``, else all of them, or the first forty.

    Examples
    --------
    >>> nearest("maskon", ["maskcon", "grafit"])
    "did you mean 'maskcon'?"
    >>> nearest("zzz", ["maskcon", "grafit"])
    'choose from grafit, maskcon'
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(str(word), choices, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(choices) - _MOST} more" if len(choices) > _MOST else ""
    return f"choose from {', '.join(choices[:_MOST])}{more}"


def examples(items: Iterable[str], limit: int = 3) -> str:
    """The first few of some texts, and how many more there are.

    Examples
    --------
    >>> examples(["a", "b", "c", "d", "e"])
    'a; b; c; and 2 more'
    """
    texts = list(items)
    more = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return "; ".join([*texts[:limit], *more])


def first_line(error: BaseException) -> str:
    """The part of a library's message that fits into ours; the kind of the error where it says nothing.

    Examples
    --------
    >>> first_line(OSError("No space left.")), first_line(MemoryError())
    ('No space left', 'MemoryError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
