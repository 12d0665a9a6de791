"""Several processes that a launcher or ``--devices`` started: their number, the first one, and what they share out."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from regrain.errors import UserError

_shared = False


@dataclass(frozen=True)
class ProcessLayout:
    """How many processes train together."""

    devices: int  # of them on this machine
    processes: int  # on all machines, which may differ in their number


def was_launched() -> bool:
    """Whether a launcher started this process, as one of several or alone: torchrun, Ray Train, a cluster's operator.

    They all say which process it is (RANK) of how many (WORLD_SIZE); without LOCAL_WORLD_SIZE it has a machine to
    itself.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_processes() -> int:
    """Processes of a launcher on this machine, which share its cores and its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def was_restarted() -> bool:
    """Whether torchrun started this process again after one of them failed (``--max-restarts``)."""
    return was_launched() and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def leave_unguarded() -> None:
    """Leave a worker process that runs a user's script again, which no ``if __name__ == "__main__":`` guards.

    Where processes are spawned each of them imports the script, and would train in its turn. The process that waits for
    the worker says so.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # set while the script is imported
        raise SystemExit(1)


def layout_of(devices: int) -> ProcessLayout:
    """The processes that ``--devices`` asks for, or those that torchrun started on all machines.

    Raises a UserError if torchrun started another number of processes than are asked for.

    Examples
    --------
    >>> layout_of(2).processes
    2
    """
    if devices < 1:
        raise UserError(f"--devices is at least 1; got {devices}")
    if not was_launched():
        return ProcessLayout(devices, devices)
    started = local_processes()
    if devices not in (1, started):
        raise UserError(
            f"--devices {devices} was asked for, and torchrun started {started} processes on this machine: leave out "
            "--devices, and say --nproc-per-node to torchrun"
        )
    return ProcessLayout(started, int(os.environ["WORLD_SIZE"]))


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks, before a process group exists."""
    if was_launched():
        return int(os.environ["RANK"]) == 0
    return int(os.environ.get("LOCAL_RANK", "0")) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def join_processes(backend: Literal["gloo", "nccl"]) -> None:
    """Form the process group of the processes that a launcher started, here where torchrun has started them again.

    torchrun keeps one store for all its starts: without a prefix of its own, a start reads the addresses of processes
    that are gone, and fails or waits for ever. Starts are counted by machine; where there are several, torchrun makes a
    new store if ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE`` is 1.
    """
    import torch.distributed as dist

    if not was_restarted() or os.environ.get("GROUP_WORLD_SIZE") != "1":
        dist.init_process_group(backend)
        return
    store, rank, processes = next(dist.rendezvous("env://"))
    own = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=processes)


@contextmanager
def shared_out() -> Iterator[None]:
    """Within it, torchrun's processes share out the samples that a model is applied to, and all get all the rows.

    Every process must do the same within it. In a single process it does nothing. The rows cross processes on the
    CPU, by gloo.
    """
    global _shared
    if not was_launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    import torch.distributed as dist

    join_processes("gloo")
    _shared = True
    try:
        yield
    finally:
        _shared = False
        dist.destroy_process_group()


def from_first_process(value: Any) -> Any:
    """The first process's value, for all within :func:`shared_out`; elsewhere the value itself.

    Examples
    --------
    >>> from_first_process({1, 2})
    {1, 2}
    """
    if not _shared:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def own_share() -> tuple[int, int]:
    """(rank, processes) within :func:`shared_out`; (0, 1) elsewhere.

    Examples
    --------
    >>> own_share()
    (0, 1)
    """
    if not _shared:
        return 0, 1
    import torch.distributed as dist

    return dist.get_rank(), dist.get_world_size()
