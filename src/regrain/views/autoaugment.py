"""The AutoAugment policy of CIFAR-10 (Cubuk et al., CVPR 2019, table 7), a sub-policy drawn for every sample.

On the CPU the samples of a batch are grouped by operation, and each operation runs once for its group. A GPU, which the
host would have to ask for the groups, runs every operation on the whole batch. Images are float tensors that hold whole
numbers in [0, 255], and the operations round like PIL on uint8 images. Shear, translation and rotation take the nearest
pixel, as PIL does by default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from regrain.objectives.host import may_look
from regrain.views.colour import GREY_WEIGHTS, posterise, solarise
from regrain.views.geometry import affine_map, centre_boxes, warp

POLICY_DRAWS = 5

# (operation, probability, magnitude bin of 0..9) twice
_CIFAR10_POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("color", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)

# operation -> (magnitude of bin 0, magnitude of bin 9, whether the sign is drawn)
_MAGNITUDES = {
    "shear_x": (0.0, 0.3, True),  # tangent
    "shear_y": (0.0, 0.3, True),
    "translate_x": (0.0, 150 / 331, True),  # share of the side; cut to whole pixels
    "translate_y": (0.0, 150 / 331, True),
    "rotate": (0.0, 30.0, True),  # degrees
    "color": (0.0, 0.9, True),  # the factor is 1 + magnitude
    "posterize": (8.0, 4.0, False),  # bits kept, rounded
    "solarize": (255.0, 0.0, False),  # threshold
    "contrast": (0.0, 0.9, True),
    "sharpness": (0.0, 0.9, True),
    "brightness": (0.0, 0.9, True),
    "autocontrast": (0.0, 0.0, False),
    "equalize": (0.0, 0.0, False),
    "invert": (0.0, 0.0, False),
}


def draw_policy(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Choose each sample's operations and magnitudes from ``draws`` (B, POLICY_DRAWS) in [0, 1).

    Returns
    -------
    operations : LongTensor (B, 2), the index of the first and second operation; the number of operations means none
    magnitudes : Tensor (B, 2)
    """
    table = _policy_table(draws.device)[(draws[:, 0] * len(_CIFAR10_POLICY)).long()]  # (B, 2, 4)
    operation, probability, magnitude, signed = table.unbind(dim=2)
    applied = draws[:, 1:3] < probability
    negative = (draws[:, 3:5] < 0.5) & (signed > 0)
    operations = torch.where(applied, operation, float(len(_OPERATIONS))).long()
    return operations, torch.where(negative, -magnitude, magnitude)


def apply_policy(images: Tensor, operations: Tensor, magnitudes: Tensor, *, fill: float | None) -> Tensor:
    """Runs each sample's two operations in turn. Returns (B, C, S, S), whole numbers in [0, 255].

    Parameters
    ----------
    images : Tensor (B, C, S, S), whole numbers in [0, 255]; may be changed in place
    operations, magnitudes : as from :func:`draw_policy`
    fill : what shear, translation and rotation uncover; ``None`` repeats the edge
    """
    functions = list(_OPERATIONS.values())
    if not may_look(operations):
        for step, operation in _used():
            chosen = (operations[:, step] == operation)[:, None, None, None]
            images = torch.where(chosen, functions[operation](images, magnitudes[:, step], fill), images)
        return images
    for step, operation, index in _groups(operations, len(functions)):
        changed = functions[operation](images[index], magnitudes[index, step], fill)
        images.index_copy_(0, index, changed)
    return images


def _used() -> list[tuple[int, int]]:
    """(step, operation) of all operations that the policy has at a step."""
    names = list(_OPERATIONS)
    return sorted({(step, names.index(pair[step][0])) for pair in _CIFAR10_POLICY for step in range(len(pair))})


def _groups(operations: Tensor, count: int) -> Iterator[tuple[int, int, Tensor]]:
    """(step, operation, the samples it changes)."""
    steps = operations.shape[1]
    order = operations.argsort(dim=0)
    sizes = F.one_hot(operations, count + 1).sum(dim=0).tolist()
    for step in range(steps):
        for operation, index in enumerate(order[:, step].split(sizes[step])[:count]):
            if len(index):
                yield step, operation, index


def _geometric(images: Tensor, matrix: Tensor, fill: float | None) -> Tensor:
    batch, _, height, width = images.shape
    boxes = centre_boxes(batch, height, width, height, width, images.device)
    return warp(images, matrix, boxes, size=height, fill=fill, mode="nearest")


