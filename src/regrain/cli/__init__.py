"""The command line: a command is made from the signature and docstring of a verb, and shows what that returns."""

from __future__ import annotations

from regrain.cli.main import main

__all__ = ["main"]
