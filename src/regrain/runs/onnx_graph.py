"""A model as an ONNX graph from normalised input to embedding, checked against the model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from regrain.encoders.weights import first_line
from regrain.errors import UserError
from regrain.model import Model
from regrain.views import SeriesViews, VectorViews

TOLERANCE = 1e-4
"""Largest difference between the graph's embeddings and the model's, in units of the largest entry where above 1."""


@dataclass(frozen=True)
class OnnxGraph:
    """A graph as the bytes of its file.

    Attributes
    ----------
    content : bytes
    tensors : int
        Number of weights in it.
    notice : str
        How far it agrees with the model.
    """

    content: bytes
    tensors: int
    notice: str


class _Embedding(nn.Module):
    """What evaluation uses of a sample, with the frozen backbone where there is one."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.backbone, self.method = model.backbone, model.method

    def forward(self, x: Tensor, static: Tensor | None = None) -> Tensor:
        whole = x if static is None else {"series": x, "static": static}
        if self.backbone is not None:
            whole = self.backbone(whole).float()
        return self.method.embed(whole).float()


def graph_inputs(model: Model) -> tuple[str, ...]:
    """Names of the graph's inputs: the modality, and ``static`` for the features beside series."""
    inputs = model.config["inputs"]
    return (inputs["modality"], "static") if inputs.get("static") else (inputs["modality"],)


def onnx_graph(model: Model, described: Mapping[str, str]) -> OnnxGraph:
    """Translate a model to ONNX; the batch may have any size.

    Parameters
    ----------
    model : Model
        On the CPU, in evaluation mode, of images, vectors or series.
    described : mapping of str
        Goes into the file's ``metadata_props``.

    Raises
    ------
    UserError
        If the extra ``onnx`` is missing, torch cannot translate the model, or the graph does not agree with it.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"the format onnx needs {error.name}: pip install 'regrain[onnx]'", code="missing_package"
        ) from error

    names = graph_inputs(model)
    network = _Embedding(model).eval()
    batch = torch.export.Dim("batch")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they speak of torch's own code
            program = torch.onnx.export(
                network,
                _examples(model, 2),
                input_names=names,
                output_names=["embedding"],
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
    return OnnxGraph(content, len(graph.graph.initializer), _agreement(content, network, model))


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


def _agreement(content: bytes, network: _Embedding, model: Model) -> str:
    """How far onnxruntime's embeddings of a batch are from the model's; a UserError where that is too far."""
    try:
        import onnxruntime
    except ImportError:
        return "not checked against the model: that needs onnxruntime (pip install 'regrain[onnx]')"
    given = _examples(model, 3)  # not the number it was translated with
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {n: x.numpy() for n, x in zip(graph_inputs(model), given, strict=True)})
    with torch.no_grad():
        wanted = network(*given).numpy()
    difference = float(np.abs(found - wanted).max())
    if not difference <= TOLERANCE * max(1.0, float(np.abs(wanted).max())):  # a NaN is no agreement
        raise UserError(
            f"nothing written: onnxruntime's embeddings differ from the model's by {difference:.2g}, and the limit is "
            f"{TOLERANCE:g}"
        )
    return f"onnxruntime gives the model's embeddings; largest difference {difference:.1g}"
