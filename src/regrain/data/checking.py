"""Check a data set for all its faults at once, before anything is trained on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from regrain.cluster import Cluster, Engine, cluster_of
from regrain.data.cells import LIKE_UNKNOWN, Twins, twins
from regrain.data.images import ImageForm, Storage, choose_storage, decode_images
from regrain.data.packed import repeated
from regrain.data.readers import find_rows
from regrain.data.rows import RowError, Rows
from regrain.data.samples import Modality
from regrain.errors import UserError, examples, python_only
from regrain.labels import UNKNOWN, Labels
from regrain.spelling import counted

_SHOWN = 5
_ALIKE = 20
_BLOCK = 512
_HELD_OUT = ("val", "test")


@dataclass(frozen=True)
class Issue:
    """One fault of a data set."""

    kind: str
    """Such as "missing file"."""
    message: str
    """A sentence."""
    rows: tuple[str, ...] = ()
    """Every row with the fault, as the user finds it, with details."""
    severity: Literal["error", "warning"] = "warning"
    """Errors are what :func:`regrain.data.read` refuses."""


@dataclass(frozen=True)
class Report:
    """Report of :func:`check`."""

    name: str
    source: str
    modality: Modality
    shape: tuple[int, ...]
    """Of one sample as it will be stored."""
    samples: dict[str, int]
    """One entry, "all", if the data have no splits."""
    levels: dict[str, dict[str, float]]
    """Per level: ``classes``, ``min``, ``median``, ``max`` samples of a class, and ``unknown``, the samples without a
    label (a class without children needs none below).
    """
    issues: tuple[Issue, ...]
    """Errors first."""
    messages: tuple[str, ...] = field(default=())
    """Messages of the reader."""
    static: int = 0
    """Number of static features of a series."""

    @property
    def ok(self) -> bool:
        """Whether the data can be read: there may be warnings, but no errors."""
        return not any(issue.severity == "error" for issue in self.issues)

    def render(self) -> list[str]:
        """Lines of plain text; of the rows of an issue the first few."""
        shape = " x ".join(map(str, self.shape)) + (
            f", {counted(self.static, 'static feature')}" if self.static else ""
        )
        samples = counted(sum(self.samples.values()), f"{self.modality} sample")
        lines = [f"{self.name}: {samples}{f' ({shape})' if shape else ''}"]
        if list(self.samples) != ["all"]:
            lines.append("splits: " + ", ".join(f"{split} {count}" for split, count in self.samples.items()))
        for level, numbers in self.levels.items():
            unknown = f", {numbers['unknown']} without a label" if numbers["unknown"] else ""
            least, most = int(numbers["min"]), int(numbers["max"])
            sizes = f"{least} to {most} samples (median {numbers['median']:g})"
            sizes = counted(least, "sample") if least == most else sizes
            lines.append(f"level {level}: {counted(int(numbers['classes']), 'class', 'classes')} of {sizes}{unknown}")
        lines += [f"note: {message}" for message in self.messages]
        for issue in self.issues:
            lines.append(f"{issue.severity}: {issue.message}")
            lines += [f"    {row}" for row in issue.rows[:_SHOWN]]
            if len(issue.rows) > _SHOWN:
                lines.append(f"    ... and {len(issue.rows) - _SHOWN} more (--json lists them all)")
        errors = sum(issue.severity == "error" for issue in self.issues)
        warnings = len(self.issues) - errors
        lines.append(
            f"{counted(errors, 'error')}, {counted(warnings, 'warning')}" if self.issues else "nothing is wrong"
        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values, with every row of every issue."""
        issues = [{**asdict(issue), "count": len(issue.rows), "rows": list(issue.rows)} for issue in self.issues]
        lists = {"shape": list(self.shape), "messages": list(self.messages), "issues": issues}
        return {"schema": 1, "ok": self.ok, **asdict(self), **lists}


