"""Every operation of AutoAugment against PIL or torchvision on uint8 images, and the policy against its table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms import functional as reference

from regrain.views.autoaugment import (
    _CIFAR10_POLICY,
    _OPERATIONS,
    POLICY_DRAWS,
    _policy_table,
    apply_policy,
    draw_policy,
)

NAMES = list(_OPERATIONS)
FILL = 128


def pictures(count: int = 12, channels: int = 3, size: int = 32) -> Tensor:
    """Smooth pictures with noise, so that equalising and stretching have something to do."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator) * 160 + 40
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    noise = torch.randint(-20, 20, smooth.shape, generator=generator)
    return (smooth + noise).round().clamp(0, 255)


def apply(name: str, images: Tensor, magnitudes: Tensor) -> Tensor:
    return _OPERATIONS[name](images.clone(), magnitudes, FILL).to(torch.uint8)


def with_pil(function: Callable[[Image.Image], Image.Image], image: Tensor) -> Tensor:
    array = image.to(torch.uint8).permute(1, 2, 0).numpy()
    return torch.from_numpy(np.array(function(Image.fromarray(array)))).permute(2, 0, 1)


def assert_almost_equal(ours: Tensor, theirs: Tensor, *, share: float = 0.005, levels: int = 1) -> None:
    """Equal but for a small share of values, which differ by rounding."""
    difference = (ours.int() - theirs.int()).abs()
    assert float((difference > 0).float().mean()) <= share
    assert int(difference.max()) <= levels


@pytest.mark.parametrize(
    ("name", "enhance"),
    [
        ("color", ImageEnhance.Color),
        ("contrast", ImageEnhance.Contrast),
        ("brightness", ImageEnhance.Brightness),
        ("sharpness", ImageEnhance.Sharpness),
    ],
)
def test_enhancements_are_pils(name: str, enhance: type) -> None:
    images, magnitudes = pictures(), torch.linspace(-0.9, 0.9, 12)
    for image, view, magnitude in zip(images, apply(name, images, magnitudes), magnitudes.tolist(), strict=True):
        expected = with_pil(lambda picture, m=magnitude: enhance(picture).enhance(1 + m), image)
        assert_almost_equal(view, expected)


@pytest.mark.parametrize(
    ("name", "function"),
    [("invert", ImageOps.invert), ("equalize", ImageOps.equalize), ("autocontrast", ImageOps.autocontrast)],
)
def test_operations_without_magnitude_are_pils(name: str, function: Callable[[Image.Image], Image.Image]) -> None:
    images = torch.cat((pictures(), torch.full((1, 3, 32, 32), 7.0)))  # and one of a single value
    images[0, 1] = 200  # and a flat channel
    for image, view in zip(images, apply(name, images, torch.zeros(13)), strict=True):
        assert torch.equal(view, with_pil(function, image))


def test_posterize_and_solarize_are_pils() -> None:
    images = pictures(9)
    bits, thresholds = torch.linspace(8, 4, 9), torch.linspace(255, 0, 9)
    for row in range(9):
        rounded = round(float(bits[row]))
        expected = with_pil(lambda picture, b=rounded: ImageOps.posterize(picture, b), images[row])
        assert torch.equal(apply("posterize", images, bits)[row], expected)
        expected = with_pil(
            lambda picture, t=float(thresholds[row]): ImageOps.solarize(picture, math.ceil(t)), images[row]
        )
        assert torch.equal(apply("solarize", images, thresholds)[row], expected)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_shear_and_translation_are_pils(axis: str) -> None:
    images, signs = pictures(), torch.tensor([1.0, -1.0]).repeat(6)
    tangents, shares = torch.linspace(0.01, 0.3, 12) * signs, torch.linspace(0, 150 / 331, 12) * signs
    for row in range(12):
        tangent, pixels = float(tangents[row]), int(float(shares[row]) * 32)
        matrix = (1, tangent, 0, 0, 1, 0) if axis == "x" else (1, 0, 0, tangent, 1, 0)
        sheared = with_pil(
            lambda picture, m=matrix: picture.transform((32, 32), Image.AFFINE, m, fillcolor=(FILL,) * 3), images[row]
        )
        differs = (apply(f"shear_{axis}", images, tangents)[row] != sheared).float().mean()
        assert float(differs) <= 0.01  # places half way between two pixels
        shift = [pixels, 0] if axis == "x" else [0, pixels]
        moved = reference.affine(images[row].to(torch.uint8), 0.0, shift, 1.0, [0.0, 0.0], fill=[FILL] * 3)
        assert torch.equal(apply(f"translate_{axis}", images, shares)[row], moved)


