"""Every piece of benchmarks/gpu.py, dry: a few images, a small network, no GPU."""

from __future__ import annotations

import importlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "gpu", raising=False)
    return importlib.import_module("gpu")


def encoded(kind: str, count: int) -> list[bytes]:
    """Images of noise."""
    random_numbers = np.random.default_rng(0)
    images = []
    for pixels in random_numbers.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        images.append(buffer.getvalue())
    return images


@pytest.mark.filterwarnings("ignore")
def test_every_piece_runs_once_and_is_kept(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = [f"c{row % 4}" for row in range(120)]
    columns = {"fine": fine, "coarse": [f"s{int(name[1]) // 2}" for name in fine], "split": ["train", "test"] * 60}
    for name, kind in (("cifar100", "WEBP"), ("cifartoy", "JPEG")):
        gpu.write_packed(tmp_path / f"{name}.npz", encoded(kind, 120), columns)
    command = ["run", "--tiny", "--device", "cpu", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    gpu.main([*command, "--seconds", "30"])  # too few for some pieces
    assert "left for another time" in capsys.readouterr().out
    gpu.main([*command, "--seconds", "100000"])
    first = (tmp_path / "out" / "gpu.json").read_text(encoding="utf-8")
    found = json.loads(first)
    assert set(found) == set(gpu.PIECES)
    assert not [name for name, piece in found.items() if "error" in piece]
    assert all(found["steps"][way]["samples a second"] > 0 for way in ("eager", "usual"))
    assert 0 <= found["maskcon cifar100"]["recall@1"] <= 100
    gpu.main([*command, "--seconds", "100000"])  # all is there: nothing runs again
    assert (tmp_path / "out" / "gpu.json").read_text(encoding="utf-8") == first
    cut_off = {name: piece for name, piece in found.items() if name != "maskcon cifar100"}  # after the training
    (tmp_path / "out" / "gpu.json").write_text(json.dumps(cut_off), encoding="utf-8")
    gpu.main([*command, "--seconds", "100000"])
    again = json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))
    for key in ("epochs", "seconds", "recall@1"):
        assert again["maskcon cifar100"][key] == found["maskcon cifar100"][key]
