"""Samples beyond memory: a folder of Parquet shards, on a disk or in an object store, with an index of its rows.

The folder holds ``shards.json`` (the form of samples, classes, files), ``index.arrow`` (id, key, split, group and label
codes of every row, memory-mapped) and the shards, which are ordinary Parquet files. A shard is read by windows, its row
groups, of which the last few are kept. In place of shards a folder on a disk may hold one Lance data set, which is read
row by row.

Parquet rows lie mixed, in the order of their keys: data often come class by class, and then the few windows that an
epoch mixes would hold few classes. Where memory holds all samples they are put in their own order again.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import quote

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from regrain.data.cache import cache_folder
from regrain.data.columns import free_name
from regrain.data.dataset import Dataset
from regrain.data.images import ImageForm, as_png, decode_images
from regrain.data.packed import packed
from regrain.data.samples import ImageSamples, Modality, Samples, SeriesSamples, TensorSamples, TextSamples
from regrain.errors import UserError, first_line, nearest
from regrain.labels import Labels
from regrain.registry import is_url
from regrain.storage.files import replace_file
from regrain.storage.run_folder import labels_from_json, labels_to_json

_NOTE, _INDEX, _LANCE = "shards.json", "index.arrow", "samples.lance"
_SHARD_BYTES, _WINDOW_BYTES = 256 << 20, 8 << 20
_LOADED_BYTES = 2 << 30
"""Samples of so many bytes at most are read into memory at once; more are read window by window."""

POOL = 16
"""Windows that an epoch mixes with each other; a process keeps as many."""


Format = Literal["parquet", "lance"]
"""Of shards: Parquet is read by windows and by other programs, Lance row by row and thus in any order."""


def is_sharded(source: object) -> bool:
    """Whether a path or an address is a folder of shards."""
    if is_url(source):
        with reaching(str(source)):
            system, root = _place(str(source))
            return bool(system.exists(f"{root}/{_NOTE}"))
    return isinstance(source, str | os.PathLike) and os.path.isfile(os.path.join(os.path.expanduser(source), _NOTE))


@dataclass(frozen=True)
class ShardSamples:
    """Samples in a folder of shards, read when they are taken."""

    place: str
    """Path or address of the folder."""
    about: Mapping[str, Any] = field(repr=False)
    """Content of ``shards.json``."""
    rows: Tensor = field(repr=False)
    """LongTensor (N,): positions among all rows of the shards, in the order of the files."""
    form: ImageForm | None = None
    """How images are handed on."""

    in_memory = False
    forks = True
    """Whether a process that was forked from one that has read them can read on."""

    @property
    def modality(self) -> Modality:
        modality: Modality = self.about["modality"]
        return modality

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.about["shape"]) if self.form is None else self.form.shape

    @property
    def static_width(self) -> int:
        """S, the number of static features of series."""
        return int(self.about["static_width"])

    @property
    def windows(self) -> Tensor | None:
        """LongTensor (N,): the window that each sample is read with, numbered over all files; None without windows."""
        file, inside = self._located(self.rows)
        counts = torch.tensor([-(-file["rows"] // self.about["window"]) for file in self.about["files"]])
        return (counts.cumsum(0) - counts)[file] + inside // self.about["window"]

    def _located(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The file of each row, and the row's place in it."""
        counts = torch.tensor([file["rows"] for file in self.about["files"]])
        file = torch.searchsorted(counts.cumsum(0), rows, right=True)
        return file, rows - (counts.cumsum(0) - counts)[file]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Tensor) -> Any:
        rows = self.rows[index]
        found = self._values(rows) if self.modality in ("vector", "series") else None
        if found is None:
            cells = self._cells(rows)
            return cells if self.form is None else self._decoded(cells, rows, self.form)
        if self.modality == "vector":
            return found
        series = found[:, : math.prod(self.shape)].view(len(rows), *self.shape)
        return {"series": series, "static": found[:, -self.static_width :]} if self.static_width else series

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*self.about["columns"], *self.about["static_columns"])

    def _values(self, rows: Tensor) -> Tensor:
        """The numbers of rows: (B, width) float32."""
        values = torch.empty(len(rows), math.prod(self.shape) + self.static_width)
        for places, found, inside in self._read(rows):
            values[places] = torch.from_numpy(found[inside.numpy()])
        return values

    def _cells(self, rows: Tensor) -> list[Any]:
        """The texts of rows, or the bytes of their images."""
        cells: list[Any] = [None] * len(rows)
        for places, found, inside in self._read(rows):
            for place, row in zip(places.tolist(), inside.tolist(), strict=True):
                cells[place] = found[row]
        return cells

    def _read(self, rows: Tensor) -> Iterator[tuple[Tensor, Any, Tensor]]:
        """For every window of rows: their places among them, the window, and their places in that."""
        file, inside = self._located(rows)
        window = inside // self.about["window"]
        for number, group in torch.stack([file, window], dim=1).unique(dim=0).tolist():
            places = ((file == number) & (window == group)).nonzero()[:, 0]
            name = self.about["files"][number]["name"]
            numbers = self.modality in ("vector", "series")
            found = _window(os.getpid(), self.place, name, group, self._columns, numbers)
            yield places, found, inside[places] - group * self.about["window"]

    def _decoded(self, contents: list[bytes], rows: Tensor, form: ImageForm) -> Tensor:
        images, failures = decode_images(contents, form)
        for place, reason in failures.items():
            file, inside = self._located(rows[place : place + 1])
            name = self.about["files"][int(file)]["name"]
            raise UserError(f"{self.place}/{name}: the image of row {int(inside)} {reason}", code="damaged_file")
        return torch.from_numpy(images)

    def select(self, index: Tensor) -> ShardSamples:
        return replace(self, rows=self.rows[index])

    def stored_as(self, form: ImageForm) -> ShardSamples:
        """The same images in another form."""
        return replace(self, form=form)

    def digest(self) -> str:
        content = hashlib.blake2b(f"{self.about['digest']}{self.form}".encode(), digest_size=16)
        content.update(self.rows.numpy().tobytes())
        return content.hexdigest()

    def load(self) -> Samples:
        """All samples in memory, read in the order of the files."""
        blocks = ((block, self.take(block)) for block in self.rows.argsort().split(self.about["window"]))
        if self.modality == "text":
            texts = [""] * len(self)
            for places, found in blocks:
                for place, text in zip(places.tolist(), found, strict=True):
                    texts[place] = text
            return TextSamples(tuple(texts))
        held: dict[str, Tensor] = {}
        for places, found in blocks:
            for name, values in (found if isinstance(found, dict) else {"values": found}).items():
                held.setdefault(name, values.new_empty(len(self), *values.shape[1:]))[places] = values
        return SeriesSamples(**held) if "static" in held else TensorSamples(held["values"], self.modality)


