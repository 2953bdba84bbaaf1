"""Simulate several routers in several orders with several seeds, and summarise them side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from eccos_core.domain import FloatArray, QualityFloor, RoutingProblem
from eccos_core.errors import InfeasibleError, InputError
from eccos_core.off_policy import student_t_quantile
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation.engine import SimulationResult, run_stream, summarise_stream
from eccos_core.simulation.hindsight import compute_hindsight_cost
from eccos_core.simulation.measures import RunMeasures, count_warm_up, measure_run, quality_along
from eccos_core.simulation.orders import StreamOrder
from eccos_core.simulation.routers import StreamRouter, stream_routers_named, sustainable_share
from eccos_core.simulation.scenario import Scenario
from eccos_core.streaming import FloorTarget, RateTarget

CONFIDENCE = 0.95
HINDSIGHT_REQUESTS = 10_000  # a longer stream is not looked back on, which takes minutes
ATTAINABLE_REQUESTS = 5_000  # of the stream at most, from which the attainable quality within the slots is found


@dataclass(frozen=True, slots=True)
class SeedMean:
    """The mean of a measure over seeds, and the ends of its 95 % interval (Student's t). No interval of one seed."""

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> SeedMean:
        """Return the mean of the values that are known."""
        known = np.array([value for value in values if math.isfinite(value)])
        if not len(known):
            return cls(None, None, None)
        mean = float(known.mean())
        if len(known) == 1:
            return cls(mean, None, None)
        error = float(known.std(ddof=1)) / math.sqrt(len(known))
        half = student_t_quantile((1 + CONFIDENCE) / 2, len(known) - 1) * error
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True, eq=False)
class RouterSummary:
    """One router in one order. measures: by the names of `RunMeasures`. along (P,): forecast quality along the stream.

    results: of whole streams, warm-up included, one per seed.
    """

    router: str
    order: StreamOrder
    measures: Mapping[str, SeedMean]
    along: FloatArray
    results: tuple[SimulationResult, ...]


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """What is simulated. seeds: one stream each. warm_up: the share of requests at the start that does not count."""

    routers: tuple[str, ...]
    orders: tuple[StreamOrder, ...]
    seeds: tuple[int, ...]
    warm_up: float = 0.1
    deadline_s: float = 30.0
    queue_length: int = 1000

    def __post_init__(self) -> None:
        for name, given in (("router", self.routers), ("order", self.orders), ("seed", self.seeds)):
            if not given:
                raise InputError(f"no {name} to simulate; give at least one")


@dataclass(frozen=True, slots=True)
class HindsightCosts:
    """The least USD per 1,000 requests that keeps the floor, had the whole stream been known. Slots do not count.

    `forecast` keeps it on the forecasts, on which routers promise it. `answers` keeps it on the recorded quality.
    """

    forecast: SeedMean
    answers: SeedMean


@dataclass(frozen=True, slots=True, eq=False)
class SimulationReport:
    """Routers side by side.

    `attainable` is the mean forecast quality of each request's best model. `attainable_in_slots` is the best that the
    slots can serve in the long run at this rate, None where they cannot serve every request. `forecast_floor` is the
    mean forecast that `eccos` asks for to realise the floor, None for a budget. `warm_up` counts requests.
    """

    dataset: str
    arrivals: str
    requests: int
    per_second: float
    models: tuple[str, ...]
    target: FloorTarget | RateTarget
    attainable: float
    attainable_in_slots: float | None
    warm_up: int
    plan: StreamPlan
    routers: tuple[RouterSummary, ...]
    hindsight: Mapping[StreamOrder, HindsightCosts]
    forecast_floor: float | None = None

    @property
    def floor(self) -> float | None:
        """The floor that was asked for, None for a budget."""
        return self.target.alpha if isinstance(self.target, FloorTarget) else None

    def as_json(self) -> dict[str, object]:
        """Return the report for a JSON file. What is not known is null."""
        return {
            "dataset": self.dataset,
            "requests": self.requests,
            "requests_per_second": self.per_second,
            "arrivals": self.arrivals,
            "models": list(self.models),
            "floor_asked": self.floor,
            "floor_forecast": self.forecast_floor,
            "floor_attainable": self.attainable,
            "floor_attainable_in_slots": self.attainable_in_slots,
            "warm_up_requests": self.warm_up,
            "seeds": list(self.plan.seeds),
            "confidence": CONFIDENCE,
            "hindsight_usd_per_1000": {order: asdict(costs) for order, costs in self.hindsight.items()},
            "routers": [
                {
                    "router": each.router,
                    "order": each.order,
                    **{name: asdict(measure) for name, measure in each.measures.items()},
                }
                for each in self.routers
            ],
            "results": [
                {"seed": seed, "order": each.order, **asdict(result)}
                for each in self.routers
                for seed, result in zip(self.plan.seeds, each.results, strict=True)
            ],
        }