def _shear(images: Tensor, tangent: Tensor, fill: float | None, *, axis: int) -> Tensor:
    """About the top-left corner, as PIL's AFFINE transform (1, tangent, 0, 0, 1, 0) has it."""
    matrix = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    matrix[:, axis, 1 - axis] = tangent
    matrix[:, axis, 2] = tangent  # square coordinates have their origin in the centre
    return _geometric(images, matrix, fill)


def _translate(images: Tensor, share: Tensor, fill: float | None, *, axis: int) -> Tensor:
    size = images.shape[-1]
    matrix = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    matrix[:, axis, 2] = -2 / size * (share * size).trunc()
    return _geometric(images, matrix, fill)


def _rotate(images: Tensor, degrees: Tensor, fill: float | None) -> Tensor:
    none = degrees.new_zeros(len(degrees), 2)
    return _geometric(images, affine_map(-degrees, none, none, torch.ones_like(degrees)), fill)


def _color(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    return _blend(images, _grey(images), magnitude)


def _contrast(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    return _blend(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True).round(), magnitude)


def _brightness(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    return _blend(images, images.new_zeros(()), magnitude)


def _sharpness(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    """Against PIL's SMOOTH filter, (1 1 1 / 1 5 1 / 1 1 1) / 13, which leaves the outermost pixels as they are."""
    if images.shape[-1] < 3:
        return images
    smooth = images.clone()
    columns = images[..., :-2] + images[..., 1:-1] + images[..., 2:]
    neighbourhood = columns[..., :-2, :] + columns[..., 1:-1, :] + columns[..., 2:, :]
    smooth[..., 1:-1, 1:-1] = (neighbourhood + 4 * images[..., 1:-1, 1:-1]).div_(13).round_()
    return _blend(images, smooth, magnitude)


def _posterize(images: Tensor, bits: Tensor, fill: float | None) -> Tensor:
    return posterise(images, bits.round())


def _solarize(images: Tensor, threshold: Tensor, fill: float | None) -> Tensor:
    return solarise(images, threshold)


def _invert(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    return 255 - images


def _autocontrast(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    """Stretches each channel to the full range; a channel of one value stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    # In double precision and as a true quotient, like PIL: the products are often whole numbers.
    scale = torch.full_like(low, 255.0, dtype=torch.float64) / (high - low)
    stretched = (images * scale - low * scale).clamp_(0, 255).floor_().to(images.dtype)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, magnitude: Tensor, fill: float | None) -> Tensor:
    """Histogram equalisation of each channel by PIL's look-up table."""
    values = images.flatten(2).long()  # (n, C, pixels)
    histogram = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=values.device)
    histogram.scatter_add_(2, values, torch.ones_like(values))
    cumulative = histogram.cumsum(dim=2)
    of_maximum = histogram.gather(2, values.amax(dim=2, keepdim=True))
    step = (values.shape[2] - of_maximum) // 255
    table = (cumulative - histogram + step // 2) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp_(max=255), torch.arange(256, device=values.device))
    return table.gather(2, values).to(images.dtype).view_as(images)


def _grey(images: Tensor) -> Tensor:
    """(n, 1, S, S), whole numbers: luma of three channels, otherwise the mean of the channels."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True).round_()
    red, green, blue = images.split(1, dim=1)
    return (red * GREY_WEIGHTS[0]).add_(green, alpha=GREY_WEIGHTS[1]).add_(blue, alpha=GREY_WEIGHTS[2]).round_()


def _blend(images: Tensor, degenerate: Tensor, magnitude: Tensor) -> Tensor:
    """The image moved away from (magnitude > 0) or towards its degenerate form, cut to uint8 as PIL does."""
    factor = 1 + magnitude[:, None, None, None]
    return (degenerate + factor * (images - degenerate)).clamp_(0, 255).floor_()


_OPERATIONS: dict[str, Callable[[Tensor, Tensor, float | None], Tensor]] = {
    "shear_x": functools.partial(_shear, axis=0),
    "shear_y": functools.partial(_shear, axis=1),
    "translate_x": functools.partial(_translate, axis=0),
    "translate_y": functools.partial(_translate, axis=1),
    "rotate": _rotate,
    "color": _color,
    "posterize": _posterize,
    "solarize": _solarize,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "brightness": _brightness,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "invert": _invert,
}


@functools.lru_cache(maxsize=8)
def _policy_table(device: torch.device) -> Tensor:
    """(25, 2, 4): index of the operation, probability, magnitude, whether its sign is drawn."""
    names = list(_OPERATIONS)
    rows = []
    for sub_policy in _CIFAR10_POLICY:
        for name, probability, level in sub_policy:
            first, last, signed = _MAGNITUDES[name]
            rows.append((names.index(name), probability, first + (last - first) * level / 9, float(signed)))
    return torch.tensor(rows, device=device).view(len(_CIFAR10_POLICY), 2, 4)
