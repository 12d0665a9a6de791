"""A trained model as one object: method, encoder and preprocessing; build, save and load it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NotRequired

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.overrides import TorchFunctionMode
from typing_extensions import TypedDict

from regrain.checks import check_values, hyperparameters
from regrain.data.cache import features as cached_features
from regrain.data.dataset import Dataset
from regrain.data.images import DEEP_WHITE, ImageForm
from regrain.data.samples import Modality, TensorSamples
from regrain.encoders import Encoder, FrozenEncoder, build_encoder, encoder_config, is_pretrained
from regrain.encoders.base import ScaledEncoder, column_statistics
from regrain.encoders.half import computing_in
from regrain.encoders.vector import MLPEncoder, ResidualEncoder
from regrain.errors import UserError, first_line
from regrain.labels import Labels
from regrain.methods import Method, method_class
from regrain.spelling import counted
from regrain.storage.files import Finite, Folder, read_tensors, tensor_header
from regrain.storage.run_folder import LabelsForm, RunFolder, labels_from_json, labels_to_json
from regrain.training.device import Precision, scan_dtype
from regrain.training.scan import on_device, on_host, scan_batches
from regrain.views import ImageViews, SeriesViews, TextViews, VectorViews
from regrain.views.base import Views

_STATISTICS_SAMPLES = 2000
_MOST_SCALED = 2**18
_LARGEST_VIEW = 4096
"""Largest side of a view in pixels: a file cannot make the loader allocate more memory."""

_LARGEST_SIDE = 100_000_000
"""Of any sample."""

_MOST_STEPS = 10_000

_NEVER_FROM_A_FILE = ("folder", "pretrained", "seed")
"""Options of :func:`~regrain.encoders.build_encoder` that name files, or belong to the caller."""


def _rows_for_statistics(count: int) -> Tensor:
    """The samples that the scale of columns is taken from: all, or 262,144 evenly spaced ones of more."""
    if count <= _MOST_SCALED:
        return torch.arange(count)
    return torch.linspace(0, count - 1, _MOST_SCALED, dtype=torch.float64).long()


def channel_statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every image channel in [0, 1], over at most 2000 evenly spaced samples."""
    rows = torch.linspace(0, len(dataset) - 1, min(len(dataset), _STATISTICS_SAMPLES), dtype=torch.float64).long()
    images = dataset.samples.take(rows).float() / 255
    std, mean = torch.std_mean(images, dim=(0, 2, 3))
    return tuple(mean.tolist()), tuple(std.clamp(min=1e-3).tolist())


