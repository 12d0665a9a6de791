"""Subclasses of a run as a model: which subclass any sample has, and the files that keep this.

A run's ``discovery/`` folder holds ``discovery.json`` (the subclasses, and their names once given) and, where the
method has no subclasses of its own, ``centres.safetensors``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from typing_extensions import TypedDict

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import apply_model, embed
from regrain.methods.clustering import CLUSTER_VARIANCE
from regrain.model import Model
from regrain.runs.run import Run
from regrain.storage.files import Folder, json_writer, read_json, save_tensors

BLOCK = 65536

_SUBCLASSES, _CENTRES = "discovery/discovery.json", "discovery/centres.safetensors"


class _SubclassForm(TypedDict):
    number: int
    name: str
    known: NotRequired[str | None]


class _DiscoveryForm(TypedDict):
    superclass_level: str | None
    known_level: NotRequired[str | None]
    superclasses: list[str]
    subclasses: list[_SubclassForm]


@dataclass(frozen=True)
class SubclassModel:
    """Model that assigns a subclass to any sample."""

    level: str | None
    """The level of the superclasses; without one, k-means sees a single superclass."""
    superclasses: tuple[str, ...]
    """Their names, by the run's codes."""
    centres: Tensor | None = None
    """(r, d) or None: unit vectors; None where the method has subclasses of its own, or before any are fitted."""
    owners: Tensor | None = None
    """LongTensor (r,) or None: the superclass each centre lies in."""
    offsets: Tensor | None = None
    """(r,) or None: added to cosines; see :class:`~regrain.methods.clustering.Subclusters`."""
    names: dict[int, str] = field(default_factory=dict)
    """Names of subclasses so far."""
    known_level: str | None = None
    """The level whose labelled classes are subclasses."""
    known: dict[int, str] = field(default_factory=dict)
    """Subclass -> the class of that level that it is."""

    def codes(self, dataset: Dataset) -> Tensor:
        """(N,): the superclasses of a data set by the run's codes, -1 where there is none of that name."""
        if self.level is None:
            return torch.zeros(len(dataset), dtype=torch.long)
        return dataset.labels.renumbered(self.level, {name: code for code, name in enumerate(self.superclasses)})

    def kept(self, dataset: Dataset) -> Tensor:
        """(N,): the subclass of every sample that is labelled as a known class, -1 for the others."""
        return dataset.labels.renumbered(self.known_level, {name: number for number, name in self.known.items()})

    def unknown_superclasses(self, dataset: Dataset) -> set[str]:
        """Names of superclasses that samples of a data set have and the run does not know."""
        if self.level is None or self.level not in dataset.labels.levels:
            return set()
        names = dataset.labels.names(self.level)
        return {names[code] for code in dataset.labels.present(self.level)} - set(self.superclasses)

    def reduced(
        self,
        model: Model,
        dataset: Dataset,
        coarse: Tensor,
        function: Callable[[Tensor], Tensor],
        vectors: Tensor | None = None,
    ) -> Tensor:
        """``function`` of the subclasses' probabilities (b, r), block by block, given superclasses (N,), -1 unknown.

        ``vectors`` (N, d) are the unit embeddings of the data set, where they are at hand.
        """
        if self.centres is None or self.owners is None or self.offsets is None:
            return apply_model(
                model, dataset, lambda x, own: function(model.method.subclass_proba(x, own)), beside=coarse
            )
        if vectors is None:
            vectors = functional.normalize(embed(model, dataset), dim=1)
        if vectors.shape[1] != self.centres.shape[1]:
            raise UserError(
                f"the subclasses were settled on embeddings of width {self.centres.shape[1]}, and the run's have width "
                f"{vectors.shape[1]}: settle them again by `regrain discover ... --overwrite`"
            )
        found = []
        for block, given in zip(vectors.split(BLOCK), coarse.split(BLOCK), strict=True):
            scores = (block @ self.centres.T + self.offsets) / CLUSTER_VARIANCE
            elsewhere = torch.isin(given, self.owners)[:, None] & (self.owners != given[:, None])
            found.append(function(scores.masked_fill(elsewhere, -torch.inf).softmax(dim=1)))
        return torch.cat(found)

    def predict(
        self,
        model: Model,
        dataset: Dataset,
        coarse: Tensor,
        function: Callable[[Tensor], Tensor],
        vectors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``function`` as for :meth:`reduced`, a factor (N,) of the probabilities, and superclasses (N,).

        An unknown superclass, -1 in ``coarse`` (N,), is what the method predicts; the subclasses then lie in that, and
        their probabilities times the factor add up to its own. -1 where the method predicts none.
        """
        one = torch.ones(len(coarse))
        if not bool((coarse < 0).any()):
            return self.reduced(model, dataset, coarse, function, vectors), one, coarse
        try:
            upper, best = apply_model(
                model, dataset, lambda x: most_probable(model.method.predict_proba(x, "coarse"))
            ).T
        except UserError:
            found = self.reduced(model, dataset, coarse, function, vectors)
            if self.owners is not None:
                codes = self.reduced(model, dataset, coarse, most_probable, vectors)[:, 1].long()
                coarse = torch.where(coarse < 0, self.owners[codes], coarse)
            return found, one, coarse
        inside = torch.where(coarse < 0, best.long(), coarse)
        return self.reduced(model, dataset, inside, function, vectors), torch.where(coarse < 0, upper, one), inside

    def assigned(
        self, model: Model, dataset: Dataset, coarse: Tensor, vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The probability (N,) of the most probable subclass, that subclass (N,), and the superclass (N,)."""
        found, factor, coarse = self.predict(model, dataset, coarse, most_probable, vectors)
        return found[:, 0] * factor, found[:, 1].long(), coarse

    def names_of(self, model: Model, dataset: Dataset) -> tuple[list[str], np.ndarray]:
        """The name of the most probable subclass of every sample; probabilities (N,) of one name are added up."""
        names: list[str] = []

        def of_names(probabilities: Tensor) -> Tensor:
            named = [self.names.get(number, own_name(number, None)) for number in range(probabilities.shape[1])]
            names[:] = dict.fromkeys(named)
            place = torch.tensor([names.index(name) for name in named], device=probabilities.device)
            together = probabilities.new_zeros(len(probabilities), len(names))
            return most_probable(together.index_add_(1, place, probabilities))

        found, factor, _ = self.predict(model, dataset, torch.full((len(dataset),), -1), of_names)
        return [names[code] for code in found[:, 1].long().tolist()], (found[:, 0] * factor).numpy()


def most_probable(probabilities: Tensor) -> Tensor:
    """The largest of each row of probabilities (B, r), and its place: (B, 2) float32, exact below 2^24 places."""
    value, place = probabilities.float().max(dim=1)
    return torch.stack([value, place.float()], dim=1)


def own_name(number: int, superclass: str | None) -> str:
    """Return the name of a subclass that the user has not named."""
    return f"{superclass}/{number}" if superclass else f"subclass {number}"


def is_own_name(number: int, name: str) -> bool:
    """Whether a subclass's name is the one that it is found under: nobody has named it."""
    return name == own_name(number, name.removesuffix(f"/{number}")) or name == own_name(number, None)


def read_names(file: str | Path, known: Sequence[int]) -> dict[int, str]:
    """Names of subclasses from a JSON mapping of number to name; one name may be given to several.

    Raises
    ------
    UserError
        If the file is not such a mapping, or names a subclass that does not exist.
    """
    path = Path(file)
    if not path.exists():
        raise UserError(f"no such file of names: {path}", code="missing_file")
    example = 'a mapping of subclass numbers to names was expected, such as {"3": "wine glass"}'
    try:
        content = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {example}", code=error.code) from None
    if not all(isinstance(v, str) and v.strip() for v in content.values()):
        raise UserError(f"{path}: {example}")
    names = {}
    for key, name in content.items():
        if not re.fullmatch(r"\d+", key.strip(), re.ASCII) or int(key) not in known:
            raise UserError(
                f"{path} names subclass '{key}', and there is none of that number: the {len(known)} subclasses are "
                f"{', '.join(map(str, sorted(known)[:8]))}{', ...' if len(known) > 8 else ''}"
            )
        names[int(key)] = name.strip()
    return names


def write_subclasses(folder: Folder, fitted: SubclassModel) -> None:
    """Write what tells the subclasses of new samples, and nothing that was said of the run's own."""
    rows = [{"number": n, "name": name, "known": fitted.known.get(n)} for n, name in fitted.names.items()]
    write_subclass_files(folder, fitted, {"subclasses": rows})


def write_subclass_files(folder: Folder, fitted: SubclassModel, extra: Mapping[str, Any]) -> None:
    """Write ``discovery/``: what tells the subclasses of new samples, and ``extra`` of the run's own."""
    levels = {"superclass_level": fitted.level, "known_level": fitted.known_level}
    content = {**levels, "superclasses": list(fitted.superclasses), **extra}
    writers = {_SUBCLASSES: json_writer(content)}
    if fitted.centres is not None:
        tensors = {name: getattr(fitted, name) for name in ("centres", "owners", "offsets")}
        writers[_CENTRES] = lambda file: save_tensors(file, tensors)
    folder.write(writers)


def read_discovery(run: Run) -> SubclassModel | None:
    """The subclasses that ``discover`` settled in a run; None without any: see :func:`read_subclasses`."""
    return read_subclasses(run.folder, run.model) if (run.path / _SUBCLASSES).exists() else None


def read_subclasses(folder: Folder, model: Model) -> SubclassModel | None:
    """The subclasses that a folder holds for a model; None without any.

    Raises
    ------
    UserError
        If one of its files is missing or damaged, or does not fit the model.
    """
    if not (folder.path / _SUBCLASSES).exists():
        return None
    content = folder.read_json(_SUBCLASSES, _DiscoveryForm)
    level, superclasses = content["superclass_level"], tuple(content["superclasses"])
    names = {s["number"]: s["name"] for s in content["subclasses"]}
    known_level = content.get("known_level")
    known = {s["number"]: s["known"] for s in content["subclasses"] if s.get("known") is not None}
    if model.method.has_subclasses:
        return SubclassModel(level, superclasses, names=names)
    tensors = folder.read_tensors(_CENTRES, {"centres": (None, None), "owners": (None,), "offsets": (None,)})
    counts = {len(tensor) for tensor in tensors.values()}
    owners = tensors["owners"]
    possible = range(max(len(superclasses), 1))
    if len(counts) > 1 or owners.dtype != torch.long or not set(owners.tolist()) <= set(possible):
        raise UserError(
            f"{folder.path / _CENTRES} does not fit {folder.path / _SUBCLASSES}: settle the subclasses again "
            "by `regrain discover ... --overwrite`",
            code="damaged_file",
        )
    return SubclassModel(level, superclasses, **tensors, names=names, known_level=known_level, known=known)
