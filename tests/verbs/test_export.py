"""Exported files, loaded by what they are made for: the same features come out; or a refusal that says what fits."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import regrain
from regrain.encoders import build_encoder
from regrain.errors import UserError
from regrain.model import Model, take_statistics
from regrain.runs import onnx_graph
from regrain.runs.export import FORMATS, RESNETS, Export, check_export, write_export


def model_of(encoder: nn.Module, inputs: Mapping[str, Any], method: str = "simclr", *classes: int) -> Model:
    """A model whose batch norms have statistics of their own, as after training."""
    model = Model.build(method, {}, classes, encoder, inputs)
    generator = torch.Generator().manual_seed(1)
    for module in (model.method, model.backbone):
        for norm in module.modules() if module is not None else ():
            if isinstance(norm, nn.BatchNorm2d):
                for values in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                    values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
        if module is not None:
            module.eval()
    return model


def image_model(name: str, shape: tuple[int, ...], method: str = "simclr", *classes: int, **options: Any) -> Model:
    channels = shape[0]
    encoder = build_encoder(name, modality="image", sample_shape=shape, seed=0, **options)
    inputs = {"modality": "image", "shape": list(shape), "size": shape[1], "white": 255}
    return model_of(encoder, inputs | {"mean": [0.4] * channels, "std": [0.2] * channels}, method, *classes)


def record_model(name: str, modality: str, shape: tuple[int, ...], static: int = 0, **options: Any) -> Model:
    """Trained, so to say, on features of mean 50 and spread 3."""
    encoder = build_encoder(name, modality=modality, sample_shape=shape, static_width=static, seed=0, **options)
    inputs = {"modality": modality, "shape": list(shape), "mean": [50.0] * shape[-1], "std": [3.0] * shape[-1]}
    if static:
        inputs |= {"static": static, "static_mean": [50.0] * static, "static_std": [3.0] * static}
    take_statistics(encoder, records(64, shape, static))
    return model_of(encoder, inputs)


def records(count: int, shape: tuple[int, ...], static: int = 0) -> Any:
    generator = torch.Generator().manual_seed(3)
    samples = 50 + 3 * torch.randn(count, *shape, generator=generator)
    samples[0].view(-1)[2] = float("nan")
    beside = 50 + 3 * torch.randn(count, static, generator=generator)
    return {"series": samples, "static": beside} if static else samples


def images(shape: tuple[int, ...], count: int = 2) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(2))


def features(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (model.backbone or model.method.encoder)(x)


def written(model: Model, format: str, folder: Path, suffix: str | None = None) -> Export:
    return write_export(model, format, folder / f"it{suffix or FORMATS[format][0]}", model_folder=folder)


def load(made: Export) -> dict[str, Any]:
    """What the printed lines make."""
    names: dict[str, Any] = {}
    exec("\n".join(made.loading), names)
    return names


def assert_features(found: Tensor, model: Model, x: Tensor) -> None:
    """Within 1e-5 of the largest of them."""
    wanted = features(model, x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def assert_same(net: nn.Module, model: Model, x: Tensor) -> None:
    with torch.no_grad():
        assert_features(net.eval()(x), model, x)


@pytest.mark.parametrize(
    ("name", "shape", "suffix"),
    [
        ("resnet18", (3, 96, 96), ".safetensors"),
        ("resnet18.a1_in1k", (1, 96, 96), ".pth"),
        ("resnet18", (3, 32, 32), ".safetensors"),
        ("resnet26d", (1, 32, 32), ".pth"),
        ("vit_tiny_patch16_224", (3, 32, 32), ".safetensors"),
    ],
)
def test_timm_gives_the_same_features(name: str, shape: tuple[int, ...], suffix: str, tmp_path: Path) -> None:
    model = image_model(name, shape)
    made = written(model, "timm", tmp_path, suffix)
    net = load(made)["net"]
    assert made.keys == len(net.state_dict())
    assert_same(net, model, images(shape))


def test_timm_takes_the_file_as_pretrained_weights(tmp_path: Path) -> None:
    model = image_model("resnet18", (3, 96, 96))
    source = {"file": str(written(model, "timm", tmp_path).path)}
    net = timm.create_model("resnet18", pretrained=True, num_classes=0, pretrained_cfg_overlay=source)
    assert_same(net, model, images((3, 96, 96)))
    new = timm.create_model("resnet18", pretrained=True, num_classes=5, pretrained_cfg_overlay=source)
    new.reset_classifier(0)
    assert_same(new, model, images((3, 96, 96)))


@pytest.mark.parametrize(("name", "suffix"), [("resnet18", ".safetensors"), ("resnet50", ".pth")])
def test_torchvision_and_its_detection_backbone(name: str, suffix: str, tmp_path: Path) -> None:
    model, x = image_model(name, (3, 96, 96)), images((3, 96, 96))
    made = written(model, "torchvision", tmp_path, suffix)
    loaded = load(made)

    state = load_file(made.path) if suffix == ".safetensors" else torch.load(made.path, weights_only=True)
    result = torchvision.models.get_model(name, weights=None).load_state_dict(state, strict=False)
    assert (set(result.missing_keys), result.unexpected_keys) == ({"fc.weight", "fc.bias"}, [])

    net, body = loaded["net"], loaded["backbone"].body.eval()
    net.fc = nn.Identity()
    assert_same(net, model, x)
    with torch.no_grad():
        pooled = body(x)["3"].mean(dim=(2, 3))
    assert_features(pooled, model, x)


def test_torchvision_with_the_stem_for_small_images(tmp_path: Path) -> None:
    model = image_model("resnet18", (3, 32, 32))
    made = written(model, "torchvision", tmp_path)
    net = load(made)["net"]
    net.fc = nn.Identity()
    assert_same(net, model, images((3, 32, 32)))
    assert "max-pool" in made.notices[0]


@pytest.mark.parametrize("name", RESNETS)
def test_timm_and_torchvision_mean_the_same_by_a_name(name: str) -> None:
    with torch.device("meta"):
        ours = timm.create_model(name, num_classes=0)
        theirs = torchvision.models.get_model(name, weights=None)
    shapes = {key: value.shape for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    resnet, blocks = RESNETS[name], [block for n in range(1, 5) for block in getattr(theirs, f"layer{n}")]
    convolutions = 2 if resnet.depth < 50 else 3
    assert resnet.depth == 2 + convolutions * len(blocks)  # with the stem and the classifier
    if convolutions == 3:  # detectron2's first stage has groups * width_per_group channels
        middle = blocks[0].conv2
        assert (middle.groups, middle.out_channels) == (resnet.groups, resnet.groups * resnet.width_per_group)


def documented_names(depth: int) -> set[str]:
    """Of detectron2's ResNet: every convolution has its batch norm inside."""
    counts = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    convolutions = ["stem.conv1"]
    for stage in range(4):
        for block in range(counts[stage]):
            prefix = "res" + str(stage + 2) + "." + str(block)
            for index in range(2 if depth == 18 else 3):
                convolutions.append(prefix + ".conv" + str(index + 1))
            if block == 0 and (stage > 0 or depth == 50):
                convolutions.append(prefix + ".shortcut")
    return {
        convolution + "." + part
        for convolution in convolutions
        for part in ("weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")
    }


