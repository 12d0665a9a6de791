"""A trained thing as one object: method, encoder, and how raw samples become its input; built, saved, loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regrain.data.cache import features as cached_features
from regrain.data.dataset import Dataset, ImageForm, TensorSamples
from regrain.encoders import Encoder, FrozenEncoder, build_encoder, encoder_config
from regrain.encoders.base import ScaledEncoder, column_statistics
from regrain.encoders.vector import MLPEncoder, ResidualEncoder
from regrain.errors import UserError
from regrain.labels import Labels
from regrain.methods import Method, method_class
from regrain.settings import check_values, hyperparameters
from regrain.training.loader import on_device, scan_batches
from regrain.training.store import RunFolder, labels_from_json, read_tensors
from regrain.views import ImageViews, SeriesViews, TextViews, VectorViews
from regrain.views.base import Views

__all__ = ["Model", "channel_statistics", "load_model", "series_statistics", "take_statistics"]

_STATISTICS_SAMPLES = 2000


def channel_statistics(dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every image channel in [0, 1], over at most 2000 evenly spaced samples."""
    rows = torch.linspace(0, len(dataset) - 1, min(len(dataset), _STATISTICS_SAMPLES), dtype=torch.float64).long()
    images = dataset.samples.take(rows).float() / 255
    std, mean = torch.std_mean(images, dim=(0, 2, 3))
    return tuple(mean.tolist()), tuple(std.clamp(min=1e-3).tolist())


