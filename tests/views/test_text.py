"""TextViews: which tokens may be touched, how often, and independence of the batch and of its padding."""

from __future__ import annotations

import pytest
import torch
from support import raises
from torch import Tensor

from regrain.views import TextPreset, TextViews

PAD, START, END, MASK = 0, 1, 2, 3
SPECIAL = (PAD, START, END)


class Tokenizer:
    """One token per word, its length plus 10; padded to the longest text. Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        self.calls += 1
        rows = [[START, *(10 + len(word) for word in text.split()), END] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "token_type_ids": torch.zeros_like(ids)}


def text_views(*presets: object, seed: int = 0, mask: int | None = MASK) -> TextViews:
    return TextViews(list(presets), tokenize=Tokenizer(), mask_token_id=mask, special_token_ids=SPECIAL, seed=seed)


def texts(count: int = 50) -> list[str]:
    return [" ".join(["word"] * (1 + row % 12)) for row in range(count)]


def test_plain_views_are_the_tokens_and_tokenised_once() -> None:
    views = text_views("plain", "plain", "token-drop")
    first, second, _ = views(texts(), torch.arange(50), 0)
    assert views.tokenize.calls == 1
    for name, expected in Tokenizer()(texts()).items():
        assert torch.equal(first[name], expected)
        assert torch.equal(second[name], expected)
        assert torch.equal(views.plain(texts())[name], expected)


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_dropping_hides_tokens_only(probability: float) -> None:
    raw, (view,) = texts(600), text_views(TextPreset(drop_probability=probability))(texts(600), torch.arange(600), 0)
    tokens = Tokenizer()(raw)
    assert torch.equal(view["input_ids"], tokens["input_ids"])
    assert torch.equal(view["token_type_ids"], tokens["token_type_ids"])
    words = tokens["input_ids"] >= 10
    assert torch.equal(view["attention_mask"][~words], tokens["attention_mask"][~words])
    kept = (view["attention_mask"].bool() & words).sum(dim=1)
    assert kept.min() >= 1
    if probability == 1:
        assert kept.max() == 1
    else:
        long = words.sum(dim=1) == 12
        assert float(1 - kept[long].float().mean() / 12) == pytest.approx(probability, abs=0.04)


def test_masking_replaces_tokens_only() -> None:
    raw, (view,) = texts(600), text_views({"preset": "token-mask"})(texts(600), torch.arange(600), 0)
    tokens = Tokenizer()(raw)
    assert torch.equal(view["attention_mask"], tokens["attention_mask"])
    changed = view["input_ids"] != tokens["input_ids"]
    assert (view["input_ids"][changed] == MASK).all()
    assert (tokens["input_ids"][changed] >= 10).all()
    words = tokens["input_ids"] >= 10
    assert (words & ~changed).any(dim=1).all()
    assert float(changed[:, 1:13].sum() / words[words.sum(dim=1) > 1].sum()) == pytest.approx(0.15, abs=0.02)


def test_both_at_once_leave_a_token() -> None:
    preset = TextPreset(drop_probability=0.9, mask_probability=0.9)
    (view,) = text_views(preset)(texts(300), torch.arange(300), 0)
    left = (view["attention_mask"] == 1) & (view["input_ids"] >= 10)
    assert left.any(dim=1).all()


def test_a_view_does_not_depend_on_the_batch_or_its_padding() -> None:
    raw, ids, views = texts(), torch.arange(50) * 31, text_views("token-drop", "token-mask")
    whole = views(raw, ids, 4)
    order = torch.randperm(50)
    shuffled = views([raw[row] for row in order.tolist()], ids[order], 4)
    for before, after in zip(whole, shuffled, strict=True):
        for name in before:
            assert torch.equal(after[name], before[name][order])
    for row in (0, 3, 17):
        for before, alone in zip(whole, views([raw[row]], ids[row : row + 1], 4), strict=True):
            length = alone["input_ids"].shape[1]
            for name in before:
                assert torch.equal(alone[name][0], before[name][row, :length])


def test_epoch_view_and_seed_matter() -> None:
    raw, ids = texts(), torch.arange(50)
    first, second = text_views("token-drop", "token-drop")(raw, ids, 0)
    others = (
        second,
        text_views("token-drop")(raw, ids, 1)[0],
        text_views("token-drop", seed=1)(raw, ids, 0)[0],
    )
    for other in others:
        assert not torch.equal(other["attention_mask"], first["attention_mask"])


def test_mistakes_are_explained() -> None:
    with raises("not_supported"):
        text_views("token-mask", mask=None)
    text_views("token-drop", mask=None)
    with raises("unknown_name"):
        text_views("token-dro")
    with raises("wrong_shape"):
        text_views("plain").plain("one text")  # type: ignore[arg-type]
    broken = TextViews(
        ["plain"], tokenize=lambda raw: {"input_ids": torch.zeros(1, 1)}, mask_token_id=None, special_token_ids=()
    )
    with raises("wrong_shape"):
        broken.plain(["a"])
    with raises("wrong_shape"):
        text_views("plain")(["a"], torch.arange(2), 0)
