"""The simulation counts what queueing theory says, and no router sees what really happens."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from stream_scenario import scenario

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError
from eccos_core.simulation import (
    Scenario,
    Service,
    StreamRouter,
    bursty_arrivals,
    poisson_arrivals,
    scenario_of,
    simulate,
    stream_routers_named,
)
from eccos_core.simulation.routers import ROUTERS
from eccos_core.simulation.scenario import Forecasts
from eccos_core.streaming import FloorTarget, RateTarget


def router(name: str, one: Scenario, rate: float, target: FloorTarget | RateTarget | None = None):  # type: ignore[no-untyped-def]
    return stream_routers_named([name], one, target or FloorTarget(0.6), rate)[name]


def test_arrivals_come_at_the_rate_asked_for() -> None:
    for draw in (poisson_arrivals, bursty_arrivals):
        times = draw(40_000, 5.0, 1)
        assert (np.diff(times) >= 0).all()
        assert 40_000 / times[-1] == pytest.approx(5.0, rel=0.08)


def test_bursts_are_burstier() -> None:
    def dispersion(times: np.ndarray) -> float:
        counts = np.bincount(times.astype(int))
        return float(counts.var() / counts.mean())

    assert dispersion(poisson_arrivals(20_000, 5.0, 1)) == pytest.approx(1.0, abs=0.15)
    assert dispersion(bursty_arrivals(20_000, 5.0, 1)) > 2.0


def test_one_server_waits_as_long_as_pollaczek_and_khinchine_say() -> None:
    """M/D/1 at load 0.7: the mean wait is rho / (2 (1 - rho)) service times."""
    one = scenario(30_000, slots=(1,), seconds=(1.0,))
    waits: list[float] = []

    class Watching:
        def choose(self, request: int, open_models: np.ndarray, occupancy: np.ndarray) -> int | None:
            return 0

    times = poisson_arrivals(30_000, 0.7, 3)
    result = simulate(one, "only", lambda _: Watching(), times, deadline_s=1e6, queue_length=10**6)
    finish = 0.0
    for time in times:  # Lindley's recursion, written down directly
        start = max(time, finish)
        waits.append(start - time)
        finish = start + 1.0
    assert result.answered == 30_000
    assert result.waiting_median_s == pytest.approx(float(np.median(waits)), abs=1e-6)
    assert result.waiting_p99_s == pytest.approx(float(np.percentile(waits, 99)), abs=1e-6)
    assert np.mean(waits) == pytest.approx(0.7 / (2 * 0.3), rel=0.1)
    assert result.utilisation[0] == pytest.approx(0.7, abs=0.02)


def test_deadlines_and_a_full_queue_are_counted_and_nothing_is_lost() -> None:
    one = scenario(2000, slots=(1, 1, 1))
    times = poisson_arrivals(2000, 10 * one.mean_rate(1.0), 2)
    short = simulate(one, "r", router("round_robin", one, 10.0), times, deadline_s=5.0, queue_length=10_000)
    assert short.missed > 1000
    assert short.refused == 0
    assert short.answered + short.missed == 2000
    assert short.waiting_p99_s <= 5.0
    full = simulate(one, "r", router("round_robin", one, 10.0), times, deadline_s=5.0, queue_length=3)
    assert full.refused > 1000
    assert full.answered + full.missed + full.refused == 2000


def test_who_waits_is_served_in_the_order_of_arrival() -> None:
    one = scenario(300, slots=(2, 2, 2))
    served: list[int] = []

    class Watching:
        def choose(self, request: int, open_models: np.ndarray, occupancy: np.ndarray) -> int | None:
            served.append(request)
            return int(np.flatnonzero(open_models)[0])

    simulate(one, "w", lambda _: Watching(), np.linspace(0, 1, 300), deadline_s=1e6)
    assert served == list(range(300))


def test_a_request_that_cannot_use_the_free_slot_keeps_its_place_without_blocking_others() -> None:
    one = scenario(3, slots=(1, 1), seconds=(10.0, 1.0))
    one.eligible[:] = [[True, False], [True, False], [False, True]]
    result = simulate(one, "r", router("cheapest_first", one, 1.0), np.array([0.0, 0.1, 0.2]), deadline_s=100.0)
    assert result.answered == 3
    assert result.calls == (2, 1)
    assert result.waiting_p99_s == pytest.approx(9.9, rel=0.03)
    assert result.waiting_median_s == 0.0


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_answers_everything_when_there_is_room(name: str) -> None:
    one = scenario(1500)
    rate = one.mean_rate(0.3)
    result = simulate(one, name, router(name, one, rate), poisson_arrivals(1500, rate, 1))
    assert result.answered == 1500
    assert sum(result.calls) == 1500
    assert 0 < result.quality < 1
    assert max(result.utilisation) <= 1.0


def test_baselines_do_what_their_names_say() -> None:
    one = scenario(1200, slots=(1200, 1200, 1200))
    times = poisson_arrivals(1200, 10.0, 1)
    results = {name: simulate(one, name, router(name, one, 10.0), times) for name in ROUTERS}
    assert results["round_robin"].calls == (400, 400, 400)
    assert results["cheapest_first"].calls == (1200, 0, 0)
    assert results["best_first"].forecast_quality == pytest.approx(one.forecast.quality.max(axis=1).mean())
    assert results["greedy"].cost_usd < results["best_first"].cost_usd
    assert results["greedy"].forecast_quality >= 0.6


def test_eccos_keeps_the_floor_for_less_than_greedy_when_slots_are_short() -> None:
    one = scenario(4000, slots=(12, 12, 12))
    rate = one.mean_rate(0.5)
    times = poisson_arrivals(4000, rate, 1)
    mine = simulate(one, "eccos", router("eccos", one, rate, FloorTarget(0.62)), times)
    greedy = simulate(one, "greedy", router("greedy", one, rate, FloorTarget(0.62)), times)
    assert mine.forecast_quality >= 0.61
    assert mine.cost_usd < 0.8 * greedy.cost_usd


def test_an_hourly_budget_is_kept_in_simulated_time() -> None:
    one = scenario(3000)
    rate = one.mean_rate(0.3)
    hourly = 3600 * rate * 0.01
    target = RateTarget(hourly, "hour")
    result = simulate(one, "eccos", router("eccos", one, rate, target), poisson_arrivals(3000, rate, 1), deadline_s=600)
    hours = result.duration_s / 3600
    assert result.cost_usd <= hourly * (hours + 0.01 * max(hours, 1.0)) * 1.001
    assert result.answered > 2500


def table(output_tokens: float) -> OutcomeTable:
    rows = ("one", "two")
    return OutcomeTable(
        rows,
        rows,
        ("a", "b"),
        np.array([[1.0, math.nan], [0.0, 1.0]]),
        np.full((2, 2), 100.0),
        np.array([[output_tokens, math.nan], [output_tokens, 2 * output_tokens]]),
    )


def test_service_times_are_proportional_to_tokens_and_unrecorded_answers_are_not_eligible() -> None:
    forecasts = Forecasts(np.full((2, 2), 0.5), np.ones((2, 2)))
    made = scenario_of(table(60.0), {"a": (0.0, 1.0), "b": (1.0, 0.0)}, forecasts, forecasts, Service(4, 0.5, 30.0))
    assert made.seconds[1].tolist() == [2.5, 4.5]
    assert made.eligible.tolist() == [[True, False], [True, True]]
    assert made.cost_usd[1].tolist() == [60.0, 100.0]


def test_outcomes_without_output_tokens_cannot_be_simulated() -> None:
    forecasts = Forecasts(np.full((2, 2), 0.5), np.ones((2, 2)))
    with pytest.raises(InputError, match="no output tokens"):
        scenario_of(table(math.nan), {"a": (0.0, 1.0), "b": (1.0, 0.0)}, forecasts, forecasts, Service())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Service(slots=0), "slots is 0"),
        (lambda: Service(tokens_per_s=0), "tokens_per_s is"),
        (lambda: poisson_arrivals(3, 0.0, 1), "must be a finite number > 0"),
        (lambda: router("gredy", scenario(5), 1.0), "did you mean 'greedy'"),
        (lambda: simulate(scenario(5), "x", router("greedy", scenario(5), 1.0), np.zeros(4)), "4 arrival times for 5"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_routers_follow_their_protocol() -> None:
    one = scenario(10)
    for make in stream_routers_named(ROUTERS, one, FloorTarget(0.5), 1.0).values():
        made: StreamRouter = make(lambda: 0.0)
        assert made.choose(0, np.array([False, True, False]), np.zeros(3)) == 1
