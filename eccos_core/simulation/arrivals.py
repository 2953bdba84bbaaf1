"""When requests arrive: Poisson, or in bursts."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError

BURST_FACTOR = 4.0  # arrivals in a burst, over the mean rate
BURST_SHARE = 0.15  # of the time; between bursts arrivals are rarer, so that the mean rate is the one asked for
BURST_REQUESTS = 60  # of a burst, on average


def poisson_arrivals(requests: int, per_second: float, seed: int) -> FloatArray:
    """(requests,) seconds: independent arrivals at `per_second` on average."""
    _check(per_second)
    return np.cumsum(np.random.default_rng(seed).exponential(1 / per_second, requests))


def bursty_arrivals(requests: int, per_second: float, seed: int) -> FloatArray:
    """(requests,) seconds: a Poisson process that switches between calm and bursts (Markov-modulated).

    Over a long time arrivals come at `per_second` on average; in a burst four times as fast.
    """
    _check(per_second)
    generator = np.random.default_rng(seed)
    fast = BURST_FACTOR * per_second
    slow = per_second * (1 - BURST_SHARE * BURST_FACTOR) / (1 - BURST_SHARE)
    burst_s = BURST_REQUESTS / fast
    calm_s = burst_s * (1 - BURST_SHARE) / BURST_SHARE
    times: list[FloatArray] = []
    start, found, bursting = 0.0, 0, False
    while found < requests:
        length = generator.exponential(burst_s if bursting else calm_s)
        count = generator.poisson((fast if bursting else slow) * length)
        times.append(start + np.sort(generator.uniform(0, length, count)))
        start, found, bursting = start + length, found + count, not bursting
    return np.concatenate(times)[:requests]


def _check(per_second: float) -> None:
    if not (np.isfinite(per_second) and per_second > 0):
        raise InputError(f"arrivals come at {per_second} requests per second, must be a finite number > 0")
