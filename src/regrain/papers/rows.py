"""The recipes of papers' tables: read from ``papers/tables``, resolved, and checked against what they name.

A recipe is one row of a table: what it is trained on and how, how it is judged, and the figures that the paper prints.
Files say what rows share once; the defaults of methods and modalities stay where they are declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

import yaml

from regrain.checks import check_values, hyperparameters
from regrain.data.taxonomies import taxonomy
from regrain.encoders import encoder_names
from regrain.encoders.image import SMALL_IMAGE
from regrain.errors import UserError, nearest
from regrain.evaluation import chosen_protocols
from regrain.evaluation.multi_aspect import ALL
from regrain.methods import method_class
from regrain.papers.datasets import Entry, entries
from regrain.runs.recipe import merge, recipe_for
from regrain.runs.source import CORRUPTIONS
from regrain.training.options import TrainingOptions
from regrain.views import preset_names

OF_RUN = "run/"
"""Prefix of the keys of a run's own figures."""

SECTIONS = ("method", "encoder", "views", "training")
"""Sections of a recipe that :func:`regrain.fit` takes as its ``recipe``."""

_DATA = ("source", "levels", "reader", *CORRUPTIONS)
_JUDGE = ("level", "protocols", "options", "data", "unseen_superclasses")
_FILE = ("paper", "note", "defaults", "metrics", "methods", "absent", "tables")
_TABLE = ("title", "note", "metrics", "variants", "rows", "data", "judge", *SECTIONS)
_ROW = ("like", "paper", "note", "metrics", "data", "judge", *SECTIONS)
_METHOD = ("note", "data", "judge", *SECTIONS)


@dataclass(frozen=True)
class Recipe:
    """One row of a paper's table.

    Attributes
    ----------
    paper, table, title, row, variant : str
        Paper, table number, table title, row as printed, and the row's variant of data or settings.
    name : str
        ``PAPER/TABLE/ROW``.
    data : dict
        ``source`` (a name of the catalogue), ``levels``, ``reader``, and what corrupts the training split
        (:class:`~regrain.data.corruption.Corruption`).
    sections : dict
        ``method``, ``encoder``, ``views``, ``training``, as far as the recipe gives them.
    judge : dict
        ``level`` (``all``: all together), ``protocols``, ``options``; ``data`` where other data are judged than those
        trained on, and ``unseen_superclasses``.
    metrics : dict of str to str
        Title to the key of the evaluation within split and level.
    figures : dict of str to float
        Title to the paper's figure, in per cent.
    notes : tuple of str
    absent : str
        Why the recipe cannot be run; empty if it can.
    decimals : int
        Decimals of the table's figures.
    """

    paper: str
    table: str
    title: str
    row: str
    variant: str
    name: str
    data: dict[str, Any]
    sections: dict[str, Any]
    judge: dict[str, Any]
    metrics: dict[str, str]
    figures: dict[str, float]
    notes: tuple[str, ...] = ()
    absent: str = ""
    decimals: int = 2

    @property
    def label(self) -> str:
        """Row and variant."""
        return f"{self.row}, {self.variant}" if self.variant else self.row

    def printed(self, title: str) -> str:
        """The figure as the paper prints it; empty if there is none."""
        return f"{self.figures[title]:.{self.decimals}f}" if title in self.figures else ""

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.sections["method"]["name"])

    @property
    def entry(self) -> Entry:
        """The training data set."""
        return entries()[self.data["source"]]

    @property
    def needed(self) -> tuple[str, ...]:
        """The data sets for training and evaluation."""
        return tuple(dict.fromkeys((self.data["source"], self.judge.get("data", self.data["source"]))))

    @property
    def levels(self) -> list[str]:
        """The label levels in use."""
        return list(self.data.get("levels") or self.entry.levels)

    def keys(self) -> dict[str, str]:
        """Title to key of ``evaluate --json``, or to a cost: ``run/hours``, ``run/memory``, ``run/size``."""
        upper = f"test/{self.judge['level']}/"
        return {title: key if key.startswith(OF_RUN) else upper + key for title, key in self.metrics.items()}

    def resolved(self) -> dict[str, Any]:
        """Resolve method and training with every default, checked against the declaring signatures.

        Raises
        ------
        UserError
            For an unknown setting, or a value of the wrong type.
        """
        modality = self.entry.modality
        given = merge(recipe_for(modality, self.method, small=self.view_size <= SMALL_IMAGE), self.sections)
        chosen = method_class(self.method)
        method = {key: value for key, value in given["method"].items() if key != "name"}
        training = check_values(given.get("training", {}), hyperparameters(TrainingOptions), "training")
        TrainingOptions(**training)
        return {
            "data": self.data,
            "method": {"name": self.method, **check_values(method, hyperparameters(chosen), self.method)},
            "encoder": given.get("encoder", {}),
            "views": given.get("views", {}),
            "training": training,
            "judge": self.judge,
        }

    @property
    def view_size(self) -> int:
        """Side of a view in pixels; 0 if samples are not images."""
        if self.entry.modality != "image":
            return 0
        stored = self.data.get("reader", {}).get("image_size") or self.entry.side
        return int(self.sections.get("views", {}).get("size") or (224 if stored >= 256 else stored))


