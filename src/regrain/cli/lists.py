"""``check``, ``datasets`` and ``methods``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from regrain.cli import options as o

__all__ = ["register"]

_ENTRY_FIELDS = (
    "description",
    "modality",
    "levels",
    "relation",
    "samples",
    "source",
    "licence",
    "layouts",
    "views",
    "notes",
)
_ADVICE = (
    ("coarse labels", "embeddings that tell fine classes apart", "maskcon; grafit, coins beside it"),
    ("coarse labels, fine classes look alike inside", "the same", "grafit or coins with a small weight; selfcon"),
    ("coarse labels, and only coarse classes matter", "a classifier", "sup-ce"),
    ("no labels", "embeddings", "simclr or selfcon; nnclr"),
    ("no labels", "classes", "self-classifier or sela, then `regrain discover`"),
    ("fine labels of every sample", "a classifier, embeddings", "sup-fine; supcon with one --level"),
    ("coarse labels", "the hidden subclasses", "scgm, then `regrain discover`; sela without labels"),
    ("coarse labels, a few fine ones", "a classifier of the fine ones", "scgm-a or maskcon, then `regrain adapt`"),
    ("some samples without a coarse label", "embeddings", "maskcon, grafit: such samples learn from themselves"),
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    app.command()(datasets)
    app.command()(methods)


@o.reads_data
def check(
    data: Annotated[str, typer.Argument(help="A catalog name, or the path of a folder or table.")],
    level: o.LevelNames = None,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """List every problem of DATA before training: files, labels, ids, copies across splits. Exit code 2 on errors.

    Examples:

    `regrain check photos/`

    `regrain check table.csv --text question --level domain --level intent`

    `regrain check sessions.csv --record patient --time day --window 5 --stride 1 --static age --level event`
    """
    from regrain.data.check import check as check_data

    if "split_column" in reading:
        reading["split"] = reading.pop("split_column")
    report = check_data(data, **reading, **({"levels": list(level)} if level else {}))
    if json_:
        print(json.dumps(report.to_json(), indent=1))
    else:
        for line in report.render():
            print(line)
    if not report.ok:
        raise typer.Exit(2)


def datasets(json_: o.Json = False) -> None:
    """List the data sets that are known by name, with their levels and where they come from."""
    from regrain.data.catalog import entries

    known = entries()
    if json_:
        print(
            json.dumps({name: {f: getattr(entry, f) for f in _ENTRY_FIELDS} for name, entry in known.items()}, indent=1)
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="data sets by name (--root DIR or REGRAIN_DATA says where they lie)", title_justify="left")
    for column in ("name", "what", "levels (classes)", "samples"):
        table.add_column(column, overflow="fold")
    for name, entry in known.items():
        between = ", " if entry.relation == "aspects" else " > "
        levels = between.join(f"{level} ({count})" for level, count in entry.levels.items())
        sizes = ", ".join(f"{split} {count}" for split, count in entry.samples.items())
        table.add_row(name, f"{entry.modality}: {entry.description}", levels, sizes)
    Console().print(table)
    print(
        "Your own data: a folder super/sub/.../image, a CSV, TSV, Parquet or JSON-lines table; `regrain check "
        "PATH` first."
    )


def methods(
    name: Annotated[str | None, typer.Argument(help="One method: its settings and defaults.")] = None,
    json_: o.Json = False,
) -> None:
    """Which method for my labels. With NAME: what it does, and every setting with its default.

    Examples:

    `regrain methods`

    `regrain methods maskcon`
    """
    from regrain.methods import METHODS, method_class
    from regrain.settings import hyperparameters

    if name is not None:
        _one_method(method_class(name), hyperparameters(method_class(name)), json_)
        return
    if json_:
        print(
            json.dumps({n: {"summary": m.summary, "reads": list(m.needs.levels)} for n, m in METHODS.items()}, indent=1)
        )
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        "First of all: embed with a strong frozen encoder and evaluate (--frozen); train only if that is not enough.\n"
    )
    table = Table(title="which method for my labels", title_justify="left")
    for column in ("you have", "you want", "take"):
        table.add_column(column, overflow="fold")
    for row in _ADVICE:
        table.add_row(*row)
    console.print(table)
    table = Table(title="the methods", title_justify="left")
    for column in ("name", "labels it reads", "what it does"):
        table.add_column(column, overflow="fold")
    for method in METHODS.values():
        table.add_row(method.name, ", ".join(method.needs.levels) or "none", method.summary)
    console.print(table)
    print("`regrain methods NAME` shows the settings of one.")


def _one_method(method: Any, parameters: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: p.default for name, p in parameters.items()}, indent=1))
        return
    import inspect

    print(f"{method.name}: {method.summary}")
    print(f"reads: {', '.join(method.needs.levels) or 'no labels'}; views: {', '.join(method.needs.views)}\n")
    print(inspect.cleandoc(method.__doc__ or ""))
    print("\nsettings (--set NAME=VALUE):")
    for name, parameter in parameters.items():
        print(f"  {name} = {parameter.default}")
