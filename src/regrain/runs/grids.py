"""Pictures of what was discovered: subclasses in rows, from the purest or the most mixed, or drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from regrain.data.dataset import Dataset, rows_among
from regrain.errors import UserError
from regrain.pictures.tiles import COLUMNS, TileRow, require_images, tiles, write_page
from regrain.runs.discovery import Discovery
from regrain.runs.run import get_split
from regrain.storage.files import require_place

_ROWS = 10
_NAMES = ("best", "worst", "random")


def require_drawable(folder: str | Path, modality: str, where: str, *, overwrite: bool) -> None:
    """Raise a UserError, before anything is settled, where no grids could be drawn or pictures would be lost.

    Parameters
    ----------
    modality : str
        Of the samples of ``where``, a run or a data set.
    overwrite : bool
        Whether pictures in the folder may be replaced.
    """
    require_images(modality, where, "grids", "the table names exemplars")
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise UserError(f"{target} is a file; grids need a folder of their own", code="would_overwrite")
    require_place(target, "choose another folder for --grids")
    there = [name for name in _NAMES if (target / f"{name}.png").exists()]
    if there and not overwrite:
        raise UserError(
            f"{target / there[0]}.png exists: choose another folder for --grids, or replace it with --overwrite",
            code="would_overwrite",
        )


def write_grids(
    discovery: Discovery, splits: Mapping[str, Dataset], folder: str | Path, *, split: str | None = None, seed: int = 0
) -> list[Path]:
    """Write ``best.png``, ``worst.png`` and ``random.png``: ten subclasses each, ten of their samples in a row.

    Subclasses are sorted by purity at the finest level that has labels there, weighed against chance by the number of
    labelled samples (the lower end of a 95% interval, Wilson 1927), so that tiny ones do not lead; without labels by
    their samples' mean probability. The samples shown are drawn at random from the subclass.

    Raises a UserError if the samples are not images, or there is no such split.

    Parameters
    ----------
    splits : mapping of split to Dataset
        The samples that were told apart, in the same order.
    folder : path
        Made where it does not exist.
    split : str, optional
        Show and sort by samples of this split only.

    Returns
    -------
    list of Path
        The files written.
    """
    first = next(iter(splits.values()))
    require_drawable(folder, first.modality, first.name, overwrite=True)
    if split is not None:
        get_split(splits, split, first.name, "split=")
    random = np.random.default_rng(seed)
    shown = np.ones(len(discovery.ids), bool) if split is None else discovery.splits == split
    by_number = {s.number: s for s in discovery.subclasses}
    present = [n for n in by_number if bool((shown & (discovery.subclass == n)).any())]
    ranks, words = purity_ranks(discovery, splits, shown, present)
    ordered = sorted(present, key=lambda n: (-ranks[n], n))
    drawn = [present[i] for i in sorted(random.permutation(len(present))[:_ROWS])]
    written = []
    for name, numbers in zip(_NAMES, (ordered[:_ROWS], ordered[::-1][:_ROWS], drawn), strict=True):
        rows = []
        for number in numbers:
            members = np.flatnonzero(shown & (discovery.subclass == number))
            chosen = np.sort(random.permutation(members)[:COLUMNS])
            mainly = f", {words[number]}" if number in words else ""
            title = f"{by_number[number].name}: {len(members)} samples{mainly}"
            rows.append(TileRow(title, [tile for own in rows_among(splits.values(), chosen) for tile in tiles(*own)]))
        file = Path(folder) / f"{name}.png"
        write_page(rows, file)
        written.append(file)
    return written


def purity_ranks(
    discovery: Discovery, splits: Mapping[str, Dataset], shown: np.ndarray, numbers: Sequence[int]
) -> tuple[dict[int, float], dict[int, str]]:
    """Return the sort keys of the subclasses (see :func:`write_grids`), and in words their main content.

    Parameters
    ----------
    splits : mapping of split to Dataset
        The samples that were told apart, in the same order.
    shown : array of bool (N,)
        The samples that count.
    numbers : sequence of int
        The subclasses.
    """
    from scipy import stats

    labels = next(iter(splits.values())).labels
    for level in reversed(labels.levels):
        if level == discovery.level:
            break  # within a superclass everything is of that superclass
        codes = torch.cat([part.labels.level(level) for part in splits.values()]).numpy()
        if not (shown & (codes >= 0)).any():
            continue
        ranks, words = {}, {}
        for number in numbers:
            own = codes[shown & (discovery.subclass == number) & (codes >= 0)]
            if not len(own):
                ranks[number] = 0.0
                continue
            counts = np.bincount(own)
            interval = stats.binomtest(int(counts.max()), len(own)).proportion_ci(method="wilson")
            ranks[number] = float(interval.low)
            share = 100 * counts.max() / len(own)
            words[number] = f"{labels.names(level)[int(counts.argmax())]} {share:.0f}% of {len(own)}"
        return ranks, words
    means = {n: float(discovery.probability[shown & (discovery.subclass == n)].mean()) for n in numbers}
    return means, {n: f"mean probability {value:.2f}" for n, value in means.items()}