def check(source: Any, *, engine: Engine = "processes", devices: int = 1, **options: Any) -> Report:
    """List every fault of a data set, with all its bad rows.

    Parameters
    ----------
    source, options
        As for :func:`regrain.data.read`. Nothing is left out here, whatever ``skip_unreadable`` says.
    engine : {"processes", "ray"}
        With ray, workers of a Ray cluster share out the decoding of images; all else is little work.
    devices : int
        How many workers of the cluster: each takes a core.

    Raises
    ------
    UserError
        Only if there are no rows to check: no such path, no such column.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"text": ["hi", "", "hi"], "mood": ["good", "good", "bad"]})
    >>> for line in check(table, levels=["mood"]).render():
    ...     print(line)
    data: 3 text samples
    level mood: 2 classes of 1 to 2 samples (median 1.5)
    note: texts: column 'text' (guessed)
    error: empty text: 1 row cannot be used
        row 1 has no text
    warning: level mood: 1 class with a single sample
        row 2: 'bad'
    warning: identical samples with different labels: 1 group
        row 0 (good) = row 2 (bad)
    1 error, 2 warnings
    """
    with cluster_of(engine, devices, "cpu", alone=True) as cluster:
        return _report(source, cluster, **options)


def _report(source: Any, cluster: Cluster | None, **options: Any) -> Report:
    rows, storage_options = find_rows(source, **options)
    kept = {name: storage_options.get(name) for name in ("image_size", "channels", "white")}
    rows.require_images_for(**kept)
    storage = choose_storage(rows.values, **kept) if rows.modality == "image" else None  # type: ignore[arg-type]
    strict: Labels | None = None
    try:
        strict = rows.strict_labels()
        issues = []
    except UserError as error:
        issues = [Issue("levels", str(error), tuple(_torn_rows(rows)), "error")]
    labels = rows.lenient_labels() if strict is None else strict
    digests, undecodable = _contents(rows, storage if rows.encoded else None, cluster)
    faults = [*rows.row_errors, *undecodable]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        found = tuple(str(fault) for fault in faults if fault.kind == kind)
        issues.append(Issue(kind, f"{kind}: {counted(len(found), 'row')} cannot be used", found, "error"))
    issues += [Issue("time", message) for message in rows.notes.get("warnings", ())]
    samples = {"all": len(rows)} if rows.splits is None else dict(Counter(rows.splits))
    if rows.splits is not None and "train" not in samples:
        why = f"no split is called train, which is what is trained on; there are {', '.join(samples)}"
        issues.append(Issue("no train split", why))
    issues += _duplicate_ids(rows)
    issues += _label_issues(rows, labels)
    issues += [Issue("classes alike", str(found), tuple(_rows_of(rows, labels, found))) for found in twins(labels)]
    issues += _identical(rows, labels, digests)
    return Report(
        name=rows.name,
        source=rows.where,
        modality=rows.modality,
        shape=storage.form.shape if storage else tuple(getattr(rows.values, "shape", (0,))[1:]),
        samples=samples,
        levels=_balance(labels),
        issues=tuple(sorted(issues, key=lambda issue: issue.severity != "error")),
        messages=(*rows.notes.get("messages", ()), *(storage.messages if storage else ())),
        static=0 if rows.static is None else rows.static.shape[1],
    )


def _unlabelled(labels: Labels, level: str) -> np.ndarray:
    """Return the rows of unknown class at a level, except rows whose class has no children at that level."""
    return np.flatnonzero((labels.level(level) == UNKNOWN).numpy() & ~labels.absent(level).numpy())


def _balance(labels: Labels) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {}
    for level, names in zip(labels.levels, labels.classes, strict=True):
        codes = labels.level(level).numpy()
        counts = np.bincount(codes[codes != UNKNOWN], minlength=len(names))
        sizes = counts if len(counts) else np.zeros(1, dtype=np.int64)
        result[level] = {
            "classes": len(names),
            "min": int(sizes.min()),
            "median": float(np.median(sizes)),
            "max": int(sizes.max()),
            "unknown": len(_unlabelled(labels, level)),
        }
    return result


# Contents


