"""What users do with a run: subclasses, few labels, answers, exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from regrain.api.data import with_split
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import level_probabilities
from regrain.hub import export_to_hub
from regrain.pictures.tiles import require_images
from regrain.runs.answers import fit_answers, judge_answers, known_classes, taxonomy_of
from regrain.runs.classifier import fit_classifier
from regrain.runs.run import Run, get_split
from regrain.runs.source import require_no_reading
from regrain.storage.run_folder import RunFolder
from regrain.tasks import Attention, Calibration, Discovery
from regrain.tasks.adapt import read_support
from regrain.tasks.attend import attention_of, require_attention, write_attention
from regrain.tasks.class_count import class_count_of
from regrain.tasks.discover import discover as discover_subclasses
from regrain.tasks.discover import read_discovery, settle_subclasses
from regrain.tasks.export import FORMATS, Export, check_export, write_export
from regrain.tasks.grids import require_drawable, write_grids
from regrain.tasks.predict import predicted_columns
from regrain.tasks.tables import WRITABLE_SUFFIXES, require_writable, write_columns, write_embeddings
from regrain.training.processes import is_first_process
from regrain.training.randomness import callers_random_state

_OWN_LEVELS = (
    "levels (--level) name those of other data: leave them out, or give --data; the run's own are in its recipe"
)


@callers_random_state()
def discover(
    run: Run | str | Path,
    data: Any = None,
    *,
    out: str | Path | None = None,
    superclass: str | None = None,
    subclasses: int | None = None,
    each: int | None = None,
    balanced: bool = False,
    names: str | Path | None = None,
    unaided: bool = False,
    exemplars: int = 10,
    grids: str | Path | None = None,
    estimate_classes: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    write: bool = True,
    split_column: str | None = None,
    **reader_options: Any,
) -> Discovery:
    """The hidden subclasses of a run: for every sample its subclass, for every subclass what it holds.

    The first call settles them, in the run's ``discovery/`` folder: by the method's own subclasses, or by k-means
    within each superclass where it has none. Later calls use the same, so that names stay true; options of k-means, or
    another superclass, settle them anew.

    Parameters
    ----------
    run : Run or path
    data : optional
        Other data than the run's own: their samples are told apart by the subclasses settled on the run's own.
    out : path, optional
        A .csv or .parquet table of the samples; default ``discovery/samples.parquet`` in the run, for its own data.
    superclass : str, optional
        The level of the superclasses; default what the method read as ``coarse``, else the data's first level; none
        for a method that found classes without reading labels.
    subclasses, each, balanced
        See :func:`regrain.tasks.discover.discover`.
    names : path, optional
        A JSON mapping of subclass number to name: it makes the run a classifier of the classes named there. Several
        subclasses may share a name.
    unaided : bool
        Tell the subclasses of all samples but the training ones without their superclass labels, as of new samples.
    exemplars : int
        How many samples nearest to the mean, and farthest from it, are named for each subclass.
    grids : path, optional
        A folder for pictures of the purest, the most mixed and some random subclasses; see
        :func:`regrain.tasks.grids.write_grids`.
    estimate_classes : bool
        Also estimate how many classes there are; see :func:`regrain.tasks.class_count.estimate_class_count`.
    overwrite : bool
        Replace the file at ``out``, the pictures in ``grids``, and subclasses that have names.
    seed : int
        Of k-means, where subclasses are settled.
    write : bool
        Whether the run keeps what is settled here, and the table of its own samples.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Raises
    ------
    UserError
        If the data do not fit the run, an option does not fit the method, a named subclass does not exist, or a file
        would be lost.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    target = None if out is None else Path(out)
    if target is not None:
        require_writable(target, overwrite)
    if grids is not None:
        require_drawable(grids, run.model.config["inputs"]["modality"], str(run.path), overwrite=overwrite)
    clustering = {"subclasses": subclasses, "each": each, "balanced": balanced}
    if run.finds_own(data, with_split(reader_options, split_column)):
        data, split_column, reader_options = None, None, {}
    if data is None:
        require_no_reading(with_split(reader_options, split_column))
        options = {"unaided": unaided, "exemplars": exemplars, "seed": seed}
        parts = run.splits()
        found = settle_subclasses(run, parts, superclass, clustering, names, options, write=write, overwrite=overwrite)
        _look_closer(run, found, parts, grids, estimate_classes, seed)
        if target is not None or write:
            write_columns(found.columns(), target or run.path / "discovery" / "samples.parquet")
        return found
    if any(clustering.values()) or superclass is not None or names is not None:
        raise UserError(
            "--subclasses, --each, --balanced, --superclass and --names are about the run's own subclasses: settle "
            "those first, without --data"
        )
    settled = read_discovery(run)
    if settled is None:
        if not write:
            raise UserError(
                f"the subclasses of {run.path} are not settled yet: `regrain discover {run.path}` settles them"
            )
        settle_subclasses(run, run.splits(), None, {}, None, {"seed": seed})
        settled = read_discovery(run)
        assert settled is not None
    dataset = run.fitting(run.read(data, **with_split(reader_options, split_column)))
    parts = {n: dataset.split(n) for n in dataset.split_names} if dataset.splits is not None else {"": dataset}
    found, _ = discover_subclasses(run.model, parts, settled, unaided=unaided, exemplars=exemplars, seed=seed)
    _look_closer(run, found, parts, grids, estimate_classes, seed)
    if target is not None:
        write_columns(found.columns(), target)
    return found


