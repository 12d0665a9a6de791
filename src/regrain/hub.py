"""Save and load models in the Hugging Face Hub's layout: ``config.json``, ``model.safetensors``, a model card.

Nothing in it is a pickle. A folder in this layout is what :func:`from_pretrained` loads, what ``--weights`` starts an
encoder from, and what ``hf upload`` or :func:`regrain.push_to_hub` shares.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.encoders.weights import why_no_download
from regrain.errors import UserError, first_line, warn_of_data
from regrain.evaluation import embed
from regrain.labels import Labels
from regrain.model import Model, load_model
from regrain.runs.classifier import FewShotClassifier, level_proba, predicted_classes
from regrain.runs.evaluations import figures_in_markdown
from regrain.runs.export import Export, input_in_words
from regrain.runs.prediction import predicted_columns
from regrain.runs.run import Run
from regrain.runs.selective import SelectiveClassifier
from regrain.runs.source import SAMPLE_OPTIONS, read_alike
from regrain.runs.subclass_model import SubclassModel, read_discovery, read_subclasses, write_subclasses
from regrain.runs.tables import frame_of
from regrain.runs.verb import RunOrPath, verb
from regrain.storage.files import MANIFEST, Folder, copy_folder, make_folder, read_json, replace_file, require_place

if TYPE_CHECKING:
    import pandas as pd

_NEEDED = ("config.json", "model.safetensors")
_READER = "reader.json"
_MOST_NAMES = 20
_ReaderForm = dict[str, str | int | float | list[str] | list[int]]
_KNOWN = {
    *(*_NEEDED, MANIFEST, _READER, "README.md", "answers.json", "classifier.json", "classifier.safetensors"),
    *("discovery", "image_encoder", "text_encoder"),
}
"""Files allowed in a model's folder: the files of ``fit``, ``adapt``, ``calibrate`` and ``discover``, and the card."""
_TASKS = {"image": "image-feature-extraction", "text": "feature-extraction"}


