"""Readers: what comes out of folders, tables, arrays and Hugging Face data sets, and what each mistake is told."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_files import WriteImage, encode, pixels
from PIL import Image

import regrain
from regrain.data import read
from regrain.data.dataset import Dataset
from regrain.data.huggingface import huggingface_table
from regrain.data.images import decode_image
from regrain.data.parquet import read_parquet_folder
from regrain.data.samples import ImageSamples, TensorSamples, TextSamples
from regrain.errors import RegrainWarning, UserError
from regrain.labels import Labels


def names(data: Dataset, level: str) -> list[str | None]:
    return [data[i][1][level] for i in range(len(data))]


def images(data: Dataset) -> torch.Tensor:
    assert isinstance(data.samples, TensorSamples)
    return data.samples.tensor


def texts(data: Dataset) -> tuple[str, ...]:
    assert isinstance(data.samples, TextSamples)
    return data.samples.texts


def told(data: Dataset) -> str:
    return "\n".join(data.notes["messages"])


def csv(tmp_path: Path, text: str, name: str = "table.csv") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


# Folders


def test_a_class_is_its_path(tmp_path: Path, write_image: WriteImage) -> None:
    first = write_image("a/other/1.png", 1)
    write_image("b/other/1.png", 2)
    write_image("b/x/2.PNG", 3)
    data = read(tmp_path)
    assert data.ids.tolist() == ["a/other/1.png", "b/other/1.png", "b/x/2.PNG"]
    assert data.labels.levels == ("level1", "level2")
    assert names(data, "level1") == ["a", "b", "b"]
    assert names(data, "level2") == ["a/other", "b/other", "b/x"]
    assert np.array_equal(images(data)[0], first.transpose(2, 0, 1))
    assert data.splits is None
    assert data.name == tmp_path.name


def test_depths_may_differ(tmp_path: Path, write_image: WriteImage) -> None:
    for path in ("a/x/1.png", "a/2.png", "b/3.png", "4.png"):
        write_image(path)
    data = read(tmp_path, levels=["super", "sub"])
    assert names(data, "super") == [None, "a", "a", "b"]
    assert names(data, "sub") == [None, None, "a/x", None]
    assert data.labels.absent("sub").tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("folder", "split"), [("train", "train"), ("Valid", "val"), ("validation", "val"), ("dev", "val")]
)
def test_split_folders(tmp_path: Path, write_image: WriteImage, folder: str, split: str) -> None:
    write_image(f"{folder}/cat/1.png")
    write_image("test/cat/1.png")
    write_image("test/dog/2.png")
    data = read(tmp_path)
    assert data.splits is not None
    assert sorted(data.splits) == sorted([split, "test", "test"])
    assert data.labels.classes == (("cat", "dog"),)
    assert data.labels.levels == ("label",)
    assert f"{folder}/cat/1.png" in data.ids


def test_split_folders_beside_others_are_classes_and_it_is_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("train/1.png")
    write_image("cats/2.png")
    data = read(tmp_path)
    assert data.splits is None
    assert data.labels.classes == (("cats", "train"),)
    assert "beside them is 'cats'" in told(data)


def test_other_files_are_counted_hidden_ones_passed_over(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    for path in ("cat/.hidden.png", ".git/2.png", "__MACOSX/cat/1.png", "cat/notes.txt", "labels.csv"):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text("x")
    data = read(tmp_path)
    assert len(data) == 1
    assert data.notes["ignored_files"] == 2
    assert "to take them from labels.csv, give the path of that file" in told(data)


def test_linked_folders_are_followed_once(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    (tmp_path / "dog").mkdir()
    write_image("elsewhere/2.png")
    (tmp_path / "elsewhere").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (tmp_path / "dog" / "link").symlink_to(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    (tmp_path / "cat" / "circle").symlink_to(tmp_path)
    assert read(tmp_path).ids.tolist() == ["cat/1.png", "dog/link/2.png"]


def test_a_folder_without_images_says_what_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no images: .*\.jpg, \.jpeg, \.png.*found no files at all"):
        read(tmp_path)
    for index in range(3):
        (tmp_path / f"{index}.wav").write_text("x")
    (tmp_path / "README").write_text("x")
    with pytest.raises(UserError, match=r"found 4 other files \(3 \.wav, 1 without ending\)"):
        read(tmp_path)
    with pytest.raises(UserError, match="no file, folder or data set"):
        read(tmp_path / "absent")


def test_levels_of_folders_are_named_or_chosen(tmp_path: Path, write_image: WriteImage) -> None:
    for place in ("a/x/1.png", "a/y/2.png", "b/z/3.png"):
        write_image(place)
    assert read(tmp_path, levels=["kind", "sort"]).labels.levels == ("kind", "sort")
    assert read(tmp_path, levels=["level2"]).labels.classes == (("a/x", "a/y", "b/z"),)
    assert read(tmp_path, levels=["level2", "level1"]).labels.levels == ("level1", "level2")
    with pytest.raises(UserError, match="name all of them, coarse to fine, or choose of level1, level2"):
        read(tmp_path, levels=["sort"])


def test_images_without_folders_have_no_labels(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("1.png")
    data = read(tmp_path)
    assert data.labels.levels == ()
    assert "no labels" in told(data)
    write_image("cat/1.png")
    assert read(tmp_path, levels=[]).labels.levels == ()


def test_a_damaged_image_is_named_or_left_out(tmp_path: Path, write_image: WriteImage) -> None:
    kept = write_image("cat/1.png", 1)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "2.png").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=r"1 of 2 rows cannot be used: dog/2\.png is not an image.*--skip-unreadable"):
        read(tmp_path)
    data = read(tmp_path, skip_unreadable=True)
    assert data.ids.tolist() == ["cat/1.png"]
    assert np.array_equal(images(data)[0], kept.transpose(2, 0, 1))
    assert data.labels.classes == (("cat",),)
    assert "1 of 2 rows were left out: undecodable image (1 row)" in told(data)
    assert data.notes["left_out"] == ["dog/2.png is not an image in a known format"]
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match="none of the 2 rows can be used"):
        read(tmp_path, skip_unreadable=True)


# Sizes


def test_small_images_of_one_size_stay_as_they_are(tmp_path: Path, write_image: WriteImage) -> None:
    wide = write_image("a/1.png", 1, height=6, width=10)
    write_image("a/2.png", 2, height=6, width=10)
    data = read(tmp_path)
    assert data.samples.shape == (3, 6, 10)
    assert np.array_equal(images(data)[0], wide.transpose(2, 0, 1))
    assert read(tmp_path, image_size=5).samples.shape == (3, 5, 5)


def test_grey_images_have_one_channel(tmp_path: Path, write_image: WriteImage) -> None:
    grey = write_image("a/1.png", 1, channels=1)
    data = read(tmp_path)
    assert np.array_equal(images(data)[0, 0], grey)
    assert read(tmp_path, channels=3).samples.shape == (3, 8, 8)
    write_image("a/2.png", 2)
    assert read(tmp_path).samples.shape == (3, 8, 8)


def test_mixed_sizes_are_stored_at_the_median_of_the_shorter_sides(tmp_path: Path, write_image: WriteImage) -> None:
    for index, (height, width) in enumerate([(20, 30), (16, 16), (40, 24)]):
        write_image(f"a/{index}.png", index, height=height, width=width)
    data = read(tmp_path)
    assert data.samples.shape == (3, 20, 20)
    assert data.samples.in_memory
    assert "16 x 16 to 24 x 40 pixels (in 3 looked at) are stored at 20 x 20" in told(data)


def test_large_images_stay_encoded(tmp_path: Path, write_image: WriteImage) -> None:
    array = write_image("a/1.png", 1, height=300, width=310)
    data = read(tmp_path)
    assert isinstance(data.samples, ImageSamples)
    assert data.samples.shape == (3, 256, 256)
    write_image("a/1.png", 1, height=150, width=150)
    assert read(tmp_path).samples.shape == (3, 150, 150)
    assert isinstance(read(tmp_path, image_size=32).samples, TensorSamples)
    write_image("a/1.png", 1, height=300, width=310)
    taken = data.samples.take(torch.tensor([0]))[0].numpy()
    expected = Image.fromarray(array).resize((256, 256), Image.Resampling.BILINEAR, box=(5, 0, 305, 300))
    assert np.array_equal(taken, np.asarray(expected).transpose(2, 0, 1))


def test_large_damaged_images_are_found_when_they_are_to_be_left_out(tmp_path: Path, write_image: WriteImage) -> None:
    for index in range(3):
        write_image(f"a/{index}.png", index, height=140)
    whole = (tmp_path / "a" / "1.png").read_bytes()
    (tmp_path / "a" / "1.png").write_bytes(whole[: len(whole) // 2])
    assert len(read(tmp_path)) == 3  # nothing is decoded yet
    data = read(tmp_path, skip_unreadable=True)
    assert data.ids.tolist() == ["a/0.png", "a/2.png"]
    for _ in range(2):  # the second time from the cache
        cached = read(tmp_path, skip_unreadable=True, cache=True)
        assert cached.ids.tolist() == ["a/0.png", "a/2.png"]
        assert torch.equal(images(cached), data.samples.take(torch.tensor([0, 1])))
    with pytest.raises(UserError, match=r"a/1\.png cannot be decoded"):
        read(tmp_path, cache=True)


def test_options_out_of_range_are_refused(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("a/1.png")
    with pytest.raises(UserError, match="image_size is a number of pixels from 1 to 4096; got 0"):
        read(tmp_path, image_size=0)
    with pytest.raises(UserError, match=r"channels is 1 \(grey\), 3 \(RGB\) or 4 \(RGBA\); got 2"):
        read(tmp_path, channels=2)


# Tables


def test_a_csv_of_images(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pictures/1.png", 1)
    second = write_image("pictures/2.png", 2)
    file = csv(
        tmp_path,
        "path,genus,species,split,patient\npictures/1.png,canis,lupus,training,p1\n"
        f"{tmp_path}/pictures/2.png,felis,catus,validation,p2\n",
    )
    data = read(file, levels=["genus", "species"])
    assert np.array_equal(images(data)[1], second.transpose(2, 0, 1))
    assert names(data, "species") == ["lupus", "catus"]
    assert data.splits is not None
    assert data.groups is not None
    assert data.splits.tolist() == ["train", "val"]
    assert data.groups.tolist() == ["p1", "p2"]
    assert data.ids.tolist() == ["pictures/1.png", f"{tmp_path}/pictures/2.png"]
    assert told(data).split("\n") == [
        "split: column 'split' (guessed)",
        "images: column 'path' (guessed)",
        "group: column 'patient' (guessed)",
    ]


def test_a_csv_of_texts_with_quotes_and_blank_lines(tmp_path: Path) -> None:
    file = csv(tmp_path, 'id,sentence,topic\r\n7,"one, two",a\r\n\r\n9,"three\r\nfour",b\r\n11,five,a\r\n')
    data = read(file)
    assert texts(data) == ("one, two", "three\r\nfour", "five")
    assert data.ids.tolist() == ["7", "9", "11"]
    assert names(data, "topic") == ["a", "b", "a"]
    assert "levels, coarse to fine: column 'topic' (guessed)" in told(data)


@pytest.mark.parametrize(("name", "mark"), [("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t"), ("t.csv", "|")])
def test_delimiters(tmp_path: Path, name: str, mark: str) -> None:
    file = csv(tmp_path, f"\ufefftext{mark}label\nhello, you{mark}a\nbye{mark}b\n", name)
    assert texts(read(file, levels=["label"])) == ("hello, you", "bye")


def test_a_csv_of_features(tmp_path: Path) -> None:
    file = csv(tmp_path, ",f1,f2,width,species,patient_id\n0,1,2.5,7,a,4\n1,3,-1e3,8,b,4\n2,0,0,9,a,5\n")
    data = read(file)
    assert isinstance(data.samples, TensorSamples)
    assert data.samples.tensor.tolist() == [[1, 2.5, 7], [3, -1000, 8], [0, 0, 9]]
    assert data.samples.tensor.dtype == torch.float32
    assert data.groups is not None
    assert data.groups.tolist() == ["4", "4", "5"]
    assert data.ids.tolist() == ["0", "1", "2"]
    assert "features: 3 columns of numbers, 'f1', 'f2', 'width' (guessed)" in told(data)
    some = read(file, columns=["f*"])
    assert some.samples.shape == (2,)
    series = read(file, columns=["f*", "width", "patient_id"], series_shape=(2, 2))
    assert (series.modality, series.samples.shape) == ("series", (2, 2))
    with pytest.raises(UserError, match=r"the count of numbers in a row, 2; got \(3, 1\)"):
        read(file, columns=["f*"], series_shape=(3, 1))


def test_every_bad_feature_is_told_by_line_and_column(tmp_path: Path) -> None:
    file = csv(
        tmp_path,
        'f1,note,f2,kind\n1,"two\nlines",2,a\n3,,oops,b\n,,4,a\n5,,inf,b\n6,,1e99,a\n7,,8,b\n' + "1,,1,a\n" * 40,
    )
    with pytest.raises(UserError) as error:
        read(file, columns=["f1", "f2"], levels=["kind"])
    message = str(error.value)
    assert "4 of 46 rows cannot be used: line 4 holds 'oops' in column 'f2', which is not a number; " in message
    assert (
        "line 5 is empty in column 'f1'; line 6 holds 'inf' in column 'f2', which is not a finite number; and 1 more"
        in message
    )
    data = read(file, columns=["f1", "f2"], levels=["kind"], skip_unreadable=True)
    assert len(data) == 42
    assert data.ids.tolist()[:3] == ["0", "5", "6"]  # row numbers stay what they were
    assert data.notes["left_out"][-1] == "line 7 holds '1e99' in column 'f2', which is too large for a 32-bit number"


def test_broken_lines_are_told_by_number(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,label\nx,a\ny,b,c\nz\nw,b\n")
    with pytest.raises(
        UserError, match="2 of 4 rows cannot be used: line 3 has 3 cells where the header has 2; line 4 has 1 cell"
    ):
        read(file)
    data = read(file, skip_unreadable=True, levels=["label"])
    assert texts(data) == ("x", "w")
    assert "2 of 4 rows were left out: broken line (2 rows)" in told(data)
    with pytest.raises(UserError, match="holds no rows that can be used: line 2 has 3 cells where the header has 2"):
        read(csv(tmp_path, "text,label\n0,x,a\n1,y,b\n"))


def test_missing_image_files_and_empty_texts_are_told(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("1.png")
    file = csv(tmp_path, "image,label\n1.png,a\nno.png,b\n,a\n")
    with pytest.raises(
        UserError, match=r"2 of 3 rows.*line 3 names a file that does not exist: .*/no\.png; line 4 has no image"
    ):
        read(file, levels=["label"])
    file = csv(tmp_path, "text,label\nhello,a\n  ,b\n")
    with pytest.raises(UserError, match="1 of 2 rows cannot be used: line 3 has no text"):
        read(file, levels=["label"])


def test_ids_must_be_unique(tmp_path: Path) -> None:
    file = csv(tmp_path, "key,text,label\n1,x,a\n2,y,b\n1,z,a\n")
    with pytest.raises(UserError, match="the id column 'key' repeats '1' in line 2 and line 4"):
        read(file, id_column="key", levels=["label"])
    data = read(file, levels=["label"])
    assert data.ids.tolist() == ["0", "1", "2"]
    assert "column 'key' repeats values and is not taken for the id" in told(data)
    with pytest.raises(UserError, match="line 3 has no id in column 'text'"):
        read(csv(tmp_path, "text,label\nx,a\n,b\n"), image="text", id_column="text", levels=["label"])


def test_a_gap_in_the_split_or_group_is_told(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,label,part,who\nx,a,train,1\ny,b,,\n")
    with pytest.raises(UserError, match="line 3 has no split in column 'part'"):
        read(file, split_column="part", levels=["label"])
    with pytest.raises(UserError, match="line 3 has no group in column 'who'"):
        read(file, group_column="who", levels=["label"])


def test_a_missing_column_gets_a_hint(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,label\nx,a\n")
    for options in (
        {"text": "texd"},
        {"image": "texd"},
        {"columns": ["texd"]},
        {"levels": ["texd"]},
        {"split_column": "texd"},
        {"group_column": "texd"},
        {"id_column": "texd"},
    ):
        with pytest.raises(UserError, match=r"has no column 'texd' \(\w+\): did you mean 'text'"):
            read(file, **options)  # type: ignore[arg-type]


def test_only_one_kind_of_sample(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,label,f\nx,a,1\n")
    with pytest.raises(UserError, match="name only one of image, text and columns"):
        read(file, text="text", columns=["f"])
    with pytest.raises(UserError, match="lists of column names"):
        read(file, levels="label")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="column 'text' cannot be a feature: it holds texts such as 'x'"):
        read(file, columns=["text"], levels=["label"])
    with pytest.raises(UserError, match="series_shape belongs to columns of numbers"):
        read(file, text="text", series_shape=(1, 1))
    with pytest.raises(UserError, match="did you mean 'tree'"):
        read(file, relation="treee")  # type: ignore[arg-type]


def test_guessed_levels_are_those_that_nest(tmp_path: Path) -> None:
    rows = [("b1", "dog", "x", 1), ("b2", "dog", "y", 2), ("s1", "cat", "x", 3)] * 3
    frame = pd.DataFrame(rows, columns=["breed", "animal", "camera", "class_id"])
    frame["question"] = [f"what is that there {i}" for i in range(len(frame))]
    with pytest.raises(
        UserError, match=r"they do not nest: 'animal' \(2 classes\), 'camera' \(2 classes\), 'breed' \(3 classes\)"
    ):
        read(frame)
    data = read(frame.drop(columns="camera"))
    assert data.labels.levels == ("animal", "breed")  # the class's number says the same as its name
    assert read(frame.drop(columns=["camera", "breed"])).labels.levels == ("animal", "class_id")
    aspects = read(frame.drop(columns="class_id"), relation="aspects")
    assert aspects.labels.levels == ("breed", "animal", "camera")


def test_columns_with_names_of_labels_win_where_all_together_do_not_nest() -> None:
    frame = pd.DataFrame(
        {"f": np.arange(8) / 7, "subject": ["1", "2"] * 4, "coarse": ["a", "a", "b", "b"] * 2, "fine": list("pqrs") * 2}
    )
    frame["subject"] = ["s1", "s2", "s2", "s1"] * 2
    frame.loc[0, "subject"] = "s2"
    data = read(frame)
    assert data.labels.levels == ("coarse", "fine")
    assert data.groups is not None
    assert data.groups.tolist() == frame["subject"].tolist()


def test_labels_that_are_not_asked_for_do_not_become_features(tmp_path: Path) -> None:
    file = csv(
        tmp_path, "f1,f2,coarse,fine,fine_dust\n" + "".join(f"{2 * i},{-i},{i % 2},{i % 4},{i / 7}\n" for i in range(8))
    )
    for levels in (["fine"], []):
        data = read(file, levels=levels)
        assert isinstance(data.samples, TensorSamples)
        assert data.samples.tensor[3].tolist() == pytest.approx([6, -3, 3 / 7])
        assert "'coarse'" in told(data)
    assert read(file).labels.levels == ("coarse", "fine")


def test_unknown_classes_do_not_spoil_a_guess() -> None:
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(12)], "coarse": list("aabb") * 3, "fine": [0, -1, 2, -1] * 3})
    data = read(frame, text="text")
    assert data.labels.levels == ("coarse", "fine")
    assert names(data, "fine")[:4] == ["0", None, "2", None]
    frame["fine"] = ["p", "?", "q", "?"] * 3
    assert read(frame, text="text", unknown=["?"]).labels.levels == ("coarse", "fine")


def test_the_subject_of_a_letter_is_no_group() -> None:
    frame = pd.DataFrame({"text": list("abcdef"), "subject": [f"s{i}" for i in range(6)], "label": list("xyxyxy")})
    assert read(frame).groups is None


def test_a_label_that_is_a_list_is_refused() -> None:
    frame = pd.DataFrame({"text": ["x", "y"], "tags": [["a"], ["a", "b"]]})
    with pytest.raises(UserError, match=r"level 'tags' holds lists such as \['a'\]"):
        read(frame, levels=["tags"])


def test_paths_written_on_windows(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pictures/1.png")
    assert len(read(csv(tmp_path, "image,label\npictures\\1.png,a\n"), levels=["label"])) == 1


def test_columns_may_be_numbered() -> None:
    frame = pd.DataFrame([[1.5, 2.5, "a"], [0.5, 1.0, "b"]])
    assert read(frame, columns=[0, 1], levels=[2]).samples.shape == (2,)  # type: ignore[list-item]


def test_no_column_that_looks_like_labels(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,comment\nalpha beta gamma,one\ndelta epsilon zeta,two\neta theta iota,three\n")
    with pytest.raises(
        UserError,
        match=r"no column looks like labels .*'comment' \(3 different values\).*levels=\[\] reads data without",
    ):
        read(file)
    assert read(file, levels=[]).labels.levels == ()


def test_cells_of_a_csv_stay_what_they_are(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,land\nx,NA\ny,None\nz,01\nw,\nv,nan\n")
    data = read(file, levels=["land"])
    assert names(data, "land") == ["NA", "None", "01", None, None]
    assert names(read(file, levels=["land"], unknown=["NA"]), "land") == [None, "None", "01", None, None]


def test_minus_one_is_unknown_among_class_numbers(tmp_path: Path) -> None:
    data = read(csv(tmp_path, "text,label\nx,0\ny,-1\nz,2\n"), levels=["label"])
    assert names(data, "label") == ["0", None, "2"]
    assert "level 'label': -1 is read as unknown (1 samples)" in told(data)
    with pytest.raises(UserError, match="holds only -1 and 1"):
        read(csv(tmp_path, "text,label\nx,1\ny,-1\n"), levels=["label"])
    data = read(csv(tmp_path, "text,label\nx,-2\ny,-1\nz,3\n"), levels=["label"])
    assert data.labels.classes == (("-2", "-1", "3"),)


def test_a_column_of_paths(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,where\nx,animal/dog\ny,animal\nz,plant/dog\nw,\n")
    data = read(file, levels=["where"], label_paths=True)
    assert data.labels.classes == (("animal", "plant"), ("animal/dog", "plant/dog"))
    assert data.labels.codes.tolist() == [[0, 0], [0, -1], [1, 1], [-1, -1]]
    with pytest.raises(UserError, match="needs one column of paths"):
        read(file, levels=["where", "text"], label_paths=True)


def test_relations_of_a_table(tmp_path: Path) -> None:
    file = csv(tmp_path, "text,super,sub\nx,a,other\ny,b,other\nz,a,more\n")
    with pytest.raises(UserError, match=r"table\.csv: sub 'other' lies under super 'a' and 'b'.*lists the rows"):
        read(file, levels=["super", "sub"])
    assert read(file, levels=["super", "sub"], relation="paths").labels.names("sub") == (
        "a/more",
        "a/other",
        "b/other",
    )
    assert read(file, levels=["super", "sub"], relation="aspects").labels.names("sub") == ("more", "other")
    with pytest.raises(UserError, match="coarse to fine"):
        read(csv(tmp_path, "text,n,m\nx,a,p\ny,b,p\nz,a,q\nw,c,q\n"), levels=["n", "m"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no rows"),
        ("text,label\n", "holds no rows"),
        ("text,text\na,b\n", r"line 1: columns have to have different names; 'text' occurs twice"),
        ("\n0.5,1\n0.1,2\n", "line 2: the first line has to name the columns"),
        ('text,label\n"a\x00b",c\n', "line 2 holds a NUL character"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(csv(tmp_path, content))


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("text,label\nx,a\ncaf\xe9,b\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.csv is not UTF-8 text: line 3 .*'CSV UTF-8'"):
        read(tmp_path / "latin.csv")
    with zipfile.ZipFile(tmp_path / "sheet.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "")
    with pytest.raises(UserError, match="save the sheet as CSV"):
        read(tmp_path / "sheet.xlsx")
    (tmp_path / "x.parquet").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"x\.parquet cannot be read as Parquet"):
        read(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="no file, folder or data set"):
        read(tmp_path / "absent.csv")


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"text": "x", "label": "a"}\n\n{"text": "y", "label": null, "more": 1}\n')
    data = read(file, levels=["label"])
    assert (texts(data), names(data, "label")) == (("x", "y"), ["a", None])
    file.write_text('{"vector": [1, 2], "label": "a"}\n{"vector": [3, 4], "label": "b"}\n')
    vectors = read(file, levels=["label"])
    assert isinstance(vectors.samples, TensorSamples)
    assert vectors.samples.tensor.tolist() == [[1, 2], [3, 4]]
    file.write_text(
        '{"vector": [1, 2], "label": "a"}\n{"vector": [3], "label": "b"}\n{"vector": [3, null], "label": "b"}\n'
    )
    with pytest.raises(
        UserError, match="line 2 has 1 numbers in column 'vector', other rows 2; line 3 holds None at place 1"
    ):
        read(file, levels=["label"])
    file.write_text('{"text": "x", "label": "a"}\n{"text": \n[1]\n')
    with pytest.raises(UserError, match=r"2 of 3 rows.*line 2 is not JSON .*; line 3 is not a JSON object"):
        read(file, levels=["label"])
    whole = tmp_path / "t.json"
    whole.write_text(json.dumps([{"text": "x", "label": "a"}, 5]))
    with pytest.raises(UserError, match="record 2 is not a JSON object"):
        read(whole, levels=["label"])
    whole.write_text("[1")
    with pytest.raises(UserError, match="is not JSON"):
        read(whole)


def test_a_data_frame_is_called_by_its_index() -> None:
    frame = pd.DataFrame(
        {"a": [1.0, np.nan], "b": pd.array([1, None], dtype="Int64"), "k": pd.Categorical(["x", "y"])},
        index=["r1", "r2"],
    )
    with pytest.raises(
        UserError, match="1 of 2 rows cannot be used: row r2 holds nan in column 'a', which is not a finite number"
    ):
        read(frame, columns=["a"], levels=["k"])
    with pytest.raises(UserError, match=r"row r2 (is empty|holds nan) in column 'b'"):
        read(frame, columns=["b"], levels=["k"])
    assert read(frame, columns=["a", "b"], levels=["k"], skip_unreadable=True).samples.shape == (2,)
    with pytest.raises(UserError, match="'a' occurs twice"):
        read(pd.DataFrame([[1, 2]], columns=["a", "a"]))


# Parquet


def write_parquet(path: Path, columns: dict[str, Any], metadata: dict[bytes, bytes] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path)


def test_parquet_splits_with_images(tmp_path: Path) -> None:
    arrays = [pixels(i) for i in range(4)]
    for split, rows in (("test", [3]), ("train", [0, 1]), ("val", [2])):
        write_parquet(
            tmp_path / f"{split}.parquet",
            {
                "image": [encode(arrays[i]) for i in rows],
                "fine": [f"f{i % 3}" for i in rows],
                "coarse": ["odd" if i == 1 else "even" for i in rows],
                "file": [f"{split}/{i}.png" for i in rows],
            },
        )
    write_parquet(tmp_path / "extra.parquet", {"image": [encode(arrays[0])]})
    data = read(tmp_path, levels=["coarse", "fine"])
    assert data.splits is not None
    assert data.splits.tolist() == ["train", "train", "val", "test"]
    assert np.array_equal(images(data), np.stack(arrays).transpose(0, 3, 1, 2))
    assert data.ids.tolist() == ["train/0.png", "train/1.png", "val/2.png", "test/3.png"]
    assert "not read, being no split: extra.parquet" in told(data)
    more = read(tmp_path, levels=["coarse"], splits=["test", "extra"])
    assert more.split_names == ("test", "extra")
    assert names(more, "coarse") == ["even", None]
    with pytest.raises(UserError, match=r"has no dev\.parquet; it holds extra\.parquet; test\.parquet"):
        read(tmp_path, splits=["dev"])


def test_parquet_levels_go_by_numbers_of_classes(tmp_path: Path) -> None:
    fine = [f"f{i % 4}" for i in range(12)]
    columns = {"text": [f"t{i}" for i in range(12)], "fine": fine, "coarse": [f"c{int(f[1]) // 2}" for f in fine]}
    write_parquet(tmp_path / "train.parquet", columns)
    data = read(tmp_path)
    assert data.labels.levels == ("coarse", "fine")
    assert data.ids.tolist()[:2] == ["train/0", "train/1"]


def test_parquet_series(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
    write_parquet(tmp_path / "train.parquet", {"series": lists, "label": list("abab")})
    data = read(tmp_path, series_shape=(3, 2))
    assert isinstance(data.samples, TensorSamples)
    assert data.modality == "series"
    assert np.array_equal(data.samples.tensor, values.reshape(4, 3, 2))
    vectors = read(tmp_path)
    assert vectors.samples.shape == (6,)
    assert "series_shape=(time, channels)" in told(vectors)
    values[2, 4] = np.nan
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
    write_parquet(tmp_path / "test.parquet", {"series": lists, "label": list("abab")})
    with pytest.raises(UserError, match=r"test\.parquet row 2 \(from 0\) holds nan at place 4 of column 'series'"):
        read(tmp_path)
    assert "1 of 48 values are missing" in told(read(tmp_path, series_shape=(3, 2)))


def test_a_damaged_image_in_parquet_is_named_by_file_and_row(tmp_path: Path) -> None:
    large = encode(pixels(0, 140))
    write_parquet(tmp_path / "train.parquet", {"image": [large, large], "label": ["a", "b"]})
    write_parquet(tmp_path / "test.parquet", {"image": [large, large[:400]], "label": ["a", "b"]})
    data = read(tmp_path)
    with pytest.raises(UserError, match=r"image test\.parquet row 1 \(from 0\) cannot be decoded"):
        data.split("test").samples.take(torch.tensor([1]))


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    structs = [{"bytes": encode(pixels(i)), "path": None} for i in range(3)]
    features = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for shard in range(2):
        write_parquet(
            tmp_path / "data" / f"train-0000{shard}-of-00002.parquet", {"image": structs, "label": [1, 0, -1]}, metadata
        )
    data = read(tmp_path)
    assert len(data) == 6
    assert data.split_names == ("train",)
    assert names(data, "label") == ["dog", "cat", None] * 2
    assert np.array_equal(images(data)[4], pixels(1).transpose(2, 0, 1))


def test_codes_beyond_the_declared_classes_are_named(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    write_parquet(tmp_path / "train.parquet", {"text": ["x", "y", "z"], "label": [0, 2, 7]}, metadata)
    with pytest.raises(UserError, match=r"train\.parquet, column 'label': 2 class names are declared.*codes 2; 7"):
        read(tmp_path)
    write_parquet(tmp_path / "train.parquet", {"text": ["x", "y"], "label": [0.5, 1.0]}, metadata)
    with pytest.raises(
        UserError, match="declared to hold the numbers of 2 classes, and holds other values: write whole numbers"
    ):
        read(tmp_path)
    for odd in ({"label": 3}, [1], {"label": {"names": 3, "_type": "ClassLabel"}}):  # no declaration: codes as they are
        metadata = {b"huggingface": json.dumps({"info": {"features": odd}}).encode()}
        write_parquet(tmp_path / "train.parquet", {"text": ["x", "y", "z"], "label": [0, 2, 7]}, metadata)
        assert names(read(tmp_path, levels=["label"]), "label") == ["0", "2", "7"]


def test_json_nested_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"deep\.json is not JSON"):
        read(tmp_path / "deep.json")


def test_a_folder_without_parquet_splits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Parquet splits: looked for train\.parquet.*found nothing"):
        read_parquet_folder(tmp_path)


# Arrays


@pytest.mark.parametrize(
    ("shape", "kind", "layout", "expected"),
    [
        ((5, 6, 7), np.ndarray, None, (1, 6, 7)),
        ((5, 6, 7, 3), np.ndarray, None, (3, 6, 7)),
        ((5, 3, 6, 7), np.ndarray, None, (3, 6, 7)),
        ((5, 3, 6, 7), torch.Tensor, None, (3, 6, 7)),
        ((5, 6, 7, 1), torch.Tensor, None, (1, 6, 7)),
        ((5, 3, 6, 3), np.ndarray, None, (3, 3, 6)),
        ((5, 3, 6, 3), torch.Tensor, None, (3, 6, 3)),
        ((5, 3, 6, 3), np.ndarray, "NCHW", (3, 6, 3)),
        ((5, 3, 6, 3), torch.Tensor, "NHWC", (3, 3, 6)),
    ],
)
def test_shapes_of_images(shape: tuple[int, ...], kind: type, layout: Any, expected: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = read(torch.from_numpy(array) if kind is torch.Tensor else array, layout=layout)
    assert data.modality == "image"
    assert data.samples.shape == expected
    if len(shape) == 4:
        moved = array if expected == shape[1:] else array.transpose(0, 3, 1, 2)
        assert np.array_equal(images(data), moved)


def test_floating_images_become_bytes_with_a_warning() -> None:
    array = np.random.default_rng(0).random((3, 4, 5, 3))
    with pytest.warns(RegrainWarning, match="rounded to 8 bits"):
        data = read(array)
    assert np.array_equal(images(data), np.round(array * 255).astype(np.uint8).transpose(0, 3, 1, 2))
    with pytest.raises(UserError, match="floating point from 0 to 1; got float32 from 0 to 16"):
        read(np.full((2, 4, 4, 1), 16.0) * np.arange(2)[:, None, None, None])
    assert np.array_equal(images(read(np.full((2, 4, 4, 1), 200, dtype=np.int64))), np.full((2, 1, 4, 4), 200))
    with pytest.raises(UserError, match="got int64 from 256 to 256"):
        read(np.full((2, 4, 4, 1), 256))


def test_vectors_and_series() -> None:
    vectors = read(np.arange(6).reshape(3, 2))
    assert (vectors.modality, images(vectors).dtype) == ("vector", torch.float32)
    series = read(torch.zeros(3, 5, 2, dtype=torch.bfloat16))
    assert (series.modality, series.samples.shape) == ("series", (5, 2))
    assert "modality='image'" in told(series)
    with pytest.warns(RegrainWarning):
        assert read(np.zeros((3, 5, 2)), modality="image").samples.shape == (1, 5, 2)


def test_texts_and_paths() -> None:
    assert texts(read(["a b", "c"])) == ("a b", "c")
    assert texts(read(np.array(["a b", "c"]))) == ("a b", "c")
    with pytest.raises(UserError, match=r"row 0 .from 0., a.png, names a file that does not exist"):
        read(["a.png"])
    assert texts(read(["a.png"], modality="text")) == ("a.png",)


def test_frames_of_samples_and_labels() -> None:
    frame = pd.DataFrame({"x": [1, 2], "y": [0.5, 1]})
    data = read(frame, labels=pd.DataFrame({"coarse": ["a", "a"], "fine": ["p", "q"]}))
    assert images(data).tolist() == [[1, 0.5], [2, 1]]
    assert data.labels.levels == ("coarse", "fine")
    with pytest.raises(UserError, match="column 'z', which holds texts such as 'u'"):
        read(frame.assign(z=["u", "v"]), labels=[0, 1])
    assert read(frame, labels=[0, 1]).samples.shape == (2,)


@pytest.mark.parametrize(
    ("labels", "levels", "expected"),
    [
        ([0, 1, -1], None, {"label": ["0", "1", None]}),
        (np.array([[0, 3], [1, 5], [1, -1]]), None, {"level1": ["0", "1", "1"], "level2": ["3", "5", None]}),
        (torch.tensor([[0, 3], [1, 5], [1, 7]]), ["a", "b"], {"a": ["0", "1", "1"], "b": ["3", "5", "7"]}),
        (["cat", None, "dog"], ["kind"], {"kind": ["cat", None, "dog"]}),
        (np.array(["x", "y", "x"]), None, {"label": ["x", "y", "x"]}),
        ({"a": ["p", "p", "q"], "b": [1, 2, np.nan]}, None, {"a": ["p", "p", "q"], "b": ["1", "2", None]}),
        (np.array([0.0, np.nan, 2.0]), None, {"label": ["0", None, "2"]}),
    ],
)
def test_forms_of_labels(labels: Any, levels: Any, expected: dict[str, list[str | None]]) -> None:
    data = read(np.zeros((3, 2)), labels=labels, levels=levels)
    assert {level: names(data, level) for level in data.labels.levels} == expected


def test_labels_made_elsewhere_are_kept() -> None:
    labels = Labels.from_paths(["a/x", "b", None])
    assert read(np.zeros((3, 2)), labels=labels).labels is labels


def test_what_belongs_to_arrays() -> None:
    data = read(np.zeros((2, 2)), ids=[7, 9], groups=["g", "h"], splits=np.array(["training", "test"]), name="mine")
    assert (data.ids.tolist(), data.name) == (["7", "9"], "mine")
    assert data.splits is not None
    assert data.splits.tolist() == ["train", "test"]
    with pytest.raises(UserError, match="the list of ids repeats '1' in row 0"):
        read(np.zeros((2, 2)), ids=[1, 1])


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (np.zeros((5, 2)), {"labels": [0, 1]}, "there are 5 samples, but 2 labels 'label'"),
        (np.zeros((5, 2)), {"labels": Labels.empty(4)}, "there are 5 samples, but 4 labels"),
        (np.zeros((5, 2)), {"ids": ["a"]}, "there are 5 samples, but 1 ids"),
        (np.zeros((5, 2)), {"splits": ["a"] * 6}, "there are 5 samples, but 6 splits"),
        (np.zeros(5), {}, r"an array of shape \(5,\) holds no known kind of samples; expected \(N, D\) vectors"),
        (np.zeros((5, 2)), {"modality": "image"}, r"shape \(5, 2\) holds no image samples"),
        (np.zeros((2, 5, 5, 2), np.uint8), {}, r"have no 1, 3 or 4 channels, neither first"),
        (np.zeros((2, 3, 5, 5), np.uint8), {"layout": "NHWC"}, "layout NHWC does not fit"),
        (np.zeros((2, 2), complex), {}, "holds numbers or texts; got complex128"),
        ([[1, 2], [3]], {}, "rows of one length"),
        (np.array([["a", "b"]]), {}, r"texts are a list; got an array of texts of shape \(1, 2\)"),
        (np.zeros((2, 2)), {"labels": [0.5, 1]}, "whole numbers"),
        (np.zeros((2, 2)), {"labels": [["a"], ["b", "c"]]}, "same length per sample"),
        (np.zeros((2, 2)), {"labels": np.zeros((2, 1, 1), int)}, r"labels have shape \(2, 1, 1\)"),
        (np.zeros((2, 2)), {"labels": [0, 1], "levels": ["a", "b"]}, r"2 level names were given \(a, b\) for 1 levels"),
        (np.zeros((0, 2)), {}, "holds no samples"),
        (pd.DataFrame({"a": [1]}), {"labels": "a"}, r"got 'a'. Columns are named by levels=\[...\]"),
        (None, {}, "holds numbers or texts; got NoneType"),
        ({1, 2}, {}, "got set"),
        (np.zeros((3, 0)), {}, r"samples of shape \(0,\) hold no numbers"),
        (np.array([[1, "a"], [2, "b"]], dtype=object), {}, r"got object of shape \(2, 2\)"),
        (np.ma.masked_greater(np.arange(4.0).reshape(2, 2), 2), {}, r"row 1 .* holds nan at column 1"),
        ([""], {}, r"row 0 \(from 0\) has no text"),
        (np.array([" "]), {}, r"row 0 \(from 0\) has no text"),
        ([None, "a"], {}, r"row 0 \(from 0\) has no text"),
    ],
)
def test_arrays_that_do_not_fit(samples: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(samples, **options)


def test_features_that_are_not_finite_are_told_by_row_and_column() -> None:
    array = np.zeros((4, 3))
    array[1, 2] = np.nan
    array[3, 0] = np.inf
    with pytest.raises(
        UserError, match=r"2 of 4 rows.*row 1 \(from 0\) holds nan at column 2.*row 3 \(from 0\) holds inf at column 0"
    ):
        read(array)
    assert read(array, labels=[0, 1, 2, 3], skip_unreadable=True).labels.classes == (("0", "2"),)
    series = np.zeros((2, 3, 2))
    series[1, 2, 1] = np.nan
    missing = read(series)  # in series NaN is a value that is not there
    assert missing.samples.take(torch.tensor([1])).isnan().sum() == 1
    assert "1 of 12 values are missing" in told(missing)
    series[1, 2, 1] = -np.inf
    with pytest.raises(UserError, match="holds -inf at column 2, 1"):
        read(series)
    floating = np.zeros((2, 4, 4, 3))
    floating[0, 0, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"row 0 .from 0. holds nan at column 0, 0, 0"), pytest.warns(RegrainWarning):
        read(floating)


def test_image_arrays_are_resized_like_pillow() -> None:
    array = pixels(0, 12, 16)
    smooth = np.asarray(Image.fromarray(array).resize((40, 30), Image.Resampling.BICUBIC))
    for size in (10, (6, 8)):
        data = read(smooth[None], image_size=size)
        expected = decode_image(encode(smooth), 3, size)
        assert np.array_equal(images(data)[0], expected)
    grey = read(smooth[None], channels=1)
    assert np.array_equal(images(grey)[0, 0], np.asarray(Image.fromarray(smooth).convert("L")))
    assert images(read(smooth[None, :, :, :1], channels=3)).shape == (1, 3, 30, 40)
    opaque = images(read(smooth[None], channels=4))
    assert np.array_equal(opaque[0, :3], smooth.transpose(2, 0, 1))
    assert (opaque[0, 3] == 255).all()


# Hugging Face


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Value:
    pass


class FakeDataset:
    """As much of ``datasets.Dataset`` as the reader uses."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any]) -> None:
        self.columns, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(self.columns[self.column_names[0]])

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        return {name: self.columns[name][key] for name in self.column_names}


