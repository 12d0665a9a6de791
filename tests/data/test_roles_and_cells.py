"""Tables: one role a column, one parser of cells, and what is wrong with a file reported by line."""

from __future__ import annotations

import csv
import datetime
import io
import itertools
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from regrain.data import check, read
from regrain.data.dataset import Dataset
from regrain.data.formats import file_table
from regrain.data.images import choose_storage
from regrain.data.parquet import free_memory, parquet_table
from regrain.data.samples import SeriesSamples, TensorSamples, TextSamples
from regrain.errors import UserError


def written(folder: Path, text: str | bytes, name: str = "table.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def told(data: Dataset) -> str:
    return "\n".join(data.notes["messages"])


def features(data: Dataset) -> list[list[float]]:
    assert isinstance(data.samples, TensorSamples)
    return data.samples.tensor.tolist()


def texts(data: Dataset) -> list[str]:
    assert isinstance(data.samples, TextSamples)
    return list(data.samples.texts)


def classes(data: Dataset, level: str) -> list[str | None]:
    names = data.labels.names(level)
    return [None if code < 0 else names[code] for code in data.labels.level(level).tolist()]


# Roles


@pytest.mark.parametrize("family", [["0", "1"], ["a", "b"]])
def test_a_pattern_leaves_out_the_label(tmp_path: Path, family: list[str]) -> None:
    rows = "".join(f"{i / 7:.3f},{-i / 3:.3f},{family[i % 2]}\n" for i in range(12))
    file = written(tmp_path, "f1,f2,family\n" + rows)
    data = read(file, columns=["f*"], levels=["family"])
    assert data.samples.shape == (2,)
    assert "not features: 'family' is a level" in told(data)
    assert read(file, columns=["*"]).labels.levels == ("family",)  # a guessed level is one too
    assert read(file, columns=["*"]).samples.shape == (2,)


def test_a_pattern_leaves_out_everything_with_another_role(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "a": np.arange(8) / 7,
            "b": np.arange(8) / 5,
            "kind": [0, 1] * 4,
            "part": ["train", "test"] * 4,
            "subject": [1, 1, 2, 2] * 2,
            "id": range(100, 108),
            "row": range(8),
            "day": pd.to_datetime(["2024-01-31"] * 8),
            "note": list("abcdefgh"),
        }
    )
    data = read(frame, columns=["*"], levels=["kind"], split_column="part")
    assert data.samples.shape == (2,)
    for left in (
        "'kind' is a level",
        "'part' is the split",
        "'subject' is the group",
        "'id' is the id",
        "'row' only counts rows",
        "'day' holds dates",
    ):
        assert left in told(data)
    assert "and 1 more" in told(data)


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["f1", "kind"], "levels": ["kind"]},
        {"levels": ["kind"], "group_column": "kind", "columns": ["f1"]},
        {"levels": ["kind"], "split_column": "kind"},
        {"levels": ["kind"], "id_column": "kind"},
        {"text": "kind", "levels": ["kind"]},
        {"group_column": "who", "id_column": "who", "levels": ["kind"]},
        {"record": "who", "time": "f1", "columns": ["f1"], "levels": ["kind"]},
        {"record": "who", "columns": ["who"], "levels": ["kind"]},
        {"record": "who", "static": ["f1"], "columns": ["f1"], "levels": ["kind"]},
    ],
)
def test_a_column_named_for_two_roles_is_refused(options: dict[str, Any]) -> None:
    frame = pd.DataFrame({"f1": [0.5, 1.5], "kind": ["a", "b"], "who": ["x", "y"]})
    with pytest.raises(
        UserError, match=r"column '(kind|who|f1)' is named for two roles, \w+ and \w+: a column has one"
    ):
        read(frame, **options)
    with pytest.raises(UserError, match="column 'kind' is named twice as a level"):
        read(frame, columns=["f1"], levels=["kind", "kind"])


def test_a_record_may_be_its_own_group_and_a_path_its_own_id() -> None:
    frame = pd.DataFrame({"v": [0.5, 1.5, 2.5, 3.5], "who": ["x", "x", "y", "y"], "kind": list("aabb")})
    data = read(frame, record="who", group_column="who", levels=["kind"])
    assert data.groups is not None
    assert data.groups.tolist() == ["x", "y"]


