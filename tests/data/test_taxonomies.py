"""Taxonomies: the package's own against the published ones, and the user's from every kind of file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from regrain.data.taxonomies import display_names, grouping, taxonomies, taxonomy
from regrain.errors import UserError
from regrain.labels import Taxonomy

PUBLISHED = {
    "breeds_entity13": ("breeds_entity13", [13, 260]),
    "breeds_entity30": ("breeds_entity30", [30, 240]),
    "breeds_living17": ("breeds_living17", [17, 68]),
    "breeds_nonliving26": ("breeds_nonliving26", [26, 104]),
    "cars196_8": ("cars196_8", [8, 196]),
    "cifar100": ("cifar100_20", [20, 100]),
    "cifar100_10_falcon": ("cifar100_10_falcon", [10, 100]),
    "cifar100_20_falcon": ("cifar100_20_alternative_falcon", [20, 100]),
    "cifar100_3": ("cifar100_3_reconstructed", [3, 100]),
    "cifar100_4": ("cifar100_4", [4, 100]),
    "cifar100_7": ("cifar100_7_reconstructed", [7, 100]),
    "cifar68_falcon": ("cifar68_falcon", [20, 68]),
    "cub200_24": ("cub200_24_bucsfr", [24, 200]),
    "deepfashion_50": ("deepfashion_50", [3, 50]),
    "flowers102": ("flowers102_bucsfr", [12, 102]),
    "hwu64": ("hwu64", [18, 64]),
    "imagenet_12": ("imagenet_12", [12, 1000]),
    "sop_split1": ("sop_split1", [12, 5035]),
    "sop_split2": ("sop_split2", [12, 1498]),
    "tieredimagenet": ("tieredimagenet", [34, 608]),
    "wos": ("wos", [7, 34]),
}
"""Names of ours and of the shared file, and the counts of the papers."""

ELSEWHERE = {
    "cifartoy_bad",
    "cifartoy_bad_code",
    "cifartoy_good",
    "clinc150",
    "digits",
    "grocery",
    "imagenet_levels",
    "mini_imagenet_2",
    "voc_2",
}
"""Tested with the papers' data sets, or below."""


