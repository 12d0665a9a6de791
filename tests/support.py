"""What tests of several folders share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

import regrain
from regrain.errors import Code, UserError

Command = Callable[..., tuple[int, str, str]]
"""The fixture ``regrain``: arguments of a command -> (exit code, standard output, standard error)."""


def raises(code: Code, match: str | None = None) -> pytest.RaisesExc[UserError]:
    """An error of this code is expected, and of these words where the words are what is tested."""
    assert code in get_args(Code), f"{code} is not a code of errors.py"
    return pytest.raises(UserError, match=match, check=lambda error: error.code == code)


class Soon(threading.Event):
    """An interrupt that comes when it has been looked at so often."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        """Count one look."""
        self.looks -= 1
        return self.looks < 0


def quick(method: str, data: Any, out: Path, *settings: str, **more: Any) -> regrain.Run:
    """A run of two epochs."""
    if method == "turtle":  # takes features as they are
        more.setdefault("encoder", "identity")
    return regrain.fit(method, data, out=out, settings=["epochs=2", "batch_size=16", *settings], device="cpu", **more)


def weights(run: regrain.Run) -> dict[str, torch.Tensor]:
    """All that a run has stored of its model."""
    return load_file(run.folder.model_folder / "model.safetensors")
