"""The explorer's web application and its server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from importlib import resources
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Body, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from regrain.errors import UserError
from regrain.explorer.collection import Collection
from regrain.explorer.guard import AccessMiddleware, OneTimeTokens
from regrain.explorer.outcome import write_outcome
from regrain.explorer.session import Session, StaleError
from regrain.explorer.shown import ACROSS, cell, picture, sheet
from regrain.explorer.state import LONGEST_NAME

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_CELLS, _MOST_TILES, _MOST_GROUPS = 500, 100, 200
_MOST_NEIGHBOURS, _MOST_PARTS, _LONGEST_QUERY = 1000, 50, 200
_HEARTBEAT = 20.0
_KEPT, _NOT_KEPT = "private, max-age=86400, immutable", "no-store"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Action(_Request):
    action: Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    seen: Annotated[int, Field(ge=0)]


Rows = list[Annotated[int, Field(ge=0, lt=2**31)]]
Number = Annotated[int, Field(ge=0, lt=2**31)]
RowPath = Annotated[int, Path(ge=0, lt=2**31)]
Numbers = Annotated[str, Query(pattern=r"^\d{1,9}(,\d{1,9})*$")]
Name = Annotated[str, Field(max_length=2 * LONGEST_NAME)]


class _Move(_Request):
    group: Number
    samples: Rows


class _NameIt(_Action):
    kind: Literal["name"]
    group: Number
    name: Name
    samples: Rows


class _Confirm(_Action):
    kind: Literal["confirm"]
    samples: Rows


class _Outlier(_Action):
    kind: Literal["outlier"]
    samples: Rows
    marked: bool


class _MoveThem(_Action):
    kind: Literal["move"]
    moves: list[_Move]


class _Label(_Action):
    """A label action; without ``superclass``, every sample stays within its own."""

    kind: Literal["label"]
    samples: Rows
    name: Name
    superclass: str | None = None


class _Merge(_Action):
    kind: Literal["merge"]
    group: Number
    others: Rows


class _Split(_Action):
    kind: Literal["split"]
    group: Number
    count: Annotated[int, Field(ge=2, le=_MOST_PARTS)]


class _Back(_Action):
    kind: Literal["undo", "redo"]


Action = Annotated[
    _NameIt | _Confirm | _Outlier | _MoveThem | _Label | _Merge | _Split | _Back, Body(discriminator="kind")
]


class _Export(_Request):
    format: Literal["csv", "parquet"]


def application(session: Session, tokens: OneTimeTokens, port: int) -> AccessMiddleware:
    """Build the ASGI application of an open exploration, behind its guard."""
    app = FastAPI(title="regrain explore", docs_url=None, redoc_url=None, openapi_url=None)
    _add_pages(app)
    _add_state(app, session)
    _add_samples(app, session.collection)
    _add_finds(app, session)
    _add_actions(app, session, tokens)

    @app.exception_handler(StaleError)
    def stale(_: Request, error: StaleError) -> Response:
        return JSONResponse({"detail": str(error), "code": error.code}, status_code=409)

    @app.exception_handler(UserError)
    def mistaken(_: Request, error: UserError) -> Response:
        return JSONResponse({"detail": str(error), "code": error.code}, status_code=400)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return JSONResponse({"detail": f"{where}: {first['msg']}"}, status_code=422)

    return AccessMiddleware(app, tokens, port)


def _add_pages(app: FastAPI) -> None:
    """Add the front end: read once and looked up by name, so that a request's path never reaches the disk."""
    files = {
        file.name: (file.read_bytes(), _TYPES[file.name[file.name.rindex(".") :]])
        for file in resources.files("regrain.explorer").joinpath("static").iterdir()
        if file.is_file() and file.name[file.name.rfind(".") :] in _TYPES
    }

    def static(name: str) -> Response:
        if name not in files:
            raise HTTPException(404, "there is no such page")
        content, kind = files[name]
        return Response(content, media_type=kind)

    @app.get("/")
    def page() -> Response:
        return static("index.html")

    @app.get("/static/{name}")
    def file(name: str) -> Response:
        return static(name)


def _add_state(app: FastAPI, session: Session) -> None:
    """Add the routes that tell the state of the exploration."""
    collection = session.collection
    key = collection.key  # a hash of all samples, made before a browser waits for it

    @app.get("/api/overview")
    def overview() -> dict[str, Any]:
        return {
            "run": session.run.path.name,
            "method": session.run.recipe["method"]["name"],
            "level": collection.start.level,
            "superclass_level": collection.start.superclass_level,
            "superclasses": session.superclasses(),
            "modality": collection.modality,
            "count": len(collection),
            "key": key,
            "splits": session.splits(),
            "mapping": collection.better_map is not None,
            "across": ACROSS,
            "notices": session.notices,
            "changes": session.changes(session.state.seq),
        } | session.standing()

    @app.get("/api/points")
    def points() -> Response:
        seq, content = session.points()
        return _numbers(content, {"x-sequence": str(seq)})

    @app.get("/api/places")
    def places() -> Response:
        number, content = session.places()
        return _numbers(content, {"x-map": str(number)})

    @app.get("/api/changes")
    def changes(since: Annotated[int, Query(ge=-1)]) -> dict[str, Any]:
        return session.changes(since)

    @app.get("/api/proposals")
    def proposals() -> Response:
        found = session.proposals
        if found is None:
            raise HTTPException(404, "no proposals were made yet")
        headers = {"x-sequence": str(found.seq), "x-notices": json.dumps(found.notices)}
        return _numbers(found.group.tobytes() + found.confidence.tobytes(), headers)

    @app.get("/api/watch")
    async def watch() -> Response:
        return StreamingResponse(_standings(session), media_type="text/event-stream")


