"""One replica as a process: a real router on the shared workload, whose backend calls the counting server.

Run it as `python replica.py '{"url": ..., "server": port, ...}'`. It prints `ready`, works for `seconds`, and prints
what it did as JSON.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import suppress
from dataclasses import replace

from eccos_core.domain import Chunk, Completion, Model, Request
from eccos_core.errors import BackendError, EccosError, Overloaded
from eccos_core.testing import scripted_router
from eccos_core.workload import BreakerSettings
from eccos_core.workload.shared import SharedSettings, SharedWorkload


class CountingServerBackend:
    """A `Backend` whose call is one connection to the counting server. It is open as long as the call runs."""

    def __init__(self, port: int, call_s: float, fault_share: float) -> None:
        self._port, self._call_s, self._fault_share = port, call_s, fault_share
        self._random = random.Random(7)

    def complete(self, model: str, request: Request) -> Completion:
        """Hold a connection for a random time around `call_s`."""
        duration_s = self._call_s * (0.5 + self._random.random())
        with socket.create_connection(("127.0.0.1", self._port), 10) as connection:
            connection.sendall(f"{model} {duration_s}\n".encode())
            if connection.recv(10) != b"done":
                raise BackendError(model, "the server hung up", retryable=False, kind="connection")
        if self._random.random() < self._fault_share:
            raise BackendError(model, "a scripted fault", retryable=False, kind="unavailable")
        return Completion("yes", model, 10, 10, 0.0, duration_s)

    async def acomplete(self, model: str, request: Request) -> Completion:
        """Not used by these tests."""
        return self.complete(model, request)

    def stream(self, model: str, request: Request) -> Generator[Chunk, None, None]:
        """Yield one chunk."""
        yield Chunk("yes", {}, self.complete(model, request))

    async def astream(self, model: str, request: Request) -> AsyncGenerator[Chunk, None]:
        """Yield one chunk."""
        yield Chunk("yes", {}, self.complete(model, request))


def main() -> None:
    """Work as the argument says."""
    asked = json.loads(sys.argv[1])
    models = [Model(name, 1e-6, 1e-6, max_concurrency=cap) for name, cap in asked["caps"].items()]
    settings = SharedSettings(
        asked["url"],
        name=asked.get("name", "test"),
        lease_s=asked.get("lease_s", 2.0),
        timeout_s=asked.get("timeout_s", 0.5),
        when_away=asked.get("when_away", "fail_closed"),
    )
    workload = SharedWorkload(models, settings, breaker=BreakerSettings(failures=1000, error_rate=1.0))
    backend = CountingServerBackend(asked["server"], asked.get("call_s", 0.03), asked.get("fault_share", 0.0))
    router = scripted_router(backend, models, {"": [0.9] * len(models)}, usd_per_quality=1e-9, deadline_s=60.0)
    router.swap(replace(router.parts, workload=workload))
    print("ready", flush=True)
    sys.stdin.readline()
    ends, done, failed, problems = time.monotonic() + asked["seconds"], [0], [0], set()

    def work() -> None:
        while time.monotonic() < ends:
            try:
                router.complete("What is 1 + 1?")
                done[0] += 1
            except Overloaded as error:
                problems.add(str(error))
            except EccosError:
                failed[0] += 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(asked.get("threads", 4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(asked["seconds"] + 20)
    trips = workload.server.round_trips
    with suppress(BrokenPipeError):
        print(
            json.dumps({"done": done[0], "failed": failed[0], "problems": sorted(problems), "trips": trips}), flush=True
        )


if __name__ == "__main__":
    main()
