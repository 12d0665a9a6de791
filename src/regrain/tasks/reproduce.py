"""What became of a paper's recipes: our figures beside the paper's, for a screen and for a page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrain.metrics import student_interval
from regrain.tasks.plans import write_text
from regrain.tasks.recipes import EACH_LEVEL, Recipe
from regrain.tasks.scales import Scale

__all__ = ["Reproduction", "append", "judged_once", "markdown", "over_seeds", "run_name"]


@dataclass(frozen=True)
class Reproduction:
    """A recipe, run at a scale.

    Attributes
    ----------
    recipe : Recipe
        As published.
    scale : Scale
    seeds : tuple of int
    figures : dict of str to tuple of float
        Title to one figure a seed, in per cent; a title is left out where the data have no such class.
    problem : str
        Why there are no figures; empty where there are.
    """

    recipe: Recipe
    scale: Scale
    seeds: tuple[int, ...]
    figures: dict[str, tuple[float, ...]]
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            "recipe": self.recipe.name,
            "scale": self.scale,
            "seeds": list(self.seeds),
            "ours": {title: list(values) for title, values in self.figures.items()},
            "paper": self.recipe.figures,
            "problem": self.problem,
        }


def run_name(recipe: Recipe) -> str:
    """The folder of a training: rows that are trained alike, in whatever table, share it.

    Examples
    --------
    >>> from regrain.tasks.recipes import recipes
    >>> first, again = (recipes()[f"maskcon/{row}"] for row in ("table2/maskcon", "table10/maskcon-w=1-t=0.05"))
    >>> run_name(first) == run_name(again)
    True
    """
    return f"{recipe.method}-{recipe.data['source']}-{_digest([recipe.data, recipe.sections])}"


def judged_once(recipe: Recipe, run: Path, judge: Any) -> dict[str, float]:
    """The figures of a run by title, in per cent, as ``judge()`` gives them under their keys; judged but once.

    They are kept in the run folder, in a file of their own for every way to judge.
    """
    file = run / f"judged-{_digest(recipe.judge)}.json"
    if not file.exists():
        write_text(file, json.dumps(judge(), indent=1))
    flat: Mapping[str, float] = json.loads(file.read_text(encoding="utf-8"))
    found = {}
    for title, keys in recipe.keys().items():
        values = [flat[key] for key in keys if key in flat]
        if len(values) == len(keys) or (values and recipe.metrics[title].startswith(EACH_LEVEL)):
            found[title] = 100 * sum(values) / len(values)
    return found


def over_seeds(values: Sequence[float], sign: str = "") -> str:
    """One value as it is, several as their mean with Student's 95% interval.

    Examples
    --------
    >>> over_seeds([61.25]), over_seeds([60.0, 62.0, 64.0])
    ('61.2', '62.0 (57.0 to 67.0)')
    """
    if len(values) < 2:
        return "".join(f"{value:{sign}.1f}" for value in values)
    mean, half = student_interval(values)
    return f"{mean:{sign}.1f} ({mean - half:{sign}.1f} to {mean + half:{sign}.1f})"


def markdown(found: Sequence[Reproduction]) -> str:
    """A table of Markdown for every table of a paper: ours, and the paper's, metric by metric."""
    parts = []
    for place in dict.fromkeys((r.recipe.paper, r.recipe.table, r.recipe.title, r.scale) for r in found):
        rows = [r for r in found if (r.recipe.paper, r.recipe.table, r.recipe.title, r.scale) == place]
        paper, table, title, scale = place
        number = table.removeprefix("table")
        seeds = max(len(r.seeds) for r in rows)
        text = f"### {paper}, table {number}: {title}\n\nScale `{scale}`, {seeds} seed{'s' * (seeds > 1)}.\n\n"
        titles = list(dict.fromkeys(t for r in rows for t in r.recipe.metrics))
        head = ["what", *(cell for t in titles for cell in (f"{t}, ours", "paper"))]
        lines = [head, ["---"] * len(head)]
        for r in rows:
            cells = [r.recipe.label]
            for t in titles:
                cells += [over_seeds(r.figures.get(t, ())), _printed(r.recipe.figures.get(t))]
            lines.append(cells)
        text += "".join("| " + " | ".join(line) + " |\n" for line in lines)
        problems = [f"- {r.recipe.label}: {r.problem}" for r in rows if r.problem]
        notes = [f"- {note}" for note in dict.fromkeys(n for r in rows for n in r.recipe.notes)]
        names = [r.recipe.name for r in rows]
        name = names[0] if len(names) == 1 else names[0].rsplit("/", 1)[0]
        command = f"regrain reproduce {name} --scale {scale}" + (f" --seeds {seeds}" if seeds > 1 else "")
        text += "\n" + "\n".join([*notes, *problems, f"- `{command}`"]) + "\n"
        parts.append(text)
    return "\n".join(parts)


def append(file: Path, text: str) -> None:
    """Add a text to the end of a page, under a heading of its own that is made once; what is there stays."""
    heading = "## Reproductions\n"
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    if heading not in before:
        before += ("\n" if before else "") + heading
    write_text(file, before.rstrip("\n") + "\n\n" + text)


def _printed(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.4g}"


def _digest(content: Any) -> str:
    plain = json.dumps(content, sort_keys=True, default=list)
    return hashlib.blake2b(plain.encode(), digest_size=4).hexdigest()
