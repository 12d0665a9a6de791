"""Geometry of a batch of images, one set of parameters per sample: crop boxes, 3x3 maps, and the two resamplers.

Square coordinates run over [-1, 1] from edge to edge of a square image, x first. A map is given in the direction that
resampling needs: from a place in the output to the place in the input it is read from. A box is (top, left, height,
width) in whole pixels.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

_TRIES = 10
BOX_DRAWS = 2 * _TRIES + 2


def random_boxes(
    draws: Tensor, *, scale: tuple[float, float], ratio: tuple[float, float], height: int, width: int
) -> Tensor:
    """Boxes with the distribution of torchvision's ``RandomResizedCrop``: the first of ten tries that fits.

    Returns (B, 4), whole numbers; where no try fits, the largest central box whose ratio is allowed.

    Parameters
    ----------
    draws : Tensor (B, BOX_DRAWS), uniform in [0, 1)
    scale : share of the image's area, uniform between the two
    ratio : width over height, log-uniform between the two
    height, width : of the image, pixels

    Examples
    --------
    >>> random_boxes(torch.full((1, BOX_DRAWS), 0.5), scale=(0.25, 0.25), ratio=(1, 1), height=8, width=8)
    tensor([[2., 2., 4., 4.]])
    """
    side = (scale[0] + (scale[1] - scale[0]) * draws[:, :_TRIES]).mul_(height * width).sqrt_()
    log_ratio = math.log(ratio[0]) + math.log(ratio[1] / ratio[0]) * draws[:, _TRIES : 2 * _TRIES]
    limits = constant((height, width), draws.device)
    stretch = torch.exp(log_ratio[:, None] * constant((-0.5, 0.5), draws.device)[:, None])
    sizes = (side[:, None] * stretch).round_()  # (B, 2, tries), height then width
    fits = ((sizes >= 1) & (sizes <= limits[:, None])).all(dim=1)
    first = fits.view(torch.uint8).argmax(dim=1)
    sizes = sizes.gather(2, first[:, None, None].expand(-1, 2, 1)).squeeze(2)
    boxes = torch.cat((torch.floor(draws[:, 2 * _TRIES :] * (limits + 1 - sizes)), sizes), dim=1)
    allowed = min(max(width / height, ratio[0]), ratio[1])
    largest = min(height, round(width / allowed)), min(width, round(height * allowed))
    return torch.where(fits.any(dim=1, keepdim=True), boxes, centre_boxes(1, *largest, height, width, draws.device))


def centre_boxes(count: int, box_height: int, box_width: int, height: int, width: int, device: torch.device) -> Tensor:
    """``count`` times the central box of the given size, (count, 4)."""
    box = (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
    return constant(box, device).expand(count, 4)


def resize_taps(
    start: Tensor, length: Tensor, *, size: int, extent: int, flip: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One axis of a crop and resize: which input pixels each output pixel is the weighted sum of.

    Bilinear where the crop is enlarged; where it is shrunk, the triangle filter as wide as the shrinkage (what PIL, and
    torchvision with ``antialias=True``, use). Pixels outside the crop have no weight.

    Parameters
    ----------
    start, length : Tensor (B,), whole numbers, the crop along this axis, pixels
    size, extent : pixels of the output and of the input along this axis
    flip : BoolTensor (B,), optional, mirrors the output

    Returns
    -------
    pixels : LongTensor (B, size, taps), within the crop
    weights : Tensor (B, size, taps), sum to 1 over the taps

    Examples
    --------
    >>> start, length = torch.tensor([1.0]), torch.tensor([2.0])
    >>> pixels, weights = resize_taps(start, length, size=4, extent=4)
    >>> pixels[0, 1].tolist(), weights[0, 1].tolist()
    ([1, 2], [0.75, 0.25])
    """
    start, length = start.long(), length.long()
    table, weights = _tap_tables(size, extent, start.device)
    pixels = table[length]
    if flip is not None:
        # The filter is symmetric: mirrored, the same weights fall on the pixels counted from the other end.
        pixels = pixels * (1 - 2 * flip.long())[:, None, None]
        start = start + flip * (length - 1)
    return pixels + start[:, None, None], weights[length]


