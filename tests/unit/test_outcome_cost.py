"""Recorded cost and several attempts in outcomes files, and costs that contradict prices."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eccos_core.domain import Outcome
from eccos_core.errors import DataError, InputError
from eccos_core.evaluation.recorded_cost import PriceTable
from eccos_core.history import MemoryHistory
from eccos_core.io.outcome_tables import outcomes_of, table_of
from eccos_core.io.outcomes import read_outcomes, write_outcomes
from eccos_core.io.prices import describe_contradicting_costs


def written(folder: Path, output: dict[str, Any]) -> Path:
    path = folder / "outcomes.jsonl"
    path.write_text(json.dumps({"id": "q1", "query": "Why?", "outputs": [{"model": "a", **output}]}) + "\n")
    return path


def test_attempts_are_averaged(tmp_path: Path) -> None:
    runs = [
        {"correct": 1, "output_tokens": 10, "cost_usd": 0.1},
        {"correct": 0, "output_tokens": 21, "cost_usd": 0.3},
        {"error": "timeout", "cost_usd": 0.2},
    ]
    table = read_outcomes(written(tmp_path, {"attempts": runs}))
    assert table.quality.tolist() == [[0.5]]
    assert table.output_tokens.tolist() == [[16.0]]
    assert table.cost_usd == pytest.approx(np.array([[0.2]]))


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"attempts": []}, "attempts is .*must be a list with an object per run"),
        ({"attempts": 3}, "attempts is the number 3, must be a list"),
        ({"attempts": [{"correct": 1}], "correct": 1}, "correct stands beside attempts"),
        ({"attempts": [{"attempts": [{"correct": 1}]}]}, "List all runs side by side"),
        ({"attempts": [{"correct": 1}, {"correct": 2}]}, r"attempts\[1\]: correct is the number 2"),
        ({"correct": 1, "cost_usd": -1}, "cost_usd is the number -1, must be a finite number >= 0"),
        ({"correct": 1, "cost_usd": math.inf}, "cost_usd is"),
        ({"correct": 1, "cost_usd": math.nan}, "cost_usd is"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, output: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_outcomes(written(tmp_path, output))


def test_two_costs_of_one_outcome_are_an_error_that_says_how_to_write_runs(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.jsonl"
    outputs = [{"model": "a", "correct": 1, "cost_usd": cost} for cost in (0.1, 0.2)]
    path.write_text(json.dumps({"id": "q1", "query": "Why?", "outputs": outputs}) + "\n")
    with pytest.raises(DataError, match=r"cost_usd 0\.2 here and 0\.1 on line 1; .*list both runs under attempts"):
        read_outcomes(path)


@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan])
def test_a_history_refuses_an_impossible_cost(wrong: float) -> None:
    vector = np.eye(1, 4, dtype=np.float32)
    with pytest.raises(InputError, match=r"outcome of 'a' for question 'q1': cost_usd is .*finite number >= 0"):
        MemoryHistory("test", 4).add([Outcome("q1", "Why?", "a", 1.0, cost_usd=wrong)], vector)


costs = st.none() | st.floats(0, 1e6)


@settings(max_examples=50, deadline=None)
@given(st.lists(costs, min_size=1, max_size=6))
def test_cost_survives_the_round_trip(tmp_path_factory: pytest.TempPathFactory, recorded: list[float | None]) -> None:
    outcomes = [Outcome(f"q{i}", f"Why {i}?", "a", 0.5, cost_usd=cost) for i, cost in enumerate(recorded)]
    path = tmp_path_factory.mktemp("round") / "outcomes.jsonl"
    write_outcomes(path, table_of(outcomes))
    assert [outcome.cost_usd for outcome in outcomes_of(read_outcomes(path))] == recorded


def test_a_cost_in_another_unit_than_the_price_is_named() -> None:
    outcomes = [
        Outcome(f"q{i}", f"Why {i}?", model, 1.0, 1000, 100, cost_usd=cost)
        for i in range(5)
        for model, cost in (("cents", 0.12), ("right", 0.0015))
    ]
    table = table_of(outcomes)
    prices = {"cents": (1e-6, 2e-6), "right": (1e-6, 2e-6)}
    (warning,) = describe_contradicting_costs(table, prices)
    assert warning.startswith("cents: the recorded cost_usd is 1e+02 times tokens x price (question 'q")
    assert warning in PriceTable.of(prices, table).notes
    assert describe_contradicting_costs(replace(table, cost_usd=None), prices) == []
