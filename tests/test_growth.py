"""Memory a row: what `benchmarks/growth.py` measures stays within its budget. By name: -m slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
A_ROW, FIXED = 200, 64 << 20
"""Bytes of resident memory, beside the samples and the result: a row, and blocks whose size does not depend on rows.

Of a million rows the blocks are within the rows' budget.
"""


@pytest.mark.slow
@pytest.mark.parametrize("rows", [100_000, 1_000_000])
@pytest.mark.parametrize("run", ["check", "fit-maskcon", "export", "predict"])
def test_a_row_stays_within_its_budget(run: str, rows: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "growth"
    command = [sys.executable, str(ROOT / "benchmarks" / "growth.py"), "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "REGRAIN_CACHE": str(folder / "cache")}
    asked = ["--runs", run, "--rows", str(rows), "--json"]
    done = subprocess.run([*command, *asked], env=environment, capture_output=True, text=True, check=True)
    budget = A_ROW if rows == 1_000_000 else A_ROW + FIXED / rows
    assert json.loads(done.stdout)["bytes_a_row"] <= budget
