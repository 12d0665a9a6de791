"""Export: labels by id with their sources, a taxonomy, training samples, and the commands that use them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from regrain.data.cells import Column
from regrain.data.columns import free_name
from regrain.data.dataset import Dataset
from regrain.data.rows import Rows
from regrain.data.samples import ImageSamples, SeriesSamples
from regrain.errors import UserError
from regrain.explorer.collection import Collection
from regrain.explorer.proposals import Proposals
from regrain.explorer.session import Session
from regrain.labels import Labels
from regrain.runs.commands import fit_options
from regrain.runs.retraining import retraining
from regrain.runs.tables import sample_columns, write_columns
from regrain.spelling import command
from regrain.storage.files import json_writer, make_folder, replace_file, write_text

TableFormat = Literal["csv", "parquet"]

_PATIENCE = 600.0

_MADE = ("adapted", "trained")
"""Suffixes for the names of the runs that the commands make."""


@dataclass(frozen=True)
class Outcome:
    """A written export."""

    folder: Path  # folder of the files
    files: tuple[str, ...]  # names of the files in it
    # ``fit`` trains on the samples, ``evaluate`` judges the new run, ``adapt`` makes a classifier on the
    # present run
    commands: dict[str, str]
    notices: tuple[str, ...]  # sentences for the user


def write_outcome(session: Session, table: TableFormat = "csv") -> Outcome:
    """Write ``explorer/exports/NUMBER/`` into the run folder; NUMBER is that of the last action.

    ``labels`` (.csv or .parquet) has a row for every sample: ``id``, ``split``, ``cluster`` (a number), ``outlier``,
    ``held_out_edit`` (edited by the user, outside the training split). For each level it has the class, and in columns
    ``_source``, ``_confidence`` and ``_time`` whether it is given, proposed or confirmed, how sure, and since when.
    ``confirmed.csv`` has id and class of the training samples whose class is confirmed or given, ``samples.parquet``
    all samples with the labels that are more than proposals, and with the data's other levels for judging,
    ``taxonomy.json`` the classes. ``commands.txt`` continues training with the run's encoder, length and seed.

    Raises a UserError if every class is only a proposal so far.
    """
    with session.exporting:
        return _write_outcome(session, table)


def _write_outcome(session: Session, table: TableFormat) -> Outcome:
    proposals = session.newest_proposals(_PATIENCE)
    if proposals is None:
        raise UserError(f"proposals were not made within {_PATIENCE:.0f} seconds: export again later")
    with session.lock:
        columns = label_columns(session, proposals)
        seq = session.state.seq
    level, above = session.collection.start.level, session.collection.start.superclass_level
    sure = np.isin(np.array(columns[f"{level}_source"], dtype=object), ["confirmed", "given"])
    if not sure.any():
        raise UserError("no sample has a confirmed class yet: name a subclass first", code="no_labels")
    notices = list(proposals.notices)
    classes = _classes(columns, level, above, sure)
    repeated = [name for name, count in Counter(name for _, name in classes).items() if count > 1]
    if above is not None and repeated:  # one spelling in all files and in training
        columns[level] = [
            None if name is None or over is None else f"{over}/{name}"
            for over, name in zip(columns[above], columns[level], strict=True)
        ]
        sure &= np.array([name is not None for name in columns[level]])
        classes = _classes(columns, level, above, sure)
        shown = next(path for _, path in classes if path is not None and path.endswith(f"/{repeated[0]}"))
        notices.append(f"'{repeated[0]}' lies under several classes of {above}: names are written as '{shown}'")
    bare = [(name, None) for name in session.superclasses() if name is not None]

    folder = session.folder / "exports" / f"{seq:06d}"
    make_folder(folder)
    write_columns(columns, folder / f"labels.{table}")
    taught = np.flatnonzero(sure & session.collection.training)
    confirmed = {"id": _taken(columns["id"], taught), level: _taken(columns[level], taught)}
    write_columns(confirmed, folder / "confirmed.csv")
    replace_file(folder / "taxonomy.json", json_writer(_taxonomy([*classes, *bare], level, above)))
    adapted, trained = (session.run.path.with_name(f"{session.run.path.name}-{what}-{seq}") for what in _MADE)
    commands = {"adapt": command("adapt", session.run.path, "--support", folder / "confirmed.csv", "--out", adapted)}
    files = [f"labels.{table}", "confirmed.csv", "taxonomy.json"]
    file = folder / "samples.parquet"
    samples = _sample_table(session, columns, sure, file)
    if samples is None:
        notices.append("records with static features are not written as samples: fit on their own table instead")
    else:
        write_columns(samples.columns, file)
        files.append(file.name)
        commands["fit"] = _fit_command(session, file, samples, trained)
        commands["evaluate"] = _evaluate_command(session, file, samples, trained)
        notices += _judgeable(session, sure, samples)
    write_text(folder / "commands.txt", "".join(f"{command}\n" for command in commands.values()))
    return Outcome(folder, (*files, "commands.txt"), commands, tuple(notices))


def label_columns(session: Session, proposals: Proposals) -> dict[str, Any]:
    """Make the table of labels by id."""
    state, start = session.state, session.collection.start
    times = [entry.time for entry in session.journal.entries]
    numbers = state.group.tolist()
    names = [state.groups[number].name for number in numbers]
    confirmed = session.confirmed() & np.array([name is not None for name in names])
    given, said = session.still_given(), session.said()
    spoken = state.confirmed | state.outlier | session.retold()
    columns: dict[str, Any] = {
        "id": start.ids.tolist(),
        "split": start.splits.tolist(),
        "cluster": state.group.copy(),
        "outlier": state.outlier.copy(),
        "held_out_edit": spoken & ~session.collection.training,
    }
    if start.superclass_level is not None:
        found, moved = session.superclass_of(np.arange(len(start.ids)))
        known = np.array([name is not None for name in start.superclass])
        kinds = np.select([moved, start.superclass_given, known], ["confirmed", "given", "proposed"], "")
        _put(columns, start.superclass_level, found, kinds, [1.0 if m else None for m in moved.tolist()], said, times)
    by_group = {g.number: g.name for g in state.groups.values()}
    proposed = [by_group.get(number) for number in proposals.group.tolist()]
    member = [p is None and n is not None for p, n in zip(proposed, names, strict=True)]
    unsure = [p if p is not None else n for p, n in zip(proposed, names, strict=True)]
    sureness = np.where(member, start.probability, proposals.confidence)
    has = np.array([name is not None for name in unsure]) & ~state.outlier
    kinds = np.select([confirmed & ~state.outlier, given & ~state.outlier, has], ["confirmed", "given", "proposed"], "")
    sure = np.isin(kinds, ["confirmed", "given"]).tolist()
    found = [n if s else u if h else None for n, u, s, h in zip(names, unsure, sure, has.tolist(), strict=True)]
    confidence = [
        1.0 if kind == "confirmed" else float(value) if kind == "proposed" else None
        for kind, value in zip(kinds.tolist(), sureness.tolist(), strict=True)
    ]
    _put(columns, start.level, found, kinds, confidence, said, times, proposals.time)
    return columns


def _put(
    columns: dict[str, Any],
    level: str,
    names: Sequence[str | None],
    kinds: np.ndarray,
    confidence: Sequence[float | None],
    said: np.ndarray,
    times: Sequence[str],
    proposed_at: str | None = None,
) -> None:
    if level in columns:
        raise UserError(
            f"level '{level}' would write a second column '{level}': rename the level", code="labels_conflict"
        )
    when = {"confirmed": lambda seq: times[seq - 1], "proposed": lambda _: proposed_at}
    columns[level] = list(names)
    columns[f"{level}_source"] = [kind or None for kind in kinds.tolist()]
    columns[f"{level}_confidence"] = list(confidence)
    columns[f"{level}_time"] = [
        when[kind](seq) if kind in when else None for kind, seq in zip(kinds.tolist(), said.tolist(), strict=True)
    ]


def _classes(
    columns: Mapping[str, Any], level: str, above: str | None, sure: np.ndarray
) -> dict[tuple[str | None, str | None], None]:
    """Superclass and class of the samples with a sure class."""
    return dict.fromkeys(
        (columns[above][row] if above else None, columns[level][row]) for row in np.flatnonzero(sure).tolist()
    )


def _taxonomy(classes: Sequence[tuple[str | None, str | None]], level: str, above: str | None) -> dict[str, Any]:
    columns: dict[str, list[str | None]] = {} if above is None else {above: [name for name, _ in classes]}
    columns[level] = [name for _, name in classes]
    taxonomy = Labels.from_columns(columns).taxonomy
    assert taxonomy is not None
    return taxonomy.to_json()


def _taken(values: Any, rows: np.ndarray) -> list[Any]:
    return [values[row] for row in rows.tolist()]


@dataclass(frozen=True)
class _SampleTable:
    """Samples with their labels, as `regrain fit` reads them."""

    columns: dict[str, Column]  # by name
    names: dict[str, str]  # the columns that hold ``split`` and ``group``, if any
    samples: tuple[str, ...]  # the columns that hold the samples
    unseen: tuple[str, ...]  # levels of the data that training does not read and that label held-out samples


def _sample_table(session: Session, columns: Mapping[str, Any], sure: np.ndarray, out: Path) -> _SampleTable | None:
    """Make the sample table; None if one table cannot hold the samples.

    The table leaves out superclasses that are only proposed. It also leaves out the splits if all samples were trained
    on; `regrain fit` then holds some out.
    """
    start, parts, order = session.collection.start, session.collection.parts, session.collection.order
    rows = _rows_of(session.collection)
    if rows is None:
        return None
    table: dict[str, Column] = {"id": columns["id"]}
    if start.superclass_level is not None:
        kinds = columns[f"{start.superclass_level}_source"]
        known = zip(columns[start.superclass_level], kinds, strict=True)
        table[start.superclass_level] = [name if kind != "proposed" else None for name, kind in known]
    table[start.level] = [
        name if known else None for name, known in zip(columns[start.level], sure.tolist(), strict=True)
    ]
    held_out, unseen = ~session.collection.training, []
    for level in (level for level in parts[0].labels.levels if level not in table):
        found = [part.labels.column(level) for part in parts]
        every = np.array([name for names in found for name in names], dtype=object)[order]
        table[level] = every.tolist()
        if any(name is not None for name in every[held_out]):
            unseen.append(level)
    names = {}
    if held_out.any():
        names["split"] = free_name("split", table)
        table[names["split"]] = columns["split"]
    if all(part.groups is not None for part in parts):
        names["group"] = free_name("group", table)
        table[names["group"]] = np.concatenate([part.groups for part in parts if part.groups is not None])[order]
    samples = sample_columns(rows, out, beside=table)
    return _SampleTable(table | samples, names, tuple(samples), tuple(unseen))


def _rows_of(collection: Collection) -> Rows | None:
    parts, order = collection.parts, collection.order
    ids = collection.start.ids.tolist()
    values: Any
    samples = [part.samples for part in parts]
    if any(isinstance(s, SeriesSamples) and s.static is not None for s in samples):
        return None
    if collection.modality == "text":
        texts = [text for s in samples for text in s.take(torch.arange(len(s)))]
        values = [texts[place] for place in order.tolist()]
    elif any(isinstance(s, ImageSamples) for s in samples):
        sources = [source for s in samples for source in _sources(s)]
        values = [sources[place] for place in order.tolist()]
    else:
        values = torch.cat([s.take(torch.arange(len(s))) for s in samples])[order].numpy()
    first: Dataset = parts[0]
    notes = {"columns": first.notes["columns"]} if first.notes.get("columns") else {}
    return Rows(first.name, first.name, first.modality, values, {}, ids, lambda row: ids[row], notes=notes)


def _sources(samples: Any) -> Iterable[Any]:
    return samples.sources if isinstance(samples, ImageSamples) else list(samples.tensor.numpy())


def _fit_command(session: Session, file: Path, table: _SampleTable, out: Path) -> str:
    """Write the `regrain fit` command for the table, with the settings of the run."""
    collection = session.collection
    levels = [level for level in (collection.start.superclass_level, collection.start.level) if level is not None]
    method = "mixed" if len(levels) > 1 else "sup-ce"
    options: list[Any] = []
    for level in levels:
        options += ["--level", level]
    options += ["--id-column", "id"]
    for name in ("split", "group"):
        options += [f"--{name}-column", table.names[name]] if name in table.names else []
    for name in table.samples:
        options += [f"--{collection.modality}" if collection.modality in ("image", "text") else "--columns", name]
    if collection.modality == "series":
        options += ["--series-shape", "x".join(map(str, collection.parts[0].samples.shape))]
    options += fit_options(retraining(session.run, method, collection.parts[0]))
    return command("fit", method, file, *options, "--out", out)


def _evaluate_command(session: Session, file: Path, table: _SampleTable, out: Path) -> str:
    """Write the `regrain evaluate` command for the new run, including levels that training did not see."""
    if not table.unseen:
        return command("evaluate", out)
    labels = session.collection.parts[0].labels
    above = session.collection.start.superclass_level
    levels = [level for level in labels.levels if level in table.unseen or level == above]
    options = [word for level in levels for word in ("--level", level)]
    options += ["--relation", "aspects"] if len(levels) > 1 and labels.taxonomy is None else []
    return command("evaluate", out, "--data", file, *options)


def _judgeable(session: Session, sure: np.ndarray, table: _SampleTable) -> list[str]:
    """Say which labels can judge the new run, if the new level cannot."""
    held_out, level = ~session.collection.training, session.collection.start.level
    if not held_out.any():
        return [f"the run was trained on all samples: the new one holds some out, by which level '{level}' is judged"]
    if (sure & held_out).any():
        return []
    above = session.collection.start.superclass_level
    by = table.unseen or ((above,) if above is not None else ())
    judged = f"by {', '.join(map(repr, by))}" if by else "by nothing"
    return [
        f"no sample held out has a class of level '{level}': the new run is judged {judged} until some are confirmed "
        "here"
    ]
