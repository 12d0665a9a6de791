"""Compute a report's content from a run and the judged samples; makes no HTML and no pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from typing_extensions import TypedDict

from regrain.data.dataset import Dataset
from regrain.errors import UserError
from regrain.evaluation import own_probabilities
from regrain.evaluation.protocols import LACKING
from regrain.evaluation.results import figure_text
from regrain.metrics import label_quality, nearest_neighbours, neighbour_probabilities
from regrain.pictures.map import EmbeddingMap, embedding_map
from regrain.report.content import (
    Chart,
    Confusion,
    Content,
    Doubt,
    Found,
    LevelTable,
    Line,
    Map,
    Query,
    Shown,
    ShownSubclass,
)
from regrain.runs.evaluations import RowForm, evaluation_of
from regrain.runs.grids import purity_ranks
from regrain.runs.run import Run, get_split
from regrain.storage.run_folder import RunFolder
from regrain.verbs.discover import discover
from regrain.verbs.evaluate import evaluate

_TOP = 10
_QUERIES = 12
_GROUPS = 60
_GROUP_SAMPLES = 20
_DOUBTS = 20
_CONFUSED = 15
_SHOTS = (1, 2, 5, 10)
_EPISODES = 200
_NEIGHBOURS = 20


class _CurvesForm(TypedDict):
    curves: dict[str, list[RowForm]]


_COLUMNS = {
    "learning_rate": ("Learning rate", "at the end of the epoch"),
    "without_positives": ("Without a positive", "share of the queries"),
    "seconds": ("Time", "seconds an epoch"),
    "samples_per_second": ("Speed", "samples / s"),
    "peak_memory_mb": ("Memory", "most so far, MB"),
}
"""Titles and units of columns of ``metrics.csv``."""


def build_content(
    run: Run, data: Dataset | None, *, split: str, seed: int, map_samples: int, say: Callable[[str], None]
) -> Content:
    """Compute the page's content; a section that cannot be computed is missing, with the reason.

    ``data``: data to use in place of the run's own. ``split``: split of the judged samples. ``seed``: seed of all
    random draws. ``map_samples``: most samples on the map. ``say``: called with messages on progress.
    """
    notes: list[str] = []
    splits, where = run.splits_of(data, split, notes)
    judged = run.fitting(get_split(splits, split, where))
    content = Content(
        f"{run.recipe['method']['name']} on {judged.name}",
        split,
        judged,
        _about(run, judged, split),
        yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True),
        run.folder.read_versions(),
        notes,
    )
    if split == "train":
        notes.append("these are the samples the model was trained on: the figures say nothing about new ones")
    say("embeddings")
    vectors = run.embed(judged)
    levels = [level for level, count in judged.labels.known.items() if count >= 2]
    content.curves = curves_of(run)
    if not content.curves:
        content.missing["curves"] = "this run was not trained epoch by epoch: there are no curves"
    _section(content, "metrics", lambda: _metrics(content, run, data, split, seed, say))
    say("map")
    _section(content, "map", lambda: _map(content, run, vectors, levels, map_samples, seed))
    _section(content, "retrieval", lambda: _retrieval(content, vectors, levels, seed))
    say("subclasses")
    _section(content, "subclasses", lambda: _subclasses(content, run, data, splits, seed))
    say("confusion, doubtful labels")
    _section(content, "confusion", lambda: _confusion(content, run, vectors, levels))
    say("few-shot curve")
    _section(content, "few-shot", lambda: _few_shot(content, run, data, vectors, levels, split, seed))
    return content


def curves_of(run: Run) -> list[Chart]:
    """Make a chart of the losses and one of each other column of ``metrics.csv``; none after a single epoch."""
    rows = run.folder.read_metrics()
    if len(rows) < 2:
        return []
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "epoch"]
    losses = [name for name in names if name == "loss" or name.endswith("_loss")]

    def line(name: str) -> Line:
        own = [row for row in rows if name in row]
        return Line(name, [row["epoch"] for row in own], [row[name] for row in own])

    charts = [Chart("Loss", "mean of the epoch", [line(name) for name in losses])] if losses else []
    rest = [name for name in names if name not in losses]
    return charts + [
        Chart(*_COLUMNS.get(name, (name.replace("_", " ").capitalize(), "mean of the epoch")), [line(name)])
        for name in rest
    ]


def _section(content: Content, name: str, build: Callable[[], None]) -> None:
    """Build a section, or record the reason if its input is absent."""
    try:
        build()
    except UserError as error:
        content.missing[name] = str(error)


def _about(run: Run, judged: Dataset, split: str) -> list[tuple[str, str]]:
    """Method and training data, for the head of the page."""
    recipe = run.recipe
    lines = [line[2:] for line in run.folder.read_card().splitlines() if line.startswith("- ")]
    said = [(name, value) for name, colon, value in (line.partition(": ") for line in lines) if colon]
    said += [("training", line) for line in lines if ": " not in line]
    counts = ", ".join(
        f"{level} ({len(judged.labels.present(level))} classes, {known} of {len(judged)} labelled)"
        for level, known in judged.labels.known.items()
    )
    return [
        ("method", recipe["method"]["name"]),
        *said,
        ("judged here", f"{len(judged)} samples of the split '{split}' of {judged.name}"),
        ("their labels", counts or "none"),
        ("run", run.path.resolve().name),
    ]


def _require_levels(levels: Sequence[str]) -> None:
    if not levels:
        raise UserError("there are no labels in this split: nothing to judge by", code="no_labels")


def _metrics(
    content: Content, run: Run, data: Dataset | None, split: str, seed: int, say: Callable[[str], None]
) -> None:
    there = evaluation_of(run.folder, split) if data is None else None
    kept = there if there is not None and there["own_data"] else {"notes": [], "rows": [], "verdict": []}
    notes, rows = kept["notes"], kept["rows"]
    content.verdict = [finding["sentence"] for finding in kept.get("verdict", [])]
    judged = {(row["representation"], row["metric"]) for row in rows}
    if not {("model", "recall@1"), ("raw", "recall@1")} <= judged:
        say("evaluation (recall, k-NN, clustering)")
        found = evaluate(run, data, split=split, seed=seed, write=data is None).to_json()
        made = {(row["representation"], row["level"], row["metric"]) for row in found["rows"]}
        rows = found["rows"] + [r for r in rows if (r["representation"], r["level"], r["metric"]) not in made]
        notes = found["notes"] + notes
        content.verdict = [finding["sentence"] for finding in found["verdict"]] or content.verdict
    content.notes += dict.fromkeys(note for note in notes if note not in content.notes)
    rows = [row for row in rows if not row["score"]["detail"]]
    names = list(dict.fromkeys(row["representation"] for row in rows))
    for level in dict.fromkeys(row["level"] for row in rows):
        own = {(row["metric"], row["representation"]): row["score"] for row in rows if row["level"] == level}
        brief = {row["metric"] for row in rows if row["level"] == level and row.get("brief", True)}
        table: dict[bool, list[tuple[str, list[str], str]]] = {True: [], False: []}
        for metric in dict.fromkeys(metric for metric, _ in own):
            first = next(own[metric, name] for name in names if (metric, name) in own)
            interval = ""
            if first["low"] is not None:
                interval = f"{100 * first['low']:.2f} to {100 * first['high']:.2f}, {first['over']}"
            values = [_figure(own.get((metric, name))) for name in names]
            table[metric in brief].append((metric, values, interval))
        content.metrics.append(LevelTable(level, names, table[True], table[False]))


def _figure(score: dict[str, Any] | None) -> str:
    """Format a share in per cent or a count; empty if the figure is missing."""
    if score is None:
        return ""
    return figure_text(score["value"], count=score["count"])


def _map(content: Content, run: Run, vectors: Tensor, levels: Sequence[str], most: int, seed: int) -> None:
    judged = content.judged
    rows = _drawn(judged, most, seed)
    found: EmbeddingMap = embedding_map(
        vectors[rows], seed=seed, cache=run.path / "report" / f"map-{content.split}.npz"
    )
    shown, means = [], []
    for level in levels:
        codes, names = judged.labels.level(level)[rows], judged.labels.names(level)
        shown.append((level, names, codes.numpy()))
        means.append(found.means(codes, len(names)))
    content.map = Map(rows.numpy(), len(judged), found.points, found.perplexity, shown, means)


def _drawn(dataset: Dataset, most: int, seed: int) -> Tensor:
    """Draw at most ``most`` rows by the seed and the samples' ids, in the order of the data."""
    order = dataset.keys.argsort()
    chosen = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))[:most]]
    return chosen.sort().values


