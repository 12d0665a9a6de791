"""A headless Chromium for tests: Debian's, driven by Playwright, with nothing downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Visit = Callable[..., "Page"]


@contextmanager
def chromium_browser() -> Iterator[Browser]:
    """The system's Chromium; the test is skipped, saying why, where it or Playwright is absent."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine: `apt-get install chromium` brings it")
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is absent: `pip install 'regrain[dev]'`")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@contextmanager
def visits(browser: Browser) -> Iterator[Visit]:
    """A function that opens a file or an address; at the end no page has reported an error or asked elsewhere.

    ``visit(where, width=1280, height=900, dark=False)`` gives Playwright's page. A page from a file may ask for nothing
    else; one from an address only for what has the same origin.
    """
    problems: list[str] = []

    def visit(where: str | Path, *, width: int = 1280, height: int = 900, dark: bool = False, **options: Any) -> Page:
        address = where.resolve().as_uri() if isinstance(where, Path) else where
        origin = "/".join(address.split("/")[:3])
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", **options
        )
        page = context.new_page()

        def watch(request: Any) -> None:
            own = request.url == address if isinstance(where, Path) else request.url.startswith(f"{origin}/")
            if not own and not request.url.startswith(("data:", "blob:")):
                problems.append(f"request: {request.url}")

        page.on("console", lambda said: problems.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("request", watch)
        page.goto(address)
        return page

    yield visit
    for context in browser.contexts:
        context.close()
    assert not problems, problems
