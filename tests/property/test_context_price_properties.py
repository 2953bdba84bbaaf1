"""Laws of a price by context: it is a sum of lines, and a price that does not grow is a flat price."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.domain import ContextPrice, Model
from eccos_core.routing.pricing import cost_usd

USD = st.floats(0.0, 1e-3)
TOKENS = st.integers(1, 200_000)


@st.composite
def rising_prices(draw: st.DrawFn) -> ContextPrice:
    contexts = sorted(draw(st.sets(st.integers(1, 100_000), min_size=2, max_size=6)))
    sides = [tuple(np.cumsum(draw(st.lists(USD, min_size=len(contexts), max_size=len(contexts))))) for _ in range(2)]
    return ContextPrice(tuple(contexts), *sides)


@given(USD, USD, TOKENS, TOKENS)
def test_a_price_that_does_not_grow_is_a_flat_price(prompt: float, answer: float, read: int, written: int) -> None:
    flat = Model("m", prompt, answer)
    steady = Model("m", prompt, answer, context_price=ContextPrice((10, 1000), (prompt,) * 2, (answer,) * 2))
    assert float(steady.call_usd(read, written)) == pytest.approx(float(flat.call_usd(read, written)))


@given(rising_prices(), TOKENS, TOKENS, st.integers(0, 10_000))
def test_more_tokens_never_cost_less(price: ContextPrice, read: int, written: int, more: int) -> None:
    model = Model("m", 0.0, 0.0, context_price=price)
    usd = float(model.call_usd(read, written))
    assert usd >= 0
    assert float(model.call_usd(read + more, written)) >= usd * (1 - 1e-9)
    assert float(model.call_usd(read, written + more)) >= usd * (1 - 1e-9)


@given(rising_prices(), st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_the_matrix_of_costs_is_the_price_of_each_call(price: ContextPrice, calls: list[tuple[int, int]]) -> None:
    models = [Model("grows", 1.0, 1.0, context_price=price), Model("flat", 1e-6, 2e-6)]
    read, written = np.array(calls, dtype=float).T
    cost = cost_usd(models, read, np.column_stack([written, written]))
    for row, (taken, given_back) in enumerate(calls):
        for column, model in enumerate(models):
            assert cost[row, column] == pytest.approx(float(model.call_usd(taken, given_back)))
