"""Group membership from the journal's events: pure, without clock or randomness, so that a replay is exact.

Samples belong to groups. A group is a discovered subclass, a class whose labels came with the data, or a group that the
user made. A named group is a class of its superclass; groups that share a name in one superclass are one class. Any
statement of the user about a sample (confirm, move, mark as an outlier) makes it confirmed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from regrain.errors import UserError

LONGEST_NAME = 200


@dataclass(frozen=True)
class Group:
    """Samples that belong together."""

    number: int  # never reused for another group
    superclass: str | None
    name: str | None = None
    renamed: int = 0  # sequence number of the event that named it; 0 if it was made with its name
    proposed: str | None = None  # a name to begin with, by what sets its samples apart


@dataclass
class _Patch:
    """Earlier values of everything an action changed; :meth:`State._swap` exchanges them with the current ones."""

    rows: np.ndarray
    columns: tuple[np.ndarray, ...]
    groups: dict[int, Group | None] = field(default_factory=dict)


class State:
    """State of N samples.

    Parameters
    ----------
    group : array (N,)
        Number of every sample's initial group.

    Attributes
    ----------
    groups : dict of int to Group
        By number.
    group : int32 array (N,)
    confirmed, outlier : bool arrays (N,)
    said : int64 array (N,)
        Sequence number of the event by which a sample was last confirmed or marked; 0 if none.
    placed : int64 array (N,)
        Sequence number of the event by which a sample came into its group; 0 if it started there.
    changed : int64 array (N,)
        Sequence number of the event that last changed anything of a sample, undo and redo included.
    group_changed : dict of int to int
        The same for groups, including deleted ones; changes of membership do not count.
    seq : int
        Sequence number of the last event.

    Examples
    --------
    >>> state = State([Group(0, "bird"), Group(1, "bird")], [0, 0, 1])
    >>> state.apply(1, {"kind": "name", "group": 0, "name": "wren", "samples": [0]})
    >>> state.apply(2, {"kind": "merge", "group": 0, "others": [1]})
    >>> state.group.tolist(), sorted(state.groups), state.confirmed.tolist()
    ([0, 0, 0], [0], [True, False, False])
    >>> state.apply(3, {"kind": "undo"})
    >>> state.group.tolist(), sorted(state.groups)
    ([0, 0, 1], [0, 1])
    """

    def __init__(self, groups: Iterable[Group], group: Sequence[int] | np.ndarray) -> None:
        self.groups = {g.number: g for g in groups}
        self.group = np.array(group, dtype=np.int32)
        count = len(self.group)
        self.confirmed = np.zeros(count, dtype=bool)
        self.outlier = np.zeros(count, dtype=bool)
        self.said = np.zeros(count, dtype=np.int64)
        self.placed = np.zeros(count, dtype=np.int64)
        self.changed = np.zeros(count, dtype=np.int64)
        self.group_changed = dict.fromkeys(self.groups, 0)
        self.seq = 0
        self._next = max(self.groups, default=-1) + 1
        self._done: list[_Patch] = []
        self._undone: list[_Patch] = []

    def __len__(self) -> int:
        return len(self.group)

    @property
    def next_number(self) -> int:
        """The number of the next new group."""
        return self._next

    @property
    def can_undo(self) -> bool:
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        return bool(self._undone)

    def members(self, number: int) -> np.ndarray:
        """The rows (n,) of a group, without outliers."""
        return np.flatnonzero((self.group == number) & ~self.outlier)

    def known_rows(self, samples: Sequence[int]) -> np.ndarray:
        """Convert samples to rows (n,), each once.

        Raises a UserError if the list is empty, or a sample is out of range.
        """
        return np.unique(self._rows(samples, some=True))

    def named(self, superclass: str | None, name: str) -> Group | None:
        """The first group of a superclass with this name."""
        found = [g for g in self.groups.values() if g.superclass == superclass and g.name == name]
        return min(found, key=lambda g: g.number, default=None)

    def check(self, event: Mapping[str, Any]) -> None:
        """Raise a UserError if an event cannot be applied."""
        kind = event.get("kind")
        if kind == "undo" and not self._done:
            raise UserError("there is nothing to undo", code="out_of_range")
        if kind == "redo" and not self._undone:
            raise UserError("there is nothing to redo", code="out_of_range")
        if kind in ("undo", "redo"):
            return
        if kind not in _ACTIONS:
            raise UserError(
                f"no action is called {kind!r}: there are {', '.join([*_ACTIONS, 'undo', 'redo'])}",
                code="unknown_option",
            )
        getattr(self, f"_check_{kind}")(event)

    def apply(self, seq: int, event: Mapping[str, Any]) -> None:
        """Apply the event with the next sequence number."""
        self.check(event)
        self.seq = seq
        kind = event["kind"]
        if kind == "undo":
            self._undone.append(self._swap(self._done.pop()))
        elif kind == "redo":
            self._done.append(self._swap(self._undone.pop()))
        else:
            patch = getattr(self, f"_{kind}")(event)
            self._undone.clear()
            self._done.append(patch)
            self._note(patch)

    # Requirements and effects of each action

    def _check_name(self, event: Mapping[str, Any]) -> None:
        self._require_group(event["group"])
        clean_name(event["name"])
        rows = self._rows(event["samples"])
        elsewhere = rows[self.group[rows] != event["group"]]
        if len(elsewhere):
            raise UserError(
                f"sample {elsewhere[0]} is not in subclass {event['group']}: it cannot be confirmed there",
                code="conflicting_options",
            )

    def _name(self, event: Mapping[str, Any]) -> _Patch:
        number = event["group"]
        patch = self._before(self._rows(event["samples"]), [number])
        name = clean_name(event["name"])
        if name != self.groups[number].name:
            self.groups[number] = replace(self.groups[number], name=name, renamed=self.seq)
        self._say(patch.rows)
        return patch

    def _check_confirm(self, event: Mapping[str, Any]) -> None:
        self._rows(event["samples"], some=True)

    _check_outlier = _check_confirm

    def _confirm(self, event: Mapping[str, Any]) -> _Patch:
        patch = self._before(self._rows(event["samples"]), [])
        self._say(patch.rows)
        return patch

    def _outlier(self, event: Mapping[str, Any]) -> _Patch:
        patch = self._before(self._rows(event["samples"]), [])
        marked = bool(event["marked"])
        self.outlier[patch.rows] = marked
        self.confirmed[patch.rows] = False
        self.said[patch.rows] = self.seq if marked else 0
        return patch

    def _check_move(self, event: Mapping[str, Any]) -> None:
        made = [int(g["number"]) for g in event.get("new", ())]
        if made != list(range(self._next, self._next + len(made))):
            raise UserError(f"new groups are numbered from {self._next}; got {made}", code="out_of_range")
        for new in event.get("new", ()):
            if new["name"] is not None:
                clean_name(new["name"])
        if not event["moves"]:
            raise UserError("no sample was named to be moved", code="too_few")
        for move in event["moves"]:
            if move["group"] not in made:
                self._require_group(move["group"])
            self._rows(move["samples"], some=True)

    def _move(self, event: Mapping[str, Any]) -> _Patch:
        new = [Group(g["number"], g["superclass"], g["name"] and clean_name(g["name"])) for g in event.get("new", ())]
        rows = np.unique(np.concatenate([self._rows(m["samples"]) for m in event["moves"]]))
        patch = self._before(rows, [g.number for g in new])
        self._add(new)
        for move in event["moves"]:
            self._place(self._rows(move["samples"]), move["group"])
        self._say(rows)
        return patch

    def _check_merge(self, event: Mapping[str, Any]) -> None:
        self._require_group(event["group"])
        others = event["others"]
        if not others or event["group"] in others or len(set(others)) != len(others):
            raise UserError("a merge takes one subclass and others, each of them once")
        for other in others:
            self._require_group(other)

    def _merge(self, event: Mapping[str, Any]) -> _Patch:
        patch = self._before(np.flatnonzero(np.isin(self.group, event["others"])), event["others"])
        self._place(patch.rows, event["group"])
        for other in event["others"]:
            del self.groups[other]
        return patch

    def _check_split(self, event: Mapping[str, Any]) -> None:
        self._require_group(event["group"])
        made = [int(part["number"]) for part in event["parts"]]
        if not made or made != list(range(self._next, self._next + len(made))):
            raise UserError(f"the parts of a split are numbered from {self._next}; got {made}", code="out_of_range")
        for part in event["parts"]:
            rows = self._rows(part["samples"], some=True)
            if (self.group[rows] != event["group"]).any() or self.confirmed[rows].any():
                raise UserError("a split parts unconfirmed samples of one subclass; others stay where they were put")

    def _split(self, event: Mapping[str, Any]) -> _Patch:
        new = [Group(part["number"], self.groups[event["group"]].superclass) for part in event["parts"]]
        rows = np.concatenate([self._rows(part["samples"]) for part in event["parts"]])
        patch = self._before(np.unique(rows), [g.number for g in new])
        self._add(new)
        for part in event["parts"]:
            self._place(self._rows(part["samples"]), part["number"])
        return patch

    # Small parts

    def _require_group(self, number: Any) -> None:
        if number not in self.groups:
            raise UserError(f"there is no subclass {number} (any more)", code="unknown_name")

    def _rows(self, samples: Sequence[int], *, some: bool = False) -> np.ndarray:
        rows = np.asarray(samples, dtype=np.int64).reshape(-1)
        if some and not len(rows):
            raise UserError("no sample is selected", code="too_few")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise UserError(
                f"samples are numbered from 0 to {len(self) - 1}; got {rows.min()} to {rows.max()}", code="out_of_range"
            )
        return rows

    def _place(self, rows: np.ndarray, number: int) -> None:
        self.placed[rows[self.group[rows] != number]] = self.seq
        self.group[rows] = number

    def _say(self, rows: np.ndarray) -> None:
        self.confirmed[rows] = True
        self.outlier[rows] = False
        self.said[rows] = self.seq

    def _add(self, new: Sequence[Group]) -> None:
        self.groups |= {g.number: g for g in new}
        self._next += len(new)

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.group, self.confirmed, self.outlier, self.said, self.placed

    def _before(self, rows: np.ndarray, numbers: Iterable[int]) -> _Patch:
        return _Patch(rows, tuple(c[rows] for c in self._columns()), {n: self.groups.get(n) for n in numbers})

    def _swap(self, patch: _Patch) -> _Patch:
        now = self._before(patch.rows, patch.groups)
        for column, values in zip(self._columns(), patch.columns, strict=True):
            column[patch.rows] = values
        for number, group in patch.groups.items():
            if group is None:
                self.groups.pop(number, None)
            else:
                self.groups[number] = group
        self._note(patch)
        return now

    def _note(self, patch: _Patch) -> None:
        self.changed[patch.rows] = self.seq
        self.group_changed |= dict.fromkeys(patch.groups, self.seq)


_ACTIONS = ("name", "confirm", "outlier", "move", "merge", "split")


def clean_name(name: Any) -> str:
    """Strip the spaces around a name, and check it.

    Raises a UserError if it is empty, too long, or holds control characters.
    """
    text = name.strip() if isinstance(name, str) else ""
    if not text:
        raise UserError("a name is needed", code="out_of_range")
    if len(text) > LONGEST_NAME:
        raise UserError(f"a name has at most {LONGEST_NAME} characters; this one has {len(text)}", code="out_of_range")
    if any(not c.isprintable() for c in text):
        raise UserError("a name is printable text on one line", code="out_of_range")
    return text
