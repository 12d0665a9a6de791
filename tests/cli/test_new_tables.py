"""New tables beside a run: columns by name, numbers and classes as the run knows them, classes it never saw told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import regrain as library
from regrain.data import formats
from regrain.data.table import Table
from regrain.errors import UserError


def frame_of(count: int = 40) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    kind = np.arange(count) % 2
    return pd.DataFrame(
        {
            "f1": generator.normal(size=count).round(3) + kind,
            "f2": generator.normal(size=count).round(3),
            "smoker": np.where(generator.random(count) < 0.5, "yes", "no"),
            "price": [f"${1000 + number:,}.5" for number in generator.integers(0, 9000, count)],
            "kind": kind.astype(float),
            "id": [f"s{row}" for row in range(count)],
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on numbers in several notations, whose classes are written 0.0 and 1.0."""
    folder = tmp_path_factory.mktemp("tables")
    frame_of().to_csv(folder / "own.csv", index=False)
    library.fit(
        "sup-ce",
        folder / "own.csv",
        columns=["f*", "smoker", "price"],
        levels=["kind"],
        out=folder / "run",
        epochs=1,
        device="cpu",
    )
    library.discover(folder / "run", each=2)
    return folder / "run"


def predicted(run: Path, frame: object) -> pd.DataFrame:
    return library.predict(run, frame).set_index("id")


def test_the_model_remembers_columns_and_notations(run: Path) -> None:
    inputs = json.loads((run / "model" / "config.json").read_text())["inputs"]
    assert inputs["columns"] == ["f1", "f2", "smoker", "price"]
    assert inputs["notations"] == {"smoker": "yes/no", "price": "$1,000.5"}


def test_columns_are_taken_by_name_in_any_order_and_format(run: Path, tmp_path: Path) -> None:
    frame = frame_of().iloc[:6]
    expected = predicted(run, frame)
    assert set(expected["kind"]) <= {"0", "1"}
    turned = frame[frame.columns[::-1]].assign(extra=1.5, note="x")
    pd.testing.assert_frame_equal(predicted(run, turned), expected)
    plain = turned.assign(
        smoker=turned["smoker"] == "yes", price=turned["price"].str.replace("[$,]", "", regex=True).astype(float)
    )
    pd.testing.assert_frame_equal(predicted(run, plain), expected)
    plain.to_parquet(tmp_path / "new.parquet")
    pd.testing.assert_frame_equal(predicted(run, tmp_path / "new.parquet"), expected)
    data = library.load(turned, columns=["price", "f2", "f1", "smoker"], levels=[], id_column="id")
    pd.testing.assert_frame_equal(predicted(run, data), expected)
    yes = frame[frame["smoker"] == "yes"].assign(smoker="YES")
    assert predicted(run, yes)["kind"].tolist() == expected.loc[yes["id"], "kind"].tolist()


def test_a_missing_column_is_called_missing(run: Path) -> None:
    with pytest.raises(UserError, match="the table: column 'f2' is missing: the model was trained on it"):
        library.predict(run, frame_of().drop(columns="f2"))
    with pytest.raises(UserError, match="columns 'f2'; 'price' are missing: the model was trained on them"):
        library.predict(run, frame_of().drop(columns=["f2", "price"]))


@pytest.mark.parametrize("kind", [["0", "1"], ["0.0", "1.0"], [0, 1], ["0e0", "+1"]])
def test_classes_are_known_however_their_numbers_are_spelled(run: Path, kind: list[object]) -> None:
    new = frame_of().assign(kind=kind * 20)
    notes = library.evaluate(run, new, protocols=["superclass"], write=False).notes
    assert not [note for note in notes if "not trained on" in note or "on none of" in note]


def test_classes_that_were_never_trained_on_are_told(run: Path) -> None:
    new = frame_of().assign(kind=[0, 1, 2, 3] * 10)
    (note,) = [n for n in library.evaluate(run, new, protocols=["recall"], write=False).notes if "trained on" in n]
    assert note == (
        "level 'kind': 20 of 40 samples are of classes that the run was not trained on ('2'; '3'): it cannot predict "
        "them"
    )
    new = frame_of().assign(kind=["a", "b"] * 20)
    notes = library.evaluate(run, new, protocols=["recall"], write=False).notes
    assert any("was trained on none of these classes ('a'; 'b'), but on such as '0'; '1'" in note for note in notes)


VERBS: dict[str, Callable[[library.Run, Path, Path], object]] = {
    "predict": lambda run, file, _: library.predict(run, file),
    "evaluate": lambda run, file, _: library.evaluate(run, file, protocols=["recall"], write=False),
    "embed": lambda run, file, _: library.embed(run, file),
    "export_embeddings": lambda run, file, out: library.export_embeddings(run, out / "e.parquet", file),
    "discover": lambda run, file, _: library.discover(run, file, write=False),
    "calibrate": lambda run, file, _: library.calibrate(run, file),
    "adapt": lambda run, file, out: library.adapt(run, file, out / "adapted", level="kind"),
    "fit": lambda _, file, out: library.fit("simclr", file, columns=["f*"], out=out / "new", epochs=1, device="cpu"),
    "load": lambda _, file, __: library.load(file, levels=["kind"]),
}


@pytest.mark.parametrize("gone", [False, True], ids=["", "own data gone"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_table_is_parsed_once(
    verb: str, gone: bool, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    opened = library.Run.open(copied, device="cpu")
    if gone:  # then given data may be the run's own, which takes a look
        monkeypatch.setitem(opened.recipe["data"], "source", str(tmp_path / "gone.csv"))
    file = tmp_path / "new.csv"
    frame_of(80).to_csv(file, index=False)
    parsed: list[Path] = []
    whole = formats.csv_table

    def counted(path: Path, text: str) -> Table:
        parsed.append(path)
        return whole(path, text)

    monkeypatch.setattr(formats, "csv_table", counted)
    VERBS[verb](opened, file, tmp_path)
    assert parsed == [file]
