"""From a table to rows: which columns hold the samples, the labels, the split, the group and the id.

The user names columns or leaves them to be guessed; every guess is told in ``notes["messages"]``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np

from regrain.data.dataset import Modality
from regrain.data.rows import Fault, Rows
from regrain.errors import UserError, nearest
from regrain.labels import Labels, Relation, Taxonomy

__all__ = [
    "IMAGE_SUFFIXES",
    "Column",
    "RoleOptions",
    "Table",
    "as_matrix",
    "is_split",
    "label_names",
    "missing",
    "numbered",
    "path_columns",
    "split_name",
]

Column = Sequence[Any] | np.ndarray
"""A list of cells, None where there is none, or an array of numbers (N,) or (N, D)."""

Kind = Literal["bytes", "numbers", "vectors", "text", "other"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
"""Endings of image files, in lower case."""

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_IMAGE_WORDS = ("image", "images", "img", "picture", "photo", "file", "filename", "filepath", "path")
_TEXT_WORDS = (
    "text",
    "sentence",
    "utterance",
    "query",
    "question",
    "review",
    "document",
    "content",
    "message",
    "comment",
    "description",
)
_LABEL_WORDS = (
    "label",
    "class",
    "classes",
    "category",
    "superclass",
    "subclass",
    "subcategory",
    "coarse",
    "fine",
    "target",
    "domain",
    "intent",
    "family",
    "genus",
    "species",
    "alphabet",
    "character",
)
_SPLIT_WORDS = ("split", "subset", "partition")
_GROUP_WORDS = ("group", "subject", "patient", "participant", "person")
_ID_NAMES = (
    "id",
    "uid",
    "uuid",
    "key",
    "sampleid",
    "imageid",
    "file",
    "filename",
    "filepath",
    "path",
    "imagepath",
    "image",
    "img",
    "picture",
    "photo",
)
_UNKNOWN = ("", "nan", "NaN")
_LOOKED_AT = 1000


class RoleOptions(TypedDict, total=False):
    """What the columns of a table are; readers of tables take these options, and guess what is not named.

    image : str, optional
        Column of image paths (absolute, or relative to the table's folder) or of encoded images.
    text : str, optional
        Column of texts.
    columns : sequence of str, optional
        Columns of numbers, or patterns such as ``"f*"``; a column may hold a list of numbers in every row.
    series_shape : (time, channels), optional
        Takes the numbers of a row, in this order, for a series instead of a vector.
    levels : sequence of str, optional
        Columns of labels, coarse to fine. An empty list means that there are no labels.
    label_paths : bool, default False
        The one column of ``levels`` holds paths such as ``animal/dog/beagle``.
    relation : "tree", "paths" or "aspects", default "tree"
        How levels hang together (:data:`regrain.labels.Relation`).
    split, group, id : str, optional
        Columns of the split's name, of what a split must not tear apart, and of unique identities.
    unknown : sequence of str, default ()
        Labels that mean "not known", besides empty cells and NaN: ``["NA", "?"]``.
    name : str, optional
        Of the data set.
    """

    image: str | None
    text: str | None
    columns: Sequence[str] | None
    series_shape: tuple[int, int] | None
    levels: Sequence[str] | None
    label_paths: bool
    relation: Relation
    split: str | None
    group: str | None
    id: str | None
    unknown: Sequence[str]
    name: str | None


@dataclass
class Table:
    """Columns as they were read.

    Parameters
    ----------
    where, name : str
        The source, for messages, and the data set's name.
    columns : dict of name to Column
    finds : callable
        How the user finds the row at a position, such as "line 7".
    folder : Path
        What relative image paths start from.
    splits : sequence of str, optional
        The split of every row, where files tell it.
    broken : tuple of Fault
        Lines that are no rows.
    classes : tuple of str
        Columns that the source declares to be class labels.
    """

    where: str
    name: str
    columns: dict[str, Column]
    finds: Callable[[int], str]
    folder: Path
    splits: Sequence[str] | None = None
    broken: tuple[Fault, ...] = ()
    classes: tuple[str, ...] = ()
    _kinds: dict[str, Kind] = field(default_factory=dict)

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    def kind(self, name: str) -> Kind:
        """What a column holds, judged by a sample of its cells."""
        if name not in self._kinds:
            self._kinds[name] = _kind(self.columns[name])
        return self._kinds[name]

    def require(self, name: str, role: str) -> str:
        """The name of a column that exists, else a UserError that names the nearest one."""
        if name not in self.columns:
            raise UserError(f"{self.where} has no column '{name}' ({role}): {nearest(str(name), self.columns)}")
        return name

    def rows(
        self,
        *,
        image: str | None = None,
        text: str | None = None,
        columns: Sequence[str] | None = None,
        series_shape: tuple[int, int] | None = None,
        levels: Sequence[str] | None = None,
        label_paths: bool = False,
        relation: Relation = "tree",
        split: str | None = None,
        group: str | None = None,
        id: str | None = None,
        unknown: Sequence[str] = (),
        name: str | None = None,
    ) -> Rows:
        """The rows of the table; the options are explained in :class:`RoleOptions`.

        Raises
        ------
        UserError
            For a column that does not exist, more than one kind of sample, and where a guess is not possible.
        """
        if sum(option is not None for option in (image, text, columns)) > 1:
            raise UserError("samples are images, texts or numbers: name only one of image, text and columns")
        if relation not in ("tree", "paths", "aspects"):
            raise UserError(f"relation '{relation}': {nearest(str(relation), ('tree', 'paths', 'aspects'))}")
        if isinstance(levels, str) or isinstance(columns, str):
            raise UserError("levels and columns are lists of column names, such as ['label']")
        if label_paths and (levels is None or len(levels) != 1):
            raise UserError("label_paths=True needs one column of paths in levels, for example levels=['path']")
        guesses = _Guesses(self)
        split = guesses.split() if split is None else self.require(split, "split")
        named = [self.require(level, "level") for level in levels or ()]
        taken = {c for c in (split, group, id, *named) if c is not None}
        if columns is not None:
            columns = _expand(columns, self)
        elif text is not None:
            text = self.require(text, "text")
        elif image is not None:
            image = self.require(image, "image")
        else:
            image, text, columns = guesses.samples(taken)
        taken |= {c for c in (image, text, *(columns or ())) if c is not None}
        if levels is None:
            named = guesses.levels(taken, relation)
            taken |= set(named)
        if image is None and text is None and columns is None:
            columns = guesses.numbers(taken)
            taken |= set(columns)
        group = guesses.group(taken) if group is None else self.require(group, "group")
        id = guesses.identity(taken - {image}) if id is None else self.require(id, "id")

        faults = list(self.broken)
        modality, values, found = self._samples(image, text, columns, series_shape)
        faults += found
        parts = self.splits if split is None else self._filled(split, "split", faults)
        splits = None if parts is None else list(map(split_name, parts))
        identities = None if id is None else [str(v) for v in self._filled(id, "id", faults)]
        groups = None if group is None else [str(v) for v in self._filled(group, "group", faults)]
        if identities is None:
            identities = numbered(len(self), None if self.splits is None else splits)
        return Rows(
            where=self.where,
            name=name or self.name,
            modality=modality,
            values=values,
            labels=self._labels(named, label_paths, unknown, guesses.messages),
            ids=identities,
            finds=self.finds,
            relation="tree" if label_paths else relation,
            id_column=id,
            splits=splits,
            groups=groups,
            faults_found=tuple(faults),
            notes={"source": self.where, "messages": guesses.messages},
        )

    def _samples(
        self,
        image: str | None,
        text: str | None,
        columns: Sequence[str] | None,
        series_shape: tuple[int, int] | None,
    ) -> tuple[Modality, Sequence[Any] | np.ndarray, list[Fault]]:
        if series_shape is not None and columns is None:
            raise UserError("series_shape belongs to columns of numbers, but the samples are images or texts")
        if image is not None:
            return "image", [_image_source(cell, self.folder) for cell in self.columns[image]], []
        if text is not None:
            return "text", [None if missing(cell) else str(cell) for cell in self.columns[text]], []
        assert columns is not None
        values, cells = as_matrix([(name, self.columns[name]) for name in columns])
        faults = [Fault("not a number", row, self.finds(row), why) for row, why in sorted(cells.items())]
        if series_shape is None:
            return "vector", values, faults
        if len(series_shape) != 2 or int(np.prod(series_shape)) != values.shape[1]:
            raise UserError(
                f"series_shape is (time, channels) and its product the count of numbers in a row, {values.shape[1]}; "
                f"got {tuple(series_shape)}"
            )
        return "series", values.reshape(len(values), *series_shape), faults

    def _filled(self, name: str, role: str, faults: list[Fault]) -> list[Any]:
        """The cells of a column that may not have gaps; gaps become faults."""
        cells = [None if missing(cell) else _plain(cell) for cell in self.columns[name]]
        for row, cell in enumerate(cells):
            if cell is None:
                faults.append(Fault(f"no {role}", row, self.finds(row), f"has no {role} in column '{name}'"))
        return ["" if cell is None else cell for cell in cells]

    def _labels(
        self, levels: Sequence[str], label_paths: bool, unknown: Sequence[str], messages: list[str]
    ) -> dict[str, list[Any]]:
        names = {level: label_names(self.columns[level], unknown, level, messages) for level in levels}
        if not label_paths:
            return names
        return path_columns([None if v is None else str(v) for v in names[levels[0]]])


class _Guesses:
    """What the columns that nobody named may be; ``messages`` tells the user what was guessed."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.messages: list[str] = []

    def _say(self, role: str, names: Iterable[str]) -> None:
        self.messages.append(f"{role}: column {', '.join(repr(n) for n in names)} (guessed)")

    def split(self) -> str | None:
        """A column whose name says split and whose cells are names of splits."""
        for name in self.table.columns:
            if self.table.splits is None and _has_word(name, _SPLIT_WORDS):
                cells = {str(c).strip().lower() for c in self.table.columns[name]}
                if cells and cells <= set(_SPLITS):
                    self._say("split", [name])
                    return name
        return None

    def samples(self, taken: set[str]) -> tuple[str | None, str | None, list[str] | None]:
        """The column of images, or of texts, or of vectors; all None when there is none."""
        free = [name for name in self.table.columns if name not in taken]
        encoded = [name for name in free if self.table.kind(name) == "bytes"]
        strings = [name for name in free if self.table.kind(name) == "text"]
        files = [name for name in strings if _are_image_files(self.table.columns[name])]
        images = sorted(encoded, key=_word_rank(_IMAGE_WORDS)) or sorted(files, key=_word_rank(_IMAGE_WORDS))
        if images:
            self._say("images", images[:1])
            return images[0], None, None
        texts = [name for name in strings if _has_word(name, _TEXT_WORDS)]
        texts = sorted(texts, key=_word_rank(_TEXT_WORDS)) or [n for n in strings if _is_prose(self.table.columns[n])]
        if texts:
            self._say("texts", texts[:1])
            return None, texts[0], None
        vectors = [name for name in free if self.table.kind(name) == "vectors"]
        if vectors:
            self._say("vectors", vectors[:1])
            self.messages.append("series_shape=(time, channels) would read them as series")
            return None, None, vectors[:1]
        return None, None, None

    def levels(self, taken: set[str], relation: Relation) -> list[str]:
        """Label columns from coarse to fine: those that nest, all of them for aspects."""
        table = self.table
        free = [name for name in table.columns if name not in taken]
        counted = [n for n in free if table.kind(n) == "text" or _has_word(n, _LABEL_WORDS)]
        counts = {name: _distinct(table.columns[name]) for name in {*counted, *table.classes} & set(free)}
        declared = [name for name in free if name in table.classes]
        candidates = declared or [name for name in free if name in counts and self._may_be_labels(name, counts[name])]
        if relation == "aspects" and candidates:
            self._say("levels", candidates)
            return candidates
        candidates = self._without_aliases(sorted(candidates, key=counts.__getitem__))
        attempts = [
            candidates,
            [name for name in candidates if not _has_word(name, _GROUP_WORDS)],
            [name for name in candidates if _has_word(name, _LABEL_WORDS)],
        ]
        for attempt in attempts:
            if attempt and (relation == "paths" or self._nest(attempt)):
                self._say("levels, coarse to fine", attempt)
                return attempt
        if candidates:
            listed = ", ".join(f"'{name}' ({counts[name]} classes)" for name in candidates)
            raise UserError(
                f"{table.where}: which columns are labels? These could be, but they do not nest: {listed}. Name them "
                "from coarse to fine (--level; levels=[...]), or say that they are aspects that do not nest "
                "(--relation aspects; relation='aspects')"
            )
        listed = ", ".join(f"'{name}' ({count} different values)" for name, count in counts.items()) or "no such column"
        raise UserError(
            f"{table.where}: no column looks like labels (few different values, many times each), of {listed}. Name "
            "the label columns from coarse to fine (--level; levels=[...]); levels=[] reads data without labels"
        )

    def numbers(self, taken: set[str]) -> list[str]:
        """All columns of numbers that are nothing else, but for one that just counts rows."""
        names = [n for n in self.table.columns if n not in taken and self.table.kind(n) == "numbers"]
        names = [n for n in names if not _has_word(n, _GROUP_WORDS) and _squeezed(n) not in _ID_NAMES]
        counters = [n for n in names if _counts_rows(self.table.columns[n])]
        names = [n for n in names if n not in counters]
        if counters:
            self.messages.append(f"column {', '.join(map(repr, counters))} only counts rows and was left out")
        if not names:
            raise UserError(
                f"{self.table.where} has no column of images, texts or numbers among "
                f"{', '.join(map(repr, self.table.columns)) or 'none at all'}: name one with image=, text= or columns="
            )
        shown = ", ".join(map(repr, names if len(names) < 6 else [*names[:3], "...", names[-1]]))
        self.messages.append(f"features: {len(names)} columns of numbers, {shown} (guessed)")
        return names

    def group(self, taken: set[str]) -> str | None:
        for name in self.table.columns:
            if name not in taken and _has_word(name, _GROUP_WORDS) and self.table.kind(name) in ("text", "numbers"):
                self._say("group", [name])
                return name
        return None

    def identity(self, taken: set[str]) -> str | None:
        """A column named like an id, without gaps or repetitions."""
        named = [n for n in self.table.columns if n not in taken and _squeezed(n) in _ID_NAMES]
        for name in sorted(named, key=lambda n: _ID_NAMES.index(_squeezed(n))):
            cells = self.table.columns[name]
            if self.table.kind(name) not in ("text", "numbers") or any(map(missing, cells)):
                continue
            if len({str(cell) for cell in cells}) == len(cells):
                return name
            self.messages.append(f"column '{name}' repeats values and is not taken for the id")
        return None

    def _may_be_labels(self, name: str, count: int) -> bool:
        named = _has_word(name, _LABEL_WORDS)
        if _squeezed(name) in _ID_NAMES or _has_word(name, _SPLIT_WORDS):
            return False
        kind = self.table.kind(name)
        if kind == "numbers" and not (named and _are_whole(self.table.columns[name])):
            return False
        return kind in ("text", "numbers") and (1 if named else 2) <= count <= max(2, len(self.table) // 2)

    def _without_aliases(self, names: list[str]) -> list[str]:
        """Of columns that say the same in other words, such as a class's number and its name, the one with names."""
        kept: list[str] = []
        for name in sorted(names, key=lambda n: self.table.kind(n) == "numbers"):
            if not any(_same_partition(self.table.columns[name], self.table.columns[other]) for other in kept):
                kept.append(name)
        return [name for name in names if name in kept]

    def _nest(self, names: list[str]) -> bool:
        labels = Labels.from_columns({n: list(self.table.columns[n]) for n in names}, relation="aspects")
        return Taxonomy.from_codes(labels.codes, labels.levels, labels.classes).is_tree


def split_name(name: Any) -> str:
    """A split's name as it is used here: validation, valid and dev are ``val``.

    Examples
    --------
    >>> split_name("Validation"), split_name("train"), split_name("fold 3")
    ('val', 'train', 'fold 3')
    """
    return _SPLITS.get(str(name).strip().lower(), str(name).strip())


def is_split(name: str) -> bool:
    """Whether a folder or file of this name holds a split."""
    return name.strip().lower() in _SPLITS


def numbered(count: int, splits: Sequence[str] | None = None) -> list[str]:
    """Ids for rows that have none: the row's number, within its split where splits are separate files.

    Examples
    --------
    >>> numbered(3, ["train", "train", "test"])
    ['train/0', 'train/1', 'test/0']
    """
    if splits is None:
        return [str(row) for row in range(count)]
    next_row: Counter[str] = Counter()
    ids = []
    for split in splits:
        ids.append(f"{split}/{next_row[split]}")
        next_row[split] += 1
    return ids


def missing(cell: Any) -> bool:
    """Whether a cell is empty: None, NaN, NA, or nothing but spaces."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return True
    return (isinstance(cell, float | np.floating) and bool(np.isnan(cell))) or type(cell).__name__ in (
        "NAType",
        "NaTType",
    )


def label_names(cells: Column, unknown: Sequence[str], level: str, messages: list[str]) -> list[Any]:
    """Class names of one level, None where the class is not known.

    -1 among class numbers means unknown, as everywhere here; it is told in ``messages``.

    Raises
    ------
    UserError
        If the only class numbers are -1 and 1, which could be two classes.
    """
    without = {*_UNKNOWN, *map(str, unknown)}
    names = [None if missing(cell) or str(cell).strip() in without else _plain(cell) for cell in cells]
    minus = ("-1", "-1.0")
    marks = sum(str(name) in minus for name in names)
    others = {str(name) for name in names if name is not None and str(name) not in minus} if marks else set()
    if marks and all(re.fullmatch(r"\d+(\.0)?", other) for other in others):
        if others in ({"1"}, {"1.0"}):
            raise UserError(
                f"level '{level}' holds only -1 and 1: -1 means unknown here; for two classes write 0 and 1, or names"
            )
        messages.append(f"level '{level}': -1 is read as unknown ({marks} samples)")
        names = [None if str(name) in minus else name for name in names]
    return names


def path_columns(paths: Sequence[str | None], levels: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """``a/b/c`` paths as one column per level, where a class is its path: ``a``, ``a/b``, ``a/b/c``.

    Examples
    --------
    >>> path_columns(["a/x", "b", None])
    {'level1': ['a', 'b', None], 'level2': ['a/x', None, None]}
    """
    if not any(paths):
        return {}
    labels = Labels.from_paths(list(paths), levels)
    return {
        level: [None if code < 0 else names[code] for code in labels.level(level).tolist()]
        for level, names in zip(labels.levels, labels.classes, strict=True)
    }


def as_matrix(columns: Sequence[tuple[str, Column]]) -> tuple[np.ndarray, dict[int, str]]:
    """Columns of numbers side by side as float32 (N, D), and what is wrong with the first bad cell of a row.

    Examples
    --------
    >>> as_matrix([("a", ["1", "x"]), ("b", [0.5, 2.0])])
    (array([[1. , 0.5],
           [nan, 2. ]], dtype=float32), {1: "holds 'x' in column 'a', which is not a number"})
    """
    wrong: dict[int, str] = {}
    blocks = []
    for name, column in columns:
        block = _as_floats(column)
        with np.errstate(over="ignore"):
            single = block.astype(np.float32)
        for row in np.flatnonzero(~np.isfinite(single).all(axis=1)).tolist():
            wrong.setdefault(row, _what_is_wrong(name, column, row, single[row]))
        blocks.append(single)
    return np.concatenate(blocks, axis=1), wrong


def _as_floats(column: Column) -> np.ndarray:
    """A column as float64 (N, D); NaN where there is no number."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64).reshape(len(column), -1)
    if isinstance(next((cell for cell in column if not missing(cell)), None), list | tuple | np.ndarray):
        lists = {row: cell for row, cell in enumerate(column) if isinstance(cell, list | tuple | np.ndarray)}
        width = Counter(map(len, lists.values())).most_common(1)[0][0]
        block = np.full((len(column), width), np.nan)
        for row, cell in lists.items():
            if len(cell) == width:
                try:
                    block[row] = cell
                except (TypeError, ValueError):
                    block[row] = [_as_float(number) for number in cell]
        return block
    try:
        return np.array(column, dtype=np.float64)[:, None]
    except (TypeError, ValueError):
        return np.array([_as_float(cell) for cell in column], dtype=np.float64)[:, None]


def _as_float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _what_is_wrong(name: str, column: Column, row: int, numbers: np.ndarray) -> str:
    cell = column[row]
    if isinstance(cell, np.ndarray | list | tuple):
        if len(cell) != len(numbers):
            return f"has {len(cell)} numbers in column '{name}', other rows {len(numbers)}"
        place = int(np.flatnonzero(~np.isfinite(numbers))[0])
        return f"holds {cell[place]} at place {place} of column '{name}', which is not a finite number"
    if missing(cell) and not isinstance(cell, float | np.floating):
        return f"is empty in column '{name}'"
    shown = f"'{cell}'" if isinstance(cell, str) else str(cell)
    if np.isfinite(_as_float(cell)):
        return f"holds {shown} in column '{name}', which is too large for a 32-bit number"
    finite = "a finite number" if shown.strip("'").lower().lstrip("+-") in ("nan", "inf", "infinity") else "a number"
    return f"holds {shown} in column '{name}', which is not {finite}"


def _expand(patterns: Sequence[str], table: Table) -> list[str]:
    """Column names from names and patterns, in the order of the table for each pattern."""
    names: list[str] = []
    for pattern in patterns:
        matches = [pattern] if pattern in table.columns else [n for n in table.columns if fnmatchcase(n, pattern)]
        if not matches:
            table.require(pattern, "columns")
        names += [name for name in matches if name not in names]
    if not names:
        raise UserError("columns names no column of numbers: give names or patterns such as 'f*'")
    for name in names:
        if table.kind(name) in ("text", "bytes"):
            cell = next((cell for cell in table.columns[name] if not missing(cell)), "")
            raise UserError(
                f"{table.where}: column '{name}' does not hold numbers but values such as {str(cell)[:40]!r}"
            )
    return names


def _image_source(cell: Any, folder: Path) -> str | bytes | None:
    if isinstance(cell, Mapping):  # how Hugging Face stores images in Parquet
        cell = cell.get("bytes") or cell.get("path")
    if missing(cell):
        return None
    return cell if isinstance(cell, bytes) else str(folder / str(cell).strip())


def _kind(column: Column) -> Kind:
    if isinstance(column, np.ndarray):
        return "vectors" if column.ndim == 2 else "numbers" if column.dtype.kind in "iufb" else "other"
    step = max(1, len(column) // _LOOKED_AT)
    cells = [cell for cell in column[::step] if not missing(cell)] or [c for c in column if not missing(c)]
    if not cells:
        return "other"
    first = cells[0]
    if isinstance(first, bytes) or (isinstance(first, Mapping) and {"bytes", "path"} & set(first)):
        return "bytes"
    if isinstance(first, list | tuple | np.ndarray):
        return "vectors" if all(isinstance(v, int | float | np.number) for v in first) else "other"
    numbers = sum(np.isfinite(_as_float(c)) for c in cells)
    if numbers >= 0.9 * len(cells):  # a stray word in a column of numbers is a mistake to be told, not another kind
        return "numbers"
    return "text" if isinstance(first, str) else "other"


def _plain(cell: Any) -> Any:
    return cell.item() if isinstance(cell, np.generic) else cell


def _words(name: str) -> list[str]:
    """``imagePath`` and ``image_path`` as ["image", "path"]."""
    return [w.lower() for w in re.split(r"[^A-Za-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)) if w]


def _squeezed(name: str) -> str:
    return "".join(_words(name))


def _has_word(name: str, words: Sequence[str]) -> bool:
    return any(word in words or word.removesuffix("s") in words for word in _words(name))


def _word_rank(words: Sequence[str]) -> Callable[[str], int]:
    def rank(name: str) -> int:
        return min((words.index(word) for word in _words(name) if word in words), default=len(words))

    return rank


def _are_image_files(column: Column) -> bool:
    cells = [str(cell).strip().lower() for cell in column[: 10 * _LOOKED_AT] if not missing(cell)]
    return bool(cells) and sum(cell.endswith(IMAGE_SUFFIXES) for cell in cells) > len(cells) / 2


def _is_prose(column: Column) -> bool:
    cells = [str(cell) for cell in column[:_LOOKED_AT] if not missing(cell)]
    return (
        bool(cells) and len(set(cells)) > len(cells) / 2 and sum(c.strip().count(" ") for c in cells) >= 2 * len(cells)
    )


def _are_whole(column: Column) -> bool:
    return all(_as_float(cell).is_integer() for cell in column if not missing(cell))


def _distinct(column: Column) -> int:
    return len({str(cell) for cell in column if not missing(cell)})


def _counts_rows(column: Column) -> bool:
    numbers = _as_floats(column)[:, 0]
    return len(numbers) > 1 and bool(
        np.array_equal(numbers - numbers[0], np.arange(len(numbers))) and numbers[0] in (0, 1)
    )


def _same_partition(one: Column, other: Column) -> bool:
    pairs = {(str(a), str(b)) for a, b in zip(one, other, strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
