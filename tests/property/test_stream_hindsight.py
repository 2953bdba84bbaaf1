"""The running mean of a horizon keeps its floor in any order, and no stream beats the cost in hindsight."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eccos_core.simulation import compute_hindsight_cost
from eccos_core.streaming import FloorTarget, InitialPrices, StreamController

ROUNDING = 1e-7


@st.composite
def streams(draw: st.DrawFn, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """quality, cost_usd (N, 3), in blocks of like requests. Dearer models need not be better."""
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        level = draw(st.lists(st.floats(0, 1), min_size=3, max_size=3))
        generator = np.random.default_rng(draw(st.integers(0, 1_000)))
        rows.append(np.clip(level + 0.1 * generator.normal(size=(draw(st.integers(1, longest // 4)), 3)), 0, 1))
    quality = np.concatenate(rows)
    generator = np.random.default_rng(draw(st.integers(0, 1_000)))
    return quality, np.array([1.0, 2.0, 4.0]) * np.exp(generator.normal(0, 0.5, (len(quality), 1)))


def keeps(target: FloorTarget, chosen: np.ndarray, best: np.ndarray) -> bool:
    """Whether these qualities keep the promise, as its docstring says."""
    if target.promise == "window":
        spans = [(first, first + target.window) for first in range(len(chosen) - target.window + 1)]
        allowed = dict.fromkeys(spans, target.tolerance)
    else:
        spans = [(last // target.horizon * target.horizon, last + 1) for last in range(len(chosen))]
        ends = {(a, b) for a, b in spans if b - a == target.horizon or b == len(chosen)}
        spans = [(a, b) for a, b in spans if b - a >= target.horizon // 2 or (a, b) in ends]
        allowed = {span: 0.0 if span in ends else target.tolerance for span in spans}
    return all(chosen[a:b].mean() >= min(target.alpha, best[a:b].mean()) - allowed[a, b] - ROUNDING for a, b in spans)


@settings(max_examples=60, deadline=None)
@given(streams(longest=8), st.floats(0, 1), st.sampled_from(["mean", "window"]))
def test_no_assignment_that_keeps_the_promise_is_cheaper_than_hindsight(
    stream: tuple[np.ndarray, np.ndarray], alpha: float, promise: str
) -> None:
    quality, cost = stream
    assume(len(quality) <= 6)
    target = FloorTarget(alpha, promise, horizon=4, window=3, tolerance=0.05)  # type: ignore[arg-type]
    rows, best = np.arange(len(quality)), quality.max(axis=1)
    every = [np.array(models) for models in product(range(3), repeat=len(quality))]
    cheapest = min(cost[rows, models].sum() for models in every if keeps(target, quality[rows, models], best))
    found = compute_hindsight_cost(target, quality, cost)
    assert cost.min(axis=1).sum() - ROUNDING <= found <= cheapest * (1 + 1e-6)


@settings(max_examples=100, deadline=None)
@given(streams(longest=160), st.floats(0, 1), st.integers(2, 90), st.sampled_from([0.005, 0.05]))
def test_in_any_order_the_running_mean_keeps_a_floor_that_every_best_model_reaches(
    stream: tuple[np.ndarray, np.ndarray], share: float, horizon: int, tolerance: float
) -> None:
    quality, cost = stream
    target = FloorTarget(share * float(quality.max(axis=1).min()), horizon=horizon, tolerance=tolerance)
    controller = StreamController(target, InitialPrices(0.0))
    everybody = np.ones(3, dtype=bool)
    choices = [controller.decide(q, c, everybody) for q, c in zip(quality, cost, strict=True)]
    for first in range(0, len(choices), horizon):
        chosen = np.array([choice.quality for choice in choices[first : first + horizon]])
        running = np.cumsum(chosen) / np.arange(1, len(chosen) + 1)
        assert (running >= target.alpha - tolerance - ROUNDING)[max(horizon // 2 - 1, 0) :].all()
    assert all(choice.floor_met for choice in choices)
