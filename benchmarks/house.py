"""How much code there is, and how much of it one command walks through.

    python benchmarks/house.py

Lines of ``src/regrain`` by folder, each of one kind: documentation (texts that stand alone: of modules, classes,
functions, attributes), blank or comment, import, other code. Then two commands on a folder of 48 images under a
profiler: functions entered, files, changes of file and of folder from one call to the next. The counts do not depend on
the machine's speed.
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


def sizes() -> dict[str, Counter[str]]:
    """Folder -> number of lines by their kind."""
    counted: dict[str, Counter[str]] = {}
    for file in sorted(HOUSE.rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        kinds = ["blank" if not line.strip() or line.strip().startswith("#") else "other" for line in text.splitlines()]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                kind = "import"
            elif (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                kind = "documentation"
            else:
                continue
            kinds[node.lineno - 1 : node.end_lineno] = [kind] * ((node.end_lineno or node.lineno) - node.lineno + 1)
        counted.setdefault(file.relative_to(HOUSE).parts[0].removesuffix(".py"), Counter()).update(kinds)
    return counted


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
    rooms["the library"] = sum((kinds for room, kinds in rooms.items() if room != "papers"), Counter())
    print(f"{'room':14} {'lines':>7} {'documentation':>14} {'blank, comment':>15} {'import':>7} {'other code':>11}")
    for room, kinds in sorted(rooms.items(), key=lambda item: item[1].total()):
        print(
            f"{room:14} {kinds.total():7,} {kinds['documentation']:14,} {kinds['blank']:15,} {kinds['import']:7,} "
            f"{kinds['other']:11,}"
        )
    code = rooms["the library"]["import"] + rooms["the library"]["other"]
    print(f"code of the library, which is all but papers: {code:,} lines, imports among them\n")
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
