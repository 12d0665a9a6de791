"""Addresses of object stores on the command line: data are read from them and shards written, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Command, raises

import regrain as package


def test_shards_go_to_an_address_and_are_read_from_it(regrain: Command, tmp_path: Path) -> None:
    address = f"memory://{tmp_path.name}/shards"
    code, out, err = regrain("convert", "digits", "--out", address)
    assert code == 0, err
    assert f"written to {address}," in out
    code, _, err = regrain("check", address)
    assert code == 0, err
    code, _, err = regrain("fit", "sup-ce", address, "--encoder", "conv4", "--epochs", 1, "--out", "run")
    assert code == 0, err
    code, _, err = regrain("embed", "run", "--data", address, "--out", "vectors.parquet")
    assert code == 0, err
    assert {file.name for file in tmp_path.iterdir()} <= {"run", "vectors.parquet", "cache"}


@pytest.mark.parametrize(
    "words",
    [
        ("fit", "features", "digits", "--out", "s3://bucket/run"),
        ("regroup", "digits", "digits", "--out", "s3://bucket/x.csv"),
        ("auto", "digits", "--out", "s3://bucket/x"),
    ],
    ids=lambda words: words[0],
)
def test_other_results_do_not(regrain: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    code, _, err = regrain(*words)
    assert code == 2
    assert "out is a path on this machine, and 's3://bucket/" in err
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("s3")]


def test_python_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with raises("out_of_range", match="out is a path on this machine"):
        package.fit("features", "digits", out="s3://bucket/run")
    assert not list(tmp_path.iterdir())