class LanceSamples(ShardSamples):
    """Samples in a Lance data set, which are read in any order."""

    forks = False  # of Lance's threads

    @property
    def windows(self) -> None:
        """Without windows, an epoch draws the rows in the order of samples in memory."""
        return None

    def _values(self, rows: Tensor) -> Tensor:
        table = self._table(rows)
        values = [_numbers(table[name]) for name in self._columns]
        return torch.from_numpy(np.column_stack(values).astype(np.float32, copy=False))

    def _cells(self, rows: Tensor) -> list[Any]:
        cells: list[Any] = self._table(rows)[self._columns[0]].to_pylist()
        return cells

    def _table(self, rows: Tensor) -> Any:
        place = f"{_place(self.place)[1]}/{_LANCE}"
        try:
            return _lance_dataset(os.getpid(), place).take(rows.tolist(), columns=list(self._columns))
        except (OSError, ValueError) as error:
            raise UserError(f"{place} cannot be read: {first_line(error)}", code="damaged_file") from None


@functools.lru_cache(maxsize=16)
def _lance_dataset(process: int, place: str) -> Any:
    return _lance().dataset(place)


def _lance() -> Any:
    try:
        import lance
    except ImportError:
        raise UserError(
            "shards of the format lance need a package: pip install 'regrain[lance]'", code="missing_package"
        ) from None
    return lance


