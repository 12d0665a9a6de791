"""Options that several commands share, and how tables are shown."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer

from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.evaluation import Evaluation, Score
    from regrain.runs.run import Run

Result = TypeVar("Result")


def _known_method(name: str) -> str:
    """A method's name; a UserError where there is none, before torch is imported, which takes seconds.

    Where methods are loaded already, which a script does that registers its own, they are asked; else the names are
    read from the classes' text.
    """
    from importlib.resources import files

    from regrain.errors import UserError, nearest

    loaded = sys.modules.get("regrain.methods")
    if loaded is not None:
        names, aliases = set(loaded.METHODS), set(loaded.ALIASES)
    else:
        folder = files("regrain") / "methods"
        text = "\n".join(f.read_text(encoding="utf-8") for f in folder.iterdir() if f.name.endswith(".py"))
        names = set(re.findall(r'^    name: ClassVar\[str\] = "(.+)"$', text, re.MULTILINE))
        lines = re.findall(r"^ALIASES = {(.*)}$", text, re.MULTILINE)
        aliases = {alias for line in lines for alias in re.findall(r'"([^"]+)":', line)}
    if names and name not in names | aliases:
        raise UserError(
            f"no method '{name}': {nearest(name, names)} (`regrain methods` describes them)", code="unknown_name"
        )
    return name


Method = Annotated[str, typer.Argument(help="A method; `regrain methods` lists them.", callback=_known_method)]
Data = Annotated[str, typer.Argument(help="A catalog name (`regrain datasets`), or the path of a folder or table.")]
OwnData = Annotated[
    str | None,
    typer.Option("--data", help="Where the run's own data are now: a path or a catalog name.", show_default=False),
]
LevelNames = Annotated[
    list[str] | None,
    typer.Option("--level", "-l", help="A label level (column); repeat from coarse to fine.", show_default=False),
]
Split = Annotated[str, typer.Option("--split", help="Which split to judge.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, nothing else on standard output.")]


class RelationName(StrEnum):
    """How levels hang together."""

    tree = "tree"
    paths = "paths"
    aspects = "aspects"


class DeviceName(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DeviceOption = Annotated[DeviceName, typer.Option("--device", help="Where to compute.")]


def _option(annotation: Any, flag: str, text: str, **more: Any) -> Any:
    """A parameter of the panel about the user's data."""
    return Annotated[annotation, typer.Option(flag, help=text, rich_help_panel="Your data", show_default=False, **more)]


def _experiment(annotation: Any, flag: str, text: str) -> Any:
    """A parameter of the panel about a poorer training split."""
    panel = "Experiments with the training split"
    return Annotated[annotation, typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)]


_TRAINING: dict[str, Any] = {
    "level": LevelNames,
    "encoder": Annotated[str | None, typer.Option("--encoder", help="An encoder, such as resnet18-w16, minilm, mlp.")],
    "pretrained": Annotated[bool, typer.Option("--pretrained", help="Start from published weights.")],
    "weights": Annotated[
        Path | None, typer.Option("--weights", help="Start from a weights file, a run, or a Hub folder.")
    ],
    "frozen": Annotated[bool, typer.Option("--frozen", help="Keep the encoder; train an adapter on its features.")],
    "epochs": Annotated[int | None, typer.Option("--epochs", help="Epochs.")],
    "batch_size": Annotated[int | None, typer.Option("--batch-size", help="Samples of a batch.")],
    "samples": _experiment(int | None, "--samples", "Train on so many samples alone."),
    "limit_per_class": _experiment(
        int | None, "--limit-per-class", "At most so many training samples of every class of the finest level."
    ),
    "label_noise": _experiment(
        list[str] | None,
        "--label-noise",
        "Share of the training samples whose label is drawn anew: 0.3, or LEVEL=0.3; repeat.",
    ),
    "noise_within": _experiment(str | None, "--noise-within", "The level whose classes wrong labels do not leave."),
    "hide_labels": _experiment(
        list[str] | None,
        "--hide-labels",
        "Share of the training samples that lose their labels: 0.8, or LEVEL=0.8; repeat.",
    ),
    "draw": _experiment(int | None, "--draw", "The seed of what these draw; default 0, whatever --seed is."),
    "holdout": Annotated[
        float | None,
        typer.Option("--holdout", help="Share held out for testing, where the data have no splits; default 0.2."),
    ],
    "seed": Annotated[int | None, typer.Option("--seed", help="Fixes everything.")],
    "recipe": Annotated[
        Path | None,
        typer.Option("--recipe", help="A YAML file with sections data, method, encoder, views, training, and a seed."),
    ],
    "assignments": Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, such as weight=0.8 or training.precision=bf16; repeat."),
    ],
    "device": DeviceOption,
}
"""Options of every command that trains, by parameter."""

