"""Routers to simulate: the stream controller of eccos, and baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, QualityFloor, RoutingProblem
from eccos_core.errors import InfeasibleError, InputError, Overloaded, did_you_mean
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation.scenario import Scenario
from eccos_core.streaming import FloorTarget, RateTarget, StreamController, fit_initial_prices

PORT_EXPLORATION_SHARE = 0.025  # of the stream (arXiv 2509.02718)


class StreamRouter(Protocol):
    """Chooses the model of one request at a time from forecasts. It never sees recorded outcomes."""

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """Return a model of `open_models` (M,), which have a free slot, or None to let the request wait.

        At least one model is open. `occupancy` (M,) is the share of slots in use.
        """
        ...


class RoundRobin:
    """Takes the next model in turn that has a free slot."""

    def __init__(self, models: int) -> None:
        self._models = models
        self._next = 0

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        turn = (self._next + np.arange(self._models)) % self._models
        model = int(turn[open_models[turn]][0])
        self._next = model + 1
        return model


@dataclass(frozen=True, slots=True, eq=False)
class CheapestFirst:
    """Takes the cheapest model with a free slot, so that load spills over to the next cheapest."""

    cost_usd: FloatArray

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        return int(np.where(open_models, self.cost_usd[request], np.inf).argmin())


@dataclass(frozen=True, slots=True, eq=False)
class BestFirst:
    """Takes the model with the best forecast among those with a free slot."""

    quality: FloatArray

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        return int(np.where(open_models, self.quality[request], -1.0).argmax())


@dataclass(frozen=True, slots=True, eq=False)
class GreedyPerRequest:
    """Takes the cheapest model with a free slot whose forecast reaches the floor, else the best with a free slot."""

    quality: FloatArray
    cost_usd: FloatArray
    floor: float

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        good = open_models & (self.quality[request] >= self.floor)
        if good.any():
            return int(np.where(good, self.cost_usd[request], np.inf).argmin())
        return int(np.where(open_models, self.quality[request], -1.0).argmax())


class PortStreamRouter:
    """PORT (arXiv 2509.02718): explore with the first 2.5 % of the stream, then keep the prices fitted to them.

    The prices of floor and slots are the dual solution of the sample's problem.
    """

    def __init__(self, scenario: Scenario, floor: float, share: FloatArray) -> None:
        self._quality, self._cost = scenario.forecast.quality, scenario.forecast.cost_usd
        self._exploration_length = max(2, int(PORT_EXPLORATION_SHARE * scenario.requests))
        self._exploration = RoundRobin(len(scenario.models))
        self._explored: list[int] = []
        self._floor, self._share = floor, share
        self._models = scenario.models
        self._prices: tuple[float, FloatArray] | None = None

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        if self._prices is None:
            if len(self._explored) < self._exploration_length:
                self._explored.append(request)
                return self._exploration.choose(request, open_models, occupancy)
            self._prices = self._fit_prices()
        usd_per_quality, slots = self._prices
        value = self._cost[request] - usd_per_quality * self._quality[request] + slots
        return int(np.where(open_models, value, np.inf).argmin())

    def _fit_prices(self) -> tuple[float, FloatArray]:
        rows = np.asarray(self._explored)
        problem = RoutingProblem(
            quality=self._quality[rows],
            cost_usd=self._cost[rows],
            eligible=np.ones((len(rows), len(self._models)), dtype=np.bool_),
            capacity=np.ceil(self._share * len(rows)).astype(np.int64),
            policy=QualityFloor(self._floor, on_infeasible="best_effort"),
            models=self._models,
        )
        prices = DualOptimizer().solve(problem).prices
        return prices.quality, prices.slots


class EccosStreamRouter:
    """Runs `StreamController` with initial prices from the training forecasts.

    It raises a floor by what its forecasts were too high on questions that they had not seen, as `eccos serve` does.
    """

    def __init__(
        self,
        scenario: Scenario,
        target: FloorTarget | RateTarget,
        share: FloatArray,
        clock: Callable[[], float],
        requests_per_second: float,
    ) -> None:
        self._quality, self._cost = scenario.forecast.quality, scenario.forecast.cost_usd
        if isinstance(target, FloorTarget):
            target = replace(target, alpha=scenario.floor_map.to_forecast(target.alpha))
        prices = fit_initial_prices(
            scenario.training.quality,
            scenario.training.cost_usd,
            target,
            DualOptimizer(),
            models=scenario.models,
            most_share=share,
            requests_per_second=requests_per_second,
        )
        self.controller = StreamController(target, prices, clock)

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`. Lets the request wait while the spending is ahead of the budget."""
        try:
            return self.controller.decide(self._quality[request], self._cost[request], open_models, occupancy).model
        except (Overloaded, InfeasibleError):
            return None


ROUTERS = ("eccos", "round_robin", "cheapest_first", "best_first", "greedy", "port")


def check_router(name: str) -> str:
    """Return the name of a router. Raises `InputError` for another name."""
    if name not in ROUTERS:
        raise InputError(f"unknown router {name!r}{did_you_mean(name, ROUTERS)} Known: {', '.join(ROUTERS)}.")
    return name


def stream_routers_named(
    names: Sequence[str],
    scenario: Scenario,
    target: FloorTarget | RateTarget,
    requests_per_second: float,
) -> dict[str, Callable[[Callable[[], float]], StreamRouter]]:
    """Return, by name, a function that makes a new router for a simulation's clock.

    Routers that need a floor use the target's. Under a budget rate they use the mean forecast quality of all models.
    Raises `InputError` for unknown names.
    """
    for name in names:
        check_router(name)
    forecast = scenario.forecast
    share = sustainable_share(scenario, requests_per_second)
    floor = target.alpha if isinstance(target, FloorTarget) else float(forecast.quality.mean())
    makers: dict[str, Callable[[Callable[[], float]], StreamRouter]] = {
        "eccos": lambda clock: EccosStreamRouter(scenario, target, share, clock, requests_per_second),
        "round_robin": lambda _: RoundRobin(len(scenario.models)),
        "cheapest_first": lambda _: CheapestFirst(forecast.cost_usd),
        "best_first": lambda _: BestFirst(forecast.quality),
        "greedy": lambda _: GreedyPerRequest(forecast.quality, forecast.cost_usd, floor),
        "port": lambda _: PortStreamRouter(scenario, floor, share),
    }
    return {name: makers[name] for name in names}


def sustainable_share(scenario: Scenario, requests_per_second: float) -> FloatArray:
    """Return the share of the stream that each model can sustain, (M,): slots / seconds per request / arrival rate."""
    seconds = np.where(scenario.eligible, scenario.seconds, np.nan)
    share = scenario.slots / np.nanmean(seconds, axis=0) / requests_per_second
    short = 1.0 - share.sum()
    if short > 0:  # overloaded: stretch all shares alike until they add up to 1
        share = share / share.sum() * (1 + 1e-9)
    capped: FloatArray = np.minimum(share, 1.0)
    return capped
