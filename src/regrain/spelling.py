"""Spell external texts so that files can hold them and terminals can show them."""

from __future__ import annotations

import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_JOINERS = "\u200c\u200d"
"""Two joiners that Persian, Indian scripts and emoji need; they do not move the cursor."""
_NUMBER_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
"""Formatting characters by Unicode's table, which have a shape of their own."""


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun.

    Examples
    --------
    >>> counted(1, "row"), counted(2, "row"), counted(2, "class", "classes")
    ('1 row', '2 rows', '2 classes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def command(verb: str, *words: Any) -> str:
    """A line of `regrain` for a shell; a path that looks like an option begins with ``./``.

    Examples
    --------
    >>> command("evaluate", Path("runs/my run"), "--split", "val"), command("resume", Path("-run"))
    ("regrain evaluate 'runs/my run' --split val", 'regrain resume ./-run')
    """
    texts = [f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word) for word in words]
    return shlex.join(["regrain", verb, *texts])


def readable(text: str) -> str:
    """A text that UTF-8 can hold: a byte of a file's name that is not UTF-8 is spelled ``\\xe9``.

    Python keeps such bytes as lone surrogates, which Parquet, JSON, CSV and HTML refuse.

    Examples
    --------
    >>> readable(b"caf\\xe9".decode("utf-8", "surrogateescape")), readable("\\ud800")
    ('caf\\\\xe9', '\\\\ud800')
    """
    if text.isascii() or _SURROGATE.search(text) is None:
        return text
    return _SURROGATE.sub(lambda found: _escaped(found[0]), text)


def shown(text: object) -> str:
    """A text on one line of a terminal: what would move the cursor, colour, hide or turn letters is an escape.

    These are control characters (ANSI sequences, line breaks and tabs among them), Unicode's formatting characters
    (those that turn the direction of writing), separators of lines, and lone surrogates.

    Examples
    --------
    >>> print(shown("\\x1b[31mred"), shown("a\\nb"), shown("\\u202etxt.exe"), shown("naïve 日本"))
    \\x1b[31mred a\\nb \\u202etxt.exe naïve 日本
    """
    line = str(text)
    return line if line.isascii() and line.isprintable() else "".join(map(_visible, line))


def _visible(character: str) -> str:
    if character.isprintable() or character in _JOINERS or character in _NUMBER_SIGNS:
        return character
    return _escaped(character) if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
