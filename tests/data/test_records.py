"""Tables with one row a time step: records, windows, labels of windows, static features; and series in arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from regrain.data import Dataset, SeriesSamples, TensorSamples, check, read, read_arrays, read_table
from regrain.errors import UserError

NAN = float("nan")


def sessions(lengths: dict[str, int] | None = None) -> pd.DataFrame:
    """``flow`` counts the steps of a record, ``pressure`` is 10 times that."""
    rows = [
        {
            "patient": patient,
            "day": f"2024-03-{step + 1:02d}",
            "flow": float(step),
            "pressure": 10.0 * step,
            "age": 40 + len(patient) + ord(patient[-1]),
            "event": "yes" if step >= 3 else "no",
        }
        for patient, length in (lengths or {"p1": 6, "p2": 6}).items()
        for step in range(length)
    ]
    return pd.DataFrame(rows)


def told(data: Dataset) -> str:
    return " | ".join(data.notes["messages"])


def series_of(data: Dataset) -> torch.Tensor:
    samples = data.samples
    assert isinstance(samples, SeriesSamples | TensorSamples)
    return samples.series if isinstance(samples, SeriesSamples) else samples.tensor


READ: dict[str, Any] = {"record": "patient", "time": "day", "levels": ["event"]}


def test_windows_against_a_loop() -> None:
    table = sessions({"p1": 7, "p2": 5})
    shuffled = table.sample(frac=1, random_state=0)
    data = read_table(shuffled, **READ, static=["age"], columns=["flow", "pressure"], window=3, stride=2)
    expected, ids, labels = [], [], []
    for patient in dict.fromkeys(shuffled["patient"]):
        own = table[table["patient"] == patient].sort_values("day")
        for start in range(0, len(own) - 2, 2):
            part = own.iloc[start : start + 3]
            expected.append(part[["flow", "pressure"]].to_numpy())
            ids.append(f"{patient}:{start}")
            labels.append(part["event"].iloc[-1])
    assert data.ids.tolist() == ids
    assert np.array_equal(series_of(data).numpy(), np.array(expected, dtype=np.float32))
    assert [data.labels.names("event")[c] for c in data.labels.level("event").tolist()] == labels
    assert isinstance(data.samples, SeriesSamples)
    assert data.samples.static is not None
    ages = dict(zip(table["patient"], table["age"], strict=True))
    assert data.samples.static[:, 0].tolist() == [ages[i.split(":")[0]] for i in ids]
    assert data.groups is not None
    assert data.groups.tolist() == [i.split(":")[0] for i in ids]
    assert data.notes["columns"] == ["flow", "pressure"]
    assert data.notes["static_columns"] == ["age"]


def test_what_is_told_of_windows() -> None:
    data = read_table(sessions({"p1": 7, "p2": 2}), **READ, static=["age"], window=3)
    assert "2 windows of 3 time steps, 3 apart, from 2 records" in told(data)
    assert "1 of 2 records are shorter than a window and were left out, such as 'p2' with 2" in told(data)
    assert "1 time steps at the ends of records fill no window" in told(data)
    mixed = read_table(sessions(), **READ, window=4, stride=1)
    assert "level 'event': 6 of 6 windows hold several classes and take that of their last step" in told(mixed)
    assert "features: 3 columns of numbers, 'flow', 'pressure', 'age' (guessed)" in told(mixed)


def test_unknown_labels_inside_a_window() -> None:
    table = sessions({"p1": 4})
    table["event"] = [None, "no", None, None]
    data = read_table(table, **READ, window=2)
    assert data.labels.level("event").tolist() == [0, -1]


def test_whole_records_and_ragged_ones() -> None:
    data = read_table(sessions(), **READ, static=["age"])
    assert data.ids.tolist() == ["p1", "p2"]
    assert data.samples.shape == (6, 2)
    with pytest.raises(
        UserError,
        match=r"records differ in length: 'p2' \(from row 6\) has 4 time steps, 'p1' has 6.*\(--window 4; window=4\)",
    ):
        read_table(sessions({"p1": 6, "p2": 4}), **READ)
    with pytest.raises(UserError, match="no record is as long as a window of 9 time steps; the longest, 'p1', has 6"):
        read_table(sessions({"p1": 6, "p2": 4}), **READ, window=9)


def test_time_may_be_numbers_and_must_be_readable(tmp_path: Path) -> None:
    table = sessions({"p1": 4})
    table["day"] = [10, 9, 2, 1]
    data = read_table(table, **READ, columns=["flow"])
    assert series_of(data).flatten().tolist() == [3, 2, 1, 0]
    file = tmp_path / "sessions.csv"
    table["day"] = ["2024-01-02", "2024-01-01", "yesterday", "2024-01-03"]
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=r"line 4 holds 'yesterday' in the time column 'day'.*such as 2024-01-31"):
        read_table(file, **READ)
    table["day"] = ["2024-01-02", "", "2024-01-01", "2024-01-03"]
    table["patient"] = ["p1", "p1", "p1", None]
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match="line 3 has no time in column 'day'; line 5 has no record in column 'patient'"):
        read_table(file, **READ)
    kept = read_table(file, **READ, columns=["flow"], skip_unreadable=True)
    assert series_of(kept).flatten().tolist() == [2, 0]


def test_static_features_must_not_change(tmp_path: Path) -> None:
    file = tmp_path / "sessions.csv"
    table = sessions()
    table.loc[8, "age"] = 12
    table.to_csv(file, index=False)
    with pytest.raises(
        UserError,
        match=r"column 'age' \(static\) must not change within a record, but record 'p2' has '92' at line 8 and '12' "
        "at line 10; a column that changes in time belongs to the series",
    ):
        read_table(file, **READ, static=["age"])
    table["age"] = [NAN, 50, NAN, NAN, 50, NAN] + [NAN] * 6
    table["age"] = table["age"].astype(object)
    table.to_csv(file, index=False)
    samples = read_table(file, **READ, static=["age"]).samples
    assert isinstance(samples, SeriesSamples)
    assert samples.static is not None
    assert samples.static[0].item() == 50
    assert samples.static[1].isnan()


def test_missing_values_stay_and_bad_cells_are_told(tmp_path: Path) -> None:
    file = tmp_path / "sessions.csv"
    table = sessions().astype({"flow": object})
    table.loc[1, "flow"] = None
    table.loc[2, "flow"] = "NA"
    table.to_csv(file, index=False)
    data = read_table(file, **READ, columns=["flow"], window=3)
    assert series_of(data).isnan().sum() == 2
    assert "2 of 12 values are missing" in told(data)
    table.loc[7, "flow"] = "high"
    table.loc[8, "pressure"] = np.inf
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=r"line 9 \(in sample p2:0\) holds 'high' in column 'flow', which is not a"):
        read_table(file, **READ, columns=["flow"], window=2)
    both: dict[str, Any] = {"columns": ["flow", "pressure"], "window": 2}
    report = check(file, **READ, static=["age"], **both)
    assert not report.ok
    assert report.render()[0] == "sessions: 6 series samples (2 x 2, 1 static feature)"
    assert [row for problem in report.problems for row in problem.rows][:2] == [
        "line 9 (in sample p2:0) holds 'high' in column 'flow', which is not a number",
        "line 10 (in sample p2:2) holds 'inf' in column 'pressure', which is not a finite number",
    ]
    kept = read_table(file, **READ, **both, skip_unreadable=True)
    assert kept.ids.tolist() == ["p1:0", "p1:2", "p1:4", "p2:4"]


def test_splits_and_groups_belong_to_records(tmp_path: Path) -> None:
    table = sessions().assign(ward=["a"] * 6 + ["b"] * 6, split=["train"] * 6 + ["test"] * 6)
    data = read_table(table, **READ, group="ward", window=3)
    assert data.parts == ("train", "test")
    assert data.groups is not None
    assert data.groups.tolist() == ["a", "a", "b", "b"]
    table.loc[2, "split"] = "test"
    with pytest.raises(UserError, match=r"column 'split' \(split\) must not change within a record, but record 'p1'"):
        read_table(table, **READ, window=3)
    for part, name in (("train", "p1"), ("test", "p2")):
        own = sessions()
        own[own["patient"] == name].assign(patient="1").to_parquet(tmp_path / f"{part}.parquet")
    files = read(tmp_path, **READ, window=3)
    assert files.ids.tolist() == ["train/1:0", "train/1:3", "test/1:0", "test/1:3"]
    assert files.parts == ("train", "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "window is about tables with one row a time step: name the column.*--record"),
        ({"static": ["age"]}, "static features stand beside series"),
        ({"record": "patient", "id": "day"}, "id and record exclude each other: ids are record:start"),
        ({"record": "patient", "series_shape": (2, 1)}, "series_shape and record exclude each other"),
        ({"record": "patint"}, r"no column 'patint' \(record\): did you mean 'patient'"),
        ({"record": "patient", "static": ["agee"]}, r"no column 'agee' \(static\): did you mean 'age'"),
        ({"record": "patient", "static": ["day"]}, r"column 'day' cannot be a feature: it .* \(static\)"),
        (
            {"record": "patient", "static": ["age"], "columns": ["age"]},
            "column 'age' is named for two roles, static and columns",
        ),
        ({"record": "patient", "stride": 2}, "stride says how far windows lie apart: give their width too"),
        ({"record": "patient", "window": 0}, "window is a number of time steps, at least 1; got 0"),
        ({"record": "patient", "window": 2, "stride": -1}, "stride is a number of time steps, at least 1; got -1"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_table(sessions(), levels=["event"], **options)


def test_static_features_beside_a_series_in_every_row() -> None:
    table = pd.DataFrame({"series": [list(range(6))] * 4, "age": [1.0, 2.0, NAN, 4.0], "kind": list("abab")})
    data = read_table(table, columns=["series"], series_shape=(3, 2), static=["age"], levels=["kind"])
    assert isinstance(data.samples, SeriesSamples)
    assert data.samples.static is not None
    assert data.samples.static[:, 0].tolist()[:2] == [1, 2]
    assert data.samples.static[2].isnan()


# Arrays and samples


def test_arrays_with_static_features() -> None:
    series, static = np.zeros((4, 5, 2)), np.arange(8.0).reshape(4, 2)
    series[0, 0, 0], static[1, 1] = NAN, NAN
    data = read_arrays(series, [0, 1, 0, 1], static=static)
    assert "2 of 48 values are missing" in told(data)
    taken = data.samples.take(torch.tensor([1, 3]))
    assert taken["series"].shape == (2, 5, 2)
    assert taken["static"][1].tolist() == [6, 7]
    raw, names, identity = data[3]
    assert (raw["static"].tolist(), names, identity) == ([6, 7], {"label": "1"}, "3")
    none = read_arrays(series, [0, 1, 0, 1], static=np.zeros((4, 0)))
    assert isinstance(none.samples.take(torch.tensor([0])), torch.Tensor)
    static[0, 0] = np.inf
    with pytest.raises(UserError, match=r"row 0 \(from 0\) holds inf at static feature 0"):
        read_arrays(series, [0, 1, 0, 1], static=static)
    with pytest.raises(UserError, match="there are 4 series, but 3 rows of static features"):
        read_arrays(series, static=static[:3])
    with pytest.raises(UserError, match="static features belong to series"):
        read_arrays(np.zeros((4, 5)), static=static)
    with pytest.raises(UserError, match=r"static features are numbers of shape \(samples, features\); got float64"):
        read_arrays(series, static=static[:, 0])


def test_the_fingerprint_sees_static_features_and_copies_count_them() -> None:
    series, static = torch.zeros(4, 5, 2), torch.arange(8.0).view(4, 2)
    data = read_arrays(series, [0, 1, 0, 1], static=static)
    assert data.fingerprint() == read_arrays(series, [0, 1, 0, 1], static=static.clone()).fingerprint()
    assert data.fingerprint() != read_arrays(series, [0, 1, 0, 1], static=static + 1).fingerprint()
    assert data.fingerprint() != read_arrays(series, [0, 1, 0, 1]).fingerprint()
    part = data.select([2, 0])
    assert part.samples.take(torch.tensor([0]))["static"].tolist() == [[4, 5]]
    assert check(data).ok
    assert not check(data).problems  # equal series, but no two samples with equal static features
    assert check(read_arrays(series, [0, 1, 0, 1])).problems


def test_samples_of_a_wrong_form() -> None:
    with pytest.raises(UserError, match=r"series samples are float \(N, T, C\); got torch.float32 of shape \(4, 2\)"):
        SeriesSamples(torch.zeros(4, 2))
    with pytest.raises(UserError, match=r"one row for each of the 4 series; got torch.float32 of shape \(3, 2\)"):
        SeriesSamples(torch.zeros(4, 2, 1), torch.zeros(3, 2))
    assert SeriesSamples(torch.zeros(4, 2, 1), torch.zeros(4, 0)).static is None


def test_records_of_a_group_are_in_time_order() -> None:
    table = sessions({"late": 4, "other": 4, "soon": 4}).rename(columns={"patient": "visit"})
    table["patient"] = ["p"] * 4 + ["q"] * 4 + ["p"] * 4
    table["day"] = [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]
    data = read_table(table, record="visit", time="day", group="patient", levels=["event"], window=2)
    assert data.ids.tolist() == ["soon:0", "soon:2", "late:0", "late:2", "other:0", "other:2"]
    assert data.groups is not None
    assert data.groups.tolist() == ["p"] * 4 + ["q"] * 2