def detectron2_features(state: Mapping[str, Tensor], x: Tensor, depth: int) -> Tensor:
    """The pooled res5 of detectron2's ResNet, written down from its documentation."""

    def convolved(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[name + ".weight"]
        x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        mean, variance = state[name + ".norm.running_mean"], state[name + ".norm.running_var"]
        return functional.batch_norm(x, mean, variance, state[name + ".norm.weight"], state[name + ".norm.bias"])

    x = functional.max_pool2d(convolved("stem.conv1", x, 2).relu(), 3, 2, 1)
    for stage, count in enumerate({18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]):
        for block in range(count):
            name, stride = f"res{stage + 2}.{block}", 2 if block == 0 and stage > 0 else 1
            shortcut = convolved(name + ".shortcut", x, stride) if name + ".shortcut.weight" in state else x
            if depth == 18:
                x = convolved(name + ".conv1", x, stride).relu()
                x = convolved(name + ".conv2", x)
            else:  # STRIDE_IN_1X1: False
                x = convolved(name + ".conv1", x).relu()
                x = convolved(name + ".conv2", x, stride).relu()
                x = convolved(name + ".conv3", x)
            x = (x + shortcut).relu()
    return x.mean(dim=(2, 3))


@pytest.mark.parametrize(("depth", "suffix", "channels"), [(18, ".pth", 3), (50, ".pkl", 1)])
def test_detectron2_names_values_and_configuration(depth: int, suffix: str, channels: int, tmp_path: Path) -> None:
    shape = (channels, 96, 96)
    model = image_model(f"resnet{depth}", shape)
    made = written(model, "detectron2", tmp_path, suffix)
    if suffix == ".pth":
        content = torch.load(made.path, weights_only=True)
        state = content["model"]
    else:
        content = pickle.loads(made.path.read_bytes())
        assert all(isinstance(value, np.ndarray) for value in content["model"].values())
        state = {name: torch.from_numpy(value) for name, value in content["model"].items()}
    assert (content["__author__"], content["matching_heuristics"]) == ("regrain", True)
    assert set(state) == documented_names(depth)
    x = images(shape)
    assert_features(detectron2_features(state, x, depth), model, x)

    config = yaml.safe_load("\n".join(made.loading))
    assert config["MODEL"]["WEIGHTS"] == str(made.path)
    assert config["MODEL"]["PIXEL_MEAN"] == [102.0] * channels
    assert config["MODEL"]["PIXEL_STD"] == [51.0] * channels
    assert config["MODEL"]["RESNETS"] == {"DEPTH": depth, "STRIDE_IN_1X1": False} | (
        {"RES2_OUT_CHANNELS": 64} if depth == 18 else {}
    )
    assert config["INPUT"]["FORMAT"] == {1: "L", 3: "RGB"}[channels]


def frozen_model() -> Model:
    return image_model(
        "resnet18-w16", (3, 16, 16), frozen=True, adapter="mlp", adapter_options={"width": 8}, origin="x"
    )


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: image_model("resnet18-w16", (3, 16, 16)), images((3, 16, 16))),
        (lambda: record_model("mlp", "vector", (6,)), records(4, (6,))),
        (lambda: record_model("dccn", "series", (5, 4), 3, cell="gru"), records(4, (5, 4), 3)),
    ],
)
def test_plain_weights_build_the_encoder_again(make: Callable[[], Model], x: Any, tmp_path: Path) -> None:
    model = make()
    made = written(model, "safetensors", tmp_path)
    encoder = load(made)["encoder"]
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.method.encoder(x), rtol=0, atol=0)
    with safe_open(made.path, "pt") as file:
        described = file.metadata()
    assert all(isinstance(value, str) for value in described.values())
    assert int(described["width"]) == encoder.width
    assert json.loads(described["input_size"]) == list(model.config["encoder"]["sample_shape"])
    assert ("mean" in described) == (described["modality"] == "image")