@dataclass(frozen=True)
class Pretrained:
    """A model that was loaded from the Hub's layout."""

    model: Model
    """On the CPU, in evaluation mode; ``model.to("cuda")`` moves it."""
    labels: Labels
    """Levels and classes that it was trained on (labels of no samples)."""
    classifier: FewShotClassifier | None = None
    """Of a model that was adapted."""
    selective: SelectiveClassifier | None = None
    """Of a model that was calibrated."""
    subclasses: SubclassModel | None = None
    """Of a run whose subclasses were discovered."""
    reader: Mapping[str, Any] = field(default_factory=dict)
    """Which columns of a table were its samples."""

    def __repr__(self) -> str:
        adapted = f", adapted to '{self.classifier.level}'" if self.classifier is not None else ""
        levels = self.labels.in_words()
        modality = self.model.config["inputs"]["modality"]
        return f"<Pretrained {self.model.method.name} of {modality} samples; levels: {levels or 'none'}{adapted}>"

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Level -> its classes, in the order of :meth:`predict_proba`: of each level that the model predicts."""
        return predicted_classes(self.labels if self.model.method.has_classifier else None, self.classifier)

    @verb
    def embed(self, data: Any, *, normalise: bool = False, **reader_options: Unpack[ReaderOptions]) -> Tensor:
        """Embeddings (N, width), float32 on the CPU: see :func:`regrain.embed`.

        Raises
        ------
        UserError
            For samples unlike those that the model was trained on.
        """
        vectors = embed(self.model, self._read(data, reader_options))
        return functional.normalize(vectors, dim=1) if normalise else vectors

    @verb
    def predict_proba(self, data: Any, level: str, **reader_options: Unpack[ReaderOptions]) -> Tensor:
        """Class probabilities (N, classes) at a label level, in the order of ``classes[level]``.

        Raises
        ------
        UserError
            If nothing predicts that level, or for samples unlike those that the model was trained on.
        """
        return level_proba(self.model, self.labels, self._read(data, reader_options), level, self.classifier)

    @verb
    def predict(self, data: Any, **reader_options: Unpack[ReaderOptions]) -> pd.DataFrame:
        """Ids and, for every level that the model predicts, classes and probabilities: see :func:`regrain.predict`.

        Parameters
        ----------
        data
            Paths of images, texts, an array, a DataFrame, or whatever else :func:`regrain.load` reads.
        **reader_options
            See :func:`regrain.load`.
        """

        dataset = self._read(data, reader_options)
        columns = predicted_columns(
            self.model,
            self.labels,
            dataset,
            classifier=self.classifier,
            subclasses=self.subclasses,
            selective=self.selective,
        )
        return frame_of(columns)

    def _read(self, data: Any, options: Mapping[str, Any]) -> Dataset:
        dataset = read_alike(data, self.model, self.reader, self.labels.levels, wanted="none", options=options)
        warn_of_data(dataset.name, dataset.messages)
        return self.model.fitting(dataset, "the model")


def export_to_hub(run: Run, out: Path, *, licence: str | None = None, overwrite: bool = False) -> Export:
    """The files of :func:`save_to_directory`, in the words of the other formats."""
    place = save_to_directory(run, out, licence=licence, overwrite=overwrite)
    lines = ("from regrain.hub import from_pretrained", f"model = from_pretrained({str(place)!r})")
    return Export(place, "hub", len(run.model.method.shared_state()), input_in_words(run.model), lines, ())


@verb
def save_to_directory(
    run: RunOrPath,
    out: str | Path,
    *,
    licence: str | None = None,
    overwrite: bool = False,
    repository: str | None = None,
) -> Path:
    """Write a run's model in the Hub's layout.

    Parameters
    ----------
    out : path
        A folder of its own: ``config.json``, ``model.safetensors``, what the encoder needs besides (a tokenizer), and
        ``README.md``, a model card made of the run's.
    licence : str, optional
        The Hub's name of a licence, such as ``apache-2.0``, for the card.
    overwrite : bool
        Replace such a folder, if it holds nothing else.
    repository : str, optional
        ``owner/name`` on the Hub, for the lines of the card that load the model; default: the folder's name.

    Raises
    ------
    UserError
        If the run is not finished, or ``out`` holds something else.

    Examples
    --------
    >>> import regrain, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = regrain.fit("sup-ce", "digits", encoder="mlp", out=f"{folder.name}/run", epochs=1)
    >>> place = save_to_directory(run, f"{folder.name}/shared")
    >>> sorted(file.name for file in place.iterdir())
    ['README.md', 'config.json', 'manifest.json', 'model.safetensors']
    >>> loaded = from_pretrained(place)
    >>> bool((loaded.embed(regrain.load("digits").split("test")) == run.embed()).all())
    True
    >>> folder.cleanup()
    """
    model, place = run.model, Path(out).resolve()  # "." has no name
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is not a folder: choose another --out", code="would_overwrite")
    lying = sorted(file.name for file in place.iterdir()) if place.is_dir() else []
    if lying and not _is_ours(place):
        raise UserError(f"{place} holds other things: choose another --out", code="would_overwrite")
    if not _KNOWN.issuperset(lying):
        odd = next(name for name in lying if name not in _KNOWN)
        raise UserError(
            f"{place} holds other things beside a model, such as '{odd}': choose another --out", code="would_overwrite"
        )
    if _is_ours(place) and not overwrite:
        raise UserError(
            f"{place} holds a model: choose another --out, or replace it with --overwrite", code="would_overwrite"
        )
    require_place(place.parent)
    make_folder(place.parent)
    new, old = (place.with_name(f".{place.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        copy_folder(run.folder.model_folder, new)
        recorded = run.recipe["data"]["reader"]
        options = {name: recorded[name] for name in SAMPLE_OPTIONS if recorded.get(name) is not None}
        if options:
            Folder(new).write_json(_READER, options)
        subclasses = read_discovery(run)
        if subclasses is not None:
            (new / "discovery").mkdir()
            write_subclasses(Folder(new), subclasses)
        card = _card(run, model, repository or place.name, licence)
        replace_file(new / "README.md", lambda file: file.write_text(card, encoding="utf-8"))
        if place.exists():
            place.rename(old)
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return place


@verb
def from_pretrained(source: str | Path, *, revision: str | None = None, verify: bool | None = None) -> Pretrained:
    """Load a model from a folder in the Hub's layout, or from the Hub.

    Parameters
    ----------
    source : path or str
        A folder, or a repository's id, ``owner/name``; what has been downloaded before needs no network.
    revision : str, optional
        A branch, tag or commit of the repository.
    verify : bool, optional
        False reads the files without comparing their checksums; see :meth:`regrain.Run.open`.

    Raises
    ------
    UserError
        If there is no such folder and the repository cannot be had, or the source is not a Regrain model.
    """
    folder = Path(os.path.expanduser(source))
    if folder.is_dir():
        return _loaded(folder, source, verify)
    cached = _cached(str(source), revision)
    if cached is not None:
        try:
            return _loaded(cached, source, verify)
        except UserError:  # perhaps an interrupted download: the Hub has the rest
            if why_no_download(str(source)) is not None:
                raise
    return _loaded(_downloaded(str(source), revision), source, verify)


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a model that Regrain wrote, and its card; other libraries use the same file names."""
    if not all((folder / name).is_file() for name in (*_NEEDED, "README.md")):
        return False
    try:
        return {"schema", "method"} <= read_json(folder / "config.json").keys()
    except UserError:
        return False


