"""Run the application with uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.router import Router
from eccos_core.server.app import build_app
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.gate import Gate, OpenGate
from eccos_core.server.serving import Serving
from eccos_core.server.settings import ServerSettings, check_open
from eccos_core.server.workers import WorkerLine

with needs_extra("server", "eccos serve"):
    import uvicorn
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

KEEP_ALIVE_S = 75
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def run_server(
    router: Router,
    settings: ServerSettings,
    gate: Gate | None = None,
    embeddings: EmbeddingModels | None = None,
    *,
    announce: Callable[[str], None] = print,
    worker: WorkerLine | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, and let running requests end. `announce` hears the address.

    A `worker` serves on the socket of its parent, who announces the address.

    Raises `InputError` for an address that is taken, and for one that others could reach while no key exists.
    """
    gate = gate or OpenGate()
    check_open(settings, has_keys=gate.has_keys)
    listening = listen(settings) if worker is None else worker.open_listening()
    app = build_app(router, gate, settings, embeddings)
    if worker is None:
        announce_address(listening, len(router.models), announce, has_keys=gate.has_keys)
    else:
        worker.report_ready()
    DrainingServer(server_config(app, settings), app.state.serving).run(sockets=[listening])


def announce_address(
    listening: socket.socket, models: int, announce: Callable[[str], None], *, has_keys: bool, workers: int = 1
) -> None:
    """Say where the server answers, and for whom."""
    host, port = listening.getsockname()[:2]
    who = "with keys" if has_keys else "without keys, for this machine only"
    by = f" by {workers} workers" if workers > 1 else ""
    announce(f"eccos serves {models} models at http://{host}:{port}/v1{by} ({who}). Stop it with Ctrl-C.")
    announce(f"Watch it at http://{host}:{port}/ui")


def server_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    """Return uvicorn's configuration for the limits of the settings. Nothing logs addresses or query strings."""
    return uvicorn.Config(
        app,
        http=limited_protocol(settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=1,
        lifespan="on",
    )


class DrainingServer(uvicorn.Server):
    """A server that lets running requests end after the first signal, and refuses new ones with 503.

    A second signal, or `drain_s` seconds, ends it at once. It returns from `run`, so that you can close the router.
    """

    def __init__(self, config: uvicorn.Config, serving: Serving) -> None:
        super().__init__(config)
        self._serving = serving
        self._drained_by = float("inf")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or leave at once when a second signal comes."""
        if self._serving.draining:
            self.should_exit = self.force_exit = True
            return
        self._serving.draining = True
        self._drained_by = time.monotonic() + self._serving.settings.drain_s

    async def on_tick(self, counter: int) -> bool:
        """End when nothing is in flight any more, or when the time to drain is over."""
        if self._serving.draining:
            late = time.monotonic() >= self._drained_by
            self.should_exit = self.should_exit or late or self._serving.metrics.in_flight == 0
        return await super().on_tick(counter)


def limited_protocol(settings: ServerSettings) -> type[Any]:
    """Return uvicorn's HTTP protocol, with an end to clients that never finish the headers of a request."""

    class LimitedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _timer: asyncio.TimerHandle | None = None
        _unread = 0  # bytes of headers that are not complete yet

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._expect_headers()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            super().data_received(data)
            if self.cycle is not before:
                self._stop_waiting()
            elif before is None or before.response_complete:
                self._unread += len(data)
                if self._unread > settings.max_header_bytes:
                    self.transport.write(_TOO_LARGE)
                    self.transport.close()
                elif self._timer is None:
                    self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _expect_headers(self) -> None:
            self._timer = self.loop.call_later(settings.read_timeout_s, self.timeout_keep_alive_handler)

        def _stop_waiting(self) -> None:
            self._unread = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedProtocol


def listen(settings: ServerSettings) -> socket.socket:
    """Open the socket of the server. Raises `InputError` for an address that is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        reason = error.strerror or error
        raise InputError(f"cannot listen on {settings.host}:{settings.port} ({reason}). Give another --port.") from None
    listening.listen(2048)
    return listening
