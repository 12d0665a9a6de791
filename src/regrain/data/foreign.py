"""Files that are not what their names say: the format by its first bytes, and what to do with such a file."""

from __future__ import annotations

import codecs
import json
import zipfile
from pathlib import Path

_HEAD = 4096

_CONTROLS = bytes(code for code in range(1, 32) if code not in b"\t\n\v\f\r\x1b")

_UNPACK = "unpack it"
_SAVE_SHEET = "save the sheet as CSV"
_SAVE_TABLE = "save the table in it as CSV"
_IN_PYTHON = "load it in Python, and give the data"
_IMAGE = ("an image", "give the folder that it is in, or a table of image paths")

_MARKS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "gzip", _UNPACK),
    (0, b"BZh", "bzip2", _UNPACK),
    (0, b"\xfd7zXZ\0", "xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"SQLite format 3\0", "a SQLite database", "export its table as CSV"),
    (8, b"DUCK", "a DuckDB database", "export its table as Parquet"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook, or another file of Office", _SAVE_SHEET),
    (0, b"%PDF-", "a PDF document", _SAVE_TABLE),
    (0, b"%!PS", "a PostScript document", _SAVE_TABLE),
    (0, b"{\\rtf", "a document in Rich Text Format", _SAVE_TABLE),
    (0, b"PAR1\x15", "Parquet", "let its name end in .parquet"),
    (0, b"ARROW1\0\0", "Arrow, also called Feather", "save it as Parquet"),
    (0, b"Obj\x01", "Avro", "save it as Parquet"),
    (0, b"\x93NUMPY", "a NumPy array", "load it in Python, and give the array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _IN_PYTHON),
    (0, b"MATLAB 5.0 MAT-file", "a MATLAB file", _IN_PYTHON),
    (0, b"RDX2\n", "a file of R", _SAVE_TABLE),
    (0, b"RDX3\n", "a file of R", _SAVE_TABLE),
    (0, b"<stata_dta>", "a file of Stata", _SAVE_TABLE),
    (0, b"$FL2", "a file of SPSS", _SAVE_TABLE),
    *((0, bytes([0x80, protocol]), "a Python pickle", _IN_PYTHON) for protocol in range(2, 6)),
    (0, b"\x89PNG\r\n\x1a\n", *_IMAGE),
    (0, b"\xff\xd8\xff", *_IMAGE),
    (0, b"GIF87a", *_IMAGE),
    (0, b"GIF89a", *_IMAGE),
    (0, b"II*\0", *_IMAGE),
    (0, b"MM\0*", *_IMAGE),
    (8, b"WEBPVP8", *_IMAGE),
    (6, b"\0\0\0\0\x36\0\0\0", *_IMAGE),  # BMP: its two letters alone may begin the name of a column
    (8, b"WAVEfmt ", "a sound", "give a table of its features"),
    (4, b"ftyp", "a video, or an image in HEIC or AVIF", "save its images as JPEG or PNG"),
    (0, b"\x7fELF", "a program", "give the data"),
    (
        0,
        b"version https://git-lfs.github.com/",
        "a pointer of Git LFS, not the file itself",
        "fetch it by `git lfs pull`",
    ),
)
"""Where a mark begins, the mark, the format and what to do."""

_IN_ZIP: tuple[tuple[str, str, str], ...] = (
    ("xl/", "an Excel workbook", _SAVE_SHEET),
    ("word/", "a Word document", _SAVE_TABLE),
    ("content.xml", "a document of LibreOffice", _SAVE_SHEET),
    ("data.pkl", "a file of PyTorch", _IN_PYTHON),
    (".npy", "NumPy arrays", "load them in Python, and give the arrays"),
)
"""A part of a name in a ZIP archive, the format that it shows and what to do."""

_WORKBOOKS = (".xlsx", ".xlsm", ".ods")
"""Endings of workbooks that are ZIP archives."""


def foreign_format(path: Path, content: bytes | None = None) -> str | None:
    """The format of a file that is not a table of text, such as ``it is gzip: unpack it``; None for any other.

    ``content``: of the file, where it was read. Raises an OSError for a file that cannot be read.
    """
    head = _head(path) if content is None else content[:_HEAD]
    zipped = head.startswith(b"PK\x03\x04") or (head.startswith(b"PK") and path.suffix.lower() in _WORKBOOKS)
    found = _of_zip(path) if zipped else _of_mark(head) or _of_markup(head)
    return None if found is None else f"it is {found[0]}: {found[1]}"


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _of_mark(head: bytes) -> tuple[str, str] | None:
    marks = ((name, advice) for start, mark, name, advice in _MARKS if head.startswith(mark, start))
    return next(marks, None)


def _of_zip(path: Path) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        whole = "copy or download the whole file"
        if path.suffix.lower() in _WORKBOOKS:
            return "a workbook whose end is missing", f"{whole}, and {_SAVE_SHEET}"
        return "a ZIP archive whose end is missing", whole
    for part, *found in _IN_ZIP:
        if any(name.startswith(part) or name.endswith(part) for name in names):
            return found[0], found[1]
    return "a ZIP archive", _UNPACK


def _of_markup(head: bytes) -> tuple[str, str] | None:
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:100].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, such as a server sends in place of a file", "download the file itself"
    if start.startswith(b"<svg"):
        return "a drawing in SVG", "save it as PNG"
    if start.startswith(b"<?xml"):
        return "XML", "save the table in it as CSV"
    return None


def described_text(path: Path) -> str | None:
    """Advice for a file of text whose name does not say its format; None where it is not text."""
    head = _head(path)
    text = head.decode("utf-8", errors="ignore").removeprefix("\ufeff").lstrip()
    if not text or not_text(head):
        return None
    if text.startswith(("{", "[")):
        return "it looks like JSON: let its name end in .jsonl for an object a line, else in .json"
    return "it is text: if each line is a row, and the first one names the columns, let its name end in .csv"


def is_json(text: str) -> bool:
    """Whether the first line of a text, or all of it, is a JSON object or list, as no header of a table is."""
    if not text.lstrip().startswith(('{"', '[{"', "{\n", "[\n")):
        return False
    for part in (text.lstrip().split("\n", 1)[0], text):
        try:
            return isinstance(json.loads(part), dict | list)
        except (ValueError, RecursionError):
            continue
    return False


def not_text(content: bytes) -> str | None:
    """Why bytes are not a text in UTF-8, by the NULs and other control characters in them; None if they may be one."""
    head = content[: 16 * _HEAD]
    if not head.strip(b"\0"):
        return "it holds nothing but NUL bytes, as a file does that was not copied whole" if head else None
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) // 4:
        if min(even, odd) <= max(even, odd) // 8:
            return "it looks like UTF-16 without a mark; save it as 'CSV UTF-8'"
        return "it is binary, and of a format that is not known here"
    controls = len(head) - len(head.translate(None, _CONTROLS))
    return "it is binary, and of a format that is not known here" if controls > len(head) // 20 else None