def test_frozen_networks_say_that_the_adapter_is_elsewhere(tmp_path: Path) -> None:
    model, x = frozen_model(), images((3, 16, 16))
    encoder = load(written(model, "safetensors", tmp_path))["encoder"]
    with torch.no_grad():
        torch.testing.assert_close(encoder(x), model.method.embed(features(model, x)))
    model = image_model("resnet18", (3, 32, 32), frozen=True, origin="x")
    made = written(model, "timm", tmp_path)
    assert "the adapter" in made.notices[0]
    assert_same(load(made)["net"], model, images((3, 32, 32)))


def test_text_weights(tmp_path: Path) -> None:
    encoder = build_encoder("hash-text", modality="text", sample_shape=(), seed=0)
    model = model_of(encoder, {"modality": "text", "shape": []})
    again = load(written(model, "safetensors", tmp_path))["encoder"]
    tokens = encoder.tokenize(["one text", "and another"])
    torch.testing.assert_close(again(tokens), encoder.eval()(tokens), rtol=0, atol=0)
    with pytest.raises(UserError, match="lack its tokenizer; formats that fit this run: safetensors"):
        written(model, "onnx", tmp_path)


@pytest.mark.parametrize(
    ("make", "sample"),
    [
        (lambda: image_model("resnet18", (3, 32, 32)), lambda n: images((3, 32, 32), n)),
        (lambda: image_model("resnet18-w16", (1, 16, 16), "scgm", 3), lambda n: images((1, 16, 16), n)),
        (frozen_model, lambda n: images((3, 16, 16), n)),
        (lambda: record_model("mlp", "vector", (6,)), lambda n: records(n, (6,))),
        (lambda: record_model("dccn", "series", (5, 4), 3, attention=True), lambda n: records(n, (5, 4), 3)),
    ],
)
def test_onnx_agrees_at_other_batch_sizes(make: Callable[[], Model], sample: Any, tmp_path: Path) -> None:
    model = make()
    import onnx
    import onnxruntime

    made = written(model, "onnx", tmp_path)
    session = onnxruntime.InferenceSession(made.path)
    for count in (1, 7):
        x = sample(count)
        with torch.no_grad():
            wanted = model.method.embed(x if model.backbone is None else model.backbone(x))
        given = list(x.values()) if isinstance(x, dict) else [x]
        names = [entry.name for entry in session.get_inputs()]
        (found,) = session.run(None, {n: v.numpy() for n, v in zip(names, given, strict=True)})
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)
    described = {entry.key: entry.value for entry in onnx.load(made.path).metadata_props}
    assert described["input"] == made.input
    assert int(described["width"]) == wanted.shape[1]
    assert "largest difference" in made.notices[0]


