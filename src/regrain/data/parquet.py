"""Parquet files, read column by column and no more than memory holds; texts of many rows are packed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from regrain.coded import Coded
from regrain.data.cells import Column, is_split, split_name
from regrain.data.columns import class_names_of, column_names, require_rows, stacked
from regrain.data.foreign import described_text, foreign_format
from regrain.data.options import RoleOptions
from regrain.data.rows import Rows
from regrain.data.table import Table
from regrain.errors import UserError, examples, first_line, python_only
from regrain.processes import local_processes

_CELL_BYTES = 16
_FEW = 16
_BLOCK = 1000
_ROW_BYTES = 200
_MANY = 65536
"""From this many rows on, texts most of which are different are packed."""
_FEWER = 16384
"""Rows of texts that are read at a time, of so many and more."""
_KEPT_BYTES = 16 << 20
"""Columns are kept once read up to so many bytes in all; beyond, each is read whenever it is asked for."""


def parquet_table(paths: Sequence[Path], splits: Sequence[str] | None = None, name: str | None = None) -> Table:
    """One or several Parquet files under each other; ``splits`` names the split of each file.

    A column is read when it is asked for: of a file with many, only those that matter.
    """
    columns = ParquetColumns(paths)
    where = str(paths[0] if len(paths) == 1 else paths[0].parent)
    sizes = columns.sizes
    require_rows(where, range(sum(sizes)), [])
    starts = np.cumsum([0, *sizes])

    def describe_row(row: int) -> str:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        place = f"row {row - int(starts[part])} (from 0)"
        return place if len(paths) == 1 else f"{paths[part].name} {place}"

    of_rows = None if splits is None else Coded(np.repeat(np.arange(len(sizes)), sizes), splits)
    folder = paths[0].parent
    title = name or (paths[0].stem if len(paths) == 1 else folder.name)
    declared = tuple(c for c in columns if c in columns.declared)
    return Table(where, title, columns, describe_row, folder, splits=of_rows, classes=declared, count=sum(sizes))


def read_parquet_folder(path: str | Path, *, splits: Sequence[str] | None = None, **roles: Unpack[RoleOptions]) -> Rows:
    """A folder of Parquet files, one per split: ``train.parquet``, ``val.parquet``, ``test.parquet``.

    Shards ``train-00000-of-00002.parquet`` are put together; files of other names are read only when ``splits`` names
    them (without ``.parquet``).

    Raises a UserError if the folder has no such file, and as :meth:`regrain.data.table.Table.rows`.
    """
    folder = Path(os.path.expanduser(path))
    files = parquet_files(folder, splits)
    present = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    for split in splits or ():
        if split not in files.values():
            raise UserError(f"{folder} has no {split}.parquet; it holds {examples(present, 8) or 'nothing'}")
    if not files:
        raise UserError(
            f"{folder} holds no Parquet splits: looked for train.parquet, val.parquet and test.parquet; "
            f"found {examples(present, 8) or 'nothing'}"
        )
    rows = parquet_table(list(files), list(files.values()), folder.resolve().name).rows(**roles)
    unread = [name for name in present if name.endswith(".parquet") and folder / name not in files]
    if unread:
        advice = python_only("; splits=[...] names what to read")
        rows.notes["messages"].append(f"not read, being no split: {', '.join(unread)}{advice}")
    return rows


def parquet_files(folder: Path, splits: Sequence[str] | None = None) -> dict[Path, str]:
    """The Parquet files of splits, shards included, and the split of each; in the folder or in its ``data`` folder."""
    for place in (folder, folder / "data"):
        files = {}
        for path in sorted(place.glob("*.parquet")):
            stem = path.stem.partition("-")[0] if "-of-" in path.stem else path.stem
            if (splits is None and is_split(stem)) or (splits is not None and {stem, split_name(stem)} & set(splits)):
                files[path] = stem if splits is not None and stem in splits else split_name(stem)
        if files:
            order = ("train", "val", "test")
            return dict(sorted(files.items(), key=lambda f: (order.index(f[1]) if f[1] in order else len(order), f[0])))
    return {}


class ParquetColumns(Mapping[str, Column]):
    """The columns of Parquet files under each other, each read when it is first asked for.

    Raises a UserError for what is not Parquet, columns of one name, and, when a column is read, for more than memory
    holds.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self.declared: dict[str, list[str]] = {}
        self.sizes: list[int] = []
        self._files: list[Any] = []
        self._own: list[dict[str, str]] = []
        self._texts: list[set[str]] = []
        self._read: dict[str, Column] = {}
        for path in paths:
            file, schema, texts = self._opened(path)
            own = dict(zip(column_names(schema.names, str(path)), schema.names, strict=True))
            self.declared |= _declared_classes(schema.metadata or {})
            self.sizes.append(file.metadata.num_rows)
            self._files.append(file)
            self._own.append(own)
            self._texts.append(texts)
        self._names = dict.fromkeys(name for own in self._own for name in own)

    def __getitem__(self, name: str) -> Column:
        if name not in self._names:
            raise KeyError(name)
        if name in self._read:
            return self._read[name]
        small = sum(self.sizes) * 8 * len(self._names) <= _KEPT_BYTES
        if small and len(self._read) >= _FEW:
            self.load([n for n in self._names if n not in self._read])
            return self._read[name]
        self.load([name])
        return self._read[name] if small else self._read.pop(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def load(self, names: Sequence[str]) -> None:
        """Read columns, a block of them at a time."""
        import pyarrow

        rows, free = sum(self.sizes), free_memory()
        needed = rows * (_ROW_BYTES + _CELL_BYTES * (len(names) + len(self._read)))
        if needed > free:
            raise UserError(
                f"{self.paths[0]} has {rows:,} rows and {len(self._names):,} columns, {needed / 2**30:.0f} GiB in "
                f"memory, where {free / 2**30:.0f} GiB are free: name the columns that matter, or give fewer rows"
            )
        for start in range(0, len(names), _BLOCK):
            block = names[start : start + _BLOCK]
            parts = [self._part(index, block) for index in range(len(self._files))]
            for name in block:
                self._read[name] = stacked([part[name] for part in parts])
        pyarrow.default_memory_pool().release_unused()  # which keeps what a column took

    def _part(self, index: int, names: Sequence[str]) -> dict[str, Column]:
        import pyarrow as pa

        path, own, file = self.paths[index], self._own[index], self._files[index]
        texts = {n: own[n] for n in names if own.get(n) in self._texts[index] and n not in self.declared}
        others = [own[name] for name in names if name in own and name not in texts]
        found: dict[str, Column] = {}
        try:
            found |= _read_texts(path, file, texts)
            table = file.read(columns=others, use_threads=len(others) > 1)
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise _unreadable(path, error) from None
        for name in names:
            if name not in own:
                found[name] = Coded(np.zeros(self.sizes[index], np.uint8), [None])
            elif name not in texts:
                found[name] = _arrow_column(table[own[name]], self.declared.get(name), path, name)
        return found

    @staticmethod
    def _opened(path: Path) -> tuple[Any, Any, set[str]]:
        """A file whose texts are read as dictionaries, its schema, and the names of its columns of texts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_metadata(path)
            schema = metadata.schema.to_arrow_schema()
            texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
            return pq.ParquetFile(path, read_dictionary=texts, metadata=metadata), schema, set(texts)
        except (pa.ArrowException, OSError, MemoryError) as error:
            raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> UserError:
    """The error for a file that is not Parquet, or not all of it."""
    why = first_line(error)
    with suppress(OSError):
        if not path.stat().st_size:
            why = "it is empty"
        elif "magic bytes" in why:
            found = foreign_format(path)
            cut = found is not None and found.startswith("it is Parquet")
            why = "its end is missing: copy or download the whole file" if cut else found or described_text(path) or why
    return UserError(f"{path} cannot be read as Parquet: {why}", code="damaged_file")


def free_memory() -> int:
    """Bytes that are free for use by a process of this machine, as far as the system says."""
    return _free_memory() // local_processes()


def _free_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    except (OSError, ValueError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 40


def _declared_classes(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Class names by column, from what Hugging Face writes into the schema of its Parquet files."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, RecursionError, KeyError, TypeError):
        return {}
    return {
        name: list(map(str, feature["names"]))
        for name, feature in (features.items() if isinstance(features, dict) else ())
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _arrow_column(column: Any, classes: Sequence[str] | None, path: Path, name: str) -> Column:
    import pyarrow as pa

    kind = column.type
    if classes is not None:
        return class_names_of(column.to_pylist(), classes, f"{path}, column '{name}'")
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)
    if column.null_count == 0:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.array(column.to_numpy())  # and not a view, so that Arrow's memory can go
        if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
            flat = np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks])
            return flat.reshape(len(column), kind.list_size)
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):  # as Python's they would show digits they do not have
        values = column.to_numpy()
        return [None if gap else value for gap, value in zip(column.is_null().to_pylist(), values, strict=True)]
    cells = column.to_pylist()
    return cells


def _read_texts(path: Path, file: Any, names: Mapping[str, str]) -> dict[str, Column]:
    """Columns of texts by their names in the file; of many rows some thousand at a time."""
    if file.metadata.num_rows < _MANY:
        table = file.read(columns=list(names.values()))
        return {name: _coded(table[own].chunks, len(table)) for name, own in names.items()}
    found: dict[str, Column] = {}
    for name, own in names.items():
        batches = (batch.column(0) for batch in file.iter_batches(batch_size=_FEWER, columns=[own]))
        try:
            found[name] = _coded(batches, file.metadata.num_rows, most=0.5)
        except _ManyTexts:  # ids, say, which would take far more as dictionaries
            found[name] = _packed_texts(path, file.metadata, own)
    return found


class _ManyTexts(Exception):
    """Most texts of a column are different."""


def _coded(batches: Iterable[Any], count: int, most: float = 1) -> Coded:
    """Texts in Arrow's dictionaries, each kept once; raises a _ManyTexts where more than a share of them differ."""
    places: dict[str | None, int] = {}
    codes, start = np.empty(count, dtype=np.int32), 0
    for texts in batches:
        used, of_rows = np.unique(texts.indices.fill_null(-1).to_numpy(), return_inverse=True)
        names = [None] * int((used < 0).sum()) + texts.dictionary.take(used[used >= 0]).to_pylist()
        numbers = np.array([places.setdefault(name, len(places)) for name in names], dtype=np.int32)
        codes[start : start + len(texts)] = numbers[of_rows]
        start += len(texts)
        if len(places) > most * start:
            raise _ManyTexts
    return Coded(codes, list(places))


def _packed_texts(path: Path, metadata: Any, name: str) -> np.ndarray:
    """A column as an array of NumPy's strings, None where there is none."""
    import pyarrow.parquet

    result, start = np.empty(metadata.num_rows, dtype=np.dtypes.StringDType(na_object=None)), 0
    for batch in pyarrow.parquet.ParquetFile(path, metadata=metadata).iter_batches(batch_size=_FEWER, columns=[name]):
        result[start : start + len(batch)] = batch.column(0).to_pylist()
        start += len(batch)
    return result
