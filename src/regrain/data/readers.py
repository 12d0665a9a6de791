"""Data sets from folders, tables, arrays and Hugging Face data sets.

:func:`read` takes anything and finds the reader. What a reader has to tell the user is in the data set's
``notes["messages"]``, a list of sentences: which columns were guessed, what was left out, how large images are kept.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch

from regrain.data.cells import (
    as_matrix,
    is_split,
    label_names,
    missing,
    numbered,
    numbers_of,
    path_columns,
    spelled,
    split_name,
)
from regrain.data.dataset import Dataset
from regrain.data.formats import (
    TABLE_SUFFIXES,
    columns_table,
    file_table,
    frame_table,
    huggingface_table,
    is_frame,
    parquet_table,
)
from regrain.data.options import ArrayOptions, FolderOptions, ParquetFolderOptions, RoleOptions, TableOptions
from regrain.data.rows import RowError, Rows, examples, missing_message, separate
from regrain.data.samples import ImageSamples, Modality, SeriesSamples, TensorSamples, TextSamples
from regrain.data.table import Table
from regrain.data.walk import Walk, image_suffixes, opens_as_image, walk
from regrain.errors import Notable, RegrainWarning, UserError, nearest
from regrain.labels import Labels, Relation
from regrain.registry import catalogue_of, no_source
from regrain.spelling import readable

_LOOKED_FOR = "files ending in .jpg, .jpeg, .png, .tif, .webp or another way that Pillow reads"
_SNIFFED = 100


def read(source: Any, **options: Any) -> Dataset:
    """The data set in anything that holds one.

    Parameters
    ----------
    source
        A :class:`Dataset` (returned as it is), a data set's name (``regrain datasets`` lists them), a path
        to a folder tree of images (:func:`read_folder`), to a folder of Parquet splits (:func:`read_parquet_folder`) or
        to a table file (:func:`read_table`), a DataFrame, an array or a list (:func:`read_arrays`), a Hugging Face data
        set (:func:`read_huggingface`).
    options
        Those of the reader that fits.

    Raises
    ------
    UserError
        If there is no such thing (the nearest name of the catalogue is given), for an option that the reader does not
        have, and for what is wrong with the data.

    Examples
    --------
    >>> digits = read("digits")
    >>> digits.modality, digits.labels.counts, digits.split_names
    ('image', {'group': 3, 'digit': 10}, ('train', 'test'))
    >>> read("digitz")
    Traceback (most recent call last):
    ...
    regrain.errors.UserError: no file, folder or data set 'digitz': did you mean 'digits'?
    """
    if isinstance(source, Dataset):
        _require_known(options, {}, "a data set that has been read")
        return source
    rows, storage = find_rows(source, **options)
    return rows.dataset(**storage)


def read_folder(path: str | Path, **options: Unpack[FolderOptions]) -> Dataset:
    """Images in a tree of folders, ``super/sub/.../image.jpg``, of any depth.

    A class is its whole path, so ``a/other`` is not ``b/other``. Top-level folders called train, val (valid,
    validation, dev) and test, and nothing else there, are splits. Ids are paths relative to the folder; a byte of a
    name that is not UTF-8 is spelled ``\\xe9``. Links are followed (:func:`regrain.data.walk.walk`). Passed over, and
    listed in ``notes["passed_over"]``, are files that do not end as images do, hidden ones, and those of systems.

    Parameters
    ----------
    path : path of the folder
    levels : sequence of str, optional
        Names of the levels, coarse to fine; default level1, level2, ..., or label when there is one. ``[]``: no labels.
    name : str, optional
    image_size, channels, white, skip_unreadable, cache
        See :class:`~regrain.data.options.StorageOptions`.

    Raises
    ------
    UserError
        If there are no images, naming what was looked for and what is there; for images that cannot be decoded.
    """
    return _read(rows_from_folder, path, options)


def read_table(source: str | Path | Any, **options: Unpack[TableOptions]) -> Dataset:
    """A table with one row per sample, or per time step: CSV, TSV, Parquet, JSON, a DataFrame, or columns in a mapping.

    Columns are named or guessed; guesses are in ``notes["messages"]``. The same table gives the same data set in every
    format: numbers and classes mean the same however they are written, and ids keep their spelling. Only empty cells
    and ``nan`` are unknown labels, so that a class called ``NA`` or ``None`` survives.

    Parameters
    ----------
    source : path, DataFrame, mapping of column names to arrays, or Table
    image, text, columns, series_shape, levels, label_paths, relation, unknown, name
    split_column, group_column, id_column
    record, time, window, stride, gap, static
        See :class:`~regrain.data.options.TableOptions`.
    image_size, channels, white, skip_unreadable, cache
        See :class:`~regrain.data.options.StorageOptions`.

    Raises
    ------
    UserError
        For a column that does not exist, naming the nearest; for rows that cannot be used, by the line of the file; for
        repeated ids, and for labels that do not nest.

    Examples
    --------
    >>> import pandas as pd
    >>> table = pd.DataFrame({"text": ["hi there", "bye now", "go left"], "kind": ["talk", "talk", "way"]})
    >>> data = read_table(table, levels=["kind"])
    >>> data.samples.texts[1], data.labels.classes, data.notes["messages"]
    ('bye now', (('talk', 'way'),), ["texts: column 'text' (guessed)"])

    One row a time step: two patients, three and two sessions each, cut into windows of two sessions.

    >>> sessions = pd.DataFrame({"patient": ["p", "p", "p", "q", "q"], "pulse": [61, 70, 64, 88, 90],
    ...     "age": [50, 50, 50, 71, 71], "event": ["no", "no", "yes", "no", "no"]})
    >>> data = read_table(sessions, record="patient", window=2, stride=1, static=["age"], levels=["event"])
    >>> data.samples.shape, data.samples.static_width, data.ids.tolist(), data.groups.tolist()
    ((2, 1), 1, ['p:0', 'p:1', 'q:0'], ['p', 'p', 'q'])
    """
    return _read(_rows_from_table, source, options)


def read_parquet_folder(path: str | Path, **options: Unpack[ParquetFolderOptions]) -> Dataset:
    """A folder of Parquet files, one per split: ``train.parquet``, ``val.parquet``, ``test.parquet``.

    Shards ``train-00000-of-00002.parquet`` are put together; files of other names are read only when ``splits`` names
    them.

    Parameters
    ----------
    path : path of the folder
    splits : sequence of str, optional
        Which files to read, without ``.parquet``.
    other options
        Those of :func:`read_table`.

    Raises
    ------
    UserError
        If the folder has no such file, and as :func:`read_table`.
    """
    return _read(rows_from_parquet_folder, path, options)


def read_arrays(samples: Any, labels: Any = None, **options: Unpack[ArrayOptions]) -> Dataset:
    """Arrays, tensors, a DataFrame of numbers, or a list of texts.

    - uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) are images, C being 1, 3 or 4; where both would do, tensors are
      taken for (N, C, H, W) and NumPy arrays for (N, H, W, C) unless ``layout`` says otherwise. So are uint16 with
      ``modality="image"``, or of four dimensions; ``white`` says which value is white.
    - Other numbers: (N, D) are vectors, (N, T, C) series, in which NaN means missing and beside which ``static``
      (N, S) gives features that do not change in time; four dimensions images in [0, 1], which become uint8 with a
      warning.
    - A list of texts; of paths to image files, when all of them end like images.

    Parameters
    ----------
    samples : array, tensor, DataFrame or list, N long
    labels : optional
        Class numbers or names (N,) or (N, L), a mapping of level to names, a DataFrame, or :class:`Labels`; -1, None
        and NaN mean unknown.
    levels, relation, ids, groups, splits, modality, layout, static, name
        See :class:`~regrain.data.options.ArrayOptions`.
    image_size, channels, white, skip_unreadable, cache
        See :class:`~regrain.data.options.StorageOptions`.

    Raises
    ------
    UserError
        For lengths that differ, giving both; for infinity, and for NaN outside series, by row and column; for shapes
        that are no samples.

    Examples
    --------
    >>> data = read_arrays(np.eye(4), labels={"shape": ["round", "round", "square", None]})
    >>> data.modality, data.labels.codes[:, 0].tolist()
    ('vector', [0, 0, 1, -1])
    >>> read_arrays(np.zeros((4, 10, 3)), [0, 1, 0, 1], static=np.ones((4, 2))).samples.static_width
    2
    """
    return _read(rows_from_arrays, samples, {"labels": labels, **options})


def read_huggingface(dataset: Any, **options: Unpack[TableOptions]) -> Dataset:
    """A Hugging Face ``datasets.Dataset``, or a ``DatasetDict`` whose keys are the splits.

    ClassLabel columns are the levels unless others are named; images are not decoded on the way.

    Parameters
    ----------
    dataset : Dataset or DatasetDict
    other options
        Those of :func:`read_table`.
    """
    return _read(_rows_from_huggingface, dataset, options)


def find_rows(source: Any, **options: Any) -> tuple[Rows, dict[str, Any]]:
    """The rows of anything that :func:`read` takes, and those of the options that say how to store them.

    Raises
    ------
    UserError
        As :func:`read`, but for what is wrong with single rows.
    """
    reader, known, what = _reader(source, options)
    _require_known(options, known, what)
    own, storage = separate(options)
    rows = reader(source, **own)
    if isinstance(source, str) and what.endswith(f" ./{source})"):
        rows = replace(rows, notes={**rows.notes, "messages": [*rows.notes.get("messages", ()), f"read {what}"]})
    return rows, storage


def rows_from_folder(path: str | Path, *, levels: Sequence[str] | None = None, name: str | None = None) -> Rows:
    """The rows of :func:`read_folder`."""
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise UserError(f"no folder {folder}", code="missing_file")
    found = walk(folder)
    if not found.images:
        raise UserError(_no_images(folder, found))
    ids = list(map(_identity, found.images))
    messages: list[str] = []
    parts = [identity.split("/")[:-1] for identity in ids]
    top = {part[0] if part else "" for part in parts}
    splits = None
    if all(map(is_split, top)):
        splits = [split_name(part[0]) for part in parts]
        parts = [part[1:] for part in parts]
    elif any(map(is_split, top)):
        beside = examples(sorted(repr(t) if t else "images" for t in top if not is_split(t)))
        messages.append(
            f"folders like {', '.join(sorted(filter(is_split, top)))} are taken for classes: beside them is {beside}"
        )
    labels = {} if levels is not None and not levels else path_columns(["/".join(part) for part in parts], levels)
    if not labels and levels is None:
        messages.append("the images lie in no folders of classes, so that there are no labels")
    tables = [other for other in found.others if "/" not in other and other.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        messages.append(f"labels come from folders; to take them from {tables[0]}, give the path of that file")
    return Rows(
        where=str(folder),
        name=name or folder.resolve().name,
        modality="image",
        values=[f"{folder}/{image}" for image in found.images],
        labels=labels,
        ids=ids,
        describe_row=ids.__getitem__,
        splits=splits,
        known_errors=tuple(
            RowError("unreadable", -1, _identity(path), why) for path, why in sorted(found.unreadable.items())
        ),
        notes={
            "source": str(folder),
            "ignored_files": len(found.others),
            "passed_over": [*map(_identity, sorted([*found.others, *found.junk, *found.circles]))],
            "messages": [*messages, *_told_of_walk(folder, found)],
        },
    )


def _identity(path: str) -> str:
    """A file's path as its id: spelled so that every file and terminal can hold it; spaces at its ends stay visible."""
    path = readable(path)
    inner = path.strip()
    return path if inner == path else "".join(f"\\x{ord(c):02x}" if c.isspace() else c for c in path)


