"""Whatever is wrong with a file of a run, every command that loads the run works or says so in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Command

import regrain as package
from regrain.storage.files import MANIFEST, Folder

_OPTIONS = ("--columns", "f*")
_COMMANDS: dict[str, tuple[str, ...]] = {
    "predict": ("predict", "run", "new.csv", *_OPTIONS, "--out", "out.csv"),
    "evaluate": ("evaluate", "run", "-p", "recall", "--no-baselines"),
    "discover": ("discover", "run"),
    "embed": ("embed", "run", "--out", "out.parquet"),
    "calibrate": ("calibrate", "run", "--split", "test"),
    "adapt": ("adapt", "run", "--support", "new.csv", *_OPTIONS, "--level", "sub", "--out", "adapted"),
    "export": ("export", "run", "--format", "safetensors", "--out", "out.safetensors"),
    "resume": ("resume", "run", "--quiet"),
    "predict adapted": ("predict", "few", "new.csv", *_OPTIONS, "--out", "out.csv"),
}
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _set_schema(content: bytes) -> bytes:
    try:
        found = json.loads(content)
        return json.dumps({**found, "schema": "x"}).encode()
    except (ValueError, TypeError):
        return b'{"schema": "x"}'


def _other_types(content: bytes, number: int) -> bytes:
    """A JSON in which one value, by number, is of another type."""
    try:
        found = json.loads(content)
    except ValueError:
        return content
    places: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(items):
            places.append((value, key))
            walk(inner)

    walk(found)
    if places:
        owner, key = places[number % len(places)]
        others = [None, "x", -1, 10**9, 1.5, [], {}, [[1]], True, "/etc/passwd"]
        owner[key] = others[number // 7 % len(others)]  # type: ignore[index]
    return json.dumps(found).encode()


def _flipped(content: bytes, number: int) -> bytes:
    if not content:
        return b"x"
    at = number % len(content)
    return content[:at] + bytes([content[at] ^ (1 << number % 8)]) + content[at + 1 :]


_DAMAGE: dict[str, Callable[[bytes, int], bytes | None]] = {
    "truncated": lambda content, n: content[: n % max(len(content), 1)],
    "empty": lambda content, n: b"",
    "garbage": lambda content, n: bytes((n * k * 131 + k) % 256 for k in range(n % 400)),
    "a list": lambda content, n: b"[1, 2]",
    "a number": lambda content, n: b"7",
    "null": lambda content, n: b"null",
    "nested": lambda content, n: b'{"a":' * 20_000,
    "not UTF-8": lambda content, n: content[: n % max(len(content), 1)] + b"\xff\xfe" + content[n % 50 :],
    "schema x": lambda content, n: _set_schema(content),
    "other types": _other_types,
    "flipped": _flipped,
    "missing": lambda content, n: None,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated, discovered and calibrated, another one adapted from it, and a table of new samples."""
    folder = tmp_path_factory.mktemp("sound")
    rows = [
        f"{'ab'[i % 2]},{'wxyz'[i % 4]},{i % 7}.5,{i % 5}.25,{('train', 'train', 'test')[i // 4 % 3]}"
        for i in range(60)
    ]
    for name in ("t.csv", "new.csv"):
        (folder / name).write_text("\n".join(["kind,sub,f1,f2,split", *rows]) + "\n")
    run = package.fit(
        "sup-ce", folder / "t.csv", out=folder / "run", columns=["f*"], levels=["kind", "sub"], split_column="split",
        encoder="mlp", device="cpu", settings=["epochs=2"],
    )  # fmt: skip
    package.evaluate(run, protocols=["recall"], baselines=False)
    package.discover(run)
    package.adapt(run, folder / "new.csv", folder / "few", level="sub", columns=["f*"], split_column="split")
    package.calibrate(run, split="test")
    return folder


def _files(folder: Path) -> list[Path]:
    return sorted(
        file.relative_to(folder)
        for name in ("run", "few")
        for file in (folder / name).rglob("*")
        if file.is_file() and file.name != ".lock"
    )


def _seal_again(file: Path) -> None:
    """Let the manifest say that the file is as it was written: what a stranger would do."""
    for folder in file.parents:
        if (folder / MANIFEST).exists():
            names = [name for name in json.loads((folder / MANIFEST).read_text())["files"] if (folder / name).exists()]
            Folder(folder).seal(names)
            return


def _check(regrain: Command, sound: Path, place: Path, command: str, damage: str, number: int, sealed: bool) -> None:
    for entry in place.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(sound, place, dirs_exist_ok=True)
    files = _files(place)
    own = [file for file in files if (file.parts[0] == "few") == ("few" in _COMMANDS[command])]
    file = place / own[number // 3 % len(own)]
    content = _DAMAGE[damage](file.read_bytes(), number)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    if sealed and file.name != MANIFEST:
        _seal_again(file)
    code, _, err = regrain(*_COMMANDS[command])
    where = f"{command}: {file.relative_to(place)} {damage} {number} {sealed}\n{err}"
    assert code in (0, 2), where
    assert "Traceback" not in err, where
    if code == 2:
        assert err.strip().splitlines()[-1].startswith("error: "), where
    table = place / "out.csv"
    if table.exists():
        assert "nan" not in table.read_text().lower(), where


_CASES = (
    st.sampled_from(sorted(_COMMANDS)),
    st.sampled_from(sorted(_DAMAGE)),
    st.integers(0, 100_000),
    st.booleans(),
)


@settings(_SETTINGS, max_examples=20)
@given(command=_CASES[0], damage=_CASES[1], number=_CASES[2], sealed=_CASES[3])
def test_a_damaged_file_is_named_or_does_no_harm(
    regrain: Command, sound: Path, tmp_path: Path, command: str, damage: str, number: int, sealed: bool
) -> None:
    _check(regrain, sound, tmp_path, command, damage, number, sealed)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=600)
@given(command=_CASES[0], damage=_CASES[1], number=_CASES[2], sealed=_CASES[3])
def test_any_damaged_file_is_named_or_does_no_harm(
    regrain: Command, sound: Path, tmp_path: Path, command: str, damage: str, number: int, sealed: bool
) -> None:
    _check(regrain, sound, tmp_path, command, damage, number, sealed)
