"""The explored data: the samples of a run, their map positions, and the initial subclasses.

The start is written once, to ``start.parquet`` and ``start.json``; the journal's events refer to its rows and groups.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypedDict

from regrain.data.dataset import Dataset
from regrain.data.samples import Modality
from regrain.errors import UserError
from regrain.evaluation import embed
from regrain.explorer.state import Group
from regrain.pictures.map import MapKind, chosen_kind, embedding_map
from regrain.pictures.numbers import scale_of
from regrain.runs.run import Run
from regrain.runs.subclass_model import is_own_name
from regrain.runs.tables import table_writer
from regrain.storage.files import Folder, json_writer, save_tensors
from regrain.verbs.discover import discover

NAMED_LEVEL = "subclass"
"""Default level of the names that a user gives."""

_VECTORS = "vectors.safetensors"

_QUICK = 1_000
"""Most samples that t-SNE places within seconds; more are shown by principal components until it has placed them."""


class _GroupForm(TypedDict):
    number: int
    superclass: str | None
    name: str | None
    proposed: NotRequired[str | None]


class _StartForm(TypedDict):
    level: str
    superclass_level: str | None
    groups: list[_GroupForm]


@dataclass(frozen=True)
class Start:
    """Initial state of an exploration."""

    level: str  # level of the classes that the user names
    # name of the level whose classes hold the subclasses; None if all samples form one group
    superclass_level: str | None
    groups: tuple[Group, ...]  # initial groups: clusters, or classes of a finer level
    # ids and splits: arrays of str (N,)
    ids: np.ndarray
    splits: np.ndarray
    group: np.ndarray  # int32 array (N,)
    superclass: tuple[str | None, ...]  # tuple of str or None (N,): the label, or the prediction
    # superclass_given and given: bool arrays (N,): whether the superclass, and the class of ``level``, is a label that
    # came with the data
    superclass_given: np.ndarray
    given: np.ndarray
    probability: np.ndarray  # float32 array (N,): probability of the discovered subclass


@dataclass(frozen=True)
class Collection:
    """The samples of a run in the order of its start."""

    start: Start
    parts: tuple[Dataset, ...]  # parts to concatenate
    order: np.ndarray  # int64 array (N,): position of every row of the start in the concatenated parts
    embeddings: Tensor  # (N, d): unit vectors
    positions: np.ndarray  # float32 array (N, 2): positions on the first map
    better_map: Callable[[], np.ndarray] | None  # makes the positions of a map that takes long; None if it is made
    keep_map: Callable[[np.ndarray], object]  # keeps these for the next time

    def __len__(self) -> int:
        return len(self.order)

    @property
    def modality(self) -> Modality:
        return self.parts[0].modality

    @property
    def training(self) -> np.ndarray:
        """Samples that the run was trained on, and that proposals may learn from: bool (N,)."""
        return self.start.splits == "train"

    @cached_property
    def key(self) -> str:
        """Hash of the ids by row and of the data; while it stays the same, so does the display of each row."""
        content = hashlib.blake2b(digest_size=16)
        for part in self.parts:
            content.update(part.fingerprint().encode())
        for identity in self.start.ids.tolist():
            content.update(f"{len(identity)}:{identity}".encode())
        return content.hexdigest()

    @cached_property
    def texts(self) -> list[str] | None:
        """Lower-case texts for the search, if the samples are texts."""
        if self.modality != "text":
            return None
        every = [text.lower() for part in self.parts for text in part.samples.take(torch.arange(len(part)))]
        return [every[place] for place in self.order]

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the columns of vectors, or the channels of series."""
        return scale_of(self.parts[0])

    def place(self, row: int) -> tuple[Dataset, int]:
        """Find the part that holds a row of the start, and the row in it."""
        at = int(self.order[row])
        for part in self.parts:
            if at < len(part):
                return part, at
            at -= len(part)
        raise IndexError(row)


