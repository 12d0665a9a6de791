"""A run folder and the model in it: what every task starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.data.table import Table
from regrain.encoders import build_encoder, is_pretrained
from regrain.errors import UserError
from regrain.evaluation import apply_model, embed
from regrain.labels import Labels
from regrain.tasks.answers import Answers
from regrain.tasks.classifier import FewShotClassifier
from regrain.training.loop import Device, resolve_device
from regrain.training.model import Model, load_model
from regrain.training.source import SAMPLE_OPTIONS, own_parts, read_data, table_of
from regrain.training.store import RunFolder

__all__ = ["Run", "part_named"]


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

    @classmethod
    def open(cls, path: str | Path, *, device: Device = "auto") -> Run:
        """A run on disk; a UserError where there is none."""
        return cls(RunFolder.open(path), device=device)

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
        model, labels = load_model(self.folder.model_folder)
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
        return FewShotClassifier.load(self.folder.model_folder)

    @cached_property
    def answers(self) -> Answers | None:
        """What :func:`calibrate` settled; None for a run that was not calibrated, or was adapted since."""
        return None if self.classifier is not None else Answers.load(self.folder.model_folder)

    def parts(self) -> dict[str, Dataset]:
        """The splits of the data it was made from."""
        settings = self.recipe["data"]
        data = self.data
        if data is None:
            if settings.get("source") is None:
                raise UserError(f"{self.path} was trained on data in memory: give the data to evaluate or embed")
            data = self.data = read_data(settings["source"], settings["levels"], settings["reader"])
        parts = self._own_parts(data)
        if parts is None:
            raise UserError(
                f"the training data of {self.path} are not those it was started on (their fingerprint differs), "
                "so what it was trained on and what was held out cannot be told apart: bring the old data back, "
                "give the data to judge as --data with a split of their own, or train again with `regrain fit "
                "... --overwrite`"
            )
        return parts

    def _own_parts(self, data: Dataset) -> dict[str, Dataset] | None:
        """The splits of ``data`` when its training samples are those of this run, else None."""
        settings = self.recipe["data"]
        if data.splits is not None and "train" not in data.parts:
            return None
        parts = own_parts(data, settings)
        return parts if parts["train"].fingerprint() == settings["fingerprint"] else None

    def embed(self, data: Dataset | None = None, *, split: str | None = None) -> Tensor:
        """Embeddings (N, width) of data (default: the run's own ``test``), or of a split; float32 on the CPU."""
        if data is None:
            data = part_named(self.parts(), split or "test", str(self.path))
        elif split is not None:
            data = data.part(split)
        return embed(self.model, self.fitting(data))

    def predict_proba(self, data: Dataset, role: str) -> Tensor:
        """Class probabilities (N, classes) at the level of a role; a UserError where the method does not classify."""
        return apply_model(self.model, self.fitting(data), lambda x: self.model.method.predict_proba(x, role))

    def judged_parts(self, dataset: Dataset, split: str, notes: list[str]) -> dict[str, Dataset]:
        """The splits of given data; where they are the run's own data, what was trained on is never called ``test``."""
        dataset = self.fitting(dataset)
        try:
            own = self._own_parts(dataset)
        except UserError:  # what the recipe does to the run's data cannot be done to these: they are others
            own = None
        if own is not None:
            return own
        if dataset.splits is not None:
            return {name: dataset.part(name) for name in dataset.parts}
        notes.append(f"all {len(dataset)} samples of {dataset.name} were taken: they have no splits")
        return {split: dataset}

    def reading_of(self, data: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of the reader for other data: those given, and what makes samples as the run's own are.

        A table with the columns of the run's own samples is read as those were. Images are stored as the run's are,
        alone or in company.

        Raises
        ------
        UserError
            For options that would store them otherwise.
        """
        if isinstance(data, Dataset):
            return dict(options)
        return self._stored_so(options) | self._columns_of(table_of(data)) | dict(options)

    def _stored_so(self, options: Mapping[str, Any]) -> dict[str, Any]:
        form = self.model.storage
        if form is None:
            return {}
        channels, height, width = form.shape
        for name, own in (("image_size", (height, width)), ("channels", channels), ("white", form.white)):
            given = options.get(name)
            if given is not None and own not in (given, (given, given)):
                raise UserError(
                    f"{self.path} stores images at {width} x {height} pixels with {channels} channels, 16 bits "
                    f"with {form.white} as white, and new ones alike: leave out {name} (--{name.replace('_', '-')})"
                )
        return {"image_size": (height, width), "channels": channels, "white": form.white}

    def _columns_of(self, table: Table | None) -> dict[str, Any]:
        if table is None:
            return {}
        recorded = self.recipe["data"]["reader"]
        options = {name: recorded[name] for name in SAMPLE_OPTIONS if recorded.get(name) is not None}
        columns = self.model.config["inputs"].get("columns")
        if not options and columns:
            options = {"columns": columns}
        named = [value for name in ("text", "image", "record", "time") if (value := options.get(name)) is not None]
        named += options.get("columns") or []
        return options if named and all(table.covers(name) for name in named) else {}

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
        """The data set as the model reads it; a UserError unless samples look like those it was trained on."""
        return self.model.fitting(dataset, str(self.path))


def part_named(parts: Mapping[str, Dataset], name: str, where: str) -> Dataset:
    """A split by name; a UserError says which there are."""
    if name not in parts:
        raise UserError(f"{where} has no split '{name}': there are {', '.join(parts)}")
    return parts[name]
