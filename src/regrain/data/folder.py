"""Images in a folder tree: every file is an image, another file, junk that is passed over, or named as unreadable."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regrain.coded import Coded
from regrain.data.cache import cache_folder
from regrain.data.cells import is_split, split_name
from regrain.data.options import TABLE_SUFFIXES
from regrain.data.packed import packed
from regrain.data.rows import RowError, Rows
from regrain.errors import UserError, examples
from regrain.labels import path_columns
from regrain.spelling import counted, readable
from regrain.storage.files import replace_file

_NOT_PICTURES = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow knows the name of and does not decode, or with another program (EPS)."""

_COMMON_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

_JUNK = re.compile(
    r"\..*"  # hidden: .DS_Store, ._a.jpg (AppleDouble), .git, .thumbnails, .Trash-1000, .@__thumb, ...
    r"|__macosx|__pycache__|network trash folder|temporary items|icon\r"  # macOS, Python
    r"|\$recycle\.bin|recycler|system volume information|found\.\d{3}|(eh)?thumbs(_\w+)?\.db|desktop\.ini"  # Windows
    r"|@eadir|#recycle|#snapshot|@tmp|@recycle|@recently-snapshot|~snapshot"  # Synology, QNAP, NetApp
    r"|lost\+found|\w*quota\.(user|group)",  # Linux
    re.IGNORECASE,
)
"""Names of system files, which are never data."""

_LOOKED_FOR = "files ending in .jpg, .jpeg, .png, .tif, .webp or another way that Pillow reads"
_SNIFFED = 100

_MOST_PATHS = 1000
"""Largest number of paths by which links may lead to one folder."""

_MANY = 10_000
"""From this many images on, a folder's list is kept."""

_SETTLED = 2_000_000_000
"""Nanoseconds after which a folder's time of change tells a further change apart from the last one."""

_PSEUDO = ("/proc", "/sys")


@dataclass
class Walk:
    """Everything under a folder, as paths relative to it, each in one of these lists."""

    # images and others: files by their endings, sorted
    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    # hidden files and folders, and those of systems, which are passed over
    junk: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)  # unreadable paths, and why
    # links that lead back to a folder that contains them, and their targets: they are not followed
    circles: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)  # links to folders outside, and where to: they are followed
    folders: dict[str, int] = field(default_factory=dict)  # every folder, and when it last changed, in nanoseconds
    links: bool = False  # whether anything is a link: what that leads to may change while its folder does not


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Endings, in lower case, of all image files that Pillow decodes."""
    from PIL import Image

    Image.init()
    known = Image.registered_extensions()
    return (*(end for end, kind in known.items() if kind in Image.OPEN and kind not in _NOT_PICTURES), ".mpo")


def opens_as_image(path: str) -> bool:
    """Whether a file's content is an image of a common format, whatever its ending; a pipe is not opened."""
    from PIL import Image

    if not os.path.isfile(path):
        return False
    try:
        with Image.open(path, formats=_COMMON_FORMATS):
            return True
    except Exception:  # decoders raise nearly anything
        return False


def walk(folder: Path) -> Walk:
    """All files under a folder.

    Links are followed, a folder that several paths lead to counts once a path, but no link to a folder in which it
    lies itself (and so none to ``/``), nor into ``/proc`` and ``/sys``.

    Raises a UserError if the folder itself cannot be read, or links multiply without end.
    """
    found = Walk()
    top = os.path.realpath(folder)
    visits: Counter[str] = Counter()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (top,))]  # a path, and the real folders down to it
    while waiting:
        path, above = waiting.pop()
        try:
            found.folders[path] = os.stat(os.path.join(folder, path)).st_mtime_ns
            with os.scandir(os.path.join(folder, path)) as entries:
                names = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not path:
                raise UserError(f"{folder} cannot be opened: {_why(error)}") from None
            found.unreadable[path] = f"is a folder that cannot be opened ({_why(error)})"
            continue
        for entry in names:
            inner = f"{path}/{entry.name}" if path else entry.name
            if _JUNK.fullmatch(entry.name):
                found.junk.append(inner)
                continue
            found.links = found.links or entry.is_symlink()
            try:
                kind = entry.stat().st_mode
            except OSError as error:
                _put_unreadable(found, entry, inner, error)
                continue
            if stat.S_ISDIR(kind):
                real = _entered(found, entry, inner, above, visits)
                if real is not None:
                    waiting.append((inner, (*above, real)))
            elif not entry.name.lower().endswith(image_suffixes()):
                found.others.append(inner)
            elif stat.S_ISREG(kind):
                found.images.append(inner)
            else:
                found.unreadable[inner] = "is not a file but a pipe, a socket or a device"
    found.images.sort()
    found.others.sort()
    return found


