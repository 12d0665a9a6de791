"""The hash behind every draw: known values, uniformity, independence of neighbours, and of the batch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from regrain.views.random import Draws, _mix_, _mix_int, uniform


def test_the_hash_is_splitmix64() -> None:
    """The first outputs of SplitMix64 seeded with 1234567, as published with the reference implementation."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    states = [(1234567 + 0x9E3779B97F4A7C15 * index) % 2**64 for index in range(1, 6)]
    assert [_mix_int(state) for state in states] == expected
    as_signed = torch.tensor(np.array(states, dtype=np.uint64).view(np.int64))
    assert _mix_(as_signed).numpy().view(np.uint64).tolist() == expected


@pytest.mark.parametrize("ids", [torch.arange(4000), 2**62 + 977 * torch.arange(4000), -torch.arange(4000)])
def test_draws_are_uniform(ids: torch.Tensor) -> None:
    draws = uniform(ids, seed=0, epoch=0, view=0, count=16).numpy()
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(column, bins=50, range=(0, 1))[0] for column in draws.T])
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert stats.chisquare(np.histogram(draws, bins=1000, range=(0, 1))[0]).pvalue > 1e-3


def test_neighbours_are_independent() -> None:
    """Draws of neighbouring ids, epochs, views, seeds and indices neither correlate nor share cells too often."""

    def column(*, seed: int = 3, epoch: int = 5, view: int = 0, shift: int = 0, index: int = 0) -> np.ndarray:
        ids = torch.arange(20_000) + shift
        return uniform(ids, seed=seed, epoch=epoch, view=view, count=2)[:, index].numpy()

    columns = [column(), column(shift=1), column(epoch=6), column(view=1), column(seed=4), column(index=1)]
    for first, second in itertools.combinations(columns, 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(20_000)
        cells = np.histogram2d(first, second, bins=10, range=[(0, 1), (0, 1)])[0]
        assert stats.chisquare(cells.ravel()).pvalue > 1e-4


def test_a_sample_draws_the_same_in_any_batch() -> None:
    ids = torch.randint(-(2**63), 2**63 - 1, (64,))
    whole = uniform(ids, seed=1, epoch=2, view=3, count=7)
    order = torch.randperm(64)
    assert torch.equal(uniform(ids[order], seed=1, epoch=2, view=3, count=7), whole[order])
    for row in range(0, 64, 13):
        assert torch.equal(uniform(ids[row : row + 1], seed=1, epoch=2, view=3, count=7)[0], whole[row])


def test_each_part_of_the_key_matters() -> None:
    ids = torch.arange(8)
    base = {"seed": 1, "epoch": 2, "view": 3}
    reference = uniform(ids, **base, count=4)
    for part in base:
        assert not torch.equal(uniform(ids, **{**base, part: 9}, count=4), reference)
    swapped = uniform(ids, seed=2, epoch=1, view=3, count=4)
    assert not torch.equal(swapped, reference)


def test_a_block_depends_on_its_name_alone() -> None:
    draws = Draws(torch.arange(10), seed=0, epoch=0, view=0)
    flip = draws.uniform("flip", 1)
    assert not torch.equal(draws.uniform("crop", 1), flip)
    together = draws.blocks({"crop": 5, "flip": 1, "added later": 3})
    assert torch.equal(together["flip"], flip)
    assert torch.equal(draws.uniform("crop", 9)[:, :5], together["crop"])
    assert torch.equal(draws.normal("noise", 7)[:, :4], draws.normal("noise", 4))


def test_normal_draws_are_standard_normal() -> None:
    draws = Draws(torch.arange(3000), seed=0, epoch=0, view=0).normal("noise", 5)
    assert draws.shape == (3000, 5)
    assert stats.kstest(draws.numpy().ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(draws.numpy().T) - np.eye(5)
    assert np.abs(correlation).max() < 4 / np.sqrt(3000)


def test_the_ids_are_not_changed() -> None:
    ids = torch.arange(5)
    uniform(ids, seed=0, epoch=0, view=0, count=2)
    assert torch.equal(ids, torch.arange(5))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter() -> None:
    ids = torch.randint(-(2**63), 2**63 - 1, (64,))
    on_host = uniform(ids, seed=1, epoch=2, view=3, count=7)
    assert torch.equal(uniform(ids.cuda(), seed=1, epoch=2, view=3, count=7).cpu(), on_host)
