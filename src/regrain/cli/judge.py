"""``evaluate`` and ``embed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say


def _few_shot(flag: str, text: str, **more: Any) -> Any:
    """An option of the panel about few-shot episodes."""
    return typer.Option(flag, help=text, rich_help_panel="Few-shot", **more)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(evaluate)
    app.command()(embed)


@o.reads_data
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    data: Annotated[str | None, typer.Option(help="Other data than the run's own: a catalog name or a path.")] = None,
    split: o.Split = "test",
    level: o.LevelNames = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            "--protocol",
            "-p",
            help="recall, knn, clustering (these by default), hierarchy, linear, transfer (linear on other --data), "
            "superclass, multi-aspect (all levels together), few-shot, personalised (a classifier a subject); repeat.",
        ),
    ] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="K of recall@K; repeat. Default 1, 2, 5, 10.")] = None,
    neighbours: Annotated[int | None, typer.Option(help="K of k-NN.", min=1)] = None,
    cluster_seeds: Annotated[int | None, typer.Option(help="Seeds of k-means.", min=1)] = None,
    cluster_starts: Annotated[
        int | None, typer.Option(help="Starts of k-means a seed; the tightest one counts.", min=1)
    ] = None,
    taxonomy: Annotated[
        str | None,
        typer.Option(help="Hierarchy: a name of `regrain taxonomies`, or a file, in place of the data's own levels."),
    ] = None,
    hierarchy_mapping: Annotated[
        str | None,
        typer.Option(help="Hierarchy: match clusters to classes on the labels of test (the default) or train."),
    ] = None,
    linear_epochs: Annotated[
        int | None, typer.Option(help="Linear: epochs of SGD with augmentations, beside the convex solver.", min=0)
    ] = None,
    shots: Annotated[str | None, _few_shot("--shots", "Support samples of a class, such as 1,5; default 1.")] = None,
    ways: Annotated[str | None, _few_shot("--ways", "Classes of an episode, such as 5 or 5,all; default 5.")] = None,
    queries: Annotated[str | None, _few_shot("--queries", "Queries of a class, or rest for all others.")] = None,
    episodes: Annotated[int | None, _few_shot("--episodes", "Episodes.", min=1)] = None,
    classifier: Annotated[str | None, _few_shot("--classifier", "logistic, nearest-mean or cosine.")] = None,
    intra_class: Annotated[
        bool | None, _few_shot("--intra-class", "Also episodes of the classes of one superclass.")
    ] = None,
    copies: Annotated[int | None, _few_shot("--copies", "Augmented views of every support sample.", min=0)] = None,
    unseen_superclasses: Annotated[
        bool, typer.Option("--unseen-superclasses", help="Judge only samples whose superclass training never saw.")
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Judge raw inputs and random weights too.")] = True,
    projection: Annotated[
        bool | None,
        typer.Option(
            "--projection/--no-projection",
            help="Judge the output of the head too; default: where papers keep or drop it.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of intervals, k-means, random weights, episodes.", min=0, max=2**31)] = 0,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Judge a RUN at every label level, beside raw inputs and a network with random weights.

    Examples:

    `regrain evaluate runs/maskcon-digits-s0`

    `regrain evaluate runs/x --protocol recall --k 1 --k 10 --json`

    `regrain evaluate runs/x -p few-shot --ways 5,all --shots 1,5 --intra-class`

    `regrain evaluate runs/sup-ce-dialysis-s0 --protocol personalised`

    `regrain evaluate runs/self-classifier-cifar100-s0 -p clustering -p hierarchy -p linear --linear-epochs 10`
    """
    from regrain.evaluation import chosen_protocols
    from regrain.runs.run import Run
    from regrain.training.processes import is_first_process, shared_out
    from regrain.verbs.evaluate import evaluate as run_evaluate

    o.refuse_without_data(data, reading)
    given: dict[str, Any] = {
        "ks": k or None,
        "neighbours": neighbours,
        "cluster_seeds": cluster_seeds,
        "cluster_starts": cluster_starts,
        "taxonomy": taxonomy,
        "hierarchy_mapping": hierarchy_mapping,
        "linear_epochs": linear_epochs,
        "shots": None if shots is None else _numbers("--shots", shots),
        "ways": None if ways is None else [None if w == "all" else _number("--ways", w) for w in ways.split(",")],
        "queries": queries if queries in (None, "rest") else _number("--queries", queries),
        "episodes": episodes,
        "classifier": classifier,
        "intra_class": intra_class,
        "copies": copies,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    chosen_protocols(protocol, chosen)
    with shared_out():
        result = run_evaluate(
            Run.open(run, device=device.value),
            data,
            split=split,
            levels=level,
            protocols=protocol,
            options=chosen,
            baselines=baselines,
            projection=projection,
            unseen_superclasses=unseen_superclasses,
            seed=seed,
            **reading,
        )
    if not is_first_process():
        return
    if json_:
        print(json.dumps(result.flat(), indent=1))
    else:
        o.show_evaluation(result)


@o.reads_data
def embed(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    data: Annotated[str | None, typer.Option(help="A catalog name or a path; default: the run's own.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split; default: all.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    device: o.DeviceOption = o.DeviceName.auto,
    level: o.LevelNames = None,
    *,
    reading: dict[str, Any],
) -> None:
    """Write the embeddings of DATA: a Parquet file with id, split, labels and one list of floats a sample.

    Example: `regrain embed runs/maskcon-digits-s0 --data digits --out digits.parquet`
    """
    from regrain.runs.run import Run
    from regrain.training.processes import is_first_process, shared_out
    from regrain.verbs.embed import export_embeddings as run_export_embeddings

    o.refuse_without_data(data, reading)
    with shared_out():
        rows, width = run_export_embeddings(
            Run.open(run, device=device.value),
            out,
            data,
            split=split,
            levels=level,
            overwrite=overwrite,
            **reading,
        )
    if is_first_process():
        say(f"{rows} embeddings of width {width} written to {out}")


def _numbers(option: str, text: str) -> list[int]:
    return [_number(option, part) for part in text.split(",")]


def _number(option: str, text: str) -> int:
    from regrain.errors import UserError

    try:
        return int(text)
    except ValueError:
        many = ", or several separated by commas" if option in ("--shots", "--ways") else ""
        raise UserError(f"{option} takes a whole number{many}; got '{text}'") from None
