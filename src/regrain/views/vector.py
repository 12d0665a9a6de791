"""Views of vectors: features dropped, noise added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.views.base import Views, check_probabilities, check_sizes
from regrain.views.random import Draws

__all__ = ["VectorPreset", "VectorViews", "vector_presets"]

_LARGEST_NOISE = 10.0


@dataclass(frozen=True, kw_only=True)
class VectorPreset:
    """What happens to a vector; the defaults do nothing.

    Parameters
    ----------
    noise
        Standard deviation of Gaussian noise, in standard deviations of each feature.
    drop_probability
        Of each feature to be replaced by its mean.
    """

    noise: float = 0.0
    drop_probability: float = 0.0

    def __post_init__(self) -> None:
        check_probabilities(self, "drop_probability")
        check_sizes(self, _LARGEST_NOISE, "noise")


def vector_presets() -> dict[str, VectorPreset]:
    """The named presets.

    Examples
    --------
    >>> vector_presets()["strong"]
    VectorPreset(noise=0.1, drop_probability=0.2)
    """
    return {
        "plain": VectorPreset(),
        "weak": VectorPreset(noise=0.05),
        "strong": VectorPreset(noise=0.1, drop_probability=0.2),
    }


class VectorViews(Views[VectorPreset]):
    """Views of vectors (B, D), float32.

    Parameters
    ----------
    presets : one per view; see :class:`Views` and :func:`vector_presets`
    mean, std : Tensor (D,), optional
        Of every feature over the training samples: what a dropped feature becomes, and the unit of the noise. Default 0
        and 1.
    seed : int

    Examples
    --------
    >>> views = VectorViews(["strong", "plain"])
    >>> raw = torch.ones(2, 3)
    >>> torch.equal(views(raw, torch.arange(2), epoch=0)[1], raw)
    True
    """

    modality: ClassVar[str] = "vector"
    preset_type: ClassVar[type] = VectorPreset
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        presets: Sequence[str | VectorPreset | Mapping[str, Any]],
        *,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(presets, known=vector_presets(), seed=seed)
        self.register_buffer("mean", torch.zeros(1) if mean is None else mean.float(), persistent=False)
        self.register_buffer("std", torch.ones(1) if std is None else std.float(), persistent=False)

    def plain(self, raw: Tensor) -> Tensor:
        """The vectors as float32."""
        return raw.float()

    def _prepare(self, raw: Tensor, device: torch.device) -> tuple[Tensor, int, torch.device]:
        if raw.ndim != 2 or (len(self.mean) not in (1, raw.shape[1])):
            wanted = "D" if len(self.mean) == 1 else len(self.mean)
            raise UserError(f"raw vectors have shape (B, {wanted}), got {tuple(raw.shape)}")
        return raw.float(), len(raw), raw.device

    def _view(self, prepared: Tensor, preset: VectorPreset, draws: Draws) -> Tensor:
        view = prepared
        if preset.noise:
            view = view + preset.noise * self.std * draws.normal("noise", view.shape[1])
        if preset.drop_probability:
            dropped = draws.uniform("drop", view.shape[1]) < preset.drop_probability
            view = torch.where(dropped, self.mean, view)
        return view
