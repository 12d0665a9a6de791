"""Discovered subclasses refined: a classifier of them is trained, then one of what it predicts, and so on."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import embed
from regrain.methods import method_class
from regrain.methods.clustering import smooth_within
from regrain.methods.george import GEORGE
from regrain.metrics import nearest_neighbours, neighbour_information
from regrain.runs.assemble import assemble
from regrain.runs.discovery import Discovery, fit_subclasses, write_discovery
from regrain.runs.run import Run
from regrain.runs.subclass_model import is_own_name
from regrain.runs.timing import announce_time
from regrain.runs.training import start_notices, train_run, writing
from regrain.spelling import command
from regrain.storage.files import read_json, write_text
from regrain.storage.run_folder import RunFolder
from regrain.training.device import resolve_device
from regrain.verbs.finished import finished_run

_FOLDER = "refined"
_KEPT = ("encoder_learning_rate", "layer_decay", "precision", "workers")
"""Settings of a run's training that its refinement keeps."""

_NEIGHBOURS = 5
_MOST_SAMPLES = 10_000
"""Samples that a round is judged by."""


@dataclass(frozen=True)
class Refinement:
    """Result of the rounds."""

    run: Run  # that of the round that is kept; the run itself where none is
    round: int  # the round that is kept, 0 for none
    scores: list[float]  # the criterion of every round, from round 0, in [0, 1]

    def describe(self) -> str:
        """In one sentence."""
        scores = ", ".join(f"{score:.3f}" for score in self.scores)
        by = f"by what the subclasses of {_NEIGHBOURS} neighbours say about a sample's own, in [0, 1]: {scores}"
        if not self.round:
            return f"refined: no round is above the start, which is kept, {by}"
        path = self.run.path
        use = f"`{command('predict', path, 'DATA', '--out', 'FILE')}`"
        return f"refined: round {self.round} is kept, {by}; {path} is the run to use, as in {use}"


def refine_run(
    run: Run, rounds: int, *, superclass: str | None, clustering: Mapping[str, Any], overwrite: bool, seed: int
) -> Refinement:
    """Train rounds in ``refined/round-N``, and keep the best; rounds that are finished there are taken as they are.

    The subclasses of ``run`` are settled first, as without any round. A round moves samples to the subclass that the
    others would give them (:func:`~regrain.methods.clustering.smooth_within`, in the embedding of ``run``), then trains
    a classifier of the subclasses from where the run started: its encoder, frozen or not, and stage 2 of
    :class:`~regrain.methods.george.GEORGE`, whose classifier starts at the means of the subclasses. The next round
    begins with what it predicts. Numbers and names of subclasses stay.

    A round is kept if the subclasses that it gives to samples it was not trained on (the split ``val``, else a tenth of
    the training samples) have more to do with those of their neighbours in the embedding of ``run`` than all before
    (:func:`regrain.metrics.neighbour_information`); the first for which that is not so ends the rounds. Labels are read
    at the superclasses' level, and those of known classes, whose samples stay together; no other label is.
    """
    if rounds < 1:
        raise UserError(f"--refine takes a number of rounds, at least 1; got {rounds}", code="out_of_range")
    splits = run.splits()
    found, fitted = fit_subclasses(
        run, splits, superclass=superclass, clustering=clustering, overwrite=overwrite, seed=seed
    )
    level, train = fitted.level, splits["train"]
    if level is None or level not in run.recipe["data"]["levels"]:
        raise UserError(
            f"{run.path} has no superclasses, and --refine trains on subclasses within them: --superclass names a level"
        )
    names = {s.number: s.name for s in found.subclasses if not is_own_name(s.number, s.name)}
    codes, owners = _of_training(found, train, level)
    folder = run.path / _FOLDER
    _begin(folder, {"subclasses": _digest(codes), "seed": seed}, overwrite)
    judge, vectors, labelled = _Judge(run, splits, seed), embed(run.model, train), fitted.kept(train)
    best = Refinement(run, 0, [judge.score(found, len(owners))])
    for number in range(1, rounds + 1):
        place = folder / f"round-{number}"
        codes = smooth_within(vectors, codes.masked_fill(judge.held_out, -1), owners, seed=seed)
        codes = torch.where(labelled >= 0, labelled, codes)
        last = _trained(run, place, train, level, codes, owners)
        found, fitted = fit_subclasses(last, splits, write=False)
        if not (place / "discovery").exists():
            found.rename(names)
            write_discovery(last.folder, found, fitted)
        scores = [*best.scores, judge.score(found, len(owners))]
        if scores[-1] <= max(best.scores):
            best = Refinement(best.run, best.round, scores)
            break
        best = Refinement(last, number, scores)
        codes, _ = _of_training(found, train, level)
    write_text(folder / "rounds.json", json.dumps({"kept": best.round, "scores": best.scores}, indent=1))
    return best


