"""The options with which a run's data were read hold for its new data, one and all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import regrain
from regrain.data.options import FolderOptions, ParquetFolderOptions, TableOptions
from regrain.data.readers import table_of
from regrain.runs.source import inherited_options

OF_SAMPLES = {"image", "text", "columns", "series_shape", "record", "time", "window", "stride", "gap", "static"}
OF_COLUMNS = {"id_column", "group_column", "split_column"}
OF_ONE_SOURCE = {"name", "splits"}  # which data these are
OF_LABELS = {"levels", "label_paths", "relation", "unknown"}
STORED = {"image_size", "channels", "white"}  # what the model says
OTHER = {"skip_unreadable", "cache", "notations"}


class Inputs:
    """As much of a model as reading looks at."""

    def __init__(self) -> None:
        self.storage = None
        self.config = {"inputs": {"modality": "vector"}}


def recorded() -> dict[str, Any]:
    """Every option of a table's reader, with a value that its data have."""
    return {
        "image": "file", "text": "words", "columns": ["f*"], "series_shape": [2, 1], "record": "who", "time": "when",
        "window": 2, "stride": 1, "gap": 3.0, "static": ["age"], "levels": ["path"], "label_paths": True,
        "relation": "aspects", "split_column": "part", "group_column": "who", "id_column": "key",
        "unknown": ["?"], "name": "old",
        "image_size": 8, "channels": 3, "white": 65535, "skip_unreadable": True, "cache": True,
        "notations": {"f1": "points"},
    }  # fmt: skip


def test_every_option_is_decided() -> None:
    options = {**TableOptions.__annotations__, **ParquetFolderOptions.__annotations__, **FolderOptions.__annotations__}
    assert set(options) == OF_SAMPLES | OF_COLUMNS | OF_ONE_SOURCE | OF_LABELS | STORED | OTHER
    assert set(TableOptions.__annotations__) == set(recorded())


@pytest.mark.parametrize("option", sorted(TableOptions.__annotations__))
def test_an_option_holds_where_its_column_is_there(option: str) -> None:
    every = pd.DataFrame(
        {name: ["1", "2"] for name in ("file", "words", "f1", "who", "when", "age", "path", "part", "key")}
    )
    said = recorded()
    found = inherited_options(every, table_of(every), Inputs(), said, {})  # type: ignore[arg-type]
    assert (found.get(option) == said[option]) == (option not in OF_ONE_SOURCE)
    given = inherited_options(every, table_of(every), Inputs(), said, {option: "given"})  # type: ignore[arg-type]
    assert given[option] == "given"
    bare = pd.DataFrame({"other": ["1", "2"]})
    found = inherited_options(bare, table_of(bare), Inputs(), said, {})  # type: ignore[arg-type]
    assert (option in found) == (option in STORED | OTHER | {"relation", "unknown"})


def reviews(seed: int, count: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    signs = random.integers(0, 2, size=(count, 2))
    features = random.normal(size=(count, 3))
    features[:, :2] += 3 * signs
    return pd.DataFrame(features, columns=["f1", "f2", "f3"]).assign(
        service=[("bad", "good")[v] for v in signs[:, 0]],
        price=["?" if random.random() < 0.2 else ("low", "high")[v] for v in signs[:, 1]],
        key=[f"{seed}-{row}" for row in range(count)],
        shop=[f"shop{row // 6}" for row in range(count)],
    )


@pytest.mark.parametrize("form", ["frame", "csv", "parquet"])
def test_aspects_ids_groups_and_unknown_labels_of_new_data(form: str, tmp_path: Path) -> None:
    def source(seed: int) -> Any:
        file = tmp_path / f"{seed}.{form}"
        if form == "csv":
            reviews(seed).to_csv(file, index=False)
        elif form == "parquet":
            reviews(seed).to_parquet(file)
        return reviews(seed) if form == "frame" else file

    reader: dict[str, Any] = {"levels": ["service", "price"], "relation": "aspects", "columns": ["f*"]}
    reader |= {"id_column": "key", "group_column": "shop", "unknown": ["?"]}
    made = regrain.fit("multi-ce", source(0), out=tmp_path / "run", epochs=2, device="cpu", **reader)
    run = regrain.Run.open(made.path, device="cpu")
    new = run.read(source(1))
    assert new.labels.taxonomy is None
    assert new.labels.counts == {"service": 2, "price": 2}
    assert new.ids.tolist() == [f"1-{row}" for row in range(60)]
    assert set(new.groups.tolist()) == {f"shop{number}" for number in range(10)}
    assert regrain.predict(run, source(1))["id"].tolist() == new.ids.tolist()
    figures = regrain.evaluate(run, source(1), protocols=["multi-aspect"], baselines=False, write=False).flat()
    assert "test/service/accuracy" in figures
    assert run.embed(source(1)).shape[0] == 60


def test_paths_of_labels_of_new_data(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = pd.DataFrame(random.normal(size=(40, 2)), columns=["f1", "f2"]).assign(
        path=["dog/pug", "dog/beagle", "cat/siamese", "cat/persian"] * 10
    )
    run = regrain.fit(
        "sup-ce", table, out=tmp_path / "run", epochs=1, levels=["path"], label_paths=True, columns=["f*"]
    )
    new = run.read(table)
    assert new.labels.levels == run.splits()["test"].labels.levels
    found = regrain.evaluate(run, table, protocols=["recall"], levels=["level2"], baselines=False, write=False)
    assert {row.level for row in found.rows} == {"level2"}
    assert regrain.predict(run, table[["f1", "f2"]]).shape[0] == 40


def test_unreadable_images_of_new_data_are_left_out_too(tmp_path: Path) -> None:
    for folder in ("old", "new"):
        for row in range(6):
            place = tmp_path / folder / "ab"[row % 2] / f"{row}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(row).integers(0, 255, size=(9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)
        (tmp_path / folder / "a" / "broken.png").write_bytes(b"no image")
    run = regrain.fit(
        "sup-ce", tmp_path / "old", encoder="conv4", out=tmp_path / "run", epochs=1, skip_unreadable=True, holdout=0
    )
    assert len(run.embed(tmp_path / "new")) == 6
