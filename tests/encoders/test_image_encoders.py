"""Image encoders: widths, stems, small sizes, weights from files and from (a mocked) hub, half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from support import raises
from torch import nn

from regrain.encoders import Encoder, build_encoder
from regrain.errors import RegrainWarning, UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Any:
    return build_encoder(name, modality="image", sample_shape=shape, seed=0, **options)


@pytest.mark.parametrize("size", [8, 28, 32, 64, 105, 224])
@pytest.mark.parametrize(("name", "width"), [("conv4", 64), ("resnet12", 640), ("resnet18-w16", 128)])
def test_width_at_every_size(name: str, width: int, size: int) -> None:
    channels = {8: 1, 28: 1, 32: 3, 64: 4, 105: 1, 224: 3}[size]
    encoder = build(name, (channels, size, size)).eval()
    with torch.no_grad():
        output = encoder(torch.randn(1, channels, size, size))
    assert encoder.modality == "image"
    assert output.shape == (1, encoder.width) == (1, width)
    assert output.isfinite().all()
    assert output.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "shape", "width"),
    [
        ("resnet18", (3, 32, 32), 512),
        ("resnet18-w32", (4, 64, 64), 256),
        ("resnet50", (3, 32, 32), 2048),
        ("mobilenetv3_small_050", (1, 105, 105), 1024),
        ("vit_tiny_patch16_224", (3, 64, 32), 192),
    ],
)
def test_timm_models(name: str, shape: tuple[int, int, int], width: int) -> None:
    encoder = build(name, shape)
    assert encoder.training
    assert encoder.eval()(torch.randn(2, *shape)).shape == (2, encoder.width) == (2, width)
    assert encoder.mean is None
    assert encoder.std is None


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 1), (64, 3, 1), (65, 7, 2)])
@pytest.mark.parametrize("name", ["resnet18", "resnet18-w16", "resnet26d"])
def test_stem(name: str, size: int, kernel: int, stride: int) -> None:
    net = build(name, (3, size, size)).net
    if name == "resnet26d" and kernel == 7:
        assert isinstance(net.conv1, nn.Sequential)  # timm's deep stem stays
        return
    assert net.conv1.kernel_size == (kernel, kernel)
    assert net.conv1.stride == (stride, stride)
    assert isinstance(net.maxpool, nn.Identity) == (kernel == 3)


def test_small_stem_keeps_the_map_at_full_resolution() -> None:
    features = build("resnet18", (3, 32, 32)).net.forward_features(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 512, 4, 4)  # three halvings, in the stages; the usual stem adds two more


def test_narrow_resnet_has_sixteenth_of_the_convolution_weights() -> None:
    """Every convolution between the stages has both its widths divided by 4, the first one only its output."""

    def stage_weights(encoder: Encoder) -> int:
        return sum(p.numel() for name, p in encoder.named_parameters() if "layer" in name and p.ndim == 4)

    assert 16 * stage_weights(build("resnet18-w16")) == stage_weights(build("resnet18"))
    assert build("resnet18-w16").net.conv1.out_channels == 16


def test_small_stem_option() -> None:
    assert build("resnet18", (3, 32, 32), small_stem=False).net.conv1.kernel_size == (7, 7)
    assert build("resnet18", (3, 96, 96), small_stem=True).net.conv1.kernel_size == (3, 3)
    with raises("not_supported"):
        build("mobilenetv3_small_050", small_stem=True)


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18-w16", "resnet18"])
def test_gradients_reach_every_parameter(name: str) -> None:
    encoder = build(name, (3, 16, 16))
    encoder(torch.randn(8, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    if name != "resnet18":  # timm starts the last normalisation of each block at zero: no gradient behind it yet
        first = next(p for p in encoder.parameters() if p.ndim == 4)
        assert first.grad is not None
        assert first.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["conv4", "resnet12", "resnet18-w16", "resnet18", "mobilenetv3_small_050"])
def test_channels_last_bfloat16_on_the_cpu(name: str) -> None:
    encoder = build(name).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoder(x).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters() if p.grad is not None)
    encoder.eval()
    with torch.no_grad():
        exact = encoder(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(x).float()
    assert torch.nn.functional.cosine_similarity(exact, rough).min() > 0.99


def test_conv4_equals_a_plain_sequential() -> None:
    encoder = build("conv4", (3, 32, 32)).eval()
    layers: list[nn.Module] = [layer for block in encoder.blocks for layer in (*block, nn.MaxPool2d(2))]
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(x), nn.Sequential(*layers)(x).flatten(2).mean(2), atol=1e-6)


def test_resnet12_dropout_only_in_training() -> None:
    encoder, x = build("resnet12", (1, 8, 8), drop_rate=0.5), torch.randn(4, 1, 8, 8)
    assert (encoder(x) == 0).any()
    encoder.eval()
    assert torch.equal(encoder(x), encoder(x))


def test_weights_from_a_file_with_head_and_prefix(tmp_path: Path) -> None:
    donor: Any = timm.create_model("resnet18", num_classes=10)
    path = tmp_path / "donor.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in donor.state_dict().items()}}, path)
    encoder = build("resnet18", (3, 96, 96), pretrained=str(path))
    donor.reset_classifier(0)
    x = torch.randn(2, 3, 96, 96)
    assert torch.equal(encoder.eval()(x), donor.eval()(x))
    assert encoder.mean == IMAGENET_MEAN
    assert encoder.origin == f"weights file {path}"


def test_stem_is_new_and_the_rest_pretrained_at_32_pixels(tmp_path: Path) -> None:
    donor: Any = timm.create_model("resnet18", num_classes=10)
    path = tmp_path / "donor.safetensors"
    save_file(donor.state_dict(), path)
    encoder = build("resnet18", (3, 32, 32), pretrained=str(path))  # a warning would be an error here
    assert encoder.net.conv1.weight.shape == (64, 3, 3, 3)
    assert torch.equal(encoder.net.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert torch.equal(encoder.net.bn1.weight, donor.bn1.weight)

    own = tmp_path / "own.safetensors"
    save_file({f"encoder.{k}": v for k, v in encoder.state_dict().items()}, own)
    again = build("resnet18", (3, 32, 32), pretrained=str(own))
    assert torch.equal(again.net.conv1.weight, encoder.net.conv1.weight)  # a fitting stem is kept


def test_first_convolution_adapts_to_one_channel(tmp_path: Path) -> None:
    donor: Any = timm.create_model("resnet18", num_classes=0).eval()
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    encoder = build("resnet18", (1, 96, 96), pretrained=str(tmp_path / "donor.safetensors")).eval()
    grey = torch.randn(2, 1, 96, 96)
    assert torch.allclose(encoder(grey), donor(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert encoder.mean == pytest.approx((sum(IMAGENET_MEAN) / 3,))


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a.weight": torch.zeros(2), "b.weight": torch.zeros(3)}, path)
    with raises("damaged_file"):
        build("resnet18", (3, 96, 96), pretrained=str(path))
    with raises("missing_file"):
        build("conv4", pretrained=str(tmp_path / "absent.pth"))
    (tmp_path / "damaged.safetensors").write_bytes(b"nothing")
    with raises("damaged_file"):
        build("conv4", pretrained=str(tmp_path / "damaged.safetensors"))
    torch.save(nn.Linear(2, 2), tmp_path / "pickle.pth")
    with raises("damaged_file"):
        build("conv4", pretrained=str(tmp_path / "pickle.pth"))
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    with raises("damaged_file"):
        build("conv4", pretrained=str(tmp_path / "tensor.pth"))


def test_partly_fitting_weights_warn(tmp_path: Path) -> None:
    save_file(build("conv4").blocks[0].state_dict(prefix="blocks.0."), tmp_path / "part.safetensors")
    with pytest.warns(RegrainWarning, match=r"9 of the encoder's 12 parameters .* blocks.1.0.weight"):
        build("conv4", pretrained=str(tmp_path / "part.safetensors"))


@pytest.mark.parametrize("offline", [True, False])
def test_pretrained_without_network(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("Name or service not known\nsecond line")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    if offline:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(UserError) as raised:
        build("resnet18", pretrained=True)
    message = str(raised.value)
    assert "'resnet18' (timm/resnet18.a1_in1k)" in message
    assert ("offline mode is enabled" if offline else "Name or service not known") in message
    assert "--weights PATH.safetensors" in message
    assert "--encoder lite" in message
    assert "drop --pretrained" in message
    assert "\n" not in message


def test_pretrained_when_the_download_itself_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("connection reset")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: None)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with raises("not_reachable"):
        build("resnet18", pretrained=True)


def test_published_weights_from_the_hub_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    donor: Any = timm.create_model("resnet18")
    save_file(donor.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args: str(tmp_path / "model.safetensors"))
    encoder = build("resnet18.a1_in1k", (4, 32, 32), pretrained=True)
    assert torch.equal(encoder.net.layer1[0].conv1.weight, donor.layer1[0].conv1.weight)
    assert encoder.mean == (*IMAGENET_MEAN, IMAGENET_MEAN[0])
    assert encoder.origin == (
        "timm resnet18.a1_in1k, trained on ImageNet-1K with fine labels, licence apache-2.0 (first convolution new)"
    )


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("vit_small_patch16_224.dino", "trained without labels"),
        ("convnextv2_tiny.fcmae", "trained without labels"),
        ("convnextv2_tiny.fcmae_ft_in22k_in1k", "trained on ImageNet-1K and ImageNet-22K with fine labels"),
        ("vit_base_patch16_clip_224.openai", "timm vit_base_patch16_clip_224.openai, licence"),
    ],
)
def test_origin_of_published_weights(name: str, origin: str) -> None:
    from regrain.encoders.image import _published_origin

    card = timm.models.get_pretrained_cfg(name)
    assert card is not None
    assert origin in _published_origin(card.to_dict())


def test_no_published_weights() -> None:
    for name in ("conv4", "resnet18-w16", "efficientnet_b6"):
        with pytest.raises(UserError, match=f"no published weights for '{name}': give a weights file"):
            build(name, pretrained=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet81", "unknown image encoder 'resnet81': did you mean 'resnet"),
        ("resnet18-w17", "did you mean 'resnet18-w16'"),
        ("conv44", "did you mean 'conv4'"),
        ("qqqqqqqq", "any name of timm.list_models"),
        ("hf-hub:timm/resnet18", "unknown image encoder"),
        ("resnet18.a1_in2k", "timm has no weights 'resnet18.a1_in2k': did you mean 'resnet18.a1_in1k'"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(UserError) as raised:
        build(name)
    assert hint in str(raised.value)


def test_size_that_the_model_cannot_take() -> None:
    with raises("wrong_shape"):
        build("vit_tiny_patch16_224", (3, 8, 8))


def test_layers_of_a_timm_model_are_numbered_from_the_input() -> None:
    encoder = build_encoder("resnet18-w16", modality="image", sample_shape=(3, 32, 32), seed=0)
    numbers = encoder.layer_numbers()
    assert set(numbers) == {name for name, _ in encoder.named_parameters()}
    assert numbers["net.conv1.weight"] == 0
    assert numbers["net.layer1.0.conv1.weight"] < numbers["net.layer4.1.conv2.weight"] == max(numbers.values())
