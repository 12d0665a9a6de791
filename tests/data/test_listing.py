"""A large folder is listed once: its list holds until a folder under it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from image_files import WriteImage

from regrain.data import folder, read


@pytest.fixture
def photos(tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folder, "_MANY", 4)
    for number in range(6):
        write_image(f"photos/{'ab'[number % 2]}/{number}.png", number)
    _age(tmp_path / "photos")
    return tmp_path / "photos"


def _age(place: Path) -> None:
    for path in (place, *place.rglob("*")):
        if path.is_dir():
            os.utime(path, (1_000_000_000, 1_000_000_000))


def _refuse(folder: Path) -> folder.Walk:
    raise AssertionError("the folder was listed again")


def test_an_unchanged_folder_is_not_listed_again(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(photos)
    monkeypatch.setattr(folder, "walk", _refuse)
    again = read(photos)
    assert again.ids.tolist() == first.ids.tolist()
    assert again.fingerprint() == first.fingerprint()
    assert again.notes == first.notes


@pytest.mark.parametrize("change", ["new", "gone", "folder"])
def test_a_change_is_seen(change: str, photos: Path, write_image: WriteImage) -> None:
    before = read(photos).ids.tolist()
    if change == "gone":
        (photos / "a" / "2.png").unlink()
    else:
        write_image("photos/a/9.png" if change == "new" else "photos/c/9.png", 9)
    expected = {"new": [*before, "a/9.png"], "gone": [i for i in before if i != "a/2.png"]}
    assert read(photos).ids.tolist() == sorted(expected.get(change, [*before, "c/9.png"]))


def test_a_folder_that_has_just_changed_or_holds_links_is_listed_again(
    photos: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image("photos/b/7.png", 7)  # another change within the clock's tick would not show
    read(photos)
    (photos / "b" / "8.png").symlink_to(photos / "b" / "7.png")
    _age(photos)
    read(photos)
    monkeypatch.setattr(folder, "walk", _refuse)
    with pytest.raises(AssertionError, match="listed again"):
        read(photos)


def test_a_damaged_list_is_made_again(photos: Path) -> None:
    from regrain.data.cache import cache_folder

    before = read(photos).ids.tolist()
    (list_of,) = cache_folder().glob("*.listing.json")
    list_of.write_text('{"images": 1')
    assert read(photos).ids.tolist() == before