def run_study(
    draw_scenario: Callable[[int, StreamOrder], Scenario],
    draw_times: Callable[[int, Scenario], FloatArray],
    target: FloorTarget | RateTarget,
    per_second: float,
    plan: StreamPlan,
    *,
    dataset: str = "",
    arrivals: str = "",
    progress: Callable[[str], None] = lambda stage: None,
) -> SimulationReport:
    """Simulate every router in every order with every seed. All routers meet the same streams.

    draw_scenario: of a seed and an order. draw_times: arrival times (N,) in s of a seed
    and its scenario.
    """
    summaries: list[RouterSummary] = []
    first: Scenario | None = None
    hindsight: dict[StreamOrder, HindsightCosts] = {}
    for order in plan.orders:
        known: list[tuple[float, float]] = []
        runs: dict[str, list[tuple[SimulationResult, RunMeasures, FloatArray]]] = {name: [] for name in plan.routers}
        for seed in plan.seeds:
            scenario = draw_scenario(seed, order)
            times_s = draw_times(seed, scenario)
            first = first or scenario
            if isinstance(target, FloorTarget) and scenario.requests <= HINDSIGHT_REQUESTS:
                progress(f"Looking back on order {order}, seed {seed} ...")
                known.append(_look_back(scenario, target))
            for name, make in stream_routers_named(plan.routers, scenario, target, per_second).items():
                progress(f"Simulating {name}, order {order}, seed {seed} ...")
                runs[name].append(_run(scenario, name, make, times_s, plan))
        if known:
            hindsight[order] = HindsightCosts(*(SeedMean.of(usd) for usd in zip(*known, strict=True)))
        for name, found in runs.items():
            measures = {
                field.name: SeedMean.of([getattr(each, field.name) for _, each, _ in found])
                for field in fields(RunMeasures)
            }
            summaries.append(RouterSummary(name, order, measures, found[0][2], tuple(result for result, _, _ in found)))
    assert first is not None
    return SimulationReport(
        dataset=dataset,
        arrivals=arrivals,
        requests=first.requests,
        per_second=per_second,
        models=first.models,
        target=target,
        attainable=float(np.where(first.eligible, first.forecast.quality, -np.inf).max(axis=1).mean()),
        attainable_in_slots=attainable_in_slots(first, per_second),
        warm_up=count_warm_up(first.requests, plan.warm_up),
        plan=plan,
        routers=tuple(summaries),
        hindsight=hindsight,
        forecast_floor=first.floor_map.to_forecast(target.alpha) if isinstance(target, FloorTarget) else None,
    )


def _look_back(scenario: Scenario, target: FloorTarget) -> tuple[float, float]:
    """Return the USD per 1,000 requests of hindsight: the floor on the forecasts, and on the recorded quality."""
    cost = np.where(scenario.eligible, scenario.cost_usd, np.inf)
    usd_on_forecasts, usd_on_answers = (
        1000 * compute_hindsight_cost(target, quality, cost) / scenario.requests
        for quality in (scenario.forecast.quality, scenario.quality)
    )
    return usd_on_forecasts, usd_on_answers


def attainable_in_slots(scenario: Scenario, per_second: float) -> float | None:
    """Return the greatest mean forecast quality, when each model serves at most its sustainable share of the stream.

    None where models that may answer cannot serve all requests in these shares.
    """
    rows = np.linspace(0, scenario.requests - 1, min(scenario.requests, ATTAINABLE_REQUESTS)).astype(np.int64)
    problem = RoutingProblem(
        quality=scenario.forecast.quality[rows],
        cost_usd=scenario.forecast.cost_usd[rows],
        eligible=scenario.eligible[rows],
        capacity=np.ceil(sustainable_share(scenario, per_second) * len(rows)).astype(np.int64),
        policy=QualityFloor(1.0, on_infeasible="best_effort"),
        models=scenario.models,
    )
    try:
        return DualOptimizer().solve(problem).quality
    except InfeasibleError:
        return None


def _run(
    scenario: Scenario,
    name: str,
    make_router: Callable[[Callable[[], float]], StreamRouter],
    times_s: FloatArray,
    plan: StreamPlan,
) -> tuple[SimulationResult, RunMeasures, FloatArray]:
    run = run_stream(scenario, make_router, times_s, deadline_s=plan.deadline_s, queue_length=plan.queue_length)
    warm_up = count_warm_up(scenario.requests, plan.warm_up)
    measures = measure_run(scenario, run, times_s, warm_up)
    return summarise_stream(scenario, name, run, times_s), measures, quality_along(scenario, run)
