"""Views of vectors (records, tables, frozen features): Gaussian noise and dropped features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.checks import NonNegative, Share, checks_settings
from regrain.errors import UserError
from regrain.views.base import Views, statistic
from regrain.views.random import Draws


@checks_settings
@dataclass(frozen=True, kw_only=True)
class VectorPreset:
    """Transforms of the features of a record; the defaults do nothing."""

    noise: NonNegative = 0.0
    """Standard deviation of the Gaussian noise, in standard deviations of the feature."""
    drop_probability: Share = 0.0
    """Of replacing a feature by its mean."""


VECTOR_PRESETS: dict[str, VectorPreset] = {
    "plain": VectorPreset(),
    "weak": VectorPreset(noise=0.02),
    "strong": VectorPreset(noise=0.1, drop_probability=0.15),
}


class VectorViews(Views[VectorPreset]):
    """Views of vectors: raw (B, D) of any float dtype, views float32 (B, D). NaN is missing and stays missing.

    Parameters
    ----------
    presets : one per view; names: ``plain``, ``weak``, ``strong``
    mean, std : Tensor (D,), optional
        Of each feature over the training set; 0 and 1 (standardised features) when absent. A feature with std 0 gets no
        noise.

    Examples
    --------
    >>> views = VectorViews(["strong", "plain"])
    >>> raw = torch.ones(8, 3)
    >>> noisy, same = views(raw, torch.arange(8), epoch=0)
    >>> torch.equal(same, raw), noisy.shape
    (True, torch.Size([8, 3]))
    """

    modality: ClassVar[str] = "vector"
    preset_type: ClassVar[type] = VectorPreset
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        presets: Sequence[str | VectorPreset | Mapping[str, Any]],
        *,
        seed: int = 0,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        super().__init__(presets, known=VECTOR_PRESETS, seed=seed)
        for name, values in {"mean": mean, "std": std}.items():
            self.register_buffer(name, statistic(name, values), persistent=False)

    def plain(self, raw: Tensor) -> Tensor:
        """The vectors as they are, float32."""
        return self._prepare(raw, raw.device)[0]

    def _prepare(self, raw: Tensor, device: torch.device) -> tuple[Tensor, int, torch.device]:
        if raw.ndim != 2 or not raw.is_floating_point():
            raise UserError(
                f"raw vectors must be floats of shape (B, D), got {raw.dtype} of {tuple(raw.shape)}", code="wrong_shape"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values.ndim and len(values) != raw.shape[1]:
                raise UserError(
                    f"{name} has {len(values)} features and the vectors have {raw.shape[1]}", code="wrong_shape"
                )
        return raw.to(torch.float32), len(raw), raw.device

    def _view(self, prepared: Tensor, preset: VectorPreset, draws: Draws) -> Tensor:
        vectors, features = prepared, prepared.shape[1]
        if preset.noise > 0:
            vectors = vectors + draws.normal("noise", features) * (preset.noise * self.std.to(vectors.device))
        if preset.drop_probability > 0:
            dropped = (draws.uniform("drop", features) < preset.drop_probability) & ~vectors.isnan()
            vectors = torch.where(dropped, self.mean.to(vectors.device), vectors)
        return vectors
