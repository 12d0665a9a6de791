"""Hidden subclasses of a trained run: which sample has which, what each holds, and how they agree with finer labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrain.data.dataset import Dataset
from regrain.errors import UserError, nearest
from regrain.evaluation import apply_model, embed
from regrain.labels import Labels
from regrain.methods.clustering import Counts, cluster_within
from regrain.metrics import clustering_metrics, novel_accuracy
from regrain.model import Model
from regrain.runs.class_count import ClassCount
from regrain.runs.naming import proposed_names
from regrain.runs.run import Run
from regrain.runs.subclass_model import (
    BLOCK,
    SubclassModel,
    is_own_name,
    own_name,
    read_discovery,
    read_names,
    write_subclass_files,
)
from regrain.runs.tables import frame_of
from regrain.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

_EXEMPLARS = 10
"""Samples that a subclass is named by, where it is named by a few."""


@dataclass(frozen=True)
class Subclass:
    """One discovered subclass."""

    number: int
    name: str
    """Given by the user, else ``superclass/number``."""
    superclass: str | None
    """Of most of its samples."""
    superclass_share: float
    """The share of them."""
    size: int
    sizes: dict[str, int]
    """By split."""
    purity: dict[str, dict[str, Any]]
    """Level -> majority class, its share, and the number of labelled samples; levels below the superclass only."""
    exemplars: list[str]
    outliers: list[str]
    """``exemplars``, ``outliers``: ids of the samples nearest to its mean, and farthest from it."""
    texts: list[str]
    """Texts of the exemplars, where samples are texts."""
    known: str | None = None
    """The class whose labelled samples it keeps together; None for a subclass that was found."""
    proposed_name: str = ""
    """By :func:`regrain.runs.naming.proposed_names`; empty where nothing is proposed."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


@dataclass
class Discovery:
    """Discovered subclasses of samples."""

    level: str | None
    """The level of the superclasses."""
    ids: np.ndarray
    splits: np.ndarray
    """``ids``, ``splits``: arrays of str (N,)."""
    subclass: np.ndarray
    """Array (N,)."""
    probability: np.ndarray
    """Array (N,): of that subclass, given the superclass where it is known."""
    superclass: list[str | None]
    """List of str or None (N,): the label, or what the method predicts."""
    given: np.ndarray
    """Array of bool (N,): whether the superclass is a label."""
    similarity: np.ndarray
    """Array (N,): cosine to the mean of the subclass."""
    subclasses: list[Subclass]
    """Subclasses that have samples, the largest first within a superclass."""
    figures: dict[str, float] = field(default_factory=dict)
    """``split/level/metric`` -> agreement with labels below the superclass: NMI, purity, ACC, ARI."""
    notes: list[str] = field(default_factory=list)
    class_count: ClassCount | None = None
    """The estimated number of classes, where it was asked for."""
    known_level: str | None = None
    """The level whose labelled classes were kept."""
    file: Path | None = None
    """Where the table of samples was written; None if it was not."""

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value:.3f}" for name, value in self.figures.items())
        return f"<Discovery of {len(self.subclasses)} subclasses among {len(self.ids)} samples{figures}>"

    def to_frame(self) -> pd.DataFrame:
        """The table of samples: a row a sample."""
        return frame_of(self.columns())

    def _repr_html_(self) -> str:
        """For notebooks: a line a subclass."""
        import pandas as pd

        proposed = any(s.proposed_name for s in self.subclasses)
        shown = [
            {
                "name": s.name,
                **({} if self.known_level is None else {"known": s.known is not None}),
                **({"proposed name": s.proposed_name} if proposed else {}),
                "superclass": s.superclass,
                "samples": s.size,
                **{level: f"{held['class']} {100 * held['share']:.0f}%" for level, held in s.purity.items()},
            }
            for s in self.subclasses
        ]
        numbers = pd.Index([s.number for s in self.subclasses], name="subclass")
        return pd.DataFrame(shown, index=numbers).to_html(na_rep="")

    def rename(self, names: Mapping[int, str]) -> None:
        """Give subclasses names, number by number."""
        self.subclasses = [replace(s, name=names.get(s.number, s.name)) for s in self.subclasses]

    def columns(self) -> dict[str, Any]:
        """The table of samples."""
        names, codes = {s.number: s.name for s in self.subclasses}, self.subclass.tolist()
        found: dict[str, Any] = {
            "id": self.ids,
            "split": self.splits,
            "subclass": self.subclass,
            "name": [names[z] for z in codes],
            "probability": self.probability,
            "superclass": self.superclass,
            "superclass_is": np.where(self.given, "given", "predicted"),
            "similarity": self.similarity,
        }
        if self.known_level is not None:
            known = {s.number for s in self.subclasses if s.known is not None}
            found["known"] = [z in known for z in codes]
        proposed = {s.number: s.proposed_name for s in self.subclasses}
        if any(proposed.values()):
            found["proposed_name"] = [proposed[z] for z in codes]
        return found


