"""Large images stay encoded and are decoded by workers: the same batches, and errors without a worker's traceback."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regrain.data.dataset import Dataset
from regrain.data.samples import ImageSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.training.loader import Loader
from regrain.training.scan import scan_batches


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    generator = np.random.default_rng(0)
    sources = []
    for index in range(10):
        pixels = generator.integers(0, 255, (40 + index, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        sources.append(str(tmp_path / f"{index}.png"))
    return Dataset(ImageSamples(tuple(sources), 32), Labels.empty(10), np.array([str(i) for i in range(10)]))


def test_workers_give_the_same_batches(photos: Dataset) -> None:
    alone = list(Loader(photos, batch_size=4, seed=0, workers=0))
    helped = list(Loader(photos, batch_size=4, seed=0, workers=2))
    assert len(alone) == len(helped) == 3
    for (raw, labels, ids), (other_raw, other_labels, other_ids) in zip(alone, helped, strict=True):
        assert torch.equal(raw, other_raw)
        assert torch.equal(labels, other_labels)
        assert torch.equal(ids, other_ids)
    scanned = torch.cat([raw for raw, _, _ in scan_batches(photos, batch_size=4, workers=1)])
    assert torch.equal(scanned, photos.samples.load().tensor)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_went_bad_is_named(photos: Dataset, workers: int) -> None:
    assert isinstance(photos.samples, ImageSamples)
    bad = Path(str(photos.samples.sources[3]))
    bad.write_bytes(b"no image any more")
    with pytest.raises(UserError) as caught:
        list(Loader(photos, batch_size=4, seed=0, workers=workers))
    message = str(caught.value)
    assert message.startswith(f"image {bad} is not an image in a known format")
    assert "Traceback" not in message


def test_workers_are_started_once_and_ended(photos: Dataset) -> None:
    before = set(multiprocessing.active_children())
    loader = Loader(photos, batch_size=4, seed=0, workers=2)
    epochs, seen = [], []
    for epoch in range(3):
        loader.epoch, loader.start = epoch, epoch % 2  # a resumed epoch begins at a batch of its own
        epochs.append(torch.cat([ids for _, _, ids in loader]))
        seen.append(set(multiprocessing.active_children()) - before)
    assert len(seen[0]) == 2
    assert seen[0] == seen[1] == seen[2]
    alone = Loader(photos, batch_size=4, seed=0, workers=0)
    for epoch, found in enumerate(epochs):
        alone.epoch, alone.start = epoch, epoch % 2
        assert torch.equal(found, torch.cat([ids for _, _, ids in alone]))
    loader.close()
    for process in seen[0]:
        process.join(10)
    assert not seen[0] & set(multiprocessing.active_children())


def test_an_epoch_that_is_left_is_followed_by_a_whole_one(photos: Dataset) -> None:
    loader = Loader(photos, batch_size=2, seed=0, workers=2)
    next(iter(loader))
    loader.epoch = 1
    assert len(torch.cat([ids for _, _, ids in loader]).unique()) == 10
