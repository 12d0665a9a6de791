"""Views of texts: what dropout does not vary, token drop and token mask do."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.errors import UserError
from regrain.views.base import Views, check_probabilities
from regrain.views.random import Draws

__all__ = ["TextPreset", "TextViews", "text_presets"]


@dataclass(frozen=True, kw_only=True)
class TextPreset:
    """What happens to the tokens of a text; the defaults do nothing.

    Parameters
    ----------
    drop_probability
        Of each token to be hidden from the encoder (attention 0).
    mask_probability
        Of each token to be replaced by the mask token.
    """

    drop_probability: float = 0.0
    mask_probability: float = 0.0

    def __post_init__(self) -> None:
        check_probabilities(self, "drop_probability", "mask_probability")


def text_presets() -> dict[str, TextPreset]:
    """The named presets.

    ``plain`` leaves the tokens alone: two such views differ by the encoder's dropout alone (SimCSE, Gao et al. 2021).

    Examples
    --------
    >>> text_presets()["token-drop"].drop_probability
    0.1
    """
    return {
        "plain": TextPreset(),
        "token-drop": TextPreset(drop_probability=0.1),
        "token-mask": TextPreset(mask_probability=0.15),
    }


class TextViews(Views[TextPreset]):
    """Views of texts as token tensors ``{"input_ids": (B, T), "attention_mask": (B, T)}``.

    Special tokens are never touched, and at least one other token of a text stays as it is.

    Parameters
    ----------
    presets : one per view; see :class:`Views` and :func:`text_presets`
    tokenize : callable
        A list of str -> input_ids and attention_mask; called once a batch.
    mask_token_id : int or None
        None where the tokenizer has no mask token; then no preset may mask.
    special_token_ids : collection of int
    seed : int

    Raises
    ------
    UserError
        For a preset that masks without a mask token.
    """

    modality: ClassVar[str] = "text"
    preset_type: ClassVar[type] = TextPreset

    def __init__(
        self,
        presets: Sequence[str | TextPreset | Mapping[str, Any]],
        *,
        tokenize: Callable[[list[str]], dict[str, Tensor]],
        mask_token_id: int | None,
        special_token_ids: Collection[int],
        seed: int = 0,
    ) -> None:
        super().__init__(presets, known=text_presets(), seed=seed)
        if mask_token_id is None and any(preset.mask_probability for preset in self.presets):
            raise UserError("this encoder's tokenizer has no mask token: use 'token-drop' in place of 'token-mask'")
        self.tokenize = tokenize
        self.mask_token_id = mask_token_id
        special = torch.tensor(sorted(special_token_ids), dtype=torch.long)
        self.register_buffer("special", special, persistent=False)

    special: Tensor

    def plain(self, raw: list[str]) -> dict[str, Tensor]:
        """The texts' tokens, on the device of the views."""
        return {name: value.to(self.special.device) for name, value in self.tokenize(raw).items()}

    def _prepare(self, raw: list[str], device: torch.device) -> tuple[dict[str, Tensor], int, torch.device]:
        return {name: value.to(device) for name, value in self.tokenize(raw).items()}, len(raw), device

    def _view(self, prepared: dict[str, Tensor], preset: TextPreset, draws: Draws) -> dict[str, Tensor]:
        view = dict(prepared)
        ids, attention = prepared["input_ids"], prepared["attention_mask"]
        open_to_change = attention.bool() & ~torch.isin(ids, self.special.to(ids.device))  # (B, T)
        if preset.drop_probability:
            dropped = _chosen(open_to_change, preset.drop_probability, draws.uniform("drop", ids.shape[1]))
            view["attention_mask"] = attention.masked_fill(dropped, 0)
        if preset.mask_probability:
            assert self.mask_token_id is not None
            masked = _chosen(open_to_change, preset.mask_probability, draws.uniform("mask", ids.shape[1]))
            view["input_ids"] = ids.masked_fill(masked, self.mask_token_id)
        return view


def _chosen(allowed: Tensor, probability: float, draws: Tensor) -> Tensor:
    """Allowed places whose draw falls below the probability, but never all of a row: the largest draw is spared."""
    chosen = allowed & (draws < probability)
    spared = draws.masked_fill(~allowed, -1).argmax(dim=1, keepdim=True)
    return chosen.scatter(1, spared, False)
