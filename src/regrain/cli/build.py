"""Make a command from a verb's signature and docstring, read from its source, so that help needs no torch.

An option takes its type from the parameter's annotation and its default from the signature. Its help is the first
sentence of the parameter's text in the docstring, or of the text in ``Annotated[type, text]`` in a TypedDict.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import regrain
from regrain.cli.commands import (
    ARGUMENTS,
    COMMANDS,
    FIT,
    FLAGS,
    HELP,
    METAVARS,
    OPTIONS,
    PANEL_OF,
    PANELS,
    PROTOCOL_OPTIONS,
    Command,
)
from regrain.cli.machine import settle_threads
from regrain.cli.names import check, check_settings
from regrain.errors import UserError
from regrain.registry import is_url


@dataclass(frozen=True)
class Option:
    """A parameter as the command line takes it."""

    name: str  # the parameter's name in Python
    kind: Any  # a type that typer knows; a list if the option may be repeated
    default: Any  # ``...`` if the user must give a value
    help: str = ""
    convert: Callable[[str, Any], Any] | None = None  # turns the typed text into the value for Python
    choices: tuple[str, ...] = ()
    # low and high: the range of a number, ends included
    low: float | None = None
    high: float | None = None
    positional: bool = False


class _Unsayable(Exception):
    """A type that has no text, such as a callable."""


def folder_of(module: str) -> Path:
    """Path of a regrain package, or of a module's file without its suffix; imports nothing."""
    return Path(regrain.__file__).parent.joinpath(*module.split(".")[1:])


@cache
def source_of(module: str) -> str:
    """Source text of a module; imports neither the module nor its packages."""
    place = folder_of(module)
    return (place / "__init__.py" if place.is_dir() else place.with_suffix(".py")).read_text(encoding="utf-8")


@cache
def head_of(target: str) -> tuple[ast.FunctionDef, str]:
    """The signature of ``module:function`` and its docstring."""
    module, name = target.split(":")
    found = re.search(rf'^def {name}\(.*?"""(.*?)"""', source_of(module), re.DOTALL | re.MULTILINE)
    assert found is not None, target
    (function,) = ast.parse(found[0]).body
    assert isinstance(function, ast.FunctionDef)
    return function, inspect.cleandoc(ast.get_docstring(function) or "")


@cache
def _statements(module: str) -> dict[str, ast.stmt | str]:
    """Map a module's names to a class, the assigned value, or the module they are imported from."""
    found: dict[str, Any] = {}
    body = ast.parse(source_of(module)).body
    for node in [*body, *(inner for outer in body if isinstance(outer, ast.If) for inner in outer.body)]:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}:{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


def _resolved(name: str, module: str) -> tuple[Any, str]:
    """Find the definition of a module's name, and the module that defines it."""
    found = _statements(module).get(name)
    while isinstance(found, str) and found.startswith("regrain"):
        module, name = found.split(":")
        found = _statements(module).get(name)
    return found, module


def value_of(node: ast.expr, module: str) -> Any:
    """Evaluate an expression of constants and names of constants."""
    if isinstance(node, ast.Name):
        found, module = _resolved(node.id, module)
        return value_of(found, module)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Path":
        return Path(value_of(node.args[0], module))
    return ast.literal_eval(node)


def assigned_in(target: str) -> dict[str, ast.expr]:
    """Name -> expression of every assignment in the class ``module:Class``, and in the classes that it extends."""
    module, name = target.split(":")
    node, module = _resolved(name, module)
    found: dict[str, ast.expr] = {}
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and base.id in _statements(module):
            found |= assigned_in(f"{module}:{base.id}")
    assignments = (part for part in node.body if isinstance(part, ast.Assign))
    return found | {t.id: part.value for part in assignments for t in part.targets if isinstance(t, ast.Name)}


def keywords_of(target: str) -> list[str]:
    """Keyword-only parameters of the constructor of ``module:Class``, and of bases where it passes others on."""
    module, name = target.split(":")
    node, module = _resolved(name, module)
    constructor = next((p for p in node.body if isinstance(p, ast.FunctionDef) and p.name == "__init__"), None)
    found = [] if constructor is None else [argument.arg for argument in constructor.args.kwonlyargs]
    if constructor is None or constructor.args.kwarg is not None:
        for base in node.bases:
            if isinstance(base, ast.Name) and base.id in _statements(module):
                found += keywords_of(f"{module}:{base.id}")
    return found


def fields_of(target: str) -> list[str]:
    """Fields of the dataclass ``module:Class``."""
    module, name = target.split(":")
    node, _ = _resolved(name, module)
    lines = (part for part in node.body if isinstance(part, ast.AnnAssign))
    return [ast.unparse(line.target) for line in lines if not ast.unparse(line.annotation).startswith("ClassVar")]


def keys_of(module: str, name: str) -> list[str]:
    """Strings of a literal tuple, or keys of a literal dict and of the dicts nested in it."""
    return list(_texts(*_resolved(name, module)))


def _texts(node: Any, module: str) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield from _texts(*_resolved(node.id, module))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.Tuple | ast.Starred):
        for part in node.elts if isinstance(node, ast.Tuple) else [node.value]:
            yield from _texts(part, module)
    elif isinstance(node, ast.Dict):
        for key in [*node.keys, *node.values]:
            yield from _texts(key, module)


