"""Runs that one may read and not write, folders that are closed, full disks: results go elsewhere, or one sentence."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import bound_by_permissions, quick, raises

import regrain
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.storage import files
from regrain.storage.files import require_place


def vectors() -> Dataset:
    codes = np.arange(160) % 4
    x = np.random.default_rng(0).normal(size=(160, 4)) + 3 * np.eye(4)[codes]
    names = {"kind": [f"k{code // 2}" for code in codes], "sub": [f"s{code}" for code in codes]}
    splits = np.repeat(["train", "val", "test"], [100, 30, 30])
    return regrain.load(x.astype("float32"), labels=names, splits=splits)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Call -> what came of it: ``["wrote", names]``, ``["refused", code, message]``, with its warnings at the end."""
    root = tmp_path_factory.mktemp("closed")
    regrain.convert(vectors(), root / "data")
    run = quick("multi-ce", root / "data", root / "run")
    closed = [run.path, *(path for path in run.path.rglob("*") if path.is_dir()), root / "shut"]
    (root / "shut").mkdir()
    (root / "mine").mkdir()
    for place in closed:
        place.chmod(0o555)
    for file in run.path.rglob("*"):
        if file.is_file():
            file.chmod(0o444)
    code = """
import os, warnings
from pathlib import Path
import regrain
from regrain.report import compare, report
root = Path(sys.argv[1])
os.environ["REGRAIN_CACHE"] = str(root / "mine" / "cache")
os.chdir(root)
run, data = "run", "data"
few = regrain.load(data).split("val")
calls = {
    "evaluate": lambda: regrain.evaluate(run, protocols=["recall"]),
    "discover": lambda: regrain.discover(run),
    "discover data": lambda: regrain.discover(run, few),
    "discover names": lambda: regrain.discover(run, names="mine/names.json"),
    "embed": lambda: regrain.export_embeddings(run, "mine/e.parquet"),
    "embed shut": lambda: regrain.export_embeddings(run, "shut/e.parquet"),
    "predict": lambda: regrain.predict(run, data, out="mine/p.csv"),
    "predict shut": lambda: regrain.predict(run, data, out="shut/a/p.csv"),
    "clean shut": lambda: regrain.clean(run, out="shut/c.csv"),
    "adapt": lambda: regrain.adapt(run, few, level="sub", out="mine/adapted"),
    "adapt shut": lambda: regrain.adapt(run, few, level="sub", out="shut/adapted"),
    "hub": lambda: regrain.export(run, "mine/hub", format="hub"),
    "hub shut": lambda: regrain.export(run, "shut/hub", format="hub"),
    "export": lambda: regrain.export(run, format="safetensors"),
    "calibrate": lambda: regrain.calibrate(run),
    "report": lambda: report(run, out="mine/r.html"),
    "report inside": lambda: report(run),
    "compare shut": lambda: compare([run, "mine/adapted"], figures="shut/figures"),
    "fit shut": lambda: regrain.fit("sup-ce", data, out="shut/run", epochs=1),
    "fit into it": lambda: regrain.fit("sup-ce", data, out=run, overwrite=True, epochs=1),
    "convert shut": lambda: regrain.convert(data, "shut/shards"),
    "auto shut": lambda: regrain.auto(data, out="shut/auto"),
    "tune shut": lambda: regrain.tune("sup-ce", data, out="shut/tune", ranges=["learning_rate=0.1:0.2"], trials=1),
}
(root / "mine" / "names.json").write_text('{"0": "a"}')
found = {}
for name, call in calls.items():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            call()
            outcome = ["done"]
        except regrain.UserError as error:
            outcome = ["refused", error.code, str(error)]
        except Exception as error:
            outcome = ["failed", type(error).__name__, str(error)]
    found[name] = [*outcome, [str(w.message) for w in caught if isinstance(w.message, regrain.errors.RegrainWarning)]]
found["files"] = sorted(path.name for path in (root / "mine").iterdir())
print(json.dumps(found))
"""
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    try:
        found = bound_by_permissions(code, root)
        assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
        yield found
    finally:
        for place in closed:
            place.chmod(0o755)


@pytest.mark.parametrize(
    "name", ["embed", "predict", "adapt", "hub", "report", "evaluate", "discover", "discover data"]
)
def test_what_needs_no_place_in_the_run_works(outcomes: dict[str, Any], name: str) -> None:
    assert outcomes[name][0] == "done", outcomes[name]
    assert {"e.parquet", "p.csv", "adapted", "hub", "r.html"} <= set(outcomes["files"])


