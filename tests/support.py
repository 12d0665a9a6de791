"""What tests of several folders share."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file

import regrain
from regrain.data import read as load
from regrain.data.dataset import Dataset
from regrain.errors import Code, UserError
from regrain.methods import Method
from regrain.papers.datasets import entries

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


def labels_of(method: Method, samples: int) -> torch.Tensor:
    """Codes (N, levels) of up to three coarse and six fine classes, some unknown."""
    fine = torch.arange(samples) % 6
    columns = {("fine",): [fine], (): []}.get(method.needs.levels, [fine % 3, fine])
    codes = torch.stack(columns[: len(method.classes)], dim=1) if columns else torch.empty(samples, 0).long()
    codes = codes.clone()
    codes[5::7] = -1
    codes[3::8, 1:] = -1
    return codes


def weights(run: regrain.Run) -> dict[str, torch.Tensor]:
    """All that a run has stored of its model."""
    return load_file(run.folder.model_folder / "model.safetensors")


def as_listed(name: str, shared: Path) -> Dataset:
    """A data set of the catalogue, read from its real files, whose classes and samples are those of its entry."""
    entry, data = entries()[name], load(name, root=shared / "data")
    assert data.labels.counts == entry.levels
    assert data.splits is not None
    assert Counter(data.splits) == entry.samples
    return data


def bound_by_permissions(code: str, *arguments: object) -> dict[str, Any]:
    """What Python prints as JSON in a process that permissions bind; tests may run as root, whom they do not."""
    start: list[str] = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("permissions do not bind root, and setpriv (util-linux), which takes that right, is absent")
        start = [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*start, sys.executable, "-c", "import json, sys\n" + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
