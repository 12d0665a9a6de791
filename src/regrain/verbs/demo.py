"""``demo``: the effect of coarse labels, on drawings that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrain.checks import Seed
from regrain.data.dataset import Dataset
from regrain.evaluation.representations import raw_representation
from regrain.evaluation.retrieval import per_query
from regrain.metrics import bootstrap_interval
from regrain.metrics.neighbours import nearest_neighbours
from regrain.pictures.neighbours import Panel, write_neighbours
from regrain.runs.tables import require_writable
from regrain.runs.verb import verb
from regrain.verbs.evaluate import evaluate
from regrain.verbs.fit import fit
from regrain.verbs.load import load

CREDIT = "Drawings: Omniglot, https://github.com/brendenlake/omniglot (Lake et al., Science 2015), MIT licence"

_METHODS = {"sup-ce": "SupCE", "maskcon": "MaskCon", "sup-fine": "SupFINE"}
_SETTINGS = {"epochs": 15, "batch_size": 64, "learning_rate": 0.05}
"""Rate and batch are those that digits were trained with; the epochs make two minutes on two cores."""

_QUERIES, _NEIGHBOURS = 10, 5


@dataclass(frozen=True)
class Figure:
    """Recall@1 of a representation with its interval, in [0, 1]; labels it saw, and its run."""

    name: str
    labels: str
    recall: float
    low: float
    high: float
    run: str


@dataclass(frozen=True)
class Demonstration:
    """Result of :func:`demo`."""

    data: str  # description of the data
    figures: list[Figure]  # raw pixels, random weights, SupCE, MaskCon, SupFINE
    gain: tuple[float, float, float]  # recall@1 of MaskCon less that of SupCE, in points, and its paired interval
    verdict: str
    picture: str
    credit: str = CREDIT

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@verb
def demo(
    out: str | Path = "runs/demo",
    *,
    seed: Seed = 0,
    overwrite: bool = False,
    on_method: Callable[[str], None] | None = None,
) -> Demonstration:
    """Train on the alphabets of handwritten characters, and see who finds the characters again. Two minutes.

    A classifier of the alphabets (SupCE), MaskCon, and the upper bound that sees the characters (SupFINE) are trained
    from random weights. Settings come from another data set, and the test drawings chose nothing.

    Parameters
    ----------
    out : path
        Where the run folders and the picture go. The picture ``neighbours.png`` has drawings and their nearest
        neighbours by pixels, SupCE and MaskCon. Queries are drawn by ``seed``, two of each alphabet.
    seed : int
        Fixes everything.
    overwrite : bool
        Replace the files of an earlier demo.
    on_method : callable, optional
        Called with the name of each method before it is trained.

    Raises
    ------
    UserError
        If ``out`` holds an earlier demo.
    """
    folder = Path(out)
    picture = folder / "neighbours.png"
    require_writable(picture, overwrite, suffixes=(".png",), content="pictures")
    data = load("alphabets")
    coarse, fine = data.labels.levels
    test = data.split("test")
    labels = test.labels.level(fine)
    figures: list[Figure] = []
    seen: dict[str, Tensor] = {}
    for name, title in _METHODS.items():
        if on_method is not None:
            on_method(title)
        run = fit(name, data, encoder="conv4", out=folder / name, seed=seed, settings=_SETTINGS, overwrite=overwrite)
        judged = evaluate(run, data, levels=[fine], protocols=["recall"], baselines=not figures)
        scores = {row.representation: row.score for row in judged.rows if row.metric == "recall@1"}
        kinds = [("raw", "pixels", "none", ""), ("random", "random weights", "none", "")] if not figures else []
        for key, words, level, path in [
            *kinds,
            ("model", title, fine if name == "sup-fine" else coarse, str(run.path)),
        ]:
            score = scores[key]
            low, high = (score.value if end is None else end for end in (score.low, score.high))
            figures.append(Figure(words, level, score.value, low, high, path))
        if not seen:
            seen["pixels"] = raw_representation(test, None, run.model, fits=False)[0].test
        seen[title] = run.embed(test)
    gain = _gain(seen["MaskCon"], seen["SupCE"], labels, seed)
    recall = {figure.name: figure.recall for figure in figures}
    panels = [
        _panel(title, recall[title], vectors, labels, _queries(test, seed)) for title, vectors in list(seen.items())[:3]
    ]
    write_neighbours(
        test,
        _queries(test, seed),
        panels,
        picture,
        title=f"{_QUERIES} drawings by chance, and their nearest among {len(test)}; green: the same character of "
        f"{data.labels.counts[fine]}",
        foot=f"Training saw the names of {data.labels.counts[coarse]} alphabets. {CREDIT}.",
    )
    about = (
        f"{len(data)} drawings of {data.labels.counts[fine]} characters by hand, 28 x 28 pixels. Training sees the "
        f"names of {data.labels.counts[coarse]} alphabets ({', '.join(data.labels.names(coarse))}), SupFINE alone more"
    )
    return Demonstration(about, figures, gain, _verdict(recall, gain), str(picture))


def _gain(better: Tensor, other: Tensor, labels: Tensor, seed: int) -> tuple[float, float, float]:
    """The difference of recall@1 in points, and its interval over the same queries."""
    hits = [per_query(vectors, labels, ks=[1])["recall@1"] for vectors in (better, other)]
    mean, low, high = bootstrap_interval(hits[0] - hits[1], seed=seed)
    return 100 * mean, 100 * low, 100 * high


def _verdict(recall: dict[str, float], gain: tuple[float, float, float]) -> str:
    maskcon, sup_ce, pixels = (f"{100 * recall[name]:.0f}" for name in ("MaskCon", "SupCE", "pixels"))
    mean, low, high = gain
    rival = f"SupCE, which read the same labels ({sup_ce})"
    by = f", by {abs(mean):.0f} points (95% interval {min(abs(low), abs(high)):.0f} to {max(abs(low), abs(high)):.0f})"
    compared = f"more often than {rival}{by}" if low > 0 else f"less often than {rival}{by}"
    if low <= 0 <= high:
        compared = f"about as often as {rival}: the difference is within noise"
    return (
        f"From the names of alphabets alone MaskCon finds the same character first in {maskcon} of 100 drawings, "
        f"{compared}; pixels find it in {pixels}."
    )


def _queries(test: Dataset, seed: int) -> Tensor:
    """As many drawings of each alphabet, drawn at random."""
    codes = test.labels.codes[:, 0]
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(test), generator=generator)
    each = _QUERIES // int(codes.unique().numel())
    return torch.cat([order[codes[order] == code][:each] for code in codes.unique()])


def _panel(title: str, recall: float, vectors: Tensor, labels: Tensor, queries: Tensor) -> Panel:
    found = nearest_neighbours(vectors, vectors, _NEIGHBOURS, exclude_self=True)[1][queries]
    return Panel(
        f"nearest by {title}", f"recall@1 {100 * recall:.1f}", found, labels[found] == labels[queries][:, None]
    )