def test_nothing_is_written_where_onnxruntime_disagrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = record_model("mlp", "vector", (6,))
    monkeypatch.setattr(onnx_graph, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="nothing written: onnxruntime's output 'embedding' differs"):
        written(model, "onnx", tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "not checked" in written(model, "onnx", tmp_path).notices[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'regrain\[onnx\]'"):
        written(model, "onnx", tmp_path)


def test_onnx_says_what_torch_cannot_translate(tmp_path: Path) -> None:
    encoder = build_encoder("identity", modality="series", sample_shape=(5, 4))  # looks at its values
    model = model_of(encoder, {"modality": "series", "shape": [5, 4]})
    with pytest.raises(UserError, match="torch cannot translate 'identity' to ONNX: "):
        written(model, "onnx", tmp_path)


@pytest.mark.parametrize(
    ("make", "format", "message"),
    [
        (lambda: image_model("conv4", (3, 32, 32)), "timm", "'conv4' is not a timm model; .*: safetensors or onnx"),
        (
            lambda: image_model("resnet18-w16", (3, 16, 16)),
            "timm",
            "as narrow .*'resnet18-w16'; .*: safetensors or onnx",
        ),
        (lambda: image_model("resnet18-w16", (3, 16, 16)), "torchvision", "as narrow"),
        (
            lambda: image_model("resnet26d", (3, 32, 32)),
            "torchvision",
            "none of the ResNets .*: timm or safetensors or onnx",
        ),
        (lambda: image_model("resnet18", (1, 32, 32)), "torchvision", "takes 1; .*: timm or safetensors"),
        (lambda: image_model("resnet18", (3, 32, 32)), "detectron2", "encoder.small_stem=false.*: timm or torchvision"),
        (lambda: image_model("resnet18", (4, 96, 96)), "detectron2", "images of 1 or 3 channels, and this has 4"),
        (lambda: record_model("mlp", "vector", (6,)), "detectron2", "'mlp' is not a timm model"),
        (lambda: record_model("identity", "vector", (6,)), "safetensors", "'identity' has no weights; .*: onnx"),
    ],
)
def test_refusals_name_what_fits(make: Callable[[], Model], format: str, message: str, tmp_path: Path) -> None:
    model = make()
    with pytest.raises(UserError, match=message):
        written(model, format, tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "there.pth").touch()
    for format, name, message in (
        ("tim", "x.pth", "did you mean 'timm'"),
        ("timm", "x.onnx", "timm exports are written to .safetensors, .pth"),
        ("safetensors", "x.pth", "written to .safetensors"),
        ("timm", "there.pth", "--overwrite"),
    ):
        with pytest.raises(UserError, match=message):
            check_export(format, tmp_path / name)
    check_export("timm", tmp_path / "there.pth", overwrite=True)


def test_runs_are_exported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGRAIN_CACHE", str(tmp_path / "cache"))
    settings = ["epochs=1", "embedder_width=8"]
    run = regrain.fit(
        "scgm",
        "digits",
        encoder="resnet18-w16",
        out=tmp_path / "run",
        settings=settings,
        limit_per_class=4,
        device="cpu",
    )
    made = regrain.export(run, format="onnx")
    assert made.path == tmp_path / "run" / "export" / "run-onnx.onnx"
    import onnxruntime

    data = run.splits()["test"].select(torch.arange(40))
    x = run.model.prepare(data.samples.take(torch.arange(40)))
    found, _ = onnxruntime.InferenceSession(made.path).run(None, {"image": x.numpy()})
    exact = regrain.Run.open(run.path, device="cpu", precision="float32")
    torch.testing.assert_close(torch.from_numpy(found), exact.embed(data), rtol=0, atol=1e-4)

    made = regrain.export(run.path, format="safetensors")
    (notice,) = made.notices  # a run of scgm embeds by the encoder, which is all in the file; its classifier is not
    assert notice.startswith("the classifier of 'group' is not in it")
    with pytest.raises(UserError, match="exists: choose another"):
        regrain.export(run, format="safetensors")
    assert regrain.export(run, format="safetensors", overwrite=True) == made
