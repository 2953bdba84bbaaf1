"""What queueing theory says of c servers, by which the simulation is checked.

Poisson arrivals, exponential service, and, in M/M/c+M, exponential patience (Palm 1957, Erlang-A).
"""

from __future__ import annotations

import numpy as np

from eccos_core.domain import FloatArray


def erlang_c(servers: int, arriving: float, serving: float) -> float:
    """Return the share of requests that wait in M/M/c, with `arriving` and `serving` (of one server) per second."""
    weights = mmc_states(servers, arriving, serving, 0.0, 20_000)
    return float(weights[servers:].sum())


def mmc_wait(servers: int, arriving: float, serving: float) -> float:
    """Return the mean seconds that a request waits in M/M/c."""
    return erlang_c(servers, arriving, serving) / (servers * serving - arriving)


def mmc_abandonment(servers: int, arriving: float, serving: float, leaving: float) -> float:
    """Return the share of requests that leave the queue of M/M/c+M, where each leaves after 1 / leaving s on average.

    Those who leave do so at the rate `leaving` times the mean number that waits.
    """
    weights = mmc_states(servers, arriving, serving, leaving, 20_000)
    waiting = np.maximum(np.arange(len(weights)) - servers, 0)
    return float(leaving * (waiting * weights).sum() / arriving)


def mmc_states(servers: int, arriving: float, serving: float, leaving: float, most: int) -> FloatArray:
    """Return how often 0, 1, 2 ... most requests are present (most + 1,): the balance of births and deaths."""
    present = np.arange(1, most + 1)
    ending = np.minimum(present, servers) * serving + np.maximum(present - servers, 0) * leaving
    logs = np.concatenate([[0.0], np.cumsum(np.log(arriving / ending))])
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)
