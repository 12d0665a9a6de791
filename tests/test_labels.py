"""Labels at several levels: names to codes, the taxonomy, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from regrain.errors import UserError
from regrain.labels import Labels, Taxonomy, tree_similarity

ANIMALS = {"animal": ["dog", "dog", "cat", "cat"], "breed": ["beagle", "poodle", "siamese", "siamese"]}


def names(labels: Labels, level: str) -> list[str | None]:
    """Class names of every sample, looked up by hand."""
    position = labels.levels.index(level)
    return [None if row[position] < 0 else labels.classes[position][row[position]] for row in labels.codes.tolist()]


# A tree of names


def test_columns_keep_their_names_and_know_their_parents() -> None:
    labels = Labels.from_columns(ANIMALS)
    assert {level: names(labels, level) for level in labels.levels} == ANIMALS
    assert labels.taxonomy is not None
    above = labels.taxonomy.ancestors("breed", "animal")
    parent_of = {b: a for a, b in zip(ANIMALS["animal"], ANIMALS["breed"], strict=True)}
    for code, breed in enumerate(labels.names("breed")):
        assert labels.names("animal")[above[code]] == parent_of[breed]


@pytest.mark.parametrize("nothing", [None, float("nan"), np.nan, "", "  ", np.float32("nan")])
def test_unknown_has_many_spellings(nothing: object) -> None:
    labels = Labels.from_columns({"kind": ["a", nothing, "b"]})
    assert labels.codes[:, 0].tolist() == [0, -1, 1]
    assert labels.classes == (("a", "b"),)


def test_pandas_missing_values_are_unknown() -> None:
    import pandas as pd

    labels = Labels.from_columns({"kind": pd.Series(["a", pd.NA, None], dtype="string").tolist()})
    assert labels.codes[:, 0].tolist() == [0, -1, -1]


def test_classes_that_are_numbers_are_in_numeric_order() -> None:
    assert Labels.from_columns({"n": [10, 9, 2, 2.0]}).classes == (("2", "9", "10"),)
    assert Labels.from_columns({"n": ["b", "10", "9", "a"]}).classes == (("9", "10", "a", "b"),)


def test_whole_numbers_read_as_floats_keep_their_names() -> None:
    assert Labels.from_columns({"n": np.array([3.0, np.nan, 1.0])}).classes == (("1", "3"),)


def test_two_parents_are_named_with_advice() -> None:
    columns = {"animal": ["dog", "cat", "cat"], "breed": ["beagle", "beagle", "siamese"]}
    with pytest.raises(UserError, match=r"breed 'beagle' lies under animal 'cat' and 'dog'.*paths.*aspects"):
        Labels.from_columns(columns)


def test_many_conflicts_are_counted() -> None:
    columns = {"a": ["x", "y"] * 5, "b": [str(i // 2) for i in range(10)]}
    with pytest.raises(UserError, match="and 2 more"):
        Labels.from_columns(columns)


def test_levels_in_the_wrong_order_are_told() -> None:
    columns = {"breed": ["beagle", "poodle", "siamese", "burmese"], "animal": ["dog", "dog", "cat", "cat"]}
    with pytest.raises(UserError, match=r"coarse to fine, but 'breed' has 4 classes and 'animal', after it, 2: swap"):
        Labels.from_columns(columns)


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(UserError, match=r"differ in length.*'a': 2.*'b': 1"):
        Labels.from_columns({"a": ["x", "y"], "b": ["z"]})


def test_no_column_at_all_is_refused_and_empty_labels_exist() -> None:
    with pytest.raises(UserError, match="no label column"):
        Labels.from_columns({})
    assert Labels.empty(3).codes.shape == (3, 0)


# Unknown, filled in, absent


def test_ancestors_are_filled_in_and_counted() -> None:
    labels = Labels.from_columns(
        {"kingdom": [None, "animal", None], "animal": [None, "dog", None], "breed": ["beagle", "beagle", None]}
    )
    assert names(labels, "kingdom") == ["animal", "animal", None]
    assert names(labels, "animal") == ["dog", "dog", None]
    assert labels.filled == {"kingdom": 1, "animal": 1, "breed": 0}
    assert labels.known == {"kingdom": 2, "animal": 2, "breed": 2}


def test_nothing_is_filled_in_for_a_class_whose_parent_nobody_knows() -> None:
    labels = Labels.from_columns({"animal": [None, "dog"], "breed": ["beagle", "poodle"]})
    assert names(labels, "animal") == [None, "dog"]
    assert labels.filled == {"animal": 0, "breed": 0}


def test_ragged_paths_tell_absent_from_unknown() -> None:
    labels = Labels.from_paths(["a/x/1", "a/x", "a", "b", None, "b"])
    assert labels.codes[:, 0].tolist() == [0, 0, 0, 1, -1, 1]
    # Below b nobody goes; below a and a/x somebody does, so there the label is unknown.
    assert labels.absent("level2").tolist() == [False, False, False, True, False, True]
    assert labels.absent("level3").tolist() == [False, False, False, True, False, True]
    assert labels.absent("level1").tolist() == [False] * 6


def test_a_path_is_a_class_of_its_own() -> None:
    labels = Labels.from_paths(["a/other", "b/other", "/a/other/"], levels=["super", "sub"])
    assert labels.classes == (("a", "b"), ("a/other", "b/other"))
    assert labels.codes[:, 1].tolist() == [0, 1, 0]
    with pytest.raises(UserError, match=r"1 level names .* for 2 levels"):
        Labels.from_paths(["a/b"], levels=["one"])
    with pytest.raises(UserError, match="hold no class"):
        Labels.from_paths([None, ""])


def test_relation_paths_qualifies_names_by_their_ancestors() -> None:
    columns = {"super": ["a", "b", "a"], "sub": ["other", "other", "more"]}
    labels = Labels.from_columns(columns, relation="paths")
    assert labels.names("sub") == ("a/more", "a/other", "b/other")
    assert labels.codes[:, 1].tolist() == [1, 2, 0]


def test_aspects_do_not_nest() -> None:
    labels = Labels.from_columns(
        {"rooms": ["good", "bad", "good"], "location": ["good", "good", None]}, relation="aspects"
    )
    assert labels.taxonomy is None
    assert labels.codes.tolist() == [[1, 0], [0, 0], [1, -1]]
    assert labels.filled == {"rooms": 0, "location": 0}


# Codes


def test_codes_get_numbers_for_names() -> None:
    labels = Labels.from_codes(np.array([[0, 0], [1, 2], [-1, 1], [1, -1], [0, 1]]))
    assert labels.levels == ("level1", "level2")
    assert labels.classes == (("0", "1"), ("0", "1", "2"))
    assert labels.codes.tolist() == [[0, 0], [1, 2], [0, 1], [1, -1], [0, 1]]
    assert labels.filled == {"level1": 1, "level2": 0}


def test_one_dimension_of_codes_is_one_level() -> None:
    labels = Labels.from_codes(torch.tensor([2, 0]), classes=[["a", "b", "c"]])
    assert names(labels, "label") == ["c", "a"]


@pytest.mark.parametrize("codes", [[0.5, 1.0], [0.0, float("nan")], [0.0, float("inf")]])
def test_fractions_are_no_codes(codes: list[float]) -> None:
    with pytest.raises(UserError, match="whole numbers"):
        Labels.from_codes(np.array(codes))


def test_names_and_identifiers_are_no_codes() -> None:
    with pytest.raises(UserError, match="from_columns takes class names"):
        Labels.from_codes(np.array(["cat", "dog"]))
    with pytest.raises(UserError, match="largest is 4000000000"):
        Labels.from_codes(np.array([4_000_000_000, 1]))


def test_codes_beyond_the_names_are_refused() -> None:
    with pytest.raises(UserError, match="codes from 0 to 3; its 2 classes allow 0 to 1"):
        Labels.from_codes(np.array([0, 3]), classes=[["a", "b"]])
    with pytest.raises(UserError, match="codes from -2"):
        Labels.from_codes(np.array([0, -2]))


def test_codes_that_do_not_nest_are_refused_unless_they_are_aspects() -> None:
    codes = np.array([[0, 0], [1, 0], [1, 1]])
    with pytest.raises(UserError, match="level2 '0' lies under level1 '0' and '1'"):
        Labels.from_codes(codes)
    assert Labels.from_codes(codes, relation="aspects").taxonomy is None


# Selecting and hiding


def test_keep_and_hide_leave_no_trace() -> None:
    labels = Labels.from_columns({"a": ["p", "q", None], "b": ["p1", "q1", "q2"], "c": ["p1x", "q1x", "q2x"]})
    for kept in (labels.keep(["a"]), labels.hide(["b", "c"])):
        assert kept.levels == ("a",)
        assert kept.codes.shape == (3, 1)
        assert "p1" not in repr(kept)
        assert kept.codes.untyped_storage().size() == 3 * 8
        assert kept.codes.data_ptr() != labels.codes.data_ptr()


def test_keep_carries_parents_over_the_levels_between() -> None:
    labels = Labels.from_columns({"a": ["p", "q", "q"], "b": ["p1", "q1", "q2"], "c": ["u", "v", "w"]})
    taxonomy = labels.keep(["c", "a"]).taxonomy
    assert taxonomy is not None
    assert taxonomy.levels == ("a", "c")
    assert taxonomy.ancestors("c", "a").tolist() == [0, 1, 1]


def test_select_keeps_classes_even_those_without_samples() -> None:
    labels = Labels.from_columns(ANIMALS).select([True, False, False, True])
    assert labels.codes.tolist() == [[1, 0], [0, 2]]
    assert labels.counts == {"animal": 2, "breed": 3}
    assert labels.present("breed") == [0, 2]
    assert len(labels.select(np.array([], dtype=int))) == 0


def test_a_mistyped_level_gets_a_hint() -> None:
    with pytest.raises(UserError, match="no level 'bred': did you mean 'breed'"):
        Labels.from_columns(ANIMALS).level("bred")
    with pytest.raises(UserError, match="the data have no labels"):
        Labels.empty(2).level("breed")


# Taxonomies by themselves


def test_edges_make_levels_by_depth() -> None:
    edges = [("beagle", "dog"), ("siamese", "cat"), ("dog", "animal"), ("cat", "animal")]
    taxonomy = Taxonomy.from_edges(edges, ["kingdom", "animal", "breed"])
    assert taxonomy.classes == (("animal",), ("cat", "dog"), ("beagle", "siamese"))
    assert taxonomy.ancestors("breed", "animal").tolist() == [1, 0]
    assert taxonomy.ancestors("breed", "kingdom").tolist() == [0, 0]
    assert taxonomy.has_children("animal").tolist() == [True, True]
    assert taxonomy.has_children("breed").tolist() == [False, False]


def test_edges_may_give_two_parents_which_a_tree_refuses() -> None:
    taxonomy = Taxonomy.from_edges([("mushroom", "fungus"), ("mushroom", "vegetable")])
    assert not taxonomy.is_tree
    assert taxonomy.conflicts() == ["level2 'mushroom' lies under level1 'fungus' and 'vegetable'"]
    with pytest.raises(UserError, match=r"fungus.*Take one\."):
        taxonomy.require_tree("Take one.")
    with pytest.raises(UserError, match="mushroom"):
        taxonomy.ancestors("level2", "level1")


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([], "no edges"),
        ([("a", "b"), ("b", "a")], "in a circle through a, b"),
        ([("a", "b"), ("b", "c"), ("a", "c")], "class 'a' has parents at different depths"),
    ],
)
def test_edges_that_are_no_levels_are_refused(edges: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Taxonomy.from_edges(edges)


def test_ancestors_are_looked_up_from_fine_to_coarse() -> None:
    taxonomy = Taxonomy.from_paths(["a/x"])
    with pytest.raises(UserError, match="finer"):
        taxonomy.ancestors("level1", "level2")


def test_json_round_trip(tmp_path: Path) -> None:
    taxonomy = Taxonomy.from_edges([("beagle", "dog"), ("mushroom", "dog"), ("mushroom", "cat")])
    file = tmp_path / "taxonomy.json"
    file.write_text(json.dumps(taxonomy.to_json()))
    assert Taxonomy.from_json(file) == taxonomy
    assert Taxonomy.from_json({"edges": [["beagle", "dog"], ["mushroom", "dog"], ["mushroom", "cat"]]}) == taxonomy
    assert Taxonomy.from_json({"paths": ["a/x", "b/x"]}).classes == (("a", "b"), ("a/x", "b/x"))


def test_json_of_fine_classes_with_their_ancestors() -> None:
    one = Taxonomy.from_json({"levels": ["group"], "classes": {"beagle": "dog", "siamese": "cat"}})
    assert (one.levels, one.classes) == (("group", "label"), (("cat", "dog"), ("beagle", "siamese")))
    two = Taxonomy.from_json({"classes": {"1": ["a", "a1"], "2": ["b", "b1"], "3": ["b", None]}})
    assert two.levels == ("level1", "level2", "level3")
    assert two.ancestors("level3", "level2").tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[1]", "holds a list"),
        ("{}", "parents, edges, paths or classes"),
        ('{"edges": [["a"]]}', r'form of a taxonomy, {"edges": \[\[child, parent\]'),
        ('{"paths": 3}', "not iterable"),
        ('{"levels": 3, "edges": [["a", "b"]]}', "levels being a list of names"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_json_that_is_no_taxonomy_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "broken.json"
    file.write_text(content)
    with pytest.raises(UserError, match=rf"broken\.json.*{message}"):
        Taxonomy.from_json(file)
    with pytest.raises(UserError, match="no such taxonomy file"):
        Taxonomy.from_json(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("cifar100_20", [20, 100]),
        ("cifartoy_bad_paper", [2, 8]),
        ("clinc150", [10, 150]),
        ("breeds_living17", [17, 68]),
        ("imagenet_12", [12, 1000]),
        ("imagenet_levels", [10, 29, 128, None, 591, 1000]),
    ],
)
def test_published_groupings_are_read(shared: Path, file: str, counts: list[int | None]) -> None:
    path = shared / "taxonomies" / f"{file}.json"
    taxonomy = Taxonomy.from_json(path)
    # imagenet_levels: 466 nodes at level 5, two of which have the same name.
    assert [len(c) for c in taxonomy.classes] == [465 if count is None else count for count in counts]
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy
    content = json.loads(path.read_text())["classes"]
    finest = taxonomy.levels[-1]
    for fine, above in content.items():
        parents = taxonomy.parents[-1][taxonomy.classes[-1].index(fine)]
        expected = above if isinstance(above, str) else above[-1]
        assert {taxonomy.classes[-2][p] for p in parents} == ({expected} if expected else set()), (finest, fine)


def test_a_class_known_by_its_path_is_unknown_without_its_ancestors() -> None:
    labels = Labels.from_columns({"kind": ["a", None, "b"], "sub": ["other", "other", "other"]}, relation="paths")
    assert labels.classes[1] == ("a/other", "b/other")
    assert labels.codes.tolist() == [[0, 0], [-1, -1], [1, 1]]


# Levels that a class skips


def ragged(seed: int) -> tuple[Taxonomy, dict[tuple[int, int], tuple[int, int]]]:
    """Four levels whose classes lie under a class of any level above, or under none; and the way up from each."""
    random = np.random.default_rng(seed)
    counts = [2, 3, 5, 8]
    way_up, parents, skipped = {}, [], {}
    for level, count in enumerate(counts):
        sets = [frozenset[int]()] * count
        for code in range(count):
            upper = level - 1 - int(random.integers(3))
            if upper < 0:
                continue
            parent = int(random.integers(counts[upper]))
            way_up[level, code] = (upper, parent)
            if upper == level - 1:
                sets[code] = frozenset([parent])
            else:
                skipped[level, code] = (upper, frozenset([parent]))
        parents.append(tuple(sets))
    classes = tuple(tuple(f"{level}.{code}" for code in range(count)) for level, count in enumerate(counts))
    return Taxonomy(("a", "b", "c", "d"), classes, tuple(parents), skipped), way_up


def walked(way_up: dict[tuple[int, int], tuple[int, int]], place: tuple[int, int], target: int) -> int:
    while place[0] > target and place in way_up:
        place = way_up[place]
    return place[1] if place[0] == target else -1


@pytest.mark.parametrize("seed", range(5))
def test_ancestors_over_skipped_levels_against_a_walk(seed: int) -> None:
    taxonomy, way_up = ragged(seed)
    assert taxonomy.is_tree
    for low in range(4):
        places = [(low, code) for code in range(len(taxonomy.classes[low]))]
        for high in range(low + 1):
            expected = [walked(way_up, place, high) for place in places]
            assert taxonomy.ancestors("abcd"[low], "abcd"[high]).tolist() == expected
        children = [place in way_up.values() for place in places]
        assert taxonomy.has_children("abcd"[low]).tolist() == children


@pytest.mark.parametrize("seed", range(5))
def test_some_of_the_levels_keep_their_ancestors(seed: int) -> None:
    taxonomy, _ = ragged(seed)
    assert taxonomy.keep("abcd") == taxonomy
    for levels in (["a", "d"], ["b", "d"], ["a", "b", "d"], ["a", "c"], ["d"]):
        kept = taxonomy.keep(levels[::-1])
        assert kept.levels == tuple(levels)
        for low in levels:
            for high in levels[: levels.index(low) + 1]:
                assert kept.ancestors(low, high).tolist() == taxonomy.ancestors(low, high).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_samples_and_json_give_skipped_levels_back(seed: int) -> None:
    taxonomy, way_up = ragged(seed)
    places = [(level, code) for level in range(4) for code in range(len(taxonomy.classes[level]))]
    codes = torch.tensor([[walked(way_up, place, level) for level in range(4)] for place in places])
    assert Taxonomy.from_codes(codes, taxonomy.levels, taxonomy.classes) == taxonomy
    assert Taxonomy.from_json(json.loads(json.dumps(taxonomy.to_json()))) == taxonomy
    assert taxonomy.skipped


@pytest.mark.parametrize("seed", range(5))
def test_the_lineage_of_names_at_any_level(seed: int) -> None:
    taxonomy, way_up = ragged(seed)
    names = [name for level in taxonomy.classes for name in level][::-1] + ["4.0"]
    found = taxonomy.lineage(names)
    for row, name in enumerate(names):
        place = tuple(map(int, name.split(".")))
        expected = [walked(way_up, place, level) if level <= place[0] < 4 else -1 for level in range(4)]
        assert [int(found[level][row]) for level in "abcd"] == expected, name


def test_a_name_at_several_levels_is_that_of_the_finest() -> None:
    taxonomy = Taxonomy(("a", "b"), (("cat", "tree"), ("cat", "oak")), ((frozenset(),) * 2, (frozenset([1]),) * 2))
    found = taxonomy.lineage(["cat", "tree"])
    assert {level: codes.tolist() for level, codes in found.items()} == {"a": [1, 1], "b": [0, -1]}


def test_two_parents_over_a_skipped_level_are_a_conflict() -> None:
    codes = torch.tensor([[0, -1, 0], [1, -1, 0], [0, 0, 1]])
    taxonomy = Taxonomy.from_codes(codes, ["top", "mid", "leaf"], [["A", "B"], ["m"], ["x", "y"]])
    assert taxonomy.conflicts() == ["leaf 'x' lies under top 'A' and 'B'"]
    assert taxonomy.ancestors("leaf", "mid").tolist() == [-1, 0]
    for look_up in (lambda: taxonomy.ancestors("leaf", "top"), lambda: taxonomy.lineage(["x"])):
        with pytest.raises(UserError, match="leaf 'x' lies under top 'A' and 'B'"):
            look_up()
    with pytest.raises(UserError, match="leaf 'x' lies under top 'A' and 'B'"):
        Labels.from_columns({"top": ["A", "B"], "mid": [None, None], "leaf": ["x", "x"]})


def test_ancestors_are_filled_in_over_skipped_levels() -> None:
    columns = {"top": ["A", None, None], "mid": [None, None, "m"], "leaf": ["x", "x", "y"]}
    labels = Labels.from_columns(columns)
    assert names(labels, "top") == ["A", "A", None]
    assert names(labels, "mid") == [None, None, "m"]
    assert labels.filled == {"top": 1, "mid": 0, "leaf": 0}


def test_json_of_classes_without_an_ancestor() -> None:
    content = {"levels": ["kingdom", "order"], "classes": {"beagle": ["animal", None], "rook": ["animal", "bird"],
                                                           "stone": [None, None]}}  # fmt: skip
    found = Taxonomy.from_json(content)
    assert found.levels == ("kingdom", "order", "label")
    assert found.classes[2] == ("beagle", "rook", "stone")
    assert found.ancestors("label", "kingdom").tolist() == [0, 0, -1]
    assert found.ancestors("label", "order").tolist() == [-1, 0, -1]
    alone = Taxonomy.from_json({"classes": {"beagle": "dog", "stone": None}})
    assert alone.ancestors("level2", "level1").tolist() == [0, -1]
    with pytest.raises(UserError, match="its classes are empty"):
        Taxonomy.from_json({"classes": {}})


# How much two samples share


def test_tree_similarity_equals_loop() -> None:
    codes = torch.randint(-1, 2, (30, 3), generator=torch.Generator().manual_seed(0))
    expected = [
        [next((d for d in range(3) if not one[d] == other[d] >= 0), 3) / 3 for other in codes.tolist()]
        for one in codes.tolist()
    ]
    torch.testing.assert_close(tree_similarity(codes), torch.tensor(expected))
    assert torch.tensor(expected).unique().numel() == 4


def test_tree_similarity_of_aspects_or_gaps_stops_at_the_first_difference() -> None:
    similarity = tree_similarity(torch.tensor([[0, 1, 2], [0, 3, 2], [0, -1, 2], [-1, 1, 2]]))
    assert (similarity[0] * 3).tolist() == [3, 1, 1, 0]
    assert (similarity.diagonal() * 3).tolist() == [3, 3, 1, 0]  # unknown equals nothing, not even itself


def test_tree_similarity_of_labels_whose_unknown_parents_were_filled_in() -> None:
    labels = Labels.from_columns({"animal": ["dog", None, "cat"], "breed": ["beagle", "beagle", None]})
    assert tree_similarity(labels.codes).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0.5]]


@pytest.mark.parametrize("codes", [torch.zeros(3).long(), torch.zeros(3, 0).long(), torch.zeros(3, 2)])
def test_tree_similarity_asks_for_codes(codes: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"codes are integers \(n, levels\)"):
        tree_similarity(codes)
