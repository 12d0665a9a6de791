"""What a training says of the time left: lines of a log where no terminal is, none unless it takes long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import regrain


def lines_of(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("epoch ")]


def test_a_log_has_lines_with_the_time_left_of_the_whole_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"encoder": "identity", "device": "cpu", "settings": ["epochs=2", "batch_size=512"]}
    regrain.fit("sup-ce", "digits", out=tmp_path / "short", progress=True, **options)
    assert lines_of(capfd) == []
    monkeypatch.setattr("regrain.training.progress.LOG_SECONDS", 0.0)
    regrain.fit("sup-ce", "digits", out=tmp_path / "long", progress=True, **options)
    lines = lines_of(capfd)
    form = r"epoch ([12]) of 2, loss [\d.]+, \d+ s left \((\d+)% done\)"
    found = [re.fullmatch(form, line) for line in lines]
    assert all(found), lines
    assert {match[1] for match in found if match} == {"1", "2"}
    shares = [int(match[2]) for match in found if match]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    regrain.fit("sup-ce", "digits", out=tmp_path / "quiet", **options)
    assert lines_of(capfd) == []
