"""Recipes of the papers' tables: all of them resolve, inherit as told, and print what the papers print."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from regrain.errors import UserError
from regrain.papers.datasets import entries
from regrain.papers.reproducing import Reproduction, grouped, run_name
from regrain.papers.rows import check_row, published, read_paper, recipes, select
from regrain.papers.scales import RATE, SCALES, at_scale, flops, hours, samples

TABLES = {
    "maskcon": [1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14],
    "scgm": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "self_classifier": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    "sclre": [3, 4, 6],
    "mlcl": [2, 3, 4, 5, 6],
}
TEXTS = {"sclre": "sclre_supplement"}

PAPER: dict[str, Any] = {
    "paper": "A paper",
    "defaults": {"training": {"epochs": 7, "batch_size": 64}, "judge": {"protocols": ["recall"], "level": "label"}},
    "metrics": {"R@1": "recall@1"},
    "methods": {"Ours": {"name": "maskcon", "weight": 0.5}},
    "absent": {"Theirs": "not here"},
    "tables": {
        "table1": {
            "title": "a table",
            "training": {"epochs": 8},
            "variants": {"good": {"data": {"source": "cifartoy-good"}}, "bad": {"data": {"source": "cifartoy-bad"}}},
            "rows": {
                "Ours": {"good": [1.5], "bad": {"method": {"weight": 0.9}, "paper": [2.25]}},
                "Ours, long": {"like": "Ours", "training": {"epochs": 9}, "good": [3.0]},
                "Theirs": {"good": [4.0]},
            },
        }
    },
}


def test_every_table_has_its_recipes() -> None:
    found: dict[str, set[int]] = {}
    for name in recipes():
        paper, table, _ = name.split("/")
        if table != "section4.2":  # of SCGM: figures in its text
            found.setdefault(paper, set()).add(int(table.removeprefix("table")))
    assert {paper: sorted(numbers) for paper, numbers in found.items()} == TABLES


@pytest.mark.parametrize("scale", SCALES)
def test_every_recipe_resolves(scale: Any) -> None:
    for recipe in recipes().values():
        scaled = at_scale(recipe, scale)
        check_row(scaled)
        assert recipe.absent or recipe.figures, recipe.name
        queue = scaled.sections["method"].get("queue_size", 0)
        assert recipe.absent or queue <= samples(scaled), recipe.name  # else training refuses it


@pytest.mark.parametrize("paper", TABLES)
def test_figures_are_those_of_the_papers(shared: Path, paper: str) -> None:
    text = (shared / "papers" / f"{TEXTS.get(paper, paper)}.txt").read_text(encoding="utf-8")
    printed = {float(number) for number in re.findall(r"\d+\.\d+", text)}
    strangers = {r.name: value for r in select(paper) for value in r.figures.values() if value not in printed}
    assert not strangers


def test_rows_are_printed_as_they_stand(shared: Path) -> None:
    text = (shared / "papers" / "maskcon.txt").read_text(encoding="utf-8")
    text = re.sub(r"<b>|</b>|\(\d+\.\d+ <sup>†</sup> \)", "", text)  # bold, and differences to SupCE
    lines = [[float(n) for n in re.findall(r"\d+\.\d+", line)] for line in text.splitlines()]
    joined = "|".join(" ".join(map(str, line)) for line in lines)
    for recipe in select("maskcon"):
        if len(recipe.figures) == len(recipe.metrics):  # not the row whose print is damaged
            assert " ".join(map(str, recipe.figures.values())) in joined, recipe.name


def test_what_is_shared_is_inherited_and_the_inner_one_wins() -> None:
    good, bad, long, theirs = read_paper("p", PAPER)
    assert [r.name for r in (good, bad, long, theirs)] == [
        "p/table1/ours-good",
        "p/table1/ours-bad",
        "p/table1/ours-long-good",
        "p/table1/theirs-good",
    ]
    assert good.sections == {"method": {"name": "maskcon", "weight": 0.5}, "training": {"epochs": 8, "batch_size": 64}}
    assert bad.sections["method"] == {"name": "maskcon", "weight": 0.9}
    assert bad.data == {"source": "cifartoy-bad"}
    assert long.sections["training"] == {"epochs": 9, "batch_size": 64}
    assert (long.method, theirs.absent) == ("maskcon", "not here")
    assert [r.printed("R@1") for r in (good, bad)] == ["1.50", "2.25"]
    assert good.resolved()["training"]["learning_rate"] == 0.02  # where nothing is said, the signature's
    assert good.keys() == {"R@1": "test/label/recall@1"}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("methods", {}, "p/table1/Ours: no method 'Ours' is declared"),
        ("tables.table1.rows.Ours.good", [1.0, 2.0], "p/table1/Ours has 2 figures for the metrics R@1"),
        ("tables.table1.rows.Ours.ugly", [1.0], "p/table1/Ours has no part 'ugly'"),
        ("tables.table1.tittle", "x", "p/table1 has no part 'tittle': did you mean 'title'"),
        ("defaults.judge.protocol", ["recall"], "judge has no part 'protocol': did you mean 'protocols'"),
    ],
)
def test_mistakes_in_a_file_are_named(path: str, value: Any, message: str) -> None:
    content = changed(path, value)
    with pytest.raises(UserError, match=re.escape(message)):
        list(read_paper("p", content))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("methods.Ours.wieght", 1, "p/table1/ours-good: maskcon has no setting 'wieght': did you mean 'weight'"),
        ("methods.Ours.name", "maskon", "did you mean 'maskcon'"),
        ("tables.table1.training.epochs", "many", "training.epochs must be a whole number of at least 1; got 'many'"),
        ("tables.table1.variants.good.data.source", "cifar", "no data set 'cifar' in the catalogue"),
        ("defaults.judge.level", "lable", "cifartoy-good has no level 'lable': did you mean 'label'"),
        ("tables.table1.data", {"levels": ["fine"]}, "cifartoy-good has no level 'fine'"),
        ("defaults.judge.protocols", ["recal"], "no protocol 'recal': did you mean 'recall'"),
        ("defaults.encoder", {"name": "resnet19"}, "no encoder 'resnet19'"),
        (
            "defaults.views",
            {"presets": ["strnog", "weak"]},
            "no preset 'strnog' for image views: did you mean 'strong'",
        ),
    ],
)
def test_what_a_recipe_names_must_exist(path: str, value: Any, message: str) -> None:
    recipe = next(read_paper("p", changed(path, value)))
    with pytest.raises(UserError, match=re.escape(message)):
        check_row(recipe)


def changed(path: str, value: Any) -> dict[str, Any]:
    content = copy.deepcopy(PAPER)
    place = content
    *above, last = path.split(".")
    for key in above:
        place = place[key]
    place[last] = value
    return content


def test_notes_stand_under_the_rows_that_they_are_about() -> None:
    found = [Reproduction(recipes()[f"scgm/table2/{row}"], "small", (), {}) for row in ("coarse", "ancor", "scgm-g")]
    (group,) = grouped(found)
    every, ancor, searched = group.remarks()
    assert every.startswith("The paper judges with or without the embedder")
    assert ancor.startswith("ANCOR: the published queues hold 65,536 keys of each superclass")
    assert searched.startswith("SCGM-G: the number of subclasses was searched")
    content = changed("tables.table1.rows.Ours.note", "of one row")
    assert [r.notes for r in read_paper("p", content)] == [("of one row",), ("of one row",), (), ()]


def test_selection_by_recipe_table_and_paper() -> None:
    assert [r.name for r in select("maskcon/table2/supce")] == ["maskcon/table2/supce"]
    assert len(select("maskcon/table1")) == 14  # and none of tables 10 to 14
    assert {r.name.split("/")[0] for r in select("sclre")} == {"sclre"}
    assert len(select(None)) == len(recipes())
    with pytest.raises(UserError, match="did you mean 'scgm/table10'"):
        select("scgm/tabel10")
    assert published("sclre/table3", "c4") == {"Baseline": "76.0", "GEORGE": "65.8", "SCLRE": "84.0"}


def test_a_note_stands_under_the_rows_it_concerns() -> None:
    known = recipes()
    told = {name: " ".join(known[f"sclre/table3/{name}"].notes) for name in ("baseline-c4", "george-c4", "sclre-c7")}
    assert told["baseline-c4"] == ""
    assert told["george-c4"].startswith("GEORGE's settings are not published")
    assert "starts uniform" in told["sclre-c7"]
    assert "CIFAR100-7 is a reconstruction" in told["sclre-c7"]
    assert not any("on texts" in note for note in known["mlcl/table3/mlcl-n1000"].notes)
    assert any("on texts" in note for note in known["mlcl/table4/mlcl-tripadvisor-n30"].notes)
    assert not any("on texts" in note for note in known["mlcl/table4/ce-tripadvisor-n30"].notes)


def test_mlcl_on_images_is_trained_as_supcon_where_its_paper_does_not_say() -> None:
    rates = {"mlcl": 0.5, "supcon": 0.5, "simclr": 0.5, "ce": 0.8}
    for row, rate in rates.items():
        recipe = recipes()[f"mlcl/table2/{row}-cifar100"].resolved()
        training, method = recipe["training"], recipe["method"]
        found = (training["learning_rate"], training["batch_size"], training["epochs"], training["warmup_epochs"])
        assert found == (rate, 512, 250, 10)
        assert row == "ce" or method["projector_hidden"] == 2048
    mlcl = recipes()["mlcl/table2/mlcl-cifar100"].resolved()
    assert mlcl["method"]["normalise_heads"]
    assert mlcl["views"]["presets"] == ["simclr", "simclr"]


def test_rows_that_are_trained_alike_share_a_run() -> None:
    names = ["scgm/table1/scgm-g-living17", "scgm/table3/scgm-g-living17", "scgm/table9/r=100"]
    shared = {run_name(recipes()[name]) for name in names}
    assert len(shared) == 1
    assert run_name(recipes()["scgm/table9/r=150"]) not in shared


def test_small_is_the_paper_made_smaller_by_rules() -> None:
    full = recipes()["self_classifier/table1/self-classifier-800"]
    small = at_scale(full, "small")
    before, after = full.resolved()["training"], small.sections["training"]
    assert (before["epochs"], before["batch_size"], before["learning_rate"]) == (800, 4096, 4.8)
    assert (after["epochs"], after["batch_size"], after["learning_rate"]) == (10, 128, 4.8 * 128 / 4096)
    assert after["warmup_epochs"] == 10 * 10 / 800
    assert samples(small) == 5000
    assert small.sections["method"]["queue_size"] == 2500
    assert small.data["reader"] == {"image_size": 64}
    assert small.figures == full.figures
    scan = at_scale(recipes()["self_classifier/table1/scan"], "small").sections["method"]
    assert (scan["pretext_epochs"], scan["clustering_epochs"]) == (7, 1)
    restarts = at_scale(recipes()["scgm/table2/scgm-g"], "small").sections["training"]
    assert (restarts["schedule"], restarts["restart_epochs"]) == ("restarts", 1.0)
    few = recipes()["mlcl/table3/mlcl-n1000"]
    assert at_scale(few, "small").data["samples"] == few.data["samples"] == 1000
    assert at_scale(full, "paper") is full


def test_the_cost_is_samples_epochs_views_and_passes() -> None:
    small = at_scale(recipes()["maskcon/table2/maskcon"], "small")
    forward = 70_090_752  # of resnet18-w16 at 32 pixels, two operations a multiplication
    assert flops(small) == 5000 * 10 * 2 * 3 * forward
    assert hours(flops(small)) == pytest.approx(5000 * 10 * 2 * 3 * forward / RATE / 3600)
    one_view = at_scale(recipes()["maskcon/table2/supce"], "small")
    assert flops(small) == 2 * (flops(one_view) or 0)
    crops, none = (
        recipes()[f"self_classifier/table10/{name}"] for name in ("2x224+6x96-no-neighbour", "2x224-no-neighbour")
    )
    assert flops(crops) == pytest.approx((2 + 6 * (96 / 224) ** 2) / 2 * (flops(none) or 0))
    assert flops(recipes()["scgm/table6/scgm"]) is None
    assert hours(None) is None


def test_samples_are_those_of_the_catalogue() -> None:
    for recipe in recipes().values():
        if not recipe.absent:
            assert samples(recipe) <= entries()[recipe.data["source"]].samples["train"]