def open_collection(
    run: Run, folder: Path, *, level: str | None = None, map_kind: MapKind = "auto", seed: int = 0
) -> Collection:
    """Open the samples of a run, with the start of an earlier exploration or from the discovered subclasses.

    Raises a UserError if the run's data are gone or differ from the start of the exploration; if ``level`` is not a
    level below the superclasses, or differs from the level that the exploration started with.

    ``folder``: folder for the start and for results that are slow to compute. ``level``: a level of the data, whose
    labels are shown and may be corrected. Default: a new level; labels finer than the superclasses stay unread.
    ``seed``: seed of the map and of clustering.
    """
    parts = run.splits()
    store = Folder(folder, verify=run.folder.verify)
    if (folder / "start.json").exists():
        start = _read_start(store, level)
    else:
        start = _make_start(run, parts, level, seed)
        _write_start(store, start)
    every = np.concatenate([part.ids for part in parts.values()])
    order = _order(every, start.ids, run.path)
    vectors = _Vectors(run, store, order, map_kind, seed)
    embeddings, found, better = vectors.load(tuple(parts.values()))
    return Collection(
        start, tuple(parts.values()), order, embeddings, found, better, partial(vectors.keep, embeddings, final=True)
    )


def _make_start(run: Run, parts: Mapping[str, Dataset], level: str | None, seed: int) -> Start:
    found = discover(run, seed=seed)
    labels = next(iter(parts.values())).labels
    if level is not None:
        labels.level_index(level)
        if found.level is not None and labels.level_index(level) <= labels.level_index(found.level):
            raise UserError(
                f"--level names a level below the superclasses' ('{found.level}'); got '{level}'",
                code="conflicting_options",
            )
    groups = [
        Group(
            s.number, s.superclass, None if is_own_name(s.number, s.name) else s.name, proposed=s.proposed_name or None
        )
        for s in found.subclasses
    ]
    group = found.subclass.astype(np.int32)
    given = np.zeros(len(group), dtype=bool)
    if level is not None:
        codes = torch.cat([part.labels.level(level) for part in parts.values()]).numpy()
        given = codes >= 0
        for number, code in enumerate(np.unique(codes[given]).tolist(), max(g.number for g in groups) + 1):
            rows = np.flatnonzero(codes == code)
            groups.append(Group(number, _most_frequent(found.superclass, rows), labels.names(level)[code]))
            group[rows] = number
    return Start(
        level or (NAMED_LEVEL if NAMED_LEVEL not in labels.levels else "named"),
        found.level,
        tuple(groups),
        found.ids,
        found.splits,
        group,
        tuple(found.superclass),
        found.given,
        given,
        found.probability.astype(np.float32),
    )


def _most_frequent(names: Sequence[str | None], rows: np.ndarray) -> str | None:
    return Counter(names[row] for row in rows.tolist()).most_common(1)[0][0]


def _write_start(store: Folder, start: Start) -> None:
    columns: dict[str, Any] = {
        "id": start.ids,
        "split": start.splits,
        "group": start.group,
        "superclass": list(start.superclass),
        "superclass_given": start.superclass_given,
        "given": start.given,
        "probability": start.probability,
    }
    groups = [
        {"number": g.number, "superclass": g.superclass, "name": g.name, "proposed": g.proposed} for g in start.groups
    ]
    content = {"level": start.level, "superclass_level": start.superclass_level, "groups": groups}
    store.write({"start.parquet": table_writer(columns, ".parquet"), "start.json": json_writer(content)})


def _read_start(store: Folder, level: str | None) -> Start:
    content = store.read_json("start.json", _StartForm)
    if level not in (None, content["level"]):
        raise UserError(
            f"{store.path} was started with names at level '{content['level']}': leave --level out, or move that "
            f"folder away to start again with '{level}'",
            code="other_data",
        )
    file = store.checked("start.parquet")
    try:
        table = pd.read_parquet(file)
        return _start_of(content, table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is damaged or not of this exploration ({error}): bring it back", code="damaged_file"
        ) from None


