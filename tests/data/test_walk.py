"""Folders as people have them: links, junk of systems, odd names, files that cannot be read. Nothing vanishes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from image_files import WriteImage, encode, pixels
from PIL import Image
from support import bound_by_permissions

import regrain
from regrain.data import read
from regrain.data.checking import check
from regrain.data.dataset import Dataset
from regrain.data.folder import image_suffixes, walk
from regrain.errors import UserError
from regrain.spelling import readable

LATIN = os.fsdecode(b"caf\xe9")  # a folder made on a system of another alphabet


def told(data: Dataset) -> str:
    return " ".join(data.notes["messages"])


def classes(data: Dataset) -> dict[str, str | None]:
    level = data.labels.levels[-1]
    names = data.labels.names(level)
    codes = data.labels.level(level).tolist()
    return {str(i): names[c] if c >= 0 else None for i, c in zip(data.ids, codes, strict=True)}


# Links


def test_class_folders_linked_into_splits_count_once_a_path(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pool/cat/1.png", 1)
    write_image("pool/dog/2.png", 2)
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        for kind in ("cat", "dog"):
            (tmp_path / "data" / split / kind).symlink_to(tmp_path / "pool" / kind)
    data = read(tmp_path / "data")
    assert data.ids.tolist() == [f"{s}/{k}" for s in ("test", "train") for k in ("cat/1.png", "dog/2.png")]
    assert data.split("test").labels.counts == {"label": 2}
    assert "4 links followed out of the folder: test/cat -> " in told(data)
    warned = [issue.kind for issue in check(tmp_path / "data").issues]
    assert "identical across splits" in warned


def test_links_inside_the_folder_are_not_reported_as_leading_out(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("train/cat/1.png", 1)
    write_image("train/dog/2.png", 2)
    (tmp_path / "test").symlink_to(tmp_path / "train")
    data = read(tmp_path)
    assert len(data.split("test")) == len(data.split("train")) == 2
    assert "followed" not in told(data)


@pytest.mark.parametrize("target", ["/", "..", "../..", "/proc", "."])
def test_links_back_end(tmp_path: Path, write_image: WriteImage, target: str) -> None:
    write_image("a/b/1.png")
    link = tmp_path / "a" / "loop"
    link.symlink_to(target)
    data = read(tmp_path)
    assert data.ids.tolist() == ["a/b/1.png"]
    assert "1 link not followed, to a folder around it or into the system: " in told(data)
    assert f"a/loop -> {os.path.realpath(link)}" in told(data)
    assert "a/loop" in data.notes["passed_over"]


def test_links_round_about_end(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("a/1.png", 1)
    write_image("b/2.png", 2)
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert read(tmp_path).ids.tolist() == ["a/1.png", "a/b/2.png", "b/2.png", "b/a/1.png"]


def test_links_that_multiply_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrain.data.folder._MOST_PATHS", 100)
    places = [tmp_path / str(index) for index in range(9)]
    for place in places:
        place.mkdir()
        for other in places:
            if other != place:
                (place / other.name).symlink_to(other)
    with pytest.raises(UserError, match=r"by more than 100 paths, such as .*: remove some of them"):
        read(tmp_path)


def test_broken_links_and_links_to_themselves_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cat" / "round.png").symlink_to(tmp_path / "cat" / "round.png")
    (tmp_path / "dog").symlink_to(tmp_path / "moved" / "dog")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "nowhere.txt")
    report = check(tmp_path)
    (issue,) = (issue for issue in report.issues if issue.severity == "error")
    assert issue.message == "unreadable: 3 rows cannot be used"
    assert issue.rows[0] == f"cat/gone.png is a link to {tmp_path}/nowhere.png, which does not exist"
    assert issue.rows[1].startswith("cat/round.png cannot be opened (")
    assert issue.rows[2] == f"dog is a link to {tmp_path}/moved/dog, which does not exist"
    with pytest.raises(UserError, match="3 of 4 rows cannot be used"):
        read(tmp_path)
    data = read(tmp_path, skip_unreadable=True)
    assert data.ids.tolist() == ["cat/1.png"]
    assert len(data.notes["left_out"]) == 3


# Permissions


def test_files_and_folders_without_permission_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    for kind in ("cat", "dog", "owl"):
        write_image(f"data/{kind}/1.png")
    (tmp_path / "data" / "cat" / "1.png").chmod(0)
    (tmp_path / "data" / "dog").chmod(0)
    code = """
from regrain.data import read
from regrain.errors import UserError
try:
    read(sys.argv[1])
except UserError as error:
    refused = str(error)
