"""Output of all commands; escapes control characters, so that names in the data cannot steer the terminal.

``tests/cli/test_terminal.py`` checks that every command prints through this module. JSON escapes them itself.
"""

from __future__ import annotations

import sys

from regrain.spelling import shown


def say(line: object = "", *, err: bool = False, flush: bool = False) -> None:
    """Print a line on standard output or standard error, with control characters escaped."""
    print(shown(line), file=sys.stderr if err else sys.stdout, flush=flush)
