"""The command line in a scratch folder, and a small table for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regrain.cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def regrain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the command line in a scratch folder: (exit code, standard output, standard error)."""
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


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A CSV of numeric columns with ids and two levels of two and six classes."""
    generator = np.random.default_rng(0)
    fine = np.arange(120) % 6
    frame = pd.DataFrame(generator.normal(size=(120, 6)) + 4 * np.eye(6)[fine], columns=[f"f{i}" for i in range(6)])
    frame.insert(0, "id", [f"r{i}" for i in range(120)])
    frame.insert(1, "kind", [f"k{f // 3}" for f in fine])
    frame.insert(2, "sub", [f"s{f}" for f in fine])
    frame["part"] = np.where(np.arange(120) < 60, "test", "train")
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"