def recipes() -> dict[str, Recipe]:
    """Every recipe, by name.

    Examples
    --------
    >>> recipe = recipes()["maskcon/table2/maskcon"]
    >>> recipe.method, recipe.figures["R@1"], recipe.data["source"]
    ('maskcon', 65.52, 'cifar100-20')
    """
    return dict(_recipes())


def select(name: str | None) -> list[Recipe]:
    """Select recipes by the name of a recipe, a table (``maskcon/table2``) or a paper (``maskcon``); None selects all.

    Raises
    ------
    UserError
        For an unknown name; the message gives the nearest.

    Examples
    --------
    >>> len(select("maskcon/table2"))
    7
    """
    known = recipes()
    chosen = [r for r in known.values() if name is None or r.name == name or r.name.startswith(f"{name}/")]
    if not chosen:
        owners = {part for r in known.values() for part in (r.name, r.name.rsplit("/", 1)[0])}
        raise UserError(f"no recipe, table or paper '{name}': {nearest(str(name), owners)}")
    return chosen


def select_one(name: str) -> Recipe:
    """Select one recipe by name; a UserError names the nearest if there is none."""
    if name not in recipes():
        raise UserError(f"no recipe '{name}': {nearest(name, recipes())}")
    return recipes()[name]


def published(table: str, variant: str = "") -> dict[str, str]:
    """First printed figure of each row of a table, under one of its variants.

    Examples
    --------
    >>> published("maskcon/table1", "good")["SupCE"]
    '76.30'
    """
    chosen = (r for r in select(table) if r.variant == variant)
    return {r.row: r.printed(title) for r in chosen if (title := next(iter(r.metrics))) in r.figures}


@cache
def _recipes() -> dict[str, Recipe]:
    folder = resources.files("regrain.papers") / "tables"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    found: dict[str, Recipe] = {}
    for file in files:
        name = file.name.removesuffix(".yaml")
        for recipe in read_paper(name, yaml.safe_load(file.read_text(encoding="utf-8"))):
            if recipe.name in found:
                raise UserError(f"papers/tables/{file.name} has two recipes called {recipe.name}")
            found[recipe.name] = recipe
    return found


def read_paper(name: str, content: Mapping[str, Any]) -> Iterator[Recipe]:
    """Read the recipes of one file.

    Raises
    ------
    UserError
        For an unknown key, a row whose method is neither declared nor absent, or figures that do not fit the metrics;
        the message says where.
    """
    _require_keys(content, _FILE, name)
    for table, shared in content["tables"].items():
        where = f"{name}/{table}"
        _require_keys(shared, _TABLE, where)
        variants: Mapping[str, Any] = shared.get("variants") or {"": {}}
        found = []
        for label, row in shared["rows"].items():
            settings: Mapping[str, Any] = {"paper": row} if isinstance(row, list) else row
            _require_keys(settings, (*_ROW, *variants), f"{where}/{label}")
            for variant, own in variants.items():
                figures = settings.get(variant or "paper")
                if figures is None:
                    continue
                inner = figures if isinstance(figures, Mapping) else {"paper": figures}
                _require_keys(inner, _ROW, f"{where}/{label}/{variant}")
                found.append(_recipe(name, content, table, (str(label), str(variant)), (own or {}, settings, inner)))
        places = max(len(str(figure).partition(".")[2]) for recipe in found for figure in recipe.figures.values())
        yield from (replace(recipe, decimals=places) for recipe in found)


