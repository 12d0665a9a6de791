"""The evaluations of a run that are kept in its ``evaluation.json``: one for each split of each data set.

A narrower evaluation takes the place of the figures that it has, and of no others.
"""

from __future__ import annotations

import math
from typing import Any, NotRequired

from typing_extensions import TypedDict

from regrain.evaluation import Evaluation
from regrain.evaluation.results import figure_text
from regrain.storage.files import Finite
from regrain.storage.run_folder import RunFolder

_FILE = "evaluation.json"


class _ScoreForm(TypedDict):
    value: Finite | None
    low: Finite | None
    high: Finite | None
    over: str
    count: bool
    detail: bool


class RowForm(TypedDict):
    """One figure, as of :class:`~regrain.evaluation.results.Row`."""

    representation: str
    split: str
    level: str
    metric: str
    score: _ScoreForm


class _JudgedForm(TypedDict):
    samples: str
    labels: dict[str, str]


class _FindingForm(TypedDict):
    sentence: str
    outcome: str


class _EvaluationForm(TypedDict):
    data: str
    own_data: bool
    part: str
    split: str
    samples: int
    judged: _JudgedForm
    verdict: NotRequired[list[_FindingForm]]
    notes: list[str]
    rows: list[RowForm]


class _FileForm(TypedDict):
    evaluations: list[_EvaluationForm]


def keep_evaluation(folder: RunFolder, made: Evaluation, *, data: str, own_data: bool, part: str = "") -> None:
    """Add an evaluation to those of the run.

    Figures of the same samples stay where this one has none of their level, metric and representation; those of a level
    whose labels have changed since go.

    ``data``: the data judged on. ``own_data``: whether that is the run's own. ``part``: which of the split's samples
    were judged, in a word; empty for all.
    """
    new = made.to_json() | {"data": data, "own_data": own_data, "part": part}
    for row in new["rows"]:
        score = row["score"]
        row["score"] |= {end: _finite(score[end]) for end in ("value", "low", "high")}
    with folder.writing():
        kept = []
        for old in _read(folder):
            if _subject(old) == _subject(new):
                _take_over(old, new)
            else:
                kept.append(old)
        folder.write_json(_FILE, {"evaluations": [*kept, new]})


def evaluation_of(folder: RunFolder, split: str) -> dict[str, Any] | None:
    """The evaluation of a split: of the run's own data where there is one, else the newest; None without any."""
    found = [kept for kept in _read(folder) if kept["split"] == split and not kept["part"]]
    found.sort(key=lambda kept: bool(kept["own_data"]))
    if not found:
        return None
    return found[-1] | {"rows": [row for row in found[-1]["rows"] if row["score"]["value"] is not None]}


def figures_in_markdown(folder: RunFolder, split: str) -> str:
    """The evaluation of a split for a model card: verdict, and a table of its main figures; empty without any."""
    found = evaluation_of(folder, split)
    rows = [] if found is None else [row for row in found["rows"] if row.get("brief", True)]
    if found is None or not rows:
        return ""
    names = list(dict.fromkeys(row["representation"] for row in rows))
    cells: dict[tuple[str, str, str], Any] = {_place(row): row["score"] for row in rows}
    table = ["| level | metric | " + " | ".join(names) + " | 95% interval |", "| --- " * (len(names) + 3) + "|"]
    for level, metric in dict.fromkeys((row["level"], row["metric"]) for row in rows):
        scores = [cells.get((name, level, metric)) for name in names]
        texts = ["" if s is None else figure_text(s["value"], count=s["count"]) for s in scores]
        own = scores[0] or {"low": None, "high": None}
        ends = [own[end] for end in ("low", "high") if own[end] is not None]
        interval = " to ".join(figure_text(end, count=own["count"]) for end in ends)
        shown = [cell.replace("|", "\\|") for cell in (level, metric, *texts, interval)]
        table.append(f"| {' | '.join(shown)} |")
    said = [finding["sentence"] for finding in found.get("verdict", [])]
    samples = f"{found['samples']} samples of the split {split}; shares in per cent."
    return "\n\n".join([*said, samples, "\n".join(table)])


def _read(folder: RunFolder) -> list[dict[str, Any]]:
    return folder.read_json(_FILE, _FileForm, missing={"evaluations": []})["evaluations"]


def _subject(content: dict[str, Any]) -> tuple[Any, ...]:
    name = "" if content["own_data"] else content["data"]
    return content["own_data"], name, content["split"], content["part"], content["judged"]["samples"]


def _take_over(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Put what an earlier evaluation has and this one lacks before what this one has."""
    made = {_place(row) for row in new["rows"]}
    now, then = new["judged"]["labels"], old["judged"]["labels"]
    rows = [r for r in old["rows"] if _place(r) not in made and now.get(r["level"]) == then.get(r["level"])]
    new["verdict"] = new["verdict"] or (old.get("verdict", []) if now == then else [])
    if rows:
        new["notes"] = list(dict.fromkeys([*old["notes"], *new["notes"]]))
    new["rows"] = [*rows, *new["rows"]]


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["representation"], row["level"], row["metric"]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
