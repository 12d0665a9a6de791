"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest

from regrain.errors import Code, UserError

Command = Callable[..., tuple[int, str, str]]
"""The fixture ``regrain``: arguments of a command -> (exit code, standard output, standard error)."""


def raises(code: Code, match: str | None = None) -> pytest.RaisesExc[UserError]:
    """An error of this code is expected, and of these words where the words are what is tested."""
    assert code in get_args(Code), f"{code} is not a code of errors.py"
    return pytest.raises(UserError, match=match, check=lambda error: error.code == code)