def assign_subclasses(
    model: Model,
    splits: Mapping[str, Dataset],
    fitted: SubclassModel,
    *,
    subclasses: int | None = None,
    each: int | str | None = None,
    balanced: bool = False,
    known: str | None = None,
    own_samples: bool = False,
    ignore_coarse_labels: bool = False,
    exemplars: int = 10,
    seed: int = 0,
) -> tuple[Discovery, SubclassModel]:
    """The subclass of every sample, by the method's own subclasses or by k-means within each superclass.

    Parameters
    ----------
    splits : mapping of split to Dataset
        k-means is fitted on ``train``, or on all samples if there is no such split.
    fitted : SubclassModel
        With the centres of an earlier call, those are used.
    subclasses : int, optional
        k-means: number in all.
    each : int or str, optional
        k-means: number in every superclass, see :func:`counts_of`; default: by silhouette, 1 to 10.
    balanced : bool
        k-means: subclasses of equal size within a superclass, by Sinkhorn.
    known : str, optional
        k-means: a level whose classes that have labels in ``train`` are subclasses of their own, found or not.
    own_samples : bool
        Whether ``splits`` are the run's own: labelled training samples then stay with their known classes.
    ignore_coarse_labels : bool
        Tell the subclasses of all samples but ``train`` without their superclass labels, as of new samples.
    exemplars : int
        How many exemplars and outliers to name.

    Returns
    -------
    Discovery, SubclassModel

    Raises
    ------
    UserError
        If options of k-means come with a method that has subclasses of its own, or superclasses are missing.
    """
    own = model.method.has_subclasses
    if own and (subclasses is not None or each is not None or balanced or known is not None):
        raise UserError(
            f"{model.method.name} has subclasses of its own: --subclasses, --each, --balanced and --known are for "
            "methods without, which are clustered"
        )
    embedded = {name: functional.normalize(embed(model, part), dim=1) for name, part in splits.items()}
    fitted_on = ["train"] if "train" in splits else list(splits)
    if fitted.centres is None and not own:
        vectors = torch.cat([embedded[name] for name in fitted_on])
        counts = None if each is None else counts_of(each, fitted.superclasses)
        options = {"total": subclasses, "each": counts, "balanced": balanced, "seed": seed}
        fitted = _clustered(fitted, vectors, [splits[name] for name in fitted_on], known, options)
    notes = _cluster_notes(fitted, model, balanced)
    labels = _superclass_codes(fitted, splits, ignore_coarse_labels, notes)
    assigned = [fitted.assigned(model, part, labels[name], embedded[name]) for name, part in splits.items()]
    probability, codes, coarse = (torch.cat(column) for column in zip(*assigned, strict=True))
    count = _subclass_count(model, splits) if fitted.centres is None else len(fitted.centres)
    if own_samples:
        stay = torch.cat([fitted.kept(p) if n in fitted_on else torch.full((len(p),), -1) for n, p in splits.items()])
        probability, codes = probability.where(stay < 0, 1.0), codes.where(stay < 0, stay)
    given = torch.cat(list(labels.values())) >= 0
    coarse = torch.where(coarse < 0, _majorities(coarse, codes, count)[codes], coarse)
    discovery = Discovery(
        level=fitted.level,
        ids=np.concatenate([part.ids for part in splits.values()]),
        splits=np.concatenate([np.full(len(part), name) for name, part in splits.items()]),
        subclass=codes.numpy(),
        probability=probability.numpy(),
        superclass=[fitted.superclasses[c] if fitted.level is not None and c >= 0 else None for c in coarse.tolist()],
        given=given.numpy() & (fitted.level is not None),
        similarity=_similarity_to_means(list(embedded.values()), codes, count).numpy(),
        subclasses=[],
        notes=notes,
        known_level=fitted.known_level,
    )
    finer = _finer_labels(splits, fitted.level)
    nearest = _rows_by_similarity(discovery)
    discovery.subclasses = _describe(discovery, coarse, fitted, finer, exemplars, list(splits.values()), nearest)
    discovery.subclasses = _with_proposals(discovery, model, list(splits.values()), nearest)
    discovery.figures = _figures(discovery, finer, fitted, fitted_on if own_samples else [])
    empty = count - len(discovery.subclasses)
    if empty:
        notes.append(f"{empty} of {count} subclasses have no sample here")
    return discovery, fitted


