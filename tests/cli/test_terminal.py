"""Names in the data reach the terminal as letters: nothing in them moves the cursor, colours, hides or turns text."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_files import encode, pixels
from support import Command

import regrain.cli
from regrain.spelling import shown

EVIL = "\x1b[31mred\x1b[0m"
TURNED = "\u202eexe.txt"
BROKEN = "line\nerror: not true"
MARKUP = "[red]x[bold] ["
LONG = "n" * 200
NAMES = (EVIL, TURNED, BROKEN, MARKUP, LONG, os.fsdecode(b"\xff"))
QUICK = ("--encoder", "conv4", "--epochs", "1", "--batch-size", "4", "--device", "cpu")


def assert_harmless(text: str) -> None:
    for line in text.splitlines():
        odd = [c for c in line if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
        assert not odd, (odd, line)
    assert "\nerror: not true" not in text


def test_commands_print_through_one_helper() -> None:
    folder = Path(next(iter(regrain.cli.__path__)))
    for file in sorted(folder.glob("*.py")):
        if file.name in ("terminal.py", "tables.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                inner = node.args[0]
                is_json = isinstance(inner, ast.Call) and ast.unparse(inner.func) == "json.dumps"
                assert is_json, f"{file.name}:{node.lineno} prints by itself: say() of cli/terminal.py"
            if isinstance(node, ast.ImportFrom):
                assert node.module != "rich.table", f"{file.name}: tables are those of cli/tables.py"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\u2028\u2029\x85", "\\u2028\\u2029\\x85"),
        ("\u202a\u2066\u200b\ufeff\u00ad", "\\u202a\\u2066\\u200b\\ufeff\\xad"),
        ("\U000e0041", "\\U000e0041"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800 \udce9", "\\ud800 \\xe9"),
        ("C:\\new", "C:\\new"),
        ("naïve 日本 می\u200cخواهم 👩\u200d🔬", "naïve 日本 می\u200cخواهم 👩\u200d🔬"),
    ],
)
def test_what_is_shown(text: str, expected: str) -> None:
    assert shown(text) == expected


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(NAMES):
        for split in ("train", "test"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for count in range(3):
                (folder / f"{name[:50]}{count}.png").write_bytes(encode(pixels(9 * index + count)))
    return tmp_path / "photos"


def test_folders_of_odd_names(regrain: Command, photos: Path, tmp_path: Path) -> None:
    code, out, err = regrain("check", photos)
    assert code == 0, err
    assert_harmless(out + err)
    code, out, err = regrain("fit", "sup-ce", photos, *QUICK, "--out", "run")
    assert code == 0, err
    assert_harmless(out + err)
    for command in (
        ("evaluate", "run", "-p", "recall", "-p", "clustering"),
        ("discover", "run", "--each", "2"),
        ("predict", "run", photos, "--out", "p.csv"),
        ("calibrate", "run", "--data", photos / "test"),
        ("attend", "run"),
        ("evaluate", "run", "--level", EVIL),
        ("predict", "run", photos / TURNED, "--out", "q.csv"),
        ("regroup", photos, tmp_path / f"{EVIL}.csv", "--out", "g.csv"),
        (EVIL,),
        ("check", photos, BROKEN),
        ("fit", TURNED, photos),
    ):
        code, out, err = regrain(*command)
        assert code in (0, 2), err
        assert_harmless(out + err)
    (photos / "train" / EVIL / "bad.png").write_bytes(b"no image")
    for command in (("check", photos), ("fit", "sup-ce", photos, *QUICK), ("check", photos, "--json")):
        code, out, err = regrain(*command)
        assert code == 2
        assert_harmless(out + err)
        assert "\\x1b[31mred" in out + err or "u001b[31mred" in out


def test_tables_of_odd_cells(regrain: Command, tmp_path: Path) -> None:
    frame = pd.DataFrame({f"f{EVIL}": np.arange(6.0), "kind": [EVIL, TURNED, BROKEN] * 2, "x": [EVIL] + ["1"] * 5})
    frame.to_csv(tmp_path / "t.csv", index=False)
    for options in ((), ("--columns", "x"), ("--columns", "nope"), ("--level", "kind"), ("--level", TURNED)):
        code, out, err = regrain("check", "t.csv", *options)
        assert code in (0, 2)
        assert_harmless(out + err)


def test_markup_is_shown_as_it_is(regrain: Command, photos: Path) -> None:
    code, _, err = regrain("fit", "sup-ce", photos, *QUICK, "--out", "run")
    assert code == 0, err
    code, out, _ = regrain("discover", "run", "--each", "2")
    assert MARKUP in out


def test_long_names_are_folded_and_whole(regrain: Command, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert regrain("fit", "sup-ce", photos, *QUICK, "--out", "run")[0] == 0
    for columns in ("80", "20"):
        monkeypatch.setenv("COLUMNS", columns)
        code, out, _ = regrain("discover", "run", "--each", "2")
        table = [line for line in out.splitlines() if line.startswith(("│", "┃", "┏", "└"))]
        assert code == 0
        assert max(map(len, table)) <= int(columns)
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = regrain("discover", "run", "--each", "2")
    assert out.count("n") > 2 * 200  # folded, not cut off


def test_a_terminal_of_ascii(tmp_path: Path) -> None:
    """A class that the terminal has no letters for is no stack trace."""
    for name in ("日本", "naïve"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(encode(pixels(1)))
        (tmp_path / "data" / name / "1.png").write_bytes(encode(pixels(1)))
    done = subprocess.run(
        [sys.executable, "-m", "regrain", "check", str(tmp_path / "data")],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u65e5\\u672c" in done.stdout


def test_json_for_machines_keeps_names(regrain: Command, photos: Path) -> None:
    code, out, _ = regrain("check", photos, "--json")
    assert code == 0
    assert json.loads(out)["levels"]["label"]["classes"] == len(NAMES)
