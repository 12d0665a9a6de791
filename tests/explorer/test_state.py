"""Replay is deterministic, and undo takes back exactly one action, however many there were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrain.errors import UserError
from regrain.explorer.state import Group, State

N = 12


def _start() -> State:
    return State([Group(0, "a"), Group(1, "a"), Group(2, "b", "wren")], np.arange(N) % 3)


def _look(state: State) -> tuple[Any, ...]:
    return (
        dict(sorted(state.groups.items())),
        state.group.tolist(),
        state.confirmed.tolist(),
        state.outlier.tolist(),
    )


def _event(state: State, draw: Any) -> dict[str, Any]:
    """A valid event for a state."""
    numbers = sorted(state.groups)
    samples = draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=5, unique=True))
    kinds = ["confirm", "outlier", "move", "new", "name"]
    kinds += ["merge"] if len(numbers) > 1 else []
    kinds += ["undo"] if state.can_undo else []
    kinds += ["redo"] if state.can_redo else []
    free = {g: np.flatnonzero((state.group == g) & ~state.confirmed).tolist() for g in numbers}
    kinds += ["split"] if any(free.values()) else []
    kind = draw(st.sampled_from(kinds))
    group = draw(st.sampled_from(numbers))
    if kind == "confirm":
        return {"kind": kind, "samples": samples}
    if kind == "outlier":
        return {"kind": kind, "samples": samples, "marked": draw(st.booleans())}
    if kind == "move":
        return {"kind": kind, "moves": [{"group": group, "samples": samples}]}
    if kind == "new":
        new = {"number": state.next_number, "superclass": "a", "name": "new"}
        return {"kind": "move", "moves": [{"group": state.next_number, "samples": samples}], "new": [new]}
    if kind == "name":
        return {"kind": kind, "group": group, "name": "x", "samples": np.flatnonzero(state.group == group)[:2].tolist()}
    if kind == "merge":
        return {"kind": kind, "group": group, "others": [n for n in numbers if n != group][:1]}
    if kind == "split":
        group = draw(st.sampled_from([g for g, rows in free.items() if rows]))
        return {"kind": kind, "group": group, "parts": [{"number": state.next_number, "samples": free[group][:2]}]}
    return {"kind": kind}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_history_replays_alike_and_undoes_to_its_start(data: st.DataObject) -> None:
    state = _start()
    events: list[dict[str, Any]] = []
    looks, depth = [_look(state)], 0  # after none, one, ... of the actions that stand
    for seq in range(1, data.draw(st.integers(1, 20)) + 1):
        before = state.group.copy(), state.confirmed.copy(), state.outlier.copy()
        event = _event(state, data.draw)
        state.apply(seq, event)
        events.append(event)
        if event["kind"] in ("undo", "redo"):
            depth += 1 if event["kind"] == "redo" else -1
            assert _look(state) == looks[depth]
        else:
            depth += 1
            looks = [*looks[:depth], _look(state)]
        altered = np.zeros(N, bool)
        for old, new in zip(before, (state.group, state.confirmed, state.outlier), strict=True):
            altered |= old != new
        assert set(np.flatnonzero(altered)) <= set(np.flatnonzero(state.changed == seq))
        assert set(state.group.tolist()) <= set(state.groups)
        assert not (state.confirmed & state.outlier).any()
    again = _start()
    for seq, event in enumerate(events, 1):
        again.apply(seq, event)
    assert _look(again) == _look(state)
    assert again.said.tolist() == state.said.tolist()
    seq = len(events)
    while state.can_undo:
        seq += 1
        state.apply(seq, {"kind": "undo"})
    assert _look(state) == _look(_start())
    while state.can_redo:
        seq += 1
        state.apply(seq, {"kind": "redo"})
    assert _look(state) == looks[-1]


def test_a_new_action_ends_what_could_be_redone() -> None:
    state = _start()
    state.apply(1, {"kind": "confirm", "samples": [0]})
    state.apply(2, {"kind": "undo"})
    assert state.can_redo
    state.apply(3, {"kind": "confirm", "samples": [1]})
    assert not state.can_redo


def test_numbers_of_groups_are_never_used_again() -> None:
    state = _start()
    new = {"number": 3, "superclass": "a", "name": "new"}
    state.apply(1, {"kind": "move", "moves": [{"group": 3, "samples": [0]}], "new": [new]})
    state.apply(2, {"kind": "undo"})
    assert state.next_number == 4
    assert 3 not in state.groups


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"kind": "dance"}, "no action is called 'dance'"),
        ({"kind": "undo"}, "nothing to undo"),
        ({"kind": "redo"}, "nothing to redo"),
        ({"kind": "name", "group": 9, "name": "x", "samples": []}, "there is no subclass 9"),
        ({"kind": "name", "group": 0, "name": " ", "samples": []}, "a name is needed"),
        ({"kind": "name", "group": 0, "name": "a\nb", "samples": []}, "on one line"),
        ({"kind": "name", "group": 0, "name": "x" * 201, "samples": []}, "at most 200"),
        ({"kind": "name", "group": 0, "name": "x", "samples": [1]}, "sample 1 is not in subclass 0"),
        ({"kind": "confirm", "samples": []}, "no sample is selected"),
        ({"kind": "confirm", "samples": [N]}, f"numbered from 0 to {N - 1}"),
        ({"kind": "confirm", "samples": [-1]}, f"numbered from 0 to {N - 1}"),
        ({"kind": "merge", "group": 0, "others": [0]}, "each of them once"),
        ({"kind": "merge", "group": 0, "others": [7]}, "there is no subclass 7"),
        ({"kind": "split", "group": 0, "parts": [{"number": 3, "samples": [1]}]}, "of one subclass"),
        ({"kind": "split", "group": 0, "parts": [{"number": 1, "samples": [0]}]}, "numbered from 3"),
        ({"kind": "move", "moves": []}, "no sample was named"),
        ({"kind": "move", "moves": [{"group": 5, "samples": [0]}]}, "there is no subclass 5"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(event: dict[str, Any], message: str) -> None:
    state = _start()
    with pytest.raises(UserError, match=message):
        state.apply(1, event)
    assert _look(state) == _look(_start())
    assert state.seq == 0
