"""``evaluate`` and ``embed``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from regrain.cli import options as o

__all__ = ["register"]


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
            help="recall, knn, clustering; repeat. Default: these. personalised: a classifier per subject (group).",
        ),
    ] = None,
    k: Annotated[list[int] | None, typer.Option("--k", help="K of recall@K; repeat. Default 1, 2, 5, 10.")] = None,
    neighbours: Annotated[int, typer.Option(help="K of k-NN.", min=1)] = 20,
    cluster_seeds: Annotated[int, typer.Option(help="Seeds of k-means.", min=1)] = 3,
    cluster_starts: Annotated[int, typer.Option(help="Starts of k-means a seed; the tightest one counts.", min=1)] = 10,
    baselines: Annotated[bool, typer.Option(help="Judge raw inputs and random weights too.")] = True,
    projection: Annotated[
        bool, typer.Option("--projection", help="Judge the output of the projection head too.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of intervals, k-means, random weights.", min=0, max=2**31)] = 0,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Judge a RUN at every label level, beside raw inputs and a network with random weights.

    Examples:

    `regrain evaluate runs/maskcon-digits-s0`

    `regrain evaluate runs/x --protocol recall --k 1 --k 10 --json`

    `regrain evaluate runs/sup-ce-dialysis-s0 --protocol personalised`
    """
    from regrain import api

    _refuse_without_data(data, reading)
    chosen: dict[str, Any] = {
        "neighbours": neighbours,
        "cluster_seeds": cluster_seeds,
        "cluster_starts": cluster_starts,
    }
    if k:
        chosen["ks"] = k
    result = api.evaluate(
        api.Run.open(run, device=device.value),
        data,
        split=split,
        levels=level,
        protocols=protocol,
        options=chosen,
        baselines=baselines,
        projection=projection,
        seed=seed,
        **reading,
    )
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
    from regrain import api
    from regrain.errors import UserError

    if out.exists() and not overwrite:
        raise UserError(f"{out} exists: choose another --out, or replace it with --overwrite")
    _refuse_without_data(data, reading)
    rows, width = api.export_embeddings(
        api.Run.open(run, device=device.value), out, data, split=split, levels=level, **reading
    )
    print(f"{rows} embeddings of width {width} written to {out}")


def _refuse_without_data(data: str | None, reading: dict[str, object]) -> None:
    from regrain.errors import UserError

    reading.pop("root", None) if data is None else None
    if data is None and reading:
        name = next(iter(reading)).replace("_", "-")
        raise UserError(
            f"--{name} says how to read --data, and no --data was given: the run reads its own data by its recipe"
        )
