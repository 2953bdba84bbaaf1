"""Who decides in a simulation: eccos' stream controller, and what people use instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eccos_core.domain import BoolArray, FloatArray, QualityFloor, RoutingProblem
from eccos_core.errors import InfeasibleError, InputError, Overloaded, did_you_mean
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation.scenario import Scenario
from eccos_core.streaming import FloorTarget, RateTarget, StreamController, fit_initial_prices

PORT_LEARNS_FROM = 0.025  # of the stream (arXiv 2509.02718)


class StreamRouter(Protocol):
    """Chooses for one request at a time, by forecasts; what really happens it never sees."""

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """A model among open_models (M,), which have a free slot (at least one is open), or None to let it wait.

        occupancy (M,): share of slots in use.
        """
        ...


class RoundRobin:
    """The next model in turn that has a free slot."""

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
    """The cheapest model with a free slot: load spills over to the next cheapest."""

    cost_usd: FloatArray

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        return int(np.where(open_models, self.cost_usd[request], np.inf).argmin())


@dataclass(frozen=True, slots=True, eq=False)
class BestFirst:
    """The model with the best forecast among those with a free slot."""

    quality: FloatArray

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        return int(np.where(open_models, self.quality[request], -1.0).argmax())


@dataclass(frozen=True, slots=True, eq=False)
class GreedyPerRequest:
    """The cheapest model with a free slot whose forecast reaches the floor, else the best with a free slot."""

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
    """PORT (arXiv 2509.02718): the first 2.5 % of the stream are spread evenly, and prices are learned from them once.

    Prices of the floor and of the slots, as the dual of the sample's problem, then kept for the rest.
    """

    def __init__(self, scenario: Scenario, floor: float, share: FloatArray) -> None:
        self._quality, self._cost = scenario.forecast.quality, scenario.forecast.cost_usd
        self._sample = max(2, int(PORT_LEARNS_FROM * scenario.requests))
        self._even = RoundRobin(len(scenario.models))
        self._seen: list[int] = []
        self._floor, self._share = floor, share
        self._models = scenario.models
        self._prices: tuple[float, FloatArray] | None = None

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        """See `StreamRouter.choose`."""
        if self._prices is None:
            if len(self._seen) < self._sample:
                self._seen.append(request)
                return self._even.choose(request, open_models, occupancy)
            self._prices = self._learned()
        usd_per_quality, slots = self._prices
        value = self._cost[request] - usd_per_quality * self._quality[request] + slots
        return int(np.where(open_models, value, np.inf).argmin())

    def _learned(self) -> tuple[float, FloatArray]:
        rows = np.asarray(self._seen)
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
    """`StreamController`: prices from the training forecasts, steered and guarded."""

    def __init__(
        self,
        scenario: Scenario,
        target: FloorTarget | RateTarget,
        share: FloatArray,
        clock: Callable[[], float],
        requests_per_second: float,
    ) -> None:
        self._quality, self._cost = scenario.forecast.quality, scenario.forecast.cost_usd
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
        """See `StreamRouter.choose`. Waits while the budget of an hour or a day must first be earned."""
        try:
            return self.controller.decide(self._quality[request], self._cost[request], open_models, occupancy).model
        except (Overloaded, InfeasibleError):
            return None


ROUTERS = ("eccos", "round_robin", "cheapest_first", "best_first", "greedy", "port")


def stream_routers_named(
    names: Sequence[str],
    scenario: Scenario,
    target: FloorTarget | RateTarget,
    requests_per_second: float,
) -> dict[str, Callable[[Callable[[], float]], StreamRouter]]:
    """By name: a function that makes the router, fresh, for a simulation's clock.

    Routers that need a floor use the target's; under a budget rate, the mean forecast quality of all models. Raises
    `InputError` for unknown names.
    """
    for name in names:
        if name not in ROUTERS:
            raise InputError(f"unknown router {name!r}{did_you_mean(name, ROUTERS)} Known: {', '.join(ROUTERS)}.")
    forecast = scenario.forecast
    share = _most_share(scenario, requests_per_second)
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


def _most_share(scenario: Scenario, requests_per_second: float) -> FloatArray:
    """(M,): the share of the stream that each model can serve for long (slots / seconds a request / arrivals)."""
    seconds = np.where(scenario.eligible, scenario.seconds, np.nan)
    share = scenario.slots / np.nanmean(seconds, axis=0) / requests_per_second
    short = 1.0 - share.sum()
    if short > 0:  # overloaded: nobody's share adds up, so everybody's is stretched alike
        share = share / share.sum() * (1 + 1e-9)
    most: FloatArray = np.minimum(share, 1.0)
    return most
