"""Shards: what was written is what is read, in memory, window by window, and from an object store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import raises, weights

import regrain
from regrain.data import read, shards
from regrain.data.dataset import Dataset
from regrain.data.samples import Samples, TensorSamples
from regrain.data.shards import Format, LanceSamples, ShardSamples, write_shards
from regrain.training.loader import Loader


def _table(count: int = 90) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    kind = np.arange(count) % 6
    table = pd.DataFrame({f"x{i}": generator.normal(size=count).astype(np.float32) + kind // 2 for i in range(4)})
    table["id"] = [f"s{i}" for i in range(count)]
    table["kind"], table["sub"] = [f"k{c // 2}" for c in kind], [None if c == 5 else f"s{c}" for c in kind]
    table["split"] = np.where(np.arange(count) % 5 == 4, "test", "train")
    table["group"] = [f"g{i // 3}" for i in range(count)]
    return table


def _same(one: Samples, other: Samples) -> bool:
    every = torch.arange(len(one))
    first, second = one.take(every), other.take(every)
    if isinstance(first, dict):
        return all(torch.equal(first[name].nan_to_num(7), second[name].nan_to_num(7)) for name in first)
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


@pytest.fixture
def beyond_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LOADED_BYTES", 0)
    monkeypatch.setattr("regrain.data.images._MEMORY_LIMIT", 0)


def _data(kind: str) -> Dataset:
    if kind == "vectors":
        return read(_table(), levels=["kind", "sub"], split_column="split", group_column="group", columns=["x*"])
    if kind == "texts":
        table = _table().assign(text=[f"a text, number {i} ü" for i in range(90)])
        return read(table.drop(columns="group"), levels=["kind", "sub"], text="text")
    if kind == "images":
        return read("alphabets")
    series = np.random.default_rng(0).normal(size=(40, 5, 3)).astype(np.float32)
    series[3, 2, 1] = np.nan
    return read(series, labels=["a", "b"] * 20, static=np.eye(40, 2), groups=[f"g{i // 2}" for i in range(40)])


def _needs(format: Format) -> None:
    if format == "lance":
        pytest.importorskip("lance", reason="needs Lance: pip install 'regrain[lance]'")


@pytest.mark.parametrize("format", ["parquet", "lance"])
@pytest.mark.parametrize("kind", ["vectors", "texts", "images", "series"])
@pytest.mark.parametrize("held", [True, False])
def test_what_is_read_is_what_was_written(
    kind: str, held: bool, format: Format, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    _needs(format)
    data = _data(kind)
    write_shards(data, tmp_path / "shards", format=format, shard_rows=17, window=5)
    if not held:
        request.getfixturevalue("beyond_memory")
    found = read(tmp_path / "shards")
    assert isinstance(found.samples, ShardSamples) != held
    assert found.split_names == data.split_names
    assert found.modality == data.modality
    assert found.samples.shape == data.samples.shape
    for name, part in data.by_split().items():
        own = found.by_split()[name]
        mixed = not held and format == "parquet" and part.groups is None
        assert mixed == (own.ids.tolist() != part.ids.tolist())
        if mixed:
            own = own.select([own.ids.tolist().index(sample) for sample in part.ids.tolist()])
        assert own.ids.tolist() == part.ids.tolist()
        assert torch.equal(own.keys, part.keys)
        assert torch.equal(own.labels.codes, part.labels.codes)
        assert own.labels.classes == part.labels.classes
        assert (own.groups is None) == (part.groups is None)
        assert own.groups is None or own.groups.tolist() == part.groups.tolist()
        assert _same(own.samples, part.samples)
        few = torch.tensor([7, 3, 11, 3])
        assert _same(own.samples.select(few), part.samples.select(few))
        if held:
            assert own.fingerprint() == part.fingerprint()


def test_a_batch_holds_all_classes_of_data_that_come_class_by_class(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kinds = [f"k{i // 100:02d}" for i in range(2000)]
    data = read(np.arange(2000, dtype=np.float32)[:, None], labels=kinds)
    write_shards(data, tmp_path / "shards", shard_rows=500, window=10)
    held = read(tmp_path / "shards")
    assert held.fingerprint() == data.fingerprint()
    request.getfixturevalue("beyond_memory")
    lazy = read(tmp_path / "shards")
    batches = [lazy.labels.codes[rows, 0].unique() for rows in Loader(lazy, batch_size=100, seed=0).plan(0)]
    assert min(map(len, batches)) > 15  # of 20; 16 windows in the data's own order would hold two
    write_shards(lazy, tmp_path / "again")  # shards of shards: in the order in which they are read fast
    assert read(tmp_path / "again").ids.tolist() == lazy.ids.tolist()


@pytest.mark.usefixtures("beyond_memory")
def test_the_order_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    write_shards(_data("vectors"), tmp_path / "shards", shard_rows=17, window=5)
    train = read(tmp_path / "shards").split("train")
    one = Loader(train, batch_size=20, seed=3).plan(2)
    assert sorted(torch.cat(one).tolist()) == list(range(len(train)))
    assert not torch.equal(torch.cat(one), torch.cat(Loader(train, batch_size=20, seed=3).plan(1)))
    for count in (2, 4):
        shares = [Loader(train, batch_size=20, seed=3, rank=r, world_size=count).plan(2) for r in range(count)]
        assert all(
            torch.equal(torch.cat(parts), whole) for parts, whole in zip(zip(*shares, strict=True), one, strict=True)
        )


def test_training_beyond_memory_is_training_in_memory_with_the_same_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    write_shards(_data("vectors"), tmp_path / "shards", shard_rows=17, window=5)
    held = read(tmp_path / "shards")
    request.getfixturevalue("beyond_memory")
    lazy = read(tmp_path / "shards")
    assert isinstance(lazy.samples, ShardSamples)
    windows = dict(zip(lazy.keys.tolist(), lazy.samples.windows.tolist(), strict=True))
    given: dict[str, Any] = {"encoder": "mlp", "device": "cpu", "settings": {"epochs": 2, "batch_size": 16}}
    one = regrain.fit("mixed", tmp_path / "shards", out=tmp_path / "lazy", **given)
    train = held.split("train")
    place = torch.tensor([windows[key] for key in train.keys.tolist()])
    monkeypatch.setattr(TensorSamples, "windows", property(lambda self: place), raising=False)
    other = regrain.fit("mixed", held, out=tmp_path / "held", **given)
    for name, expected in weights(other).items():
        assert torch.equal(weights(one)[name], expected), name
    assert [row["loss"] for row in one.folder.read_metrics()] == [row["loss"] for row in other.folder.read_metrics()]


@pytest.mark.parametrize("kind", ["vectors", "texts", "series"])
def test_training_row_by_row_is_training_in_memory(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _needs("lance")
    data = _data(kind)
    regrain.convert(data, tmp_path / "shards", format="lance")
    request.getfixturevalue("beyond_memory")
    lazy = read(tmp_path / "shards")
    assert isinstance(lazy.samples, LanceSamples)
    given: dict[str, Any] = {"device": "cpu", "settings": {"epochs": 2, "batch_size": 16}}
    given["encoder"] = {"vectors": "mlp", "texts": "hash-text", "series": "dccn"}[kind]
    one = regrain.fit("mixed", lazy, out=tmp_path / "lazy", **given)
    other = regrain.fit("mixed", data, out=tmp_path / "held", **given)
    for name, expected in weights(other).items():
        assert torch.equal(weights(one)[name], expected), name
    assert [row["loss"] for row in one.folder.read_metrics()] == [row["loss"] for row in other.folder.read_metrics()]


@pytest.mark.usefixtures("beyond_memory")
def test_workers_read_row_by_row_in_the_order_of_memory(tmp_path: Path) -> None:
    _needs("lance")
    data = _data("images").split("train")
    held = [(raw.clone(), ids) for raw, _, ids in Loader(data, batch_size=64, seed=1)]
    write_shards(_data("images"), tmp_path / "shards", format="lance")
    lazy = read(tmp_path / "shards").split("train")
    lazy.samples.take(torch.tensor([0]))  # a process that has read; those forked from it would hang
    found = list(Loader(lazy, batch_size=64, seed=1, workers=2))
    assert len(found) == len(held) > 2
    for (raw, _, ids), (expected, keys) in zip(found, held, strict=True):
        assert torch.equal(raw, expected)
        assert torch.equal(ids, keys)


def test_what_lance_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _needs("lance")
    with raises("invalid_input", "leave out --format lance"):
        write_shards(_data("vectors"), f"memory://{tmp_path.name}", format="lance")
    write_shards(_data("vectors"), tmp_path / "shards", format="lance")
    assert isinstance(read(tmp_path / "shards").samples, TensorSamples)
    monkeypatch.setattr(shards, "_LOADED_BYTES", 0)
    (tmp_path / "shards" / "samples.lance").rename(tmp_path / "elsewhere")
    shards._lance_dataset.cache_clear()
    with raises("damaged_file", "samples.lance"):
        read(tmp_path / "shards").samples.take(torch.tensor([0]))
    monkeypatch.setitem(sys.modules, "lance", None)
    with raises("missing_package", r"regrain\[lance\]"):
        read(tmp_path / "shards")


@pytest.mark.usefixtures("beyond_memory")
def test_levels_splits_and_image_size_are_chosen(tmp_path: Path) -> None:
    write_shards(_data("images"), tmp_path / "shards", shard_rows=100)
    found = read(tmp_path / "shards", levels=["alphabet"], splits=["test"], image_size=14)
    assert (found.labels.levels, found.split_names, found.samples.shape) == (("alphabet",), ("test",), (1, 14, 14))
    with raises("unknown_option"):
        read(tmp_path / "shards", text="x")
    with raises("unknown_split"):
        read(tmp_path / "shards", splits=["nowhere"])


@pytest.mark.usefixtures("beyond_memory")
def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    names = write_shards(_data("vectors"), tmp_path / "shards", shard_rows=30)
    (tmp_path / "shards" / names[0]).write_bytes(b"PAR1")
    shards._file.cache_clear()
    with raises("damaged_file", names[0]):
        read(tmp_path / "shards").samples.take(torch.tensor([0]))
    (tmp_path / "shards" / "shards.json").write_text("{")
    with raises("damaged_file", "shards.json"):
        read(tmp_path / "shards")


def test_convert_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with raises("would_overwrite"):
        regrain.convert("digits", tmp_path)


@pytest.mark.usefixtures("beyond_memory")
def test_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    address = f"memory://{tmp_path.name}/shards"
    assert len(regrain.convert(_table(), address, levels=["kind", "sub"], columns=["x*"], shard_rows=9).files) >= 10
    found = read(address)
    assert _same(found.split("train").samples, _data("vectors").split("train").samples)
    given: dict[str, Any] = {"encoder": "mlp", "device": "cpu", "settings": {"epochs": 1, "batch_size": 16}}
    run = regrain.fit("maskcon", address, levels=["kind"], out=tmp_path / "run", **given)
    assert run.recipe["data"]["source"] == address
    assert regrain.Run.open(run.path).embed().shape[0] == len(found.split("test"))
    with raises("missing_file", "holds no shards"):
        read("memory://nothing/here")


@pytest.mark.slow
@pytest.mark.usefixtures("beyond_memory")
def test_twenty_shards_on_an_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="needs s3fs: pip install '.[dev]'")
    server = pytest.importorskip("moto.server", reason="needs moto: pip install '.[dev]'").ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1", "REGRAIN_CACHE": str(tmp_path / "cache"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        import s3fs

        s3fs.S3FileSystem(endpoint_url=f"http://{host}:{port}").mkdir("bucket")
        made = regrain.convert(_table(200), "s3://bucket/t", levels=["kind", "sub"], columns=["x*"], shard_rows=10)
        assert len(made.files) == 20
        given: dict[str, Any] = {"encoder": "mlp", "device": "cpu", "settings": {"epochs": 2, "batch_size": 32}}
        remote = regrain.fit("maskcon", "s3://bucket/t", levels=["kind"], out=tmp_path / "remote", **given)
        write_shards(
            read(_table(200), levels=["kind", "sub"], columns=["x*"]), tmp_path / "local", shard_rows=10, window=10
        )
        local = regrain.fit("maskcon", tmp_path / "local", levels=["kind"], out=tmp_path / "own", **given)
        for name, expected in weights(local).items():
            assert torch.equal(weights(remote)[name], expected), name
    finally:
        server.stop()
