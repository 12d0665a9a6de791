"""``adapt``: a few labelled samples become a classifier on a run's embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from regrain.checks import BelowOne, Seed, Share
from regrain.data.cells import label_names, plain
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.data.readers import parsed, table_of
from regrain.data.table import Table
from regrain.errors import UserError, examples
from regrain.labels import Labels
from regrain.runs.classifier import fit_classifier
from regrain.runs.run import Run
from regrain.runs.source import SAMPLE_OPTIONS, read_data
from regrain.runs.verb import RunOrPath, verb
from regrain.spelling import counted
from regrain.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Support:
    """A few labelled samples."""

    parts: tuple[Dataset, ...]
    """Their samples, one after the other."""
    labels: Tensor
    """LongTensor (S,): into ``classes``."""
    level: str
    classes: tuple[str, ...]
    """Only classes that occur."""
    notices: tuple[str, ...] = ()
    """Notes on samples left out, and on input that may be a mistake."""


def read_support(
    source: Any, *, level: str | None, own_splits: Callable[[], Mapping[str, Dataset]], reader: Mapping[str, Any]
) -> Support:
    """The support that a source names.

    A table with a column ``id`` (the reader's option ``id_column`` names another; where there is none, ``index`` of a
    table of two columns) and one other column, or the one that ``level`` names, labels samples of the run's own data by
    their ids. Anything else is a data set of its own, also a table with ids in which ``reader`` says where the samples
    are; then the label is ``level``, or the finest.

    Parameters
    ----------
    source
        A table's path, a DataFrame, a Dataset, or whatever :func:`regrain.load` reads.
    own_splits : callable
        Gives the run's own data by split; called only where ids are looked up.
    reader : mapping
        Options of the reader.

    Raises
    ------
    UserError
        For ids that the run's data do not have (the first are named with their rows), an id with two labels, and a
        support without any label.
    """
    table = table_of(source)
    id_column = str(reader.get("id_column") or "id")
    if table is not None and len(table.columns) == 2 and id_column not in table.columns:
        id_column = "index"
    if table is not None and id_column in table.columns and not any(reader.get(name) for name in SAMPLE_OPTIONS):
        others = [name for name in table.columns if name != id_column]
        if level is not None:
            table.require(level, "level")
        if len(others) == 1:
            return _by_ids(table, others[0], id_column, own_splits())
        if level is not None and _speaks_of(table, id_column, own_splits):
            return _by_ids(table, level, id_column, own_splits())
    dataset = read_data(source, [level] if level is not None else None, reader)
    notices = []
    if dataset.splits is not None and "train" in dataset.split_names:
        dataset = dataset.split("train")
        notices.append(f"{dataset.name} has splits: its split 'train' is the support")
    if not dataset.labels.levels:
        raise UserError(f"the support {dataset.name} has no labels: name their column with --level")
    level = level or dataset.labels.levels[-1]
    codes = dataset.labels.level(level)
    known = codes >= 0
    names, unlabelled = dataset.labels.names(level), int((~known).sum())
    return _support([dataset.select(known)], codes[known], names, level, notices, unlabelled, dataset.name)


def _speaks_of(table: Table, id_column: str, own_splits: Callable[[], Mapping[str, Dataset]]) -> bool:
    """Whether a table with more columns has ids of the run's data; the ids of a table with samples are ignored."""
    try:
        parts = own_splits()
    except UserError:  # the run's own data are gone, or were in memory
        return False
    ids = {str(plain(cell)) for cell in table.columns[id_column]}
    return any(ids & set(map(str, part.ids)) for part in parts.values())


def _by_ids(table: Table, level: str, id_column: str, parts: Mapping[str, Dataset]) -> Support:
    ids = [str(plain(cell)) for cell in table.columns[id_column]]
    places = {
        str(identity): (name, row) for name, part in parts.items() for row, identity in enumerate(part.ids.tolist())
    }
    unknown_ids = [
        f"'{identity}' ({table.describe_row(row)})" for row, identity in enumerate(ids) if identity not in places
    ]
    if unknown_ids:
        known = ", ".join(f"'{identity}'" for identity in list(places)[:3])
        raise UserError(
            f"{table.where}: {len(unknown_ids)} of {len(ids)} ids are not among the run's data: "
            f"{examples(unknown_ids)}. Its ids are such as {known}; `regrain embed` writes them all"
        )
    messages: list[str] = []
    labels = Labels.from_columns({level: label_names(table.columns[level], (), level, messages)})
    codes = labels.level(level)
    first: dict[str, int] = {}
    for row, (identity, code) in enumerate(zip(ids, codes.tolist(), strict=True)):
        before = first.setdefault(identity, row)
        if int(codes[before]) != code:
            raise UserError(
                f"{table.where}: id '{identity}' is labelled twice, and not alike: {table.describe_row(before)} and "
                f"{table.describe_row(row)}"
            )
    if len(first) < len(ids):
        again = counted(len(ids) - len(first), "row")
        messages.append(f"ids that repeat in {table.name}, with the same label, count once: {again} less")
    order: dict[str, list[int]] = {}
    for identity, row in first.items():
        if int(codes[row]) >= 0:
            order.setdefault(places[identity][0], []).append(row)
    judged = [name for name in order if name != "train"]
    if judged:
        count = sum(len(order[name]) for name in judged)
        messages.append(
            f"the support has {counted(count, 'sample')} of the split {' and '.join(judged)}: figures there would be "
            "too good"
        )
    chosen = [parts[name].select(np.array([places[ids[row]][1] for row in rows])) for name, rows in order.items()]
    in_order = codes[[row for rows in order.values() for row in rows]]
    unlabelled = len(first) - len(in_order)
    return _support(chosen, in_order, labels.names(level), level, messages, unlabelled, table.where)