def test_what_is_left_out_of_guessed_features_is_named() -> None:
    frame = pd.DataFrame(
        {
            "f": np.arange(8) / 7,
            "note": list("abcdefgh"),
            "when": [datetime.date(2024, 1, day) for day in range(1, 9)],
            "price": ["1,024", "7"] * 4,
            "mixed": ["$7", "7 €"] * 4,
            "nothing": [None] * 8,
            "span": pd.to_timedelta(range(8), unit="s"),
            "kind": ["x", "y"] * 4,
        }
    )
    data = read(frame, levels=["kind"])
    assert features(data) == torch.arange(8).div(7)[:, None].tolist()
    (line,) = [message for message in data.notes["messages"] if message.startswith("not features")]
    for reason in (
        "'note' holds texts such as 'a'",
        "'when' holds dates",
        "'price' writes numbers such as '1,024', where the comma could mark thousands or decimals",
        "'mixed' holds numbers in several notations, such as '$7' and '7 €'",
        "'nothing' is empty",
        "'span' holds values of the type Timedelta",
    ):
        assert reason in line
    with pytest.raises(UserError, match="column 'price' cannot be a feature: it writes numbers such as '1,024'"):
        read(frame, columns=["price"], levels=["kind"])


# One parser of cells


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["True", "FALSE", "true"], [1, 0, 1]),
        (["yes", "No", "YES"], [1, 0, 1]),
        ([True, False, True], [1, 0, 1]),
        (np.array([True, False, True]), [1, 0, 1]),
        (["$7", "$1,024.50", "-$3"], [7, 1024.5, -3]),
        (["7 €", "1.024,5 €", "3€"], [7, 1024.5, 3]),
        (["1,024,000", "7", "1,024"], [1024000, 7, 1024]),
        (["1_000", "2_000", "7"], [1000, 2000, 7]),
        (["0,5", "1,25", "3"], [0.5, 1.25, 3]),
        (["1 024,5", "7", "3\u202f000"], [1024.5, 7, 3000]),
        (["12%", "7%", "100 %"], [12, 7, 100]),
        (["1e3", " 2.50 ", "+.5"], [1000, 2.5, 0.5]),
        (["999"] * 40 + ["1,024.5"], [999] * 40 + [1024.5]),
    ],
)
def test_numbers_in_one_notation_are_read(cells: Any, numbers: list[float]) -> None:
    frame = pd.DataFrame({"x": cells, "f": np.linspace(0, 1, len(cells)), "kind": (["a", "b"] * 40)[: len(cells)]})
    data = read(frame, levels=["kind"])
    assert [row[0] for row in features(data)] == numbers
    assert data.notes["columns"] == ["x", "f"]


def test_numbers_that_do_not_fit_their_column_are_told_by_row() -> None:
    frame = pd.DataFrame({"x": ["1"] * 30 + ["1_2", "1,5"], "kind": ["a", "b"] * 16})
    with pytest.raises(UserError, match="row 30 holds '1_2' in column 'x', which is not a number; row 31 holds '1,5'"):
        read(frame, levels=["kind"])


def test_yes_and_no_is_a_label_where_nothing_else_is() -> None:
    frame = pd.DataFrame({"f": np.arange(8) / 7, "spam": ["yes", "no"] * 4})
    assert read(frame).labels.levels == ("spam",)
    frame["family"] = ["a", "b"] * 4
    data = read(frame)
    assert (data.labels.levels, data.notes["columns"]) == (("family",), ["f", "spam"])
    assert "column 'spam': yes/no is read as 1/0" in told(data)
    prose = pd.DataFrame({"text": ["one two three", "four five six"] * 4, "spam": ["yes", "no"] * 4})
    assert read(prose).labels.levels == ("spam",)


