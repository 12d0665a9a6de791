"""Colour, blur, solarise, posterise and erase against torchvision image by image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from regrain.views.colour import adjust_colour, erase, gaussian_blur, posterise, solarise


def pictures(*shape: int, low: int = 0, high: int = 256) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(0)).float()


def factors(count: int, *, hue: float = 0.0) -> Tensor:
    unit = torch.rand(count, 4, generator=torch.Generator().manual_seed(1))
    return torch.tensor([0.8, 0.7, 0.6, -hue]) + unit * torch.tensor([0.4, 0.6, 0.8, 2 * hue])


def test_colour_is_torchvisions_in_every_order() -> None:
    """Where nothing is clamped the three steps commute, so all six orders are the one matrix."""
    images, chosen = pictures(6, 3, 8, 8, low=90, high=150), factors(6)
    ours = adjust_colour(images, chosen) / 255
    for row, (brightness, contrast, saturation, _) in enumerate(chosen.tolist()):
        steps = (
            lambda image, b=brightness: reference.adjust_brightness(image, b),
            lambda image, c=contrast: reference.adjust_contrast(image, c),
            lambda image, s=saturation: reference.adjust_saturation(image, s),
        )
        for order in itertools.permutations(steps):
            image = images[row] / 255
            for step in order:
                image = step(image)
            torch.testing.assert_close(ours[row], image, atol=2e-4, rtol=0)


def test_hue_turns_the_chroma_of_yiq() -> None:
    images, chosen = (
        pictures(5, 3, 6, 6, low=100, high=150),
        torch.tensor([[1.0, 1, 1, hue] for hue in (-0.4, -0.1, 0, 0.2, 0.5)]),
    )
    ours = adjust_colour(images, chosen).numpy()
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    for image, view, hue in zip(images.numpy(), ours, chosen[:, 3].tolist(), strict=True):
        luma, i, q = np.einsum("ij,jhw->ihw", to_yiq, image)
        turned = (i + 1j * q) * np.exp(-2j * np.pi * hue)
        expected = np.einsum("ij,jhw->ihw", np.linalg.inv(to_yiq), np.stack((luma, turned.real, turned.imag)))
        np.testing.assert_allclose(view, expected, atol=0.01)


def test_a_positive_hue_turns_red_towards_yellow_as_in_torchvision() -> None:
    red = torch.tensor([200.0, 60, 60]).view(1, 3, 1, 1)
    ours = adjust_colour(red, torch.tensor([[1.0, 1, 1, 0.08]])).flatten()
    theirs = reference.adjust_hue(red[0] / 255, 0.08).flatten() * 255
    assert ours[1] > ours[2] + 30
    assert theirs[1] > theirs[2] + 30


def test_grey_is_saturation_zero() -> None:
    images = pictures(4, 3, 8, 8)
    ours = adjust_colour(images, torch.tensor([[1.0, 1, 0, 0.3]] * 4)) / 255
    torch.testing.assert_close(ours, reference.rgb_to_grayscale(images / 255, 3), atol=2e-4, rtol=0)


def test_values_are_clamped_once_at_the_end() -> None:
    images = pictures(1, 3, 8, 8, low=200)
    half_of_double = adjust_colour(images, torch.tensor([[2.0, 0.0, 1, 0]]))
    assert float(half_of_double.max()) == 255  # contrast 0: the doubled mean, clamped
    brighter = adjust_colour(images, torch.tensor([[1.2, 1, 1, 0]]))
    torch.testing.assert_close(brighter, (images * 1.2).clamp(max=255))


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channel_counts_know_brightness_and_contrast(channels: int) -> None:
    images, chosen = pictures(5, channels, 7, 9, low=100, high=140), factors(5, hue=0.2)
    ours = adjust_colour(images, chosen)
    for image, view, (brightness, contrast, _, _) in zip(images, ours, chosen.tolist(), strict=True):
        expected = (image * brightness) * contrast + (1 - contrast) * (image * brightness).mean()
        torch.testing.assert_close(view, expected, atol=0.01, rtol=0)
        if channels == 1:
            theirs = reference.adjust_contrast(reference.adjust_brightness(image / 255, brightness), contrast)
            torch.testing.assert_close(view / 255, theirs, atol=1e-4, rtol=0)


def test_neutral_factors_change_nothing() -> None:
    images = pictures(3, 3, 8, 8)
    torch.testing.assert_close(adjust_colour(images, torch.tensor([[1.0, 1, 1, 0]] * 3)), images, atol=1e-3, rtol=0)


def test_blur_is_torchvisions() -> None:
    images, sigma = pictures(4, 3, 24, 24), torch.tensor([0.1, 0.7, 2.0, 3.5])
    ours = gaussian_blur(images, sigma)
    for image, view, width in zip(images, ours, sigma.tolist(), strict=True):
        expected = reference.gaussian_blur(image, kernel_size=[47, 47], sigma=[width, width])
        torch.testing.assert_close(view, expected, atol=0.01, rtol=0)
    assert torch.equal(gaussian_blur(images, torch.zeros(4)), images)


def test_solarise_and_posterise_are_torchvisions() -> None:
    images = pictures(3, 3, 16, 16)
    for threshold in (0, 100, 128, 255):
        expected = reference.solarize(images.to(torch.uint8), threshold)
        assert torch.equal(solarise(images, threshold).to(torch.uint8), expected)
    for bits in range(9):
        assert torch.equal(posterise(images, bits).to(torch.uint8), reference.posterize(images.to(torch.uint8), bits))


def test_erase_sets_the_box_to_zero() -> None:
    images = pictures(3, 2, 9, 9, low=1)
    boxes = torch.tensor([[2.0, 3, 4, 5], [0, 0, 9, 9], [4, 4, 0, 3]])
    expected = torch.stack(
        [reference.erase(images[row], *boxes[row].int().tolist(), torch.zeros(1)) for row in range(3)]
    )
    assert torch.equal(erase(images.clone(), boxes), expected)
