"""Exchanges the sums of streams between replicas: once a second, and at once when a stream asks for it."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from eccos_core.workload.shared.server import SharedServer
from eccos_core.workload.shared.settings import KEEP_MS, SCHEMA

SCRIPT = "streams.lua"


class SharedStream(Protocol):
    """One replica's part in a stream. `eccos_core.streaming` has it."""

    @property
    def is_urgent(self) -> bool:
        """Whether to exchange now, before the next heartbeat."""
        ...

    def report(self) -> dict[str, Any]:
        """Return the sums of this replica, under a growing number."""
        ...

    def adopt(self, answer: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
        """Take over the answer to a report. Return whether requests that wait may go on."""
        ...

    def go_alone(self, part: float) -> None:
        """Go on without Redis, with this part of the money that is earned from now on."""
        ...


class StreamExchange:
    """Sends the sums of this replica's streams, and gives each stream the answer. One thread at a time calls it."""

    def __init__(self, server: SharedServer, replica: str, every_s: float, clock: Callable[[], float]) -> None:
        self._server, self._replica = server, replica
        self._every_s, self._clock = every_s, clock
        self._streams: dict[str, weakref.ref[SharedStream]] = {}
        self._sent_at = 0.0

    def register(self, streams: Mapping[str, SharedStream]) -> None:
        """Exchange these streams from now on, and no others. Replicas share those whose names are equal."""
        self._streams = {_as_key(name): weakref.ref(stream) for name, stream in streams.items()}
        self._sent_at = 0.0

    def due_in_s(self) -> float:
        """Return the seconds until the next exchange: 0 if a second has passed, or if a stream asks."""
        if not self._streams:
            return self._every_s
        left_s = self._sent_at + self._every_s - self._clock()
        return 0.0 if left_s <= 0 or any(each.is_urgent for each in self._alive().values()) else left_s

    def exchange(self) -> int:
        """Send what is due. Return how many streams may let go on who waits. Raises `StateAway`, `SharedStateError`."""
        now, streams = self._clock(), self._alive()
        if now - self._sent_at < self._every_s:
            streams = {key: stream for key, stream in streams.items() if stream.is_urgent}
        else:
            self._sent_at = now
        if not streams:
            return 0
        sent = {key: stream.report() for key, stream in streams.items()}
        message = {
            "schema": SCHEMA,
            "replica": self._replica,
            "keep_ms": KEEP_MS,
            "streams": [{"key": key, **report} for key, report in sent.items()],
        }
        answers = self._server.run(SCRIPT, "meta", message)["streams"]
        return sum(streams[answer["key"]].adopt(answer, sent[answer["key"]]) for answer in answers)

    def go_alone(self, part: float) -> None:
        """Let every stream go on without Redis."""
        for stream in self._alive().values():
            stream.go_alone(part)

    def _alive(self) -> dict[str, SharedStream]:
        found = {key: reference() for key, reference in self._streams.items()}
        return {key: stream for key, stream in found.items() if stream is not None}


def _as_key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
