"""``regroup``: make a superclass data set from a fine-labelled one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from regrain.data.cells import Column, is_split
from regrain.data.options import ReaderOptions
from regrain.data.readers import find_rows
from regrain.data.rows import Rows
from regrain.data.taxonomies import taxonomies, taxonomy
from regrain.errors import UserError, examples, nearest
from regrain.labels import UNKNOWN, Labels, Taxonomy
from regrain.runs.source import with_levels
from regrain.runs.tables import require_writable, sample_columns, write_columns
from regrain.runs.verb import verb

_ALL = "all"


@dataclass(frozen=True)
class Regrouping:
    """Samples under new superclasses."""

    columns: dict[str, Column]
    """``id``, ``split`` and ``group`` where the data have them, ``superclass``, ``label``, and the samples: ``image``
    (a path or encoded bytes), ``text``, or one column per feature.
    """
    level: str
    """The level of the data whose classes became ``label``."""
    counts: dict[str, dict[str, int]]
    """Superclass -> split -> number of samples; one split, ``all``, where the data have none."""
    classes: dict[str, int]
    """Superclass -> number of fine classes in it."""
    dropped: dict[str, int]
    """Fine class that the mapping does not know -> number of samples left out."""
    notices: list[str]
    """Samples left out, labels that are missing, classes of the mapping that the data lack."""
    most_imbalance: float
    """How many times the smallest superclass the largest may be, in a split, without a warning."""

    @property
    def imbalance(self) -> dict[str, float]:
        """By split, how many times the smallest superclass the largest is; infinite where one has no sample."""
        found = {}
        for split in next(iter(self.counts.values())):
            sizes = [count[split] for count in self.counts.values()]
            found[split] = max(sizes) / min(sizes) if min(sizes) else math.inf
        return found

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Like ``counts``, as shares of the samples of a split."""
        totals: Counter[str] = Counter()
        for count in self.counts.values():
            totals.update(count)
        return {
            superclass: {split: n / max(1, totals[split]) for split, n in count.items()}
            for superclass, count in self.counts.items()
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences about superclasses that are out of balance, by split."""
        found = []
        for split, times in self.imbalance.items():
            sizes = {name: count[split] for name, count in self.counts.items()}
            large, small = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
            where = "" if split == _ALL else f"in split {split} "
            if not sizes[small]:
                found.append(f"{where}superclass '{small}' has no sample")
            elif times > self.most_imbalance:
                found.append(
                    f"{where}superclass '{large}' ({sizes[large]} samples) is {times:.1f} times as large as '{small}' "
                    f"({sizes[small]}); {self.most_imbalance:g} times was to be the most"
                )
        return found


def regroup_rows(
    rows: Rows,
    mapping: Taxonomy,
    out: Path,
    *,
    level: str | None = None,
    superclass: str | None = None,
    drop_unknown: bool = False,
    most_imbalance: float = 3.0,
) -> Regrouping:
    """The samples of a data set with the superclass of each by a mapping, as columns of a table to be read again.

    Parameters
    ----------
    rows : Rows
        Images, texts or vectors, with labels.
    mapping : Taxonomy
        Its classes, of any level, are looked up by name.
    out : path
        Path of the table to write: images below its folder get paths relative to it, others absolute ones. Images that
        are in memory or encoded go only into Parquet.
    level : str, optional
        The level of the data whose classes are looked up; default the finest.
    superclass, drop_unknown, most_imbalance
        As of :func:`regrain.regroup`.

    Returns
    -------
    Regrouping
        Samples without a label keep an empty one, and have no superclass.

    Raises
    ------
    UserError
        For series, for classes that the mapping does not know or puts under two superclasses, and where fewer than two
        superclasses come out.

    Examples
    --------
    >>> from regrain.data.readers import find_rows
    >>> rows, _ = find_rows(["hi there", "bye now", "go left"], labels={"act": ["greet", "greet", "move"]})
    >>> made = regroup_rows(rows, Taxonomy.from_edges([("greet", "talk"), ("move", "way")]), Path("acts.csv"))
    >>> made.columns["superclass"], made.counts
    (['talk', 'talk', 'way'], {'talk': {'all': 2}, 'way': {'all': 1}})
    """
    if rows.modality == "series":
        raise UserError(
            f"{rows.where} holds series, which regroup does not write: add a column of superclasses to its own table"
        )
    columns = rows.label_columns
    if not columns:
        raise UserError(f"{rows.where} has no labels to regroup: name their column with --level (levels=[...])")
    level = level or list(columns)[-1]
    if level not in columns:
        raise UserError(f"{rows.where} has no level '{level}': {nearest(level, columns)}", code="unknown_level")
    target = superclass or mapping.levels[0]
    superclasses = mapping.classes[mapping.level_index(target)]
    labels = Labels.from_columns(columns, relation="paths" if rows.relation == "paths" else "aspects")
    names, codes = labels.names(level), labels.level(level).numpy()
    above = mapping.lineage(names)[target].numpy()
    sizes = np.bincount(codes[codes != UNKNOWN], minlength=len(names)).tolist()
    unknown_classes = {name: sizes[code] for code, name in enumerate(names) if above[code] == UNKNOWN}
    if unknown_classes and not drop_unknown:
        raise UserError(_strange(unknown_classes, len(names), level, target, mapping))
    known = np.append(above != UNKNOWN, True)[codes]  # samples without a label, of code -1, stay
    rows, codes = rows.select(np.flatnonzero(known)), codes[known]
    over = np.append(above, UNKNOWN)[codes]
    present = np.unique(over[over != UNKNOWN]).tolist()
    if len(present) < 2:
        raise UserError(
            f"{rows.where} has samples of {len(present)} superclasses by the mapping (level '{target}'); 2 or more are "
            "needed"
        )
    splits = np.array([_ALL] * len(rows) if rows.splits is None else rows.splits)
    parts = dict.fromkeys(splits.tolist())
    return Regrouping(
        columns=_columns(rows, _named(over, superclasses), _named(codes, names), out),
        level=level,
        counts={superclasses[c]: {s: int(((splits == s) & (over == c)).sum()) for s in parts} for c in present},
        classes={superclasses[c]: int((above == c).sum()) for c in present},
        dropped=unknown_classes,
        notices=[
            *_notices(unknown_classes, set(mapping.classes[-1]) - set(names), int((over == UNKNOWN).sum()), level),
            *_how_to_read(rows),
        ],
        most_imbalance=most_imbalance,
    )


def _named(codes: np.ndarray, names: Sequence[str]) -> list[str | None]:
    with_unknown = (*names, None)  # which code -1 is
    return [with_unknown[code] for code in codes.tolist()]


def _strange(unknown_classes: Mapping[str, int], total: int, level: str, target: str, mapping: Taxonomy) -> str:
    """The message about classes that the mapping does not know, with some that it knows where it knows none."""
    shown = examples(f"'{name}'" for name in unknown_classes)
    all_unknown = len(unknown_classes) == total
    known = f". Its classes are such as {examples(map(repr, mapping.classes[-1]))}" if all_unknown else ""
    return (
        f"the mapping gives no superclass (level '{target}') to {len(unknown_classes)} of the {total} classes of level "
        f"'{level}': {shown}{known}. Add them to it, or leave their samples out with --drop-unknown (drop_unknown=True)"
    )


def _columns(
    rows: Rows, superclasses: Sequence[str | None], labels: Sequence[str | None], out: Path
) -> dict[str, Column]:
    columns: dict[str, Column] = {"id": rows.ids}
    if rows.splits is not None:
        columns["split"] = rows.splits
    if rows.groups is not None:
        columns["group"] = rows.groups
    columns |= {"superclass": superclasses, "label": labels}
    return columns | sample_columns(rows, out, beside=columns)


def _notices(dropped: Mapping[str, int], absent: set[str], unlabelled: int, level: str) -> list[str]:
    notices = []
    if dropped:
        shown = examples(f"'{name}' ({count})" for name, count in dropped.items())
        notices.append(
            f"{sum(dropped.values())} samples of classes that the mapping does not know were left out: {shown}"
        )
    if unlabelled:
        notices.append(f"{unlabelled} samples have no label at level '{level}', and so no superclass")
    if absent:
        notices.append(f"classes of the mapping without a sample: {examples(map(repr, sorted(absent)))}")
    return notices


def _how_to_read(rows: Rows) -> Iterator[str]:
    """Return the columns of the table that a reader may not guess."""
    options = [] if rows.groups is None else ["--group-column group"]
    if rows.splits is not None and not all(map(is_split, dict.fromkeys(rows.splits.tolist()))):
        options.append("--split-column split")
    if options:
        yield f"read the table with {' '.join(options)}"


@verb
def regroup(
    data: Any,
    mapping: Taxonomy | str | Path,
    out: str | Path,
    *,
    levels: Sequence[str] | None = None,
    superclass: str | None = None,
    drop_unknown: bool = False,
    most_imbalance: float = 3.0,
    overwrite: bool = False,
    **reader_options: Unpack[ReaderOptions],
) -> Regrouping:
    """Make a superclass data set by a mapping of the finest classes, and show whether it is balanced.

    A table is written that `regrain check` and `regrain fit` read as it is: id, split and group where there are some,
    superclass, label, and the samples (paths of image files, which stay where they are; texts; features; images that
    are not files as bytes, in Parquet).

    Parameters
    ----------
    data
        A data set's name (`regrain datasets`), the path of a folder or table, or whatever :func:`load` reads: images,
        texts or vectors.
    mapping : Taxonomy, str or path
        A name of `regrain taxonomies`, or a file: child,parent; JSON; paths.
    out : path
        The .csv or .parquet file to write.
    levels : sequence of str, optional
        A label level (column); the last one is regrouped. Default: all that the data have.
    superclass : str, optional
        The level of the mapping that gives superclasses; default: its coarsest.
    drop_unknown : bool
        Leave out, and count, classes that the mapping does not know.
    most_imbalance : float
        Warn where the largest superclass is more than this many times the smallest.
    overwrite : bool
        Replace the file.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Regrouping
        The table written, and its balance.

    Raises
    ------
    UserError
        As :func:`regrain.verbs.regroup.regroup_rows`, and if the file exists or its ending is unknown.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> parity = Taxonomy.from_edges([(str(digit), "even" if digit % 2 == 0 else "odd") for digit in range(10)])
    >>> regroup("digits", parity, f"{folder.name}/parity.parquet").counts["odd"]
    {'train': 682, 'test': 224}
    >>> from regrain import load
    >>> load(f"{folder.name}/parity.parquet").labels.counts
    {'superclass': 2, 'label': 10}
    >>> folder.cleanup()
    """
    target = Path(out)
    require_writable(target, overwrite)
    if most_imbalance < 1:
        raise UserError(f"the most imbalance is 1 (all superclasses alike) or more; got {most_imbalance}")
    known = mapping if isinstance(mapping, Taxonomy) else taxonomy(mapping)
    rows, storage = find_rows(data, **with_levels(data, levels, reader_options))
    rows = rows.usable(storage.pop("skip_unreadable", False))
    if storage:
        name = next(iter(storage))
        raise UserError(f"regroup writes samples as they are: give {name} when the table is read")
    made = regroup_rows(
        rows,
        known,
        target,
        level=levels[-1] if levels else None,
        superclass=superclass,
        drop_unknown=drop_unknown,
        most_imbalance=most_imbalance,
    )
    about = taxonomies().get(str(mapping))
    messages = [*rows.notes.get("messages", ()), *([f"{about.name}: {about.source}"] if about else [])]
    write_columns(made.columns, target)
    return replace(made, notices=[*messages, *made.notices])
