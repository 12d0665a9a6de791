"""Files that are read again: written whole or not at all, sealed by checksums, and read by one reader a format.

A folder's ``manifest.json`` lists the size and the BLAKE2b hash of every file that is loaded from it. It is written
before the files are: until a file is in its place, its entry holds what it was as well. So a process that is killed at
any moment leaves a sound folder, and a file that matches nothing in its entry is damaged.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import yaml
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from regrain.errors import UserError
from regrain.spelling import readable

SCHEMA = 1
"""Version of the JSON files written here."""

MANIFEST = "manifest.json"

_LONGEST = 255
"""Bytes of a name in the file systems in use."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A number of a file's form."""


_DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
}
"""Names of types in a safetensors header."""


class _Seal(TypedDict):
    size: int
    blake2b: str


class _Manifest(TypedDict):
    files: dict[str, list[_Seal | None]]


def replace_file(out: Path, write: Callable[[Path], object], *, durable: bool = False) -> None:
    """Let ``write`` write to a temporary file next to ``out``, then rename it; a failure leaves nothing behind.

    Threads and processes that write the same file do not disturb each other: the last rename wins. The file's mode
    follows the umask, whatever ``write`` makes of it. A durable one is on disk before it gets its name.

    Raises a UserError if the file cannot be written, such as on a full disk; the message names it.
    """
    temporary = _temporary(out)
    try:
        _write_to(temporary, out, write, durable=durable)
        try:
            temporary.replace(out)
        except OSError as error:
            raise _not_written(out, error) from error
    finally:
        with suppress(OSError):  # a folder that cannot be written to holds nothing to remove
            temporary.unlink(missing_ok=True)


def _not_written(out: Path, error: OSError) -> UserError:
    return UserError(f"{out} could not be written: {error.strerror or error}", code="not_writable")


def make_folder(path: Path) -> None:
    """Make a folder where there is none; a UserError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_written(path, error) from error


def _require_name(path: Path) -> None:
    """Refuse a path that no file has, or that not every reader of files can open."""
    long = next((name for name in path.parts if len(os.fsencode(name)) > _LONGEST), None)
    why = None if long is None else f"'{long[:20]}...' is longer than {_LONGEST} bytes"
    why = "it holds a NUL character" if "\0" in str(path) else why
    why = "it is not UTF-8" if readable(str(path)) != str(path) else why
    if why is not None:
        raise UserError(f"{readable(str(path))} cannot be the path of a file or folder: {why}")


def require_place(out: Path, advice: str = "choose another --out") -> None:
    """Raise a UserError, before anything is computed, where a file, or files in a folder, could not be written.

    ``out``: the file or the folder, which need not exist yet.
    """
    _require_name(out)
    place = Path(os.path.abspath(out))
    if place.is_file():
        place = place.parent
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise UserError(f"{out} cannot be written: {place} is not a folder; {advice}", code="not_writable")
    if not os.access(place, os.W_OK | os.X_OK):
        what = "" if place == Path(os.path.abspath(out)) else f"{out} cannot be written: "
        raise UserError(f"{what}you may not write into {place}; {advice}", code="not_writable")


def copy_folder(source: Path, target: Path) -> None:
    """Copy files and folders, all of them writable to their owner, as copies of what is read-only are to be."""
    target.mkdir()
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        else:
            replace_file(copy, partial(shutil.copyfile, path))


def _temporary(out: Path) -> Path:
    return hidden_beside(out, f"{os.getpid()}-{secrets.token_hex(4)}.tmp")


def hidden_beside(out: Path, ending: str) -> Path:
    """A path in the folder of ``out``, of its name as far as a name may be long, a dot before it and an ending."""
    return out.with_name(f".{os.fsencode(out.name)[:200].decode('utf-8', 'ignore')}.{ending}")


def is_temporary(name: str) -> bool:
    """Whether the name is that of a temporary file that a killed process left."""
    return name.startswith(".") and name.endswith(".tmp")


def _write_to(temporary: Path, out: Path, write: Callable[[Path], object], *, durable: bool) -> None:
    make_folder(out.parent)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # as the umask has it: some writers make files of their own, for nobody else
        write(temporary)
        temporary.chmod(mode)
        if durable:
            sync(temporary)
    except OSError as error:
        about = {str(name) for name in (error.filename, error.filename2) if name is not None}
        if about and str(temporary) not in about:
            raise  # about a file that was read
        raise _not_written(out, error) from error


def write_text(out: Path, text: str) -> None:
    """Write a text by :func:`replace_file`."""
    replace_file(out, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def save_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file as it is; an OSError where the disk is full."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        save_file(whole, file, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise OSError(str(error)) from error


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(file: Path, form: Any = None) -> dict[str, Any]:
    """The mapping in a JSON file of the project's.

    Raises a UserError if the file is missing, is not JSON, holds something else, numbers that are not finite, or a
    newer schema; the message names the file and the place in it.

    ``form``: the form of the content, such as a TypedDict; keys that it does not name may hold anything.
    """

    def parse(text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_not_finite, parse_float=_finite)
        except ValueError as error:
            raise UserError(f"{file} is damaged: {error}", code="damaged_file") from None

    content = _mapping(file, parse)
    schema = content.get("schema", 0)
    if not isinstance(schema, int):
        raise UserError(f"{file} is damaged: its schema is a whole number; got {schema!r:.60}", code="damaged_file")
    if schema > SCHEMA:
        raise UserError(
            f"{file} has schema {schema}; this regrain reads up to {SCHEMA}: install a newer regrain",
            code="damaged_file",
        )
    if form is not None:
        check_form(content, form, file)
    return content


def _mapping(file: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = parse(_text(file))
    except RecursionError:
        raise UserError(f"{file} is damaged: it is nested too deeply", code="damaged_file") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{file} is damaged: a mapping was expected, and it holds a {type(content).__name__}", code="damaged_file"
        )
    return content


def _not_finite(text: str) -> float:
    raise ValueError(f"{text} is not a finite number")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) < float("inf") else _not_finite(text)


def yaml_fault(error: Exception) -> str:
    """Describe a YAML error in one line; it begins with the line's number if the parser knows it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())


