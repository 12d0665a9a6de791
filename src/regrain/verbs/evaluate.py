"""``evaluate``: a run compared with its baselines, at every label level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import torch
from typing_extensions import TypedDict

from regrain.checks import Seed
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.errors import UserError, examples, warn
from regrain.evaluation import Evaluation, chosen_protocols, evaluate_model
from regrain.evaluation.few_shot import unseen_superclasses as select_unseen
from regrain.processes import is_first_process
from regrain.runs.evaluations import keep_evaluation
from regrain.runs.run import Run, get_split
from regrain.runs.verb import RunOrPath, verb


class _MissingForm(TypedDict):
    sentences: list[str]


@verb
def evaluate(
    run: RunOrPath,
    data: Any = None,
    *,
    split: str = "test",
    levels: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    baselines: bool = True,
    projection: bool | None = None,
    unseen_superclasses: bool = False,
    seed: Seed = 0,
    write: bool = True,
    **reader_options: Unpack[ReaderOptions],
) -> Evaluation:
    """Evaluate a run at every label level, compared with raw inputs and a network with random weights.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run.
    data : optional
        Other data than the run's own: whatever :func:`load` reads, such as a path or a data set's name.
    split : str
        Which split to evaluate on.
    levels : sequence of str, optional
        A label level (column), from coarse to fine; default: all.
    protocols : sequence of str, optional
        What to measure: by default recall, knn, clustering, and the accuracy of the run's own classifier; hierarchy,
        linear, transfer (linear on other data), superclass, multi-aspect (all levels together), few-shot, personalised
        (a classifier a subject), novel (classes without labels in training).
    baselines : bool
        Evaluate raw inputs and random weights too.
    projection : bool, optional
        Evaluate the output of the head too; default: where papers keep or drop it.
    seed : int
        Fixes intervals, k-means, random weights, episodes.
    **options
        See :func:`regrain.evaluation.evaluate_model`.
    unseen_superclasses : bool
        Evaluate only samples whose superclass training never saw.
    write : bool
        Whether to keep the figures in the run's ``evaluation.json``, next to those of other protocols, levels, splits
        and data.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        For an unknown split, protocol or level, or K larger than the set.
    """
    chosen = chosen_protocols(protocols, options or {})
    notes: list[str] = []
    if run.finds_own(data, reader_options):
        data, reader_options = None, {}
    dataset = run.given_or_own(data, reader_options, levels=None if data is None else levels, wanted="some")
    splits, where = run.splits_of(dataset, split, notes)
    if reader_options.get("label_paths"):
        levels = None  # it named the column of paths
    strange = next((p for p in chosen if p.other_data), None)
    if strange is not None and (
        data is None or ("train" in splits and splits["train"].fingerprint() == run.recipe["data"]["fingerprint"])
    ):
        raise UserError(f"{strange.name} is for data that the encoder was not trained on: give others as --data")
    test = run.fitting(get_split(splits, split, where))
    if unseen_superclasses:
        test = _unseen(test, splits.get("train"), where, notes)
    else:
        notes += _never_seen(run, test, splits.get("train") if data is None else None)
    evaluation = evaluate_run(
        run,
        test,
        splits.get("train") if split != "train" else None,
        notes,
        split=split,
        levels=levels,
        protocols=protocols,
        options=options,
        baselines=baselines,
        projection=projection,
        seed=seed,
    )
    missing = run.folder.read_json("missing.json", _MissingForm, missing={"sentences": []})["sentences"]
    evaluation.notes += [f"training samples, {sentence}" for sentence in missing]
    if split == "train":
        evaluation.notes.append(
            "these are the samples the model was trained on: the figures say nothing about new ones"
        )
    if write and is_first_process():
        part = "unseen superclasses" if unseen_superclasses else ""
        try:
            keep_evaluation(run.folder, evaluation, data=where, own_data=data is None, part=part)
        except (OSError, UserError) as error:
            if isinstance(error, UserError) and error.code != "not_writable":
                raise
            warn(f"the figures are not kept: {error}")  # in a folder of somebody else's they are shown all the same
    return evaluation


def evaluate_run(
    run: Run, test: Dataset, train: Dataset | None, notes: list[str], *, baselines: bool, **options: Any
) -> Evaluation:
    """Call :func:`regrain.evaluation.evaluate_model` on a run, with the information that only the run has."""
    evaluation = evaluate_model(
        run.model,
        test,
        train,
        baselines=baselines,
        model_folder=run.folder.model_folder,
        start=run.pretrained_start(notes) if baselines else None,
        augmentation=run.recipe["views"]["presets"][0],
        labels=run.labels,
        advice=_advice(run),
        **options,
    )
    evaluation.notes += notes
    return evaluation


def _advice(run: Run) -> dict[str, str]:
    """Advise what to do if an untrained representation is better than the run's."""
    encoder, pretrained = run.recipe["encoder"], run.model.backbone is not None
    weights = " --pretrained" if encoder.get("pretrained") is True else ""
    keep = f"Keep the features as they are: `regrain fit features DATA --encoder {encoder['name']}{weights}`."
    more = "Train on the features of a pretrained encoder (--encoder NAME --frozen), or for more epochs."
    raw = "" if run.model.views.modality == "text" else " Until then keep the raw input: `--encoder identity`."
    return {"start": keep, "raw": keep if pretrained else more + raw, "random": more}


def _never_seen(run: Run, test: Dataset, train: Dataset | None) -> list[str]:
    """A sentence for every level of the run with classes in ``test`` that it had no samples of, if this is known."""
    sentences = []
    for level in (level for level in run.labels.levels if level in test.labels.levels):
        names, codes = test.labels.names(level), test.labels.level(level)
        seen = set(run.labels.names(level))
        if train is not None:
            seen = {train.labels.names(level)[code] for code in train.labels.present(level)}
        unseen = [code for code in test.labels.present(level) if names[code] not in seen]
        count = int(torch.isin(codes, torch.tensor(unseen, dtype=codes.dtype)).sum())
        shown = examples(repr(names[code]) for code in unseen)
        if unseen and len(unseen) == len(test.labels.present(level)):
            sentences.append(
                f"level '{level}': the run was trained on none of these classes ({shown}), but on such as "
                f"{examples(map(repr, sorted(seen)))}: it cannot predict one of them"
            )
        elif unseen:
            sentences.append(
                f"level '{level}': {count} of {len(test)} samples are of classes that the run was not trained on "
                f"({shown}): it cannot predict them"
            )
    return sentences


def _unseen(test: Dataset, train: Dataset | None, where: str, notes: list[str]) -> Dataset:
    """The test samples of superclasses without a training sample."""
    if train is None:
        raise UserError(
            f"{where} has no split 'train': which superclasses were seen in training cannot be told",
            code="unknown_split",
        )
    kept = select_unseen(test, train)
    level = test.labels.levels[0]
    notes.append(f"unseen superclasses: {len(kept)} of {len(test)} samples, whose {level} has no training sample")
    return kept
