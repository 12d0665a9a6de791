"""``reproduce``: every kind of recipe runs to its end on generated data; runs are shared, resumed and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regrain.errors import UserError
from regrain.metrics import mean_interval
from regrain.papers.reproducing import Reproduction, append, grouped, markdown, reproduce
from regrain.papers.rows import Recipe, recipes, select
from regrain.runs.run import Run
from regrain.verbs.evaluate import evaluate


def covering() -> Iterator[Recipe]:
    """Recipes in their order, each with a method, a way to judge, a data set or a setting of data not seen before."""
    seen: set[object] = set()
    for recipe in recipes().values():
        if recipe.absent:
            continue
        judge = recipe.judge
        kinds = {
            recipe.method,
            recipe.entry.original,
            tuple(judge["protocols"]),
            "other data" if "data" in judge else None,
            *(key for key in recipe.data if key != "source"),
        }
        if not kinds <= seen:
            seen |= kinds
            yield recipe


COVERING = {recipe.name: recipe for recipe in covering()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reproduce")


def test_what_covers_the_recipes() -> None:
    chosen = list(COVERING.values())
    runnable = [r for r in recipes().values() if not r.absent]
    for of in (lambda r: r.method, lambda r: r.judge["protocols"], lambda r: r.entry.original):
        assert [of(r) for r in runnable if of(r) not in [of(c) for c in chosen]] == []
    assert 20 <= len(chosen) <= 50


@pytest.mark.parametrize("name", COVERING)
def test_recipes_run_on_generated_data(place: Path, name: str) -> None:
    found = reproduce(name, scale="tiny", out=place)
    assert found.problem == ""
    assert found.seeds == (0,)
    judged = [title for title in found.recipe.metrics if title in found.figures]
    assert judged
    assert all(0 <= found.figures[title][0] <= 100 for title in judged)
    missing = set(found.recipe.metrics) - set(judged)  # levels of WordNet that group none of so few classes
    assert not missing or name.startswith("self_classifier/table2")


def test_seeds_are_runs_and_finished_ones_stay(tmp_path: Path) -> None:
    trained: list[str] = []

    def count(run: Run) -> None:
        trained.append(str(run.path.relative_to(tmp_path / "tiny")))

    def again(name: str, seeds: int) -> Reproduction:
        return reproduce(name, scale="tiny", seeds=seeds, out=tmp_path, on_run=count)

    first = again("scgm/table1/scgm-g-living17", 1)
    assert len(trained) == 1
    both = again("scgm/table1/scgm-g-living17", 2)
    assert len(trained) == 2
    assert both.figures["5-way"][0] == first.figures["5-way"][0]
    again("scgm/table3/scgm-g-living17", 2)  # the same training, judged otherwise
    again("scgm/table9/r=50", 1)
    assert len(trained) == 2  # at tiny, r is cut to the nine classes
    assert len({path.split("/")[0] for path in trained}) == 1
    again("scgm/table10/variance-0.2", 1)
    assert len(trained) == 3


def test_costs_of_a_run(tmp_path: Path) -> None:
    ancor, scgm = (
        reproduce(f"scgm/table4/{name}-living17", scale="tiny", out=tmp_path).figures for name in ("ancor", "scgm-g")
    )
    for figures in (ancor, scgm):
        assert set(figures) == {"memory, GB", "time, h", "size, GB"}
        assert 0 < figures["time, h"][0] < 1
    assert ancor["size, GB"][0] > 1.5 * scgm["size, GB"][0]  # the twin, and queues


def test_settings_change_the_recipe(tmp_path: Path) -> None:
    found: list[Run] = []
    asked = {"scale": "tiny", "out": tmp_path, "on_run": found.append}
    reproduce("sclre/table3/sclre-c4", **asked)  # type: ignore[arg-type]
    reproduce("sclre/table3/sclre-c4", settings=["attention=bank", "epochs=2"], **asked)  # type: ignore[arg-type]
    assert [run.recipe["method"]["attention"] for run in found] == ["batch", "bank"]
    assert [run.recipe["training"]["epochs"] for run in found] == [1, 2]
    with pytest.raises(UserError, match="sup-ce has no setting 'attention'"):
        reproduce("sclre/table3/baseline-c4", settings=["attention=bank"], **asked)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no scale 'huge': choose from tiny, small, paper"):
        reproduce("sclre/table3/sclre-c4", scale="huge")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="seeds=0"):
        reproduce("sclre/table3/sclre-c4", seeds=0)
    with pytest.raises(UserError, match="no recipe 'sclre/table3/sclre': did you mean"):
        reproduce("sclre/table3/sclre", **asked)  # type: ignore[arg-type]


def test_baselines_are_those_of_evaluate(tmp_path: Path) -> None:
    runs: list[Run] = []
    found = reproduce("maskcon/table1/maskcon-good", scale="tiny", out=tmp_path, on_run=runs.append)
    options = {"ks": [1, 2, 5, 10]}
    judged = evaluate(runs[0], levels=["label"], protocols=["recall"], options=options, write=False).flat()
    assert set(found.beside) == {"raw", "random"}
    for name, figures in found.beside.items():
        assert figures["R@1"] == (100 * judged[f"test/label/recall@1.{name}"],)
    alone = reproduce("maskcon/table1/maskcon-good", scale="tiny", out=tmp_path, baselines=False)
    assert alone.beside == {}
    assert alone.figures == found.figures
    text = markdown([alone, found]).splitlines()
    assert [line.split(" | ")[0] for line in text if line.startswith("| ")][2:] == [
        "| raw input",
        "| random weights",
        "| MaskCon, good",
        "| MaskCon, good",
    ]


def test_what_cannot_be_run_is_told(tmp_path: Path) -> None:
    missing = reproduce("maskcon/table2/maskcon", out=tmp_path / "runs", root=tmp_path)
    assert missing.problem.startswith("cifar100-20 was not found. Looked for")
    assert missing.figures == {}
    theirs = reproduce("self_classifier/table1/dino", out=tmp_path / "runs", root=tmp_path)
    assert theirs.problem == "not implemented here"
    assert theirs.to_json()["paper"] == {"NMI": 66.2, "AMI": 42.3, "ARI": 15.6, "ACC": 30.7}


def test_ours_stand_beside_the_papers() -> None:
    chosen = select("maskcon/table2")[:2]
    figures = {"R@1": (40.0, 42.0, 44.0), "R@2": (50.0, 50.0, 53.0)}
    found = [
        Reproduction(chosen[0], "small", (0, 1, 2), figures, settings=("presets=[weak, weak]",)),
        Reproduction(chosen[1], "small", (), {}, "no data"),
    ]
    text = markdown(found)
    mean, low, high = (100 * end for end in mean_interval([0.40, 0.42, 0.44]))
    row = next(line for line in text.splitlines() if line.startswith("| SelfCon"))
    assert row.split(" | ")[1:3] == [f"{mean:.1f} ({low:.1f} to {high:.1f})", "40.50"]
    assert "Scale `small`, 3 seeds." in text
    assert "- Grafit: no data" in text
    assert "regrain reproduce maskcon/table2/selfcon --scale small --seeds 3 --set 'presets=[weak, weak]'\n" in text
    assert [len(group.rows) for group in grouped(found)] == [2]
    sclre = [Reproduction(r, "tiny", (0,), {"total": (50.0,)}) for r in select("sclre/table4")]
    assert len(grouped(sclre)) == 3  # their superclasses differ, and so do their columns


def test_a_page_keeps_what_it_holds(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results.md"
    append(page, "one\n")
    append(page, "two\n")
    assert page.read_text() == "## Reproductions\n\none\n\ntwo\n"
    page.write_text("# Results\n\nprose\n")
    append(page, "three\n")
    assert page.read_text() == "# Results\n\nprose\n\n## Reproductions\n\nthree\n"
