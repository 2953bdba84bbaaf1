"""Run the application with uvicorn until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable

from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.router import Router
from eccos_core.server.app import build_app
from eccos_core.server.gate import Gate, OpenGate
from eccos_core.server.settings import ServerSettings, check_open

with needs_extra("server", "eccos serve"):
    import uvicorn


def run_server(
    router: Router,
    settings: ServerSettings,
    gate: Gate | None = None,
    *,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C, and let running requests end. `announce` hears the address.

    Raises `InputError` for an address that is taken, and for one that others could reach while no key exists.
    """
    gate = gate or OpenGate()
    check_open(settings, has_keys=gate.has_keys)
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    config = uvicorn.Config(
        build_app(router, gate, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=round(settings.drain_s),
        lifespan="on",
    )
    who = "with keys" if gate.has_keys else "without keys, for this machine only"
    announce(f"eccos serves {len(router.models)} models at http://{host}:{port}/v1 ({who}). Stop it with Ctrl-C.")
    uvicorn.Server(config).run(sockets=[listening])


def _listen(settings: ServerSettings) -> socket.socket:
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
