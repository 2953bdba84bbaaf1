"""Simulate a stream with SimPy: arrivals, a bounded queue, slots, deadlines, and the result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.simulation.routers import StreamRouter
from eccos_core.simulation.scenario import Scenario

_RETRY_INTERVAL_S = 1.0  # how often the queue is offered again to a router that waits although slots are free


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The result of one stream through one router.

    `quality` is the mean recorded quality of the answered requests, `cost_usd` their total real cost. Waiting times are
    in seconds, over answered requests. `utilisation` is the share of slot-seconds in use, by model. `missed` counts
    deadlines that passed in the queue, `refused` counts requests that found the queue full.
    """

    router: str
    requests: int
    answered: int
    missed: int
    refused: int
    quality: float
    forecast_quality: float
    cost_usd: float
    waiting_median_s: float
    waiting_p95_s: float
    waiting_p99_s: float
    utilisation: tuple[float, ...]
    calls: tuple[int, ...]
    duration_s: float


@dataclass(slots=True)
class _QueuedRequest:
    request: int
    arrived_s: float
    is_done: bool = False


class _SimulationRun:
    """One stream through one router. The state changes only inside SimPy's event loop."""

    def __init__(
        self,
        scenario: Scenario,
        make_router: Callable[[Callable[[], float]], StreamRouter],
        deadline_s: float,
        queue_length: int,
    ) -> None:
        with needs_extra("report", "a simulation"):
            import simpy

        self.environment: Any = simpy.Environment()
        self.scenario = scenario
        self.router = make_router(lambda: float(self.environment.now))
        self.deadline_s, self.queue_length = deadline_s, queue_length
        self.free: IntArray = scenario.slots.copy()
        self.queue: deque[_QueuedRequest] = deque()
        self.model = np.full(scenario.requests, -1, dtype=np.int64)
        self.waited_s = np.zeros(scenario.requests)
        self.missed = self.refused = 0
        self.ended_s = 0.0

    def admit(self, times_s: FloatArray) -> Generator[Any, None, None]:
        for request, time_s in enumerate(times_s):
            yield self.environment.timeout(max(0.0, float(time_s) - self.environment.now))
            queued = _QueuedRequest(request, float(self.environment.now))
            if self._serve(queued):
                continue
            if len(self.queue) >= self.queue_length:
                self.refused += 1
                continue
            self.queue.append(queued)
            self.environment.process(self._expire(queued))

    def retry_queue(self) -> Generator[Any, None, None]:
        """Offer the queue again at intervals, because a router may wait for more than slots (a budget)."""
        while True:
            yield self.environment.timeout(_RETRY_INTERVAL_S)
            self._serve_queue()

    def _expire(self, queued: _QueuedRequest) -> Generator[Any, None, None]:
        yield self.environment.timeout(self.deadline_s)
        if not queued.is_done:
            queued.is_done = True
            self.queue.remove(queued)
            self.missed += 1

    def _serve(self, queued: _QueuedRequest) -> bool:
        open_models = self.scenario.eligible[queued.request] & (self.free > 0)
        if not open_models.any():
            return False
        occupancy = 1.0 - self.free / self.scenario.slots
        model = self.router.choose(queued.request, open_models, occupancy)
        if model is None:
            return False
        if not open_models[model]:
            raise InputError(f"the router chose model {model}, which has no free slot or may not answer")
        queued.is_done = True
        self.free[model] -= 1
        self.model[queued.request] = model
        self.waited_s[queued.request] = self.environment.now - queued.arrived_s
        self.environment.process(self._answer(queued.request, model))
        return True

    def _answer(self, request: int, model: int) -> Generator[Any, None, None]:
        yield self.environment.timeout(float(self.scenario.seconds[request, model]))
        self.free[model] += 1
        self.ended_s = float(self.environment.now)
        self._serve_queue()

    def _serve_queue(self) -> None:
        """Serve the queue in order. A request that cannot use a free slot keeps its place."""
        for queued in list(self.queue):
            if not (self.free > 0).any():
                return
            if self._serve(queued):
                self.queue.remove(queued)


def simulate(
    scenario: Scenario,
    name: str,
    make_router: Callable[[Callable[[], float]], StreamRouter],
    times_s: FloatArray,
    *,
    deadline_s: float = 30.0,
    queue_length: int = 1000,
) -> SimulationResult:
    """Replay the scenario's requests, which arrive at times_s (N,), through one router."""
    if len(times_s) != scenario.requests:
        raise InputError(f"{len(times_s)} arrival times for {scenario.requests} requests")
    run = _SimulationRun(scenario, make_router, deadline_s, queue_length)
    run.environment.process(run.retry_queue())
    finished = run.environment.process(run.admit(times_s))
    run.environment.run(until=finished)
    last_s = float(run.environment.now) + deadline_s + float(scenario.seconds.max()) + 1.0
    run.environment.run(until=last_s)
    return _result(scenario, name, run)


def _result(scenario: Scenario, name: str, run: _SimulationRun) -> SimulationResult:
    rows = np.flatnonzero(run.model >= 0)
    chosen = run.model[rows]
    waited = run.waited_s[rows]
    seconds = scenario.seconds[rows, chosen]
    busy = np.bincount(chosen, weights=seconds, minlength=len(scenario.models))
    duration_s = max(run.ended_s, 1e-9)

    def waiting_percentile_s(percent: float) -> float:
        return float(np.percentile(waited, percent)) if len(waited) else 0.0

    return SimulationResult(
        router=name,
        requests=scenario.requests,
        answered=len(rows),
        missed=run.missed,
        refused=run.refused,
        quality=float(scenario.quality[rows, chosen].mean()) if len(rows) else 0.0,
        forecast_quality=float(scenario.forecast.quality[rows, chosen].mean()) if len(rows) else 0.0,
        cost_usd=float(scenario.cost_usd[rows, chosen].sum()),
        waiting_median_s=waiting_percentile_s(50),
        waiting_p95_s=waiting_percentile_s(95),
        waiting_p99_s=waiting_percentile_s(99),
        utilisation=tuple((busy / (scenario.slots * duration_s)).tolist()),
        calls=tuple(np.bincount(chosen, minlength=len(scenario.models)).tolist()),
        duration_s=duration_s,
    )
