"""``auto``: from data to the run to use, and a verdict in plain words."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.checks import Seed
from regrain.data.checking import MANY_COPIES
from regrain.data.corruption import subsample
from regrain.data.dataset import Dataset
from regrain.encoders import RAW_INPUT, is_pretrained
from regrain.errors import UserError
from regrain.evaluation import Evaluation, embed
from regrain.labels import Labels
from regrain.metrics import nearest_neighbours
from regrain.metrics.logistic import probe_probabilities
from regrain.report import report
from regrain.runs.assemble import assemble
from regrain.runs.discovery import Discovery
from regrain.runs.run import Run
from regrain.runs.timing import training_seconds
from regrain.runs.verb import verb
from regrain.spelling import command, counted
from regrain.storage.files import read_json, write_text
from regrain.storage.plans import begin_plan
from regrain.storage.run_folder import RunFolder
from regrain.training.device import Device, resolve_device
from regrain.verbs.discover import discover
from regrain.verbs.evaluate import evaluate
from regrain.verbs.finished import finished_run
from regrain.verbs.fit import fit, plan_fit

if TYPE_CHECKING:
    import pandas as pd

FEATURES = "features"
"""The method that trains nothing: the baseline of all others."""

_TRIED = {"one": ("maskcon", "scgm"), "nested": ("multi-ce", "mixed"), "aspects": ("mlcl", "multi-ce"), "none": ()}
"""Methods to try, by the kind of labels: of one level, of levels that nest, of aspects, or none. The first method is
used if no comparison is possible and the encoder is pretrained."""

_VALIDATION = 0.2
_MOST_SAMPLES = 20_000
"""Largest number of samples for the comparison: more samples change the choice less than another seed does."""

_FEWEST = 40
"""Held-out samples below which an interval says nothing."""


@dataclass(frozen=True)
class Contender:
    """One method that was tried."""

    method: str
    fine_tuned: bool = False
    """Whether it trained the whole encoder, rather than an adapter on the features of a frozen one."""
    score: float | None = None
    """The share of hits on held-out training samples, in [0, 1]."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    """``difference``, ``low``, ``high``: the score less that of the untouched features, and its 95% interval over the
    same samples.
    """
    seconds: float = 0.0
    """Time of training and judging it."""
    problem: str = ""
    """Why it was not compared."""

    @property
    def name(self) -> str:
        """The method, and whether it was fine-tuned."""
        return f"{self.method}, fine-tuned" if self.fine_tuned else self.method

    def describe(self) -> str:
        """One line."""
        if self.score is None:
            return f"{self.name}: not compared, {self.problem}"
        line = f"{self.name}: {100 * self.score:.1f}%"
        if self.method == FEATURES or self.difference is None or self.low is None or self.high is None:
            return line
        interval = f"(95%: {100 * self.low:+.1f} to {100 * self.high:+.1f})"
        return f"{line}, {100 * self.difference:+.1f} points to the features {interval}"


@dataclass
class Auto:
    """Choice of :func:`auto`, and the reasons for it."""

    folder: Path
    run: Run
    """The run to use."""
    contenders: list[Contender]
    evaluation: Evaluation | None = None
    """The run's figures on the test split; None if that split is missing or has no labels."""
    verdict: list[str] = field(default_factory=list)
    """Sentences."""
    commands: list[str] = field(default_factory=list)
    """The next commands, for a shell."""

    @property
    def method(self) -> str:
        """The method of the run; ``features`` where the untouched features were kept."""
        return str(self.run.recipe["method"]["name"])

    def __repr__(self) -> str:
        return "\n".join([f"<Auto: {self.method} in {self.run.path}>", *self.verdict])

    def to_frame(self) -> pd.DataFrame:
        """One row a contender."""
        import pandas as pd

        return pd.DataFrame([asdict(contender) for contender in self.contenders])

    def to_json(self) -> dict[str, Any]:
        """Everything but the run itself."""
        return {
            "run": str(self.run.path),
            "method": self.method,
            "contenders": [asdict(contender) for contender in self.contenders],
            "figures": {} if self.evaluation is None else self.evaluation.flat(),
            "verdict": self.verdict,
            "commands": self.commands,
        }


