"""A real Ctrl-C in a real process, and the run that goes on from there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

COMMAND = [sys.executable, "-c", "from regrain.cli import main; main()"]


def fit(out: Path) -> list[str]:
    settings = ["--epochs", "12", "--batch-size", "32", "--device", "cpu", "--quiet", "--limit-per-class", "60"]
    return [*COMMAND, "fit", "maskcon", "digits", "--encoder", "mlp", "--out", str(out), *settings]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_leaves_a_resumable_run(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(fit(tmp_path / "cut"), env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "cut" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"regrain resume {tmp_path / 'cut'}" in errors
    assert not (tmp_path / "cut" / "model").exists()

    for command in ([*COMMAND, "resume", str(tmp_path / "cut"), "--quiet"], fit(tmp_path / "whole")):
        subprocess.run(command, env=environment, check=True, capture_output=True)
    cut, whole = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("cut", "whole"))
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[key], whole[key]) for key in cut)
