"""From a table to rows: which columns hold the samples, the labels, the split, the group and the id.

The user names columns or leaves them to be guessed; every guess is told in ``notes["messages"]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from regrain.data.cells import (
    Column,
    Kind,
    as_matrix,
    kind_of,
    label_names,
    missing,
    numbered,
    path_columns,
    plain,
    split_name,
)
from regrain.data.dataset import Modality
from regrain.data.guesses import Guesses
from regrain.data.rows import Fault, Rows
from regrain.errors import UserError, nearest
from regrain.labels import Relation

__all__ = ["RoleOptions", "Table"]


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

    def __len__(self) -> int:
        return max(map(len, self.columns.values()), default=0)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What every column holds, judged by a sample of its cells."""
        return {name: kind_of(column) for name, column in self.columns.items()}

    def require(self, name: str, role: str) -> str:
        """The name of a column that exists, else a UserError that names the nearest one."""
        name = str(name)
        if name not in self.columns:
            raise UserError(f"{self.where} has no column '{name}' ({role}): {nearest(name, self.columns)}")
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
        guesses = Guesses(self.where, self.columns, self.kinds, self.classes, self.splits is not None)
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
            if columns and series_shape is None:
                guesses.messages.append("series_shape=(time, channels) would read the vectors as series")
        taken |= {c for c in (image, text, *(columns or ())) if c is not None}
        if levels is None:
            named = guesses.levels(taken, relation, unknown)
            taken |= set(named)
        if image is None and text is None and columns is None:
            columns = guesses.numbers(taken)
            taken |= set(columns)
        group = guesses.group(taken) if group is None else self.require(group, "group")
        id = guesses.identity(taken - {image}) if id is None else self.require(id, "id")

        faults = list(self.broken)
        modality, values, found = self._samples(image, text, columns, series_shape)
        faults += found
        vector_columns = {"columns": list(columns)} if columns else {}
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
            notes={"source": self.where, "messages": guesses.messages, **vector_columns},
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
        cells = [None if missing(cell) else plain(cell) for cell in self.columns[name]]
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


def _expand(patterns: Sequence[str], table: Table) -> list[str]:
    """Column names from names and patterns, in the order of the table for each pattern."""
    names: list[str] = []
    for pattern in map(str, patterns):
        matches = [pattern] if pattern in table.columns else [n for n in table.columns if fnmatchcase(n, pattern)]
        if not matches:
            table.require(pattern, "columns")
        names += [name for name in matches if name not in names]
    if not names:
        raise UserError("columns names no column of numbers: give names or patterns such as 'f*'")
    for name in names:
        if table.kinds[name] in ("text", "bytes"):
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
    if isinstance(cell, bytes):
        return cell
    path = str(cell).strip()
    return str(folder / (path.replace("\\", "/") if os.sep == "/" else path))  # tables are written on Windows, too
