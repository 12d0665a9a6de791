"""Models to and from the Hugging Face Hub's layout, by a local folder."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import regrain as package
from regrain.errors import RegrainWarning, UserError
from regrain.hub import from_pretrained, save_to_directory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> package.Run:
    place = tmp_path_factory.mktemp("hub") / "run"
    settings = ["epochs=1", "batch_size=64"]
    return package.fit("sup-ce", "digits", encoder="conv4", out=place, settings=settings, limit_per_class=20)


def test_what_is_loaded_is_what_was_saved(run: package.Run, tmp_path: Path) -> None:
    place = save_to_directory(run, tmp_path / "shared", licence="apache-2.0")
    loaded, test = from_pretrained(place), run.splits()["test"]
    assert torch.equal(loaded.embed(test), run.embed())
    assert torch.equal(loaded.predict_proba(test, "group"), run.predict_proba(test, "group"))
    assert loaded.labels.names("group") == run.labels.names("group")
    with pytest.raises(UserError, match="the model was trained on no level 'digit': choose from group"):
        loaded.predict_proba(test, "digit")
    strange = package.load(["a text", "another"], labels={"kind": ["a", "b"]})
    for refuse in (loaded.embed, lambda data: loaded.predict_proba(data, "group")):
        with pytest.raises(UserError, match="the model was trained on image data"):
            refuse(strange)
    with pytest.raises(UserError, match="trained on image data"):
        run.predict_proba(strange, "group")


def test_the_card_is_the_hubs(run: package.Run, tmp_path: Path) -> None:
    place = save_to_directory(run, tmp_path / "shared", licence="apache-2.0")
    _, front, body = (place / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["library_name"] == "regrain"
    assert about["license"] == "apache-2.0"
    assert about["pipeline_tag"] == "image-feature-extraction"
    assert {"sup-ce", "image"} <= set(about["tags"])
    assert (run.path / "card.md").read_text().strip() in body
    assert "- group: " in body


def test_nothing_is_lost(run: package.Run, tmp_path: Path) -> None:
    place = save_to_directory(run, tmp_path / "shared")
    with pytest.raises(UserError, match="replace it with overwrite=True"):
        save_to_directory(run, place)
    save_to_directory(run, place, overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(UserError, match="holds other things"):
        save_to_directory(run, tmp_path / "mine", overwrite=True)
    (place / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"holds other things beside a model, such as 'thesis\.tex'"):
        save_to_directory(run, place, overwrite=True)
    assert (place / "thesis.tex").exists()
    theirs = tmp_path / "theirs"  # of another library, whose files have the same names
    theirs.mkdir()
    for name in ("model.safetensors", "README.md"):
        (theirs / name).touch()
    for content in ('{"hidden_size": 4}', "[]", "{"):
        (theirs / "config.json").write_text(content)
        with pytest.raises(UserError, match="theirs holds other things"):
            save_to_directory(run, theirs, overwrite=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "shared", "theirs"]


def test_the_current_folder_is_a_place(run: package.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    monkeypatch.chdir(tmp_path / "shared")
    assert save_to_directory(run, ".") == tmp_path / "shared"
    assert (tmp_path / "shared" / "config.json").is_file()


def test_a_download_that_broke_off_is_completed(
    run: package.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = save_to_directory(run, tmp_path / "whole")
    part = tmp_path / "part"
    part.mkdir()
    for name in ("config.json", "manifest.json"):
        shutil.copy(whole / name, part)
    asked: list[bool] = []

    def snapshot_download(repository: str, *, revision: str | None, local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        return str(part if local_files_only else whole)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr("regrain.hub.why_no_download", lambda repository: None)
    with monkeypatch.context() as offline:
        offline.setattr("regrain.hub.why_no_download", lambda repository: "no network")
        with pytest.raises(UserError, match=r"owner/name holds no model .*: model\.safetensors missing"):
            from_pretrained("owner/name")
    asked.clear()
    assert torch.equal(from_pretrained("owner/name").embed(run.splits()["test"]), run.embed())
    assert asked == [True, False]
    shutil.copy(whole / "model.safetensors", part)
    from_pretrained("owner/name")
    assert asked == [True, False, True]


@pytest.mark.parametrize("kind", ["run", "hub"])
def test_a_run_or_a_hub_folder_is_a_start(run: package.Run, tmp_path: Path, kind: str) -> None:
    place = run.path if kind == "run" else save_to_directory(run, tmp_path / "shared")
    settings = ["epochs=1", "learning_rate=1e-12", "weight_decay=0"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RegrainWarning)
        more = package.fit(
            "simclr", "digits", encoder="conv4", pretrained=str(place), out=tmp_path / "more", settings=settings
        )
    for name, value in run.model.method.encoder.named_parameters():
        torch.testing.assert_close(more.model.method.encoder.state_dict()[name], value)


def test_what_cannot_be_loaded(run: package.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"config\.json and model\.safetensors missing"):
        from_pretrained(tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        package.push_to_hub(tmp_path, "owner/name")
    place = save_to_directory(run, tmp_path / "shared")
    (place / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(UserError, match=r"is not a model of regrain's: its config\.json has no 'method'"):
        from_pretrained(place)
    monkeypatch.setattr("regrain.hub.why_no_download", lambda repository: "no network")
    with pytest.raises(UserError, match=r"'owner/name' is not a folder, and could not be had .*: no network"):
        from_pretrained("owner/name")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> package.Run:
    """A run that was adapted to finer classes, of texts in a column that has to be named."""
    place = tmp_path_factory.mktemp("texts")
    animals = [
        f"{what} {kind} number {n}" for kind in ("cats", "dogs") for what in ("small", "large") for n in range(12)
    ]
    table = pd.DataFrame(
        {
            "question": animals,
            "remark": [f"remark {n} says nothing of it, at some length" for n in range(48)],
            "kind": ["cat"] * 24 + ["dog"] * 24,
        }
    )
    table.to_csv(place / "animals.csv", index=False)
    options = {"encoder": "hash-text", "settings": ["epochs=2", "batch_size=16"]}
    run = package.fit("sup-ce", place / "animals.csv", levels=["kind"], text="question", out=place / "run", **options)
    table["size"] = [text.split()[0] for text in animals]
    return run.adapt(table, place / "mine", level="size", text="question")


def test_predictions_are_the_runs(run: package.Run, texts: package.Run, tmp_path: Path) -> None:
    loaded = from_pretrained(save_to_directory(texts, tmp_path / "texts"))
    assert loaded.classes == texts.classes == {"kind": ("cat", "dog"), "size": ("large", "small")}
    questions = ["small cats", "large dogs"]
    frame = pd.DataFrame({"remark": ["a longer remark on nothing at all"] * 2, "question": questions})
    table = tmp_path / "new.csv"
    frame.to_csv(table, index=False)
    for data in (frame, table, questions):
        found = loaded.predict(data)
        pd.testing.assert_frame_equal(found, texts.predict(data))
        assert {"kind", "size", "size_probability", "abstained"} <= set(found)
        assert torch.equal(loaded.predict_proba(data, "size"), texts.predict_proba(data, "size"))
        assert torch.equal(loaded.embed(data, normalise=True), texts.embed(data, normalise=True))
    lengths = loaded.embed(frame, normalise=True).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(2))

    loaded = from_pretrained(save_to_directory(run, tmp_path / "images"))
    pixels = run.splits()["test"].samples.take(torch.arange(3)).numpy()
    files = [str(tmp_path / f"{n}.png") for n in range(3)]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image[0]).save(file)
    for data in (files, pixels, files[0]):
        pd.testing.assert_frame_equal(loaded.predict(data), run.predict(data))
    assert loaded.predict(files)["id"].tolist() == files


def test_discovered_subclasses_are_predicted_by_their_names(texts: package.Run, tmp_path: Path) -> None:
    run = package.Run.load(texts.path.with_name("run"))
    found = run.discover(each=2)
    first = found.subclasses[0]
    names = tmp_path / "names.json"
    names.write_text(json.dumps({first.number: "mine"}))
    run.discover(names=names)
    place = save_to_directory(run, tmp_path / "named")
    said = "".join(file.read_text() for file in place.rglob("*.json"))
    assert "exemplars" not in said  # ids and texts of the run's own samples stay at home
    asked = ["small cats", "large dogs", "small dogs number 4", "large cats number 3"]
    table = from_pretrained(place).predict(asked)
    pd.testing.assert_frame_equal(table, run.predict(asked))
    assert "mine" in from_pretrained(place).subclasses.names.values()
    assert "subclass_probability" in table
    save_to_directory(run, place, overwrite=True)


def test_the_cards_lines_run_and_its_figures_are_the_evaluations(
    run: package.Run, texts: package.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (20, 30), 90).save("photo.jpg")
    generator = np.random.default_rng(0)
    values, beside = (generator.normal(size=(24, *shape)).astype(np.float32) for shape in ((5, 2), (3,)))
    series = package.load(values, static=beside, labels={'a "kind"': ["x", "y"] * 12})
    walks = package.fit("sup-ce", series, out=tmp_path / "walks", settings=["epochs=1", "batch_size=8"])
    for place, (trained, rows, level) in enumerate(((run, 1, "group"), (texts, 2, "size"), (walks, 2, 'a "kind"'))):
        folder = save_to_directory(trained, f"shared-{place}")
        body = (folder / "README.md").read_text(encoding="utf-8")
        assert "## Figures" not in body
        (code,) = re.findall(r"^```python\n(.*?)^```", body, re.DOTALL | re.MULTILINE)
        names: dict[str, Any] = {}
        exec(code, names)
        assert len(names["table"]) == len(names["vectors"]) == rows
        assert names["shares"].shape == (rows, len(trained.classes[level]))
        assert names["names"] == trained.classes[level]

    judged = run.evaluate(levels=["digit"], protocols=["recall"])
    try:
        body = (save_to_directory(run, tmp_path / "judged") / "README.md").read_text(encoding="utf-8")
    finally:
        (run.path / "evaluation.json").unlink()
    _, figures = body.split("## Figures\n")
    assert all(finding.sentence in figures for finding in judged.verdict)
    assert judged.verdict
    recall = next(row for row in judged.rows if (row.representation, row.metric) == ("model", "recall@1"))
    line = next(line for line in figures.splitlines() if line.startswith("| digit | recall@1 |"))
    assert f"{100 * recall.score.value:.2f}" in line
    assert f"{100 * recall.score.low:.2f} to {100 * recall.score.high:.2f}" in line
    assert str(run.path) not in body


def test_a_model_is_pushed(run: package.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an API that keeps what it is given in a folder."""
    calls: list[tuple[Any, ...]] = []

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            calls.append((self.token, repo_id, private, exist_ok))
            return f"https://hub/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
            if repo_id == "owner/closed":
                raise OSError("403 Forbidden")
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert run.push_to_hub("owner/one", licence="mit", token="secret") == "https://hub/owner/one"
    assert calls == [("secret", "owner/one", True, True)]
    card = (tmp_path / "owner/one/README.md").read_text(encoding="utf-8")
    assert 'from_pretrained("owner/one")' in card
    assert "license: mit" in card
    pushed, test = from_pretrained(tmp_path / "owner/one"), run.splits()["test"]
    assert torch.equal(pushed.embed(test), run.embed())
    package.push_to_hub(run.path, "owner/two", private=False)
    assert calls[1:] == [(None, "owner/two", False, True)]
    with pytest.raises(UserError, match=r"owner/closed could not be written to: .*403 Forbidden"):
        run.push_to_hub("owner/closed")


def test_on_the_command_line(run: package.Run, regrain: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = regrain("export", run.path, "--format", "hub", "--out", "shared", "--json")
    assert code == 0
    assert json.loads(out)["files"] == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    assert from_pretrained("shared").model.method.name == "sup-ce"
