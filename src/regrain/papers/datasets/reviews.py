"""Reviews rated in several aspects, in their authors' layouts.

Every function takes the folder where the user keeps data, and returns None if its data set is absent. Files are
read line by line. A rating becomes a sentiment (:func:`sentiment`); reviews without a text or without any rating are
left out. The data sets come without splits: a checksum of the id puts a sixth of the reviewed items, such as hotels,
into the test split, so that all reviews of one hotel are in one split.
"""

from __future__ import annotations

import ast
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from regrain.data.rows import Rows
from regrain.errors import UserError
from regrain.papers.datasets.originals import first_folder, found_rows

BEER_ASPECTS = ("overall", "appearance", "aroma", "palate", "taste")
"""Aspects of BeerAdvocate."""

HOTEL_ASPECTS = ("overall", "value", "rooms", "location", "cleanliness", "service")
"""Aspects of both versions of LARA's TripAdvisor reviews that MLCL names."""

STAY_ASPECTS = ("overall", "cleanliness", "value", "location", "rooms", "sleep_quality")
"""Aspects of Li et al.'s sample of TripAdvisor reviews."""

_BEER_PLACES = (".", "beeradvocate", "BeerAdvocate")
_STAY_PLACES = ("tripadvisor", "HotelRec", ".")
_HOTEL_PLACES = (
    ".",
    "Review_Texts",
    "TripAdvisor",
    "TripAdvisor/Review_Texts",
    "TripAdvisorJson/json",
    "json",
    "tripadvisor",
)
_HOTEL_FILES = ("hotel_[0-9]*.dat", "[0-9]*.json")
_BEER_LINE = re.compile(r"((?:beer|review)/\w+): ?(.*)")
_HOTEL_LINE = re.compile(r"<([A-Z][^>]*)>(.*)")
_STARS = 5
_PARTS = 6


class _Review(NamedTuple):
    subject: str
    text: Any
    ratings: Mapping[str, Any]


def beeradvocate(root: Path) -> Rows | None:
    """McAuley's ``beeradvocate.txt`` of SNAP, or ``beeradvocate.json`` with an object in each line; ``.gz`` too."""
    for kind, records in (("txt", _blocks), ("json", _objects)):
        for pattern in (f"[Bb]eer[Aa]dvocate.{kind}", f"[Bb]eer[Aa]dvocate.{kind}.gz"):
            folder = first_folder(root, _BEER_PLACES, pattern)
            if folder is not None:
                path = next(folder.glob(pattern))
                return _rows(path, map(_beer_review, records(path)), BEER_ASPECTS)
    return None


def tripadvisor(root: Path) -> Rows | None:
    """Li et al.'s ``review.txt``: JSON objects with ``text``, ``ratings`` and ``offering_id``, one in each line."""
    folder = first_folder(root, _STAY_PLACES, "review.txt")
    if folder is None:
        return None
    path = folder / "review.txt"
    reviews = (
        _Review(str(record.get("offering_id")), record.get("text"), record.get("ratings") or {})
        for record in _objects(path)
    )
    return _rows(path, reviews, STAY_ASPECTS)


def tripadvisor_lara(root: Path) -> Rows | None:
    """LARA's files of hotels: ``hotel_ID.dat`` with lines such as ``<Rooms>4``, or ``ID.json``; -1 means unrated."""
    for pattern, read in zip(_HOTEL_FILES, (_tagged_hotel, _json_hotel), strict=True):
        folder = first_folder(root, _HOTEL_PLACES, pattern)
        if folder is not None:
            reviews = (review for path in sorted(folder.glob(pattern)) for review in read(path))
            return _rows(folder, reviews, HOTEL_ASPECTS)
    return None


def sentiment(rating: Any) -> str | None:
    """Map stars to a sentiment: four or more are positive, three or more neutral, fewer negative; none is unrated.

    Raises
    ------
    ValueError
        If the rating is not a number of this kind.

    Examples
    --------
    >>> [sentiment(rating) for rating in (5, "4.0", 3.5, 3, "2.5", 1)]
    ['positive', 'positive', 'neutral', 'neutral', 'negative', 'negative']
    >>> [sentiment(rating) for rating in (0, "-1", "", None)]
    [None, None, None, None]
    """
    stars = float(rating) if rating not in (None, "") else 0.0
    if not stars <= _STARS:
        raise ValueError(f"{stars} of {_STARS} stars")
    if stars <= 0:
        return None
    return "positive" if stars >= 4 else "neutral" if stars >= 3 else "negative"


