"""Threads are chosen by what the machine does, before torch; what the user has set stays."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from regrain.cli import machine


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight cores at rest, torch not imported; the file of the quota."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # so that what is set here goes again
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 9.0, 9.0), raising=False)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


def test_a_quiet_machine_is_left_as_it_is(cores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in (None, "max 100000", "no quota"):
        if text is not None:
            cores.write_text(text)
        machine.settle_threads()
    assert "OMP_NUM_THREADS" not in os.environ
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("load", "threads"), [(1.0, "7"), (6.6, "1"), (30.0, "1")])
def test_the_cores_of_others_are_left_to_them(
    cores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], load: float, threads: str
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    machine.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == threads
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert f"{load:.1f} processes are at work: {threads} thread" in err
    assert "OMP_NUM_THREADS" in err


def test_a_containers_quota_counts(cores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cores.write_text("250000 100000\n")
    machine.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert "may use no more" in capsys.readouterr().err


def test_what_the_user_has_set_stays(
    cores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (30.0, 0.0, 0.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    machine.settle_threads()
    assert os.environ["OMP_NUM_THREADS"] == "6"
    assert not capsys.readouterr().err


def test_threads_that_run_already_are_not_touched(cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (30.0, 0.0, 0.0))
    monkeypatch.setitem(sys.modules, "torch", sys)
    machine.settle_threads()
    assert "OMP_NUM_THREADS" not in os.environ
