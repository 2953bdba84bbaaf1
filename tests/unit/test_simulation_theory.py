"""The simulation against queueing theory, and reservation by forecast against the oracle. `make bench` has more."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eccos_core.domain import FloatArray
from eccos_core.roofline import ARCHITECTURES, GPUS, RooflineCost
from eccos_core.simulation import Scenario, poisson_arrivals
from eccos_core.simulation.engine import StreamRun, run_stream
from eccos_core.simulation.routers import RoundRobin
from eccos_core.simulation.scenario import Forecasts
from eccos_core.simulation.serving import (
    SCHEDULERS,
    EngineSettings,
    ServingWorkload,
    simulate_engine,
    split_to_learn,
)
from tools.queueing import erlang_c, mmc_abandonment, mmc_wait

REQUESTS = 12_000


def queue(servers: int, arriving: float, leaving: float | None = None) -> tuple[StreamRun, FloatArray]:
    generator = np.random.default_rng(7)
    one = np.ones((REQUESTS, 1))
    forecasts = Forecasts(one, one)
    seconds = generator.exponential(1.0, (REQUESTS, 1))
    scenario = Scenario(("s",), one, one, seconds, one > 0, np.array([servers]), forecasts, forecasts)
    patience = 1e9 if leaving is None else generator.exponential(1 / leaving, REQUESTS)
    times = poisson_arrivals(REQUESTS, arriving, 11)
    return run_stream(scenario, lambda _: RoundRobin(1), times, deadline_s=patience, queue_length=REQUESTS), times


def test_the_formulas_are_those_of_the_textbook() -> None:
    """M/M/1: the wait is rho / (mu - lambda). Erlang C of 2 servers at 1.5: 9/14. The impatient leave the rest."""
    assert mmc_wait(1, 0.7, 1.0) == pytest.approx(0.7 / 0.3)
    assert erlang_c(2, 1.5, 1.0) == pytest.approx(9 / 14)
    assert mmc_abandonment(50, 100.0, 1.0, 1.0) == pytest.approx(0.5, abs=1e-3)


def test_four_servers_wait_as_erlang_says_and_littles_law_holds() -> None:
    run, times = queue(4, 2.8)
    assert float((run.started_s - times).mean()) == pytest.approx(mmc_wait(4, 2.8, 1.0), rel=0.1)
    assert float((run.started_s > times + 1e-9).mean()) == pytest.approx(erlang_c(4, 2.8, 1.0), rel=0.05)
    present = np.arange(REQUESTS) - np.searchsorted(np.sort(run.finished_s), times)  # what each arrival finds
    rate = REQUESTS / float(times[-1])
    assert float(present.mean()) == pytest.approx(rate * float((run.finished_s - times).mean()), rel=0.03)


def test_impatient_requests_leave_as_often_as_theory_says() -> None:
    run, _ = queue(4, 4.8, leaving=0.5)
    assert run.missed / REQUESTS == pytest.approx(mmc_abandonment(4, 4.8, 1.0, 0.5), rel=0.04)


def test_reservation_by_forecast_takes_at_most_five_per_cent_more_than_the_oracle() -> None:
    """Drawn as the Azure traces look: prompts and answers of log-normal lengths, and longer prompts, longer answers."""
    generator = np.random.default_rng(2)
    count = 900
    prompts = np.clip(np.exp(generator.normal(6.5, 0.8, count)), 10, 4000).astype(np.int64)
    outputs = np.clip(np.exp(generator.normal(4.0, 0.7, count)) * (prompts / 600) ** 0.3, 1, 800).astype(np.int64)
    workload = ServingWorkload(np.zeros(count), prompts, outputs, np.full(count, 800))
    lengths, rest = split_to_learn(workload, 0.3)
    cost = RooflineCost(GPUS["a100"], ARCHITECTURES["llama-2-7b"])
    found = {
        name: simulate_engine(rest, EngineSettings(cost, SCHEDULERS[name], 15_000), lengths).gpu_seconds
        for name in ("oracle", "reserve", "fcfs")
    }
    assert found["reserve"] <= 1.05 * found["oracle"] < found["fcfs"]
    assert math.isfinite(found["fcfs"])
