"""Run folders: one writer, checksums, modes, full disks, moved data, strangers' files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import Command, Soon, raises, weights

import regrain as package
from regrain.errors import Stopped, UserError
from regrain.model import load_model
from regrain.processes import is_first_process, layout_of
from regrain.storage.files import Folder, replace_file
from regrain.storage.run_folder import RunFolder
from regrain.training.loop import _together

_TABLE = "kind,sub,f1,f2,split\n" + "".join(
    f"{'ab'[i % 2]},{'wxyz'[i % 4]},{i % 7}.5,{i % 5}.25,{('train', 'train', 'test')[i // 4 % 3]}\n" for i in range(60)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "t.csv").write_text(_TABLE)
    package.fit(
        "sup-ce", folder / "t.csv", out=folder / "run", columns=["f*"], levels=["kind", "sub"], split_column="split",
        encoder="mlp", device="cpu", settings=["epochs=2"],
    )  # fmt: skip
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_second_writer_is_refused_and_a_dead_one_blocks_nothing(run: Path) -> None:
    program = (
        "import sys\nfrom regrain.storage.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).writing():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"{run} is in use: another process"), RunFolder(run).writing(patience=0.2):
            pass
        holder.kill()
    with RunFolder(run).writing(patience=0.2):
        pass


def test_one_flipped_bit_is_found_and_the_flag_skips_the_check(run: Path, regrain: Command) -> None:
    for name in ("model/model.safetensors", "checkpoints/last.ckpt", "recipe.yaml", "metrics.csv"):
        content = (run / name).read_bytes()
        at = len(content) - 5
        (run / name).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=rf"{Path(name).name} is damaged: its size or checksum"):
            RunFolder(run).checked(name) if "/" not in name or "last" in name else load_model(run / "model")
        (run / name).write_bytes(content)
    (run / "manifest.json").unlink()
    code, _, err = regrain("evaluate", run, "-p", "recall", "--no-baselines")
    assert (code, "manifest.json is missing" in err) == (2, True)
    code, _, err = regrain("--no-verify", "embed", run, "--out", "e.parquet")
    assert code == 0, err
    assert Folder.verifies


@pytest.mark.parametrize("broken", ["nan", "int8", "shape"])
def test_weights_that_cannot_be_right_are_refused(run: Path, broken: str) -> None:
    file = run / "model" / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n, t in tensors.items() if t.is_floating_point() and t.ndim == 2)
    changed = {
        "nan": tensors[name] * float("nan"),
        "int8": tensors[name].to(torch.int8),
        "shape": torch.zeros(tensors[name].shape[0] + 1, tensors[name].shape[1]),
    }
    save_file({**tensors, name: changed[broken]}, file)
    words = {"nan": "not finite", "int8": "torch.int8 of shape", "shape": "was expected"}
    with pytest.raises(UserError, match=words[broken]):
        load_model(run / "model", verify=False)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("encoder", "width"), 10**9),
        (("encoder", "depth"), 10**9),
        (("encoder", "sample_shape"), [10**9]),
        (("inputs", "shape"), [10**9]),
        (("inputs", "mean"), [float(10**9)] * 3),
        (("classes",), [10**9]),
        (("encoder", "name"), "resnet50"),
        (("encoder", "channels"), 10**9),
        (("method",), "x"),
        (("hyperparameters", "temperature"), "/etc/passwd"),
        (("labels", "classes"), [["a"], ["b"], ["c"]]),
    ],
)
def test_a_strangers_configuration_allocates_nothing(run: Path, place: tuple[str, ...], value: Any) -> None:
    file = run / "model" / "config.json"
    content = json.loads(file.read_text())
    owner = content
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError):
        load_model(run / "model", verify=False)


def test_paths_of_a_strangers_configuration_are_dropped(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "model" / "config.json"
    content = json.loads(file.read_text())
    content["encoder"] |= {"pretrained": "/etc/passwd", "folder": "/etc"}
    file.write_text(json.dumps(content))
    opened: list[str] = []
    monkeypatch.setattr("regrain.encoders.weights.read_weights", lambda path: opened.append(str(path)) or {})
    load_model(run / "model", verify=False)
    assert opened == []


def test_a_classifier_that_is_gone_is_missed(trained: Path, run: Path, tmp_path: Path) -> None:
    given = {"level": "sub", "columns": ["f*"], "split_column": "split"}
    adapted = package.adapt(run, trained / "t.csv", tmp_path / "adapted", **given)
    (adapted.folder.model_folder / "classifier.json").unlink()
    with pytest.raises(UserError, match=r"classifier\.json is missing, and manifest\.json lists it"):
        package.predict(tmp_path / "adapted", trained / "t.csv", tmp_path / "out.csv")


def test_files_follow_the_umask(run: Path, tmp_path: Path) -> None:
    assert {file.stat().st_mode & 0o777 for file in run.rglob("*") if file.is_file()} == {0o644}
    before = os.umask(0o027)
    try:
        Folder(tmp_path / "new").write_json("a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "new" / "a.json").stat().st_mode & 0o777 == 0o640


def test_a_full_disk_names_the_file_and_leaves_nothing(run: Path) -> None:
    before = sorted(run.rglob("*"))
    folder = RunFolder(run)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(UserError, match=r"run/report\.txt could not be written: File too large"):
            folder.write_text("report.txt", "x" * 5000)
        with pytest.raises(UserError, match=r"x\.bin could not be written: File too large"):
            replace_file(run / "x.bin", lambda file: file.write_bytes(b"x" * 5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(run.rglob("*")) == before


def test_a_narrower_evaluation_takes_nothing_away(run: Path) -> None:
    def kept() -> dict[str, set[tuple[str, str]]]:
        found = json.loads((run / "evaluation.json").read_text())["evaluations"]
        return {part["split"]: {(row["level"], row["metric"]) for row in part["rows"]} for part in found}

    package.evaluate(run, protocols=["recall", "knn"], baselines=False)
    before = kept()
    package.evaluate(run, protocols=["recall"], levels=["sub"], baselines=False)
    package.evaluate(run, protocols=["recall"], split="train", baselines=False)
    assert kept()["test"] == before["test"]
    assert set(kept()) == {"test", "train"}


def test_data_that_moved_are_said_by_an_option(trained: Path, tmp_path: Path, regrain: Command) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    moved = tmp_path / "elsewhere.csv"
    (trained / "t.csv").rename(moved)
    try:
        code, _, err = regrain("evaluate", "run", "-p", "recall")
        assert (code, f"the data of run are no longer at {trained / 't.csv'}" in err, "--data" in err) == (
            2,
            True,
            True,
        )
        for command in (
            ("evaluate", "run", "-p", "recall", "--no-baselines", "--data", moved),
            ("discover", "run", "--data", moved),
            ("embed", "run", "--data", moved, "--out", "e.parquet"),
            ("calibrate", "run", "--split", "test", "--data", moved),
        ):
            code, _, err = regrain(*command)
            assert code == 0, err
        assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"][0]["own_data"]
        RunFolder("run").write_json("state.json", {"finished": False})
        code, _, err = regrain("resume", "run", "--data", moved, "--quiet")
        assert code == 0, err
    finally:
        moved.rename(trained / "t.csv")


def test_a_restart_by_torchrun_goes_on(trained: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"columns": ["f*"], "levels": ["kind", "sub"], "split_column": "split", "encoder": "mlp", "device": "cpu"}
    RunFolder(run).write_json("state.json", {"finished": False})
    with pytest.raises(UserError, match="already holds a run"):
        package.fit("sup-ce", trained / "t.csv", out=run, settings=["epochs=2"], **given)
    monkeypatch.setattr("regrain.verbs.fit.was_restarted", lambda: True)
    assert package.fit("sup-ce", trained / "t.csv", out=run, settings=["epochs=2"], **given).folder.finished
    with pytest.raises(UserError, match="already holds a run"):
        package.fit("sup-ce", trained / "t.csv", out=run, settings=["epochs=3"], **given)


def test_a_command_given_again_goes_on(trained: Path, tmp_path: Path) -> None:
    given = {"columns": ["f*"], "levels": ["kind", "sub"], "split_column": "split", "encoder": "mlp", "device": "cpu"}
    given |= {"settings": ["epochs=4", "batch_size=8"], "continue_": True}
    whole = package.fit("maskcon", trained / "t.csv", out=tmp_path / "whole", **given)
    with pytest.raises(Stopped):
        package.fit("maskcon", trained / "t.csv", out=tmp_path / "run", interrupt=Soon(7), **given)
    again = package.fit("maskcon", trained / "t.csv", out=tmp_path / "run", **given)
    for name, expected in weights(whole).items():
        assert torch.equal(weights(again)[name], expected), name
    written = again.folder.metrics_file.stat().st_mtime_ns
    finished = package.fit("maskcon", trained / "t.csv", out=tmp_path / "run", **given)
    assert finished.folder.metrics_file.stat().st_mtime_ns == written
    with raises("would_overwrite", "holds another run"):
        package.fit("maskcon", trained / "t.csv", out=tmp_path / "run", **{**given, "seed": 1})


_UNEQUAL = {"RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "3"}
"""Of a machine that has three of eight processes."""


@pytest.mark.parametrize(
    ("given", "layout"),
    [({"RANK": "1", "WORLD_SIZE": "4"}, (1, 4, 4)), ({"WORLD_SIZE": "4"}, (1, 1, 1)), (_UNEQUAL, (3, 2, 8))],
)
def test_a_launcher_is_known_by_rank_and_world_size(
    given: dict[str, str], layout: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "0")  # which Lightning's settings give where it is absent
    found = layout_of(1)
    assert (found.devices, _together(found, "cpu")["num_nodes"], found.processes) == layout
    assert is_first_process() == ("RANK" not in given)


def test_a_name_of_the_catalogue_that_is_a_folder_too(regrain: Command, tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    code, _, err = regrain("fit", "sup-ce", "digits", "--text", "question")
    assert (code, "./digits" in err) == (2, True)


def test_a_script_without_a_guard_says_so_where_workers_are_spawned(tmp_path: Path) -> None:
    for kind in "ab":
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(3):
            image = Image.new("RGB", (300, 300), (80 * number, 10, 10))
            image.save(tmp_path / "photos" / kind / f"{number}.jpg")
    (tmp_path / "script.py").write_text(
        "import multiprocessing\n"
        "import regrain\n"
        "multiprocessing.set_start_method('spawn', force=True)\n"
        "asked = dict(encoder='conv4', epochs=1, workers=1, batch_size=4, image_size=300, device='cpu')\n"
        "regrain.fit('sup-ce', 'photos', out='run', **asked)\n"
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode != 0
    assert "put what it does under `if __name__ == '__main__':`" in done.stderr.splitlines()[-1]