def listed(folder: Path) -> Walk:
    """All files under a folder, as :func:`walk` finds them; a large one is listed once a machine.

    The list is kept in the cache folder, and holds as long as no folder under it has changed its entries. Each process
    that reads the folder then asks for the state of its folders alone, which over a network takes minutes where asking
    for every file would take hours.

    Raises a UserError as :func:`walk`.
    """
    key = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=16).hexdigest()
    file = cache_folder() / f"{key}.listing.json"
    known = _remembered(file)
    if known is not None and _is_unchanged(folder, known):
        return known
    found = walk(folder)
    settled = all(when < time.time_ns() - _SETTLED for when in found.folders.values())
    if len(found.images) >= _MANY and settled and not found.links and not found.unreadable:
        with suppress(UserError):  # a cache that cannot be written to costs time alone
            replace_file(file, lambda part: part.write_text(json.dumps(vars(found)), encoding="utf-8"))
    return found


def _remembered(file: Path) -> Walk | None:
    try:
        return Walk(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or damaged
        return None


def _is_unchanged(folder: Path, known: Walk) -> bool:
    try:
        states = (os.stat(os.path.join(folder, path)).st_mtime_ns == when for path, when in known.folders.items())
        return all(states)
    except OSError:
        return False


def _entered(
    found: Walk, entry: os.DirEntry[str], path: str, above: tuple[str, ...], visits: Counter[str]
) -> str | None:
    """The real place of a folder that is walked; None for a link that is not followed."""
    if not entry.is_symlink():
        return os.path.join(above[-1], entry.name)
    real = os.path.realpath(entry.path)
    if any(_within(place, real) for place in above) or any(_within(real, place) for place in _PSEUDO):
        found.circles[path] = real
        return None
    visits[real] += 1
    if visits[real] > _MOST_PATHS:
        raise UserError(f"links lead to {real} by more than {_MOST_PATHS} paths, such as {path}: remove some of them")
    if not _within(real, above[0]):
        found.outside[path] = real
    return real


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _put_unreadable(found: Walk, entry: os.DirEntry[str], path: str, error: OSError) -> None:
    """A path without a status: a link to nothing, or round in a circle. A link with a text's name was not an image."""
    ending = os.path.splitext(entry.name)[1].lower()
    if ending and ending not in image_suffixes() and entry.is_symlink():
        found.others.append(path)
    else:
        found.unreadable[path] = f"cannot be opened ({_why(error)})"
        if isinstance(error, FileNotFoundError) and entry.is_symlink():
            with suppress(OSError):  # what a link leads to may be unknown too
                found.unreadable[path] = f"is a link to {os.readlink(entry.path)}, which does not exist"


def _why(error: OSError) -> str:
    return str(error.strerror or error)


def read_folder(path: str | Path, *, levels: Sequence[str] | None = None, name: str | None = None) -> Rows:
    """Images in a tree of folders, ``super/sub/.../image.jpg``, of any depth.

    A class is its whole path, so ``a/other`` is not ``b/other``. Top-level folders called train, val (valid,
    validation, dev) and test, and nothing else there, are splits. Ids are paths relative to the folder; a byte of a
    name that is not UTF-8 is spelled ``\\xe9``. Links are followed (:func:`walk`). Passed over, and listed in
    ``notes["passed_over"]``, are files that do not end as images do, hidden ones, and those of systems.

    Raises a UserError if the folder holds no images; the message names the formats looked for and the files found.

    Parameters
    ----------
    path : path of the folder
    levels : sequence of str, optional
        Names of the levels, coarse to fine; default level1, level2, ..., or label when there is one. Of these default
        names, those to keep. ``[]``: no labels.
    """
    folder = Path(os.path.expanduser(path))
    if not folder.is_dir():
        raise UserError(f"no folder {folder}", code="missing_file")
    found = listed(folder)
    if not found.images:
        raise UserError(_no_images(folder, found))
    ids = packed([_identity(image) for image in found.images])
    messages: list[str] = []
    folders, of_image = _folders_of(ids)
    parts = [place.split("/") if place else [] for place in folders]
    top = {part[0] if part else "" for part in parts}
    splits = None
    if all(map(is_split, top)):
        splits = Coded(of_image, [split_name(part[0]) for part in parts])
        parts = [part[1:] for part in parts]
    elif any(map(is_split, top)):
        beside = examples(sorted(repr(t) if t else "images" for t in top if not is_split(t)))
        messages.append(
            f"folders like {', '.join(sorted(filter(is_split, top)))} are taken for classes: beside them is {beside}"
        )
    paths = Coded(of_image, [unicodedata.normalize("NFC", "/".join(part)) for part in parts])
    labels = path_columns(paths, levels) if any(paths.cells) and (levels is None or levels) else {}
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
            "messages": [*messages, *_messages(folder, found)],
        },
    )


