"""Cached tables: computed once, whole or not at all."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from regrain.data import read
from regrain.data.cache import cache_folder, cached_tensor, features
from regrain.data.samples import TensorSamples
from regrain.errors import RegrainWarning, UserError


def blocks(values: np.ndarray, calls: list[int]) -> Iterator[np.ndarray]:
    calls.append(1)
    yield from np.array_split(values, 3)


def filled(rows: int) -> list[torch.Tensor]:
    return [torch.full((rows, 1), float(rows))]


def the_file() -> Path:
    (file,) = cache_folder().iterdir()
    return file


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_computed_once(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 2, 3)).astype(dtype)
    calls: list[int] = []
    for _ in range(2):
        table = cached_tensor("k", (7, 2, 3), lambda: blocks(values, calls), dtype=dtype)
        assert np.array_equal(table, values)
        assert table.dtype == getattr(torch, dtype)
    assert calls == [1]
    assert np.array_equal(np.load(the_file()), values)


def test_another_key_or_shape_is_another_table() -> None:
    tables = [cached_tensor(key, (rows, 1), partial(filled, rows)) for key, rows in (("a", 2), ("b", 2), ("a", 3))]
    assert [table.sum().item() for table in tables] == [4, 4, 9]
    assert len(list(cache_folder().iterdir())) == 3


def test_writing_to_the_table_does_not_change_the_file() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached_tensor("k", (2, 1), lambda: [torch.zeros(2, 1)]).add_(5)
        assert cached_tensor("k", (2, 1), lambda: []).tolist() == [[0], [0]]


@pytest.mark.parametrize("damage", ["short", "empty", "text", "other", "object"])
def test_a_damaged_file_is_computed_again(damage: str) -> None:
    values = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    calls: list[int] = []
    cached_tensor("k", (1000, 2), lambda: blocks(values, calls))
    file = the_file()
    whole = file.read_bytes()
    if damage in ("other", "object"):
        np.save(file, np.zeros((3, 2), np.float32) if damage == "other" else np.array([{}]), allow_pickle=True)
    else:
        file.write_bytes({"short": whole[:-100], "empty": b"", "text": b"hello"}[damage])
    with pytest.warns(RegrainWarning, match="is damaged .* computed again"):
        table = cached_tensor("k", (1000, 2), lambda: blocks(values, calls))
    assert np.array_equal(table, values)
    assert calls == [1, 1]


def test_a_run_that_dies_leaves_nothing() -> None:
    def dying() -> Iterator[torch.Tensor]:
        yield torch.zeros(1, 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_tensor("k", (2, 2), dying)
    assert list(cache_folder().iterdir()) == []


def test_wrong_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="hold 1 rows; expected 2"):
        cached_tensor("k", (2, 2), lambda: [torch.zeros(1, 2)])
    with pytest.raises(ValueError, match=r"rows of shape \(3,\); expected \(2,\)"):
        cached_tensor("k", (2, 2), lambda: [torch.zeros(2, 3)])
    with pytest.raises(ValueError, match="float32"):
        cached_tensor("k", (2, 2), lambda: [], dtype="int64")
    assert list(cache_folder().iterdir()) == []


def test_features_are_finite_and_of_the_type_they_were_computed_in() -> None:
    table = features("weights", 3, 2, lambda: [torch.ones(3, 2, dtype=torch.bfloat16)])
    assert table.dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        values = torch.tensor([[1.0, -3e-5], [300.1, 0.1]])
        for _ in range(2):  # computed, then from the file
            half = features("weights", 2, 2, lambda values=values: [values], dtype=dtype)
            assert half.dtype == dtype
            assert torch.equal(half, values.to(dtype))
        taken = TensorSamples(half, "vector").take(torch.tensor([1]))
        assert taken.dtype == torch.float32
        assert len(TensorSamples(half, "vector").digest()) == 32
    assert {file.stat().st_size for file in cache_folder().glob("*.npy")} == {128 + 24, 128 + 8}
    with pytest.raises(UserError, match="rows 0 to 0 are not all finite"):
        features("large", 1, 1, lambda: [torch.tensor([[1e39]])], dtype=torch.float16)
    with pytest.raises(UserError, match="rows 1 to 2 are not all finite"):
        features("others", 3, 1, lambda: [torch.zeros(1, 1), torch.tensor([[1.0], [torch.nan]])])


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written to .* REGRAIN_CACHE"):
        cached_tensor("k", (1, 1), lambda: [torch.zeros(1, 1)])


@pytest.mark.parametrize("home", ["/proc/nobody", "file"])
def test_a_home_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("REGRAIN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / home))
    with pytest.raises(UserError, match=r"cannot be written to .* variable REGRAIN_CACHE to a folder that can"):
        cached_tensor("k", (1, 1), lambda: [torch.zeros(1, 1)])


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: str(path))  # as where neither HOME nor a user is known
    monkeypatch.delenv("REGRAIN_CACHE")
    with pytest.raises(UserError, match=r"home folder is not known .* REGRAIN_CACHE"):
        cache_folder()
    with pytest.raises(UserError, match="no file, folder or data set '~nobody/photos'"):
        read("~nobody/photos")


def test_an_error_of_the_data_is_not_blamed_on_the_cache() -> None:
    def missing() -> Iterator[np.ndarray]:
        yield np.load("/nowhere/at/all.npy")

    with pytest.raises(FileNotFoundError):
        cached_tensor("k", (1, 1), missing)


def test_the_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"
    monkeypatch.delenv("REGRAIN_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "regrain"


def test_of_several_processes_one_computes_and_the_others_read() -> None:
    calls: list[int] = []
    first, second = threading.Event(), threading.Event()

    def computing() -> Iterator[torch.Tensor]:
        calls.append(1)
        (second if first.is_set() else first).set()
        second.wait(timeout=0.5)  # as long as nobody else computes
        yield torch.ones(2, 1)

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(cached_tensor, "k", (2, 1), computing)]
        assert first.wait(timeout=30)
        waiting.append(pool.submit(cached_tensor, "k", (2, 1), computing))
        assert [table.result().tolist() for table in waiting] == [[[1], [1]]] * 2
    assert calls == [1]
    assert the_file().suffix == ".npy"