def _shares(flag: str, given: list[str], *, words: bool = False) -> Any:
    """Parse one share, or shares by level; where ``words`` may stand behind a share, the verb reads it."""

    def share(text: str) -> float | str:
        return text if words and ":" in text else float(text)

    try:
        if len(given) == 1 and "=" not in given[0]:
            return share(given[0])
        return {level: share(part) for level, _, part in (text.rpartition("=") for text in given)}
    except ValueError:
        raise UserError(f"{flag} takes a share such as 0.8, or LEVEL=0.8; got {' '.join(given)}") from None


def _several(single: Option) -> Callable[[str, list[str]], list[Any]]:
    """Parse several values, separated by commas or given by repeated options; ``all`` is None."""

    def convert(flag: str, given: list[str]) -> list[Any]:
        texts = list(dict.fromkeys(part.strip() for text in given for part in text.split(",")))
        return [
            None if text == "all" else _number(flag, text, single, ", or several separated by commas") for text in texts
        ]

    return convert


def _number(flag: str, text: str, option: Option, more: str = "") -> Any:
    try:
        value = option.kind(text)
    except ValueError:
        raise UserError(f"{flag} takes {_KINDS[option.kind]}{more}; got '{text}'") from None
    if option.low is not None and value < option.low:
        raise UserError(f"{flag} is at least {option.low:g}; got {text}", code="out_of_range")
    return value


def _sides(flag: str, given: str) -> tuple[int, ...]:
    try:
        first, second = (int(part) for part in given.lower().split("x"))
    except ValueError:
        raise UserError(f"{flag} takes two numbers, such as 128x6; got '{given}'") from None
    return first, second


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}
_SIMPLE: dict[str, Any] = {
    **{"str": str, "int": int, "float": float, "bool": bool, "Any": str},
    **dict.fromkeys(("Path", "Run", "RunOrPath"), Path),
}


def _typed(node: ast.expr, module: str, option: Option) -> Option:
    """Give the option the type of an annotation; of a union, the first type that a user can type."""
    if isinstance(node, ast.BinOp):
        return _of_union([m for m in _members(node) if ast.unparse(m) != "None"], module, option)
    if isinstance(node, ast.Subscript):
        return _of_subscript(node, module, option)
    name = ast.unparse(node)
    if name in _SIMPLE:
        return replace(option, kind=_SIMPLE[name])
    found, home = _resolved(name, module)
    if isinstance(found, ast.Subscript | ast.BinOp):
        return _typed(found, home, option)
    raise _Unsayable


def _of_union(members: list[ast.expr], module: str, option: Option) -> Option:
    names = [ast.unparse(member) for member in members]
    if "Path" in names and "bool" not in names:
        return replace(option, kind=Path)
    if any(name.startswith("Mapping[str, float") for name in names):
        return replace(option, kind=list[str], convert=partial(_shares, words="str" in names))
    found = []
    for member in members:
        try:
            found.append(_typed(member, module, option))
        except _Unsayable:
            continue
    if not found:
        raise _Unsayable
    words = [choice for other in found[1:] for choice in other.choices]
    if words:  # a number, or a word
        single = found[0]
        return replace(
            single, kind=str, convert=lambda flag, text: text if text in words else _number(flag, text, single)
        )
    return found[0]


