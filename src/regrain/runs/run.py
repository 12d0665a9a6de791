"""A run folder and the model in it: what every task starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from regrain.data.cells import spelled_as
from regrain.data.dataset import Dataset
from regrain.encoders import build_encoder, is_pretrained
from regrain.errors import MissingDataError, UserError, speaks_python, warn_of_data
from regrain.evaluation import embed
from regrain.labels import Labels
from regrain.model import Model, load_model
from regrain.registry import catalogue_of
from regrain.runs.answers import Answers
from regrain.runs.classifier import FewShotClassifier, level_proba
from regrain.runs.source import (
    inherited_options,
    read_alike,
    read_data,
    require_no_reading,
    split_dataset,
    table_of,
)
from regrain.storage.run_folder import RunFolder
from regrain.training.loop import Device, resolve_device
from regrain.training.randomness import callers_random_state


@dataclass
class Run:
    """A run folder, and the model in it.

    Parameters
    ----------
    folder : RunFolder
    data : Dataset, optional
        The data it was made from, where they are at hand; otherwise they are read again from the recipe.
    device : {"auto", "cpu", "cuda"}
    notices : list of str
        What was chosen for the user at the start.
    """

    folder: RunFolder
    data: Dataset | None = None
    device: Device = "auto"
    notices: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        try:
            state = self.folder.read_json("state.json", missing={})
        except UserError:
            return f"<Run {self.path}>"
        epochs = state.get("epoch", 0)
        about = f"{epochs} epoch{'' if epochs == 1 else 's'}{'' if state.get('finished') else ', not finished'}"
        adapted = "adapted, " if (self.folder.model_folder / "classifier.json").exists() else ""
        try:
            method = self.recipe["method"]["name"]
        except (UserError, KeyError):
            return f"<Run {self.path}>"
        source = self.recipe["data"].get("source")
        on = self.data.name if self.data is not None else "data in memory" if source is None else Path(source).name
        return f"<Run {method} on {on}, {adapted}{about}, {self.path}>"

    @classmethod
    @speaks_python
    def open(cls, path: str | Path, *, device: Device = "auto", verify: bool | None = None) -> Run:
        """A run on disk; a UserError where there is none.

        Parameters
        ----------
        path : path
        device : {"auto", "cpu", "cuda"}
        verify : bool, optional
            False reads its files without comparing their checksums, which takes about a second a gigabyte; default
            true.
        """
        return cls(RunFolder.open(path, verify=verify), device=device)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder.path

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """Everything the run was made of."""
        return self.folder.read_recipe()

    @cached_property
    def _loaded(self) -> tuple[Model, Labels]:
        if not (self.folder.model_folder / "config.json").exists():
            raise UserError(f"{self.path} is not finished: go on with `regrain resume {self.path}`")
        model, labels = load_model(self.folder.model_folder, verify=self.folder.verify)
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
        """What :func:`adapt` made of a few labelled samples; None for a run that was not adapted."""
        return FewShotClassifier.load(self.folder.model)

    @cached_property
    def answers(self) -> Answers | None:
        """What :func:`calibrate` settled; None for a run that was not calibrated, or was adapted since."""
        return None if self.classifier is not None else Answers.load(self.folder.model, self.labels)

    def splits(self) -> dict[str, Dataset]:
        """The splits of the data it was made from."""
        settings = self.recipe["data"]
        data = self.data
        if data is None:
            if settings.get("source") is None:
                raise UserError(f"{self.path} was trained on data in memory: give the data to evaluate or embed")
            data = self.data = self._read_recorded(settings)
        parts = self._own_splits(data)
        if parts is None:
            raise UserError(
                f"the training data of {self.path} are not those it was started on (their fingerprint differs), "
                "so what it was trained on and what was held out cannot be told apart: bring the old data back, "
                "give the data to judge as --data with a split of their own, or train again with `regrain fit "
                "... --overwrite`"
            )
        return parts

    def _read_recorded(self, settings: Mapping[str, Any]) -> Dataset:
        """The run's data from where they were."""
        source = settings["source"]
        if not catalogue_of(source) and not Path(source).exists():
            raise MissingDataError(
                f"the data of {self.path} are no longer at {source}: say where they are now, with --data"
            )
        try:
            return read_data(source, settings["levels"], settings["reader"])
        except MissingDataError as error:
            advice = f"say where they are now, with --data {source} --root FOLDER"
            raise MissingDataError(f"the data of {self.path} are gone: {error}; {advice}") from None

    def take_data(self, data: Any, **reader_options: Any) -> None:
        """Say where the run's own data are now; ``reader_options`` win over those that they were read with.

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
            gone = not Path(source).exists()
        if data is None or self.data is not None or not gone:
            return False
        try:
            self.take_data(data, **reader_options)
        except UserError:  # others, that are read by what the verb says of them
            self.data = None
            return False
        return True

    def _own_splits(self, data: Dataset) -> dict[str, Dataset] | None:
        """The splits of ``data`` when its training samples are those of this run, else None."""
        settings = self.recipe["data"]
        if data.splits is not None and "train" not in data.split_names:
            return None
        parts = split_dataset(data, settings)
        return parts if parts["train"].fingerprint() == settings["fingerprint"] else None

    @speaks_python
    @callers_random_state()
    def embed(self, data: Any = None, *, split: str | None = None, **reader_options: Any) -> Tensor:
        """Embeddings (N, width), float32 on the CPU, of data or of the run's own.

        Parameters
        ----------
        data : optional
            Whatever :func:`regrain.load` reads, read as the run's own data were; default: those.
        split : str, optional
            Default ``test`` of the run's own data, and all of others.
        **reader_options
            See :func:`regrain.load`.

        Raises
        ------
        UserError
            If the samples are unlike those that the run was trained on, or there is no such split.
        """
        if data is None:
            require_no_reading(reader_options)
            data = get_split(self.splits(), split or "test", str(self.path))
        else:
            data = self.read(data, labels="none", **reader_options)
            data = data if split is None else data.split(split)
        return embed(self.model, self.fitting(data))

    @speaks_python
    @callers_random_state()
    def predict_proba(self, data: Any, level: str, **reader_options: Any) -> Tensor:
        """Class probabilities (N, classes) at a label level.

        Classes are in the order of ``labels.names(level)``, those of an adapted run's support in that of
        ``classifier.classes``.

        Parameters
        ----------
        data
            Whatever :func:`regrain.load` reads, read as the run's own data were.
        level : str
            The name of a level that the run was trained on, or adapted to.
        **reader_options
            See :func:`regrain.load`.

        Raises
        ------
        UserError
            If the method does not predict that level, or the samples are unlike those that the run was trained on.
        """
        data = self.fitting(self.read(data, labels="none", **reader_options))
        return level_proba(self.model, self.labels, data, level, self.classifier)

    def read(
        self,
        data: Any,
        *,
        levels: Sequence[str] | None = None,
        labels: Literal["any", "some", "own", "none"] = "any",
        **options: Any,
    ) -> Dataset:
        """Other data, read as the run's own were: see :func:`regrain.runs.source.read_alike`."""
        recorded = self.recipe["data"]
        dataset = read_alike(
            data,
            self.model,
            recorded["reader"],
            recorded["levels"],
            levels=levels,
            labels=labels,
            options=options,
        )
        warn_of_data(dataset.name, dataset.notes.get("messages", ()))
        return dataset

    def inherited_options(self, data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the reader for other data: those given, and those of the run's own data that hold for others."""
        return inherited_options(data, table_of(data), self.model, self.recipe["data"]["reader"], options)

    def splits_of(self, dataset: Dataset, split: str, notes: list[str]) -> dict[str, Dataset]:
        """The splits of given data; where they are the run's own data, what was trained on is never called ``test``."""
        dataset = self.fitting(dataset)
        try:
            own = self._own_splits(dataset)
        except UserError:  # what the recipe does to the run's data cannot be done to these: they are others
            own = None
        if own is not None:
            return own
        if dataset.splits is not None:
            return {name: dataset.split(name) for name in dataset.split_names}
        notes.append(f"all {len(dataset)} samples of {dataset.name} were taken: they have no splits")
        return {split: dataset}

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


def get_split(parts: Mapping[str, Dataset], name: str, where: str) -> Dataset:
    """A split by name; a UserError says which there are."""
    if name not in parts:
        raise UserError(f"{where} has no split '{name}': there are {', '.join(parts)}", code="unknown_split")
    return parts[name]
