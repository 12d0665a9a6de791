"""``check``, ``datasets``, ``methods`` and ``taxonomies``."""

from __future__ import annotations

import ast
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import typer

from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.checks import Count
    from regrain.cluster import Engine
    from regrain.data.options import ReaderOptions
    from regrain.labels import Taxonomy
    from regrain.papers.datasets import Entry

_ENTRY_FIELDS = (
    *("description", "modality", "levels", "relation", "samples", "source", "licence"),
    *("layouts", "views", "notes", "seen"),
)
_LARGE = 256  # pixels, from which images are kept encoded
_SOURCE_WIDTH = 110  # characters of a source in the table
ADVICE = (  # also in README.md and docs/index.md, which a test compares
    (
        "anything",
        "to know what is there already",
        "`regrain auto DATA`; by hand a strong frozen encoder: `regrain fit features DATA`, then `regrain evaluate`",
    ),
    ("coarse labels", "embeddings that tell fine classes apart", "`maskcon`; compare `grafit`, `coins`"),
    (
        "coarse labels whose fine classes look alike",
        "the same",
        "`grafit` or `coins` with a small `weight`; compare `selfcon`",
    ),
    (
        "coarse labels",
        "the hidden subclasses",
        "`scgm`, then `regrain discover`; compare clusters of `features` and `maskcon`, and `falcon`",
    ),
    (
        "coarse labels, a few fine ones",
        "a classifier of the fine ones",
        "`scgm` (drawings: `scgm-a`), then `regrain adapt`; compare `features`",
    ),
    (
        "coarse labels",
        "a classifier of them",
        "`sup-ce`; compare `sclre`, `tsc` where the samples of a class look nothing alike",
    ),
    (
        "coarse labels of some samples",
        "embeddings",
        "`maskcon` or `grafit`: a sample without a label learns from itself",
    ),
    (
        "fine labels of some samples, coarse ones of more, none of others",
        "a classifier of every level",
        "`mixed`; compare `multi-ce` (faster), `taxon-ssl` (texts); then `regrain calibrate`",
    ),
    (
        "some fine classes labelled, others never",
        "the known classes and the others",
        "`mixed` or `maskcon`, then `regrain discover --known LEVEL`",
    ),
    (
        "labels at several levels or aspects, any of them missing",
        "one representation for all",
        "`multi-ce`; compare `mlcl`, and `himulcone` where levels nest",
    ),
    ("labels, some of them wrong", "the wrong ones", "`features`, then `regrain clean`"),
    ("no labels", "classes", "`kmeans`; compare `self-classifier` (photographs)"),
    ("no labels", "embeddings", "`features` of a strong frozen encoder; from random weights `selfcon` or `simclr`"),
    ("fine labels of every sample", "a classifier, the upper bound", "`sup-fine`"),
)


def check(
    data: str,
    *,
    levels: Sequence[str] | None = None,
    engine: Engine = "processes",
    devices: Count = 1,
    as_json: bool = False,
    **options: Unpack[ReaderOptions],
) -> None:
    """List every problem of DATA before training: files, labels, ids, copies across splits. Exit code 2 on errors.

    Parameters
    ----------
    data : str
        A catalogue name (`regrain datasets`), or the path of a folder or table.
    levels : sequence of str, optional
        A label level (column); repeat from coarse to fine.
    engine : {"processes", "ray"}
        With ray, workers of a Ray cluster share out the decoding of images.
    devices : int
        How many workers of the cluster: each takes a core.
    **options
        Of the reader.
    """
    from regrain.data.checking import check as check_data

    named = {"levels": list(levels)} if levels else {}
    report = check_data(data, engine=engine, devices=devices, **options, **named)
    if as_json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        for line in report.render():
            say(line)
    if not report.ok:
        raise typer.Exit(2)