def published(shared: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((shared / "taxonomies" / f"{name}.json").read_text())
    return content


def pairs(found: Taxonomy) -> dict[str, str]:
    """The parent of every class of the finest level."""
    above = found.ancestors(found.levels[-1], found.levels[-2]).tolist()
    return {fine: found.classes[-2][code] for fine, code in zip(found.classes[-1], above, strict=True)}


# The package's own


def test_every_taxonomy_is_told_with_its_source() -> None:
    known = taxonomies()
    assert known.keys() == PUBLISHED.keys() | ELSEWHERE
    for name, about in known.items():
        found = taxonomy(name)
        assert (about.name, len(about.source) > 10) == (name, True)
        assert about.levels == dict(zip(found.levels, map(len, found.classes), strict=True))
        assert not set(about.dropped) & set(found.classes[-1])
    assert {name for name, about in known.items() if "RECONSTRUCTION" in about.source} == {"cifar100_3", "cifar100_7"}
    assert "guess" in known["cifar100_3"].note
    assert len(known["cifar68_falcon"].dropped) == 32
    known.clear()
    assert taxonomies()


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_mapping_is_the_published_one(shared: Path, name: str) -> None:
    file, counts = PUBLISHED[name]
    found = taxonomy(name)
    assert [len(names) for names in found.classes] == counts
    theirs = published(shared, file)["classes"]
    assert pairs(found) == {fine: above if isinstance(above, str) else above[0] for fine, above in theirs.items()}


def test_parts_of_tieredimagenet(shared: Path) -> None:
    parts = taxonomies()["tieredimagenet"].parts
    assert {part: len(coarse) for part, coarse in parts.items()} == {"train": 20, "val": 6, "test": 8}
    part_of = {coarse: part for part, members in parts.items() for coarse in members}
    theirs = published(shared, "tieredimagenet")["classes"]
    ours = {fine: [coarse, part_of[coarse]] for fine, coarse in pairs(taxonomy("tieredimagenet")).items()}
    assert ours == theirs
    assert Counter(part for _, part in ours.values()) == {"train": 351, "val": 97, "test": 160}


def test_levels_of_imagenet() -> None:
    lines = grouping("imagenet_levels")["classes"].values()
    columns = [[name for name in column if name is not None] for column in zip(*lines, strict=True)]
    assert [len(set(column)) for column in columns] == [10, 29, 128, 466, 591]
    assert [len(column) for column in columns] == [890, 890, 890, 887, 616]
    found = taxonomy("imagenet_levels")
    assert [len(names) for names in found.classes] == [10, 29, 128, 466, 591, 1000]
    above = {level: found.ancestors("label", level) for level in found.levels[:-1]}
    assert [int((codes >= 0).sum()) for codes in above.values()] == [890, 890, 890, 887, 616]
    for index, (level, codes) in enumerate(above.items()):
        names = (*found.classes[found.levels.index(level)], None)
        named = {wnid: names[code] for wnid, code in zip(found.classes[-1], codes.tolist(), strict=True)}
        assert named == {wnid: line[index] for wnid, line in grouping("imagenet_levels")["classes"].items()}
    assert found.is_tree


def test_levels_of_imagenet_are_the_published_ones(shared: Path) -> None:
    content = published(shared, "imagenet_levels")
    words = display_names("imagenet_levels")
    nodes = [content["nodes"][level] for level in "23456"]
    for fine, above in grouping("imagenet_levels")["classes"].items():
        assert above == [level[fine] for level in nodes]
        assert [words.get(node, node) for node in above] == [
            name or node for name, node in zip(content["classes"][fine], above, strict=True)
        ]


def test_words_for_wordnet_ids(shared: Path) -> None:
    content = published(shared, "imagenet_12")
    words = display_names("imagenet_12")
    assert words == content["names"]
    assert display_names("imagenet_levels").keys() > words.keys()
    assert display_names("cifar100") == {}
    for task in ("living17", "nonliving26", "entity13", "entity30"):
        theirs = published(shared, f"breeds_{task}")
        assert display_names(f"breeds_{task}") == theirs["names"]
        inner = display_names("imagenet_levels")
        assert {inner[node]: node for node in theirs["superclass_wnid"].values()} == theirs["superclass_wnid"]
    tiered = display_names("tieredimagenet")
    theirs = published(shared, "tieredimagenet")
    assert tiered == theirs["names"] | {node: name for node, name in theirs["coarse_names"].items() if name}


# The user's


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.csv", "child,parent\nbeagle,dog\npoodle,dog\nsiamese,cat\n"),
        ("a.csv", "Parent;Child\r\ndog;beagle\r\n\r\ndog; poodle\r\ncat;siamese\r\n"),
        ("a.tsv", "\ufeffbeagle\tdog\npoodle\tdog\nsiamese\tcat\n"),
        ("a.json", '{"edges": [["beagle", "dog"], ["poodle", "dog"], ["siamese", "cat"]]}'),
        ("a.json", '{"classes": {"beagle": "dog", "poodle": "dog", "siamese": "cat"}}'),
    ],
)
def test_files_of_edges(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_bytes(text.encode())
    found = taxonomy(tmp_path / file)
    assert found.classes == (("cat", "dog"), ("beagle", "poodle", "siamese"))
    assert pairs(found) == {"beagle": "dog", "poodle": "dog", "siamese": "cat"}
    assert display_names(str(tmp_path / file)) == {}


def test_cells_guarded_against_spreadsheets_are_taken_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("child,parent\n'-other,animal\ndog,animal\n'=x,'+y\n")
    assert pairs(taxonomy(tmp_path / "a.csv")) == {"-other": "animal", "dog": "animal", "=x": "+y"}


def test_files_of_paths(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("animal/dog/other\nanimal/cat/other\n\n plant \n")
    found = taxonomy(tmp_path / "a.txt")
    assert found.classes[0] == ("animal", "plant")
    assert pairs(found) == {"animal/cat/other": "animal/cat", "animal/dog/other": "animal/dog"}


def test_what_the_command_prints_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(taxonomy("grocery").to_json()))
    assert taxonomy(tmp_path / "a.json") == taxonomy("grocery")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.csv", b"child,parent\nbeagle,dog,animal\n", r"a\.csv, line 2 has 3 cells; a row holds two: child,parent"),
        ("a.csv", b"beagle,dog\n\nanimal,\n", r"a\.csv, line 3 has an empty cell"),
        ("a.tsv", b"beagle\tdog\nparent\tchild\ndog\tdog\n", r"a\.tsv, line 3 makes 'dog' its own parent"),
        ("a.csv", b"a,b\nb,a\n", r"a\.csv: the taxonomy's edges run in a circle"),
        ("a.csv", b"child,parent\n", r"a\.csv: the taxonomy has no edges"),
        ("a.csv", b"\xff\xfe,dog\n", r"a\.csv is not UTF-8 text: line 1"),
        ("a.csv", b"a,b\nb,c\na,c\n", r"a\.csv: class 'a' has parents at different depths"),
        ("a.txt", b"beagle\npoodle\n", r"a\.txt holds no path of two levels or more"),
        ("a.json", b"[", r"a\.json cannot be read as JSON"),
        ("a.json", b"{}", r"a\.json has no taxonomy: one of the keys parents, edges, paths or classes"),
        ("a.json", b'{"edges": [["a"]]}', r"a\.json does not have the form of a taxonomy"),
        ("a.json", b'{"parents": 1}', r"a\.json does not have the form of a taxonomy"),
        ("a.xlsx", b"", r"a\.xlsx is not a taxonomy file: expected \.json, \.csv or \.tsv"),
    ],
)
def test_files_that_are_no_taxonomy(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        taxonomy(tmp_path / file)
    assert str(error.value).count(str(tmp_path)) == 1


def test_unknown_names() -> None:
    with pytest.raises(
        UserError, match="no taxonomy 'breeds_live17', and no such file: did you mean 'breeds_living17'"
    ):
        taxonomy("breeds_live17")
