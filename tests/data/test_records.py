"""Tables with one row a time step: records, windows, labels of windows, static features; and series in arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from regrain.data import Dataset, SeriesSamples, TensorSamples, check, read
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
    data = read(shuffled, **READ, static=["age"], columns=["flow", "pressure"], window=3, stride=2)
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
    data = read(sessions({"p1": 7, "p2": 2}), **READ, static=["age"], window=3)
    assert "2 windows of 3 time steps, 3 apart, from 2 records" in told(data)
    assert "1 of 2 records are shorter than a window and were left out, such as 'p2' with 2" in told(data)
    assert "1 time steps at the ends of records fill no window" in told(data)
    mixed = read(sessions(), **READ, window=4, stride=1)
    assert "level 'event': 6 of 6 windows hold several classes and take that of their last labelled step" in told(mixed)
    assert "features: 3 columns of numbers, 'flow', 'pressure', 'age' (guessed)" in told(mixed)


def test_unknown_labels_inside_a_window() -> None:
    table = sessions({"p1": 4})
    table["event"] = [None, "no", None, None]
    data = read(table, **READ, window=2)
    assert data.labels.level("event").tolist() == [0, -1]


def test_whole_records_and_ragged_ones() -> None:
    data = read(sessions(), **READ, static=["age"])
    assert data.ids.tolist() == ["p1", "p2"]
    assert data.samples.shape == (6, 2)
    with pytest.raises(
        UserError,
        match=r"records differ in length: 'p2' \(from row 6\) has 4 time steps, 'p1' has 6.*\(--window 4; window=4\)",
    ):
        read(sessions({"p1": 6, "p2": 4}), **READ)
    with pytest.raises(UserError, match="no record is as long as a window of 9 time steps; the longest, 'p1', has 6"):
        read(sessions({"p1": 6, "p2": 4}), **READ, window=9)


def test_time_may_be_numbers_and_must_be_readable(tmp_path: Path) -> None:
    table = sessions({"p1": 4})
    table["day"] = [10, 9, 2, 1]
    data = read(table, **READ, columns=["flow"])
    assert series_of(data).flatten().tolist() == [3, 2, 1, 0]
    file = tmp_path / "sessions.csv"
    table["day"] = ["2024-01-02", "2024-01-01", "yesterday", "2024-01-03"]
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=r"line 4 holds 'yesterday' in the time column 'day'.*such as 2024-01-31"):
        read(file, **READ)
    table["day"] = ["2024-01-02", "", "2024-01-01", "2024-01-03"]
    table["patient"] = ["p1", "p1", "p1", None]
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match="line 3 has no time in column 'day'; line 5 has no record in column 'patient'"):
        read(file, **READ)
    kept = read(file, **READ, columns=["flow"], skip_unreadable=True)
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
        read(file, **READ, static=["age"])
    table["age"] = [NAN, 50, NAN, NAN, 50, NAN] + [NAN] * 6
    table["age"] = table["age"].astype(object)
    table.to_csv(file, index=False)
    samples = read(file, **READ, static=["age"]).samples
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
    data = read(file, **READ, columns=["flow"], window=3)
    assert series_of(data).isnan().sum() == 2
    assert "2 of 12 values are missing" in told(data)
    table.loc[7, "flow"] = "high"
    table.loc[8, "pressure"] = np.inf
    table.to_csv(file, index=False)
    with pytest.raises(UserError, match=r"line 9 \(in sample p2:0\) holds 'high' in column 'flow', which is not a"):
        read(file, **READ, columns=["flow"], window=2)
    both: dict[str, Any] = {"columns": ["flow", "pressure"], "window": 2}
    report = check(file, **READ, static=["age"], **both)
    assert not report.ok
    assert report.render()[0] == "sessions: 6 series samples (2 x 2, 1 static feature)"
    assert [row for issue in report.issues for row in issue.rows][:2] == [
        "line 9 (in sample p2:0) holds 'high' in column 'flow', which is not a number",
        "line 10 (in sample p2:2) holds 'inf' in column 'pressure', which is not a finite number",
    ]
    kept = read(file, **READ, **both, skip_unreadable=True)
    assert kept.ids.tolist() == ["p1:0", "p1:2", "p1:4", "p2:4"]


def test_splits_and_groups_belong_to_records(tmp_path: Path) -> None:
    table = sessions().assign(ward=["a"] * 6 + ["b"] * 6, split=["train"] * 6 + ["test"] * 6)
    data = read(table, **READ, group_column="ward", window=3)
    assert data.split_names == ("train", "test")
    assert data.groups is not None
    assert data.groups.tolist() == ["a", "a", "b", "b"]
    table.loc[2, "split"] = "test"
    with pytest.raises(UserError, match=r"column 'split' \(split\) must not change within a record, but record 'p1'"):
        read(table, **READ, window=3)
    for part, name in (("train", "p1"), ("test", "p2")):
        own = sessions()
        own[own["patient"] == name].assign(patient="1").to_parquet(tmp_path / f"{part}.parquet")
    files = read(tmp_path, **READ, window=3)
    assert files.ids.tolist() == ["train/1:0", "train/1:3", "test/1:0", "test/1:3"]
    assert files.split_names == ("train", "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "window is about tables with one row a time step: name the column.*--record"),
        ({"static": ["age"]}, "static features stand beside series"),
        ({"record": "patient", "id_column": "day"}, "id_column and record exclude each other: ids are record:start"),
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
        read(sessions(), levels=["event"], **options)


def test_static_features_beside_a_series_in_every_row() -> None:
    table = pd.DataFrame({"series": [list(range(6))] * 4, "age": [1.0, 2.0, NAN, 4.0], "kind": list("abab")})
    data = read(table, columns=["series"], series_shape=(3, 2), static=["age"], levels=["kind"])
    assert isinstance(data.samples, SeriesSamples)
    assert data.samples.static is not None
    assert data.samples.static[:, 0].tolist()[:2] == [1, 2]
    assert data.samples.static[2].isnan()


# Arrays and samples


def test_arrays_with_static_features() -> None:
    series, static = np.zeros((4, 5, 2)), np.arange(8.0).reshape(4, 2)
    series[0, 0, 0], static[1, 1] = NAN, NAN
    data = read(series, labels=[0, 1, 0, 1], static=static)
    assert "2 of 48 values are missing" in told(data)
    taken = data.samples.take(torch.tensor([1, 3]))
    assert taken["series"].shape == (2, 5, 2)
    assert taken["static"][1].tolist() == [6, 7]
    raw, names, identity = data[3]
    assert (raw["static"].tolist(), names, identity) == ([6, 7], {"label": "1"}, "3")
    none = read(series, labels=[0, 1, 0, 1], static=np.zeros((4, 0)))
    assert isinstance(none.samples.take(torch.tensor([0])), torch.Tensor)
    static[0, 0] = np.inf
    with pytest.raises(UserError, match=r"row 0 \(from 0\) holds inf at static feature 0"):
        read(series, labels=[0, 1, 0, 1], static=static)
    with pytest.raises(UserError, match="there are 4 series, but 3 rows of static features"):
        read(series, static=static[:3])
    with pytest.raises(UserError, match="static features belong to series"):
        read(np.zeros((4, 5)), static=static)
    with pytest.raises(UserError, match=r"static features are numbers of shape \(samples, features\); got float64"):
        read(series, static=static[:, 0])


def test_the_fingerprint_sees_static_features_and_copies_count_them() -> None:
    series, static = torch.zeros(4, 5, 2), torch.arange(8.0).view(4, 2)
    data = read(series, labels=[0, 1, 0, 1], static=static)
    assert data.fingerprint() == read(series, labels=[0, 1, 0, 1], static=static.clone()).fingerprint()
    assert data.fingerprint() != read(series, labels=[0, 1, 0, 1], static=static + 1).fingerprint()
    assert data.fingerprint() != read(series, labels=[0, 1, 0, 1]).fingerprint()
    part = data.select([2, 0])
    assert part.samples.take(torch.tensor([0]))["static"].tolist() == [[4, 5]]
    assert check(data).ok
    assert not check(data).issues  # equal series, but no two samples with equal static features
    assert check(read(series, labels=[0, 1, 0, 1])).issues


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
    data = read(table, record="visit", time="day", group_column="patient", levels=["event"], window=2)
    assert data.ids.tolist() == ["soon:0", "soon:2", "late:0", "late:2", "other:0", "other:2"]
    assert data.groups is not None
    assert data.groups.tolist() == ["p"] * 4 + ["q"] * 2


# Clocks


def recordings(restart: bool = True, subjects: int = 2, takes: int = 3, length: int = 40) -> pd.DataFrame:
    """Subjects with several takes each; ``x`` says which take a step belongs to; the clock may restart in each."""
    rows = [
        {
            "subject": f"s{subject}",
            "take": take + takes * subject,
            "time": (0 if restart else take * length) + step,
            "x": float(take),
            "kind": "walk" if take else "rest",
        }
        for subject in range(subjects)
        for take in range(takes)
        for step in range(length)
    ]
    return pd.DataFrame(rows)


CLOCK: dict[str, Any] = {"record": "subject", "time": "time", "levels": ["kind"], "columns": ["x"], "window": 8}


def test_recordings_whose_clock_restarts_are_never_mixed() -> None:
    table = recordings()
    with pytest.raises(
        UserError, match=r"2 of 2 records would mix several recordings.*--record take --group-column subject"
    ):
        read(table, **CLOCK)
    apart = read(table, **{**CLOCK, "record": "take"}, group_column="subject")
    assert (series_of(apart).std(dim=1) == 0).all()
    assert set(apart.groups.tolist()) == {"s0", "s1"}
    whole = read(recordings(restart=False), **CLOCK)
    assert len(whole) == len(apart) == 30


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_clocks_that_restart_without_a_repeated_time(jitter: float) -> None:
    table = recordings()
    table["time"] = table["time"] + np.random.default_rng(0).uniform(0, jitter, len(table))
    with pytest.raises(UserError, match="would mix several recordings"):
        read(table, **CLOCK)


def test_a_joined_column_is_advised_where_takes_are_counted_per_subject() -> None:
    table = recordings()
    table["take"] %= 3
    with pytest.raises(UserError, match="within 'subject' and 'take' together no time repeats: write a column"):
        read(table, **CLOCK)
    with pytest.raises(UserError, match="give every recording a record of its own, or sort the table by time"):
        read(table.drop(columns="take"), **CLOCK)


def test_one_torn_record_is_listed_and_may_be_left_out() -> None:
    table = pd.concat([recordings(restart=False, subjects=2), recordings(subjects=1).assign(subject="s9")])
    found = check(table, **CLOCK)
    (issue,) = [p for p in found.issues if p.kind == "overlapping times"]
    assert issue.severity == "error"
    assert issue.rows[0].startswith("record 's9' goes back in time at row 40, into times that it has passed")
    with pytest.raises(UserError, match="record 's9'"):
        read(table, **CLOCK)
    kept = read(table, **CLOCK, skip_unreadable=True)
    assert set(kept.groups.tolist()) == {"s0", "s1"}


def test_rows_in_any_order_and_parts_in_any_order_are_sorted() -> None:
    table = recordings(restart=False)
    ordered = read(table, **CLOCK)
    shuffled = read(table.sample(frac=1, random_state=1), **CLOCK)
    parts = read(table.sort_values(["subject", "take", "time"], ascending=[True, False, True]), **CLOCK)
    by_id = dict(zip(shuffled.ids, series_of(shuffled), strict=True))
    assert all(torch.equal(by_id[i], s) for i, s in zip(ordered.ids, series_of(ordered), strict=True))
    assert torch.equal(series_of(parts), series_of(ordered))


def clock_of_hours(hours: list[float]) -> list[str]:
    return [str(pd.Timestamp("2024-01-01") + pd.Timedelta(hours=hour)) for hour in hours]


@pytest.mark.parametrize("form", ["numbers", "texts", "dates", "stamps"])
def test_no_window_crosses_missing_rows(form: str) -> None:
    steps = [float(step) for step in range(40) if step not in (13, 25, 26)]
    times: Any = {
        "numbers": steps,
        "texts": [f"{step:g}" for step in steps],
        "dates": clock_of_hours(steps),
        "stamps": pd.to_datetime(clock_of_hours(steps)),
    }[form]
    table = pd.DataFrame({"who": "a", "time": times, "x": steps, "kind": "k"})
    asked: dict[str, Any] = {"record": "who", "time": "time", "columns": ["x"], "levels": ["kind"], "window": 4}
    data = read(table, **asked, stride=1)
    assert (series_of(data).diff(dim=1) == 1).all()
    assert len(data) == 10 + 8 + 10
    assert "2 steps of time are far longer than the usual" in told(data)
    assert "no window is cut across them" in told(data)
    (issue,) = [p for p in check(table, **asked).issues if p.kind == "time"]
    assert issue.severity == "warning"
    crossing = read(table, **asked, stride=1, gap=float("inf"))
    assert len(crossing) == 37 - 3
    unit = 1 if form in ("numbers", "texts") else 3600
    assert len(read(table, **asked, stride=1, gap=2 * unit)) == 21 + 10


def test_pauses_of_an_irregular_clock_are_told_and_cut_only_when_asked() -> None:
    days = np.cumsum([1, 3, 2, 5, 1, 4, 2, 3, 90, 1, 2, 4, 3, 1, 5])
    table = pd.DataFrame({"who": "a", "time": days, "x": days, "kind": "k"})
    asked: dict[str, Any] = {"record": "who", "time": "time", "columns": ["x"], "levels": ["kind"], "window": 3}
    data = read(table, **asked)
    assert len(data) == 5
    assert "1 step of time is far longer than the usual 3 (the longest, 90 before row 8)" in told(data)
    assert "--gap sets the longest step within one" in told(data)
    assert (series_of(read(table, **asked, gap=10)).diff(dim=1) < 10).all()


def test_steps_of_one_time_in_order_are_told() -> None:
    table = sessions({"p1": 6})
    table.loc[3, "day"] = table.loc[2, "day"]
    data = read(table, **READ, window=2)
    assert "1 row has the time of the row before it in its record, such as that after row 2" in told(data)
    assert check(table, **READ, window=2).issues[0].kind == "time"


def test_a_gap_needs_a_time_and_is_above_zero() -> None:
    with pytest.raises(UserError, match="gap is about steps of time: name the column of times"):
        read(sessions(), record="patient", levels=["event"], window=2, gap=3)
    with pytest.raises(UserError, match="above 0; got -1"):
        read(sessions(), **READ, window=2, gap=-1)


# Labels of windows


def test_the_classes_of_a_window_are_those_of_a_row() -> None:
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 6, size=400)
    table = pd.DataFrame({"who": "a", "x": np.arange(400.0), "sub": [f"f{code}" for code in fine]})
    table["kind"] = [None if rng.random() < 0.5 else f"c{code // 2}" for code in fine]
    table.loc[rng.random(400) < 0.4, "sub"] = None
    asked: dict[str, Any] = {"record": "who", "columns": ["x"], "levels": ["kind", "sub"], "window": 5}
    data = read(table, **asked)
    kinds, subs = data.labels.level("kind").tolist(), data.labels.level("sub").tolist()
    names = data.labels.names("sub")
    assert all(kind == int(names[sub][1:]) // 2 for kind, sub in zip(kinds, subs, strict=True) if sub >= 0)
    assert not [p for p in check(table, **asked).issues if p.severity == "error"]


def test_a_mixed_window_takes_its_last_labelled_step() -> None:
    table = pd.DataFrame({"who": "a", "x": range(4), "kind": ["a", "a", "b", None]})
    data = read(table, record="who", columns=["x"], levels=["kind"], window=4)
    assert data.labels.names("kind")[data.labels.level("kind")[0]] == "b"


@pytest.mark.parametrize("relation", ["tree", "paths", "aspects"])
def test_windows_of_every_relation(relation: Any) -> None:
    table = pd.DataFrame({"who": "a", "x": range(4), "kind": ["a", "a", "b", "b"], "sub": ["a1", "a2", None, None]})
    asked: dict[str, Any] = {"record": "who", "columns": ["x"], "levels": ["kind", "sub"], "window": 4}
    data = read(table, **asked, relation=relation)
    found = {level: data.labels.names(level)[code] if code >= 0 else None
             for level, code in zip(data.labels.levels, data.labels.codes[0].tolist(), strict=True)}  # fmt: skip
    assert found == {"kind": "b", "sub": "a2" if relation == "aspects" else None}


def test_paths_of_windows_go_as_deep_as_they_agree() -> None:
    table = pd.DataFrame({"who": "a", "x": range(4), "path": ["dog/pug", "dog/beagle", "dog", "dog/pug"]})
    data = read(table, record="who", columns=["x"], levels=["path"], label_paths=True, window=4)
    assert [names[code] for names, code in zip(data.labels.classes, data.labels.codes[0], strict=True)] == [
        "dog",
        "dog/pug",
    ]
