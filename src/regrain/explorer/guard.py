"""Access control of the explorer: only browsers on this machine, after a link that works once.

The guard checks every request first: host names, origins, cookies and sizes. It also sets the headers of every answer.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 16 << 20
"""Most bytes of a request; an action on a million samples fits."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class OneTimeTokens:
    """One-time tokens, and the cookies exchanged for them.

    ``port``: part of the cookie's name, since browsers separate cookies only by host. ``on_used``: called after a token
    is used.
    """

    def __init__(self, port: int, on_used: Callable[[], object] | None = None) -> None:
        self.cookie = f"regrain-{port}"
        self._port = port
        self._on_used = on_used
        self._tokens: set[str] = set()
        self._sessions: set[str] = set()
        self._lock = threading.Lock()

    def link(self) -> str:
        """Make an address that admits one more browser."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._tokens.add(token)
        return f"http://127.0.0.1:{self._port}/?token={token}"

    def exchange(self, token: str) -> str | None:
        """Exchange a token for a cookie and invalidate the token; None for an unknown token."""
        with self._lock:
            known = next((t for t in self._tokens if _same(t, token)), None)
            if known is None:
                return None
            self._tokens.remove(known)
            session = secrets.token_urlsafe(32)
            self._sessions.add(session)
        if self._on_used is not None:
            self._on_used()
        return session

    def admits(self, header: str | None) -> bool:
        """Whether a Cookie header holds an issued cookie."""
        try:
            found = SimpleCookie(header or "").get(self.cookie)
        except CookieError:
            return False
        with self._lock:
            return found is not None and any(_same(s, found.value) for s in self._sessions)


def _same(one: str, other: str) -> bool:
    return secrets.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))


class AccessMiddleware:
    """ASGI middleware that refuses requests from outside the explorer's own page.

    ``port``: the server's port.
    """

    def __init__(self, app: ASGIApp, tokens: OneTimeTokens, port: int) -> None:
        self.app, self.tokens = app, tokens
        self.hosts = {f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._answer(scope)
        if answer is not None:
            await answer(scope, receive, send_guarded)
        else:
            await self.app(scope, _limited(receive), send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """Answer a request without the application; None if the request may pass."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return _refusal(HTTPStatus.FORBIDDEN, "this server answers to 127.0.0.1 and localhost only")
        if scope["method"] not in ("GET", "POST"):
            return _refusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and POST are answered")
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
            return _refusal(HTTPStatus.FORBIDDEN, "another site's page asked")
        if scope["path"] == "/" and scope["method"] == "GET" and scope["query_string"]:
            return self._entrance(scope, headers)
        if not self.tokens.admits(headers.get("cookie")):
            return _refusal(HTTPStatus.FORBIDDEN, "open the link that `regrain explore` printed; it works once")
        if scope["path"] != "/" and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return _refusal(HTTPStatus.FORBIDDEN, "another site's page asked")
        return self._refused_post(headers, origin) if scope["method"] == "POST" else None

    def _entrance(self, scope: Scope, headers: Headers) -> Response:
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        session = self.tokens.exchange(token)
        answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
        if session is not None:
            answer.set_cookie(self.tokens.cookie, session, httponly=True, samesite="strict", path="/")
        elif not self.tokens.admits(headers.get("cookie")):
            return _refusal(
                HTTPStatus.FORBIDDEN, "this link is wrong, or was used: `regrain explore` printed the next one"
            )
        return answer

    def _refused_post(self, headers: Headers, origin: str | None) -> Response | None:
        if origin is None:
            return _refusal(HTTPStatus.FORBIDDEN, "a POST says which page it comes from (Origin)")
        if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return _refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "only JSON is taken; nothing can be uploaded")
        length = headers.get("content-length", "")
        if not length.isascii() or not length.isdigit():
            return _refusal(HTTPStatus.LENGTH_REQUIRED, "a POST says how long it is")
        if int(length) > MOST_BYTES:
            return _refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MOST_BYTES} bytes")
        return None


def _refusal(status: HTTPStatus, message: str) -> Response:
    return PlainTextResponse(message + "\n", status_code=status)


def _limited(receive: Receive) -> Receive:
    """Pass messages on, and limit the bytes of the body whatever its header says."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MOST_BYTES:
            return {"type": "http.disconnect"}
        return message

    return limited