def _rows(where: Path, reviews: Iterable[_Review], aspects: Sequence[str]) -> Rows:
    texts: list[str] = []
    ids: list[str] = []
    subjects: list[str] = []
    labels: dict[str, list[str | None]] = {f"{aspect}_sentiment": [] for aspect in aspects}
    seen: Counter[str] = Counter()
    for subject, text, ratings in reviews:
        identity = f"{subject}/{seen[subject]}"
        seen[subject] += 1
        try:
            sentiments = [sentiment(ratings.get(aspect)) for aspect in aspects]
        except (TypeError, ValueError):
            shown = {aspect: ratings.get(aspect) for aspect in aspects}
            raise UserError(
                f"{where}: review {identity} is rated {shown}; expected numbers of stars up to {_STARS}"
            ) from None
        if not str(text or "").strip() or not any(sentiments):
            continue
        texts.append(str(text))
        ids.append(identity)
        subjects.append(subject)
        for column, name in zip(labels.values(), sentiments, strict=True):
            column.append(name)
    if not texts:
        raise UserError(
            f"{where} holds no review with a text and a rating of {', '.join(aspects)} among {seen.total()} found"
        )
    remarks = [f"{seen.total() - len(texts)} of {seen.total()} reviews have no text or no rating and were left out"]
    splits = ["test" if zlib.crc32(subject.encode()) % _PARTS == 0 else "train" for subject in subjects]
    rows = found_rows(where, "text", texts, labels, ids, splits)
    return replace(rows, groups=subjects, relation="aspects", notes=rows.notes | {"remarks": remarks})


def _beer_review(record: Mapping[str, Any]) -> _Review:
    ratings = {aspect: record.get(f"review/{aspect}") for aspect in BEER_ASPECTS}
    return _Review(str(record.get("beer/beerId")), record.get("review/text"), ratings)


def _tagged_hotel(path: Path) -> Iterator[_Review]:
    """Read the reviews of one hotel; facts on the hotel itself come before the first author."""
    for record in _records(path, _HOTEL_LINE, "Author"):
        if "Author" in record:
            yield _hotel_review(path, record.get("Content"), record)


def _json_hotel(path: Path) -> Iterator[_Review]:
    try:
        content = json.loads("".join(_lines(path)))
        for record in content["Reviews"]:
            yield _hotel_review(path, record.get("Content"), record["Ratings"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a hotel of LARA's, with Reviews that hold Content and Ratings: "
            f"{type(error).__name__} {error}"
        ) from None


def _hotel_review(path: Path, text: Any, ratings: Mapping[str, Any]) -> _Review:
    return _Review(path.stem.removeprefix("hotel_"), text, {name.lower(): stars for name, stars in ratings.items()})


def _blocks(path: Path) -> Iterator[dict[str, str]]:
    return _records(path, _BEER_LINE, "beer/name")


def _records(path: Path, form: re.Pattern[str], first: str) -> Iterator[dict[str, str]]:
    """Collect records from lines of key and value; the key ``first`` begins the next record."""
    record: dict[str, str] = {}
    for line in _lines(path):
        found = form.match(line)
        if found is None:
            continue
        if found[1] == first and record:
            yield record
            record = {}
        record[found[1]] = found[2].strip()
    if record:
        yield record


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """Parse the object on each line, as JSON or as a Python dict literal (McAuley's files), without running it."""
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            try:
                record = json.loads(line)
            except ValueError:
                record = ast.literal_eval(line.strip())
        except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f"{path}, line {number} is not an object, such as {{'review/text': '...'}}")
        yield record


def _lines(path: Path) -> Iterator[str]:
    """Decompressed lines of a text; a line that is not UTF-8 is read as Latin-1."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for line in stream:
                try:
                    yield line.decode("utf-8")
                except UnicodeDecodeError:
                    yield line.decode("latin-1")
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
