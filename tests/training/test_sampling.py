"""Balanced sampling: what an epoch holds, that it repeats itself, and how processes share it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset
from regrain.data.samples import TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.training.loader import Loader, _by_turns, view_keys

SIZES = {0: 60, 1: 17, 2: 5, -1: 11}


def uneven(*, levels: int = 1) -> Dataset:
    """Classes of very different sizes and some unlabelled samples, in no order."""
    codes = torch.tensor([code for code, size in SIZES.items() for _ in range(size)])
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    labels = Labels.from_codes(codes[:, None].expand(-1, levels), relation="aspects") if levels else Labels.empty(93)
    return Dataset(TensorSamples(torch.zeros(93, 2), "vector"), labels, np.array([f"s{i}" for i in range(93)]))


def balanced(data: Dataset, **options: int) -> Loader:
    return Loader(data, **({"batch_size": 16, "seed": 5} | options), sampling="balanced")


def order_of(loader: Loader, epoch: int) -> Tensor:
    return torch.cat(loader.plan(epoch))


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_classes_come_equally_often_and_unlabelled_samples_keep_their_share(epoch: int) -> None:
    data = uneven()
    codes, order = data.labels.level(data.labels.levels[0]), order_of(balanced(data), epoch)
    assert len(order) == 93
    counts = Counter(codes[order].tolist())
    assert counts.pop(-1) == 11
    assert sorted(counts.values()) == [27, 27, 28]
    times = torch.bincount(order, minlength=93)
    for code, (fewest, most) in {0: (0, 1), 1: (1, 2), 2: (5, 6), -1: (1, 1)}.items():
        assert (times[codes == code].min(), times[codes == code].max()) == (fewest, most)


def test_every_sample_has_its_turn_and_no_class_comes_first() -> None:
    data = uneven()
    codes, orders = data.labels.level(data.labels.levels[0]), [order_of(balanced(data), e) for e in range(20)]
    assert (torch.bincount(torch.cat(orders), minlength=93) > 0).all()
    first = torch.cat([codes[order[:46]] for order in orders])
    shares = torch.bincount(first + 1).float() / len(first)
    torch.testing.assert_close(shares, torch.tensor([11, 27.3, 27.3, 27.3]) / 93, rtol=0, atol=0.05)
    extra = Counter(max(range(3), key=lambda c: int((codes[order] == c).sum())) for order in orders)
    assert set(extra) == {0, 1, 2}  # the one that the shares leave over


def test_balanced_epochs_repeat_themselves_and_differ() -> None:
    data = uneven()
    assert torch.equal(order_of(balanced(data), 3), order_of(balanced(data), 3))
    assert not torch.equal(order_of(balanced(data), 3), order_of(balanced(data), 4))
    assert not torch.equal(order_of(balanced(data), 3), order_of(balanced(data, seed=6), 3))


@pytest.mark.parametrize("start", [0, 1, 4])
def test_a_balanced_epoch_goes_on_at_any_batch(start: int) -> None:
    data = uneven()
    loader = balanced(data)
    loader.epoch, loader.start = 2, start
    assert len(loader) == 6
    expected = [data.keys[rows].tolist() for rows in balanced(data).plan(2)[start:]]
    assert [ids.tolist() for _, _, ids, _ in loader] == expected
    assert [len(ids) for _, _, ids, _ in loader] == [16, 16, 16, 15, 15, 15]  # and the next one is whole


def test_processes_share_balanced_batches() -> None:
    data = uneven()
    shares = [balanced(data, rank=rank, world_size=3).plan(1) for rank in range(3)]
    for whole, *parts in zip(balanced(data).plan(1), *shares, strict=True):
        assert whole.tolist() == torch.cat(parts).tolist()
        assert min(map(len, parts)) >= 2


def test_equal_classes_are_every_sample_once() -> None:
    data = Dataset(
        TensorSamples(torch.zeros(30, 2), "vector"), Labels.from_codes(torch.arange(30) % 3), np.arange(30).astype(str)
    )
    assert sorted(order_of(balanced(data), 0).tolist()) == list(range(30))


def test_the_level_read_first_is_balanced() -> None:
    data = uneven(levels=2)
    codes = data.labels.codes.clone()
    codes[:, 1] = torch.arange(93) % 2
    other = Dataset(data.samples, Labels.from_codes(codes, relation="aspects"), data.ids)
    assert torch.equal(order_of(balanced(other), 0), order_of(balanced(uneven()), 0))


def test_balancing_nothing_is_refused_before_anything_is_lost(tmp_path: Path) -> None:
    message = "sampling 'balanced' draws classes equally often, and the method reads no label"
    for data in (uneven(levels=0), uneven()):
        codes = torch.full_like(data.labels.codes, -1)
        hidden = Dataset(data.samples, Labels(codes, data.labels.levels, data.labels.classes), data.ids)
        with pytest.raises(UserError, match=message):
            balanced(hidden)
    settings = {"settings": ["epochs=1", "sampling=balanced"], "device": "cpu", "holdout": 0}
    regrain.fit("sup-ce", uneven(), out=tmp_path / "run", **settings)
    for name in ("simclr", "selfcon"):
        with pytest.raises(UserError, match=message):
            regrain.fit(name, uneven(), out=tmp_path / "run", overwrite=True, **settings)
    assert (tmp_path / "run" / "model").exists()


NESTED = {(0, 0): 40, (0, 1): 3, (1, 2): 15, (1, 3): 15, (1, 4): 1, (1, -1): 8, (-1, -1): 10}


def nested() -> Dataset:
    """Fine classes of very different sizes in two coarse ones; some samples known coarsely, or not at all."""
    codes = torch.tensor([pair for pair, size in NESTED.items() for _ in range(size)])
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    ids = np.array([f"s{i}" for i in range(len(codes))])
    return Dataset(TensorSamples(torch.zeros(len(codes), 2), "vector"), Labels.from_codes(codes), ids)


def two_level(data: Dataset, **options: int) -> Loader:
    return Loader(data, **({"batch_size": 23, "seed": 5, "samples_per_class": 4} | options), sampling="two-level")


@pytest.mark.parametrize("epoch", [0, 3])
def test_two_levels_are_balanced_within_each_other(epoch: int) -> None:
    data = nested()
    pairs = Counter(map(tuple, data.labels.codes[order_of(two_level(data), epoch)].tolist()))
    assert sum(pairs.values()) == len(data) == 92
    assert pairs[-1, -1] == 10
    assert pairs[0, 0] + pairs[0, 1] == pairs[1, 2] + pairs[1, 3] + pairs[1, 4] + pairs[1, -1] == 41
    assert sorted([pairs[0, 0], pairs[0, 1]]) == [20, 21]
    assert sorted(pairs[1, c] for c in (2, 3, 4, -1)) == [10, 10, 10, 11]


def test_blocks_hold_samples_of_one_class() -> None:
    data = nested()
    codes = data.labels.codes[order_of(two_level(data), 0)].tolist()
    runs, i = [], 0
    while i < len(codes):
        length = next((n for n in range(1, len(codes) - i) if codes[i + n] != codes[i]), len(codes) - i)
        runs.append((tuple(codes[i]), length))
        i += length
    large = [length for pair, length in runs if pair[0] >= 0 and NESTED[pair] >= 4]
    assert sum(length >= 4 for length in large) > 0.6 * len(large)


def test_an_epoch_says_what_it_visits() -> None:
    data = nested()
    for loader in (two_level(data), balanced(data), Loader(data, batch_size=23, seed=5)):
        for epoch in (0, 1):
            assert loader.visits(epoch).tolist() == torch.bincount(order_of(loader, epoch), minlength=92).tolist()
    visits = two_level(data).visits(0)
    alone = (data.labels.codes[:, 1] == 4).nonzero()[:, 0]
    assert visits[alone].item() >= 10
    assert int((visits == 0).sum()) > 0
    assert torch.equal(Loader(data, batch_size=23, seed=5).visits(2), torch.ones(92, dtype=torch.long))
    shares = [two_level(data, rank=rank, world_size=2).plan(1) for rank in range(2)]
    for whole, *parts in zip(two_level(data).plan(1), *shares, strict=True):
        assert torch.equal(whole, torch.cat(parts))


def test_two_levels_need_two(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="draws classes of two levels equally often, and the method reads one"):
        two_level(uneven())
    settings = {"settings": ["epochs=1", "sampling=two-level"], "device": "cpu", "holdout": 0}
    with pytest.raises(UserError, match="the method reads one: 'balanced' is for that"):
        regrain.fit("sup-ce", nested(), out=tmp_path / "run", **settings)
    run = regrain.fit("himulcone", nested(), out=tmp_path / "run", **settings)
    visits = two_level(run.data, seed=0).visits(0)
    said = f"sampling two-level, by level1 and level2: the first epoch visits {int((visits > 0).sum())} of 92 samples"
    assert said in " ".join(run.notices)
    written = pd.read_csv(run.path / "visits.csv")
    assert written["id"].tolist() == run.data.ids.tolist()
    assert written["visits"].tolist() == visits.tolist()
    settings["settings"] = ["epochs=1"]
    regrain.fit("himulcone", nested(), out=tmp_path / "run", overwrite=True, **settings)
    assert not (tmp_path / "run" / "visits.csv").exists()


@pytest.mark.parametrize(("size", "block"), [(5, 4), (3, 4), (6, 4), (9, 7), (1, 4), (7, 1)])
def test_no_block_holds_a_sample_twice(size: int, block: int) -> None:
    codes = torch.tensor([[0, 0]] * size + [[0, 1]] * 120)
    data = Dataset(TensorSamples(torch.zeros(len(codes), 2), "vector"), Labels.from_codes(codes), np.arange(len(codes)))
    own = min(size, block)
    order = _by_turns(torch.arange(size), 60, torch.Generator().manual_seed(0), block=own)
    assert all(len(set(part.tolist())) == len(part) for part in order.split(own))
    counts = torch.bincount(order, minlength=size)
    assert counts.max() - counts.min() <= 1
    visits = two_level(data, samples_per_class=block).visits(0)[:size]
    assert abs(int(visits.sum()) - len(data) // 2) <= 1


def test_a_sample_that_comes_again_has_views_of_its_own() -> None:
    """At its first visit the draws are those of uniform sampling; within two processes they are those of one."""
    data = nested()
    found = [(ids, visits) for _, _, ids, visits in two_level(data)]
    ids, visits = (torch.cat(parts) for parts in zip(*found, strict=True))
    draws = view_keys(ids, visits)
    assert len(draws.unique()) == len(draws)
    assert torch.equal(draws[visits == 0], ids[visits == 0])
    counts = two_level(data).visits(0)
    assert sorted(visits.tolist()) == sorted(v for count in counts.tolist() for v in range(count))
    shares = [[v for *_, v in two_level(data, rank=rank, world_size=2)] for rank in range(2)]
    for (_, whole), *parts in zip(found, *shares, strict=True):
        assert torch.equal(whole, torch.cat(parts))
    later = two_level(data)
    later.start = 2
    assert torch.equal(torch.cat([v for *_, v in later]), torch.cat([v for _, v in found[2:]]))


def test_a_small_class_has_no_block_of_copies() -> None:
    data = nested()
    alone = int((data.labels.codes[:, 1] == 4).nonzero()[0])
    order = order_of(two_level(data), 0)
    together = [int((order[i : i + 2] == alone).sum()) for i in range(len(order) - 1)]
    assert sum(pair == 2 for pair in together) <= 3  # by chance alone: its ten visits stand anywhere