async def _standings(session: Session) -> AsyncIterator[str]:
    """Send a line at every change, and regular lines that keep the connection alive."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    forget = session.listen(lambda: loop.call_soon_threadsafe(changed.set))
    try:
        while not session.hung_up:
            changed.clear()
            yield f"data: {json.dumps(session.standing())}\n\n"
            try:
                await asyncio.wait_for(changed.wait(), _HEARTBEAT)
            except TimeoutError:
                continue
    finally:
        forget()


def _numbers(content: bytes, headers: dict[str, str]) -> Response:
    return Response(content, media_type="application/octet-stream", headers=headers)


def _add_samples(app: FastAPI, collection: Collection) -> None:
    """Add the routes that show samples."""

    @app.get("/api/cells")
    def cells(rows: Numbers) -> list[dict[str, Any]]:
        return [cell(collection, row) for row in _known_rows(collection, rows, _MOST_CELLS)]

    @app.get("/api/tiles")
    def thumbnails(rows: Numbers, v: str = "") -> Response:
        wanted = _known_rows(collection, rows, _MOST_TILES)
        _require_images(collection)
        return _png(collection, sheet(collection, wanted), v)

    @app.get("/api/picture/{row}")
    def whole(row: RowPath, v: str = "") -> Response:
        _require_row(collection, row)
        _require_images(collection)
        return _png(collection, picture(collection, row), v)


def _known_rows(collection: Collection, rows: str, most: int) -> list[int]:
    wanted = [int(row) for row in rows.split(",")]
    if len(wanted) > most or max(wanted) >= len(collection):
        raise HTTPException(400, f"at most {most} rows below {len(collection)} are shown at once")
    return wanted


def _require_row(collection: Collection, row: int) -> None:
    if row >= len(collection):
        raise HTTPException(404, f"samples are numbered from 0 to {len(collection) - 1}")


def _require_images(collection: Collection) -> None:
    if collection.modality != "image":
        raise HTTPException(404, f"these samples are {collection.modality}s, not images")


def _png(collection: Collection, content: bytes, key: str) -> Response:
    """Serve a picture; browsers may cache it if the address names exactly these samples."""
    kept = _KEPT if key == collection.key else _NOT_KEPT
    return Response(content, media_type="image/png", headers={"cache-control": kept})


def _add_finds(app: FastAPI, session: Session) -> None:
    """Add the routes that find samples: of a subclass, near a sample, by a text."""

    @app.get("/api/typical")
    def typical(groups: Numbers) -> dict[int, list[int]]:
        wanted = [int(number) for number in groups.split(",")]
        if len(wanted) > _MOST_GROUPS:
            raise HTTPException(400, f"at most {_MOST_GROUPS} subclasses are shown at once")
        return session.typical(wanted)

    @app.get("/api/members/{number}")
    def members(number: RowPath) -> dict[str, Any]:
        return session.members(number)

    @app.get("/api/neighbours/{row}")
    def neighbours(row: RowPath, count: Annotated[int, Query(ge=1, le=_MOST_NEIGHBOURS)] = 60) -> dict[str, Any]:
        _require_row(session.collection, row)
        return {"rows": session.neighbours(row, count)}

    @app.get("/api/search")
    def search(q: Annotated[str, Query(max_length=_LONGEST_QUERY)]) -> dict[str, Any]:
        return session.search(q)


def _add_actions(app: FastAPI, session: Session, tokens: OneTimeTokens) -> None:
    """Add the routes that change the exploration."""

    @app.post("/api/act")
    def act(action: Action) -> dict[str, Any]:
        return session.act(action.model_dump(exclude_unset=True))

    @app.post("/api/link")
    def link() -> dict[str, str]:
        return {"link": tokens.link()}

    @app.post("/api/export")
    def export(wanted: _Export) -> dict[str, Any]:
        outcome = write_outcome(session, wanted.format)
        return {
            "folder": str(outcome.folder),
            "files": list(outcome.files),
            "commands": outcome.commands,
            "notices": list(outcome.notices),
        }


def bound_socket(port: int) -> socket.socket:
    """Bind a socket on 127.0.0.1; port 0 takes a free one.

    Raises a UserError if the port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
        bound.listen()  # the link may be used before the server is up
    except OSError as error:
        bound.close()
        raise UserError(
            f"port {port} cannot be listened at ({error.strerror}): choose another --port", code="not_writable"
        ) from None
    return bound


def web_server(session: Session, bound: socket.socket, on_link: Callable[[str], object]) -> uvicorn.Server:
    """Make a server of an open exploration, to run at a bound socket.

    ``on_link`` receives the address that admits the next browser, now and after each use.
    """
    port = bound.getsockname()[1]
    tokens = OneTimeTokens(port, on_used=lambda: on_link(tokens.link()))
    config = uvicorn.Config(
        application(session, tokens, port),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    on_link(tokens.link())
    return _Server(config, session)


class _Server(uvicorn.Server):
    """A server that ends the event streams before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, session: Session) -> None:
        super().__init__(config)
        self._session = session

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._session.hang_up()
        await super().shutdown(sockets)


def serve(session: Session, bound: socket.socket, on_link: Callable[[str], object]) -> None:
    """Serve an open exploration until it is interrupted; see :func:`web_server`."""
    web_server(session, bound, on_link).run(sockets=[bound])
