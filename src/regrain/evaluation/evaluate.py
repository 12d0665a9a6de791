"""Judges a model beside its baselines, level by level, protocol by protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest
from regrain.evaluation.base import Protocol, Representation, Score, Setting, figure_text, judged_fingerprint
from regrain.evaluation.baselines import raw_representation
from regrain.evaluation.clustering import clustering
from regrain.evaluation.embed import apply_model, apply_to_views, level_probabilities
from regrain.evaluation.few_shot import few_shot, superclass_codes, wanted_copies
from regrain.evaluation.hierarchy import hierarchy
from regrain.evaluation.linear import linear, transfer
from regrain.evaluation.multi_aspect import multi_aspect
from regrain.evaluation.neighbours import knn
from regrain.evaluation.personalised import personalised
from regrain.evaluation.retrieval import recall
from regrain.evaluation.superclass import superclass
from regrain.labels import Labels
from regrain.model import Model

PROTOCOLS: dict[str, Protocol] = {
    "recall": recall,
    "knn": knn,
    "clustering": clustering,
    "hierarchy": hierarchy,
    "linear": linear,
    "transfer": transfer,
    "superclass": superclass,
    "few-shot": few_shot,
    "personalised": personalised,
}
"""Protocol by name; each judges level by level."""

TOGETHER = {"multi-aspect": multi_aspect}
"""Protocols that judge all levels together."""

_OPTIONS = (
    *("ks", "neighbours", "cluster_seeds", "cluster_starts", "taxonomy", "hierarchy_mapping", "linear_epochs"),
    *("ways", "shots", "queries", "episodes", "classifier", "intra_class", "copies"),
)
_PROBING = {"linear", "transfer", "superclass", "multi-aspect"}
"""Protocols that classify, and fit on the training split where the method has no classifier of its own."""

_BY_DEFAULT = ("recall", "knn", "clustering")
"""What is judged when no protocol is asked for; the others cost more, or suit few data."""


@dataclass(frozen=True)
class Row:
    """One figure: what was judged, on which split and level, by which metric."""

    representation: str
    split: str
    level: str
    metric: str
    score: Score

    @property
    def key(self) -> str:
        """``split/level/metric``; of a baseline with ``.NAME`` behind it."""
        name = f"{self.split}/{self.level}/{self.metric}"
        return name if self.representation == "model" else f"{name}.{self.representation}"


_SHOWN = 8
"""Figures that the short form of an evaluation shows."""


@dataclass
class Evaluation:
    """All figures of one evaluation.

    Attributes
    ----------
    split : str
    samples : int
    rows : list of Row
    notes : list of str
        What the reader of the figures must know.
    judged : dict
        Fingerprints of the samples and of their labels: figures of other samples are not paired with these.
    """

    split: str
    samples: int
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        own = [row for row in self.rows if row.representation == "model" and not row.score.detail]
        shown = ", ".join(
            f"{r.level}/{r.metric} {figure_text(r.score.value, count=r.score.count)}" for r in own[:_SHOWN]
        )
        more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
        return f"<Evaluation of {self.split}, {self.samples} samples: {shown or 'no figures'}{more}>"

    def flat(self) -> dict[str, float]:
        """``split/level/metric`` -> value; ends of intervals with ``.low`` and ``.high``, baselines with ``.NAME``."""
        result: dict[str, float] = {}
        for row in self.rows:
            result[row.key] = row.score.value
            if row.representation == "model" and row.score.low is not None and row.score.high is not None:
                result[f"{row.key}.low"], result[f"{row.key}.high"] = row.score.low, row.score.high
        return result

    def add(self, judged: Mapping[str, Mapping[str, Score]], level: str) -> None:
        """Figures of representations at a level, with the notes of the model's."""
        for representation, scores in judged.items():
            self.rows += [Row(representation, self.split, level, m, s) for m, s in scores.items()]
        notes = {metric: score.note for metric, score in judged["model"].items() if score.note}
        self.notes += [f"{metric} at level '{level}': {note}" for metric, note in notes.items()]

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``evaluation.json``."""
        return {
            "split": self.split,
            "samples": self.samples,
            "judged": self.judged,
            "notes": self.notes,
            "rows": [{**asdict(row), "score": asdict(row.score)} for row in self.rows],
        }


def evaluate_model(
    model: Model,
    test: Dataset,
    train: Dataset | None,
    *,
    split: str = "test",
    levels: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    baselines: bool = True,
    projection: bool | None = None,
    model_folder: Path | None = None,
    start: Model | None = None,
    augmentation: str | Mapping[str, Any] = "strong",
    labels: Labels | None = None,
    seed: int = 0,
    workers: int = 2,
) -> Evaluation:
    """Judge a model's embeddings, and the same for raw inputs and for random weights.

    Parameters
    ----------
    model : Model
    test : Dataset
        The samples to judge on.
    train : Dataset, optional
        The training samples, for protocols that fit on them (k-NN, k-means, linear, multi-aspect).
    split : str
        The name of the test samples' split.
    levels : sequence of str, optional
        Default: every level that has labels there.
    protocols : sequence of str, optional
        Default: recall, knn and clustering; then one that cannot work at a level is left out with a note. One asked for
        raises where it cannot work at a level asked for, or at any.
    options : mapping, optional
        ``ks`` of recall, ``neighbours`` of k-NN, ``cluster_seeds`` and ``cluster_starts`` of clustering, ``taxonomy``
        and ``hierarchy_mapping`` of hierarchy, ``linear_epochs`` of linear; ``copies`` (augmented views of every
        support sample, default 5) and the others of few-shot, see :func:`~regrain.evaluation.few_shot.few_shot`.
        Where no levels are asked for, hierarchy is judged at the finest alone, and superclass at those that the method
        reads, else at the coarsest.
    baselines : bool
        Whether to judge raw inputs and random weights too.
    projection : bool, optional
        Whether to judge the output of the head that the loss works on too, as the representation ``projection``.
        Default: where papers keep that head or drop it by their figures
        (:class:`~regrain.methods.embedder.EmbedderMethod`).
    model_folder : path, optional
        Where a text model keeps its tokenizer, to rebuild it with random weights.
    start : Model, optional
        The model as training found it, where it began from pretrained weights.
    augmentation : str or mapping
        The view preset of few-shot's augmented copies.
    labels : Labels, optional
        Levels and classes that the model was trained on, for judging by its own classifier.
    seed, workers : int

    Raises
    ------
    UserError
        For an unknown protocol or level, a level without labels, K larger than the set.
    """
    require_protocols(protocols or ())
    _require_options(options or {})
    evaluation = Evaluation(split, len(test), judged=judged_fingerprint(test))
    chosen = _levels(test, levels, evaluation)
    asked = protocols is not None
    protocols = list(protocols if protocols is not None else _BY_DEFAULT)
    fits = not ({"knn", "clustering"} | _PROBING).isdisjoint(protocols) and train is not None
    parted = not {"clustering", "hierarchy"}.isdisjoint(protocols)
    probed = (
        not {"linear", "transfer"}.isdisjoint(protocols)
        and train is not None
        and int((options or {}).get("linear_epochs", 0)) > 0
    )
    copies = wanted_copies(options or {}) if "few-shot" in protocols else 0

    def represent(name: str, judged: Model, function: Callable[[Any], Tensor] | None = None) -> Representation:
        embed = function or judged.method.embed
        found = Representation(name, apply_model(judged, test, embed, workers=workers))
        if fits and train:
            found = replace(found, train=apply_model(judged, train, embed, workers=workers))
        if copies:
            copied = apply_to_views(judged, test, embed, augmentation, copies=copies, seed=seed, workers=workers)
            found = replace(found, augmented=copied)
        if probed and train:
            found = replace(found, augment_train=partial(_augmented, judged, train, embed, seed, workers))
        if parted and function is None:
            parts = [None if d is None else _partitions(judged, d, workers) for d in (test, train)]
            found = replace(found, partitions=parts[0], train_partitions=parts[1])
        return found

    judged_model = represent("model", model)
    if not {"superclass", "multi-aspect"}.isdisjoint(protocols) and labels is not None:
        judged_model = replace(judged_model, probabilities=own_probabilities(model, test, labels, workers=workers))
    representations = [judged_model]
    if model.method.judges_projection if projection is None else projection:
        representations.append(represent("projection", model, model.method.embed_projected))
        evaluation.notes.append(
            "projection: the output of the head on f(x), on which the loss works; embed, discover and few-shot "
            "classifiers use f(x)"
        )
    if baselines:
        raw, what = raw_representation(test, train, model, fits=fits, workers=workers)
        representations += [raw, represent("random", model.untrained(model_folder, seed + 1).to(model.device))]
        evaluation.notes.append(f"raw: {what}; random: the same network with random weights")
        if start is not None:
            representations.append(represent("start", start))
            evaluation.notes.append("start: the pretrained weights that training began from")
    if copies:
        evaluation.notes.append(
            f"few-shot fits on {copies} augmented views of every support sample"
            + ("; raw has none, and is fitted on the samples as they are" if baselines else "")
        )
    constant = [_constant(test, train)] if baselines and fits and not _PROBING.isdisjoint(protocols) else []
    if constant:
        evaluation.notes.append("majority: the most frequent class of the training split")
    fitless = train is None and bool(judged_model.probabilities)
    if fitless and len(representations) > 1:
        evaluation.notes.append("superclass, multi-aspect: baselines were left out, without a training split to fit on")

    def seen_by(protocol: str) -> list[Representation]:
        if protocol not in _PROBING:
            return representations
        return [judged_model] if fitless else representations + constant

    settings = [_setting(level, test, train, seed, options or {}) for level in chosen]
    must = set(protocols if asked else ["recall"] if "ks" in (options or {}) else [])  # work, at some level
    by_default = chosen[:1] if labels is None or not labels.levels else labels.levels  # of superclass
    refused: dict[str, list[str]] = {}
    for setting in settings:
        level = setting.level
        for name in protocols:
            if name in TOGETHER:
                continue
            if name == "hierarchy" and levels is None and level != chosen[-1]:
                continue
            if name == "superclass" and levels is None and level not in by_default:
                continue
            try:
                judged = {r.name: PROTOCOLS[name](r, setting) for r in seen_by(name)}
            except UserError as error:
                if name in must and (levels is not None or len(chosen) == 1):
                    raise
                evaluation.notes.append(f"{name} was left out at level '{level}': {error}")
                refused.setdefault(name, []).append(f"level '{level}': {error}")
                continue
            evaluation.add(judged, level)
            must.discard(name)
    for name in (n for n in protocols if n in must and n in refused):
        raise UserError(f"{name} works at no level. " + "; ".join(refused[name]))
    for name in (name for name in protocols if name in TOGETHER):
        figures = {r.name: TOGETHER[name](r, settings) for r in seen_by(name)}
        for level in figures["model"]:
            evaluation.add({representation: found[level] for representation, found in figures.items()}, level)
    return evaluation


def require_protocols(names: Sequence[str]) -> None:
    """Raise a UserError with the nearest name for a protocol that does not exist."""
    for name in names:
        if name not in PROTOCOLS and name not in TOGETHER:
            raise UserError(f"no protocol '{name}': {nearest(name, [*PROTOCOLS, *TOGETHER])}", code="unknown_name")


def _require_options(options: Mapping[str, Any]) -> None:
    """Raise a UserError for an option that no protocol has, and for counts that are none."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise UserError(f"no protocol has an option '{name}': {nearest(name, _OPTIONS)}", code="unknown_name")
        if name in ("ks", "shots", "ways") and (isinstance(value, str) or not isinstance(value, Sequence)):
            raise UserError(f"{name} is a list of numbers, such as [1, 5]; got {value!r}")
    counts = {name: options[name] for name in ("neighbours", "cluster_seeds", "cluster_starts") if name in options}
    for name, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{name} is a whole number of at least 1; got {value!r}")


