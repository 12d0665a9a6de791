"""Reports in a browser: what is seen, without an error or a request (the fixture ``visit`` fails on those)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Visit
from pages import SCRIPT, RunOf, dataset_of
from support import Command

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.pictures import map as map_module
from regrain.report import build, page, report

SECTIONS = (
    "verdict", "retrieval", "metrics", "map", "subclasses", "confusion", "few-shot", "doubtful", "curves", "about",
)  # fmt: skip
CROOKED = """() => [...document.querySelectorAll("table")].filter(table => {
  const lefts = row => [...row.cells].map(cell => Math.round(cell.getBoundingClientRect().left)).join();
  return [...table.rows].some(row => row.offsetParent && lefts(row) !== lefts(table.rows[0]));
}).map(table => table.closest("section").id)"""
"""Sections with a table whose rows do not stand in the columns of its head."""
DRAWN = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(v => v > 0)"
"""Whether anything is painted on a canvas."""


@pytest.mark.parametrize(
    ("modality", "cell"),
    [("image", ".tile"), ("text", ".text"), ("vector", "svg rect"), ("series", "svg path")],
)
def test_every_modality_is_shown(run_of: RunOf, visit: Visit, tmp_path: Path, modality: str, cell: str) -> None:
    page = visit(report(run_of(modality), out=tmp_path / "page.html"))
    assert page.locator("html[data-ready]").count() == 1
    assert page.title() == f"maskcon on {modality}s & co"
    for section in SECTIONS:
        assert page.locator(f"#{section} h2").is_visible(), section
    assert page.locator(".missing").count() == 0
    assert page.evaluate(CROOKED) == []
    assert "`" not in page.locator("main").inner_text()
    # metrics at both levels, with baselines and intervals
    assert page.locator("#metrics h3").all_inner_texts() == ["Level “pet”", "Level “breed”"]
    head = page.locator("#metrics thead").first.inner_text()
    assert head.split() == ["metric,", "%", "model", "raw", "random", "95%", "interval", "of", "model"]
    assert re.search(r"\d to \d+\.\d\d, queries", page.locator("#metrics table").first.inner_text())
    # charts with titles, axes and units
    few = page.locator("#few-shot .chart").last
    assert few.locator("figcaption").inner_text().startswith("Few-shot accuracy at level 'breed'")
    assert {"labelled samples of each class", "accuracy, %"} <= set(few.locator("svg text").all_text_contents())
    assert few.locator("svg path").count() == 3
    assert page.locator("#curves .chart svg").count() >= 4
    # samples in galleries and grids
    for section in ("retrieval", "subclasses"):
        place = page.locator(f"#{section} [data-cell]").first
        place.scroll_into_view_if_needed()
        place.locator(cell).first.wait_for(state="visible", timeout=5000)  # drawn when the browser sees that it is near
    assert page.locator("#retrieval .row").count() == 12
    assert page.locator("#retrieval .row").first.locator(".verdict").count() == 10
    for canvas in page.locator("canvas").all():
        assert canvas.evaluate(DRAWN)
    # what came from the data is text, wherever it stands
    assert SCRIPT in page.locator("#confusion").inner_text() + page.locator("#map-legend").inner_text()
    assert page.locator("main script, main img, .text i").count() == 0


def test_map_hover_levels_and_one_class_alone(run_of: RunOf, visit: Visit, tmp_path: Path) -> None:
    page = visit(report(run_of("image"), out=tmp_path / "page.html"))
    assert page.locator("#map-level option").all_inner_texts() == ["pet", "breed", "subclass (discovered)"]
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    tip = page.locator("#tip")
    for step in range(60 * 40):  # somewhere there is a point under the pointer
        page.mouse.move(box["x"] + 20 + 13 * (step % 60), box["y"] + 20 + 13 * (step // 60))
        if tip.is_visible():
            break
    assert "pet: " in tip.inner_text()
    assert "<img src=x" in tip.inner_text()
    assert tip.locator(".tile").count() == 1
    page.mouse.move(1, 1)
    before = canvas.screenshot()
    page.locator("#map-legend span").first.click()
    assert page.locator("#map-legend .off").count() == 3
    alone = canvas.screenshot()
    page.select_option("#map-level", label="pet")
    assert len({before, alone, canvas.screenshot()}) == 3
    assert page.locator("#map-legend span").all_inner_texts() == ["cat (16)", "dog (16)"]


def test_dark_light_and_phone(run_of: RunOf, visit: Visit, tmp_path: Path) -> None:
    place = report(run_of("text"), out=tmp_path / "page.html")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, light = visit(place, dark=True), visit(place)
    assert dark.evaluate(paper) != light.evaluate(paper)
    light.locator("#theme").click()
    assert light.evaluate(paper) == dark.evaluate(paper)
    phone = visit(place, width=390, height=800)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    for section in SECTIONS:
        box = phone.locator(f"#{section}").bounding_box()
        assert box is not None
        assert box["width"] <= 390


def test_readable_without_script(run_of: RunOf, visit: Visit, tmp_path: Path) -> None:
    page = visit(report(run_of("vector"), out=tmp_path / "page.html"), java_script_enabled=False)
    assert page.locator("#metrics table:visible").count() == 2
    assert "recall@5" in page.locator("#metrics details table").last.text_content()
    assert page.locator("#few-shot summary").first.is_visible()
    page.locator("#few-shot summary").last.click()
    assert "random" in page.locator("#few-shot table").last.inner_text()
    assert SCRIPT in page.locator("#confusion").inner_text() + page.locator("#retrieval").inner_text()


def test_a_planted_wrong_label_is_the_first_in_doubt(run_of: RunOf, visit: Visit, tmp_path: Path) -> None:
    given = dataset_of("vector")
    codes = given.labels.codes.clone()
    codes[12] = codes[14]  # a cat of the test split that is called a dog
    relabelled = replace(given, labels=replace(given.labels, codes=codes))
    page = visit(report(run_of("vector"), relabelled, out=tmp_path / "page.html"))
    page.locator("#doubtful td").first.scroll_into_view_if_needed()
    page.locator("#doubtful td svg").first.wait_for(state="attached", timeout=5000)
    for table in page.locator("#doubtful table:visible").all():
        cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
        assert cells[1] == str(given.ids[12])
        assert cells[2:4] in (["dog", "cat"], [SCRIPT, "siamese"])
        assert float(cells[4]) < 0.1
    assert page.locator("#doubtful table:visible").count() == 2


def test_sections_without_their_input_say_why(run_of: RunOf, visit: Visit, tmp_path: Path) -> None:
    run = run_of("vector")
    given = dataset_of("vector")
    bare = replace(given, labels=Labels.empty(len(given)), splits=None, name="bare")
    page = visit(report(run, bare, out=tmp_path / "bare.html"))
    why = {section: page.locator(f"#{section} .missing").all_inner_texts() for section in SECTIONS}
    assert [section for section in SECTIONS if why[section]] == [
        "verdict", "retrieval", "metrics", "subclasses", "confusion", "few-shot", "doubtful",
    ]  # fmt: skip
    assert all(text.startswith("Not shown: ") for texts in why.values() for text in texts)
    assert page.locator("#map-canvas").evaluate(DRAWN)
    coarse = replace(given.with_levels(["pet"]), name="coarse")
    page = visit(report(run, coarse, out=tmp_path / "coarse.html"))
    assert page.locator("#confusion h3").all_inner_texts() == ["Level “pet”"]
    assert page.locator("#confusion .missing, #metrics .missing").count() == 0


@pytest.mark.parametrize(
    ("absent", "options"), [("jinja2", {}), ("openTSNE", {}), ("matplotlib", {"figures": "drawn"})]
)
def test_a_missing_package_is_said_before_anything(
    run_of: RunOf, monkeypatch: pytest.MonkeyPatch, absent: str, options: dict[str, str], tmp_path: Path
) -> None:
    found = page.find_spec
    monkeypatch.setattr(page, "find_spec", lambda name: None if name == absent else found(name))
    said: list[str] = []
    with pytest.raises(UserError, match=rf"{absent} not installed.*pip install 'regrain\[report\]'"):
        report(run_of("vector"), out=tmp_path / "page.html", say=said.append, **options)
    assert not said


@pytest.mark.slow
def test_fifty_thousand_samples(visit: Visit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page of 50,000 noisy pictures, all on the map, with 200 classes: its size. Its places are drawn, not found."""
    generator = np.random.default_rng(0)
    fine = np.arange(50_200) % 200
    pixels = torch.from_numpy(generator.integers(0, 256, (len(fine), 3, 32, 32), dtype=np.uint8))
    columns = {"super": [f"class {f % 20}" for f in fine], "fine": [f"a longer name of class {f}" for f in fine]}
    splits = np.where(np.arange(len(fine)) < 50_000, "test", "train")
    ids = np.array([f"folder/of/a/superclass/and/a/class/picture-{row:06d}.jpeg" for row in range(len(fine))])
    data = Dataset(TensorSamples(pixels, "image"), Labels.from_columns(columns), ids, "noise", splits)
    run = regrain.fit("kmeans", data, encoder="conv4", out=tmp_path / "run", settings=["subclasses=40"], device="cpu")
    monkeypatch.setattr(
        map_module, "_tsne", lambda vectors, *_: generator.normal(size=(len(vectors), 2)).astype(np.float32)
    )
    monkeypatch.setattr(build, "evaluate", _no_time_for_that)
    place = report(run, out=tmp_path / "page.html", map_samples=50_000)
    assert place.stat().st_size < 20e6
    page = visit(place)
    assert "All 50000 samples; 3000 of them can be seen" in page.locator("#map p").first.inner_text()
    assert page.locator("#map-canvas").evaluate(DRAWN)
    print(page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart"), place.stat().st_size)


def _no_time_for_that(*_: Any, **__: Any) -> None:
    raise UserError("left out of this test")


def test_command_writes_page_and_figures(regrain: Command, tmp_path: Path) -> None:
    data = dataset_of("vector")
    values = data.samples.take(torch.arange(len(data))).numpy()
    labels = data.labels
    lines = ["pet,breed,split," + ",".join(f"f{i}" for i in range(6))]
    for row in range(len(data)):
        names = [labels.names(level)[int(labels.level(level)[row])] for level in labels.levels]
        lines.append(",".join([*names, str(data.splits[row]), *map(str, values[row])]))  # type: ignore[index]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    told = ["--columns", "f*", "--level", "pet", "--level", "breed", "--split-column", "split"]
    code, _, err = regrain(
        "fit", "maskcon", "t.csv", *told, "--epochs", "2", "--quiet", "--out", "run", "--encoder", "mlp"
    )
    assert code == 0, err
    code, out, err = regrain("report", "run", "--figures", "drawn")
    assert code == 0, err
    assert out == "page in run/report.html, figures in drawn\n"
    assert "... evaluation" in err
    assert (tmp_path / "run" / "evaluation.json").exists()
    names = sorted(file.name for file in (tmp_path / "drawn").iterdir())
    for stem in ("00-loss", "map-pet", "map-breed", "confusion-breed"):
        assert {f"{stem}.png", f"{stem}.svg"} <= set(names)
    assert "poodle" in (tmp_path / "drawn" / "confusion-breed.svg").read_text()
    before = (tmp_path / "run" / "report" / "map-test.npz").stat().st_mtime_ns
    code, out, err = regrain("report", "run")  # again: what is there is used, and the default place is replaced
    assert code == 0, err
    assert "... evaluation" not in err
    assert (tmp_path / "run" / "report" / "map-test.npz").stat().st_mtime_ns == before
    code, _, err = regrain("evaluate", "run", "-p", "linear", "--no-baselines")
    assert code == 0, err
    code, out, err = regrain("report", "run")  # a narrower evaluation took nothing away
    assert "... evaluation" not in err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<th>linear</th>" in page
    assert "<th>recall@1</th>" in page
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())["evaluations"][0]["rows"]
    assert {"linear", "linear-balanced", "recall@1", "knn@20"} <= {row["metric"] for row in rows}
    for wrong, message in (
        (["--figures", "drawn"], "exists: choose another folder for --figures"),
        (["--out", "run/report.html"], "exists: choose another --out"),
        (["--out", "page.pdf"], "reports are written to .html"),
        (["--split", "val"], "no split 'val'"),
        (["--text", "x"], "without other data (--data)"),
    ):
        code, _, err = regrain("report", "run", *wrong)
        assert code == 2
        assert message in err
