"""The Python face: keywords, what its objects take and show, and how it fails."""

from __future__ import annotations

import ast
import inspect
import json
import random
import shutil
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support import Soon

import regrain
from regrain import registry
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.hub import from_pretrained
from regrain.report import compare
from regrain.training.loop import Stopped

QUICK = {"encoder": "mlp", "epochs": 1, "device": "cpu"}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return regrain.load("digits")


@pytest.fixture(scope="module")
def run(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    place = tmp_path_factory.mktemp("runs") / "run"
    return regrain.fit("sup-ce", digits, out=place, limit_per_class=10, seed=1, **QUICK)  # type: ignore[arg-type]


def table(count: int = 60, seed: int = 0) -> pd.DataFrame:
    random_numbers = np.random.default_rng(seed)
    kinds = ["round", "square"] * (count // 2)
    features = random_numbers.normal(size=(count, 3)) + np.array([[kind == "round"] for kind in kinds])
    return pd.DataFrame(features, columns=["f1", "f2", "f3"]).assign(kind=kinds, key=[f"k{i}" for i in range(count)])


def test_the_package_says_its_version_and_its_names() -> None:
    told = subprocess.run([sys.executable, "-m", "regrain", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == f"regrain {regrain.__version__}"
    assert {"fit", "load", "Run", "__version__"} <= set(dir(regrain))
    assert not [name for name in dir(regrain) if name.startswith("_") and not name.startswith("__")]


def test_verbs_of_runs_are_functions_and_methods(run: regrain.Run, digits: Dataset) -> None:
    for name in registry.verbs_of_runs():
        assert getattr(regrain.Run, name) is getattr(regrain, name)
        assert next(iter(inspect.signature(getattr(regrain, name)).parameters)) == "run"
        assert name in dir(run)
    assert torch.equal(run.embed(digits), regrain.embed(run.path, digits))
    assert torch.equal(run.embed(digits), regrain.embed(run=run, data=digits))
    assert repr(regrain.Run.load(run.path)) == repr(regrain.Run.open(run.path))


def test_type_checkers_see_every_verb_of_runs() -> None:
    tree = ast.parse(Path(inspect.getfile(regrain.Run)).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Run").body
    block = next(node for node in body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {ast.unparse(line) for line in block.body}
    assert seen == {f"{n} = _{home.rpartition('.')[2]}.{n}" for n, home in registry.verbs_of_runs().items()}


def test_settings_as_keywords_as_a_mapping_and_as_texts_are_one(digits: Dataset, tmp_path: Path) -> None:
    forms = (
        {"epochs": 2, "soft_temperature": 0.2},
        {"settings": {"epochs": np.int64(2), "soft_temperature": 0.2}},
        {"settings": {"training": {"epochs": 2}, "method.soft_temperature": 0.2}},
        {"settings": ["epochs=2", "soft_temperature=0.2"]},
    )
    recipes = []
    for number, form in enumerate(forms):
        made = regrain.fit("maskcon", digits, encoder="mlp", out=tmp_path / str(number), limit_per_class=4, **form)
        recipes.append(made.recipe)
    assert recipes[0]["training"]["epochs"] == 2
    assert recipes[0]["method"]["soft_temperature"] == 0.2
    assert all(recipe == recipes[0] for recipe in recipes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"banana": 3}, "sup-ce on these data has no option 'banana'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"overwrit": True}, "did you mean 'overwrite'"),
        ({"limit_pr_class": 3}, "did you mean 'limit_per_class'"),
        ({"weights": "file.pt"}, "no option 'weights': in Python it is pretrained="),
        ({"level": "kind"}, "no option 'level': in Python it is levels="),
        ({"epochs": "many"}, "training.epochs must be a whole number of at least 1; got 'many'"),
        ({"settings": "epochs=2"}, "settings must be a list of texts or a dictionary"),
        ({"settings": {"epohs": 2}}, "no setting 'epohs': did you mean 'epochs'"),
        ({"epochs": 2, "settings": {"epochs": 2}}, "epochs is given twice"),
        ({"text": "question"}, "no option 'text'"),
    ],
)
def test_unknown_keywords_are_errors(digits: Dataset, tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        regrain.fit("sup-ce", digits, encoder="mlp", out=tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_a_word_for_two_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown is a setting of supcon, and says how data are read"):
        regrain.fit("supcon", table(), levels=["kind"], unknown=["?"], out=tmp_path / "run")


def test_no_verb_passes_over_a_keyword(run: regrain.Run, digits: Dataset, tmp_path: Path) -> None:
    calls = [
        lambda **more: regrain.load(digits, **more),
        lambda **more: regrain.evaluate(run, **more),
        lambda **more: regrain.evaluate(run, digits, **more),
        lambda **more: regrain.discover(run, **more),
        lambda **more: regrain.discover(run, digits, **more),
        lambda **more: regrain.predict(run, digits, **more),
        lambda **more: regrain.calibrate(run, **more),
        lambda **more: regrain.adapt(run, digits, tmp_path / "adapted", **more),
        lambda **more: regrain.regroup(digits, "digits", tmp_path / "t.csv", **more),
        lambda **more: run.embed(**more),
        lambda **more: run.embed(digits, **more),
        lambda **more: run.predict_proba(digits, "group", **more),
        lambda **more: regrain.tune("sup-ce", digits, out=tmp_path / "tune", **more),
    ]
    for call in calls:
        with pytest.raises(UserError, match="banana"):
            call(banana=3)


def test_a_run_embeds_folders_lists_arrays_and_tables(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, size=(8, 12, 12, 3), dtype=np.uint8)
    for row, image in enumerate(images):
        place = tmp_path / "photos" / "ab"[row % 2] / f"{row}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    photos = regrain.fit("sup-ce", tmp_path / "photos", encoder="conv4", out=tmp_path / "p", holdout=0, epochs=1)
    paths = sorted(map(str, (tmp_path / "photos").rglob("*.png")))
    order = [int(Path(path).stem) for path in paths]
    expected = photos.embed(str(tmp_path / "photos"))
    assert torch.allclose(photos.embed(paths), expected, atol=1e-6)
    assert torch.allclose(photos.embed(images[order]), expected, atol=1e-6)
    assert photos.predict(paths)["id"].tolist() == paths
    assert photos.predict(paths[0])["id"].tolist() == paths[:1]
    kinds = [Path(path).parent.name for path in paths]
    options = {"protocols": ["recall"], "baselines": False, "write": False}
    judged = [photos.evaluate(source, split="all", labels=kinds, **options) for source in (paths, images[order])]
    judged.append(photos.evaluate(pd.DataFrame({"image": paths, "label": kinds}), split="all", **options))
    judged.append(photos.evaluate(tmp_path / "photos", split="train", **options))
    values = [found.to_frame()["value"].tolist() for found in judged]
    assert values[0]
    assert all(value == values[0] for value in values)

    texts = ["how are you", "turn left", "well thank you", "turn right"] * 5
    spoken = regrain.fit(
        "sup-ce", texts, labels={"kind": ["talk", "way"] * 10}, encoder="hash-text", out=tmp_path / "t", epochs=1
    )
    assert spoken.embed(["a.png", "b.png"]).shape[0] == 2  # texts, for the run is of texts

    numbers = regrain.fit("sup-ce", table(), levels=["kind"], columns=["f*"], out=tmp_path / "n", epochs=1)
    features = table()[["f1", "f2", "f3"]].to_numpy().copy()
    wanted = numbers.embed(table())
    assert torch.equal(numbers.embed(features), wanted)
    assert torch.equal(numbers.embed(features.tolist()), wanted)
    assert torch.equal(numbers.embed(torch.from_numpy(features)), wanted)
    table().to_csv(tmp_path / "new.csv")
    torch.testing.assert_close(numbers.embed(tmp_path / "new.csv"), wanted)
    assert numbers.predict_proba(features[:2], "kind").shape == (2, 2)


def test_predict_gives_a_table_without_a_file(run: regrain.Run, digits: Dataset, tmp_path: Path) -> None:
    found = regrain.predict(run, digits, split="test")
    assert isinstance(found, pd.DataFrame)
    assert found["id"].tolist() == digits.split("test").ids.tolist()
    best = run.predict_proba(digits.split("test"), "group").argmax(dim=1)
    assert found["group"].tolist() == [run.labels.names("group")[code] for code in best]
    regrain.predict(run, digits, tmp_path / "p.csv", split="test")
    assert pd.read_csv(tmp_path / "p.csv")["group"].tolist() == found["group"].tolist()


def test_objects_show_themselves_in_a_line(run: regrain.Run, digits: Dataset) -> None:
    found = regrain.evaluate(run, protocols=["recall"], baselines=False, write=False)
    discovered = regrain.discover(run, write=False)
    for thing in (run, digits, digits.labels, digits.samples, found, discovered, from_pretrained):
        assert len(repr(thing)) < 300, repr(thing)
    assert repr(run) == f"<Run sup-ce on digits, 1 epoch, {run.path}>"
    assert repr(regrain.Run.open(run.path)).startswith("<Run sup-ce on data in memory")
    assert "1797 image samples of 1 x 8 x 8; levels: group (3 classes), digit (10 classes)" in repr(digits)
    assert "group/recall@1 " in repr(found)


def test_results_are_frames_and_show_in_notebooks(run: regrain.Run, digits: Dataset) -> None:
    found = run.evaluate(protocols=["recall"], baselines=False, write=False)
    frame = found.to_frame().set_index(["level", "metric"])
    assert frame.loc[("group", "recall@1"), "value"] == found.flat()["test/group/recall@1"]
    assert frame.loc[("group", "recall@1"), "low"] == found.flat()["test/group/recall@1.low"]
    discovered = run.discover(write=False)
    samples = discovered.to_frame()
    assert samples["id"].tolist() == discovered.ids.tolist()
    assert set(samples["name"]) == {subclass.name for subclass in discovered.subclasses}
    for thing in (run, found, discovered):
        assert "<table" in thing._repr_html_()
    discovered.rename({discovered.subclasses[0].number: "<script>"})
    assert "&lt;script&gt;" in discovered._repr_html_()


def test_the_callers_random_state_stays(digits: Dataset, tmp_path: Path) -> None:
    def states() -> tuple[object, ...]:
        numpy = np.random.get_state(legacy=False)["state"]["key"].tolist()  # type: ignore[index,call-overload]
        return random.getstate(), numpy, torch.get_rng_state().tolist()

    torch.manual_seed(5)
    before = states()
    one = regrain.fit("sup-ce", digits, out=tmp_path / "one", limit_per_class=8, **QUICK)  # type: ignore[arg-type]
    regrain.evaluate(one, protocols=["recall", "clustering"], write=False)
    regrain.discover(one)
    one.embed(digits)
    assert states() == before
    torch.manual_seed(6)
    other = regrain.fit("sup-ce", digits, out=tmp_path / "other", limit_per_class=8, **QUICK)  # type: ignore[arg-type]
    assert torch.equal(one.embed(), other.embed())


def test_an_interrupt_is_a_short_message_that_says_how_to_go_on(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regrain.training import loop

    place = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.threading, "Event", lambda: Soon(4))  # as Ctrl-C sets it
        with pytest.raises(KeyboardInterrupt) as caught:
            regrain.fit("sup-ce", digits, encoder="mlp", epochs=3, batch_size=16, out=place, limit_per_class=10)
    told = traceback.format_exception(caught.value)
    assert told[-1].strip() == (
        f"KeyboardInterrupt: training stopped with a checkpoint: regrain.resume({str(place)!r}) goes on from there"
    )
    assert len("".join(told).splitlines()) < 15
    assert regrain.resume(place, digits).folder.finished
    with pytest.raises(Stopped):  # whoever brings an event of its own set it
        regrain.fit("sup-ce", digits, out=tmp_path / "own", interrupt=Soon(4), **QUICK)  # type: ignore[arg-type]


def test_errors_are_short_and_in_pythons_words(run: regrain.Run, digits: Dataset) -> None:
    with pytest.raises(UserError) as caught:
        regrain.fit("sup-ce", digits, encoder="mlp", out=run.path)
    assert str(caught.value).endswith("choose another out=, or replace it with overwrite=True")
    assert len("".join(traceback.format_exception(caught.value)).splitlines()) < 15
    with pytest.raises(UserError, match=r"holds no \w+|levels=\[\.\.\.\]") as caught:
        regrain.load(pd.DataFrame({"f1": [0.1, 0.2], "f2": [1.5, 2.5]}))
    assert "--" not in str(caught.value)


def test_guesses_are_warned_of_once(tmp_path: Path) -> None:
    data = table(seed=3).rename(columns={"key": "about", "kind": "sort"})
    data.to_csv(tmp_path / "guessed.csv", index=False)
    with pytest.warns(regrain.DataWarning, match=r"guessed: .*'sort' \(guessed\).*features: 3 columns"):
        regrain.load(tmp_path / "guessed.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        regrain.load(tmp_path / "guessed.csv")
        regrain.load(table(), columns=["f*"], levels=["kind"], id_column="key")
    (tmp_path / "guessed.csv").rename(tmp_path / "other.csv")
    with pytest.warns(regrain.DataWarning, match="other: levels, coarse to fine"):  # another data set, the same guess
        regrain.load(tmp_path / "other.csv")


def test_the_hubs_layout_from_python_keeps_an_adapted_classifier(
    run: regrain.Run, digits: Dataset, tmp_path: Path
) -> None:
    support = digits.split("train").select(range(60)).with_levels(["digit"])
    adapted = regrain.adapt(run, support, tmp_path / "adapted")
    made = regrain.export(adapted, format="hub", licence="apache-2.0")
    assert made.path == adapted.path / "export" / "adapted-hub"
    loaded = from_pretrained(made.path)
    test = digits.split("test")
    assert torch.equal(loaded.predict_proba(test, "digit"), adapted.predict_proba(test, "digit"))
    pd.testing.assert_frame_equal(loaded.predict(test), regrain.predict(adapted, test))
    assert "- digit: " in (made.path / "README.md").read_text(encoding="utf-8")
    assert "adapted to 'digit'" in repr(loaded)
    weights = regrain.export(adapted, format="safetensors")
    assert any("the classifier of 'digit'" in notice and "hub" in notice for notice in weights.notices)
    with pytest.raises(UserError, match="no level 'shape'"):
        loaded.predict_proba(test, "shape")


def test_a_calibrated_model_is_shared_with_its_answers(digits: Dataset, tmp_path: Path) -> None:
    made = regrain.fit("multi-ce", digits, out=tmp_path / "run", **QUICK)  # type: ignore[arg-type]
    regrain.calibrate(made, digits.split("test").select(range(200)), split="test")
    loaded = from_pretrained(regrain.export(made, format="hub").path)
    found = loaded.predict(digits.split("test"))
    assert "answer_level" in found
    assert json.loads((made.path / "export" / "run-hub" / "answers.json").read_text(encoding="utf-8"))


def test_options_that_say_how_to_read_need_data(tmp_path: Path) -> None:
    runs = [
        regrain.fit("features", "digits", encoder="identity", seed=seed, out=tmp_path / str(seed)) for seed in range(2)
    ]
    begun = tmp_path / "begun"
    shutil.copytree(runs[0].path, begun)
    shutil.rmtree(begun / "model")

    for asked in (
        lambda: compare(runs, text="x"),
        lambda: regrain.resume(begun, text="x"),
        lambda: runs[0].clean(text="x"),
    ):
        with pytest.raises(UserError, match="no option 'text' without other data"):
            asked()
