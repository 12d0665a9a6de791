"""Where the host may look at values: a GPU works behind the host, which waits for it to read a single number."""

from __future__ import annotations

import torch
from torch import Tensor


def may_look(tensor: Tensor) -> bool:
    """Whether looking at values costs nothing: on the CPU, and not within a graph that ``torch.compile`` makes.

    Code that gives the same either way asks this: it may skip work on the CPU where values show that it can, and does
    all of it, with a mask, elsewhere.

    Examples
    --------
    >>> may_look(torch.zeros(2))
    True
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