def _start_of(content: Mapping[str, Any], table: pd.DataFrame) -> Start:
    strange = set(table["group"]) - {group["number"] for group in content["groups"]}
    if strange:
        raise ValueError(f"start.json has no group {min(strange)}")
    return Start(
        content["level"],
        content["superclass_level"],
        tuple(Group(g["number"], g["superclass"], g["name"], proposed=g.get("proposed")) for g in content["groups"]),
        table["id"].to_numpy(dtype=str),
        table["split"].to_numpy(dtype=str),
        table["group"].to_numpy(dtype=np.int32),
        tuple(name if isinstance(name, str) else None for name in table["superclass"]),
        table["superclass_given"].to_numpy(dtype=bool),
        table["given"].to_numpy(dtype=bool),
        table["probability"].to_numpy(dtype=np.float32),
    )


def _order(every: np.ndarray, ids: np.ndarray, where: Path) -> np.ndarray:
    """Current positions in the data of the samples that the exploration started from."""
    places = {identity: place for place, identity in enumerate(every.tolist())}
    lost = [identity for identity in ids.tolist() if identity not in places]
    if lost or len(ids) != len(every):
        example = f" (such as '{lost[0]}')" if lost else ""
        raise UserError(
            f"the data of {where} are no longer those that its exploration started from: {len(lost)} samples are gone"
            f"{example}, {len(every) - len(ids) + len(lost)} are new. Bring the old data back, or move the folder "
            "explorer/ away",
            code="other_data",
        )
    return np.array([places[identity] for identity in ids.tolist()])


class _Vectors:
    """Embeddings and map positions, cached until the model or the map's kind changes."""

    def __init__(self, run: Run, store: Folder, order: np.ndarray, map_kind: MapKind, seed: int) -> None:
        self._run, self._store, self._order, self._seed = run, store, order, seed
        self._kind = chosen_kind(map_kind, len(order))
        weights = (run.folder.model_folder / "model.safetensors").read_bytes()
        settings = f"{self._kind}|{seed}|".encode()
        self._key = hashlib.blake2b(settings + weights + order.tobytes(), digest_size=16).hexdigest()

    def load(self, parts: tuple[Dataset, ...]) -> tuple[Tensor, np.ndarray, Callable[[], np.ndarray] | None]:
        """Embeddings, positions, and what makes better positions, if that takes long and is not done."""
        kept = self._kept()
        if kept is None:
            every = torch.cat([embed(self._run.model, part) for part in parts])
            embeddings = functional.normalize(every[self._order], dim=1)
            slow = self._kind == "tsne" and len(embeddings) > _QUICK
            found = self._map(embeddings, "pca" if slow else self._kind)
            self.keep(embeddings, found, final=not slow)
        else:
            embeddings, found, slow = kept
        return embeddings, found, partial(self._map, embeddings, self._kind) if slow else None

    def keep(self, embeddings: Tensor, positions: np.ndarray, *, final: bool) -> None:
        """Write embeddings and positions, for the next time."""
        tensors = {"embeddings": embeddings.contiguous(), "positions": torch.from_numpy(positions)}
        about = {"key": self._key, "map": "final" if final else "first"}
        self._store.write({_VECTORS: lambda file: save_tensors(file, tensors, about)})

    def _map(self, embeddings: Tensor, kind: MapKind) -> np.ndarray:
        return embedding_map(embeddings, kind=kind, seed=self._seed).in_square()

    def _kept(self) -> tuple[Tensor, np.ndarray, bool] | None:
        """Embeddings, positions, and whether these are of the first map only; None if others were kept, or none."""
        from safetensors import SafetensorError, safe_open

        if (self._store.path / _VECTORS).exists():
            with (
                suppress(UserError, SafetensorError),
                safe_open(self._store.checked(_VECTORS), framework="pt") as kept,
            ):
                about = kept.metadata() or {}
                if about.get("key") == self._key:
                    positions = kept.get_tensor("positions").numpy()
                    return kept.get_tensor("embeddings"), positions, about.get("map") == "first"
        return None
