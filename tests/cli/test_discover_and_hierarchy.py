"""Commands about classes found without labels: pictures, a count, hierarchies, linear probes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import Command


@pytest.fixture
def run(regrain: Command, tmp_path: Path) -> Path:
    """k-means on digits."""
    wanted = ("fit", "kmeans", "digits", "--encoder", "conv4", "--set", "subclasses=20", "--out", "run")
    code, _, err = regrain(*wanted, "--limit-per-class", "30", "--quiet", "--device", "cpu")
    assert code == 0, err
    return tmp_path / "run"


def test_discover_with_pictures_and_a_count(regrain: Command, run: Path, tmp_path: Path) -> None:
    code, out, err = regrain("discover", run, "--grids", "grids", "--estimate-classes", "--json")
    assert code == 0, err
    found = json.loads(out)
    count = found["class_count"]
    assert 2 <= count["low"] <= count["estimate"] <= count["high"] <= count["clusters"] == 20
    assert any(f"about {count['estimate']} classes" in note for note in found["notes"])
    for name in ("best", "worst", "random"):
        with Image.open(tmp_path / "grids" / f"{name}.png") as page:
            assert np.asarray(page).shape == (4 + 10 * 90, 684, 3)
    code, out, err = regrain("discover", run, "--grids", "again", "--estimate-classes")
    assert code == 0, err
    assert f"about {count['estimate']} classes" in out.replace("\n", " ")
    assert "pictures in again" in out
    assert "class_count" not in json.loads(regrain("discover", run, "--json")[1])


def test_hierarchy_by_any_taxonomy_and_a_linear_probe(regrain: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "parity.csv").write_text(
        "child,parent\n" + "".join(f"{i},{('even', 'odd')[i % 2]}\n" for i in range(10))
    )
    figures = {}
    for name, more in (("own", ()), ("digits", ("--taxonomy", "digits")), ("parity", ("--taxonomy", "parity.csv"))):
        code, out, err = regrain("evaluate", run, "-p", "hierarchy", *more, "--no-baselines", "--json")
        assert code == 0, err
        figures[name] = json.loads(out)
    assert figures["own"] == figures["digits"]
    assert figures["own"]["test/digit/acc@group"] >= figures["own"]["test/digit/acc@digit"]
    assert figures["parity"]["test/digit/acc@digit"] == figures["own"]["test/digit/acc@digit"]
    assert "test/digit/acc@level1" in figures["parity"]
    code, out, err = regrain(
        "evaluate", run, "-p", "hierarchy", "-o", "hierarchy_mapping=train", "--no-baselines", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["test/digit/acc@digit"] != figures["own"]["test/digit/acc@digit"]

    code, out, err = regrain("evaluate", run, "-p", "linear", "--linear-epochs", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    for key in ("linear", "linear-balanced", "linear-sgd", "linear.raw", "linear-sgd.random"):
        assert 0.1 < found[f"test/digit/{key}"] <= 1, key
    assert "test/digit/linear-sgd.raw" not in found

    for arguments, message in (
        (("-p", "hierarchy", "--taxonomy", "digitz"), "did you mean 'digits'"),
        (("-p", "hierarchy", "--taxonomy", "breeds_living17"), "knows none of the 10 classes"),
        (("-p", "hierarchy", "-o", "hierarchy_mapping=both"), "hierarchy_mapping must be one of test, train"),
    ):
        code, _, err = regrain("evaluate", run, *arguments)
        assert code == 2, arguments
        assert message in err
        assert "Traceback" not in err


def test_pictures_are_refused_where_there_are_none(regrain: Command, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",", header="a,b,c", comments="")
    wanted = ("fit", "kmeans", "table.csv", "--encoder", "identity", "--set", "subclasses=4", "--out", "run")
    code, _, err = regrain(*wanted, "--quiet", "--device", "cpu")
    assert code == 0, err
    code, _, err = regrain("discover", "run", "--grids", "grids")
    assert (code, "grids show images" in err) == (2, True), err