@functools.lru_cache(maxsize=2 * POOL)
def _window(process: int, place: str, file: str, group: int, columns: tuple[str, ...], numbers: bool) -> Any:
    """The cells of a window, or its numbers (rows, width) float32; every process reads its own."""
    table = _file(process, place, file).read_row_group(group, columns=list(columns))
    if not numbers:
        return table[columns[0]].to_pylist()
    return np.column_stack([_numbers(table[name]) for name in columns]).astype(np.float32, copy=False)


def _numbers(column: Any) -> np.ndarray:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy())
    flat = np.concatenate([np.asarray(chunk.flatten()) for chunk in column.chunks])
    return flat.reshape(-1, column.type.list_size)


@functools.lru_cache(maxsize=256)
def _file(process: int, place: str, file: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet

    system, root = _place(place)
    try:
        return pyarrow.parquet.ParquetFile(system.open(f"{root}/{file}", "rb") if is_url(place) else f"{root}/{file}")
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{place}/{file} cannot be read: {first_line(error)}", code="damaged_file") from None


def _place(place: str) -> tuple[Any, str]:
    """The file system of a path or an address, and the path in it."""
    import fsspec

    if not is_url(place):
        return fsspec.filesystem("file"), str(Path(place).expanduser().absolute())
    try:
        system, root = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise UserError(f"{place} cannot be reached: {error}", code="missing_package") from None
    return system, root.rstrip("/")


@contextmanager
def reaching(place: str) -> Iterator[None]:
    """Within it, what the client of an object store raises becomes a UserError; every store has errors of its own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not is_url(place):
            raise
        why = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"{place} cannot be reached: {type(error).__name__}{f', {why}' if why else ''}", code="not_reachable"
        ) from error


def write_shards(
    dataset: Dataset,
    out: str | Path,
    *,
    format: Format = "parquet",
    shard_rows: int | None = None,
    window: int | None = None,
) -> list[str]:
    """Write a data set as shards, split by split; gives the names of the files.

    Parameters
    ----------
    out : path or address
        Of the folder, which holds no shards yet.
    format : {"parquet", "lance"}
    shard_rows, window : int, optional
        Rows of a shard, and of a window of it; default such that they are of about 256 MB and 8 MB.
    """
    if format not in get_args(Format):
        raise UserError(f"no format '{format}': {nearest(str(format), get_args(Format))}", code="unknown_name")
    if format == "lance":
        _lance()
        if is_url(out):
            raise UserError(f"{out} is in an object store, where shards are read by windows: leave out --format lance")
    system, root = _place(str(out))
    system.makedirs(root, exist_ok=True)
    a_row = _bytes_a_row(dataset)
    shard_rows = shard_rows or max(1, _SHARD_BYTES // a_row)
    window = min(shard_rows, window or max(1, _WINDOW_BYTES // a_row))
    names = _names(dataset)
    content = hashlib.blake2b(digest_size=16)
    parts = list(dataset.by_split().items())
    orders = [_order(part, format) for _, part in parts]

    def windows(split: str, part: Dataset, rows: Tensor) -> Iterator[Any]:
        for block in rows.split(window):
            yield _table(part.select(block), split, names, content)

    if format == "lance":
        ordered = zip(parts, orders, strict=True)
        tables = (table for (split, part), order in ordered for table in windows(split, part, order))
        _write_lance(tables, f"{root}/{_LANCE}", shard_rows)
        files: list[dict[str, Any]] = [{"name": _LANCE, "rows": len(dataset)}]
    else:
        files = []
        for (split, part), order in zip(parts, orders, strict=True):
            total = math.ceil(len(part) / shard_rows)
            for number, rows in enumerate(order.split(shard_rows) if total else ()):
                name = f"{quote(split, safe='') or 'data'}-{number:05d}-of-{total:05d}.parquet"
                files.append({"name": name, "rows": len(rows)})
                with system.open(f"{root}/{name}", "wb") as stream:
                    _write_parquet(windows(split, part, rows), stream, window)
    with system.open(f"{root}/{_INDEX}", "wb") as stream:
        _write_index([part for _, part in parts], orders, stream)
    form = _encoded(dataset.samples)
    about = {
        "schema": 1,
        "format": format,
        "name": dataset.name,
        "modality": dataset.modality,
        "shape": list(dataset.samples.shape),
        "form": None if dataset.modality != "image" else [list(dataset.samples.shape), form.white if form else 65535],
        "columns": names["columns"],
        "static_columns": names["static_columns"],
        "static_width": getattr(dataset.samples, "static_width", 0),
        "labels": labels_to_json(dataset.labels),
        "splits": None if dataset.splits is None else [split for split, _ in parts],
        "groups": dataset.groups is not None,
        "files": files,
        "window": window,
        "bytes": a_row * len(dataset),
        "digest": content.hexdigest(),
        "notes": {k: v for k, v in dataset.notes.items() if k in _KEPT_NOTES},
    }
    with system.open(f"{root}/{_NOTE}", "wb") as stream:
        stream.write(json.dumps(about, ensure_ascii=False, indent=1).encode())
    return [file["name"] for file in files]


def _order(part: Dataset, format: Format) -> Tensor:
    """The order in which a split's rows are written: mixed, where training reads them window by window.

    A subject's rows stay in the order of time; and shards are read fast in their own order alone.
    """
    mixes = format == "parquet" and part.groups is None and not isinstance(part.samples, ShardSamples)
    return part.keys.argsort(stable=True) if mixes else torch.arange(len(part))


def _write_parquet(tables: Iterator[Any], stream: Any, window: int) -> None:
    import pyarrow.parquet

    first = next(tables)
    with pyarrow.parquet.ParquetWriter(stream, first.schema, compression="zstd") as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table, row_group_size=window)


def _write_lance(tables: Iterator[Any], place: str, shard_rows: int) -> None:
    import pyarrow as pa

    first = next(tables)
    batches = (batch for table in itertools.chain([first], tables) for batch in table.to_batches())
    reader = pa.RecordBatchReader.from_batches(first.schema, batches)
    _lance().write_dataset(reader, place, max_rows_per_file=shard_rows)


_KEPT_NOTES = ("columns", "static_columns", "notations", "white", "views", "source", "licence")


def _encoded(samples: Samples) -> ImageSamples | None:
    """The encoded images that samples are, or were decoded from."""
    return samples if isinstance(samples, ImageSamples) else getattr(samples, "encoded", None)


def _bytes_a_row(dataset: Dataset) -> int:
    """About how many bytes a sample takes in a shard, by the first few."""
    few = dataset.select(range(min(len(dataset), 64)))
    contents = _contents(few)
    sizes = [sum(len(cell) if isinstance(cell, str | bytes) else cell.nbytes for cell in row) for row in contents]
    return max(1, sum(sizes) // max(1, len(sizes)))


def _contents(part: Dataset) -> list[tuple[Any, ...]]:
    """The cells of every sample: the bytes of an image, a text, or numbers."""
    encoded, every = _encoded(part.samples), torch.arange(len(part))
    if encoded is not None:
        return [(s if isinstance(s, bytes) else Path(s).read_bytes(),) for s in encoded.sources]
    taken = part.samples.take(every)
    if part.modality == "text":
        return [(text,) for text in taken]
    if part.modality == "image":
        return [(as_png(pixels),) for pixels in taken.numpy()]
    tensors = list(taken.values()) if isinstance(taken, dict) else [taken]
    return list(zip(*(tensor.flatten(1).numpy() for tensor in tensors), strict=True))


def _names(dataset: Dataset) -> dict[str, Any]:
    """Names of the columns of samples, id, split and group, none of which is that of a level."""
    taken = set(dataset.labels.levels)

    def free(name: str) -> str:
        name = free_name(name, taken)
        taken.add(name)
        return name

    kind = {"image": "image", "text": "text", "vector": "vector", "series": "series"}[dataset.modality]
    named = dataset.notes.get("columns") if dataset.modality == "vector" else None
    static = ["static"] if getattr(dataset.samples, "static_width", 0) else []
    return {
        "columns": [free(str(name)) for name in named] if named else [free(kind)],
        "static_columns": [free(name) for name in static],
        **{name: free(name) for name in ("id", "split", "group")},
    }


def _table(part: Dataset, split: str, names: Mapping[str, Any], content: Any) -> Any:
    """The rows of a window, whose content is added to a hash."""
    import pyarrow as pa

    columns: dict[str, Any] = {names["id"]: pa.array(part.ids.tolist(), pa.string())}
    if part.splits is not None:
        columns[names["split"]] = pa.array([split] * len(part), pa.string())
    if part.groups is not None:
        columns[names["group"]] = pa.array(part.groups.tolist(), pa.string())
    for level, classes in zip(part.labels.levels, part.labels.classes, strict=True):
        codes = part.labels.level(level).tolist()
        columns[level] = pa.array([None if code < 0 else classes[code] for code in codes], pa.string())
    cells = list(zip(*_contents(part), strict=True))
    for column in cells:
        for cell in column:
            text = cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else cell
            content.update(text if isinstance(text, bytes) else text.tobytes())
    if part.modality == "vector" and len(names["columns"]) > 1:
        values = np.stack(cells[0])
        columns |= {name: pa.array(values[:, place]) for place, name in enumerate(names["columns"])}
        return pa.table(columns)
    for name, column in zip((*names["columns"], *names["static_columns"]), cells, strict=True):
        if isinstance(column[0], str):
            columns[name] = pa.array(column, pa.large_string())
        elif isinstance(column[0], bytes):
            columns[name] = pa.array(column, pa.large_binary())
        else:
            values = np.stack(column).astype(np.float32)
            columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    return pa.table(columns)


def _write_index(parts: Sequence[Dataset], orders: Sequence[Tensor], stream: Any) -> None:
    import pyarrow as pa

    index = pa.concat_tables(
        [_index(part, n, order) for n, (part, order) in enumerate(zip(parts, orders, strict=True))]
    )
    with pa.ipc.new_file(stream, index.schema) as writer:
        writer.write_table(index)


def _index(part: Dataset, split: int, order: Tensor) -> Any:
    """Of a split's rows in the order in which they are written; ``place`` is a row's place in the data's own order."""
    import pyarrow as pa

    ids = pa.array(part.ids.tolist(), pa.large_string())
    columns: dict[str, Any] = {"id": ids, "key": pa.array(part.keys.numpy())}
    columns["split"] = pa.array(np.full(len(part), split, dtype=np.int32))
    if part.groups is not None:
        columns["group"] = pa.array(part.groups.tolist(), pa.large_string())
    for place in range(len(part.labels.levels)):
        columns[f"code {place}"] = pa.array(part.labels.codes[:, place].numpy().astype(np.int32))
        source = part.labels.source
        filled = np.zeros(len(part), np.uint8) if source is None else source[:, place].numpy()
        columns[f"source {place}"] = pa.array(filled)
    columns["place"] = pa.array(np.arange(len(part)))
    return pa.table(columns).take(pa.array(order.numpy()))


def read_shards(
    source: str | Path,
    *,
    levels: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    name: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    white: int | None = None,
    cache: bool = False,
    skip_unreadable: bool = False,
) -> Dataset:
    """The data set in a folder of shards: in memory if its samples are few, else read when they are taken.

    In memory the samples are in the order of the data that were written, else in the order of the files.

    Parameters
    ----------
    source : path or address
    levels : sequence of str, optional
        Those to read; default all.
    splits, name, image_size, channels, white
        See :mod:`regrain.data.options`.
    cache, skip_unreadable
        Without effect: shards are what was read.

    Raises
    ------
    UserError
        If a file is missing or damaged, or there is no such level or split.
    """
    place = str(source)
    system, root = _place(place)
    try:
        about = json.loads(system.cat_file(f"{root}/{_NOTE}"))
        if about["schema"] != 1:
            raise UserError(f"{place}/{_NOTE} was written by a newer version", code="damaged_file")
        empty = labels_from_json(about["labels"], f"{place}/{_NOTE}")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{place}/{_NOTE} cannot be read: {error}", code="damaged_file") from None
    index = _mapped_index(system, root, place, about)
    count = sum(file["rows"] for file in about["files"])
    if index.num_rows != count:
        raise UserError(f"{place}: its index has {index.num_rows} rows, and its shards {count}", code="damaged_file")
    places = range(len(empty.levels))
    codes = torch.empty(count, len(empty.levels), dtype=torch.long)
    filled = torch.empty(count, len(empty.levels), dtype=torch.uint8)
    for level in places:
        codes[:, level] = torch.from_numpy(index[f"code {level}"].to_numpy().copy())
        filled[:, level] = torch.from_numpy(index[f"source {level}"].to_numpy().copy())
    ids = _packed(index["id"])
    form = None
    if about["form"] is not None:
        (stored_channels, *size), stored_white = about["form"]
        side = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size or size)
        form = ImageForm((channels or stored_channels, *side), white or stored_white)
    kind = LanceSamples if about.get("format") == "lance" else ShardSamples
    if kind is LanceSamples:
        _lance()
    samples: Samples = kind(place, about, torch.arange(count), form)
    dataset = Dataset(
        samples,
        Labels(codes, empty.levels, empty.classes, empty.taxonomy, filled),
        ids,
        name or about["name"],
        None if about["splits"] is None else packed(about["splits"])[index["split"].to_numpy()],
        _packed(index["group"]) if about["groups"] else None,
        {**about["notes"], "source": place, "messages": []},
        (ids, torch.from_numpy(index["key"].to_numpy().copy())),
    )
    if splits is not None:
        for split in splits:
            dataset.split(split)
        dataset = dataset.select(np.isin(np.asarray(dataset.splits), packed(list(splits))))
    if levels is not None:
        dataset = dataset.with_levels(levels)
    few = about["bytes"] <= _LOADED_BYTES if form is None else form.fits_memory(len(dataset))
    if not few or not isinstance(dataset.samples, ShardSamples):
        return dataset
    rows = dataset.samples.rows.numpy()
    order = torch.from_numpy(np.lexsort((index["place"].to_numpy()[rows], index["split"].to_numpy()[rows])))
    return replace(dataset.select(order), samples=dataset.samples.select(order).load())


def _packed(column: Any) -> np.ndarray:
    """Texts of an index, some thousands at a time."""
    starts = range(0, len(column), 65536)
    return np.concatenate([packed([])] + [packed(column.slice(start, 65536).to_pylist()) for start in starts])


def _mapped_index(system: Any, root: str, place: str, about: Mapping[str, Any]) -> Any:
    """The index as a memory map; of an object store a copy is kept in the cache, once a machine."""
    import pyarrow as pa

    file = Path(f"{root}/{_INDEX}")
    if is_url(place):
        key = hashlib.blake2b((place + about["digest"]).encode(), digest_size=16).hexdigest()
        file = cache_folder() / f"{key}.arrow"
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            if not file.exists():
                replace_file(file, lambda copy: copy.write_bytes(system.cat_file(f"{root}/{_INDEX}")))
    try:
        with pa.memory_map(str(file)) as mapped:
            return pa.ipc.open_file(mapped).read_all()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{place}/{_INDEX} cannot be read: {error}", code="damaged_file") from None