def _folders_of(ids: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """The folders that images lie in, in the order of the images, and the place of each image's among them."""
    places: dict[str, int] = {}
    of_image = np.fromiter((places.setdefault(identity.rpartition("/")[0], len(places)) for identity in ids), np.int32)
    return list(places), of_image


def _identity(path: str) -> str:
    """A file's path as its id: spelled so that every file and terminal can hold it; spaces at its ends stay visible."""
    path = readable(path)
    inner = path.strip()
    return path if inner == path else "".join(f"\\x{ord(c):02x}" if c.isspace() else c for c in path)


def _no_images(folder: Path, found: Walk) -> str:
    others = counted(len(found.others), "other file")
    files = f"{others} ({_endings(found.others)})" if found.others else "no files at all"
    hidden = f", and {counted(len(found.junk), 'file')} hidden or of the system" if found.junk else ""
    unread = f"; {examples(f'{path} {why}' for path, why in found.unreadable.items())}" if found.unreadable else ""
    table = next((other for other in found.others if other.lower().endswith(TABLE_SUFFIXES)), None)
    advice = (
        f". To read a table, give its own path, such as {folder / table}; of a folder only train.parquet, val.parquet "
        "and test.parquet are read"
        if table
        else ""
    )
    if {"recipe.yaml", "versions.json"} <= set(found.others):
        return f"{folder} is a run, and not data: a run comes first, and data after it or as --data"
    return (
        f"{folder} holds no images: looked in all its folders for {_LOOKED_FOR}; found {files}{hidden}{unread}{advice}"
    )


def _messages(folder: Path, found: Walk) -> Iterator[str]:
    """Return notes on surprises: files passed over, spellings of names, links that lead elsewhere."""
    spelled_so = [identity for path in found.images if (identity := readable(path)) != path]
    if spelled_so:
        yield f"{counted(len(spelled_so), 'name')} not UTF-8, whose bytes are spelled as in {spelled_so[0]}"
    if found.others:
        hidden = [path for path in found.others[:_SNIFFED] if opens_as_image(f"{folder}/{path}")]
        yield (
            f"{counted(len(found.others), 'file')} passed over, not images by their endings: {_endings(found.others)}"
            + (f"; of these, images all the same: {examples(hidden)}: rename what is to be read" if hidden else "")
        )
    if found.junk:
        names = Counter(path.rpartition("/")[2] for path in found.junk)
        shown = examples((f"{name} ({count})" if count > 1 else name for name, count in names.most_common()), 5)
        yield f"{counted(len(found.junk), 'name')} passed over, hidden or of the system: {shown}"
    for links, what in (
        (found.outside, "followed out of the folder"),
        (found.circles, "not followed, to a folder around it or into the system"),
    ):
        if links:
            shown = examples(f"{path} -> {place}" for path, place in sorted(links.items()))
            yield f"{counted(len(links), 'link')} {what}: {shown}"


def _endings(files: Sequence[str]) -> str:
    endings = Counter(Path(file).suffix.lower() or "without ending" for file in files)
    return ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
