"""Shared parts of the views of all modalities: presets by name, the loop over views, and the checks."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import torch
from torch import Tensor, nn

from regrain.errors import UserError, nearest
from regrain.views.random import Draws

PresetType = TypeVar("PresetType")


class Views(nn.Module, Generic[PresetType]):
    """Makes all views of a batch at once, on the device of the data; one preset per view.

    A view depends on (seed, epoch, sample id, view index) and the raw sample alone: not on the batch, its order or the
    process. Nothing here is trained and nothing is saved with a model. Gradients are off and autocast is off inside.

    Parameters
    ----------
    presets : sequence with one entry per view
        The name of a preset, a preset object, or a dictionary ``{"preset": name, field: value, ...}`` that overrides
        fields of the named preset (``"plain"`` when no name is given).
    known : mapping of name to preset
    seed : int
        Of all random numbers.

    Attributes
    ----------
    count : int
        How many views ``forward`` returns.

    Raises
    ------
    UserError
        For an unknown preset or field (the nearest valid name is given) and for values out of range.
    """

    modality: ClassVar[str]
    preset_type: ClassVar[type]

    def __init__(
        self, presets: Sequence[str | PresetType | Mapping[str, Any]], *, known: Mapping[str, PresetType], seed: int
    ) -> None:
        super().__init__()
        if isinstance(presets, (str, Mapping)) or not presets:
            raise UserError(
                f"presets has one entry per view, for example ['strong', 'weak']; got {presets!r}", code="wrong_shape"
            )
        self._known = dict(known)
        self.presets: tuple[PresetType, ...] = tuple(self._resolve(preset) for preset in presets)
        self.seed = seed

    @property
    def count(self) -> int:
        return len(self.presets)

    def forward(self, raw: Any, ids: Tensor, epoch: int) -> tuple[Any, ...]:
        """One entry per view, each for the whole batch.

        Parameters
        ----------
        raw : the batch of raw samples, in the form the modality's class states
        ids : LongTensor (B,), what tells samples apart (any int64 values)
        epoch : int
            From 0; every epoch has other views.
        """
        if ids.ndim != 1 or ids.is_floating_point():
            raise UserError(
                f"ids must be a LongTensor of shape (B,), got {ids.dtype} of shape {tuple(ids.shape)}",
                code="wrong_shape",
            )
        prepared, size, device = self._prepare(raw, ids.device)
        if size != len(ids):
            raise UserError(f"{size} samples came with {len(ids)} ids; every sample needs one", code="wrong_shape")
        ids = ids.to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return tuple(
                self._view(prepared, preset, Draws(ids, seed=self.seed, epoch=epoch, view=view))
                for view, preset in enumerate(self.presets)
            )

    def with_presets(self, presets: Sequence[str | PresetType | Mapping[str, Any]]) -> Self:
        """The same views of the same data with other presets."""
        other = copy.copy(self)
        other.presets = tuple(self._resolve(preset) for preset in presets)
        return other

    @abstractmethod
    def plain(self, raw: Any) -> Any:
        """The un-augmented view, as used for evaluation."""

    @abstractmethod
    def _prepare(self, raw: Any, device: torch.device) -> tuple[Any, int, torch.device]:
        """Return the common input of all views (computed once per batch), the batch size, and the views' device."""

    @abstractmethod
    def _view(self, prepared: Any, preset: PresetType, draws: Draws) -> Any:
        """One view of the batch."""

    def _resolve(self, preset: str | PresetType | Mapping[str, Any]) -> PresetType:
        known = self._known
        if isinstance(preset, self.preset_type):
            return cast(PresetType, preset)
        if not isinstance(preset, (str, Mapping)):
            raise UserError(
                f"a preset is a name, a {self.preset_type.__name__} or a dictionary; got {type(preset).__name__}",
                code="wrong_shape",
            )
        overrides = dict(preset) if isinstance(preset, Mapping) else {"preset": preset}
        name = overrides.pop("preset", "plain")
        if name not in known:
            raise UserError(
                f"no {self.modality} preset is called {name!r}: {nearest(str(name), known)}", code="unknown_name"
            )
        fields = {field.name for field in dataclasses.fields(self.preset_type)}
        for field in overrides:
            if field not in fields:
                raise UserError(
                    f"{self.preset_type.__name__} has no field {field!r}: {nearest(str(field), fields)}",
                    code="unknown_option",
                )
        return dataclasses.replace(known[name], **overrides)  # type: ignore[type-var]


def statistic(name: str, values: Tensor | None) -> Tensor:
    """A mean of each feature, or a standard deviation where the name ends so: float32 (D,); default 0, or 1.

    Raises a UserError for numbers that are not finite, and for negative deviations.
    """
    spread = name.endswith("std")
    values = torch.tensor(float(spread)) if values is None else torch.as_tensor(values, dtype=torch.float32)
    if values.ndim > 1 or not torch.isfinite(values).all() or (spread and bool((values < 0).any())):
        raise UserError(
            f"{name} must be {'non-negative' if spread else 'finite'} numbers, one each; got {values.tolist()}",
            code="not_finite",
        )
    return values
