"""One open exploration: order actions from all browsers, write them to the journal, and apply them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn import functional

from regrain.errors import UserError
from regrain.explorer.collection import Collection, open_collection
from regrain.explorer.journal import Journal
from regrain.explorer.proposals import Evidence, Proposals, Proposer, no_proposals, propose
from regrain.explorer.state import State, clean_name
from regrain.methods.clustering import STARTS, kmeans
from regrain.metrics.neighbours import nearest_neighbours
from regrain.pictures.map import MapKind
from regrain.runs.run import Run
from regrain.storage.files import make_folder

CONFIRMED, OUTLIER, GIVEN = 1, 2, 4
"""Bits of the sample flags."""

_EXEMPLARS, _TYPICAL = 10, 4
_MOST_FOUND = 5_000
_MANY, _FEW_STARTS = 5_000, 2
"""Above this many samples, a split starts k-means only this often, to stay fast."""


class StaleError(UserError):
    """Another user changed the target of an action after this user's last update."""

    code = "stale"


class Session:
    """The exploration of a run; only one can be open at a time.

    Raises a UserError if another process explores the run, or its journal or data have changed.

    Parameters
    ----------
    level : str, optional
        Level whose names the groups start with; see :func:`regrain.explorer.collection.open_collection`.
    map_kind : {"auto", "pca", "tsne"}
    seed : int
        See :func:`regrain.explorer.collection.open_collection`.

    Attributes
    ----------
    folder : Path
        ``explorer/`` in the run.
    proposals : Proposals or None
        The latest proposals.
    notices : list of str
        Sentences for the user.
    positions : ndarray (N, 2)
        Positions on the map.
    map_number : int
        0 for the first map; 1 once t-SNE has replaced it.
    hung_up : bool
        Whether listeners should stop.
    lock : RLock
        Hold it to read the state more than once.
    exporting : Lock
        Held while an export is written.
    """

    def __init__(self, run: Run, *, level: str | None = None, map_kind: MapKind = "auto", seed: int = 0) -> None:
        self.run = run
        self.folder: Path = run.path / "explorer"
        run.folder.require_writable()
        make_folder(self.folder)
        self._seed = seed
        self.lock = threading.RLock()
        self.exporting = threading.Lock()
        self.hung_up = self._closed = False
        self._listeners: list[Callable[[], object]] = []
        self.proposals: Proposals | None = None
        self._proposed = threading.Condition(self.lock)
        self.journal = Journal(self.folder / "journal.jsonl")
        try:
            if self.journal.entries and not (self.folder / "start.json").exists():
                raise UserError(
                    f"{self.folder} has a journal and no start.json: bring that file back", code="damaged_file"
                )
            self.collection: Collection = open_collection(run, self.folder, level=level, map_kind=map_kind, seed=seed)
            self.state = self._replayed()
        except BaseException:
            self.journal.close()
            raise
        self.notices = self.journal.notices
        self.positions, self.map_number = self.collection.positions, 0
        if self.collection.better_map is not None:
            work = (self.collection.better_map,)
            threading.Thread(target=self._place, args=work, name="map", daemon=True).start()
        self._proposer = Proposer(self._propose, self._take_proposals)
        self._proposer.ask()

    def _replayed(self) -> State:
        state = State(self.collection.start.groups, self.collection.start.group)
        self._acted: dict[str, int] = {}
        for entry in self.journal.entries:
            try:
                state.apply(entry.seq, entry.event)
            except UserError as error:
                raise UserError(
                    f"line {entry.seq} of {self.journal.path} does not fit start.parquet ({error}): bring the two "
                    "files of one exploration together",
                    code="damaged_file",
                ) from None
            self._acted[entry.event.get("action", "")] = entry.seq
        return state

    def close(self) -> None:
        """Stop making proposals, and release the run for other processes."""
        self._closed = True
        self._proposer.stop()
        self.journal.close()

    # Actions

    def act(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Write a user's action to the journal, apply it, and return :meth:`changes` since the user's last update.

        Raises a StaleError if the target of the action changed after ``seen``. Raises a UserError if the action is not
        possible.

        ``request``: ``kind``, ``seen`` (the sequence number of the user's page), ``action`` (an id made by the page, so
        that a repeated request is applied once), and the fields of the kind.
        """
        with self.lock:
            seen, action = int(request["seen"]), str(request["action"])
            if action not in self._acted:
                event = self._event(request)
                self.state.check(event)
                self._require_fresh(event, seen)
                event |= {"action": action}
                held_out = self._held_out(event)
                if held_out:
                    event["held_out"] = held_out
                entry = self.journal.append(event)
                self.state.apply(entry.seq, entry.event)
                self._acted[action] = entry.seq
                self._proposer.ask()
                self._tell()
            return self.changes(seen)

    def _event(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Build the journal event with all decisions, so that a replay makes none."""
        kind = request["kind"]
        if kind == "split":
            parts = self._parts(request["group"], request["count"])
            return {"kind": kind, "group": request["group"], "parts": parts}
        if kind == "label":
            return self._label(request)
        return {name: value for name, value in request.items() if name not in ("seen", "action")}

    def _label(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Move samples to the class of a name, in the requested superclass or in each sample's own."""
        name, rows = clean_name(request["name"]), self.state.known_rows(request["samples"])
        own, _ = self.superclass_of(rows)
        wanted = own
        if "superclass" in request:
            above = request["superclass"]
            if above not in self.superclasses():
                raise UserError(f"there is no superclass {above!r}", code="unknown_name")
            start = self.collection.start
            for row, known in zip(rows.tolist(), own, strict=True):
                if start.superclass_given[row] and known != above:
                    raise UserError(
                        f"sample {start.ids[row]} is of superclass {known!r}, and '{name}' was to be one of {above!r}: "
                        "leave it out, or move it to a subclass there where the data are wrong",
                        code="conflicting_options",
                    )
            wanted = [above] * len(own)
        moves: list[dict[str, Any]] = []
        new: list[dict[str, Any]] = []
        for above in dict.fromkeys(wanted):
            there = self.state.named(above, name)
            number = self.state.next_number + len(new) if there is None else there.number
            if there is None:
                new.append({"number": number, "superclass": above, "name": name})
            samples = [row for row, owner in zip(rows.tolist(), wanted, strict=True) if owner == above]
            moves.append({"group": number, "samples": samples})
        return {"kind": "move", "moves": moves} | ({"new": new} if new else {})

    def _parts(self, number: int, count: int) -> list[dict[str, Any]]:
        """Cluster a group's samples; the cluster with most confirmed samples, or the largest, keeps the group."""
        if number not in self.state.groups:
            raise UserError(f"there is no subclass {number} (any more)", code="unknown_name")
        rows = self.state.members(number)
        if not 2 <= count <= len(rows):
            raise UserError(
                f"{len(rows)} samples can be split into 2 to {len(rows)} parts; got {count}", code="out_of_range"
            )
        starts = _FEW_STARTS if len(rows) > _MANY else STARTS
        codes = kmeans(self.collection.embeddings[rows], count, starts=starts, seed=self._seed)[0].numpy()
        confirmed = self.state.confirmed[rows]
        weight = np.bincount(codes[confirmed], minlength=count) * len(rows) + np.bincount(codes, minlength=count)
        parts: list[dict[str, Any]] = []
        for code in np.argsort(-weight, kind="stable")[1:]:
            moved = rows[(codes == code) & ~confirmed]
            if len(moved):
                parts.append({"number": self.state.next_number + len(parts), "samples": moved.tolist()})
        if not parts:
            raise UserError(
                "this subclass does not fall apart: all its other samples are confirmed, or alike", code="too_few"
            )
        return parts

    def _require_fresh(self, event: Mapping[str, Any], seen: int) -> None:
        state = self.state
        if seen >= state.seq:
            return
        kind = event["kind"]
        if kind in ("undo", "redo"):
            raise StaleError("somebody acted meanwhile; look at what changed, then undo or redo again")
        numbers = [event[key] for key in ("group",) if key in event] + list(event.get("others", ()))
        rows = list(event.get("samples", ()))
        for move in event.get("moves", ()):
            rows += move["samples"]
            numbers.append(move["group"])
        if kind in ("merge", "split"):
            rows = np.flatnonzero(np.isin(state.group, numbers)).tolist()
        stale = any(state.group_changed.get(number, 0) > seen for number in numbers)
        if stale or (rows and int(state.changed[rows].max()) > seen):
            raise StaleError("somebody changed these samples or subclasses meanwhile; look again, then repeat it")

    def _held_out(self, event: Mapping[str, Any]) -> int:
        """Count samples outside the training split that an action names, or whose given label it changes."""
        state, spoken = self.state, np.zeros(len(self.collection), dtype=bool)
        if event["kind"] == "name" and clean_name(event["name"]) != state.groups[event["group"]].name:
            spoken |= self.collection.start.given & (state.group == event["group"])
        elif event["kind"] == "merge":
            spoken |= self.collection.start.given & np.isin(state.group, event["others"])
        for part in event.get("parts", ()):
            spoken[part["samples"]] = self.collection.start.given[part["samples"]]
        for named in (event, *event.get("moves", ())):
            spoken[np.asarray(named.get("samples", ()), dtype=np.int64)] = True
        return int((spoken & ~self.collection.training).sum())

    # Messages to browsers

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call ``listener``, from any thread, after every change; returns a function that ends this."""
        with self.lock:
            self._listeners.append(listener)

        def forget() -> None:
            with self.lock:
                self._listeners.remove(listener)

        return forget

    def hang_up(self) -> None:
        """Stop all listeners."""
        self.hung_up = True
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    def standing(self) -> dict[str, int]:
        """Sequence numbers of the state and of the latest proposals (-1 before the first); number of the map."""
        with self.lock:
            proposed = -1 if self.proposals is None else self.proposals.seq
            return {"seq": self.state.seq, "proposed": proposed, "map": self.map_number}

    def changes(self, since: int) -> dict[str, Any]:
        """All groups, and the samples that changed after an event."""
        with self.lock:
            renamed = [number for number, seq in self.state.group_changed.items() if seq > since]
            told_anew = self.collection.start.given & np.isin(self.state.group, renamed)
            rows = np.flatnonzero((self.state.changed > since) | told_anew)
            return {
                "seq": self.state.seq,
                "groups": self._groups(),
                "rows": rows.tolist(),
                "group": self.state.group[rows].tolist(),
                "flags": self.flags()[rows].tolist(),
                "can_undo": self.state.can_undo,
                "can_redo": self.state.can_redo,
            }

    def _groups(self) -> list[dict[str, Any]]:
        state = self.state
        inside = ~state.outlier
        sizes = np.bincount(state.group[inside], minlength=state.next_number)
        confirmed = np.bincount(state.group[self.confirmed()], minlength=state.next_number)
        return [
            {
                "number": g.number,
                "superclass": g.superclass,
                "name": g.name,
                "proposed": g.proposed,
                "size": int(sizes[g.number]),
                "confirmed": int(confirmed[g.number]),
            }
            for g in state.groups.values()
        ]

    def superclasses(self) -> list[str | None]:
        """The names of superclasses, in the order of the start's groups."""
        return list(dict.fromkeys(g.superclass for g in self.collection.start.groups))

    def flags(self) -> np.ndarray:
        """Flags of the samples: uint8 (N,)."""
        state = self.state
        return (CONFIRMED * self.confirmed() + OUTLIER * state.outlier + GIVEN * self.still_given()).astype(np.uint8)

    def retold(self) -> np.ndarray:
        """Given labels whose class the user renamed, merged, split or moved: bool (N,)."""
        state, start = self.state, self.collection.start
        names = {g.number: g.name for g in start.groups}
        renamed = [g.number for g in state.groups.values() if g.number in names and g.name != names[g.number]]
        return start.given & ((state.group != start.group) | np.isin(state.group, renamed))

    def still_given(self) -> np.ndarray:
        """Given labels that the user has not touched: bool (N,)."""
        return self.collection.start.given & (self.state.said == 0) & ~self.retold()

    def confirmed(self) -> np.ndarray:
        """Samples that the user confirmed, or whose given class the user changed; without outliers: bool (N,)."""
        state = self.state
        named = [g.number for g in state.groups.values() if g.name is not None]
        return state.confirmed | (self.retold() & ~state.outlier & np.isin(state.group, named))

    def said(self) -> np.ndarray:
        """Number of the event that gave a sample its present statement; 0 if there is none: int64 (N,)."""
        state = self.state
        renamed = np.zeros(state.next_number, dtype=np.int64)
        for group in state.groups.values():
            renamed[group.number] = group.renamed
        return np.where(self.retold(), np.maximum(state.placed, renamed[state.group]).clip(min=state.said), state.said)

    def superclass_of(self, rows: np.ndarray) -> tuple[list[str | None], np.ndarray]:
        """Superclass of rows (n,), and whether the user moved them there (n,)."""
        state, start = self.state, self.collection.start
        before = {g.number: g.superclass for g in start.groups}
        first = [before[number] for number in start.group[rows].tolist()]
        now = [state.groups[number].superclass for number in state.group[rows].tolist()]
        known = [start.superclass[row] for row in rows.tolist()]
        taken = self.confirmed()[rows] & np.array(
            [n not in (k, f) for n, k, f in zip(now, known, first, strict=True)], dtype=bool
        )
        return [n if t else k for n, k, t in zip(now, known, taken.tolist(), strict=True)], taken

    def points(self) -> tuple[int, bytes]:
        """The sequence number, and for all samples group (int32), flags and split (uint8)."""
        with self.lock:
            start = self.collection.start
            names, split = np.unique(start.splits, return_inverse=True)
            number = {name: place for place, name in enumerate(self.splits())}
            codes = np.array([number[name] for name in names.tolist()], dtype=np.uint8)[split]
            arrays = (self.state.group, self.flags(), codes)
            return self.state.seq, b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)

    def splits(self) -> list[str]:
        """The names of the splits, in the order of the samples."""
        return list(dict.fromkeys(self.collection.start.splits.tolist()))

    def places(self) -> tuple[int, bytes]:
        """The number of the map, and x, y of all samples (float32)."""
        with self.lock:
            return self.map_number, np.ascontiguousarray(self.positions).tobytes()

    def _place(self, better: Callable[[], np.ndarray]) -> None:
        """Make the slow map in a thread, and show it in place of the first one."""
        try:
            found = better()
            if self._closed:
                return
            with self.lock:
                self.positions, self.map_number = found, self.map_number + 1
                self._tell()
            self.collection.keep_map(found)
        except Exception as error:  # the page works with the map that it has, and says why at the next visit
            self.notices.append(f"the t-SNE map was not made or not kept: {error}")

    def members(self, number: int) -> dict[str, Any]:
        """A group's samples, nearest to its mean first and outliers last, and its exemplars.

        Exemplars are the first training samples whose superclass is the group's.
        """
        with self.lock:
            if number not in self.state.groups:
                raise UserError(f"there is no subclass {number} (any more)", code="unknown_name")
            group = self.state.groups[number]
            rows, aside = self.state.members(number), np.flatnonzero((self.state.group == number) & self.state.outlier)
        ordered = self._by_likeness(rows)
        exemplars = self._exemplars(ordered, group.superclass)
        return {"rows": [*ordered.tolist(), *aside.tolist()], "exemplars": exemplars}

    def typical(self, numbers: Sequence[int]) -> dict[int, list[int]]:
        """A few samples that picture each of the groups; groups that are gone are left out.

        They are the first exemplars; where a group has none, the samples nearest to its mean.
        """
        with self.lock:
            groups = {n: (self.state.groups[n], self.state.members(n)) for n in numbers if n in self.state.groups}
        found = {}
        for number, (group, rows) in groups.items():
            ordered = self._by_likeness(rows)
            found[number] = (self._exemplars(ordered, group.superclass) or ordered.tolist())[:_TYPICAL]
        return found

    def _by_likeness(self, rows: np.ndarray) -> np.ndarray:
        """Sort rows by the cosine to their mean, largest first."""
        vectors = self.collection.embeddings[rows]
        likeness = (vectors @ functional.normalize(vectors.sum(dim=0), dim=0)).numpy()
        return rows[np.argsort(-likeness, kind="stable")]

    def _exemplars(self, ordered: np.ndarray, superclass: str | None) -> list[int]:
        """The first training samples of a superclass."""
        start = self.collection.start
        learned = self.collection.training if self.collection.training.any() else np.ones(len(start.ids), bool)
        exemplars = (r for r in ordered.tolist() if learned[r] and start.superclass[r] == superclass)
        return list(islice(exemplars, _EXEMPLARS))

    def neighbours(self, row: int, count: int) -> list[int]:
        """The samples most similar to one; that sample comes first."""
        vectors = self.collection.embeddings
        _, found = nearest_neighbours(vectors[row : row + 1], vectors, min(count, len(vectors)), exclude_self=False)
        return [row, *(r for r in found[0].tolist() if r != row)]

    def search(self, query: str) -> dict[str, Any]:
        """Find groups and samples by name, superclass, id or text, ignoring case."""
        wanted = query.strip().lower()
        if not wanted:
            return {"groups": [], "rows": [], "total": 0}
        with self.lock:
            groups = [
                g.number
                for g in self.state.groups.values()
                if wanted in f"{g.name or g.proposed or ''} {g.superclass or ''} {g.number}".lower()
            ]
        ids, texts = self.collection.start.ids.tolist(), self.collection.texts
        rows = [
            row
            for row, identity in enumerate(ids)
            if wanted in identity.lower() or (texts is not None and wanted in texts[row])
        ]
        return {"groups": groups, "rows": rows[:_MOST_FOUND], "total": len(rows)}

    # Proposals

    def evidence(self) -> Evidence:
        """Evidence for proposals: training samples that are confirmed or have a given label."""
        with self.lock:
            state = self.state
            labelled = (self.confirmed() | self.still_given()) & ~state.outlier
            named = tuple(g for g in state.groups.values() if g.name is not None)
            return Evidence(state.seq, named, state.group.copy(), labelled & self.collection.training)

    def _propose(self) -> Proposals:
        start, evidence = self.collection.start, self.evidence()
        try:
            return propose(
                self.collection.embeddings, evidence, start.superclass, start.superclass_given, seed=self._seed
            )
        except UserError as error:
            return no_proposals(evidence, len(self.collection), f"no proposals: {error}")
        except Exception as error:  # on any error: the next action asks again, and an export must not wait for ever
            reason = f"{type(error).__name__}: {error}"
            return no_proposals(evidence, len(self.collection), f"no proposals, by an error of the program: {reason}")

    def _take_proposals(self, proposals: Proposals) -> None:
        with self.lock:
            self.proposals = proposals
            self._proposed.notify_all()
            self._tell()

    def newest_proposals(self, timeout: float | None = None) -> Proposals | None:
        """Wait for proposals from the newest evidence; None after ``timeout`` seconds."""
        with self.lock:
            ready = self._proposed.wait_for(
                lambda: self.proposals is not None and self.proposals.seq >= self.state.seq, timeout
            )
            return self.proposals if ready else None
