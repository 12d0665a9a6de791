"""Image files made of random pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

WriteImage = Callable[..., np.ndarray]


def encode(array: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """An image file's bytes."""
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format=form, **options)
    return stream.getvalue()


def pixels(seed: int, height: int = 8, width: int | None = None, channels: int = 3) -> np.ndarray:
    """Random uint8 pixels (height, width[, channels])."""
    shape = (height, width or height) if channels == 1 else (height, width or height, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
