"""Batched augmentation: all views of a batch at once, on its device, every sample with its own random numbers."""

from __future__ import annotations

from regrain.errors import UserError, nearest
from regrain.views.base import Views
from regrain.views.image import ImagePreset, ImageViews, image_presets
from regrain.views.series import SeriesPreset, SeriesViews, series_presets
from regrain.views.text import TextPreset, TextViews, text_presets
from regrain.views.vector import VectorPreset, VectorViews, vector_presets

__all__ = [
    "ImagePreset",
    "ImageViews",
    "SeriesPreset",
    "SeriesViews",
    "TextPreset",
    "TextViews",
    "VectorPreset",
    "VectorViews",
    "Views",
    "preset_names",
]


def preset_names(modality: str) -> list[str]:
    """The names of the presets of a modality.

    Examples
    --------
    >>> preset_names("text")
    ['plain', 'token-drop', 'token-mask']
    """
    known = {
        "image": image_presets(32),
        "text": text_presets(),
        "vector": vector_presets(),
        "series": series_presets(),
    }
    if modality not in known:
        raise UserError(f"no modality '{modality}': {nearest(modality, known)}")
    return list(known[modality])
