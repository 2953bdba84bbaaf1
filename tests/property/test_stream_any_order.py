"""Against any order whatever: a stream that assumes the worst keeps every window, and one that is told how bad it gets
keeps every window as long as that is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.streaming import FloorTarget, InitialPrices, StreamController

ROUNDING = 1e-7


@st.composite
def streams(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """quality (N, 3) in blocks of like requests that follow each other abruptly, and which models are open (N, 3)."""
    rows, masks = [], []
    for _ in range(draw(st.integers(1, 6))):
        level = draw(st.lists(st.floats(0, 1), min_size=3, max_size=3))
        spread = draw(st.sampled_from([0.0, 0.05, 0.3]))
        mask = draw(st.lists(st.booleans(), min_size=3, max_size=3).filter(any))
        length = draw(st.integers(1, 40))
        generator = np.random.default_rng(draw(st.integers(0, 1_000)))
        rows.append(np.clip(level + spread * generator.normal(size=(length, 3)), 0, 1))
        masks.append(np.tile(mask, (length, 1)))
    return np.concatenate(rows), np.concatenate(masks)


def insured(alpha: float, window: int, tolerance: float, floor_insurance: float) -> FloorTarget:
    return FloorTarget(alpha, "window", window=window, tolerance=tolerance, floor_insurance=floor_insurance)


def shortfalls(target: FloorTarget, quality: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every window, and of the running mean from the first full window on: by how much it lies under the floor (or
    under the best attainable, where that is less) less the tolerance."""
    controller = StreamController(target, InitialPrices(0.0))  # (the price asks for the cheapest: the guard is alone)
    cost = np.array([1.0, 2.0, 4.0])
    chosen = np.array([controller.decide(row, cost, mask).quality for row, mask in zip(quality, masks, strict=True)])
    best = np.where(masks, quality, 0.0).max(axis=1)
    window = target.window
    means, bests = (
        np.convolve(values, np.ones(window) / window, "valid") if len(values) >= window else np.zeros(0)
        for values in (chosen, best)
    )
    count = np.arange(1, len(chosen) + 1)
    running, running_best = (np.cumsum(values) / count for values in (chosen, best))
    wanted, running_wanted = np.minimum(target.alpha, bests), np.minimum(target.alpha, running_best)
    return wanted - target.tolerance - means, (running_wanted - target.tolerance - running)[window - 1 :]


@settings(max_examples=300, deadline=None)
@given(streams(), st.sampled_from([2, 5, 20, 37]), st.floats(0, 1), st.sampled_from([0.01, 0.05]))
def test_whatever_comes_no_window_is_under_the_floor_where_it_is_attainable(
    stream: tuple[np.ndarray, np.ndarray], window: int, alpha: float, tolerance: float
) -> None:
    for short in shortfalls(insured(alpha, window, tolerance, 0.0), *stream):
        assert short.max(initial=-1.0) <= ROUNDING


@settings(max_examples=300, deadline=None)
@given(streams(), st.sampled_from([2, 5, 20, 37]), st.floats(0, 1))
def test_as_long_as_nothing_worse_comes_than_was_assumed_no_window_is_under_the_floor(
    stream: tuple[np.ndarray, np.ndarray], window: int, alpha: float
) -> None:
    quality, masks = stream
    worst = float(np.where(masks, quality, 0.0).max(axis=1).min())
    for short in shortfalls(insured(alpha, window, 0.02, worst), quality, masks):
        assert short.max(initial=-1.0) <= ROUNDING


@pytest.mark.parametrize("easy", [31, 301])
def test_the_run_is_guarded_where_its_windows_would_allow_more(easy: int) -> None:
    """Of ten easy requests in a row one may be given away as far as windows go; over the run, one too many then is."""
    quality = np.concatenate([np.tile([0.0, 0.0, 1.0], (easy, 1)), np.zeros((easy, 3))])
    for short in shortfalls(insured(0.5, 20, 0.05, 0.0), quality, np.ones(quality.shape, dtype=bool)):
        assert short.max() <= ROUNDING
