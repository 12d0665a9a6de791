"""Notation of numbers in a column of texts: plain, with thousands separators, with a currency, or as yes and no."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

_PLAIN = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(rf"\s*[+-]?{_PLAIN}\s*")
_NOT_FINITE = re.compile(r"\s*[+-]?(?:nan|inf|infinity)\s*", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.\d*)?(?:[eE][+-]?\d{1,2})?")
_UNIT = "[%$\u00a2-\u00a5\u0e3f\u20a0-\u20c0]"
_PARTS = re.compile(rf"([+-]?)\s*({_UNIT}?)\s*([+-]?)([\d.,_' ]*\d[\d.,_' ]*(?:[eE][+-]?\d+)?)\s*({_UNIT}?)")
_DATE = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?"
    r"|\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{4}([./])\d{1,2}\2\d{1,2}"
)
_ALIKE = str.maketrans({"\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u2019": "'", "\u2212": "-"})
_MARKS = (("", "."), (",", "."), ("_", "."), ("'", "."), (" ", "."), ("", ","), (".", ","), ("'", ","), (" ", ","))
_TRUTHS = (("true", "false"), ("yes", "no"), ("y", "n"))
_LONGEST = 64


@dataclass(frozen=True)
class Notation:
    """One way to write numbers.

    Examples
    --------
    >>> str(Notation.of(["$1,024.50", "$7"])), Notation.of(["$1,024.50", "$7"]).read("$1,024.50")
    ('$1,000.5', 1024.5)
    >>> str(Notation.of(["No", "yes"])), Notation.of(["1,5", "7"]).read("1,5")
    ('yes/no', 1.5)
    >>> Notation.of(["$7", "7 kg"]) is None
    True
    """

    # thousands and decimal: the marks between groups of three digits ("" for none) and before the decimals
    thousands: str = ""
    decimal: str = "."
    # before and after: a currency, or a per cent sign
    before: str = ""
    after: str = ""
    # the words, in lower case, that mean 1 and 0; such a column has no other numbers
    truth: tuple[str, str] | None = None

    def __str__(self) -> str:
        if self.truth:
            return "/".join(self.truth)
        return f"{self.before}1{self.thousands}000{self.decimal}5{self.after}"

    @classmethod
    def from_text(cls, text: str) -> Notation:
        """The notation that ``str`` gives this text for."""
        if "/" in text:
            one, _, zero = text.partition("/")
            return cls(truth=(one, zero))
        found = re.fullmatch(r"(\D?)1(\D?)000(\D)5(\D?)", text)
        if found is None:
            raise ValueError(f"'{text}' does not name a notation")
        before, thousands, decimal, after = found.groups()
        return cls(thousands, decimal, before, after)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Notation | None:
        """Find the notation that all of these cells are written in; None if there is none.

        Raises a ValueError where commas could mark thousands or decimals: the message holds such a cell.
        """
        cells = {text.strip() for text in texts}
        if not cells or max(map(len, cells)) > _LONGEST:
            return None
        for truth in _TRUTHS:
            if {cell.lower() for cell in cells} <= set(truth):
                return cls(truth=truth)
        unit, bodies = None, []
        for cell in cells:
            found = _parts(cell)
            if found is None or (found[1] and found[3]) or unit not in (None, (found[2], found[5])):
                return None
            unit = found[2], found[5]
            bodies.append(found[4].strip())
        assert unit is not None
        if all(unit):
            return None
        fitting = [known for t, d in _MARKS if all(map((known := cls(t, d, *unit))._body.fullmatch, bodies))]
        if not fitting or (fitting[0].thousands, fitting[0].decimal) == ("", "."):
            return fitting[0] if fitting else None
        if {("", ","), (",", ".")} <= {(known.thousands, known.decimal) for known in fitting}:
            raise ValueError(next(cell for cell in sorted(cells) if "," in cell))
        return fitting[0]

    def fits(self, text: str) -> bool:
        """Whether a cell is written in this notation."""
        return self.read(text) is not None

    def read(self, text: str) -> float | None:
        """Read the number in a cell; None if it is not written in this notation."""
        if self.truth is not None:
            word = text.strip().lower()
            return float(word == self.truth[0]) if word in self.truth else None
        found = _parts(text)
        if found is None or (found[2], found[5]) != (self.before, self.after) or (found[1] and found[3]):
            return None
        body = found[4].strip()
        if not self._body.fullmatch(body):
            return None
        digits = body.replace(self.thousands, "") if self.thousands else body
        return float(f"{found[1]}{found[3]}{digits.replace(self.decimal, '.')}")

    @cached_property
    def _body(self) -> re.Pattern[str]:
        mark = re.escape(self.decimal)
        single = rf"(?:\d+{mark}?\d*|{mark}\d+)(?:[eE][+-]?\d+)?"
        if not self.thousands:
            return re.compile(single)
        groups = rf"[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+(?:{mark}\d*)?"
        return re.compile(f"{groups}|{single}")


PLAIN = Notation()
"""Numbers as Python and every program writes them."""


def _parts(text: str) -> re.Match[str] | None:
    return _PARTS.fullmatch(text.translate(_ALIKE).strip()) if len(text) <= _LONGEST else None


def plain_number(text: str) -> float | None:
    """The number, which may be infinite or NaN, of a text in plain notation; None where it is something else.

    Examples
    --------
    >>> [plain_number(text) for text in (" 1e3", "-.5", "1_000", "1,5", "inf")]
    [1000.0, -0.5, None, None, inf]
    """
    return float(text) if _NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text) else None


def whole_number(text: str) -> str | None:
    """A whole number in its plainest spelling; None for everything else, such as ``007``, which is a name.

    Examples
    --------
    >>> [whole_number(text) for text in ("1", "1.0", "+1e0", "1.5e1", "-0", "007", "1.5", "a")]
    ['1', '1', '1', '15', '0', None, None, None]
    """
    if len(text) > _LONGEST or not _WHOLE.fullmatch(text):
        return None
    number = Decimal(text)
    return str(int(number)) if number == number.to_integral_value() else None


def is_date(text: str) -> bool:
    """Whether a text is a date, with or without a time.

    Examples
    --------
    >>> [is_date(text) for text in ("2024-01-31", "2024-01-31T08:30Z", "31.1.2024", "1.5", "may")]
    [True, True, True, False, False]
    """
    return len(text) <= _LONGEST and _DATE.fullmatch(text.strip()) is not None
