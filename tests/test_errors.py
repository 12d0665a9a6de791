"""Hints that name what would be right."""

from __future__ import annotations

from regrain.errors import nearest


def test_a_hint_lists_at_most_forty_names() -> None:
    names = [f"class{i:03d}" for i in range(1000)]
    told = nearest("zzz", names)
    assert told.endswith("class039 and 960 more")
    assert told.count("class") == 40
    assert nearest("zzz", names[:40]).endswith("class039")
    assert nearest("class012x", names) == "did you mean 'class012'?"
