"""What every request passes: limits while it is read, headers that browsers obey, and the count in flight."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from eccos_core.io.optional import needs_extra
from eccos_core.server.answering import Handler
from eccos_core.server.errors import ApiError, ApiName
from eccos_core.server.json_text import dump_json
from eccos_core.server.serving import Serving
from eccos_core.server.settings import ServerSettings

with needs_extra("server", "eccos serve"):
    from starlette.requests import Request as HttpRequest

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SLOWEST_BYTES_PER_S = 50_000
"""A client whose body comes slower than this, after the first `read_timeout_s`, is let go."""
_SAFE_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


def api_of(path: str) -> ApiName:
    """Return whose error objects a path answers with."""
    return "anthropic" if path.startswith("/v1/messages") else "openai"


class Gateway:
    """The outermost layer of the application: counts, limits, safe headers, and no page that nobody allowed.

    `direct` has the handlers of paths without parameters. They are called at once, past the layers below, which cost
    as much as the rest of the server together. `app` serves all others.
    """

    def __init__(
        self, app: ASGIApp, serving: Serving, routes: Iterable[str], direct: Mapping[tuple[str, str], Handler]
    ) -> None:
        self._app, self._serving = app, serving
        self._routes, self._direct = tuple(routes), direct
        self._known = frozenset(self._routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        metrics, began, status = self._serving.metrics, time.perf_counter(), 499

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name for name, _ in message.get("headers", ())}
                added = [each for each in _SAFE_HEADERS if each[0] not in given]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        metrics.in_flight += 1
        try:
            settings, has_keys = self._serving.settings, self._serving.gate.has_keys
            problem = large_headers(scope, settings) or foreign_page(scope, settings, has_keys=has_keys)
            if problem is None:
                await self._serve(scope, limited(scope, receive, settings), send_safely)
            else:
                await _refuse(problem, api_of(scope["path"]), send_safely)
        finally:
            metrics.in_flight -= 1
            metrics.count_request(self._route_of(scope), status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._direct.get((scope["method"], scope["path"]))
        if handler is None:
            await self._app(scope, receive, send)
        else:
            response = await handler(HttpRequest(scope, receive, send))
            await response(scope, receive, send)

    def _route_of(self, scope: Scope) -> str:
        """Return the route as the metrics name it: one of the known ones, so that no caller can make up new ones."""
        path: str = scope["path"]
        if path in self._known:
            return path
        found = [route for route in self._routes if path == route or path.startswith(f"{route}/")]
        return max(found, key=len, default="other")


def limited(scope: Scope, receive: Receive, settings: ServerSettings) -> Receive:
    """Return a `receive` that raises `ApiError` for a body that is too large or comes too slowly."""
    most = settings.max_file_bytes + 10_000 if scope["path"] == "/v1/files" else settings.max_body_bytes
    began, size, ended = time.monotonic(), 0, False

    async def receive_limited() -> Message:
        nonlocal size, ended
        if ended:
            return await receive()
        left_s = began + settings.read_timeout_s + size / SLOWEST_BYTES_PER_S - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                message = await receive()
        except TimeoutError:
            ended = True
            late = "the request's body comes too slowly"
            raise ApiError("slow_client", late, headers={"connection": "close"}) from None
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            ended = not message.get("more_body", False)
            if size > most:
                ended = True
                raise too_large(most)
        return message

    return receive_limited


def too_large(most: int) -> ApiError:
    """Return the error for a body of more than `most` bytes."""
    told = f"the body is larger than {most:,} bytes. Send less, or raise the server's limit."
    return ApiError("too_large", told, headers={"connection": "close"})


def large_headers(scope: Scope, settings: ServerSettings) -> ApiError | None:
    """Return the error for headers that are larger than allowed together, or None."""
    size = sum(len(name) + len(value) for name, value in scope["headers"]) + len(scope["query_string"])
    if size <= settings.max_header_bytes:
        return None
    return ApiError("headers_too_large", f"the headers are larger than {settings.max_header_bytes:,} bytes together")


def foreign_page(scope: Scope, settings: ServerSettings, *, has_keys: bool) -> ApiError | None:
    """Return why a web page may not call, or None.

    A page on another site could post to a server without keys through your browser, and spend your money. Browsers say
    where a page is from (`Origin`), and whom they think they call (`Host`).
    """
    headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"origin", b"host")}
    origin, host = headers.get(b"origin"), headers.get(b"host", "")
    if origin is not None and origin not in settings.cors_origins and urlsplit(origin).netloc != host:
        return ApiError("permission", "web pages of this origin may not call the server. Allow it with --cors-origin.")
    served_at = (scope.get("server") or ("", None))[0]
    if has_keys or not _is_loopback(served_at) or not host:
        return None
    named = urlsplit(f"//{host}").hostname or ""
    if named == "localhost" or _is_loopback(named):
        return None
    return ApiError("permission", "without keys the server answers at localhost and 127.0.0.1 only, not at this host.")


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _refuse(error: ApiError, api: ApiName, send: Send) -> None:
    body = dump_json(error.body(api))
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