def test_new_data_are_read_in_the_notation_of_the_run() -> None:
    frame = pd.DataFrame({"x": ["1,024", "7"], "kind": ["a", "b"]})
    data = read(frame, columns=["x"], levels=["kind"], notations={"x": "1,000.5"})
    assert features(data) == [[1024], [7]]
    data = read(frame, columns=["x"], levels=["kind"], notations={"x": "1000,5"})
    assert features(data) == [[pytest.approx(1.024)], [7]]
    constant = pd.DataFrame({"x": ["1.5", "2.5"], "kind": ["a", "b"]})  # the run's notation does not fit
    assert features(read(constant, columns=["x"], levels=["kind"], notations={"x": "$1,000.5"})) == [[1.5], [2.5]]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0", "1", "0"], ["0", "1", "0"]),
        (["0.0", "1.0", "0.0"], ["0", "1", "0"]),
        (["0e0", "+1", "0.00"], ["0", "1", "0"]),
        ([0.0, 1.0, 0.0], ["0", "1", "0"]),
        (np.array([0, 1, 0], dtype=np.int8), ["0", "1", "0"]),
        ([0.0, None, 0.0], ["0", None, "0"]),
        (["007", "7", "007"], ["007", "7", "007"]),
        (["1.0", "1.5", "1.0"], ["1.0", "1.5", "1.0"]),
        ([1.0, 1.5, 1.0], ["1.0", "1.5", "1.0"]),
        (np.array([0.1, 0.2, 0.1], dtype=np.float32), ["0.1", "0.2", "0.1"]),
        (["1.10", "1.1", "2"], ["1.10", "1.1", "2"]),
        ([True, False, True], ["True", "False", "True"]),
        (["true", "FALSE", "True"], ["True", "False", "True"]),
        (["true", "maybe", "true"], ["true", "maybe", "true"]),
        (["9" * 5000, "1", "1"], ["9" * 5000, "1", "1"]),
        ([datetime.date(2024, 1, 31), None, datetime.datetime(2024, 1, 31)], ["2024-01-31", None, "2024-01-31"]),
        ([b"dog", "cat", "dog"], ["dog", "cat", "dog"]),
    ],
)
def test_a_class_is_one_however_it_is_spelled(cells: Any, expected: list[str | None]) -> None:
    data = read(np.zeros((3, 2)), labels={"kind": cells})
    assert classes(data, "kind") == expected
    frame = pd.DataFrame({"text": ["x y", "z", "w"], "kind": pd.Series(list(cells), dtype=object)})
    assert classes(read(frame, text="text", levels=["kind"]), "kind") == expected


def test_spellings_put_together_are_told() -> None:
    data = read(np.zeros((4, 2)), labels={"kind": ["1", "1.0", "2", "2"]})
    assert "level 'kind': '1' and '1.0' are one class, '1'" in told(data)
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    data = read(np.zeros((4, 2)), labels={"kind": [*forms, "tea", "tea"]})
    assert data.labels.counts == {"kind": 2}
    assert "are one class, 'café'" in told(data)


@pytest.mark.parametrize(
    ("one", "other"), [("Dog", "dog"), ("Ａ", "A"), ("a b", "a  b"), ("a\u00a0b", "a b"), ("7", "007")]
)
def test_classes_that_look_alike_are_warned_about(one: str, other: str) -> None:
    frame = pd.DataFrame({"text": list("vwxyz"), "kind": [one, other, one, other, "cat"]})
    data = read(frame, text="text", levels=["kind"])
    assert data.labels.counts == {"kind": 3}
    assert "classes look alike" in told(data)
    assert repr(one) in told(data)
    assert repr(other) in told(data)
    report = check(frame, text="text", levels=["kind"])
    (issue,) = [p for p in report.issues if p.kind == "classes alike"]
    assert issue.severity == "warning"
    assert "row 0" in issue.rows[0]
    assert "row 1" in issue.rows[0]


def test_ids_keep_their_spelling() -> None:
    frame = pd.DataFrame({"f": [0.5, 1.5], "kind": ["a", "b"], "id": ["007", "0.0"]})
    assert read(frame, columns=["f"], levels=["kind"]).ids.tolist() == ["007", "0.0"]


def test_a_name_of_ten_thousand_characters_is_no_class() -> None:
    with pytest.raises(UserError, match="level 'kind' holds a cell of 20,000 characters"):
        read(np.zeros((2, 2)), labels={"kind": ["a" * 20_000, "b"]})


# CSV


def test_stray_quotes_cost_their_own_lines_alone(tmp_path: Path) -> None:
    lines = [f"{i},text number {i},{'ab'[i % 2]}" for i in range(12)]
    lines[2] = '2,"stray one,a'
    lines[7] = '7,"stray two,b'
    file = written(tmp_path, "id,text,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(
        UserError, match=r"2 of 12 rows cannot be used: line 4 begins a cell with a quote .*; line 9 begins"
    ):
        read(file, text="text", levels=["label"])
    data = read(file, text="text", levels=["label"], skip_unreadable=True)
    assert data.ids.tolist() == [str(i) for i in range(12) if i not in (2, 7)]
    report = check(file, text="text", levels=["label"])
    assert not report.ok


