"""A run folder and the model in it: what every verb starts from."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

from regrain.data.cells import spelled_as
from regrain.data.dataset import Dataset
from regrain.data.readers import parsed, table_of
from regrain.encoders import build_encoder, is_pretrained
from regrain.errors import MissingDataError, UserError, speaks_python, warn_of_data
from regrain.labels import Labels
from regrain.model import Model, load_model
from regrain.registry import catalogue_of, is_url, verb_of_runs, verbs_of_runs
from regrain.runs.classifier import FewShotClassifier, predicted_classes
from regrain.runs.selective import SelectiveClassifier
from regrain.runs.source import inherited_options, read_alike, read_data, require_no_reading, split_dataset
from regrain.spelling import command, counted
from regrain.storage.run_folder import RunFolder
from regrain.training.device import Device, Precision, resolve_device

if TYPE_CHECKING:
    from regrain.verbs import adapt as _adapt
    from regrain.verbs import attend as _attend
    from regrain.verbs import calibrate as _calibrate
    from regrain.verbs import clean as _clean
    from regrain.verbs import discover as _discover
    from regrain.verbs import embed as _embed
    from regrain.verbs import evaluate as _evaluate
    from regrain.verbs import export as _export
    from regrain.verbs import predict as _predict


@dataclass
class Run:
    """A run folder, and the model in it."""

    folder: RunFolder
    data: Dataset | None = None
    """The data it was made from, where they are at hand; otherwise they are read again from the recipe."""
    device: Device = "auto"
    notices: list[str] = field(default_factory=list)
    """Notices of the choices that were made for the user at the start."""
    precision: Precision | None = None
    """Of the encoder's arithmetic in embeddings and predictions; default: that of its training."""
    _looked_at: tuple[Any, Any] | None = field(default=None, init=False, repr=False)
    """Given data that are not the run's own, and their parsed table, until they are read."""

    if TYPE_CHECKING:
        adapt = _adapt.adapt
        attend = _attend.attend
        calibrate = _calibrate.calibrate
        clean = _clean.clean
        discover = _discover.discover
        embed = _embed.embed
        evaluate = _evaluate.evaluate
        export = _export.export
        export_embeddings = _embed.export_embeddings
        predict = _predict.predict
        predict_proba = _predict.predict_proba
        push_to_hub = _export.push_to_hub

    def __post_init__(self) -> None:
        if not isinstance(self.folder, RunFolder):  # Run("runs/a") is Run.open("runs/a")
            self.folder = RunFolder.open(self.folder)

    def __repr__(self) -> str:
        try:
            state = self.folder.read_json("state.json", missing={})
        except UserError:
            return f"<Run {self.path}>"
        epochs = state.get("epoch", 0)
        about = f"{counted(epochs, 'epoch')}{'' if state.get('finished') else ', not finished'}"
        adapted = "adapted, " if (self.folder.model_folder / "classifier.json").exists() else ""
        try:
            method = self.recipe["method"]["name"]
        except (UserError, KeyError):
            return f"<Run {self.path}>"
        source = self.recipe["data"].get("source")
        on = self.data.name if self.data is not None else "data in memory" if source is None else Path(source).name
        return f"<Run {method} on {on}, {adapted}{about}, {self.path}>"

    def _repr_html_(self) -> str:
        """For notebooks: what was trained on what."""
        import pandas as pd

        try:
            recipe = self.recipe
            about = {
                "method": recipe["method"]["name"],
                "data": self.data.name if self.data is not None else recipe["data"].get("source") or "in memory",
                "levels": ", ".join(recipe["data"]["levels"] or ()),
                "encoder": recipe["encoder"]["name"],
                "seed": recipe["seed"],
            }
        except (UserError, KeyError):
            return f"<pre>{html.escape(repr(self))}</pre>"
        return pd.Series(about | {"folder": str(self.path)}, name=repr(self)).to_frame().to_html()

    @classmethod
    @speaks_python
    def open(
        cls,
        path: str | Path,
        *,
        device: Device = "auto",
        precision: Precision | None = None,
        verify: bool | None = None,
    ) -> Run:
        """A run on disk; a UserError where there is none.

        Parameters
        ----------
        device : {"auto", "cpu", "cuda"}
        precision : {"auto", "float32", "bf16", "fp16"}, optional
            Of the encoder's arithmetic in embeddings and predictions; default: that of its training.
        verify : bool, optional
            False reads its files without comparing their checksums, which takes about a second a gigabyte; default
            true.
        """
        return cls(RunFolder.open(path, verify=verify), device=device, precision=precision)

    load = open

    @property
    def path(self) -> Path:
        """Path of the run's folder."""
        return self.folder.path

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe of the run."""
        return self.folder.read_recipe()

    @cached_property
    def _loaded(self) -> tuple[Model, Labels]:
        if not (self.folder.model_folder / "config.json").exists():
            raise UserError(f"{self.path} is not finished: go on with `{command('resume', self.path)}`")
        model, labels = load_model(self.folder.model_folder, verify=self.folder.verify)
        model.precision = self.precision or model.precision
        return model.to(resolve_device(self.device)), labels

    @property
    def model(self) -> Model:
        """The trained model."""
        return self._loaded[0]

    @property
    def labels(self) -> Labels:
        """Levels and classes that the method was trained on (labels of no samples)."""
        return self._loaded[1]

    @cached_property
    def classifier(self) -> FewShotClassifier | None:
        """Classifier that :func:`adapt` fitted on a few labelled samples; None for a run that was not adapted."""
        return FewShotClassifier.load(self.folder.model)

    @cached_property
    def selective(self) -> SelectiveClassifier | None:
        """Classifier that :func:`calibrate` fitted; None for a run that was not calibrated, or was adapted since."""
        return None if self.classifier is not None else SelectiveClassifier.load(self.folder.model, self.labels)

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Level -> its classes, in the order of :func:`predict_proba`: of each level that the run predicts."""
        return predicted_classes(self.labels if self.model.method.has_classifier else None, self.classifier)

    def splits(self) -> dict[str, Dataset]:
        """The splits of the data it was made from."""
        settings = self.recipe["data"]
        data = self.data
        if data is None:
            if settings.get("source") is None:
                raise UserError(f"{self.path} was trained on data in memory: give the data to evaluate or embed")
            data = self.data = self._read_recorded(settings)
        splits = self._own_splits(data)
        if splits is None:
            raise UserError(
                f"the training data of {self.path} are not those it was started on (their fingerprint differs), "
                "so what it was trained on and what was held out cannot be told apart: bring the old data back, "
                "give the data to judge as --data with a split of their own, or train again with `regrain fit "
                "... --overwrite`"
            )
        return splits

    def _read_recorded(self, settings: Mapping[str, Any]) -> Dataset:
        """Read the run's data from their recorded place."""
        source = settings["source"]
        if not is_url(source) and not catalogue_of(source) and not Path(source).exists():
            raise MissingDataError(
                f"the data of {self.path} are no longer at {source}: say where they are now, with --data"
            )
        try:
            return read_data(source, settings["levels"], settings["reader"])
        except MissingDataError as error:
            advice = f"say where they are now, with --data {source} --root FOLDER"
            raise MissingDataError(f"the data of {self.path} are gone: {error}; {advice}") from None

    def take_data(self, data: Any, **reader_options: Any) -> None:
        """Set the place of the run's own data; ``reader_options`` win over the recorded ones.

        Raises
        ------
        UserError
            If they are not the data that the run was started on.
        """
        settings = self.recipe["data"]
        self.data = read_data(data, settings["levels"], {**settings["reader"], **reader_options})
        self.splits()

    def finds_own(self, data: Any, reader_options: Mapping[str, Any]) -> bool:
        """Whether given data are the run's own, which are no longer where they were; then they are taken for them."""
        settings = self.recipe["data"]
        source = settings.get("source")
        if source is None:
            gone = isinstance(data, Dataset)
        elif catalogue_of(source):
            gone = str(data) == source and "root" in reader_options
        else:
            gone = not is_url(source) and not Path(source).exists()
        looked_at = self._looked_at is not None and self._looked_at[0] is data
        if data is None or self.data is not None or not gone or looked_at:
            return False
        try:
            table = parsed(data)
            self._looked_at = (data, table)
            self.take_data(table, **reader_options)
        except UserError:  # others, that are read by what the verb says of them
            self.data = None
            return False
        self._looked_at = None
        return True

    def _own_splits(self, data: Dataset) -> dict[str, Dataset] | None:
        """The splits of ``data`` when its training samples are those of this run, else None."""
        if data.splits is not None and "train" not in data.split_names:
            return None
        splits = split_dataset(data, self.recipe)
        return splits if splits["train"].fingerprint() == self.recipe["data"]["fingerprint"] else None

    def read(
        self,
        data: Any,
        *,
        levels: Sequence[str] | None = None,
        wanted: Literal["any", "some", "own", "none"] = "any",
        **options: Any,
    ) -> Dataset:
        """Other data, read as the run's own were: see :func:`regrain.runs.source.read_alike`."""
        recorded = self.recipe["data"]
        if self._looked_at is not None and self._looked_at[0] is data:
            data = self._looked_at[1]
        self._looked_at = None
        dataset = read_alike(
            data, self.model, recorded["reader"], recorded["levels"], levels=levels, wanted=wanted, options=options
        )
        warn_of_data(dataset.name, dataset.messages)
        return dataset

    def inherited_options(self, data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the reader for other data: those given, and those of the run's own data that hold for others."""
        return inherited_options(data, table_of(data), self.model, self.recipe["data"]["reader"], options)

    def given_or_own(
        self,
        data: Any,
        reader_options: Mapping[str, Any],
        *,
        levels: Sequence[str] | None = None,
        wanted: Literal["any", "some", "own"] = "any",
    ) -> Dataset | None:
        """Read the data that a verb was given as the run's own were; None if the run's own are meant.

        ``levels`` are those that a table is read with: the run's own data have theirs.

        Raises
        ------
        UserError
            For options of a reader where nothing is given that they could be about.
        """
        if data is None:
            require_no_reading(reader_options)
            if levels is not None:
                raise UserError(
                    "levels (--level) name those of other data: leave them out, or give --data; the run's own are in "
                    "its recipe"
                )
            return None
        if levels is None and self.finds_own(data, reader_options):
            return None
        return self.read(data, levels=levels, wanted=wanted, **reader_options)

    def splits_of(self, dataset: Dataset | None, split: str, notes: list[str]) -> tuple[dict[str, Dataset], str]:
        """The splits of given data, or of the run's own, and how messages call these data.

        Given data without splits are all of ``split``. Where they are the run's own, what was trained on is never
        called ``test``.
        """
        if dataset is None:
            return self.splits(), str(self.path)
        dataset = self.fitting(dataset)
        try:
            own = self._own_splits(dataset)
        except UserError:  # what the recipe does to the run's data cannot be done to these: they are others
            own = None
        if own is not None:
            return own, dataset.name
        if dataset.splits is not None:
            return dataset.by_split(), dataset.name
        notes.append(f"all {len(dataset)} samples of {dataset.name} were taken: they have no splits")
        return {split: dataset}, dataset.name

    def pretrained_start(self, notes: list[str]) -> Model | None:
        """The model as training found it, where it began from pretrained weights that training changed."""
        section = dict(self.recipe["encoder"])
        saved = self.model.config["encoder"]
        if section.get("frozen") or not is_pretrained(saved["origin"]):
            return None
        name, config = section.pop("name"), self.model.config
        try:
            encoder = build_encoder(name, modality=saved["modality"], sample_shape=saved["sample_shape"], **section)
        except UserError as error:
            notes.append(f"the pretrained start was left out: {error}")
            return None
        model = Model.build(config["method"], config["hyperparameters"], config["classes"], encoder, config["inputs"])
        model.precision = self.model.precision
        return model.to(self.model.device)

    def fitting(self, dataset: Dataset) -> Dataset:
        """The data set as the model reads it, its classes under the run's names.

        Raises
        ------
        UserError
            Unless samples look like those it was trained on.
        """
        fitting = self.model.fitting(dataset, str(self.path))
        labels = spelled_as(fitting.labels, self.labels)
        return fitting if labels is fitting.labels else replace(fitting, labels=labels)


def get_split(splits: Mapping[str, Dataset], name: str, where: str, option: str | None = "--split") -> Dataset:
    """A split by name; a UserError says which there are, and the ``option`` that names one, if the verb has it."""
    if name not in splits:
        named = [part for part in splits if part]  # data without splits are under an empty name
        there = f"there is only '{named[0]}'" if len(named) == 1 else f"there are {', '.join(named)}"
        why = there if option is None else f"{there}; name one with {option}"
        if not named:
            why = f"the data have no splits; leave out {option}"
        raise UserError(f"{where} has no split '{name}': {why}", code="unknown_split")
    return splits[name]


class _Verb:
    """A verb as a method of runs: the function itself, looked up when it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: Run | None, owner: type[Run]) -> Any:
        function = verb_of_runs(self.name)
        return function if run is None else MethodType(function, run)


for _name in verbs_of_runs():
    setattr(Run, _name, _Verb(_name))
