"""Balanced sampling: what an epoch holds, that it repeats itself, and how processes share it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import regrain
from regrain.data.dataset import Dataset, TensorSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.training.loader import Loader

SIZES = {0: 60, 1: 17, 2: 5, -1: 11}


def uneven(*, levels: int = 1) -> Dataset:
    """Classes of very different sizes and some unlabelled samples, in no order."""
    codes = torch.tensor([code for code, size in SIZES.items() for _ in range(size)])
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(0))]
    labels = Labels.from_codes(codes[:, None].expand(-1, levels), relation="aspects") if levels else Labels.empty(93)
    return Dataset(TensorSamples(torch.zeros(93, 2), "vector"), labels, np.array([f"s{i}" for i in range(93)]))


def balanced(data: Dataset, **options: int) -> Loader:
    return Loader(data, **({"batch_size": 16, "seed": 5} | options), balanced=True)


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
    assert [ids.tolist() for _, _, ids in loader] == expected
    assert [len(ids) for _, _, ids in loader] == [16, 16, 16, 15, 15, 15]  # and the next one is whole


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
