"""A day's money, kept over restarts and in spite of clocks that jump."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from eccos_core.errors import DatabaseAwayError, DataError
from eccos_core.io import daily_spending
from eccos_core.io.daily_budget import DAY_S as DAY
from eccos_core.io.daily_budget import DailyBudget
from eccos_core.io.daily_spending import DailySpending, ExchangedSpending, SqliteSpending
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


class MemorySpending(DailySpending):
    """A place that all replicas of a test share. It can be away."""

    def __init__(self) -> None:
        self.place, self.is_away, self.asked = "memory", False, 0
        self.usd: Counter[tuple[str, str]] = Counter()

    def add(self, purpose: str, day: str, usd: float) -> float:
        self.usd[purpose, day] += usd  # type: ignore[assignment]
        return self.read(purpose, day)

    def read(self, purpose: str, day: str) -> float:
        self.asked += 1
        if self.is_away:
            raise DatabaseAwayError(self.place, "away")
        return float(self.usd[purpose, day])


def test_replicas_that_must_not_wait_exchange_what_they_spend() -> None:
    shared, steady = MemorySpending(), [0.0]
    kept = [ExchangedSpending(shared, every_s=3600) for _ in range(2)]
    one, other = (DailyBudget("exploring", 1.0, each, lambda: 100 * DAY, lambda: steady[0]) for each in kept)
    assert (one.left_usd, other.left_usd) == (0.0, 0.0), "nobody explores before it is known what others spent"
    for each in kept:
        each.exchange()
    asked = shared.asked
    assert one.reserve(0.6)
    one.settle(0.6, 0.6)
    assert shared.asked == asked, "no decision asks the place that all share"
    assert one.left_usd == pytest.approx(0.4), "its own spending is known at once"
    for each in kept:
        each.exchange()
    steady[0] += 1.0
    assert other.left_usd == pytest.approx(0.4), "and that of another one after an exchange"
    assert sum(shared.usd.values()) == pytest.approx(0.6)
    for each in kept:
        each.close()
    assert sum(shared.usd.values()) == pytest.approx(0.6), "nothing is counted twice"


def test_without_the_place_that_all_share_nothing_is_explored_and_nothing_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(daily_spending, "MAX_AGE_S", 0.2)
    shared, steady = MemorySpending(), [0.0]
    kept = ExchangedSpending(shared, every_s=0.05)
    budget = DailyBudget("exploring", 1.0, kept, lambda: 100 * DAY, lambda: steady[0])

    def left_is(usd: float) -> bool:
        steady[0] += 1.0
        return budget.left_usd == pytest.approx(usd)

    wait_until(lambda: left_is(1.0), timeout_s=10)
    shared.is_away = True
    wait_until(lambda: left_is(0.0), timeout_s=10)
    budget.settle(0.0, 0.25)  # of a decision that was under way
    shared.is_away = False
    wait_until(lambda: left_is(0.75), timeout_s=10)
    kept.close()
    assert sum(shared.usd.values()) == pytest.approx(0.25)


def test_the_days_before_are_let_go_once_they_are_written() -> None:
    shared = MemorySpending()
    kept = ExchangedSpending(shared, every_s=3600)
    for day in ("2026-01-01", "2026-01-02"):
        with pytest.raises(DatabaseAwayError):
            kept.read("exploring", day)
        kept.exchange()
        kept.add("exploring", day, 0.5)
    kept.exchange()
    kept.exchange()
    assert list(kept._days) == [("exploring", "2026-01-02")]
    assert sorted(shared.usd.values()) == [0.5, 0.5]
    kept.close()