data = read(sys.argv[1], skip_unreadable=True)
print(json.dumps({"refused": refused, "ids": data.ids.tolist(), "left_out": data.notes["left_out"]}))
"""
    try:
        found = bound_by_permissions(code, tmp_path / "data")
    finally:
        (tmp_path / "data" / "dog").chmod(0o755)
    assert "2 of 3 rows cannot be used" in found["refused"]
    assert found["ids"] == ["owl/1.png"]
    assert found["left_out"][0] == "dog is a folder that cannot be opened (Permission denied)"
    assert found["left_out"][1].startswith("cat/1.png is a file that you have no permission to read: ")


def test_a_path_below_a_closed_folder_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("closed/data/cat/1.png")
    (tmp_path / "closed").chmod(0)
    code = """
from regrain.data import read
from regrain.errors import UserError
try:
    read(sys.argv[1])
except UserError as error:
    print(json.dumps({"refused": str(error)}))
"""
    try:
        found = bound_by_permissions(code, tmp_path / "closed" / "data")
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert found["refused"] == f"{tmp_path}/closed/data cannot be reached (Permission denied)"


def test_a_folder_that_fails_in_the_middle_is_named(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image("cat/1.png")
    write_image("dog/2.png")
    scan = os.scandir

    def failing(path: Any) -> Any:
        if str(path).endswith("dog"):
            raise OSError(5, "Input/output error")
        return scan(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(UserError, match=r"dog is a folder that cannot be opened \(Input/output error\)"):
        read(tmp_path)
    assert read(tmp_path, skip_unreadable=True).ids.tolist() == ["cat/1.png"]


def test_pipes_are_not_opened(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    os.mkfifo(tmp_path / "cat" / "2.png")
    with pytest.raises(UserError, match=r"cat/2\.png is not a file but a pipe, a socket or a device"):
        read(tmp_path)
    (tmp_path / "t.csv").write_text("image,kind\ncat/1.png,a\ncat/2.png,b\ncat,b\n")
    with pytest.raises(UserError, match="2 of 3 rows cannot be used: line 3 names what is not a file but a folder, a"):
        regrain.load(tmp_path / "t.csv", image="image", levels=["kind"])


# Junk


JUNK = (
    "@eaDir",
    ".AppleDouble",
    ".thumbnails",
    "lost+found",
    "$RECYCLE.BIN",
    "System Volume Information",
    "#recycle",
    ".git",
    "__MACOSX",
    ".Trash-1000",
    "FOUND.000",
)


def test_junk_of_systems_is_passed_over_and_named(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    for name in JUNK:
        write_image(f"{name}/2.png")
        write_image(f"cat/{name}/3.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._1.png"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    data = read(tmp_path)
    assert data.ids.tolist() == ["cat/1.png"]
    assert f"{2 * len(JUNK) + 4} names passed over, hidden or of the system: " in told(data)
    assert "#recycle (2); $RECYCLE.BIN (2); " in told(data)
    assert {"cat/Thumbs.db", "cat/._1.png", "@eaDir", "cat/lost+found"} <= set(data.notes["passed_over"])
    assert "hidden or of the system" in " ".join(check(tmp_path).messages)


# Endings


def test_all_that_pillow_reads_is_read(tmp_path: Path) -> None:
    suffixes = image_suffixes()
    assert {".jfif", ".jp2", ".tga", ".qoi", ".pcx", ".webp", ".ico", ".mpo"} <= set(suffixes)
    assert not {".pdf", ".h5", ".mpg", ".eps", ".wmf"} & set(suffixes)
    written = []
    for suffix in suffixes:
        file = tmp_path / "a" / f"x{suffix.upper()}"
        file.parent.mkdir(exist_ok=True)
        try:
            Image.fromarray(pixels(0, 16)).save(file)
            Image.open(file).load()
        except Exception:  # Pillow cannot write it, or not these pixels
            file.unlink(missing_ok=True)
        else:
            written.append(f"a/{file.name}")
    assert len(written) > 15
    assert read(tmp_path).ids.tolist() == sorted(written)


def test_wrong_endings(tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "cat").mkdir()
    jpeg = encode(pixels(0), "JPEG")
    (tmp_path / "cat" / "1.png").write_bytes(jpeg)  # by its content
    (tmp_path / "cat" / "2.jpg_large").write_bytes(jpeg)
    (tmp_path / "cat" / "3").write_bytes(jpeg)
    (tmp_path / "cat" / "4.txt").write_text("a text")
    data = read(tmp_path)
    assert data.ids.tolist() == ["cat/1.png"]
    assert "3 files passed over, not images by their endings: " in told(data)
    assert "of these, images all the same: cat/2.jpg_large; cat/3: rename what is to be read" in told(data)


# Names


ODD = (
    "line\nbreak",
    "tab\tand\rreturn",
    "\x1b[31mred\x1b[0m",
    "[red]markup",
    "\u202eturned",
    "-leading",
    "=1+1",
    "'quoted'",
    'double"quoted"',
    "a,b;c|d",
    "50%",
    "a#b?c&d",
    " spaces ",
    "nan",
    "NA",
    "-1",
    "back\\slash",
    "l" * 200,
    "日本",
    LATIN,
    os.fsdecode(b"\xff\xfe"),
)


@pytest.fixture(scope="module")
def odd_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    place = tmp_path_factory.mktemp("odd") / LATIN
    for index, name in enumerate(ODD):
        (place / name).mkdir(parents=True)
        for count in range(2):
            file = place / name / f"{name[:100]}{count}.png"
            file.write_bytes(encode(pixels(10 * index + count)))
    run = regrain.fit(
        "sup-ce", place, out=place.parent / "run", encoder="conv4", settings=["epochs=1", "batch_size=8"], holdout=0
    )
    return place, run


def test_ids_and_classes_survive_every_writer(odd_run: tuple[Path, Any], tmp_path: Path) -> None:
    place, run = odd_run
    data = regrain.load(place)
    ids = data.ids.tolist()
    assert len(set(ids)) == 2 * len(ODD)
    assert all(i == readable(i) and i.encode() for i in ids)
    assert data.labels.counts == {"label": len(ODD)}
    names = set(data.labels.names("label"))
    assert {"caf\\xe9", "\\xff\\xfe", "\\x20spaces\\x20", "nan", "NA", "-1", "日本"} <= names
    assert any("\\xe9" in message for message in data.notes["messages"])

    again = regrain.Run.open(run.path)  # labels.json, recipe.yaml, config.json
    assert set(again.labels.names("label")) == names
    assert again.splits()["train"].ids.tolist() == ids
    regrain.export_embeddings(run, tmp_path / "e.parquet", place)
    assert pd.read_parquet(tmp_path / "e.parquet")["id"].tolist() == ids
    for ending in ("csv", "parquet"):
        regrain.predict(run, place, tmp_path / f"p.{ending}")
        table = regrain.load(tmp_path / f"p.{ending}", columns=["label_probability"], id_column="id", levels=["label"])
        assert table.ids.tolist() == ids
        assert set(table.labels.names("label")) <= names
    support = pd.DataFrame({"id": ids, "kind": [classes(data)[i] for i in ids]})
    from regrain.runs.tables import write_columns

    write_columns({name: support[name].tolist() for name in support}, tmp_path / "s.csv")
    adapted = regrain.adapt(run, tmp_path / "s.csv", tmp_path / "adapted")
    assert adapted.classifier is not None
    assert set(adapted.classifier.classes) == names - {"nan"}  # which a table means nobody knows by
    json.dumps(check(place).to_json(), ensure_ascii=False).encode()
    from regrain.report import report

    page = report(run, split="train", out=tmp_path / "page.html").read_text(encoding="utf-8")
    assert "caf\\xe9" in page


def test_two_forms_of_a_name_are_one_class(tmp_path: Path, write_image: WriteImage) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    write_image(f"train/{composed}/1.png", 1)
    write_image(f"test/{apart}/2.png", 2)
    write_image("train/dog/3.png", 3)
    data = read(tmp_path)
    assert data.labels.names("label") == (composed, "dog")
    assert len(data.ids) == 3


def test_names_that_are_not_utf8_are_reported(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(f"{LATIN}/1.png", 1)
    write_image("dog/2.png", 2)
    data = read(tmp_path)
    assert data.ids.tolist() == ["caf\\xe9/1.png", "dog/2.png"]
    assert "1 name not UTF-8, whose bytes are spelled as in caf\\xe9/1.png" in told(data)


def test_paths_longer_than_the_system_opens(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    here = os.getcwd()
    try:
        os.chdir(tmp_path / "cat")
        for _ in range(25):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
    finally:
        os.chdir(here)
    found = walk(tmp_path)
    assert found.images == ["cat/1.png"]
    assert len(found.unreadable) == 1
    with pytest.raises(UserError, match="1 of 2 rows cannot be used"):
        read(tmp_path)


def test_arrays_and_tables_keep_what_utf8_cannot_hold(tmp_path: Path) -> None:
    data = regrain.load(np.eye(3), labels={"kind": ["\ud800", "b", "b"]}, ids=["\udce9", "1", "2"])
    assert data.labels.names("kind") == ("\\ud800", "b")
    assert data.ids.tolist() == ["\\xe9", "1", "2"]
    (tmp_path / "t.jsonl").write_text('{"text": "a \\ud800 b", "kind": "\\udfff"}\n{"text": "c", "kind": "d"}\n')
    texts = regrain.load(tmp_path / "t.jsonl", text="text", levels=["kind"])
    assert texts.labels.names("kind") == ("\\udfff", "d")
    assert texts[0][0] == "a \\ud800 b"


def test_a_folder_of_tables_says_how_to_read_one(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,kind\nhello,a\n")
    with pytest.raises(UserError, match=r"found 1 other file \(1 \.csv\)\. To read a table, give its own path"):
        read(tmp_path)