class FakeImages(FakeDataset):
    """One that can hand images out encoded."""

    decoded = 0

    def __getitem__(self, key: int | str) -> Any:
        assert isinstance(key, str) or not self.features["img"].decode, "an image was decoded on the way"
        return super().__getitem__(key)

    def cast_column(self, name: str, feature: Any) -> FakeImages:
        return FakeImages(self.columns, {**self.features, name: feature})


ImageFeature = type("Image", (), {"__init__": lambda self, decode=True: setattr(self, "decode", decode)})


def test_hugging_face_texts_with_splits() -> None:
    features = {"sentence": Value(), "coarse": ClassLabel(["x", "y"]), "fine": ClassLabel(["p", "q", "r"])}
    train = FakeDataset({"sentence": ["a", "b", "c"], "coarse": [0, 0, 1], "fine": [0, 1, 2]}, features)
    test = FakeDataset({"sentence": ["d"], "coarse": [-1], "fine": [-1]}, features)
    for data in (read({"train": train, "validation": test}), read({"train": train, "validation": test})):
        assert data.split_names == ("train", "val")
        assert texts(data) == ("a", "b", "c", "d")
        assert data.labels.levels == ("coarse", "fine")
        assert names(data, "fine") == ["p", "q", "r", None]
        assert data.ids.tolist() == ["train/0", "train/1", "train/2", "val/0"]
    with pytest.raises(UserError, match="no splits"):
        huggingface_table({})


