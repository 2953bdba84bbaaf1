"""A day's money, kept over restarts and in spite of clocks that jump."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.errors import DataError
from eccos_core.io.daily_budget import DAY_S as DAY
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.daily_spending import SqliteSpending
from eccos_core.learning import LabelJournal


def test_a_day_begins_once_even_if_the_clock_is_set_back(tmp_path: Path) -> None:
    now = [100 * DAY]
    budget = DailyBudget("judge", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: now[0])
    assert budget.reserve(0.8)
    budget.settle(0.8, 0.7)
    assert not budget.reserve(0.4)
    now[0] -= 5 * DAY
    assert not budget.reserve(0.4), "an earlier day is no new day"
    again = DailyBudget("judge", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: 100 * DAY)
    assert again.spent_usd == pytest.approx(0.7), "a restart goes on"
    now[0] = 101 * DAY
    assert budget.reserve(0.9)


def test_money_set_aside_counts_until_it_is_settled() -> None:
    budget = DailyBudget("judge", 1.0)
    assert budget.reserve(0.6)
    assert not budget.reserve(0.6)
    budget.settle(0.6, 0.0)
    assert budget.reserve(0.6)


def test_a_clock_that_was_far_ahead_holds_the_budget_for_a_day_only(tmp_path: Path) -> None:
    now, steady = [100 * DAY], [0.0]
    budget = DailyBudget("judge", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: now[0], lambda: steady[0])
    budget.settle(0.0, 0.8)
    now[0] += 20_000 * DAY
    budget.settle(0.0, 0.5)
    now[0] -= 20_000 * DAY
    assert budget.spent_usd == pytest.approx(0.5), "the newest day goes on"
    steady[0] += DAY
    assert budget.spent_usd == pytest.approx(0.8), "then the clock is believed, and its day is remembered"


def test_two_processes_of_one_file_count_together(tmp_path: Path) -> None:
    both = [
        DailyBudget("judge", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: 100 * DAY) for _ in range(2)
    ]
    assert [each.spent_usd for each in both] == [0.0, 0.0]
    both[0].settle(0.0, 0.6)
    both[1].settle(0.0, 0.3)
    assert both[1].left_usd == pytest.approx(0.1)
    assert not both[1].reserve(0.2)


def test_what_an_older_version_spent_on_exploring_still_counts(tmp_path: Path) -> None:
    path = tmp_path / "learning.sqlite"
    journal = LabelJournal(path)
    assert journal.exploration_usd() == {}
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE exploration (day INTEGER PRIMARY KEY, usd REAL NOT NULL) STRICT")
        connection.execute("INSERT INTO exploration VALUES (20000, 0.7)")
    budget = DailyBudget("exploring", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: 20_000 * DAY)
    for _ in range(2):
        budget.adopt(journal.exploration_usd())
    assert budget.spent_usd == pytest.approx(0.7)
    budget.settle(0.0, 0.2)
    budget.adopt(journal.exploration_usd())
    again = DailyBudget("exploring", 1.0, SqliteSpending(tmp_path / "spending.sqlite"), lambda: 20_000 * DAY)
    assert again.left_usd == pytest.approx(0.1)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "spending.sqlite").write_bytes(b"no database at all, only some words " * 100)
    with pytest.raises(DataError, match=r"spending\.sqlite.*cannot be used to count what was spent"):
        DailyBudget("judge", 1.0, SqliteSpending(tmp_path / "spending.sqlite")).reserve(0.1)


@given(st.lists(st.tuples(st.sampled_from([-3, 0, 0, 1, 2]), st.floats(0.01, 0.5)), max_size=30))
def test_whatever_the_clock_does_no_day_costs_more_than_its_budget(steps: list[tuple[int, float]]) -> None:
    now, days = [100.0], [100.0]
    budget, spent = DailyBudget("judge", 1.0, None, lambda: now[0] * DAY, lambda: 0.0), 0.0
    assert budget.spent_usd == 0.0  # its first day begins
    for jump, usd in steps:
        now[0] += jump
        if now[0] > days[0]:
            days, spent = [now[0]], 0.0
        if budget.reserve(usd):
            budget.settle(usd, usd)
            spent += usd
        assert spent <= 1.0 + 1e-9
        assert budget.spent_usd == pytest.approx(spent)
