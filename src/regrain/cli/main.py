"""``regrain``: one application, one message for a user's mistake (exit code 2), no traceback."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer

from regrain.cli import (
    attend,
    calibrate,
    discover,
    explore,
    export,
    few_labels,
    isotropy,
    judge,
    lists,
    regroup,
    train,
    tune,
)
from regrain.errors import RegrainWarning, UserError

__all__ = ["app", "main"]

_EPILOG = "Start with `regrain demo`, then `regrain methods`: which method for my labels."

app = typer.Typer(
    name="regrain",
    help="Representations and classifiers from labels of the wrong granularity.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (train, tune, judge, isotropy, discover, explore, attend, few_labels, calibrate, export, regroup, lists):
    group.register(app)


def main() -> None:
    """Run the command line."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", RegrainWarning)
    warnings.showwarning = _show_warning
    try:
        app()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            sys.exit(130)
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)
