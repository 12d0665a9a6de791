"""The pages on vectors and on models elsewhere run as they stand, and print what they show."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tutorial_pages import Block, blocks_of, masked, printed

PAGES = Path(__file__).resolve().parents[2] / "docs"


def run_blocks(blocks: list[Block]) -> None:
    assert any(block.shown for block in blocks)
    for block, output in zip(blocks, printed(blocks), strict=True):
        if block.shown is not None:
            assert masked(output) == masked(block.shown), f"after:\n{block.code}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("section", "package"), [("scikit-learn", "sklearn"), ("FAISS", "faiss"), ("LanceDB", "lancedb")]
)
def test_vectors_in(section: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed: the page's section {section} is not run")
    first, *others = re.split(r"^## ", (PAGES / "vectors.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = [other for other in others if other.startswith(f"{section}\n")]
    run_blocks([*blocks_of(first), *blocks_of(text)])


@pytest.mark.usefixtures("place")
def test_a_model_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'regrain[onnx]')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "digits_preprocess", raising=False)
    run_blocks(blocks_of((PAGES / "deploy.md").read_text(encoding="utf-8")))
