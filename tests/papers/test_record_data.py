"""Catalogue entries of records and reviews: hapt, tripadvisor, and the synthetic dialysis-like records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import as_listed

from regrain.data import Dataset, SeriesSamples, check
from regrain.data import read as load
from regrain.errors import UserError
from regrain.papers.datasets import dialysis_records, entries

pytestmark = pytest.mark.usefixtures("own_cache")

ASPECTS = ("overall", "cleanliness", "value", "location", "rooms", "sleep_quality")
ACTIVITIES = {"dynamic": ["WALKING"], "static": ["LAYING", "SITTING"], "transition": ["SIT_TO_LIE"]}


def write_hapt(folder: Path, rows: int = 8) -> np.ndarray:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pairs = [(coarse, fine) for coarse, names in ACTIVITIES.items() for fine in names]
    values = {split: random.normal(size=(rows, 768)).astype(np.float32) for split in ("train", "test")}
    for split, subject in (("train", "01"), ("test", "02")):
        chosen = [pairs[row % len(pairs)] for row in range(rows)]
        table = {
            "series": pa.FixedSizeListArray.from_arrays(pa.array(values[split].ravel()), 768),
            "subject": [subject] * rows,
            "experiment": pa.array([1] * rows, pa.int32()),
            "start": pa.array([64 * row for row in range(rows)], pa.int32()),
            "label_fraction": pa.array([1.0] * rows, pa.float32()),
            "coarse": [coarse for coarse, _ in chosen],
            "fine": [fine for _, fine in chosen],
        }
        pq.write_table(pa.table(table), folder / f"{split}.parquet")
    return values["test"]


def write_tripadvisor(folder: Path, rows: int = 6) -> None:
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        table: dict[str, list[object]] = {
            "text": [f"{split} stay {row}" for row in range(rows)],
            "title": ["title"] * rows,
        }
        for place, aspect in enumerate(ASPECTS):
            sentiments = [("negative", "neutral", "positive")[(row + place) % 3] for row in range(rows)]
            table |= {aspect: [3] * rows, f"{aspect}_sentiment": list(sentiments)}
        pq.write_table(pa.table(table), folder / f"{split}.parquet")


@pytest.mark.parametrize("inside", [False, True])
def test_hapt(tmp_path: Path, inside: bool) -> None:
    values = write_hapt(tmp_path / "hapt")
    data = load("hapt", root=tmp_path / "hapt" if inside else tmp_path)
    assert data.modality == "series"
    assert data.samples.shape == (128, 6)
    assert data.labels.levels == ("coarse", "fine")
    test = data.split("test")
    assert test.groups is not None
    assert set(test.groups.tolist()) == {"02"}
    assert np.array_equal(test.samples.take(np.arange(8)).numpy(), values.reshape(8, 128, 6))
    assert "any commercial use is prohibited" in data.notes["licence"]


# HAPT as UCI distributes it


def write_recordings(folder: Path, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Recordings whose values tell recording, step and channel."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (recording, length) in enumerate(lengths.items()):
        steps = 10_000 * number + np.arange(length)[:, None] + np.arange(6) / 8  # (T, 6)
        for kind, axes in (("acc", steps[:, :3]), ("gyro", steps[:, 3:])):
            np.savetxt(folder / f"{kind}_{recording}.txt", axes, fmt="%.3f")
        found[recording] = steps.astype(np.float32)
    return found


SEGMENTS = """1 1 5 11 202
1 1 7 203 302
1 1 4 303 500
2 2 1 1 128
2 2 9 129 150
"""


@pytest.mark.parametrize("place", [".", "RawData", "HAPT Data Set/RawData"])
def test_hapt_is_cut_within_segments(tmp_path: Path, place: str) -> None:
    signals = write_recordings(tmp_path / place, {"exp01_user01": 520, "exp02_user02": 150})
    (tmp_path / place / "labels.txt").write_text(SEGMENTS)
    data = load("hapt", root=tmp_path)
    starts = {  # of the window in its recording
        "01:10:0": ("exp01_user01", 10, "static", "STANDING"),
        "01:10:64": ("exp01_user01", 74, "static", "STANDING"),
        "01:202:0": ("exp01_user01", 188, "transition", "STAND_TO_SIT"),  # 100 steps, 14 more on either side
        "01:302:0": ("exp01_user01", 302, "static", "SITTING"),
        "01:302:64": ("exp01_user01", 366, "static", "SITTING"),
        "02:0:0": ("exp02_user02", 0, "dynamic", "WALKING"),
        "02:128:0": ("exp02_user02", 22, "transition", "SIT_TO_LIE"),  # the recording ends here
    }
    assert data.ids.tolist() == list(starts)
    values = data.samples.take(np.arange(len(data))).numpy()
    for row, (recording, start, coarse, fine) in enumerate(starts.values()):
        assert np.array_equal(values[row], signals[recording][start : start + 128])
        assert data[row][1] == {"coarse": coarse, "fine": fine}
    assert data.groups is not None
    assert data.groups.tolist() == ["01"] * 5 + ["02"] * 2
    assert (len(data.split("train")), len(data.split("test"))) == (5, 2)
    assert any("7 windows of 128 time steps, 64 apart" in message for message in data.notes["messages"])


def test_damaged_recordings_are_named(tmp_path: Path) -> None:
    write_recordings(tmp_path, {"exp01_user01": 200})

    def refused(labels: str, message: str) -> None:
        (tmp_path / "labels.txt").write_text(labels)
        with pytest.raises(UserError, match=message):
            load("hapt", root=tmp_path)

    refused("1 1 5 1 200\n\n1 1 13 1 2\n", r"labels\.txt, line 3 holds '1 1 13 1 2'; expected experiment, subject")
    refused("1 1 5 9 8\n", "line 1 holds")
    refused("1 1 5 1\n", "line 1 holds")
    refused("", "holds no records")
    refused("1 1 5 1 201\n", "labels exp01_user01 up to step 201 of 200")
    refused("2 1 5 1 200\n", r"acc_exp02_user01\.txt is missing: the data set is not complete")
    (tmp_path / "gyro_exp01_user01.txt").write_text("1 2 3\n")
    refused("1 1 5 1 200\n", r"acc_exp01_user01\.txt has 200 steps, and gyro_exp01_user01\.txt has 1")
    (tmp_path / "acc_exp01_user01.txt").write_text("1 2\n")
    refused("1 1 5 1 200\n", r"acc_exp01_user01\.txt has 2 numbers in a line; expected three")
    (tmp_path / "acc_exp01_user01.txt").write_text("1 2 x\n")
    refused("1 1 5 1 200\n", r"acc_exp01_user01\.txt cannot be read as a signal")
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(UserError, match=r"labels\.txt is missing"):
        load("hapt", root=tmp_path)


# TripAdvisor


def test_tripadvisor(tmp_path: Path) -> None:
    write_tripadvisor(tmp_path / "tripadvisor")
    data = load("tripadvisor", root=tmp_path)
    assert data.modality == "text"
    assert data.labels.levels == tuple(f"{aspect}_sentiment" for aspect in ASPECTS)
    assert set(data.labels.counts.values()) == {3}
    assert load("tripadvisor", root=tmp_path, levels=["rooms_sentiment"]).labels.levels == ("rooms_sentiment",)
    assert entries()["tripadvisor"].relation == "aspects"


def test_what_is_said_when_they_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hapt was not found(.|\n)*hapt/train\.parquet(.|\n)*--root DIR"):
        load("hapt", root=tmp_path)


@pytest.mark.parametrize("name", ["hapt", "tripadvisor"])
def test_the_real_ones_are_what_the_catalogue_says(shared: Path, name: str) -> None:
    data = as_listed(name, shared)
    if name == "hapt":
        assert data.groups is not None
        of = {part: set(data.split(part).groups) for part in data.split_names}  # type: ignore[arg-type]
        assert (len(of["train"]), len(of["test"]), of["train"] & of["test"]) == (21, 9, set())


# The generator


def series(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    assert isinstance(data.samples, SeriesSamples)
    assert data.samples.static is not None
    return data.samples.series.numpy(), data.samples.static.numpy()


def test_the_generated_entry_is_what_the_catalogue_says() -> None:
    entry = entries()["dialysis"]
    data = load("dialysis")
    assert data.labels.counts == entry.levels
    assert data.splits is not None
    assert Counter(data.splits) == entry.samples
    assert check("dialysis").ok
    for words in (entry.description, " ".join(data.notes["messages"]), str(dialysis_records.__doc__)):
        assert "synthetic" in words.lower()
    share = data.labels.level("event").bincount().numpy() / len(data)
    assert 0.25 < share[data.labels.names("event").index("event")] < 0.4


def test_generated_records_have_the_form_that_is_stated() -> None:
    data = dialysis_records(subjects=10, sessions=20, window=4, stride=2, seed=3)
    values, static = series(data)
    assert (values.shape[1:], static.shape[1]) == ((4, 40), 28)
    assert len(data) == 10 * 8
    assert data.groups is not None
    assert data.splits is not None
    for subject in set(data.groups.tolist()):
        rows = np.flatnonzero(data.groups == subject)
        assert np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
        assert [int(i.split(":")[1]) for i in data.ids[rows]] == list(range(0, 16, 2))  # in time order
        assert len(set(data.splits[rows])) == 1
        assert all(np.array_equal(static[row], static[rows[0]], equal_nan=True) for row in rows)
        assert np.array_equal(values[rows[0], 2:], values[rows[1], :2], equal_nan=True)  # windows overlap
    assert 0.03 < np.isnan(values).mean() < 0.25
    taxonomy = data.labels.taxonomy
    assert taxonomy is not None
    assert taxonomy.is_tree


def test_generation_is_seeded() -> None:
    one, same, other = (dialysis_records(subjects=4, sessions=12, seed=seed) for seed in (1, 1, 2))
    assert one.fingerprint() == same.fingerprint()
    assert one.fingerprint() != other.fingerprint()
    whole, _ = series(dialysis_records(subjects=4, sessions=12, missing=0))
    assert np.isfinite(whole).all()
    with pytest.raises(UserError, match="more sessions than a window; got 4 subjects, 5 sessions, window 5"):
        dialysis_records(subjects=4, sessions=5)
    with pytest.raises(UserError, match=r"missing lies in \[0, 1\)"):
        dialysis_records(missing=1.0)