def _clustered(
    fitted: SubclassModel, vectors: Tensor, splits: Sequence[Dataset], known: str | None, options: Mapping[str, Any]
) -> SubclassModel:
    """Clusters of the unit embeddings (N, d) of some splits, within each superclass; known classes keep their names."""
    coarse = torch.cat([fitted.codes(part) for part in splits])
    if not bool((coarse >= 0).any()):
        raise UserError(f"no sample has a label of level '{fitted.level}': choose another --superclass")
    count, total = int((coarse >= 0).sum()), options["total"]
    if total is not None and total > count:
        raise UserError(
            f"there are {count} samples to cluster, and --subclasses asks for {total} clusters of them: ask for fewer",
            code="out_of_range",
        )
    classes = None if known is None else torch.cat([part.labels.level(known) for part in splits])
    clusters = cluster_within(vectors, coarse, known=classes, **options)
    fitted = replace(fitted, centres=clusters.centres, owners=clusters.superclass, offsets=clusters.offsets)
    if known is None:
        return fitted
    names = splits[0].labels.names(known)
    kept = {z: names[code] for z, code in enumerate(clusters.known.tolist()) if code >= 0}
    return replace(fitted, known_level=known, known=kept, names=dict(kept))


def _cluster_notes(fitted: SubclassModel, model: Model, balanced: bool) -> list[str]:
    """Sentences on subclasses that are clusters: how they were found, and how many are known classes."""
    if model.method.has_subclasses:
        return []
    notes = [
        f"{model.method.name} has no subclasses of its own: these are clusters within each superclass, of k-means "
        f"on the training samples{', of equal size' if balanced else ''}"
    ]
    if fitted.known_level is not None and fitted.centres is not None:
        found = len(fitted.centres) - len(fitted.known)
        notes.append(
            f"{len(fitted.known)} classes of '{fitted.known_level}' have labels in training and are kept, {found} "
            f"others were found: {len(fitted.centres)} in all"
        )
    return notes


def _superclass_codes(
    fitted: SubclassModel, splits: Mapping[str, Dataset], ignore_coarse_labels: bool, notes: list[str]
) -> dict[str, Tensor]:
    """The superclass labels (N,) of every split by the run's codes, -1 where there are none or they are ignored."""
    labels = {name: fitted.codes(part) for name, part in splits.items()}
    unknown_superclasses = sorted({name for part in splits.values() for name in fitted.unknown_superclasses(part)})
    if unknown_superclasses:
        named = ", ".join(map(repr, unknown_superclasses[:3])) + (", ..." if len(unknown_superclasses) > 3 else "")
        notes.append(f"the run knows no superclass {named}: samples labelled so count as unlabelled")
    if ignore_coarse_labels:
        labels |= {name: torch.full_like(codes, -1) for name, codes in labels.items() if name != "train"}
        notes.append("superclass labels of other samples than train were not looked at")
    return labels