def _contents(rows: Rows, storage: Storage | None, cluster: Cluster | None) -> tuple[np.ndarray, list[RowError]]:
    """Return a digest of every sample, (N, 2) int64 (0, 0 for a missing one), and the images that cannot be decoded."""
    digests = np.zeros((len(rows), 2), dtype=np.int64)
    if storage is None and rows.static is not None:
        for row, (series, static) in enumerate(zip(rows.values, rows.static, strict=True)):
            digests[row] = _digest(np.concatenate([np.ravel(series), static]))
        return digests, []
    if storage is None:
        for row, value in enumerate(rows.values):
            digests[row] = _digest(value)
        return digests, []
    known = {fault.row for fault in rows.row_errors}
    usable = [row for row in range(len(rows)) if row not in known]
    faults: list[RowError] = []
    blocks = [usable[start : start + _BLOCK] for start in range(0, len(usable), _BLOCK)]
    look = partial(_looked_at, storage.form, storage.threads if cluster is None else 1)  # workers have a core each
    sources = ([rows.values[row] for row in block] for block in blocks)
    found = map(look, sources) if cluster is None else cluster.map(lambda: look, sources)
    for block, (own, failures) in zip(blocks, found, strict=True):
        digests[block] = own
        faults += [rows.row_error("undecodable image", block[position], why) for position, why in failures.items()]
    return digests, faults


def _looked_at(form: ImageForm, threads: int, sources: Sequence[str | bytes]) -> tuple[np.ndarray, dict[int, str]]:
    """The digest of every image, and why some cannot be decoded, by their place."""
    contents = [_bytes(source) for source in sources]
    _, failures = decode_images(contents, form, threads=threads)
    return np.stack([_digest(content) for content in contents]), failures


def _bytes(source: str | bytes) -> bytes:
    try:
        return source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError:
        return b""  # not readable: decoding will say so


def _digest(value: Any) -> np.ndarray | int:
    if value is None:
        return 0
    if isinstance(value, np.ndarray):
        value = np.ascontiguousarray(value).tobytes()
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return np.frombuffer(hashlib.blake2b(content, digest_size=16).digest(), dtype="<i8")


MANY_COPIES = 0.05
"""Share of the samples from which copies are worth a warning, where they are in one split and have one label."""


def _identical(rows: Rows, labels: Labels, digests: np.ndarray) -> Iterator[Issue]:
    groups: dict[tuple[int, int], list[int]] = {}
    for row in repeated(digests[:, 0]).tolist():
        if digests[row].any():
            groups.setdefault(tuple(digests[row].tolist()), []).append(row)
    alike = [group for group in groups.values() if len(group) > 1]
    splits = rows.splits
    across: list[list[int]] = []
    if splits is not None:
        across = [group for group in alike if len({splits[row] for row in group}) > 1]
        if across:
            yield Issue(
                "identical across splits",
                f"identical samples in several splits: {counted(len(across), 'group')}",
                tuple(_joined([f"{rows.describe_row(row)} ({splits[row]})" for row in group]) for group in across),
            )
    codes = labels.codes.numpy()
    torn = [group for group in alike if ((codes[group] != codes[group[0]]) & (codes[group] != UNKNOWN)).any()]
    if torn:
        yield Issue(
            "identical with different labels",
            f"identical samples with different labels: {counted(len(torn), 'group')}",
            tuple(
                _joined([f"{rows.describe_row(row)} ({_described(labels, row)})" for row in group]) for group in torn
            ),
        )
    plain = [group for group in alike if group not in across and group not in torn]
    copies = sum(len(group) - 1 for group in plain)
    if copies >= MANY_COPIES * len(rows) and copies:
        yield Issue(
            "copies",
            f"identical samples: {copies} of {len(rows)} are copies of another, which makes figures too high",
            tuple(_joined([rows.describe_row(row) for row in group]) for group in plain),
        )


def _joined(alike: Sequence[str]) -> str:
    """Rows that are alike, the first few of many."""
    more = [f"{len(alike) - _ALIKE} more"] if len(alike) > _ALIKE else []
    return " = ".join([*alike[:_ALIKE], *more])


def _described(labels: Labels, row: int) -> str:
    codes = labels.codes[row].tolist()
    return ", ".join("?" if code < 0 else names[code] for code, names in zip(codes, labels.classes, strict=True))


# Ids and labels


def _duplicate_ids(rows: Rows) -> Iterator[Issue]:
    duplicates = rows.duplicate_ids()
    if duplicates:
        found = tuple(
            f"'{identity}': {', '.join(map(rows.describe_row, where))}" for identity, where in duplicates.items()
        )
        yield Issue("duplicate id", f"ids that occur more than once: {len(found)}", found, "error")


