"""Simulate a stream with SimPy: arrivals, a bounded queue, slots, deadlines, engines, and the result."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.simulation.pool_engine import EngineLoad, EngineProcess
from eccos_core.simulation.routers import StreamRouter
from eccos_core.simulation.scenario import Scenario

_RETRY_INTERVAL_S = 1.0  # how often the queue is offered again to a router that waits although slots are free


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """The result of one stream through one router.

    `quality` is the mean recorded quality of the answered requests, `cost_usd` their total real cost. Waiting times are
    in seconds, over answered requests. `utilisation` is the share of slot-seconds in use, by model. `missed` counts
    deadlines that passed in the queue, `refused` counts requests that found the queue full. `engines` served models.
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
    engines: tuple[EngineLoad, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class StreamRun:
    """What became of each request. model (N,): -1 for one that was never served. started_s, finished_s (N,): NaN then.

    Times are those of the simulation's clock.
    """

    model: IntArray
    started_s: FloatArray
    finished_s: FloatArray
    missed: int
    refused: int
    engines: tuple[EngineLoad, ...]


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
        deadline_s: float | FloatArray,
        queue_length: int,
    ) -> None:
        with needs_extra("report", "a simulation"):
            import simpy

        self.environment: Any = simpy.Environment()
        self.scenario = scenario
        self.router = make_router(lambda: float(self.environment.now))
        self.deadline_s = np.broadcast_to(np.asarray(deadline_s, dtype=np.float64), scenario.requests)
        self.queue_length = queue_length
        self.free: IntArray = scenario.slots.copy()
        self.queue: deque[_QueuedRequest] = deque()
        self.model = np.full(scenario.requests, -1, dtype=np.int64)
        self.started_s = np.full(scenario.requests, math.nan)
        self.finished_s = np.full(scenario.requests, math.nan)
        self.missed = self.refused = self.answered = 0
        self.settled: Any = self.environment.event()  # every request was answered, missed or refused
        self.engines = {
            model: EngineProcess(self.environment, engine, self._finish) for model, engine in scenario.engines.items()
        }

    def admit(self, times_s: FloatArray) -> Generator[Any, None, None]:
        for request, time_s in enumerate(times_s):
            yield self.environment.timeout(max(0.0, float(time_s) - self.environment.now))
            queued = _QueuedRequest(request, float(self.environment.now))
            if self._serve(queued):
                continue
            if len(self.queue) >= self.queue_length:
                self.refused += 1
                self._settle()
                continue
            self.queue.append(queued)
            self.environment.process(self._expire(queued))

    def retry_queue(self) -> Generator[Any, None, None]:
        """Offer the queue again at intervals, because a router may wait for more than slots (a budget)."""
        while True:
            yield self.environment.timeout(_RETRY_INTERVAL_S)
            self._serve_queue()

    def _expire(self, queued: _QueuedRequest) -> Generator[Any, None, None]:
        yield self.environment.timeout(float(self.deadline_s[queued.request]))
        if not queued.is_done:
            queued.is_done = True
            self.queue.remove(queued)
            self.missed += 1
            self._settle()

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
        self.started_s[queued.request] = self.environment.now
        if model in self.engines:
            self.engines[model].submit(queued.request)
        else:
            self.environment.process(self._answer(queued.request, model))
        return True

    def _answer(self, request: int, model: int) -> Generator[Any, None, None]:
        yield self.environment.timeout(float(self.scenario.seconds[request, model]))
        self._finish(request)

    def _finish(self, request: int) -> None:
        self.free[self.model[request]] += 1
        self.finished_s[request] = self.environment.now
        self.answered += 1
        self._settle()
        self._serve_queue()

    def _settle(self) -> None:
        if self.answered + self.missed + self.refused == self.scenario.requests:
            self.settled.succeed()

    def _serve_queue(self) -> None:
        """Serve the queue in order. A request that cannot use a free slot keeps its place."""
        for queued in list(self.queue):
            if not (self.free > 0).any():
                return
            if self._serve(queued):
                self.queue.remove(queued)


def run_stream(
    scenario: Scenario,
    make_router: Callable[[Callable[[], float]], StreamRouter],
    times_s: FloatArray,
    *,
    deadline_s: float | FloatArray = 30.0,
    queue_length: int = 1000,
) -> StreamRun:
    """Replay the scenario's requests, which arrive at times_s (N,), through one router.

    deadline_s: how long a request waits for a slot at most, one for all or one for each (N,).
    """
    if len(times_s) != scenario.requests:
        raise InputError(f"{len(times_s)} arrival times for {scenario.requests} requests")
    run = _SimulationRun(scenario, make_router, deadline_s, queue_length)
    run.environment.process(run.retry_queue())
    run.environment.process(run.admit(times_s))
    run.environment.run(until=run.settled)
    duration_s = _duration(run.finished_s)
    loads = tuple(
        engine.load(scenario.models[model], times_s, duration_s) for model, engine in sorted(run.engines.items())
    )
    return StreamRun(run.model, run.started_s, run.finished_s, run.missed, run.refused, loads)


def simulate(
    scenario: Scenario,
    name: str,
    make_router: Callable[[Callable[[], float]], StreamRouter],
    times_s: FloatArray,
    *,
    deadline_s: float = 30.0,
    queue_length: int = 1000,
) -> SimulationResult:
    """Replay the scenario's requests, which arrive at times_s (N,), through one router, and sum it up."""
    run = run_stream(scenario, make_router, times_s, deadline_s=deadline_s, queue_length=queue_length)
    return summarise_stream(scenario, name, run, times_s)


def summarise_stream(scenario: Scenario, name: str, run: StreamRun, times_s: FloatArray) -> SimulationResult:
    """Sum up a stream. times_s (N,): of the arrivals."""
    rows = np.flatnonzero(run.model >= 0)
    chosen = run.model[rows]
    waited = np.maximum(run.started_s[rows] - times_s[rows], 0.0)
    busy = np.bincount(chosen, weights=(run.finished_s - run.started_s)[rows], minlength=len(scenario.models))
    duration_s = _duration(run.finished_s)

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
        engines=run.engines,
    )


def _duration(finished_s: FloatArray) -> float:
    """Return the seconds from the start of the clock to the last answer."""
    answered = finished_s[np.isfinite(finished_s)]
    return max(float(answered.max()) if len(answered) else 0.0, 1e-9)