def _loaded(folder: Path, source: str | Path, verify: bool | None) -> Pretrained:
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{source} holds no model in the Hub's layout: {' and '.join(missing)} missing", code="missing_file"
        )
    if not {"method", "labels"} <= read_json(folder / "config.json").keys():
        raise UserError(
            f"{source} is not a model of regrain's: its config.json has no 'method' and 'labels'", code="missing_file"
        )
    files = Folder(folder, verify=verify)
    model, labels = load_model(folder, verify=verify)
    classifier = FewShotClassifier.load(files)
    selective = None if classifier is not None else SelectiveClassifier.load(files, labels)
    options = files.read_json(_READER, _ReaderForm, missing={})
    subclasses = read_subclasses(files, model)
    return Pretrained(
        model, labels, classifier, selective, subclasses, {n: options[n] for n in SAMPLE_OPTIONS if n in options}
    )


def _cached(repository: str, revision: str | None) -> Path | None:
    """Return the earlier download, which may be incomplete."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception:  # not in the cache, or not a repository id: the Hub knows
        return None


def _downloaded(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    reason = why_no_download(repository)
    if reason is None:
        try:
            return Path(snapshot_download(repository, revision=revision))
        except Exception as error:
            reason = first_line(error)
    raise UserError(
        f"'{repository}' is not a folder, and could not be had from the Hugging Face Hub: {reason}. Download it "
        "elsewhere and give the folder",
        code="not_reachable",
    )


def _card(run: Run, model: Model, name: str, licence: str | None) -> str:
    """Return ``README.md``: the Hub's metadata, the run's card, how to use the model, and its figures."""
    from huggingface_hub import ModelCardData

    modality = model.config["inputs"]["modality"]
    data = ModelCardData(
        library_name="regrain",
        license=licence,
        pipeline_tag=_TASKS.get(modality),
        tags=["regrain", "coarse-to-fine", "representation-learning", model.method.name, modality],
    )
    sections = [f"---\n{data.to_yaml()}\n---", (run.folder.read_card() or f"# {model.method.name}").rstrip()]
    sections.append(f"## Use\n\n```python\n{_use(run, model, name)}\n```")
    classes = dict(zip(run.labels.levels, run.labels.classes, strict=True)) | run.classes
    known = "\n".join(f"- {level}: {_few(list(names))}" for level, names in classes.items())
    sections += [f"## Classes\n\n{known}"] if known else []
    figures = figures_in_markdown(run.folder, "test")
    sections += [f"## Figures\n\n{figures}"] if figures else []
    return "\n\n".join(sections) + "\n"


def _use(run: Run, model: Model, name: str) -> str:
    """Lines of Python that load the model and use it on samples of its kind."""
    inputs = model.config["inputs"]
    shape = (2, *inputs["shape"])
    samples = {
        "image": 'samples = ["photo.jpg"]  # paths, a folder, or an array (N, C, H, W) of uint8',
        "text": 'samples = ["a text", "another"]',
    }.get(inputs["modality"], f"samples = np.zeros({shape}, dtype=np.float32)  # or a DataFrame")
    lines = ["import numpy as np", ""] if "np." in samples else []
    lines += ["from regrain.hub import from_pretrained", "", f"model = from_pretrained({json.dumps(name)})", samples]
    given = "samples"
    if inputs.get("static"):
        lines.append(f"static = np.zeros({(2, inputs['static'])}, dtype=np.float32)  # features beside the series")
        given = "samples, static=static"
    lines.append(f"vectors = model.embed({given})  # (N, width)")
    if run.classes or (run.path / "discovery").exists():
        lines.append(f"table = model.predict({given})  # a DataFrame")
    if run.classes:
        level = json.dumps(list(run.classes)[-1], ensure_ascii=False)
        lines.append(f"shares = model.predict_proba({given.replace('samples', f'samples, {level}', 1)})")
        lines.append(f"names = model.classes[{level}]  # of the columns of shares")
    return "\n".join(lines)


def _few(names: list[Any]) -> str:
    shown = ", ".join(map(str, names[:_MOST_NAMES]))
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
