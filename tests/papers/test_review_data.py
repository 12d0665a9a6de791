"""Reviews rated in several aspects, read from tiny files in their authors' layouts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from regrain.data import Dataset
from regrain.data import read as load
from regrain.errors import UserError
from regrain.papers.datasets import entries
from regrain.papers.datasets.reviews import BEER_ASPECTS, HOTEL_ASPECTS, STAY_ASPECTS, sentiment

pytestmark = pytest.mark.usefixtures("own_cache")


def split_of(subject: str) -> str:
    return "test" if crc32(subject.encode()) % 6 == 0 else "train"


TRAINED, TESTED = (next(name for name in map(str, range(100, 200)) if split_of(name) == s) for s in ("train", "test"))


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def found(data: Dataset) -> dict[str, tuple[str, str, tuple[str | None, ...]]]:
    """Text, split and labels of every sample."""
    assert data.splits is not None
    return {
        str(data.ids[row]): (str(data[row][0]), str(data.splits[row]), tuple(data[row][1].values()))
        for row in range(len(data))
    }


def test_stars_become_sentiments() -> None:
    assert [sentiment(stars) for stars in (1, 2, 2.5)] == ["negative"] * 3
    assert [sentiment(stars) for stars in (3, 3.5)] == ["neutral"] * 2
    assert [sentiment(stars) for stars in (4, 4.5, "5")] == ["positive"] * 3
    assert [sentiment(stars) for stars in (0, -1, "-1", "", None)] == [None] * 5
    for wrong in (5.5, "14/20", float("nan")):
        with pytest.raises(ValueError, match=r"stars|convert"):
            sentiment(wrong)


# BeerAdvocate

BEERS: list[tuple[str, dict[str, float], str]] = [
    (TRAINED, {"overall": 1.5, "appearance": 2.5, "aroma": 3, "palate": 3.5, "taste": 4}, "A lot of foam.\tTart."),
    (TESTED, {"overall": 5, "appearance": 0, "aroma": 4.5, "palate": 4, "taste": 4}, "Crème: brûlée"),
    (TRAINED, {"overall": 3, "appearance": 3, "aroma": 3, "palate": 3, "taste": 3}, ""),
    (TRAINED, {"overall": 0, "appearance": 0, "aroma": 0, "palate": 0, "taste": 0}, "not rated"),
    (TRAINED, {"overall": 3, "appearance": 3, "aroma": 3, "palate": 3, "taste": 3}, "so so"),
]
READ_BEERS = {
    f"{TRAINED}/0": ("A lot of foam.\tTart.", "train", ("negative", "negative", "neutral", "neutral", "positive")),
    f"{TESTED}/0": ("Crème: brûlée", "test", ("positive", None, "positive", "positive", "positive")),
    f"{TRAINED}/3": ("so so", "train", ("neutral",) * 5),
}


def beer_text(encoding: str) -> bytes:
    blocks = [
        f"beer/name: Sausa {beer}\nbeer/beerId: {beer}\nbeer/ABV: 5.00\n"
        + "".join(f"review/{aspect}: {stars}\n" for aspect, stars in ratings.items())
        + f"review/time: 1234817823\nreview/text: {text}\n\n"
        for beer, ratings, text in BEERS
    ]
    return "".join(blocks).encode(encoding)


def beer_objects(dump: Any) -> bytes:
    records: list[dict[str, Any]] = [
        {"beer/name": f"Sausa '{beer}'", "beer/beerId": beer, "review/text": text}
        | {f"review/{aspect}": stars for aspect, stars in ratings.items()}
        for beer, ratings, text in BEERS
    ]
    return "".join(dump(record) + "\n" for record in records).encode()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("beeradvocate.txt", beer_text("utf-8")),
        ("BeerAdvocate/Beeradvocate.txt", beer_text("latin-1")),
        ("beeradvocate/beeradvocate.txt.gz", gzip.compress(beer_text("utf-8"))),
        ("beeradvocate.json", beer_objects(json.dumps)),
        ("beeradvocate.json.gz", gzip.compress(beer_objects(repr))),
    ],
)
def test_beeradvocate(tmp_path: Path, file: str, content: bytes) -> None:
    write(tmp_path / file, content)
    data = load("beeradvocate", root=tmp_path)
    assert found(data) == READ_BEERS
    assert data.labels.levels == tuple(f"{aspect}_sentiment" for aspect in BEER_ASPECTS)
    assert data.labels.taxonomy is None
    assert data.groups is not None
    assert data.groups.tolist() == [TRAINED, TESTED, TRAINED]
    assert "2 of 5 reviews have no text or no rating and were left out" in data.notes["messages"]
    assert load("beeradvocate", root=tmp_path, levels=["taste_sentiment"]).labels.levels == ("taste_sentiment",)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("beeradvocate.json", b'{"review/taste": 4}\nos.system("x")\n', "line 2 is not an object"),
        ("beeradvocate.json", b"[1]\n", "line 1 is not an object"),
        ("beeradvocate.json", b"{'beer/beerId': '7', 'review/taste': '14/20'}\n", "review 7/0 is rated .*'14/20'"),
        (
            "beeradvocate.txt",
            b"review/taste: 4\n",
            "holds no review with a text and a rating of overall, .* among 1 found",
        ),
        ("beeradvocate.txt", b"", "among 0 found"),
        ("beeradvocate.txt.gz", b"beer/name: x\n", r"txt\.gz cannot be read"),
        ("beeradvocate.txt.gz", gzip.compress(beer_text("utf-8"))[:-20], r"txt\.gz cannot be read"),
    ],
)
def test_damaged_beers_are_named(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    write(tmp_path / file, content)
    with pytest.raises(UserError, match=message):
        load("beeradvocate", root=tmp_path)


# TripAdvisor

HOTEL = """<Overall Rating>4
<Avg. Price>$302
<URL>http://...

