"""The search of small batches against exhaustive search: whatever the prices, nothing is claimed that is not so."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.optimizer.dynamic_program import improve
from eccos_core.optimizer.linear_program import DualPrices, LinearProgram

SIDE_TOLERANCE = 1e-9  # what misses the floor or budget by less may count for the bound, as long as it is not returned

numbers = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))


@st.composite
def programs(draw: st.DrawFn) -> tuple[LinearProgram, DualPrices, list[np.ndarray]]:
    """A program with caps (and now and then a least share of one model), any prices, and all feasible assignments."""
    requests, models = draw(st.integers(1, 6)), draw(st.integers(2, 3))
    cells = requests * models
    objective, side = (
        np.array(draw(st.lists(numbers, min_size=cells, max_size=cells))).reshape(models, requests) for _ in range(2)
    )
    if draw(st.booleans()):
        side = -side  # a floor; else a budget
    allowed = np.array(draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).reshape(models, requests)
    allowed[0, ~allowed.any(axis=0)] = True
    capped = draw(st.integers(0, models))
    rows, limits = np.eye(models)[:capped], np.array([float(draw(st.integers(0, requests))) for _ in range(capped)])
    if draw(st.booleans()):
        rows = np.concatenate([rows, -np.eye(models)[-1:]])
        limits = np.concatenate([limits, [-float(draw(st.integers(0, 1)))]])
    mean = float(side.mean())
    limit = draw(st.floats(mean - 0.3, mean + 0.3)) * requests
    program = LinearProgram(objective, side, limit, None if allowed.all() else allowed, rows, limits)
    count_prices = np.array(draw(st.lists(st.floats(0, 0.5), min_size=len(limits), max_size=len(limits))))
    prices = DualPrices(draw(st.one_of(st.just(0.0), st.floats(0, 2))), count_prices)
    everything = (np.array(choice) for choice in itertools.product(range(models), repeat=requests))
    wider = replace(program, side_limit=limit + SIDE_TOLERANCE)
    return program, prices, [choice for choice in everything if wider.is_feasible(choice)]


@settings(max_examples=500, deadline=None)
@given(programs(), st.integers(0, 10_000), st.sampled_from([1, 2, 5, 1_000]))
def test_the_bound_is_never_above_the_optimum_and_with_room_for_all_states_it_is_the_optimum(
    drawn: tuple[LinearProgram, DualPrices, list[np.ndarray]], which: int, states: int
) -> None:
    program, prices, nearly_feasible = drawn
    feasible = [choice for choice in nearly_feasible if program.is_feasible(choice)]
    if not feasible:
        return
    start = feasible[which % len(feasible)]
    truth = min(program.objective_of(choice) for choice in feasible)
    found, bound = improve(program, prices, start, states)
    assert bound <= truth + 1e-12
    assert bound >= program.lagrangian_bound(prices) - 1e-12
    assert program.is_feasible(found)
    assert program.objective_of(found) <= program.objective_of(start)
    if states == 1_000 and min(program.objective_of(choice) for choice in nearly_feasible) == truth:
        assert program.objective_of(found) == pytest.approx(truth, abs=1e-9)
        assert bound == pytest.approx(truth, abs=1e-9)
