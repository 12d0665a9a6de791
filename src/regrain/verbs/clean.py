"""``clean``: labels that a classifier on the embedding doubts, with the class that it proposes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from regrain.checks import Seed
from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import embed
from regrain.metrics import label_quality
from regrain.metrics.logistic import probe_probabilities
from regrain.runs.tables import require_writable, write_columns
from regrain.runs.verb import RunOrPath, verb
from regrain.spelling import counted

if TYPE_CHECKING:
    import pandas as pd

_FOLDS = 5
_INVERSE_PENALTY = 10.0
"""C of the logistic regression, on unit vectors."""


@dataclass
class Cleaning:
    """Doubtful labels of a run."""

    table: pd.DataFrame
    """One row a sample with a doubtful label, the most doubtful first: ``id``, ``split``, and for each level ``LEVEL``
    (the label), ``LEVEL_proposed``, ``LEVEL_confidence`` (the probability of the proposed class), ``LEVEL_score`` (that
    of the label) and ``LEVEL_doubtful``.
    """
    counts: pd.DataFrame
    """One row a split and level: ``labels`` that were judged, and ``doubtful`` ones."""
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        counts = (f"{r.doubtful} of {r.labels} in {r.split}/{r.level}" for r in self.counts.itertuples())
        return f"<Cleaning: doubtful labels: {', '.join(counts)}>"

    def to_frame(self) -> pd.DataFrame:
        """The doubtful samples."""
        return self.table

    def to_json(self) -> dict[str, Any]:
        """The counts and the notes."""
        return {"doubtful": self.counts.to_dict("records"), "notes": self.notes}


@verb
def clean(
    run: RunOrPath,
    data: Any = None,
    *,
    out: str | Path | None = None,
    levels: Sequence[str] | None = None,
    seed: Seed = 0,
    overwrite: bool = False,
    **reader_options: Any,
) -> Cleaning:
    """Find doubtful labels of every split, and propose a class for each.

    At each level a logistic regression is fitted on the embeddings of the training samples. Training samples are judged
    by five-fold cross-fitting, each by a classifier that did not see its label, and whole groups are held out together;
    samples of other splits, or of other data, by the classifier of all training samples. A label is doubtful where
    confident learning counts it as wrong (:func:`regrain.metrics.label_quality`).

    Parameters
    ----------
    run : Run or path
        A run folder, or a Run.
    data : optional
        Other data than the run's own, whose labels are scored: whatever :func:`load` reads, such as a path.
    out : path, optional
        A table of the doubtful samples, .csv or .parquet.
    levels : sequence of str, optional
        A label level to judge; default: all that have labels.
    seed : int
        Of the folds.
    overwrite : bool
        Replace the file.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        If the data do not fit the run, no level can be judged, or the file would be lost.

    Examples
    --------
    >>> import tempfile, regrain
    >>> folder = tempfile.TemporaryDirectory()
    >>> run = regrain.fit("features", "digits", encoder="identity", out=folder.name + "/run", limit_per_class=40)
    >>> found = run.clean(levels=["digit"])
    >>> list(found.table.columns)[:4], list(found.counts["split"])
    (['id', 'split', 'digit', 'digit_proposed'], ['train', 'test'])
    >>> folder.cleanup()
    """
    import pandas as pd

    if out is not None:
        require_writable(Path(out), overwrite)
    other = run.given_or_own(data, reader_options)
    own = run.splits()
    train = run.fitting(own["train"])
    splits = own if other is None else other.by_split()
    splits = {name: run.fitting(part) for name, part in splits.items()}
    if other is None:
        splits = {"train": train, **{name: part for name, part in splits.items() if name != "train"}}
    if levels is not None and not len(levels):
        raise UserError("levels is an empty list: name one, or leave it out", code="missing_option")
    chosen = list(levels) if levels is not None else list(train.labels.levels)
    for level in chosen:
        train.labels.level_index(level)
    vectors = _units(run, train)
    notes: list[str] = []
    frames: list[pd.DataFrame] = []
    counts: list[dict[str, Any]] = []
    tried = {level: _Fitted.of(vectors, train, level, notes) for level in chosen}
    fitted = {level: found for level, found in tried.items() if found is not None}
    if not fitted:
        why = "; ".join(notes) or f"the training data of {run.path} have no labels"
        raise UserError(f"no label can be judged: {why}", code="no_labels")
    for name, part in splits.items():
        of_train = other is None and name == "train"
        held = vectors if of_train else _units(run, part)
        frame = pd.DataFrame({"id": part.ids.tolist(), "split": name})
        for level, found in fitted.items():
            if level not in part.labels.levels:
                continue
            proba, seen = found.held_out(level, seed, notes) if of_train else (found.probabilities(held), None)
            judged = _judged(proba, part, level, found.classes, seen)
            frame = pd.concat([frame, judged], axis=1)
            labels = int(judged[f"{level}_score"].notna().sum())
            counts.append(
                {"split": name, "level": level, "labels": labels, "doubtful": int(judged[f"{level}_doubtful"].sum())}
            )
        frames.append(frame)
    if not counts:
        raise UserError(
            f"the data have none of the levels {', '.join(fitted)}: call the columns of their labels so",
            code="unknown_level",
        )
    judged_levels = list(dict.fromkeys(found["level"] for found in counts))
    result = Cleaning(_doubtful(frames, judged_levels), pd.DataFrame(counts), notes)
    if out is not None:
        write_columns({str(name): column.tolist() for name, column in result.table.items()}, Path(out))
    return result


def _units(run: Any, part: Dataset) -> np.ndarray:
    return functional.normalize(embed(run.model, part), dim=1).numpy()


@dataclass
class _Fitted:
    """Training samples of one level's classifier: those whose class has at least two samples."""

    vectors: np.ndarray
    codes: np.ndarray
    kept: np.ndarray
    groups: np.ndarray | None
    classes: tuple[str, ...]

    @classmethod
    def of(cls, vectors: np.ndarray, train: Dataset, level: str, notes: list[str]) -> _Fitted | None:
        codes = train.labels.level(level).numpy()
        names = train.labels.names(level)
        counts = np.bincount(codes[codes >= 0], minlength=len(names))
        few = [names[code] for code in np.flatnonzero(counts == 1)]
        if few:
            notes.append(
                f"level '{level}': {counted(len(few), 'class', 'classes')} of a single training sample "
                f"{'are' if len(few) > 1 else 'is'} not judged, such as '{few[0]}'"
            )
        if (counts > 1).sum() < 2:
            notes.append(f"level '{level}' has fewer than two classes of two or more training samples")
            return None
        kept = (codes >= 0) & (counts[codes.clip(min=0)] > 1)
        return cls(vectors, codes, kept, train.groups, names)

    def probabilities(self, held: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
        """(m, K) class probabilities by the samples that are kept, and not in the fold."""
        rows = self.kept if fold is None else self.kept & ~fold
        vectors, codes, judged = map(torch.from_numpy, (self.vectors[rows], self.codes[rows], held))
        proba = probe_probabilities(vectors, codes, judged, inverse_penalty=_INVERSE_PENALTY).numpy()
        return np.pad(proba, ((0, 0), (0, len(self.classes) - proba.shape[1])))

    def held_out(self, level: str, seed: int, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Judge as :meth:`cross_fitted` does; ``notes`` take a sentence on labels that cannot be judged."""
        proba, seen = self.cross_fitted(seed)
        apart = int((self.kept & ~seen).sum())
        if apart:
            notes.append(
                f"level '{level}': {apart} training samples are not judged: one group holds all of their class"
            )
        notes += self.blindness(proba, seen, level)
        return proba, seen

    def blindness(self, proba: np.ndarray, seen: np.ndarray, level: str) -> list[str]:
        """A note where held-out labels are named no better than by the most frequent class: doubts say nothing then."""
        rows = self.kept & seen
        if not rows.any():
            return []
        right = float((proba[rows].argmax(axis=1) == self.codes[rows]).mean())
        frequent = float(np.bincount(self.codes[rows]).max() / rows.sum())
        if right > frequent:
            return []
        return [
            f"level '{level}': the classifier names {100 * right:.0f}% of the held-out labels, and the most frequent "
            f"class alone has {100 * frequent:.0f}%, so its doubts say nothing: take a run whose embedding tells these "
            "classes apart"
        ]

    def cross_fitted(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """(n, K) class probabilities of the training samples, each by a classifier that did not see its label.

        And (n,) whether that classifier saw the label's class on other samples: else the label cannot be judged.
        """
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

        rows = np.flatnonzero(self.kept)
        found, seen = np.zeros((len(self.codes), len(self.classes))), np.zeros(len(self.codes), dtype=bool)
        groups = None if self.groups is None else np.unique(self.groups[rows], return_inverse=True)[1]
        most = int(np.bincount(self.codes[rows]).max()) if groups is None else len(np.unique(groups))
        if most < 2:
            return found, seen
        splitter: Any = StratifiedKFold if groups is None else StratifiedGroupKFold
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # classes of fewer samples than folds: some folds lack them
            folds = splitter(min(_FOLDS, most), shuffle=True, random_state=seed)
            parts = list(folds.split(rows, self.codes[rows], groups))
        for others, held in parts:
            fold = np.zeros(len(self.codes), dtype=bool)
            fold[rows[held]] = True
            found[fold] = self.probabilities(self.vectors[fold], fold)
            seen[fold] = np.isin(self.codes[fold], self.codes[rows[others]])
        if not self.kept.all():  # their labels, if any, are in no classifier
            found[~self.kept] = self.probabilities(self.vectors[~self.kept])
        return found, seen


def _judged(
    proba: np.ndarray, part: Dataset, level: str, classes: Sequence[str], seen: np.ndarray | None
) -> pd.DataFrame:
    """The columns of one level: labels whose class the classifier did not see are not judged."""
    import pandas as pd

    labels = part.labels.column(level)
    codes = part.labels.renumbered(level, {name: code for code, name in enumerate(classes)})
    codes[torch.from_numpy(proba.sum(axis=0) == 0)[codes.clamp(min=0)]] = -1
    if seen is not None:
        codes[torch.from_numpy(~seen)] = -1
    quality = label_quality(proba, codes)
    best = quality.proposed.numpy()
    return pd.DataFrame(
        {
            level: labels,
            f"{level}_proposed": [classes[code] for code in best],
            f"{level}_confidence": proba.max(axis=1),
            f"{level}_score": quality.score.numpy(),
            f"{level}_doubtful": quality.doubtful.numpy(),
        }
    )


def _doubtful(frames: Sequence[pd.DataFrame], levels: Sequence[str]) -> pd.DataFrame:
    """The rows with a doubtful label, the lowest score of one first."""
    import pandas as pd

    table = pd.concat(frames, ignore_index=True)
    doubtful = pd.DataFrame({level: table[f"{level}_doubtful"].eq(True) for level in levels})
    scores = pd.DataFrame({level: table[f"{level}_score"] for level in levels})
    worst = scores.where(doubtful).min(axis=1).dropna().sort_values(kind="stable")
    return table.loc[worst.index].reset_index(drop=True)