def _of_subscript(node: ast.Subscript, module: str, option: Option) -> Option:
    outer = ast.unparse(node.value)
    inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
    if outer == "Literal":
        return replace(option, kind=str, choices=tuple(map(ast.literal_eval, inner)))
    if outer == "Annotated":
        made = _typed(inner[0], module, option)
        for extra in inner[1:]:
            if isinstance(extra, ast.Call):  # the verb checks other bounds than these
                side = {"Ge": "low", "Le": "high"}.get(ast.unparse(extra.func))
                made = replace(made, **({side: value_of(extra.args[0], module)} if side else {}))
            else:
                made = replace(made, help=str(value_of(extra, module)))
        return made
    if outer in ("Sequence", "list", "tuple"):
        parts = [_typed(part, module, option) for part in inner if ast.unparse(part) != "..."]
        if len(parts) == 2:
            return replace(option, kind=str, convert=_sides)
        if parts[0].kind in _KINDS:
            return replace(option, kind=list[str], convert=_several(parts[0]))
        return replace(option, kind=list[parts[0].kind], choices=parts[0].choices)  # type: ignore[misc]
    raise _Unsayable


def _members(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp):
        yield from _members(node.left)
        yield from _members(node.right)
    else:
        yield node


def parameters_of(target: str) -> dict[str, Option]:
    """Options for a function's parameters that a user can type, or for a TypedDict's annotated keys."""
    module, name = target.split(":")
    if re.search(rf"^class {name}\b", source_of(module), re.MULTILINE):
        return {n: option for n, option in _declared(name, module) if option.help}
    function, documentation = head_of(target)
    texts = parameter_texts(documentation)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    found: dict[str, Option] = {}
    for argument, default in zip(
        [*positional, *arguments.kwonlyargs], [*defaults, *arguments.kw_defaults], strict=True
    ):
        is_argument = argument in positional and (default is None or argument.arg in ARGUMENTS)
        option = Option(argument.arg, str, ..., positional=is_argument and argument.arg not in OPTIONS)
        try:
            made = _typed(argument.annotation or ast.Name("Any"), module, option)
        except _Unsayable:
            continue
        value = ... if default is None else value_of(default, module)
        found[argument.arg] = replace(made, default=value, help=texts.get(argument.arg) or made.help)
    if arguments.kwarg is not None and isinstance(arguments.kwarg.annotation, ast.Subscript):
        declared, home = ast.unparse(arguments.kwarg.annotation.slice), module
        home = _statements(module)[declared].split(":")[0]  # type: ignore[union-attr]
        found |= parameters_of(f"{home}:{declared}")
    return found


def _declared(name: str, module: str) -> Iterator[tuple[str, Option]]:
    node, module = _resolved(name, module)
    if not isinstance(node, ast.ClassDef):
        return
    for base in node.bases:
        yield from _declared(ast.unparse(base), module)
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.annotation).startswith("Annotated["):
            option = _typed(line.annotation, module, Option(ast.unparse(line.target), str, None))
            yield option.name, replace(option, default=False if option.kind is bool else None)


def parameter_texts(documentation: str) -> dict[str, str]:
    """The texts of a numpydoc docstring's Parameters, by name; several names may share one."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", documentation, re.DOTALL | re.MULTILINE)
    texts: dict[str, str] = {}
    for names, body in re.findall(r"^(\S.*)\n((?:[ ]+.*\n?|\n)*)", section[1] if section else "", re.MULTILINE):
        for name in names.partition(" : ")[0].split(","):
            texts[name.strip().lstrip("*")] = " ".join(body.split())
    return texts


def plain(text: str) -> str:
    """A docstring's text without its markup.

    Examples
    --------
    >>> plain("See :func:`~regrain.verbs.fit.fit` for ``epochs`` and :math:`\\pi`.")
    'See fit for epochs and \\\\pi.'
    """
    text = re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    text = re.sub(r":math:`([^`]*)`", r"\1", text)
    return re.sub(r"^\.\. math::\s+", "    ", text, flags=re.MULTILINE).replace("``", "")


def first_sentence(text: str) -> str:
    """First sentence of a docstring's text, without markup.

    Examples
    --------
    >>> first_sentence("A name of ``METHODS``. More in :mod:`regrain.methods`.")
    'A name of METHODS.'
    """
    found = re.match(r"(.+?[.!?])(?:\s+[A-Z0-9`(]|$)", text, re.DOTALL)
    return plain(found[1] if found else text)


def summary_of(target: str) -> str:
    """The docstring's first lines, up to its sections, as Markdown."""
    text = re.split(r"^\w[\w ]*\n-+$", head_of(target)[1], flags=re.MULTILINE)[0].strip()
    return re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")


