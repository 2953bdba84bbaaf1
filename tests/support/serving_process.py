"""A running server on loopback for tests: the real protocol and the real limits, on a thread of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from eccos_core.router import Router
from eccos_core.server.app import build_app
from eccos_core.server.embedding_models import EmbeddingModels
from eccos_core.server.gate import Gate
from eccos_core.server.run import server_config
from eccos_core.server.serving import Serving
from eccos_core.server.settings import ServerSettings


@dataclass(frozen=True)
class Running:
    """A running server: its address without a path, and what serves."""

    address: str
    serving: Serving


@contextmanager
def running_server(
    router: Router,
    gate: Gate | None = None,
    settings: ServerSettings | None = None,
    embeddings: EmbeddingModels | None = None,
) -> Iterator[Running]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    settings = settings or ServerSettings(port=0)
    app = build_app(router, gate, settings, embeddings)
    config = server_config(app, settings)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(f"http://127.0.0.1:{port}", app.state.serving)
    server.should_exit = True
    thread.join()
