"""A pool whose local models have simulated engines: what the routers see, and what the engines do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eccos_core.domain import BoolArray, FloatArray, OutcomeTable
from eccos_core.errors import InputError
from eccos_core.roofline import LinearCost
from eccos_core.simulation import Scenario, Service, poisson_arrivals, scenario_of, simulate
from eccos_core.simulation.engine import run_stream
from eccos_core.simulation.pool_engine import EngineService
from eccos_core.simulation.scenario import Forecasts
from eccos_core.simulation.serving import EngineSettings, TrueLengths, scheduler_named
from eccos_core.simulation.serving.cluster import run_replicas

COST = LinearCost(0.01, 1e-4, 1e-3, 1e-7)
REQUESTS = 300


def settings(scheduler: str = "reserve", kv_tokens: int = 4000, **more: int) -> EngineSettings:
    return EngineSettings(COST, scheduler_named(scheduler), kv_tokens, **more)


def pool(*services: EngineService | Service, requests: int = REQUESTS, longest: int = 200) -> Scenario:
    generator = np.random.default_rng(5)
    names = tuple("abc"[: len(services)])
    shape = (requests, len(services))
    rows = tuple(map(str, range(requests)))
    table = OutcomeTable(
        rows,
        rows,
        names,
        (generator.random(shape) < np.linspace(0.5, 0.9, len(services))).astype(float),
        generator.integers(20, 400, shape).astype(float),
        generator.integers(1, longest, shape).astype(float),
    )
    forecasts = Forecasts(np.full(shape, 0.6), np.tile(np.arange(1.0, len(services) + 1), (requests, 1)))
    price = {name: (1e-6 * 10**at, 1e-6 * 10**at) for at, name in enumerate(names)}
    return scenario_of(table, price, forecasts, forecasts, dict(zip(names, services, strict=True)))


class First:
    """Takes the first open model, and keeps how full the models were."""

    def __init__(self) -> None:
        self.occupancy: list[float] = []

    def choose(self, request: int, open_models: BoolArray, occupancy: FloatArray) -> int | None:
        self.occupancy.append(float(occupancy[0]))
        return int(np.flatnonzero(open_models)[0])


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("scheduler", ["oracle", "preempt-newest"])
def test_a_pool_of_one_engine_is_that_engine(scheduler: str, replicas: int) -> None:
    """Where slots are plenty, the pool and the engine alone answer each request at the same moment."""
    one = pool(EngineService(settings(scheduler, 1500, replicas=replicas), slots=1000))
    times = poisson_arrivals(REQUESTS, 6.0, 1)
    run = run_stream(one, lambda _: First(), times, deadline_s=1e6)
    asked = replace(one.engines[0].workload, arrived_s=times)
    alone = run_replicas(asked, one.engines[0].settings, TrueLengths(asked.output_tokens))
    finished = {request: at for replica in alone for request, at in replica.finished_s.items()}
    assert run.finished_s == pytest.approx([finished[request] for request in range(REQUESTS)])
    (load,) = run.engines
    assert load.gpu_seconds == pytest.approx(sum(replica.counts.busy_s for replica in alone))
    assert load.preemptions == sum(replica.counts.preemptions for replica in alone)
    assert (load.answered, load.peak_kv_tokens <= 1500) == (REQUESTS, True)
    if scheduler == "preempt-newest":
        assert load.preemptions > 0


def test_a_full_engine_turns_the_router_to_the_next_model() -> None:
    """The engine takes as many requests as it has slots. A hosted model, which has its latency, takes the others."""
    one = pool(EngineService(settings(), slots=3), Service(50, 0.5, 60.0))
    router = First()
    result = simulate(one, "first", lambda _: router, poisson_arrivals(REQUESTS, 8.0, 2))
    assert result.answered == REQUESTS
    assert min(result.calls) > 20
    assert set(np.round(np.array(router.occupancy) * 3).tolist()) == {0, 1, 2, 3}
    assert result.engines[0].model == "a"
    assert result.engines[0].answered == result.calls[0]
    assert result.utilisation[0] <= 1.0


def test_the_slots_of_an_engine_are_what_its_caches_hold() -> None:
    one = pool(EngineService(settings(kv_tokens=4000, replicas=2)))
    asked = one.engines[0].workload
    held = int(4000 / float((asked.prompt_tokens + asked.output_tokens).mean()))
    assert one.slots.tolist() == [2 * held]
    assert pool(EngineService(settings(kv_tokens=10**6, max_batch=5))).slots.tolist() == [5]


def test_the_expected_seconds_are_those_of_a_busy_engine() -> None:
    """A saturated engine answers about as many requests a second as slots over the expected seconds promise."""
    one = pool(EngineService(settings("oracle", kv_tokens=10**6), slots=16), requests=1000)
    result = simulate(one, "first", lambda _: First(), np.linspace(0, 1, 1000), deadline_s=1e6, queue_length=10**6)
    promised = 16 / float(one.seconds.mean())
    assert 1000 / result.duration_s == pytest.approx(promised, rel=0.1)


def test_a_request_that_no_cache_has_room_for_goes_elsewhere_or_is_named() -> None:
    one = pool(EngineService(settings(kv_tokens=300)), Service())
    fits = one.engines[0].fits
    assert 0 < fits.sum() < REQUESTS
    assert one.eligible[:, 0].tolist() == fits.tolist()
    with pytest.raises(InputError, match=r"requests fit into no engine, .* Raise kv_tokens"):
        pool(EngineService(settings(kv_tokens=300)))


def test_limits_count_where_the_scheduler_reserves_them() -> None:
    engine = pool(EngineService(settings("fcfs", kv_tokens=450)), Service()).engines[0]
    other = pool(EngineService(settings("reserve", kv_tokens=450)), Service()).engines[0]
    assert engine.fits.sum() < other.fits.sum()


def test_an_engine_that_nobody_asks_did_nothing() -> None:
    one = pool(EngineService(settings()), Service(50))
    one.eligible[:, 0] = False
    (load,) = simulate(one, "first", lambda _: First(), poisson_arrivals(REQUESTS, 3.0, 1)).engines
    assert (load.answered, load.gpu_seconds) == (0, 0.0)
    assert load.first_token_median_s is None


def test_slots_below_one_are_refused() -> None:
    with pytest.raises(InputError, match="slots is 0"):
        EngineService(settings(), slots=0)
