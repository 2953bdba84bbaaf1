"""Which model another price of quality would have chosen, against trying every price."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from eccos_core.server.ui.counterfactual import PriceRange, best_by_price, choose_at

FORECASTS = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(st.floats(0, 1, width=16), st.floats(0, 8, width=16)), min_size=1
)


@given(FORECASTS, st.lists(st.floats(0, 1e4), min_size=1))
def test_at_each_price_the_chosen_model_is_the_best_one(
    forecast: dict[str, tuple[float, float]], prices: list[float]
) -> None:
    ranges = best_by_price(forecast)
    for price in prices:
        chosen = choose_at(ranges, price)
        assert chosen is not None
        worth = {name: cost - price * quality for name, (quality, cost) in forecast.items()}
        assert worth[chosen] <= min(worth.values()) + 1e-9 * max(1.0, price)


@given(FORECASTS)
def test_the_ranges_follow_each_other_from_zero_without_a_gap(forecast: dict[str, tuple[float, float]]) -> None:
    ranges = best_by_price(forecast)
    assert ranges[0].from_usd_per_quality == 0
    assert ranges[-1].to_usd_per_quality is None
    for before, after in itertools.pairwise(ranges):
        assert before.to_usd_per_quality == after.from_usd_per_quality
        assert forecast[before.model][0] < forecast[after.model][0]
        assert forecast[before.model][1] <= forecast[after.model][1]
    assert len({each.model for each in ranges}) == len(ranges)


def test_models_that_might_not_answer_are_left_out() -> None:
    forecast = {"small": (0.5, 1.0), "middle": (0.7, 2.0), "large": (0.9, 11.0)}
    assert best_by_price(forecast) == (
        PriceRange("small", 0.0, 1.0 / (0.7 - 0.5)),
        PriceRange("middle", 1.0 / (0.7 - 0.5), 9.0 / (0.9 - 0.7)),
        PriceRange("large", 9.0 / (0.9 - 0.7), None),
    )
    assert [each.model for each in best_by_price(forecast, ["middle"])] == ["small", "large"]
    assert best_by_price(forecast, list(forecast)) == ()
    assert choose_at((), 1.0) is None
