"""A trained encoder in the forms other software loads: keys of timm, torchvision, detectron2; plain; a graph."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regrain.data.images import MODES
from regrain.encoders.image import TimmEncoder, per_channel
from regrain.encoders.text import TextEncoder
from regrain.encoders.vision import VisionEncoder
from regrain.errors import UserError, nearest
from regrain.methods import Method
from regrain.model import Model
from regrain.runs.onnx_graph import Classifiers, graph_inputs, onnx_graph
from regrain.runs.preprocessing import preprocessing_script
from regrain.runs.tables import require_writable
from regrain.storage.files import replace_file

FORMATS: dict[str, tuple[str, ...]] = {
    "timm": (".safetensors", ".pth"),
    "torchvision": (".safetensors", ".pth"),
    "detectron2": (".pth", ".pkl"),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
}
"""Endings of the files of every format; the first is the default."""


class _ResNet(NamedTuple):
    """detectron2's configuration of a ResNet that torchvision and timm know by one name."""

    depth: int
    groups: int = 1
    width_per_group: int = 64


RESNETS = {
    "resnet18": _ResNet(18),
    "resnet34": _ResNet(34),
    "resnet50": _ResNet(50),
    "resnet101": _ResNet(101),
    "resnet152": _ResNet(152),
    "resnext50_32x4d": _ResNet(50, 32, 4),
    "resnext101_32x8d": _ResNet(101, 32, 8),
    "resnext101_64x4d": _ResNet(101, 64, 4),
    "wide_resnet50_2": _ResNet(50, 1, 128),
    "wide_resnet101_2": _ResNet(101, 1, 128),
}
"""The networks that timm, torchvision and detectron2 have in common, with the same function."""


@dataclass(frozen=True)
class Layout:
    """Weights under the names that one framework has for them."""

    tensors: dict[str, Tensor]
    """On the CPU."""
    loading: tuple[str, ...]
    """The lines, of Python or of a configuration, that load the file."""
    notices: tuple[str, ...] = ()
    """Parts that the file does not hold, or where it fits only in part."""
    beside: dict[str, Any] | None = None
    """Further entries of a framework's files; the tensors are then under ``model``."""


@dataclass(frozen=True)
class Export:
    """A file that was written."""

    path: Path
    format: str
    keys: int
    """Number of tensors in it."""
    input: str
    """Input that the network expects, in words."""
    loading: tuple[str, ...]
    """The lines, of Python or of a configuration, that load it."""
    notices: tuple[str, ...]
    beside: tuple[Path, ...] = ()
    """Files that go with it: of an ONNX graph what its outputs mean, and how image files are read."""


def check_export(format: str, path: Path, *, overwrite: bool = False) -> None:
    """Raise a UserError, before a model is loaded, for an unknown format or a file that could not be written."""
    if format not in FORMATS:
        raise UserError(f"unknown export format '{format}': {nearest(format, (*FORMATS, 'hub'))}", code="unknown_name")
    require_writable(path, overwrite, suffixes=FORMATS[format], content=f"{format} exports")
    for file in _beside(path) if format == "onnx" else ():
        require_writable(file, overwrite, suffixes=(file.suffix,))


