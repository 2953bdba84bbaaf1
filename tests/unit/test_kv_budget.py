"""The cache of a local model has a budget: who fits is let in, and what was too much is halved for a while."""

from __future__ import annotations

import threading

from eccos_core.backends.local.generation import Generation, GenerationRow
from eccos_core.backends.local.kv_budget import KvBudget


def row(limit: int, generated: int = 0) -> GenerationRow:
    made = GenerationRow(Generation(({"role": "user", "content": "x"},)), lambda _: None, threading.Event())
    made.limit, made.output = limit, [0] * generated
    return made


def test_without_answers_a_row_is_believed_to_reach_its_limit() -> None:
    budget = KvBudget(100)
    assert budget.forecast(row(30)) == 30
    assert budget.forecast(row(30, generated=10)) == 20
    assert budget.admits([row(40), row(40)], columns=10)  # 2 x (10 + 40)
    assert not budget.admits([row(40), row(41)], columns=10 + 1)


def test_the_forecast_is_the_mean_of_longer_answers() -> None:
    budget = KvBudget(None)
    for tokens in (2, 4, 6, 8, 10, 12, 14, 16):
        budget.record_answer(tokens)
    assert budget.forecast(row(100)) == 9
    assert budget.forecast(row(100, generated=9)) == 13 - 9
    assert budget.forecast(row(5)) == 5
    assert budget.forecast(row(100, generated=16)) == 84  # longer than all


def test_old_answers_are_forgotten() -> None:
    budget = KvBudget(None)
    for tokens in [1000] * 512 + [10] * 512:
        budget.record_answer(tokens)
    assert budget.forecast(row(5000)) == 10


def test_rows_that_end_early_leave_room() -> None:
    """Three rows: all of them until step 2, one until step 50. The peak is 3 x 12 or 1 x 60."""
    budget = KvBudget(60)
    assert budget.admits([row(2), row(2), row(50)], columns=10)
    assert not KvBudget(59).admits([row(2), row(2), row(50)], columns=10)


def test_one_row_alone_always_fits() -> None:
    budget = KvBudget(5)
    assert budget.admits([row(1000)], columns=100)
    assert budget.has_room(1, 100)
    assert not budget.has_room(2, 3)


def test_a_limit_is_halved_and_grows_back_to_what_was_configured() -> None:
    budget = KvBudget(1000)
    budget.grow()
    assert budget.limit == 1000
    budget.shrink(300)
    assert budget.limit == 150
    limits = []
    for _ in range(4):
        budget.grow()
        limits.append(budget.limit)
    assert limits == [300, 600, 1000, 1000]


def test_without_a_configured_limit_none_is_left_in_the_end() -> None:
    budget = KvBudget(None)
    assert budget.has_room(10**6, 10**6)
    budget.shrink(8)
    seen = []
    while budget.limit is not None:
        seen.append(budget.limit)
        budget.grow()
    assert seen == [4, 8, 16, 32]
