"""Views of time series: noise, scale per channel, a masked stretch of time, and a random window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.checks import NonNegative, Share, ShareRange, checks_settings
from regrain.errors import UserError
from regrain.views.base import Views, statistic
from regrain.views.random import Draws


@checks_settings
@dataclass(frozen=True, kw_only=True)
class SeriesPreset:
    """Transforms of a series, in this order; the defaults do nothing.

    Scale, noise and mask are in standard deviations from the mean of the channel; see :class:`SeriesViews`.
    """

    crop: ShareRange | None = None
    """Share of the time span of a random window (from, to), stretched to the full length; ``None``: the whole span."""
    scale: Share = 0.0
    """A channel's deviation from its mean is multiplied by a factor from [1 - scale, 1 + scale]."""
    noise: NonNegative = 0.0
    """Standard deviation of the Gaussian noise at every step, in standard deviations of the channel."""
    mask: ShareRange = (0.05, 0.2)
    mask_probability: Share = 0.0
    """``mask``, ``mask_probability``: share of the steps (from, to) of one stretch of time that is set to the channels'
    means.
    """
    static_noise: NonNegative = 0.0
    """Standard deviation of the Gaussian noise on static features, in standard deviations of the feature."""
    static_drop_probability: Share = 0.0
    """Of replacing a static feature by its mean."""


SERIES_PRESETS: dict[str, SeriesPreset] = {
    "plain": SeriesPreset(),
    "weak": SeriesPreset(scale=0.05, noise=0.02),
    "strong": SeriesPreset(
        crop=(0.6, 1.0), scale=0.2, noise=0.1, mask_probability=0.5, static_noise=0.1, static_drop_probability=0.15
    ),
}


