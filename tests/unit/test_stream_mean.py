"""A stream keeps its floor as a mean over a horizon, at about what that costs in hindsight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from eccos_core.errors import InputError
from eccos_core.optimizer import DualOptimizer
from eccos_core.simulation import compute_hindsight_cost
from eccos_core.streaming import FloorTarget, InitialPrices, StreamController, fit_initial_prices
from eccos_core.streaming.quality_account import HorizonAccount, WindowAccount

MODELS = ("small", "medium", "large", "huge")
USD = np.array([0.0001, 0.001, 0.006, 0.03])
SKILL = np.array([0.2, 0.9, 1.8, 2.4])
FLOOR = 0.75
EVERYBODY = np.ones(4, dtype=bool)
Order = Callable[[np.ndarray], np.ndarray]


def draw(requests: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """quality, cost_usd (N, 4): the dearer the better, requests from easy to hard."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(0.3, 1.2, (requests, 1))
    quality = 1 / (1 + np.exp(difficulty - SKILL + generator.normal(0, 0.4, (requests, 4))))
    return quality, USD * np.exp(generator.normal(0, 0.5, (requests, 1)))


def controller(target: FloorTarget) -> StreamController:
    prices = fit_initial_prices(*draw(4000, 99), target, DualOptimizer(), models=MODELS)
    return StreamController(target, replace(prices, slots=None))  # (a pool without caps)


