"""Files that are not what their names say: each is named for what it is, with what would be right."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import raises

from regrain.data import read
from regrain.data.taxonomies import taxonomy


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def image(format_: str) -> bytes:
    return written(lambda out: Image.new("RGB", (8, 8), "red").save(out, format_))


def archive(*names: str) -> bytes:
    def write(out: io.BytesIO) -> None:
        with zipfile.ZipFile(out, "w") as opened:
            for name in names:
                opened.writestr(name, "a,b\n1,2\n")

    return written(write)


def tar() -> bytes:
    def write(out: io.BytesIO) -> None:
        with tarfile.open(fileobj=out, mode="w") as opened:
            opened.addfile(tarfile.TarInfo("a.csv"))

    return written(write)


def sqlite() -> bytes:
    with sqlite3.connect(":memory:") as base:
        base.execute("create table t (a, b)")
        base.execute("insert into t values (1, 'x')")
    return base.serialize()


FRAME = pd.DataFrame({"a": [1.5, 2.5], "kind": ["u", "v"]})
TABLE = b"a,kind\n1.5,u\n2.5,v\n"
FOREIGN = {
    "sqlite": (sqlite(), "it is a SQLite database: export its table as CSV"),
    "xlsx": (archive("[Content_Types].xml", "xl/workbook.xml"), "it is an Excel workbook: save the sheet as CSV"),
    "xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), "it is an Excel workbook, or another file of Office"),
    "docx": (archive("word/document.xml"), "it is a Word document"),
    "ods": (archive("mimetype", "content.xml"), "it is a document of LibreOffice: save the sheet as CSV"),
    "zip": (archive("a.csv"), "it is a ZIP archive: unpack it"),
    "half a zip": (archive("a.csv")[:40], "it is a ZIP archive whose end is missing"),
    "npz": (written(lambda out: np.savez(out, a=np.ones(3))), "it is NumPy arrays: load them in Python"),
    "npy": (written(lambda out: np.save(out, np.ones(3))), "it is a NumPy array: load it in Python"),
    "torch": (written(lambda out: torch.save({"a": torch.ones(3)}, out)), "it is a file of PyTorch: load it in Python"),
    "pickle": (pickle.dumps(FRAME), "it is a Python pickle: load it in Python, and give the data"),
    "old pickle": (pickle.dumps([1, 2], protocol=2), "it is a Python pickle"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n", "it is a PDF document"),
    "html": (
        b"\n<!DOCTYPE html>\n<html><body>404, not found</body></html>",
        "it is an HTML page, such as a",
    ),
    "xml": (b'<?xml version="1.0"?>\n<a><b>1</b></a>\n', "it is XML"),
    "gzip": (gzip.compress(TABLE), "it is gzip: unpack it"),
    "bzip2": (bz2.compress(TABLE), "it is bzip2: unpack it"),
    "xz": (lzma.compress(TABLE), "it is xz: unpack it"),
    "tar": (tar(), "it is a tar archive: unpack it"),
    "feather": (written(FRAME.to_feather), "it is Arrow, also called Feather: save it as Parquet"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "it is an HDF5 file"),
    **{name: (image(name), "it is an image: give the folder that it is in") for name in ("PNG", "JPEG", "GIF", "BMP")},
    **{name: (image(name), "it is an image: give the folder that it is in") for name in ("TIFF", "WEBP")},
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "it is a pointer of Git LFS"),
}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".txt", ".parquet", ".jsonl", ".json", ""])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_is_named_for_what_it_is(name: str, suffix: str, tmp_path: Path) -> None:
    content, words = FOREIGN[name]
    file = tmp_path / f"table{suffix}"
    file.write_bytes(content)
    with raises("damaged_file", words):
        read(file)


def test_parquet_and_json_under_another_name(tmp_path: Path) -> None:
    parquet = written(FRAME.to_parquet)
    for name, content, words in (
        ("a.csv", parquet, "it is Parquet: let its name end in .parquet"),
        ("a.txt", parquet, "it is Parquet: let its name end in .parquet"),
        ("cut.parquet", parquet[:100], "as Parquet: its end is missing: copy or download the whole file"),
        ("empty.parquet", b"", "cannot be read as Parquet: it is empty"),
        ("b.parquet", TABLE, "it is text: .*let its name end in .csv"),
        ("b.txt", TABLE, "it is text: .*let its name end in .csv"),
        ("c.csv", FRAME.to_json(orient="records").encode(), "it is JSON: let its name end in .jsonl"),
        ("d.tsv", FRAME.to_json(orient="records", lines=True).encode(), "it is JSON: let its name end in .jsonl"),
        (
            "d.txt",
            FRAME.to_json(orient="records", lines=True).encode(),
            "it looks like JSON: let its name end in",
        ),
        ("e.xlsx", TABLE, "it is text: .*let its name end in .csv"),
    ):
        (tmp_path / name).write_bytes(content)
        with raises("damaged_file", words):
            read(tmp_path / name)


def test_bytes_of_no_known_format(tmp_path: Path) -> None:
    for content, words in (
        (bytes(100), "holds nothing but NUL bytes, as a file does that was not copied whole"),
        (np.random.default_rng(0).bytes(300), "it is binary, and of a format that is not known here"),
        (b"\x40" + bytes(7) + b'{"a":{"dtype":"F32"}}' + bytes(40), "it is binary"),
        ("a,kind\n1,u\n2,v\n".encode("utf-16-be"), "looks like UTF-16 without a mark; save it as 'CSV UTF-8'"),
        ("a,kind\n1,caf\xe9\n".encode("latin-1"), "line 2 has other bytes; save it as 'CSV UTF-8'"),
    ):
        (tmp_path / "a.csv").write_bytes(content)
        with raises("damaged_file", words):
            read(tmp_path / "a.csv")


def test_tables_whose_first_letters_are_also_marks_are_read(tmp_path: Path) -> None:
    """Names of columns that begin as images, Parquet, sounds and JSON do."""
    for header in ("BMI", "PAR1", "GIF", "RIFF", "II", "ID3", "Obj", "ORC", '"{x}"', "[x]", "%PD", "<18"):
        file = tmp_path / "a.csv"
        file.write_text("\n".join([f"{header},b,kind", *(f"{n}.5,{n % 7},k{n % 2}" for n in range(20))]))
        data = read(file, levels=["kind"])
        assert data.notes["columns"] == [header.strip('"'), "b"]


def test_what_is_damaged_is_named_by_every_reader_of_texts(tmp_path: Path) -> None:
    for name in ("a.csv", "a.txt", "a.tsv"):
        (tmp_path / name).write_bytes(gzip.compress(b"dog,animal\n"))
        with raises("damaged_file", "it is gzip: unpack it"):
            taxonomy(tmp_path / name)