def _setting(level: str, test: Dataset, train: Dataset | None, seed: int, options: Mapping[str, Any]) -> Setting:
    return Setting(
        level,
        test.labels.names(level),
        test.labels.level(level),
        train.labels.level(level) if train is not None and level in train.labels.levels else None,
        seed,
        options,
        superclasses=superclass_codes(test, level),
        groups=test.groups,
        taxonomy=test.labels.taxonomy,
        finer=_finer(test, level),
    )


def _constant(test: Dataset, train: Dataset | None) -> Representation:
    """All samples alike: whatever is fitted on it predicts the majority class."""
    return Representation(
        "majority", torch.zeros(len(test), 1), torch.zeros(len(train), 1) if train is not None else None
    )


def own_probabilities(model: Model, test: Dataset, labels: Labels, *, workers: int = 2) -> dict[str, Tensor]:
    """Level -> (N, classes + more) by the method's own classifier, in the order of the data's class names.

    As :func:`~regrain.evaluation.embed.level_probabilities`, whose columns are the run's classes. Classes of the run
    that the data lack follow: predicting one of them is wrong. A level is left out where the run knows no class of it.
    """
    result = {}
    for level, found in level_probabilities(model, labels, test, workers=workers).items():
        if level not in test.labels.levels:
            continue
        places = {name: column for column, name in enumerate(labels.names(level))}
        columns = [places.pop(name, None) for name in test.labels.names(level)]
        if any(c is not None for c in columns):
            none = found.new_zeros(len(found))
            named = [none if c is None else found[:, c] for c in columns]
            result[level] = torch.stack([*named, *(found[:, c] for c in places.values())], dim=1)
    return result


