"""Paths as people have them: spaces, quotes, other alphabets, a leading dash, ``~``, links; commands can be pasted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support import Command, raises

import regrain
from regrain.errors import UserError, in_python
from regrain.spelling import command

FAST = ("--level", "kind", "--epochs", "1", "--quiet")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [f"{code + number / 50},{number % 7},k{code}" for number in range(20) for code in (0, 1)]
    file = tmp_path / "t.csv"
    file.write_text("\n".join(["a,b,kind", *rows]))
    return file


@pytest.mark.parametrize(
    "name",
    ["a run", 'it\'s "one"', "gr\u00f6\u00dfe-\u65e5\u672c", "new\nline", "-dash", "$HOME `x`", "a;b", "\u65e5" * 80],
)
def test_what_a_command_says_next_can_be_pasted(name: str, table: Path, regrain: Command) -> None:
    code, _, err = regrain("fit", "sup-ce", table, f"--out={name}", *FAST)
    assert code == 0, err
    (said,) = re.findall(r"evaluate it with `(.*)`\n", err)
    if "\n" in name:
        assert r"\n" in said  # a terminal shows one line
        said = command("evaluate", Path(name))
    words = shlex.split(said)
    assert words[0] == "regrain"
    code, out, err = regrain(*words[1:], "-p", "recall")
    assert (code, "recall@1" in out) == (0, True), err
    code, out, err = regrain("embed", words[2], "--out", f"./{name[:40]}.parquet")
    assert (code, "40 embeddings" in out) == (0, True), err


def test_the_home_folder_is_meant_by_a_tilde_that_no_shell_has_seen(
    table: Path, regrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert regrain("fit", "sup-ce", table, "--out", "~/runs/a", *FAST)[0] == 0
    assert (tmp_path / "home" / "runs" / "a" / "recipe.yaml").exists()
    assert regrain("evaluate", "~/runs/a", "-p", "recall")[0] == 0
    assert regrain("predict", "~/runs/a", table, "--out", "~/p.csv")[0] == 0
    assert (tmp_path / "home" / "p.csv").exists()
    assert not (tmp_path / "~").exists()


def test_python_knows_the_home_folder_too(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    run = regrain.fit("sup-ce", "~/t.csv", out="~/run", levels=["kind"], epochs=1)
    assert run.path == tmp_path / "run"
    assert regrain.Run.open("~/run").embed().shape[0] == 8
    assert regrain.Run(Path("~/run")).path == tmp_path / "run"  # type: ignore[arg-type]
    run.export_embeddings(Path("~/e.parquet"))
    assert (tmp_path / "e.parquet").exists()


def test_links_to_runs_are_runs(table: Path, regrain: Command, tmp_path: Path) -> None:
    assert regrain("fit", "sup-ce", table, "--out", "run", *FAST)[0] == 0
    (tmp_path / "link").symlink_to("run")
    (tmp_path / "broken").symlink_to("nowhere")
    assert regrain("evaluate", "link", "-p", "recall")[0] == 0
    assert (tmp_path / "run" / "evaluation.json").exists()
    code, _, err = regrain("evaluate", "broken")
    assert (code, "broken does not exist; runs are made by `regrain fit`" in err) == (2, True)
    code, _, err = regrain("fit", "sup-ce", table, "--out", "broken", *FAST)
    assert (code, "is not a folder; choose another --out" in err) == (2, True)
    code, _, err = regrain("fit", "sup-ce", table, "--out", "link", *FAST)
    assert (code, "link already holds a run: choose another --out, or replace it" in err) == (2, True)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("given", [3, None, b"run", ["run"]])
def test_what_is_not_a_path_is_named(given: object) -> None:
    for call in (regrain.Run.open, regrain.Run, regrain.evaluate):
        with raises("wrong_shape", f"a run is opened by the path of its folder; got {type(given).__name__}"):
            call(given)  # type: ignore[operator]


def test_paths_that_no_file_has_are_refused(table: Path, tmp_path: Path) -> None:
    for name, why in (("x" * 300, "longer than 255 bytes"), ("a\0b", "a NUL character"), ("a\udcff", "not UTF-8")):
        for call in (
            lambda place: regrain.fit("sup-ce", table, levels=["kind"], out=place),
            regrain.Run.open,
            lambda place: regrain.convert(table, place, levels=["kind"]),
        ):
            with pytest.raises(UserError, match=f"cannot be the path of a file or folder: .*{why}"):
                call(tmp_path / name)


def test_a_command_with_quotes_becomes_a_call() -> None:
    said = f"go on with `{command('resume', Path('my run'))}`"
    assert in_python(said) == "go on with `regrain.resume('my run')`"
