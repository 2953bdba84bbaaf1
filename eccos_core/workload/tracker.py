"""Tracks the slots, rates, speed and health of every model, under one lock.

Deciding and holding are one critical section (`deciding`). A slot is released exactly once, whatever happens. Requests
that wait are served in the order of their arrival (`acquire`, `aacquire`).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from eccos_core.domain import BreakerState, Completion, IntArray, Model, ModelStatus, WorkloadStatus
from eccos_core.errors import BackendError, CircuitOpen, Overloaded, UnknownModelError
from eccos_core.workload.circuit_breaker import BreakerSettings, CircuitBreaker
from eccos_core.workload.queue import MAX_QUEUE_LENGTH, FairQueue
from eccos_core.workload.sliding_window import SlidingWindow

UNCAPPED = 1_000_000  # slots of a model without a cap: more than any batch has requests
WARM_UP_SLOTS = 100  # what an uncapped model is warmed up to before its cap is lifted
SMOOTHING = 0.1  # weight of the newest call in the exponentially weighted means

Held = TypeVar("Held")


class WorkloadTracker:
    """The `Workload` of one process. Safe to use from threads, asyncio tasks and the garbage collector at once.

    Models of one deployment (`Model.deployment`: the efforts of a model) share its slots, rates and circuit breaker.
    `requests_per_minute` and `tokens_per_minute` are limits by model name. `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        models: Sequence[Model],
        clock: Callable[[], float] = time.monotonic,
        *,
        requests_per_minute: Mapping[str, int] | None = None,
        tokens_per_minute: Mapping[str, int] | None = None,
        breaker: BreakerSettings | None = None,
        queue_length: int = MAX_QUEUE_LENGTH,
    ) -> None:
        self._clock = clock
        self._lock: Any = threading.RLock()
        self._loads: dict[str, _Load] = {}  # every deployment that was ever in the pool: it may have calls in flight
        self._known: dict[str, _Usage] = {}  # every model that was ever in the pool
        self._pool: tuple[str, ...] = ()
        self._queue = FairQueue(self._lock, self._count_free)
        self.reconfigure(
            models,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            breaker=breaker,
            queue_length=queue_length,
        )

    def reconfigure(
        self,
        models: Sequence[Model],
        *,
        requests_per_minute: Mapping[str, int] | None = None,
        tokens_per_minute: Mapping[str, int] | None = None,
        breaker: BreakerSettings | None = None,
        queue_length: int = MAX_QUEUE_LENGTH,
    ) -> None:
        """Change pool and limits while requests are in flight.

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
                load = self._loads.setdefault(model.deployment, _Load(model.deployment, CircuitBreaker(settings)))
                load.limit(model.max_concurrency, settings, requests.get(model.name), tokens.get(model.name))
                usage = self._known.get(model.name)
                if usage is None or usage.load is not load:
                    self._known[model.name] = _Usage(model.name, load)
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

    def _usage(self, model: str) -> _Usage:
        usage = self._known.get(model)
        if usage is None:
            raise UnknownModelError(model, self._pool)
        return usage

    def _count_free(self) -> int:
        now = self._clock()
        return sum(load.free(now) for load in self._loads.values())

    def _take(self, usage: _Usage) -> bool:
        """Take one slot. Returns True for the probe of a half-open circuit. Raises `Overloaded`."""
        with self._lock:
            now, load = self._clock(), usage.load
            if load.free(now) < 1:
                raise load.refusal(now)
            usage.in_flight += 1
            return load.take(now)

    def _release_slot(self, usage: _Usage, probe: bool) -> None:
        with self._lock:
            usage.in_flight -= 1
            usage.load.release(probe)
            self._queue.notify()


class _Hold(AbstractContextManager[None]):
    """One slot, held between entering and leaving. Whoever comes first releases it, once."""

    __slots__ = ("_probe", "_tracker", "_usage")

    def __init__(self, tracker: WorkloadTracker, usage: _Usage) -> None:
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


class _Load:
    """The slots, rates and health of one deployment, shared by its efforts. Not locked: the tracker is."""

    cap: int | None
    _rpm: int | None
    _tpm: int | None

    def __init__(self, name: str, breaker: CircuitBreaker) -> None:
        self._name = name
        self._breaker = breaker
        self._requests, self._tokens = SlidingWindow(), SlidingWindow()
        self._in_flight = 0
        self._probing = False
        self._tokens_per_call: float | None = None
        self.error_rate = 0.0

    def limit(self, cap: int | None, settings: BreakerSettings, rpm: int | None, tpm: int | None) -> None:
        """Set its limits from now on."""
        self.cap, self._rpm, self._tpm = cap, rpm, tpm
        self._breaker.reconfigure(settings)

    def free(self, now: float) -> int:
        """Return how many more requests it can take."""
        if self._rpm is None and self._tpm is None and self._breaker.is_calm:  # nearly always: only the cap can bind
            return max(0, (self.cap or UNCAPPED) - self._in_flight)
        return max(0, min(left for left, _ in self._limits(now)))

    def refusal(self, now: float) -> Overloaded:
        """Say which limit binds. It is a `CircuitOpen` when the circuit is open or half open."""
        reason = min(self._limits(now), key=lambda limit: limit[0])[1]
        message = f"model {self._name!r} has no free slot: {reason}"
        opens_in_s = self._breaker.opens_in_s(now)
        return Overloaded(message) if opens_in_s is None else CircuitOpen(message, retry_after_s=opens_in_s)

    def _limits(self, now: float) -> Iterator[tuple[int, str]]:
        """Yield (slots left, the limit in words) for each limit."""
        cap = self.cap
        yield (cap or UNCAPPED) - self._in_flight, f"{self._in_flight} of {cap} requests are in flight"
        match self._breaker.state(now):
            case BreakerState.OPEN:
                yield 0, "its circuit is open after repeated failures"
            case BreakerState.HALF_OPEN:
                yield (0 if self._probing else 1), "its circuit is half open and one request probes it"
            case BreakerState.CLOSED:
                slots = cap or WARM_UP_SLOTS
                allowed = self._breaker.allowed(now, slots)
                if allowed < slots:
                    yield allowed - self._in_flight, f"it has just recovered and takes {allowed} requests at once"
        if self._rpm is not None:
            yield self._rpm - self._requests.total(now), f"its {self._rpm} requests per minute are used up"
        if self._tpm is not None:
            each = max(1.0, self._tokens_per_call or 1.0)
            left = self._tpm - self._tokens.total(now) - self._in_flight * each
            yield math.floor(left / each), f"its {self._tpm} tokens per minute are used up"

    def take(self, now: float) -> bool:
        """Count one more request in flight. Returns True when it is a probe."""
        self._in_flight += 1
        self._requests.add(now, 1)
        if self._breaker.state(now) is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return False

    def release(self, probe: bool) -> None:
        """Count one request fewer in flight."""
        self._in_flight -= 1
        if probe:
            self._probing = False

    def learn(self, now: float, completion: Completion | None, error: Exception | None) -> None:
        """Learn from one ended call."""
        if error is not None:
            self._learn_failure(now, error)
        if completion is None:
            return
        self.error_rate *= 1 - SMOOTHING
        self._breaker.record_success(now)
        tokens = completion.input_tokens + completion.output_tokens
        self._tokens.add(now, tokens)
        self._tokens_per_call = _smoothed(self._tokens_per_call, tokens)

    def _learn_failure(self, now: float, error: Exception) -> None:
        if isinstance(error, BackendError) and not error.kind.blames_model:
            return
        self.error_rate = self.error_rate * (1 - SMOOTHING) + SMOOTHING
        self._breaker.record_failure(now, self.error_rate, getattr(error, "retry_after_s", None))

    def breaker(self, now: float) -> BreakerState:
        """Return where its circuit breaker stands."""
        return self._breaker.state(now)

    def last_minute(self, now: float) -> tuple[int, int]:
        """Return (requests, tokens) of the last minute."""
        return self._requests.total(now), self._tokens.total(now)


class _Usage:
    """One model's part in the load of its deployment, and how fast it answers. Not locked: the tracker is."""

    def __init__(self, name: str, load: _Load) -> None:
        self.load = load
        self.in_flight = 0
        self._name = name
        self._latency_s: float | None = None
        self._speed: float | None = None
        self._calls = self._failures = 0

    def learn(self, completion: Completion | None, error: Exception | None) -> None:
        """Learn from one ended call."""
        self._calls += 1
        self._failures += error is not None
        if completion is None:
            return
        if math.isfinite(completion.latency_s) and completion.latency_s >= 0:
            self._latency_s = _smoothed(self._latency_s, completion.latency_s)
            writing_s = completion.latency_s - (completion.time_to_first_token_s or 0.0)
            if completion.output_tokens and writing_s > 0:
                self._speed = _smoothed(self._speed, completion.output_tokens / writing_s)

    def status(self, now: float) -> ModelStatus:
        """Return a snapshot. Slots, rates and breaker are those of the deployment."""
        requests, tokens = self.load.last_minute(now)
        return ModelStatus(
            model=self._name,
            in_flight=self.in_flight,
            max_concurrency=self.load.cap,
            free_slots=self.load.free(now),
            breaker=self.load.breaker(now),
            error_rate=self.load.error_rate,
            latency_s=self._latency_s,
            output_tokens_per_second=self._speed,
            requests_last_minute=requests,
            tokens_last_minute=tokens,
            calls=self._calls,
            failures=self._failures,
        )


def _smoothed(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + SMOOTHING * (newest - mean)