@pytest.mark.parametrize("form", ["bytes", "pil"])
def test_hugging_face_images(form: str) -> None:
    arrays = [pixels(i) for i in range(2)]
    columns: dict[str, list[Any]] = {"label": [1, 0]}
    features: dict[str, Any] = {"img": ImageFeature(), "label": ClassLabel(["cat", "dog"])}
    data: Dataset
    if form == "bytes":
        columns["img"] = [{"bytes": encode(a), "path": None} for a in arrays]
        data = read(FakeImages(columns, features))
    else:
        columns["img"] = [Image.fromarray(a) for a in arrays]
        data = read(FakeDataset(columns, features))
    assert np.array_equal(images(data), np.stack(arrays).transpose(0, 3, 1, 2))
    assert names(data, "label") == ["dog", "cat"]


class FormattedDataset(FakeDataset):
    """One that hands out tensors until it is asked for plain values, as ``with_format("torch")`` makes it."""

    def __getitem__(self, key: int | str) -> Any:
        found = super().__getitem__(key)
        return torch.tensor(found) if isinstance(key, str) and not isinstance(found[0], str) else found

    def with_format(self, name: str | None = None) -> FakeDataset:
        return FakeDataset(self.columns, self.features) if name is None else self


def test_hugging_face_tensors_and_withheld_labels() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 5)).tolist()
    features = {"x": Value(), "kind": ClassLabel(["a", "b"])}
    data = read(FormattedDataset({"x": vectors, "kind": [0, 1, -1] * 2}, features))
    assert data.samples.shape == (5,)
    assert names(data, "kind") == ["a", "b", None] * 2