def _finer(test: Dataset, level: str) -> dict[str, tuple[tuple[str, ...], Tensor]]:
    """The levels after this one that have labels, where levels nest."""
    labels = test.labels
    if labels.taxonomy is None:
        return {}
    below = labels.levels[labels.level_index(level) + 1 :]
    return {name: (labels.names(name), labels.level(name)) for name in below if labels.present(name)}


def _partitions(model: Model, dataset: Dataset, workers: int) -> Tensor | None:
    """(N, P): the cluster of every sample in each partition that the method made of its own; None without any."""
    if not model.method.has_subclasses:
        return None

    def clusters(x: Any) -> Tensor:
        return torch.stack([rows.argmax(dim=1) for rows in model.method.partitions(x)], dim=1)

    return apply_model(model, dataset, clusters, workers=workers).long()


def _augmented(
    model: Model, train: Dataset, function: Callable[[Any], Tensor], seed: int, workers: int, epoch: int
) -> Tensor:
    """Embeddings of the training samples' views in an epoch of a linear probe: cropped and flipped, not recoloured."""
    preset = "token-drop" if model.backbone is None and train.modality == "text" else "weak"
    return apply_to_views(model, train, function, preset, copies=1, first=epoch, seed=seed, workers=workers)[0]


def _levels(test: Dataset, levels: Sequence[str] | None, evaluation: Evaluation) -> list[str]:
    labelled = [level for level, count in test.labels.known.items() if count >= 2]
    if levels is None:
        for level in test.labels.levels:
            if level not in labelled:
                evaluation.notes.append(f"level '{level}' was left out: it has no labels in this split")
        if not labelled:
            raise UserError(f"{test.name} has no labels in this split: nothing to judge by")
        return labelled
    for level in levels:
        test.labels.level_index(level)
        if level not in labelled:
            raise UserError(f"level '{level}' has no labels in this split of {test.name}: nothing to judge by")
    return list(levels)
