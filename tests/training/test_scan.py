"""A pass over all samples: order, threads that decode ahead, and the modes of modules."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from regrain.data.dataset import Dataset
from regrain.data.samples import ImageSamples, TensorSamples, TextSamples
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.training.scan import scan_batches, scanning


def dataset(samples: ImageSamples | TensorSamples | TextSamples) -> Dataset:
    return Dataset(samples, Labels.empty(len(samples)), np.array([str(i) for i in range(len(samples))]))


@pytest.fixture
def photos(tmp_path: Path) -> ImageSamples:
    draw = np.random.default_rng(0)
    for row in range(30):
        Image.fromarray(draw.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{row:02}.png")
    return ImageSamples(tuple(str(file) for file in sorted(tmp_path.iterdir())), 16)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_images_are_decoded_ahead_in_order(photos: ImageSamples, workers: int) -> None:
    data = dataset(photos)
    before = threading.active_count()
    raw, _, keys = zip(*scan_batches(data, batch_size=4, workers=workers), strict=True)
    assert torch.equal(torch.cat(raw), photos.load().tensor)
    assert torch.equal(torch.cat(keys), data.keys)
    assert threading.active_count() == before


def test_leaving_early_stops_the_threads(photos: ImageSamples) -> None:
    before = threading.active_count()
    batches = scan_batches(dataset(photos), batch_size=2, workers=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


def test_a_damaged_image_is_named(photos: ImageSamples) -> None:
    Path(str(photos.sources[17])).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"17\.png is not an image in a known format"):
        list(scan_batches(dataset(photos), batch_size=4, workers=2))


@pytest.mark.parametrize("side", [8, 32, 224, 600])
def test_batches_of_images_have_few_pixels(side: int) -> None:
    data = dataset(TensorSamples(torch.zeros(600, 1, side, side, dtype=torch.uint8), "image"))
    sizes = [len(keys) for _, _, keys in scan_batches(data)]
    assert sum(sizes) == 600
    assert 8 <= sizes[0] <= 512
    assert sizes[0] * side**2 <= max(2**16, 8 * side**2)


def test_processes_share_a_pass() -> None:
    data = dataset(TextSamples(tuple(map(str, range(10)))))
    shares = [next(iter(scan_batches(data, rank=rank, world_size=3)))[0] for rank in range(3)]
    assert [text for share in shares for text in share] == list(data.samples.take(torch.arange(10)))


def test_modes_come_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3).eval(), nn.Linear(3, 2))
    modes = [part.training for part in module.modules()]
    x: Tensor = torch.ones(2, 3)
    with scanning(torch.float32, module, None):
        assert not any(part.training for part in module.modules())
        assert torch.equal(module(x), module(x))
        assert not module(x).requires_grad
    with pytest.raises(RuntimeError), scanning(torch.float32, module):
        module(torch.ones(2, 7))
    assert [part.training for part in module.modules()] == modes
