"""Evaluate a model and its baselines: every protocol, at every level where it works."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from regrain.checks import check_values
from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest, no_protocol_option, warn
from regrain.evaluation.clustering import clustering
from regrain.evaluation.few_shot import few_shot
from regrain.evaluation.hierarchy import hierarchy
from regrain.evaluation.linear import linear, transfer
from regrain.evaluation.missing import missing_for_a_reason
from regrain.evaluation.multi_aspect import multi_aspect
from regrain.evaluation.neighbours import knn
from regrain.evaluation.novel import novel
from regrain.evaluation.personalised import personalised
from regrain.evaluation.protocols import Protocol, Representation, Task
from regrain.evaluation.representations import Sources
from regrain.evaluation.results import Evaluation, fingerprint
from regrain.evaluation.retrieval import recall
from regrain.evaluation.superclass import superclass
from regrain.evaluation.verdicts import verdict
from regrain.labels import Labels
from regrain.model import Model
from regrain.processes import is_first_process

_QUICKLY = 20_000_000
"""Numbers of training embeddings to which logistic regression is fitted in seconds."""

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        *(recall, knn, clustering, hierarchy, linear, transfer, superclass, multi_aspect, few_shot, personalised),
        novel,
    )
}
"""Protocol by name, in the order in which they run."""

_OTHERS = "name another split with --split, or give labelled samples as --data"


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
    advice: Mapping[str, str] | None = None,
    seed: int = 0,
    workers: int = 2,
) -> Evaluation:
    """Evaluate a model's embeddings, compared with raw inputs and a network with random weights.

    Parameters
    ----------
    test : Dataset
        The samples to evaluate on.
    train : Dataset, optional
        The training samples, for protocols that fit on them.
    split : str
        The name of the test samples' split.
    levels : sequence of str, optional
        Default: every level that has labels there, as far as the protocol works at it.
    protocols : sequence of str, optional
        Names of :data:`PROTOCOLS`; default those declared as default ones, and the accuracy of the method's own
        classifier next to logistic regression on the untrained representations; each left out with a note where it
        cannot work. One that was asked for, by its name or by an option, raises where it cannot work at a level asked
        for, or at any.
    options : mapping, optional
        Options of the protocols: the keyword-only parameters of their functions.
    baselines : bool
        Whether to evaluate raw inputs and random weights too.
    projection : bool, optional
        Whether to evaluate the output of the head that the loss works on too, as the representation ``projection``.
        Default: where papers keep that head or drop it by their figures
        (:class:`~regrain.methods.embedder.EmbedderMethod`).
    model_folder : path, optional
        Where a text model keeps its tokenizer, to rebuild it with random weights.
    start : Model, optional
        The model as training found it, where it began from pretrained weights.
    augmentation : str or mapping
        The view preset of augmented copies of the test samples.
    labels : Labels, optional
        Levels and classes that the model was trained on, for predictions of its own classifier.
    advice : mapping of str to str, optional
        Untrained representation -> what the verdict says to do where it is better than the model.

    Raises
    ------
    UserError
        For an unknown protocol, level or option, a level without labels, K larger than the set.
    """
    chosen = chosen_protocols(protocols, options or {})
    evaluation = Evaluation(split, len(test), judged=fingerprint(test))
    tasks = [_task(level, test, train, seed) for level in _levels(test, levels, evaluation.notes)]
    read = labels.levels if labels is not None else ()
    classified = [task for task in tasks if task.level in read and model.method.has_classifier]
    if protocols is None and classified:  # its classifier is what it was trained for
        chosen[multi_aspect if len(classified) > 1 else superclass] = {}, False
    needs = frozenset[str]().union(*(protocol.needs for protocol in chosen))
    sources = Sources(test, train, needs, augmentation, seed, workers)
    own = sources.represent("model", model, labels=labels)
    apart = missing_for_a_reason(test.labels, [task.level for task in tasks], own.test.__getitem__, seed=seed)
    for sentence in apart if is_first_process() else ():
        warn(sentence)
    evaluation.notes += apart
    seen = [own]
    if model.method.judges_projection if projection is None else projection:
        seen.append(sources.represent("projection", model, model.method.embed_projected))
        evaluation.notes.append(
            "projection: the output of the head on f(x), on which the loss works; embed, discover and few-shot "
            "classifiers use f(x)"
        )
    raw = ""
    if baselines:
        untrained, raw = _untrained(sources, model, model_folder, start, seed, evaluation.notes)
        seen += untrained
    left_out: list[str] = []
    for protocol, (values, asked) in chosen.items():
        beside, at = seen, tasks
        if protocol.classifies and asked:  # by its own classifier, else by one that is fitted on the training split
            constant = [sources.majority()] if baselines and train is not None else []
            beside = [r for r in (*seen, *constant) if r.train is not None or r.probabilities] or [own]
        elif protocol.classifies:
            beside, at = [own, *_quickly_fitted(seen, protocol.name, evaluation.notes)], classified
        groups = protocol.groups(at, chosen=levels is not None, read=read)
        left_out += _evaluate_groups(evaluation, protocol, values, beside, groups, asked, strictly=levels is not None)
        if asked and len(beside) < len(seen):
            evaluation.notes.append(f"{protocol.name}: baselines were left out, without a training split to fit on")
        if any(r.name == "majority" for r in beside):
            evaluation.notes.append("majority: the most frequent class of the training split")
    if not evaluation.rows:
        raise UserError(
            f"split '{split}' of {test.name} gives no figure: {'; '.join(left_out)}. Figures need a class of two "
            f"labelled samples or more, or a training split: {_OTHERS}",
            code="too_few",
        )
    evaluation.notes += [*left_out, *_of_one_class(test, tasks)]
    if baselines and split != "train" and model.method.trains_encoder:  # of its training samples a model knows too much
        evaluation.verdict = verdict(evaluation.rows, test.labels.levels, raw, advice or {}, seed=seed)
    order = [task.level for task in tasks]
    evaluation.rows.sort(key=lambda row: order.index(row.level) if row.level in order else len(order))
    evaluation.notes = list(dict.fromkeys(evaluation.notes))
    return evaluation


def _quickly_fitted(seen: Sequence[Representation], protocol: str, notes: list[str]) -> list[Representation]:
    """The untrained representations on which a classifier is soon fitted, to compare that of the model with."""
    untrained = [r for r in seen if r.name in ("raw", "start") and r.train is not None]
    quick = [r for r in untrained if r.train is not None and r.train.numel() <= _QUICKLY]
    if slow := [r.name for r in untrained if r not in quick]:
        notes.append(
            f"accuracy: of {' and '.join(slow)} only with -p {protocol}, since fitting a classifier takes long"
        )
    return quick


def _untrained(
    sources: Sources, model: Model, model_folder: Path | None, start: Model | None, seed: int, notes: list[str]
) -> tuple[list[Representation], str]:
    """Representations that show the effect of training: raw input, random weights, the start; and what raw is."""
    raw, what = sources.raw(model)
    random = sources.represent("random", model.untrained(model_folder, seed + 1).to(model.device))
    alike = raw.test.shape == random.test.shape and torch.allclose(raw.test, random.test)
    notes.append(f"raw: {what}; random: the same network with random weights{', equal to raw' * alike}")
    found = [raw] if alike else [raw, random]
    if start is not None:
        found.append(sources.represent("start", start))
        notes.append("start: the pretrained weights that training began from")
    return found, what


def _evaluate_groups(
    evaluation: Evaluation,
    protocol: Protocol,
    values: Mapping[str, Any],
    beside: Sequence[Representation],
    groups: Sequence[Sequence[Task]],
    asked: bool,
    *,
    strictly: bool,
) -> list[str]:
    """Add a protocol's figures for each group of levels; return a sentence for each group where it cannot work.

    A protocol that was ``asked`` for raises where it works at no level, or cannot work at the only one, or at one that
    was asked for (``strictly``).
    """
    failed: list[tuple[str, UserError]] = []
    for group in groups:
        try:
            evaluation.add({r.name: protocol.figures(r, group, values) for r in beside}, brief=not asked)
        except UserError as error:
            if asked and (strictly or len(groups) == 1):
                raise
            failed.append((f"level '{group[0].level}'", error))
    if asked and len(failed) == len(groups):
        raise UserError(f"{protocol.name} works at no level. " + "; ".join(f"{at}: {why}" for at, why in failed))
    return [f"{protocol.name} was left out at {at}: {why}" for at, why in failed]


def chosen_protocols(
    names: Sequence[str] | None, options: Mapping[str, Any]
) -> dict[Protocol, tuple[dict[str, Any], bool]]:
    """Protocol -> its options, checked and complete, and whether the user asked for it by its name or by an option.

    Raises
    ------
    UserError
        For an unknown protocol or option, a value that the option does not allow, and for an option of protocols that
        were not asked for.
    """
    if names is not None and not len(names):
        raise UserError("protocols is an empty list: name one, or leave it out", code="missing_option")
    for name in names or ():
        if name not in PROTOCOLS:
            raise UserError(f"no protocol '{name}': {nearest(name, PROTOCOLS)}", code="unknown_name")
    chosen = [PROTOCOLS[name] for name in dict.fromkeys(names)] if names is not None else []
    chosen = chosen if names is not None else [protocol for protocol in PROTOCOLS.values() if protocol.default]
    for option in options:
        having = [protocol.name for protocol in PROTOCOLS.values() if option in protocol.options]
        if not having:
            raise no_protocol_option(option, {name for protocol in PROTOCOLS.values() for name in protocol.options})
        if not any(option in protocol.options for protocol in chosen):
            raise UserError(
                f"{option} is an option of the protocol {' or '.join(having)}: add -p {having[0]}",
                code="conflicting_options",
            )
    result = {}
    for protocol in chosen:
        own = {name: value for name, value in options.items() if name in protocol.options}
        asked = names is not None or bool(own)
        result[protocol] = check_values(own, protocol.options, protocol.name), asked
    return result


def _task(level: str, test: Dataset, train: Dataset | None, seed: int) -> Task:
    labels = test.labels
    index, nested = labels.level_index(level), labels.taxonomy is not None
    below = [name for name in labels.levels[index + 1 :] if nested and labels.present(name)]
    return Task(
        level,
        labels.names(level),
        labels.level(level),
        train.labels.level(level) if train is not None and level in train.labels.levels else None,
        seed,
        superclasses=labels.codes[:, index - 1] if index and nested else None,
        groups=test.groups,
        taxonomy=labels.taxonomy,
        finer={name: (labels.names(name), labels.level(name)) for name in below},
    )


def _levels(test: Dataset, levels: Sequence[str] | None, notes: list[str]) -> list[str]:
    """The levels to evaluate at: those asked for, else all that have labels."""
    labelled = [level for level, count in test.labels.known.items() if count >= 2]
    if levels is None:
        for level in test.labels.levels:
            if level not in labelled:
                notes.append(f"level '{level}' was left out: it has {_too_few(test, level)} in this split")
        if not labelled:
            has = _too_few(test, *test.labels.levels)
            raise UserError(f"{test.name} has {has} in this split: nothing to evaluate by; {_OTHERS}", code="no_labels")
        return labelled
    if not len(levels):
        raise UserError("levels is an empty list: name one, or leave it out", code="missing_option")
    for level in levels:
        test.labels.level_index(level)
        if level not in labelled:
            raise UserError(
                f"level '{level}' has {_too_few(test, level)} in this split of {test.name}: nothing to evaluate by; "
                f"{_OTHERS}",
                code="no_labels",
            )
    return list(levels)


def _of_one_class(test: Dataset, tasks: Sequence[Task]) -> list[str]:
    """Sentences on levels whose figures say nothing."""
    names = {
        task.level: [test.labels.names(task.level)[code] for code in test.labels.present(task.level)] for task in tasks
    }
    return [
        f"level '{level}': every label of this split is '{found[0]}', so all neighbours and clusters are right, "
        "whatever the embedding"
        for level, found in names.items()
        if len(found) == 1
    ]


def _too_few(test: Dataset, *levels: str) -> str:
    """Of levels that no two samples have a label at."""
    return "only one labelled sample" if any(test.labels.known[level] for level in levels) else "no labels"