class SeriesViews(Views[SeriesPreset]):
    """Views of series: raw (B, T, C) of any float dtype, views float32 (B, T, C). NaN is missing and stays missing.

    A dictionary ``{"series": (B, T, C), "static": (B, S), ...}`` comes back as one, with the static features changed as
    the preset says (``weak`` leaves them as they are) and all else passed on.

    Parameters
    ----------
    presets : one per view; names: ``plain``, ``weak``, ``strong``
    mean, std : Tensor (C,), optional
        Of each channel over the training set; 0 and 1 (standardised series) when absent.
    static_mean, static_std : Tensor (S,), optional
        The same of each static feature.

    Examples
    --------
    >>> views = SeriesViews(["strong", "plain"])
    >>> raw = {"series": torch.zeros(2, 50, 3), "static": torch.ones(2, 4)}
    >>> query, key = views(raw, torch.tensor([4, 9]), epoch=0)
    >>> query["series"].shape, torch.equal(key["series"], raw["series"])
    (torch.Size([2, 50, 3]), True)
    """

    modality: ClassVar[str] = "series"
    preset_type: ClassVar[type] = SeriesPreset
    mean: Tensor
    std: Tensor
    static_mean: Tensor
    static_std: Tensor

    def __init__(
        self,
        presets: Sequence[str | SeriesPreset | Mapping[str, Any]],
        *,
        seed: int = 0,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        static_mean: Tensor | None = None,
        static_std: Tensor | None = None,
    ) -> None:
        super().__init__(presets, known=SERIES_PRESETS, seed=seed)
        for name, values in {"mean": mean, "std": std, "static_mean": static_mean, "static_std": static_std}.items():
            self.register_buffer(name, statistic(name, values), persistent=False)

    def plain(self, raw: Tensor | Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """The series as they are, float32."""
        series, rest = _unpack(raw)
        return _pack(series, rest)

    def _prepare(self, raw: Any, device: torch.device) -> tuple[Any, int, torch.device]:
        series, rest = _unpack(raw)
        for name, values, size, what in (
            ("mean", self.mean, series.shape[2], "channels"),
            ("static_mean", self.static_mean, _static_width(rest), "static features"),
        ):
            if values.ndim and len(values) != size:
                raise UserError(f"{name} has {len(values)} {what} and the series have {size}", code="wrong_shape")
        return (series, rest), len(series), series.device

    def _view(self, prepared: Any, preset: SeriesPreset, draws: Draws) -> Tensor | dict[str, Tensor]:
        series, rest = prepared
        _, steps, channels = series.shape
        if preset.crop is not None:
            low, high = preset.crop
            unit = draws.uniform("crop", 2)
            share = low + (high - low) * unit[:, 0]
            series = _window(series, unit[:, 1] * (1 - share), share)
        mean, std = self.mean.to(series.device), self.std.to(series.device)
        if preset.scale > 0:
            factor = (1 + preset.scale * (2 * draws.uniform("scale", channels) - 1))[:, None]  # (B, 1, C)
            series = mean + (series - mean) * factor
        if preset.noise > 0:
            series = series + preset.noise * std * draws.normal("noise", steps * channels).view_as(series)
        if preset.mask_probability > 0:
            masked = _stretch(draws.uniform("mask", 3), preset, steps)
            series = torch.where(masked[:, :, None] & ~series.isnan(), mean, series)
        width = _static_width(rest)
        if rest is not None and width:
            rest = {**rest, "static": self._static_view(rest["static"].to(torch.float32), preset, draws)}
        return _pack(series, rest)

    def _static_view(self, static: Tensor, preset: SeriesPreset, draws: Draws) -> Tensor:
        """Static features (B, S) with noise, some of them replaced by their mean; what is missing stays missing."""
        width = static.shape[1]
        if preset.static_noise > 0:
            spread = preset.static_noise * self.static_std.to(static.device)
            static = static + spread * draws.normal("static noise", width)
        if preset.static_drop_probability > 0:
            dropped = draws.uniform("static drop", width) < preset.static_drop_probability
            static = torch.where(dropped & ~static.isnan(), self.static_mean.to(static.device), static)
        return static


def _static_width(rest: Mapping[str, Tensor] | None) -> int:
    return 0 if rest is None or "static" not in rest else rest["static"].shape[1]


def _unpack(raw: Tensor | Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor] | None]:
    if isinstance(raw, Mapping) and "series" not in raw:
        raise UserError(f"a dictionary of raw series needs the key 'series', got {sorted(raw)}", code="wrong_shape")
    series = raw["series"] if isinstance(raw, Mapping) else raw
    if series.ndim != 3 or not series.is_floating_point():
        raise UserError(
            f"raw series must be floats of shape (B, T, C), got {series.dtype} of {tuple(series.shape)}",
            code="wrong_shape",
        )
    return series.to(torch.float32), dict(raw) if isinstance(raw, Mapping) else None


def _pack(series: Tensor, rest: dict[str, Tensor] | None) -> Tensor | dict[str, Tensor]:
    return series if rest is None else {**rest, "series": series}


def _window(series: Tensor, start: Tensor, share: Tensor) -> Tensor:
    """The span [start, start + share] (B,) of the time [0, 1], resampled to all steps by linear interpolation.

    Where the nearer of the two neighbours is missing the result is; where only the farther one is, the nearer counts.
    """
    _, steps, channels = series.shape
    grid = torch.linspace(0, 1, steps, device=series.device)
    places = (start[:, None] + share[:, None] * grid) * (steps - 1)  # (B, T)
    before = places.floor().clamp_(0, max(steps - 2, 0))
    weight = (places - before)[:, :, None]
    index = before.long()[:, :, None].expand(-1, -1, channels)
    left, right = series.gather(1, index), series.gather(1, (index + 1).clamp_(max=steps - 1))
    nearer, farther = torch.where(weight < 0.5, left, right), torch.where(weight < 0.5, right, left)
    return torch.where(farther.isnan(), nearer, left + weight * (right - left))


def _stretch(unit: Tensor, preset: SeriesPreset, steps: int) -> Tensor:
    """(B, T) bool: one stretch of time per sample, of at least one step, or none."""
    low, high = preset.mask
    length = ((low + (high - low) * unit[:, 1]) * steps).round_().clamp_(min=1)
    first = torch.floor(unit[:, 2] * (steps + 1 - length))
    step = torch.arange(steps, device=unit.device)
    within = (step >= first[:, None]) & (step < (first + length)[:, None])
    return within & (unit[:, :1] < preset.mask_probability)
