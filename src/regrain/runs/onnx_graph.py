"""A model as an ONNX graph from normalised input to embedding and class probabilities, checked against the model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrain.errors import UserError, first_line
from regrain.labels import Labels
from regrain.model import Model
from regrain.runs.classifier import FewShotClassifier, predicted_classes
from regrain.runs.selective import SelectiveClassifier, taxonomy_of
from regrain.views import SeriesViews, VectorViews

TOLERANCE = 1e-4
"""Largest difference between an output of the graph and the model's, in units of its largest entry where above 1."""


@dataclass(frozen=True)
class Classifiers:
    """Classifiers of a run, besides its embeddings."""

    labels: Labels | None = None  # levels and classes of the method's own classifier; None where it has none
    few_shot: FewShotClassifier | None = None  # of an adapted run
    selective: SelectiveClassifier | None = None  # of a calibrated run

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Level -> names of its classes, in the order of their probabilities."""
        return predicted_classes(self.labels, self.few_shot)

    def described(self) -> dict[str, Any]:
        """Plain values for those who read the outputs: classes, and what is abstained from."""
        found: dict[str, Any] = {}
        if self.classes:
            found["levels"] = {
                level: {"output": output_of(level), "classes": list(names)} for level, names in self.classes.items()
            }
        if self.few_shot is not None:
            found["abstains_below"] = self.few_shot.threshold
            found["unsure_below"] = self.few_shot.least_probability
        if self.selective is not None:
            found["answers"] = {
                "precision": self.selective.precision,
                "levels": list(self.selective.levels),
                "thresholds": list(self.selective.thresholds),
            }
        return found


def output_of(level: str) -> str:
    """The output that holds a level's class probabilities."""
    return f"{level}_probabilities"


@dataclass(frozen=True)
class OnnxGraph:
    """A graph as the bytes of its file."""

    content: bytes
    tensors: int  # number of weights in it
    outputs: tuple[str, ...]
    notice: str  # how far it agrees with the model


class _Network(nn.Module):
    """Network from a sample to its embedding, with the frozen backbone if there is one, and to its predictions."""

    def __init__(self, model: Model, classifiers: Classifiers) -> None:
        super().__init__()
        self.backbone, self.method, self.classifiers = model.backbone, model.method, classifiers

    def forward(self, x: Tensor, static: Tensor | None = None) -> dict[str, Tensor]:
        whole = x if static is None else {"series": x, "static": static}
        if self.backbone is not None:
            whole = self.backbone(whole).float()
        embedding = self.method.embed(whole).float()
        outputs = {"embedding": embedding}
        labels, few_shot, selective = self.classifiers.labels, self.classifiers.few_shot, self.classifiers.selective
        if labels is not None:
            own = dict(zip(labels.levels, self.method.class_proba(whole).values(), strict=True))
            outputs |= {output_of(level): values for level, values in own.items()}
            if selective is not None:
                outputs |= _answers(selective, own, labels)
        if few_shot is not None:
            outputs[output_of(few_shot.level)] = few_shot.probabilities(embedding).float()
            named = few_shot.name(embedding)
            outputs |= {"typicality": named.typicality.float(), "abstained": named.abstained}
        return outputs


def _answers(selective: SelectiveClassifier, probabilities: Mapping[str, Tensor], labels: Labels) -> dict[str, Tensor]:
    """The answers of a calibrated run: of levels that nest one, of aspects one for each."""
    taxonomy = taxonomy_of(labels)
    if taxonomy is None:
        codes, sure, mass = selective.level_predictions(probabilities, None)
        limits = torch.tensor([torch.inf if t is None else t for t in selective.thresholds], dtype=sure.dtype)
        answers = torch.where(mass >= limits, codes, -1)
        return {"answers": answers, "answer_probabilities": sure.float()}
    said = selective.predict(probabilities, taxonomy)
    return {"answers": said.codes, "answer_level": said.level, "answer_probability": said.confidence.float()}


def graph_inputs(model: Model) -> tuple[str, ...]:
    """Names of the graph's inputs: the modality, and ``static`` for the static features of series."""
    inputs = model.config["inputs"]
    return (inputs["modality"], "static") if inputs.get("static") else (inputs["modality"],)