@verb
def auto(
    data: Any,
    *,
    out: str | Path | None = None,
    levels: Sequence[str] | None = None,
    coarse: str | None = None,
    encoder: str | None = None,
    budget: float = 30.0,
    seed: Seed = 0,
    device: Device = "auto",
    on_step: Callable[[str], None] | None = None,
    **reader_options: Any,
) -> Auto:
    """Choose a method, train and evaluate: from data to the run to use.

    The data are embedded with the best encoder at hand, and the methods that fit the given labels are trained on its
    features. The choice sees no hidden label and no test sample: a fifth of the training samples is held out to
    compare the methods with the untouched features, and a method that is not above them is not used. If the time of
    some steps says that the remaining minutes suffice, the best method also trains the whole encoder and is compared.
    With labels of one level the comparison is one level up: classes that look alike are merged, the
    methods learn the merged classes, and a hit is a nearest neighbour of the same given class. With levels that nest a
    hit is a nearest neighbour of the same finest class, with aspects the share of them that a classifier on the
    embedding names. Then the chosen method is trained on all training samples and evaluated on the test split,
    subclasses are discovered where labels are of one level or missing, and a report is written. The same call goes on
    where an earlier one stopped.

    Parameters
    ----------
    data
        A data set's name (`regrain datasets`), the path of a folder or table, or whatever :func:`load` reads.
    out : path, optional
        The folder; default ``runs/auto-DATA``. The same command again goes on in it.
    levels : sequence of str, optional
        A label level (column) to use, from coarse to fine; default: all.
    coarse : str, optional
        The only level that the choice and the training see; the others judge the result.
    encoder : str, optional
        An encoder; default a pretrained one whose weights are at hand.
    budget : float
        Minutes. No further method is tried once they are over; one that is being trained is finished. The whole encoder
        is trained only if there is time for it, in the comparison and on all samples. A larger budget goes on.
    seed : int
        Fixes everything.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    on_step : callable, optional
        Called with a line before each step.
    **reader_options
        See :func:`regrain.load`.

    Returns
    -------
    Auto
        ``verdict`` says what was found, ``run`` is the run to use.

    Raises
    ------
    UserError
        For data that cannot be read or trained on, and a folder that holds something else.

    Examples
    --------
    >>> import tempfile, regrain
    >>> from regrain.data.corruption import limit_per_class
    >>> folder = tempfile.TemporaryDirectory()
    >>> data = limit_per_class(regrain.load("digits"), 12)
    >>> chosen = regrain.auto(data, levels=["group"], out=folder.name + "/auto", budget=0.001)
    >>> [contender.method for contender in chosen.contenders]
    ['features', 'maskcon', 'scgm']
    >>> folder.cleanup()
    """
    if not budget > 0:
        raise UserError(f"the budget is a number of minutes greater than 0; got {budget}", code="out_of_range")
    deadline = time.monotonic() + 60 * budget
    step = on_step or (lambda line: None)
    step("reading the data")
    plan = plan_fit(FEATURES, data, levels=levels, encoder=encoder, seed=seed, **reader_options)
    place = Path(out) if out is not None else Path("runs") / f"auto-{plan.dataset.name}"
    in_use = plan.recipe["data"]["levels"]
    if coarse is not None:
        plan.training.labels.level_index(coarse)
        if coarse not in in_use:
            raise UserError(
                f"--coarse {coarse} is not among the levels in use, which are {', '.join(in_use)}: give it as --level "
                "too, or leave --level out",
                code="conflicting_options",
            )
    seen = _labelled(plan.training.labels, in_use if coarse is None else [coarse])
    if coarse is not None and not seen:
        raise UserError(
            f"no training sample has a label of level '{coarse}': name another --coarse, or leave it out",
            code="no_labels",
        )
    asked = {"encoder": encoder, "coarse": coarse, "seed": seed}
    begin_plan(place, {"asked": asked, "data": plan.recipe["data"]}, "choice")
    training = plan.training.with_levels(seen)
    step(_of_data(training))
    for message in plan.dataset.messages:
        step(message)
    choice = _Choice(training, place, encoder=encoder, seed=seed, device=device, step=step, deadline=deadline)
    contenders = choice.contenders()
    chosen = choice.chosen(contenders)
    method = chosen.method
    step(f"training {chosen.name} on all {len(plan.training):,} training samples")
    target = place / "run"
    unlabelled = len(seen) < len(in_use)
    if coarse is None and unlabelled and choice.situation == "one":
        coarse = seen[0]
    elif coarse is None and unlabelled and seen:
        levels = seen

    def train_it() -> Run:
        return fit(
            method,
            data,
            out=target,
            levels=levels,
            coarse=None if method == FEATURES else coarse,
            encoder=choice.encoder,
            settings=choice.settings_of(chosen),
            seed=seed,
            device=device,
            overwrite=True,
            **reader_options,
        )

    other = RunFolder(target).is_run and not choice.made(RunFolder(target), chosen)  # of a smaller budget
    run = train_it() if other else finished_run(target, train_it, plan.dataset, device)
    result = Auto(place, run, contenders)
    step("judging")
    result.evaluation, problem = _judged(run)
    found = None
    if choice.situation in ("one", "none"):
        step("discovering subclasses")
        found = discover(run, superclass=coarse)
    step("writing the report")
    report(run, out=place / "report.html", overwrite=True)
    result.verdict = [*choice.describe(chosen, contenders), *_of_evaluation(result.evaluation, problem)]
    if choice.copies >= MANY_COPIES * len(choice.held_out):
        lists = command("check", data if isinstance(data, str | Path) else "DATA")
        result.verdict.append(
            f"{choice.copies} of {len(choice.held_out):,} held-out samples look exactly like another one: copies make "
            f"every figure too high, and `{lists}` lists them."
        )
    if found is not None:
        result.verdict.append(_of_subclasses(found))
    result.commands = _next(run, place, subclasses=found is not None)
    write_text(place / "auto.json", json.dumps(result.to_json(), indent=1))
    return result


