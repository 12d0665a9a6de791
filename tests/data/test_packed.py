"""Rows without a Python object each, and selections that copy no samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support import raises

from regrain.data import read
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.labels import Labels


def _data(count: int = 12) -> Dataset:
    labels = Labels.from_codes(torch.arange(count) % 3)
    return Dataset(
        TensorSamples(torch.arange(4.0 * count).view(count, 4), "vector"),
        labels,
        np.array([f"sample {i}" for i in range(count)]),
        splits=np.array(["train", "test"] * (count // 2)),
    )


def test_ids_splits_and_groups_are_packed() -> None:
    data = replace(_data(), groups=["a long name of a group"] * 12)
    for texts in (data.ids, data.splits, data.groups):
        assert texts.dtype == np.dtypes.StringDType()
    assert data.split("test").ids.tolist() == [f"sample {i}" for i in range(1, 12, 2)]
    with raises("unknown_split", "no split"):
        data.split("tset")


def test_a_selection_copies_no_samples_and_keeps_the_keys() -> None:
    data = _data()
    part = data.split("train").select([4, 1]).with_levels(["label"])
    assert part.samples.stored.data_ptr() == data.samples.stored.data_ptr()  # type: ignore[attr-defined]
    assert part.ids.tolist() == ["sample 8", "sample 2"]
    assert torch.equal(part.keys, data.keys[[8, 2]])
    copy = Dataset(TensorSamples(data.samples.take(torch.tensor([8, 2])), "vector"), part.labels, part.ids.tolist())
    assert torch.equal(copy.keys, part.keys)
    assert copy.fingerprint() == part.fingerprint()
    assert torch.equal(part.samples.tensor, copy.samples.tensor)  # type: ignore[attr-defined]


def test_other_ids_have_other_keys() -> None:
    data = _data()
    before = data.keys
    assert not torch.equal(replace(data, ids=data.ids[::-1].copy()).keys, before)


def test_a_name_that_utf8_cannot_hold_is_kept() -> None:
    data = Dataset(TensorSamples(torch.zeros(2, 1), "vector"), Labels.empty(2), ["a", "\udce9"])
    assert data.ids.tolist() == ["a", "\udce9"]
    assert len(set(data.keys.tolist())) == 2


def test_a_large_column_of_different_texts_reads_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 60
    table = pd.DataFrame(
        {
            "id": [f" id-{i} " for i in range(count)],
            "note": [None if i % 7 == 0 else f"free text {i}" for i in range(count)],
            "kind": [f"k{i % 3}" for i in range(count)],
            "a": np.arange(count) / 7,
            "b": np.arange(count),
        }
    )
    table.to_parquet(tmp_path / "t.parquet", index=False)
    small = read(tmp_path / "t.parquet", columns=["a", "b"])
    monkeypatch.setattr("regrain.data.parquet._MANY", 10)
    monkeypatch.setattr("regrain.data.parquet._KEPT_BYTES", 0)
    large = read(tmp_path / "t.parquet", columns=["a", "b"])
    assert large.fingerprint() == small.fingerprint()
    assert large.labels.fingerprint() == small.labels.fingerprint()
    assert large.notes == small.notes
    assert large.ids.tolist() == [f"id-{i}" for i in range(count)]
    texts = read(tmp_path / "t.parquet", text="note", skip_unreadable=True)
    assert len(texts) == count - len(range(0, count, 7))
