"""``regrain reproduce``, ``recipes`` and ``datasets NAME`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support import Command


def test_a_table_is_run_shown_and_appended(regrain: Command, tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text("# Results\n")
    both = ("maskcon/table2/supce", "maskcon/table2/supce")  # named twice, run once
    asked = ("reproduce", *both, "--scale", "tiny", "--seeds", 2)
    code, out, err = regrain(*asked, "--append", "results.md")
    assert code == 0, err
    assert "MaskCon (Feng and Patras, CVPR 2023), table 2" in out
    assert "47.25" in out
    assert "Scale tiny is not the paper's experiment" in out
    assert err.count("done      maskcon/table2/supce") == 1
    assert "raw input" in out
    page = (tmp_path / "results.md").read_text()
    assert page.startswith("# Results\n\n## Reproductions\n")
    assert "regrain reproduce maskcon/table2/supce --scale tiny --seeds 2" in page
    runs = sorted(path.parent.name for path in (tmp_path / "runs" / "reproduce").rglob("recipe.yaml"))
    assert runs == ["s0", "s1"]
    code, out, err = regrain(*asked, "--json")
    found = json.loads(out)
    assert (found[0]["paper"]["R@1"], found[0]["seeds"], len(found[0]["ours"]["R@1"])) == (47.25, [0, 1], 2)


def test_what_is_missing_does_not_stop_the_others(regrain: Command, tmp_path: Path) -> None:
    code, out, err = regrain("reproduce", "sclre/table3", "--scale", "tiny", "--set", "attention=bank")
    assert code == 0
    assert "Baseline, c3; Baseline, c4; Baseline, c7: --set: sup-ce has no setting 'attention'" in out.replace(
        "\n", " "
    )
    assert err.count("done ") == 3
    code, out, err = regrain("reproduce", "maskcon/table6", "--root", tmp_path, "--append", "page.md")
    assert code == 2
    assert "cars196 was not found. Looked for" in out
    assert err.count("left out  maskcon/table6/") == 7
    assert not (tmp_path / "page.md").exists()


def test_mistakes_and_long_runs(regrain: Command) -> None:
    code, _, err = regrain("reproduce")
    assert code == 2
    assert "name a recipe, a table or a paper" in err
    code, _, err = regrain("reproduce", "maskcon/tabel2")
    assert code == 2
    assert "did you mean 'maskcon/table2'" in err
    code, _, err = regrain("reproduce", "maskcon/table2/maskcon", "--scale", "paper", "--hours", 1)
    assert code == 2
    assert "left out  maskcon/table2/maskcon: estimated at 62 (3 days)" in err


def test_recipes_are_listed_and_shown(regrain: Command) -> None:
    code, out, _ = regrain("recipes", "scgm/table5", "--scale", "small")
    assert code == 0
    assert "scgm/table5/scgm-g" in out
    assert "(not implemented here)" in out
    assert "64.64, 80.83, 12.32" in out
    assert "samples x epochs x views x 3" in out
    code, out, _ = regrain("recipes", "scgm/table5/scgm-g", "--rate", 100)
    told = yaml.safe_load(out)
    assert told["needs"] == ["tieredimagenet"]
    assert told["recipe"]["method"]["name"] == "scgm"
    assert told["recipe"]["training"]["restart_epochs"] == 20
    code, again, _ = regrain("recipes", "scgm/table5/scgm-g", "--json")
    assert json.loads(again)[0]["hours"] == pytest.approx(told["hours"] * 100 / 0.3)
    code, out, _ = regrain("recipes", "self_classifier/table6/fixed-classifier")
    assert yaml.safe_load(out)["absent"] == "no setting for it here"


def test_one_data_set(regrain: Command) -> None:
    code, out, _ = regrain("datasets", "sop-split1")
    assert code == 0
    for part in ("levels: coarse12 (12) > product (5035)", "size: train 25368, test 25278", "source: ", "licence: "):
        assert part in out
    assert "  - Stanford_Online_Products/bicycle_final/111085122871_0.JPG" in out
    code, out, _ = regrain("datasets", "cifar10", "--json")
    assert json.loads(out)["samples"] == {"train": 50_000, "test": 10_000}
    code, _, err = regrain("datasets", "sop1")
    assert code == 2
    assert "did you mean 'sop'" in err


def test_images_are_decoded_once_on_request(regrain: Command, tmp_path: Path) -> None:
    from regrain.papers.datasets.synthetic import write_synthetic

    write_synthetic("cars196", tmp_path / "data")
    asked = (
        "fit",
        "sup-ce",
        "cars196",
        "--root",
        "data",
        "--encoder",
        "conv4",
        "--epochs",
        1,
        "--set",
        "views.size=16",
    )
    code, _, err = regrain(*asked, "--cache", "--out", "run", "-q")
    assert code == 0, err
    tables = list((tmp_path / "cache").glob("*.npy"))
    assert len(tables) == 1
    assert tables[0].stat().st_size > 144 * 3 * 40 * 40
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["data"]["reader"]["cache"] is True
