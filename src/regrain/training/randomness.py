"""Random state of the caller: the library draws from its own seeds and leaves the caller's generators unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def callers_random_state() -> Iterator[None]:
    """Give Python's, NumPy's and PyTorch's global generators back as they were; it also decorates functions.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with callers_random_state():
    ...     torch.manual_seed(3), torch.rand(2).shape
    (<torch._C.Generator object at ...>, torch.Size([2]))
    >>> bool((torch.get_rng_state() == before).all())
    True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for number, state in enumerate(devices):
            torch.cuda.set_rng_state(state, number)