def _retrieval(content: Content, vectors: Tensor, levels: Sequence[str], seed: int) -> None:
    _require_levels(levels)
    judged = content.judged
    if len(vectors) < 2:
        raise UserError("retrieval needs two samples or more", code="too_few")
    finest = judged.labels.level(levels[-1])
    queries = _queries(judged, finest, seed)
    similarity, index = _nearest_others(vectors, queries)
    codes = [judged.labels.level(level) for level in reversed(levels)]
    right = 0
    for place, row in enumerate(queries.tolist()):
        found = []
        for other, cosine in zip(index[place].tolist(), similarity[place].tolist(), strict=True):
            found.append(Found(other, _verdict(codes, row, other), _caption(judged, levels, other), cosine))
        right += found[0].verdict == "right"
        content.queries.append(Query(row, _caption(judged, levels, row), found))
    content.retrieved = (
        f"{len(queries)} queries drawn at random, in turn from each class of '{levels[-1]}'; each "
        f"retrieves its {index.shape[1]} nearest others among the {len(judged)} samples by cosine. The first is right "
        f"for {right} of {len(queries)}."
    )


def _queries(judged: Dataset, codes: Tensor, seed: int) -> Tensor:
    """Draw rows of labelled samples, one random sample of each class in turn, until there are enough."""
    order = judged.keys.argsort()
    order = order[torch.randperm(len(order), generator=torch.Generator().manual_seed(seed))]
    order = order[codes[order] >= 0]
    seen: dict[int, int] = {}
    turns = []
    for code in codes[order].tolist():
        turns.append(seen.get(code, 0))
        seen[code] = turns[-1] + 1
    chosen = order[torch.tensor(turns).argsort(stable=True)][:_QUERIES]
    return chosen[codes[chosen].argsort(stable=True)]