def _no_images(folder: Path, found: Walk) -> str:
    files = f"{len(found.others)} other files ({_endings(found.others)})" if found.others else "no files at all"
    hidden = f", and {_number_of(found.junk)} hidden or of the system" if found.junk else ""
    unread = f"; {examples(f'{path} {why}' for path, why in found.unreadable.items())}" if found.unreadable else ""
    return f"{folder} holds no images: looked in all its folders for {_LOOKED_FOR}; found {files}{hidden}{unread}"


def _told_of_walk(folder: Path, found: Walk) -> Iterator[str]:
    """Notes on what the user may not expect: files passed over, spellings of names, links that lead elsewhere."""
    spelled_so = [identity for path in found.images if (identity := readable(path)) != path]
    if spelled_so:
        yield f"{_number_of(spelled_so, 'name')} not UTF-8, whose bytes are spelled as in {spelled_so[0]}"
    if found.others:
        hidden = [path for path in found.others[:_SNIFFED] if opens_as_image(f"{folder}/{path}")]
        yield (
            f"{_number_of(found.others)} passed over, not images by their endings: {_endings(found.others)}"
            + (f"; {examples(hidden)} hold images all the same: rename them to be read" if hidden else "")
        )
    if found.junk:
        names = Counter(path.rpartition("/")[2] for path in found.junk)
        shown = examples((f"{name} ({count})" if count > 1 else name for name, count in names.most_common()), 5)
        yield f"{_number_of(found.junk, 'name')} passed over, hidden or of the system: {shown}"
    for links, what in (
        (found.outside, "followed out of the folder"),
        (found.circles, "not followed, to a folder around it or into the system"),
    ):
        if links:
            shown = examples(f"{path} -> {place}" for path, place in sorted(links.items()))
            yield f"{_number_of(list(links), 'link')} {what}: {shown}"


