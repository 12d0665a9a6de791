"""Tables that are expensive to compute, kept in memory-mapped files named after their inputs.

A file holds one array in NumPy's ``.npy`` format. It is written under a temporary name and renamed when it is whole, so
that a killed run never leaves half a table. If several processes need the same table, only one computes it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from regrain.errors import UserError, warn

_STORED = {"uint8": "uint8", "float32": "float32", "float16": "float16", "bfloat16": "int16"}
"""Type of a table -> the one in its file: NumPy knows no bfloat16, whose bits are kept."""


def cache_folder() -> Path:
    """Where cached tables are kept: the environment variable REGRAIN_CACHE, else ``~/.cache/regrain``."""
    try:
        return Path(os.environ.get("REGRAIN_CACHE") or Path.home() / ".cache" / "regrain").expanduser()
    except RuntimeError as error:
        raise UserError(f"the home folder is not known ({error}): set HOME, or REGRAIN_CACHE to a folder") from None


def cached_tensor(
    key: str,
    shape: tuple[int, ...],
    make_batches: Callable[[], Iterable[Tensor | np.ndarray]],
    *,
    dtype: str = "float32",
) -> Tensor:
    """Return the tensor that ``make_batches`` computes, from the cache if it is there.

    Raises a UserError if the folder cannot be written to or the disk is full, and for values that are not finite.
    Raises a ValueError if the batches do not add up to ``shape``.

    Parameters
    ----------
    key : str
        Everything that the content depends on: a data set's fingerprint, weights, options. Hashed into the file's name.
    shape : tuple of int
        Of the whole tensor; the first dimension counts rows.
    make_batches : callable
        Returns consecutive blocks of rows. It is called only when the file is missing or damaged, and by only one
        process on a machine: the others wait and open its file.
    dtype : "uint8", "float32", "float16" or "bfloat16"

    Returns
    -------
    Tensor
        A memory map: pages are read when they are touched. Writing to it changes memory, never the file.

    Examples
    --------
    >>> getfixture("monkeypatch").setenv("REGRAIN_CACHE", str(getfixture("tmp_path")))
    >>> cached_tensor("doctest", (2, 2), lambda: [torch.zeros(1, 2), torch.ones(1, 2)]).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    >>> cached_tensor("doctest", (2, 2), lambda: []).tolist()  # from the file
    [[0.0, 0.0], [1.0, 1.0]]
    """
    if dtype not in _STORED:
        raise ValueError(f"cached tables are {', '.join(_STORED)}; got {dtype}")
    description = f"{key}|{shape}|{dtype}".encode("utf-8", "surrogatepass")
    file = cache_folder() / f"{hashlib.blake2b(description, digest_size=16).hexdigest()}.npy"
    found = _written_at(file)
    table = _open(file, shape, dtype)
    if table is None:
        try:
            with _one_at_a_time(file):
                if _written_at(file) == found:  # else another process has computed it meanwhile
                    _write(file, shape, dtype, make_batches())
        except OSError as error:
            place = str(error.filename or file.parent)
            if not place.startswith(str(file.parent)) and not str(file.parent).startswith(place):
                raise  # not about the cache: a batch could not be read
            raise UserError(
                f"the cache folder {file.parent} cannot be written to ({error.strerror or error}); "
                "set the environment variable REGRAIN_CACHE to a folder that can",
                code="not_writable",
            ) from error
        table = _open(file, shape, dtype)
        assert table is not None
    return torch.from_numpy(table).view(getattr(torch, dtype))


def features(
    key: str, rows: int, width: int, make_batches: Callable[[], Iterable[Tensor]], *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Features (rows, width) of a frozen encoder in the type they are computed in: see :func:`cached_tensor`."""
    return cached_tensor(f"features|{key}", (rows, width), make_batches, dtype=str(dtype).removeprefix("torch."))


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Let only one process compute the file; otherwise all processes of a training would do so at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = file.with_suffix(".lock")
    with FileLock(lock):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps what is open
                lock.unlink()


def _written_at(file: Path) -> int | None:
    """Return the time a file was written, in nanoseconds; None if there is no file."""
    return file.stat().st_mtime_ns if file.exists() else None


def _open(file: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """Read the file's array; return None if there is no file, or, with a warning, if it is damaged."""
    if not file.exists():
        return None
    try:
        # Mode "c" is private and writable: torch warns about arrays that it cannot write to.
        table: np.ndarray = np.load(file, mmap_mode="c", allow_pickle=False)
        if table.shape == shape and table.dtype == np.dtype(_STORED[dtype]):
            return table
        reason = f"it holds {table.dtype} of shape {table.shape}"
    except (OSError, ValueError, EOFError) as error:
        reason = str(error) or type(error).__name__
    warn(f"the cached table {file} is damaged ({reason}) and is computed again")
    return None


def _write(file: Path, shape: tuple[int, ...], dtype: str, batches: Iterable[Tensor | np.ndarray]) -> None:
    """Write the blocks one after the other: a full disk is an error here, where a memory map would kill the process."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f"{file.stem}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stored = np.lib.format.dtype_to_descr(np.dtype(_STORED[dtype]))
            header = {"descr": stored, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            rows = 0
            for batch in batches:
                block = _block(batch, dtype)
                if block.shape[1:] != shape[1:]:
                    raise ValueError(f"a batch has rows of shape {tuple(block.shape[1:])}; expected {shape[1:]}")
                if block.is_floating_point() and not bool(block.isfinite().all()):
                    raise UserError(f"features of rows {rows} to {rows + len(block) - 1} are not all finite numbers")
                stream.write(block.view(torch.uint8).numpy().tobytes())
                rows += len(block)
            if rows != shape[0]:
                raise ValueError(f"the batches hold {rows} rows; expected {shape[0]}")
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _block(batch: Tensor | np.ndarray, dtype: str) -> Tensor:
    block = torch.from_numpy(np.ascontiguousarray(batch)) if isinstance(batch, np.ndarray) else batch.detach()
    return block.to(device="cpu", dtype=getattr(torch, dtype)).contiguous()