def test_quotes_that_close_and_still_swallow_rows_are_seen(tmp_path: Path) -> None:
    lines = [f"{i},text number {i},{'ab'[i % 2]}" for i in range(12)]
    lines[2] = '2,"stray one,a'
    lines[7] = '7,stray two",b'
    file = written(tmp_path, "id,text,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(UserError, match=r"1 of 12 rows cannot be used: line 4 .* a quote that swallows lines 5 to 9"):
        read(file, text="text", levels=["label"])
    assert len(read(file, text="text", levels=["label"], skip_unreadable=True)) == 11


def test_cells_that_rightly_span_lines_are_read_and_told(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        'text,place,label\nhello,there,a\n"Dear all,\nwe, and you","12 Main St,\nSpringfield",b\nbye,here,a\n',
    )
    data = read(file, text="text", levels=["label"])
    assert texts(data)[1] == "Dear all,\nwe, and you"
    assert "1 row spans several lines within quotes (line 3)" in told(data)


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_quoted_cells_of_separators_and_line_breaks_are_read(delimiter: str, tmp_path: Path) -> None:
    cells = (";", "0\r", f"{delimiter}\r", f"a{delimiter}\n", "a")
    for first in itertools.product(cells, repeat=2):
        for second in itertools.product(cells, repeat=2):
            stream = io.StringIO(newline="")
            csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("x", "y"), first, second])
            table = file_table(written(tmp_path, stream.getvalue(), "t.tsv" if delimiter == "\t" else "t.csv"))
            found = list(zip(*(table.columns[name] for name in "xy"), strict=True))
            assert (found, table.broken) == ([first, second], ())


def test_a_quote_left_open_at_the_end_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line 3 begins a cell with a quote that is not closed"):
        read(written(tmp_path, 'label,text\na,x\nb,"y\n'), text="text", levels=["label"])
    with pytest.raises(UserError, match="cannot be read as CSV: line 1 begins a cell with a quote"):
        read(written(tmp_path, '"label,text\na,x\nb,y\n'), text="text", levels=["label"])


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\ntext;label\nhello, you;a\nbye, then;b\n",
        '"sep=;"\ntext;label\nhello, you;a\nbye, then;b\n',
        'text;label\n"hello, you";a\n"bye, then";b\n',
        '"text";"label"\nhello, you;a\nbye, then;b\n',
        "text\tlabel\nhello, you\ta\nbye, then\tb\n",
        "text;label\rhello, you;a\rbye, then;b\r",
        "\ufefftext;label\r\nhello, you;a\r\nbye, then;b\r\n",
        "\ufeff\ufefftext;label\nhello, you;a\nbye, then;b\n",
        "\n\ntext;label\nhello, you;a\n\nbye, then;b\n",
        "text;label;\nhello, you;a;\nbye, then;b;\n",
        "text;label\nhello, you;a\nbye, then;b\n;\n;\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_files_as_spreadsheets_write_them(tmp_path: Path, text: str, encoding: str) -> None:
    data = read(written(tmp_path, text.encode(encoding)), text="text", levels=["label"])
    assert texts(data) == ["hello, you", "bye, then"]
    assert classes(data, "label") == ["a", "b"]


def test_names_of_columns_may_hold_delimiters(tmp_path: Path) -> None:
    file = written(tmp_path, '"weight, kg";"height; cm";label\n1.5;2;a\n2.5;3;b\n')
    data = read(file, levels=["label"])
    assert data.notes["columns"] == ["weight, kg", "height; cm"]
    file = written(tmp_path, "weight,kg;label\n1.5;a\n2.5;b\n")
    assert read(file, levels=["label"]).notes["columns"] == ["weight,kg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,,label\n1,2,x\n3,4,y\n", "line 1: column 2 has no name"),
        ("a,a ,label\n1,2,x\n", "'a' occurs twice"),
        ("text,label\nx,a\n\u00e9,b\n".encode("latin-1"), r"is not UTF-8 text: line 3 .*CSV UTF-8"),
        ("text,label\nx,a\ny,b\n".encode("utf-16-le"), "looks like UTF-16 without a mark"),
        ("text,label\nx,a\ny\0z,b\n", "line 3 holds a NUL character"),
    ],
)
def test_files_that_cannot_be_read_as_meant(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path, content), levels=["label"])