def write_export(
    model: Model, format: str, path: Path, *, model_folder: Path, classifiers: Classifiers | None = None
) -> Export:
    """Write a model's encoder, or for ``onnx`` all that leads to its embeddings and class probabilities.

    Raises a UserError if the framework has no network that these weights fit (the message says which formats do), or
    the graph written does not give the model's embeddings.

    Parameters
    ----------
    model : Model
        On the CPU, as :func:`~regrain.model.load_model` gives it.
    format : str
        One of :data:`FORMATS`.
    path : Path
        Its ending is one of the format's. An existing file is replaced.
    model_folder : Path
        Where the model was loaded from; a text encoder's tokenizer stays there.
    classifiers : Classifiers, optional
        Classifiers of the run; only ``onnx`` holds them.
    """
    reason = _misfit(model, format)
    if reason:
        fitting = " or ".join(fitting_formats(model)) or "none"
        raise UserError(f"{reason}; formats that fit this run: {fitting}")
    if format == "onnx":
        return _write_graph(model, path, classifiers or Classifiers())
    layout = _LAYOUTS[format](model, path) if format in _LAYOUTS else plain_layout(model, path, model_folder)
    width = model.method.encoder_width if format == "safetensors" else _network(model).width
    described = _described(model) | {"width": width}
    content = _content(layout, path.suffix.lower(), _strings(described))
    replace_file(path, lambda temporary: temporary.write_bytes(content))
    return Export(path, format, len(layout.tensors), input_in_words(model), layout.loading, layout.notices)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where the description of an ONNX graph and the script that reads image files for it go."""
    return path.with_suffix(".json"), path.with_name(f"{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_preprocess.py")


def _write_graph(model: Model, path: Path, classifiers: Classifiers) -> Export:
    described = _described(model) | classifiers.described()
    graph = onnx_graph(model, classifiers, _strings(described))
    about, script = _beside(path)
    outputs = {"model": path.name, "inputs": list(graph_inputs(model)), "outputs": list(graph.outputs)}
    files: dict[Path, bytes] = {
        path: graph.content,
        about: json.dumps(outputs | described, indent=2, ensure_ascii=False).encode(),
    }
    fed = ", ".join(f'"{name}": {name}' for name in graph_inputs(model))
    loading = [
        "import json",
        "import onnxruntime",
        f"about = json.load(open({_quoted(about)}, encoding='utf-8'))",
        f"session = onnxruntime.InferenceSession({_quoted(path)})",
        f"found = dict(zip(about['outputs'], session.run(about['outputs'], {{{fed}}})))  # arrays of float32",
    ]
    if model.storage is not None and model.storage.shape[0] in MODES:
        files[script] = preprocessing_script(model, path.name, about.name).encode()
        loading.append(f"# or: python {script} PHOTO ...  # reads image files as Regrain does, and predicts")
    for file, content in files.items():
        replace_file(file, lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]
    beside = tuple(file for file in files if file != path)
    return Export(path, "onnx", graph.tensors, input_in_words(model), tuple(loading), (graph.notice,), beside)


def fitting_formats(model: Model) -> list[str]:
    """The formats that a model can be exported to.

    Examples
    --------
    >>> from regrain.encoders import build_encoder
    >>> encoder = build_encoder("mlp", modality="vector", sample_shape=(4,))
    >>> model = Model.build("simclr", {}, [], encoder, {"modality": "vector", "shape": [4]})
    >>> fitting_formats(model)
    ['safetensors', 'onnx']
    """
    return [format for format in FORMATS if _misfit(model, format) is None]


def timm_layout(model: Model, path: Path) -> Layout:
    """Weights as timm names them; a small-image stem is put into timm's model by the lines that load the file."""
    encoder = _network(model)
    net, (channels, *size) = encoder.net, _sample_shape(model)
    arguments = [_quoted(encoder.timm_name), "num_classes=0"]
    arguments += [f"in_chans={channels}"] if channels != 3 else []
    arguments += [f"img_size={tuple(size)}"] if net.pretrained_cfg.get("fixed_input_size") else []
    if _has_small_stem(encoder):
        reader, read = _reading(path)
        lines = [
            "import timm",
            *reader,
            f"net = timm.create_model({', '.join(arguments)})",
            *_small_stem_lines(net),
            f"net.load_state_dict({read})",
        ]
    else:
        lines = ["import timm", f"net = timm.create_model({', '.join(arguments)}, checkpoint_path={_quoted(path)})"]
    return Layout(_state(net), tuple(lines), tuple(_left_out(model)))


def torchvision_layout(model: Model, path: Path) -> Layout:
    """Weights as torchvision's ResNets name them, and the ``body`` of its detection backbones; all but ``fc``."""
    encoder, architecture = _network(model), _architecture(model)
    reader, read = _reading(path)
    lines = ["import torchvision", *reader, f"net = torchvision.models.{architecture}(weights=None)"]
    whole = f"net.load_state_dict({read}, strict=False)  # the classifier fc stays new"
    notices = _left_out(model)
    if _has_small_stem(encoder):
        lines += [*_small_stem_lines(encoder.net), whole]
        notices.append(
            "the first convolution is 3x3 with stride 1 and there is no max-pool: feature maps are 4 times as wide and "
            "high as those that torchvision's detectors are made for"
        )
    else:
        lines += [
            whole,
            "from torchvision.models.detection.backbone_utils import resnet_fpn_backbone",
            f'backbone = resnet_fpn_backbone(backbone_name="{architecture}", weights=None)',
            f"backbone.body.load_state_dict({read})",
        ]
    return Layout(_state(encoder.net), tuple(lines), tuple(notices))