def _look_closer(
    run: Run,
    found: Discovery,
    parts: Mapping[str, Dataset],
    grids: str | Path | None,
    estimate_classes: bool,
    seed: int,
) -> None:
    """Pictures of what was discovered, and the number of classes, where they were asked for."""
    if grids is not None:
        write_grids(found, parts, grids, split="test" if "test" in parts else None, seed=seed)
    if estimate_classes:
        found.class_count = class_count_of(run.model, parts.get("train", next(iter(parts.values()))), seed=seed)
        found.notes.append(found.class_count.describe())


@callers_random_state()
def attend(
    run: Run | str | Path,
    data: Any = None,
    *,
    out: str | Path | None = None,
    split: str = "test",
    samples: int = 10,
    seed: int = 0,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> Attention:
    """What attends to what, of a run of SCLRE: samples, and the training samples that have most of their attention.

    Parameters
    ----------
    run : Run or path
    data : optional
        Other data than the run's own; whatever :func:`load` reads.
    out : path, optional
        A ``.csv`` or ``.parquet`` table; of images also a ``.png``, with a sample and its nine most attended training
        samples in each row.
    split : str
        Default ``test``.
    samples : int
        How many, equally many of every superclass.
    seed : int
        Draws the samples.
    overwrite : bool
        Replace the file at ``out``.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Raises
    ------
    UserError
        If the run is of another method or was trained without attention, the data do not fit it or have no such split,
        or the file cannot be written.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if samples < 1:
        raise UserError(f"attend shows at least one sample; got {samples}")
    require_attention(run.model.method)
    target = None if out is None else Path(out)
    pictured = target is not None and target.suffix.lower() == ".png"
    if target is not None:
        require_writable(target, overwrite, suffixes=(*WRITABLE_SUFFIXES, ".png"), content="tables and pictures")
    if pictured:
        require_images(run.model.config["inputs"]["modality"], str(run.path), "pictures", "give --out FILE.csv")
    notes: list[str] = []
    if run.finds_own(data, with_split(reader_options, split_column)):
        data, split_column, reader_options = None, None, {}
    parts, where = run.splits(), str(run.path)
    train = parts["train"]
    if data is None:
        require_no_reading(with_split(reader_options, split_column))
    else:
        dataset = run.read(data, **with_split(reader_options, split_column))
        parts, where = run.splits_of(dataset, split, notes), dataset.name
    judged = run.fitting(get_split(parts, split, where))
    found = attention_of(run.model, run.labels, judged, train, samples=samples, seed=seed)
    found.notes += notes
    if target is not None and pictured:
        write_attention(found, judged, train, target)
    elif target is not None:
        write_columns(found.columns(), target)
    return found


@callers_random_state()
def export_embeddings(
    run: Run | str | Path,
    out: str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    levels: Sequence[str] | None = None,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> tuple[int, int]:
    """Write embeddings as Parquet: id, split, one column of class names a level, and ``embedding``, a list of float32.

    Parameters
    ----------
    run : Run or path
    out : path
        A .parquet file.
    data : optional
        Default: the run's own. Others are read as those were; a table may lack the labels.
    split : str, optional
        Only this split; default all.
    overwrite : bool
        Replace the file.
    levels, split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    (rows, width)

    Raises
    ------
    UserError
        If the data do not fit the run, or have no such split, or the file would be lost.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    require_writable(Path(out), overwrite, suffixes=(".parquet", ".pq"), content="embeddings")
    if levels is None and run.finds_own(data, with_split(reader_options, split_column)):
        data, split_column, reader_options = None, None, {}
    if data is None:
        require_no_reading(with_split(reader_options, split_column))
        if levels is not None:
            raise UserError(_OWN_LEVELS)
        parts, where = run.splits(), str(run.path)
    else:
        dataset = run.read(data, **with_split(reader_options, split_column), levels=levels)
        parts = {n: dataset.split(n) for n in dataset.split_names} if dataset.splits is not None else {"": dataset}
        where = dataset.name
    if split is not None:
        parts = {split: get_split(parts, split, where)}
    embedded = {name: (part, run.embed(part)) for name, part in parts.items()}
    if is_first_process():
        return write_embeddings(embedded, Path(out))
    return sum(len(part) for part in parts.values()), next(iter(embedded.values()))[1].shape[1]


@callers_random_state()
def adapt(
    run: Run | str | Path,
    support: Any,
    out: str | Path,
    *,
    data: Any = None,
    level: str | None = None,
    abstain: float = 0.05,
    inverse_penalty: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> Run:
    """A few labelled samples become a classifier on a run's embeddings, in a run folder of its own.

    Parameters
    ----------
    run : Run or path
        Stays as it is.
    support
        A table with ids of the run's own data and labels, or labelled samples: see
        :func:`regrain.tasks.adapt.read_support`.
    out : path
        The new run folder: the same model, and the classifier.
    data : optional
        Where the run's own data are now, if they are no longer where they were.
    level : str, optional
        The column of the labels; default the table's only one beside the ids, or the finest.
    abstain, inverse_penalty, seed
        See :func:`regrain.runs.classifier.fit_classifier`.
    overwrite : bool
        Replace a run that lies at ``out``.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    Run
        With ``classifier``; its ``notices`` say what was chosen and left out.

    Raises
    ------
    UserError
        For a support that names unknown ids, fewer than two classes, or samples that do not fit the run.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    place = Path(out)
    if place.resolve() == run.path.resolve():
        raise UserError(f"{place} is the run that is adapted, and stays as it is: choose another --out")
    if data is not None:
        run.take_data(data)
    reading = run.inherited_options(support, with_split(reader_options, split_column))
    found = read_support(support, level=level, own_splits=run.splits, reader=reading)
    classifier = fit_classifier(
        torch.cat([run.embed(part) for part in found.parts]),
        found.labels,
        level=found.level,
        classes=found.classes,
        abstain=abstain,
        inverse_penalty=inverse_penalty,
        seed=seed,
    )
    notices = [*found.notices, *classifier.notices]
    added = [
        f"adapted to {len(classifier.classes)} classes of '{found.level}' by {len(found.labels)} samples",
        *notices,
    ]
    folder = RunFolder(place, verify=run.folder.verify)
    with folder.writing():
        folder.begin(overwrite=overwrite)
        folder.write_text("card.md", run.folder.read_card() + "\n" + "".join(f"- {line}\n" for line in added))
        folder.copy_model(run.folder, classifier.save)
    return Run(folder, run.data, run.device, notices)


@callers_random_state()
def calibrate(
    run: Run | str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    precision: float = 0.95,
    judge: str | None = None,
    levels: Sequence[str] | None = None,
    split_column: str | None = None,
    **reader_options: Any,
) -> Calibration:
    """Let a run answer at the most specific level that it is sure of, by labelled samples that it has not seen.

    Afterwards :func:`predict` adds the answers. See :class:`regrain.runs.answers.Answers` for the rule, and
    :func:`regrain.runs.answers.fit_answers` for what the samples decide. A sample may be labelled at any mixture of
    the run's levels.

    Parameters
    ----------
    run : Run or path
        Of a method that predicts levels; calibrating again replaces the earlier answers. Levels that nest are answered
        at the most specific one that the run is sure of, aspects one by one.
    data : optional
        Labelled samples to calibrate on, none of which training has seen; default: the run's own.
    split : str, optional
        The split to calibrate on; default ``val``, or all of ``data`` without splits.
    precision : float
        In (0, 1]: the share of right answers to aim at, level by level.
    judge : str, optional
        Another split to judge the answers on: of ``data`` if they have it, else of the run's own.
    levels : sequence of str, optional
        Label levels of ``data``; default the run's.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

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
        If there are no labelled samples that training has not seen, or the run predicts no level.
    """
    run = run if isinstance(run, Run) else Run.open(run)
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
    notes: list[str] = []
    if levels is None and run.finds_own(data, with_split(reader_options, split_column)):
        data, split_column, reader_options = None, None, {}
    if data is None:
        require_no_reading(with_split(reader_options, split_column))
        if levels is not None:
            raise UserError(_OWN_LEVELS)
        parts, where = run.splits(), str(run.path)
    else:
        dataset = run.read(data, **with_split(reader_options, split_column), levels=levels, labels="own")
        parts, where = run.splits_of(dataset, split or "all", notes), dataset.name
    name = split or ("all" if "all" in parts else "val")
    if split is None and name not in parts:
        raise UserError(
            f"calibration needs labelled samples that training has not seen, and {where} has no split 'val' (there are "
            f"{', '.join(parts)}): give such samples as --data, or a split that you will not judge by as --split",
            code="unknown_split",
        )
    if judge == name:
        raise UserError(f"answers are not judged on what they were calibrated on: judge on another split than '{name}'")
    if name == "test":
        notes.append("calibrated on 'test': what is judged on that split from now on flatters this run's answers")
    seen = _predicted(run, get_split(parts, name, where))
    judged = None
    if judge is not None:
        judged = get_split(parts, judge, where) if judge in parts else get_split(run.splits(), judge, str(run.path))
    answers = fit_answers(*seen, taxonomy, precision=precision, calibrated_on=f"{name} of {where}")
    made = Calibration(
        answers,
        judge_answers(answers, *seen, taxonomy, split=name),
        None if judged is None else judge_answers(answers, *_predicted(run, judged), taxonomy, split=str(judge)),
        [*notes, *answers.notes()],
    )
    with run.folder.writing():
        answers.save(run.folder.model)
        run.folder.write_json("answers.json", made.to_json())
    run.answers = answers
    return made


def _predicted(run: Run, part: Dataset) -> tuple[dict[str, Tensor], Tensor]:
    """Class probabilities of every level, and the labels in the run's classes."""
    part = run.fitting(part)
    return level_probabilities(run.model, run.labels, part), known_classes(part.labels, run.labels)


@callers_random_state()
def predict(
    run: Run | str | Path,
    data: Any,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    overwrite: bool = False,
    split_column: str | None = None,
    **reader_options: Any,
) -> pd.DataFrame:
    """Predict the class of every sample at every level that a run can predict.

    A run of a method with a classifier predicts the level that it was trained on; an adapted run also the level of its
    support, and says which samples it abstains from: those are unlike all samples of the support. A run whose
    subclasses were discovered predicts ``subclass``, by the names that they have. A run that was calibrated adds its
    answer: the class of the most specific level that it is sure of, or none.

    Parameters
    ----------
    run : Run or path
    data
        A Dataset, or whatever :func:`load` reads; labels in it are not looked at.
    out : path, optional
        A table to write, too; ends in ``.csv`` or ``.parquet``.
    split : str, optional
        Only this split; default all.
    overwrite : bool
        Replace the file.
    split_column, **reader_options
        See :func:`load` and :func:`evaluate`.

    Returns
    -------
    DataFrame
        A row a sample: ``id``, the path of an image, ``split`` where there are splits, for each level its
        classes and ``LEVEL_probability``, ``subclass`` and ``subclass_probability`` of discovered ones, ``abstained``
        for an adapted run, and ``answer``, ``answer_level`` and ``answer_probability`` for a calibrated one.

    Raises
    ------
    UserError
        If the file's ending is unknown, the data do not fit the run, or it has nothing to predict with.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    if out is not None:
        require_writable(Path(out), overwrite)
    dataset = run.read(data, labels="none", **with_split(reader_options, split_column))
    dataset = run.fitting(dataset if split is None else dataset.split(split))
    columns = predicted_columns(
        run.model,
        run.labels,
        dataset,
        classifier=run.classifier,
        settled=read_discovery(run),
        answers=run.answers,
    )
    if out is not None:
        write_columns(columns, Path(out))
    return pd.DataFrame(columns)


@callers_random_state()
def export(
    run: Run | str | Path,
    out: str | Path | None = None,
    *,
    format: str,
    licence: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a run's encoder as other software loads it, or the whole model as a folder to share.

    Parameters
    ----------
    run : Run or path
    out : path, optional
        Default ``RUN/export/NAME-FORMAT`` with the format's ending.
    format : {"timm", "torchvision", "detectron2", "safetensors", "onnx", "hub"}
        Weights under that framework's names (``safetensors``: under Regrain's own, of any encoder); for ``onnx`` a
        graph from normalised input to what evaluation uses; for ``hub`` a folder that :mod:`regrain.hub` loads.
    licence : str, optional
        For ``hub``: the Hub's name of a licence, such as ``apache-2.0``.
    overwrite : bool
        Replace the file, or the folder.

    Returns
    -------
    Export
        The file, the lines that load it, what its input must look like, and what it does not hold.

    Raises
    ------
    UserError
        If the framework has no network that these weights fit (the message says which formats do), the file exists,
        or an ONNX graph does not give the model's embeddings within 1e-4.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> from regrain.api import fit
    >>> run = fit("maskcon", "digits", encoder="conv4", out=folder.name, epochs=1, limit_per_class=20)
    >>> export(run, format="safetensors").keys
    24
    >>> export(run, format="timm")
    Traceback (most recent call last):
    regrain.errors.UserError: the encoder 'conv4' is no timm model; formats that fit this run: safetensors or onnx
    >>> folder.cleanup()
    """
    run = run if isinstance(run, Run) else Run.open(run)
    ending = FORMATS.get(format, ("",))[0]
    place = Path(out) if out is not None else run.path / "export" / f"{run.path.resolve().name}-{format}{ending}"
    if licence is not None and format != "hub":
        raise UserError(f"a licence goes into the model card of format 'hub'; format '{format}' has none")
    if format == "hub":
        return export_to_hub(run, place, licence=licence, overwrite=overwrite)
    check_export(format, place, overwrite=overwrite)
    model = Run(run.folder, device="cpu").model  # a copy: the run's own may be on a GPU, and stays there
    made = write_export(model, format, place, model_folder=run.folder.model_folder)
    return replace(made, notices=(*made.notices, *_left_out_of(run)))


def _left_out_of(run: Run) -> list[str]:
    """Names what a run has learned since training that an encoder alone does not hold."""
    found = (
        [] if run.classifier is None else [f"the classifier of '{run.classifier.level}' that the run was adapted to"]
    )
    found += [] if run.answers is None else ["the answers that the run was calibrated to give"]
    return [f"{what} is not in it: the format hub holds the whole model" for what in found]
