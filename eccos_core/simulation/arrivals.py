"""Draw arrival times: a Poisson process, or bursts."""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray
from eccos_core.errors import InputError

BURST_FACTOR = 4.0  # the rate in a burst over the mean rate
BURST_SHARE = 0.15  # of the time; the rate between bursts is lower, so that the mean rate is kept
BURST_REQUESTS = 60  # in one burst, on average


def poisson_arrivals(requests: int, per_second: float, seed: int) -> FloatArray:
    """Draw arrival times in seconds, (requests,), of a Poisson process with the rate `per_second`."""
    _check_rate(per_second)
    return np.cumsum(np.random.default_rng(seed).exponential(1 / per_second, requests))


def bursty_arrivals(requests: int, per_second: float, seed: int) -> FloatArray:
    """Draw arrival times in seconds, (requests,), of a Markov-modulated Poisson process that switches to bursts.

    The mean rate over a long time is `per_second`. In a burst it is four times as high.
    """
    _check_rate(per_second)
    generator = np.random.default_rng(seed)
    burst_rate = BURST_FACTOR * per_second
    calm_rate = per_second * (1 - BURST_SHARE * BURST_FACTOR) / (1 - BURST_SHARE)
    burst_s = BURST_REQUESTS / burst_rate
    calm_s = burst_s * (1 - BURST_SHARE) / BURST_SHARE
    times: list[FloatArray] = []
    start, drawn, bursting = 0.0, 0, False
    while drawn < requests:
        length = generator.exponential(burst_s if bursting else calm_s)
        count = generator.poisson((burst_rate if bursting else calm_rate) * length)
        times.append(start + np.sort(generator.uniform(0, length, count)))
        start, drawn, bursting = start + length, drawn + count, not bursting
    return np.concatenate(times)[:requests]


def _check_rate(per_second: float) -> None:
    if not (np.isfinite(per_second) and per_second > 0):
        raise InputError(f"arrivals come at {per_second} requests per second, must be a finite number > 0")