def _recipe(
    paper: str,
    content: Mapping[str, Any],
    table: str,
    labels: tuple[str, str],
    own: Sequence[Mapping[str, Any]],
) -> Recipe:
    """Make the recipe of one row and variant; ``own`` has settings of the variant, the row, and the row's variant.

    Of file, method, table and ``own``, the innermost setting wins.
    """
    shared = content["tables"][table]
    row, inner = own[1:]
    label, variant = labels
    like = inner.get("like") or row.get("like") or label
    absent = content.get("absent", {}).get(like, "")
    methods = content.get("methods", {})
    where = f"{paper}/{table}/{label}"
    if not absent and like not in methods:
        raise UserError(f"{where}: no method '{like}' is declared: {nearest(like, methods)}")
    base: Mapping[str, Any] = methods.get(like, {})
    base = base if "method" in base else {"method": base}
    _require_keys(base, _METHOD, f"{paper}, method {like}")
    layers = (content.get("defaults", {}), base, shared, *own)
    sections = ("data", "judge", *SECTIONS)
    merged = merge(*({key: layer[key] for key in sections if key in layer} for layer in layers))
    metrics = inner.get("metrics") or row.get("metrics") or shared.get("metrics") or content["metrics"]
    figures = inner["paper"]
    if len(figures) != len(metrics):
        raise UserError(f"{where} has {len(figures)} figures for the metrics {', '.join(metrics)}")
    _require_keys(merged.get("data", {}), _DATA, f"{where}, data")
    _require_keys(merged.get("judge", {}), _JUDGE, f"{where}, judge")
    return Recipe(
        paper=content["paper"],
        table=table,
        title=shared["title"],
        row=label,
        variant=variant,
        name="/".join((paper, table, _slug(f"{label} {variant}"))),
        data=merged.get("data", {}),
        sections={key: merged[key] for key in SECTIONS if key in merged},
        judge=merged.get("judge", {}),
        metrics=dict(metrics),
        figures={title: float(f) for title, f in zip(metrics, figures, strict=True) if f is not None},
        notes=tuple(part["note"].strip() for part in (content, shared, base, *own) if part.get("note")),
        absent=absent,
    )


def check_row(recipe: Recipe) -> None:
    """Check everything that a recipe names, without data: method, encoder, settings, data set, levels, protocols.

    Raises
    ------
    UserError
        If something does not exist; the message begins with the recipe's name.
    """
    if recipe.absent:
        return
    try:
        _check(recipe)
    except UserError as error:
        raise UserError(f"{recipe.name}: {error}", code=error.code) from None


def _check(recipe: Recipe) -> None:
    for source in recipe.needed:
        if source not in entries():
            raise UserError(f"no data set '{source}' in the catalogue: {nearest(source, entries())}")
    level, judged = recipe.judge["level"], entries()[recipe.needed[-1]]
    if level != ALL and level not in judged.levels:
        raise UserError(f"{judged.name} has no level '{level}': {nearest(level, judged.levels)}")
    for level in recipe.levels:
        if level not in recipe.entry.levels:
            raise UserError(f"{recipe.entry.name} has no level '{level}': {nearest(level, recipe.entry.levels)}")
    options = recipe.judge.get("options", {})
    chosen_protocols(recipe.judge["protocols"], options)
    source = options.get("taxonomy")
    if source is not None:
        taxonomy(source)
    known = preset_names(recipe.entry.modality)
    for preset in recipe.sections.get("views", {}).get("presets", ()):
        if preset not in known:
            raise UserError(f"no preset '{preset}' for {recipe.entry.modality} views: {nearest(str(preset), known)}")
    name = recipe.sections.get("encoder", {}).get("name")
    if name is not None and not _is_encoder(name, recipe.entry.modality):
        raise UserError(f"no encoder '{name}': {nearest(name, encoder_names(recipe.entry.modality))}")
    recipe.resolved()


def _is_encoder(name: str, modality: str) -> bool:
    if name in encoder_names(modality):
        return True
    if modality == "text":
        return "/" in name
    import timm

    return modality == "image" and timm.is_model(name)


def overridden(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Replace some settings of the recipe's sections."""
    return replace(recipe, sections=merge(recipe.sections, settings))


def _require_keys(content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise UserError(f"{where} has no part '{key}': {nearest(str(key), known)}")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9+.=]+", "-", text.lower()).strip("-")
