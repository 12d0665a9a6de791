"""The tutorials run as they stand, and print what their pages show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tutorial_pages import blocks_of, masked, printed

PAGES = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


NAMES = sorted(page.stem for page in PAGES.glob("*.md") if page.name != "index.md")


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_prints_what_it_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for package in ("matplotlib", "onnxruntime"):
        if re.search(rf"^(import|from) {package}\b", page, re.MULTILINE):
            pytest.importorskip(package, reason=f"{package} is not installed: the page is not run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "digits_preprocess", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    blocks = blocks_of(page)
    assert sum(block.shown is not None for block in blocks) >= 2
    for block, output in zip(blocks, printed(blocks), strict=True):
        if block.shown is not None:
            assert masked(output) == masked(block.shown), f"after:\n{block.code}"


def test_other_words_in_the_output_are_seen() -> None:
    page = "```python\nprint('recall', 0.91)\n```\n\n```text\nprecision 0.88\n```\n"
    (block,) = blocks_of(page)
    (output,) = printed([block])
    assert masked(output) == {"recall 0"}
    assert masked(output) != masked(block.shown)
