"""``calibrate``: answers at the most specific level that a run is sure of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor

from regrain.checks import Share
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.errors import UserError
from regrain.evaluation import level_probabilities
from regrain.runs.calibration import fit_selective_classifier
from regrain.runs.run import Run, get_split
from regrain.runs.selective import Counts, known_classes, taxonomy_of
from regrain.runs.selective_report import Calibration, evaluate_answers, share_of_misses
from regrain.runs.verb import RunOrPath, verb


@verb
def calibrate(
    run: RunOrPath,
    data: Any = None,
    *,
    split: str | None = None,
    precision: Share = 0.95,
    confidence: Share | None = None,
    counts: Counts = "answers",
    judge: str | None = None,
    levels: Sequence[str] | None = None,
    **reader_options: Unpack[ReaderOptions],
) -> Calibration:
    """Let a run answer at the most specific level that it is sure of, or not at all.

    A level is answered where it is sure enough: so that, on labelled samples that training has not seen, answers are
    right as often as ``precision`` says. On new samples the share falls short about every second time; with
    ``confidence`` it is reached with that probability, and fewer samples are answered. An answer's ancestors come with
    it. Aspects, which do not nest, are answered one by one.

    Afterwards :func:`predict` adds the answers. The rule is that of
    :class:`regrain.runs.selective.SelectiveClassifier`; :func:`regrain.runs.calibration.fit_selective_classifier` says
    what the samples decide. A sample may be labelled at any mixture of the run's levels.

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run, of a method that classifies. Calibrating again replaces the earlier answers.
    data : optional
        Labelled samples that training has not seen; default: the run's own.
    split : str, optional
        The split to calibrate on; default: val, or all of ``data`` without splits.
    precision : float
        The share of right answers: aimed at level by level, or with ``confidence`` reached by all answers together.
    confidence : float, optional
        The probability with which ``precision`` is reached, such as 0.9; the samples must be like those to
        predict. Too few samples to show it are refused; the message says what they can show.
    counts : str
        The share is of the answers, or of all samples (roots), where a sample without an answer counts as right.
    judge : str, optional
        Another split, to evaluate the answers on; of ``data`` if they have it, else of the run's own.
    levels : sequence of str, optional
        A label level (column) of ``data``, from coarse to fine; default the run's.
    **reader_options
        See :func:`load`.

    Returns
    -------
    Calibration
        The answers, kept in the run's ``model/answers.json``, and their figures, in its ``answers.json``.

    Warns
    -----
    RegrainWarning
        For a level with fewer than 50 labelled samples.

    Raises
    ------
    UserError
        If there are no labelled samples that training has not seen, if the samples cannot show the precision with
        that confidence, or if the run predicts no level.
    """
    if run.classifier is not None:
        raise UserError(
            f"{run.path} was adapted, and knows by its support what to abstain from: calibrate the run it came from"
        )
    if not run.model.method.has_classifier:
        raise UserError(
            f"{run.model.method.name} learns embeddings and has no classifier whose probabilities could be calibrated: "
            "`regrain adapt` makes a calibrated one from a few labelled samples"
        )
    taxonomy = taxonomy_of(run.labels)
    if "train" in (split, judge):
        raise UserError(
            "training has seen the split 'train', and is surer of its samples than of new ones: calibrate and judge on "
            "others"
        )
    run.folder.require_writable()
    notes: list[str] = []
    dataset = run.given_or_own(data, reader_options, levels=levels, wanted="own")
    splits, where = run.splits_of(dataset, split or "all", notes)
    name = split or ("all" if "all" in splits else "val")
    if split is None and name not in splits:
        raise UserError(
            f"calibration needs labelled samples that training has not seen, and {where} has no split 'val' (there are "
            f"{', '.join(splits)}): give such samples as --data, or a split that you will not judge by as --split",
            code="unknown_split",
        )
    if judge == name:
        raise UserError(f"answers are not judged on what they were calibrated on: judge on another split than '{name}'")
    if name == "test":
        notes.append("calibrated on 'test': what is judged on that split from now on flatters this run's answers")
    seen = _predicted(run, get_split(splits, name, where))
    judged = None
    if judge is not None:
        known, place = (splits, where) if judge in splits else (run.splits(), str(run.path))
        judged = get_split(known, judge, place, "--judge")
    on = f"{name} of {run.path.name if dataset is None else where}"  # no path: the Hub's folder holds it too
    answers = fit_selective_classifier(
        *seen, taxonomy, precision=precision, confidence=confidence, counts=counts, calibrated_on=on
    )
    if not answers.keeps_promise:
        notes.append(
            f"{precision:g} is aimed at, and about every second calibration falls short of it on new samples: "
            "--confidence 0.9 keeps it"
        )
    figures = evaluate_answers(answers, *seen, taxonomy, split=name)
    report = None
    if judged is not None:
        others = _predicted(run, judged)
        report = replace(
            evaluate_answers(answers, *others, taxonomy, split=str(judge)),
            misses=share_of_misses(answers, seen, others, taxonomy),
        )
    made = Calibration(answers, figures, report, [*notes, *answers.notes()])
    with run.folder.writing():
        answers.save(run.folder.model)
        run.folder.write_json("answers.json", made.to_json())
    run.selective = answers
    return made


def _predicted(run: Run, part: Dataset) -> tuple[dict[str, Tensor], Tensor]:
    """Class probabilities of every level, and the labels in the run's classes."""
    part = run.fitting(part)
    return level_probabilities(run.model, run.labels, part), known_classes(part.labels, run.labels)
