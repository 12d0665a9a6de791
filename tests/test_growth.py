"""Memory a row: what `benchmarks/growth.py` measures stays within its budget. By name: -m slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUDGETS = {"check": 200, "fit-maskcon": 240, "export": 290, "predict": 290}
"""Bytes of resident memory a row, beside the samples and the result; 200 is the aim for all."""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100_000, 1_000_000])
@pytest.mark.parametrize("run", BUDGETS)
def test_a_row_stays_within_its_budget(run: str, rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "growth"
    command = [sys.executable, str(ROOT / "benchmarks" / "growth.py"), "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "REGRAIN_CACHE": str(folder / "cache")}
    asked = ["--runs", run, "--rows", str(rows), "--json"]
    done = subprocess.run([*command, *asked], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bytes_a_row"] <= BUDGETS[run]