def test_rows_of_empty_cells_at_the_end_are_passed_over(tmp_path: Path) -> None:
    data = read(written(tmp_path, "text,label\nx,a\ny,b\n,\n,\n"), text="text", levels=["label"])
    assert len(data) == 2
    assert "2 rows of empty cells at the end, from line 4, passed over" in told(data)


# JSON


@pytest.mark.parametrize("orient", ["columns", "index", "split", "records", "table", "list"])
def test_every_json_that_pandas_writes(tmp_path: Path, orient: str) -> None:
    frame = pd.DataFrame({"text": ["hello", "bye", "so"], "label": ["a", "b", "a"]})
    text = json.dumps(frame.to_dict("list")) if orient == "list" else frame.to_json(orient=orient)  # type: ignore[call-overload]
    data = read(written(tmp_path, text, "t.json"), text="text", levels=["label"])
    assert (texts(data), classes(data, "label")) == (["hello", "bye", "so"], ["a", "b", "a"])


@pytest.mark.parametrize(
    "text", ['{"a": {"x": 1}, "b": {"y": 2}}', '{"columns": ["a"], "data": [[1, 2]]}', '{"a": [1], "b": []}']
)
def test_json_that_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="is one JSON object that is not a table"):
        read(written(tmp_path, text, "t.json"), levels=[])


def test_a_key_that_comes_twice_is_told(tmp_path: Path) -> None:
    file = written(tmp_path, '{"text": "x", "label": "a"}\n{"text": "y", "text": "z", "label": "b"}\n', "t.jsonl")
    with pytest.raises(UserError, match=r"line 2 is not JSON \(the key 'text' occurs twice\)"):
        read(file, text="text", levels=["label"])


# Parquet


def test_of_many_columns_only_those_asked_for_are_read(tmp_path: Path) -> None:
    columns = {f"c{i}": [0.5, 1.5, 2.5] for i in range(3000)} | {"kind": ["a", "b", "a"]}
    pq.write_table(pa.table(columns), tmp_path / "wide.parquet")
    table = parquet_table([tmp_path / "wide.parquet"])
    rows = table.rows(columns=["c7", "c2999"], levels=["kind"])
    assert np.array_equal(rows.values, np.array([[0.5, 0.5], [1.5, 1.5], [2.5, 2.5]]))
    assert set(table.columns._read) == {"c7", "c2999", "kind"}  # type: ignore[attr-defined]
    assert read(tmp_path / "wide.parquet", columns=["c*"], levels=["kind"]).samples.shape == (3000,)


def test_more_rows_than_memory_holds_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"x": [1.0] * 1000, "kind": ["a"] * 1000}), tmp_path / "t.parquet")
    monkeypatch.setattr("regrain.data.parquet.free_memory", lambda: 100_000)
    with pytest.raises(UserError, match=r"has 1,000 rows and 2 columns, .* name the columns that matter"):
        read(tmp_path / "t.parquet", columns=["x"], levels=["kind"])
    monkeypatch.undo()
    assert free_memory() > 1 << 20
    alone = free_memory()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert free_memory() < alone / 4  # eight processes read the same


def test_limits_of_images_hold_for_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((200, 200, 3), np.uint8)).save(tmp_path / "large.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "small.png")
    monkeypatch.setattr("regrain.data.images._MEMORY_LIMIT", 3 * 8 * 8 * 3)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    small, large = [str(tmp_path / "small.png")] * 3, [str(tmp_path / "large.png")]
    assert (choose_storage(small).in_memory, choose_storage(large).threads) == (True, 6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (choose_storage(small).in_memory, choose_storage(large).threads) == (False, 3)


def test_a_text_that_comes_back_is_kept_once(tmp_path: Path) -> None:
    long = "x" * 100_000
    pq.write_table(pa.table({"text": [long] * 2000, "kind": ["a", "b"] * 1000}), tmp_path / "t.parquet")
    cells = parquet_table([tmp_path / "t.parquet"]).columns["text"]
    assert len({id(cell) for cell in cells}) == 1


def test_columns_of_one_name_are_named(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["a", "a"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="columns have to have different names; 'a' occurs twice"):
        read(tmp_path / "t.parquet")


def test_a_huge_text_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, f"text,label\nx,a\n{'y ' * 600_000},b\n")
    with pytest.raises(UserError, match="line 3 has a text of 1,200,000 characters, of which encoders read"):
        read(file, text="text", levels=["label"])
    assert not check(file, text="text", levels=["label"]).ok


# Features by name, and what cannot be held out


def test_features_are_taken_by_name() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0], "c": [5.0, 6.0], "kind": ["x", "y"]})
    data = read(frame, columns=["c", "a", "b"], levels=["kind"])
    assert features(data.with_columns(["a", "b"])) == [[1, 3], [2, 4]]
    assert data.with_columns(["a", "b"]).notes["columns"] == ["a", "b"]
    assert data.with_columns(["c", "a", "b"]) is data
    with pytest.raises(UserError, match="data: column 'f2' is missing: runs/x was trained on it"):
        data.with_columns(["a", "f2"], who="runs/x")
    series = frame.assign(who="r", age=1.0, size=2.0)
    read_series = read(series, record="who", columns=["a", "b"], static=["age", "size"], levels=[], window=1)
    taken = read_series.with_columns(["b", "a"], ["size"])
    assert isinstance(taken.samples, SeriesSamples)
    assert taken.samples.series[:, 0].tolist() == [[3, 1], [4, 2]]
    assert taken.samples.static is not None
    assert taken.samples.static.tolist() == [[2], [2]]


