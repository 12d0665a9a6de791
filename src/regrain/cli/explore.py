"""``explore``: the server, or what was confirmed so far."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regrain.cli.terminal import say
from regrain.errors import UserError

if TYPE_CHECKING:
    from regrain.checks import Seed
    from regrain.explorer.session import Session
    from regrain.training.device import Device


def explore(
    run: str | Path,
    data: Any = None,
    *,
    level: str | None = None,
    port: int = 0,
    map_kind: Literal["auto", "pca", "tsne"] = "auto",
    export: Literal["csv", "parquet"] | None = None,
    open_: bool = False,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: bool = False,
    **reader_options: Any,
) -> None:
    """Explore a RUN's subclasses in the browser: name, merge, split, correct; nothing confirmed is ever lost.

    The page is for this machine alone, and its link lets one browser in. `Ctrl-C` ends it; the same command goes on.

    Parameters
    ----------
    run : path
        A run folder; actions are kept in its explorer/.
    data : optional
        Where the run's own data are now: a path or a catalogue name.
    level : str, optional
        A level of the data whose labels are shown and corrected; default: new.
    port : int
        On 127.0.0.1; 0 takes a free one.
    map_kind : {"auto", "pca", "tsne"}
        How samples are placed on the map; auto is t-SNE where it takes about a minute.
    export : {"csv", "parquet"}, optional
        Write what was confirmed so far, without a server.
    open_ : bool
        Open the page in this machine's browser.
    seed : int
        Of the map, of splits and of proposals.
    device : {"auto", "cpu", "cuda"}
        Where to compute.
    """
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if export is None and missing:
        raise UserError(
            f"the explorer needs {' and '.join(missing)}: pip install 'regrain[explore]'", code="missing_package"
        )
    from regrain.explorer.session import Session
    from regrain.runs.run import Run
    from regrain.runs.source import require_no_reading

    opened = Run.open(run, device=device)
    if data is None:
        require_no_reading(reader_options)
    else:
        opened.take_data(data, **reader_options)
    session = Session(opened, level=level, map_kind=map_kind, seed=seed)
    try:
        for notice in session.notices:
            say(f"note      {notice}", err=True)
        if export is not None:
            _export(session, export, as_json)
        else:
            _serve(session, port, open_, as_json)
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