def _similarity_to_means(embedded: Sequence[Tensor], codes: Tensor, count: int) -> Tensor:
    """(N,): the cosine of every unit embedding to the mean of its subclass, of all splits together."""
    of_parts = codes.split([len(vectors) for vectors in embedded])
    sums = torch.zeros(count, embedded[0].shape[1])
    for vectors, own in zip(embedded, of_parts, strict=True):
        sums.index_add_(0, own, vectors)
    means = functional.normalize(sums, dim=1)
    blocks = [
        (block * means[own]).sum(dim=1)
        for vectors, of_part in zip(embedded, of_parts, strict=True)
        for block, own in zip(vectors.split(BLOCK), of_part.split(BLOCK), strict=True)
    ]
    return torch.cat(blocks)


def _rows_by_similarity(discovery: Discovery) -> dict[int, np.ndarray]:
    """Subclass -> the rows of its samples, the nearest to its mean first."""
    order = np.lexsort((-discovery.similarity, discovery.subclass))
    numbers, starts = np.unique(discovery.subclass[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given: 0 is one, to be refused; None and False are not."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def counts_of(each: int | str, superclasses: Sequence[str]) -> Counts | dict[int, Counts]:
    """Read the number of subclasses of a superclass: a number, bounds, or one of these by name.

    Examples
    --------
    >>> counts_of(5, ()), counts_of("3-20", ())
    (5, (3, 20))
    >>> counts_of("work=15,travel=3-8", ("banking", "travel", "work"))
    {2: 15, 1: (3, 8)}
    """
    text = str(each)
    if "=" not in text:
        return _count(text, text)
    found = {}
    for part in text.split(","):
        name, _, count = (piece.strip() for piece in part.rpartition("="))
        if name not in superclasses:
            raise UserError(f"--each: there is no superclass '{name}': {nearest(name, superclasses)}")
        found[list(superclasses).index(name)] = _count(count, text)
    return found


def _count(text: str, given: str) -> Counts:
    found = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", text, re.ASCII)
    low, high = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= low <= high:
        raise UserError(
            "--each takes a number of subclasses of a superclass, at least 1, or bounds such as 3-20, or these by name "
            f"such as work=15,travel=3-20; got '{given}'",
            code="out_of_range",
        )
    return low if low == high else (low, high)


def _subclass_count(model: Model, splits: Mapping[str, Dataset]) -> int:
    """How many subclasses the method has of its own."""
    few = next(part for part in splits.values() if len(part)).select([0])
    return apply_model(model, few, model.method.subclass_proba, beside=torch.tensor([-1])).shape[1]


def _majorities(coarse: Tensor, codes: Tensor, count: int) -> Tensor:
    """(r,): the most frequent known superclass of every subclass, -1 where there is none."""
    known = coarse >= 0
    classes = int(coarse.max()) + 1
    if classes < 1:
        return torch.full((count,), -1)
    table = torch.bincount(codes[known] * classes + coarse[known], minlength=count * classes).view(count, classes)
    return table.argmax(dim=1).where(table.sum(dim=1) > 0, -1)


@dataclass(frozen=True)
class _Finer:
    """Labels of one level below the superclass: (N,) codes over all splits, and the names of each part's codes."""

    level: str
    codes: Tensor
    names: tuple[str, ...]


def _finer_labels(splits: Mapping[str, Dataset], level: str | None) -> list[_Finer]:
    """Every level below the superclasses' that has labels in some part."""
    result = []
    first = next(iter(splits.values())).labels
    start = first.levels.index(level) + 1 if level in first.levels else 0
    for name in first.levels[start:]:
        codes = torch.cat([part.labels.level(name) for part in splits.values()])
        if bool((codes >= 0).any()):
            result.append(_Finer(name, codes, first.names(name)))
    return result


def _describe(
    discovery: Discovery,
    coarse: Tensor,
    fitted: SubclassModel,
    finer: Sequence[_Finer],
    exemplars: int,
    splits: Sequence[Dataset],
    nearest: Mapping[int, np.ndarray],
) -> list[Subclass]:
    """The subclasses that have samples, by superclass and size; ``nearest`` as of :func:`_rows_by_similarity`."""
    codes = torch.from_numpy(discovery.subclass)
    owners = _majorities(coarse, codes, int(codes.max()) + 1)
    found: list[Subclass] = []
    for number in sorted(nearest, key=lambda z: (int(owners[z]), -len(nearest[z]), z)):
        places = nearest[number]
        rows, owner = torch.from_numpy(places), int(owners[number])
        label = fitted.superclasses[owner] if fitted.level is not None and owner >= 0 else None
        names, counts = np.unique(discovery.splits[places], return_counts=True)
        found.append(
            Subclass(
                number=number,
                name=fitted.names.get(number, own_name(number, label)),
                superclass=label,
                superclass_share=float((coarse[rows] == owner).float().mean()) if label else 0.0,
                size=len(places),
                sizes=dict(zip(names.tolist(), counts.tolist(), strict=True)),
                purity={level.level: _purity(level, rows) for level in finer if bool((level.codes[rows] >= 0).any())},
                exemplars=[str(i) for i in discovery.ids[places[:exemplars]]],
                outliers=[str(i) for i in discovery.ids[places[::-1][:exemplars]]],
                texts=_texts(splits, places[:exemplars]),
                known=fitted.known.get(number),
            )
        )
    return found


def _with_proposals(
    discovery: Discovery, model: Model, splits: Sequence[Dataset], nearest: Mapping[int, np.ndarray]
) -> list[Subclass]:
    """The subclasses with proposed names; known classes have theirs."""
    above = {s.number: s.superclass for s in discovery.subclasses}
    few = {s.number: nearest[s.number][:_EXEMPLARS] for s in discovery.subclasses}
    names = proposed_names(model, splits, discovery.subclass, above, few)
    return [replace(s, proposed_name=names.get(s.number, "") if s.known is None else "") for s in discovery.subclasses]


def _texts(splits: Sequence[Dataset], rows: np.ndarray) -> list[str]:
    """Return the texts of rows of all splits together; none if samples are not texts."""
    if splits[0].modality != "text":
        return []
    starts = np.cumsum([0, *map(len, splits)])
    owners = np.searchsorted(starts, rows, side="right") - 1
    return [
        splits[owner].samples.take(torch.tensor([row - starts[owner]]))[0]
        for owner, row in zip(owners, rows, strict=True)
    ]


def _purity(level: _Finer, rows: Tensor) -> dict[str, Any]:
    known = level.codes[rows]
    counts = torch.bincount(known[known >= 0])
    return {
        "class": level.names[int(counts.argmax())],
        "share": float(counts.max() / counts.sum()),
        "labelled": int(counts.sum()),
    }


def _figures(
    discovery: Discovery, finer: Sequence[_Finer], fitted: SubclassModel, used: Sequence[str]
) -> dict[str, float]:
    """Agreement of subclasses with finer labels, split by split.

    At the level of known classes none of the splits whose labels were ``used``; of the others also
    :func:`~regrain.metrics.novel_accuracy`, the classes without labels in training being new.
    """
    figures: dict[str, float] = {}
    kept = set(fitted.known.values())
    for split in dict.fromkeys(discovery.splits.tolist()):
        inside = torch.from_numpy(discovery.splits == split)
        for level in finer:
            known = inside & (level.codes >= 0)
            if int(known.sum()) < 2 or (level.level == fitted.known_level and split in used):
                continue
            labels, clusters = level.codes[known], torch.from_numpy(discovery.subclass)[known]
            metrics = clustering_metrics(labels, clusters)
            prefix = f"{split}/" if split else ""
            figures |= {f"{prefix}{level.level}/{m}": metrics[m] for m in ("nmi", "purity", "acc", "ari")}
            if level.level == fitted.known_level:
                old = [code for code, name in enumerate(level.names) if name in kept]
                by_age = novel_accuracy(labels, clusters, old)
                figures |= {f"{prefix}{level.level}/novel-{n}": v for n, v in by_age.items() if not math.isnan(v)}
    return figures


def fit_subclasses(
    run: Run,
    splits: Mapping[str, Dataset],
    *,
    superclass: str | None = None,
    clustering: Mapping[str, Any] | None = None,
    names: str | Path | None = None,
    write: bool = True,
    overwrite: bool = False,
    **options: Any,
) -> tuple[Discovery, SubclassModel]:
    """The subclasses of the run's own data, as fitted before or again; ``write`` keeps them in ``discovery/``.

    Options of ``clustering``, or another superclass, fit them again; where they have names only with ``overwrite``.
    """
    read_as_coarse = run.recipe["data"]["roles"].get("coarse")
    labels = splits["train"].labels if "train" in splits else next(iter(splits.values())).labels
    if superclass is not None:
        labels.level_index(superclass)
        if read_as_coarse not in (None, superclass):
            raise UserError(
                f"{run.path} read '{read_as_coarse}' as superclasses, so that its subclasses lie in those: leave "
                "--superclass out, or train on the other level"
            )
    fitted = read_discovery(run)
    asked = given_of(clustering or {})
    known = asked.get("known")
    if known is not None:
        labels.level_index(known)
    if fitted is None or asked or superclass not in (None, fitted.level):
        if names is not None and fitted is not None:
            raise UserError("--names are for the subclasses already settled: give them without options of clustering")
        named = {} if fitted is None else fitted.names.items() - fitted.known.items()
        given = sum(not is_own_name(*item) for item in named)
        if given and write and not overwrite:
            raise UserError(
                f"{given} subclasses of {run.path} have names, which other subclasses would not keep: "
                "leave the options of clustering out, or settle them again with --overwrite"
            )
        if known is None and not run.model.method.has_subclasses:
            known = _finest_read(run, labels)
            asked |= {} if known is None else {"known": known}
        labelled = [level for level in labels.levels if labels.known[level]]
        clustered_within = labelled[0] if labelled and not run.model.method.has_subclasses else None
        level = read_as_coarse or superclass or clustered_within
        if known is not None:
            level = _above_known(known, level, superclass, labels)
        known_names = run.labels if read_as_coarse and level is not None else labels
        fitted = SubclassModel(level, known_names.names(level) if level is not None else ())
    found, fitted = assign_subclasses(run.model, splits, fitted, own_samples=True, **options, **asked)
    if names is not None:
        found.rename(read_names(names, [s.number for s in found.subclasses]))
    if write:
        write_discovery(run.folder, found, fitted)
    return found, fitted


def _finest_read(run: Run, labels: Labels) -> str | None:
    """The finest level that a method of several nested levels read: its classes with labels are known ones."""
    read = list(run.recipe["data"]["roles"].values())
    return max(read, key=labels.level_index) if len(read) > 1 and labels.taxonomy is not None else None


def _above_known(known: str, level: str | None, superclass: str | None, labels: Labels) -> str | None:
    """The level of the superclasses of known classes; None where it would be their own."""
    if level is None or level == known:
        if superclass == known:
            raise UserError(f"--superclass is a level above the known classes'; both are '{known}'")
        return None
    if labels.level_index(level) > labels.level_index(known):
        raise UserError(
            f"--known is a level below the superclasses' ('{level}'); got '{known}'", code="conflicting_options"
        )
    return level


def write_discovery(run: RunFolder, discovery: Discovery, fitted: SubclassModel) -> None:
    """Write the run folder's ``discovery/``."""
    rows = [s.to_json() for s in discovery.subclasses]
    extra = {"figures": discovery.figures, "notes": discovery.notes, "subclasses": rows}
    write_subclass_files(run, fitted, extra)
