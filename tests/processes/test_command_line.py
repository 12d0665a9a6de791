"""The command line in several processes: the figures of one, each line once, and a Ctrl-C that loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file

import regrain

pytestmark = [pytest.mark.processes, pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")]

MODULE = [sys.executable, "-m", "regrain"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "regrain"]
SETTINGS = ["epochs=5", "batch_size=64", "precision=float32"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), env=ENVIRONMENT, check=True, capture_output=True, text=True)


def weights(run_folder: Path) -> dict[str, torch.Tensor]:
    return load_file(run_folder / "model" / "model.safetensors")


def test_torchrun_cut_off_and_resumed_by_two_devices_is_the_run_of_one_process(tmp_path: Path) -> None:
    asked = {"encoder": "mlp", "device": "cpu"}
    whole = regrain.fit("sup-ce", "digits", out=tmp_path / "whole", settings=SETTINGS, **asked)
    cut = tmp_path / "cut"
    options = ["--encoder", "mlp", "--device", "cpu", "--out", cut, "--quiet"]
    options += [part for setting in SETTINGS for part in ("--set", f"training.{setting}")]
    command = list(map(str, [*TORCHRUN, "fit", "sup-ce", "digits", *options]))
    process = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (cut / "metrics.csv").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert errors.count("method    sup-ce; labels it sees: group as coarse") == 1
    assert errors.count(f"stopped; go on with `regrain resume {cut}`") == 1
    assert not (cut / "model").exists()

    finished = run(*MODULE, "resume", cut, "--devices", 2, "--device", "cpu", "--quiet")
    assert finished.stderr.count("finished 5 epochs") == 1
    expected, found = whole.folder.read_metrics(), regrain.Run.open(cut).folder.read_metrics()
    assert len(found) == 5
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
    torch.testing.assert_close(weights(cut), weights(whole.path), rtol=1e-4, atol=1e-5)

    judged = run(*TORCHRUN, "evaluate", whole.path, "-p", "recall", "-p", "knn", "--json")
    own = regrain.evaluate(whole, protocols=["recall", "knn"])
    assert json.loads(judged.stdout) == own.flat() | {"verdict": own.to_json()["verdict"]}


LONGER = ["epochs=20", "batch_size=64", "precision=float32"]


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    """The run that others, cut off, must become."""
    out = tmp_path_factory.mktemp("longer") / "run"
    return regrain.fit("sup-ce", "digits", out=out, settings=LONGER, encoder="mlp", device="cpu")


def _begun(command: list[object], out: Path, *more: object) -> subprocess.Popen[str]:
    """A fit in processes of its own, that has written its first checkpoint."""
    options: list[object] = ["--encoder", "mlp", "--device", "cpu", "--out", out, "--quiet", *more]
    options += [part for setting in LONGER for part in ("--set", f"training.{setting}")]
    process = subprocess.Popen(
        list(map(str, [*command, "fit", "sup-ce", "digits", *options])), env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not (out / "metrics.csv").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    assert not (out / "model").exists()
    return process


def _ends_as(whole: regrain.Run, found: Path) -> None:
    expected, rows = whole.folder.read_metrics(), regrain.Run.open(found).folder.read_metrics()
    assert [row["epoch"] for row in rows] == list(range(1, 21))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-3)
    torch.testing.assert_close(weights(found), weights(whole.path), rtol=1e-2, atol=1e-3)


C10D = ["--rdzv-backend", "c10d", "--rdzv-endpoint"]


@pytest.mark.slow
@pytest.mark.parametrize("rendezvous", [[], [*C10D, "localhost:0"]], ids=["static", "c10d"])
def test_a_worker_that_is_killed_is_started_again_and_the_run_ends_the_same(
    longer: regrain.Run, tmp_path: Path, rendezvous: list[str]
) -> None:
    process = _begun([*TORCHRUN[:3], *rendezvous, "--max-restarts", "1", *TORCHRUN[3:]], tmp_path / "cut")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert "exitcode: -9" in errors
    _ends_as(longer, tmp_path / "cut")


@pytest.mark.slow
def test_a_worker_that_is_killed_on_one_of_two_machines_is_started_again(
    longer: regrain.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line of docs/processes.md for several machines, which here are one."""
    monkeypatch.setitem(ENVIRONMENT, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    machine = [*TORCHRUN[:3], "--nnodes", "2", "--nproc-per-node", "1", *C10D, f"localhost:{port}"]
    machine += ["--local-addr", "localhost", "--max-restarts", "2", *TORCHRUN[5:]]
    others = Thread(target=lambda: ends.append(_begun(machine, tmp_path / "cut", "--continue")))
    ends: list[subprocess.Popen[str]] = []
    others.start()
    ends.append(_begun(machine, tmp_path / "cut", "--continue"))
    others.join()
    workers = Path(f"/proc/{ends[0].pid}/task/{ends[0].pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    for process in ends:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    _ends_as(longer, tmp_path / "cut")


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_with_another_number_of_processes(longer: regrain.Run, tmp_path: Path) -> None:
    process = _begun(TORCHRUN, tmp_path / "1")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    shutil.copytree(tmp_path / "1", tmp_path / "4")
    options = ["--encoder", "mlp", "--device", "cpu", "--quiet", "--continue"]
    options += [part for setting in LONGER for part in ("--set", f"training.{setting}")]
    for devices in ("1", "4"):
        run(*MODULE, "fit", "sup-ce", "digits", *options, "--out", tmp_path / devices, "--devices", devices)
        _ends_as(longer, tmp_path / devices)


def test_torchrun_judges_and_embeds_a_frozen_encoder_as_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"encoder": "mlp", "frozen": True, "settings": ["epochs=1"], "device": "cpu", "limit_per_class": 20}
    alone = regrain.fit("sup-ce", "digits", out=tmp_path / "run", **told)
    expected = regrain.evaluate(alone, protocols=["recall"], write=False)
    monkeypatch.setitem(ENVIRONMENT, "REGRAIN_CACHE", str(tmp_path / "cache"))
    judged = run(*TORCHRUN, "evaluate", alone.path, "--protocol", "recall", "--json", "--device", "cpu")
    assert json.loads(judged.stdout) == expected.flat() | {"verdict": expected.to_json()["verdict"]}
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".npy"}


@pytest.mark.slow
def test_a_method_without_steps_is_fitted_alike(tmp_path: Path) -> None:
    alone = regrain.fit("kmeans", "digits", out=tmp_path / "one", encoder="identity", settings=["subclasses=10"])
    options = ["--encoder", "identity", "--set", "subclasses=10", "--device", "cpu"]
    run(*MODULE, "fit", "kmeans", "digits", *options, "--out", tmp_path / "two", "--devices", 2)
    torch.testing.assert_close(weights(tmp_path / "two"), weights(alone.path))


def test_commands_that_cannot_be_shared_out_say_so(monkeypatch: pytest.MonkeyPatch, regrain: object) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "3"}.items():
        monkeypatch.setenv(name, value)
    code, _, errors = regrain("tune", "maskcon", "digits")  # type: ignore[operator]
    assert code == 2
    assert "error in process 3: tune works in one process: leave out torchrun" in errors
    code, _, errors = regrain("fit", "maskcon", "digits", "--devices", "3")  # type: ignore[operator]
    assert code == 2
    assert "--devices 3 was asked for, and torchrun started 2 processes on this machine" in errors
