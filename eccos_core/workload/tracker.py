"""Tracks the slots, rates, speed and health of every model, under one lock.

Deciding and holding are one critical section (`deciding`). A slot is released exactly once, whatever happens. Requests
that wait are served in the order of their arrival (`acquire`, `aacquire`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np

from eccos_core.domain import Completion, IntArray, Model, WorkloadStatus
from eccos_core.errors import UnknownModelError
from eccos_core.workload.circuit_breaker import BreakerSettings, CircuitBreaker
from eccos_core.workload.load import DeploymentLoad, ModelLoad
from eccos_core.workload.queue import MAX_QUEUE_LENGTH, FairQueue

Held = TypeVar("Held")


class WorkloadLimits(TypedDict, total=False):
    """The keyword arguments of `WorkloadTracker.reconfigure`."""

    requests_per_minute: Mapping[str, int] | None
    tokens_per_minute: Mapping[str, int] | None
    breaker: BreakerSettings | None
    queue_length: int


class WorkloadTracker:
    """The `Workload` of one process. Safe to use from threads, asyncio tasks and the garbage collector at once.

    Models of one deployment (`Model.deployment`: the efforts of a model) share its slots, rates and circuit breaker.
    `clock` gives monotonic seconds. The limits are those of `reconfigure`.
    """

    def __init__(
        self,
        models: Sequence[Model],
        clock: Callable[[], float] = time.monotonic,
        **limits: Unpack[WorkloadLimits],
    ) -> None:
        self._clock = clock
        self._lock: Any = threading.RLock()
        # every deployment that was ever in the pool: it may have calls in flight
        self._loads: dict[str, DeploymentLoad] = {}
        self._known: dict[str, ModelLoad] = {}  # every model that was ever in the pool
        self._pool: tuple[str, ...] = ()
        self._queue = FairQueue(self._lock, self._count_free)
        self.reconfigure(models, **limits)

    def reconfigure(
        self,
        models: Sequence[Model],
        *,
        requests_per_minute: Mapping[str, int] | None = None,
        tokens_per_minute: Mapping[str, int] | None = None,
        breaker: BreakerSettings | None = None,
        queue_length: int = MAX_QUEUE_LENGTH,
    ) -> None:
        """Change pool and limits while requests are in flight. Limits per minute go by model name.

        A model that stays keeps its slots in use, rates and health, under the new limits. Calls beyond a lower cap go
        on, and no new one begins until they end. A model that left finishes its calls. Everybody who waits stays in
        the queue. Raises `UnknownModelError` for a limit of a model outside the pool, and then changes nothing.
        """
        settings = breaker or BreakerSettings()
        requests, tokens = requests_per_minute or {}, tokens_per_minute or {}
        names = tuple(model.name for model in models)
        for name in (*requests, *tokens):
            if name not in names:
                raise UnknownModelError(name, names)
        with self._lock:
            for model in models:
                load = self._loads.setdefault(
                    model.deployment, DeploymentLoad(model.deployment, CircuitBreaker(settings))
                )
                load.limit(model.max_concurrency, settings, requests.get(model.name), tokens.get(model.name))
                usage = self._known.get(model.name)
                if usage is None or usage.load is not load:
                    self._known[model.name] = ModelLoad(model.name, load)
            self._pool = names
            self._queue.max_length = queue_length
            self._queue.notify(self._count_free())

    def free_slots(self, models: Sequence[str] | None = None) -> IntArray:
        """Return how many more requests each model can take now, (M,), in the order of `models` or else the pool's."""
        with self._lock:
            now = self._clock()
            return np.array([self._usage(name).load.free(now) for name in models or self._pool], dtype=np.int64)

    @contextmanager
    def deciding(self, models: Sequence[str] | None = None) -> Iterator[IntArray]:
        """Enter a critical section: nobody else takes a slot while you decide from these free slots and call `hold`.

        Keep it short, and never await inside.
        """
        with self._lock:
            yield self.free_slots(models)

    def hold(self, model: str) -> AbstractContextManager[None]:
        """Hold one slot for the length of a `with` block.

        Raises `UnknownModelError` at once for an unknown model. Entering raises `Overloaded` when no slot is free, or
        `CircuitOpen` when the model's circuit is open. The slot is released on leaving the block, or when the block's
        generator or the holder is garbage-collected.
        """
        return _Hold(self, self._usage(model))

    def acquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """Call `take` (decide and hold) until it does not raise `Overloaded`, first come, first served.

        After `deadline_s` seconds its `Overloaded` is raised. A `CircuitOpen` is raised at once.
        """
        return self._queue.acquire(take, deadline_s)

    async def aacquire(self, take: Callable[[], Held], deadline_s: float) -> Held:
        """The asynchronous twin of `acquire`. Threads and tasks wait in one queue."""
        return await self._queue.aacquire(take, deadline_s)

    def observe(self, model: str, completion: Completion | None, error: Exception | None = None) -> None:
        """Learn from one ended call: latency, tokens per second, tokens per minute, failure."""
        usage = self._usage(model)
        with self._lock:
            now = self._clock()
            usage.learn(completion, error)
            usage.load.learn(now, completion, error)

    def status(self) -> WorkloadStatus:
        """Return a consistent snapshot of the pool's models and of how many requests wait."""
        with self._lock:
            now = self._clock()
            return WorkloadStatus(tuple(self._known[name].status(now) for name in self._pool), len(self._queue))

    def _usage(self, model: str) -> ModelLoad:
        usage = self._known.get(model)
        if usage is None:
            raise UnknownModelError(model, self._pool)
        return usage

    def _count_free(self) -> int:
        now = self._clock()
        return sum(load.free(now) for load in self._loads.values())

    def _take(self, usage: ModelLoad) -> bool:
        """Take one slot. Returns True for the probe of a half-open circuit. Raises `Overloaded`."""
        with self._lock:
            now, load = self._clock(), usage.load
            if load.free(now) < 1:
                raise load.refusal(now)
            usage.in_flight += 1
            return load.take(now)

    def _release_slot(self, usage: ModelLoad, probe: bool) -> None:
        with self._lock:
            usage.in_flight -= 1
            usage.load.release(probe)
            self._queue.notify()


class _Hold(AbstractContextManager[None]):
    """One slot, held between entering and leaving. Whoever comes first releases it, once."""

    __slots__ = ("_probe", "_tracker", "_usage")

    def __init__(self, tracker: WorkloadTracker, usage: ModelLoad) -> None:
        self._tracker = tracker
        self._usage = usage
        self._probe: bool | None = None  # None while nothing is held

    def __enter__(self) -> None:
        self._probe = self._tracker._take(self._usage)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        with self._tracker._lock:
            probe, self._probe = self._probe, None
            if probe is not None:
                self._tracker._release_slot(self._usage, probe)
