"""The wheel alone, without the checkout: the demo, the examples in its docstrings, and a user's script under mypy."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
import regrain

data = regrain.load("digits")
run: regrain.Run = regrain.fit("kmeans", data, encoder="identity", out="runs/digits", epochs=1)
frame = run.predict(data)
reveal_type(run)
wrong: int = regrain.load("digits")
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the wheel cannot be built here: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = folder.glob("regrain-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run_with(site: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "REGRAIN_CACHE": str(cwd / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_the_wheel_is_whole(installed: Path, tmp_path: Path) -> None:
    done = run_with(installed, tmp_path, "-c", "import regrain; print(regrain.__file__, regrain.__version__)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(installed))
    names = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "regrain").rglob("*") if path.is_file()}
    shipped = {str(path.relative_to(installed)) for path in (installed / "regrain").rglob("*")}
    assert {name for name in names if "__pycache__" not in name} <= shipped


def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = run_with(installed, tmp_path, "-m", "regrain", "demo", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "demo" / "neighbours.png").exists()


def test_the_examples_in_docstrings_run_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    options = ["--doctest-modules", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = run_with(installed, tmp_path, "-m", "pytest", *options, str(installed / "regrain"))
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_users_script_is_checked_by_the_wheels_types(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"MYPYPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", os.devnull, "--ignore-missing-imports", str(script)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "regrain.runs.run.Run"' in done.stdout, done.stdout
    assert done.stdout.count("error:") == 1, done.stdout
    assert "Incompatible types in assignment" in done.stdout
