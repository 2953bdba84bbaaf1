"""Replicas of one stream, that exchange their sums through a real Redis whenever a test says so."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import redis
from redis_server import RedisServer

from eccos_core.streaming import FloorTarget, InitialPrices, RateTarget, StreamController
from eccos_core.workload.shared import SharedSettings
from eccos_core.workload.shared.server import SharedServer
from eccos_core.workload.shared.settings import SCHEMA

LONG_MS = 600_000


class StreamReplicas:
    """Some replicas of one stream. Their clock stands still unless a test moves it. Redis' clock runs."""

    def __init__(self, server: RedisServer, target: RateTarget | FloorTarget, count: int) -> None:
        settings = SharedSettings(server.url, name=uuid4().hex, timeout_s=10.0)
        self._target, self._prefix = target, settings.prefix
        self._redis = redis.Redis.from_url(server.url, decode_responses=True)
        self._server = SharedServer(settings)
        self.now_s = 0.0
        self.began = time.monotonic()
        self.allow(ready=True)
        self._late: list[dict[str, Any]] = []
        self.replicas: list[tuple[str, StreamController]] = []
        self.woken: set[int] = set()
        for number in range(count):
            self.replicas.append(self._make(number))

    def _make(self, number: int) -> tuple[str, StreamController]:
        stream = StreamController(self._target, InitialPrices(0.01), lambda: self.now_s)
        stream.share(lambda: self.woken.add(number))
        name = uuid4().hex[:12]
        self._redis.zadd(f"{self._prefix}:replicas", {name: time.time() * 1000 + LONG_MS})
        return name, stream

    def __getitem__(self, number: int) -> StreamController:
        return self.replicas[number][1]

    def allow(self, *, ready: bool) -> None:
        """Let Redis hand out room, or not yet, as after it lost its state."""
        at = 0 if ready else time.time() * 1000 + LONG_MS
        self._redis.hset(f"{self._prefix}:meta", mapping={"schema": SCHEMA, "ready": f"{at:.0f}"})

    def exchange(self, number: int, fate: str = "arrives") -> None:
        """Let one replica send its sums. The message arrives, or is late, or its answer is lost."""
        self.woken.discard(number)
        name, stream = self.replicas[number]
        share = stream.share(lambda: None)
        report = share.report()
        message = {"schema": SCHEMA, "replica": name, "keep_ms": LONG_MS, "streams": [{"key": "s", **report}]}
        if fate == "late":
            self._late.append(message)
            return
        answer = self._server.run("streams.lua", "meta", message)["streams"][0]
        if fate == "arrives":
            share.adopt(answer, report)

    def deliver_late(self) -> None:
        """Let the messages that were late arrive now. Nobody waits for their answers any more."""
        for message in self._late:
            self._server.run("streams.lua", "meta", message)
        self._late.clear()

    def kill(self, number: int) -> None:
        """Kill a replica, let its lease end, and start another."""
        name, _ = self.replicas[number]
        self._redis.zrem(f"{self._prefix}:replicas", name)
        self.replicas[number] = self._make(number)

    def lose_state(self) -> None:
        """Let Redis lose everything. Every replica that lives says again what it has."""
        self._redis.delete(f"{self._prefix}:stream:s")
        self._late.clear()
        self.allow(ready=False)
        for number in range(len(self.replicas)):
            self.exchange(number)
        self.allow(ready=True)

    def close(self) -> None:
        """Close the connections."""
        self._redis.delete(f"{self._prefix}:stream:s", f"{self._prefix}:meta", f"{self._prefix}:replicas")
        self._redis.close()
        self._server.close()
