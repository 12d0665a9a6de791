"""From a preset and random draws to the parameters of every sample of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regrain.views.autoaugment import POLICY_DRAWS, draw_policy
from regrain.views.geometry import (
    BOX_DRAWS,
    affine_map,
    centre_boxes,
    constant,
    flip_map,
    perspective_map,
    random_boxes,
)
from regrain.views.image_preset import ImagePreset
from regrain.views.random import Draws


class ImageParameters(NamedTuple):
    """Everything drawn for one view of a batch; ``None`` where the preset leaves a transform out."""

    boxes: Tensor  # (B, 4) top, left, height, width
    flip: Tensor | None = None  # (B,) bool
    matrix: Tensor | None = None  # (B, 3, 3) from the output to the box, the flip in it
    policy: tuple[Tensor, Tensor] | None = None  # operations and magnitudes (B, 2)
    colour: Tensor | None = None  # (B, 4) brightness, contrast, saturation (0: grey), hue
    blur: Tensor | None = None  # (B,) standard deviation, 0: none
    solarise: Tensor | None = None  # (B,) threshold, 256: none
    posterise: Tensor | None = None  # (B,) bits, 8: all
    erase: Tensor | None = None  # (B, 4) box, height 0: none

    def of(self, rows: slice) -> ImageParameters:
        """The parameters of some of the samples."""

        def select(value: Any) -> Any:
            return tuple(map(select, value)) if isinstance(value, tuple) else None if value is None else value[rows]

        return ImageParameters(*map(select, self))


def draw_parameters(preset: ImagePreset, draws: Draws, raw: Tensor, *, size: int) -> ImageParameters:
    """The parameters of one view of ``raw`` (B, C, H, W); each transform draws from the block of its own name."""
    height, width = raw.shape[2:]
    blocks = draws.blocks(_blocks(preset))
    if preset.crop_scale is None:
        boxes = central_squares(raw)
    else:
        boxes = random_boxes(
            blocks["crop"], scale=preset.crop_scale, ratio=preset.crop_ratio, height=height, width=width
        )
    flip = _happens(blocks, "flip", preset.flip_probability)
    return ImageParameters(
        boxes=boxes,
        flip=flip,
        matrix=_matrix(preset, blocks, flip),
        colour=_colour_factors(preset, blocks),
        blur=_blur_sigma(preset, blocks),
        solarise=_where(_happens(blocks, "solarise", preset.solarise_probability), preset.solarise_threshold, 256),
        posterise=_where(_happens(blocks, "posterise", preset.posterise_probability), preset.posterise_bits, 8),
        erase=_erase_boxes(preset, blocks, size),
        policy=draw_policy(blocks["autoaugment"]) if preset.autoaugment else None,
    )


def central_squares(raw: Tensor) -> Tensor:
    """The largest central square of each image, (B, 4)."""
    height, width = raw.shape[2:]
    side = min(height, width)
    return centre_boxes(len(raw), side, side, height, width, raw.device)


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
