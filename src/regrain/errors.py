"""What goes wrong because of the input: one exception type that every face turns into one clear message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["MissingDataError", "NoLabelsError", "RegrainWarning", "UserError", "nearest"]


_MOST = 40


class UserError(ValueError):
    """A mistake in what the user gave: the message says what is wrong, where, and what would be right.

    The command line prints the message without a traceback and exits with code 2.
    """


class NoLabelsError(UserError):
    """The data have nothing that looks like labels; who needs none reads them without."""


class MissingDataError(UserError):
    """A data set of the catalogue is not where it was looked for; who runs many experiments goes on with the others."""


class RegrainWarning(UserWarning):
    """Something the user may not mean; training or evaluation goes on."""


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
    close = difflib.get_close_matches(word, choices, n=1)
    if close:
        return f"did you mean '{close[0]}'?"
    more = f" and {len(choices) - _MOST} more" if len(choices) > _MOST else ""
    return f"choose from {', '.join(choices[:_MOST])}{more}"