def onnx_graph(model: Model, classifiers: Classifiers, described: Mapping[str, str]) -> OnnxGraph:
    """Translate a model to ONNX; the batch may have any size.

    Raises a UserError if the extra ``onnx`` is missing, torch cannot translate the model, or the graph does not agree
    with it.

    ``model``: on the CPU, in evaluation mode, of images, vectors or series. ``classifiers``: each level's probabilities
    are an output of its own. ``described``: goes into the file's ``metadata_props``.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"the format onnx needs {error.name}: pip install 'regrain[onnx]'", code="missing_package"
        ) from error

    names = graph_inputs(model)
    network = _Network(model, classifiers).eval()
    batch = torch.export.Dim("batch")
    with torch.no_grad():
        outputs = list(network(*_examples(model, 2)))
    try:
        with warnings.catch_warnings(), _plain_scalars(network):
            warnings.simplefilter("ignore")  # they speak of torch's own code
            program = torch.onnx.export(
                network,
                _examples(model, 2),
                input_names=names,
                output_names=outputs,
                dynamic_shapes=tuple({0: batch} for _ in names),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise UserError(
            f"torch cannot translate '{model.config['encoder']['name']}' to ONNX: {_reason(error)}"
        ) from error
    assert program is not None
    graph = program.model_proto
    width = graph.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    onnx.helper.set_model_props(graph, {**described, "width": str(width)})
    content = graph.SerializeToString()
    return OnnxGraph(content, len(graph.graph.initializer), tuple(outputs), _agreement(content, network, model))


@contextmanager
def _plain_scalars(network: nn.Module) -> Iterator[None]:
    """Within it, buffers of one whole number or truth value are plain, so that the translation can decide by them."""
    kept = [(module, dict(module._buffers)) for module in network.modules()]
    for module, buffers in kept:
        for name, value in buffers.items():
            if value is not None and value.ndim == 0 and not value.is_floating_point():
                delattr(module, name)
                setattr(module, name, value.item())
    try:
        yield
    finally:
        for module, buffers in kept:
            for name in buffers:
                delattr(module, name)
            module._buffers.update(buffers)


def _reason(error: BaseException) -> str:
    """The exporter's own message is a list of steps; what it failed on is the cause."""
    return first_line(error.__cause__ if isinstance(error.__cause__, Exception) else Exception(str(error)))


def _examples(model: Model, count: int) -> tuple[Tensor, ...]:
    """Random inputs, spread as the training samples are."""
    generator = torch.Generator().manual_seed(0)
    views, config = model.backbone_views or model.views, model.config
    x = torch.randn(count, *config["encoder"]["sample_shape"], generator=generator)
    if not isinstance(views, VectorViews | SeriesViews):
        return (x,)
    x = x * views.std + views.mean
    if not isinstance(views, SeriesViews) or not config["inputs"].get("static"):
        return (x,)
    static = torch.randn(count, config["inputs"]["static"], generator=generator)
    return x, static * views.static_std + views.static_mean


def _agreement(content: bytes, network: _Network, model: Model) -> str:
    """How far onnxruntime's outputs for a batch are from the model's; a UserError where that is too far."""
    try:
        import onnxruntime
    except ImportError:
        return "not checked against the model: that needs onnxruntime (pip install 'regrain[onnx]')"
    given = _examples(model, 3)  # not the number it was translated with
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {n: x.numpy() for n, x in zip(graph_inputs(model), given, strict=True)})
    with torch.no_grad():
        wanted = network(*given)
    largest = 0.0
    for (name, expected), output in zip(wanted.items(), found, strict=True):
        if not expected.is_floating_point():
            continue
        difference = float(np.abs(output - expected.numpy()).max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):  # a NaN is not agreement
            raise UserError(
                f"nothing written: onnxruntime's output '{name}' differs from the model's by {difference:.2g}, and the "
                f"limit is {TOLERANCE:g}"
            )
        largest = max(largest, difference)
    return f"onnxruntime gives the model's {', '.join(wanted)}; largest difference {largest:.1g}"