def test_classes_of_one_sample_are_the_cause_that_nothing_can_be_held_out() -> None:
    data = read(np.zeros((30, 2)), labels={"key": [f"k{i}" for i in range(30)]})
    with pytest.raises(UserError, match=r"level 'key' has 30 classes of at most 1 sample.*Are these labels ids"):
        data.hold_out(0.2, stratify="key")


def test_a_table_is_read_from_a_mapping_of_arrays() -> None:
    data = read({"a": np.arange(4) / 3, "b": [1, 2, 3, 5], "kind": ["x", "y", "x", "y"]}, levels=["kind"])
    assert data.notes["columns"] == ["a", "b"]
    with pytest.raises(UserError, match="column 'a' has 2 cells, and column 'b' has 1"):
        read({"a": [1, 2], "b": [3]})


def test_a_table_that_was_read_is_a_source(tmp_path: Path) -> None:
    file = written(tmp_path, "f,kind\n0.5,a\n1.5,b\n")
    assert features(read(file_table(file), levels=["kind"])) == [[0.5], [1.5]]


def test_a_few_words_in_a_column_named_outright_are_told_by_row() -> None:
    frame = pd.DataFrame({"f": ["1", "2", "x"], "kind": ["a", "b", "a"]})
    with pytest.raises(UserError, match="row 2 holds 'x' in column 'f', which is not a number"):
        read(frame, columns=["f"], levels=["kind"])


# What comes with a DataFrame, and other formats


def _indexed(index: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"a": np.sin(np.arange(12)), "b": np.cos(np.arange(12)), "kind": ["u", "v"] * 6})
    return frame.set_index(pd.Index(index)).sort_index()


@pytest.mark.parametrize("kind", ["csv", "unnamed", "parquet", "frame"])
@pytest.mark.parametrize(
    "index",
    [
        [7 * i % 12 + 5 for i in range(12)],
        [f"s{7 * i % 12:02}" for i in range(12)],
        [f"2020-01-{7 * i % 12 + 1:02}" for i in range(12)],
    ],
)
def test_the_index_of_a_frame_is_the_id_and_never_a_feature(tmp_path: Path, kind: str, index: list[Any]) -> None:
    source: Any = _indexed(index).sample(frac=1, random_state=0)
    expected = list(map(str, source.index))
    if kind == "parquet":
        source.to_parquet(tmp_path / "t.parquet")
    elif kind == "csv":
        source.to_csv(tmp_path / "t.csv")
    elif kind == "unnamed":  # read and written once more without index_col
        source.to_csv(tmp_path / "first.csv")
        pd.read_csv(tmp_path / "first.csv").to_csv(tmp_path / "t.csv", index=False)
    data = read(source if kind == "frame" else tmp_path / f"t.{'parquet' if kind == 'parquet' else 'csv'}")
    assert data.samples.shape == (2,)
    assert data.ids.tolist() == expected
    assert read(_indexed(range(12)).reset_index(drop=True)).ids.tolist() == list(map(str, range(12)))


def test_fractions_in_a_column_called_index_are_not_ids() -> None:
    data = read(_indexed(range(12)).reset_index(drop=True).rename(columns={"b": "index"}))
    assert data.ids.tolist() == list(map(str, range(12)))
    assert "'index' is named like an id" in told(data)


