"""The headless browser that tests of pages use: it shows pages, and does not let their faults pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import Visit, visits


def _page(folder: Path, body: str) -> Path:
    file = folder / "page.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><title>t</title>{body}", encoding="utf-8")
    return file


def test_a_page_is_shown_in_the_width_and_the_colours_asked_for(visit: Visit, tmp_path: Path) -> None:
    page = visit(_page(tmp_path, "<p>Grüße</p>"), width=390, dark=True)
    assert page.locator("p").inner_text() == "Grüße"
    assert page.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [390, True]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>missing()</script>", "error: missing is not defined"),
        ("<script>console.error('said so')</script>", "console: said so"),
        ("<img src='http://127.0.0.1:9/a.png'>", "request: http://127.0.0.1:9/a.png"),
        ("<img src='beside.png'>", "beside.png"),
    ],
)
def test_errors_and_requests_fail(browser: Any, tmp_path: Path, body: str, problem: str) -> None:
    with pytest.raises(AssertionError, match=problem.replace(".", r"\.")), visits(browser) as visit:
        visit(_page(tmp_path, body))
