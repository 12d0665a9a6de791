"""``explore``."""

from __future__ import annotations

import importlib.util
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from regrain.cli import options as o
from regrain.cli.terminal import say

if TYPE_CHECKING:
    from regrain.explorer.session import Session


class MapName(StrEnum):
    """How samples are placed on the map."""

    auto = "auto"
    pca = "pca"
    tsne = "tsne"


class TableName(StrEnum):
    """How labels are written."""

    csv = "csv"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(explore)


@o.reads_data
def explore(
    run: Annotated[Path, typer.Argument(help="A run folder; actions are kept in its explorer/.")],
    data: o.OwnData = None,
    level: Annotated[
        str | None,
        typer.Option("--level", "-l", help="A level of the data whose labels are shown and corrected; default: new."),
    ] = None,
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 0,
    map_: Annotated[MapName, typer.Option("--map", help="auto: t-SNE where it takes about a minute.")] = MapName.auto,
    export: Annotated[
        TableName | None, typer.Option(help="Write what was confirmed so far, without a server.", show_default=False)
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in this machine's browser.")] = False,
    seed: Annotated[int, typer.Option(help="Of the map, of splits and of proposals.", min=0, max=2**31)] = 0,
    device: o.DeviceOption = o.DeviceName.auto,
    json_: o.Json = False,
    *,
    reading: dict[str, Any],
) -> None:
    """Explore a RUN's subclasses in the browser: name, merge, split, correct; nothing confirmed is ever lost.

    The page is for this machine alone, and its link lets one browser in. `Ctrl-C` ends it; the same command goes on.

    Examples:

    `regrain explore runs/scgm-photos-s0 --open`

    `regrain explore runs/scgm-photos-s0 --export csv`
    """
    from regrain.errors import UserError

    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if export is None and missing:
        raise UserError(
            f"the explorer needs {' and '.join(missing)}: pip install 'regrain[explore]'", code="missing_package"
        )
    from regrain.explorer.session import Session
    from regrain.runs.run import Run

    o.refuse_without_data(data, reading)
    opened = Run.open(run, device=device.value)
    if data is not None:
        opened.take_data(data, **reading)
    session = Session(opened, level=level, map_kind=map_.value, seed=seed)
    try:
        for notice in session.notices:
            say(f"note      {notice}", err=True)
        if export is not None:
            _export(session, export.value, json_)
        else:
            _serve(session, port, open_, json_)
    finally:
        session.close()


def _export(session: Session, table: Literal["csv", "parquet"], as_json: bool) -> None:
    from regrain.explorer.outcome import write_outcome

    outcome = write_outcome(session, table)
    if as_json:
        print(
            json.dumps({"folder": str(outcome.folder), "files": outcome.files, "commands": outcome.commands}, indent=1)
        )
        return
    say(f"{', '.join(outcome.files)} written to {outcome.folder}")
    for command in outcome.commands.values():
        say(f"  {command}")


def _serve(session: Session, port: int, open_: bool, as_json: bool) -> None:
    import webbrowser

    from regrain.explorer.server import bound_socket, serve

    first = True

    def tell(link: str) -> None:
        nonlocal first
        if as_json:
            print(json.dumps({"link": link}), flush=True)
        elif first:
            say(f"open      {link}", flush=True)
            say("          (works once, on this machine; Ctrl-C ends)", flush=True)
        else:
            say(f"another browser: {link}", flush=True)
        if open_ and first:
            webbrowser.open(link)
        first = False

    serve(session, bound_socket(port), tell)
