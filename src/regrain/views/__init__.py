"""Batched augmentation per modality: each class makes all views of a batch at once, on the device of the data."""

from __future__ import annotations

from collections.abc import Mapping

from regrain.errors import UserError, nearest
from regrain.views.base import Views
from regrain.views.image import ImagePreset, ImageViews, image_presets
from regrain.views.random import Draws
from regrain.views.series import SERIES_PRESETS, SeriesPreset, SeriesViews
from regrain.views.text import TEXT_PRESETS, TextPreset, TextViews
from regrain.views.vector import VECTOR_PRESETS, VectorPreset, VectorViews

__all__ = ["Draws", "ImagePreset", "ImageViews", "SeriesPreset", "SeriesViews", "TextPreset", "TextViews",
           "VectorPreset", "VectorViews", "Views", "image_presets", "preset_names"]  # fmt: skip


def preset_names(modality: str) -> tuple[str, ...]:
    """The names of the presets of "image", "text", "vector" or "series".

    Examples
    --------
    >>> preset_names("text")
    ('plain', 'token-drop', 'token-mask')
    """
    known: dict[str, Mapping[str, object]] = {
        "image": image_presets(224),
        "text": TEXT_PRESETS,
        "vector": VECTOR_PRESETS,
        "series": SERIES_PRESETS,
    }
    if modality not in known:
        raise UserError(f"no modality is called {modality!r}: {nearest(modality, known)}", code="unknown_name")
    return tuple(known[modality])