def test_hugging_face_matrices_are_series() -> None:
    matrices = np.random.default_rng(0).normal(size=(6, 4, 3))
    columns = {"x": matrices.tolist(), "kind": ["a", "b"] * 3}
    data = read(FakeDataset(columns, {"x": Value(), "kind": Value()}), levels=["kind"])
    assert data.modality == "series"
    assert torch.equal(data.samples.take(torch.arange(6)), torch.from_numpy(matrices).float())
    ragged = {"x": [m[: 3 + i % 2].tolist() for i, m in enumerate(matrices)], "kind": ["a", "b"] * 3}
    with pytest.raises(UserError, match="'x' cannot be a feature: it holds lists of lists"):
        read(FakeDataset(ragged, {"x": Value(), "kind": Value()}), levels=["kind"], columns=["x"])


def test_hugging_face_streams_are_named() -> None:
    class Stream:
        features = None
        column_names = None

        def __iter__(self) -> Any:
            yield {"text": "a"}

    for source in (Stream(), {"train": Stream()}):
        with pytest.raises(UserError, match=r"is streamed \(IterableDataset\).*without streaming=True"):
            read(source)


def test_a_hugging_face_train_split_alone_is_split(tmp_path: Path) -> None:
    columns = {"x": np.random.default_rng(0).normal(size=(40, 3)).tolist(), "kind": ["a", "b"] * 20}
    source = {"train": FakeDataset(columns, {"x": Value(), "kind": Value()})}
    run = regrain.fit("sup-ce", source, levels=["kind"], holdout=0.25, epochs=1, out=tmp_path / "run")
    assert {name: len(part) for name, part in run.splits().items()} == {"train": 30, "test": 10}
    assert "the only split is 'train'" in told(read(source, levels=["kind"]))


