"""The command line."""

from __future__ import annotations

from regrain.cli.main import main

__all__ = ["main"]