def _torn_rows(rows: Rows) -> Iterator[str]:
    """Return the rows whose class has another parent in most rows: the rows to check when levels do not nest."""
    labels = rows.lenient_labels()
    for above, level in zip(labels.levels, labels.levels[1:], strict=False):
        parents, children = labels.level(above).numpy(), labels.level(level).numpy()
        known = np.flatnonzero((parents != UNKNOWN) & (children != UNKNOWN))
        pairs = Counter(zip(parents[known].tolist(), children[known].tolist(), strict=True))
        usual: dict[int, int] = {}
        for (parent, child), _ in pairs.most_common():
            usual.setdefault(child, parent)
        for row in known.tolist():
            parent, child = int(parents[row]), int(children[row])
            if usual[child] != parent:
                names = labels.names(above)
                yield (
                    f"{rows.describe_row(row)}: {level} '{labels.names(level)[child]}' lies under {above} "
                    f"'{names[parent]}', mostly under '{names[usual[child]]}'"
                )


def _label_issues(rows: Rows, labels: Labels) -> Iterator[Issue]:
    splits = rows.splits if rows.splits is None else np.asarray(rows.splits)
    train = np.ones(len(rows), dtype=bool) if splits is None or "train" not in splits else splits == "train"
    place = " in train" if splits is not None and "train" in splits else ""
    for level, names in zip(labels.levels, labels.classes, strict=True):
        codes = labels.level(level).numpy()
        empty = _unlabelled(labels, level)
        if len(empty):
            yield Issue(
                "empty label",
                f"level {level}: {counted(len(empty), 'row')} without a label",
                tuple(map(rows.describe_row, empty.tolist())),
            )
        if len(names) == 1:
            yield Issue("one class", f"level {level} has only one class, '{names[0]}'")
        counts = np.bincount(codes[train & (codes != UNKNOWN)], minlength=len(names))
        single = np.flatnonzero(counts == 1)
        if len(single):
            found = np.flatnonzero(np.isin(codes, single) & train).tolist()
            yield Issue(
                "single sample",
                f"level {level}: {counted(len(single), 'class', 'classes')} with a single sample{place}",
                tuple(f"{rows.describe_row(row)}: '{names[codes[row]]}'" for row in found),
            )
        doubtful = [code for code, name in enumerate(names) if name.strip().lower() in LIKE_UNKNOWN]
        if doubtful:
            shown = examples(repr(names[code]) for code in doubtful)
            yield Issue(
                "class like unknown",
                f"level {level} has the class {shown}; if it means that the class is not known, empty these cells"
                + python_only(", or give unknown=[...]"),
                tuple(map(rows.describe_row, np.flatnonzero(np.isin(codes, doubtful)).tolist())),
            )
        if place and splits is not None:
            yield from _unseen(rows, level, names, codes, splits, counts)


def _rows_of(rows: Rows, labels: Labels, found: Twins) -> Iterator[str]:
    """Return the first row of each class in every group of twins."""
    codes, names = labels.level(found.level).tolist(), labels.names(found.level)
    first = {code: row for row, code in reversed(list(enumerate(codes)))}
    counts = Counter(codes)
    for group in found.groups:
        present = [code for code in map(names.index, group) if code in first]
        yield " = ".join(
            f"{rows.describe_row(first[code])}: '{names[code]}' ({counted(counts[code], 'row')})" for code in present
        )


def _unseen(
    rows: Rows, level: str, names: Sequence[str], codes: np.ndarray, splits: np.ndarray, counts: np.ndarray
) -> Iterator[Issue]:
    for part in _HELD_OUT:
        inside = codes[(splits == part) & (codes != UNKNOWN)]
        unseen = [code for code in np.unique(inside).tolist() if counts[code] == 0]
        if unseen:
            found = np.flatnonzero((splits == part) & np.isin(codes, unseen)).tolist()
            yield Issue(
                "class not in train",
                f"level {level}: {counted(len(unseen), 'class', 'classes')} of {part} not in train: "
                f"{examples(repr(names[code]) for code in unseen)}",
                tuple(f"{rows.describe_row(row)}: '{names[codes[row]]}'" for row in found),
            )
