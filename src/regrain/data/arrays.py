"""Samples in memory: arrays, tensors, a DataFrame of numbers, lists of texts or paths."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from regrain.coded import Coded
from regrain.data.cells import as_matrix, label_names, numbered, spelled, split_name
from regrain.data.folder import image_suffixes
from regrain.data.formats import frame_table, is_frame
from regrain.data.rows import RowError, Rows, missing_message
from regrain.data.samples import Modality
from regrain.errors import Notable, UserError, warn
from regrain.labels import Labels, Relation, level_names, missing


def read_arrays(
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
    """Arrays, tensors, a DataFrame of numbers, or a list of texts.

    - uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) are images, C being 1, 3 or 4; where both would do, tensors are
      taken for (N, C, H, W) and NumPy arrays for (N, H, W, C) unless ``layout`` says otherwise. So are uint16 with
      ``modality="image"``, or of four dimensions; ``white`` says which value is white.
    - Other numbers: (N, D) are vectors, (N, T, C) series, in which NaN means missing and next to which ``static``
      (N, S) gives features that do not change in time; four dimensions images in [0, 1], which become uint8 with a
      warning.
    - A list of texts; of paths to image files, when all of them end like images.

    Raises a UserError for lengths that differ, giving both, and for shapes that are not samples.

    Parameters
    ----------
    samples : array, tensor, DataFrame or list, N long
    labels : optional
        Class numbers or names (N,) or (N, L), a mapping of level to names, a DataFrame, or :class:`Labels`; -1, None
        and NaN mean unknown.
    levels, relation, ids, groups, splits, modality, layout, static, name
        See :class:`~regrain.data.options.ArrayOptions`.
    """
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

    files = values if found == "image" and isinstance(values, list) else None
    paths = files if files and len(set(files)) == len(files) else None

    def describe_row(row: int) -> str:
        return f"row {row} (from 0)" + (f", {files[row]}," if files else "")

    return Rows(
        where="the array",
        name=name or "data",
        modality=found,
        values=values,
        labels=names,
        ids=texts["ids"] or paths or numbered(len(values)),
        describe_row=describe_row,
        relation=relation,
        splits=None if texts["splits"] is None else [split_name(name) for name in texts["splits"]],
        groups=texts["groups"],
        known_errors=tuple(RowError("not a number", row, describe_row(row), why) for row, why in sorted(wrong.items())),
        notes={"source": f"an array of {len(values)} samples", "messages": messages},
        static=features,
    )


def _listed(values: Any) -> list[Any]:
    """List the values one by one; NumPy values keep their type, because 32-bit floats have fewer digits."""
    return list(np.asarray(values.detach().cpu()) if isinstance(values, torch.Tensor) else _unmasked(values))


def _unmasked(labels: Any) -> Any:
    """Labels with None in place of those that a mask hides."""
    if not isinstance(labels, np.ma.MaskedArray):
        return labels
    shown = labels.data.astype(object)
    shown[np.ma.getmaskarray(labels)] = None
    return shown


def _array_samples(
    samples: Any, modality: Modality | None, layout: str | None, messages: list[str]
) -> tuple[Modality, Any, dict[int, str]]:
    """Modality, values, and by row what is not a finite number."""
    if is_frame(samples):
        table = frame_table(samples.reset_index(drop=True))
        for name in table.columns:
            if table.contents(name).kind not in ("numbers", "booleans"):
                raise UserError(f"the table of samples has column '{name}', which {table.contents(name).reason}")
        return "vector", *as_matrix(table.numeric(table.columns), count=len(table.columns))
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
        got = f"{array.dtype} of shape {array.shape}" if array.ndim else type(samples).__name__
        raise UserError(f"an array of samples holds numbers or texts; got {got}")
    by_dimensions: dict[int, Modality] = {2: "vector", 3: "image" if array.dtype == np.uint8 else "series", 4: "image"}
    found = modality or by_dimensions.get(array.ndim)
    fits = {"vector": (2,), "series": (3,), "image": (3, 4)}.get(str(found), ())
    if found is None or array.ndim not in fits:
        raise UserError(
            f"an array of shape {array.shape} holds no {found or 'known kind of'} samples; expected (N, D) vectors, "
            "(N, T, C) series, (N, H, W), (N, H, W, C) or (N, C, H, W) images, or a list of texts"
        )
    if 0 in array.shape[1:]:
        raise UserError(f"samples of shape {array.shape[1:]} hold no numbers", code="wrong_shape")
    wrong = {}
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        bad = np.isinf(single) if found == "series" else ~np.isfinite(single)
        for row in np.flatnonzero(bad.reshape(len(array), int(np.prod(array.shape[1:]))).any(axis=1)).tolist():
            place = tuple(map(int, np.argwhere(bad[row])[0]))
            why = "too large for a 32-bit number" if np.isfinite(array[row][place]) else "not a finite number"
            wrong[row] = f"holds {array[row][place]} at column {', '.join(map(str, place))}, which is {why}"
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
    if np.ma.is_masked(samples) and samples.dtype.kind in "iufb":
        if samples.dtype == np.uint8 and samples.ndim > 2:
            raise UserError("images have no missing pixels: fill those that the mask hides", code="not_supported")
        samples = np.ma.filled(samples.astype(np.float64), np.nan)
    if isinstance(samples, Sequence) and len(samples):
        first = next((cell for cell in samples if not missing(cell)), samples[0])
        if isinstance(first, str | os.PathLike):
            return ["" if missing(cell) else str(cell) for cell in samples]
    try:
        array = np.asarray(samples)
    except ValueError:
        raise UserError("the samples differ in shape: an array needs rows of one length") from None
    if array.dtype.kind not in "OUT" or not array.ndim:
        return array
    known = [cell for cell in array.flat if not missing(cell)]
    if array.dtype.kind != "O" or (known and all(isinstance(cell, str) for cell in known)):
        if array.ndim != 1:
            raise UserError(f"texts are a list; got an array of texts of shape {array.shape}")
        return ["" if missing(cell) else str(cell) for cell in array]
    try:
        return array.astype(np.float64)  # numbers that stand in an array of objects, as in a DataFrame's
    except (TypeError, ValueError):
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
        warn("images in floating point were rounded to 8 bits (0 to 255)")
    return np.ascontiguousarray(np.nan_to_num(array * scale).round().astype(np.uint8))


def _array_labels(labels: Any, levels: Sequence[str] | None, messages: list[str]) -> Labels | dict[str, Coded]:
    if labels is None:
        return {}
    if isinstance(labels, Labels):
        return labels
    if isinstance(labels, Mapping):
        columns = {str(level): _listed(values) for level, values in labels.items()}
    elif is_frame(labels):
        columns = {name: _listed(column) for name, column in frame_table(labels.reset_index(drop=True)).columns.items()}
    else:
        try:
            array = np.asarray(labels.detach().cpu() if isinstance(labels, torch.Tensor) else _unmasked(labels))
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
        names = level_names(levels, count)
        columns = {name: list(array[:, i]) for i, name in enumerate(names)}
    return {level: label_names(names, (), level, messages) for level, names in columns.items()}
