"""What is charged, also where tokens are missing."""

from __future__ import annotations

import numpy as np
import pytest

from eccos_core.domain import OutcomeTable
from eccos_core.errors import InputError
from eccos_core.evaluation.recorded_cost import PriceTable, filled_input_tokens

NAN = float("nan")
PRICES = {"a": (1e-6, 2e-6), "b": (3e-6, 4e-6)}


def table_of(input_tokens: list[list[float]], output_tokens: list[list[float]]) -> OutcomeTable:
    rows = len(input_tokens)
    return OutcomeTable(
        question_ids=tuple(str(i) for i in range(rows)),
        queries=tuple("one two three four five six seven" for _ in range(rows)),
        models=("a", "b"),
        quality=np.ones((rows, 2)),
        input_tokens=np.array(input_tokens, dtype=np.float64),
        output_tokens=np.array(output_tokens, dtype=np.float64),
    )


def test_cost_is_tokens_times_prices() -> None:
    table = table_of([[10, 20]], [[5, 6]])
    cost = PriceTable.of(PRICES, table).recorded_cost_usd(table)
    assert cost == pytest.approx(np.array([[10e-6 + 10e-6, 60e-6 + 24e-6]]))


def test_missing_output_tokens_are_the_models_own_mean() -> None:
    table = table_of([[10, 10], [10, 10]], [[5, 100], [NAN, 200]])
    cost = PriceTable.of(PRICES, table).recorded_cost_usd(table)
    assert cost[1, 0] == pytest.approx(10e-6 + 5 * 2e-6)


def test_without_any_output_tokens_the_input_alone_is_charged_in_forecasts_too() -> None:
    table = table_of([[10, 10]], [[NAN, NAN]])
    price_table = PriceTable.of(PRICES, table)
    assert price_table.recorded_cost_usd(table) == pytest.approx(np.array([[10e-6, 30e-6]]))
    assert price_table.cost_usd(np.array([[10.0, 10.0]]), np.array([[999.0, 999.0]])) == pytest.approx(
        np.array([[10e-6, 30e-6]])
    )
    assert "input alone" in price_table.notes[0]


def test_one_model_without_output_tokens_is_named() -> None:
    price_table = PriceTable.of(PRICES, table_of([[10, 10]], [[5, NAN]]))
    assert "for b:" in price_table.notes[0]
    assert price_table.output_known.tolist() == [True, False]


def test_missing_input_tokens_are_those_of_the_other_models_or_counted() -> None:
    filled = filled_input_tokens(table_of([[NAN, 30], [NAN, NAN]], [[1, 1], [1, 1]]))
    assert filled.tolist() == [[30, 30], [7, 7]]


def test_a_missing_price_names_the_model_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no price for b\. There are prices for: a\."):
        PriceTable.of({"a": (0, 0)}, table_of([[1, 1]], [[1, 1]]))