def crop_and_resize(pixels: Tensor, boxes: Tensor, *, size: int, flip: Tensor | None = None) -> Tensor:
    """Each sample's box, resized to a square and mirrored where ``flip`` (B,) is true: (B, C, size, size).

    Parameters
    ----------
    pixels : Tensor (B, C, H, W)
    boxes : Tensor (B, 4)

    Notes
    -----
    Separable: the rows by a weighted sum of the few rows that count, the columns by a batched matrix product, since
    along the last axis picking out single numbers is slower than multiplying by zeros.

    Examples
    --------
    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> crop_and_resize(image, torch.tensor([[0.0, 0, 2, 2]]), size=2, flip=torch.tensor([True])).view(2, 2)
    tensor([[1., 0.],
            [3., 2.]])
    """
    batch, channels, height, width = pixels.shape
    top, left, tall, wide = boxes.unbind(dim=1)
    rows, weights = resize_taps(top, tall, size=size, extent=height)
    taps = rows.shape[2]
    planes = torch.arange(0, batch * channels * height, height, device=pixels.device).view(batch, channels, 1, 1)
    down = F.embedding_bag(
        (planes + rows[:, None]).view(-1, taps),
        pixels.reshape(-1, width),
        per_sample_weights=weights[:, None].expand(batch, channels, size, taps).reshape(-1, taps),
        mode="sum",
    )
    columns, weights = resize_taps(left, wide, size=size, extent=width, flip=flip)
    across = pixels.new_zeros(batch, size, width).scatter_add_(2, columns, weights)
    return torch.bmm(down.view(batch, channels * size, width), across.transpose(1, 2)).view(batch, channels, size, size)


def affine_map(rotation: Tensor, translation: Tensor, shear: Tensor, zoom: Tensor) -> Tensor:
    """Output-to-input map (B, 3, 3) of torchvision's ``affine``: zoom, shear and rotation about the centre, then shift.

    Parameters
    ----------
    rotation : Tensor (B,), degrees, clockwise
    translation : Tensor (B, 2), share of the image's side, x then y
    shear : Tensor (B, 2), degrees, x then y
    zoom : Tensor (B,), above 1 enlarges

    Examples
    --------
    >>> none = torch.zeros(1)
    >>> affine_map(none, torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([2.0]))[0].diagonal()
    tensor([0.5000, 0.5000, 1.0000])
    """
    angle = torch.deg2rad(rotation)
    shear_x, shear_y = torch.deg2rad(shear).unbind(dim=1)
    a = torch.cos(angle - shear_y) / torch.cos(shear_y)
    b = -a * torch.tan(shear_x) - torch.sin(angle)
    c = torch.sin(angle - shear_y) / torch.cos(shear_y)
    d = -c * torch.tan(shear_x) + torch.cos(angle)
    # The matrix ((a, b), (c, d)) has determinant 1: its inverse is ((d, -b), (-c, a)).
    inverse = torch.stack((d, -b, -c, a), dim=1).view(-1, 2, 2) / zoom[:, None, None]
    shift = -2 * torch.bmm(inverse, translation[:, :, None])
    return _homogeneous(torch.cat((inverse, shift), dim=2))


def flip_map(flip: Tensor) -> Tensor:
    """Map (B, 3, 3) that mirrors left and right where ``flip`` (B,) is true."""
    one = torch.ones_like(flip, dtype=torch.float32)
    return torch.diag_embed(torch.stack((torch.where(flip, -one, one), one, one), dim=1))


def perspective_map(corners: Tensor) -> Tensor:
    """Output-to-input map (B, 3, 3) that takes the image's corners to ``corners``.

    Parameters
    ----------
    corners : Tensor (B, 4, 2)
        Square coordinates of where the top-left, top-right, bottom-right and bottom-left corners land; each strictly
        inside its own quadrant, so that the centre is inside their hull.

    Notes
    -----
    The projective frame of four points p1..p4 is the matrix with columns l_k p_k that sends (1, 1, 1) to a multiple of
    p4. The map is frame(square) frame(corners)^-1, up to a factor; adjugates in place of inverses spare the divisions.

    Examples
    --------
    >>> square = torch.tensor([[[-1.0, -1], [1, -1], [1, 1], [-1, 1]]])
    >>> torch.allclose(perspective_map(square), torch.eye(3))
    True
    """
    square = constant((-1, -1, 1, -1, 1, 1, -1, 1), corners.device).view(1, 4, 2)
    matrix = torch.matmul(_frame(square), _adjugate(_frame(corners)))
    return matrix / matrix[:, 2:, 2:]


