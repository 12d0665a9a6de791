"""The checker lists everything at once, also in data that reading refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from image_files import WriteImage, encode, pixels
from PIL import Image

from regrain.data import Report, check, read
from regrain.data.options import ReaderOptions
from regrain.errors import UserError


def rows(report: Report, kind: str) -> list[str]:
    return [row for issue in report.issues if issue.kind == kind for row in issue.rows]


def kinds(report: Report) -> list[tuple[str, str]]:
    return [(issue.severity, issue.kind) for issue in report.issues]


def test_data_in_order(tmp_path: Path, write_image: WriteImage) -> None:
    for index in range(8):
        write_image(f"{'test' if index % 4 == 3 else 'train'}/{'cat' if index < 4 else 'dog'}/{index}.png", index)
    report = check(tmp_path)
    assert report.ok
    assert report.issues == ()
    assert report.samples == {"train": 6, "test": 2}
    assert report.levels == {"label": {"classes": 2, "min": 4, "median": 4.0, "max": 4, "unknown": 0}}
    assert report.shape == (3, 8, 8)
    assert report.render()[-1] == "nothing is wrong"
    assert "splits: test 2, train 6" in report.render() or "splits: train 6, test 2" in report.render()


def test_everything_wrong_with_images_at_once(tmp_path: Path, write_image: WriteImage) -> None:
    for index in range(30):
        write_image(f"p/{index}.png", index)
    whole = encode(pixels(40))
    (tmp_path / "p" / "3.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "p" / "5.png").write_bytes(b"<html>")
    (tmp_path / "p" / "8.png").write_bytes((tmp_path / "p" / "7.png").read_bytes())
    (tmp_path / "p" / "19.png").write_bytes((tmp_path / "p" / "17.png").read_bytes())
    lines = ["image,label,split,id"]
    lines += [f"p/{i}.png,{'ab'[i % 2]},{'test' if i in (19, 20, 21) else 'train'},{i}" for i in range(30)]
    lines[1 + 4] = "p/4.png,,train,4"
    lines[1 + 9] = "p/none.png,b,train,9"
    lines[1 + 10] = ",a,train,10"
    lines[1 + 11] = "p/11.png,b,train"
    lines[1 + 12] = "p/12.png,rare,train,12"
    lines[1 + 20] = "p/20.png,new,test,20"
    lines[1 + 22] = "p/22.png,a,train,2"
    lines[1 + 24] = "p/24.png,?,train,24"
    lines[1 + 26] = "p/26.png,?,train,26"
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines))
    with pytest.raises(UserError):
        read(file, id_column="id", levels=["label"])
    report = check(file, id_column="id", levels=["label"], skip_unreadable=True)
    assert not report.ok
    assert rows(report, "broken line") == ["line 13 has 3 cells where the header has 4"]
    assert rows(report, "no image") == ["line 12 has no image"]
    assert rows(report, "missing file") == [f"line 11 names a file that does not exist: {tmp_path}/p/none.png"]
    undecodable = rows(report, "undecodable image")
    assert undecodable[0].startswith("line 5 cannot be decoded")
    assert undecodable[1:] == ["line 7 is not an image in a known format"]
    assert rows(report, "duplicate id") == ["'2': line 4, line 24"]
    assert rows(report, "empty label") == ["line 6"]
    assert rows(report, "single sample") == ["line 14: 'rare'"]
    assert rows(report, "class not in train") == ["line 22: 'new'"]
    assert rows(report, "class like unknown") == ["line 26", "line 28"]
    assert rows(report, "identical across splits") == ["line 19 (train) = line 21 (test)"]
    assert rows(report, "identical with different labels") == ["line 9 (b) = line 10 (a)"]
    severities = [severity for severity, _ in kinds(report)]
    assert severities == sorted(severities)  # errors first
    assert len(report.issues) == 11


def test_every_bad_row_is_listed_in_json_but_few_are_shown() -> None:
    frame = pd.DataFrame({"a": [np.nan, 1.0] * 20, "b": [*np.arange(39.0), np.inf], "kind": ["x", "y"] * 20})
    report = check(frame, columns=["a", "b"], levels=["kind"])
    (issue,) = json.loads(json.dumps(report.to_json()))["issues"]
    assert issue["count"] == 21
    assert issue["rows"][0] == "row 0 holds nan in column 'a', which is not a finite number"
    assert issue["rows"][-1] == "row 39 holds inf in column 'b', which is not a finite number"
    lines = report.render()
    assert len(lines) < 12
    assert "    ... and 16 more (--json lists them all)" in lines
    assert lines[-1] == "1 error, 0 warnings"


def test_classes_with_two_parents_point_at_the_rows_that_differ() -> None:
    frame = pd.DataFrame({"text": list("abcdef"), "genus": list("xxyyyx"), "species": list("pprrrr")})
    report = check(frame, levels=["genus", "species"])
    assert kinds(report) == [("error", "levels")]
    assert "species 'r' lies under genus 'x' and 'y'" in report.issues[0].message
    assert rows(report, "levels") == ["row 5: species 'r' lies under genus 'x', mostly under 'y'"]
    assert report.levels["species"]["classes"] == 2
    assert check(frame, levels=["genus", "species"], relation="aspects").ok
    assert check(frame, levels=["genus", "species"], relation="paths").ok


def test_levels_in_the_wrong_order_are_an_error() -> None:
    frame = pd.DataFrame({"text": list("abcd"), "fine": list("pqrs"), "coarse": list("xxyy")})
    report = check(frame, levels=["fine", "coarse"])
    assert not report.ok
    assert "swap them" in report.issues[0].message


def test_a_level_with_one_class_and_texts() -> None:
    frame = pd.DataFrame({"text": ["one", None, " ", "two"], "kind": ["x"] * 4})
    report = check(frame, text="text", levels=["kind"])
    assert kinds(report) == [("error", "empty text"), ("warning", "one class")]
    assert rows(report, "empty text") == ["row 1 has no text", "row 2 has no text"]


def test_labels_that_will_be_filled_in_or_do_not_exist_are_not_missed(tmp_path: Path, write_image: WriteImage) -> None:
    frame = pd.DataFrame({"text": list("abcd"), "genus": ["x", "x", None, "y"], "species": ["p", "p", "p", None]})
    report = check(frame, levels=["genus", "species"])
    assert rows(report, "empty label") == []  # y has no species at all; p lies under x
    for path in ("a/x/1.png", "a/x/2.png", "b/3.png", "b/4.png", "a/5.png"):
        write_image(path, len(path) + ord(path[-5]))
    assert rows(check(tmp_path), "empty label") == ["a/5.png"]


def test_arrays_data_sets_and_the_catalogue() -> None:
    report = check(np.array([[1.0, 2.0], [np.nan, 0.0], [1.0, 2.0]]), labels=[0, 0, 1])
    assert rows(report, "not a number") == ["row 1 (from 0) holds nan at column 0, which is not a finite number"]
    assert rows(report, "identical with different labels") == ["row 0 (from 0) (0) = row 2 (from 0) (1)"]
    digits = check("digits")
    assert digits.ok
    assert digits.samples == {"train": 1352, "test": 445}
    assert check(read("digits")).levels == digits.levels
    duplicated = check(np.eye(2), ids=["a", "a"])
    assert rows(duplicated, "duplicate id") == ["'a': row 0 (from 0), row 1 (from 0)"]


def test_what_cannot_be_looked_at_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file, folder or data set"):
        check(tmp_path / "absent")
    with pytest.raises(UserError, match="did you mean 'text'"):
        check(pd.DataFrame({"text": ["a"]}), text="txt")
    with pytest.raises(UserError, match="has no option 'label'"):
        check(pd.DataFrame({"text": ["a"]}), label="text")


def test_known_copies_in_real_data_are_found(shared: Path) -> None:
    report = check("clinc150", root=shared / "data")
    assert report.ok
    assert len(rows(report, "identical across splits")) == 5
    assert len(rows(report, "identical with different labels")) == 4
    assert report.levels["intent"] == {"classes": 150, "min": 150, "median": 150.0, "max": 150, "unknown": 0}


def test_check_says_what_fit_says(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png", 1, height=1, width=900)
    write_image("cat/2.png", 2, height=1, width=1)
    write_image("dog/@eaDir/3.png", 3)
    write_image("dog/4.png", 4, height=1, width=3)
    (tmp_path / "dog" / "notes.txt").write_text("x")
    Image.fromarray(np.zeros((1, 1, 4), np.uint8)).save(tmp_path / "dog" / "5.png")
    told = check(tmp_path).messages
    assert told == tuple(read(tmp_path).notes["messages"])
    assert any("are stored at 1 x 1" in message for message in told)
    # a command line can do what it is told
    flags = {part.rstrip(":,;.)") for message in told for part in message.split() if part.startswith("--")}
    assert flags == {"--image-size", "--channels"}
    assert {flag.removeprefix("--").replace("-", "_") for flag in flags} <= set(ReaderOptions.__annotations__)


def test_splits_of_which_none_is_train_are_a_warning(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.sin(np.arange(8)), "kind": ["a", "b"] * 4, "part": ["learn", "hold"] * 4})
    report = check(frame, levels=["kind"], split_column="part")
    assert [issue.message for issue in report.issues] == [
        "no split is called train, which is what is trained on; there are learn, hold"
    ]
    assert not check(frame.assign(part=["train", "hold"] * 4), levels=["kind"], split_column="part").issues
