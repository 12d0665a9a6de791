"""``attend``: samples and the training samples that SCLRE's attention draws on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
from torch import Tensor

from regrain.checks import Count, Seed
from regrain.data.cells import Column
from regrain.data.dataset import Dataset
from regrain.data.options import ReaderOptions
from regrain.errors import UserError
from regrain.evaluation import apply_model
from regrain.labels import Labels
from regrain.methods import Method
from regrain.methods.sclre import SCLRE, drawn_by_class
from regrain.model import Model
from regrain.pictures.tiles import COLUMNS, TileRow, require_images, tiles, write_page
from regrain.runs.run import get_split
from regrain.runs.tables import WRITABLE_SUFFIXES, require_writable, write_columns
from regrain.runs.verb import RunOrPath, verb

if TYPE_CHECKING:
    import pandas as pd

_SHARES = 3
"""Largest number of superclasses in a title."""


class Reference(NamedTuple):
    """A training sample of the bank, its superclass, and the share of the attention that it has."""

    id: str
    superclass: str | None
    weight: float


@dataclass(frozen=True)
class Attended:
    """A sample and what it attends to."""

    id: str
    superclass: str | None
    """None where it is not known."""
    predicted: str
    finer: dict[str, str]
    """Its classes at finer levels, where they are known."""
    references: tuple[Reference, ...]
    """The most attended first."""
    shares: dict[str, float]
    """Superclass -> its share of the attention, the largest first."""
    itself: float
    """The share of the attention that the sample pays to itself; with ``shares`` it makes 1."""

    def title(self) -> str:
        """Return one line: the true class, the predicted one, and where the attention goes."""
        said = f"{self.superclass or 'unknown'} (predicted {self.predicted})"
        finer = "".join(f", {level} {name}" for level, name in self.finer.items())
        shares = ", ".join(f"{name} {100 * share:.0f}%" for name, share in list(self.shares.items())[:_SHARES])
        return f"{said}{finer}: attends to {shares}; itself {100 * self.itself:.1f}%"


@dataclass
class Attention:
    """Attention of some samples of a run."""

    level: str
    """Of the superclasses."""
    bank_size: int
    """Training samples in the bank."""
    samples: list[Attended]
    """Sorted by superclass."""
    notes: list[str] = field(default_factory=list)

    def columns(self) -> dict[str, Column]:
        """A table with one row for each sample and reference."""
        pairs = [(s, rank, r) for s in self.samples for rank, r in enumerate(s.references, 1)]
        levels = list(dict.fromkeys(level for s in self.samples for level in s.finer))
        return {
            "id": [s.id for s, _, _ in pairs],
            "superclass": [s.superclass for s, _, _ in pairs],
            "predicted": [s.predicted for s, _, _ in pairs],
            **{f"sample_{level}": [s.finer.get(level) for s, _, _ in pairs] for level in levels},
            "itself": [s.itself for s, _, _ in pairs],
            "rank": [rank for _, rank, _ in pairs],
            "reference": [r.id for _, _, r in pairs],
            "reference_superclass": [r.superclass for _, _, r in pairs],
            "weight": [r.weight for _, _, r in pairs],
            "superclass_share": [s.shares.get(str(r.superclass), 0.0) for s, _, r in pairs],
        }

    def to_frame(self) -> pd.DataFrame:
        """The same table."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        samples = [{**vars(s), "references": [r._asdict() for r in s.references]} for s in self.samples]
        return {"level": self.level, "bank_size": self.bank_size, "notes": self.notes, "samples": samples}


def require_attention(method: Method) -> SCLRE:
    """The method, where it has attention to show; else a UserError."""
    if not isinstance(method, SCLRE):
        raise UserError(
            f"{method.name} has no attention to show: `regrain attend` is for runs of sclre; `regrain discover` and "
            "`regrain embed` show what other methods found",
            code="not_supported",
        )
    return method


