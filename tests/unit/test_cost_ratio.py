"""Bills correct the forecast cost of a model, and of models that were never called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.learning.cost_ratio import CostRatios


def pay(ratios: CostRatios, model: str, forecast: float, paid: float, calls: int) -> None:
    for number in range(calls):
        ratios.expect(f"{model}{number}", model, forecast * ratios.of([model])[0])
        ratios.observe(f"{model}{number}", model, paid)


def test_ten_bills_tell_that_answers_are_short() -> None:
    ratios = CostRatios()
    assert ratios.of(["a", "b"]).tolist() == [1.0, 1.0]
    pay(ratios, "a", 1e-4, 1e-5, 10)
    assert ratios.of(["a"])[0] < 0.25
    pay(ratios, "a", 1e-4, 1e-5, 200)
    assert ratios.of(["a"])[0] == pytest.approx(0.1, rel=0.05)


def test_a_model_without_bills_follows_the_pool() -> None:
    ratios = CostRatios()
    pay(ratios, "a", 1e-4, 1e-5, 100)
    assert ratios.of(["never called"])[0] == pytest.approx(0.1, rel=0.5)
    pay(ratios, "b", 1e-4, 5e-4, 100)
    assert ratios.of(["b"])[0] == pytest.approx(5.0, rel=0.1)


def test_the_bill_of_a_fallback_or_of_nobody_tells_nothing() -> None:
    ratios = CostRatios()
    ratios.expect("one", "a", 1e-4)
    ratios.observe("one", "b", 1.0)
    ratios.observe("unknown", "a", 1.0)
    ratios.expect("free", "a", 0.0)
    ratios.observe("free", "a", 1.0)
    assert ratios.of(["a", "b"]).tolist() == [1.0, 1.0]


def test_old_bills_fade() -> None:
    ratios = CostRatios()
    pay(ratios, "a", 1e-4, 1e-3, 2000)
    pay(ratios, "a", 1e-4, 1e-4, 2000)
    assert ratios.of(["a"])[0] < 1.5


@given(st.lists(st.tuples(st.floats(1e-9, 1e3), st.floats(0, 1e3)), min_size=1, max_size=30))
def test_a_ratio_is_always_a_positive_number(bills: list[tuple[float, float]]) -> None:
    ratios = CostRatios()
    for number, (forecast, paid) in enumerate(bills):
        ratios.expect(str(number), "a", forecast)
        ratios.observe(str(number), "a", paid)
    assert 0 < ratios.of(["a"])[0] < float("inf")
