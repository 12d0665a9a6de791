"""Discovery: subclasses of a run, what they hold, names, other data, and what cannot be asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support import raises

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods.george import GEORGE
from regrain.runs import defaults
from regrain.storage.run_folder import RunFolder
from regrain.verbs import refinement
from regrain.verbs.discover import discover

pytestmark = pytest.mark.usefixtures("own_cache")


def vectors(count: int = 240, *, shuffle_fine: bool = False, hidden: float = 0.0, levels: int = 2) -> Dataset:
    """Six subclasses of two classes, well apart; the first class has four of them."""
    generator = np.random.default_rng(0)
    fine = np.arange(count) % 6
    x = generator.normal(size=(count, 10)).astype(np.float32) * 0.4 + 3 * np.eye(10, dtype=np.float32)[fine]
    kind: list[str | None] = ["few" if f >= 4 else "many" for f in fine]
    if shuffle_fine:
        fine = generator.permutation(fine)
    for row in np.flatnonzero(generator.random(count) < hidden):
        kind[row] = None
    columns: dict[str, Any] = {"kind": kind, "sub": [f"s{f}" for f in fine]}
    labels = Labels.from_columns(dict(list(columns.items())[:levels]), relation="aspects")
    splits = np.where(np.arange(count) % 5 == 0, "test", "train")
    return Dataset(TensorSamples(torch.from_numpy(x), "vector"), labels, np.array([f"r{i}" for i in range(count)]),
                   "vectors", splits)  # fmt: skip


def quick(method: str, data: Dataset, out: Path, *settings: str) -> regrain.Run:
    given = ["epochs=6", "batch_size=30", *settings]
    return regrain.fit(method, data, out=out, encoder="identity", settings=given, device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> regrain.Run:
    """A run of a method without subclasses of its own, of which tests take a copy."""
    return quick("maskcon", vectors(), tmp_path_factory.mktemp("trained") / "run")


def copy_of(run: regrain.Run, place: Path) -> regrain.Run:
    shutil.copytree(run.path, place)
    return regrain.Run(RunFolder(place), run.data, "cpu")


def test_own_subclasses_of_scgm(tmp_path: Path) -> None:
    run = quick("scgm", vectors(), tmp_path / "run", "subclasses=6", "initial_means=k-means")
    found = discover(run)
    assert found.figures["train/sub/acc"] > 0.95
    assert found.figures["test/sub/nmi"] > 0.9
    assert sum(s.size for s in found.subclasses) == 240
    for s in found.subclasses:
        assert s.superclass_share == 1
        assert s.purity["sub"]["share"] > 0.9
        assert s.sizes["train"] + s.sizes["test"] == s.size
        assert s.name.startswith(f"{s.superclass}/")
    table = pd.read_parquet(run.path / "discovery" / "samples.parquet")
    assert table["id"].tolist() == found.ids.tolist()
    assert set(table["superclass_is"]) == {"given"}
    assert table["probability"].between(0, 1).all()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("scgm", ["subclasses=4"]),
        ("scgm", ["subclasses=4", "initial_means=random"]),
        ("george", []),
        ("falcon", ["subclasses=4"]),
        ("sup-ce", []),
    ],
)
def test_a_subclass_lies_in_one_superclass_wherever_both_are_shown(
    method: str, settings: list[str], tmp_path: Path
) -> None:
    whole = vectors(300, hidden=0.3)
    few = np.array([whole.labels.names("kind")[c] == "few" for c in whole.labels.level("kind").tolist()])
    data = whole.select(np.flatnonzero(~few | (np.arange(300) < 60)))  # "few" is a small superclass
    run = quick(method, data, tmp_path / "run", *settings)
    found = discover(run)
    owner = {s.number: s.superclass for s in found.subclasses}
    assert set(owner.values()) == {"few", "many"}
    assert all(s.superclass_share == 1 for s in found.subclasses)
    assert [owner[z] for z in found.subclass.tolist()] == found.superclass
    columns = regrain.predict(regrain.Run.open(run.path, device="cpu"), data.with_levels([]), tmp_path / "new.csv")
    assert [name.rpartition("/")[0] for name in columns["subclass"]] == list(columns["kind"])
    assert np.all(np.asarray(columns["subclass_probability"]) <= np.asarray(columns["kind_probability"]) + 1e-6)


@pytest.mark.parametrize("method", ["maskcon", "selfcon", "sup-ce"])
def test_clusters_within_superclasses_where_a_method_has_none(method: str, tmp_path: Path) -> None:
    run = quick(method, vectors(), tmp_path / "run")
    found = discover(run)  # by silhouette
    assert found.level == "kind"
    by_superclass = {name: sum(s.superclass == name for s in found.subclasses) for name in ("few", "many")}
    assert by_superclass == {"few": 2, "many": 4}
    assert found.figures["test/sub/acc"] > 0.95
    assert "has no subclasses of its own" in found.notes[0]


def test_exemplars_are_nearest_to_the_mean_and_outliers_farthest(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    found = discover(run, each=2, exemplars=4)
    parts = run.splits()
    vectors_ = torch.nn.functional.normalize(torch.cat([run.embed(part) for part in parts.values()]), dim=1)
    ids = np.concatenate([part.ids for part in parts.values()])
    for s in found.subclasses:
        members = vectors_[found.subclass == s.number]
        own_ids = ids[found.subclass == s.number]
        cosines = members @ torch.nn.functional.normalize(members.sum(dim=0), dim=0)
        assert set(s.exemplars) == set(own_ids[cosines.topk(4).indices])
        assert set(s.outliers) == set(own_ids[(-cosines).topk(4).indices])


def test_no_subclasses_at_all_are_refused(tmp_path: Path) -> None:
    run = quick("maskcon", vectors(40), tmp_path / "run")
    for none in (0, "0", -1):
        with pytest.raises(UserError, match=r"at least 1"):
            discover(run, each=none)


def test_a_subclass_of_one_sample(tmp_path: Path) -> None:
    data = vectors(40)
    samples = data.samples.take(torch.arange(40))
    samples[7] = -10.0
    run = quick("maskcon", replace(data, samples=TensorSamples(samples, "vector")), tmp_path / "run")
    found = discover(run, each=5)
    lonely = next(s for s in found.subclasses if "r7" in s.exemplars)
    assert (lonely.size, lonely.exemplars, lonely.outliers) == (1, ["r7"], ["r7"])


def test_finer_labels_change_nothing_but_the_purity(tmp_path: Path) -> None:
    one, other = (quick("maskcon", vectors(shuffle_fine=f), tmp_path / str(f)) for f in (False, True))
    first, second = discover(one), discover(other)
    assert np.array_equal(first.subclass, second.subclass)
    assert np.array_equal(first.probability, second.probability)
    assert first.figures["train/sub/purity"] > second.figures["train/sub/purity"]


def test_unknown_superclasses_are_predicted_and_marked(tmp_path: Path) -> None:
    data = vectors(hidden=0.4)
    run = quick("scgm", data, tmp_path / "run", "subclasses=6", "initial_means=k-means", "epochs=20")
    found = discover(run)
    truth = ["few" if int(i[1:]) % 6 >= 4 else "many" for i in found.ids]
    predicted = ~found.given
    assert predicted.sum() > 50
    right = np.array([a == b for a, b in zip(found.superclass, truth, strict=True)])
    assert right[predicted].mean() > 0.9


def test_unaided_discovery_does_not_look_at_test_superclasses(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    aided = discover(run, each=4)
    unaided = discover(run, ignore_coarse_labels=True)
    test = unaided.splits == "test"
    assert not unaided.given[test].any()
    assert unaided.given[~test].all()
    assert np.array_equal(aided.subclass[~test], unaided.subclass[~test])
    relabelled = vectors()
    codes = relabelled.labels.codes.clone()
    codes[::5, 0] = 1 - codes[::5, 0]  # test rows
    turned = replace(relabelled, labels=replace(relabelled.labels, codes=codes))
    run.data = turned
    assert np.array_equal(discover(run, ignore_coarse_labels=True).subclass, unaided.subclass)


def test_balanced_clusters(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    found = discover(run, each=5, balanced=True)
    for s in found.subclasses:
        share = {"many": 128 / 5, "few": 64 / 5}[str(s.superclass)]
        assert abs(s.sizes["train"] - share) <= 2


def test_names_are_kept_and_other_data_are_told_apart(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    found = discover(run, each=4)
    number = found.subclasses[0].number
    file = tmp_path / "names.json"
    file.write_text(json.dumps({str(number): "wine glass"}))
    renamed = discover(run, names=file)
    assert {s.number: s.name for s in renamed.subclasses}[number] == "wine glass"
    assert np.array_equal(renamed.subclass, found.subclass)
    other = vectors(60, levels=1)
    out = tmp_path / "other.csv"
    elsewhere = discover(regrain.Run.open(run.path, device="cpu"), other, out=out)
    assert "wine glass" in {s.name for s in elsewhere.subclasses}
    assert elsewhere.figures == {}
    assert len(pd.read_csv(out)) == 60
    with pytest.raises(UserError, match=r"1 subclasses of .* have names, which other subclasses would not keep"):
        discover(run, each=3)
    assert "wine glass" in {s.name for s in discover(run, superclass=found.level).subclasses}  # the level in use
    again = discover(run, each=3, overwrite=True)  # settled anew: the old numbers mean nothing now
    assert "wine glass" not in {s.name for s in again.subclasses}


def test_names_make_a_classifier(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    found = discover(run, each=4)
    truth = {s.number: s.purity["sub"]["class"] for s in found.subclasses}
    file = tmp_path / "names.json"
    file.write_text(json.dumps({str(number): f"class {name}" for number, name in truth.items()}))
    discover(run, names=file)
    new = vectors(300).select(np.arange(240, 300)).with_levels([])
    columns = regrain.predict(regrain.Run.open(run.path, device="cpu"), new, tmp_path / "predicted.csv")
    right = [name == f"class s{(240 + i) % 6}" for i, name in enumerate(columns["subclass"])]
    assert np.mean(right) > 0.95
    assert np.all(
        (np.asarray(columns["subclass_probability"]) > 0) & (np.asarray(columns["subclass_probability"]) <= 1)
    )
    table = pd.read_csv(tmp_path / "predicted.csv")
    assert table.columns.tolist() == ["id", "split", "subclass", "subclass_probability"]


def test_what_cannot_be_asked_is_said(trained: regrain.Run, tmp_path: Path) -> None:
    scgm = quick("scgm", vectors(), tmp_path / "scgm", "subclasses=6")
    with pytest.raises(UserError, match="scgm has subclasses of its own"):
        discover(scgm, each=3)
    run = copy_of(trained, tmp_path / "run")
    with pytest.raises(UserError, match="tables are written to"):
        discover(run, out=tmp_path / "x.txt")
    with pytest.raises(UserError, match="read 'kind' as superclasses"):
        discover(run, superclass="sub")
    with pytest.raises(UserError, match="1 clusters cannot be shared out over 2"):
        discover(run, subclasses=1)
    with pytest.raises(UserError, match="settle those first, without data="):
        discover(run, vectors(), each=3)
    discover(run)
    file = tmp_path / "names.json"
    for content, message in (
        ('{"77": "x"}', "names subclass '77', and there is none of that number"),
        ("[1]", "a mapping of subclass numbers to names was expected"),
        ("{", "names.json is damaged: Expecting property name"),
        ('{"--1": "x"}', "names subclass '--1'"),
        ('{"\u00b2": "x"}', "and there is none of that number"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            discover(run, names=file)
    with pytest.raises(UserError, match="no such file of names"):
        discover(run, names=tmp_path / "none.json")


def test_superclasses_that_the_run_does_not_know_are_told(trained: regrain.Run, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    other = vectors(60)
    renamed = replace(other.labels, classes=(("never", "seen"), *other.labels.classes[1:]))
    found = discover(run, replace(other, labels=renamed))
    assert any("knows no superclass 'never', 'seen'" in note for note in found.notes)
    assert not found.given.any()


def test_a_george_of_group_dro_is_clustered(tmp_path: Path) -> None:
    run = quick("george", vectors(), tmp_path / "run", "group_dro=true")
    assert sum(s.size for s in discover(run, each=2).subclasses) == 240


def test_names_belong_to_one_number(tmp_path: Path) -> None:
    run = quick("scgm", vectors(), tmp_path / "run", "subclasses=40")
    own = {s.name: s.number for s in discover(run).subclasses}
    shifted = vectors(60)
    samples = TensorSamples(shifted.samples.take(torch.arange(60)).roll(1, dims=1), "vector")
    for s in discover(run, replace(shifted, samples=samples)).subclasses:
        assert own.get(s.name, s.number) == s.number


def half_labelled(count: int = 300) -> Dataset:
    """The subclasses s0, s1 and s4 labelled in a third of the training samples, the others never."""
    whole = vectors(count)
    names = [None if c in (2, 3, 5) else f"s{c}" for c in (np.arange(count) % 6).tolist()]
    kind = ["few" if i % 6 >= 4 else "many" for i in range(count)]
    test = np.arange(count) % 5 == 0
    sub = [f"s{i % 6}" if test[i] else names[i] if i % 18 < 6 else None for i in range(count)]
    return replace(whole, labels=Labels.from_columns({"kind": kind, "sub": sub}))


def test_known_classes_are_kept_and_the_others_found(tmp_path: Path) -> None:
    data = half_labelled()
    run = quick("maskcon", data, tmp_path / "run")
    found = discover(run, known="sub")
    known = {s.known: s for s in found.subclasses if s.known is not None}
    assert set(known) == {"s0", "s1", "s4"}
    assert all(s.name == name for name, s in known.items())
    assert len(found.subclasses) == 6
    assert "3 classes of 'sub' have labels in training and are kept, 3 others were found: 6 in all" in found.notes
    train = run.splits()["train"]
    own = {str(i): c for i, c in zip(train.ids, train.labels.level("sub").tolist(), strict=True)}
    names = train.labels.names("sub")
    trained = found.splits == "train"
    for identity, number in zip(found.ids[trained], found.subclass[trained], strict=True):
        code = own[str(identity)]
        assert code < 0 or known[names[code]].number == number
    assert not any(figure.startswith("train/") for figure in found.figures)
    assert min(found.figures[f"test/sub/novel-{name}"] for name in ("all", "old", "new")) > 0.9
    assert found.to_frame()["known"].mean() == pytest.approx(0.5, abs=0.05)
    again = discover(run)
    assert np.array_equal(again.subclass, found.subclass)
    assert again.figures == found.figures
    assert {s.known for s in again.subclasses} == {*known, None}
    new = discover(regrain.Run.open(run.path, device="cpu"), vectors(60), out=tmp_path / "new.csv")
    assert set(new.figures) >= {"train/sub/novel-new", "test/sub/novel-new"}  # labels of other data decide nothing
    discover(run, each=3)  # known classes are no names that a user gave


def test_a_method_of_several_levels_keeps_its_classes(tmp_path: Path) -> None:
    run = quick("mixed", half_labelled(), tmp_path / "run")
    found = discover(run)
    assert found.known_level == "sub"
    assert found.level == "kind"
    assert {s.known for s in found.subclasses} == {"s0", "s1", "s4", None}
    columns = regrain.predict(run, vectors(60).with_levels([]), tmp_path / "p.csv")
    assert {"s0", "s1", "s4"} < set(columns["subclass"])


def test_known_classes_go_on_into_a_refined_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter((0.0, 1.0))
    monkeypatch.setattr(refinement._Judge, "score", lambda self, found, count: next(scores))
    monkeypatch.setitem(defaults._STEPS, "features", (1, 30, 30))
    monkeypatch.setattr(GEORGE, "fewest_steps", 0)
    run = quick("mixed", half_labelled(), tmp_path / "run")
    kept = {s.number: s.known for s in discover(run).subclasses if s.known is not None}
    found = discover(run, refine=1)
    assert {s.number: s.name for s in found.subclasses if s.number in kept} == kept
    assert found.figures["test/sub/acc"] > 0.8


def test_known_classes_without_superclasses(tmp_path: Path) -> None:
    data = half_labelled()
    run = quick("selfcon", replace(data, labels=data.labels.keep(["sub"])), tmp_path / "run")
    found = discover(run, known="sub", subclasses=6)
    assert found.level is None
    assert {s.known for s in found.subclasses} == {"s0", "s1", "s4", None}
    assert found.figures["test/sub/novel-new"] > 0.9
    with raises("unknown_level"):
        discover(run, known="kind")