class _Choice:
    """The comparison of methods with the untouched features, on a part of the training split."""

    def __init__(
        self,
        training: Dataset,
        place: Path,
        *,
        encoder: str | None,
        seed: int,
        device: Device,
        step: Callable[[str], None],
        deadline: float,
    ) -> None:
        self.place, self.encoder, self.seed, self.device = place, encoder, seed, device
        self.step, self.deadline, self.samples = step, deadline, len(training)
        if len(training) > _MOST_SAMPLES:
            training = subsample(training, _MOST_SAMPLES, seed=seed)
        self.situation = _situation(training.labels)
        coarsest = next(iter(training.labels.levels), None)
        self.train, self.held_out = training.hold_out(_VALIDATION, stratify=coarsest, seed=seed)
        step("embedding with the untouched features")
        self.frozen = False
        self.features = self._trained(Contender(FEATURES), self.train)
        self.pretrained = is_pretrained(self.features.model.config["encoder"]["origin"])
        if self.pretrained and self.features.model.backbone is None:  # of a named encoder: adapters come first
            self.frozen = True
            self.features = self._trained(Contender(FEATURES), self.train)
        self.held_features = embed(self.features.model, self.held_out)
        self.copies = len(self.held_features) - len(self.held_features.unique(dim=0))
        self.groups = self._groups()

    def settings_of(self, contender: Contender) -> dict[str, Any]:
        """The settings that a contender needs."""
        return {"encoder.frozen": False} if contender.fine_tuned else {"encoder.frozen": True} if self.frozen else {}

    def made(self, folder: RunFolder, contender: Contender) -> bool:
        """Whether a run is of a contender."""
        recipe = folder.read_recipe()
        fine_tuned = self.features.model.backbone is not None and not recipe["encoder"].get("frozen")
        return recipe["method"]["name"] == contender.method and fine_tuned == contender.fine_tuned

    def _place(self, contender: Contender) -> Path:
        variant = "fine-tuned" if contender.fine_tuned else "frozen" if self.frozen else ""
        return self.place / "tried" / "-".join(part for part in (contender.method, variant) if part)

    def _trained(self, contender: Contender, train: Dataset) -> Run:
        place = self._place(contender)

        def train_it() -> Run:
            return fit(
                contender.method,
                train,
                out=place,
                encoder=self.encoder,
                settings=self.settings_of(contender),
                seed=self.seed,
                holdout=0,
                device=self.device,
                overwrite=True,
            )

        return finished_run(place, train_it, train, self.device)

    def contenders(self) -> list[Contender]:
        """Return all contenders, the untouched features first; kept in a file, so that the same call goes on."""
        file = self.place / "contenders.json"
        known = {name: Contender(**found) for name, found in (read_json(file) if file.exists() else {}).items()}
        obstacle = self._obstacle()
        if obstacle:
            return [Contender(method, problem=obstacle) for method in (FEATURES, *_TRIED[self.situation])]
        own = self._hits(self.features)
        result = [Contender(FEATURES, score=float(own.mean()), difference=0.0, low=0.0, high=0.0)]
        train = self._with_groups() if self.groups is not None else self.train

        def add(asked: Contender) -> None:
            if asked.name not in known:
                known[asked.name] = self._compared(asked, train, own)
            result.append(known[asked.name])
            compared = [*result[:1], *(found for found in known.values() if not found.problem)]
            write_text(file, json.dumps({found.name: asdict(found) for found in compared}, indent=1))

        for method in _TRIED[self.situation]:
            add(Contender(method))
        trained = [found for found in result[1:] if found.score is not None]
        if trained and self.features.model.backbone is not None and self.pretrained:
            add(Contender(_best(trained).method, fine_tuned=True))
        return result

    def _compared(self, asked: Contender, train: Dataset, own: np.ndarray) -> Contender:
        from scipy import stats

        left = (self.deadline - time.monotonic()) / 60
        if left < 0:
            return replace(asked, problem="the budget was used up")
        start = time.monotonic()
        try:
            if asked.fine_tuned:
                minutes = self._minutes(asked, train)
                if minutes > left:
                    were = f"{int(left)} of the budget were" if left >= 1 else "less than one of the budget was"
                    return replace(
                        asked,
                        problem=f"it takes about {math.ceil(minutes)} minutes, and {were} left: a larger --budget "
                        "tries it",
                    )
            self.step(f"trying {asked.name} on {len(train):,} samples")
            hits = self._hits(self._trained(asked, train))
        except UserError as error:
            if error.code == "not_writable":  # a full disk says nothing about the method
                raise
            return replace(asked, problem=str(error))
        difference = hits - own
        mean, reach = float(difference.mean()), float(stats.norm.ppf(0.975) * stats.sem(difference))
        return replace(
            asked,
            score=float(hits.mean()),
            difference=mean,
            low=mean - reach,
            high=mean + reach,
            seconds=time.monotonic() - start,
        )

    def _minutes(self, asked: Contender, train: Dataset) -> float:
        """Minutes of training a contender, for the comparison and then on all training samples; 0 once begun."""
        folder = RunFolder(self._place(asked))
        if folder.is_run and (folder.is_complete or folder.checkpoint_file.exists()):
            return 0.0
        settings = self.settings_of(asked)
        plan = plan_fit(asked.method, train, encoder=self.encoder, settings=settings, seed=self.seed, holdout=0)
        assembly = assemble(plan.recipe, plan.training.with_levels(plan.recipe["data"]["levels"]))
        _, seconds = training_seconds(assembly, resolve_device(self.device))
        return seconds * (1 + self.samples / len(train)) / 60

    def _groups(self) -> Tensor | None:
        """The group of every class, where labels are of one level and there are enough classes to merge."""
        if self.situation != "one":
            return None
        return merge_similar(embed(self.features.model, self.train), self.train.labels.codes[:, -1])

    def _with_groups(self) -> Dataset:
        """The training part, its classes merged."""
        assert self.groups is not None
        codes = self.train.labels.codes[:, -1]
        names = [f"group {self.groups[code]}" if code >= 0 else None for code in codes.tolist()]
        return replace(self.train, labels=Labels.from_columns({"group": names}))

    def _obstacle(self) -> str:
        """Return the reason why methods cannot be compared on these data; empty if they can."""
        if self.situation == "none":
            return "methods are compared by labels, and the data have none"
        if self.situation == "one" and self.groups is None:
            return "fewer than three classes cannot be merged and told apart"
        judged = int(self._judged().sum())
        if judged < _FEWEST:
            return f"{_FEWEST} held-out samples are needed to compare by, and there are {judged}"
        return ""

    def _judged(self) -> Tensor:
        """BoolTensor (M,): the held-out samples that count."""
        codes = self.held_out.labels.codes
        if self.situation == "aspects":
            return (codes >= 0).any(dim=1)
        known = codes[:, -1] >= 0
        if self.groups is not None:  # a class that was not merged equals its group
            known &= torch.bincount(self.groups)[self.groups[codes[:, -1].clamp(min=0)]] > 1
        return known

    def _hits(self, run: Run) -> np.ndarray:
        """Score of each judged sample, in [0, 1]."""
        held = self.held_features if run is self.features else embed(run.model, self.held_out)
        rows, codes = self._judged(), self.held_out.labels.codes
        if self.situation == "aspects":
            return probed(embed(run.model, self.train), self.train.labels.codes, held[rows], codes[rows])
        finest = codes[rows, -1]
        vectors = functional.normalize(held[rows], dim=1)
        nearest = nearest_neighbours(vectors, vectors, 1, exclude_self=True)[1][:, 0]
        return (finest[nearest] == finest).double().numpy()

    def chosen(self, contenders: Sequence[Contender]) -> Contender:
        """The one to use."""
        compared = [found for found in contenders if found.score is not None]
        if compared and self.situation != "none":
            return _best(compared)
        return Contender(next(iter(_TRIED[self.situation]), FEATURES) if self.pretrained else FEATURES)

    def describe(self, chosen: Contender, contenders: Sequence[Contender]) -> list[str]:
        """Describe the comparison, its criterion and the choice."""
        encoder = self.features.model.config["encoder"]
        weights = "pretrained" if self.pretrained else "from random weights"
        compared = {found.name: found for found in contenders if found.score is not None}
        name = encoder["name"]
        lines = [
            f"The encoder is {name}, {weights}." if name not in RAW_INPUT else f"The features are the input, {name}."
        ]
        if len(compared) > 1:
            merged = " of the given class, after training on merged classes" if self.groups is not None else ""
            by = "named aspects" if self.situation == "aspects" else f"nearest neighbours{merged}"
            lines.append(f"Methods were compared on {len(self.held_out):,} held-out training samples by their {by}.")
        reasons = "; ".join(dict.fromkeys(found.problem for found in contenders if found.problem))
        if chosen.method == FEATURES and len(compared) > 1:
            lines.append("The untouched features are kept: no training was above them there.")
        elif chosen.method == FEATURES:
            lines.append(f"The untouched features are kept without a comparison: {reasons}.")
        elif chosen.name not in compared:
            lines.append(f"{chosen.name} was taken without a comparison: {reasons}.")
        else:
            lines.append(f"{chosen.describe()}: the highest, so it was taken.")
        lines += [f"{found.describe()}." for found in contenders if found.fine_tuned and found.problem and compared]
        return lines


