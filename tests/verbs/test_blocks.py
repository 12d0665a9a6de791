"""Embeddings and classes that are computed and kept block by block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import regrain
from regrain.runs import blocks


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    kind = np.arange(90) % 3
    columns: dict[str, Any] = {f"x{i}": generator.normal(size=90) + kind for i in range(4)}
    file = tmp_path_factory.mktemp("blocks") / "t.csv"
    pd.DataFrame({"id": [f"s{i}" for i in range(90)], "kind": [f"k{c}" for c in kind], **columns}).to_csv(
        file, index=False
    )
    return file


@pytest.fixture(scope="module")
def run(table: Path) -> regrain.Run:
    settings = {"epochs": 2, "batch_size": 32}
    return regrain.fit(
        "sup-ce", table, levels=["kind"], encoder="mlp", out=table.parent / "run", device="cpu", settings=settings
    )


def test_a_stopped_export_goes_on_after_its_last_block(
    run: regrain.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regrain.export_embeddings(run, tmp_path / "whole.parquet", table)
    monkeypatch.setattr(blocks, "BLOCK", 25)
    embed, counts = regrain.verbs.embed.embeddings_of, []

    def counted(model: Any, block: Any) -> Any:
        counts.append(len(block))
        if len(counts) == 3:
            raise KeyboardInterrupt
        return embed(model, block)

    monkeypatch.setattr("regrain.verbs.embed.embeddings_of", counted)
    with pytest.raises(KeyboardInterrupt):
        regrain.export_embeddings(run, tmp_path / "parts.parquet", table)
    assert not (tmp_path / "parts.parquet").exists()
    assert regrain.export_embeddings(run, tmp_path / "parts.parquet", table)[0] == 90
    assert counts == [25, 25, 25, 25, 15]
    whole, found = pq.read_table(tmp_path / "whole.parquet"), pq.read_table(tmp_path / "parts.parquet")
    assert found.drop(["embedding"]).equals(whole.drop(["embedding"]))
    np.testing.assert_allclose(np.stack(found["embedding"].to_pylist()), np.stack(whole["embedding"].to_pylist()), 1e-5)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_blocks_of_other_options_are_not_taken(
    run: regrain.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 40)
    out = tmp_path / "v.parquet"
    (tmp_path / ".v.parquet.parts").mkdir()
    (tmp_path / ".v.parquet.parts" / "key").write_text("another")
    (tmp_path / ".v.parquet.parts" / "0.parquet").write_bytes(b"not to be read")
    regrain.export_embeddings(run, out, table, normalise=True)
    vectors = np.stack(pq.read_table(out)["embedding"].to_pylist())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_classes_in_blocks_are_those_of_all_samples_at_once(
    ending: str, run: regrain.Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = regrain.predict(run, table, tmp_path / f"whole.{ending}")
    monkeypatch.setattr(blocks, "BLOCK", 40)
    found = regrain.predict(run, table, tmp_path / f"parts.{ending}")
    assert found["id"].tolist() == whole["id"].tolist()
    assert found["kind"].tolist() == whole["kind"].tolist()
    np.testing.assert_allclose(found["kind_probability"], whole["kind_probability"], 1e-5)
    if ending == "csv":
        read = pd.read_csv(tmp_path / "parts.csv")
        assert read["kind"].tolist() == pd.read_csv(tmp_path / "whole.csv")["kind"].tolist()


def test_a_file_of_embeddings_is_evaluated_as_the_run_is(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    kind = np.arange(90) % 3
    columns: dict[str, Any] = {f"x{i}": generator.normal(size=90) + kind for i in range(4)}
    names = {"id": [f"photos/s{i}.jpg" for i in range(90)], "split": ["train", "test"] * 45}
    table = pd.DataFrame({**names, "kind": [f"k{c}" for c in kind], **columns})
    run = regrain.fit("sup-ce", table, out=tmp_path / "run", columns=["x*"], levels=["kind"], epochs=1, device="cpu")
    regrain.export_embeddings(run, tmp_path / "vectors.parquet")
    stored = regrain.fit(
        "features", tmp_path / "vectors.parquet", out=tmp_path / "stored", levels=["kind"], encoder="identity"
    )
    asked: dict[str, Any] = {"protocols": ["recall", "knn", "clustering"], "baselines": False, "projection": False}
    one, other = (r.evaluate(**asked, write=False).to_frame() for r in (run, stored))
    pd.testing.assert_frame_equal(one, other)
    assert {"recall@1", "kmeans-acc"} <= set(one["metric"])
