"""The server lets in who has the link, from this machine's own page, and hands out nothing else."""

from __future__ import annotations

import io
import json
import shutil
import signal
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from explorer_hand import Served
from pages import dataset_of
from PIL import Image
from starlette.testclient import TestClient

import regrain
from regrain.errors import UserError
from regrain.explorer.guard import MOST_BYTES, OneTimeTokens
from regrain.explorer.server import application, bound_socket
from regrain.explorer.session import Session
from regrain.explorer.shown import ACROSS, TILE, sheet

PORT = 8765
HOST = f"127.0.0.1:{PORT}"
ORIGIN = {"origin": f"http://{HOST}"}


@pytest.fixture(scope="module")
def session(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One open exploration for all tests here: most of them are about what does not reach it."""
    copied = shutil.copytree(trained, tmp_path_factory.mktemp("served") / "run")
    opened = Session(regrain.Run.open(copied, device="cpu"))
    yield opened
    opened.close()


@pytest.fixture
def tokens() -> OneTimeTokens:
    return OneTimeTokens(PORT)


@pytest.fixture
def client(session: Session, tokens: OneTimeTokens) -> Iterator[TestClient]:
    """A browser that was let in."""
    with TestClient(application(session, tokens, PORT), base_url=f"http://{HOST}") as opened:
        assert opened.get(urlsplit(tokens.link())._replace(scheme="", netloc="").geturl()).status_code == 200
        yield opened


@pytest.fixture
def stranger(session: Session, tokens: OneTimeTokens) -> TestClient:
    """One that was not."""
    return TestClient(application(session, tokens, PORT), base_url=f"http://{HOST}", follow_redirects=False)


def _act(client: TestClient, seen: int, **fields: Any) -> Any:
    body = {"kind": "confirm", "samples": [0], "seen": seen, "action": str(uuid.uuid4()), **fields}
    return client.post("/api/act", json=body, headers=ORIGIN)


def test_a_link_works_once_and_then_a_cookie_does(stranger: TestClient, tokens: OneTimeTokens) -> None:
    assert stranger.get("/").status_code == 403
    assert stranger.get("/?token=wrong").status_code == 403
    assert stranger.get("/?token=").status_code == 403
    link = tokens.link().removeprefix(f"http://{HOST}")
    answer = stranger.get(link)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/").status_code == 200
    stranger.cookies.clear()
    assert stranger.get(link).status_code == 403
    stranger.cookies.set(tokens.cookie, "guessed")
    assert stranger.get("/api/overview").status_code == 403


@pytest.mark.parametrize(
    "path",
    ["/", "/static/app.js", "/api/overview", "/api/points", "/api/changes?since=0", "/api/watch", "/api/tiles?rows=0"],
)
def test_nothing_is_handed_out_without_a_cookie(stranger: TestClient, path: str) -> None:
    assert stranger.get(path).status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", "", f"{HOST}.evil.example"]
)
def test_another_host_is_refused_also_with_the_cookie(client: TestClient, host: str, tokens: OneTimeTokens) -> None:
    assert client.get("/api/overview", headers={"host": host}).status_code == 403
    token = tokens.link().removeprefix(f"http://{HOST}")
    assert client.get(token, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": f"http://localhost:{PORT}"},
        {"origin": f"https://{HOST}"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "cross-site"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "same-site"},
    ],
)
def test_a_post_comes_from_the_own_page(client: TestClient, session: Session, headers: dict[str, str]) -> None:
    before = session.state.seq
    body = {"kind": "confirm", "samples": [0], "seen": before, "action": "action-1"}
    assert client.post("/api/act", json=body, headers=headers).status_code == 403
    assert session.state.seq == before


def test_a_page_of_another_site_may_not_even_look(client: TestClient) -> None:
    assert client.get("/api/overview", headers={"origin": "http://evil.example"}).status_code == 403
    assert client.get("/api/overview", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_no_upload_and_no_endless_body(client: TestClient, session: Session) -> None:
    before = session.state.seq
    for kind in ("multipart/form-data; boundary=x", "text/plain", "application/x-www-form-urlencoded"):
        answer = client.post("/api/act", content=b"x", headers={**ORIGIN, "content-type": kind})
        assert answer.status_code == 415
    json_headers = {**ORIGIN, "content-type": "application/json"}
    assert client.post("/api/act", content=b" " * (MOST_BYTES + 1), headers=json_headers).status_code == 413
    assert client.post("/api/act", content=iter([b"{}"]), headers=json_headers).status_code == 411
    assert client.request("PUT", "/api/act", json={}, headers=ORIGIN).status_code == 405
    assert client.request("DELETE", "/api/act", headers=ORIGIN).status_code == 405
    assert session.state.seq == before


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/errors.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/app.js%00.html",
        "/static/",
        "/static/server.py",
        "/api/picture/..%2f0",
        "/api/picture/-1",
        "/api/picture/1e3",
        "/api/picture/0.png",
        "/recipe.yaml",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_path_reaches_the_disk(client: TestClient, path: str) -> None:
    assert client.get(path).status_code in (400, 404, 422)


def test_every_answer_forbids_scripts_from_elsewhere(client: TestClient, stranger: TestClient) -> None:
    for answer in (client.get("/"), client.get("/api/overview"), client.get("/none"), stranger.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_is_whole_and_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/").text
    assert "<script" in page
    assert page.count("<script") == page.count('<script type="module" src="/static/')
    assert " style=" not in page
    assert " onclick=" not in page
    for file in resources.files("regrain.explorer").joinpath("static").iterdir():
        answer = client.get(f"/static/{file.name}")
        assert answer.content == file.read_bytes()
        text = file.read_text(encoding="utf-8")
        outside = [word for word in ("https://", "http://", "innerHTML", "eval(") if word in text]
        assert outside in ([], ["http://"]), file.name  # the names of SVG's elements
        assert text.count("http://") == text.count("http://www.w3.org/2000/svg")


def test_points_changes_and_members_speak_of_the_same_samples(client: TestClient, session: Session) -> None:
    overview = client.get("/api/overview").json()
    count = overview["count"]
    points = client.get("/api/points")
    assert len(points.content) == count * (4 + 1 + 1)
    group = np.frombuffer(points.content, np.int32, count)
    split = np.frombuffer(points.content, np.uint8, count, 5 * count)
    assert np.array_equal(np.array(overview["splits"])[split], session.collection.start.splits)
    number = int(group[0])
    assert sorted(client.get(f"/api/members/{number}").json()["rows"]) == np.flatnonzero(group == number).tolist()
    assert client.get("/api/members/999").status_code == 400
    seen = overview["seq"]
    assert _act(client, seen, samples=[3, 4]).json()["rows"] == [3, 4]
    assert client.get(f"/api/changes?since={seen}").json()["rows"] == [3, 4]
    assert client.get(f"/api/changes?since={seen + 1}").json()["rows"] == []
    assert client.get("/api/neighbours/5?count=4").json()["rows"][0] == 5
    cells = client.get("/api/cells?rows=5,6").json()
    assert [cell["id"] for cell in cells] == session.collection.start.ids[[5, 6]].tolist()
    assert all(0 <= value <= 1 for value in cells[0]["bars"])
    exemplars = client.get(f"/api/members/{number}").json()["exemplars"]
    assert client.get(f"/api/typical?groups={number},999").json() == {str(number): exemplars[:4]}
    places = np.frombuffer(client.get("/api/places").content, np.float32).reshape(-1, 2)
    assert np.array_equal(places, session.collection.positions)
    for wrong in (
        "cells?rows=1;2",
        "cells?rows=-1",
        f"cells?rows={count}",
        f"tiles?rows={count}",
        "tiles?rows=" + ",".join("0" for _ in range(101)),
        "tiles?rows=0",  # vectors have none
        "typical?groups=-1",
        "typical?groups=" + ",".join("0" for _ in range(201)),
        f"neighbours/{count}",
        "neighbours/1?count=0",
    ):
        assert client.get(f"/api/{wrong}").status_code in (400, 404, 422)


def test_pictures_are_kept_under_the_key_of_their_data_alone(
    client: TestClient, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = session.collection
    key = client.get("/api/overview").json()["key"]
    assert key == collection.key
    others = [
        replace(collection, start=replace(collection.start, ids=collection.start.ids[::-1])),
        replace(collection, parts=collection.parts[::-1]),
    ]
    assert len({key, *(other.key for other in others)}) == 3
    monkeypatch.setattr(type(collection), "modality", "image")
    for name in ("picture", "sheet"):
        monkeypatch.setattr(f"regrain.explorer.server.{name}", lambda *_, **__: b"PNG")
    for path in ("/api/tiles?rows=0,5&", "/api/picture/0?"):
        assert "immutable" in client.get(f"{path}v={key}").headers["cache-control"]
        for wrong in (path, f"{path}v={others[0].key}"):
            assert client.get(wrong).headers["cache-control"] == "no-store"


def test_a_sheet_holds_each_sample_in_its_cell_whatever_its_part() -> None:
    parts = [dataset_of("image").split(name) for name in ("train", "test")]
    rows = [(parts[row % 2], row // 2) for row in range(13)]
    page = Image.open(io.BytesIO(sheet(SimpleNamespace(place=lambda row: rows[row]), [*range(12, -1, -1)])))  # type: ignore[arg-type]
    assert page.size == (TILE * ACROSS, TILE * 2)
    for cell, row in enumerate(range(12, -1, -1)):
        part, place = rows[row]
        left, top = TILE * (cell % ACROSS), TILE * (cell // ACROSS)
        shown = np.asarray(page)[top : top + TILE, left : left + TILE]
        raw = part.samples.take(torch.tensor([place]))[0]  # 16 high, 12 wide: transparent at the sides
        assert not shown[:, [0, -1], 3].any()
        assert shown[TILE // 2, TILE // 2].tolist() == [*raw[:, 8, 6].tolist(), 255]


def test_a_label_without_a_superclass_goes_to_the_samples_own(client: TestClient, session: Session) -> None:
    above = session.collection.start.superclass
    rows = [above.index(name) for name in dict.fromkeys(above)]
    answer = _act(client, session.state.seq, kind="label", samples=rows, name="odd")
    assert answer.status_code == 200
    assert len({session.state.groups[n].superclass for n in session.state.group[rows].tolist()}) == 2
    answer = _act(client, session.state.seq, kind="label", samples=rows, name="odd", superclass="animal")
    assert (answer.status_code, "was to be one of 'animal'" in answer.json()["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"kind": "dance"}, 422),
        ({"samples": ["0"]}, 422),
        ({"samples": [-1]}, 422),
        ({"samples": [10**6]}, 400),
        ({"samples": []}, 400),
        ({"seen": -1}, 422),
        ({"action": "../../x"}, 422),
        ({"out": "/etc/passwd"}, 422),
        ({"kind": "name", "group": 0, "name": "x" * 500}, 422),
        ({"kind": "name", "group": 0, "name": "\x00"}, 400),
    ],
)
def test_malformed_actions_are_refused(
    client: TestClient, session: Session, fields: dict[str, Any], status: int
) -> None:
    before = session.state.seq
    answer = _act(client, **{"seen": before, **fields})
    assert (answer.status_code, bool(answer.json()["detail"])) == (status, True)
    assert len(session.journal.entries) == before


def test_a_stale_action_gets_conflict(client: TestClient, session: Session) -> None:
    seen = session.state.seq
    assert _act(client, seen, samples=[30]).status_code == 200
    assert _act(client, seen, samples=[30]).status_code == 409
    assert _act(client, seen, samples=[31]).json()["seq"] == seen + 2


def test_a_taken_port_is_said(session: Session) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another --port"):
            bound_socket(taken.getsockname()[1])


def test_the_real_server_listens_here_alone(run_folder: Path) -> None:
    with Served(run_folder) as served:
        with socket.socket() as outside, pytest.raises(OSError, match="refused"):
            outside.connect((_other_address(), served.port))
        for headers in ({"Host": "evil.example"}, {"Host": f"localhost:{served.port}"}):
            assert served.ask("GET", "/api/overview", headers=headers)[0] == 403
        served.enter()
        assert served.next_link() != served.link
        for n in range(2):
            body = {"kind": "confirm", "samples": [n], "seen": n, "action": f"action-{n}"}
            assert served.post("/api/act", body)[0] == 200
        assert json.loads(served.ask("GET", "/api/changes?since=0")[1])["rows"] == [0, 1]
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(timeout=60) in (0, 130)


def _other_address() -> str:
    """An address of this machine that is not the one listened at."""
    return "127.0.0.2" if sys.platform == "linux" else "::1"
