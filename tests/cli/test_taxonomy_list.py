"""``regrain taxonomies``: the list, one tree, the user's own file."""

from __future__ import annotations

import json
from pathlib import Path

from support import Command

from regrain.data.taxonomies import taxonomies, taxonomy
from regrain.labels import Taxonomy


def test_the_list(regrain: Command) -> None:
    code, out, _ = regrain("taxonomies")
    assert code == 0
    for name in taxonomies():
        assert name in out
    assert "superclass (17) > label (68)" in out
    assert "RECONSTRUCTION" in out
    found = json.loads(regrain("taxonomies", "--json")[1])
    assert found["tieredimagenet"]["levels"] == {"coarse": 34, "label": 608}
    assert len(found["tieredimagenet"]["parts"]["val"]) == 6


def test_one_tree(regrain: Command) -> None:
    code, out, _ = regrain("taxonomies", "breeds_living17")
    assert code == 0
    assert out.startswith("breeds_living17: superclass (17) > label (68)\nsource: BREEDS")
    assert "\nfox (4): n02119022 red fox, n02119789 kit fox, n02120079 Arctic fox, n02120505 grey fox\n" in out
    out = regrain("taxonomies", "cifar100_7")[1]
    assert "source: RECONSTRUCTION" in out
    assert "note: Table 4" in out
    assert "dropped: deer, frog" in regrain("taxonomies", "cifartoy_bad")[1]
    assert "parts: train n01524359, " in regrain("taxonomies", "tieredimagenet")[1]
    out = regrain("taxonomies", "grocery")[1]
    assert "\nFruit (" in out
    assert "\n  Avocado (1): Avocado\n" in out
    out = regrain("taxonomies", "grocery", "--level", "category")[1]
    assert "grocery: category (3) > label (81)" in out
    assert "Avocado (1)" not in out


def test_deep_trees_and_classes_under_none(regrain: Command) -> None:
    out = regrain("taxonomies", "imagenet_levels")[1]
    assert "\ndummy21 fungus (" in out
    assert "\n  n12992868 fungus (" in out
    assert "\n      dummy20 mushroom (" in out
    assert "\nunder no class: " in out


def test_your_own_file(regrain: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("dog,animal\nbeagle,dog\nbeagle,pet\npet,animal\nrose,plant\n")
    code, out, _ = regrain("taxonomies", "mine.csv")
    assert code == 0
    assert out.splitlines()[3:] == ["animal (2)", "  dog (1): beagle", "  pet (1): beagle", "plant (1): rose"]
    (tmp_path / "back.json").write_text(regrain("taxonomies", "mine.csv", "--json")[1])
    assert Taxonomy.from_json(tmp_path / "back.json") == taxonomy(tmp_path / "mine.csv")
    assert regrain("taxonomies", "mine.csv", "--level", "level3")[1].endswith("under no class: beagle\n")


def test_mistakes(regrain: Command, tmp_path: Path) -> None:
    code, _, err = regrain("taxonomies", "cifar100_5")
    assert (code, "no taxonomy 'cifar100_5', and no such file: did you mean 'cifar100_" in err) == (2, True)
    code, _, err = regrain("taxonomies", "cifar100_4", "--level", "superclass")
    assert (code, "did you mean 'superclass4'?" in err) == (2, True)
    code, _, err = regrain("taxonomies", "--level", "label")
    assert (code, "give its name, or a file" in err) == (2, True)
    (tmp_path / "mine.csv").write_text("a,b,c\n")
    code, _, err = regrain("taxonomies", "mine.csv")
    assert (code, "mine.csv, line 1 has 3 cells" in err) == (2, True)
