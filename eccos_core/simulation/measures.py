"""What is measured of one simulated stream, after its warm-up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError
from eccos_core.simulation.engine import StreamRun
from eccos_core.simulation.scenario import Scenario

PARTS = 40  # of the stream, for the means along it


@dataclass(frozen=True, slots=True)
class RunMeasures:
    """What one stream was worth after its warm-up. NaN where no request was answered.

    `quality` is the mean recorded quality, `forecast_quality` the mean forecast, both of answered requests.
    `unanswered` is the share of requests without an answer: the queue was full, or the deadline passed. Waiting is the
    time until a slot is free, latency ends with the answer.
    """

    requests: int
    quality: float
    forecast_quality: float
    usd_per_1000: float
    unanswered: float
    waiting_p50_s: float
    waiting_p95_s: float
    waiting_p99_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float


def count_warm_up(requests: int, share: float) -> int:
    """Return how many requests at the start are left out: this share of them, rounded down.

    Raises `InputError` for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"--warm-up is {share:g}, it must be a share of the stream from 0 to below 1, such as 0.1")
    return math.floor(share * requests)


def measure_run(scenario: Scenario, run: StreamRun, times_s: FloatArray, warm_up: int) -> RunMeasures:
    """Measure the requests after the first `warm_up`, which were served too and only do not count."""
    counted = np.arange(warm_up, scenario.requests)
    rows = counted[run.model[counted] >= 0]
    chosen = run.model[rows]
    waited = np.maximum(run.started_s[rows] - times_s[rows], 0.0)
    waiting = _percentiles(waited)
    latency = _percentiles(run.finished_s[rows] - times_s[rows])
    return RunMeasures(
        len(counted),
        _mean(scenario.quality[rows, chosen]),
        _mean(scenario.forecast.quality[rows, chosen]),
        1000 * _mean(scenario.cost_usd[rows, chosen]),
        1.0 - len(rows) / len(counted),
        *waiting,
        *latency,
    )


def quality_along(scenario: Scenario, run: StreamRun) -> FloatArray:
    """Return the mean forecast quality of each of 40 equal parts of the stream, NaN where nothing was answered."""
    served = run.model >= 0
    quality = scenario.forecast.quality[np.arange(scenario.requests), np.maximum(run.model, 0)]
    parts = np.array_split(np.where(served, quality, np.nan), min(PARTS, scenario.requests))
    return np.array([_mean(part[np.isfinite(part)]) for part in parts])


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _percentiles(values: FloatArray) -> tuple[float, float, float]:
    if not len(values):
        return math.nan, math.nan, math.nan
    low, high, most = np.percentile(values, (50, 95, 99))
    return float(low), float(high), float(most)
