"""Taxonomies by name, from the groupings of the papers, and from the user's own file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from regrain.data.cells import unescape_formula
from regrain.data.delimited import delimiter_of
from regrain.data.formats import utf8_text
from regrain.errors import UserError, nearest
from regrain.labels import Taxonomy

_FINEST = "label"
_DATA = resources.files("regrain.data")


@dataclass(frozen=True)
class TaxonomyInfo:
    """Description of a taxonomy that comes with the package."""

    name: str
    levels: Mapping[str, int]  # level -> number of classes, coarse to fine
    source: str  # where it was published; a RECONSTRUCTION says so here
    note: str  # what one should know before relying on it; may be empty
    dropped: tuple[str, ...]  # classes of the data set that it leaves out
    # part -> classes of the coarsest level: where coarse classes are shared out over training, validation and test;
    # else empty
    parts: Mapping[str, tuple[str, ...]]


def taxonomies() -> dict[str, TaxonomyInfo]:
    """The taxonomies that come with the package, by name.

    Examples
    --------
    >>> taxonomies()["breeds_living17"].levels
    {'superclass': 17, 'label': 68}
    """
    return {name: _info(name) for name in _names()}


def taxonomy(source: str | Path) -> Taxonomy:
    """A taxonomy by name, or from a file.

    Raises a UserError for a name that is not known (the nearest is given), a file of another kind, and rows that are
    not edges or paths, by the line of the file.

    Parameters
    ----------
    source : str or path
        A name of :func:`taxonomies`, or a file: JSON (:meth:`~regrain.labels.Taxonomy.from_json`); CSV or TSV with one
        edge ``child,parent`` per row, under a header with these two words, in either order, or under none; or ``.txt``
        with one path ``a/b/c`` per line, a class being its whole path.

    Examples
    --------
    >>> grouped = taxonomy("cifartoy_good")
    >>> grouped.levels, grouped.classes[0]
    (('coarse', 'label'), ('airplane+automobile+ship+truck', 'bird+cat+dog+horse'))
    """
    if str(source) in _names():
        return _known(str(source))
    path = Path(os.path.expanduser(source))
    if not path.is_file():
        raise UserError(
            f"no taxonomy '{source}', and no such file: {nearest(str(source), _names())}", code="missing_file"
        )
    try:
        return _from_file(path)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}", code=error.code) from None
    except csv.Error as error:
        raise UserError(f"{path} does not have the form of a taxonomy: {error}", code="damaged_file") from None


def display_names(source: str | Path) -> dict[str, str]:
    """Words for the WordNet ids among the classes of a taxonomy; other classes are words already.

    Parameters
    ----------
    source : str or path
        As for :func:`taxonomy`.

    Examples
    --------
    >>> display_names("breeds_living17")["n01631663"]
    'eft'
    """
    words = _words()
    return {name: words[name] for names in taxonomy(source).classes for name in names if name in words}


@cache
def grouping(name: str) -> dict[str, Any]:
    """Content of a file of ``groupings/``; ``classes`` gives the ancestors of every class as a list, coarsest first."""
    content: dict[str, Any] = json.loads((_DATA / "groupings" / f"{name}.json").read_text(encoding="utf-8"))
    content["classes"] = {
        fine: [above] if isinstance(above, str) else above for fine, above in content["classes"].items()
    }
    return content


@cache
def _names() -> tuple[str, ...]:
    files = (file.name for file in (_DATA / "groupings").iterdir())
    return tuple(sorted(file.removesuffix(".json") for file in files if file.endswith(".json")))


@cache
def _words() -> dict[str, str]:
    return json.loads((_DATA / "wnids.json").read_text(encoding="utf-8"))["names"]


@cache
def nouns() -> tuple[str, ...]:
    """Names of ImageNet's classes and of the inner nodes above them, each by its first synonym.

    Examples
    --------
    >>> nouns()[:2]
    ('tench', 'goldfish')
    """
    return tuple(dict.fromkeys(name.partition(",")[0] for name in _words().values()))


@cache
def _known(name: str) -> Taxonomy:
    return Taxonomy.from_json(grouping(name))


def _info(name: str) -> TaxonomyInfo:
    content = grouping(name)
    lines = content["classes"].values()
    counts = {
        level: len({above[position] for above in lines} - {None}) for position, level in enumerate(content["levels"])
    }
    return TaxonomyInfo(
        name=name,
        levels=counts | {_FINEST: len(lines)},
        source=content["source"],
        note=content.get("note", ""),
        dropped=tuple(content.get("dropped", ())),
        parts={part: tuple(classes) for part, classes in content.get("parts", {}).items()},
    )


def _from_file(path: Path) -> Taxonomy:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return Taxonomy.from_json(path)
    if suffix in (".csv", ".tsv"):
        return Taxonomy.from_edges(_edges(path))
    if suffix != ".txt":
        raise UserError(
            f"{path} is not a taxonomy file: expected .json, .csv or .tsv with a row child,parent for every edge, or "
            ".txt with a path a/b/c per line",
            code="damaged_file",
        )
    paths = [line.strip() for line in utf8_text(path).splitlines()]
    if not any("/" in line.strip("/") for line in paths):
        raise UserError(f"{path} holds no path of two levels or more: expected lines such as animal/dog/beagle")
    return Taxonomy.from_paths(filter(None, paths))


def _edges(path: Path) -> list[tuple[str, str]]:
    """(child, parent) pairs, checked row by row."""
    text = utf8_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(path, text))
    edges: list[tuple[str, str]] = []
    child, parent = 0, 1
    heading_possible = True
    for row in reader:
        cells = [unescape_formula(cell.strip()) for cell in row]
        if not any(cells):
            continue
        line = f"{path}, line {reader.line_num}"
        if len(cells) != 2:
            raise UserError(f"{line} has {len(cells)} cells; a row holds two: child,parent")
        if heading_possible and {cell.lower() for cell in cells} == {"child", "parent"}:
            child, parent = (0, 1) if cells[0].lower() == "child" else (1, 0)
        elif not all(cells):
            raise UserError(f"{line} has an empty cell; a class without a parent needs no row of its own")
        elif cells[0] == cells[1]:
            raise UserError(f"{line} makes '{cells[0]}' its own parent")
        else:
            edges.append((cells[child], cells[parent]))
        heading_possible = False
    return edges