<Author>IndieLady
<Content>Lovely hotel, <b>unique</b> decor
<Date>Nov 13, 2008
<No. Reader>-1
<Overall>4
<Value>2
<Rooms>3
<Location>5
<Cleanliness>-1
<Check in / front desk>5
<Service>1
<Business service>-1

<Author>
<Content>
<Overall>4

<Author>x
<Content>Noisy
<Overall>1
<Value>-1
<Rooms>-1
<Location>-1
<Cleanliness>-1
<Service>-1
"""
READ_HOTEL = {
    f"{TESTED}/0": (
        "Lovely hotel, <b>unique</b> decor",
        "test",
        ("positive", "negative", "neutral", "positive", None, "negative"),
    ),
    f"{TESTED}/2": ("Noisy", "test", ("negative", None, None, None, None, None)),
}


def write_both(folder: Path, *, dat: bool) -> None:
    """A hotel with two reviews and one without a text, and a hotel of the training split."""
    other = {"overall": 5, "value": 5, "rooms": 5, "location": 5, "cleanliness": 5, "service": 3}
    if dat:
        write(folder / f"hotel_{TESTED}.dat", HOTEL.replace("\n", "\r\n").encode())
        lines = "".join(f"<{name.capitalize()}>{stars}\n" for name, stars in other.items())
        write(folder / f"hotel_{TRAINED}.dat", f"<Author>y\n<Content>Café\n{lines}".encode("latin-1"))
        return
    first = {"Overall": "4.0", "Value": "2", "Rooms": "3", "Location": "5", "Service": "1", "Sleep Quality": "1"}
    contents = ["Lovely hotel, <b>unique</b> decor", None, "Noisy"]
    ratings = [first, {"Overall": "4.0"}, {"Overall": "1.0", "Value": "-1"}]
    reviews = [{"Content": c, "Ratings": r, "Author": "x"} for c, r in zip(contents, ratings, strict=True)]
    write(folder / f"{TESTED}.json", json.dumps({"Reviews": reviews, "HotelInfo": {"Price": "$1"}}).encode())
    reviews = [{"Content": "Café", "Ratings": {name.capitalize(): str(stars) for name, stars in other.items()}}]
    write(folder / f"{TRAINED}.json", json.dumps({"Reviews": reviews}).encode())


@pytest.mark.parametrize(
    ("place", "dat"), [("Review_Texts", True), (".", True), ("TripAdvisorJson/json", False), ("tripadvisor", False)]
)
def test_tripadvisor_of_lara(tmp_path: Path, place: str, dat: bool) -> None:
    write_both(tmp_path / place, dat=dat)
    data = load("tripadvisor-lara", root=tmp_path)
    other = {f"{TRAINED}/0": ("Café", "train", ("positive",) * 5 + ("neutral",))}
    assert found(data) == READ_HOTEL | other
    assert data.labels.levels == tuple(f"{aspect}_sentiment" for aspect in HOTEL_ASPECTS)
    assert "1 of 4 reviews have no text or no rating and were left out" in data.notes["messages"]


def test_hotels_that_are_none(tmp_path: Path) -> None:
    write(tmp_path / "json" / "7.json", b'{"Reviews": [{"Content": "x"}]}')
    with pytest.raises(UserError, match=r"7\.json is not a hotel of LARA's.*KeyError 'Ratings'"):
        load("tripadvisor-lara", root=tmp_path)
    write(tmp_path / "json" / "7.json", b"{")
    with pytest.raises(UserError, match=r"7\.json is not a hotel of LARA's.*JSONDecodeError"):
        load("tripadvisor-lara", root=tmp_path)
    with pytest.raises(UserError, match=r"tripadvisor-lara was not found(.|\n)*Review_Texts/hotel_"):
        load("tripadvisor-lara", root=tmp_path / "empty")


@pytest.mark.parametrize("place", ["tripadvisor", "."])
def test_all_reviews_of_tripadvisor(tmp_path: Path, place: str) -> None:
    records = [
        {"offering_id": int(hotel), "text": text, "title": "t", "ratings": {"service": 1.0, "overall": 5.0} | more}
        for hotel, text, more in ((TRAINED, "fine", {"sleep_quality": 2.0}), (TESTED, "good", {"rooms": 3.0}))
    ]
    write(tmp_path / place / "review.txt", "".join(json.dumps(record) + "\n" for record in records).encode())
    data = load("tripadvisor", root=tmp_path)
    assert data.labels.levels == tuple(f"{aspect}_sentiment" for aspect in STAY_ASPECTS)
    assert found(data) == {
        f"{TRAINED}/0": ("fine", "train", ("positive", None, None, None, None, "negative")),
        f"{TESTED}/0": ("good", "test", ("positive", None, None, None, "neutral", None)),
    }


# Which part of the truth an entry tells


@pytest.mark.parametrize("name", ["tripadvisor", "tripadvisor-lara", "beeradvocate"])
def test_rules_are_told(name: str) -> None:
    notes = " ".join(entries()[name].notes)
    assert "3 and 3.5 neutral" in notes
    assert "a sixth of the" in notes
    assert "no copy was at hand" in notes
