"""Addresses that are no model's: nobody there, a web page, another kind of service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eccos_core.backends import LiteLLMBackend
from eccos_core.config.schema import Deployment
from eccos_core.domain import Model, Request
from eccos_core.errors import BackendError

pytestmark = pytest.mark.service

PAGES = {
    "/page": ("text/html", b"<html><body>Welcome</body></html>"),
    "/other": ("application/json", b'{"hello": 1}'),
    "/list": ("application/json", b"[1, 2]"),
    "/null": ("application/json", b"null"),
    "/nothing": ("application/json", b""),
}


class WebServer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        kind, body = PAGES[self.path.removesuffix("/chat/completions")]
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), WebServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


async def failure(address: str, way: str) -> BackendError:
    way_in = Deployment("openai/m", {"api_base": address, "api_key": "none"})
    backend = LiteLLMBackend({"m": [way_in]}, [Model("m", 0.0, 0.0)])
    request = Request.of("hi", parameters={"timeout": 20})

    async def call() -> None:
        match way:
            case "complete":
                await asyncio.to_thread(backend.complete, "m", request)
            case "acomplete":
                await backend.acomplete("m", request)
            case "stream":
                await asyncio.to_thread(lambda: list(backend.stream("m", request)))
            case _:
                async for _ in backend.astream("m", request):
                    pass

    with pytest.raises(BackendError) as caught:
        await call()
    return caught.value


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])
async def test_what_is_no_model_is_named_with_its_address(web: str, page: str, way: str) -> None:
    error = await failure(web + page, way)
    assert error.kind == "malformed_response"
    assert error.retryable
    assert f"(api_base {web}{page})" in str(error)


@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])
@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://[::", "http://no.such.host.invalid/v1"])
async def test_where_nobody_is_a_connection_fails(address: str, way: str) -> None:
    error = await failure(address, way)
    assert error.kind == "connection"
    assert f"(api_base {address})" in str(error)


@pytest.mark.parametrize("way", ["complete", "acomplete", "stream", "astream"])
async def test_keys_in_an_address_are_not_shown(way: str) -> None:
    error = await failure("http://bob:zq-password@127.0.0.1:9/v1?api_key=zq-value", way)
    shown: BaseException | None = error
    while shown is not None:
        assert "zq-" not in f"{shown} {shown.args}"
        shown = shown.__cause__
    assert "127.0.0.1:9" in str(error)