def _support(
    parts: list[Dataset],
    codes: Tensor,
    names: tuple[str, ...],
    level: str,
    notices: list[str],
    unlabelled: int,
    where: str,
) -> Support:
    """Keep only the classes that occur, and renumber them."""
    if not len(codes):
        raise UserError(f"{where} labels no sample: every label of '{level}' is empty")
    if unlabelled:
        notices = [*notices, f"{unlabelled} samples of the support have no label and were left out"]
    present, labels = codes.unique(return_inverse=True)
    return Support(tuple(parts), labels, level, tuple(names[code] for code in present.tolist()), tuple(notices))


@verb
def adapt(
    run: RunOrPath,
    support: Any,
    out: str | Path,
    *,
    data: Any = None,
    level: str | None = None,
    abstain: BelowOne = 0.05,
    precision: Share | None = None,
    confidence: Share | None = None,
    inverse_penalty: float | None = None,
    seed: Seed = 0,
    overwrite: bool = False,
    **reader_options: Unpack[ReaderOptions],
) -> Run:
    """Fit a classifier on a run's embeddings of a few labelled samples; `regrain predict` uses it.

    A table with a column `id` and one column of labels speaks of the run's own data (`regrain embed` writes their ids);
    any other support holds samples and labels itself. Probabilities are calibrated on held-out support. The
    classifier abstains from samples unlike all of the support, and from samples whose class is more likely wrong than
    right, or not sure enough for ``precision``.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run; it stays as it is.
    support
        A table of ids of the run's data and labels; or labelled samples, in any form.
    out : path
        The new run folder.
    data : optional
        Where the run's own data are now: a path or a data set's name.
    level : str, optional
        The column of the labels; default the only one besides the ids, or the finest.
    abstain : float
        Share of held-out support samples from which the classifier would abstain because they are unlike the rest; 0:
        it never abstains, unless ``precision`` asks for it.
    precision : float, optional
        Share of right predictions among the held-out support samples that are sure enough; the classifier abstains
        from the others. Default: it abstains below a probability of one half.
    confidence : float, optional
        The probability with which ``precision`` is reached, such as 0.9; without it the share is aimed at.
    inverse_penalty : float, optional
        C of the logistic regression; default: chosen.
    seed : int
        Of the folds.
    overwrite : bool
        Replace the run at ``out``.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Run
        With ``classifier``; its ``notices`` say what was chosen and left out.

    Raises
    ------
    UserError
        For a support that names unknown ids, fewer than two classes, or samples that do not fit the run; and where the
        held-out support cannot show the precision.
    """
    place = Path(out)
    if place.resolve() == run.path.resolve():
        raise UserError(f"{place} is the run that is adapted, and stays as it is: choose another --out")
    if data is not None:
        run.take_data(data)
    support = parsed(support)
    reading = run.inherited_options(support, reader_options)
    found = read_support(support, level=level, own_splits=run.splits, reader=reading)
    classifier = fit_classifier(
        torch.cat([run.embed(part) for part in found.parts]),
        found.labels,
        level=found.level,
        classes=found.classes,
        abstain=abstain,
        precision=precision,
        confidence=confidence,
        inverse_penalty=inverse_penalty,
        seed=seed,
    )
    notices = [*found.notices, *classifier.notices]
    added = [
        f"adapted to {len(classifier.classes)} classes of '{found.level}' by {len(found.labels)} samples",
        *notices,
    ]
    folder = RunFolder(place, verify=run.folder.verify)
    with folder.writing():
        notices += folder.begin(overwrite=overwrite)
        folder.write_text("card.md", run.folder.read_card() + "\n" + "".join(f"- {line}\n" for line in added))
        folder.copy_model(run.folder, classifier.save)
    return Run(folder, run.data, run.device, notices)
