"""ImageViews: the pipeline against torchvision, independence of the batch, what presets draw, and error messages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import raises
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from regrain.errors import UserError
from regrain.views import ImagePreset, ImageViews, colour, geometry, image_presets, preset_names, random
from regrain.views.image_parameters import draw_parameters
from regrain.views.random import Draws

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
EVERYTHING = ImagePreset(
    crop_scale=(0.3, 1.0),
    flip_probability=0.5,
    rotate=20,
    translate=0.1,
    shear=10,
    zoom=(0.8, 1.2),
    perspective_probability=0.5,
    fill=30,
    autoaugment=True,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    grey_probability=0.2,
    blur_probability=0.5,
    solarise_probability=0.3,
    posterise_probability=0.3,
    erase_probability=0.5,
)


def pictures(count: int = 24, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def image_views(*presets: object, size: int = 32, channels: int = 3, seed: int = 0) -> ImageViews:
    return ImageViews(list(presets), size=size, mean=MEAN[:1] * channels, std=STD[:1] * channels, seed=seed)


def present(parameter: Tensor | None) -> Tensor:
    assert parameter is not None
    return parameter


def normalise(images: Tensor) -> Tensor:
    return (images / 255 - MEAN[0]) / STD[0]


def test_weak_is_torchvisions_crop_and_flip() -> None:
    views, images, ids = image_views("weak", size=24), pictures(height=40, width=31), torch.arange(24) * 7
    (ours,) = views(images, ids, 3)
    drawn = draw_parameters(views.presets[0], Draws(ids, seed=0, epoch=3, view=0), images, size=views.size)
    for image, view, box, flip in zip(images, ours, drawn.boxes.int().tolist(), present(drawn.flip), strict=True):
        expected = reference.resized_crop(image.float(), *box, size=[24, 24], antialias=True)
        expected = reference.hflip(expected) if flip else expected
        torch.testing.assert_close(view, normalise(expected), atol=1e-4, rtol=0)


def test_simclr_is_torchvisions_where_nothing_is_clamped() -> None:
    views = image_views({"preset": "simclr", "hue": 0.0, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1})
    images, ids = 100 + pictures() // 5, torch.arange(24)
    (ours,) = views(images, ids, 0)
    drawn = draw_parameters(views.presets[0], Draws(ids, seed=0, epoch=0, view=0), images, size=views.size)
    for row, (brightness, contrast, saturation, _) in enumerate(present(drawn.colour).tolist()):
        image = reference.resized_crop(images[row].float() / 255, *drawn.boxes[row].int().tolist(), size=[32, 32])
        image = reference.hflip(image) if present(drawn.flip)[row] else image
        image = reference.adjust_contrast(reference.adjust_brightness(image, brightness), contrast)
        image = (
            reference.rgb_to_grayscale(image, 3) if saturation == 0 else reference.adjust_saturation(image, saturation)
        )
        torch.testing.assert_close(ours[row], normalise(255 * image), atol=2e-3, rtol=0)


@pytest.mark.parametrize("preset", ["strong", "simclr", "cars-strong", "glyph-strong", EVERYTHING])
def test_a_view_does_not_depend_on_the_batch(preset: str | ImagePreset) -> None:
    views, images = image_views(preset, "weak"), pictures()
    ids = torch.randint(-(2**63), 2**63 - 1, (24,))
    whole = views(images, ids, 5)
    order = torch.randperm(24)
    shuffled = views(images[order], ids[order], 5)
    for before, after in zip(whole, shuffled, strict=True):
        assert torch.equal(after, before[order])
    for row in range(0, 24, 5):
        alone = views(images[row : row + 1], ids[row : row + 1], 5)
        for before, after in zip(whole, alone, strict=True):
            assert torch.equal(after[0], before[row])


def test_large_batches_go_through_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    views, images, ids = image_views(EVERYTHING), pictures(), torch.arange(24)
    (whole,) = views(images, ids, 0)
    monkeypatch.setattr("regrain.views.image._PART_VALUES", 5 * 3 * 32 * 32)
    assert torch.equal(views(images, ids, 0)[0], whole)


def test_epoch_view_and_seed_change_a_view() -> None:
    images, ids = pictures(), torch.arange(24)
    views = image_views("weak", "weak")
    first, second = views(images, ids, 0)
    assert not torch.allclose(first, second)
    assert not torch.allclose(views(images, ids, 1)[0], first)
    assert not torch.allclose(image_views("weak", seed=1)(images, ids, 0)[0], first)
    assert torch.equal(views(images, ids, 0)[0], first)


def test_adding_a_transform_keeps_the_earlier_draws() -> None:
    ids, images = torch.arange(24), pictures()
    draws = Draws(ids, seed=0, epoch=0, view=0)
    before = draw_parameters(image_presets(32)["weak"], draws, images, size=32)
    after = draw_parameters(replace(EVERYTHING, crop_scale=(0.2, 1.0)), draws, images, size=32)
    assert torch.equal(before.boxes, after.boxes)
    assert torch.equal(present(before.flip), present(after.flip))


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 28, 28), (3, 45, 33), (4, 17, 64)])
@pytest.mark.parametrize("count", [1, 5])
def test_shapes_and_memory_format(channels: int, height: int, width: int, count: int) -> None:
    views = image_views(EVERYTHING, "strong", "weak", size=21, channels=channels)
    images = pictures(count, channels, height, width)
    made = views(images, torch.arange(count), 0)
    assert len(made) == views.count == 3
    for view in (*made, views.plain(images)):
        assert view.shape == (count, channels, 21, 21)
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert torch.isfinite(view).all()
    assert torch.equal(views(images.contiguous(memory_format=torch.channels_last), torch.arange(count), 0)[0], made[0])


@pytest.mark.parametrize("preset", sorted(preset_names("image")))
def test_values_stay_within_black_and_white(preset: str) -> None:
    (view,) = image_views(preset)(pictures(), torch.arange(24), 0)
    black, white = (0 - MEAN[0]) / STD[0], (1 - MEAN[0]) / STD[0]
    assert view.min() >= black - 1e-4
    assert view.max() <= white + 1e-4


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 27, 32), (31, 64, 20)])
def test_plain_is_the_resized_central_square(height: int, width: int, size: int) -> None:
    views, images = image_views("plain", size=size), pictures(height=height, width=width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = images[:, :, top : top + side, left : left + side].float()
    expected = normalise(reference.resize(square, [size, size], antialias=True))
    torch.testing.assert_close(views.plain(images), expected, atol=1e-4, rtol=0)
    assert torch.equal(views(images, torch.arange(24), 9)[0], views.plain(images))
    if height == width == size:
        torch.testing.assert_close(views.plain(images), normalise(images.float()), atol=1e-5, rtol=0)


def test_how_often_things_happen() -> None:
    views, count = image_views(EVERYTHING, size=16), 4000
    images = torch.zeros(count, 3, 16, 16, dtype=torch.uint8)
    drawn = draw_parameters(EVERYTHING, Draws(torch.arange(count), seed=0, epoch=0, view=0), images, size=views.size)
    flip, colour, blur, solarise, posterise, erase = map(
        present, (drawn.flip, drawn.colour, drawn.blur, drawn.solarise, drawn.posterise, drawn.erase)
    )
    shares = {
        "flip": (flip, 0.5),
        "grey": (colour[:, 2] == 0, 0.2),
        "no jitter": (colour[:, 0] == 1, 0.2),
        "blur": (blur > 0, 0.5),
        "solarise": (solarise < 256, 0.3),
        "posterise": (posterise < 8, 0.3),
        "erase": (erase[:, 2] > 0, 0.5),
    }
    for name, (happened, expected) in shares.items():
        assert float(happened.float().mean()) == pytest.approx(expected, abs=0.03), name
    jittered = colour[colour[:, 0] != 1]
    assert jittered[:, 0].min() >= 0.6
    assert jittered[:, 0].max() <= 1.4
    assert jittered[:, 3].abs().max() <= 0.1
    assert blur[blur > 0].min() >= 0.1


def test_presets_of_the_papers() -> None:
    presets = image_presets(32)
    assert presets["weak"] == ImagePreset(crop_scale=(0.2, 1.0), flip_probability=0.5)
    assert presets["strong"] == replace(presets["weak"], autoaugment=True, fill=128)
    assert presets["simclr"].blur_probability == 0
    assert image_presets(224)["simclr"].blur_probability == 0.5
    assert presets["sop-weak"] == presets["sop-strong"] == presets["cars-weak"]
    assert presets["glyph-strong"].flip_probability == 0


def test_presets_can_be_overridden() -> None:
    views = image_views({"preset": "weak", "crop_scale": [0.5, 1.0]}, {"rotate": 5}, ImagePreset(hue=0.1))
    assert views.presets[0] == ImagePreset(crop_scale=(0.5, 1.0), flip_probability=0.5)
    assert views.presets[1] == ImagePreset(rotate=5)


@pytest.mark.parametrize(
    ("presets", "message"),
    [
        (["stron"], "did you mean 'strong'"),
        ([{"preset": "weak", "flip_probabilty": 1}], "did you mean 'flip_probability'"),
        ([{"preset": "weak", "flip_probability": 2}], "flip_probability must be between 0 and 1; got 2"),
        ([{"crop_scale": (1.0, 0.2)}], "crop_scale must be a pair of numbers"),
        ([{"crop_scale": 0.2}], "crop_scale must be a pair of numbers"),
        ([{"zoom": None}], "zoom must be a pair of numbers"),
        ([{"rotate": "much"}], "rotate must be a number between 0 and 180; got 'much'"),
        ("strong", "one entry per view"),
        ([], "one entry per view"),
        ([3], "a preset is a name"),
    ],
)
def test_wrong_presets_are_explained(presets: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageViews(presets, size=32, mean=MEAN, std=STD)  # type: ignore[arg-type]


def test_wrong_inputs_are_explained() -> None:
    views = image_views("weak")
    with raises("wrong_shape"):
        views(pictures().float(), torch.arange(24), 0)
    with raises("wrong_shape"):
        views(pictures(), torch.arange(23), 0)
    with raises("wrong_shape"):
        views(pictures(), torch.rand(24), 0)
    with raises("wrong_shape"):
        views(pictures(channels=1), torch.arange(24), 0)
    with raises("out_of_range"):
        ImageViews(["weak"], size=32, mean=MEAN, std=(0, 1, 1))
    with raises("unknown_name"):
        preset_names("imag")


def test_views_are_not_saved_and_not_trained() -> None:
    views = image_views("strong")
    assert not views.state_dict()
    assert not list(views.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (inside,) = views(pictures(), torch.arange(24), 0)
    assert torch.equal(inside, views(pictures(), torch.arange(24), 0)[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_device_does_not_matter() -> None:
    views, images, ids = image_views("weak", "simclr", "cars-strong", "strong"), pictures(), torch.arange(24)
    for here, there in zip(views(images, ids, 0), views(images.cuda(), ids.cuda(), 0), strict=True):
        assert there.device.type == "cuda"
        assert float(((there.cpu() - here).abs() > 0.02).float().mean()) < 0.01


def test_views_work_after_inference_mode() -> None:
    """Constants are kept from call to call; those first made in inference mode must serve training too."""
    for kept in (geometry.constant, geometry._centres, geometry._square_grid, colour._colour_basis, random._counters):
        kept.cache_clear()
    views, images, ids = image_views(EVERYTHING), pictures(), torch.arange(24)
    with torch.inference_mode():
        before = views(images, ids, 0)[0].clone()
    (after,) = views(images, ids, 0)
    assert torch.equal(after, before)
    weight = torch.ones(3, 1, 1, requires_grad=True)
    (after * weight).sum().backward()
    assert weight.grad is not None


def test_blur_of_all_samples_leaves_those_alone_that_are_not_blurred(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (12, 3, 96, 96), dtype=torch.uint8)
    views = ImageViews(["simclr"], size=96, mean=[0.5], std=[0.25])
    some = views(images, torch.arange(12), 0)[0]
    monkeypatch.setattr("regrain.views.image.may_look", lambda _: False)  # as on a GPU
    torch.testing.assert_close(views(images, torch.arange(12), 0)[0], some)
