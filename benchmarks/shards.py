"""Parquet and Lance shards: classes in a batch of photos that lie in the order of their classes, and the cost of reads.

    python benchmarks/shards.py

The first figure is of the order alone, of 1,000 classes of 1,281 photos of 100 kB; the others are CPU seconds of
200,000 vectors of 128 numbers in batches of 256, on one thread.
"""

from __future__ import annotations

import tempfile
import time
from typing import get_args

import torch

from regrain.data import read, shards
from regrain.data.shards import Format, write_shards
from regrain.training.loader import Loader, _windowed_order

CLASSES, PHOTOS, PHOTO_BYTES, BATCH = 1000, 1281, 100_000, 256
SAMPLES, WIDTH = 200_000, 128


def classes_in_a_batch(format: Format) -> float:
    """Mean over the first 500 batches of an epoch."""
    generator = torch.Generator().manual_seed(0)
    photos = torch.randperm(CLASSES * PHOTOS, generator=generator)  # Parquet: in the order of their keys
    windows = torch.arange(len(photos)) // (shards._WINDOW_BYTES // PHOTO_BYTES)
    order = photos[_windowed_order(windows, len(photos) // BATCH, generator)] if format == "parquet" else photos
    return sum(len((batch // PHOTOS).unique()) for batch in order.split(BATCH)[:500]) / 500


def seconds(format: Format) -> tuple[float, float]:
    """CPU seconds of writing, and of an epoch of reads."""
    values = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0))
    data = read(values.numpy(), labels=[str(i % 10) for i in range(SAMPLES)])
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        write_shards(data, f"{folder}/shards", format=format)
        written = time.process_time()
        for _ in Loader(read(f"{folder}/shards"), batch_size=BATCH, seed=0):
            pass
        return written - start, time.process_time() - written


if __name__ == "__main__":
    torch.set_num_threads(1)
    shards._LOADED_BYTES = 0  # as if memory did not hold them
    for kind in get_args(Format):
        write, epoch = seconds(kind)
        print(
            f"{kind}: {classes_in_a_batch(kind):.0f} classes in a batch; {write:.1f} s to write, {epoch:.1f} s an epoch"
        )
