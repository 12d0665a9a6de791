"""Vector encoders, adapters, frozen encoders and heads."""

from __future__ import annotations

import copy

import pytest
import torch
from support import raises
from torch import Tensor, nn

from regrain.encoders import FrozenEncoder, build_encoder, predictor, projector
from regrain.encoders.vector import IdentityEncoder, MLPEncoder, ResidualEncoder
from regrain.errors import RegrainWarning


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_mlp(norm: str, activation: str) -> None:
    encoder = MLPEncoder((4, 5), hidden=(32,), width=16, norm=norm, activation=activation)  # type: ignore[arg-type]
    output = encoder(torch.randn(8, 4, 5))
    assert output.shape == (8, 16)
    output.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_standardisation_undoes_scales() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.tensor([1e-3, 1.0, 1e4]), torch.tensor([5.0, 0.0, -7.0])
    plain = MLPEncoder((3,), width=4)
    scaled = copy.deepcopy(plain)
    plain.set_statistics(x.mean(0), x.std(0))
    table = x * scale + shift
    scaled.set_statistics(table.mean(0), table.std(0))
    assert torch.allclose(plain(x), scaled(table), atol=1e-2)
    assert "input_mean" in scaled.state_dict()


def test_constant_columns_and_bad_statistics() -> None:
    encoder = MLPEncoder((2,))
    encoder.set_statistics(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert encoder(torch.tensor([[3.0, 1.0]])).isfinite().all()
    with raises("wrong_shape"):
        encoder.set_statistics(torch.zeros(3), torch.ones(3))
    with raises("not_finite"):
        encoder.set_statistics(torch.zeros(2), torch.tensor([1.0, float("nan")]))
    with raises("out_of_range"):
        MLPEncoder((2,), norm="bath")  # type: ignore[arg-type]
    with raises("out_of_range"):
        MLPEncoder((2,), activation="tanh")  # type: ignore[arg-type]


@pytest.mark.parametrize(("modality", "shape"), [("vector", (3,)), ("series", (4, 3))])
def test_standardised_input_is_what_evaluate_calls_raw(modality: str, shape: tuple[int, ...]) -> None:
    encoder = build_encoder("standardised", modality=modality, sample_shape=shape)
    x = 7 + 3 * torch.randn(50, *shape)
    x[0, 0] = float("nan")
    encoder.take_statistics(x)
    found = encoder(x)
    assert found.isfinite().all()
    assert torch.allclose(found.nanmean(dim=0), torch.zeros(encoder.width), atol=1e-5)
    assert not list(encoder.parameters())


def test_identity() -> None:
    encoder = build_encoder("identity", modality="series", sample_shape=(6, 3))
    x = torch.randn(2, 6, 3)
    assert encoder.modality == "series"
    assert torch.equal(encoder(x), x.flatten(1))
    assert encoder.width == 18
    assert not list(encoder.parameters())
    assert IdentityEncoder((3,))(torch.ones(1, 3, dtype=torch.uint8)).dtype == torch.float32
    assert encoder.origin == "no parameters"


def test_residual_starts_at_the_input_and_leaves_it_when_trained() -> None:
    encoder, x = ResidualEncoder((10,)), torch.randn(8, 10)
    encoder.set_statistics(x.mean(0), x.std(0))
    assert torch.equal(encoder(x), x)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(2):  # the first step moves the last layer alone, the second everything
        optimiser.zero_grad()
        encoder(x).square().sum().backward()
        optimiser.step()
    assert not torch.equal(encoder(x), x)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_frozen_backbone_never_changes() -> None:
    with pytest.warns(RegrainWarning, match="frozen encoder 'resnet18-w16' has random weights"):
        encoder = build_encoder(
            "resnet18-w16",
            modality="image",
            sample_shape=(3, 8, 8),
            frozen=True,
            adapter="mlp",
            adapter_options={"width": 12, "norm": "batch"},
            seed=0,
        ).train()
    assert isinstance(encoder, FrozenEncoder)
    assert encoder.modality == "image"
    assert encoder.width == 12
    backbone, adapter = state_of(encoder.backbone), state_of(encoder.adapter)
    optimiser = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder(torch.randn(8, 3, 8, 8)).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(value, backbone[name]) for name, value in state_of(encoder.backbone).items())
    assert not all(torch.equal(value, adapter[name]) for name, value in state_of(encoder.adapter).items())
    assert not encoder.backbone.training
    assert encoder.adapter.training
    assert not any(p.requires_grad or p.grad is not None for p in encoder.backbone.parameters())


def test_frozen_features_can_be_cached() -> None:
    encoder = build_encoder("hash-text", modality="text", sample_shape=(), frozen=True, origin="a test", seed=0)
    assert isinstance(encoder, FrozenEncoder)
    tokens = encoder.tokenize(["a cat", "two dogs"])  # type: ignore[operator]
    features = encoder.backbone_features(tokens)
    assert not features.requires_grad
    assert torch.equal(features, encoder(tokens))  # the residual adapter starts at the identity
    assert encoder.forward_features(features).requires_grad
    assert torch.equal(copy.deepcopy(encoder)(tokens), encoder(tokens))


def test_projector() -> None:
    assert [m.out_features for m in projector(64, 32, 16, layers=2) if isinstance(m, nn.Linear)] == [32, 32, 16]
    assert len(projector(64, layers=0)) == 1
    head = projector(64, batch_norm=True)
    assert [type(m) for m in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert predictor(16, hidden=8)(torch.randn(4, 16)).shape == (4, 16)