def test_what_a_run_would_have_kept_is_said(outcomes: dict[str, Any]) -> None:
    for name, what in (("evaluate", "figures"), ("discover", "subclasses")):
        (told,) = outcomes[name][-1]
        assert told.startswith(f"the {what} are not kept: you may not write into "), told
        assert told.endswith("run; copy the run to a folder of your own, and use the copy")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("embed shut", "shut/e.parquet cannot be written: you may not write into {root}shut; choose another out="),
        ("predict shut", "shut/a/p.csv cannot be written: you may not write into {root}shut; choose another out="),
        ("clean shut", "shut/c.csv cannot be written: you may not write into {root}shut; choose another out="),
        ("adapt shut", "shut/adapted cannot be written: you may not write into {root}shut; choose another out="),
        ("hub shut", "you may not write into {root}shut; choose another out="),
        ("export", "cannot be written: you may not write into {root}run; choose another out="),
        ("report inside", "run/report.html cannot be written: you may not write into {root}run; choose another out="),
        ("compare shut", "you may not write into {root}shut; choose another folder for figures="),
        ("calibrate", "you may not write into {root}run; copy the run to a folder of your own, and use the copy"),
        ("discover names", "you may not write into {root}run; copy the run to a folder of your own, and use the copy"),
        ("fit shut", "shut/run cannot be written: you may not write into {root}shut; choose another out="),
        ("fit into it", "you may not write into {root}run; copy the run to a folder of your own, and use the copy"),
        ("convert shut", "shut/shards cannot be written: you may not write into {root}shut; choose another out="),
        ("auto shut", "shut/auto cannot be written: you may not write into {root}shut; choose another out="),
        ("tune shut", "shut/tune cannot be written: you may not write into {root}shut; choose another out="),
    ],
)
def test_what_cannot_be_written_is_one_sentence(outcomes: dict[str, Any], name: str, words: str) -> None:
    kind, code, message, _ = outcomes[name]
    assert (kind, code) == ("refused", "not_writable"), outcomes[name]
    start, end = words.split("{root}")
    assert start in message
    assert message.endswith(end)


def test_a_place_is_judged_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    require_place(tmp_path / "new" / "deep" / "x.csv")
    require_place(tmp_path / "file")  # which an overwrite replaces
    with raises("not_writable", r"file/x.csv cannot be written: .*file is not a folder; choose another --out"):
        require_place(tmp_path / "file" / "x.csv")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with raises("not_writable", "link is not a folder"):
        require_place(tmp_path / "link" / "x.csv")
    for name, why in (
        ("a\0b", "it holds a NUL character"),
        ("x" * 300, "is longer than 255 bytes"),
        ("a\udcff", "not UTF-8"),
    ):
        with pytest.raises(UserError, match=f"cannot be the path of a file or folder: .*{why}"):
            require_place(tmp_path / name)


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = quick("sup-ce", vectors(), tmp_path / "run")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/of-a-library")  # what Lightning says of its own

    few = vectors().split("val")
    with monkeypatch.context() as patched:
        patched.setattr("lightning.Trainer.save_checkpoint", full)
        with raises("not_writable", r"new/checkpoints/last.ckpt could not be written: No space left on device"):
            quick("sup-ce", vectors(), tmp_path / "new")

    def copied(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    with monkeypatch.context() as patched:
        patched.setattr(files.shutil, "copyfile", copied)
        with raises("not_writable", r"adapted/model.new/\S+ could not be written: No space left on device"):
            run.adapt(few, level="sub", out=tmp_path / "adapted")
        with raises("not_writable", r"\.hub\S+ could not be written: No space left on device"):
            run.export(tmp_path / "hub", format="hub")
    assert run.adapt(few, level="sub", out=tmp_path / "adapted").classifier is not None  # the same call goes on


def test_copies_of_what_is_read_only_can_be_written(tmp_path: Path) -> None:
    run = quick("sup-ce", vectors(), tmp_path / "run")
    for path in run.path.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        adapted = run.adapt(vectors().split("val"), level="sub", out=tmp_path / "adapted")
        hub = run.export(tmp_path / "hub", format="hub").path
    finally:
        for path in run.path.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    for place in (adapted.path, hub):
        for path in place.rglob("*"):
            assert path.stat().st_mode & stat.S_IWUSR, path