def options_of(command: Command) -> dict[str, tuple[Option, str | None]]:
    """A command's parameters, and the panel of each."""
    found: dict[str, tuple[Option, str | None]] = {}
    for target in (command.target, *command.also):
        for name, option in parameters_of(target).items():
            panel = PANELS.get(target) or PANEL_OF.get(name)
            if name in command.without:
                continue
            if name not in found or target in PANELS:  # where it is declared there
                found[name] = option, panel
            elif not found[name][0].help or found[name][0].help.startswith("As in "):
                found[name] = replace(found[name][0], help=option.help), panel
    if command.protocols:
        rare = [option.name for option in protocol_options().values() if option.name not in PROTOCOL_OPTIONS]
        for option in protocol_options().values():
            if option.name in PROTOCOL_OPTIONS:
                found[option.name] = _of_protocol(option), "Options of protocols"
        text = f"Another option of a protocol, as key=value: {', '.join(rare)}."
        found["options"] = Option("options", list[str], None, text), "Options of protocols"
        found["every"] = Option("every", bool, False, "Show all metrics, not the first of each protocol."), None
    if command.opens:
        found["device"] = parameters_of(FIT)["device"], None
        if "precision" not in found:  # of answers, where a verb has it
            text = "Precision of the encoder's arithmetic; default that of the training."
            choices = ("auto", "float32", "bf16", "fp16")
            found["run_precision"] = Option("run_precision", str, None, text, choices=choices), None
    for name in command.required:
        found[name] = replace(found[name][0], default=...), None
    if command.json:
        found["as_json"] = Option("as_json", bool, False, "Print JSON for machines, nothing else."), None
    return found


def _of_protocol(option: Option) -> Option:
    """Make a protocol's option default to None, since a given value selects the protocol."""
    default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    text = first_sentence(option.help).rstrip(".")
    return replace(option, default=None, help=text + (f"; default {default}." if default not in (None, "") else "."))


class LazyCommand(TyperCommand):
    """A command that builds its parameters on first access."""

    def __init__(self, name: str) -> None:
        command = COMMANDS[name]
        text = summary_of(command.target)
        if command.examples:
            text += "\n\n".join(["\n\nExample:" if len(command.examples) == 1 else "\n\nExamples:", *command.examples])
        super().__init__(name, help=text, rich_markup_mode="markdown", rich_help_panel=command.panel)

    def __getattribute__(self, attribute: str) -> Any:
        if attribute not in ("params", "callback"):
            return super().__getattribute__(attribute)
        if "made" not in self.__dict__:
            name = str(self.name)
            self.made = typer.main.get_command(_as_typer(name, COMMANDS[name]))
        return getattr(self.made, attribute)


def _as_typer(name: str, command: Command) -> typer.Typer:
    """Build a typer application with one command."""
    options = options_of(command)
    parameters = [_as_parameter(option, panel) for option, panel in options.values()]

    def run(**given: Any) -> None:
        call(name, command, {n: option for n, (option, _) in options.items()}, given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # which typer reads
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.command(name)(run)
    return app


def flag_of(name: str) -> str:
    """The flags of a parameter, separated by spaces."""
    return FLAGS.get(name) or "--" + name.strip("_").replace("_", "-")


def path_or_address(text: str) -> Path | str:
    """A path; an address such as ``s3://bucket`` stays a text, for a path has no two slashes."""
    return text if is_url(text) else Path(text)


def _as_parameter(option: Option, panel: str | None) -> inspect.Parameter:
    flags = flag_of(option.name)
    metavar = METAVARS.get(option.name)
    if option.choices and option.kind is str:
        metavar = f"[{'|'.join(option.choices)}]"
    about: dict[str, Any] = {
        "help": HELP.get(option.name) or first_sentence(option.help),
        "metavar": metavar,
        "rich_help_panel": panel,
    }
    if option.kind is Path and not option.positional:
        about |= {"parser": path_or_address, "metavar": metavar or "<path>"}
    if option.kind in _KINDS:
        about |= {"min": option.low, "max": option.high}
    if option.positional:
        info: Any = typer.Argument(**about)
    else:
        if option.kind is bool and option.default is not False:
            flags = f"{flags}/--no-{flags.removeprefix('--')}"
        info = typer.Option(*flags.split(), **about, show_default=option.default not in (None, False, (), ...))
    empty = option.default in (None, ())
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        annotation=Annotated[option.kind | None if empty else option.kind, info],
        default=inspect.Parameter.empty if option.default is ... else None if empty else option.default,
    )


