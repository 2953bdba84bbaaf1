"""Parts of the dashboard: the cache of answers, the periods, and JSON that every browser reads."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eccos_core.server.ui.answer_cache import MOST_KEPT, AnswerCache
from eccos_core.server.ui.period import MOST_STEPS, PERIODS, period_until
from eccos_core.server.ui.safe_json import safe_json


async def test_many_who_ask_at_once_cost_one_computation() -> None:
    go, computed = threading.Event(), []

    def compute() -> int:
        go.wait(5)
        computed.append(1)
        return len(computed)

    now = [0.0]
    cache: AnswerCache[int] = AnswerCache(5.0, lambda: now[0])
    asking = [asyncio.create_task(cache.get("key", compute)) for _ in range(20)]
    await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*asking) == [1] * 20
    now[0] = 4.9
    assert await cache.get("key", compute) == 1
    assert await cache.get("another key", compute) == 2
    now[0] = 5.1
    assert await cache.get("key", compute) == 3


async def test_an_error_is_told_and_not_kept() -> None:
    cache: AnswerCache[int] = AnswerCache(5.0)

    def fail() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await cache.get("key", fail)
    assert await cache.get("key", lambda: 7) == 7


async def test_one_who_leaves_takes_nobodys_answer_away() -> None:
    go = threading.Event()
    cache: AnswerCache[int] = AnswerCache(5.0)

    def compute() -> int:
        go.wait(5)
        return 3

    leaving, staying = (asyncio.create_task(cache.get("key", compute)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    go.set()
    assert await staying == 3


async def test_old_answers_make_room() -> None:
    cache: AnswerCache[int] = AnswerCache(60.0)
    for key in range(MOST_KEPT + 10):
        await cache.get(key, lambda: 1)
    assert await cache.get(0, lambda: 2) == 2
    assert await cache.get(MOST_KEPT + 9, lambda: 2) == 1


@given(st.sampled_from(sorted(PERIODS)), st.floats(1e9, 2e9), st.floats(0, 1e9))
def test_a_period_has_few_steps_which_cover_it(name: str, until: float, before: float) -> None:
    period = period_until(name, until, until - before)
    assert 1 <= len(period.numbers) <= MOST_STEPS + 2
    assert period.numbers[0] * period.step_s <= period.since
    assert period.until <= (period.numbers[-1] + 1) * period.step_s + 1e-3
    assert period.until == until


def test_json_has_no_number_and_no_letter_that_a_browser_trips_over() -> None:
    found = safe_json({"a": [float("inf"), float("nan"), 1.5, True, None, 3], "b": {"\x1b[2J": "\u202etxt\ud83d"}})
    assert found["a"] == [None, None, 1.5, True, None, 3]
    assert found["b"] == {"\\x1b[2J": "\\u202etxt\ufffd"}
