"""Models to and from the Hugging Face Hub's layout, by a local folder."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import regrain as package
from regrain.errors import RegrainWarning, UserError
from regrain.hub import from_pretrained, push, save_to_directory


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
    with pytest.raises(UserError, match="is not in the Hub's layout"):
        push(tmp_path, "owner/name")
    place = save_to_directory(run, tmp_path / "shared")
    (place / "config.json").write_text(json.dumps({"hidden_size": 4}))
    with pytest.raises(UserError, match=r"is no model of Regrain's: its config\.json has no 'method'"):
        from_pretrained(place)
    monkeypatch.setattr("regrain.hub.why_no_download", lambda repository: "no network")
    with pytest.raises(UserError, match=r"'owner/name' is no folder, and could not be had .*: no network"):
        from_pretrained("owner/name")


def test_on_the_command_line(run: package.Run, regrain: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = regrain("export", run.path, "--format", "hub", "--out", "shared", "--json")
    assert code == 0
    assert json.loads(out)["files"] == ["README.md", "config.json", "manifest.json", "model.safetensors"]
    assert from_pretrained("shared").model.method.name == "sup-ce"
