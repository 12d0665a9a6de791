"""An open exploration: order, conflicts, proposals, and what comes out of it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from explorer_hand import Hand
from support import Command, raises

import regrain
from regrain.explorer.outcome import write_outcome
from regrain.explorer.proposals import Evidence, propose
from regrain.explorer.session import CONFIRMED, GIVEN, Session, StaleError
from regrain.explorer.state import Group
from regrain.labels import Taxonomy
from regrain.pictures.map import embedding_map
from regrain.runs.run import Run
from regrain.storage.files import Folder

TOOL = "<img src=x onerror=alert(1)>tool"


def _truth(session: Session, table: Path) -> np.ndarray:
    labels = pd.read_csv(table).set_index("id")["sub"]
    return labels.loc[session.collection.start.ids.tolist()].to_numpy()


def _name_all(session: Session, hand: Hand, table: Path) -> None:
    """Name every subclass by what most of its exemplars are."""
    truth = _truth(session, table)
    for group in hand("confirm", samples=[0])["groups"]:
        exemplars = session.members(group["number"])["exemplars"]
        names, counts = np.unique(truth[exemplars], return_counts=True)
        name = names[counts.argmax()]
        right = [row for row in exemplars if truth[row] == name]
        hand("name", group=group["number"], name=name, samples=right)


def test_subclasses_within_superclasses_are_where_it_starts(session: Session) -> None:
    groups = session.changes(0)["groups"]
    assert [g["superclass"] for g in groups] == [TOOL] * 3 + ["animal"] * 3
    assert sum(g["size"] for g in groups) == len(session.collection) == 144
    assert not any(g["name"] for g in groups)
    assert session.superclasses() == [TOOL, "animal"]
    assert session.collection.positions.shape == (144, 2)


def test_names_given_to_discover_are_names_here(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps({"1": "wren"}))
    run = regrain.Run.open(run_folder, device="cpu")
    regrain.discover(run, names=tmp_path / "names.json")
    opened = Session(run)
    assert {g["number"]: g["name"] for g in opened.changes(0)["groups"] if g["name"]} == {1: "wren"}
    opened.close()


def test_names_become_proposals_that_are_mostly_right(session: Session, hand: Hand, table: Path) -> None:
    waiting = session.newest_proposals(60)
    assert waiting is not None
    assert "none so far" in waiting.notices[0]
    _name_all(session, hand, table)
    proposals = session.newest_proposals(60)
    assert proposals is not None
    assert proposals.seq == session.state.seq
    named = np.array([session.state.groups[g].name for g in proposals.group.tolist()])
    assert (named == _truth(session, table)).mean() > 0.9
    assert ((proposals.confidence > 0) & (proposals.confidence <= 1)).all()


def test_proposals_that_cannot_be_made_say_why(session: Session, hand: Hand, table: Path) -> None:
    truth, train = _truth(session, table), np.flatnonzero(session.collection.start.splits == "train")
    first, second = int(train[0]), int(train[truth[train] != truth[train[0]]][0])
    session.collection.embeddings[first, 0] = float("nan")
    for row in (first, second):
        hand("label", samples=[row], name=truth[row])
    found = session.newest_proposals(60)
    assert found is not None
    assert (found.group == -1).all()
    assert "no proposals: " in found.notices[0]


def test_proposals_stay_in_a_given_superclass_and_learn_from_support_alone() -> None:
    embeddings = torch.nn.functional.normalize(torch.eye(3).repeat_interleave(4, dim=0) + 0.01, dim=1)
    groups = (Group(0, "a", "x"), Group(1, "a", "y"), Group(2, "b", "z"))
    group = np.repeat([0, 1, 2], 4)
    support = np.tile([True, True, False, False], 3)
    found = propose(embeddings, Evidence(5, groups, group, support), ["a"] * 12, np.ones(12, bool))
    assert found.group[:8].tolist() == group[:8].tolist()
    assert set(found.group[8:].tolist()) <= {0, 1}
    assert (found.confidence[8:] < 0.5).all()
    free = propose(embeddings, Evidence(5, groups, group, support), ["a"] * 12, np.zeros(12, bool))
    assert free.group.tolist() == group.tolist()
    again = propose(
        embeddings, Evidence(5, groups, np.where(support, group, 0), support), ["a"] * 12, np.zeros(12, bool)
    )
    assert again.group.tolist() == free.group.tolist()


def test_two_browsers_keep_one_order_and_nobody_overwrites_unseen_work(session: Session) -> None:
    one, other = Hand(session, "one-one"), Hand(session, "other-one")
    first, second = sorted(session.state.groups)[:2]
    rows = session.members(first)["rows"][:3]
    one("move", moves=[{"group": second, "samples": rows}])
    with pytest.raises(StaleError, match="meanwhile"):
        other("outlier", samples=rows[:1], marked=True)
    with pytest.raises(StaleError, match="meanwhile"):
        other("undo")
    far = session.members(sorted(session.state.groups)[3])["rows"][:2]
    reply = other("confirm", samples=far)
    assert reply["seq"] == 2
    assert set(reply["rows"]) == {*rows, *far}  # with it comes what the other one did
    other("outlier", samples=rows[:1], marked=True)
    one.seen = 3
    one("undo")
    assert [entry.seq for entry in session.journal.entries] == [1, 2, 3, 4]


def test_a_repeated_request_is_done_once(session: Session) -> None:
    request = {"kind": "confirm", "seen": 0, "action": "same-action", "samples": [1, 2]}
    assert session.act(request)["seq"] == session.act(request)["seq"] == 1
    assert len(session.journal.entries) == 1


def test_reopening_goes_on_where_it_was(run_folder: Path, table: Path) -> None:
    first = Session(regrain.Run.open(run_folder, device="cpu"))
    hand = Hand(first)
    _name_all(first, hand, table)
    hand("split", group=sorted(first.state.groups)[0], count=2)
    hand("undo")
    flags, groups = first.flags(), first.changes(0)["groups"]
    with raises("not_writable"):
        Session(regrain.Run.open(run_folder, device="cpu"))
    first.close()
    again = Session(regrain.Run.open(run_folder, device="cpu"))
    assert again.changes(0)["groups"] == groups
    assert again.flags().tolist() == flags.tolist()
    assert len(Hand(again, "another")("redo")["groups"]) == len(groups) + 1
    again.close()


def test_split_parts_what_is_not_confirmed(session: Session, hand: Hand, table: Path) -> None:
    truth = _truth(session, table)
    first, second, *_ = sorted(session.state.groups)
    hand("merge", group=first, others=[second])
    rows = session.state.members(first)
    kept = [int(row) for row in rows if truth[row] == truth[rows[0]]][:3]
    hand("confirm", samples=kept)
    hand("split", group=first, count=2)
    assert set(session.state.group[kept].tolist()) == {first}
    new = session.state.next_number - 1
    assert len(np.unique(truth[session.state.members(new)])) == 1
    assert truth[rows[0]] not in truth[session.state.members(new)]
    hand("confirm", samples=session.state.members(new).tolist())
    with raises("too_few"):
        hand("split", group=new, count=2)


def test_edits_of_held_out_samples_are_marked_and_not_learned_from(session: Session, hand: Hand) -> None:
    test = np.flatnonzero(session.collection.start.splits == "test")
    group = int(session.state.group[test[0]])
    hand("label", samples=test[:2].tolist(), name="seen in a test")
    assert session.journal.entries[-1].event["held_out"] == 2
    assert not session.evidence().support.any()
    outcome = write_outcome(session)
    labels = pd.read_csv(outcome.folder / "labels.csv", dtype={"id": str})
    assert labels["held_out_edit"].sum() == 2
    assert (labels[labels["held_out_edit"]]["split"] == "test").all()
    assert pd.read_csv(outcome.folder / "confirmed.csv").empty
    assert group in session.state.groups


def test_search_neighbours_and_exemplars(session: Session, hand: Hand, table: Path) -> None:
    _name_all(session, hand, table)
    assert session.search("SUB3")["groups"]
    assert session.search("s2-1")["total"] == len([i for i in session.collection.start.ids if "s2-1" in i])
    assert session.search("   ") == {"groups": [], "rows": [], "total": 0}
    truth = _truth(session, table)
    near = session.neighbours(7, 5)
    assert near[0] == 7
    assert (truth[near] == truth[7]).all()
    members = session.members(sorted(session.state.groups)[0])
    assert set(members["exemplars"]) <= set(members["rows"])
    assert session.collection.training[members["exemplars"]].all()


def test_what_comes_out_trains_by_its_own_commands(
    session: Session, hand: Hand, table: Path, regrain: Command, tmp_path: Path
) -> None:
    with raises("no_labels"):
        write_outcome(session)
    _name_all(session, hand, table)
    outlier = int(session.state.members(sorted(session.state.groups)[0])[-1])
    hand("outlier", samples=[outlier], marked=True)
    outcome = write_outcome(session, "parquet")
    labels = pd.read_parquet(outcome.folder / "labels.parquet")
    assert set(labels["subclass_source"].dropna()) == {"confirmed", "proposed"}
    assert set(labels["kind_source"]) == {"given"}
    sure = labels["subclass_source"] == "confirmed"
    assert (labels.loc[sure, "subclass_confidence"] == 1).all()
    assert labels.loc[sure, "subclass_time"].str.startswith("20").all()
    assert labels.loc[labels["outlier"], "subclass"].isna().all()
    assert labels["id"].tolist() == session.collection.start.ids.tolist()
    taxonomy = Taxonomy.from_json(outcome.folder / "taxonomy.json")
    assert taxonomy.levels == ("kind", "subclass")
    assert len(taxonomy.classes[1]) == 6
    for what, more in (("fit", ("--device", "cpu")), ("adapt", ())):
        arguments = shlex.split(outcome.commands[what])[1:]
        arguments[arguments.index("--out") + 1] = str(tmp_path / what)
        code, _, err = regrain(*arguments, *more)
        assert code == 0, err
    fitted = Run.open(tmp_path / "fit")
    assert fitted.labels.counts == {"kind": 2, "subclass": 6}
    adapted = Run.open(tmp_path / "adapt")
    assert adapted.classifier is not None
    test = adapted.splits()["test"]
    named = [adapted.classifier.classes[c] for c in adapted.classifier.name(adapted.embed(test)).codes.tolist()]
    truth = [test.labels.names("sub")[c] for c in test.labels.level("sub").tolist()]
    assert np.mean(np.array(named) == truth) > 0.9


def test_labels_that_came_with_the_data_are_shown_and_corrected(run_folder: Path) -> None:
    opened = Session(regrain.Run.open(run_folder, device="cpu"), level="sub")
    try:
        names = {g["name"]: g["number"] for g in opened.changes(0)["groups"] if g["name"]}
        assert sorted(names) == [f"sub{n}" for n in range(6)]
        assert (opened.flags() == GIVEN).all()
        wrong = int(opened.state.members(names["sub0"])[0])
        Hand(opened)("move", moves=[{"group": names["sub4"], "samples": [wrong]}])
        assert opened.flags()[wrong] == CONFIRMED
        labels = pd.read_csv(write_outcome(opened).folder / "labels.csv", dtype={"id": str})
        row = labels.iloc[wrong]
        assert (row["sub"], row["sub_source"], row["kind"], row["kind_source"]) == (
            "sub4",
            "confirmed",
            TOOL,
            "confirmed",
        )
        assert (labels["sub_source"] == "given").sum() == len(labels) - 1
    finally:
        opened.close()
    with raises("other_data"):
        Session(regrain.Run.open(run_folder, device="cpu"), level="kind")


@pytest.fixture
def graded(run_folder: Path) -> Iterator[Session]:
    """An open exploration that shows the labels of a level of the data."""
    opened = Session(regrain.Run.open(run_folder, device="cpu"), level="sub")
    yield opened
    opened.close()


def _named(session: Session) -> dict[str | None, int]:
    return {g["name"]: g["number"] for g in session.changes(0)["groups"] if g["name"]}


def _labels(session: Session) -> pd.DataFrame:
    return pd.read_csv(write_outcome(session).folder / "labels.csv", dtype={"id": str})


def _held_out(session: Session, rows: np.ndarray) -> int:
    return int((~session.collection.training[rows]).sum())


def test_a_class_of_the_data_that_is_renamed_has_its_name_from_the_user(graded: Session) -> None:
    number, other = _named(graded)["sub0"], _named(graded)["sub1"]
    rows = graded.state.members(number)
    reply = Hand(graded)("name", group=number, name="wren", samples=[])
    assert graded.journal.entries[-1].event["held_out"] == _held_out(graded, rows) > 0
    assert set(reply["rows"]) == set(rows.tolist())
    assert set(reply["flags"]) == {CONFIRMED}
    Hand(graded, "another")("confirm", samples=graded.state.members(other)[:1].tolist())
    labels = _labels(graded)
    assert set(labels.loc[rows, "sub"]) == {"wren"}
    assert set(labels.loc[rows, "sub_source"]) == {"confirmed"}
    assert set(labels.loc[rows, "sub_time"]) == {graded.journal.entries[0].time}
    assert set(labels.loc[rows, "kind_source"]) == {"given"}
    assert labels.loc[rows, "held_out_edit"].tolist() == (~graded.collection.training[rows]).tolist()
    assert graded.evidence().support[rows].sum() == graded.collection.training[rows].sum()
    back = Hand(graded, "third")("name", group=number, name="sub0", samples=[])
    assert set(back["rows"]) >= set(rows.tolist())
    assert (graded.flags()[rows] == GIVEN).all()


def test_classes_of_the_data_that_are_merged_are_confirmed_under_the_merged_name(graded: Session) -> None:
    names, hand = _named(graded), Hand(graded)
    kept, rows = graded.state.members(names["sub0"]), graded.state.members(names["sub1"])
    hand("merge", group=names["sub0"], others=[names["sub1"]])
    assert graded.journal.entries[-1].event["held_out"] == _held_out(graded, rows) > 0
    labels = _labels(graded)
    assert set(labels.loc[rows, "sub"]) == set(labels.loc[kept, "sub"]) == {"sub0"}
    assert set(labels.loc[rows, "sub_source"]) == {"confirmed"}
    assert set(labels.loc[rows, "sub_time"]) == {graded.journal.entries[0].time}
    assert set(labels.loc[kept, "sub_source"]) == {"given"}
    assert labels["held_out_edit"].sum() == _held_out(graded, rows)
    hand("name", group=names["sub0"], name="wren", samples=[])
    labels = _labels(graded)
    assert set(labels.loc[[*rows, *kept], "sub_source"]) == {"confirmed"}
    assert set(labels.loc[[*rows, *kept], "sub_time"]) == {graded.journal.entries[1].time}
    hand("undo")
    hand("undo")
    assert (graded.flags() == GIVEN).all()
    assert not _labels(graded)["held_out_edit"].any()


def test_only_what_crosses_superclasses_on_the_page_gets_another_superclass(graded: Session) -> None:
    names, hand = _named(graded), Hand(graded)
    rows, strange = graded.state.members(names["sub3"]), int(graded.state.members(names["sub4"])[0])
    start = graded.collection.start
    above = tuple("animal" if row == strange else name for row, name in enumerate(start.superclass))
    graded.collection = replace(graded.collection, start=replace(start, superclass=above))
    hand("name", group=names["sub4"], name="wren", samples=[strange])
    hand("merge", group=names["sub2"], others=[names["sub3"]])
    labels = _labels(graded)
    assert labels.loc[strange, ["sub", "kind", "kind_source"]].tolist() == [
        "animal/wren",
        "animal",
        "given",
    ]  # another wren lies elsewhere
    assert set(labels.loc[rows, "kind"]) == {"animal"}
    assert set(labels.loc[rows, "kind_time"]) == {graded.journal.entries[1].time}
    assert (labels["kind_source"] == "confirmed").sum() == len(rows)


def test_a_part_of_a_class_of_the_data_is_no_label_until_it_has_a_name(graded: Session) -> None:
    number, hand = _named(graded)["sub0"], Hand(graded)
    hand("split", group=number, count=2)
    part = graded.state.next_number - 1
    rows = graded.state.members(part)
    assert graded.journal.entries[-1].event.get("held_out", 0) == _held_out(graded, rows)
    assert not graded.flags()[rows].any()
    hand("name", group=part, name="wren", samples=[])
    assert (graded.flags()[rows] == CONFIRMED).all()


def test_a_typed_label_stays_in_every_samples_own_superclass(session: Session, hand: Hand) -> None:
    above = np.array(session.collection.start.superclass)
    rows = [int(np.flatnonzero(above == name)[0]) for name in (TOOL, "animal")]
    hand("label", samples=rows, name="odd")
    made = [session.state.groups[number] for number in session.state.group[rows].tolist()]
    assert [(group.superclass, group.name) for group in made] == [(TOOL, "odd"), ("animal", "odd")]
    labels = _labels(session)
    assert labels.loc[rows, "kind"].tolist() == [TOOL, "animal"]
    assert set(labels["kind_source"]) == {"given"}
    with raises("conflicting_options"):
        hand("label", samples=rows, name="odd", superclass="animal")
    assert len(session.journal.entries) == 1
    hand("move", moves=[{"group": made[1].number, "samples": rows}])
    hand("label", samples=rows, name="even")
    assert len(set(session.state.group[rows].tolist())) == 1  # where the user took the first one stays


def test_exports_at_the_same_time_do_not_disturb_each_other(session: Session, hand: Hand) -> None:
    group = sorted(session.state.groups)[0]
    hand("name", group=group, name="wren", samples=session.members(group)["exemplars"])
    session.newest_proposals(60)
    failures: list[BaseException] = []

    def export() -> None:
        try:
            write_outcome(session)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=export) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_proposals_outlive_an_error_of_the_program(
    session: Session, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.newest_proposals(60)

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("out of luck")

    monkeypatch.setattr("regrain.explorer.session.propose", broken)
    hand("confirm", samples=[0])
    found = session.newest_proposals(60)
    assert found is not None
    assert "ZeroDivisionError: out of luck" in found.notices[0]
    assert (found.group == -1).all()
    monkeypatch.undo()
    hand("confirm", samples=[1])
    again = session.newest_proposals(60)
    assert again is not None
    assert "none so far" in again.notices[0]


def test_the_start_is_on_disk_before_it_has_its_name(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[int, bool]] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        status = os.fstat(handle)
        names = {file.stat().st_ino: file.name for file in (run_folder / "explorer").glob("start.*")}
        synced.append((status.st_ino, status.st_ino in names))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    Session(regrain.Run.open(run_folder, device="cpu")).close()
    folder = (run_folder / "explorer").stat().st_ino
    order = [inode for inode, _ in synced]
    for name in ("start.parquet", "start.json"):
        inode = (run_folder / "explorer" / name).stat().st_ino
        assert (inode, False) in synced
        assert folder in order[order.index(inode) :]


def test_hidden_labels_change_nothing_unless_their_level_is_named(session: Session, table: Path, trained: Path) -> None:
    frame = pd.read_csv(table)
    frame["sub"] = np.random.default_rng(1).permutation(frame["sub"].to_numpy())
    columns = [f"x{i}" for i in range(6)]
    mixed = regrain.load(
        frame, columns=columns, levels=["kind", "sub"], id_column="id", split_column="split", relation="aspects"
    )
    copied = shutil.copytree(trained, session.run.path.with_name("mixed"))
    run = regrain.Run.open(copied, device="cpu")
    run.data = mixed
    other = Session(run)
    for name in ("group", "superclass", "given", "probability"):
        assert np.array_equal(getattr(other.collection.start, name), getattr(session.collection.start, name))
    assert not other.collection.start.given.any()
    other.close()


def test_a_run_that_replaces_another_has_none_of_its_names_and_nothing_confirmed_is_lost(
    run_folder: Path, table: Path
) -> None:
    options = {"levels": ["kind", "sub"], "out": run_folder, "epochs": 1, "device": "cpu"}
    opened = Session(regrain.Run.open(run_folder, device="cpu"))
    Hand(opened)("confirm", samples=[5])
    with raises("not_writable"):
        regrain.fit("supcon", str(table), overwrite=True, **options)
    assert regrain.Run.open(run_folder).folder.is_complete
    opened.close()
    with raises("would_overwrite"):
        regrain.fit("supcon", str(table), **options)
    assert (run_folder / "explorer").is_dir()
    for number in (1, 2):
        made = regrain.fit("supcon", str(table), overwrite=True, **options)
        assert any(f"moved to explorer-{number}/" in notice for notice in made.notices)
        again = Session(regrain.Run.open(run_folder, device="cpu"))
        assert again.state.seq == 0
        again.close()
    (run_folder / "explorer").rename(run_folder / "explorer-3")
    (run_folder / "explorer-1").rename(run_folder / "explorer")
    again = Session(regrain.Run.open(run_folder, device="cpu"))
    assert again.state.confirmed.nonzero()[0].tolist() == [5]
    again.close()


def test_data_that_changed_and_a_journal_of_another_start_are_refused(run_folder: Path) -> None:
    opened = Session(regrain.Run.open(run_folder, device="cpu"))
    opened.journal.append({"kind": "confirm", "samples": [10**6]})
    opened.close()
    with raises("damaged_file"):
        Session(regrain.Run.open(run_folder, device="cpu"))
    file = run_folder / "explorer" / "start.parquet"
    start = pd.read_parquet(file)
    start.loc[0, "id"] = "another"
    Folder(file.parent).write({file.name: start.to_parquet})
    with raises("other_data"):
        Session(regrain.Run.open(run_folder, device="cpu"))


def test_rows_in_another_order_keep_their_labels(run_folder: Path, table: Path) -> None:
    first = Session(regrain.Run.open(run_folder, device="cpu"))
    vectors = first.collection.embeddings
    first.close()
    file = run_folder / "explorer" / "start.parquet"
    start = pd.read_parquet(file)
    mixed = start.sample(frac=1, random_state=3)
    Folder(file.parent).write({file.name: mixed.to_parquet})
    again = Session(regrain.Run.open(run_folder, device="cpu"))
    order = [start.index[start["id"] == i][0] for i in again.collection.start.ids]
    assert torch.allclose(again.collection.embeddings, vectors[order])
    again.close()


def test_the_map_is_seeded_and_fills_its_square() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    for kind in ("pca", "tsne"):
        found = embedding_map(vectors, kind=kind, seed=1).in_square()
        assert np.array_equal(found, embedding_map(vectors, kind=kind, seed=1).in_square())
        assert np.abs(found).max() == pytest.approx(1)
    assert embedding_map(torch.eye(2), kind="auto").in_square().shape == (2, 2)


def test_the_command_line_exports_and_says_what_is_wrong(
    regrain: Command, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = regrain("explore", run_folder, "--export", "csv")
    assert (code, "name a subclass first" in err) == (2, True)
    opened = Session(Run.open(run_folder, device="cpu"))
    group = sorted(opened.state.groups)[0]
    Hand(opened)("name", group=group, name="wren", samples=opened.members(group)["exemplars"])
    code, _, err = regrain("explore", run_folder, "--export", "csv")
    assert (code, "is in use" in err) == (2, True)
    opened.close()
    code, out, err = regrain("explore", run_folder, "--export", "csv", "--json")
    assert code == 0, err
    assert "labels.csv" in json.loads(out)["files"]
    code, _, err = regrain("explore", tmp_path / "nowhere")
    assert (code, "does not exist" in err) == (2, True)
    shutil.rmtree(run_folder / "explorer" / "exports")
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "uvicorn" else found(n, *a))
    code, _, err = regrain("explore", run_folder)
    assert (code, "pip install 'regrain[explore]'" in err) == (2, True)


def test_a_name_below_two_superclasses_has_one_spelling_in_all_files(
    session: Session, hand: Hand, regrain: Command, tmp_path: Path
) -> None:
    groups = session.changes(0)["groups"]
    for superclass in (TOOL, "animal"):
        for place, group in enumerate([g for g in groups if g["superclass"] == superclass]):
            exemplars = session.members(group["number"])["exemplars"]
            hand("name", group=group["number"], name=f"class {place}", samples=exemplars)
    outcome = write_outcome(session)
    assert any("lies under several classes of kind: names are written as" in notice for notice in outcome.notices)
    expected = {f"{kind}/class {place}" for kind in (TOOL, "animal") for place in range(3)}
    labels = pd.read_csv(outcome.folder / "labels.csv")
    assert set(labels["subclass"].dropna()) == expected
    assert set(pd.read_csv(outcome.folder / "confirmed.csv")["subclass"]) == expected
    assert set(Taxonomy.from_json(outcome.folder / "taxonomy.json").classes[1]) == expected
    arguments = shlex.split(outcome.commands["fit"])[1:]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "fit")
    code, _, err = regrain(*arguments, "--device", "cpu")
    assert code == 0, err
    assert set(Run.open(tmp_path / "fit").labels.names("subclass")) == expected


def test_groups_without_a_name_have_a_proposed_one(run_folder: Path) -> None:
    """The blobs differ in one column each."""
    found = []
    for _ in range(2):  # from the subclasses, then from start.json
        opened = Session(regrain.Run.open(run_folder, device="cpu"))
        proposed = {g["number"]: g["proposed"] for g in opened.changes(0)["groups"]}
        number, words = next(iter(proposed.items()))
        assert opened.search(words)["groups"] == [number]
        opened.close()
        found.append(proposed)
    assert found[0] == found[1]
    assert len(set(proposed.values())) == len(proposed) == 6
    assert all(" sd" in name for name in proposed.values())