def read_yaml(file: Path, form: Any = None) -> dict[str, Any]:
    """The mapping in a YAML file; ``form`` and errors as of :func:`read_json`."""

    def parse(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: of what looks like a date or number
            raise UserError(f"{file} cannot be read as YAML: {yaml_fault(error)}", code="damaged_file") from None

    content = _mapping(file, parse)
    if form is not None:
        check_form(content, form, file)
    return content


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of the project's; a UserError names the file and the line of what is damaged."""
    reader = csv.reader(io.StringIO(_text(file, newline=""), newline=""), strict=True)
    rows: list[dict[str, str]] = []
    try:
        columns = next(reader, [])
        for cells in reader:
            if len(cells) != len(columns):
                raise UserError(
                    f"{file} is damaged: line {reader.line_num} has {len(cells)} cells, and there are {len(columns)} "
                    "columns",
                    code="damaged_file",
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise UserError(f"{file} is damaged: line {reader.line_num}: {error}", code="damaged_file") from None
    return rows


def _text(file: Path, newline: str | None = None) -> str:
    try:
        with file.open(encoding="utf-8", newline=newline) as stream:
            return stream.read()
    except FileNotFoundError:
        raise UserError(
            f"{file} is missing: the run has not come that far, or the file was removed", code="missing_file"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is damaged: byte {error.start} is not UTF-8", code="damaged_file") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}", code="damaged_file") from None


def read_tensors(file: Path, shapes: Mapping[str, tuple[int | None, ...]] | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises a UserError if the file is missing or damaged, has other tensors, or numbers that are not finite.

    ``shapes``: the tensors that there must be, and no others; a dimension may be None.
    """
    from safetensors.torch import load_file

    with _readable_tensors(file):
        tensors = load_file(file)
    if shapes is not None and shapes.keys() != tensors.keys():
        odd = ", ".join(sorted(shapes.keys() ^ tensors.keys())[:3])
        raise UserError(f"{file} does not hold what belongs there: {odd} missing, or too many", code="damaged_file")
    for name, value in tensors.items():
        if shapes is not None and not _is_like(tuple(value.shape), shapes[name]):
            raise UserError(
                f"{file}: {name} has shape {tuple(value.shape)}; {shapes[name]} was expected", code="wrong_shape"
            )
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UserError(
                f"{file}: {name} holds numbers that are not finite: copy it again, or make it again", code="not_finite"
            )
    return tensors


def tensor_header(file: Path) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Types and shapes of the tensors in a safetensors file, which are not read; errors as of :func:`read_tensors`."""
    from safetensors import safe_open

    with _readable_tensors(file), safe_open(file, framework="pt") as content:
        slices = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118  # it is not iterable
        return {n: (_DTYPES.get(part.get_dtype(), torch.bool), tuple(part.get_shape())) for n, part in slices.items()}


@contextmanager
def _readable_tensors(file: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file} is missing: copy the whole folder, or make it again", code="missing_file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged ({error}): copy it again, or make it again", code="damaged_file") from None


def _is_like(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))


def check_form(content: Any, form: Any, where: object) -> None:
    """Raise a UserError unless plain content has a form; the message says where in it, and what was expected there."""
    from pydantic import ValidationError

    try:
        _adapter(form).validate_python(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise UserError(
            f"{where} is damaged: {place}: {first['msg'].removeprefix('Value error, ')}", code="damaged_file"
        ) from None
    except RecursionError:
        raise UserError(f"{where} is damaged: it is nested too deeply", code="damaged_file") from None


@cache
def _adapter(form: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(form)


class Folder:
    """A folder of files that are loaded again, with a manifest of their checksums.

    ``verify``: whether files are compared with the manifest before they are read; default :attr:`verifies`. Hashing
    takes about a second a gigabyte.
    """

    verifies: ClassVar[bool] = True
    """Whether files are compared with the manifest where nobody says; ``regrain --no-verify`` clears it."""

    def __init__(self, path: str | Path, *, verify: bool | None = None) -> None:
        self.path = Path(os.path.expanduser(path))
        _require_name(self.path)
        self.verify = self.verifies if verify is None else verify
        self._written: dict[str, _Seal] = {}

    def inner(self, name: str) -> Folder:
        """A folder in it that has a manifest of its own."""
        return Folder(self.path / name, verify=self.verify)

    def has(self, name: str) -> bool:
        """Whether there is such a file; a UserError where the manifest says so and it is gone."""
        if (self.path / name).exists():
            return True
        if self.verify and (self.path / MANIFEST).exists():
            self._require_absent(name, self._manifest())
        return False

    def checked(self, name: str) -> Path:
        """The path of a file that is as it was written.

        Raises a UserError if it is missing, or differs from what the manifest says.
        """
        file = self.path / name
        if not self.verify:
            return file
        if not (self.path / MANIFEST).exists():
            if not file.exists():
                return file  # whoever reads it says so
            raise UserError(
                f"{self.path / MANIFEST} is missing, which says what the files of a run must be: copy the whole "
                "folder again, or read it as it is with `regrain --no-verify`",
                code="missing_file",
            )
        manifest = self._manifest()
        if not file.exists():
            self._require_absent(name, manifest)
            return file
        known = manifest.get(name)
        if known is None:
            raise UserError(
                f"{file} is not a file of this run: {self.path / MANIFEST} does not list it", code="damaged_file"
            )
        if not file.is_file():
            raise UserError(f"{file} is not a file", code="damaged_file")
        if file.stat().st_size not in [seal["size"] for seal in known if seal] or _seal(file) not in known:
            raise UserError(
                f"{file} is damaged: its size or checksum is not what {MANIFEST} says. Copy it again, or make it "
                "again; `regrain --no-verify` reads it as it is",
                code="damaged_file",
            )
        return file

    def read_json(self, name: str, form: Any = None, *, missing: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The mapping in a JSON file, as of :func:`read_json`; ``missing`` where there is no such file."""
        if missing is not None and not (self.path / name).exists():
            return dict(missing)
        return read_json(self.checked(name), form)

    def read_tensors(self, name: str, shapes: Mapping[str, tuple[int | None, ...]] | None = None) -> dict[str, Tensor]:
        """The tensors of a file, as of :func:`read_tensors`."""
        return read_tensors(self.checked(name), shapes)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file with the schema number."""
        self.write({name: json_writer(content)})

    def write_text(self, name: str, text: str) -> None:
        """Write a text file."""
        self.write({name: lambda file: file.write_text(text, encoding="utf-8")})

    def write(self, writers: Mapping[str, Callable[[Path], object]]) -> None:
        """Write files by name, each by a function that is given where to; all are on disk before any is in its place.

        Raises a UserError if one cannot be written: then none of them is changed, and the message names it.
        """
        made: dict[str, Path] = {}
        try:
            for name, write in writers.items():
                out = self.path / name
                made[name] = _temporary(out)
                _write_to(made[name], out, write, durable=True)
            seals = {name: _seal(temporary) for name, temporary in made.items()}
            manifest = self._manifest() if (self.path / MANIFEST).exists() else {}
            before: dict[str, list[_Seal | None]] = {
                name: [self._written[name]] if name in self._written else manifest.get(name, [None]) for name in made
            }
            self._list(manifest | {name: [seals[name], *before[name]] for name in made})
            for name, temporary in made.items():
                temporary.replace(self.path / name)
            if any(None in old for old in before.values()):  # from now on a file that is gone was lost
                self._list(manifest | {name: [seal] for name, seal in seals.items()})
            sync(self.path)
            self._written |= seals
        finally:
            for temporary in made.values():
                temporary.unlink(missing_ok=True)

    def seal(self, names: Iterable[str]) -> None:
        """List files that are in their places, and nothing else; they are on disk when this returns."""
        files = sorted(names)
        for name in files:
            sync(self.path / name)
        self._list({name: [_seal(self.path / name)] for name in files})
        sync(self.path)

    def _manifest(self) -> dict[str, list[_Seal | None]]:
        return read_json(self.path / MANIFEST, _Manifest)["files"]

    def _list(self, files: Mapping[str, list[_Seal | None]]) -> None:
        replace_file(self.path / MANIFEST, json_writer({"files": files}), durable=True)

    def _require_absent(self, name: str, manifest: Mapping[str, list[_Seal | None]]) -> None:
        if None not in manifest.get(name, [None]):
            raise UserError(
                f"{self.path / name} is missing, and {MANIFEST} lists it: copy the whole folder again, or make it "
                "again",
                code="missing_file",
            )


def json_writer(content: Mapping[str, Any]) -> Callable[[Path], object]:
    """A writer of a JSON file with the schema number."""
    text = json.dumps({"schema": SCHEMA, **content}, indent=1, ensure_ascii=False) + "\n"
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:  # a name that was not UTF-8 where it came from
        encoded = (json.dumps({"schema": SCHEMA, **content}, indent=1) + "\n").encode("ascii")
    return lambda file: file.write_bytes(encoded)


def _seal(file: Path) -> _Seal:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
    return {"size": file.stat().st_size, "blake2b": digest.hexdigest()}
