"""Small folders of all that people, cameras, systems and accidents leave in them.

Whatever lies there: exit code 0 or 2 and one sentence, never a stack trace or a NaN; every entry is read, refused with
a reason or passed over by name, and the counts add up; and an image's embedding does not depend on its company.

Permissions do not bind root, as whom tests may run: a folder that cannot be opened is played by ``os.scandir``.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import encode, pixels
from PIL import Image

import regrain
from regrain.cli.main import main
from regrain.data.checking import check
from regrain.errors import UserError
from regrain.runs.run import Run

QUICK = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
THOROUGH = settings(QUICK, max_examples=1000)

JUNK = ("@eaDir", ".git", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "__MACOSX", ".Trashes")
JUNK_FILES = ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", ".hidden.jpg")
NAMES = (
    "cat",
    "dog",
    "train",
    "test",
    "caf\u00e9",
    "cafe\u0301",
    os.fsdecode(b"caf\xe9"),
    os.fsdecode(b"\xff"),
    "-rf",
    " a ",
    " ",
    "50%",
    "a#b?c",
    "new\nline",
    "\x1b[31mred",
    "\u202eturned",
    "[red]",
    "=1+1",
    "'",
    '"',
    "a\\b",
    "nan",
    "-1",
    "n" * 120,
    "日本",
    "\U0001f469\u200d\U0001f52c",
)
ENDINGS = (".png", ".jpg", ".JPG", ".gif", ".tif", ".webp", ".bmp", ".txt", ".heic", "", ".png.part", ".tga")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "animated", "clear palette")
SIZES = ((1, 1), (1, 1000), (1000, 1), (2, 3), (16, 16), (16, 24), (40, 9), (150, 130))


class Entry(NamedTuple):
    """What is put into a folder: where, and how to make it."""

    folders: tuple[str, ...]
    name: str
    kind: str
    mode: str = "RGB"
    size: tuple[int, int] = (16, 16)
    orientation: int = 1
    seed: int = 0


def fs_names() -> st.SearchStrategy[str]:
    """Names that a file may have, bytes that are not UTF-8 among them."""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="/\0") | st.sampled_from(
        [os.fsdecode(bytes([byte])) for byte in range(0x80, 0x100)]
    )
    return st.text(letters, min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..") and len(os.fsencode(name)) < 120
    )


names = st.sampled_from(NAMES) | fs_names()
folders = st.lists(st.sampled_from(("cat", "dog", *JUNK)) | names, max_size=3).map(tuple)
kinds = st.sampled_from(
    ("image",) * 8
    + ("wrong ending", "empty", "truncated", "flipped", "text", "junk", "link", "folder link", "loop", "out", "broken")
    + ("pipe", "shut")
)
entries = st.lists(
    st.builds(
        Entry,
        folders,
        st.builds("{}{}".format, names, st.sampled_from(ENDINGS)),
        kinds,
        st.sampled_from(MODES),
        st.sampled_from(SIZES),
        st.integers(1, 8),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=8,
)


def picture(entry: Entry) -> Image.Image:
    height, width = entry.size
    colour = Image.fromarray(pixels(entry.seed, height, width))
    if entry.mode == "I;16":
        return Image.fromarray(np.asarray(colour.convert("L")).astype(np.uint16) * 100)
    if entry.mode == "I":
        return Image.fromarray(np.asarray(colour.convert("L")).astype(np.int32) * 300)
    if entry.mode == "animated":
        return colour.convert("P")
    if entry.mode == "clear palette":
        return colour.quantize(8)
    return colour.convert(entry.mode)


def encoded(entry: Entry) -> bytes:
    """An image file's bytes, in the format of the ending where that can hold the pixels, else as TIFF."""
    image, stream = picture(entry), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = entry.orientation
    options: dict[str, Any] = {"exif": exif.tobytes()}
    if entry.mode == "animated":
        options |= {"save_all": True, "append_images": [image.rotate(90)]}
    if entry.mode == "clear palette":
        options |= {"transparency": 0}
    wanted = Image.registered_extensions().get(os.path.splitext(entry.name)[1].lower(), "PNG")
    for form in (wanted, "PNG", "TIFF"):
        try:
            image.save(stream, format=form, **options)
            return stream.getvalue()
        except Exception:  # this format does not hold these pixels
            stream = io.BytesIO()
            options.pop("save_all", None)
    raise AssertionError(entry)


def put(top: Path, beside: Path, entry: Entry) -> str | None:
    """Make an entry; the name of a folder to shut, if that is what it is."""
    folder = top.joinpath(*entry.folders)
    file = folder / entry.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(file):
            return None
        if entry.kind in ("image", "truncated", "flipped"):
            content = encoded(entry)
            if entry.kind == "truncated":
                content = content[: len(content) * (1 + entry.seed) // 8]
            if entry.kind == "flipped":
                place = len(content) * (1 + entry.seed) // 8
                content = content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]
            file.write_bytes(content)
        elif entry.kind == "wrong ending":
            file.write_bytes(encode(pixels(entry.seed), "JPEG"))
        elif entry.kind == "empty":
            file.write_bytes(b"")
        elif entry.kind == "text":
            file.write_text("<html>404</html>")
        elif entry.kind == "junk":
            (folder / JUNK_FILES[entry.seed % len(JUNK_FILES)]).write_bytes(b"x")
        elif entry.kind == "pipe":
            os.mkfifo(file)
        elif entry.kind == "shut":
            file.mkdir()
            return str(file)
        else:
            targets = {
                "link": beside / "one" / "0.png",
                "folder link": top.joinpath(*entry.folders[:1]),
                "loop": file,
                "out": beside / "one" if entry.seed else Path("/"),
                "broken": beside / "nowhere",
            }
            file.symlink_to(targets[entry.kind])
    except OSError:  # a name that this file system does not take, or a file where a folder is wanted
        return None
    return None


