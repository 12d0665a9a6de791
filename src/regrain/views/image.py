"""Views of images: the whole batch at once, every sample with its own parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.objectives.host import may_look
from regrain.views.autoaugment import apply_policy
from regrain.views.base import Views
from regrain.views.colour import adjust_colour, erase, gaussian_blur, posterise, solarise
from regrain.views.geometry import crop_and_resize, warp
from regrain.views.image_parameters import ImageParameters, central_squares, draw_parameters
from regrain.views.image_preset import ImagePreset, image_presets
from regrain.views.random import Draws

_PART_VALUES = 2**20  # float32 values of one temporary on a CPU (4 MB): larger ones do not stay in the cache


class ImageViews(Views[ImagePreset]):
    """Views of images. Crop, flip, rotation, affine and perspective are one resampling; colour is one affine map.

    Parameters
    ----------
    presets : one per view; see :class:`Views` and :func:`image_presets`
    size : int
        Side of the square output, pixels.
    mean, std : sequence of float, one per channel (or a single one)
        For pixel values in [0, 1].

    Notes
    -----
    Raw images are uint8 (B, C, H, W) with any C; views are float32 (B, C, size, size) in channels_last memory format,
    smaller where the preset's ``side`` says so.
    Values are clamped to [0, 255] once, after the colour map, and are not rounded, except ahead of AutoAugment and of
    posterising, which are defined on uint8. A crop with at most a flip is separable and equals torchvision's
    ``resized_crop`` with ``antialias=True``; other geometry is read through one 3x3 map (:func:`warp` states how it
    avoids aliasing). On the CPU AutoAugment and blur look up which samples they apply to; on a GPU, where the host
    would wait for that, they run on all and the others stay as they are. On one machine a view is the same to the last
    bit in any batch; between devices it
    may differ by rounding.

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
            raise UserError(f"size must be a positive number of pixels, got {size}", code="out_of_range")
        super().__init__(presets, known=image_presets(size), seed=seed)
        if len(mean) != len(std):
            raise UserError(
                f"mean has {len(mean)} channels and std has {len(std)}; give one number per channel in both",
                code="wrong_shape",
            )
        if min(std) <= 0:
            raise UserError(f"std must be positive, got {list(std)}", code="out_of_range")
        self.size = size
        self.register_buffer("mean", 255 * torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std, dtype=torch.float32), persistent=False)

    def plain(self, raw: Tensor) -> Tensor:
        """The central square, resized to ``size`` and normalised: (B, C, size, size)."""
        with torch.no_grad(), torch.autocast(raw.device.type, enabled=False):
            self._prepare(raw, raw.device)
            return self._render(raw, ImageParameters(central_squares(raw)), self.size, fill=None)

    def _prepare(self, raw: Tensor, device: torch.device) -> tuple[Tensor, int, torch.device]:
        if raw.dtype != torch.uint8 or raw.ndim != 4:
            raise UserError(
                f"raw images must be uint8 of shape (B, C, H, W), got {raw.dtype} of {tuple(raw.shape)}",
                code="wrong_shape",
            )
        if len(self.mean) not in (1, raw.shape[1]):
            raise UserError(
                f"mean and std have {len(self.mean)} channels and the images {raw.shape[1]}", code="wrong_shape"
            )
        return raw, len(raw), raw.device

    def _view(self, prepared: Tensor, preset: ImagePreset, draws: Draws) -> Tensor:
        size = max(1, round(preset.side * self.size))
        return self._render(prepared, draw_parameters(preset, draws, prepared, size=size), size, fill=preset.fill)

    def _render(self, raw: Tensor, parameters: ImageParameters, size: int, *, fill: float | None) -> Tensor:
        """The view of side ``size`` that ``parameters`` describe, of raw images (B, C, H, W)."""
        count, channels = raw.shape[:2]
        views = torch.empty(count, size, size, channels, device=raw.device)  # channels last
        scale, shift = (values.to(raw.device)[:, None, None] for values in (1 / self.std, -self.mean / self.std))
        # On a CPU the batch goes through in parts that stay in the cache.
        pixels = channels * max(raw.shape[2] * raw.shape[3], size**2)
        part = max(1, _PART_VALUES // pixels) if raw.device.type == "cpu" else count
        for start in range(0, count, part):
            rows = slice(start, start + part)
            images = self._transform(raw[rows], parameters.of(rows), size, fill)
            torch.stack(images.mul_(scale).add_(shift).unbind(dim=1), dim=3, out=views[rows])
        views = views.permute(0, 3, 1, 2)
        return views if parameters.erase is None else erase(views, parameters.erase)

    def _transform(self, raw: Tensor, p: ImageParameters, size: int, fill: float | None) -> Tensor:
        """All but the normalisation and the erased boxes: float32 in [0, 255]."""
        pixels = raw.to(torch.float32, memory_format=torch.contiguous_format)
        if p.matrix is None:
            images = crop_and_resize(pixels, p.boxes, size=size, flip=p.flip)
        else:
            images = warp(pixels, p.matrix, p.boxes, size=size, fill=fill)
        if p.policy is not None:
            images = apply_policy(images.round_(), *p.policy, fill=fill)
        if p.colour is not None:
            images = adjust_colour(images, p.colour)
        if p.blur is not None:
            images = _blurred(images, p.blur)
        if p.solarise is not None:
            images = solarise(images, p.solarise)
        if p.posterise is not None:
            images = torch.where((p.posterise < 8)[:, None, None, None], posterise(images, p.posterise), images)
        return images


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    if not may_look(sigma):
        return gaussian_blur(images, sigma)
    index = sigma.nonzero().squeeze(1)
    return images.index_copy(0, index, gaussian_blur(images[index], sigma[index]))