def test_dates_are_the_index_of_a_frame_too() -> None:
    days = pd.date_range("2020-01-01", periods=12)
    assert read(_indexed(days)).ids.tolist() == [f"{day:%Y-%m-%d}" for day in days]


@pytest.mark.parametrize("named", [True, False])
def test_labels_that_a_mask_hides_are_missing(named: bool) -> None:
    hidden = np.arange(12) < 3
    for classes in (np.arange(12) % 2, np.array(["u", "v"] * 6), np.stack([np.arange(12) % 2] * 2, axis=1)):
        mask = np.broadcast_to(hidden[:, None], classes.shape) if classes.ndim == 2 else hidden
        masked = np.ma.array(classes, mask=mask)
        labels = {"kind": masked} if named and masked.ndim == 1 else masked
        data = read(np.eye(12, dtype=np.float32), labels=labels)
        assert set(data.labels.known.values()) == {9}
        assert set(data.labels.counts.values()) == {2}


def test_a_mask_that_hides_nothing_changes_nothing() -> None:
    pixels = np.arange(8 * 6 * 6, dtype=np.uint8).reshape(8, 6, 6)
    data = read(np.ma.array(pixels, mask=False), labels=["u", "v"] * 4, modality="image")
    assert data.samples.shape == (1, 6, 6)
    with pytest.raises(UserError, match="images have no missing pixels"):
        read(np.ma.array(pixels, mask=pixels > 250), labels=["u", "v"] * 4)


def test_levels_of_an_index_are_columns_by_their_names() -> None:
    frame = _indexed(range(12)).set_index(["kind", pd.Index(range(100, 112), name="id")])
    data = read(frame)
    assert data.labels.levels == ("kind",)
    assert data.ids.tolist() == list(map(str, range(100, 112)))
    assert read(frame.reset_index(drop=True), labels=["u", "v"] * 6).samples.shape == (2,)
    repeated = read(_indexed([0, 1] * 6))
    assert repeated.ids.tolist() == list(map(str, range(12)))
    assert "column 'index' repeats values and is not taken for the id" in told(repeated)
    assert read(_indexed([0, 1] * 6)[["a", "b"]], labels=["u", "v"] * 6).samples.shape == (2,)


@pytest.mark.parametrize("words", [[0, 1], ["learn", "holdout"], ["train", ""], [True, False]])
def test_a_split_in_other_words_is_named_and_not_a_feature(tmp_path: Path, words: list[Any]) -> None:
    frame = _indexed(range(12)).assign(data_split=words * 6)
    frame.to_csv(tmp_path / "t.csv", index=False)
    for source in (frame, tmp_path / "t.csv"):
        data = read(source)
        assert data.samples.shape == (2,)
        assert data.splits is None
        assert "column 'data_split' is not read as the split, since it holds " in told(data)
    assert read(frame.assign(split_time=np.arange(12) / 7)).samples.shape == (3,)  # a feature that is named alike
    if not isinstance(words[0], str):
        assert read(frame, columns=["a", "b", "data_split"]).samples.shape == (3,)  # named outright


def test_classes_too_small_to_hold_out_are_counted_and_a_share_that_works_is_named(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.sin(np.arange(5)), "kind": ["u", "u", "v", "v", None]})
    data = read(frame, columns=["a"], levels=["kind"])
    with pytest.raises(UserError, match=r"level 'kind' has 2 classes of at most 2 samples.*Set --holdout 0.5"):
        data.hold_out(0.2, seed=0, stratify="kind")
    assert len(data.hold_out(0.5, seed=0, stratify="kind")[1]) == 2


@pytest.mark.parametrize(
    ("header", "is_told"),
    [("0.12,-3.4,u", True), ("5,3,u", True), ("0,1,kind", False), ("2019,a,kind", False), ("a,b,kind", False)],
)
def test_a_first_line_of_numbers_may_be_a_sample(tmp_path: Path, header: str, is_told: bool) -> None:
    rows = "".join(f"{i / 7:.3f},{i / 3:.3f},{'uv'[i % 2]}\n" for i in range(12))
    data = read(written(tmp_path, f"{header}\n{rows}"), levels=[header.split(",")[2]])
    assert ("line 1 is read as the names of the columns, and holds numbers such as" in told(data)) is is_told
