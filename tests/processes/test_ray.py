"""Workers of a Ray cluster: the run, the tables and the report of one process, also where a worker is lost."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from support import Command, raises, weights
from torch import Tensor

import regrain
from regrain.cluster import Cluster
from regrain.data import check, read
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import Stopped, UserError
from regrain.runs import blocks

SETTINGS = {"epochs": 3, "batch_size": 64, "precision": "float32"}
ASKED: dict[str, Any] = {"encoder": "mlp", "device": "cpu", "settings": SETTINGS}
RAY: dict[str, Any] = {"engine": "ray", "devices": 2}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two CPUs, whose files are in a folder of its own."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'regrain[ray]'")
    folder = tempfile.mkdtemp(prefix="rg-", dir="/tmp" if os.path.isdir("/tmp") else None)  # sockets need short paths
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder, object_store_memory=200 << 20)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not find this file
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Troubled(TensorSamples):
    """Samples that end the second of several workers once, in the second epoch, or raise an error."""

    note: Path = Path()
    error: str = ""

    def select(self, index: Tensor) -> Troubled:
        return replace(self, rows=index if self.rows is None else self.rows[index])

    def take(self, index: Tensor) -> Any:
        if os.environ.get("RANK") == "1":
            if self.error:
                raise UserError(self.error, code="not_finite")
            if not self.note.exists():
                time.sleep(1.1)  # so that the end of the epoch writes a checkpoint
                self.note.write_text("first epoch")
            elif self.note.read_text() == "first epoch" and (self.note.parent / "run/checkpoints/last.ckpt").exists():
                self.note.write_text("lost")
                os.kill(os.getpid(), signal.SIGKILL)
        return super().take(index)


def _troubled(note: Path, error: str = "") -> Dataset:
    digits = read("digits")
    assert isinstance(digits.samples, TensorSamples)
    return replace(digits, samples=Troubled(digits.samples.stored, digits.samples.modality, note=note, error=error))


def _alike(one: regrain.Run, other: regrain.Run) -> None:
    first, second = one.folder.read_metrics(), other.folder.read_metrics()
    assert [row["epoch"] for row in first] == [row["epoch"] for row in second] == [1, 2, 3]
    assert [row["loss"] for row in first] == pytest.approx([row["loss"] for row in second], rel=1e-5)
    torch.testing.assert_close(weights(one), weights(other), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    return regrain.fit("sup-ce", read("digits"), out=tmp_path_factory.mktemp("alone") / "run", **ASKED)


@pytest.mark.slow
@pytest.mark.processes
def test_two_workers_of_which_one_is_killed_end_as_one_process(
    cluster: Any, alone: regrain.Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = regrain.fit("sup-ce", _troubled(tmp_path / "note"), out=tmp_path / "run", **RAY, **ASKED)
    assert (tmp_path / "note").read_text() == "lost"
    assert "workers were lost or added" in capfd.readouterr().err
    _alike(run, alone)
    assert not (tmp_path / "run" / ".ray").exists()


@pytest.mark.slow
@pytest.mark.processes
def test_a_run_that_was_stopped_goes_on_in_one_process(cluster: Any, alone: regrain.Run, tmp_path: Path) -> None:
    asked = threading.Event()
    asked.set()
    with pytest.raises(Stopped):
        regrain.fit("sup-ce", read("digits"), out=tmp_path / "run", interrupt=asked, **RAY, **ASKED)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    run = regrain.fit("sup-ce", read("digits"), out=tmp_path / "run", continue_=True, **ASKED)
    _alike(run, alone)


@pytest.mark.slow
@pytest.mark.processes
def test_an_error_of_a_worker_is_the_users(cluster: Any, tmp_path: Path) -> None:
    with raises("not_finite", "number 7 is odd"):
        regrain.fit("sup-ce", _troubled(tmp_path / "n", "number 7 is odd"), out=tmp_path / "run", **RAY, **ASKED)


@pytest.mark.slow
@pytest.mark.processes
def test_embeddings_and_classes_are_those_of_one_process(
    cluster: Any, alone: regrain.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 400)
    regrain.export_embeddings(alone, tmp_path / "one.parquet", "digits")
    embed, counts = regrain.verbs.embed.embeddings_of, []

    def stopped(model: Any, block: Any) -> Any:
        counts.append(len(block))
        if len(counts) == 2:
            raise KeyboardInterrupt
        return embed(model, block)

    with monkeypatch.context() as patch:
        patch.setattr("regrain.verbs.embed.embeddings_of", stopped)
        with pytest.raises(KeyboardInterrupt):
            regrain.export_embeddings(alone, tmp_path / "two.parquet", "digits")
    left = tmp_path / ".two.parquet.parts" / "0.parquet"
    assert left.exists()
    marked = pq.read_table(left)
    marked = marked.set_column(0, "id", [[f"kept {i}" for i in range(400)]])
    pq.write_table(marked, left)
    assert regrain.export_embeddings(alone, tmp_path / "two.parquet", "digits", **RAY)[0] == 1797
    one, two = pq.read_table(tmp_path / "one.parquet"), pq.read_table(tmp_path / "two.parquet")
    assert two["id"][:400].to_pylist() == marked["id"].to_pylist()  # the block that was there is not made again
    assert two["id"][400:].equals(one["id"][400:])
    assert two.drop(["id"]).equals(one.drop(["id"]))

    expected = regrain.predict(alone, "digits", tmp_path / "one.csv")
    found = regrain.predict(alone, "digits", tmp_path / "two.csv", **RAY)
    pd.testing.assert_frame_equal(found, expected)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert regrain.predict(alone, "digits", **RAY)["group"].tolist() == expected["group"].tolist()


def _squares(note: Path) -> Any:
    def square(number: int) -> int:
        if number == 5 and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 11:
            raise UserError("no square of 11", code="out_of_range")
        return number**2

    return square


@pytest.mark.slow
@pytest.mark.processes
def test_what_a_killed_worker_had_to_do_is_done_again(cluster: Any, tmp_path: Path) -> None:
    found = Cluster(2, "cpu").map(partial(_squares, tmp_path / "note"), iter(range(12)))
    assert [next(found) for _ in range(11)] == [number**2 for number in range(11)]
    assert (tmp_path / "note").exists()
    with raises("out_of_range", "no square of 11"):
        next(found)
    with raises("missing_file", "does not exist"):
        list(Cluster(1, "cpu").map(lambda: regrain.Run.open(tmp_path / "nowhere"), [0]))


@pytest.mark.slow
@pytest.mark.processes
def test_check_finds_what_one_process_finds(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    for name in ("a/x", "a/y", "b/z"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    (tmp_path / "photos/a/x/0.png").write_bytes(b"not an image")
    shutil.copy(tmp_path / "photos/a/y/1.png", tmp_path / "photos/b/z/copy.png")
    monkeypatch.setattr("regrain.data.checking._BLOCK", 4)
    monkeypatch.chdir(tmp_path)
    expected = check("photos")
    assert {issue.kind for issue in expected.issues} >= {"undecodable image", "identical with different labels"}
    assert check("photos", **RAY) == expected


def test_more_workers_than_there_is_room_for(cluster: Any) -> None:
    with raises("too_few", "has a CPU for 2: ask for fewer"):
        regrain.fit("sup-ce", "digits", engine="ray", devices=5, device="cpu")
    with raises("invalid_input", "no machine of the Ray cluster has a GPU"):
        regrain.fit("sup-ce", "digits", engine="ray", device="cuda")


def test_what_goes_wrong_before_a_cluster_is_there(
    regrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, _, errors = regrain("fit", "sup-ce", "digits", "--workers", "2")
    assert code == 2
    assert "--workers is for --engine ray" in errors
    code, _, errors = regrain("check", "digits", "--devices", "2")
    assert code == 2
    assert "--devices counts the workers of --engine ray" in errors
    code, _, errors = regrain("check", "digits", "--engine", "ray", "--workers", "0")
    assert code == 2
    assert "--devices is at least 1" in errors
    code, _, errors = regrain("fit", "sup-ce", "digits", "--engine", "rey")
    assert code == 2
    assert "did you mean 'ray'?" in errors
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    code, _, errors = regrain("fit", "sup-ce", "digits", "--engine", "ray", "--workers", "2")
    assert code == 2
    assert "pip install 'regrain[ray]'" in errors
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    code, _, errors = regrain("fit", "sup-ce", "digits", "--engine", "ray")
    assert code == 2
    assert "leave out torchrun" in errors
