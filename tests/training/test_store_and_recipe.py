"""Run folders are never lost by accident, and recipes are checked against the signatures."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest
import yaml

from regrain.checks import check_values, hyperparameters
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods import METHODS, method_class
from regrain.runs.recipe import merge, parse_assignments, read_recipe, recipe_for
from regrain.storage.files import SCHEMA, Folder
from regrain.storage.run_folder import RunFolder
from regrain.training.options import TrainingOptions


def test_a_run_is_not_overwritten_and_other_files_never_are(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.start({"seed": 1}, Labels.empty(0))
    run.write_text("card.md", "kept")
    with pytest.raises(UserError, match=r"already holds a run: .*regrain resume .*--overwrite"):
        run.begin()
    (run.path / "notes of mine.txt").write_text("precious")
    run.begin(overwrite=True)
    assert {file.name for file in run.path.iterdir()} == {".lock", "manifest.json", "notes of mine.txt"}
    assert (run.path / "notes of mine.txt").read_text() == "precious"
    run.begin()  # begun and stopped: nothing is lost by taking it
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "recipe.yaml").write_text("of a cake")
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="is not empty and holds no run"), RunFolder(tmp_path / "photos").writing():
        pass
    assert sorted(file.name for file in (tmp_path / "photos").iterdir()) == ["a.jpg", "recipe.yaml"]
    with pytest.raises(UserError, match="is a file"), RunFolder(tmp_path / "photos" / "a.jpg").writing():
        pass
    with pytest.raises(UserError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no run"):
        RunFolder.open(tmp_path / "photos")


def test_json_files_carry_a_schema_and_newer_ones_are_refused(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_json("state.json", {"finished": True})
    assert json.loads((tmp_path / "state.json").read_text()) == {"schema": SCHEMA, "finished": True}
    assert run.finished
    run = RunFolder(tmp_path, verify=False)
    (tmp_path / "state.json").write_text('{"schema": 99}')
    with pytest.raises(UserError, match="has schema 99; this regrain reads up to 1"):
        run.read_json("state.json")
    (tmp_path / "state.json").write_text('{"sch')
    with pytest.raises(UserError, match="is damaged"):
        run.read_json("state.json")
    with pytest.raises(UserError, match="is missing"):
        run.read_json("evaluation.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write_json("state.json", {"finished": True})
    before = folder.read_json("state.json")

    def fail(file: Path) -> None:
        file.write_text("half")
        raise TypeError

    with pytest.raises(TypeError):
        folder.write({"other.json": lambda file: file.write_text("{}"), "state.json": fail})
    assert folder.read_json("state.json") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "state.json"]


def test_metrics_rows_after_a_resume_replace_older_ones(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0)):
        run.append_metrics({"epoch": epoch, "loss": loss})
    run.append_metrics({"epoch": 2, "loss": 2.5, "extra": 1.0})
    assert run.read_metrics() == [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.5, "extra": 1.0}]
    assert run.metrics_file.read_text().splitlines()[1].startswith("1,")


def test_recipes_are_checked_against_signatures() -> None:
    maskcon = hyperparameters(method_class("maskcon"))
    assert list(maskcon)[:2] == ["soft_temperature", "weight"]
    assert {"temperature", "queue_size", "momentum"} <= set(maskcon)
    values = check_values({"weight": "0.25"}, maskcon, "maskcon")
    assert values["weight"] == 0.25
    assert values["queue_size"] == 8192
    for given, message in (
        ({"wieght": 1}, "maskcon has no setting 'wieght': did you mean 'weight'"),
        ({"queue_size": "many"}, "maskcon.queue_size must be a whole number.*; got 'many'"),
    ):
        with pytest.raises(UserError, match=message):
            check_values(given, maskcon, "maskcon")
    options = hyperparameters(TrainingOptions)
    with pytest.raises(UserError, match="optimizer must be one of sgd, adamw, lars; got 'sdg'"):
        check_values({"optimizer": "sdg"}, options, "training")


def test_assignments() -> None:
    parsed = parse_assignments(["temperature=0.2", "epochs=3", "encoder.name=conv4", "seed=7"], "grafit")
    assert parsed == {
        "method": {"temperature": 0.2},
        "training": {"epochs": 3},
        "encoder": {"name": "conv4"},
        "seed": 7,
    }
    for text, message in (
        ("soft_temperature=1", "grafit has no setting 'soft_temperature'"),
        ("epochs", "--set takes key=value"),
        ("trainig.epochs=3", "no section 'trainig': did you mean 'training'"),
        ("epochs=[1", "cannot be read as a value"),
    ):
        with pytest.raises(UserError, match=message):
            parse_assignments([text], "grafit")


def test_recipe_files(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    with pytest.raises(UserError, match="no such recipe"):
        read_recipe(file)
    file.write_text("trainning: {}")
    with pytest.raises(UserError, match="no section 'trainning': did you mean 'training'"):
        read_recipe(file)
    file.write_text("a: [")
    with pytest.raises(UserError, match="cannot be read as YAML: line 1: expected"):
        read_recipe(file)
    file.write_text("- 1")
    with pytest.raises(UserError, match="holds no recipe"):
        read_recipe(file)
    file.write_text(yaml.safe_dump({"training": {"epochs": 4}, "seed": 2}))
    assert merge({"training": {"batch_size": 8}}, read_recipe(file)) == {
        "training": {"batch_size": 8, "epochs": 4},
        "seed": 2,
    }


def test_the_packages_recipes_are_valid() -> None:
    known = hyperparameters(TrainingOptions)
    for modality, method, small in product(("image", "text", "vector", "series"), METHODS, (False, True)):
        recipe = recipe_for(modality, method, small=small)
        TrainingOptions(**check_values(recipe.get("training", {}), known, f"training of {method} on {modality}"))
        check_values(recipe.get("method", {}), hyperparameters(method_class(method)), f"{method} on {modality}")


def test_a_methods_paper_wins_over_the_modality() -> None:
    assert recipe_for("image", "scgm-a")["training"]["learning_rate"] == 0.03
    assert recipe_for("image", "maskcon").get("training", {}) == {}
    assert recipe_for("vector", "scgm") == recipe_for("vector", "maskcon")


@pytest.mark.parametrize("method", ["mlcl", "himulcone"])
def test_a_method_may_have_a_recipe_for_pretrained_encoders(method: str) -> None:
    scratch, pretrained = (recipe_for("image", method, pretrained=weights) for weights in (False, True))
    assert scratch["training"]["learning_rate"] == 0.5
    assert "training" not in pretrained  # the rates of images, which do not undo the weights
    assert scratch["method"] == pretrained["method"] == {"projector_hidden": 2048}
    assert recipe_for("vector", method, pretrained=True) == recipe_for("vector", "sup-ce")


def test_a_method_may_have_a_recipe_for_small_images() -> None:
    large, small = (recipe_for("image", "self-classifier", small=small) for small in (False, True))
    assert large["method"]["class_counts"] == [1000, 2000, 4000, 8000]
    assert (large["training"]["epochs"], large["training"]["optimizer"]) == (800, "lars")
    assert "class_counts" not in small["method"]
    assert (small["training"]["epochs"], small["training"]["batch_size"]) == (100, 256)
    for modality, method in (("image", "scgm"), ("image", "turtle"), ("text", "self-classifier")):
        assert recipe_for(modality, method, small=True) == recipe_for(modality, method)
    assert recipe_for("vector", "turtle")["training"]["optimizer"] == "adamw"
