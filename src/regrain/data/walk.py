"""The files of a folder tree: every one is an image, another file, junk that is passed over, or named as unreadable."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from regrain.errors import UserError

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
"""Names that are nobody's data."""

_MOST_PATHS = 1000
"""By so many paths links may lead to one folder."""

_PSEUDO = ("/proc", "/sys")


@dataclass
class Walk:
    """Everything under a folder, as paths relative to it, each in one of these lists.

    Attributes
    ----------
    images, others : list of str
        Files by their endings, sorted.
    junk : list of str
        Hidden files and folders, and those of systems, which are passed over.
    unreadable : dict of str
        Unreadable paths, and why.
    circles : dict of str
        Links that lead back to a folder in which they lie, and where to: they are not followed.
    outside : dict of str
        Links to folders outside, and where to: they are followed.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    junk: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    circles: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)


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

    Raises
    ------
    UserError
        If the folder itself cannot be read, or links multiply without end.
    """
    found = Walk()
    top = os.path.realpath(folder)
    visits: Counter[str] = Counter()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", (top,))]  # a path, and the real folders down to it
    while waiting:
        path, above = waiting.pop()
        try:
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
    """A path without a status: a link to nothing, or round in a circle. A link of a text's name was no image anyway."""
    ending = os.path.splitext(entry.name)[1].lower()
    if ending and ending not in image_suffixes() and entry.is_symlink():
        found.others.append(path)
    elif isinstance(error, FileNotFoundError) and entry.is_symlink():
        found.unreadable[path] = f"is a link to {os.readlink(entry.path)}, which does not exist"
    else:
        found.unreadable[path] = f"cannot be opened ({_why(error)})"


def _why(error: OSError) -> str:
    return str(error.strerror or error)
