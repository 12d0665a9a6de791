"""Settings of the transforms of an image view, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Le

from regrain.checks import PositiveRange, Share, ShareRange, checks_settings

Grey = Annotated[float, Ge(0), Le(255)]

_BLUR_FROM_SIZE = 64  # SimCLR blurs ImageNet, not CIFAR: below this size blur removes what tells subclasses apart


@checks_settings
@dataclass(frozen=True, kw_only=True)
class ImagePreset:
    """Transforms of an image, in this order; the defaults do nothing.

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
        Grey value in [0, 255] of what the geometry (here and in ``autoaugment``) uncovers; ``None``: the image goes on
        beyond the crop, and its edge pixels beyond the image.
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
    side
        Side of the view, as a share of the side of the other views.

    Examples
    --------
    >>> ImagePreset(flip_probability=0.5, rotate=10).rotate
    10.0
    """

    crop_scale: ShareRange | None = None
    crop_ratio: PositiveRange = (3 / 4, 4 / 3)
    flip_probability: Share = 0.0
    rotate: Annotated[float, Ge(0), Le(180)] = 0.0
    translate: Share = 0.0
    shear: Annotated[float, Ge(0), Le(80)] = 0.0
    zoom: PositiveRange = (1.0, 1.0)
    perspective: Annotated[float, Ge(0), Le(0.99)] = 0.5
    perspective_probability: Share = 0.0
    fill: Grey | None = None
    autoaugment: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    jitter_probability: Share = 1.0
    grey_probability: Share = 0.0
    blur_sigma: PositiveRange = (0.1, 2.0)
    blur_probability: Share = 0.0
    solarise_threshold: Grey = 128.0
    solarise_probability: Share = 0.0
    posterise_bits: Annotated[int, Ge(0), Le(8)] = 4
    posterise_probability: Share = 0.0
    erase_scale: ShareRange = (0.02, 0.33)
    erase_ratio: PositiveRange = (0.3, 3.3)
    erase_probability: Share = 0.0
    side: Share = 1.0


def image_presets(size: int) -> dict[str, ImagePreset]:
    """The named presets for images of ``size`` pixels.

    ``strong`` and ``weak`` are the query and key views of MaskCon on CIFAR (Feng and Patras, CVPR 2023, appendix A.1),
    ``cars-*`` and ``sop-*`` those on Cars196 and Stanford Online Products. ``simclr`` blurs above 64 pixels only.
    ``jitter`` is SCGM's crop, colour jitter and flip (Ni et al., ICLR 2022, after Tian et al., ECCV 2020).
    ``glyph-*`` (characters, digits) never mirror, and ``gentle`` keeps colour and shape for fine-grained photographs.
    ``global`` and ``local`` are Self-Classifier's crops (Amrani et al., ECCV 2022, section 4.1), local ones smaller.

    Examples
    --------
    >>> image_presets(32)["strong"].autoaugment
    True
    """
    weak = ImagePreset(crop_scale=(0.2, 1.0), flip_probability=0.5)
    coloured = replace(
        weak, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, jitter_probability=0.8, grey_probability=0.2
    )
    seen_askew = replace(weak, perspective=0.5, perspective_probability=0.5, fill=0)
    byol = replace(
        coloured, saturation=0.2, blur_probability=0.5 if size > _BLUR_FROM_SIZE else 0.0, solarise_probability=0.1
    )
    glyph = ImagePreset(crop_scale=(0.8, 1.0), rotate=8, translate=0.05, shear=5, zoom=(0.9, 1.1))
    return {
        "plain": ImagePreset(),
        "weak": weak,
        "strong": replace(weak, autoaugment=True, fill=128),
        "jitter": replace(weak, brightness=0.4, contrast=0.4, saturation=0.4),
        "simclr": replace(coloured, blur_probability=0.5 if size > _BLUR_FROM_SIZE else 0.0),
        "global": replace(byol, crop_scale=(0.4, 1.0)),
        "local": replace(byol, crop_scale=(0.05, 0.4), solarise_probability=0.0, side=96 / 224),
        "cars-weak": seen_askew,
        "cars-strong": replace(coloured, perspective=0.5, perspective_probability=0.5, fill=0, blur_probability=0.5),
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
