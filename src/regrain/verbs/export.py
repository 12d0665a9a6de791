"""``export``: a run in the forms that other software loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from regrain.errors import UserError
from regrain.hub import export_to_hub
from regrain.runs.export import FORMATS, Export, check_export, write_export
from regrain.runs.run import Run
from regrain.runs.verb import RunOrPath, verb


@verb
def export(
    run: RunOrPath,
    out: str | Path | None = None,
    *,
    format: Literal["timm", "torchvision", "detectron2", "safetensors", "onnx", "hub"],
    licence: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a run's encoder for other software, and say how it is loaded and what it takes.

    timm, torchvision, detectron2: its weights under the names of that framework. safetensors: the weights of any
    encoder under Regrain's own names. onnx: a graph from normalised input to embedding, for batches of any size,
    checked in onnxruntime (`pip install 'regrain[onnx]'`). hub: the whole model as a folder in the Hugging Face Hub's
    layout, with a model card.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run; it keeps its model.
    out : path, optional
        The file to write (hub: the folder); default: in RUN/export. A .pth or .pkl is a pickle.
    format : {"timm", "torchvision", "detectron2", "safetensors", "onnx", "hub"}
        What is to load the file. Weights are under that framework's names (``safetensors``: under Regrain's own, of any
        encoder; detectron2: as a .pth, or .pkl, with its configuration); ``onnx`` is a graph from normalised input to
        what evaluation uses; ``hub`` a folder that :mod:`regrain.hub` loads and ``pretrained`` takes.
    licence : str, optional
        For hub: the Hub's name of a licence, such as apache-2.0.
    overwrite : bool
        Replace the file, or the folder.

    Returns
    -------
    Export
        The file, the lines that load it, what its input must look like, and what it does not hold.

    Raises
    ------
    UserError
        If the framework has no network that these weights fit (the message says which formats do), the file exists,
        or an ONNX graph does not give the model's embeddings within 1e-4.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> from regrain import fit
    >>> run = fit("maskcon", "digits", encoder="conv4", out=folder.name, epochs=1, limit_per_class=20)
    >>> export(run, format="safetensors").keys
    24
    >>> export(run, format="timm")
    Traceback (most recent call last):
    regrain.errors.UserError: the encoder 'conv4' is no timm model; formats that fit this run: safetensors or onnx
    >>> folder.cleanup()
    """
    ending = FORMATS.get(format, ("",))[0]
    place = Path(out) if out is not None else run.path / "export" / f"{run.path.resolve().name}-{format}{ending}"
    if licence is not None and format != "hub":
        raise UserError(f"a licence goes into the model card of format 'hub'; format '{format}' has none")
    if format == "hub":
        return export_to_hub(run, place, licence=licence, overwrite=overwrite)
    check_export(format, place, overwrite=overwrite)
    model = Run(run.folder, device="cpu").model  # a copy: the run's own may be on a GPU, and stays there
    made = write_export(model, format, place, model_folder=run.folder.model_folder)
    return replace(made, notices=(*made.notices, *_left_out_of(run)))


def _left_out_of(run: Run) -> list[str]:
    """Names what a run has learned since training that an encoder alone does not hold."""
    found = (
        [] if run.classifier is None else [f"the classifier of '{run.classifier.level}' that the run was adapted to"]
    )
    found += [] if run.selective is None else ["the answers that the run was calibrated to give"]
    return [f"{what} is not in it: the format hub holds the whole model" for what in found]
