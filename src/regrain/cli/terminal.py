"""All that a command shows goes through here, so that no name in the data moves the cursor, colours or hides a thing.

``tests/cli/test_terminal.py`` looks that no command prints by itself; JSON for machines escapes such characters anyway.
"""

from __future__ import annotations

import sys

from regrain.spelling import shown


def say(line: object = "", *, err: bool = False, flush: bool = False) -> None:
    """One line, on standard output or standard error; what would steer the terminal is an escape."""
    print(shown(line), file=sys.stderr if err else sys.stdout, flush=flush)
