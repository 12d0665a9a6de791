"""Batches of raw samples: an order drawn by seed and epoch, shared out over processes, resumable at any batch."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from regrain.data.dataset import Dataset
from regrain.data.shards import POOL
from regrain.errors import UserError
from regrain.processes import leave_unguarded
from regrain.training.options import Sampling, TrainingOptions
from regrain.training.scan import RawBatch

_ODD = -7046029254386353131
"""2^64 over the golden ratio, as int64: multiples of it spread over all numbers."""


def derived_seed(*parts: int) -> int:
    """A seed for one purpose from whole numbers, the same on every machine.

    Examples
    --------
    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1  # torch seeds are below 2^63


def view_keys(ids: Tensor, visits: Tensor) -> Tensor:
    """Random key of each view: the sample id on its first visit in the epoch, a derived key on later visits.

    Examples
    --------
    >>> ids = torch.tensor([7, 7, 3])
    >>> found = view_keys(ids, torch.tensor([0, 1, 0]))
    >>> (found == ids).tolist()
    [True, False, True]
    """
    return ids + _ODD * visits  # int64 wraps around


class _Rows(TorchDataset[RawBatch]):
    """Takes whole batches by index, for workers to decode."""

    def __init__(self, dataset: Dataset) -> None:
        self.samples, self.codes = dataset.samples, dataset.labels.codes
        self.keys = dataset.keys  # hashed once, before workers start

    def __getitems__(self, index: list[int]) -> RawBatch:
        return self.taken(torch.tensor(index))

    def taken(self, rows: Tensor) -> RawBatch:
        return self.samples.take(rows), self.codes[rows], self.keys[rows]

    def __getitem__(self, index: int) -> RawBatch:
        return self.__getitems__([index])

    def __len__(self) -> int:
        return len(self.keys)


def _as_it_is(batch: Any) -> Any:
    return batch


class _Workers:
    """Processes that take batches; they are started once, and wait between epochs."""

    def __init__(self, rows: _Rows, count: int) -> None:
        leave_unguarded()
        self._context = None if getattr(rows.samples, "forks", True) else _forkserver()
        self._plan: list[list[int]] = []
        self._loader: DataLoader[RawBatch] = DataLoader(
            rows,
            batch_sampler=self._plan,
            num_workers=count,
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_interrupts,
            multiprocessing_context=self._context,
            persistent_workers=True,
        )

    def batches(self, plan: list[Tensor]) -> Iterator[RawBatch]:
        """The batches of an epoch."""
        self._plan[:] = [index.tolist() for index in plan]
        try:
            yield from self._loader
        except UserError as error:
            message = str(error).rpartition("UserError: ")[2].strip()  # without the worker's traceback
            raise UserError(message, code=error.code) from None
        except (RuntimeError, BrokenPipeError) as error:
            if (self._context or multiprocessing).get_start_method() == "fork" or not _is_lost_worker(error):
                raise
            raise UserError(
                "worker processes start the script again, and stopped where it trains again: put what it does under "
                "`if __name__ == '__main__':`, or do without workers by training.workers=0"
            ) from None