_READER: dict[str, Any] = {
    "root": _option(Path | None, "--root", "Where catalog data lie (or the variable REGRAIN_DATA)."),
    "image": _option(str | None, "--image", "Column with image paths or bytes."),
    "text": _option(str | None, "--text", "Column with texts."),
    "columns": _option(list[str] | None, "--columns", "Numeric columns; repeat, or a pattern such as 'f*'."),
    "series_shape": _option(str | None, "--series-shape", "Shape of a flat series column, such as 128x6."),
    "record": _option(str | None, "--record", "One row a time step: column that says which record a row belongs to."),
    "time": _option(str | None, "--time", "Column that orders the rows of a record (default: the table's order)."),
    "window": _option(int | None, "--window", "Width in time steps of the samples that records are cut into."),
    "stride": _option(int | None, "--stride", "Time steps from one sample to the next (default: the window)."),
    "gap": _option(
        float | None, "--gap", "Longest step of time in a sample; default 1.5 usual steps of a regular clock."
    ),
    "static": _option(list[str] | None, "--static", "Columns, constant in a record, beside the series; repeat."),
    "split_column": _option(str | None, "--split-column", "Column that says train or test."),
    "group_column": _option(
        str | None, "--group-column", "Column of what a split must not tear apart (subject, product)."
    ),
    "id_column": _option(str | None, "--id-column", "Column of unique ids."),
    "label_paths": _option(bool, "--label-paths", "The level's column holds paths such as a/b/c."),
    "relation": _option(
        RelationName | None,
        "--relation",
        "tree: a class has one parent; paths: a class is its path; aspects: levels do not nest.",
    ),
    "image_size": _option(int | None, "--image-size", "Side in pixels at which images are kept."),
    "channels": _option(int | None, "--channels", "1 grey, 3 colour, 4 with transparency."),
    "white": _option(int | None, "--white", "The value of 16-bit pixels that is stored as 255, such as 4095."),
    "cache": _option(bool, "--cache", "Decode images once, into a memory-mapped file in the cache folder."),
    "skip_unreadable": _option(bool, "--skip-unreadable", "Leave out, and count, samples that cannot be read."),
    "download": _option(bool, "--download", "Fetch catalog data that are missing."),
}
"""Options of every command that reads data, by the name a reader knows them by."""


def reads_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of readers; what the user set arrives as its keyword ``reading``."""
    return _with_options(command, "reading", _READER, _reader_options)


def trains(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of a training, readers' included; they arrive as its keyword ``training``.

    As the keyword arguments that :func:`regrain.fit` and its like share.
    """
    return _with_options(command, "training", _TRAINING | _READER, _training_options)


def _with_options(
    command: Callable[..., None],
    keyword: str,
    options: Mapping[str, Any],
    convert: Callable[[dict[str, Any]], dict[str, Any]],
) -> Callable[..., None]:
    """A command with more options, converted and handed on as one keyword."""
    own = inspect.signature(command, eval_str=True)
    kept = [p for p in own.parameters.values() if p.name != keyword]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_default(kind))
        for name, kind in options.items()
    ]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        taken = {name: given.pop(name) for name in options}
        command(**given, **{keyword: convert(taken)})

    wrapper.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]  # what typer reads
    wrapper.__annotations__ = {p.name: p.annotation for p in [*kept, *added]}
    return wrapper


def _training_options(given: dict[str, Any]) -> dict[str, Any]:
    """What the user gave, as the verbs that train take it."""
    weights, pretrained = given.pop("weights"), given.pop("pretrained")
    short = {name: given.pop(name) for name in ("epochs", "batch_size")}
    settings = [f"training.{name}={value}" for name, value in short.items() if value is not None]
    return {
        "levels": given.pop("level"),
        "pretrained": str(weights) if weights is not None else pretrained,
        "settings": [*(given.pop("assignments") or []), *settings],
        **{name: _shares(name, given.pop(name)) for name in ("hide_labels", "label_noise")},
        "device": given.pop("device").value,
        **{name: given.pop(name) for name in _TRAINING if name in given},
        **_reader_options(given),
    }