@contextmanager
def shut_folders(shut: list[str]) -> Iterator[None]:
    scan = os.scandir

    def refusing(path: Any = ".") -> Any:
        if os.path.realpath(path) in shut:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    with mock.patch("os.scandir", refusing):
        yield


def is_junk(name: str) -> bool:
    return name.startswith(".") or name in JUNK or name in JUNK_FILES


def there(folder: str, above: tuple[str, ...], shut: list[str]) -> int:
    """How many entries a reader has to answer for, counted in another way than it does."""
    if os.path.realpath(folder) in shut:
        return 1
    total = 0
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        real = os.path.realpath(path)
        if (
            is_junk(name)
            or not os.path.isdir(path)
            or (os.path.islink(path) and any(f"{place}/".startswith(f"{real.rstrip('/')}/") for place in above))
        ):
            total += 1
        else:
            total += there(path, (*above, real), shut)
    return total


def command(*arguments: object) -> tuple[int, str]:
    """Exit code and all that is shown; anything else than exit 0 or 2 is raised."""
    shown = io.StringIO()
    with (
        redirect_stdout(shown),
        redirect_stderr(shown),
        mock.patch.object(sys, "argv", ["regrain", *map(str, arguments)]),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    text = shown.getvalue()
    assert code in (0, 2), text
    assert "Traceback" not in text
    odd = [c for line in text.splitlines() for c in line if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert not odd, text
    return code, text


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("run")
    for index in range(8):
        file = place / "photos" / ("cat", "dog")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(pixels(index, 16)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAIN_CACHE", str(place / "cache"))
        return regrain.fit(
            "sup-ce",
            place / "photos",
            out=place / "run",
            encoder="conv4",
            settings=["epochs=1", "batch_size=4"],
            holdout=0,
            device="cpu",
        )


def holds(run: Run, made: list[Entry], *, train: bool) -> None:
    """The properties of one folder."""
    place = Path(os.path.realpath(tempfile.mkdtemp()))
    try:
        top, beside = place / "data", place / "beside"
        (beside / "one").mkdir(parents=True)
        (beside / "one" / "0.png").write_bytes(encode(pixels(9, 20)))
        top.mkdir()
        shut = [found for entry in made if (found := put(top, beside, entry)) is not None]
        with shut_folders(shut):
            examine(run, top, place, shut, train=train)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def examine(run: Run, top: Path, place: Path, shut: list[str], *, train: bool) -> None:
    code, text = command("check", top)
    try:
        report = check(top)
    except UserError:
        assert code == 2, text
        return  # it holds no images
    assert code == (0 if report.ok else 2), text
    refused = sum(len(issue.rows) for issue in report.issues if issue.severity == "error")
    try:
        data = regrain.load(top, skip_unreadable=True)
    except UserError:
        if not refused:
            raise
        return
    samples = sum(report.samples.values())
    left_out, passed = data.notes.get("left_out", []), data.notes["passed_over"]
    assert len(left_out) == refused
    assert len(data) + len(left_out) + len(passed) == there(str(top), (str(top),), shut)
    assert len(data) <= samples
    ids = data.ids.tolist()
    assert len(set(ids)) == len(ids)
    assert all(i.encode() for i in [*ids, *passed, *left_out])
    codes = data.labels.codes
    assert len(codes) == len(ids)

    vectors = run.embed(top, skip_unreadable=True)
    assert bool(vectors.isfinite().all())
    chosen = len(ids) // 2
    alone = place / "alone"
    alone.mkdir()
    source = _sources(data)[chosen]
    shutil.copyfile(source, alone / f"x{os.path.splitext(source)[1]}")
    assert float((run.embed(alone)[0] - vectors[chosen]).abs().max()) <= 1e-4 * float(vectors.abs().max())
    command("predict", run.path, top, "--skip-unreadable", "--out", place / "p.csv")
    assert (
        regrain.load(place / "p.csv", id_column="id", columns=["label_probability"], levels=["label"]).ids.tolist()
        == ids
    )
    if train:
        quick = ("--encoder", "conv4", "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--holdout", "0")
        command("fit", "sup-ce", top, "--skip-unreadable", *quick, "--out", place / "own")
        command("evaluate", place / "own", "--split", "train", "-p", "recall", "--k", "1")


def _sources(data: Any) -> list[str]:
    samples = data.samples
    return list((samples.encoded or samples).sources if hasattr(samples, "encoded") else samples.sources)


@QUICK
@given(made=entries)
def test_a_few_folders(run: Run, made: list[Entry]) -> None:
    holds(run, made, train=False)


@pytest.mark.slow
@THOROUGH
@given(made=entries, train=st.integers(0, 19).map(lambda number: number == 19))
def test_a_thousand_folders(run: Run, made: list[Entry], train: bool) -> None:
    holds(run, made, train=train)


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_image_is_read_or_named(run: Run, mode: str) -> None:
    sizes = ((1, 1), (1, 1000), (16, 16))
    made = [Entry((kind,), f"{i}.tif", "image", mode, size, 6, i) for kind in "ab" for i, size in enumerate(sizes)]
    holds(run, made, train=False)


@pytest.mark.parametrize("size", [(1, 1), (1, 1000), (16, 24)])
def test_odd_sizes_train_or_are_named(run: Run, size: tuple[int, int]) -> None:
    made = [Entry((kind,), f"{i}.png", "image", "RGBA", size, 1, i) for kind in "ab" for i in range(3)]
    holds(run, made, train=True)
