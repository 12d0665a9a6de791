"""Shared fixtures. One torch thread: two collapse when another process holds a core (speed.md)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import Visit, chromium_browser, visits
from support import Command

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's read-only folder of data and oracles, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is absent: it holds the real data and the golden values, and is not part of the project")
    return SHARED


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, and no folder of this machine's in which data sets are looked for."""
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("REGRAIN_DATA", raising=False)


@pytest.fixture
def regrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the command line in a scratch folder: (exit code, standard output, standard error)."""
    from regrain.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regrain", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, for the tests of one module; skips where there is none."""
    with chromium_browser() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Open a file or an address in it; errors in the console and requests elsewhere fail the test."""
    with visits(browser) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A run of a modality (see ``pages.py``), trained once."""
    from pages import trained

    return cache(lambda modality: trained(modality, tmp_path_factory.mktemp("runs") / modality))
