"""Single cells: AnnData objects and ``.h5ad`` files, one sample a cell.

An object is used by its attributes alone; the package ``anndata`` is needed for files.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np

from regrain.data.formats import frame_table
from regrain.data.options import ObservationOptions
from regrain.data.rows import RowError, Rows
from regrain.errors import Notable, UserError, nearest

CELL_SUFFIX = ".h5ad"

_TARGET = 1e4
_ROWS = 4096
_MATRIX = "the matrix"


def is_anndata(source: Any) -> bool:
    """Whether a source is an AnnData object."""
    return all(hasattr(source, name) for name in ("obs", "var", "X", "obs_names", "var_names"))


@dataclass(frozen=True)
class CellMatrix:
    """An AnnData object as it was read, with the words for its source and the data set's name."""

    data: Any
    where: str
    name: str


def as_cell_matrix(source: Any) -> CellMatrix:
    """An AnnData object, or the one in an ``.h5ad`` file.

    Raises
    ------
    UserError
        Without the package ``anndata``, and for a file that it cannot read.
    """
    if isinstance(source, CellMatrix):
        return source
    if is_anndata(source):
        return CellMatrix(source, "the AnnData object", "cells")
    try:
        import anndata
    except ImportError:
        raise UserError(
            f"{source} needs a package to be read: pip install 'regrain[cells]'", code="missing_package"
        ) from None
    path = Path(os.path.expanduser(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that are not unique, and older formats: nothing for the user to do
            return CellMatrix(anndata.read_h5ad(path), str(source), path.stem)
    except Exception as error:  # of several packages, by what is damaged
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{source} cannot be read as AnnData: {reason[0]}", code="damaged_file") from None


def read_cells(
    source: Any,
    *,
    gene_counts: Literal["normalise", "keep"] | None = None,
    columns: Sequence[str] | None = None,
    **roles: Unpack[ObservationOptions],
) -> Rows:
    """The cells of an AnnData object or an ``.h5ad`` file: the rows of ``X``, with columns of ``obs`` as labels.

    Counts become log(1 + 10,000 x / total), x the count of a gene and total that of the cell: scanpy's
    ``normalize_total(target_sum=1e4)`` and ``log1p``. Its default target, the median of the totals, depends on the
    other cells, so that the same cell would be another sample beside others.

    Raises a UserError for a matrix that is missing, counts that are none, and as a table.

    Parameters
    ----------
    source : AnnData or path
    gene_counts : {"normalise", "keep"}, optional
        Default: ``X`` is normalised where it holds whole numbers of 0 and more alone.
    columns : sequence of str, optional
        Genes, by name or pattern, in place of all; or one matrix of ``obsm``, such as ``X_pca``.
    **roles
        Columns of ``obs``; those that are not named are guessed. Ids are ``obs_names``.
    """
    found = as_cell_matrix(source)
    cells, where = found.data, found.where
    names = list(map(str, cells.obs_names))
    table = replace(frame_table(cells.obs, where), name=found.name, describe_row=lambda row: f"cell '{names[row]}'")
    messages: list[str] = []
    matrix, features = _matrix(cells, columns, where)
    values = _values(matrix, gene_counts, where, messages)
    # One column stands for the matrix, so that columns of `obs` that hold numbers are not features.
    table.columns = {**table.columns, _MATRIX: np.zeros(len(values))}
    rows = table.rows(columns=[_MATRIX], **roles)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
    wrong = [
        RowError("not a number", row, table.describe_row(row), f"has {_first_bad(values[row], features)}")
        for row in bad
    ]
    notes = {**rows.notes, "columns": features, "messages": [*rows.notes["messages"], *messages]}
    return replace(
        rows,
        values=values,
        ids=names if rows.id_column is None else rows.ids,
        known_errors=(*rows.known_errors, *wrong),
        notes=notes,
    )


def _matrix(cells: Any, columns: Sequence[str] | None, where: str) -> tuple[Any, list[str]]:
    """The matrix (N, D) that is read, dense or sparse, and the names of its columns."""
    if cells.X is None and (columns is None or not set(columns) & set(cells.obsm)):
        raise UserError(f"{where} holds no matrix X: --columns names one of obsm ({', '.join(cells.obsm) or 'none'})")
    genes = _unique(list(map(str, cells.var_names)))
    if columns is None:
        return cells.X, genes
    if isinstance(columns, str):
        raise UserError(f"columns is a list of genes, such as ['CD3E', 'MT-*']; got {columns!r}", code="wrong_shape")
    if len(columns) == 1 and columns[0] in cells.obsm and columns[0] not in genes:
        found = np.asarray(cells.obsm[columns[0]])
        return found, [f"{columns[0]}{number}" for number in range(found.shape[1])]
    places: dict[int, None] = {}
    for pattern in columns:
        fitting = [place for place, gene in enumerate(genes) if gene == pattern or fnmatchcase(gene, pattern)]
        if not fitting:
            known = [*genes, *cells.obsm]
            raise UserError(f"{where} has no gene '{pattern}': {nearest(pattern, known)}", code="unknown_column")
        places |= dict.fromkeys(fitting)
    kept = list(places)
    return cells.X[:, kept], [genes[place] for place in kept]


def _values(matrix: Any, gene_counts: str | None, where: str, messages: list[str]) -> np.ndarray:
    """(N, D) float32, counts normalised."""
    blocks = [_dense(matrix[start : start + _ROWS]) for start in range(0, matrix.shape[0], _ROWS)]
    values = np.concatenate(blocks) if blocks else np.zeros(matrix.shape, dtype=np.float32)
    if gene_counts == "keep":
        return values
    with np.errstate(invalid="ignore"):
        are_counts = bool((values >= 0).all() and (values == np.floor(values)).all())
    if gene_counts == "normalise" and not are_counts:
        raise UserError(
            f"{where}: counts are whole numbers of 0 and more, and X holds others: it seems to be normalised already "
            "(--gene-counts keep reads it as it is)",
            code="out_of_range",
        )
    if not are_counts:
        messages.append(Notable("X is read as it is: it holds no counts, which are whole numbers of 0 and more"))
        return values
    empty = int((values.sum(axis=1) == 0).sum())
    messages.append(
        Notable(
            "X holds counts, which became log(1 + 10,000 x / total) of each cell (--gene-counts keep reads them as "
            "they are)" + (f"; {empty} cells have none" if empty else "")
        )
    )
    return normalised_counts(values)


def normalised_counts(counts: np.ndarray) -> np.ndarray:
    """log(1 + 10,000 x / total) of counts (N, D), total that of a row; a row of zeros stays one.

    That is ``scanpy.pp.normalize_total(target_sum=1e4)`` and ``scanpy.pp.log1p``.

    Examples
    --------
    >>> normalised_counts(np.array([[1.0, 3.0], [0.0, 0.0]])).round(3)
    array([[7.824, 8.923],
           [0.   , 0.   ]], dtype=float32)
    """
    totals = counts.sum(axis=1, keepdims=True, dtype=np.float64)
    scaled = np.multiply(counts, _TARGET / np.where(totals == 0, 1, totals), dtype=np.float64)
    return np.log1p(scaled).astype(np.float32)


def _dense(block: Any) -> np.ndarray:
    """float32, from an array or a sparse matrix."""
    array = block.toarray() if hasattr(block, "toarray") else block
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def _unique(names: list[str]) -> list[str]:
    """Names, of which a repeated one has a number after it from its second place on, as AnnData writes them."""
    seen: Counter[str] = Counter()
    taken, result = set(names), []
    for name in names:
        own = name
        while own in seen or (seen[name] and own in taken):
            own = f"{name}-{seen[name]}"
            seen[name] += 1
        seen[own] += 1
        result.append(own)
    return result


def _first_bad(row: np.ndarray, features: list[str]) -> str:
    place = int(np.flatnonzero(~np.isfinite(row))[0])
    return f"{row[place]} for '{features[place]}', which is not a finite number"
