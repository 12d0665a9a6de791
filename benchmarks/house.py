"""How much code there is, and how much of it one command walks through.

    python benchmarks/house.py

Lines of ``src/regrain`` by folder (code, docstrings, the rest), ``papers/`` apart; then two commands on a folder of 48
images under a profiler: functions entered, files, changes of file and of folder from one call to the next. The counts
do not depend on the machine's speed.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from PIL import Image

import regrain
from regrain.cli.main import app

HOUSE = Path(regrain.__file__).parent
IMAGES, SIDE = 48, 16


def sizes() -> dict[str, tuple[int, int, int]]:
    """Folder -> lines in all, of docstrings, blank or comment."""
    counted: dict[str, list[int]] = {}
    for file in sorted(HOUSE.rglob("*.py")):
        room = file.relative_to(HOUSE).parts[0].removesuffix(".py")
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines()
        documented = sum(
            node.body[0].end_lineno - node.body[0].lineno + 1
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        )
        bare = sum(not line.strip() or line.strip().startswith("#") for line in lines)
        for place, number in enumerate((len(lines), documented, bare)):
            counted.setdefault(room, [0, 0, 0])[place] += number
    return {room: (a, b, c) for room, (a, b, c) in counted.items()}


def walk(action: Callable[[], Any]) -> dict[str, int]:
    """What an action enters of regrain."""
    entered: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(f"{HOUSE}/") and not frame.f_code.co_name.startswith("<"):
            entered.append((file, frame.f_code.co_qualname))

    sys.setprofile(note)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            action()
    finally:
        sys.setprofile(None)
    first = list(dict.fromkeys(entered))  # every function once, in the order of first calls
    files = [file for file, _ in first]
    rooms = [Path(file).relative_to(HOUSE).parts[0] for file in files]
    return {
        "functions entered": len(first),
        "files": len(set(files)),
        "changes of file": sum(a != b for a, b in pairwise(files)),
        "changes of room": sum(a != b for a, b in pairwise(rooms)),
    }


def main() -> None:
    rooms = sizes()
    library = Counter[str]()
    print(f"{'room':14} {'lines':>7} {'docstrings':>11} {'blank, comment':>15}")
    for room, (lines, documented, bare) in sorted(rooms.items(), key=lambda item: -item[1][0]):
        print(f"{room:14} {lines:7,} {documented:11,} {bare:15,}")
        library["papers" if room == "papers" else "library"] += lines
    print(f"the library: {library['library']:,} lines; papers: {library['papers']:,}\n")
    with tempfile.TemporaryDirectory() as place:
        generator = np.random.default_rng(0)
        for number in range(IMAGES):
            folder = Path(place, "photos", f"super{number % 2}", f"sub{number % 4}")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
        run = f"{place}/run"
        fit = [
            "fit",
            "maskcon",
            f"{place}/photos",
            "--encoder",
            "conv4",
            "--set",
            "epochs=1",
            "--out",
            run,
            "--overwrite",
        ]
        found = {}
        for _ in range(2):  # the first time imports run class bodies and decorators
            for command in (fit, ["evaluate", run, "-p", "recall"]):
                found[command[0]] = walk(lambda command=command: app(command, standalone_mode=False))  # type: ignore[misc]
        for name, numbers in found.items():
            print(f"regrain {name}: " + ", ".join(f"{number:,} {what}" for what, number in numbers.items()))


if __name__ == "__main__":
    main()
