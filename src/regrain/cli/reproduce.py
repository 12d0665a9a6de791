"""``reproduce`` and ``recipes``: the rows of the papers' tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.checks import Count
    from regrain.papers.reproducing import Reproduction
    from regrain.papers.rows import Recipe
    from regrain.papers.scales import Scale
    from regrain.training.device import Device


def reproduce(
    recipes: Sequence[str] = (),
    *,
    scale: Scale = "small",
    seeds: Count = 1,
    every: bool = False,
    most_hours: float | None = None,
    rate: float | None = None,
    append: Path | None = None,
    out: str | Path = "runs/reproduce",
    root: str | Path | None = None,
    settings: Sequence[str] = (),
    device: Device = "auto",
    as_json: bool = False,
) -> None:
    """Run the rows of papers' tables, and show ours next to theirs.

    A row whose data are not there, or whose method is not implemented, is named and left out. The same command again
    goes on where it stopped.

    Parameters
    ----------
    recipes : sequence of str
        Such as maskcon/table2.
    scale : {"tiny", "small", "paper"}
        tiny: seconds, on generated data; small: minutes; paper: as published.
    seeds : int
        Trainings of each row; mean and 95% interval of several.
    every : bool
        Every recipe that the data at hand allow.
    most_hours : float, optional
        Leave out rows whose estimate is above this many hours.
    rate : float, optional
        TFLOP a second that this machine trains at; default 0.3, two CPU cores.
    append : path, optional
        Add the tables to this page, such as docs/results.md.
    out : path
        Where the runs go; what is finished there is not run again.
    root : path, optional
        Folder that holds the data sets (or the variable REGRAIN_DATA).
    settings : sequence of str
        Change a setting of the recipes: key=value; repeat.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    """
    from regrain.cli.show import notice_teller, stoppable
    from regrain.errors import UserError
    from regrain.papers.reproducing import Reproduction, judges_alike, markdown
    from regrain.papers.reproducing import append as append_to
    from regrain.papers.reproducing import reproduce as reproduce_row
    from regrain.papers.rows import select

    _require_positive(hours=most_hours, rate=rate)
    if not recipes and not every:
        raise UserError("name a recipe, a table or a paper (`regrain recipes` lists them), or run every one with --all")
    found: list[Reproduction] = []
    beside: set[str] = set()  # rows that are judged alike share the baselines of the first one
    tell = notice_teller()
    asked: list[str | None] = [*recipes] if recipes else [None]
    chosen = {recipe.name: recipe for name in asked for recipe in select(name)}
    for recipe in chosen.values():
        reason = _too_long(recipe, scale, most_hours, rate)
        if reason:
            say(f"left out  {recipe.name}: {reason}", err=True)
            continue
        run = partial(
            reproduce_row,
            recipe,
            scale=scale,
            seeds=seeds,
            out=out,
            root=root,
            settings=settings,
            device=device,
            baselines=not recipe.absent and judges_alike(recipe) not in beside,
            on_run=tell,
        )
        try:
            made = stoppable(run, "the same command")
        except UserError as error:  # of this row; the others go on
            made = Reproduction(recipe, scale, (), {}, str(error))
        say(f"{'left out ' if made.problem else 'done     '} {recipe.name}", err=True)
        found.append(made)
        if made.beside:
            beside.add(judges_alike(recipe))
    if as_json:
        print(json.dumps([made.to_json() for made in found], indent=1))
    elif found:
        _show(found)
    if append is not None and any(made.figures for made in found):
        append_to(append, markdown([made for made in found if made.figures]))
        say(f"added to {append}", err=True)
    if not any(made.figures for made in found):
        raise typer.Exit(2)


def recipes(
    recipes: str | None = None, *, scale: Scale = "paper", rate: float | None = None, as_json: bool = False
) -> None:
    """List the recipes of papers' tables, with the data they need and what they cost. With one NAME: all of it.

    The cost is samples x epochs x views x 3 x the operations of the encoder's forward pass, over the rate.

    Parameters
    ----------
    recipes : str, optional
        Such as maskcon/table2.
    scale : {"tiny", "small", "paper"}
        At which scale the cost is estimated.
    rate : float, optional
        TFLOP a second that the machine trains at; default 0.3, two CPU cores.
    """
    from regrain.papers.rows import select

    _require_positive(rate=rate)
    chosen = select(recipes)
    if as_json:
        print(json.dumps([_told(recipe, scale, rate) for recipe in chosen], indent=1, default=list))
    elif len(chosen) == 1 and chosen[0].name == recipes:
        _one(chosen[0], scale, rate)
    else:
        _list(chosen, scale, rate)


def _require_positive(**given: float | None) -> None:
    from regrain.errors import UserError

    for name, number in given.items():
        if number is not None and not 0 < number < math.inf:
            raise UserError(f"--{name} is a number greater than 0; got {number}", code="out_of_range")


def _too_long(recipe: Recipe, scale: Scale, most: float | None, rate: float | None) -> str:
    found = None if most is None or recipe.absent else _hours(recipe, scale, rate)
    return f"estimated at {_duration(found)}" if found is not None and most is not None and found > most else ""


def _hours(recipe: Recipe, scale: Scale, rate: float | None) -> float | None:
    from regrain.papers.scales import RATE, at_scale, flops, hours

    return hours(flops(at_scale(recipe, scale)), RATE if rate is None else 1e12 * rate)


def _told(recipe: Recipe, scale: Scale, rate: float | None) -> dict[str, Any]:
    from regrain.papers.scales import at_scale

    content: dict[str, Any] = {
        "name": recipe.name,
        "paper": recipe.paper,
        "title": recipe.title,
        "row": recipe.label,
        "figures": recipe.figures,
        "metrics": recipe.metrics,
        "notes": list(recipe.notes),
    }
    if recipe.absent:
        return content | {"absent": recipe.absent}
    scaled = at_scale(recipe, scale)
    return content | {"needs": list(recipe.needed), "hours": _hours(recipe, scale, rate), "recipe": scaled.resolved()}


def _list(chosen: Sequence[Recipe], scale: Scale, rate: float | None) -> None:
    from regrain.cli.tables import ScreenTable, Whole

    for place in dict.fromkeys((r.paper, r.table, r.title) for r in chosen):
        rows = [r for r in chosen if (r.paper, r.table, r.title) == place]
        title = f"{place[0]}, table {place[1].removeprefix('table')}: {place[2]}"
        table = ScreenTable(title, Whole("recipe"), "method", "data", "paper", f"hours, {scale}")
        for r in rows:
            figures = ", ".join(map(r.printed, r.figures))
            if r.absent:
                table.row(r.name, f"({r.absent})", "", figures, "")
            else:
                table.row(r.name, r.method, ", ".join(r.needed), figures, _duration(_hours(r, scale, rate)))
        table.show()
    say(
        "hours: samples x epochs x views x 3 x the encoder's forward operations, at "
        + ("0.3 TFLOP/s (two CPU cores, docs/speed.md)" if rate is None else f"{rate:g} TFLOP/s")
        + "; --rate for another machine. `regrain recipes NAME` shows one."
    )


def _one(recipe: Recipe, scale: Scale, rate: float | None) -> None:
    import yaml

    content = json.loads(json.dumps(_told(recipe, scale, rate), default=list))
    for line in yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110).splitlines():
        say(line)


def _duration(hours: float | None) -> str:
    """Format hours, or days if there are many; a question mark if unknown."""
    if hours is None:
        return "?"
    return f"{hours:.2g}" if hours < 48 else f"{hours:,.0f} ({hours / 24:,.0f} days)"


def _show(found: Sequence[Reproduction]) -> None:
    from regrain.cli.tables import Right, ScreenTable
    from regrain.papers.reproducing import grouped

    scale = found[0].scale
    for group in grouped(found):
        columns = [Right(text) for metric in group.metrics for text in (f"{metric}\nours", "\npaper")]
        table = ScreenTable(f"{group.title}; scale {scale}", "row", *columns)
        for label, *cells in group.lines():
            table.row(label, *cells)
        table.show()
        for remark in group.remarks():
            say(f"- {remark}")
    if scale != "paper":
        say(f"Scale {scale} is not the paper's experiment: the columns do not compare.")