def datasets(name: str | None = None, *, as_json: bool = False) -> None:
    """List the data sets that are known by name. With NAME: source, licence, size, levels and the layouts looked for.

    Parameters
    ----------
    name : str, optional
        One data set: where it comes from, its licence, and how it must lie.
    """
    from regrain.errors import UserError, nearest
    from regrain.papers.datasets import entries

    known = entries()
    if name is not None:
        if name not in known:
            raise UserError(f"no data set '{name}' in the catalogue: {nearest(name, known)}", code="unknown_name")
        _one_dataset(known[name], as_json)
        return
    if as_json:
        print(
            json.dumps({name: {f: getattr(entry, f) for f in _ENTRY_FIELDS} for name, entry in known.items()}, indent=1)
        )
        return
    from regrain.cli.tables import ScreenTable

    title = "data sets by name (--root DIR or REGRAIN_DATA says where they lie)"
    table = ScreenTable(title, "name", "what", "levels (classes)", "samples")
    for name, entry in known.items():
        marked = name if entry.seen else f"{name} *"
        table.row(marked, f"{entry.modality}: {entry.description}", _levels(entry), _sizes(entry))
    table.show()
    say("* the layout is the published one; it was tried on no real copy")
    say(
        "`regrain datasets NAME` shows one. Your own data: a folder super/sub/.../image, a CSV, TSV, Parquet or "
        "JSON-lines table; `regrain check PATH` first."
    )


def _one_dataset(entry: Entry, as_json: bool) -> None:
    if as_json:
        print(json.dumps({field: getattr(entry, field) for field in _ENTRY_FIELDS}, indent=1))
        return
    say(f"{entry.name}: {entry.description}")
    side = f", {entry.side} x {entry.side} pixels" if entry.side < _LARGE else ", decoded to 256 x 256 pixels at most"
    facts = {
        "levels": _levels(entry),
        "size": _sizes(entry) + (side if entry.modality == "image" else ""),
        "source": entry.source,
        "licence": entry.licence,
        "views": ", ".join(entry.views) or "those of the modality",
    }
    for key, value in facts.items():
        say(f"{key}: {value}")
    for key, lines in (("layouts looked for under --root DIR or REGRAIN_DATA", entry.layouts), ("notes", entry.notes)):
        say(f"{key}:")
        for line in lines:
            say(f"  - {line}")
    if entry.torchvision:
        say("`--download` fetches it where it is missing.")


def _levels(entry: Entry) -> str:
    between = ", " if entry.relation == "aspects" else " > "
    return between.join(f"{level} ({count})" for level, count in entry.levels.items())


def _sizes(entry: Entry) -> str:
    return ", ".join(f"{split} {count}" for split, count in entry.samples.items())


def methods(name: str | None = None, *, as_json: bool = False) -> None:
    """Which method for my labels. With NAME: what it does, and every setting with its default.

    Parameters
    ----------
    name : str, optional
        One method: its settings and defaults.
    """
    if name is not None:
        from regrain.checks import hyperparameters
        from regrain.methods import method_class

        _one_method(method_class(name), hyperparameters(method_class(name)), as_json)
        return
    known = described_methods()
    if as_json:
        print(
            json.dumps({name: {"summary": text, "reads": levels} for name, (text, levels) in known.items()}, indent=1)
        )
        return
    from regrain.cli.tables import ScreenTable

    table = ScreenTable("which method for my labels", "you have", "you want", "take")
    for row in ADVICE:
        table.row(*row)
    table.show()
    table = ScreenTable("the methods", "name", "labels it reads", "what it does")
    for method, (text, levels) in known.items():
        table.row(method, ", ".join(levels) or "none", text)
    table.show()
    say("`regrain methods NAME` shows the settings of one.")


def described_methods() -> dict[str, tuple[str, list[str]]]:
    """Name -> summary and roles of the labels read, of every method; importing them would take seconds."""
    from regrain.cli.build import assigned_in, value_of

    found = {}
    for name, place in value_of(ast.Name("_HOMES"), "regrain.methods").items():
        target = f"regrain.methods.{place}"
        module, values = target.split(":")[0], assigned_in(target)
        (levels,) = (part.value for part in values["needs"].keywords if part.arg == "levels")  # type: ignore[attr-defined]
        found[name] = value_of(values["summary"], module), [value_of(role, module) for role in levels.elts]
    return found