def test_rotation_is_torchvisions() -> None:
    images, degrees = pictures(), torch.linspace(-30, 30, 12)
    for row in range(12):
        expected = reference.rotate(images[row].to(torch.uint8), float(degrees[row]), fill=[FILL] * 3)
        differs = (apply("rotate", images, degrees)[row] != expected).float().mean()
        assert float(differs) <= 0.01


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_operations_take_any_number_of_channels(name: str, channels: int) -> None:
    images = pictures(3, channels)
    views = _OPERATIONS[name](images.clone(), torch.full((3,), 0.3 if name != "posterize" else 4.0), FILL)
    assert views.shape == images.shape
    assert torch.equal(views, views.round())
    assert views.min() >= 0
    assert views.max() <= 255


def test_the_table_is_the_published_policy() -> None:
    """torchvision's copy of table 7 and of the magnitudes."""
    theirs = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space = theirs._augmentation_space(10, (1, 1))
    table = _policy_table(torch.device("cpu"))
    for ours, numbers, published in zip(_CIFAR10_POLICY, table, theirs.policies, strict=True):
        for (name, *_), (index, probability, magnitude, signed), (their_name, their_probability, level) in zip(
            ours, numbers.tolist(), published, strict=True
        ):
            assert name.replace("_", "") == their_name.lower()
            assert NAMES[int(index)] == name
            assert probability == pytest.approx(their_probability)
            magnitudes, their_signed = space[their_name]
            assert bool(signed) == their_signed
            if level is not None:
                expected = float(magnitudes[level])
                assert (round(magnitude) if name == "posterize" else magnitude) == pytest.approx(expected, rel=1e-5)


def test_every_sample_draws_its_own_sub_policy() -> None:
    draws = torch.rand(25_000, POLICY_DRAWS, generator=torch.Generator().manual_seed(0))
    operations, magnitudes = draw_policy(draws)
    expected: Counter[str] = Counter()
    for sub_policy in _CIFAR10_POLICY:
        for name, probability, _ in sub_policy:
            expected[name] += probability / 25
    for name, share in expected.items():
        assert float((operations == NAMES.index(name)).sum() / 25_000) == pytest.approx(share, abs=0.02)
    turned = magnitudes[operations == NAMES.index("translate_y")]
    assert float((turned < 0).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_the_batch_is_the_samples_one_by_one() -> None:
    images = pictures(40)
    operations = torch.randint(0, len(NAMES) + 1, (40, 2), generator=torch.Generator().manual_seed(0))
    magnitudes = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 0.9
    magnitudes = torch.where(operations == NAMES.index("posterize"), 5.0, magnitudes)
    together = apply_policy(images.clone(), operations, magnitudes, fill=FILL)
    for row in range(40):
        image = images[row : row + 1].clone()
        for operation, magnitude in zip(operations[row].tolist(), magnitudes[row], strict=True):
            if operation < len(NAMES):
                image = _OPERATIONS[NAMES[operation]](image, magnitude[None], FILL)
        assert torch.equal(together[row], image[0])


def test_all_operations_on_all_samples_say_what_groups_say(monkeypatch: pytest.MonkeyPatch) -> None:
    images, draws = pictures(200), torch.rand(200, POLICY_DRAWS, generator=torch.Generator().manual_seed(1))
    grouped = apply_policy(images.clone(), *draw_policy(draws), fill=FILL)
    monkeypatch.setattr("regrain.views.autoaugment.may_look", lambda _: False)  # as on a GPU
    assert torch.equal(apply_policy(images.clone(), *draw_policy(draws), fill=FILL), grouped)
