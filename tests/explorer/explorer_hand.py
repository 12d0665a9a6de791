"""Users of an exploration, for tests: a hand on an open session, and a client of a server."""

from __future__ import annotations

import json
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from regrain.explorer.session import Session


class Hand:
    """Acts on a session as one browser that has seen everything so far."""

    def __init__(self, session: Session, name: str = "hand") -> None:
        self.session, self.name, self.seen, self.count = session, name, session.state.seq, 0

    def __call__(self, kind: str, **fields: Any) -> dict[str, Any]:
        self.count += 1
        request = {"kind": kind, "seen": self.seen, "action": f"{self.name}-{self.count:08d}", **fields}
        reply = self.session.act(request)
        self.seen = reply["seq"]
        return reply


class Served:
    """``regrain explore`` in a process of its own, and one client of it."""

    def __init__(self, run: Path, *more: str) -> None:
        self.process = subprocess.Popen([*self.command(run), *more, "--json"], stdout=subprocess.PIPE, text=True)
        self.link = self.next_link()
        self.port = int(urlsplit(self.link).port or 0)
        self.cookie = ""

    @staticmethod
    def command(run: Path) -> list[str]:
        """What starts it."""
        return [sys.executable, "-c", "from regrain.cli import main; main()", "explore", str(run), "--device", "cpu"]

    def next_link(self) -> str:
        """The link for one more browser, printed once the last one was used."""
        assert self.process.stdout is not None
        return str(json.loads(self.process.stdout.readline())["link"])

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and content of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Cookie": self.cookie, **(headers or {})})
            answer = connection.getresponse()
            self.answered = dict(answer.getheaders())
            return answer.status, answer.read()
        finally:
            connection.close()

    def enter(self) -> None:
        """Exchange the link for a cookie."""
        status, _ = self.ask("GET", self.link[self.link.index("/?") :])
        assert status == 303
        self.cookie = self.answered["set-cookie"].split(";")[0]

    def post(self, path: str, body: Any) -> tuple[int, bytes]:
        """Post as the page does."""
        headers = {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/json"}
        return self.ask("POST", path, body, headers)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
