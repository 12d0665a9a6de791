"""The blocks of a page, run in order: ``python`` ones share their names, ``sh`` ones are lines of ``regrain``.

A ``text`` block right after another shows what that one prints. As a script it writes this into the pages, and copies
the pictures ``tutorial-NAME.png`` that a page draws to docs/images::

    python tests/docs/tutorial_pages.py docs/tutorials/*.md
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from regrain.training import progress

progress.LOG_SECONDS = math.inf  # a page shows no line that depends on the machine's speed

_BLOCK = re.compile(
    r"^```(?P<language>python|sh)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```\n)?", re.DOTALL | re.MULTILINE
)
_IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*")
_RULED = re.compile(r"[━─ ]+")
_QUOTED = re.compile(r"“[^│]*")


@dataclass(frozen=True)
class Block:
    """A block of a page, what the page says that it prints, if it says so, and where that stands."""

    language: str
    code: str
    shown: str | None
    place: slice


def blocks_of(page: str) -> list[Block]:
    """The blocks that are run."""
    return [
        Block(found["language"], found["code"], found["shown"], slice(found.start("shown"), found.end("shown")))
        for found in _BLOCK.finditer(page)
    ]


def printed(blocks: list[Block]) -> Iterator[str]:
    """What each block prints, run in the current folder; whatever a block raises comes through."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    for block in blocks:
        stream = StringIO()
        with redirect_stdout(stream), redirect_stderr(stream), warnings.catch_warnings():
            try:
                _run(block, names)
            except Exception as error:
                error.add_note(f"printed so far:\n{stream.getvalue()}")
                raise
        yield "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def masked(output: str) -> set[str]:
    """The lines that occur, numbers, quoted texts and widths aside: these differ between machines."""
    return {_RULED.sub(" ", _NUMBER.sub("0", _QUOTED.sub("“”", line))).strip() for line in output.splitlines()}


def _run(block: Block, names: dict[str, Any]) -> None:
    if block.language == "python":
        exec(compile(block.code, "<page>", "exec"), names)
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        _command(shlex.split(line, comments=True))


def _command(words: list[str]) -> None:
    from regrain.cli import main

    if not words:
        return
    if words[0] != "regrain":
        raise ValueError(f"a page's sh block runs regrain alone, not {words[0]}")
    arguments, sys.argv = sys.argv, words
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"{shlex.join(words)} ends with {stop.code}") from None
    finally:
        sys.argv = arguments


def _write(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        sys.path.insert(0, folder)
        outputs = list(printed(blocks))
        sys.path.remove(folder)
        for picture in Path(folder).glob("tutorial-*.png"):
            shutil.copy(picture, _IMAGES)
    for block, output in reversed(list(zip(blocks, outputs, strict=True))):
        if block.shown is not None:
            page = page[: block.place.start] + output + page[block.place.stop :]
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.environ["COLUMNS"] = "100"
    for name in sys.argv[1:]:
        _write(Path(name).resolve())
