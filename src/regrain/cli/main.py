"""``regrain``: one application, one message for a user's mistake (exit code 2), no traceback."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from regrain import __version__
from regrain.cli.build import LazyCommand
from regrain.cli.commands import COMMANDS
from regrain.cli.terminal import say
from regrain.errors import RegrainWarning, UserError, command_line
from regrain.processes import is_first_process, layout_of, was_launched
from regrain.spelling import shown

_EPILOG = "Start with `regrain demo`, then `regrain methods`: which method for my labels."


class _Group(TyperGroup):
    """The commands; messages escape control characters in the arguments that they repeat."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**(attributes | {"commands": {name: LazyCommand(name) for name in COMMANDS}}))

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except Exception as error:
            raise _shown(error) from None

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except Exception as error:
            raise _shown(error) from None


def _shown(error: Exception) -> Exception:
    """Escape control characters in an argument error (typer's errors have a ``message``)."""
    if isinstance(getattr(error, "message", None), str):
        error.message = shown(error.message)  # type: ignore[attr-defined]
    return error


app = typer.Typer(
    name="regrain",
    cls=_Group,
    help="Representations and classifiers from labels of the wrong granularity.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"regrain {__version__}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Read runs without comparing checksums, about a second a gigabyte.")
    ] = False,
) -> None:
    context.with_resource(command_line())
    if no_verify:
        from regrain.storage.files import Folder

        Folder.verifies = False
        context.call_on_close(lambda: setattr(Folder, "verifies", True))


def main() -> None:
    """Run the command line."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RegrainWarning)
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter shows its escape
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _require_shareable(sys.argv[1:])
        app()
    except UserError as error:
        say(f"error{_which()}: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(130)
        say(f"error{_which()}: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    if is_first_process():
        say(f"warning: {message}", err=True)


def _require_shareable(arguments: list[str]) -> None:
    """Refuse a command that every torchrun process would repeat."""
    shared = {name for name, command in COMMANDS.items() if command.processes}
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if was_launched() and layout_of(1).processes > 1 and command is not None and command not in shared:
        raise UserError(f"{command} works in one process: leave out torchrun, which is for {', '.join(sorted(shared))}")


def _which() -> str:
    """Label of the process that prints; empty for the first one."""
    return "" if is_first_process() else f" in process {os.environ.get('RANK') or os.environ.get('LOCAL_RANK')}"
