"""Move a subclass's training labels to another superclass and follow its predictions (SCLRE, supplement E, table 5).

A method that learns superclasses follows the new label as far as the samples allow. Self-supervised pretraining has
no direction: its features serve any label of the subclass equally well.

An experiment's folder holds ``plan.json`` (the request), a run folder for each seed and labelling (``s0-given`` and
``s0-moved``; only ``s0`` for methods that read no labels) and ``isotropy.json`` (the results).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.checks import Count
from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest
from regrain.evaluation import Representation, Score, Task
from regrain.evaluation.probe import Probed, logistic_layer
from regrain.methods import method_class
from regrain.metrics import accuracy
from regrain.runs.assemble import assemble
from regrain.runs.run import Run, get_split
from regrain.runs.source import split_dataset
from regrain.runs.verb import verb
from regrain.storage.files import Folder
from regrain.storage.plans import begin_plan
from regrain.training.device import Device
from regrain.verbs.finished import finished_run
from regrain.verbs.fit import fit, plan_fit


@dataclass(frozen=True)
class Move:
    """A subclass, its superclass, and the superclass that its training labels move to.

    Attributes
    ----------
    level, subclass : str
    superclass_level, origin, target : str
    """

    level: str
    subclass: str
    superclass_level: str
    origin: str
    target: str

    @classmethod
    def of(cls, train: Dataset, test: Dataset, levels: Sequence[str], subclass: str, target: str) -> Move:
        """Make a move that the data allow.

        Parameters
        ----------
        train, test : Dataset
            Parts of one data set.
        levels : sequence of str
            Levels in use, coarse to fine: superclasses are classes of the first, the subclass is a class of the last.
        subclass, target : str

        Raises
        ------
        UserError
            If there are fewer than two levels, no class of that name, the subclass already belongs to the target or
            is the only one of its superclass, or either part has no samples for the comparison.
        """
        if len(levels) < 2:
            raise UserError(
                "isotropy moves a class of the finest level to a class of the coarsest, and "
                f"{'one level' if levels else 'no label'} is in use: name two levels with --level"
            )
        coarse, fine = levels[0], levels[-1]
        for level, name, option in ((fine, subclass, "--subclass"), (coarse, target, "--to")):
            names = train.labels.names(level)
            if name not in names:
                raise UserError(f"{option}: level '{level}' has no class '{name}': {nearest(name, names)}")
        members, superclasses = _members(train, fine, subclass), train.labels.level(coarse)
        own = superclasses[members & (superclasses >= 0)].unique().tolist()
        if not own:
            raise UserError(f"no training sample of '{subclass}' has a label of level '{coarse}': nothing to move")
        names = train.labels.names(coarse)
        if len(own) > 1:
            raise UserError(
                f"'{subclass}' lies under {' and '.join(names[code] for code in own)}: isotropy moves a class with one "
                "superclass"
            )
        origin = names[own[0]]
        if origin == target:
            raise UserError(f"'{subclass}' lies under '{target}' already: name another superclass with --to")
        if not bool((~members & (superclasses == own[0])).any()):
            raise UserError(
                f"'{subclass}' is all that '{origin}' has in training, and moved away would leave none: name a "
                "subclass that shares its superclass with others"
            )
        judged = _members(test, fine, subclass)
        if not bool(judged.any()):
            raise UserError(f"no test sample is of '{subclass}': nothing to see where they go")
        if not bool((~judged & (test.labels.level(coarse) >= 0)).any()):
            raise UserError(f"no test sample but those of '{subclass}' has a label of level '{coarse}'")
        return cls(fine, subclass, coarse, origin, target)

    def members(self, dataset: Dataset) -> Tensor:
        """Mark the samples of the subclass: BoolTensor (N,)."""
        return _members(dataset, self.level, self.subclass)

    def apply(self, train: Dataset) -> Dataset:
        """Training samples with the moved labels, at the superclass level only.

        The other levels are dropped: with the moved labels, some classes would have two parents, and none of the
        compared methods reads these levels.
        """
        seen = train.with_levels([self.superclass_level])
        codes = seen.labels.codes.clone()
        target = seen.labels.names(self.superclass_level).index(self.target)
        codes[self.members(train) & (codes[:, 0] >= 0), 0] = target
        return replace(seen, labels=replace(seen.labels, codes=codes))


def _members(dataset: Dataset, level: str, name: str) -> Tensor:
    return dataset.labels.level(level) == dataset.labels.names(level).index(name)


@dataclass(frozen=True)
class Fate:
    """Predicted superclasses of the subclass's test samples, as shares, and the accuracy on all other test samples.

    Attributes
    ----------
    own, new, others : float
        Shares predicted as the original superclass, as the target, and as any other.
    accuracy : float
    """

    own: float
    new: float
    others: float
    accuracy: float


def fate_of(run: Run, train: Dataset, test: Dataset, move: Move) -> Fate:
    """Count a run's predictions for the test samples.

    Predictions come from the method's own classifier, else from logistic regression on the training embeddings
    (:mod:`regrain.evaluation.probe`).

    Parameters
    ----------
    run : Run
    train : Dataset
        Has the superclass labels that the run was trained on; for a method without labels, the labels to predict from.
    test : Dataset
        Has its true labels.
    move : Move
    """
    names = test.labels.names(move.superclass_level)
    truth, judged = test.labels.level(move.superclass_level), move.members(test)
    if run.model.method.has_classifier:
        predicted = run.predict_proba(test, move.superclass_level).argmax(dim=1)
    else:
        task = Task(move.superclass_level, names, truth, train.labels.level(move.superclass_level))
        embedded = Representation("model", run.embed(test), run.embed(train))
        probed = Probed.of(embedded, task, "isotropy")
        predicted = probed.classes[logistic_layer(probed)(probed.scale(embedded.test)).argmax(dim=1)]
    ends = [names.index(move.origin), names.index(move.target)]
    counts = torch.bincount(predicted[judged], minlength=len(names)).double()
    own, new = counts[ends].tolist()
    total = float(counts.sum())
    own, new, others = (count / total for count in (own, new, total - own - new))
    return Fate(own, new, others, accuracy(truth[~judged], predicted[~judged]))


@dataclass(frozen=True)
class Isotropy:
    """Results of an experiment.

    Attributes
    ----------
    path : Path
    method : str
    judged_by : str
        Source of the counted predictions.
    move : Move
    samples, others : int
        Test samples of the subclass, and all others with a superclass.
    seeds : tuple of int
    given, moved : tuple of Fate
        For each seed, with the original and with the moved labels.
    """

    path: Path
    method: str
    judged_by: str
    move: Move
    samples: int
    others: int
    seeds: tuple[int, ...]
    given: tuple[Fate, ...]
    moved: tuple[Fate, ...]

    def figures(self) -> dict[str, dict[str, Score]]:
        """Mean and 95% interval over seeds, by ``given`` or ``moved`` and by the names of :class:`Fate`."""
        return {
            labelling: {f.name: Score.mean([getattr(fate, f.name) for fate in fates], "seeds") for f in fields(Fate)}
            for labelling, fates in (("given", self.given), ("moved", self.moved))
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``isotropy.json``."""
        plain = {k: v for k, v in vars(self).items() if k not in ("path", "move", "seeds", "given", "moved")}
        figures = {
            labelling: {
                name: {"mean": score.value, "low": score.low, "high": score.high} for name, score in scores.items()
            }
            for labelling, scores in self.figures().items()
        }
        by_seed = [
            {"seed": seed, "given": asdict(given), "moved": asdict(moved)}
            for seed, given, moved in zip(self.seeds, self.given, self.moved, strict=True)
        ]
        return {**plain, **asdict(self.move), **figures, "by_seed": by_seed}


