"""``isotropy`` and ``attend`` as a user meets them, and what is refused before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import Command

QUICK = ("--encoder", "conv4", "--limit-per-class", "20", "--epochs", "1", "--batch-size", "32", "--device", "cpu")


def test_isotropy_on_the_command_line(regrain: Command, tmp_path: Path) -> None:
    wanted = ("isotropy", "sup-ce", "digits", *QUICK, "--subclass", "8", "--to", "straight", "--out", "eight")
    code, out, err = regrain(*wanted)
    assert code == 0, err
    assert "trained   eight/s0-given" in err
    assert "by sup-ce's own classifier" in out
    assert "moved to 'straight'" in out
    assert "accuracy of the 402 other samples" in out
    code, out, err = regrain(*wanted, "--json")
    assert (code, err) == (0, "")  # nothing was trained again
    written = json.loads((tmp_path / "eight" / "isotropy.json").read_text())
    assert json.loads(out) == {k: v for k, v in written.items() if k != "schema"}
    code, out, _ = regrain(*wanted, "--seeds", "2")
    assert code == 0
    assert " to " in out
    assert "95% interval over 2 seeds" in out
    for wrong, expected in (
        (("--to", "strait"), "did you mean 'straight'"),
        (("--subclass", "9"), "another experiment"),
        (("--seeds", "0"), "--seeds"),
    ):
        code, _, err = regrain(*wanted, *wrong)
        assert (code, expected in err) == (2, True), (wrong, err)


def test_attend_on_the_command_line(regrain: Command, tmp_path: Path) -> None:
    code, _, err = regrain("fit", "sclre", "digits", *QUICK, "--out", "run", "--quiet")
    assert code == 0, err
    code, out, err = regrain("attend", "run", "--samples", "3", "--out", "a.png")
    assert code == 0, err
    assert "attention to 200 training samples" in out
    assert "written to a.png" in out
    with Image.open(tmp_path / "a.png") as page:
        assert page.size == (684, 4 + 3 * 106)
    code, out, err = regrain("attend", "run", "--samples", "3", "--data", "digits", "--json")
    assert code == 0, err
    assert [len(s["references"]) for s in json.loads(out)["samples"]] == [9, 9, 9]
    for wrong, expected in (
        (("--out", "a.png"), "a.png exists"),
        (("--split", "val"), "no split 'val'"),
        (("--columns", "f*"), "without other data (--data)"),
    ):
        code, _, err = regrain("attend", "run", *wrong)
        assert (code, expected in err) == (2, True), (wrong, err)


def test_pictures_are_refused_before_a_discovery_is_settled(regrain: Command, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",", header="a,b,c", comments="")
    for data, encoder in (("table.csv", "identity"), ("digits", "conv4")):
        fit = ("fit", "kmeans", data, "--encoder", encoder, "--set", "subclasses=4", "--quiet", "--device", "cpu")
        code, _, err = regrain(*fit, "--out", encoder)
        assert code == 0, err
    code, _, err = regrain("discover", "identity", "--grids", "grids")
    assert (code, "grids show images" in err) == (2, True), err
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "worst.png").write_text("irreplaceable")
    code, _, err = regrain("discover", "conv4", "--grids", "grids")
    assert (code, "worst.png exists" in err, "--overwrite" in err) == (2, True, True), err
    (tmp_path / "file").write_text("")
    code, _, err = regrain("discover", "conv4", "--grids", "file")
    assert (code, "file is a file" in err) == (2, True), err
    assert not list(tmp_path.glob("*/discovery"))
    assert (tmp_path / "grids" / "worst.png").read_text() == "irreplaceable"
    code, _, err = regrain("discover", "conv4", "--grids", "grids", "--overwrite")
    assert code == 0, err


@pytest.mark.parametrize("method", ["scan", "george"])
def test_no_early_stop_where_the_loss_becomes_another_one(regrain: Command, method: str, tmp_path: Path) -> None:
    fit = ("fit", method, "digits", "--epochs", "10", "--set", "training.early_stop=loss", "--out", "run")
    code, _, err = regrain(*fit)
    assert (code, f"{method}'s loss starts again" in err) == (2, True), err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["kmeans", "turtle"])
def test_nothing_to_tune_where_nothing_changes_the_embeddings(regrain: Command, method: str, tmp_path: Path) -> None:
    code, _, err = regrain("tune", method, "digits", "--out", "search")
    assert (code, "no learning rate" in err, "--set subclasses=N" in err) == (2, True, True), err
    assert not (tmp_path / "search").exists()


def test_options_of_a_protocol_that_was_not_asked_for(regrain: Command, tmp_path: Path) -> None:
    fit = ("fit", "kmeans", "digits", "--encoder", "identity", "--set", "subclasses=3", "--out", "run")
    code, _, err = regrain(*fit)
    assert code == 0, err
    for options, protocol in (
        (("--taxonomy", "digits"), "hierarchy"),
        (("-o", "hierarchy_mapping=test", "-p", "clustering"), "hierarchy"),
        (("--linear-epochs", "0", "-p", "hierarchy"), "linear"),
    ):
        code, _, err = regrain("evaluate", "run", *options)
        assert (code, f"is an option of the protocol {protocol}" in err) == (2, True), (options, err)
        assert f"add -p {protocol}" in err
