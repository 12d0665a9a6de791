"""The DCCN against its definition: missing values, scales, channels, attention; and the flat encoders on records."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from support import raises
from torch import Tensor, nn

from regrain.encoders import build_encoder, default_encoder
from regrain.encoders.base import ScaledEncoder, column_statistics
from regrain.encoders.series import DCCNEncoder

NAN = float("nan")


def records(count: int = 12, steps: int = 5, channels: int = 4, static: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    series = torch.randn(count, steps, channels, generator=generator)
    return {"series": series, "static": torch.randn(count, static, generator=generator)}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("static", [0, 3])
def test_shapes_and_gradients(cell: Literal["lstm", "gru"], attention: bool, static: int) -> None:
    encoder = DCCNEncoder((5, 4), static, cell=cell, attention=attention, state=8, width=6, missing_inputs=True)
    x: Any = records(static=static)
    x["series"][0, 1:3] = NAN
    output = encoder(x if static else x["series"])
    assert output.shape == (12, 6)
    assert output.isfinite().all()
    output.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or "bias" in name, name


def test_a_missing_value_counts_as_the_training_mean() -> None:
    x = records()
    x["series"][3, 2, 1] = NAN
    x["static"][5, 0] = NAN
    encoder = DCCNEncoder((5, 4), 3, state=8)
    encoder.take_statistics(x)
    filled = {name: value.clone() for name, value in x.items()}
    filled["series"][3, 2, 1] = encoder.input_mean[1]
    filled["static"][5, 0] = encoder.input_static_mean[0]
    torch.testing.assert_close(encoder(x), encoder(filled))
    told = DCCNEncoder((5, 4), 3, state=8, missing_inputs=True)
    told.copy_statistics(encoder)
    assert not torch.allclose(told(x)[3], told(filled)[3])
    assert torch.allclose(told(x)[0], told(filled)[0])


@pytest.mark.parametrize("attention", [False, True])
def test_samples_without_any_value_are_finite_and_leave_others_alone(attention: bool) -> None:
    x = records()
    encoder = DCCNEncoder((5, 4), 3, state=8, attention=attention)
    before = encoder(x)
    x["series"][2], x["static"][2] = NAN, NAN
    output = encoder(x)
    assert output.isfinite().all()
    rest = torch.arange(12) != 2
    torch.testing.assert_close(output[rest], before[rest])
    x["series"].requires_grad_()
    encoder(x).sum().backward()
    assert x["series"].grad is not None
    assert x["series"].grad.isfinite().all()


def test_statistics_leave_missing_values_out() -> None:
    x = records(count=40)
    x["series"] = x["series"] * torch.tensor([1.0, 10.0, 0.0, 1e3]) + 5
    x["series"][:7, 1, 1], x["series"][:, :, 3] = NAN, NAN
    encoder = DCCNEncoder((5, 4), 3, state=8)
    encoder.take_statistics(x)
    for channel in (0, 1, 2):
        values = x["series"][:, :, channel].flatten()
        values = values[~values.isnan()]
        assert float(encoder.input_mean[channel]) == pytest.approx(float(values.mean()), rel=1e-5)
        expected = float(values.std()) if channel < 2 else 1.0  # a constant channel is only centred
        assert float(encoder.input_std[channel]) == pytest.approx(expected, rel=1e-5)
    assert float(encoder.input_mean[3]) == 0  # never a value
    assert float(encoder.input_std[3]) == 1
    torch.testing.assert_close(encoder.input_static_mean, x["static"].mean(0))
    scaled = copy.deepcopy(encoder)
    other = {"series": x["series"] * 100 - 3, "static": x["static"] * 7}
    scaled.take_statistics(other)
    torch.testing.assert_close(encoder(x), scaled(other), atol=1e-3, rtol=1e-3)
    assert column_statistics(torch.tensor([[3.0]]))[1].item() == 0  # one sample has no spread
    with raises("not_finite"):
        encoder.take_statistics({"series": torch.full((2, 5, 4), torch.inf), "static": torch.zeros(2, 3)})


def test_attention_is_a_weighted_mean_that_passes_over_empty_steps() -> None:
    x = records()["series"]
    x[:, 3] = NAN
    encoder = DCCNEncoder((5, 4), state=8, attention=True)
    states, _ = encoder.temporal(x.nan_to_num())
    assert encoder.score is not None
    expected = []
    for row in range(12):
        weights = torch.cat([encoder.score(states[row, t]).exp() * (t != 3) for t in range(5)])
        expected.append((weights[:, None] * states[row]).sum(0) / weights.sum())
    torch.testing.assert_close(encoder(x), encoder.combine(torch.stack(expected)), atol=1e-5, rtol=1e-4)


def test_without_attention_it_is_the_last_state() -> None:
    x = records()
    encoder = DCCNEncoder((5, 4), 3, state=8, layers=2, dropout=0.5).eval()
    states, _ = encoder.temporal(x["series"])
    assert encoder.static is not None
    torch.testing.assert_close(encoder(x), encoder.combine(torch.cat([states[:, -1], encoder.static(x["static"])], 1)))
    assert isinstance(DCCNEncoder((5, 4), cell="gru").temporal, nn.GRU)


def test_time_order_and_static_features_matter() -> None:
    x = records()
    encoder = DCCNEncoder((5, 4), 3, state=8)
    assert not torch.allclose(encoder(x), encoder({**x, "series": x["series"].flip(1)}))
    assert not torch.allclose(encoder(x), encoder({**x, "static": x["static"] + 1}))


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_flat_encoders_take_records_and_fill_in_means(name: str) -> None:
    x = records()
    x["series"][3, 2, 1], x["static"][5, 0] = NAN, NAN
    encoder = build_encoder(name, modality="series", sample_shape=(5, 4), static_width=3)
    assert isinstance(encoder, ScaledEncoder)
    encoder.take_statistics(x)
    flat = torch.cat([x["series"].flatten(1), x["static"]], dim=1)
    filled = torch.where(flat.isnan(), flat.nanmean(dim=0), flat)
    twin = build_encoder(name, modality="vector", sample_shape=(23,))
    twin.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoder(x), twin(filled))
    assert encoder(x).isfinite().all()


def test_identity_refuses_what_is_missing() -> None:
    x = records()
    encoder = build_encoder("identity", modality="series", sample_shape=(5, 4), static_width=3)
    assert torch.equal(encoder(x), torch.cat([x["series"].flatten(1), x["static"]], dim=1))
    assert encoder.width == 23
    x["static"][0, 0] = NAN
    with raises("not_finite"):
        encoder(x)


def test_dccn_is_the_default_and_mistakes_are_explained() -> None:
    assert default_encoder("series", (5, 4)) == "dccn"
    encoder = build_encoder("dccn", modality="series", sample_shape=(5, 4), cell="gru", attention=True)
    assert isinstance(encoder, DCCNEncoder)
    with raises("wrong_shape"):
        encoder(records())
    with raises("unknown_option"):
        build_encoder("dccn", modality="series", sample_shape=(5, 4), cel="gru")
    with raises("out_of_range"):
        build_encoder("dccn", modality="series", sample_shape=(5, 4), cell="rnn")
    with raises("out_of_range"):
        DCCNEncoder((5, 4), cell="rnn")  # type: ignore[arg-type]
    with raises("wrong_shape"):
        DCCNEncoder((5, 4), 3, static_hidden=())
    with raises("unknown_name"):
        build_encoder("dccn", modality="vector", sample_shape=(5,))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_half_precision_stays_finite(cell: Literal["lstm", "gru"]) -> None:
    x = records()
    x["series"][0] = NAN
    encoder = DCCNEncoder((5, 4), 3, cell=cell, attention=True, state=8)
    exact = encoder(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = encoder(x)
    torch.testing.assert_close(rough.float(), exact, atol=0.05, rtol=0.1)