def decide_all(stream: StreamController, quality: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """The model of each request, (N,)."""
    return np.array([stream.decide(q, c, EVERYBODY).model for q, c in zip(quality, cost, strict=True)])


def by(hardness: Callable[[np.ndarray], np.ndarray]) -> Order:
    """An order with the k-th hardest request at the place with the k-th greatest hardness."""

    def order(quality: np.ndarray) -> np.ndarray:
        place, result = np.arange(len(quality)), np.empty(len(quality), dtype=np.int64)
        noise = np.random.default_rng(1).normal(0, 1e-3, len(quality))
        result[np.argsort(-(hardness(place) + noise))] = np.argsort(quality.max(axis=1))
        return result

    return order


ORDERS: dict[str, Order] = {
    "as they come": lambda quality: np.arange(len(quality)),
    "easy to hard": by(lambda place: place / 100),
    "hard to easy": by(lambda place: -place / 100),
    "an easy block, then a hard one": by(lambda place: (place >= 2000) * 1.0),
    "a hard block, then an easy one": by(lambda place: (place < 2000) * 1.0),
    "stretches of 60": by(lambda place: place // 60 % 2),
    "stretches of 125": by(lambda place: place // 125 % 2),
    "stretches of 250": by(lambda place: place // 250 % 2),
    "60 hard ones in 500": by(lambda place: place % 500 >= 440),
    "day and night": by(lambda place: -np.sin(2 * np.pi * place / 1000)),
    "slow drift": by(lambda place: place / 4000 + 0.3 * np.random.default_rng(2).normal(size=len(place))),
}


@pytest.mark.parametrize("order", list(ORDERS))
def test_the_running_mean_keeps_the_floor_at_up_to_1_3_times_the_cost_in_hindsight(order: str) -> None:
    quality, cost = draw(4000, 5)
    rows = ORDERS[order](quality)
    quality, cost = quality[rows], cost[rows]
    target = FloorTarget(FLOOR)
    models, place = decide_all(controller(target), quality, cost), np.arange(4000)
    running, best = (np.cumsum(values) / (place + 1) for values in (quality[place, models], quality.max(axis=1)))
    assert (running >= np.minimum(FLOOR, best) - 0.006)[999:].all()
    assert cost[place, models].sum() <= 1.3 * compute_hindsight_cost(target, quality, cost)


@pytest.mark.parametrize("order", [name for name in ORDERS if name.startswith(("stretches", "60", "as they"))])
def test_short_stretches_cost_windows_no_more_than_1_6_times_hindsight(order: str) -> None:
    quality, cost = draw(4000, 5)
    rows = ORDERS[order](quality)
    quality, cost = quality[rows], cost[rows]
    target = FloorTarget(FLOOR, "window")
    models = decide_all(controller(target), quality, cost)
    windows = np.convolve(quality[np.arange(4000), models], np.ones(500) / 500, "valid")
    assert windows.min() >= FLOOR - target.tolerance - 0.003
    assert cost[np.arange(4000), models].sum() <= 1.6 * compute_hindsight_cost(target, quality, cost)


CHANGES = {
    "all five times as dear": np.full(4, 5.0),
    "all a fifth": np.full(4, 0.2),
    "the dearest a tenth": np.array([1.0, 1.0, 1.0, 0.1]),
    "the second ten times as dear": np.array([1.0, 10.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_of_prices_is_followed_within_100_requests(change: str) -> None:
    quality, cost = draw(3200, 5)
    cost[2000:] *= CHANGES[change]
    models = decide_all(controller(FloorTarget(FLOOR)), quality, cost)
    after = np.arange(2100, 3200)
    assert quality[after, models[after]].mean() >= FLOOR - 0.01
    hindsight = compute_hindsight_cost(FloorTarget(FLOOR), quality[after], cost[after])
    assert cost[after, models[after]].sum() <= 1.3 * hindsight


def test_an_unchanged_price_is_not_found_again() -> None:
    """Only a change of one model's cost against the others' solves the sample of training requests again."""
    stream = controller(FloorTarget(FLOOR))
    quality, cost = draw(600, 5)
    before = stream._price._base  # type: ignore[union-attr]
    decide_all(stream, quality[:300], cost[:300])
    decide_all(stream, quality[300:], 5 * cost[300:])
    assert stream._price._base == before  # type: ignore[union-attr]
    decide_all(stream, quality[:100], cost[:100] * CHANGES["the dearest a tenth"])
    assert stream._price._base != before  # type: ignore[union-attr]


def test_a_stream_without_history_keeps_its_floor() -> None:
    quality, cost = draw(3000, 5)
    models = decide_all(StreamController(FloorTarget(FLOOR), InitialPrices(0.0)), quality, cost)
    running = np.cumsum(quality[np.arange(3000), models]) / np.arange(1, 3001)
    assert (running >= FLOOR - 0.0055)[999:].all()
    assert cost[np.arange(3000), models].sum() < 0.5 * cost[:, 3].sum()


def test_free_models_have_prices_too() -> None:
    quality, cost = draw(1500, 5)
    cost[:, 0] = 0.0
    prices = fit_initial_prices(quality, cost, FloorTarget(FLOOR), DualOptimizer(), models=MODELS)
    models = decide_all(StreamController(FloorTarget(FLOOR), prices), quality, cost)
    assert quality[np.arange(1500), models].mean() >= FLOOR - 0.005


def test_neither_surplus_nor_debt_outlives_a_horizon() -> None:
    account = HorizonAccount(FloorTarget(0.5, horizon=100, tolerance=0.01))
    for _ in range(100):
        account.need(0.9)
        account.add(0.9, 0.9)
    assert account.need(0.9).quality == pytest.approx(
        0.5 - 0.9 * 50 * 0.01
    )  # half a horizon's allowance, and no surplus
    for _ in range(100):
        account.need(0.2)
        account.add(0.2, 0.2)
    assert "not attainable: over the first 100 requests the best open models average 0.2000" in account.unmet()
    account.need(0.9)
    assert account.unmet() == ""
    assert account.running_mean == pytest.approx(0.55)


def test_a_horizon_in_time_ends_by_the_clock() -> None:
    account = HorizonAccount(FloorTarget(0.5, horizon=timedelta(days=1)), now_s=10.0)
    for _ in range(2000):
        account.need(0.9, now_s=86_409.0)
        account.add(0.9, 0.9)
    assert account.need(0.9, now_s=86_409.0).quality < -700
    assert account.need(0.9, now_s=86_410.0).quality == pytest.approx(0.5 - 0.9 * 5.0)


def test_the_allowance_grows_with_the_horizon_from_its_first_1000_requests() -> None:
    account = HorizonAccount(FloorTarget(0.5))
    assert account.need(0.9).quality == pytest.approx(0.5 - 0.9 * 5.0)
    for _ in range(3999):
        account.add(0.5, 0.9)
    assert account.need(0.9).quality == pytest.approx(0.5 - 0.9 * 20.0)
    for _ in range(50):
        account.add(0.0, 0.9)
    assert account.unmet().startswith("the floor 0.5 was missed: over the first 4049 requests")


def test_while_the_floor_is_not_attainable_the_best_models_are_followed() -> None:
    for account in (HorizonAccount(FloorTarget(0.9)), WindowAccount(FloorTarget(0.9, "window", window=2000))):
        for _ in range(1500):
            account.add(0.4, 0.4)
        required = account.need(0.6)
        assert required.quality < 0.6
        assert 0 < required.slack <= 1
        for _ in range(40):
            account.add(0.2, 0.6)  # 16 units lost, more than is allowed
        assert account.need(0.6).quality == 0.6
        assert account.need(0.6).slack < 0


def test_a_new_controller_continues_the_horizon_of_the_old_one() -> None:
    old = controller(FloorTarget(FLOOR))
    quality, cost = draw(1200, 5)
    decide_all(old, quality, cost)
    new = controller(FloorTarget(FLOOR))
    new.take_over(old)
    assert old.quality is new.quality
    decide_all(new, quality[:10], cost[:10])
    assert old.quality is not None
    assert old.quality.count == 1210


def test_a_horizon_in_time_has_no_cost_in_hindsight() -> None:
    quality, cost = draw(10, 5)
    with pytest.raises(InputError, match="a horizon in time needs the times of the requests; give a number"):
        compute_hindsight_cost(FloorTarget(0.5, horizon=timedelta(days=1)), quality, cost)