def _best(contenders: Sequence[Contender]) -> Contender:
    """The highest score; of several the first."""
    return max(contenders, key=lambda found: found.score or 0.0)


def merge_similar(vectors: Tensor, codes: Tensor) -> Tensor | None:
    """The group of every class, (K,): classes that look alike share one; None for fewer than three classes.

    Ward's clustering of the classes' unit-length means into about sqrt(K) groups, at least two.

    Examples
    --------
    >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> merge_similar(vectors, torch.tensor([0, 1, 2])).tolist()
    [0, 0, 1]
    """
    from sklearn.cluster import AgglomerativeClustering

    present = codes[codes >= 0].unique()
    if len(present) < 3:
        return None
    units = functional.normalize(vectors, dim=1)
    means = functional.normalize(torch.stack([units[codes == code].mean(dim=0) for code in present]), dim=1)
    found = AgglomerativeClustering(max(2, round(math.sqrt(len(present))))).fit_predict(means.numpy())
    groups = torch.zeros(int(present.max()) + 1, dtype=torch.long)
    groups[present] = torch.as_tensor(found, dtype=torch.long)
    return groups


def probed(train: Tensor, train_codes: Tensor, held: Tensor, codes: Tensor) -> np.ndarray:
    """(M,) the share of each sample's known aspects that logistic regressions on the embedding name."""
    train, held = functional.normalize(train, dim=1), functional.normalize(held, dim=1)
    right = np.full(tuple(codes.shape), np.nan)
    for level in range(codes.shape[1]):
        seen, known = train_codes[:, level] >= 0, (codes[:, level] >= 0).numpy()
        if known.any() and len(train_codes[seen, level].unique()) > 1:
            proba = probe_probabilities(train[seen], train_codes[seen, level], held[known], inverse_penalty=10.0)
            right[known, level] = (proba.argmax(dim=1) == codes[known, level]).numpy()
    counts = np.isfinite(right).sum(axis=1)
    return np.nansum(right, axis=1) / np.maximum(counts, 1)