def _series_statistics(samples: Tensor | Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel and every static feature of series, for their views.

    Examples
    --------
    >>> _series_statistics(torch.tensor([[[1.0], [3.0]], [[2.0], [float("nan")]]]))
    {'mean': [2.0], 'std': [1.0]}
    """
    parts = dict(samples) if isinstance(samples, Mapping) else {"series": samples}
    result: dict[str, list[float]] = {}
    for name, values in parts.items():
        mean, std = column_statistics(values.flatten(0, -2))
        prefix = "" if name == "series" else f"{name}_"
        result |= {f"{prefix}mean": mean.tolist(), f"{prefix}std": std.tolist()}
    return result


def take_statistics(encoder: nn.Module, samples: Tensor | Mapping[str, Tensor]) -> None:
    """Fit an encoder's standardisation of tables or series to the training samples; other encoders need none."""
    if isinstance(encoder, ScaledEncoder):
        encoder.take_statistics(samples)


def describe_inputs(train: Dataset, encoder: Encoder, size: int) -> dict[str, Any]:
    """Describe the raw samples of a model: their form, and the means and spreads that its views know of them.

    Encoders of tables and series take the scale of the columns on the way. ``size``: the side of a view; 0 where
    samples are not images.
    """
    notes = train.notes
    inputs: dict[str, Any] = {"modality": train.modality, "shape": list(train.samples.shape)}
    static = getattr(train.samples, "static_width", 0)
    inputs |= {"static": static} if static else {}
    inputs |= {key: list(notes[key]) for key in ("columns", "static_columns") if notes.get(key)}
    inputs |= {"notations": dict(notes["notations"])} if notes.get("notations") else {}
    if train.modality == "image":
        mean, std = (encoder.mean, encoder.std) if encoder.mean and encoder.std else channel_statistics(train)
        return inputs | {"white": notes.get("white", DEEP_WHITE), "size": size, "mean": list(mean), "std": list(std)}
    if train.modality == "text" or (train.modality == "vector" and isinstance(encoder, FrozenEncoder)):
        return inputs
    values = train.samples.take(_rows_for_statistics(len(train)))
    if not isinstance(encoder, FrozenEncoder):
        take_statistics(encoder, values)
    elif not is_pretrained(encoder.backbone.origin):  # pretrained ones know the scale they were trained at
        take_statistics(encoder.backbone, values)
    found = _series_statistics(values) if train.modality == "series" else _vector_statistics(values)
    for name, numbers in found.items():
        wild = next((column for column, number in enumerate(numbers) if not math.isfinite(number)), None)
        if wild is not None:
            names = inputs.get("static_columns" if name.startswith("static") else "columns", ())
            column = repr(names[wild]) if wild < len(names) else wild
            raise UserError(
                f"{train.name}: the numbers of column {column} are too large to take their mean and spread in 32 bits: "
                "if they say that a value is missing, leave those cells empty",
                code="out_of_range",
            )
    return inputs | found


def _vector_statistics(values: Tensor) -> dict[str, list[float]]:
    return {"mean": values.mean(dim=0).tolist(), "std": values.std(dim=0).tolist()}


def _views(modality: str, presets: Sequence[Any], encoder: Encoder, inputs: Mapping[str, Any], seed: int) -> Views[Any]:
    """Views for an encoder; ``inputs`` holds what they know of the data: size, means, standard deviations."""
    if modality == "image":
        return ImageViews(presets, size=inputs["size"], mean=inputs["mean"], std=inputs["std"], seed=seed)
    if modality == "text":
        return TextViews(
            presets,
            tokenize=encoder.tokenize,  # type: ignore[arg-type]  # text encoders have it
            mask_token_id=encoder.mask_token_id,  # type: ignore[arg-type]
            special_token_ids=encoder.special_token_ids,  # type: ignore[arg-type]
            seed=seed,
        )
    names = ("mean", "std", "static_mean", "static_std")
    statistics = {name: torch.tensor(inputs[name]) for name in names if inputs.get(name) is not None}
    if modality == "series":
        return SeriesViews(presets, seed=seed, **statistics)
    return VectorViews(presets, seed=seed, **statistics)


@dataclass
class Model:
    """Everything between a raw sample and its embedding or its class."""

    config: dict[str, Any]
    """Plain JSON from which the same structure is built again."""
    method: Method
    """Its encoder is the adapter alone where a frozen backbone comes before."""
    views: Views[Any]
    """Of the method's input."""
    backbone: Encoder | None = None
    """A frozen encoder whose features the method works on."""
    backbone_views: Views[Any] | None = None
    precision: Precision = "auto"
    """Of the encoder's arithmetic where nothing is trained: embeddings, predictions, features of the backbone."""

    @classmethod
    def build(
        cls,
        method: str,
        hyperparameters: Mapping[str, Any],
        classes: Sequence[int],
        encoder: Encoder,
        inputs: Mapping[str, Any],
        *,
        presets: Sequence[Any] = ("plain",),
        seed: int = 0,
    ) -> Model:
        """A model around an encoder.

        Parameters
        ----------
        hyperparameters : mapping
        classes : sequence of int
            Per level that the method reads.
        encoder : Encoder
            A FrozenEncoder is taken apart: the method trains the adapter on the backbone's features.
        inputs : mapping
            ``modality`` and ``shape`` of a raw sample; for images ``white`` (see
            :class:`~regrain.data.images.ImageForm`), ``size``, ``mean`` and ``std`` of the views; for series
            ``static``, the number of static features, where there are any.
        presets : sequence
            Views for training.
        seed : int
            Of heads and views.
        """
        modality, raw_inputs = inputs["modality"], dict(inputs)
        backbone, backbone_views, trained = None, None, encoder
        if isinstance(encoder, FrozenEncoder):
            backbone, trained = encoder.backbone, encoder.adapter
            backbone_views = _views(modality, ["plain"], backbone, inputs, seed)
            modality, inputs = "vector", {}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            built = method_class(method)(trained, classes, **hyperparameters)
        config = {
            "method": method,
            "hyperparameters": dict(hyperparameters),
            "classes": list(classes),
            "encoder": encoder_config(encoder),
            "inputs": raw_inputs,
        }
        return cls(config, built, _views(modality, presets, trained, inputs, seed), backbone, backbone_views)

    def to(self, device: str | torch.device) -> Model:
        """Move everything to a device."""
        for module in (self.method, self.views, self.backbone, self.backbone_views):
            if module is not None:
                module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Device of the method."""
        return next((p.device for p in self.method.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The type in which its encoders compute where nothing is trained."""
        return scan_dtype(self.precision, self.device)

    @property
    def storage(self) -> ImageForm | None:
        """Stored form of the training images, and of all images given to the model; None for other samples."""
        inputs = self.config["inputs"]
        if inputs["modality"] != "image":
            return None
        channels, height, width = inputs["shape"]
        return ImageForm((channels, height, width), inputs["white"])

    def fitting(self, dataset: Dataset, where: str) -> Dataset:
        """The data set as the model reads it, images stored as those it was trained on; ``where`` names the model.

        Raises
        ------
        UserError
            For samples unlike those it was trained on.
        """
        inputs = self.config["inputs"]
        if dataset.modality != inputs["modality"]:
            raise UserError(
                f"{where} was trained on {inputs['modality']} data; {dataset.name} holds {dataset.modality} data",
                code="other_data",
            )
        if self.storage is not None:
            return dataset.stored_as(self.storage)
        dataset = dataset.with_columns(inputs.get("columns"), inputs.get("static_columns"), where)
        shape, trained = list(dataset.samples.shape), inputs["shape"]
        if dataset.modality in ("vector", "series") and shape != trained:
            raise UserError(
                f"{where} was trained on samples of shape {tuple(trained)}; {dataset.name} has {tuple(shape)}",
                code="other_data",
            )
        static = getattr(dataset.samples, "static_width", 0)
        if static != inputs.get("static", 0):
            raise UserError(
                f"{where} was trained on series with {counted(inputs.get('static', 0), 'static feature')}; "
                f"{dataset.name} has {static} of them",
                code="other_data",
            )
        return dataset

    def prepare(self, raw: Any) -> Any:
        """Raw samples -> the un-augmented input of the method."""
        raw = on_device(raw, self.device)
        if self.backbone is not None:
            raw = self.backbone_features(raw)
        return self.views.plain(raw)

    @torch.no_grad()
    def backbone_features(self, raw: Any) -> Tensor:
        """Raw samples -> features of the frozen backbone (B, width), float32."""
        assert self.backbone is not None
        assert self.backbone_views is not None
        result: Tensor = self.backbone(self.backbone_views.plain(on_device(raw, self.device)))
        return result.float()

    def featurised(self, dataset: Dataset, *, workers: int = 0) -> Dataset:
        """The data set of the backbone's features, computed once and cached; the data set itself without a backbone."""
        if self.backbone is None:
            return dataset
        of_backbone = {k: v for k, v in self.config["encoder"].items() if k not in ("adapter", "adapter_options")}
        described = json.dumps([self.config["inputs"], of_backbone], sort_keys=True)
        dtype = self.dtype if self.backbone.halves else torch.float32

        def computed() -> Iterator[Tensor]:
            batches = scan_batches(dataset, workers=workers, device=self.device)
            with computing_in(dtype, self.backbone):
                yield from on_host(self.backbone_features(raw) for raw, _, _ in batches)

        key = f"{dataset.fingerprint()}-{_weights_digest(self.backbone)}-{described}"
        table = cached_features(key, len(dataset), int(self.backbone.width), computed, dtype=dtype)
        return replace(dataset, samples=TensorSamples(table, "vector"))

    def take_features(self, features: Dataset) -> None:
        """Give adapter and views the mean and spread of the backbone's features over the training samples.

        Copies of the adapter, such as a momentum twin's, get them too.
        """
        values = features.samples.take(_rows_for_statistics(len(features)))
        for module in self.method.modules():
            take_statistics(module, values)
        std, mean = torch.std_mean(values, dim=0)
        views = self.views
        self.views = VectorViews(views.presets, seed=views.seed, mean=mean, std=std).to(self.device)

    def recall_features(self) -> None:
        """Give the views of a backbone's features the mean and spread that the adapter has stored.

        A saved model has no other record of them, and noise of unit spread would drown features of a smaller one.
        """
        encoder, views = self.method.encoder, self.views
        if self.backbone is not None and isinstance(encoder, MLPEncoder | ResidualEncoder):
            mean, std = encoder.input_mean, encoder.input_std
            self.views = VectorViews(views.presets, seed=views.seed, mean=mean, std=std).to(self.device)

    def untrained(self, folder: Path | None, seed: int) -> Model:
        """Return the same structure with random weights: the baseline that shows the effect of training."""
        encoder = build_encoder(**self.config["encoder"], folder=folder, seed=seed)
        if isinstance(encoder, FrozenEncoder) and self.backbone is not None:
            encoder.backbone = self.backbone
        hyperparameters = self.config["hyperparameters"]
        model = Model.build(
            self.config["method"], hyperparameters, self.config["classes"], encoder, self.config["inputs"], seed=seed
        )
        model.precision = self.precision
        own = self.method.encoder
        if isinstance(own, ScaledEncoder):  # the scaling of columns is not an effect of training
            assert isinstance(model.method.encoder, ScaledEncoder)
            model.method.encoder.copy_statistics(own)
        model.recall_features()
        return model

    def save(self, run: RunFolder, labels: Labels) -> None:
        """Write the run folder's ``model/``."""

        def save_extra(folder: Path) -> None:
            for encoder in (self.method.encoder, self.backbone):
                if isinstance(encoder, Encoder):
                    encoder.save_extra(folder)

        run.write_model(
            _saved(self.method, self.backbone),
            self.config | {"precision": self.precision, "labels": labels_to_json(labels)},
            save_extra,
        )


class _EncoderForm(TypedDict):
    name: str
    modality: Modality
    sample_shape: list[int]
    static_width: NotRequired[int]
    frozen: bool
    origin: str


class _InputsForm(TypedDict):
    modality: Modality
    shape: list[Annotated[int, Field(ge=1, le=_LARGEST_SIDE)]]
    white: NotRequired[Annotated[int, Field(ge=1)]]
    size: NotRequired[Annotated[int, Field(ge=1, le=_LARGEST_VIEW)]]
    mean: NotRequired[list[Finite]]
    std: NotRequired[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    static: NotRequired[int]
    static_mean: NotRequired[list[Finite]]
    static_std: NotRequired[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]]
    columns: NotRequired[list[str]]
    static_columns: NotRequired[list[str]]


class _ConfigForm(TypedDict):
    method: str
    hyperparameters: dict[str, Any]
    classes: list[int]
    encoder: _EncoderForm
    inputs: _InputsForm
    labels: LabelsForm
    precision: NotRequired[Precision]


def load_model(folder: str | Path, *, verify: bool | None = None) -> tuple[Model, Labels]:
    """A saved model, and the levels and classes it was trained on (labels of no samples).

    The configuration is not trusted. Nothing in it reaches the file system, and nothing is built in memory before its
    shapes match the weights.

    Parameters
    ----------
    verify : bool, optional
        See :class:`~regrain.storage.files.Folder`.

    Raises
    ------
    UserError
        If the folder holds no model, or one of a newer schema, or of a method whose settings have changed since; if its
        files are damaged or do not fit together, or its weights are not finite.
    """
    files = Folder(folder, verify=verify)
    where = files.path / "config.json"
    config = files.read_json("config.json", _ConfigForm)
    config.pop("schema", None)
    precision = config.pop("precision", "auto")
    labels = labels_from_json(config.pop("labels"), where)
    _require_inputs(config["inputs"], config["encoder"], where)
    if [len(names) for names in labels.classes] != config["classes"]:
        raise UserError(
            f"{where} is damaged: the numbers of its classes are not those of their names", code="damaged_file"
        )
    section = {name: value for name, value in config["encoder"].items() if name not in _NEVER_FROM_A_FILE}
    chosen = method_class(config["method"])
    try:
        given = check_values(config["hyperparameters"], hyperparameters(chosen), f"the method '{config['method']}'")
    except UserError as error:
        raise UserError(
            f"{files.path} was saved by another regrain, train it again or install that one: {error}", code="other_data"
        ) from None
    if "queue_size" in given:
        given["queue_size"] = 0  # a queue is for training; a shared model has none
    for file in files.path.glob("*_encoder/*"):  # the name that transformers reads
        files.checked(str(file.relative_to(files.path)))
    file = files.checked("model.safetensors")
    header = tensor_header(file)
    with torch.random.fork_rng(devices=[]), _no_larger_than(header, where):
        with torch.device("meta"), _Scalars():
            encoder = build_encoder(**section, folder=files.path, pretrained=False)
            inner = (encoder.backbone, encoder.adapter) if isinstance(encoder, FrozenEncoder) else (None, encoder)
            built = chosen(inner[1], config["classes"], **given)
        _require_same(_saved(built, inner[0]), header, file)
        encoder = build_encoder(**section, folder=files.path, pretrained=False)
        model = Model.build(config["method"], given, config["classes"], encoder, config["inputs"])
    model.config, model.precision = config, precision
    state = read_tensors(file)
    for name, module in (("method", model.method), ("backbone", model.backbone)):
        if module is not None:
            part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            module.load_state_dict(part, strict=False)
            module.eval()
    model.recall_features()
    return model, labels


def _saved(method: Method, backbone: nn.Module | None) -> dict[str, Tensor]:
    """The contents of a model's weights file."""
    state = {f"method.{name}": value for name, value in method.shared_state().items()}
    if backbone is not None:
        state |= {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _require_inputs(inputs: Mapping[str, Any], encoder: Mapping[str, Any], where: Path) -> None:
    """Refuse statistics that are not one number a channel or column, and an encoder of other samples."""
    shape = inputs["shape"]
    width = {"image": shape[:1], "vector": shape[:1], "series": shape[1:2]}.get(inputs["modality"], [])
    counts = {"mean": width, "std": width, "static_mean": [inputs.get("static")], "static_std": [inputs.get("static")]}
    for name, count in counts.items():
        if name in inputs and [len(inputs[name])] != count:
            raise UserError(
                f"{where} is damaged: inputs.{name} does not fit samples of shape {tuple(shape)}", code="damaged_file"
            )
    size = inputs.get("size")
    expected = shape if size is None else [*shape[:1], size, size]
    if (encoder["modality"], encoder["sample_shape"]) != (inputs["modality"], expected):
        raise UserError(f"{where} is damaged: its encoder takes other samples than its inputs are", code="damaged_file")
    needed = {"size", "mean", "std", "white"} if inputs["modality"] == "image" else set()
    if not needed <= inputs.keys() or len(shape) != {"image": 3, "series": 2, "vector": 1}.get(inputs["modality"], 0):
        raise UserError(
            f"{where} is damaged: its inputs do not describe {inputs['modality']} samples", code="damaged_file"
        )


def _require_same(
    wanted: Mapping[str, Tensor], header: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], file: Path
) -> None:
    """Refuse weights that do not match the structure."""
    if wanted.keys() != header.keys():
        odd = ", ".join(sorted(wanted.keys() ^ header.keys())[:3])
        raise UserError(f"{file} does not fit its config.json: {odd} differ", code="damaged_file")
    for name, value in wanted.items():
        dtype, shape = header[name]
        if (value.dtype, tuple(value.shape)) != (dtype, shape):
            raise UserError(
                f"{file} does not fit its config.json: {name} is {dtype} of shape {shape}, and {value.dtype} of shape "
                f"{tuple(value.shape)} was expected",
                code="damaged_file",
            )


class _Scalars(TorchFunctionMode):
    """Within it, what constructors draw or count in plain numbers has values, on whatever device tensors are made."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if "device" not in kwargs and (
            (func is torch.randint and tuple(args[-1]) == ())
            or (func is torch.linspace and args[2:] and args[2] <= _MOST_STEPS)
        ):
            kwargs = {**kwargs, "device": "cpu"}
        return func(*args, **kwargs)


@contextmanager
def _no_larger_than(header: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], where: Path) -> Iterator[None]:
    """Within it, no module may have many more parameters than the weights file holds; whatever fails is a UserError.

    Some slack is left for parts that only training needs, which the file does not hold.
    """
    most, largest = 8 * len(header) + 1000, 8 * sum(math.prod(shape) for _, shape in header.values()) + 100_000_000
    count = size = 0

    def counted(module: nn.Module, name: str, parameter: Tensor | None) -> None:
        nonlocal count, size
        count, size = count + 1, size + (0 if parameter is None else parameter.numel())
        if count > 2 * most or size > 2 * largest:  # built twice
            raise UserError(f"{where} does not fit its weights: it describes a far larger model", code="damaged_file")

    hooks = [register_module_parameter_registration_hook(counted), register_module_buffer_registration_hook(counted)]
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} does not describe a model that can be built: {first_line(error)}", code="damaged_file"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()


def _weights_digest(module: nn.Module) -> str:
    content = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        content.update(name.encode())
        content.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return content.hexdigest()
