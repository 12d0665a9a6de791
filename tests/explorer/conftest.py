"""A small run with discovered subclasses, copied for each test that explores it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explorer_hand import Hand

import regrain
from regrain.explorer.session import Session

KINDS = ("animal", "<img src=x onerror=alert(1)>tool")
SUBS, PER_SUB, WIDTH = 3, 24, 6


@pytest.fixture(scope="package")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six well separated blobs, three under each of two superclasses; every fourth row is tested."""
    generator = np.random.default_rng(0)
    rows = []
    for sub in range(len(KINDS) * SUBS):
        centre = 4 * np.eye(WIDTH)[sub]
        for number in range(PER_SUB):
            values = dict(zip([f"x{i}" for i in range(WIDTH)], centre + generator.normal(0, 0.4, WIDTH), strict=True))
            split = "test" if number % 4 == 3 else "train"
            row = {"id": f"s{sub}-{number}", "split": split, "kind": KINDS[sub // SUBS], "sub": f"sub{sub}"}
            rows.append(row | values)
    file = tmp_path_factory.mktemp("data") / "blobs.csv"
    pd.DataFrame(rows).sample(frac=1, random_state=0).to_csv(file, index=False)
    return file


@pytest.fixture(scope="package")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on it that saw superclasses alone, with three subclasses found in each."""
    out = tmp_path_factory.mktemp("runs") / "run"
    run = regrain.fit(
        "supcon", str(table), levels=["kind", "sub"], out=out, settings=["epochs=1", "batch_size=48"], device="cpu"
    )
    regrain.discover(run, each=SUBS)
    return out


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def session(run_folder: Path) -> Iterator[Session]:
    """An open exploration of it."""
    opened = Session(regrain.Run.open(run_folder, device="cpu"))
    yield opened
    opened.close()


@pytest.fixture
def hand(session: Session) -> Hand:
    """One browser's hand."""
    return Hand(session)
