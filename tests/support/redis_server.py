"""A Redis of Debian's package, on a port of loopback, for tests that start, stop and pause it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "not-a-secret"


def find_redis() -> str:
    """The program `redis-server` or `valkey-server`. Skips the test where there is none, and fails it in CI."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        reason = "Redis is not installed (apt-get install redis-server)"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"{reason}. CI must not skip this test: .ci/run installs it.")
        pytest.skip(reason)
    return found


class RedisServer:
    """One server with a password. It keeps its state over a restart where `keeps_state` is true."""

    def __init__(self, folder: Path, *, keeps_state: bool = False) -> None:
        pytest.importorskip("redis")
        self._program, self._folder, self._keeps_state = find_redis(), folder, keeps_state
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        keep = ["--appendonly", "yes", "--appendfsync", "always"] if self._keeps_state else ["--appendonly", "no"]
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)),
                *("--save", "", "--requirepass", PASSWORD, *keep),
            ],
            stdout=(self._folder / "redis.log").open("w"),
            stderr=subprocess.STDOUT,
        )
        for _ in range(200):
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                    connection.sendall(f"AUTH {PASSWORD}\r\nPING\r\nQUIT\r\n".encode())
                    if b"+PONG" in b"".join(iter(lambda: connection.recv(100), b"")):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        pytest.fail(f"Redis did not start: {(self._folder / 'redis.log').read_text()[-500:]}")

    def kill(self) -> None:
        """Kill it at once. Without `keeps_state` everything is lost."""
        self._process.kill()
        self._process.wait(10)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop it for the length of the block (SIGSTOP). Connections stay open, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(*, keeps_state: bool = False) -> Iterator[RedisServer]:
    """Start a server, and kill it at the end."""
    with tempfile.TemporaryDirectory(prefix="eccos-redis-") as folder:
        server = RedisServer(Path(folder), keeps_state=keeps_state)
        try:
            yield server
        finally:
            server.kill()
