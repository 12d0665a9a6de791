"""Threads for what the machine does, chosen before torch starts them."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from regrain.cli.terminal import say
from regrain.spelling import counted

_THREADS = "OMP_NUM_THREADS"
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def settle_threads() -> None:
    """Leave the cores that others use to them, and say so; where nobody does, nothing is changed or said.

    torch starts a thread a core. All of them wait for the slowest one at the end of every operation: if one lacks its
    core, a step takes several times as long. With a thread less it took half of that, where threads that sleep while
    they wait (OMP_WAIT_POLICY) took 0.86, and on a quiet machine 1.6 of what spinning ones did (`docs/speed.md`). A
    number that the user has set stays as it is, and so do the threads of a torch that is there already.
    """
    if _THREADS in os.environ or "torch" in sys.modules:
        return
    cores, own = cores_at_hand()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = threads_for(cores, own, load)
    if threads >= cores:
        return
    os.environ[_THREADS] = str(threads)
    why = f"{load:.1f} processes are at work" if threads < own else "this process may use no more at a time"
    say(f"{cores} cores, and {why}: {counted(threads, 'thread')}; {_THREADS} sets another number", err=True)


def cores_at_hand() -> tuple[int, int]:
    """(cores that this process may run on, as many as it may use at a time: what a container's quota allows)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return cores, max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # not Linux, another version of cgroups, or "max"
        return cores, cores


def threads_for(cores: int, own: int, load: float) -> int:
    """Threads on this number of cores, of which ``own`` may be used at a time, beside a load average.

    Examples
    --------
    >>> [threads_for(2, 2, load) for load in (0.0, 0.4, 0.6, 1.2, 7.0)]
    [2, 2, 1, 1, 1]
    >>> threads_for(64, 4, 20.0), threads_for(64, 64, 20.0)
    (4, 44)
    """
    return max(1, min(own, cores - round(load)))
