"""A proxy on loopback between an agent and `eccos serve`. It keeps what the agent sends, and how each answer ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import web

_HOP = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "content-encoding"})


@dataclass(slots=True)
class Exchange:
    """One request of an agent: its body, None where it is no JSON, and the status and text of the answer."""

    method: str
    path: str  # with the query
    headers: dict[str, str]
    body: Any
    status: int = 0
    answer: str = ""


@dataclass
class Recorder:
    """Starts the proxy on a free port. `address` is where the agent calls. `exchanges` grow while it runs."""

    target: str
    exchanges: list[Exchange] = field(default_factory=list)
    address: str = ""

    def __enter__(self) -> Recorder:
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(started),), daemon=True)
        self._thread.start()
        if not started.wait(timeout=30):
            raise RuntimeError("the recorder did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(timeout=10)

    async def _run(self, started: threading.Event) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300), auto_decompress=False) as session:
            application = web.Application(client_max_size=2**26)
            application.router.add_route("*", "/{path:.*}", lambda request: self._pass_on(session, request))
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await self._stopped.wait()
            await runner.cleanup()

    async def _pass_on(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        exchange = Exchange(request.method, request.path_qs, headers, _read_json(raw))
        self.exchanges.append(exchange)
        async with session.request(request.method, self.target + request.path_qs, headers=headers, data=raw) as answer:
            exchange.status = answer.status
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            with contextlib.suppress(ConnectionResetError):  # some agents leave at the last event
                async for piece in answer.content.iter_any():
                    exchange.answer += piece.decode("utf-8", "replace")
                    await response.write(piece)
                await response.write_eof()
            return response


def _read_json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None
