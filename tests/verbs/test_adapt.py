"""A few labels become a classifier: supports of both kinds, calibration, abstention, prediction, and every mistake."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from support import raises

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.runs.classifier import FewShotClassifier, fit_classifier
from regrain.storage.files import Folder

pytestmark = pytest.mark.usefixtures("own_cache")


def vectors(count: int = 120, seed: int = 0) -> Dataset:
    """Four subclasses of two classes, well apart."""
    generator = np.random.default_rng(seed)
    fine = np.arange(count) % 4
    x = 0.5 * generator.normal(size=(count, 8)).astype(np.float32) + 4 * np.eye(8, dtype=np.float32)[fine]
    labels = Labels.from_columns({"kind": [f"k{f // 2}" for f in fine], "sub": [f"s{f}" for f in fine]})
    splits = np.where(np.arange(count) % 5 == 0, "test", "train")
    ids = np.array([f"r{i}" for i in range(count)])
    return Dataset(TensorSamples(torch.from_numpy(x), "vector"), labels, ids, "vectors", splits)


@pytest.fixture
def run(tmp_path: Path) -> regrain.Run:
    """A plain classifier of the two classes."""
    settings = ["epochs=3", "batch_size=16"]
    return regrain.fit("sup-ce", vectors(), levels=["kind"], out=tmp_path / "run", settings=settings, device="cpu")


def id_table(path: Path, rows: list[int], labels: list[Any] | None = None) -> Path:
    named = [f"sub {r % 4}" for r in rows] if labels is None else labels
    pd.DataFrame({"id": [f"r{r}" for r in rows], "mine": named}).to_csv(path, index=False)
    return path


def test_ids_of_the_runs_own_data_become_a_run_that_predicts(run: regrain.Run, tmp_path: Path) -> None:
    support = id_table(tmp_path / "support.csv", [r for r in range(40) if r % 5])
    adapted = regrain.adapt(run, support, tmp_path / "adapted")
    assert adapted.classifier is not None
    assert adapted.classifier.classes == ("sub 0", "sub 1", "sub 2", "sub 3")
    assert any("held-out support samples" in notice for notice in adapted.notices)
    columns = regrain.predict(regrain.Run.open(tmp_path / "adapted", device="cpu"), vectors(), tmp_path / "p.parquet")
    written = pq.read_table(tmp_path / "p.parquet").to_pandas()
    assert list(written) == ["id", "split", "kind", "kind_probability", "mine", "mine_probability", "abstained"]
    truth = np.array([f"sub {i % 4}" for i in range(120)])
    assert (written["mine"] == truth).mean() > 0.95
    assert (written["kind"] == [f"k{i % 4 // 2}" for i in range(120)]).mean() > 0.9
    assert written["mine_probability"].between(0.25, 1).all()
    assert written["abstained"].mean() < 0.4
    assert list(columns["id"]) == list(written["id"])
    assert "adapted to 4 classes of 'mine' by 32 samples" in (tmp_path / "adapted" / "card.md").read_text()
    assert (run.path / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "adapted" / "model" / "model.safetensors"
    ).read_bytes()
    assert run.classifier is None
    flat = regrain.evaluate(adapted, vectors(), protocols=["recall"], options={"ks": [1]}).flat()
    assert flat["test/sub/recall@1"] > 0.9
    with pytest.raises(UserError, match="is finished: nothing to resume"):
        regrain.resume(tmp_path / "adapted", vectors())
    again = regrain.adapt(run, support, tmp_path / "again").classifier
    assert again is not None
    assert torch.equal(again.weights, adapted.classifier.weights)


def test_a_support_with_samples_of_its_own(run: regrain.Run, tmp_path: Path) -> None:
    own = vectors(24, seed=1)
    adapted = regrain.adapt(run, Dataset(own.samples, own.labels, own.ids, "own"), tmp_path / "adapted", level="sub")
    assert adapted.classifier is not None
    assert adapted.classifier.classes == ("s0", "s1", "s2", "s3")
    finest = regrain.adapt(run, Dataset(own.samples, own.labels, own.ids, "own"), tmp_path / "finest").classifier
    assert finest is not None
    assert finest.level == "sub"


def test_a_plain_run_predicts_what_it_was_trained_on(run: regrain.Run, tmp_path: Path) -> None:
    columns = regrain.predict(run, vectors(), tmp_path / "p.csv", split="test")
    assert list(columns) == ["id", "split", "kind", "kind_probability"]
    assert len(pd.read_csv(tmp_path / "p.csv")) == 24
    with pytest.raises(UserError, match="exists: choose another out="):
        regrain.predict(run, vectors(), tmp_path / "p.csv")
    with pytest.raises(UserError, match=r"p\.xlsx ends in '\.xlsx'"):
        regrain.predict(run, vectors(), tmp_path / "p.xlsx")
    embeds = regrain.fit("selfcon", vectors(), out=tmp_path / "embeds", settings=["epochs=1"], device="cpu")
    with pytest.raises(
        UserError, match=r"has no classifier: make one from a few labelled samples with `regrain.adapt\("
    ):
        regrain.predict(embeds, vectors(), tmp_path / "q.csv")
    assert not (tmp_path / "q.csv").exists()


def test_mistakes_in_a_support_are_said_and_leave_nothing(run: regrain.Run, tmp_path: Path) -> None:
    table = tmp_path / "support.csv"
    cases: list[tuple[list[int], list[Any] | None, str]] = [
        ([1, 900, 2, 901], None, r"2 of 4 ids are not among the run's data: 'r900' \(line 3\); 'r901' \(line 5\)"),
        ([1, 2, 1], ["a", "b", "b"], "id 'r1' is labelled twice, and not alike: line 2 and line 4"),
        ([1, 2], ["a", "a"], "the support labels 1 class: 'a'"),
        ([1, 2], [None, None], "labels no sample"),
    ]
    for rows, labels, expected in cases:
        with pytest.raises(UserError, match=expected):
            regrain.adapt(run, id_table(table, rows, labels), tmp_path / "adapted")
    good = id_table(table, [1, 2, 3, 4])
    for wrong, expected in (
        ({"level": "mien"}, "'mine'"),
        ({"abstain": 1.0}, "abstain must be at least 0 and below 1"),
        ({"out": run.path}, "is the run that is adapted"),
    ):
        with pytest.raises(UserError, match=expected):
            regrain.adapt(**{"run": run, "support": good, "out": tmp_path / "adapted", **wrong})
    wide = Dataset(TensorSamples(torch.randn(4, 9), "vector"), Labels.from_codes([0, 1, 0, 1]), np.array(list("abcd")))
    with pytest.raises(UserError, match=r"samples of shape \(8,\)"):
        regrain.adapt(run, wide, tmp_path / "adapted")
    assert not (tmp_path / "adapted").exists()


def test_what_a_support_cannot_tell_is_said(run: regrain.Run, tmp_path: Path) -> None:
    rows = [0, 1, 2, 3, 1]
    labels = ["a", "b", "c", "d", "b"]
    one_each = regrain.adapt(run, id_table(tmp_path / "one.csv", rows, labels), tmp_path / "one")
    assert one_each.classifier is not None
    assert one_each.classifier.threshold is None
    said = " ".join(one_each.notices)
    for expected in ("C = 1: class 'a' has 1", "not calibrated", "count once: 1 row less", "has 1 sample of the"):
        assert expected in said, said
    columns = regrain.predict(one_each, vectors(), tmp_path / "p.csv")
    assert not np.any(columns["abstained"])
    partly = id_table(tmp_path / "two.csv", [1, 2, 3, 4, 6, 7], ["a", "b", None, "c", "a", "b"])
    two = regrain.adapt(run, partly, tmp_path / "two")
    assert two.classifier is not None
    assert two.classifier.threshold is not None
    assert "1 samples of the support have no label" in " ".join(two.notices)


def blobs(per_class: int, spread: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(6 * per_class) % 6
    return torch.eye(12)[labels] + spread * torch.randn(len(labels), 12, generator=generator), labels


def test_probabilities_are_calibrated_and_strangers_abstained_from() -> None:
    names = tuple("abcdef")
    support, labels = blobs(10, 0.35, 0)
    classifier = fit_classifier(support, labels, level="letter", classes=names, abstain=0.1)
    test, truth = blobs(200, 0.35, 1)
    named = classifier.name(test)
    accuracy = float((named.codes == truth).double().mean())
    assert abs(float(named.probabilities.mean()) - accuracy) < 0.08
    assert 0.03 < float(named.abstained.double().mean()) < 0.2
    strangers = torch.eye(12)[6:].repeat(50, 1) + 0.35 * torch.randn(
        300, 12, generator=torch.Generator().manual_seed(2)
    )
    assert float(classifier.name(strangers).abstained.double().mean()) > 0.6
    never = fit_classifier(support, labels, level="letter", classes=names, abstain=0)
    assert not never.name(strangers).abstained.any()
    fixed = fit_classifier(support, labels, level="letter", classes=names, inverse_penalty=3.0)
    assert fixed.inverse_penalty == 3.0


def test_what_is_not_sure_is_abstained_from() -> None:
    names = tuple("abcdef")
    support, labels = blobs(60, 0.5, 0)
    plain = fit_classifier(support, labels, level="letter", classes=names)
    assert plain.least_probability == 0.5
    test, truth = blobs(400, 0.5, 1)
    named = plain.name(test)
    unsure = (named.probabilities < 0.5) & (named.typicality >= (plain.threshold or 1))
    assert unsure.any()
    assert named.abstained[unsure].all()
    assert float((named.codes == truth)[unsure].double().mean()) < 0.6
    shares = []
    for asked in ({}, {"precision": 0.85}, {"precision": 0.85, "confidence": 0.9}):
        classifier = fit_classifier(support, labels, level="letter", classes=names, abstain=0.0, **asked)
        found = classifier.name(test)
        assert torch.equal(found.abstained, found.probabilities < (classifier.least_probability or 0.0))
        shares.append((float((found.codes == truth)[~found.abstained].double().mean()), int(found.abstained.sum())))
    assert shares[0][1] == 0  # no abstention was asked for
    assert shares[0][0] < shares[1][0] <= shares[2][0]
    assert shares[1][1] <= shares[2][1]
    assert shares[2][0] > 0.83
    loose = fit_classifier(support, labels, level="letter", classes=names, precision=0.1)
    assert loose.least_probability is not None
    assert loose.least_probability >= 0.5


def test_a_precision_that_the_support_cannot_show_is_refused() -> None:
    support, labels = blobs(3, 0.3, 0)
    asked = partial(fit_classifier, level="letter", classes=tuple("abcdef"))
    with raises("too_few", "needs 22 labelled samples, all right; there are 18"):
        asked(support, labels, precision=0.9, confidence=0.9)
    with raises("too_few", "one sample: none could be held out"):
        asked(support[:6], labels[:6], precision=0.9)
    with raises("too_few", "show no probability from which on 0.99 are right with confidence 0.9"):
        asked(*blobs(80, 1.5, 0), precision=0.99, confidence=0.9)
    with raises("out_of_range"):
        asked(support, labels, precision=1.5)
    with raises("conflicting_options"):
        asked(support, labels, confidence=0.9)


def test_a_classifier_is_kept_without_a_pickle(tmp_path: Path) -> None:
    support, labels = blobs(4, 0.2, 0)
    classifier = fit_classifier(support, labels, level="letter", classes=tuple("abcdef"))
    classifier.save(Folder(tmp_path))
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = FewShotClassifier.load(Folder(tmp_path))
    assert loaded is not None
    assert torch.equal(loaded.probabilities(support), classifier.probabilities(support))
    for name in ("classes", "threshold", "least_probability", "precision", "confidence", "notices"):
        assert getattr(loaded, name) == getattr(classifier, name)
    weights = (tmp_path / "classifier.safetensors").read_bytes()
    (tmp_path / "classifier.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"classifier\.safetensors is damaged"):
        FewShotClassifier.load(Folder(tmp_path))
    (tmp_path / "classifier.safetensors").unlink()
    with pytest.raises(UserError, match=r"classifier\.safetensors is missing"):
        FewShotClassifier.load(Folder(tmp_path))
    (tmp_path / "classifier.safetensors").write_bytes(weights)
    content = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps(content | {"schema": 99}))
    with pytest.raises(UserError, match="schema 99"):
        FewShotClassifier.load(Folder(tmp_path, verify=False))
    assert FewShotClassifier.load(Folder(tmp_path / "nowhere")) is None


def test_a_table_with_more_columns_speaks_of_ids_or_of_its_own_samples(run: regrain.Run, tmp_path: Path) -> None:
    data = vectors()
    frame = pd.DataFrame(data.samples.take(torch.arange(24)).numpy(), columns=[f"f{i}" for i in range(8)])
    frame.insert(0, "id", [f"r{i}" for i in range(24)])
    frame["mine"] = [f"m{i % 4}" for i in range(24)]
    by_ids = regrain.adapt(run, frame, tmp_path / "ids", level="mine")
    assert "the support has 5 samples of the split test" in " ".join(by_ids.notices)
    frame["id"] = [f"new{i}" for i in range(24)]
    own = regrain.adapt(run, frame, tmp_path / "own", level="mine", columns=["f*"])
    assert by_ids.classifier is not None
    assert own.classifier is not None
    assert own.classifier.classes == by_ids.classifier.classes == ("m0", "m1", "m2", "m3")
    gone = regrain.Run.open(run.path, device="cpu")
    assert regrain.adapt(gone, frame, tmp_path / "gone", level="mine").classifier is not None
    with pytest.raises(UserError, match="trained on data in memory"):
        regrain.adapt(gone, frame[["id", "mine"]], tmp_path / "never")


def test_a_frames_index_names_the_samples_of_a_support(run: regrain.Run, tmp_path: Path) -> None:
    rows = [r for r in range(40) if r % 5]
    support = pd.DataFrame({"mine": [f"sub {r % 4}" for r in rows]}, index=[f"r{r}" for r in rows])
    support.to_csv(tmp_path / "support.csv")
    for name, source in (("frame", support), ("file", tmp_path / "support.csv")):
        adapted = regrain.adapt(run, source, tmp_path / name)
        assert adapted.classifier is not None
        assert adapted.classifier.classes == ("sub 0", "sub 1", "sub 2", "sub 3")