def _endings(files: Sequence[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in Counter(map(_suffix, files)).most_common(5))


def _number_of(things: Sequence[str], noun: str = "file") -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def rows_from_parquet_folder(
    path: str | Path, *, splits: Sequence[str] | None = None, **roles: Unpack[RoleOptions]
) -> Rows:
    """The rows of :func:`read_parquet_folder`."""
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
        rows.notes["messages"].append(f"not read, being no split: {', '.join(unread)}; splits=[...] names what to read")
    return rows


def rows_from_arrays(
    samples: Any,
    *,
    labels: Any = None,
    levels: Sequence[str] | None = None,
    relation: Relation = "tree",
    ids: Sequence[Any] | np.ndarray | None = None,
    groups: Sequence[Any] | np.ndarray | None = None,
    splits: Sequence[Any] | np.ndarray | None = None,
    modality: Modality | None = None,
    layout: Literal["NCHW", "NHWC"] | None = None,
    static: Any = None,
    name: str | None = None,
) -> Rows:
    """The rows of :func:`read_arrays`."""
    messages: list[str] = []
    found, values, wrong = _array_samples(samples, modality, layout, messages)
    features = None if static is None else _array_static(static, found, len(values), wrong)
    if found == "series":
        messages += missing_message(values, features)
    names = _array_labels(labels, levels, messages)
    given = {"ids": ids, "groups": groups, "splits": splits}
    lengths = {key: len(value) for key, value in given.items() if value is not None}
    lengths |= (
        {"labels": len(names)} if isinstance(names, Labels) else {f"labels '{k}'": len(v) for k, v in names.items()}
    )
    for what, length in lengths.items():
        if length != len(values):
            raise UserError(f"there are {len(values)} samples, but {length} {what}")
    texts: dict[str, list[str] | None] = {}
    for key, value in given.items():
        cells = None if value is None else _listed(value)
        gap = next((row for row, cell in enumerate(cells or ()) if missing(cell)), None)
        if gap is not None:
            raise UserError(f"{key} has no value for row {gap} (from 0): every sample needs one")
        texts[key] = None if cells is None else [spelled(cell) for cell in cells]

    def describe_row(row: int) -> str:
        return f"row {row} (from 0)"

    paths = values if found == "image" and isinstance(values, list) and len(set(values)) == len(values) else None
    return Rows(
        where="the array",
        name=name or "data",
        modality=found,
        values=values,
        labels=names,
        ids=texts["ids"] or paths or numbered(len(values)),
        describe_row=describe_row,
        relation=relation,
        splits=None if texts["splits"] is None else list(map(split_name, texts["splits"])),
        groups=texts["groups"],
        known_errors=tuple(RowError("not a number", row, describe_row(row), why) for row, why in sorted(wrong.items())),
        notes={"source": f"an array of {len(values)} samples", "messages": messages},
        static=features,
    )


def _rows_from_table(source: Any, **roles: Unpack[RoleOptions]) -> Rows:
    if isinstance(source, Table):
        return source.rows(**roles)
    if is_frame(source):
        return frame_table(source).rows(**roles)
    table = columns_table(source) if isinstance(source, Mapping) else file_table(_existing(source))
    return table.rows(**roles)


def _rows_from_huggingface(source: Any, **roles: Unpack[RoleOptions]) -> Rows:
    return huggingface_table(source).rows(**roles)


def _rows_from_dataset(source: Dataset) -> Rows:
    samples = source.samples
    values: Any
    static = samples.static if isinstance(samples, SeriesSamples) else None
    if isinstance(samples, TensorSamples):
        values = samples.tensor.cpu().numpy()
    elif isinstance(samples, SeriesSamples):
        values = samples.series.cpu().numpy()
    elif isinstance(samples, TextSamples):
        values = samples.texts
    elif isinstance(samples, ImageSamples):
        values = samples.sources
    else:
        values = samples.take(torch.arange(len(samples))).numpy()
    return Rows(
        where=source.name,
        name=source.name,
        modality=source.modality,
        values=values,
        labels=source.labels,
        ids=list(map(str, source.ids)),
        describe_row=lambda row: f"sample '{source.ids[row]}'",
        splits=None if source.splits is None else list(source.splits),
        groups=None if source.groups is None else list(source.groups),
        notes=source.notes,
        static=None if static is None else static.cpu().numpy(),
    )


def _reader(source: Any, options: Mapping[str, Any]) -> tuple[Callable[..., Rows], Mapping[str, Any], str]:
    """The reader for a source, the options it knows, and what the source is."""
    if isinstance(source, Dataset):
        return _rows_from_dataset, {}, "a data set that has been read"
    if isinstance(source, str | os.PathLike):
        catalogue = catalogue_of(str(source))
        if catalogue is not None:
            return catalogue.rows, catalogue.CatalogOptions.__annotations__, named_twice(source)
        path = Path(os.path.expanduser(source))
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise no_source(str(source)) from None
        except (OSError, ValueError) as error:  # a closed folder above it, a name too long, a NUL character
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{source} cannot be reached ({reason})") from None
        if path.is_file():
            return _rows_from_table, TableOptions.__annotations__, "a table"
        if path.is_dir() and parquet_files(path):
            return rows_from_parquet_folder, ParquetFolderOptions.__annotations__, "a folder of Parquet files"
        if path.is_dir():
            return rows_from_folder, FolderOptions.__annotations__, "a folder of images"
        raise UserError(f"{source} is neither a file nor a folder", code="missing_file")
    if is_huggingface(source):
        return _rows_from_huggingface, TableOptions.__annotations__, "a Hugging Face data set"
    if (is_frame(source) or isinstance(source, Table | Mapping)) and options.get("labels") is None:
        return _rows_from_table, TableOptions.__annotations__, "a table"
    return rows_from_arrays, {"labels": Any, **ArrayOptions.__annotations__}, "an array"


def options_of(source: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options that the reader of a source knows, by name; none for a :class:`Dataset`.

    Options that are ``given`` may decide which reader it is: a DataFrame beside ``labels`` holds numbers alone.
    """
    return _reader(source, given)[1]


def is_huggingface(source: Any) -> bool:
    """Whether a source is a data set of Hugging Face's ``datasets``, or several by split."""
    first = next(iter(source.values()), None) if isinstance(source, Mapping) else source
    return hasattr(first, "features") and hasattr(first, "column_names")


def _read(reader: Callable[..., Rows], source: Any, options: Mapping[str, Any]) -> Dataset:
    own, storage = separate(options)
    return reader(source, **own).dataset(**storage)


def named_twice(source: Any) -> str:
    """A data set in words; both where a path here has the name of a data set of the catalogue."""
    if not isinstance(source, str | os.PathLike) or catalogue_of(str(source)) is None:
        return "these data"
    beside = f" (what has that name in this folder is ./{source})" if Path(source).exists() else ""
    return f"the catalogue's {source}{beside}"


def _require_known(options: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for option in options:
        if option not in known:
            if not known:
                raise UserError(f"there is no option '{option}' for {what}", code="unknown_option")
            raise UserError(f"reading {what} has no option '{option}': {nearest(option, known)}", code="unknown_option")


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise UserError(f"no file {file}", code="missing_file")
    return file


def _suffix(file: str) -> str:
    return Path(file).suffix.lower() or "without ending"


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


def _listed(values: Any) -> list[Any]:
    """The values one by one; those of NumPy keep their type, as floats of 32 bits have fewer digits."""
    return list(np.asarray(values.detach().cpu()) if isinstance(values, torch.Tensor) else values)


def _array_samples(
    samples: Any, modality: Modality | None, layout: str | None, messages: list[str]
) -> tuple[Modality, Any, dict[int, str]]:
    """Modality, values, and by row what is not a finite number."""
    if is_frame(samples):
        table = frame_table(samples)
        for name in table.columns:
            if table.contents(name).kind not in ("numbers", "booleans"):
                raise UserError(f"the table of samples has column '{name}', which {table.contents(name).reason}")
        return "vector", *as_matrix([(n, numbers_of(c, table.contents(n))) for n, c in table.columns.items()])
    array = _as_array(samples)
    if isinstance(array, list):
        if modality not in (None, "text", "image"):
            raise UserError(
                f"a list of texts holds no {modality} samples: give an array of numbers, or another modality"
            )
        if modality == "image":
            return "image", array, {}
        if all(text.lower().endswith(image_suffixes()) for text in array) and array and modality != "text":
            messages.append(
                Notable(
                    "the texts end like image files and are taken for their paths; modality='text' takes them as texts"
                )
            )
            return "image", array, {}
        return "text", array, {}
    if array.dtype.kind not in "iufb":
        raise UserError(f"an array of samples holds numbers or texts; got {array.dtype} of shape {array.shape}")
    by_dimensions: dict[int, Modality] = {2: "vector", 3: "image" if array.dtype == np.uint8 else "series", 4: "image"}
    found = modality or by_dimensions.get(array.ndim)
    fits = {"vector": (2,), "series": (3,), "image": (3, 4)}.get(str(found), ())
    if found is None or array.ndim not in fits:
        raise UserError(
            f"an array of shape {array.shape} holds no {found or 'known kind of'} samples; expected (N, D) vectors, "
            "(N, T, C) series, (N, H, W), (N, H, W, C) or (N, C, H, W) images, or a list of texts"
        )
    wrong = {}
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        bad = np.isinf(single) if found == "series" else ~np.isfinite(single)
        for row in np.flatnonzero(bad.reshape(len(array), int(np.prod(array.shape[1:]))).any(axis=1)).tolist():
            place = tuple(map(int, np.argwhere(bad[row])[0]))
            wrong[row] = (
                f"holds {array[row][place]} at column {', '.join(map(str, place))}, which is not a finite number"
            )
        array = single
    if found != "image":
        if array.ndim == 3 and modality is None:
            messages.append(
                Notable(
                    f"an array of shape {array.shape} is taken for series (N, time, channels); modality='image' for "
                    "images"
                )
            )
        return found, array.astype(np.float32, copy=False), wrong
    channels_last = isinstance(samples, np.ndarray) if layout is None else layout == "NHWC"
    return "image", _as_images(array, channels_last, layout, wrong), wrong


def _array_static(static: Any, modality: Modality, count: int, wrong: dict[int, str]) -> np.ndarray:
    """Static features (N, S) float32; rows with infinite ones are added to ``wrong``."""
    if modality != "series":
        raise UserError(f"static features belong to series (N, time, channels); the samples are {modality} samples")
    if is_frame(static):
        static = static.to_numpy()
    array = _as_array(static)
    if isinstance(array, list) or array.dtype.kind not in "iufb" or array.ndim != 2:
        got = "texts" if isinstance(array, list) else f"{array.dtype} of shape {array.shape}"
        raise UserError(f"static features are numbers of shape (samples, features); got {got}")
    if len(array) != count:
        raise UserError(f"there are {count} series, but {len(array)} rows of static features")
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    for row, column in np.argwhere(np.isinf(single))[::-1].tolist():
        wrong[row] = f"holds {array[row, column]} at static feature {column}, which is not a finite number"
    return single


def _as_array(samples: Any) -> np.ndarray | list[Any]:
    """An array of numbers, or a list of texts."""
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        return np.asarray(samples.float() if samples.dtype == torch.bfloat16 else samples)
    if isinstance(samples, Sequence) and samples and isinstance(samples[0], str | os.PathLike):
        return ["" if missing(cell) else str(cell) for cell in samples]
    try:
        array = np.asarray(samples)
    except ValueError:
        raise UserError("the samples differ in shape: an array needs rows of one length") from None
    if array.dtype.kind == "U" or (
        array.dtype == object and array.size and all(isinstance(v, str) for v in array.flat)
    ):
        if array.ndim != 1:
            raise UserError(f"texts are a list; got an array of texts of shape {array.shape}")
        texts: list[Any] = array.tolist()
        return texts
    return array


def _as_images(array: np.ndarray, channels_last: bool, layout: str | None, wrong: Mapping[int, str]) -> np.ndarray:
    """uint8 (N, C, H, W), or uint16 as they are."""
    if array.ndim == 3:
        array = array[:, None]
    else:
        first, last = array.shape[1] in (1, 3, 4), array.shape[3] in (1, 3, 4)
        if not (first or last) or (layout is not None and not (last if channels_last else first)):
            raise UserError(
                f"images of shape {array.shape[1:]} have no 1, 3 or 4 channels, neither first (N, C, H, W) nor last "
                "(N, H, W, C)"
                if layout is None
                else f"layout {layout} does not fit images of shape {array.shape[1:]}"
            )
        if last and (channels_last or not first):
            array = array.transpose(0, 3, 1, 2)
    if array.dtype in (np.uint8, np.uint16):
        return np.ascontiguousarray(array)
    kept = np.delete(array, list(wrong), axis=0)
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (0.0, 0.0)
    scale = 1 if array.dtype.kind in "iu" else 255
    if low < 0 or high > 255 / scale:
        raise UserError(
            f"images are whole numbers from 0 to 255, uint16, or floating point from 0 to 1; got {array.dtype} from "
            f"{low:g} to {high:g}"
        )
    if array.dtype.kind == "f":
        warnings.warn("images in floating point were rounded to 8 bits (0 to 255)", RegrainWarning, stacklevel=6)
    return np.ascontiguousarray(np.nan_to_num(array * scale).round().astype(np.uint8))


def _array_labels(labels: Any, levels: Sequence[str] | None, messages: list[str]) -> Labels | dict[str, list[Any]]:
    if labels is None:
        return {}
    if isinstance(labels, Labels):
        return labels
    if isinstance(labels, Mapping):
        columns = {str(level): _listed(values) for level, values in labels.items()}
    elif is_frame(labels):
        columns = {name: _listed(column) for name, column in frame_table(labels).columns.items()}
    else:
        try:
            array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else labels)
        except ValueError:
            raise UserError(
                "labels are one name per sample, or one row of names of the same length per sample"
            ) from None
        if array.dtype.kind == "f" and not np.array_equal(array[~np.isnan(array)], array[~np.isnan(array)].round()):
            raise UserError("labels given as numbers must be whole numbers (class codes); got fractions")
        if array.ndim == 0:
            raise UserError(f"labels are the labels themselves; got {labels!r}. Columns are named by levels=[...]")
        array = array[:, None] if array.ndim == 1 else array
        if array.ndim != 2:
            raise UserError(f"labels have shape {array.shape}; expected (samples,) or (samples, levels)")
        count = array.shape[1]
        names = levels or (["label"] if count == 1 else [f"level{i + 1}" for i in range(count)])
        if len(names) != count:
            raise UserError(f"{len(names)} level names were given ({', '.join(names)}) for {count} levels")
        columns = {name: list(array[:, i]) for i, name in enumerate(names)}
    return {level: label_names(names, (), level, messages) for level, names in columns.items()}