# One entry for all


def test_read_finds_the_reader(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pictures/cat/1.png")
    assert read(tmp_path / "pictures").labels.classes == (("cat",),)
    assert read(str(csv(tmp_path, "text,label\nx,a\ny,b\n")), levels=["label"]).modality == "text"
    write_parquet(tmp_path / "p" / "train.parquet", {"text": ["a", "b"], "label": ["x", "y"]})
    assert read(tmp_path / "p", levels=["label"]).split_names == ("train",)
    assert read(pd.DataFrame({"text": ["a"], "label": ["x"]}), levels=["label"]).modality == "text"
    assert read(np.zeros((2, 2))).modality == "vector"
    data = read("digits")
    assert read(data) is data


def test_read_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no file, folder or data set 'cifar1000': did you mean 'cifar100'"):
        read("cifar1000")
    with pytest.raises(UserError, match=r"reading a table has no option 'lable': (did you mean|choose from)"):
        read(csv(tmp_path, "a,b\n1,2\n"), lable="b")
    with pytest.raises(UserError, match="reading the catalogue's digits has no option 'text'"):
        read("digits", text="x")
    with pytest.raises(UserError, match="a folder of images has no option 'columns'"):
        read(tmp_path, columns=["x"])
    with pytest.raises(UserError, match="no option 'levels' for a data set that has been read"):
        read(read("digits"), levels=["digit"])


@pytest.mark.slow
def test_fifty_thousand_images_are_read_in_seconds(shared: Path) -> None:
    import time

    start = time.perf_counter()
    data = read(shared / "data" / "cifar10", splits=["train"])
    assert time.perf_counter() - start < 15
    assert images(data).shape == (50_000, 3, 32, 32)