def read_refinement(run: Run, found: Discovery) -> Refinement | None:
    """Result of earlier rounds that started from a run's subclasses; None without any."""
    file, start = (run.path / _FOLDER / name for name in ("rounds.json", "start.json"))
    codes = torch.from_numpy(found.subclass[found.splits == "train"])
    if not file.exists() or read_json(start)["subclasses"] != _digest(codes):
        return None
    content = read_json(file)
    kept = int(content["kept"])
    place = run.path / _FOLDER / f"round-{kept}"
    return Refinement(Run(RunFolder(place), run.data, run.device) if kept else run, kept, content["scores"])


class _Judge:
    """Scores subclasses by samples that no round is trained on."""

    def __init__(self, run: Run, splits: Mapping[str, Dataset], seed: int) -> None:
        train = splits["train"]
        self.split = "val" if "val" in splits else "train"
        self.held_out = torch.zeros(len(train), dtype=torch.bool)
        if self.split == "train":
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
            self.held_out[order[: max(_NEIGHBOURS + 1, len(train) // 10)]] = True
            self.judged = self.held_out.nonzero()[:_MOST_SAMPLES, 0]
        else:
            self.judged = torch.arange(len(splits["val"]))[:_MOST_SAMPLES]
        vectors = embed(run.model, splits[self.split])[self.judged]
        self.nearest = nearest_neighbours(vectors, vectors, _NEIGHBOURS, exclude_self=True)[1]

    def score(self, found: Discovery, count: int) -> float:
        """Of the subclasses of all samples, numbered below ``count``."""
        codes = torch.from_numpy(found.subclass[found.splits == self.split])[self.judged]
        return neighbour_information(codes, self.nearest, max(count, 2))


def _of_training(found: Discovery, train: Dataset, level: str) -> tuple[Tensor, Tensor]:
    """The subclass (N,) of every training sample, and the superclass (r,) of every subclass, -1 without samples."""
    codes = torch.from_numpy(found.subclass[found.splits == "train"])
    places = {name: code for code, name in enumerate(train.labels.names(level))}
    owners = torch.full((int(codes.max()) + 1,), -1)
    present = set(codes.tolist())
    for subclass in found.subclasses:
        if subclass.number in present:
            owners[subclass.number] = places[str(subclass.superclass)]
    return codes, owners


def _digest(codes: Tensor) -> str:
    return hashlib.blake2b(codes.numpy().tobytes(), digest_size=16).hexdigest()


def _begin(folder: Path, start: Mapping[str, Any], overwrite: bool) -> None:
    """Record what the rounds start from; rounds that started from something else go only with ``overwrite``."""
    file = folder / "start.json"
    if file.exists() and read_json(file) != start:
        if not overwrite:
            raise UserError(
                f"{folder} was refined from other subclasses: repeat the options that settled those, or replace it "
                "with --overwrite",
                code="would_overwrite",
            )
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_text(file, json.dumps(start, indent=1))


def _trained(run: Run, place: Path, train: Dataset, level: str, codes: Tensor, owners: Tensor) -> Run:
    """The finished run of a classifier of clusters at a place, or one that is trained there."""

    def train_it() -> Run:
        places = math.ceil(len(owners) / len(train.labels.names(level)))
        assembly = assemble(_recipe(run, level, places), train.with_levels(run.recipe["data"]["levels"]))
        method = assembly.model.method
        assert isinstance(method, GEORGE)
        method.take_clusters(train.keys, codes, owners, embed(assembly.model, train))
        assembly.notices += announce_time(assembly, resolve_device(run.device))
        made = Run(RunFolder(place), run.data, run.device, start_notices(None, assembly))
        with writing(made.folder):
            made.folder.start(assembly.recipe, train.labels, overwrite=True)
            train_run(made, assembly, resume=False)
        return made

    return finished_run(place, train_it, run.data, run.device)


def _recipe(run: Run, level: str, places: int) -> dict[str, Any]:
    """Of a round: the run's data and encoder; ``places`` for subclasses of each superclass."""
    own = run.recipe
    encoder = dict(own["encoder"])
    method, training = method_class(own["method"]["name"]), own["training"]
    if encoder.get("frozen") and not method.trains_encoder:
        encoder.pop("adapter", None)  # features that were left as they are: here an adapter learns on them
    kept = [name for name in _KEPT if training.get(name) is not None]
    return {
        "data": own["data"] | {"roles": {"coarse": level}},
        "method": {"name": "george", "coarse_epochs": 0, "largest": places, "start_at_means": True},
        "encoder": encoder,
        "views": {name: value for name, value in own["views"].items() if name == "size"},
        "training": {name: training[name] for name in kept},
        "seed": own["seed"],
    }
