"""The simulation: arrivals, a bounded queue, slots, deadlines (SimPy), and what came of it."""

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

_PATIENCE_S = 1.0  # how often the queue is offered to a router that let its head wait though slots were free


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What one router made of one stream.

    quality: mean recorded quality of what was answered; cost_usd: real, in all. Waiting times in s, of what was
    answered. utilisation: share of slot-seconds in use, by model. missed: deadlines passed in the queue; refused: the
    queue was full.
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
class _Waiting:
    request: int
    arrived_s: float
    gone: bool = False


class _SimulationRun:
    """One stream through one router. The state changes only inside SimPy's event loop."""

    def __init__(
        self,
        scenario: Scenario,
        make: Callable[[Callable[[], float]], StreamRouter],
        deadline_s: float,
        queue_length: int,
    ) -> None:
        with needs_extra("report", "a simulation"):
            import simpy

        self.environment: Any = simpy.Environment()
        self.scenario = scenario
        self.router = make(lambda: float(self.environment.now))
        self.deadline_s, self.queue_length = deadline_s, queue_length
        self.free: IntArray = scenario.slots.copy()
        self.line: deque[_Waiting] = deque()
        self.model = np.full(scenario.requests, -1, dtype=np.int64)
        self.waited_s = np.zeros(scenario.requests)
        self.missed = self.refused = 0
        self.ended_s = 0.0

    def arrivals(self, times_s: FloatArray) -> Generator[Any, None, None]:
        for request, time_s in enumerate(times_s):
            yield self.environment.timeout(max(0.0, float(time_s) - self.environment.now))
            waiting = _Waiting(request, float(self.environment.now))
            if self._serve(waiting):
                continue
            if len(self.line) >= self.queue_length:
                self.refused += 1
                continue
            self.line.append(waiting)
            self.environment.process(self._until_deadline(waiting))

    def patience(self) -> Generator[Any, None, None]:
        """Offers the queue again from time to time: a router may wait for more than slots (a budget)."""
        while True:
            yield self.environment.timeout(_PATIENCE_S)
            self._serve_line()

    def _until_deadline(self, waiting: _Waiting) -> Generator[Any, None, None]:
        yield self.environment.timeout(self.deadline_s)
        if not waiting.gone:
            waiting.gone = True
            self.line.remove(waiting)
            self.missed += 1

    def _serve(self, waiting: _Waiting) -> bool:
        open_models = self.scenario.eligible[waiting.request] & (self.free > 0)
        if not open_models.any():
            return False
        occupancy = 1.0 - self.free / self.scenario.slots
        model = self.router.choose(waiting.request, open_models, occupancy)
        if model is None:
            return False
        if not open_models[model]:
            raise InputError(f"the router chose model {model}, which has no free slot or may not answer")
        waiting.gone = True
        self.free[model] -= 1
        self.model[waiting.request] = model
        self.waited_s[waiting.request] = self.environment.now - waiting.arrived_s
        self.environment.process(self._answer(waiting.request, model))
        return True

    def _answer(self, request: int, model: int) -> Generator[Any, None, None]:
        yield self.environment.timeout(float(self.scenario.seconds[request, model]))
        self.free[model] += 1
        self.ended_s = float(self.environment.now)
        self._serve_line()

    def _serve_line(self) -> None:
        """First come, first served; who cannot use what is free keeps their place."""
        for waiting in list(self.line):
            if not (self.free > 0).any():
                return
            if self._serve(waiting):
                self.line.remove(waiting)


def simulate(
    scenario: Scenario,
    name: str,
    make: Callable[[Callable[[], float]], StreamRouter],
    times_s: FloatArray,
    *,
    deadline_s: float = 30.0,
    queue_length: int = 1000,
) -> SimulationResult:
    """Replay the scenario's requests, which arrive at times_s (N,), through one router."""
    if len(times_s) != scenario.requests:
        raise InputError(f"{len(times_s)} arrival times for {scenario.requests} requests")
    run = _SimulationRun(scenario, make, deadline_s, queue_length)
    run.environment.process(run.patience())
    finished = run.environment.process(run.arrivals(times_s))
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

    def waiting(percent: float) -> float:
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
        waiting_median_s=waiting(50),
        waiting_p95_s=waiting(95),
        waiting_p99_s=waiting(99),
        utilisation=tuple((busy / (scenario.slots * duration_s)).tolist()),
        calls=tuple(np.bincount(chosen, minlength=len(scenario.models)).tolist()),
        duration_s=duration_s,
    )