def detectron2_layout(model: Model, path: Path) -> Layout:
    """Weights as detectron2's ResNet names them, and the configuration under which it loads them.

    Names, STRIDE_IN_1X1 and FORMAT are those of detectron2's ``tools/convert-torchvision-to-d2.py``. The counts of
    batches that batch norms have seen are left out: detectron2's frozen batch norms have none.
    """
    resnet, inputs = RESNETS[_architecture(model)], model.config["inputs"]
    channels = _sample_shape(model)[0]
    mean, std = ([round(255 * value, 4) for value in per_channel(inputs[key], channels)] for key in ("mean", "std"))
    lines = [
        "MODEL:",
        f"  WEIGHTS: {_quoted(path)}",
        f"  PIXEL_MEAN: {mean}",
        f"  PIXEL_STD: {std}",
        "  RESNETS:",
        f"    DEPTH: {resnet.depth}",
        "    STRIDE_IN_1X1: False",
    ]
    lines += ["    RES2_OUT_CHANNELS: 64"] if resnet.depth < 50 else []
    lines += [f"    NUM_GROUPS: {resnet.groups}"] if resnet.groups > 1 else []
    lines += [f"    WIDTH_PER_GROUP: {resnet.width_per_group}"] if resnet.width_per_group != 64 else []
    lines += ["INPUT:", f'  FORMAT: "{_PIL_MODES[channels]}"']
    state = _state(_network(model).net)
    tensors = {detectron2_name(k): v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    beside = {"__author__": "regrain", "matching_heuristics": True}
    return Layout(tensors, tuple(lines), tuple(_left_out(model)), beside)


def detectron2_name(key: str) -> str:
    """detectron2's name of a weight that torchvision's ResNets have.

    Examples
    --------
    >>> detectron2_name("conv1.weight"), detectron2_name("bn1.bias")
    ('stem.conv1.weight', 'stem.conv1.norm.bias')
    >>> detectron2_name("layer1.0.bn2.running_var"), detectron2_name("layer4.0.downsample.1.weight")
    ('res2.0.conv2.norm.running_var', 'res5.0.shortcut.norm.weight')
    """
    key = re.sub(r"^(?=conv1|bn1)", "stem.", key)
    key = re.sub(r"^layer(\d)", lambda found: f"res{int(found[1]) + 1}", key)
    key = re.sub(r"\.bn(\d)\.", r".conv\1.norm.", key)
    return key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


def plain_layout(model: Model, path: Path, model_folder: Path) -> Layout:
    """Weights as Regrain's own encoder names them; those of a frozen one are ``backbone.*`` and ``adapter.*``."""
    state = _state(model.method.encoder)
    if model.backbone is not None:
        state = {f"adapter.{name}": value for name, value in state.items()}
        state |= {f"backbone.{name}": value for name, value in _state(model.backbone).items()}
    from_library = isinstance(model.backbone or model.method.encoder, TextEncoder | VisionEncoder)
    where = f", folder={_quoted(model_folder)}" if from_library else ""  # configuration and tokenizer are not tensors
    lines = (
        "import json",
        "from safetensors import safe_open",
        "from safetensors.torch import load_file",
        "from regrain.encoders import build_encoder",
        f'config = json.loads(safe_open({_quoted(path)}, "pt").metadata()["encoder"])',
        f"encoder = build_encoder(**config{where})",
        f"encoder.load_state_dict(load_file({_quoted(path)}))",
        "encoder.eval()",
    )
    return Layout(state, lines, tuple(_projection_left_out(model)))


_LAYOUTS: dict[str, Callable[[Model, Path], Layout]] = {
    "timm": timm_layout,
    "torchvision": torchvision_layout,
    "detectron2": detectron2_layout,
}
_PIL_MODES = {1: "L", 3: "RGB"}


def _misfit(model: Model, format: str) -> str | None:
    """Return the reason why a format cannot hold the weights, or None."""
    import timm

    encoder, name = model.backbone or model.method.encoder, _name(model)
    if format == "safetensors":
        has_weights = model.backbone is not None or model.method.encoder.state_dict()
        return None if has_weights else f"the encoder '{name}' has no weights"
    if format == "onnx":
        is_text = model.config["inputs"]["modality"] == "text"
        return "a graph of a text encoder would lack its tokenizer" if is_text else None
    if not isinstance(encoder, TimmEncoder):
        return f"the encoder '{name}' is not a timm model"
    if not timm.is_model(encoder.timm_name):
        return f"no model of timm is as narrow at its start as '{name}'"
    if format == "timm":
        return None
    if _architecture(model) not in RESNETS:
        return f"'{name}' is none of the ResNets that {format} has ({', '.join(RESNETS)})"
    channels = _sample_shape(model)[0]
    if format == "torchvision":
        return None if channels == 3 else f"torchvision's ResNets take 3 channels, and this encoder takes {channels}"
    if _has_small_stem(encoder):
        return (
            "detectron2's ResNets start with a 7x7 convolution and a max-pool, and this one was made for small images "
            "(train it with --set encoder.small_stem=false)"
        )
    return None if channels in _PIL_MODES else f"detectron2 reads images of 1 or 3 channels, and this has {channels}"


def _network(model: Model) -> TimmEncoder:
    encoder = model.backbone or model.method.encoder
    assert isinstance(encoder, TimmEncoder)
    return encoder


def _name(model: Model) -> str:
    return str(model.config["encoder"]["name"])


def _architecture(model: Model) -> str:
    """The name without the tag that says where pretrained weights came from."""
    return _name(model).partition(".")[0]


def _sample_shape(model: Model) -> list[int]:
    return list(model.config["encoder"]["sample_shape"])


def _has_small_stem(encoder: TimmEncoder) -> bool:
    return isinstance(getattr(encoder.net, "maxpool", None), nn.Identity)


def _small_stem_lines(net: Any) -> tuple[str, ...]:
    return (
        f"net.conv1 = torch.nn.Conv2d({net.conv1.in_channels}, {net.conv1.out_channels}, 3, padding=1, bias=False)",
        "net.maxpool = torch.nn.Identity()",
    )


def _reading(path: Path) -> tuple[tuple[str, ...], str]:
    """Lines of imports, and the expression that reads a file of tensors."""
    if path.suffix.lower() == ".safetensors":
        return ("import torch", "from safetensors.torch import load_file"), f"load_file({_quoted(path)})"
    return ("import torch",), f"torch.load({_quoted(path)}, map_location='cpu', weights_only=True)"


def _quoted(value: object) -> str:
    """A string as both Python and YAML read it."""
    return json.dumps(str(value), ensure_ascii=False)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of their own memory on the CPU: safetensors takes no others."""
    state = module.state_dict()
    return {n: v.detach().cpu().contiguous().clone() for n, v in state.items() if isinstance(v, Tensor)}


def _left_out(model: Model) -> list[str]:
    """List the parts of the model that the weights of the image network do not hold."""
    if model.backbone is not None:
        return [
            "the network was frozen: these are its weights as training found them; what was learned is the adapter "
            "on its features, which the formats safetensors and onnx hold"
        ]
    return _projection_left_out(model)


def _projection_left_out(model: Model) -> list[str]:
    if type(model.method).embed is Method.embed:
        return []
    return [
        f"evaluation judges a projection of what this network gives, as {model.method.name} says; the format onnx "
        "holds both"
    ]


def _described(model: Model) -> dict[str, Any]:
    """Return a file's metadata in plain values, including the width of its output."""
    inputs = model.config["inputs"]
    described: dict[str, Any] = {
        "method": model.method.name,
        "architecture": _name(model),
        "modality": inputs["modality"],
        "origin": model.config["encoder"]["origin"],
        "input": input_in_words(model),
        "input_size": _sample_shape(model),
        "encoder": model.config["encoder"],
    }
    if inputs["modality"] == "image":
        described |= {key: inputs[key] for key in ("mean", "std")}
    return described | {key: inputs[key] for key in ("columns", "static_columns") if inputs.get(key)}


def _strings(described: Mapping[str, Any]) -> dict[str, str]:
    """As metadata, which are strings: all else as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in described.items()
    }


def input_in_words(model: Model) -> str:
    """The inputs that a model's network expects."""
    inputs, shape = model.config["inputs"], _sample_shape(model)
    if inputs["modality"] == "image":
        kind = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]}-channel")
        mean, std = ([round(value, 6) for value in inputs[key]] for key in ("mean", "std"))
        return (
            f"{kind} images (B, {', '.join(map(str, shape))}): the central square, resized, "
            f"(value / 255 - mean) / std with mean {mean} and std {std}"
        )
    if inputs["modality"] == "text":
        return "tokens: input_ids and attention_mask (B, T)"
    words = f"unscaled float32 {inputs['modality']} samples (B, {', '.join(map(str, shape))})"
    return words + (f" and static features (B, {inputs['static']})" if inputs.get("static") else "")


def _content(layout: Layout, suffix: str, described: dict[str, str]) -> bytes:
    """The file, by the ending it will have: ``.pth`` is as ``torch.save`` writes it, ``.pkl`` has NumPy arrays."""
    if suffix == ".safetensors":
        from safetensors.torch import save

        return save(layout.tensors, {"format": "pt", **described})
    if suffix == ".pth":
        stream = io.BytesIO()
        torch.save(layout.tensors if layout.beside is None else {"model": layout.tensors, **layout.beside}, stream)
        return stream.getvalue()
    arrays = {name: value.numpy() for name, value in layout.tensors.items()}
    return pickle.dumps({"model": arrays, **(layout.beside or {})})
