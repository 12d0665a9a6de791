"""Seconds to the first step of a training on very many small photographs, each start in a fresh process.

    python benchmarks/first_step.py [--photos 100000] [--starts 2]

The photographs (JPEG, 32 pixels, all different) are written once into a temporary folder of 100 classes,
and removed at the end. Without ``--cache`` of the fit, and with it, the first start finds an empty cache.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def write_photos(folder: Path, count: int) -> None:
    """A gradient and noise in each, by class 0 to 99."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    y, x = np.mgrid[-16:16, -16:16]
    for number in range(count):
        place = folder / f"super{number % 100 // 10}" / f"class{number % 100}"
        place.mkdir(parents=True, exist_ok=True)
        across, down = 3 * generator.normal(size=2)
        pixels = (128 + across * x + down * y)[..., None] + 12 * generator.normal(size=(32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number}.jpg", quality=75)


def start(folder: Path, cache: bool) -> None:
    """Train until the first step is done, and print how long that took."""
    import lightning  # noqa: F401
    import torch

    import regrain
    import regrain.verbs
    from regrain.errors import Stopped

    torch.set_num_threads(1)
    stop = threading.Event()
    stop.set()
    began, worked = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(Stopped):
        regrain.fit(
            "maskcon", folder, encoder="conv4", out=f"{scratch}/run", interrupt=stop, device="cpu", cache=cache,
            settings={"epochs": 2, "batch_size": 256},
        )  # fmt: skip
    print(f"{time.monotonic() - began:.1f} s, of which {time.process_time() - worked:.1f} s of this process's CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        start(Path(asked.here[0]), asked.here[1] == "cache")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        write_photos(folder, asked.photos)
        time.sleep(3)  # a folder that has just changed is listed again
        for kind in ("plain", "cache"):
            for number in range(asked.starts):
                environment = {**os.environ, "REGRAIN_CACHE": f"{scratch}/{kind}", "PYTHONWARNINGS": "ignore"}
                command = [sys.executable, __file__, "--here", str(folder), kind]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                print(f"{kind}, start {number + 1}: {done.stdout.strip().splitlines()[-1]}", flush=True)


if __name__ == "__main__":
    main()