@verb
def isotropy(
    method: str,
    data: Any,
    *,
    subclass: str,
    to: str,
    out: str | Path,
    seeds: Count = 1,
    device: Device = "auto",
    on_run: Callable[[Run], None] | None = None,
    **options: Any,
) -> Isotropy:
    """Move the training labels of a subclass to another superclass, and see where its test samples go.

    The experiment of SCLRE's table 5: the training labels of one class of the finest level are moved to another class
    of the coarsest, everything else stays the same. A method that reads no labels is trained once and judged with both
    labellings. The same call continues where an earlier one stopped, and may ask for more seeds.

    Parameters
    ----------
    method, data
        As in :func:`fit`; a method that reads superclass labels, or none.
    subclass : str
        A class of the finest level (the last one in use).
    to : str
        The superclass (of the first level in use) that its training labels move to.
    out : path
        The folder; repeat the command to continue in it. See :mod:`regrain.papers.swapping`.
    seeds : int
        Trainings with each labelling, with seeds from ``seed`` upwards.
    on_run : callable, optional
        Called with each finished run.
    device
        As in :func:`fit`.
    **options
        Of :func:`fit`: levels, encoder, pretrained, frozen, recipe, settings, seed, holdout, what corrupts the training
        split, and the reader's.

    Raises
    ------
    UserError
        If the method reads finer labels, the data have no such classes, the subclass already belongs to the superclass,
        there is nothing to compare, or ``out`` holds another experiment.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> asked = {"encoder": "conv4", "settings": ["epochs=1"], "limit_per_class": 20, "out": folder.name}
    >>> found = isotropy("sup-ce", "digits", subclass="8", to="straight", **asked)
    >>> found.move.origin, found.samples, sorted(found.figures()["moved"])
    ('loop', 43, ['accuracy', 'new', 'others', 'own'])
    >>> folder.cleanup()
    """
    chosen = method_class(method)
    if chosen.needs.levels not in ((), ("coarse",)):
        raise UserError(
            f"{chosen.name} reads labels of finer levels, and isotropy moves superclass labels alone: choose a method "
            "that reads those, such as sup-ce or maskcon, or none, such as simclr"
        )
    plan = plan_fit(method, data, **options)
    train, in_use = plan.training, plan.recipe["data"]["levels"]
    if plan.recipe["data"]["roles"]:
        raise UserError(
            "isotropy moves a class of the last level to another of the first: choose these by --level, without "
            "--coarse and --fine",
            code="conflicting_options",
        )
    test = get_split(split_dataset(plan.dataset, plan.recipe), "test", plan.dataset.name, option=None)
    move = Move.of(train, test, in_use, subclass, to)
    labelled = {"given": train.with_levels([move.superclass_level]), "moved": move.apply(train)}
    assemble(plan.recipe, labelled["moved"])  # raise errors before any training
    shared = {section: values for section, values in plan.recipe.items() if section not in ("data", "seed")}
    place, first = Path(out), plan.recipe.get("seed", 0)
    circumstances = {"recipe": shared, "data": plan.recipe["data"], "labels": train.labels.fingerprint()}
    begin_plan(place, {"plan": asdict(move), "circumstances": circumstances}, "experiment")
    again: dict[str, Any] = {"recipe": shared, "holdout": 0, "device": device, "overwrite": True}
    fates: dict[str, list[Fate]] = {name: [] for name in labelled}
    for number in range(first, first + seeds):
        for name, training in labelled.items():
            folder = place / (f"s{number}-{name}" if chosen.needs.levels else f"s{number}")
            train_it = partial(fit, chosen.name, training, out=folder, seed=number, **again)
            run = finished_run(folder, train_it, training, device, on_run)
            fates[name].append(fate_of(run, training, test, move))
    members = move.members(test)
    result = Isotropy(
        place,
        chosen.name,
        "own classifier" if run.model.method.has_classifier else "logistic regression on the training embeddings",
        move,
        int(members.sum()),
        int((test.labels.level(move.superclass_level)[~members] >= 0).sum()),
        tuple(range(first, first + seeds)),
        tuple(fates["given"]),
        tuple(fates["moved"]),
    )
    Folder(place).write_json("isotropy.json", result.to_json())
    return result