def _forkserver() -> Any:
    """Workers are forked from a process that has read nothing, and has imported all they need."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([__name__])
    return context


def _is_lost_worker(error: Exception) -> bool:
    return isinstance(error, BrokenPipeError) or "exited unexpectedly" in str(error)


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches workers too; only the main process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Loader:
    """Iterates over one epoch of (raw samples, labels, ids); where samples come again, with the number of each visit.

    An epoch visits every sample exactly once (or every class equally often, by ``sampling``): the order is drawn from
    (seed, epoch), of samples in shards by windows of them. It is cut into ``ceil(N / batch_size)`` batches whose sizes
    differ by at most one, and every batch is shared out over the processes. No process gets a single sample (batch
    normalisation needs two), for which a batch of very few samples may grow by some.

    Parameters
    ----------
    dataset : Dataset
        With only the label levels that the method needs.
    batch_size : int
        Largest size of a global batch.
    sampling : {"uniform", "balanced", "two-level"}
    samples_per_class : int
        See :class:`~regrain.training.options.TrainingOptions`.
    workers : int
        Processes that decode images; data in memory need none.
    rank, world_size : int
        This process among how many.

    Attributes
    ----------
    epoch, start : int
        The epoch to draw, and the batch to begin it at (used up by the next iteration).
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        batch_size: int,
        seed: int,
        sampling: Sampling = "uniform",
        samples_per_class: int = 4,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(dataset) < 2:
            raise UserError(f"training needs at least 2 samples; {dataset.name} has {len(dataset)}")
        if batch_size < 2:
            raise UserError(f"batch_size is at least 2; got {batch_size}")
        if len(dataset) < 2 * world_size:
            raise UserError(
                f"{len(dataset)} samples cannot be shared out over {world_size} processes, two each at least"
            )
        codes = dataset.labels.codes
        if sampling != "uniform" and not (codes.shape[1] and bool((codes[:, 0] >= 0).any())):
            raise UserError(
                f"training.sampling '{sampling}' draws classes equally often, and the method reads no label"
            )
        if sampling == "two-level" and codes.shape[1] < 2:
            raise UserError(
                "training.sampling 'two-level' draws classes of two levels equally often, and the method reads one: "
                "'balanced' is for that"
            )
        count = min(math.ceil(len(dataset) / batch_size), len(dataset) // (2 * world_size))
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.sampling = sampling
        self.samples_per_class = samples_per_class
        self.workers = workers
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0
        self._count = count
        self._rows = _Rows(dataset)
        self._helpers: _Workers | None = None

    def __len__(self) -> int:
        return self._count

    def plan(self, epoch: int) -> list[Tensor]:
        """The rows of every batch of an epoch, this process's share."""
        return self._shared_out(self._order(epoch))

    def visits(self, epoch: int) -> Tensor:
        """How often an epoch visits every sample: LongTensor (N,)."""
        return torch.bincount(self._order(epoch), minlength=len(self.dataset))

    def _shared_out(self, rows: Tensor) -> list[Tensor]:
        return [batch.tensor_split(self.world_size)[self.rank] for batch in rows.tensor_split(self._count)]

    def _order(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
        if self.sampling == "balanced":
            return _balanced_order(self.dataset.labels.codes[:, 0], generator)
        if self.sampling == "two-level":
            return _two_level_order(self.dataset.labels.codes, self.samples_per_class, generator)
        windows = getattr(self.dataset.samples, "windows", None)
        if windows is not None:
            return _windowed_order(windows, self._count, generator)
        return torch.randperm(len(self.dataset), generator=generator)

    def __iter__(self) -> Iterator[RawBatch | tuple[Any, Tensor, Tensor, Tensor]]:
        start, self.start = self.start, 0
        order = self._order(self.epoch)
        batches = self._taken(self._shared_out(order)[start:])
        if self.sampling == "uniform":
            yield from batches
            return
        for batch, visits in zip(batches, self._shared_out(_visit_numbers(order))[start:], strict=True):
            yield *batch, visits

    def _taken(self, plan: list[Tensor]) -> Iterator[RawBatch]:
        if self.dataset.samples.in_memory or self.workers == 0:
            yield from map(self._rows.taken, plan)
            return
        helpers, self._helpers = self._helpers or _Workers(self._rows, self.workers), None
        yield from helpers.batches(plan)
        self._helpers = helpers  # not after an error or a stop in between, which may leave batches behind

    def close(self) -> None:
        """End the worker processes, which else wait for the next epoch."""
        self._helpers = None


def _windowed_order(windows: Tensor, batches: int, generator: torch.Generator) -> Tensor:
    """N rows in a random order that reads every window once: windows in a random order, mixed with some others.

    ``windows``: LongTensor (N,); of the rows. ``batches``: the rows of a batch come window by window, so that of
    several processes each reads some of the windows. ``generator``: torch.Generator.

    Examples
    --------
    >>> order = _windowed_order(torch.arange(8) // 2, 2, torch.Generator().manual_seed(0))
    >>> sorted(order.tolist()), [len((batch // 2).unique_consecutive()) for batch in order.split(4)]
    ([0, 1, 2, 3, 4, 5, 6, 7], [3, 3])
    """
    numbers, place = windows.unique(return_inverse=True)
    place = torch.randperm(len(numbers), generator=generator)[place]
    mixed = torch.randperm(len(place), generator=generator)
    order = mixed[(place[mixed] // POOL).argsort(stable=True)]
    return torch.cat([batch[place[batch].argsort(stable=True)] for batch in order.tensor_split(batches)])


def _visit_numbers(order: Tensor) -> Tensor:
    """How often each row came before in an order (N,).

    Examples
    --------
    >>> _visit_numbers(torch.tensor([4, 2, 4, 4, 2])).tolist()
    [0, 0, 1, 2, 1]
    """
    by_row = order.argsort(stable=True)
    rows = order[by_row]
    place = torch.arange(len(rows))
    first = torch.searchsorted(rows, rows)
    numbers = torch.empty_like(order)
    numbers[by_row] = place - first
    return numbers


def loader_of(dataset: Dataset, options: TrainingOptions, *, seed: int, world_size: int = 1) -> Loader:
    """The loader that options ask for, of the first process."""
    return Loader(
        dataset,
        batch_size=options.batch_size,
        seed=seed,
        sampling=options.sampling,
        samples_per_class=options.samples_per_class,
        workers=options.workers,
        world_size=world_size,
    )


def _balanced_order(codes: Tensor, generator: torch.Generator) -> Tensor:
    """N rows in a random order: classes equally often, by turns through their samples; those of code -1 once each."""
    rows = [(codes < 0).nonzero()[:, 0]]
    for own, count in _equal_shares((codes >= 0).nonzero()[:, 0], codes, int((codes >= 0).sum()), generator):
        rows.append(_by_turns(own, count, generator))
    drawn = torch.cat(rows)
    return drawn[torch.randperm(len(drawn), generator=generator)]


def _two_level_order(codes: Tensor, block: int, generator: torch.Generator) -> Tensor:
    """N rows: classes of the first level equally often, and those of the last one within each of them; in blocks.

    A block is ``block`` different rows of one class, or all it has where they are fewer, so that its samples find each
    other in a batch; blocks come in a random order. Rows of a first-level class whose last level is unknown are a class
    of their own; those of code -1 at the first level come once each.
    """
    first, last = codes[:, 0], codes[:, -1]
    blocks = list((first < 0).nonzero()[:, 0].split(1))
    for members, count in _equal_shares((first >= 0).nonzero()[:, 0], first, int((first >= 0).sum()), generator):
        for own, share in _equal_shares(members, last, count, generator):
            size = min(block, len(own))
            blocks += _by_turns(own, share, generator, block=size).split(size)
    order = torch.randperm(len(blocks), generator=generator).tolist()
    return torch.cat([blocks[i] for i in order])


def _equal_shares(rows: Tensor, codes: Tensor, count: int, generator: torch.Generator) -> Iterator[tuple[Tensor, int]]:
    """The rows of every class among ``rows``, and its share of ``count``: all alike, or one more for some by lot."""
    classes = codes[rows].unique()
    shares = torch.arange(count).tensor_split(len(classes))
    for code, share in zip(classes[torch.randperm(len(classes), generator=generator)], shares, strict=True):
        yield rows[codes[rows] == code], len(share)


def _by_turns(rows: Tensor, count: int, generator: torch.Generator, block: int = 1) -> Tensor:
    """``count`` of the rows, each again only after all others, and none twice within a block (of len(rows) at most)."""
    turns: list[Tensor] = []
    for number in range(math.ceil(count / len(rows))):
        turn = rows[torch.randperm(len(rows), generator=generator)]
        begun = number * len(rows) % block  # rows of the turn before, in a block that this one fills
        if begun:
            fills = (~torch.isin(turn, turns[-1][-begun:])).nonzero()[: block - begun, 0]
            others = torch.ones(len(turn), dtype=torch.bool).index_fill(0, fills, False)
            turn = torch.cat([turn[fills], turn[others]])
        turns.append(turn)
    return torch.cat([rows[:0], *turns])[:count]
