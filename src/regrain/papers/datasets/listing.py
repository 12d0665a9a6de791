"""Read the catalogue, ``entries.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from regrain.data.rows import Rows
    from regrain.data.samples import Modality
    from regrain.labels import Relation

_UNSEEN = "no copy was at hand: the layout is the published one, the numbers of samples are not checked"


@dataclass(frozen=True)
class Entry:
    """A data set of the catalogue.

    Parameters
    ----------
    name, description : str
    modality : Modality
    levels : mapping of level to number of classes, coarse to fine
    samples : mapping of split to number of samples
    source, licence : str
    layouts : tuple of str
        Files that the reader looks for under the root.
    views : tuple of str
        Preset names of the two training views; empty for the modality's own.
    notes : tuple of str
        Facts to know before quoting numbers.
    side : int
        Side of the images in pixels; 256, the stored side of large images, if sizes vary.
    relation : Relation
        Relation between the levels.
    original : callable
        Reads the authors' layout under a root; returns None if it is absent.
    grouping : str, optional
        The file of ``groupings/`` that gives coarse classes if a layout lacks them.
    folder : str, optional
        Name of the folder of Parquet files.
    stored : mapping of level to number of classes, optional
        The levels to read from these files, if ``grouping`` gives the others; default all.
    roles : mapping
        Options that assign roles to the columns of these files (:class:`~regrain.data.options.TableOptions`); default:
        a column named like the modality.
    torchvision : str, optional
        The torchvision class that downloads it.
    seen : bool
        Whether the layouts were tested on a real copy.
    """

    name: str
    description: str
    modality: Modality
    levels: Mapping[str, int]
    samples: Mapping[str, int]
    source: str
    licence: str
    layouts: tuple[str, ...]
    views: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    side: int = field(default=256, kw_only=True)
    relation: Relation = field(default="tree", kw_only=True)
    original: Callable[[Path], Rows | None] = field(kw_only=True, repr=False)
    grouping: str | None = field(default=None, kw_only=True, repr=False)
    folder: str | None = field(default=None, kw_only=True, repr=False)
    stored: Mapping[str, int] | None = field(default=None, kw_only=True, repr=False)
    roles: Mapping[str, Any] = field(default_factory=dict, kw_only=True, repr=False)
    torchvision: str | None = field(default=None, kw_only=True, repr=False)
    seen: bool = field(default=True, kw_only=True)


class _Catalogue(Mapping[str, Entry]):
    """Entries by name, each built on first access; a membership test only looks up the name."""

    @cached_property
    def _text(self) -> str:
        return (resources.files("regrain.papers.datasets") / "entries.yaml").read_text(encoding="utf-8")

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(re.findall(r"^  ([\w-]+):", self._text[self._text.index("\nentries:") :], re.MULTILINE))

    @cached_property
    def _content(self) -> Mapping[str, Any]:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a safe one
        return yaml.load(self._text, Loader=loader)

    def __init__(self) -> None:
        self._made: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._made:
            self._made[name] = _entry(name, self._content["entries"][name], self._content["families"])
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _entry(name: str, own: Mapping[str, Any], families: Mapping[str, Mapping[str, Any]]) -> Entry:
    family = families[own["like"]] if "like" in own else {}
    given = {**family, **own, "name": name}
    given.pop("like", None)
    notes = (*family.get("notes", ()), *own.get("notes", ()))
    given["notes"] = notes if given.get("seen", True) else (*notes, _UNSEEN)
    parser = dict(given["original"])
    given["original"] = partial(_original, parser.pop("parser"), **parser)
    tuples = {f.name for f in fields(Entry) if str(f.type).startswith("tuple")}
    typed: dict[str, Any] = {key: tuple(value) if key in tuples else value for key, value in given.items()}
    return Entry(**typed)


def _original(parser: str, *arguments: Any, **options: Any) -> Rows | None:
    """Make a reader of the published files from a parser ``module.function``."""
    module, function = parser.split(".")
    return getattr(import_module(f"regrain.papers.datasets.{module}"), function)(*arguments, **options)


def entries() -> Mapping[str, Entry]:
    """The catalogue, by name.

    Examples
    --------
    >>> entries()["cifar100"].levels
    {'superclass': 20, 'label': 100}
    """
    return _CATALOGUE


_CATALOGUE = _Catalogue()
