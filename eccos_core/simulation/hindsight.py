"""Compute what a stream's floor would have cost, had all requests been known: a linear programme.

Every promise is a set of ranges of requests, each with a least total quality. Of each request only the models on the
upper concave hull of cost and quality count. Going from one of them to the next buys quality at a rising price, so the
programme has one variable in [0, 1] for each such step. The running total of quality is a variable too, which keeps the
constraints sparse. Fractions of answers are allowed, so the cost is a lower bound.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import numpy as np

from eccos_core.domain import FloatArray, IntArray
from eccos_core.errors import InputError
from eccos_core.io.optional import needs_extra
from eccos_core.streaming import FloorTarget
from eccos_core.streaming.quality_account import START_REQUESTS


def compute_hindsight_cost(target: FloorTarget, quality: FloatArray, cost_usd: FloatArray) -> float:
    """Return the least cost in USD at which requests in this order keep the target's promise.

    quality, cost_usd (N, M): forecasts. An infinite cost closes a model. A mean over a horizon also reaches the floor,
    or the best attainable mean, at the horizon's end. Insurance costs nothing in hindsight.

    Raises `InputError` for a horizon in time, and `MissingDependencyError` without scipy.
    """
    best = np.concatenate([[0.0], np.cumsum(np.where(np.isfinite(cost_usd), quality, 0.0).max(axis=1))])
    find_ranges = _window_ranges if target.promise == "window" else _horizon_ranges
    first, last, allowed = find_ranges(target, len(quality))
    needed = np.minimum(target.alpha * (last - first), best[last] - best[first]) - allowed
    return _solve(quality, cost_usd, first, last, needed)


def _window_ranges(target: FloorTarget, requests: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Return where each window begins and ends, and the quality that it may miss."""
    first = np.arange(max(requests - target.window + 1, 0))
    return first, first + target.window, np.full(len(first), target.tolerance * target.window)


def _horizon_ranges(target: FloorTarget, requests: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the beginning of each horizon so far, each end of its running mean, and the quality that it may miss."""
    if isinstance(target.horizon, timedelta):
        raise InputError("a horizon in time needs the times of the requests; give a number of requests")
    last = np.arange(1, requests + 1)
    first = (last - 1) // target.horizon * target.horizon
    answers = last - first
    allowed = target.tolerance * answers
    allowed[(answers == target.horizon) | (last == requests)] = 0.0
    kept = (answers >= min(START_REQUESTS, target.horizon // 2)) | (allowed == 0.0)
    return first[kept], last[kept], allowed[kept]


def _solve(quality: FloatArray, cost_usd: FloatArray, first: IntArray, last: IntArray, needed: FloatArray) -> float:
    """Return the least cost at which requests first[k] ... last[k] - 1 have a total quality of needed[k] or more."""
    with needs_extra("exact", "the least cost in hindsight"):
        from scipy import sparse
        from scipy.optimize import linprog

    requests = len(quality)
    start = np.zeros((requests, 2))  # cost and quality of the cheapest model
    found: list[tuple[int, float, float]] = []
    for request in range(requests):
        hull = _hull(quality[request], cost_usd[request])
        start[request] = cost_usd[request, hull[0]], quality[request, hull[0]]
        for cheap, dear in pairwise(hull):
            gain = quality[request, dear] - quality[request, cheap]
            found.append((request, cost_usd[request, dear] - cost_usd[request, cheap], gain))
    rows, usd, gain = (np.array(column) for column in zip(*found, strict=True)) if found else (np.zeros(0),) * 3
    steps, ranges = len(usd), len(first)
    totals = sparse.diags_array([-np.ones(requests), np.ones(requests)], offsets=[0, 1], shape=(requests, requests + 1))
    gains = sparse.coo_array((-gain, (rows.astype(np.int64), np.arange(steps))), shape=(requests, steps))
    each = np.tile(np.arange(ranges), 2)
    signs = np.repeat([1.0, -1.0], ranges)
    limits = sparse.coo_array((signs, (each, steps + np.concatenate([first, last]))), (ranges, steps + requests + 1))
    cheapest = np.concatenate([[0.0], np.cumsum(start[:, 1])])
    scale = float(usd.mean()) if steps else 1.0
    solution = linprog(
        np.concatenate([usd / scale, np.zeros(requests + 1)]),
        A_ub=limits,
        b_ub=cheapest[last] - cheapest[first] - needed + 1e-9,  # (the best models may just reach what is needed)
        A_eq=sparse.hstack([gains, totals]),
        b_eq=np.zeros(requests),
        bounds=[(0.0, 1.0)] * steps + [(0.0, 0.0)] + [(0.0, None)] * requests,
        method="highs",
    )
    if solution.x is None:
        raise InputError(f"the linear programme has no solution: {solution.message}")
    return float(start[:, 0].sum() + solution.fun * scale)


def _hull(quality: FloatArray, cost_usd: FloatArray) -> list[int]:
    """Return the models on the upper concave hull of cost and quality, cheapest first."""
    hull: list[int] = []
    for model in np.lexsort((-quality, cost_usd)):
        if not np.isfinite(cost_usd[model]) or (hull and quality[model] <= quality[hull[-1]]):
            continue
        while len(hull) > 1 and not _bends(quality, cost_usd, hull[-2], hull[-1], model):
            hull.pop()
        hull.append(int(model))
    return hull


def _bends(quality: FloatArray, cost_usd: FloatArray, left: int, middle: int, right: int) -> bool:
    """Return whether quality per USD falls at the middle model."""
    gain, more = quality[middle] - quality[left], quality[right] - quality[middle]
    return bool(gain * (cost_usd[right] - cost_usd[middle]) > more * (cost_usd[middle] - cost_usd[left]))
