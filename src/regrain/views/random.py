"""Counter-based randomness: a draw is a hash of (seed, epoch, view, sample id, transform, index) and of nothing else.

No generator state exists, so another batch order, another batch size, another number of processes or a resumed run
gives every sample the same views. The hash is the output function of SplitMix64 (Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014) on int64 tensors, whose products wrap around by definition.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping

import torch
from torch import Tensor

_BITS = 64
_GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class Draws:
    """The random numbers of one view of a batch: each transform asks for a block by its own name.

    A block depends on its name alone, and within a block draw ``i`` on ``i`` alone: adding a transform, or asking for
    more draws, leaves all others as they are.

    ``ids``: LongTensor (B,); any int64 values that tell the samples apart (indices, hashes of string ids). ``seed``,
    ``epoch``, ``view``: further parts of the hash key.

    Examples
    --------
    >>> draws = Draws(torch.tensor([7, 8, 9]), seed=0, epoch=3, view=1)
    >>> draws.uniform("flip", 1).shape
    torch.Size([3, 1])
    >>> alone = Draws(torch.tensor([8]), seed=0, epoch=3, view=1)
    >>> torch.equal(draws.uniform("flip", 1)[1:2], alone.uniform("flip", 1))
    True
    """

    def __init__(self, ids: Tensor, *, seed: int, epoch: int, view: int) -> None:
        self._state = _mix_(ids.to(torch.int64) ^ _stream_key(seed, epoch, view))  # (B,)

    def blocks(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """A block of ``counts[name]`` uniform draws for every name, computed in one go: float32 (B, count) each.

        Values are multiples of 2^-24 in [0, 1).
        """
        # Samples are contiguous in memory, so that computations on a draw run over the batch at full speed.
        bits = _mix_(self._state + _counters(tuple(counts.items()), self._state.device)[:, None])
        draws = (bits >> (_BITS - 24)).bitwise_and_(2**24 - 1).to(torch.float32).mul_(2.0**-24)
        return dict(zip(counts, draws.t().split(list(counts.values()), dim=1), strict=True))

    def uniform(self, name: str, count: int) -> Tensor:
        """The block ``name``: float32 (B, count), uniform on the multiples of 2^-24 in [0, 1)."""
        return self.blocks({name: count})[name]

    def normal(self, name: str, count: int) -> Tensor:
        """float32 (B, count), standard normal (Box-Muller; at most 5.8 in size, since a uniform draw has 24 bits)."""
        pairs = self.uniform(name, count + count % 2).unflatten(1, (-1, 2))
        radius = torch.log1p(-pairs[..., 0]).mul_(-2).sqrt_()
        angle = pairs[..., 1] * (2 * math.pi)
        return torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1).flatten(1)[:, :count]


def uniform(ids: Tensor, *, seed: int, epoch: int, view: int, count: int) -> Tensor:
    """``count`` uniform draws in [0, 1) for every sample: float32 (B, count); one unnamed block of :class:`Draws`.

    Examples
    --------
    >>> ids = torch.tensor([3, 5])
    >>> first = uniform(ids, seed=0, epoch=0, view=0, count=2)
    >>> torch.equal(first, uniform(ids.flip(0), seed=0, epoch=0, view=0, count=4)[:, :2].flip(0))
    True
    """
    return Draws(ids, seed=seed, epoch=epoch, view=view).uniform("", count)


def _mix_(x: Tensor) -> Tensor:
    """The SplitMix64 finaliser, in place on int64; a logical shift is the arithmetic one with the sign bits cleared."""
    for shift, factor in _ROUNDS:
        x = x.bitwise_xor_((x >> shift).bitwise_and_(2 ** (_BITS - shift) - 1)).mul_(_signed(factor))
    return x.bitwise_xor_((x >> _LAST_SHIFT).bitwise_and_(2 ** (_BITS - _LAST_SHIFT) - 1))


def _mix_int(x: int) -> int:
    """The same on a Python integer in [0, 2^64)."""
    for shift, factor in _ROUNDS:
        x = ((x ^ (x >> shift)) * factor) % 2**_BITS
    return x ^ (x >> _LAST_SHIFT)


def _signed(x: int) -> int:
    """The int64 with the bits of ``x`` modulo 2^64."""
    return (x + 2 ** (_BITS - 1)) % 2**_BITS - 2 ** (_BITS - 1)


@functools.lru_cache(maxsize=1024)
def _stream_key(*parts: int) -> int:
    key = 0
    for part in parts:
        key = _mix_int(((key + _GOLDEN) ^ part) % 2**_BITS)
    return _signed(key)


@functools.lru_cache(maxsize=256)
def _counters(counts: tuple[tuple[str, int], ...], device: torch.device) -> Tensor:
    """(draws,) int64: the counters of the blocks, kept per device so that no step waits for a copy from the host."""
    values = []
    for name, count in counts:
        start = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        values += [_signed(start + _GOLDEN * index) for index in range(1, count + 1)]
    return torch.tensor(values, dtype=torch.int64, device=device)
