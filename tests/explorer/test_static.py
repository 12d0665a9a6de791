"""What the browser would swallow in silence."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import regrain

PACKAGE = Path(regrain.__file__).parent


@pytest.mark.parametrize("script", sorted(PACKAGE.rglob("*.js")), ids=lambda path: path.name)
def test_no_class_has_two_methods_of_one_name(script: Path) -> None:
    """The later one would replace the earlier one, without an error."""
    for body in re.split(r"^(?=(?:export )?class )", script.read_text("utf-8"), flags=re.M)[1:]:
        own = body.split("\n}", 1)[0]
        names = Counter(re.findall(r"^  (?:static |async |get |set )*(#?\w+)\([^;]*\) \{$", own, flags=re.M))
        assert set(names.values()) == {1}, names