def call(name: str, command: Command, options: Mapping[str, Option], given: dict[str, Any]) -> None:
    """Check the names, import the verb, call it, and show its result."""
    check_settings(given)
    arguments: dict[str, Any] = {}
    for option in options.values():
        value, flag = given[option.name], flag_of(option.name).split()[0]
        check(option.name, flag, value, option.choices)
        if value not in (None, [], option.default):
            arguments[option.name] = option.convert(flag, value) if option.convert else value
    as_json = arguments.pop("as_json", False)
    if (workers := arguments.pop("workers", None)) is not None:
        if arguments.get("engine") != "ray":
            raise UserError(
                "--workers is for --engine ray: processes of this machine are --devices, those that decode images "
                "--set training.workers=N",
                code="conflicting_options",
            )
        arguments["devices"] = workers
    module, function = command.target.split(":")
    if module != "regrain.cli.lists":
        settle_threads()
    if module.startswith("regrain.cli."):
        getattr(import_module(module), function)(**arguments, **({"as_json": as_json} if command.json else {}))
        return
    from regrain.cli import show
    from regrain.processes import is_first_process, shared_out

    arguments |= show.callbacks(command.calls)
    if "progress" in options:
        arguments["progress"] = not given["progress"]
    if "weights" in arguments:
        arguments["pretrained"] = str(arguments.pop("weights"))
    if command.protocols:
        arguments.pop("every", None)  # which the table reads
        chosen = {option: arguments.pop(option) for option in PROTOCOL_OPTIONS if option in arguments}
        for text in arguments.get("options", ()):
            key, sign, value = text.partition("=")
            if not sign:
                raise UserError(f"-o takes key=value, such as cluster_starts=20; got '{text}'")
            chosen[key.strip()] = value.strip()
        arguments["options"] = chosen
    with shared_out() if command.opens else nullcontext():
        if command.opens:
            _open_runs(arguments)
        result = show.stoppable(lambda: getattr(import_module(module), function)(**arguments), command.goes_on)
    if not is_first_process():
        return
    shown = name.replace("-", "_")
    if as_json:
        to_json = getattr(show, f"{shown}_json", None)
        print(json.dumps(to_json(result, given) if to_json else result.to_json(), indent=1))
    else:
        getattr(show, shown)(result, given)


def _open_runs(arguments: dict[str, Any]) -> None:
    """Open the runs on the device, in the precision asked for."""
    from regrain.runs.run import Run

    device, precision = arguments.pop("device", "auto"), arguments.pop("run_precision", None)
    if "runs" in arguments:
        arguments["runs"] = [Run.open(run, device=device, precision=precision) for run in arguments["runs"]]
    else:
        arguments["run"] = Run.open(arguments["run"], device=device, precision=precision)


@cache
def protocols() -> dict[str, str]:
    """Protocols by name, with the location of their functions."""
    folder = folder_of("regrain.evaluation")
    found: dict[str, str] = {}
    for module in (f"regrain.evaluation.{file.stem}" for file in sorted(folder.glob("*.py"))):
        for name in re.findall(r"^@protocol\(.*\)\ndef (\w+)", source_of(module), re.MULTILINE):
            found[name.replace("_", "-")] = f"{module}:{name}"
    return found


@cache
def protocol_options() -> dict[str, Option]:
    """The options of all protocols: the keyword parameters of their functions."""
    every = [option for place in protocols().values() for option in parameters_of(place).values()]
    return {option.name: option for option in reversed(every) if option.default is not ...}