def _nearest_others(vectors: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest other samples of a few queries: cosines and rows (q, k)."""
    most = min(_TOP, len(vectors) - 1)
    similarity, index = nearest_neighbours(vectors[queries], vectors, most + 1, exclude_self=False)
    others = index != queries[:, None]
    others[others.all(dim=1), -1] = False  # a duplicate of the query took its place: drop the farthest
    return similarity[others].view(-1, most), index[others].view(-1, most)


def _verdict(codes: Sequence[Tensor], row: int, other: int) -> str:
    """Compare two samples from the finest level up: same finest known class, or same class above."""
    compared = [bool(level[row] == level[other]) for level in codes if level[row] >= 0 and level[other] >= 0]
    if not compared:
        return "unknown"
    return "right" if compared[0] else "above" if any(compared) else "wrong"


def _caption(judged: Dataset, levels: Sequence[str], row: int) -> str:
    """Name the sample's finest known class."""
    for level in reversed(levels):
        code = int(judged.labels.level(level)[row])
        if code >= 0:
            return judged.labels.names(level)[code]
    return "no label"


def _subclasses(content: Content, run: Run, data: Dataset | None, splits: dict[str, Dataset], seed: int) -> None:
    found = discover(run, data, seed=seed, write=False)
    judged = content.judged
    places = {str(identity): row for row, identity in enumerate(judged.ids.tolist())}
    rows = np.array([places.get(identity, -1) for identity in found.ids.tolist()])
    shown = rows >= 0
    present = [s.number for s in found.subclasses if bool((shown & (found.subclass == s.number)).any())]
    ranks, words = purity_ranks(found, splits if data is None else {"": data}, shown, present)
    names = {s.number: s.name for s in found.subclasses}
    proposed = {s.number: f"“{s.proposed_name}”" for s in found.subclasses if s.proposed_name}
    generator = np.random.default_rng(seed)
    ordered = sorted(present, key=lambda n: (-ranks[n], n))
    kept = ordered if len(ordered) <= _GROUPS else ordered[: _GROUPS // 2] + ordered[-_GROUPS // 2 :]
    levels = [level for level, count in judged.labels.known.items() if count]
    for number in kept:
        members = rows[shown & (found.subclass == number)]
        chosen = np.sort(generator.permutation(members)[:_GROUP_SAMPLES]).tolist()
        samples = [Shown(row, _caption(judged, levels, row)) for row in chosen]
        mainly = ", ".join(filter(None, (proposed.get(number), words.get(number))))
        content.groups.append(ShownSubclass(names[number], len(members), mainly, samples))
    cut = "" if len(kept) == len(ordered) else f" ({len(kept)} of them: the clearest and the most mixed)"
    content.grouped = (
        f"{len(ordered)} subclasses have samples here{cut}, from the clearest to the most mixed; of each at most "
        f"{_GROUP_SAMPLES} samples, drawn at random."
    ) + "".join(f" {note[0].upper()}{note[1:]}." for note in found.notes)
    codes = np.full(len(judged), -1)
    codes[rows[shown]] = found.subclass[shown]
    if content.map is not None:
        _add_to_map(content.map, "subclass (discovered)", ordered, names, codes)


def _add_to_map(target: Map, level: str, numbers: Sequence[int], names: dict[int, str], codes: np.ndarray) -> None:
    """Add discovered subclasses as a level of the map; their means are the medians of their points."""
    compact = {number: place for place, number in enumerate(sorted(numbers))}
    own = np.array([compact.get(code, -1) for code in codes[target.rows].tolist()])
    means = np.full((len(compact), 2), np.nan, np.float32)
    for place in np.unique(own[own >= 0]).tolist():
        means[place] = np.median(target.points[own == place], axis=0)
    target.levels.append((level, tuple(names[number] for number in compact), own))
    target.means.append(means)


def _confusion(content: Content, run: Run, vectors: Tensor, levels: Sequence[str]) -> None:
    """Add confusion and doubtful labels of every level; both come from probabilities."""
    _require_levels(levels)
    judged = content.judged
    own = own_probabilities(run.model, judged, run.labels)
    for level in levels:
        codes, names = judged.labels.level(level), judged.labels.names(level)
        by_others = neighbour_probabilities(vectors, codes, classes=len(names), k=_NEIGHBOURS)
        by = "the method's own classifier" if level in own else f"the {_NEIGHBOURS} nearest other samples"
        content.confusions.append(_confused(judged, level, own.get(level, by_others).argmax(dim=1), by))
        quality = label_quality(by_others, codes)
        others = (codes >= 0) & (quality.proposed != codes)
        order = quality.score.masked_fill(~others, torch.inf).argsort(stable=True)[: min(_DOUBTS, int(others.sum()))]
        doubts = [
            (
                Shown(row, str(judged.ids[row])),
                names[int(codes[row])],
                names[int(quality.proposed[row])],
                float(quality.score[row]),
            )
            for row in order.tolist()
        ]
        content.doubts.append(Doubt(level, int((codes >= 0).sum()), int(quality.doubtful.sum()), doubts))


def _confused(judged: Dataset, level: str, predicted: Tensor, by: str) -> Confusion:
    labels = judged.labels
    codes, names = labels.level(level), (*labels.names(level), LACKING)
    predicted = predicted.clamp(max=len(names) - 1)
    index, known = labels.level_index(level), codes >= 0
    above_codes, above_names = torch.full((len(names),), -1), [""] * len(names)
    if index and labels.taxonomy is not None and labels.taxonomy.is_tree:
        level_above = labels.levels[index - 1]
        above_codes = torch.cat([labels.taxonomy.ancestors(level, level_above), torch.tensor([-1])])
        above_names = [labels.names(level_above)[c] if c >= 0 else "" for c in above_codes.tolist()]
    present = torch.bincount(codes[known], minlength=len(names)) + torch.bincount(
        predicted[known], minlength=len(names)
    )
    order = [c for c in sorted(range(len(names)), key=lambda c: (int(above_codes[c]), c)) if present[c]]
    flat = torch.bincount(codes[known] * len(names) + predicted[known], minlength=len(names) ** 2)
    counts = flat.view(len(names), len(names)).numpy()[np.ix_(order, order)]
    above = above_codes[torch.tensor(order)].numpy()
    together = (above[:, None] == above[None]) & (above[:, None] >= 0)
    errors = counts * (1 - np.eye(len(counts), dtype=int))
    worst = np.argsort(-errors, axis=None, kind="stable")[:_CONFUSED]
    nested = bool((above >= 0).any())
    pairs = [
        (names[order[i]], names[order[j]], int(errors[i, j]), float(errors[i, j] / counts[i].sum()),
         bool(together[i, j]) if nested else None)
        for i, j in (divmod(int(place), len(counts)) for place in worst)
        if errors[i, j]
    ]  # fmt: skip
    return Confusion(
        level,
        by,
        [names[c] for c in order],
        [above_names[c] for c in order],
        counts,
        float(np.trace(counts) / counts.sum()),
        float(errors[together].sum() / errors.sum()) if nested and errors.sum() else None,
        pairs,
    )


def _few_shot(
    content: Content, run: Run, data: Dataset | None, vectors: Tensor, levels: Sequence[str], split: str, seed: int
) -> None:
    _require_levels(levels)
    judged = content.judged
    cache = f"report/few-shot-{split}.json"
    reasons = []
    for level in levels:
        codes = judged.labels.level(level)
        counts = torch.bincount(codes[codes >= 0])
        smallest = int(counts[counts > 0].min())
        shots = [shot for shot in _SHOTS if 2 * shot <= smallest]
        classes = int((counts > 0).sum())
        if not shots or classes < 2:
            reasons.append(f"level '{level}' has {classes} classes, the smallest of {smallest} samples")
            continue
        queries = min(15, smallest - max(shots))
        options: dict[str, Any] = {"shots": shots, "queries": queries, "episodes": _EPISODES, "copies": 0}
        key = hashlib.blake2b(
            json.dumps([level, options, seed, codes.tolist()]).encode() + vectors.numpy().tobytes(), digest_size=16
        ).hexdigest()
        stored = _stored(run.folder, cache).get(key)
        if stored is None:
            found = evaluate(
                run, data, split=split, levels=[level], protocols=["few-shot"], options=options, seed=seed, write=False
            )
            stored = found.to_json()["rows"]
            run.folder.write_json(cache, {"curves": {**_stored(run.folder, cache), key: stored}})
        content.few_shot.append(_few_shot_chart(level, shots, min(5, classes), queries, stored))
    if not content.few_shot:
        raise UserError(
            f"few-shot episodes need two classes of two samples or more: {'; '.join(reasons)}", code="too_few"
        )


def _stored(folder: RunFolder, cache: str) -> dict[str, Any]:
    """Read the stored curves; none if the file is absent or damaged."""
    try:
        curves: dict[str, Any] = folder.read_json(cache, _CurvesForm, missing={"curves": {}})["curves"]
    except UserError:
        return {}
    return curves


def _few_shot_chart(level: str, shots: Sequence[int], ways: int, queries: int, rows: list[dict[str, Any]]) -> Chart:
    lines = []
    for name in dict.fromkeys(row["representation"] for row in rows):
        own = {row["metric"]: row["score"] for row in rows if row["representation"] == name}
        scores = [own[f"{ways}-way-{shot}-shot"] for shot in shots]
        x, values = [float(shot) for shot in shots], [100 * score["value"] for score in scores]
        ends = [
            [100 * score[end] for score in scores] if scores[0][end] is not None else None for end in ("low", "high")
        ]
        lines.append(Line(name, x, values, *ends))
    title = f"Few-shot accuracy at level '{level}': {ways} classes, {queries} queries of each, {_EPISODES} episodes"
    return Chart(title, "accuracy, %", lines, x="labelled samples of each class", log_x=True)
