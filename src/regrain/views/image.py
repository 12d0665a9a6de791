"""Views of images: the whole batch at once, every sample with its own parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.views.autoaugment import POLICY_DRAWS, apply_policy, draw_policy
from regrain.views.base import Views, check_probabilities, check_ranges, check_sizes
from regrain.views.colour import adjust_colour, erase, gaussian_blur, posterise, solarise
from regrain.views.geometry import (
    BOX_DRAWS,
    affine_map,
    centre_boxes,
    constant,
    crop_and_resize,
    flip_map,
    perspective_map,
    random_boxes,
    warp,
)
from regrain.views.random import Draws

__all__ = ["ImagePreset", "ImageViews", "image_presets"]

_PART_VALUES = 2**20  # float32 values of one temporary on a CPU (4 MB): larger ones do not stay in the cache
_BLUR_FROM_SIZE = 64  # SimCLR blurs ImageNet, not CIFAR: below this size blur removes what tells subclasses apart


@dataclass(frozen=True, kw_only=True)
class ImagePreset:
    """What happens to an image, in this order; the defaults do nothing.

    Parameters
    ----------
    crop_scale, crop_ratio
        Share of the image's area and width over height of a random crop; ``crop_scale=None``: the central square.
    flip_probability
        Of mirroring left and right.
    rotate, translate, shear, zoom
        Degrees either way; share of the side either way; degrees either way along x and along y; factor (from, to).
    perspective, perspective_probability
        Each corner moves inwards by up to this share of half a side.
    fill
        Grey value in [0, 255] of what the geometry uncovers; ``None``: the image goes on beyond the crop, and its edge
        pixels beyond the image.
    autoaugment
        The AutoAugment policy of CIFAR-10, a sub-policy per sample.
    brightness, contrast, saturation, hue, jitter_probability
        Factors from [1 - value, 1 + value] (not below 0); hue in turns from [-value, value].
    grey_probability
    blur_sigma, blur_probability
        Standard deviation of the Gaussian in output pixels.
    solarise_threshold, solarise_probability
        Values at or above the threshold (of 255) are inverted.
    posterise_bits, posterise_probability
    erase_scale, erase_ratio, erase_probability
        A box of this share of the area and of this ratio is set to the mean colour.

    Examples
    --------
    >>> ImagePreset(flip_probability=0.5, rotate=10).rotate
    10
    """

    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.0
    rotate: float = 0.0
    translate: float = 0.0
    shear: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    perspective: float = 0.5
    perspective_probability: float = 0.0
    fill: float | None = None
    autoaugment: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    jitter_probability: float = 1.0
    grey_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_probability: float = 0.0
    solarise_threshold: float = 128.0
    solarise_probability: float = 0.0
    posterise_bits: int = 4
    posterise_probability: float = 0.0
    erase_scale: tuple[float, float] = (0.02, 0.33)
    erase_ratio: tuple[float, float] = (0.3, 3.3)
    erase_probability: float = 0.0

    def __post_init__(self) -> None:
        names = ("flip", "perspective", "jitter", "grey", "blur", "solarise", "posterise", "erase")
        check_probabilities(self, *(f"{name}_probability" for name in names))
        check_ranges(self, 0, 1, "crop_scale", "erase_scale")
        check_ranges(self, 0, float("inf"), "crop_ratio", "zoom", "blur_sigma", "erase_ratio")
        check_sizes(self, 1, "translate", "brightness", "contrast", "saturation")
        check_sizes(self, 0.99, "perspective")
        check_sizes(self, 0.5, "hue")
        check_sizes(self, 180, "rotate")
        check_sizes(self, 80, "shear")
        check_sizes(self, 8, "posterise_bits")
        check_sizes(self, 255, "solarise_threshold", *(() if self.fill is None else ("fill",)))


def image_presets(size: int) -> dict[str, ImagePreset]:
    """The named presets for images of ``size`` pixels.

    ``strong`` and ``weak`` are the query and key views of MaskCon on CIFAR (Feng and Patras, CVPR 2023, appendix A.1),
    ``cars-*`` and ``sop-*`` those on Cars196 and Stanford Online Products. ``simclr`` blurs above 64 pixels only.
    ``glyph-*`` (characters, digits) never mirror, and ``gentle`` keeps colour and shape for fine-grained photographs.

    Examples
    --------
    >>> image_presets(32)["strong"].autoaugment
    True
    """
    weak = ImagePreset(crop_scale=(0.2, 1.0), flip_probability=0.5)
    jitter = replace(
        weak, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey_probability=0.2
    )
    seen_askew = replace(weak, perspective=0.5, perspective_probability=0.5, fill=0)
    glyph = ImagePreset(crop_scale=(0.8, 1.0), rotate=8, translate=0.05, shear=5, zoom=(0.9, 1.1))
    return {
        "plain": ImagePreset(),
        "weak": weak,
        "strong": replace(weak, autoaugment=True, fill=128),
        "simclr": replace(jitter, blur_probability=0.5 if size > _BLUR_FROM_SIZE else 0.0),
        "cars-weak": seen_askew,
        "cars-strong": replace(jitter, perspective=0.5, perspective_probability=0.5, fill=0, blur_probability=0.5),
        "sop-weak": seen_askew,
        "sop-strong": seen_askew,
        "glyph-weak": glyph,
        "glyph-strong": replace(
            glyph,
            crop_scale=(0.6, 1.0),
            rotate=20,
            translate=0.1,
            shear=15,
            zoom=(0.8, 1.2),
            perspective=0.3,
            perspective_probability=0.5,
            erase_scale=(0.02, 0.15),
            erase_probability=0.3,
        ),
        "gentle": ImagePreset(
            crop_scale=(0.5, 1.0), flip_probability=0.5, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.02
        ),
    }


class ImageParameters(NamedTuple):
    """Everything drawn for one view of a batch; ``None`` where the preset leaves a transform out."""

    boxes: Tensor  # (B, 4) top, left, height, width
    flip: Tensor | None = None  # (B,) bool
    matrix: Tensor | None = None  # (B, 3, 3) from the output to the box, the flip in it
    policy: tuple[Tensor, Tensor] | None = None  # operations and magnitudes (B, 2)
    colour: Tensor | None = None  # (B, 4) brightness, contrast, saturation (0: grey), hue
    blur: Tensor | None = None  # (B,) standard deviation, 0: none
    solarise: Tensor | None = None  # (B,) threshold, infinite: none
    posterise: Tensor | None = None  # (B,) bits, 8: all
    erase: Tensor | None = None  # (B, 4) box, height 0: none

    def of(self, rows: slice) -> ImageParameters:
        """The parameters of some of the samples."""

        def select(value: Any) -> Any:
            return tuple(map(select, value)) if isinstance(value, tuple) else None if value is None else value[rows]

        return ImageParameters(*map(select, self))


class ImageViews(Views[ImagePreset]):
    """Views of images. Crop, flip, rotation, affine and perspective are one resampling; colour is one affine map.

    Parameters
    ----------
    presets : one per view; see :class:`Views` and :func:`image_presets`
    size : int
        Side of the square output, pixels.
    mean, std : sequence of float, one per channel (or a single one)
        For pixel values in [0, 1].
    seed : int

    Notes
    -----
    Raw images are uint8 (B, C, H, W) with any C; views are float32 (B, C, size, size) in channels_last memory format.
    Values are clamped to [0, 255] once, after the colour map, and are not rounded, except ahead of AutoAugment and of
    posterising, which are defined on uint8. A crop with at most a flip is separable and equals torchvision's
    ``resized_crop`` with ``antialias=True``; other geometry is read through one 3x3 map (:func:`warp` states how it
    avoids aliasing). AutoAugment and blur look up which samples they apply to, for which the host waits for the device
    once each; nothing else waits.

    Examples
    --------
    >>> views = ImageViews(["strong", "weak"], size=32, mean=[0.5], std=[0.25])
    >>> images = torch.zeros(4, 3, 48, 40, dtype=torch.uint8)
    >>> query, key = views(images, torch.arange(4), epoch=0)
    >>> key.shape, float(key.max())
    (torch.Size([4, 3, 32, 32]), -2.0)
    """

    modality: ClassVar[str] = "image"
    preset_type: ClassVar[type] = ImagePreset
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        presets: Sequence[str | ImagePreset | Mapping[str, Any]],
        *,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
    ) -> None:
        if size < 1:
            raise UserError(f"size must be a positive number of pixels, got {size}")
        super().__init__(presets, known=image_presets(size), seed=seed)
        if len(mean) != len(std):
            raise UserError(
                f"mean has {len(mean)} channels and std has {len(std)}; give one number per channel in both"
            )
        if min(std) <= 0:
            raise UserError(f"std must be positive, got {list(std)}")
        self.size = size
        self.register_buffer("mean", 255 * torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std, dtype=torch.float32), persistent=False)

    def plain(self, raw: Tensor) -> Tensor:
        """The central square, resized to ``size`` and normalised: (B, C, size, size)."""
        with torch.no_grad(), torch.autocast(raw.device.type, enabled=False):
            raw, _, _ = self._prepare(raw, raw.device)
            return self._render(raw, ImageParameters(self._central_square(raw)), fill=None)

    def _prepare(self, raw: Tensor, device: torch.device) -> tuple[Tensor, int, torch.device]:
        if raw.dtype != torch.uint8 or raw.ndim != 4:
            raise UserError(f"raw images must be uint8 of shape (B, C, H, W), got {raw.dtype} of {tuple(raw.shape)}")
        if len(self.mean) not in (1, raw.shape[1]):
            raise UserError(f"mean and std have {len(self.mean)} channels and the images {raw.shape[1]}")
        return raw, len(raw), raw.device

    def _view(self, prepared: Tensor, preset: ImagePreset, draws: Draws) -> Tensor:
        return self._render(prepared, self._draw(prepared, preset, draws), fill=preset.fill)

    def _central_square(self, raw: Tensor) -> Tensor:
        height, width = raw.shape[2:]
        side = min(height, width)
        return centre_boxes(len(raw), side, side, height, width, raw.device)

    def _draw(self, raw: Tensor, preset: ImagePreset, draws: Draws) -> ImageParameters:
        """Each transform of the preset from the block of its own name."""
        height, width = raw.shape[2:]
        blocks = draws.blocks(_blocks(preset))
        boxes = self._central_square(raw)
        if "crop" in blocks and preset.crop_scale is not None:
            boxes = random_boxes(
                blocks["crop"], scale=preset.crop_scale, ratio=preset.crop_ratio, height=height, width=width
            )
        flip = _happens(blocks, "flip", preset.flip_probability)
        return ImageParameters(
            boxes=boxes,
            flip=flip,
            matrix=_matrix(preset, blocks, flip),
            policy=draw_policy(blocks["autoaugment"]) if preset.autoaugment else None,
            colour=_colour_factors(preset, blocks),
            blur=_blur_sigma(preset, blocks),
            solarise=_where(_happens(blocks, "solarise", preset.solarise_probability), preset.solarise_threshold, 256),
            posterise=_where(_happens(blocks, "posterise", preset.posterise_probability), preset.posterise_bits, 8),
            erase=_erase_boxes(preset, blocks, self.size),
        )

    def _render(self, raw: Tensor, parameters: ImageParameters, *, fill: float | None) -> Tensor:
        """The view that ``parameters`` describe, of raw images (B, C, H, W)."""
        count, channels = raw.shape[:2]
        views = torch.empty(count, channels, self.size, self.size, device=raw.device, memory_format=torch.channels_last)
        scale, shift = (values.to(raw.device)[:, None, None] for values in (1 / self.std, -self.mean / self.std))
        # On a CPU the batch goes through in parts that stay in the cache.
        pixels = channels * max(raw.shape[2] * raw.shape[3], self.size**2)
        part = max(1, _PART_VALUES // pixels) if raw.device.type == "cpu" else count
        for start in range(0, count, part):
            rows = slice(start, start + part)
            images = self._transform(raw[rows], parameters.of(rows), fill)
            views[rows] = images.mul_(scale).add_(shift)
        return views if parameters.erase is None else erase(views, parameters.erase)

    def _transform(self, raw: Tensor, p: ImageParameters, fill: float | None) -> Tensor:
        """All but the normalisation and the erased boxes: float32 in [0, 255]."""
        pixels = raw.to(torch.float32, memory_format=torch.contiguous_format)
        if p.matrix is None:
            images = crop_and_resize(pixels, p.boxes, size=self.size, flip=p.flip)
        else:
            images = warp(pixels, p.matrix, p.boxes, size=self.size, fill=fill)
        if p.policy is not None:
            images = apply_policy(images.round_(), *p.policy, fill=fill)
        if p.colour is not None:
            images = adjust_colour(images, p.colour)
        if p.blur is not None:
            index = p.blur.nonzero().squeeze(1)
            images = images.index_copy(0, index, gaussian_blur(images[index], p.blur[index]))
        if p.solarise is not None:
            images = solarise(images, p.solarise)
        if p.posterise is not None:
            images = torch.where((p.posterise < 8)[:, None, None, None], posterise(images, p.posterise), images)
        return images


def _blocks(preset: ImagePreset) -> dict[str, int]:
    """How many draws each transform of the preset takes, by the name of its block."""
    jitter = preset.jitter_probability > 0 and any(_jitter_widths(preset))
    affine = preset.rotate or preset.translate or preset.shear or preset.zoom != (1.0, 1.0)
    counts = {
        "crop": BOX_DRAWS * (preset.crop_scale is not None),
        "flip": preset.flip_probability > 0,
        "affine": 6 * bool(affine),
        "perspective": 9 * (preset.perspective_probability > 0),
        "autoaugment": POLICY_DRAWS * preset.autoaugment,
        "jitter": 5 * jitter,
        "grey": preset.grey_probability > 0,
        "blur": 2 * (preset.blur_probability > 0),
        "solarise": preset.solarise_probability > 0,
        "posterise": preset.posterise_probability > 0,
        "erase": (1 + BOX_DRAWS) * (preset.erase_probability > 0),
    }
    return {name: int(count) for name, count in counts.items() if count}


def _happens(blocks: Mapping[str, Tensor], name: str, probability: float) -> Tensor | None:
    """(B,) bool from the first draw of a block; None where the preset has no such block."""
    return blocks[name][:, 0] < probability if name in blocks else None


def _where(happens: Tensor | None, value: float, otherwise: float) -> Tensor | None:
    return None if happens is None else torch.where(happens, float(value), float(otherwise))


def _matrix(preset: ImagePreset, blocks: Mapping[str, Tensor], flip: Tensor | None) -> Tensor | None:
    """Flip, affine and perspective in one map from the output to the box; None where a crop and a flip are all."""
    maps = []
    if "affine" in blocks:
        either_way = 2 * blocks["affine"] - 1
        low, high = preset.zoom
        maps.append(
            affine_map(
                rotation=preset.rotate * either_way[:, 0],
                translation=preset.translate * either_way[:, 1:3],
                shear=preset.shear * either_way[:, 3:5],
                zoom=low + (high - low) * blocks["affine"][:, 5],
            )
        )
    happens = _happens(blocks, "perspective", preset.perspective_probability)
    if happens is not None:
        inwards = preset.perspective * blocks["perspective"][:, 1:] * happens[:, None]
        corners = constant((-1, -1, 1, -1, 1, 1, -1, 1), inwards.device)
        maps.append(perspective_map((corners * (1 - inwards)).view(-1, 4, 2)))
    if not maps:
        return None
    # Pixels pass the flip, the affine map and the perspective; a place in the output is traced back through the same.
    matrix = maps[0] if len(maps) == 1 else torch.bmm(*maps)
    return matrix if flip is None else torch.bmm(flip_map(flip), matrix)


def _jitter_widths(preset: ImagePreset) -> tuple[float, float, float, float]:
    return preset.brightness, preset.contrast, preset.saturation, preset.hue


def _colour_factors(preset: ImagePreset, blocks: Mapping[str, Tensor]) -> Tensor | None:
    """(B, 4) for :func:`adjust_colour`: factors 1 and hue 0 where no jitter is drawn, saturation 0 for grey."""
    grey = _happens(blocks, "grey", preset.grey_probability)
    if "jitter" in blocks:
        unit = blocks["jitter"]
        widths = constant(_jitter_widths(preset), unit.device) * (unit[:, :1] < preset.jitter_probability)
        factors = constant((1, 1, 1, 0), unit.device) + widths * (2 * unit[:, 1:] - 1)
    elif grey is not None:
        factors = constant((1, 1, 1, 0), grey.device).repeat(len(grey), 1)
    else:
        return None
    if grey is not None:
        factors[:, 2] *= ~grey
    return factors


def _blur_sigma(preset: ImagePreset, blocks: Mapping[str, Tensor]) -> Tensor | None:
    happens = _happens(blocks, "blur", preset.blur_probability)
    if happens is None:
        return None
    low, high = preset.blur_sigma
    return (low + (high - low) * blocks["blur"][:, 1]) * happens


def _erase_boxes(preset: ImagePreset, blocks: Mapping[str, Tensor], size: int) -> Tensor | None:
    happens = _happens(blocks, "erase", preset.erase_probability)
    if happens is None:
        return None
    boxes = random_boxes(
        blocks["erase"][:, 1:], scale=preset.erase_scale, ratio=preset.erase_ratio, height=size, width=size
    )
    return boxes * happens[:, None]