def _default(annotation: Any) -> Any:
    kind = get_args(annotation)[0]
    return False if kind is bool else DeviceName.auto if kind is DeviceName else None


def _reader_options(given: dict[str, Any]) -> dict[str, Any]:
    """What the user gave, as readers take it."""
    from regrain.errors import UserError

    options = {name: value for name, value in given.items() if value not in (None, []) and value is not False}
    if "relation" in options:
        options["relation"] = str(options["relation"])
    if "root" in options:
        options["root"] = str(options["root"])
    if "series_shape" in options:
        try:
            options["series_shape"] = tuple(int(n) for n in options["series_shape"].lower().split("x"))
        except ValueError:
            raise UserError(
                f"--series-shape is TIMExCHANNELS, such as 128x6; got '{options['series_shape']}'"
            ) from None
    return options


def _shares(name: str, texts: list[str] | None) -> float | dict[str, float] | None:
    """What an option such as ``--hide-labels`` says: one share, or shares by level."""
    from regrain.errors import UserError

    if not texts:
        return None
    try:
        if len(texts) == 1 and "=" not in texts[0]:
            return float(texts[0])
        return {level: float(share) for level, _, share in (text.rpartition("=") for text in texts)}
    except ValueError:
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag} takes a share such as 0.8, or LEVEL=0.8; got {' '.join(texts)}") from None


def refuse_without_data(data: str | None, reading: dict[str, object]) -> None:
    """Say that options of a reader need data to read, where none were given."""
    from regrain.errors import UserError

    if data is None and reading:
        name = next(iter(reading)).replace("_", "-")
        raise UserError(
            f"--{name} says how to read --data, and no --data was given: the run reads its own data by its recipe"
        )


def stoppable(work: Callable[[], Result], go_on: str | None = None) -> Result:
    """What a training gives; after Ctrl-C a word on how to go on (default: `regrain resume` the run), and exit 130."""
    from regrain.training.loop import Stopped
    from regrain.training.processes import is_first_process

    try:
        return work()
    except Stopped as stopped:
        if is_first_process():
            say(f"stopped; go on with {go_on or f'`regrain resume {stopped.args[0]}`'}", err=True)
        raise typer.Exit(130) from None


def tells_notices() -> Callable[[Run], None]:
    """What tells, run by run and on standard error, what was chosen for the user; nothing is told twice."""
    told: set[str] = set()

    def tell(run: Run) -> None:
        for notice in dict.fromkeys(run.notices):
            if notice not in told:
                say(f"note      {notice}", err=True)
        told.update(run.notices)

    return tell


def show_evaluation(evaluation: Evaluation) -> None:
    """A table: one line a metric, one column a representation."""
    from regrain.cli.tables import Table

    names = list(dict.fromkeys(row.representation for row in evaluation.rows))
    scores = {(row.representation, row.level, row.metric): row.score for row in evaluation.rows}
    table = Table(f"{evaluation.split}: {evaluation.samples} samples")
    table.column("level")
    table.column("metric")
    for name in names:
        table.column(name, justify="right")
    table.column("95% interval", justify="right")
    for level, metric in dict.fromkeys((row.level, row.metric) for row in evaluation.rows if not row.score.detail):
        score = scores[next(name for name in names if (name, level, metric) in scores), level, metric]
        interval = "" if score.low is None else f"{100 * score.low:.2f} to {100 * (score.high or 0):.2f}, {score.over}"
        cells = [_cell(scores.get((name, level, metric))) for name in names]
        table.row(level, metric, *cells, interval)
    table.show()
    for note in evaluation.notes:
        say(f"- {note}")


def mean_cell(score: Score) -> str:
    """A mean over seeds, shares in per cent, and its interval."""
    scale, digits = (1, 2) if score.count else (100, 1)
    ends = [score.low, score.high] if score.low is not None and score.high is not None else []
    spread = " to ".join(f"{scale * end:.{digits}f}" for end in ends)
    return f"{scale * score.value:.{digits}f}{f' ({spread})' if spread else ''}"


def _cell(score: Score | None) -> str:
    """A share in per cent, a count as it is, nothing where the representation has no such figure."""
    from regrain.evaluation.results import figure_text

    return "" if score is None else figure_text(score.value, count=score.count)
