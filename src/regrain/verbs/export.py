"""``export``: a run in the forms that other software loads, and ``push_to_hub``: on the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

from regrain.errors import UserError, first_line
from regrain.hub import export_to_hub, save_to_directory
from regrain.runs.export import FORMATS, Export, check_export, write_export
from regrain.runs.onnx_graph import Classifiers
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
    """Write a run's encoder for other software, and say how to load it and what input it takes.

    timm, torchvision, detectron2: its weights under the names of that framework. safetensors: the weights of any
    encoder under Regrain's own names. onnx: a graph from normalised input to the embedding and the class probabilities
    of every level that the run predicts, for batches of any size, checked in onnxruntime (`pip install
    'regrain[onnx]'`). hub: the whole model as a folder in the Hugging Face Hub's layout, with a model card.

    The graph of an adapted run also gives ``typicality`` and ``abstained``, and that of a calibrated one ``answers``
    (the class at each level, -1 where nothing is said), ``answer_level`` and ``answer_probability``. A JSON of the
    graph's name says which classes they are of (its metadata do too), and for images a script of NumPy and Pillow reads
    files as Regrain does, and predicts.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run; it keeps its model.
    out : path, optional
        The file to write (hub: the folder); default: in RUN/export. A .pth or .pkl is a pickle.
    format : {"timm", "torchvision", "detectron2", "safetensors", "onnx", "hub"}
        The software that loads the file. detectron2 takes a .pth, or .pkl, with its configuration; :mod:`regrain.hub`
        and ``pretrained`` take the folder of hub.
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
        or an ONNX graph does not give the model's embeddings and probabilities within 1e-4.

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
    regrain.errors.UserError: the encoder 'conv4' is not a timm model; formats that fit this run: safetensors or onnx
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
    own = run.labels if model.method.has_classifier else None
    classifiers = Classifiers(own, run.classifier, run.selective)
    made = write_export(model, format, place, model_folder=run.folder.model_folder, classifiers=classifiers)
    return replace(made, notices=(*made.notices, *_left_out_of(run, format)))


@verb
def push_to_hub(
    run: RunOrPath, repository: str, *, private: bool = True, licence: str | None = None, token: str | None = None
) -> str:
    """Share a run's model on the Hugging Face Hub, and give back its address; ``hf upload`` shares a folder.

    Parameters
    ----------
    repository : str
        ``owner/name``; made where there is none.
    private : bool
        Of a repository that is made.
    licence : str, optional
        The Hub's name of a licence, such as ``apache-2.0``, for the card.
    token : str, optional
        Default: what ``hf auth login`` keeps.

    Raises
    ------
    UserError
        If the run is not finished, or the Hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    with tempfile.TemporaryDirectory() as folder:
        place = save_to_directory(run, Path(folder) / "model", licence=licence, repository=repository)
        try:
            address = hub.create_repo(repository, private=private, exist_ok=True)
            hub.upload_folder(repo_id=repository, folder_path=place, commit_message="A model of regrain")
        except Exception as error:  # the hub's HTTP library, and so the exception, has changed from version to version
            raise UserError(
                f"{repository} could not be written to: {first_line(error)}", code="not_writable"
            ) from error
    return str(address)


def _left_out_of(run: Run, format: str) -> list[str]:
    """Return sentences on classifiers of the run that are not in the file."""
    found = []
    if format != "onnx":
        found += [f"the classifier of '{level}' is" for level in run.classes]
        found += ["the answers that the run was calibrated to give are"] if run.selective is not None else []
    notices = [f"{what} not in it: the formats onnx and hub hold the whole model" for what in found]
    return notices + (["the discovered subclasses are not in it"] if (run.path / "discovery").exists() else [])
