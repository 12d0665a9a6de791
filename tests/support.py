"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable

Command = Callable[..., tuple[int, str, str]]
"""The fixture ``regrain``: arguments of a command -> (exit code, standard output, standard error)."""
