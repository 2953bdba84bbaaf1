"""What surrounds replicas: a server that counts what it sees, a proxy that breaks the network, and the processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from warm_process import WarmProcess

ROOT = Path(__file__).parents[2]


class CountingServer:
    """Answers each connection after the time that it asks for. It counts open ones, also of killed clients."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.answered = 0
        self.changes: list[tuple[float, int]] = []  # (monotonic s, calls open now)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            model, seconds = connection.recv(200).decode().split()
            self._count(model, 1)
            connection.settimeout(float(seconds))
            try:
                hung_up = connection.recv(1) == b""  # a client that was killed
            except TimeoutError:
                hung_up = False
            except OSError:
                hung_up = True
            self._count(model, -1)
            if not hung_up:
                with suppress(OSError):
                    connection.sendall(b"done")

    def _count(self, model: str, change: int) -> None:
        with self._lock:
            self._open[model] += change
            self.most[model] = max(self.most[model], self._open[model])
            self.answered += change < 0
            self.changes.append((time.monotonic(), self._open.total()))

    @property
    def open(self) -> int:
        """Calls that are open now."""
        return self._open.total()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()


class BrokenNetwork:
    """A TCP proxy in front of a port. It can delay what passes, and drop connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.delay_s = 0.0
        self._is_down = False
        self._pairs: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def drop(self) -> None:
        """Break every connection at once. New ones pass."""
        pairs, self._pairs = self._pairs, []
        for each in pairs:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        """Break every connection, and refuse new ones until `heal`."""
        self._is_down = True
        self.drop()

    def heal(self) -> None:
        """Let new connections pass."""
        self._is_down = False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._is_down:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), 5)
                except OSError:
                    client.close()
                    continue
                self._pairs += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay_s)
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._listener.close()
        self.cut()


class ReplicaProcess:
    """A process of `replica.py`, or of another script beside it. It waits for `go`."""

    def __init__(self, script: str = "replica.py", **asked: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        self._process = WarmProcess(
            [str(ROOT / "tests" / "support" / script), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def wait_ready(self) -> None:
        """Wait until it has made contact with Redis."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", line

    def go(self) -> None:
        """Let it work."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait(10)

    def result(self) -> dict[str, Any]:
        """Wait for its end, and return what it did."""
        out, _ = self._process.communicate(timeout=60)
        found: dict[str, Any] = json.loads(out.splitlines()[-1])
        return found


def start_replicas(count: int, **asked: Any) -> list[ReplicaProcess]:
    """Start replicas, and let them work at the same moment."""
    replicas = [ReplicaProcess(**asked) for _ in range(count)]
    for each in replicas:
        each.wait_ready()
    for each in replicas:
        each.go()
    return replicas