def taxonomies(name: str | None = None, *, level: str | None = None, as_json: bool = False) -> None:
    """List the taxonomies that come with the package. With NAME or FILE: print the tree, and where it comes from.

    A FILE is JSON, a CSV or TSV of edges child,parent, or a text file of paths a/b/c, one per line.

    Parameters
    ----------
    name : str, optional
        One taxonomy: a name, or your own file.
    level : str, optional
        Show the finest classes under those of this level alone.
    """
    from regrain.cli.names import require_taxonomy
    from regrain.errors import UserError

    if name is not None:
        require_taxonomy(name)
    from regrain.data import taxonomies as catalogue

    known = catalogue.taxonomies()
    if name is None:
        if level is not None:
            raise UserError("--level belongs to one taxonomy: give its name, or a file")
        _all_taxonomies(known, as_json)
        return
    taxonomy = catalogue.taxonomy(name)
    if level is not None:
        taxonomy = taxonomy.keep(list(dict.fromkeys((level, taxonomy.levels[-1]))))
    words = catalogue.display_names(name)
    about = vars(known[name]) if name in known else {"name": name, "source": name}
    if as_json:
        print(json.dumps({**about, **taxonomy.to_json(), "names": words}, indent=1))
        return
    counts = zip(taxonomy.levels, map(len, taxonomy.classes), strict=True)
    say(f"{name}: {' > '.join(f'{level} ({count})' for level, count in counts)}")
    for key in ("source", "note", "dropped", "parts"):
        if about.get(key):
            say(f"{key}: {_listed(about[key])}")
    say()
    for line in _tree(taxonomy, words):
        say(line)


def _all_taxonomies(known: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: vars(about) for name, about in known.items()}, indent=1))
        return
    from regrain.cli.tables import ScreenTable

    table = ScreenTable("taxonomies by name", "name", "levels (classes)", "source")
    for name, about in known.items():
        levels = " > ".join(f"{level} ({count})" for level, count in about.levels.items())
        table.row(name, levels, textwrap.shorten(about.source, _SOURCE_WIDTH, placeholder=" ..."))
    table.show()
    say("`regrain taxonomies NAME` prints one, with its source in full; `regrain taxonomies FILE` your own.")


def _listed(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_listed(item)}" for key, item in value.items())
    return value if isinstance(value, str) else ", ".join(value)


def _tree(taxonomy: Taxonomy, words: Mapping[str, str]) -> Iterator[str]:
    """One indented line for each class that has children; the line lists its leaf classes."""
    under: dict[tuple[int, int], list[tuple[int, int]]] = {}
    tops: list[tuple[int, int]] = []
    for index, names in enumerate(taxonomy.classes):
        over: list[tuple[int, frozenset[int]]] = [(index, frozenset())] * len(names)
        for upper in range(index):  # the nearest level comes last, and wins
            parents = taxonomy.keep([taxonomy.levels[upper], taxonomy.levels[index]]).parents[1]
            over = [(upper, above) if above else old for above, old in zip(parents, over, strict=True)]
        for code, (upper, above) in enumerate(over):
            for parent in above:
                under.setdefault((upper, parent), []).append((index, code))
            if not above:
                tops.append((index, code))

    def called(place: tuple[int, int]) -> str:
        name = taxonomy.classes[place[0]][place[1]]
        return f"{name} {words[name].split(',')[0]}" if name in words else name

    def lines(place: tuple[int, int], indent: str) -> Iterator[str]:
        leaves = ", ".join(called(child) for child in under[place] if child not in under)
        yield f"{indent}{called(place)} ({len(under[place])}){': ' if leaves else ''}{leaves}"
        for child in under[place]:
            if child in under:
                yield from lines(child, indent + "  ")

    for top in tops:
        if top in under:
            yield from lines(top, "")
    alone = ", ".join(called(top) for top in tops if top not in under)
    if alone:
        yield f"under no class: {alone}"


def _one_method(method: Any, parameters: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: p.default for name, p in parameters.items()}, indent=1))
        return
    import inspect

    from regrain.checks import expected
    from regrain.cli.build import plain
    from regrain.encoders.image import SMALL_IMAGE
    from regrain.runs.recipe import recipes_of_method

    say(f"{method.name}: {method.summary}")
    say(f"reads: {', '.join(method.needs.levels) or 'no labels'}; views: {', '.join(method.needs.views)}")
    say()
    for line in plain(inspect.cleandoc(method.__doc__ or "")).splitlines():
        say(line)
    say()
    say("settings (--set NAME=VALUE):")
    for name, parameter in parameters.items():
        say(f"  {name} = {parameter.default}  ({expected(parameter.annotation)})")
    for modality, recipe in recipes_of_method(method.name).items():
        say()
        say(f"its recipe for {modality.replace('small-image', f'images of at most {SMALL_IMAGE} pixels')}:")
        for section, values in recipe.items():
            for name, value in values.items():
                say(f"  {name if section == 'method' else f'{section}.{name}'} = {value}")
