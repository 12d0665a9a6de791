"""Views of texts: tokenised once per batch, then token noise per sample and position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regrain.checks import Share, checks_settings
from regrain.errors import UserError
from regrain.views.base import Views
from regrain.views.random import Draws


@checks_settings
@dataclass(frozen=True, kw_only=True)
class TextPreset:
    """Transforms of the tokens of a text; the defaults do nothing."""

    drop_probability: Share = 0.0
    """Of hiding a token: its ``attention_mask`` becomes 0, its position stays."""
    mask_probability: Share = 0.0
    """Of replacing a token by the mask token."""


TEXT_PRESETS: dict[str, TextPreset] = {
    "plain": TextPreset(),
    "token-drop": TextPreset(drop_probability=0.1),
    "token-mask": TextPreset(mask_probability=0.15),
}


class TextViews(Views[TextPreset]):
    """Views of texts. Two ``plain`` views are equal, and encoders are fine-tuned without dropout.

    Contrast needs another preset.

    Parameters
    ----------
    presets : one per view; names: ``plain``, ``token-drop``, ``token-mask``
    tokenize : callable
        Turns a list of strings into a dictionary with ``input_ids`` and ``attention_mask``, LongTensors (B, T), and any
        others, which are passed on.
    mask_token_id : int or None
        Needed by presets that mask.
    special_token_ids : sequence of int
        Tokens that are never touched (start, separator, padding, ...).

    Notes
    -----
    Special tokens and padding stay as they are, and at least one other token of each text is left alone. A view is a
    dictionary of tensors on the device of the ids; ``plain`` leaves them on the device of this module.

    Examples
    --------
    >>> def tokenize(texts):
    ...     ids = torch.tensor([[1] + [ord(letter) for letter in text] + [2] for text in texts])
    ...     return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    >>> views = TextViews(["plain", {"preset": "token-mask", "mask_probability": 1.0}], tokenize=tokenize,
    ...                   mask_token_id=0, special_token_ids=[1, 2])
    >>> query, key = views(["abc"], torch.tensor([5]), epoch=0)
    >>> query["input_ids"].tolist(), int((key["input_ids"] == 0).sum())
    ([[1, 97, 98, 99, 2]], 2)
    """

    modality: ClassVar[str] = "text"
    preset_type: ClassVar[type] = TextPreset
    special_token_ids: Tensor

    def __init__(
        self,
        presets: Sequence[str | TextPreset | Mapping[str, Any]],
        *,
        tokenize: Callable[[list[str]], Mapping[str, Tensor]],
        mask_token_id: int | None,
        special_token_ids: Sequence[int],
        seed: int = 0,
    ) -> None:
        super().__init__(presets, known=TEXT_PRESETS, seed=seed)
        if mask_token_id is None and any(preset.mask_probability > 0 for preset in self.presets):
            raise UserError(
                "this tokenizer has no mask token: use the preset 'token-drop' or 'plain'", code="not_supported"
            )
        self.tokenize = tokenize
        self.mask_token_id = mask_token_id
        special = torch.tensor(list(special_token_ids), dtype=torch.int64)
        self.register_buffer("special_token_ids", special, persistent=False)

    def plain(self, raw: list[str]) -> dict[str, Tensor]:
        """The tokens as they are."""
        return self._prepare(raw, self.special_token_ids.device)[0]

    def _prepare(self, raw: list[str], device: torch.device) -> tuple[dict[str, Tensor], int, torch.device]:
        if isinstance(raw, str):
            raise UserError("raw texts must be a list of strings, got one string", code="wrong_shape")
        tokens = dict(self.tokenize(list(raw)))
        if device.type == "cuda":  # from pinned memory, so that nobody waits for the copy
            tokens = {name: values.pin_memory() for name, values in tokens.items()}
        tokens = {name: values.to(device, non_blocking=True) for name, values in tokens.items()}
        for name in ("input_ids", "attention_mask"):
            if name not in tokens:
                raise UserError(f"the tokenizer gave no {name!r}, only {sorted(tokens)}", code="wrong_shape")
        return tokens, len(raw), device

    def _view(self, prepared: dict[str, Tensor], preset: TextPreset, draws: Draws) -> dict[str, Tensor]:
        tokens = dict(prepared)
        free = tokens["attention_mask"].bool()
        free &= ~torch.isin(tokens["input_ids"], self.special_token_ids.to(free.device))
        if preset.drop_probability > 0:
            dropped = _pick(draws, "drop", preset.drop_probability, free)
            tokens["attention_mask"] = tokens["attention_mask"].masked_fill(dropped, 0)
            free = free & ~dropped
        if preset.mask_probability > 0 and self.mask_token_id is not None:
            masked = _pick(draws, "mask", preset.mask_probability, free)
            tokens["input_ids"] = tokens["input_ids"].masked_fill(masked, self.mask_token_id)
        return tokens


def _pick(draws: Draws, name: str, probability: float, free: Tensor) -> Tensor:
    """(B, T) bool: free positions, each with the given probability, all but the one with the largest draw at most."""
    unit = draws.uniform(name, free.shape[1]).masked_fill(~free, -1.0)
    last = torch.zeros_like(free).scatter_(1, unit.argmax(dim=1, keepdim=True), True)
    return free & (unit < probability) & ~last
