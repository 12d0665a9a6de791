"""Crop, flip, affine and perspective against torchvision image by image, and their composition against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference
from torchvision.transforms.functional import InterpolationMode, _get_inverse_affine_matrix, _get_perspective_coeffs

from regrain.views.geometry import (
    BOX_DRAWS,
    affine_map,
    centre_boxes,
    crop_and_resize,
    flip_map,
    perspective_map,
    random_boxes,
    warp,
)

BILINEAR = InterpolationMode.BILINEAR


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def draw(*shape: int, low: float = 0.0, high: float = 1.0, seed: int = 1) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def whole(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    return centre_boxes(count, height, width, height, width, images.device)


@pytest.mark.parametrize(
    ("height", "width", "size", "channels"), [(32, 32, 32, 3), (48, 37, 32, 1), (9, 20, 24, 4), (150, 61, 13, 3)]
)
def test_crop_and_flip_are_torchvisions(height: int, width: int, size: int, channels: int) -> None:
    images = pictures(20, channels, height, width)
    boxes = random_boxes(draw(20, BOX_DRAWS), scale=(0.02, 1.0), ratio=(0.4, 2.5), height=height, width=width)
    flip = draw(20) < 0.5
    ours = crop_and_resize(images, boxes, size=size, flip=flip)
    for image, box, flipped, view in zip(images, boxes.int().tolist(), flip, ours, strict=True):
        expected = reference.resized_crop(image, *box, size=[size, size], interpolation=BILINEAR, antialias=True)
        expected = reference.hflip(expected) if flipped else expected
        torch.testing.assert_close(view, expected, atol=2e-3, rtol=0)


def test_affine_is_torchvisions() -> None:
    images = pictures(12, 3, 17, 17)
    rotation, zoom = draw(12, low=-60, high=60), draw(12, low=0.6, high=1.7, seed=2)
    shift = draw(12, 2, low=-6, high=6, seed=3).round() / 17
    shear = draw(12, 2, low=-30, high=30, seed=4)
    ours = warp(images, affine_map(rotation, shift, shear, zoom), whole(images), size=17, fill=0)
    for row in range(12):
        expected = reference.affine(
            images[row],
            angle=float(rotation[row]),
            translate=(shift[row] * 17).round().int().tolist(),
            scale=float(zoom[row]),
            shear=shear[row].tolist(),
            interpolation=BILINEAR,
        )
        torch.testing.assert_close(ours[row], expected, atol=0.02, rtol=0)


def test_perspective_is_torchvisions() -> None:
    images = pictures(12, 1, 20, 20)
    inwards = draw(12, 4, 2, high=0.6)
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    corners = square * (1 - inwards)
    ours = warp(images, perspective_map(corners), whole(images), size=20, fill=0)
    start = ((square + 1) * 10).tolist()
    for row in range(12):
        end = ((corners[row] + 1) * 10).tolist()
        expected = reference.perspective(images[row], start, end, interpolation=BILINEAR)
        torch.testing.assert_close(ours[row], expected, atol=0.05, rtol=0)


def slow_warp(
    image: np.ndarray,
    box: list[int],
    flipped: bool,
    affine: list[float],
    coefficients: list[float],
    size: int,
    fill: float,
) -> np.ndarray:
    """One image, pixel by pixel, in pixel units: traced back through perspective, affine map, flip and crop."""
    top, left, tall, wide = box
    crop = np.pad(image[:, top : top + tall, left : left + wide], ((0, 0), (1, 1), (1, 1)), constant_values=fill)
    out = np.full((len(image), size, size), float(fill))
    a, b, c, d, e, f, g, h = coefficients
    for row in range(size):
        for column in range(size):
            x, y = column + 0.5, row + 0.5
            x, y = (a * x + b * y + c) / (g * x + h * y + 1), (d * x + e * y + f) / (g * x + h * y + 1)
            x, y = x - size / 2, y - size / 2  # torchvision's affine has its origin in the centre
            x, y = affine[0] * x + affine[1] * y + affine[2], affine[3] * x + affine[4] * y + affine[5]
            x, y = x + size / 2, y + size / 2
            x = size - x if flipped else x
            x, y = x * wide / size + 0.5, y * tall / size + 0.5  # pixels of the padded crop, first centre at 0
            if not (0 <= x < wide + 1 and 0 <= y < tall + 1):
                continue
            i, j, u, v = int(y), int(x), x - int(x), y - int(y)
            taps = crop[:, i : i + 2, j : j + 2]
            out[:, row, column] = (taps * np.outer([1 - v, v], [1 - u, u])).sum(axis=(1, 2))
    return out


def test_all_geometry_is_one_resampling() -> None:
    images, size, count = pictures(6, 2, 14, 11), 10, 6
    boxes = random_boxes(draw(count, BOX_DRAWS), scale=(0.4, 0.9), ratio=(0.7, 1.4), height=14, width=11)
    flip = torch.tensor([True, False] * 3)
    rotation, zoom = draw(count, low=-40, high=40), draw(count, low=0.7, high=1.2, seed=2)
    shift, shear = draw(count, 2, low=-0.2, high=0.2, seed=3), draw(count, 2, low=-20, high=20, seed=4)
    square = torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    corners = square * (1 - draw(count, 4, 2, high=0.4, seed=5))
    maps = flip_map(flip) @ affine_map(rotation, shift, shear, zoom) @ perspective_map(corners)
    ours = warp(images, maps, boxes, size=size, fill=77)
    start = ((square + 1) * size / 2).tolist()
    for row in range(count):
        affine = _get_inverse_affine_matrix(
            [0.0, 0.0], float(rotation[row]), (shift[row] * size).tolist(), float(zoom[row]), shear[row].tolist()
        )
        coefficients = _get_perspective_coeffs(start, ((corners[row] + 1) * size / 2).tolist())
        box = boxes[row].int().tolist()
        expected = slow_warp(images[row].numpy(), box, bool(flip[row]), affine, coefficients, size, fill=77)
        np.testing.assert_allclose(ours[row].numpy(), expected, atol=0.05)


def test_a_warp_that_only_crops_is_the_separable_crop() -> None:
    images = pictures(8, 3, 20, 24)
    boxes = random_boxes(draw(8, BOX_DRAWS), scale=(0.1, 0.4), ratio=(0.7, 1.4), height=20, width=24)
    flip = draw(8) < 0.5
    warped = warp(images, flip_map(flip), boxes, size=24, fill=0)
    inside = slice(2, -2)  # at the border the crop repeats its edge where the warp fades into the fill
    expected = crop_and_resize(images, boxes, size=24, flip=flip)
    torch.testing.assert_close(warped[:, :, inside, inside], expected[:, :, inside, inside], atol=0.01, rtol=0)


def test_without_fill_the_image_goes_on_beyond_the_crop() -> None:
    images = pictures(1, 1, 16, 16)
    half = affine_map(torch.zeros(1), torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([0.5]))
    seen = warp(images, half, torch.tensor([[4.0, 4, 8, 8]]), size=16, fill=None)
    torch.testing.assert_close(seen, images, atol=1e-3, rtol=0)


def test_strong_shrinking_does_not_alias() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = (255.0 * ((x + y) % 2))[None, None]
    turned = affine_map(torch.tensor([30.0]), torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1))
    seen = warp(board, turned, torch.tensor([[0.0, 0, 64, 64]]), size=8, fill=None)
    torch.testing.assert_close(seen[..., 2:-2, 2:-2], torch.full((1, 1, 4, 4), 127.5), atol=25, rtol=0)


def test_what_lies_behind_the_horizon_is_filled() -> None:
    """With corners this far inside, part of the plane is behind the viewer."""
    corners = torch.tensor([[[-0.1, -0.1], [1, -1], [1, 1], [-0.1, 0.1]]])
    seen = warp(
        torch.full((1, 1, 16, 16), 9.0), perspective_map(corners), torch.tensor([[0.0, 0, 16, 16]]), size=16, fill=0
    )
    assert float(seen[..., :4].abs().max()) == 0
    assert float(seen[0, 0, 8, 12]) == pytest.approx(9, abs=1e-3)


def test_boxes_are_distributed_like_torchvisions() -> None:
    count, height, width = 4000, 60, 45
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    ours = random_boxes(draw(count, BOX_DRAWS), scale=scale, ratio=ratio, height=height, width=width)
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(count)])
    ours = ours.numpy()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 1e-3


def test_crop_area_is_uniform_in_its_range() -> None:
    boxes = random_boxes(draw(5000, BOX_DRAWS), scale=(0.2, 0.7), ratio=(0.9, 1.1), height=500, width=500)
    shares = (boxes[:, 2] * boxes[:, 3] / 500**2).numpy()
    assert stats.kstest(shares, stats.uniform(0.2, 0.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (7, 7), (1, 1)])
def test_boxes_fit_any_image(height: int, width: int) -> None:
    boxes = random_boxes(draw(500, BOX_DRAWS), scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), height=height, width=width)
    assert torch.equal(boxes, boxes.round())
    assert boxes[:, 2:].min() >= 1
    assert boxes[:, :2].min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).amax(dim=0).tolist() <= [height, width]
