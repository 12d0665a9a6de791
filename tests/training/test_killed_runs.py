"""Whatever moment a process is killed at, its run is whole, goes on, or is begun again by the advice that is given."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Command

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")

_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree")
_KILLED = 77


def kill_at(k: int, place: Path) -> None:
    """End this process at once at its k-th operation that writes below a place."""
    seen = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event not in _EVENTS or not isinstance(arguments[0], str | os.PathLike):
            return
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if reads or not os.path.abspath(os.fspath(arguments[0])).startswith(str(place)):
            return
        seen += 1
        if seen == k:
            os._exit(_KILLED)

    sys.addaudithook(watch)


def write_table(file: Path) -> None:
    rows = [f"{'ab'[i % 2]},{'wxyz'[i % 4]},{i % 7}.5,{i % 5}.25,{'train' if i % 3 else 'test'}" for i in range(24)]
    file.write_text("\n".join(["kind,sub,f1,f2,split", *rows]) + "\n")


_FIT = ("fit", "sup-ce", "t.csv", "--columns", "f*", "--level", "kind", "--level", "sub", "--split-column", "split",
        "--epochs", "2", "--encoder", "mlp", "--quiet", "--out", "run", "--device", "cpu")  # fmt: skip
_ADAPT = (
    "adapt",
    "run",
    "--support",
    "s.csv",
    "--columns",
    "f*",
    "--level",
    "sub",
    "--out",
    "adapted",
    "--device",
    "cpu",
)
_EVALUATE = ("evaluate", "run", "-p", "recall", "--no-baselines", "--device", "cpu")
_DISCOVER = ("discover", "run", "--device", "cpu")


def killed(regrain: Command, k: int, place: Path, *command: str) -> bool:
    """Whether a process that runs a command was killed at its k-th operation; else it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            kill_at(k, place)
            os._exit(regrain(*command)[0])
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _KILLED)
    return code == _KILLED


def recovered(regrain: Command, *command: str) -> str:
    """What makes the run whole, of what is advised in turn: the command again, or ``resume``."""
    code, _, err = regrain(*command)
    if code == 2 and "regrain resume run" in err:
        code, _, err = regrain("resume", "run", "--quiet")
    if "choose another --out, or replace it with --overwrite" in err:  # it was whole
        return "whole"
    assert code == 0, err
    return "again"


def check_fit(regrain: Command, folder: Path, k: int) -> bool:
    """Kill ``fit`` and recover; whether it came so far as k operations."""
    write_table(folder / "t.csv")
    stopped = killed(regrain, k, folder / "run", *_FIT)
    if stopped:
        recovered(regrain, *_FIT)
    code, _, err = regrain("predict", "run", "t.csv", "--out", f"{k}.csv")
    assert code == 0, err
    assert not list(folder.glob("run/**/.*.tmp"))
    return stopped


def check_others(regrain: Command, folder: Path, k: int, command: tuple[str, ...], place: str) -> bool:
    """Kill a command on a finished run, and give it again."""
    for name in ("t.csv", "s.csv"):
        write_table(folder / name)
    if not (folder / "run").exists():
        code, _, err = regrain(*_FIT)
        assert code == 0, err
    stopped = killed(regrain, k, folder / place, *command)
    if stopped:
        recovered(regrain, *command)
    code, _, err = regrain("predict", place, "t.csv", "--out", f"{command[0]}{k}.csv")
    assert code == 0, err
    return stopped


@pytest.mark.parametrize("k", [1, 6, 14, 25, 40, 88])  # 88: trained to its end, and the model not yet in place
def test_fit_is_killed(regrain: Command, tmp_path: Path, k: int) -> None:
    assert check_fit(regrain, tmp_path, k)


@pytest.mark.parametrize(
    ("k", "command", "place"),
    [(8, _ADAPT, "adapted"), (20, _ADAPT, "adapted"), (3, _EVALUATE, "run"), (7, _DISCOVER, "run")],
)
def test_what_works_on_a_run_is_killed(
    regrain: Command, tmp_path: Path, k: int, command: tuple[str, ...], place: str
) -> None:
    assert check_others(regrain, tmp_path, k, command, place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "place"), [(_FIT, "run"), (_ADAPT, "adapted"), (_EVALUATE, "run"), (_DISCOVER, "run")]
)
def test_a_command_is_killed_at_each_operation_on_files(
    regrain: Command, tmp_path: Path, command: tuple[str, ...], place: str
) -> None:
    k = 0
    stopped = True
    while stopped:
        k += 1
        if command in (_FIT, _ADAPT):
            shutil.rmtree(tmp_path / place, ignore_errors=True)
        if command is _FIT:
            stopped = check_fit(regrain, tmp_path, k)
        else:
            stopped = check_others(regrain, tmp_path, k, command, place)
    assert k > 10