def attention_of(
    model: Model, labels: Labels, judged: Dataset, train: Dataset, *, samples: Count = 10, seed: Seed = 0
) -> Attention:
    """Show what some samples attend to, equally many of every superclass.

    Parameters
    ----------
    model : Model
        Of SCLRE.
    labels : Labels
        The superclasses that it was trained on.
    judged : Dataset
        Its samples are drawn by the seed, those with a superclass where any have one.
    train : Dataset
        The run's training samples, to which the bank's ids belong.

    Raises
    ------
    UserError
        If the model is of another method or was trained without attention, or the training samples are not those of the
        bank.
    """
    method = require_attention(model.method)
    level, names = labels.levels[0], labels.classes[0]
    drawn = judged.select(_drawn(judged, level, samples, seed))
    weights = apply_model(model, drawn, lambda x: method.attends_to(x)[0])
    predicted = apply_model(model, drawn, lambda x: method.predict_proba(x, "coarse")).argmax(dim=1)
    places = {key: row for row, key in enumerate(train.keys.tolist())}
    keys = method.bank_keys.tolist()
    if not all(key in places for key in keys):
        raise UserError(
            f"the bank's samples are not all among the training samples of {train.name}: give the run's own"
        )
    bank = train.select(torch.tensor([places[key] for key in keys]))
    owners = bank.labels.level(level)
    by_superclass = weights.new_zeros(len(drawn), len(names)).index_add_(1, owners, weights)
    ordered = weights.sort(dim=1, descending=True, stable=True).indices[:, : COLUMNS - 1]
    found = []
    for row in range(len(drawn)):
        _, own, identity = drawn[row]
        shares = sorted(zip(names, by_superclass[row].tolist(), strict=True), key=lambda pair: -pair[1])
        references = [
            Reference(str(bank.ids[place]), names[int(owners[place])], float(weights[row, place]))
            for place in ordered[row].tolist()
        ]
        finer = {name: said for name, said in own.items() if name != level and said is not None}
        found.append(
            Attended(
                identity,
                own.get(level),
                names[int(predicted[row])],
                finer,
                tuple(references),
                dict(shares),
                max(0.0, 1 - float(weights[row].sum())),
            )
        )
    notes = [] if len(drawn) == samples else [f"{samples} samples were asked for, and there are {len(drawn)}"]
    return Attention(level, len(bank), found, notes)


def _drawn(dataset: Dataset, level: str, count: int, seed: int) -> Tensor:
    """Rows of samples by the seed and their ids: equally many of every superclass, sorted by it."""
    codes = dataset.labels.level(level) if level in dataset.labels.levels else torch.full((len(dataset),), -1)
    if not bool((codes >= 0).any()):
        codes = torch.zeros_like(codes)
    order = dataset.keys.argsort()
    rows = order[drawn_by_class(codes[order], count, int(codes.max()) + 1, seed)]
    return rows[codes[rows].argsort(stable=True)]


def write_attention(attention: Attention, judged: Dataset, train: Dataset, out: Path) -> None:
    """Write a PNG of images: in each row a sample, then what it attends to with its share of the attention.

    Parameters
    ----------
    judged, train : Dataset
        The samples that :func:`attention_of` was given.
    """
    shown = _tiles_of([s.id for s in attention.samples], judged)
    references = _tiles_of([r.id for s in attention.samples for r in s.references], train)
    rows, start = [], 0
    for sample, image in zip(attention.samples, shown, strict=True):
        end = start + len(sample.references)
        captions = ["sample", *(f"{100 * r.weight:.2f}%" for r in sample.references)]
        rows.append(TileRow(sample.title(), [image, *references[start:end]], captions))
        start = end
    write_page(rows, out)


def _tiles_of(ids: Sequence[str], dataset: Dataset) -> list[Any]:
    places = {str(identity): row for row, identity in enumerate(dataset.ids.tolist())}
    return tiles(dataset, torch.tensor([places[identity] for identity in ids]))


@verb
def attend(
    run: RunOrPath,
    data: Any = None,
    *,
    out: str | Path | None = None,
    split: str = "test",
    samples: int = 10,
    seed: Seed = 0,
    overwrite: bool = False,
    **reader_options: Unpack[ReaderOptions],
) -> Attention:
    """Show attention in a run of sclre: samples, and the training samples that they attend to most.

    Parameters
    ----------
    run : Run or path
        A run folder of sclre, or a Run.
    data : optional
        Other data than the run's own: whatever :func:`load` reads, such as a path or a data set's name.
    out : path, optional
        A table, .csv or .parquet; of images also a picture, .png. It has a sample and its nine most attended training
        samples in each row.
    split : str
        Which split's samples to show.
    samples : int
        How many, equally many of every superclass.
    seed : int
        Fixes which samples are drawn.
    overwrite : bool
        Replace the file.
    **reader_options
        See :func:`load`.

    Raises
    ------
    UserError
        If the run is of another method or was trained without attention, the data do not fit it or have no such split,
        or the file cannot be written.
    """
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
    dataset = run.given_or_own(data, reader_options)
    splits, where = run.splits_of(dataset, split, notes)
    judged = run.fitting(get_split(splits, split, where))
    train = run.splits()["train"]
    found = attention_of(run.model, run.labels, judged, train, samples=samples, seed=seed)
    found.notes += notes
    if target is not None and pictured:
        write_attention(found, judged, train, target)
    elif target is not None:
        write_columns(found.columns(), target)
    return found