def series_statistics(samples: Tensor | Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Mean and standard deviation of every channel and every static feature of series, for their views.

    Examples
    --------
    >>> series_statistics(torch.tensor([[[1.0], [3.0]], [[2.0], [float("nan")]]]))
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
    """Let an encoder of tables or series standardise its input by the training samples; others need nothing."""
    if isinstance(encoder, ScaledEncoder):
        encoder.take_statistics(samples)


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
    """Everything between a raw sample and its embedding or its class.

    Attributes
    ----------
    config : dict
        Plain JSON from which the same structure is built again.
    method : Method
        Its encoder is the adapter alone where a frozen backbone comes before.
    views : Views
        Of the method's input.
    backbone : Encoder or None
        A frozen encoder whose features the method works on.
    backbone_views : Views or None
    """

    config: dict[str, Any]
    method: Method
    views: Views[Any]
    backbone: Encoder | None = None
    backbone_views: Views[Any] | None = None

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
        method : str
        hyperparameters : mapping
        classes : sequence of int
            Per level that the method reads.
        encoder : Encoder
            A FrozenEncoder is taken apart: the method trains the adapter on the backbone's features.
        inputs : mapping
            ``modality`` and ``shape`` of a raw sample; for images ``white`` (see
            :class:`~regrain.data.dataset.ImageForm`), ``size``, ``mean`` and ``std`` of the views; for series
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
        """Where the method is."""
        return next((p.device for p in self.method.parameters()), torch.device("cpu"))

    @property
    def storage(self) -> ImageForm | None:
        """How the images that it was trained on were stored, and all it is given are; None for other samples."""
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
                f"{where} was trained on {inputs['modality']} data; {dataset.name} holds {dataset.modality} data"
            )
        if self.storage is not None:
            return dataset.stored_as(self.storage)
        dataset = dataset.with_columns(inputs.get("columns"), inputs.get("static_columns"), where)
        shape, trained = list(dataset.samples.shape), inputs["shape"]
        if dataset.modality in ("vector", "series") and shape != trained:
            raise UserError(
                f"{where} was trained on samples of shape {tuple(trained)}; {dataset.name} has {tuple(shape)}"
            )
        static = getattr(dataset.samples, "static_width", 0)
        if static != inputs.get("static", 0):
            raise UserError(
                f"{where} was trained on series with {inputs.get('static', 0)} static features; {dataset.name} has "
                f"{static} of them"
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
        """Raw samples -> features of the frozen backbone (B, width)."""
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
        key = f"{dataset.fingerprint()}-{_weights_digest(self.backbone)}-{described}"
        table = cached_features(
            key,
            len(dataset),
            int(self.backbone.width),
            lambda: (self.backbone_features(raw).cpu() for raw, _, _ in scan_batches(dataset, workers=workers)),
        )
        return Dataset(
            TensorSamples(table, "vector"),
            dataset.labels,
            dataset.ids,
            dataset.name,
            dataset.splits,
            dataset.groups,
            dataset.notes,
        )

    def take_features(self, features: Dataset) -> None:
        """Let adapter and views know mean and spread of the backbone's features over the training samples.

        Copies of the adapter, such as a momentum twin's, are told too.
        """
        values = features.samples.take(torch.arange(len(features)))
        for module in self.method.modules():
            take_statistics(module, values)
        std, mean = torch.std_mean(values, dim=0)
        views = self.views
        self.views = VectorViews(views.presets, seed=views.seed, mean=mean, std=std).to(self.device)

    def recall_features(self) -> None:
        """Let the views of a backbone's features know what the adapter remembers of their mean and spread.

        A saved model has no other record of them, and noise of unit spread would drown features of a smaller one.
        """
        encoder, views = self.method.encoder, self.views
        if self.backbone is not None and isinstance(encoder, MLPEncoder | ResidualEncoder):
            mean, std = encoder.input_mean, encoder.input_std
            self.views = VectorViews(views.presets, seed=views.seed, mean=mean, std=std).to(self.device)

    def untrained(self, folder: Path | None, seed: int) -> Model:
        """The same structure with random weights: the baseline that tells what training brought."""
        encoder = build_encoder(**self.config["encoder"], folder=folder, seed=seed)
        if isinstance(encoder, FrozenEncoder) and self.backbone is not None:
            encoder.backbone = self.backbone
        hyperparameters = self.config["hyperparameters"]
        model = Model.build(
            self.config["method"], hyperparameters, self.config["classes"], encoder, self.config["inputs"], seed=seed
        )
        own = self.method.encoder
        if isinstance(own, ScaledEncoder):  # how columns are scaled is not what training brought
            assert isinstance(model.method.encoder, ScaledEncoder)
            model.method.encoder.copy_statistics(own)
        model.recall_features()
        return model

    def save(self, run: RunFolder, labels: Mapping[str, Any]) -> None:
        """Write the run folder's ``model/``."""
        state = {f"method.{name}": value for name, value in self.method.shared_state().items()}
        if self.backbone is not None:
            state |= {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}

        def save_extra(folder: Path) -> None:
            for encoder in (self.method.encoder, self.backbone):
                if isinstance(encoder, Encoder):
                    encoder.save_extra(folder)

        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        run.write_model(tensors, self.config | {"labels": dict(labels)}, save_extra)


def load_model(folder: str | Path) -> tuple[Model, Labels]:
    """A saved model, and the levels and classes it was trained on (labels of no samples).

    Raises
    ------
    UserError
        If the folder holds no model, or one of a newer schema, or of a method whose settings have changed since.
    """
    folder = Path(folder)
    config = RunFolder(folder).read_json("config.json")
    labels = labels_from_json(config.pop("labels"))
    config.pop("schema")
    encoder = build_encoder(**config["encoder"], folder=folder)
    settings = hyperparameters(method_class(config["method"]))
    try:
        given = check_values(config["hyperparameters"], settings, f"the method '{config['method']}'")
    except UserError as error:
        raise UserError(f"{folder} was saved by another regrain, train it anew or install that one: {error}") from None
    if "queue_size" in given:
        given["queue_size"] = 0  # a queue is for training; a shared model has none
    model = Model.build(config["method"], given, config["classes"], encoder, config["inputs"])
    model.config = config
    state = read_tensors(folder / "model.safetensors")
    for name, module in (("method", model.method), ("backbone", model.backbone)):
        if module is None:
            continue
        part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        expected = set(model.method.shared_state()) if module is model.method else set(module.state_dict())
        tensors = {key for key in expected if isinstance(module.state_dict()[key], Tensor)}
        if set(part) != tensors:
            odd = ", ".join(sorted(set(part) ^ tensors)[:3])
            raise UserError(f"{folder / 'model.safetensors'} does not fit its config.json: {odd} differ")
        module.load_state_dict(part, strict=False)
    for module in (model.method, model.backbone):
        if module is not None:
            module.eval()
    model.recall_features()
    return model, labels


def _weights_digest(module: nn.Module) -> str:
    content = hashlib.blake2b(digest_size=16)
    for name, value in module.state_dict().items():
        content.update(name.encode())
        content.update(value.detach().cpu().contiguous().float().numpy().tobytes())
    return content.hexdigest()
