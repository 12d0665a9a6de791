"""A text encoder that needs no extra package and no weights: hashed words, word pairs and character trigrams."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrain.checks import Count

from .base import Encoder

_PADDING, _MASK = 0, 1
_RESERVED = 2
"""Rows of the table that are kept for these."""

_BUCKETS, _TABLE_WIDTH = 2**15, 128
"""Rows of the table of embeddings, and their width. Tokens that fall into the same row are not told apart."""

_WORD = re.compile(r"\w+|[^\w\s]")


class HashTextEncoder(Encoder):
    """Mean of hashed n-gram embeddings, then a small MLP; fast enough for tests and for machines without the extra.

    Lower-cased words, pairs of neighbouring words and character trigrams are hashed (CRC-32, the same in every
    process) into a table of embeddings. A word's tokens stand together, in the order of the text, so that cropping
    or masking tokens crops or masks text.

    Parameters
    ----------
    sample_shape : ()
        Texts have no shape; there for the common signature.
    hidden, width : int
        Dimensions of the hidden layer and of the embedding.
    max_length : int, default 512
        Tokens a text is cut to; an English word is about seven.

    References
    ----------
    Joulin et al., Bag of tricks for efficient text classification, EACL 2017.

    Examples
    --------
    >>> encoder = HashTextEncoder()
    >>> encoder(encoder.tokenize(["a cat", "the dog barks"])).shape
    torch.Size([2, 128])
    """

    modality = "text"
    mask_token_id = _MASK
    special_token_ids = (_PADDING, _MASK)

    def __init__(
        self,
        sample_shape: Sequence[int] = (),
        *,
        hidden: Count = 256,
        width: Count = 128,
        max_length: Count = 512,
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.table = nn.Parameter(torch.randn(_BUCKETS, _TABLE_WIDTH) * _TABLE_WIDTH**-0.5)
        self.mlp = nn.Sequential(
            nn.LayerNorm(_TABLE_WIDTH), nn.Linear(_TABLE_WIDTH, hidden), nn.GELU(), nn.Linear(hidden, width)
        )
        self.width = width

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts -> {"input_ids", "attention_mask"}, both (B, longest) long, cut at ``max_length``."""
        tokens = [self._ids(text)[: self.max_length] for text in texts]
        longest = max([1, *map(len, tokens)])
        ids = torch.tensor([row + [_PADDING] * (longest - len(row)) for row in tokens]).view(len(tokens), longest)
        lengths = torch.tensor([len(row) for row in tokens])
        return {"input_ids": ids.long(), "attention_mask": (torch.arange(longest) < lengths.unsqueeze(1)).long()}

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many texts ``tokenize`` cuts."""
        return sum(len(self._ids(text)) > self.max_length for text in texts)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        """Tokens ``{"input_ids", "attention_mask"}`` (B, T) -> embeddings (B, width)."""
        mask = x["attention_mask"].to(self.table.dtype)
        total = F.embedding_bag(x["input_ids"], self.table, mode="sum", per_sample_weights=mask)  # (B, 128)
        return self.mlp(total / mask.sum(1, keepdim=True).clamp_min(1))

    def _ids(self, text: str) -> list[int]:
        words = _WORD.findall(text.lower())
        ids: list[int] = []
        for previous, word in zip(["", *words], words, strict=False):
            ids += _word_ids(word)
            if previous:
                ids.append(_bucket(f"pair {previous} {word}"))
        return ids


def _bucket(token: str) -> int:
    return _RESERVED + crc32(token.encode("utf-8", "surrogatepass")) % (_BUCKETS - _RESERVED)


@lru_cache(maxsize=2**16)
def _word_ids(word: str) -> tuple[int, ...]:
    """The word itself, then its character trigrams, with the word's ends marked."""
    marked = f"<{word}>"
    trigrams = (marked[start : start + 3] for start in range(len(marked) - 2))
    return (_bucket(f"word {word}"), *(_bucket(f"gram {gram}") for gram in trigrams))
