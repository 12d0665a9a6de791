"""What an experiment takes from a training split: fewer samples, and wrong labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import raises

from regrain.data.corruption import Corruption, hide_classes, subsample, with_imbalance, with_label_noise
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels


def made(count: int = 4000, *, relation: str = "tree") -> Dataset:
    """Eight fine classes in two coarse ones, two and six of them; some labels unknown."""
    fine = np.arange(count) % 8
    columns: Mapping[str, list[str | None]] = {
        "coarse": [None if i % 50 == 0 else f"c{int(f >= 2)}" for i, f in enumerate(fine)],
        "fine": [None if i % 25 == 0 else f"f{f}" for i, f in enumerate(fine)],
    }
    labels = Labels.from_columns(columns, relation=relation)
    return Dataset(TensorSamples(torch.zeros(count, 1), "vector"), labels, np.array([f"id{i}" for i in range(count)]))


def test_drawn_samples_are_nested_and_hang_on_ids() -> None:
    data = made(200)
    few, more = subsample(data, 20), subsample(data, 90)
    assert (len(few), len(more)) == (20, 90)
    assert set(few.ids) < set(more.ids)
    positions = [int(i[2:]) for i in few.ids]
    assert positions == sorted(positions)
    shuffled = data.select(np.random.default_rng(1).permutation(200))
    assert set(subsample(shuffled, 20).ids) == set(few.ids)
    assert set(subsample(data, 20, seed=1).ids) != set(few.ids)
    assert len(subsample(data, 200)) == 200
    for count in (1, 201):
        with pytest.raises(UserError, match="samples to draw are 2 to 200, all that data has"):
            subsample(data, count)


def test_imbalance_is_a_long_tail_of_drawn_order() -> None:
    data = made(4000)  # 500 samples of each of eight classes, 480 of them known
    tail = with_imbalance(data, 10)
    known = torch.bincount(data.labels.level("fine")[data.labels.level("fine") >= 0])
    found = torch.bincount(tail.labels.level("fine")[tail.labels.level("fine") >= 0])
    shares = sorted((found / known).tolist(), reverse=True)
    assert shares == pytest.approx([10 ** -(i / 7) for i in range(8)], abs=0.003)
    assert int((tail.labels.level("fine") < 0).sum()) == int((data.labels.level("fine") < 0).sum())
    positions = [int(i[2:]) for i in tail.ids]
    assert positions == sorted(positions)
    shuffled = data.select(np.random.default_rng(1).permutation(4000))
    assert set(with_imbalance(shuffled, 10).ids) == set(tail.ids)
    assert not torch.equal(found, torch.bincount(with_imbalance(data, 10, seed=1).labels.level("fine").clamp(min=0)))
    assert len(with_imbalance(data, 1)) == 4000
    assert torch.equal(Corruption(imbalance=10).apply(data, ["coarse", "fine"]).keys, tail.keys)
    with pytest.raises(UserError, match=r"at least 1; got 0\.5"):
        with_imbalance(data, 0.5)
    with pytest.raises(UserError, match="have no labels"):
        with_imbalance(data.with_levels([]), 10)


@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_noise_of_aspects_keeps_a_label_with_the_papers_probability(share: float) -> None:
    """MLCL, supplement 8.1: kept with probability 1 - r (C - 1) / C, the others alike; each aspect by itself."""
    data = made(relation="aspects")
    noisy = with_label_noise(data, share)
    for level in ("coarse", "fine"):
        old, new, classes = data.labels.level(level), noisy.labels.level(level), len(data.labels.names(level))
        assert torch.equal(old < 0, new < 0)
        kept = float((old == new)[old >= 0].double().mean())
        assert kept == pytest.approx(1 - share * (classes - 1) / classes, abs=0.03)
        counts = Counter(((new - old) % classes)[(old >= 0) & (old != new)].tolist())
        assert set(counts) == set(range(1, classes))
        assert max(counts.values()) < 1.4 * min(counts.values())
    moved = (data.labels.codes != noisy.labels.codes) & (data.labels.codes >= 0)
    assert not torch.equal(moved[:, 0], moved[:, 1])
    assert noisy.fingerprint() == data.fingerprint()


def test_where_levels_nest_ancestors_follow_the_wrong_label() -> None:
    data = made()
    noisy = with_label_noise(data, 0.5)
    taxonomy = noisy.labels.taxonomy
    assert taxonomy is not None
    assert taxonomy.is_tree
    fine = noisy.labels.level("fine")
    expected = taxonomy.ancestors("fine", "coarse")[fine]
    assert torch.equal(noisy.labels.level("coarse")[fine >= 0], expected[fine >= 0])
    assert (noisy.labels.level("coarse") != data.labels.level("coarse")).any()


def test_a_sample_known_coarsely_alone_gets_a_wrong_coarse_label() -> None:
    """Where levels nest one share is for the finest level that is known of each sample."""
    data = made()
    codes = data.labels.codes.clone()
    codes[torch.arange(len(data)) % 3 > 0, 1] = -1
    data = replace(data, labels=replace(data.labels, codes=codes))
    noisy = with_label_noise(data, 0.8)
    only_coarse = (codes[:, 1] < 0) & (codes[:, 0] >= 0)
    moved = noisy.labels.level("coarse")[only_coarse] != codes[only_coarse, 0]
    assert float(moved.double().mean()) == pytest.approx(0.4, abs=0.03)  # of two classes
    assert (noisy.labels.level("fine")[only_coarse] == -1).all()
    inside = with_label_noise(data, 0.8, within="coarse")
    assert torch.equal(inside.labels.codes[only_coarse], codes[only_coarse])


def test_noise_is_for_the_levels_in_use() -> None:
    data = made()
    coarse = with_label_noise(data, 1.0, levels=["coarse"])
    moved = coarse.labels.level("coarse") != data.labels.level("coarse")
    assert float(moved.double().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(coarse.labels.codes[~moved], data.labels.codes[~moved])
    through = Corruption(label_noise=1.0).apply(data, ["coarse"])
    assert torch.equal(through.labels.codes, coarse.labels.codes)
    with pytest.raises(UserError, match="nonsense"):
        Corruption(noise_within="nonsense").apply(data, ["coarse"])


def test_the_order_of_a_mapping_changes_nothing() -> None:
    data = made()
    one = with_label_noise(data, {"coarse": 0.4, "fine": 0.3}).labels.codes
    assert torch.equal(one, with_label_noise(data, {"fine": 0.3, "coarse": 0.4}).labels.codes)


def test_a_finer_label_of_a_moved_sample_is_lost() -> None:
    data = made()
    noisy = with_label_noise(data, {"coarse": 0.5})
    moved = noisy.labels.level("coarse") != data.labels.level("coarse")
    assert moved.any()
    assert (noisy.labels.level("fine")[moved] == -1).all()
    assert torch.equal(noisy.labels.codes[~moved], data.labels.codes[~moved])


def test_confusions_within_a_superclass() -> None:
    data = made()
    noisy = with_label_noise(data, 1.0, within="coarse")
    assert torch.equal(noisy.labels.level("coarse"), data.labels.level("coarse"))
    old, new = data.labels.level("fine"), noisy.labels.level("fine")
    for coarse, size in ((0, 2), (1, 6)):
        own = (data.labels.level("coarse") == coarse) & (old >= 0)
        assert float((old == new)[own].double().mean()) == pytest.approx(1 / size, abs=0.05)
        assert len(new[own].unique()) == size


def test_a_larger_share_keeps_the_wrong_labels_of_a_smaller() -> None:
    data = made(500)
    little, much = with_label_noise(data, 0.2).labels.codes, with_label_noise(data, 0.6).labels.codes
    wrong = little != data.labels.codes
    assert wrong.any()
    assert torch.equal(little[wrong], much[wrong])
    order = np.random.default_rng(3).permutation(500)
    assert torch.equal(with_label_noise(data.select(order), 0.2).labels.codes, little[torch.from_numpy(order)])
    assert not torch.equal(with_label_noise(data, 0.2, seed=1).labels.codes, little)
    assert torch.equal(with_label_noise(data, 0.0).labels.codes, data.labels.codes)


def test_noise_that_cannot_be_is_refused() -> None:
    data = made(100)
    for share in (-0.1, 1.5, float("nan")):
        with pytest.raises(UserError, match=r"share of noisy labels lies in \[0, 1\]"):
            with_label_noise(data, share)
    with pytest.raises(UserError, match="'fine' is none"):
        with_label_noise(data, 0.5, within="fine")
    with pytest.raises(UserError, match="'coarse' is none"):
        with_label_noise(made(100, relation="aspects"), 0.5, within="coarse")
    with pytest.raises(UserError, match="finest"):
        with_label_noise(data, {"finest": 0.5})


def test_one_draw_is_one_experiment() -> None:
    data = made(400)
    whole = Corruption(samples=100, label_noise=0.4, hide_labels=0.5)
    one, again = whole.apply(data, data.labels.levels), whole.apply(data, data.labels.levels)
    assert torch.equal(one.labels.codes, again.labels.codes)
    other = Corruption(samples=100, label_noise=0.4, hide_labels=0.5, draw=1).apply(data, data.labels.levels)
    assert set(other.ids) != set(one.ids)
    assert len(one) == 100
    assert 40 <= int((one.labels.codes < 0).all(dim=1).sum()) <= 60
    assert Corruption().apply(data, data.labels.levels) is data
    with raises("out_of_range"):
        Corruption(draw=-1)


def test_a_hidden_class_has_no_label_left() -> None:
    data = made(400)
    hidden = hide_classes(data, ["fine=f1", "fine=f5"])
    before, after = data.labels.level("fine"), hidden.labels.level("fine")
    gone = torch.isin(before, torch.tensor([1, 5]))
    assert gone.sum() > 90
    assert bool((after[gone] == -1).all())
    assert torch.equal(after[~gone], before[~gone])
    assert torch.equal(hidden.labels.level("coarse"), data.labels.level("coarse"))
    above = hide_classes(data, ["coarse=c0"])  # what would tell it goes with it
    assert set(above.labels.present("fine")) == {2, 3, 4, 5, 6, 7}
    assert above.labels.present("coarse") == [1]
    apart = hide_classes(made(400, relation="aspects"), ["coarse=c0"])
    assert set(apart.labels.present("fine")) == set(range(8))


def test_a_share_of_classes_is_drawn_in_every_superclass() -> None:
    data = made(400)
    half = hide_classes(data, ["fine=0.5"])
    left = set(half.labels.present("fine"))
    assert len(left & {0, 1}) == 1
    assert len(left & set(range(2, 8))) == 3
    assert set(hide_classes(data, ["fine=0.7"]).labels.present("fine")) < left
    draws = {tuple(hide_classes(data, ["fine=0.5"], seed=seed).labels.present("fine")) for seed in range(8)}
    assert len(draws) > 3
    shuffled = data.select(np.random.default_rng(1).permutation(400))
    assert set(hide_classes(shuffled, ["fine=0.5"]).labels.present("fine")) == left
    by_recipe = Corruption(hide_classes=["fine=0.5"]).apply(data, ["coarse", "fine"])
    assert torch.equal(by_recipe.labels.codes, half.labels.codes)


def test_classes_that_cannot_be_hidden_are_named() -> None:
    data = made(100)
    for text, code in (
        ("fine", "wrong_shape"),
        ("kind=f1", "unknown_level"),
        ("fine=f9", "unknown_name"),
        ("fine=1", "out_of_range"),
        ("fine=0", "out_of_range"),
    ):
        with raises(code):
            hide_classes(data, [text])
    with raises("no_labels"):
        hide_classes(data, ["coarse=c0", "coarse=c1"])
