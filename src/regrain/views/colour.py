"""Colour and pixel transforms of a batch of images with parameters per sample; pixel values run over [0, 255]."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

GREY_WEIGHTS = (0.299, 0.587, 0.114)
# The I and Q axes of NTSC's YIQ; each row sums to 0, so that greys have no chroma.
_CHROMA = ((0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def adjust_colour(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, contrast, saturation, hue and grey as one affine map of the colours of each sample.

    Returns (B, C, H, W) in [0, 255].

    ``images``: (B, C, H, W) in [0, 255]. ``factors`` (B, 4): brightness b, contrast c and saturation s, factors of
    which 1 changes nothing, and hue in turns (0 changes nothing). Saturation 0 is grey. Where C is not 3 only
    brightness and contrast act.

    Notes
    -----
    With grey weights g, P = 1 g^T (to grey) and the hue rotation R = P + cos(h) (I - P) + sin(h) K in YIQ, the steps
    are x -> b x, x -> c x + (1 - c) m 1 with the image's mean grey m, x -> s x + (1 - s) P x and x -> R x. Hue and
    saturation keep g^T x and leave greys as they are, so **the four commute**, in any order they are

    .. math:: x \\mapsto b\\,[c\\,(P + s \\cos h\\,(I - P) + s \\sin h\\,K)\\,x + (1 - c)\\,m\\,\\mathbf 1]

    and torchvision's random order would only change where values are clamped. Here they are clamped once, at the end.
    Hue is this rotation, not the shift in HSV that torchvision has; a positive hue turns red towards yellow in both.
    """
    brightness, contrast, saturation, hue = factors.unbind(dim=1)
    scale = brightness * contrast
    mean = images.mean(dim=(2, 3))
    if images.shape[1] != 3:
        offset = brightness * (1 - contrast) * mean.mean(dim=1)
        return (images * scale[:, None, None, None]).add_(offset[:, None, None, None]).clamp_(0, 255)
    basis = _colour_basis(images.device)
    offset = brightness * (1 - contrast) * (mean @ basis[0, :3])
    angle = hue * (2 * math.pi)
    chroma = torch.stack((torch.ones_like(scale), saturation * angle.cos(), saturation * angle.sin()), dim=1)
    linear = torch.matmul(chroma * scale[:, None], basis).view(-1, 3, 3)
    return torch.baddbmm(offset[:, None, None], linear, images.flatten(2)).clamp_(0, 255).view_as(images)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of square images (B, C, S, S) with a standard deviation per sample, ``sigma`` (B,), in pixels.

    The image is reflected at its edges and the Gaussian is not cut off: torchvision's ``gaussian_blur`` with a large
    kernel. ``sigma`` 0 leaves an image as it is.
    """
    size = images.shape[-1]
    line = torch.arange(size, dtype=torch.float32, device=images.device)
    scale = -0.5 / sigma.clamp(min=1e-3)[:, None, None] ** 2
    distance, mirrored = line[:, None] - line, line[:, None] + line
    weights = torch.exp(scale * distance**2)
    weights[:, :, 1:] += torch.exp(scale * mirrored[:, 1:] ** 2)  # reflection about pixel 0
    weights[:, :, :-1] += torch.exp(scale * (2 * (size - 1) - mirrored[:, :-1]) ** 2)  # and about the last pixel
    weights /= weights.sum(dim=2, keepdim=True)
    down = torch.matmul(weights[:, None], images)
    return torch.bmm(down.flatten(1, 2), weights.transpose(1, 2)).view_as(images)


def solarise(images: Tensor, threshold: Tensor | float) -> Tensor:
    """Inverts the values that are at least ``threshold`` (a number or (B,)).

    Examples
    --------
    >>> solarise(torch.tensor([10.0, 200.0]).view(1, 1, 1, 2), 128).flatten()
    tensor([10., 55.])
    """
    return torch.where(images >= _per_sample(threshold), 255 - images, images)


def posterise(images: Tensor, bits: Tensor | float) -> Tensor:
    """Keeps the ``bits`` highest of the 8 bits of the value rounded to whole numbers (``bits``: a number or (B,)).

    Examples
    --------
    >>> posterise(torch.tensor([63.0, 64.0, 255.0]).view(1, 1, 1, 3), 2).flatten()
    tensor([  0.,  64., 192.])
    """
    step = 2.0 ** (8 - _per_sample(bits))
    return images.round().div_(step).floor_().mul_(step)


def erase(images: Tensor, boxes: Tensor) -> Tensor:
    """Sets each sample's box to zero, in place; ``boxes`` (B, 4): top, left, height (0: none), width in pixels."""
    height, width = images.shape[-2:]
    top, left, tall, wide = boxes[:, :, None].unbind(dim=1)  # (B, 1)
    y, x = torch.arange(height, device=boxes.device), torch.arange(width, device=boxes.device)
    rows, columns = (y >= top) & (y < top + tall), (x >= left) & (x < left + wide)
    return images.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


def _per_sample(value: Tensor | float) -> Tensor | float:
    return value[:, None, None, None] if isinstance(value, Tensor) else value


@functools.lru_cache(maxsize=8)
def _colour_basis(device: torch.device) -> Tensor:
    """(3, 9): the rows are P, I - P and K, flattened; K = T^-1 J T is the quarter turn in the chroma plane of YIQ."""
    grey = torch.tensor(GREY_WEIGHTS, dtype=torch.float64)
    to_yiq = torch.stack((grey, *torch.tensor(_CHROMA, dtype=torch.float64)))
    quarter_turn = torch.tensor([[0.0, 0, 0], [0, 0, 1], [0, -1, 0]], dtype=torch.float64)
    turn = torch.linalg.inv(to_yiq) @ quarter_turn @ to_yiq
    to_grey = grey.expand(3, 3)
    basis = torch.stack((to_grey, torch.eye(3, dtype=torch.float64) - to_grey, turn))
    return basis.flatten(1).to(device, torch.float32)