def warp(
    pixels: Tensor, matrix: Tensor, boxes: Tensor, *, size: int, fill: float | None, mode: str = "bilinear"
) -> Tensor:
    """The image in each box, seen through a 3x3 map, in one resampling. Returns (B, C, size, size).

    Parameters
    ----------
    pixels : Tensor (B, C, H, W)
    matrix : Tensor (B, 3, 3), from square coordinates of the output to square coordinates of the box
    boxes : Tensor (B, 4)
    size : side of the output, pixels
    fill : value outside the box; ``None``: the image goes on there, and its edge pixels beyond it
    mode : "bilinear" or "nearest"

    Notes
    -----
    Where the input's shorter side is n >= 1.5 times the output's, the output is the mean over a finer grid of round(n)
    x round(n) places a pixel, so that strong shrinking does not alias.
    """
    batch, _, height, width = pixels.shape
    finer = max(1, round(min(height, width) / size)) if mode == "bilinear" else 1
    side = size * finer
    x, y = _square_grid(side, pixels.device)
    # Not a matrix product, whose rounding may depend on the size of the batch.
    places = (matrix[:, :, :1] * x).add_(matrix[:, :, 1:2] * y).add_(matrix[:, :, 2:])  # (B, 3, side^2)
    # Beyond the horizon of a perspective the divisor is not positive: such places are sent far outside.
    places = places[:, :2] / places[:, 2:].clamp(min=1e-6)
    start, length = (pair.flip(1)[:, :, None] for pair in boxes.split(2, dim=1))  # x then y
    inside = (places + 1).mul_(length / 2).sub_(0.5)  # pixels from the centre of the box's first pixel
    if fill is not None:
        cover = torch.minimum(inside + 1, length - inside).clamp_(0, 1)  # the share of a tap that falls inside the box
        cover = cover.round_() if mode == "nearest" else cover
        inside = torch.minimum(inside.clamp_(min=0), length - 1)
    scale = 2 / constant((width, height), pixels.device)[:, None]
    grid = (inside + (start + 0.5)).mul_(scale).sub_(1).view(batch, 2, side, side).permute(0, 2, 3, 1)
    out = F.grid_sample(pixels, grid.contiguous(), mode=mode, padding_mode="border", align_corners=False)
    if fill is not None:
        out = out.sub_(fill).mul_((cover[:, 0] * cover[:, 1]).view(batch, 1, side, side)).add_(fill)
    return F.avg_pool2d(out, finer) if finer > 1 else out


def _homogeneous(top: Tensor) -> Tensor:
    """(B, 2, 3) -> (B, 3, 3) with the last row (0, 0, 1)."""
    last = constant((0, 0, 1), top.device).expand(len(top), 1, 3)
    return torch.cat((top, last), dim=1)


def _frame(points: Tensor) -> Tensor:
    homogeneous = F.pad(points, (0, 1), value=1.0)  # (B, 4, 3)
    columns = homogeneous[:, :3].transpose(1, 2)
    return columns * torch.matmul(_adjugate(columns), homogeneous[:, 3, :, None]).transpose(1, 2)


def _adjugate(matrix: Tensor) -> Tensor:
    first, second, third = matrix.unbind(dim=1)
    cross = torch.linalg.cross
    return torch.stack((cross(second, third), cross(third, first), cross(first, second)), dim=2)


@functools.lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept per device, so that no step waits for a copy from the host."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=64)
def _centres(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=torch.float32, device=device) + 0.5


@functools.lru_cache(maxsize=64)
def _square_grid(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(size * size,) twice: the square coordinates x and y of the pixel centres, rows first."""
    line = _centres(size, device) * (2 / size) - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x.flatten(), y.flatten()


@functools.lru_cache(maxsize=8)
def _tap_tables(size: int, extent: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The taps of a crop of each length from 0 to ``extent``: pixels from its start, and weights, (length, size, taps).

    Computed once for all: a crop is a whole number of pixels long, and where it starts only shifts the pixels.
    """
    lengths = torch.arange(extent + 1, dtype=torch.float32, device=device).clamp_(min=1)[:, None, None]
    support = (lengths / size).clamp(min=1)
    centres = _centres(size, device)[:, None] * (lengths / size)  # (length, size, 1)
    pixels = torch.floor(centres - support + 0.5) + _centres(math.ceil(2 * max(1, extent / size)), device)  # at centres
    weights = (1 - (pixels - centres).abs_().div_(support)).relu_()
    weights *= (pixels > 0) & (pixels < lengths)
    weights /= weights.sum(dim=2, keepdim=True)
    return torch.minimum(pixels.clamp_(min=0), lengths - 1).long(), weights
