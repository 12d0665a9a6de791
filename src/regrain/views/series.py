"""Views of time series: jitter, scale, time mask, crop. A missing value (NaN) stays missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.views.base import Views, check_probabilities, check_ranges, check_sizes
from regrain.views.random import Draws

__all__ = ["SeriesPreset", "SeriesViews", "series_presets"]

_LARGEST = 10.0


@dataclass(frozen=True, kw_only=True)
class SeriesPreset:
    """What happens to a series, in this order; the defaults do nothing.

    Parameters
    ----------
    crop
        Share (from, to) of the time that a random window keeps; it is stretched back to all T steps, linearly.
    scale
        Standard deviation of a factor around 1, one a channel.
    jitter
        Standard deviation of noise at every value, in standard deviations of the channel within the sample.
    mask, mask_probability
        Share of the time that a random window sets to the channel's mean, and how often that happens.
    """

    crop: tuple[float, float] | None = None
    scale: float = 0.0
    jitter: float = 0.0
    mask: float = 0.0
    mask_probability: float = 1.0

    def __post_init__(self) -> None:
        check_ranges(self, 0, 1, "crop")
        check_sizes(self, _LARGEST, "scale", "jitter")
        check_probabilities(self, "mask", "mask_probability")


def series_presets() -> dict[str, SeriesPreset]:
    """The named presets.

    Examples
    --------
    >>> series_presets()["strong"].crop
    (0.5, 1.0)
    """
    return {
        "plain": SeriesPreset(),
        "weak": SeriesPreset(scale=0.1, jitter=0.05),
        "strong": SeriesPreset(crop=(0.5, 1.0), scale=0.2, jitter=0.1, mask=0.2),
    }


class SeriesViews(Views[SeriesPreset]):
    """Views of series (B, T, C); a dictionary with ``series`` and anything else has only the series changed.

    Parameters
    ----------
    presets : one per view; see :class:`Views` and :func:`series_presets`
    seed : int

    Examples
    --------
    >>> views = SeriesViews(["strong", "weak"])
    >>> views(torch.randn(2, 20, 3), torch.arange(2), epoch=0)[0].shape
    torch.Size([2, 20, 3])
    """

    modality: ClassVar[str] = "series"
    preset_type: ClassVar[type] = SeriesPreset

    def __init__(self, presets: Sequence[str | SeriesPreset | Mapping[str, Any]], *, seed: int = 0) -> None:
        super().__init__(presets, known=series_presets(), seed=seed)

    def plain(self, raw: Tensor | dict[str, Tensor]) -> Any:
        """The series as float32."""
        return {**raw, "series": raw["series"].float()} if isinstance(raw, dict) else raw.float()

    def _prepare(
        self, raw: Tensor | dict[str, Tensor], device: torch.device
    ) -> tuple[tuple[Tensor, dict[str, Tensor] | None], int, torch.device]:
        series = raw["series"] if isinstance(raw, dict) else raw
        if series.ndim != 3:
            raise UserError(f"raw series have shape (B, T, C), got {tuple(series.shape)}")
        return (series.float(), raw if isinstance(raw, dict) else None), len(series), series.device

    def _view(
        self, prepared: tuple[Tensor, dict[str, Tensor] | None], preset: SeriesPreset, draws: Draws
    ) -> Tensor | dict[str, Tensor]:
        series, rest = prepared
        view = _augmented(series, preset, draws)
        return view if rest is None else {**rest, "series": view}


def _augmented(series: Tensor, preset: SeriesPreset, draws: Draws) -> Tensor:
    batch, steps, channels = series.shape
    view = series
    if preset.crop is not None:
        length, start = draws.uniform("crop", 2).unbind(dim=1)
        low, high = preset.crop
        view = _window(view, start, low + (high - low) * length)
    if preset.scale:
        view = view * (1 + preset.scale * draws.normal("scale", channels))[:, None, :]
    if preset.jitter:
        spread = _spread(series)
        view = view + preset.jitter * spread * draws.normal("jitter", steps * channels).view(batch, steps, channels)
    if preset.mask:
        start, happens = draws.uniform("mask", 2).unbind(dim=1)
        width = round(preset.mask * steps)
        first = (start * (steps - width + 1)).floor()[:, None]
        time = torch.arange(steps, device=series.device)
        inside = (time >= first) & (time < first + width) & (happens < preset.mask_probability)[:, None]
        view = torch.where(inside[..., None] & ~view.isnan(), view.nanmean(dim=1, keepdim=True), view)
    return view


def _window(series: Tensor, start: Tensor, share: Tensor) -> Tensor:
    """The window of a share (B,) of the time from a place in [0, 1) of the room left, read at T steps, linearly."""
    steps = series.shape[1]
    span = share * (steps - 1)
    place = (start * (steps - 1 - span))[:, None] + span[:, None] * torch.linspace(0, 1, steps, device=series.device)
    before = place.floor().long().clamp(max=max(steps - 2, 0))
    after = (before + 1).clamp(max=steps - 1)
    fraction = (place - before)[..., None]
    rows = torch.arange(len(series), device=series.device)[:, None]
    return torch.where(
        fraction == 0, series[rows, before], torch.lerp(series[rows, before], series[rows, after], fraction)
    )


def _spread(series: Tensor) -> Tensor:
    """Standard deviation of every channel within a sample (B, 1, C), over the values that are there."""
    deviation = series - series.nanmean(dim=1, keepdim=True)
    return deviation.square().nanmean(dim=1, keepdim=True).sqrt().nan_to_num(0.0)