def _labelled(labels: Labels, levels: Sequence[str]) -> list[str]:
    """The levels, among some, that samples have labels at."""
    return [level for level in levels if labels.known[level]]


def _of_data(training: Dataset) -> str:
    """The training samples and their levels, in a line."""
    labels = training.labels
    levels = ", ".join(
        f"{level} ({counted(len(labels.present(level)), 'class', 'classes')}, {counted(labels.known[level], 'label')})"
        for level in labels.levels
    )
    return f"{training.name}: {len(training):,} training samples; {f'levels: {levels}' if levels else 'no labels'}"


def _situation(labels: Labels) -> str:
    """Return the key of ``_TRIED`` that fits the labels."""
    known = _labelled(labels, labels.levels)
    if len(known) < 2:
        return "one" if known else "none"
    return "aspects" if labels.taxonomy is None else "nested"


def _judged(run: Run) -> tuple[Evaluation | None, str]:
    """Return the run's figures on the test split, or the reason why there are none."""
    test = run.splits().get("test")
    if test is None:
        return None, "the data have no test split"
    if not any(test.labels.known.values()):
        return None, "the test split has no labels"
    try:
        return evaluate(run, protocols=["recall"]), ""
    except UserError as error:
        return None, str(error)


def _of_evaluation(evaluation: Evaluation | None, problem: str) -> list[str]:
    if evaluation is None:
        return [f"It was not judged: {problem}."]
    doubts = [f"{note[0].upper()}{note[1:]}." for note in evaluation.notes if note.startswith("level '")]
    if evaluation.verdict:
        return [finding.sentence for finding in evaluation.verdict] + doubts
    own = [row for row in evaluation.rows if row.representation == "model" and row.metric == "recall@1"]
    return [
        f"On the test split recall@1 at level '{row.level}' is {100 * row.score.value:.1f}." for row in own
    ] + doubts


def _of_subclasses(found: Discovery) -> str:
    above = f" within the classes of '{found.level}'" if found.level is not None else ""
    count = len(found.subclasses)
    were, them = ("was", "it") if count == 1 else ("were", "them")
    found_ones = counted(count, "subclass", "subclasses")
    return f"{found_ones} {were} found{above}: look at {them} before you trust {them}."


def _next(run: Run, place: Path, *, subclasses: bool) -> list[str]:
    lines = [f"open {shlex.quote(str(place / 'report.html'))}"]
    if subclasses:
        lines.append(f"{command('explore', run.path)}   (look at the subclasses and name them)")
    few = command("adapt", run.path, "--support", "FEW.csv", "--out", place / "adapted")
    lines.append(command("embed", run.path, "--data", "NEW", "--out", "vectors.parquet"))
    lines.append(f"{few}   (a classifier from a few fine labels)")
    return lines
